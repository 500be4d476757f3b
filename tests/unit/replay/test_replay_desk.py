"""How seldom the pages of dead letters read, how long they wait for it, and what they leave behind. Virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any

import pytest

from bridge.errors import LogFailed
from bridge.model import Letter, LetterKind, Record
from bridge.replay import desk as desk_
from bridge.replay.desk import Desk
from bridge.replay.wishes import Wishes
from tests.support.replays import LETTERS, REPLAYS, MemoryLogs
from tests.support.virtual import VirtualClock, run


class Logs(MemoryLogs):
    """Counts readings, and knows whether it was closed."""

    def __init__(self, latency: float = 0.0) -> None:
        super().__init__(lambda: self.away, latency)
        self.away = False
        self.looks = 0
        self.closed = False

    async def partitions(self, topic: str) -> int:
        self.looks += 1
        return await super().partitions(topic)

    async def read(self, topic: str, partition: int, start: int, end: int) -> AsyncGenerator[Sequence[Record], None]:
        assert not self.closed, "nothing is read from what is closed"
        async for batch in super().read(topic, partition, start, end):
            yield batch

    async def close(self) -> None:
        self.closed = True

    def letter(self) -> None:
        record = Record("users", 0, len(self.topics.get((LETTERS, 0), ())), 1, None, b"v")  # type: ignore[call-overload]
        self.bury(Letter(record, LetterKind.REJECTED, "no", undelivered_ids=("a",)))


class Room:
    def __init__(self, latency: float = 0.0) -> None:
        self.made: list[Logs] = []
        self.logs = Logs(latency)
        self.desk = Desk(
            self._connect,
            lambda logs: pytest.fail("nothing is planned here"),
            topic=LETTERS,
            replays_topic=REPLAYS,
            topics=["users"],
            clock=VirtualClock(),
        )

    def _connect(self) -> Logs:
        fresh = Logs(self.logs.latency)
        fresh.topics = self.logs.topics
        self.made.append(fresh)
        return fresh


def story(tell: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def test() -> None:
        run(tell())

    test.__doc__ = tell.__doc__
    test.__name__ = tell.__name__
    return test


@story
async def test_nothing_is_connected_until_somebody_looks() -> None:
    room = Room()
    await room.desk.close()
    assert room.made == []


@story
async def test_many_who_look_share_a_reading() -> None:
    """At once, and within the seconds for which one counts as fresh; later it is read again."""
    room = Room()
    room.logs.letter()
    await asyncio.gather(*(room.desk.look() for _ in range(20)))
    await room.desk.look()
    assert room.made[0].looks == 1
    room.logs.letter()
    await asyncio.sleep(desk_.FRESH_SECONDS)
    assert len((await room.desk.look()).letters) == 2 and room.made[0].looks == 2
    await room.desk.close()


@story
async def test_who_looks_waits_a_moment_and_is_then_told_that_it_goes_on() -> None:
    """A first reading of much: the page answers, and the letters are there when it is done."""
    room = Room(latency=4.0)
    room.logs.letter()
    before = asyncio.get_running_loop().time()
    view = await room.desk.look()
    assert asyncio.get_running_loop().time() - before == pytest.approx(desk_.WAIT_SECONDS)
    assert view.reading and view.letters == () and view.read_at_wall_seconds is None
    await asyncio.sleep(60)
    view = await room.desk.look(wait_seconds=60)
    assert len(view.letters) == 1 and not view.reading and view.problem == ""
    await room.desk.close()


@story
async def test_a_reading_that_takes_too_long_is_given_up_and_said() -> None:
    room = Room(latency=100.0)
    room.logs.letter()
    view = await room.desk.look(wait_seconds=300)
    assert "were not read within 60 s" in view.problem and not view.reading
    await room.desk.close()


@story
async def test_a_failure_keeps_what_was_read_and_its_time() -> None:
    """And the next reading that succeeds clears it; nothing is asked for meanwhile."""
    room = Room()
    room.logs.letter()
    first = await room.desk.look()
    room.made[0].away = True
    await asyncio.sleep(10)
    view = await room.desk.look()
    assert view.problem == "the broker is away"
    assert (len(view.letters), view.read_at_wall_seconds) == (1, first.read_at_wall_seconds)
    with pytest.raises(LogFailed):
        await room.desk.ask(lambda found: pytest.fail("nothing is chosen from what is not known"))
    room.made[0].away = False
    view = await room.desk.look(anew=True)
    assert view.problem == "" and len(view.letters) == 1 and view.letters[0].copies == 1
    await room.desk.close()


@story
async def test_some_minutes_after_the_last_look_all_is_closed_and_forgotten() -> None:
    """And connected anew for whoever looks next."""
    room = Room()
    room.logs.letter()
    await room.desk.look()
    await asyncio.sleep(desk_.IDLE_SECONDS - 1)
    await room.desk.look()
    await asyncio.sleep(desk_.IDLE_SECONDS - 1)
    assert not room.made[0].closed
    await asyncio.sleep(2)
    assert room.made[0].closed and room.desk._letters == ()
    assert len((await room.desk.look()).letters) == 1 and len(room.made) == 2
    await room.desk.close()
    assert room.made[1].closed


@story
async def test_a_bridge_that_stops_answers_and_waits_for_nobody() -> None:
    """In the middle of a reading too."""
    room = Room(latency=50.0)
    room.logs.letter()
    await room.desk.look()
    before = asyncio.get_running_loop().time()
    await room.desk.close()
    assert asyncio.get_running_loop().time() - before < 1
    view = await room.desk.look()
    assert (view.letters, view.problem) == ((), "the bridge stops")
    with pytest.raises(LogFailed):
        await room.desk.ask(lambda found: Wishes())
