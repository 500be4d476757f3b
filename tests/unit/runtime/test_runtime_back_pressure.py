"""What counts towards the bound of waiting actions: whatever has not ended, wherever it stands."""

import asyncio

from bridge.model import Outcome, Verdict
from tests.support.engine import P0, House, record
from tests.support.fakes import DELIVERED, FakeMeisa
from tests.support.virtual import run


def test_actions_that_wait_for_their_retry_count() -> None:
    """Two poison events between two attempts: no more is taken in for that, or an outage would fill the memory
    [parallel-consumer#832]."""

    async def story() -> None:
        down = {"is": True}
        meisa = FakeMeisa(lambda call: Outcome(Verdict.RETRY, 503) if down["is"] else DELIVERED)
        house = House(pending_max=2, meisa=meisa)
        house.source.assign(P0)
        house.source.feed([record(0, "0@x"), record(1, "1@x")])
        await asyncio.sleep(30)
        assert [waiting.reason for waiting in house.engine.waiting()] == ["retry"]
        house.source.feed([record(offset, f"{offset}@x") for offset in range(2, 10)])
        assert len(house.engine.partitions[P0].held) == 8
        assert house.source.paused == {P0}
        down["is"] = False
        await asyncio.sleep(120)
        assert house.source.committed == {P0: 10}

    run(story())


def test_calls_in_flight_count() -> None:
    """They are out of all queues, and their events are in memory all the same [parallel-consumer#836]."""

    async def story() -> None:
        house = House(pending_max=2, meisa=FakeMeisa(latency=20.0))
        house.source.assign(P0)
        house.source.feed([record(0, "0@x"), record(1, "1@x")])
        await asyncio.sleep(1)
        assert house.delivery.in_flight == 2
        house.source.feed([record(offset, f"{offset}@x") for offset in range(2, 10)])
        assert len(house.engine.partitions[P0].held) == 8
        await asyncio.sleep(120)
        assert house.source.committed == {P0: 10}

    run(story())


def test_a_paused_partition_waits_until_half_of_its_window_is_free() -> None:
    """Each pause throws away what was prefetched: with the first free place it would be paused again at once."""

    async def story() -> None:
        house = House(window_max=10)
        house.source.assign(P0)
        house.source.feed([record(offset) for offset in range(11)])
        paused = {}
        while len(house.meisa.done) < 11:
            await asyncio.sleep(0.01)
            paused[len(house.meisa.done)] = house.source.paused == {P0}
        assert [done for done, still in paused.items() if still] == [0, 1, 2, 3, 4]

    run(story())
