"""Marks of started triggers: a commit tells that a trigger starts, and only its acknowledgement lets it leave.

See delivery.md, "Unknown outcome, without a database", for why; core/progress.py for how it is written down.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from bridge.core.progress import digest
from bridge.model import Action, Record
from bridge.ports import Clock
from bridge.runtime.partition import Mark, Partition


class StartMarks:
    """Implements runtime.delivery.Marks over the partitions' offsets. `started_max` marks fit into one commit."""

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

    def started_wall(self, record: Record, action: Action) -> float | None:
        partition = self._owned(record)
        triggers = partition.offsets.started.get(record.offset) if partition is not None else None
        return triggers.get(digest(self.identify(record, action))) if triggers else None

    async def start(self, record: Record, action: Action) -> bool:
        """Tells in a commit that the trigger starts now, and waits for that commit's acknowledgement."""
        loop = asyncio.get_running_loop()
        name = digest(self.identify(record, action))
        while True:
            partition = self._owned(record)
            if partition is None or partition.closing:
                return False
            offsets = partition.offsets
            known = name in offsets.started.get(record.offset, ())
            if known or sum(map(len, offsets.started.values())) < self._started_max:
                break
            room: asyncio.Future[bool] = loop.create_future()
            partition.unmarked.append(room)
            if not await room:
                return False
        change = offsets.note_started(record.offset, name, int(self._clock.wall()))
        if change <= offsets.told:
            return True
        kept: asyncio.Future[bool] = loop.create_future()
        partition.marks.append(Mark(change, record.offset, name, kept, first=not known))
        self._commit_now()
        return await kept

    def clear(self, record: Record, action: Action) -> None:
        partition = self._owned(record)
        if partition is not None and partition.offsets.started:
            partition.offsets.clear_started(record.offset, digest(self.identify(record, action)))
            self.make_room(partition)
            self._commit_soon(partition)

    def make_room(self, partition: Partition) -> None:
        """Lets triggers be marked for which there was no room."""
        free = self._started_max - sum(map(len, partition.offsets.started.values()))
        while partition.unmarked and free > 0:
            waiting = partition.unmarked.popleft()
            if not waiting.done():
                waiting.set_result(True)
                free -= 1

    def answer(self, partition: Partition) -> None:
        """Lets the triggers go whose marks an acknowledged commit has told."""
        told = partition.offsets.told
        for mark in partition.marks:
            if mark.change <= told and not mark.kept.done():
                mark.kept.set_result(True)
        partition.marks = [mark for mark in partition.marks if not mark.kept.done()]

    def drop(self, partition: Partition) -> None:
        """The partition goes: what waits here is unsent, and hears that it may not leave."""
        for mark in partition.marks:
            if mark.first:  # now, not when the trigger hears of it: the last commit must not tell a start that was none
                partition.offsets.clear_started(mark.offset, mark.digest)
            if not mark.kept.done():
                mark.kept.set_result(False)
        for room in partition.unmarked:
            if not room.done():
                room.set_result(False)
        partition.marks.clear()
        partition.unmarked.clear()
