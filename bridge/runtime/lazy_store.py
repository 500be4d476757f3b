"""What a state store keeps of lazy fields: read when a partition comes, and believed only if nobody came between.

A store that all instances share is always right: each owner wrote to it. In a file of its own an instance finds what it
kept when it last owned the partition; another owner may have sent newer values since. So the file keeps, beside values,
the last commits that were asked for: where what is committed now is one of these, nobody else has done anything since.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Sequence
from hashlib import blake2b
from typing import Any

import structlog

from bridge.core.lazy import LazyValues
from bridge.core.lazy_entries import partition_prefix
from bridge.errors import StoreFailed
from bridge.model import Assigned, Position, TopicPartition
from bridge.ports import Clock, Store

log = structlog.get_logger(__name__)

ASKED_MAX = 4
"""Commits of a partition that the store remembers: one under way, those of a revocation, and the one before."""
READ_AGAIN_SECONDS = 5.0
"""Between attempts to read a store that does not answer."""


class KeptInStore:
    """`taken` hears that values came; `task` runs what has to wait."""

    def __init__(
        self,
        store: Store,
        values: LazyValues,
        clock: Clock,
        taken: Callable[[], None],
        task: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._store = store
        self._values = values
        self._clock = clock
        self._taken = taken
        self._task = task
        self._epochs: dict[TopicPartition, int] = {}
        self._asked: dict[TopicPartition, deque[str]] = {}
        """The last commits that were asked for, of partitions that have, or had, entries."""

    def read(self, new: Assigned) -> None:
        """The partition is ours: takes in what the store keeps of it, now if it is at hand."""
        self._epochs[new.partition] = new.epoch
        store = self._store
        if store.local:
            try:
                self._take(new, _at_once(store.scan(partition_prefix(new.partition))))
                return
            except StoreFailed as error:
                self._unreadable(new, error)
        self._task(self._read(new))

    async def _read(self, new: Assigned) -> None:
        while self._epochs.get(new.partition) == new.epoch:
            try:
                found = [each async for each in self._store.scan(partition_prefix(new.partition))]
                if self._epochs.get(new.partition) == new.epoch:
                    self._take(new, found)
                return
            except StoreFailed as error:
                self._unreadable(new, error)
            await asyncio.sleep(READ_AGAIN_SECONDS)

    def _take(self, new: Assigned, found: Sequence[tuple[str, bytes]]) -> None:
        """Takes in what the store keeps of a partition. Raises StoreFailed."""
        if found and self._store.local and not self._nobody_between(new):
            for name, _ in found:
                self._store.delete(name)
            log.warning(
                "kept values of lazy fields are dropped: another instance owned their partition meanwhile, and may "
                "have sent newer ones; a store that all instances share (redis) would have kept them",
                partition=str(new.partition),
                contacts=len(found),
            )
            return
        wall, full = self._clock.wall(), 0
        for name, value in found:
            full += not self._values.load(new.partition, name, value, wall, fresh=new.fresh)
        if full:
            log.warning(
                "there is no room for kept values of lazy fields: they stay in the store, and are not sent before the "
                "partition is assigned again",
                contacts=full,
            )
        self._taken()

    @staticmethod
    def _unreadable(new: Assigned, error: StoreFailed) -> None:
        log.error(
            "kept values of lazy fields cannot be read yet; it is tried again",
            partition=str(new.partition),
            error=str(error),
        )

    def _nobody_between(self, new: Assigned) -> bool:
        """Whether what is committed for the partition was asked for by owners with this store: nobody came between."""
        committed = new.offset if new.committed is None else new.committed
        if committed is None or (new.fresh and new.committed is None):
            return True  # nobody has committed anything
        kept = self._store.get(_position_name(new.partition))
        asked = [] if kept is None else kept.decode(errors="replace").split(",")
        if _position_text(committed, new.metadata) not in asked:
            return False
        self._asked[new.partition] = deque(asked, maxlen=ASKED_MAX)
        return True

    def committing(self, positions: Sequence[Position]) -> None:
        """A commit is asked for: the store keeps what, beside the values that it covers."""
        if not self._store.local:
            return
        for position in positions:
            asked = self._asked.get(position.partition)
            if asked is None:
                if not self._values.of(position.partition):
                    continue
                asked = self._asked[position.partition] = deque(maxlen=ASKED_MAX)
            asked.append(_position_text(position.offset, position.metadata))
            self._store.put(_position_name(position.partition), ",".join(asked).encode())

    def withdraw(self, partitions: Iterable[TopicPartition]) -> None:
        """What is being read of these belongs to other owners."""
        for partition in partitions:
            self._epochs.pop(partition, None)


def _position_name(partition: TopicPartition) -> str:
    return f"q:{partition}"


def _position_text(offset: int, metadata: str) -> str:
    return blake2b(f"{offset} {metadata}".encode(), digest_size=8).hexdigest()


def _at_once(scanned: AsyncGenerator[tuple[str, bytes], None]) -> list[tuple[str, bytes]]:
    """What a local store's scan yields: it never waits, so it needs no task."""
    found: list[tuple[str, bytes]] = []

    async def read() -> None:
        async for each in scanned:
            found.append(each)

    step = read()
    try:
        step.send(None)
    except StopIteration:
        return found
    step.close()
    raise StoreFailed("a local store waited")
