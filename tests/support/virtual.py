"""An event loop whose clock jumps: hours of waiting in no time, and always in the same order.

With a seed the loop also shuffles what is ready in each of its rounds. asyncio runs callbacks in the order in which
they became ready, which on a real machine depends on the network: a shuffle tries other orders, and the same seed tries
the same one again. Rounds stay whole, as asyncio promises: what a callback schedules runs in a later round.
"""

import asyncio
import heapq
import random
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")


class Process:
    """Whose callbacks these are. Of a killed one nothing runs any more, not even `finally`: that is `kill -9`."""

    __slots__ = ("killed", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.killed = False


PROCESS: ContextVar[Process | None] = ContextVar("PROCESS", default=None)
"""Set in the context in which a process starts; its tasks and timers inherit it."""


class VirtualLoop(asyncio.BaseEventLoop):
    """asyncio as it is, on a clock of its own. No sockets and no threads: nothing outside moves its clock."""

    def __init__(self, seed: int | str | None = None) -> None:
        super().__init__()
        self.seconds = 0.0
        self._dice = None if seed is None else random.Random(f"loop {seed}")
        self._countdowns: list[list[Any]] = []

    def time(self) -> float:
        return self.seconds

    def after_steps(self, steps: int, what: Callable[[], None]) -> None:
        """Runs `what` between two callbacks, after so many more of them: at an arbitrary await of whatever is going on."""
        self._countdowns.append([steps, what])

    def _run_once(self) -> None:
        ready, scheduled = self._ready, self._scheduled
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
        if not ready and not self._stopping:
            if not scheduled:
                raise RuntimeError("everything waits, and no timer will ever end it")
            # Instead of waiting, the clock moves to the moment that the loop waits for.
            self.seconds = max(self.seconds, scheduled[0]._when)
        while scheduled and scheduled[0]._when <= self.seconds:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            ready.append(handle)
        if self._dice is None or len(ready) == 1:
            for _ in range(len(ready)):
                self._step(ready.popleft())
        else:
            handles = list(ready)
            ready.clear()
            self._dice.shuffle(handles)
            for handle in handles:
                self._step(handle)

    def _step(self, handle: Any) -> None:
        if handle._cancelled:
            return
        process = handle._context.get(PROCESS)
        if process is not None and process.killed:
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

    def _timer_handle_cancelled(self, handle: Any) -> None:
        pass  # a cancelled timer leaves the heap when its moment has come

    def _process_events(self, event_list: Any) -> None:
        pass

    def _write_to_self(self) -> None:
        pass


class VirtualClock:
    """ports.Clock over the running virtual loop."""

    WALL_AT_START = 1_780_000_000.0

    def now(self) -> float:
        return asyncio.get_event_loop().time()

    def wall(self) -> float:
        return self.WALL_AT_START + self.now()


def run(coroutine: Coroutine[Any, Any, T], loop: VirtualLoop | None = None) -> T:
    """Runs a coroutine on a fresh virtual loop, or on `loop`, which is closed then."""
    loop = loop or VirtualLoop()
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(coroutine)
    finally:
        pending = asyncio.all_tasks(loop)
        for task in pending:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        asyncio.set_event_loop(None)
        loop.close()
