"""Whose work has been here longest: named once, longest first, whatever waits behind it."""

from __future__ import annotations

import asyncio

from bridge.runtime.slowest import SHOWN
from tests.support.engine import P0, P1, TOPIC, House, record
from tests.support.fakes import FakeMeisa
from tests.support.virtual import run


def test_the_longest_wait_comes_first_and_each_contact_once() -> None:
    """Over partitions; with where the record is found, and what is done for it at present."""

    async def story() -> None:
        house = House(meisa=FakeMeisa(latency=30.0), max_in_flight=1)
        house.source.assign(P0, P1)
        house.source.feed([record(3, "slow@x", partition=1)])
        await asyncio.sleep(5)
        house.source.feed([record(0, "slow@x", do=["track"]), record(1, "b@x")])
        await asyncio.sleep(2)
        first, second = house.delivery.slowest()
        assert (first.contact, round(first.waited_seconds), first.state) == ("slow@x", 7, "in flight")
        assert (first.topic, first.partition, first.offset) == (TOPIC, 1, 3)
        assert (second.contact, round(second.waited_seconds), second.state) == ("b@x", 2, "next")

    run(story())


def test_a_few_of_many_and_nobody_when_all_is_done() -> None:
    async def story() -> None:
        house = House(meisa=FakeMeisa(latency=5.0))
        house.source.assign(P0)
        house.source.feed([record(offset, f"{offset}@x") for offset in range(200)])
        await asyncio.sleep(1)
        assert [each.contact for each in house.delivery.slowest()] == [f"{number}@x" for number in range(SHOWN)]
        await asyncio.sleep(60)
        assert house.delivery.slowest() == []

    run(story())
