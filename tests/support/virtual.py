"""An event loop whose clock jumps: hours of waiting in no time, and always in the same order."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Jump(selectors.SelectSelector):
    """Instead of waiting, moves the loop's clock to the moment that it waits for."""

    loop: "VirtualLoop"

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("everything waits, and no timer will ever end it")
        self.loop.seconds += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """asyncio as it is, on a clock of its own. No sockets and no threads: nothing outside moves its clock."""

    def __init__(self) -> None:
        selector = _Jump()
        super().__init__(selector)
        selector.loop = self
        self.seconds = 0.0

    def time(self) -> float:
        return self.seconds


class VirtualClock:
    """ports.Clock over the running virtual loop."""

    WALL_AT_START = 1_780_000_000.0

    def now(self) -> float:
        return asyncio.get_event_loop().time()

    def wall(self) -> float:
        return self.WALL_AT_START + self.now()


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine on a fresh virtual loop."""
    loop = VirtualLoop()
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
