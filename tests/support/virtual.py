"""The virtual loop of bridge/virtual.py, for tests that look for races.

With a seed the loop explores races, and the same seed explores the same ones again: it is slow now and then, so that
timers come due between two callbacks, and timers that are due together run in any order. All that can happen on a real
machine. With `shuffle` it goes further than asyncio does and runs what is ready in any order at all; only rounds stay
whole: what a callback schedules runs in a later round.
"""

import asyncio
import random
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from bridge import virtual
from bridge.virtual import run

__all__ = ["PROCESS", "Process", "VirtualClock", "VirtualLoop", "run"]

SLOW_SECONDS = 0.02
"""How far the clock may move while callbacks wait: a busy machine."""


class Process:
    """Whose callbacks these are. Of a killed one nothing runs any more, not even `finally`: that is `kill -9`.

    Of a stopped one (SIGSTOP) everything waits, and runs in the order in which it came due once it is continued.
    """

    __slots__ = ("behind", "killed", "name", "parked", "skew", "stopped")

    def __init__(self, name: str) -> None:
        self.name = name
        self.killed = False
        self.stopped = False
        self.parked: list[Any] = []
        self.behind = 0.0
        """Seconds by which its monotonic clock is behind: those in which its whole machine was suspended."""
        self.skew = 0.0
        """Seconds by which its wall clock is ahead of the world's."""


PROCESS: ContextVar[Process | None] = ContextVar("PROCESS", default=None)
"""Set in the context in which a process starts; its tasks and timers inherit it."""


class VirtualLoop(virtual.VirtualLoop):
    """The loop that preview runs on (bridge/virtual.py), with races by a seed, and processes that are killed."""

    def __init__(self, seed: int | str | None = None, *, shuffle: bool = False) -> None:
        super().__init__()
        self._dice = None if seed is None else random.Random(f"loop {seed}")
        self._shuffle = shuffle and seed is not None
        self._kept: list[asyncio.Task[Any]] = []
        self.set_task_factory(self._make_task)
        self._countdowns: list[list[Any]] = []
        # At the end (`ending`) the tasks of the killed are unwound after all, so that nothing is left behind.

    @staticmethod
    def _make_task(loop: Any, coroutine: Any, **options: Any) -> Any:
        # Nobody holds the tasks of a killed process; collected, they would run their `finally` in the middle of things.
        task = asyncio.Task(coroutine, loop=loop, **options)
        if PROCESS.get() is not None:
            loop._kept.append(task)
        return task

    def after_steps(self, steps: int, what: Callable[[], None]) -> None:
        """Runs `what` between two callbacks, after so many more: at an arbitrary await of whatever is going on."""
        self._countdowns.append([steps, what])

    def _while_busy(self) -> None:
        scheduled, dice = self._scheduled, self._dice
        near = dice is not None and scheduled and scheduled[0]._when <= self.seconds + SLOW_SECONDS
        if near and dice.random() < 0.5:
            self.seconds = max(self.seconds, scheduled[0]._when)

    def _run_round(self, due: list[Any]) -> None:
        ready, dice = self._ready, self._dice
        if dice is not None and len(due) > 1:
            dice.shuffle(due)
        ready.extend(due)
        if self._shuffle and len(ready) > 1:
            assert dice is not None
            handles = list(ready)
            ready.clear()
            dice.shuffle(handles)
            for handle in handles:
                self._step(handle)
        else:
            for _ in range(len(ready)):
                self._step(ready.popleft())

    def _step(self, handle: Any) -> None:
        if handle._cancelled:
            return
        process = handle._context.get(PROCESS)
        if process is not None and not self.ending:
            if process.killed:
                return
            if process.stopped:
                process.parked.append(handle)
                return
        handle._run()
        if self._countdowns:
            for countdown in self._countdowns:
                countdown[0] -= 1
            due = [what for steps, what in self._countdowns if steps <= 0]
            if due:
                self._countdowns = [countdown for countdown in self._countdowns if countdown[0] > 0]
                for what in due:
                    what()

    def go_on(self, process: Process) -> None:
        """Continues a stopped process."""
        process.stopped = False
        self._ready.extend(process.parked)
        process.parked.clear()


class VirtualClock(virtual.VirtualClock):
    """ports.Clock over the running virtual loop, as the process whose callback runs has it."""

    def __init__(self) -> None:
        super().__init__()
        self.wall_offset = 0.0
        """Seconds by which this clock's wall time is ahead: a process that starts later."""

    def now(self) -> float:
        process = PROCESS.get()
        return asyncio.get_event_loop().time() - (process.behind if process is not None else 0.0)

    def wall(self) -> float:
        process = PROCESS.get()
        skew = process.skew if process is not None else 0.0
        return self.WALL_AT_START + asyncio.get_event_loop().time() + self.wall_offset + skew
