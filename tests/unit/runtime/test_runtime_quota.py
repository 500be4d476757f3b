"""What a call's end means for its key's quota."""

import asyncio

from bridge.model import Outcome, Verdict
from tests.support.engine import P0, House, record
from tests.support.fakes import DELIVERED, FakeMeisa
from tests.support.virtual import run


def test_a_call_that_never_left_costs_nothing() -> None:
    """Connections are refused a few times: Meisa counted nothing, so all of the minute is left for what follows."""

    async def story() -> None:
        never = [Outcome(Verdict.RETRY, None, "refused", "never_sent") for _ in range(3)]
        house = House(limits=[(5, 60.0)], meisa=FakeMeisa(lambda call: never.pop() if never else DELIVERED))
        house.source.assign(P0)
        house.source.feed([record(offset) for offset in range(5)])
        await asyncio.sleep(50)
        assert len(house.meisa.calls) == 8
        assert house.source.committed == {P0: 5}

    run(story())


def test_a_call_without_an_answer_counts_longer_than_its_window() -> None:
    """Meisa may count it up to a minute after it was given up: the next one waits two minutes, not one."""

    async def story() -> None:
        lost = [Outcome(Verdict.UNKNOWN, None, "timeout", "timeout")]
        house = House(limits=[(1, 60.0)], meisa=FakeMeisa(lambda call: lost.pop() if lost else DELIVERED))
        house.source.assign(P0)
        house.source.feed([record(0)])
        await asyncio.sleep(119)
        assert len(house.meisa.calls) == 1
        await asyncio.sleep(3)
        assert len(house.meisa.calls) == 2

    run(story())
