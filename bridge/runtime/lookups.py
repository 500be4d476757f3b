"""Work that needs names of the identity table waits here until its store has them at hand; in order, by the hundred.

A store in memory or in a file has every name at hand, and nothing ever waits. One behind a network is asked for what
the first CHUNK pieces of work lack, again until they lack nothing; then they are done, in the order in which they came.
Whatever comes meanwhile stands behind them, so that actions enter their queues in log order, as everywhere. While the
store does not answer all of it waits: an event must not go out under a name that its contact has no more.

The bound: what waits here counts as pending, so intake stops at its own limit (runtime/intake.py).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import structlog

from bridge.core.identity import Identities
from bridge.errors import StoreFailed
from bridge.model import TopicPartition, Waiting
from bridge.ports import Store

log = structlog.get_logger(__name__)

CHUNK = 500
"""Pieces of work that share round trips: about what one poll brings."""

AGAIN_SECONDS = 0.5
AGAIN_SECONDS_MAX = 10.0
"""Between attempts to read from a store that does not answer."""


class Work(NamedTuple):
    partition: TopicPartition
    rehearse: Callable[[], object]
    """Calls of the identity table, whose names must be at hand."""
    go: Callable[[], None]
    drop: Callable[[], None]
    """Its partition went before its turn came."""


class Lookups:
    """See the module's text."""

    def __init__(self, identities: Identities | None, store: Store | None) -> None:
        self._identities = identities
        self._store = None if store is None or store.local else store
        self._waiting: deque[Work] = deque()
        self._task: asyncio.Task[None] | None = None
        self.trouble = ""
        """Why the store does not answer; empty while it does."""

    def do(self, work: Work) -> None:
        """Does the work now where it can be, else in its turn."""
        if self._identities is not None:
            if self._store is not None:
                self._waiting.append(work)
                if self._task is None:
                    self._task = asyncio.get_running_loop().create_task(self._run())
                return
            self._identities.refresh()
        work.go()

    def withdraw(self, partitions: Iterable[TopicPartition]) -> None:
        """Drops what waits of these partitions."""
        gone = set(partitions)
        if any(work.partition in gone for work in self._waiting):
            dropped = [work for work in self._waiting if work.partition in gone]
            self._waiting = deque(work for work in self._waiting if work.partition not in gone)
            for work in dropped:
                work.drop()

    async def _run(self) -> None:
        assert self._identities is not None and self._store is not None
        again = AGAIN_SECONDS
        fresh = False
        try:
            while self._waiting:
                chunk = [self._waiting[place] for place in range(min(CHUNK, len(self._waiting)))]
                if not fresh:
                    self._identities.refresh()
                    fresh = True
                lacking = self._identities.lacking(partial(_rehearse, chunk))
                if lacking:
                    try:
                        await self._store.load(lacking)
                    except StoreFailed as error:
                        if not self.trouble:
                            log.error(
                                "the state store does not answer: events wait until it does, and nothing is lost",
                                error=str(error),
                            )
                        self.trouble = str(error)
                        await asyncio.sleep(again)
                        again = min(again * 2, AGAIN_SECONDS_MAX)
                        continue
                    if self.trouble:
                        log.info("the state store answers again; events go on")
                        self.trouble = ""
                    again = AGAIN_SECONDS
                    continue  # what was loaded may name others; and some of the chunk may be gone
                fresh = False
                for _ in chunk:
                    self._waiting.popleft().go()
                await asyncio.sleep(0)  # what came meanwhile is taken in, in pieces
        except Exception as error:
            log.exception("looking up contacts failed in the bridge itself: records wait until a restart")
            self.trouble = f"internal error: {type(error).__name__}"
        finally:
            self._task = None

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def waiting(self) -> list[Waiting]:
        """What waits, for status."""
        return [Waiting("state", len(self._waiting), detail=self.trouble)] if self._waiting else []


def _rehearse(chunk: Iterable[Work]) -> None:
    for work in chunk:
        work.rehearse()
