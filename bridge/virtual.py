"""An event loop whose clock jumps: hours of waiting in no time, and always in the same order.

The theory
    Nothing outside moves this clock: no sockets, no threads, no signals. While callbacks are ready they run, and no
    time passes; when all of them wait, the clock jumps to the next timer. So what the engine would do in a week takes
    as long as its work, and the same input gives the same order of everything.

`meisa-bridge preview` runs the engine on it, and so do tests (tests/support/virtual.py adds races and crashes) and
benchmarks. It builds on names that asyncio keeps for itself (`_ready`, `_scheduled`, `_run_once`), as no public way
lets a loop be its own clock; unit tests hold it to what it promises on each version of Python.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

ROUNDS_MAX = 50_000
"""Rounds of the loop at one and the same moment: what takes more never ends."""


class VirtualLoop(asyncio.BaseEventLoop):
    """asyncio as it is, on a clock of its own."""

    _ready: deque[Any]
    _scheduled: list[Any]
    _stopping: bool

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0
        self.ending = False
        """What is left is being unwound."""
        self._rounds = 0
        self._rounds_at = 0.0

    def time(self) -> float:
        return self.seconds

    def skip_to(self, seconds: float) -> None:
        """Moves the clock as a suspended machine's moves: all timers in between come due at that moment."""
        self.seconds = max(self.seconds, seconds)

    def _run_once(self) -> None:
        scheduled = self._scheduled
        self._rounds = self._rounds + 1 if self._rounds_at == self.seconds else 0
        self._rounds_at = self.seconds
        if self._rounds > ROUNDS_MAX and not self.ending:
            raise RuntimeError("the loop spins: callbacks call each other, and no time passes")
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
        if self._ready or self._stopping:
            self._while_busy()
        elif not scheduled:
            raise RuntimeError("everything waits, and no timer will ever end it")
        else:
            # Instead of waiting, the clock moves to the moment that the loop waits for.
            self.seconds = max(self.seconds, scheduled[0]._when)
        due = []
        while scheduled and scheduled[0]._when <= self.seconds:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            due.append(handle)
        self._run_round(due)

    def _while_busy(self) -> None:
        """Callbacks are ready, and no time passes."""

    def _run_round(self, due: list[Any]) -> None:
        """Runs what is ready, and then the timers that are due; what these schedule runs in a later round."""
        ready = self._ready
        ready.extend(due)
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                handle._run()

    def _timer_handle_cancelled(self, handle: Any) -> None:
        pass  # a cancelled timer leaves the heap when its moment has come

    def _process_events(self, event_list: Any) -> None:
        pass

    def _write_to_self(self) -> None:
        pass


class VirtualClock:
    """ports.Clock over the running virtual loop, whose beginning is `wall_at_start`."""

    WALL_AT_START = 1_780_000_000.0

    def __init__(self, wall_at_start: float = WALL_AT_START) -> None:
        self.wall_at_start = wall_at_start

    def now(self) -> float:
        return asyncio.get_event_loop().time()

    def wall(self) -> float:
        return self.wall_at_start + asyncio.get_event_loop().time()


def run(coroutine: Coroutine[Any, Any, T], loop: VirtualLoop | None = None) -> T:
    """Runs a coroutine on a fresh virtual loop, or on `loop`, which is closed then; unwinds what is left."""
    loop = loop or VirtualLoop()
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(coroutine)
    except KeyboardInterrupt:
        loop.set_exception_handler(lambda loop, context: None)  # the task that it hit would tell of it once more
        raise
    finally:
        loop.ending = True
        pending = asyncio.all_tasks(loop)
        for task in pending:
            task.cancel()
        if pending:
            loop.run_until_complete(asyncio.wait(pending, timeout=0))
        for task in pending:
            if not task.done():  # of a killed process (tests), and what would have woken it is gone
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                task.get_coro().close()
        asyncio.set_event_loop(None)
        loop.close()
