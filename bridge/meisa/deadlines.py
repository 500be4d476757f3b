"""Timeouts for many exchanges at a time."""

from __future__ import annotations

import asyncio
from types import TracebackType

DEADLINE_TICK_SECONDS = 0.05
"""A timeout is some seconds; this much later does not matter, and looking costs next to nothing."""


class Deadlines:
    """Ends exchanges that take too long: one timer for all of them, because one each would cost a tenth of a request.

    Looks every DEADLINE_TICK_SECONDS while something is under way, so that an end comes up to that much late.
    """

    def __init__(self) -> None:
        self._ends: dict[asyncio.Timeout, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def until(self, end: float) -> _Bounded:
        """A context that raises TimeoutError inside itself at `end` (the loop's time)."""
        return _Bounded(self, end)

    def add(self, timeout: asyncio.Timeout, end: float) -> None:
        self._ends[timeout] = end
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(DEADLINE_TICK_SECONDS, self._look)

    def remove(self, timeout: asyncio.Timeout) -> None:
        self._ends.pop(timeout, None)

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for timeout in [timeout for timeout, end in self._ends.items() if end <= now]:
            del self._ends[timeout]
            timeout.reschedule(now)
        self._timer = loop.call_later(DEADLINE_TICK_SECONDS, self._look) if self._ends else None

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Bounded:
    __slots__ = ("_deadlines", "_end", "_timeout")

    def __init__(self, deadlines: Deadlines, end: float) -> None:
        self._deadlines = deadlines
        self._end = end
        self._timeout = asyncio.timeout(None)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()
        self._deadlines.add(self._timeout, self._end)

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._deadlines.remove(self._timeout)
        await self._timeout.__aexit__(exc_type, exc, traceback)
