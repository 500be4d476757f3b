"""What a revocation waits for, and for how long."""

import asyncio

from tests.support.engine import P0, House, record
from tests.support.fakes import FakeMeisa
from tests.support.virtual import run


def test_a_last_commit_that_nobody_answers_does_not_hold_up_the_revocation() -> None:
    """The broker is away when the partitions have to go: they go within the budget, and their next owner repeats."""

    async def story() -> None:
        house = House(revoke_seconds=20.0)
        house.source.assign(P0)
        house.source.feed([record(0)])
        await asyncio.sleep(0.06)
        house.source.answer_commits = False
        async with asyncio.timeout(21.0):
            await house.source.revoke(P0)
        assert house.engine.partitions == {}

    run(story())


def test_what_is_unsent_is_dropped_and_what_is_in_flight_awaited() -> None:
    """One call of ten is out when the partition goes: it ends well and is committed, and no other one leaves."""

    async def story() -> None:
        house = House(meisa=FakeMeisa(latency=5.0))
        house.source.assign(P0)
        house.source.feed([record(offset, do=["track"]) for offset in range(10)])
        await asyncio.sleep(1)
        async with asyncio.timeout(15.0):
            await house.source.revoke(P0)
        assert house.seqs() == [0] and len(house.meisa.done) == 1
        assert house.source.committed == {P0: 1}
        await asyncio.sleep(60)
        assert house.seqs() == [0]
        assert house.delivery.pending == 0

    run(story())
