"""What has ended is freed at once: the service's collector comes seldom, and an event's value may be large."""

from __future__ import annotations

import asyncio
import gc
from types import CoroutineType

from bridge.model import Call, Outcome, Verdict
from bridge.pipeline import carry
from bridge.runtime.items import Batch, Item, Part
from tests.support.engine import P0, House, record
from tests.support.fakes import DELIVERED, FakeMeisa
from tests.support.virtual import run

REFUSED = Outcome(Verdict.REFUSED, 400, "bad field")
BUSY = Outcome(Verdict.RETRY, 503, "busy")


def held() -> list[str]:
    """What of events, on their path or in queues, is in memory."""
    found = [type(each).__name__ for each in gc.get_objects() if isinstance(each, Item | Part | Batch)]
    paths = [each for each in gc.get_objects() if isinstance(each, CoroutineType) and each.cr_code is carry.__code__]
    return found + ["carry" for _ in paths]


def test_nothing_of_an_event_waits_for_the_collector() -> None:
    """Delivered, merged, refused, repeated, revoked before its turn, dead-lettered: without a collector nothing of any
    event is left when all have ended."""
    answers: dict[int, list[Outcome]] = {3: [REFUSED], 4: [BUSY, DELIVERED], 5: [BUSY]}

    def answer(call: Call) -> Outcome:
        assert call.body is not None
        left = answers.get(call.body["seq"], [DELIVERED])
        return left[0] if len(left) == 1 else left.pop(0)

    async def story() -> None:
        house = House(meisa=FakeMeisa(answer, latency=0.1))
        house.source.assign(P0)
        house.source.feed([record(number, do=["upsert", "track"]) for number in range(3)])
        house.source.feed([record(3, "b@x"), record(4, "c@x"), record(5, "d@x", do=["upsert", "trigger"])])
        house.source.feed([record(6 + number, "e@x", coalesce=True) for number in range(4)])
        await asyncio.sleep(60)
        assert house.endings() == {"delivered": 5, "merged": 3, "dead_lettered": 1}
        assert held()
        await house.source.revoke(P0)
        await asyncio.sleep(3600)  # when it would have been tried again, it leaves the heap of what waits
        assert held() == []

    gc.collect()
    gc.disable()
    try:
        run(story())
    finally:
        gc.enable()
