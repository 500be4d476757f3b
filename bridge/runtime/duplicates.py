"""Repeated events while the bridge runs: which topics are looked at, what is remembered, and what outlives the process.

core/duplicates.py decides. An event is known by its topic, its source (where it tells one) and its id; one without an
id of its own (the decoder then names its place in the log) cannot be repeated. With a store that is at hand (SQLite)
what has finished is kept there too, and lasts before its offset is committed (runtime/lasting.py), so that a restart
knows it. That an event has finished stays true whoever owns its partition meanwhile, so nobody's commits are asked.
With Redis, and with `memory`, each process remembers for itself: what is read may not wait for a network here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from hashlib import blake2b

from bridge.core.duplicates import ENTRIES_MAX, NAME_BYTES, Finished, FinishedIds
from bridge.model import Ending, Event, Record, TopicPartition
from bridge.ports import Clock, Store

PREFIX = "d:"
"""Of registers in a store: behind it the topic, a colon, and the digest."""
_VALUE = struct.Struct(">dIq")

FORGOTTEN = frozenset({Ending.FILTERED, Ending.DUPLICATE})
"""Endings of events of which nothing was to be done."""


class Duplicates:
    """`windows` tells of each topic that is looked at for how long (seconds) its finished ids are remembered."""

    def __init__(
        self,
        windows: Mapping[str, float],
        *,
        clock: Clock,
        store: Store | None = None,
        entries_max: int = ENTRIES_MAX,
    ) -> None:
        self._ids = {topic: FinishedIds(window, entries_max=entries_max) for topic, window in windows.items()}
        self._clock = clock
        self._store = store if store is not None and store.lasting and store.local else None

    async def load(self) -> None:
        """Takes in what the store keeps, and takes out what it kept long enough. Blocks; raises StoreFailed."""
        store = self._store
        if store is None:
            return
        found: dict[str, list[tuple[bytes, Finished]]] = {topic: [] for topic in self._ids}
        async for register, value in store.scan(PREFIX):
            topic, _, digest = register.removeprefix(PREFIX).rpartition(":")
            done = _decoded(value)
            if done is None or topic not in found:
                store.delete(register)  # damaged, or of a topic that is not looked at any more
            else:
                found[topic].append((bytes.fromhex(digest), done))
        for topic, entries in found.items():
            self._ids[topic].load(entries)
            self._forget_old(topic)

    @property
    def remembered(self) -> int:
        return sum(map(len, self._ids.values()))

    def begins(self, event: Event) -> bool:
        """An event is read: whether it is a duplicate."""
        record = event.record
        ids = self._ids.get(record.topic)
        if ids is None or event.id == record.place:
            return False
        return ids.begin(_name(event), (record.partition, record.offset), self._clock.wall())

    def ended(self, record: Record, ending: Ending) -> None:
        """A record has finished."""
        ids = self._ids.get(record.topic)
        if ids is None:
            return
        wall = self._clock.wall()
        kept = ids.end((record.partition, record.offset), wall, remember=ending not in FORGOTTEN)
        if kept is None:
            return
        name, done = kept
        if self._store is not None:
            self._store.put(_register(record.topic, name), _VALUE.pack(done.wall, *done.place))
        self._forget_old(record.topic)

    def gone(self, partitions: Iterable[TopicPartition]) -> None:
        """Nothing of these is under way any more."""
        for partition in partitions:
            ids = self._ids.get(partition.topic)
            if ids is not None:
                ids.drop(partition.partition)

    def _forget_old(self, topic: str) -> None:
        for name in self._ids[topic].old(self._clock.wall()):
            if self._store is not None:
                self._store.delete(_register(topic, name))


def _name(event: Event) -> bytes:
    text = f"{len(event.source or '')} {event.source or ''} {event.id}"
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=NAME_BYTES).digest()


def _register(topic: str, name: bytes) -> str:
    return f"{PREFIX}{topic}:{name.hex()}"


def _decoded(value: bytes) -> Finished | None:
    try:
        wall, partition, offset = _VALUE.unpack(value)
    except struct.error:
        return None
    return Finished(wall, (partition, offset))
