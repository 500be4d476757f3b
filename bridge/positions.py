"""Where the group stands in its topics, and what setting it elsewhere would do; for `meisa-bridge offsets`.

A reset writes an offset and, beside it, new text (core/progress.py). Of the text that was there
    dropped   what finished, and what was delivered, beyond the frontier: it is to be done again, or never
    kept      what was used of the quota: a rewind buys no calls. Triggers that have started and are not known to be
              sent, where they are read again: the key that makes a repetition harmless ages from that first start. How
              far intake had come, where that is within a window: upserts wait until it is there again, so that no older
              state is sent over a newer one (delivery.md, 22). What is read again counts as first read at the reset,
              so that what is too old by then is history, not a dead letter
    new       an assignment id that nobody has: text that no instance has written, so that what instances keep by
              commits (runtime/unchanged.py, runtime/lazy_store.py) is not believed
Text of ours that cannot be read stays as it is: whatever it told of triggers and quota, it is respected as unreadable.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from bridge.core.progress import (
    ASSIGNMENT_BYTES,
    DELIVERED,
    DoesNotFit,
    Progress,
    decode,
    encode,
    finished_offsets,
    ours,
    window_limit,
)
from bridge.core.reader import BITMAP_BYTES_MAX
from bridge.core.shares import read as read_spend
from bridge.errors import BridgeError
from bridge.kafka.groups import Committed
from bridge.kafka.sample import Slice
from bridge.model import Event, Kind, Plan, Record, TopicPartition

READ_MAX = 100_000
"""Records read to say what a reset does: about ten seconds."""
CHUNK = 5_000
"""Records in memory at once."""
DISTANCE_MAX = BITMAP_BYTES_MAX * 8
"""Progress tells of nothing farther from its offset."""


class Standing(NamedTuple):
    """One partition: the log, and where the group is in it."""

    partition: TopicPartition
    start: int
    """The log's first offset."""
    end: int
    """The offset after its last."""
    committed: int | None
    """None where the group has no offset."""
    metadata: str
    progress: Progress | None
    """None where nothing is told, or it cannot be read."""

    @classmethod
    def of(cls, log: Slice, committed: Committed | None) -> Standing:
        if committed is None:
            return cls(log.partition, log.start, log.end, None, "", None)
        progress = decode(committed.offset, committed.metadata)
        return cls(log.partition, log.start, log.end, committed.offset, committed.metadata, progress)

    @property
    def unreadable(self) -> bool:
        """Whether the text beside the offset is ours, damaged or of a newer version."""
        return self.progress is None and ours(self.metadata)

    @property
    def lag(self) -> int | None:
        return None if self.committed is None else max(0, self.end - max(self.committed, self.start))

    @property
    def finished(self) -> list[int]:
        """Offsets beyond the committed one that have finished."""
        if self.progress is None or self.committed is None:
            return []
        return [offset for offset in finished_offsets(self.progress) if offset >= self.committed]

    @property
    def started(self) -> dict[int, list[int]]:
        """Offset → when (wall) its triggers started that are not known to be sent."""
        told = self.progress.started if self.progress is not None else {}
        found = {offset: [wall for wall in each.values() if wall != DELIVERED] for offset, each in told.items()}
        return {offset: walls for offset, walls in found.items() if walls}

    @property
    def came_to(self) -> int:
        """The offset after the highest that was ever taken in, as far as it is told."""
        seen = self.progress.seen if self.progress is not None else None
        return max(self.committed or 0, seen or 0)

    def spend(self, windows: int) -> Mapping[str, list[int]]:
        """Of each key, of each window, the calls that counted when the commit was made."""
        told = self.progress.spend if self.progress is not None else None
        read = read_spend(told, windows) if told is not None else None
        if read is None:
            return {}
        return {key: [still_open + sum(ended) for still_open, ended in cells] for key, cells in read.keys.items()}


class Move(NamedTuple):
    """A partition's reset."""

    standing: Standing
    target: int

    @property
    def again(self) -> Slice:
        """The offsets in which something that has finished is read again."""
        standing = self.standing
        beyond = standing.finished[-1] + 1 if standing.finished else 0
        end = max(standing.committed or 0, beyond) if standing.committed is not None else self.target
        return Slice(standing.partition, max(self.target, standing.start), min(end, standing.end))

    @property
    def skipped(self) -> Slice:
        """The offsets in which something that has not finished is never read."""
        standing = self.standing
        begin = max(standing.committed or 0, standing.start)
        return Slice(standing.partition, begin, self.target if standing.committed is not None else begin)

    def text(self, wall: float, topic_hash: int | None, limit_bytes: int) -> str:
        """What stands beside the new offset: see the module's text."""
        standing, target = self.standing, self.target
        if standing.unreadable:
            return standing.metadata
        old = standing.progress or Progress(0)
        started = {
            offset: {digest: at for digest, at in each.items() if at != DELIVERED}
            for offset, each in old.started.items()
            if offset in standing.started and target <= offset < target + DISTANCE_MAX
        }
        near = target < standing.came_to <= target + window_limit(limit_bytes)
        progress = Progress(
            target & ~7,
            started=started,
            seen=standing.came_to if near else None,
            since_wall=int(wall) if near else 0,
            unsure_below=old.unsure_below if old.unsure_below and old.unsure_below < target + DISTANCE_MAX else None,
            topic=topic_hash if topic_hash is not None else old.topic,
            spend=old.spend,
            assignment=secrets.token_bytes(ASSIGNMENT_BYTES),
        )
        try:
            return encode(target, progress, limit_bytes)
        except DoesNotFit:  # of an owner with a larger limit
            return encode(target, progress._replace(started={}), limit_bytes)


@dataclass(slots=True)
class Consequence:
    """What records plan, by the present rules."""

    length: int = 0
    """Offsets that it is about."""
    looked_at: int = 0
    """Of these, so many: the youngest."""
    events: int = 0
    undecodable: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    """Actions by kind that would be carried out; of triggers see below."""
    triggers: Counter[str] = field(default_factory=Counter)
    """By key, those that `max_age` does not stop."""
    stopped: Counter[str] = field(default_factory=Counter)
    """By key, those that it stops."""

    @property
    def complete(self) -> bool:
        return self.looked_at >= self.length

    def add(self, plan: Plan, event: Event, wall: float) -> None:
        self.events += 1
        for action in plan.actions:
            limit = action.handling.max_age_seconds
            too_old = limit is not None and wall - event.time_wall_seconds > limit
            if action.kind is Kind.TRIGGER:
                key = str(action.body.get("trigger_key"))
                (self.stopped if too_old else self.triggers)[key] += 1
            elif not too_old:
                self.calls[action.kind.value] += 1


Read = Callable[[Sequence[Slice]], Iterable[Record]]
Decoders = Mapping[str, Callable[[Record], Event | None]]


def consequence(
    parts: Mapping[TopicPartition, Slice],
    concerned: Callable[[Record], bool],
    *,
    read: Read,
    decoders: Decoders,
    plan: Callable[[Event], Plan],
    wall: float,
    most: int = READ_MAX,
    told: Callable[[int], None] = lambda count: None,
) -> Consequence:
    """What the records of these slices plan, as far as they are `concerned`. Of more than `most` the youngest are read:
    `max_age` stops what older ones would trigger first."""
    found = Consequence(length=sum(max(0, each.length) for each in parts.values()))
    for each in chunks([each for each in parts.values() if each.length > 0], most):
        found.looked_at += each.length
        for record in read([each]):
            if not concerned(record):
                continue
            try:
                event = decoders[record.topic](record)
            except BridgeError:
                found.undecodable += 1
                continue
            if event is not None:
                found.add(plan(event), event, wall)
        told(each.length)
    return found


def chunks(slices: Sequence[Slice], most: int) -> list[Slice]:
    """Slices short enough to be held in memory, of the ends of those given, `most` offsets in all."""
    found = []
    left = most
    for position, each in enumerate(sorted(slices, key=lambda each: each.length)):
        share = min(each.length, left // (len(slices) - position))
        left -= share
        end = each.end
        while share > 0:
            size = min(CHUNK, share)
            found.append(Slice(each.partition, end - size, end))
            end, share = end - size, share - size
    return found
