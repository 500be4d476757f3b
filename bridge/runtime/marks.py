"""What progress must tell before an action may leave, so that it outlives this process.

    place, start, clear    triggers: a commit tells that one starts, and only its acknowledgement lets it leave
    claim, unclaim         actions of events that go on after them: a place to tell that they were carried out
    seen, see              upserts: a commit tells how far intake had come before one of them leaves
    recovering             upserts after a crash: they wait until intake is there again, and merge

See delivery.md, "Unknown outcome, without a database" and cases 3 and 22, for why; core/progress.py for how it is
written down, core/offsets.py for the room that there is.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Mapping
from typing import Protocol

from bridge.core.progress import digest
from bridge.model import Action, Kind, Record, TopicPartition
from bridge.ports import Clock
from bridge.runtime.partition import Mark, Partition, Sight, Waiters


class Marks(Protocol):
    """See the module's text. What is asked for a partition that is not owned any more may not leave."""

    def started_wall(self, record: Record, action: Action) -> float | None:
        """When the action first left, if that was before it was planned here."""

    def unsure(self, record: Record, action: Action) -> bool:
        """Whether `started_wall` is a guess: it may have left then, and may never have left at all."""

    def place(self, record: Record, action: Action, again: Callable[[], None]) -> bool:
        """Makes the mark if there is room for it; else False, and `again` is called when there may be."""

    async def start(self, record: Record, action: Action) -> bool:
        """Returns True once the mark is kept for sure: only then may the trigger leave. False: it may not any more."""

    def clear(self, record: Record, action: Action) -> None:
        """No attempt of it can have been carried out, or it has ended."""

    def claim(self, record: Record, action: Action, again: Callable[[], None]) -> bool:
        """Makes sure that progress has room to tell that the action was carried out while its event goes on.

        Asked before an action leaves whose event has others that have not ended; asking twice is harmless. False where
        there is no room now, and `again` is called when there may be. The event at the frontier always finds room.
        """

    def unclaim(self, record: Record, action: Action) -> None:
        """It will not be told: it ended otherwise, or its event finished with it."""

    def recovering(self, record: Record, again: Callable[[], None]) -> bool:
        """Whether an upsert up to this record has to wait, because an earlier owner may have sent later ones already.

        `again` is called once intake has passed what that owner had seen: then all of them have merged.
        """

    def seen(self, record: Record) -> bool:
        """Whether an acknowledged commit told that intake went beyond this record; only then may its upsert leave."""

    async def see(self, record: Record) -> bool:
        """Waits until `seen`; False where the partition went before."""

    def repeats(self, record: Record) -> bool:
        """Whether an upsert of this record may have left before it was read here."""

    def crowded(self, name: TopicPartition) -> bool:
        """Whether the partition's window is more than three quarters full: its oldest goes first."""


class NoMarks:
    """Without a log that keeps them (tests, one-off deliveries): a trigger leaves at once."""

    def started_wall(self, record: Record, action: Action) -> float | None:
        return None

    def unsure(self, record: Record, action: Action) -> bool:
        return False

    def place(self, record: Record, action: Action, again: Callable[[], None]) -> bool:
        return True

    async def start(self, record: Record, action: Action) -> bool:
        return True

    def clear(self, record: Record, action: Action) -> None:
        pass

    def claim(self, record: Record, action: Action, again: Callable[[], None]) -> bool:
        return True

    def unclaim(self, record: Record, action: Action) -> None:
        pass

    def recovering(self, record: Record, again: Callable[[], None]) -> bool:
        return False

    def seen(self, record: Record) -> bool:
        return True

    async def see(self, record: Record) -> bool:
        return True

    def repeats(self, record: Record) -> bool:
        return False

    def crowded(self, name: TopicPartition) -> bool:
        return False


class PartitionMarks:
    """Implements Marks over the partitions' offsets."""

    def __init__(
        self,
        *,
        owned: Callable[[Record], Partition | None],
        partitions: Mapping[TopicPartition, Partition],
        identify: Callable[[Record, Action], str],
        clock: Clock,
        commit_now: Callable[[], None],
        commit_soon: Callable[[Partition], None],
    ) -> None:
        self._owned = owned
        self._partitions = partitions
        self.identify = identify
        self._clock = clock
        self._commit_now = commit_now
        self._commit_soon = commit_soon
        self._numbers = itertools.count()

    def _open(self, record: Record) -> Partition | None:
        partition = self._owned(record)
        return None if partition is None or partition.closing else partition

    def _digest(self, record: Record, action: Action) -> int:
        return digest(self.identify(record, action))

    # Triggers

    def started_wall(self, record: Record, action: Action) -> float | None:
        """When the action first left, or may have: then its record's time is as early as that can have been.

        It may have where a former owner's progress could not be read. A record without a time counts as old.
        """
        partition = self._owned(record)
        if partition is None:
            return None
        offsets = partition.offsets
        triggers = offsets.started.get(record.offset)
        if triggers:
            wall = triggers.get(self._digest(record, action))
            if wall is not None:
                return wall or None  # zero stands for delivered: nothing is in doubt about that
        if record.offset < offsets.unsure_below:
            return max(1.0, record.timestamp_ms / 1000)
        return None

    def unsure(self, record: Record, action: Action) -> bool:
        partition = self._owned(record)
        if partition is None or record.offset >= partition.offsets.unsure_below:
            return False
        return self._digest(record, action) not in partition.offsets.started.get(record.offset, ())

    def place(self, record: Record, action: Action, again: Callable[[], None]) -> bool:
        """Makes the mark if there is room for it; else False, and `again` is called when there may be.

        A trigger in doubt keeps its place, so it never waits here for its repeat; only what never left does. The event
        at the frontier always finds room: something can always go, whatever holds the places.
        """
        partition = self._open(record)
        if partition is None:
            return True  # `start` will say that it may not leave
        offsets = partition.offsets
        name = self._digest(record, action)
        if name in offsets.started.get(record.offset, ()):
            return True
        if not offsets.place_fits(record.offset):
            heapq.heappush(partition.unmarked, (record.offset, next(self._numbers), again))
            return False
        since = self.started_wall(record, action)
        offsets.note_started(record.offset, name, int(self._clock.wall() if since is None else since))
        return True

    async def start(self, record: Record, action: Action) -> bool:
        """Waits until a commit that tells the trigger's mark is acknowledged; False where that will not be."""
        partition = self._open(record)
        if partition is None:
            return False
        name = self._digest(record, action)
        if partition.offsets.start_told(record.offset, name):
            return True
        kept: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        partition.marks.append(Mark(record.offset, name, kept))
        self._commit_now()
        return await kept

    def clear(self, record: Record, action: Action) -> None:
        partition = self._owned(record)
        if partition is not None and partition.offsets.started:
            partition.offsets.clear_started(record.offset, self._digest(record, action))
            self.make_room(partition)
            self._commit_soon(partition)

    # Actions of events that go on

    def claim(self, record: Record, action: Action, again: Callable[[], None]) -> bool:
        """Triggers need none: their mark has a place of its own, and stays until the event finishes."""
        if action.kind is Kind.TRIGGER:
            return True
        partition = self._open(record)
        if partition is None or partition.offsets.claim(record.offset, self._digest(record, action)):
            return True
        heapq.heappush(partition.unclaimed, (record.offset, next(self._numbers), again))
        return False

    def unclaim(self, record: Record, action: Action) -> None:
        partition = self._owned(record)
        if partition is not None and action.kind is not Kind.TRIGGER:
            partition.offsets.unclaim(record.offset, self._digest(record, action))
            self.make_room(partition)

    # Upserts

    def recovering(self, record: Record, again: Callable[[], None]) -> bool:
        partition = self._open(record)
        if partition is None or not partition.recovering or record.offset >= partition.offsets.arrivals.seen:
            return False
        partition.recovered.append(again)
        return True

    def seen(self, record: Record) -> bool:
        partition = self._open(record)
        return partition is not None and partition.offsets.seen_told(record.offset)

    async def see(self, record: Record) -> bool:
        partition = self._open(record)
        if partition is None:
            return False
        if partition.offsets.seen_told(record.offset):
            return True
        told: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        partition.sights.append(Sight(record.offset, told))
        self._commit_now()
        return await told

    def repeats(self, record: Record) -> bool:
        partition = self._owned(record)
        return partition is not None and record.offset < partition.offsets.arrivals.seen

    def crowded(self, name: TopicPartition) -> bool:
        partition = self._partitions.get(name)
        return partition is not None and partition.offsets.crowded

    # For the engine

    def make_room(self, partition: Partition) -> None:
        """Calls those again for whom there was no room, the lowest offset first, as many as there may be room for.

        Some of them may be gone, and take nothing: the next look makes up for it (runtime/engine.py).
        """
        offsets = partition.offsets
        due = _due(partition.unmarked, offsets.started_max - offsets.started_count, offsets.frontier)
        due += _due(partition.unclaimed, offsets.claims_free, offsets.frontier)
        for again in due:
            again()

    def answer(self, partition: Partition) -> None:
        """Lets those go whose marks, or whose sight, an acknowledged commit has told."""
        offsets = partition.offsets
        marks, partition.marks = partition.marks, []
        for mark in marks:
            if not offsets.start_told(mark.offset, mark.digest):
                partition.marks.append(mark)
            elif not mark.kept.done():
                mark.kept.set_result(True)
        sights, partition.sights = partition.sights, []
        for sight in sights:
            if not offsets.seen_told(sight.offset):
                partition.sights.append(sight)
            elif not sight.told.done():
                sight.told.set_result(True)

    def drop(self, partition: Partition) -> None:
        """The partition goes: what waits here is unsent, and hears that it may not leave."""
        partition.offsets.drop_untold_starts()
        for mark in partition.marks:
            if not mark.kept.done():
                mark.kept.set_result(False)
        for sight in partition.sights:
            if not sight.told.done():
                sight.told.set_result(False)
        partition.marks.clear()
        partition.sights.clear()
        partition.unmarked.clear()
        partition.unclaimed.clear()
        partition.recovered.clear()


def _due(waiting: Waiters, free: int, frontier: int | None) -> list[Callable[[], None]]:
    """Takes out as many as there is room for, and all of the event at the frontier."""
    due = []
    while waiting and (free > 0 or waiting[0][0] == frontier):
        free -= 1
        due.append(heapq.heappop(waiting)[2])
    return due
