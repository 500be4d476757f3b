"""Machines whose clocks differ judge a started trigger's age alike: by Meisa's clock."""

import asyncio

import pytest
from structlog.testing import capture_logs

from bridge.core.skew import AGREEING, Skew
from bridge.model import Call, LetterKind, Outcome, Verdict
from bridge.runtime.clock import MeisaClock
from tests.support.engine import P0, House, record
from tests.support.fakes import DELIVERED, FakeMeisa
from tests.support.virtual import VirtualClock, run

MINUTE = 60.0
TRUE = VirtualClock()
"""Meisa's own clock."""


class DatedMeisa(FakeMeisa):
    """Says in each answer what its clock shows, `off` seconds beside the truth."""

    def __init__(self, latency: float = 0.05, *, off: float = 0.0) -> None:
        super().__init__(lambda call: DELIVERED._replace(date_wall_seconds=float(int(TRUE.wall() + off))), latency)


async def instance(ahead: float, *, latency: float = 0.05, off: float = 0.0, after: House | None = None) -> House:
    """A process on a machine whose clock is `ahead` seconds before the truth, as it starts: with a ping."""
    house = House(meisa=DatedMeisa(off=off))
    house.clock.wall_offset = ahead
    if after is not None:
        house.source.committed, house.source.metadata = dict(after.source.committed), dict(after.source.metadata)
    await house.delivery.ask(Call("ping"))
    assert isinstance(house.meisa, DatedMeisa)
    house.meisa.latency = latency
    house.meisa.calls.clear()
    house.source.assign(P0)
    return house


async def crash(first: float, second: float, minutes: float, *, off: tuple[float, float] = (0.0, 0.0)) -> House:
    """One instance dies while a trigger is under way; another takes over after so many minutes."""
    one = record(0, do=["trigger"])
    house = await instance(first, latency=1e9, off=off[0])
    house.source.feed([one])
    await asyncio.sleep(1)
    assert len(house.meisa.calls) == 1
    house.delivery.hold()
    await asyncio.sleep(minutes * MINUTE)
    again = await instance(second, off=off[1], after=house)
    again.source.feed([one])
    await asyncio.sleep(1)
    return again


@pytest.mark.parametrize("second", [-10 * MINUTE, 0.0, 10 * MINUTE])
@pytest.mark.parametrize("first", [-10 * MINUTE, 0.0, 10 * MINUTE])
def test_clocks_that_differ_by_minutes_judge_a_mark_alike(first: float, second: float) -> None:
    """54 minutes after its first sending a trigger is repeated, 56 minutes after it is parked; whoever's clock is off.

    Without the correction the mark of 56 minutes seems 36 old where one clock is ahead and the other behind: the email
    goes out, and at 64 minutes, when Meisa has forgotten the key, for a second time.
    """
    again = run(crash(first, second, 54))
    assert len(again.meisa.calls) == 1 and again.letters.letters == []
    again = run(crash(first, second, 56))
    assert again.meisa.calls == []
    assert [letter.kind for letter in again.letters.letters] == [LetterKind.UNKNOWN_OUTCOME]


def test_a_date_beyond_belief_changes_no_age() -> None:
    """Half an hour old by both machines' clocks, and by a header of 1970 too: repeated."""
    again = run(crash(0.0, 0.0, 30, off=(0.0, -1.7e9)))
    assert len(again.meisa.calls) == 1


@pytest.mark.parametrize("minutes", [1, 70])
def test_a_mark_from_the_future_is_parked(minutes: float) -> None:
    """No answer tells what the time is, and the mark says in two hours: how old it is nobody knows."""

    async def story() -> None:
        one = record(0, do=["trigger"])
        house = House(meisa=FakeMeisa(latency=1e9))
        house.clock.wall_offset = 120 * MINUTE
        house.source.assign(P0)
        house.source.feed([one])
        await asyncio.sleep(1)
        house.delivery.hold()
        await asyncio.sleep(minutes * MINUTE)
        again = House()
        again.source.committed, again.source.metadata = dict(house.source.committed), dict(house.source.metadata)
        again.source.assign(P0)
        again.source.feed([one])
        await asyncio.sleep(1)
        assert again.meisa.calls == []
        assert [letter.kind for letter in again.letters.letters] == [LetterKind.UNKNOWN_OUTCOME]

    run(story())


def test_a_lie_about_the_time_expires_no_event() -> None:
    """Meisa's answers are ten hours ahead: a trigger of the last minute, with a max_age of an hour, goes out."""

    async def story() -> None:
        house = await instance(0.0, off=600 * MINUTE)
        house.source.feed([record(0, do=["trigger"], max_age=3600)])
        await asyncio.sleep(1)
        assert len(house.meisa.calls) == 1 and house.letters.letters == []

    run(story())


def test_a_doubt_that_arose_here_is_by_meisas_clock_too() -> None:
    """A machine an hour behind sends, gets no answer, and its repeats end 55 minutes after the first all the same."""

    async def story() -> None:
        house = await instance(-60 * MINUTE)
        house.meisa.answer = lambda call: Outcome(Verdict.UNKNOWN, message="no answer")
        house.source.feed([record(0, do=["trigger"])])
        await asyncio.sleep(54 * MINUTE)
        assert house.letters.letters == [] and len(house.meisa.calls) > 1
        await asyncio.sleep(3 * MINUTE)
        assert [letter.kind for letter in house.letters.letters] == [LetterKind.UNKNOWN_OUTCOME]

    run(story())


# The clock itself


class Set:
    """A clock that shows what it was set to."""

    def __init__(self) -> None:
        self.shown = 1_780_000_000.0

    def now(self) -> float:
        return 7.0

    def wall(self) -> float:
        return self.shown


def test_it_is_the_machines_own_until_meisa_has_answered() -> None:
    clock = MeisaClock(Set())
    clock.observe(1_780_000_000.0, 1_780_000_000.1, None)
    assert (clock.now(), clock.wall(), clock.at(5.0)) == (7.0, 1_780_000_000.0, 5.0)


def test_an_operator_hears_of_clocks_that_differ_and_of_dates_beyond_belief() -> None:
    """Once each, not with every call; and what it means for triggers."""
    clock = MeisaClock(Set(), Skew())
    wall = 1_780_000_000.0
    with capture_logs() as lines:
        for _ in range(AGREEING):
            clock.observe(wall, wall, wall + 600.0)
            clock.observe(wall, wall, 0.0)
    assert [(line["log_level"], line["seconds"]) for line in lines] == [("warning", 600.0), ("warning", -wall)]
    assert clock.wall() == wall + 600.0 and clock.at(5.0) == 605.0
