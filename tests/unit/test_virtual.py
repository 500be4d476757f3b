"""The loop that previews run on: its clock jumps, and everything happens in the same order each time."""

import asyncio

import pytest

from bridge.virtual import VirtualClock, VirtualLoop, run


def test_a_year_of_waiting_takes_no_time_and_ends_at_its_moment() -> None:
    """Timers run in the order of their moments, and each sees its own."""
    seen: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        seen.append((name, VirtualClock(1000.0).wall()))

    async def both() -> None:
        await asyncio.gather(sleeper("year", 31_536_000.0), sleeper("day", 86_400.0))

    run(both())
    assert seen == [("day", 87_400.0), ("year", 31_537_000.0)]


def test_no_time_passes_while_something_is_ready() -> None:
    """Work costs nothing here: only waiting moves the clock."""

    async def busy() -> float:
        for _ in range(1000):
            await asyncio.sleep(0)
        return VirtualClock().now()

    assert run(busy()) == 0.0


def test_a_cancelled_timer_never_runs() -> None:
    """Nor does the clock stop at its moment."""
    ran: list[str] = []

    async def cancels() -> float:
        loop = asyncio.get_running_loop()
        loop.call_later(1.0, ran.append, "cancelled").cancel()
        await asyncio.sleep(5.0)
        return loop.time()

    assert run(cancels()) == 5.0
    assert ran == []


def test_a_wait_that_nothing_ends_is_told() -> None:
    """Instead of hanging for ever."""

    async def waits() -> None:
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="no timer will ever end it"):
        run(waits())


def test_callbacks_that_call_each_other_for_ever_are_told() -> None:
    """The clock would stand still, and the loop spin."""

    async def spins() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="spins"):
        run(spins())


def test_what_is_left_is_unwound() -> None:
    """A task that still waits when the main one ends runs its `finally`, and the loop is closed."""
    ended: list[str] = []

    async def lingers() -> None:
        try:
            await asyncio.sleep(1e9)
        finally:
            ended.append("lingers")

    async def main() -> None:
        ended.append("main")
        tasks.append(asyncio.get_running_loop().create_task(lingers()))
        await asyncio.sleep(1)

    tasks: list[asyncio.Task[None]] = []
    loop = VirtualLoop()
    run(main(), loop)
    assert ended == ["main", "lingers"]
    assert loop.is_closed()
