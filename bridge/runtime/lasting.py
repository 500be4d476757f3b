"""What records have taught lasts before their offsets are committed: a record that is passed is never read again.

A request for a commit goes to Kafka only after the state store has kept all that was put before the request was made;
requests keep their order. Where the store cannot be written, commits wait and it is tried again: the records come again
after a restart, and teach the same. Calls go on for as long as the group's word is fresh (runtime/commits.py).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Sequence

import structlog

from bridge.errors import StoreFailed
from bridge.model import Position, TopicPartition, Waiting
from bridge.ports import Store

log = structlog.get_logger(__name__)

AGAIN_SECONDS = 0.1
AGAIN_SECONDS_MAX = 5.0
"""Between attempts to write to a store that cannot be written."""


class Lasting:
    """`commit` hands a request to Kafka; `asked` hears of each request before, and may put something beside it."""

    def __init__(
        self,
        store: Store,
        commit: Callable[[Sequence[Position]], None],
        asked: Callable[[Sequence[Position]], None] = lambda positions: None,
    ) -> None:
        self._store = store
        self._commit = commit
        self._asked = asked
        self._waiting: deque[Sequence[Position]] = deque()
        """Requests: one under way per partition, and those of a revocation."""
        self._task: asyncio.Task[None] | None = None
        self.trouble = ""
        """Why the store cannot be written; empty while it can."""

    def commit(self, positions: Sequence[Position]) -> None:
        self._asked(positions)
        if self._task is None and not self._store.dirty:
            self._commit(positions)
            return
        self._waiting.append(positions)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        again = AGAIN_SECONDS
        try:
            while self._waiting:
                requests = len(self._waiting)
                try:
                    await self._store.flush()
                except StoreFailed as error:
                    if not self.trouble:
                        log.error(
                            "the state store cannot be written: nothing is committed until it can, and what was done "
                            "since may be done again after a restart",
                            error=str(error),
                        )
                    self.trouble = str(error)
                    await asyncio.sleep(again)
                    again = min(again * 2, AGAIN_SECONDS_MAX)
                    continue
                if self.trouble:
                    log.info("the state store can be written again; commits go on")
                    self.trouble = ""
                again = AGAIN_SECONDS
                for _ in range(requests):
                    positions = self._waiting.popleft()
                    if positions:  # else all of them were withdrawn
                        self._commit(positions)
        finally:
            self._task = None

    def withdraw(self, partitions: Collection[TopicPartition]) -> None:
        """These went to other owners: nothing of them is committed any more, also once they have come back."""
        gone = set(partitions)
        # Emptied and not taken out: who runs has counted them.
        self._waiting = deque(
            [position for position in positions if position.partition not in gone] for positions in self._waiting
        )

    async def close(self) -> None:
        """What waits is not committed; what can be written still is."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        try:
            await self._store.flush()
        except StoreFailed as error:
            log.warning("the last state was not written; its records are read again", error=str(error))

    def waiting(self) -> list[Waiting]:
        """Why commits wait, for status."""
        return [Waiting("state", len(self._waiting), detail=self.trouble)] if self.trouble else []
