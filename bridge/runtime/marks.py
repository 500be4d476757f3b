"""Marks of started triggers: a commit tells that a trigger starts, and only its acknowledgement lets it leave.

See delivery.md, "Unknown outcome, without a database", for why; core/progress.py for how it is written down.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from typing import Protocol

from bridge.core.progress import STARTED_EXTRA, digest
from bridge.model import Action, Record
from bridge.ports import Clock
from bridge.runtime.partition import Mark, Partition


class Marks(Protocol):
    """Where it is kept that a trigger has started, so that it outlives this process (core/progress.py)."""

    def started_wall(self, record: Record, action: Action) -> float | None:
        """When the action first left, if that was before it was planned here."""

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

    def crowded(self, record: Record) -> bool:
        """Whether this is the frontier of a window that is more than three quarters full: it goes first."""


class NoMarks:
    """Without a log that keeps them (tests, one-off deliveries): a trigger leaves at once."""

    def started_wall(self, record: Record, action: Action) -> float | None:
        return None

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

    def crowded(self, record: Record) -> bool:
        return False


class StartMarks:
    """Implements Marks over the partitions' offsets. `started_max` marks fit into one commit."""

    def __init__(
        self,
        *,
        owned: Callable[[Record], Partition | None],
        identify: Callable[[Record, Action], str],
        clock: Clock,
        started_max: int,
        commit_now: Callable[[], None],
        commit_soon: Callable[[Partition], None],
    ) -> None:
        self._owned = owned
        self.identify = identify
        self._clock = clock
        self._started_max = started_max
        self._commit_now = commit_now
        self._commit_soon = commit_soon
        self._numbers = itertools.count()

    def started_wall(self, record: Record, action: Action) -> float | None:
        partition = self._owned(record)
        triggers = partition.offsets.started.get(record.offset) if partition is not None else None
        # Zero stands for delivered: nothing is in doubt about that.
        return (triggers.get(digest(self.identify(record, action))) or None) if triggers else None

    def place(self, record: Record, action: Action, again: Callable[[], None]) -> bool:
        """Makes the mark if there is room for it; else False, and `again` is called when there may be.

        A trigger in doubt keeps its place, so it never waits here for its repeat; only what never left does. The event
        at the frontier always finds room: something can always go, whatever holds the places.
        """
        partition = self._owned(record)
        if partition is None or partition.closing:
            return True  # `start` will say that it may not leave
        offsets = partition.offsets
        name = digest(self.identify(record, action))
        if name in offsets.started.get(record.offset, ()):
            return True
        most = self._started_max + (STARTED_EXTRA if record.offset == offsets.frontier else 0)
        if offsets.started_count >= most:
            heapq.heappush(partition.unmarked, (record.offset, next(self._numbers), again))
            return False
        offsets.note_started(record.offset, name, int(self._clock.wall()))
        return True

    async def start(self, record: Record, action: Action) -> bool:
        """Waits until a commit that tells the trigger's mark is acknowledged; False where that will not be."""
        partition = self._owned(record)
        if partition is None or partition.closing:
            return False
        name = digest(self.identify(record, action))
        if partition.offsets.start_told(record.offset, name):
            return True
        kept: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        partition.marks.append(Mark(record.offset, name, kept))
        self._commit_now()
        return await kept

    def clear(self, record: Record, action: Action) -> None:
        partition = self._owned(record)
        if partition is not None and partition.offsets.started:
            partition.offsets.clear_started(record.offset, digest(self.identify(record, action)))
            self.make_room(partition)
            self._commit_soon(partition)

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

    def crowded(self, record: Record) -> bool:
        return False

    def make_room(self, partition: Partition) -> None:
        """Calls those again for whose marks there was no room."""
        waiting, frontier = partition.unmarked, partition.offsets.frontier
        free = self._started_max - partition.offsets.started_count
        while waiting and (free > 0 or waiting[0][0] == frontier):
            free -= 1
            heapq.heappop(waiting)[2]()

    def answer(self, partition: Partition) -> None:
        """Lets the triggers go whose marks an acknowledged commit has told."""
        waiting = []
        for mark in partition.marks:
            if not partition.offsets.start_told(mark.offset, mark.digest):
                waiting.append(mark)
            elif not mark.kept.done():
                mark.kept.set_result(True)
        partition.marks = waiting

    def drop(self, partition: Partition) -> None:
        """The partition goes: what waits here is unsent, and hears that it may not leave."""
        partition.offsets.drop_untold_starts()
        for mark in partition.marks:
            if not mark.kept.done():
                mark.kept.set_result(False)
        partition.marks.clear()
        partition.unmarked.clear()
