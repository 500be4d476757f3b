"""Who goes first: urgent work and what it waits for, old work last and never starved, and what lingers for more."""

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from bridge.model import Event, Kind, Lane, Outcome, Plan, Record, Verdict
from tests.support.engine import P0, P1, House
from tests.support.engine import plan as plain_plan
from tests.support.engine import record as plain_record
from tests.support.fakes import DELIVERED, FakeMeisa
from tests.support.virtual import VirtualClock, run


def record(offset: int, email: str | None = "a@x", **data: Any) -> Record:
    return plain_record(offset, email, **{"coalesce": True, "fields": {f"f{offset}": offset}, **data})


def virtually(story: Coroutine[Any, Any, None]) -> None:
    run(story)


def told(house: House) -> list[tuple[str, str, list[int]]]:
    """Endpoint, contact and offsets of each call, in the order of sending."""
    found = []
    for call in house.meisa.calls:
        body = call.body or {}
        offsets = sorted(body["custom_fields"].values()) if "custom_fields" in body else [body["seq"]]
        found.append((call.endpoint, body["email"], offsets))
    return found


def urgent(offset: int, email: str = "a@x") -> Record:
    return record(offset, email, do=["trigger"], lane="transactional")


def test_an_urgent_action_pulls_forward_what_its_contact_still_has_before_it() -> None:
    """Ten contacts wait at a call a second; the last one's trigger goes next, after the few calls before it."""

    async def story() -> None:
        house = House(limits=[(1, 1.0)])
        house.source.assign(P0)
        house.source.feed([record(offset, f"{offset}@x") for offset in range(10)])
        house.source.feed([record(10), record(11, do=["track"]), record(12), record(13)])
        await asyncio.sleep(0.1)
        house.source.feed([urgent(14)])
        await asyncio.sleep(30)
        assert told(house)[1:5] == [
            ("upsert", "a@x", [10]),
            ("track", "a@x", [11]),
            ("upsert", "a@x", [12, 13]),
            ("trigger", "a@x", [14]),
        ]
        assert [contact for _, contact, _ in told(house)[5:]] == [f"{number}@x" for number in range(1, 10)]
        assert house.source.committed == {P0: 15}

    virtually(story())


def test_what_stands_before_it_under_another_name_is_pulled_too() -> None:
    """A trigger to b@x waits for an upsert of both names, which waits for an upsert of the other name."""

    async def story() -> None:
        house = House(limits=[(1, 1.0)])
        house.source.assign(P0)
        house.source.feed([record(0, "z@x"), record(1, "y@x")])
        house.source.feed(
            [
                record(2, "a@x", aliases={"crm": "1"}, coalesce=False),
                record(3, "b@x", aliases={"crm": "1"}, coalesce=False),
                urgent(4, "b@x"),
            ]
        )
        await asyncio.sleep(10)
        assert [offsets for _, _, offsets in told(house)] == [[2], [3], [4], [0], [1]]

    virtually(story())


def test_only_three_calls_that_are_pulled_use_the_reserve() -> None:
    """Half of four slots is for urgent calls. The fourth of five upserts that may not merge waits for a common one."""

    async def story() -> None:
        house = House(limits=[(8, 3600.0)], reserve=0.5)
        house.source.assign(P0)
        house.source.feed([record(offset, f"{offset}@x") for offset in range(8)])
        await asyncio.sleep(3500)
        common = len(house.meisa.calls)
        assert common == 4, "what is not urgent leaves the reserve alone"
        house.source.feed([record(10 + offset, coalesce=False) for offset in range(5)])
        house.source.feed([urgent(15)])
        await asyncio.sleep(50)
        assert [offsets for _, _, offsets in told(house)[common:]] == [[10], [11], [12]]
        await asyncio.sleep(4 * 3600)
        assert house.source.committed == {P0: 16}

    virtually(story())


def test_what_was_pulled_goes_before_others_even_without_the_reserve() -> None:
    """Behind urgent calls, before everybody else's."""

    async def story() -> None:
        house = House(limits=[(1, 1.0)])
        house.source.assign(P0)
        house.source.feed([record(offset, f"{offset}@x") for offset in range(5)])
        house.source.feed([record(10 + offset, coalesce=False) for offset in range(6)])
        await asyncio.sleep(0.1)
        house.source.feed([urgent(20)])
        await asyncio.sleep(20)
        assert [offsets for _, _, offsets in told(house)[1:8]] == [[10], [11], [12], [13], [14], [15], [20]]

    virtually(story())


def test_an_independent_trigger_neither_waits_nor_pulls() -> None:
    """`order: independent` opts out."""

    async def story() -> None:
        house = House(limits=[(1, 1.0)])
        house.source.assign(P0)
        house.source.feed([record(0, "z@x"), record(1, "y@x"), record(2)])
        house.source.feed([record(3, do=["trigger"], lane="transactional", independent=True)])
        await asyncio.sleep(10)
        assert [offsets for _, _, offsets in told(house)] == [[3], [0], [1], [2]]

    virtually(story())


def test_old_events_are_bulk_whatever_their_rule_says() -> None:
    """Read more than an hour after their time: today's log-in goes before last week's, and before its password mail."""

    async def story() -> None:
        house = House(limits=[(1, 1.0)], bulk_after_seconds=3600.0)
        house.source.assign(P0)
        old = VirtualClock.WALL_AT_START - 7200
        house.source.feed([record(0, "a@x", wall=old, lane="transactional"), record(1, "b@x", wall=old)])
        house.source.feed([record(2, "c@x"), record(3, "d@x")])
        await asyncio.sleep(10)
        assert [offsets for _, _, offsets in told(house)] == [[2], [3], [0], [1]]

    virtually(story())


def test_a_bulk_backlog_never_starves() -> None:
    """A sync lane that always has work: every tenth call is the bulk lane's."""

    async def story() -> None:
        house = House(limits=[(1, 1.0)])
        house.source.assign(P0)
        house.source.feed([record(offset, f"{offset}@bulk", lane="bulk") for offset in range(10)])
        house.source.feed([record(offset, f"{offset}@sync") for offset in range(10, 110)])
        await asyncio.sleep(55)
        bulk = [place for place, (_, contact, _) in enumerate(told(house)) if contact.endswith("@bulk")]
        assert len(bulk) == 5
        assert {later - earlier for earlier, later in pairwise(bulk)} == {10}

    virtually(story())


def test_what_lingers_waits_for_more_from_the_first_contribution_on() -> None:
    """Thirty seconds after the first event one call says all of them; the wait does not begin anew with each."""

    async def story() -> None:
        house = House()
        house.source.assign(P0)
        for offset in range(5):
            house.source.feed([record(offset, linger=30.0)])
            await asyncio.sleep(9)
        assert told(house) == [("upsert", "a@x", [0, 1, 2, 3])]
        await asyncio.sleep(60)
        assert told(house)[1:] == [("upsert", "a@x", [4])]
        assert house.source.committed == {P0: 5}

    virtually(story())


@pytest.mark.parametrize("late", [False, True])
def test_an_urgent_action_does_not_wait_for_what_lingers(late: bool) -> None:
    """It pulls: the state that it needs leaves at once, and then it goes."""

    async def story() -> None:
        house = House()
        house.source.assign(P0)
        house.source.feed([record(0, linger=30.0)])
        if late:
            await asyncio.sleep(5)
        house.source.feed([urgent(1)])
        await asyncio.sleep(1)
        assert told(house) == [("upsert", "a@x", [0]), ("trigger", "a@x", [1])]

    virtually(story())


def test_what_lingers_does_not_hold_back_a_window_that_is_nearly_full() -> None:
    """At three quarters the lowest offset goes at once: intake would stop for the sake of a call that may be saved."""

    async def story() -> None:
        house = House(window_max=10)
        house.source.assign(P0)
        house.source.feed([record(0, linger=3600.0), *(record(offset, f"{offset}@x") for offset in range(1, 6))])
        await asyncio.sleep(5)
        assert len(house.meisa.calls) == 5
        house.source.feed([record(offset, f"{offset}@x") for offset in range(6, 9)])
        await asyncio.sleep(5)
        assert house.source.committed == {P0: 9}

    virtually(story())


def test_what_waits_for_its_retry_is_not_hastened_by_a_full_window() -> None:
    """Its moment is not a wish."""

    async def story() -> None:
        answers = [Outcome(Verdict.RETRY, 503)]
        house = House(window_max=10, meisa=FakeMeisa(lambda call: answers.pop() if answers else DELIVERED))
        house.source.assign(P0)
        house.source.feed([record(0)])
        await asyncio.sleep(0.1)
        house.source.feed([record(offset, f"{offset}@x") for offset in range(1, 9)])
        await asyncio.sleep(0.1)
        assert [call.body["email"] for call in house.meisa.calls if call.body] == [
            "a@x",
            *(f"{n}@x" for n in range(1, 9)),
        ]
        await asyncio.sleep(60)
        assert house.source.committed == {P0: 9}

    virtually(story())


def mailing(event: Event) -> Plan:
    """A record's trigger is urgent and keeps to no order, its upsert is neither."""
    made = plain_plan(event)
    free = [
        replace(action, handling=replace(action.handling, lane=Lane.TRANSACTIONAL, ordered=False))
        if action.kind is Kind.TRIGGER
        else action
        for action in made.actions
    ]
    return made._replace(actions=tuple(free))


def test_state_behind_a_backlog_does_not_keep_the_email_of_its_topic_waiting() -> None:
    """A trigger that has left keeps a place in its partition's progress until its event's upsert has left too, and
    there are few. Where that upsert stands behind another topic's backlog of the same person, so did all email."""

    async def story() -> None:
        house = House(limits=[(1, 1.0)], plan=mailing)
        house.source.assign(P0, P1)
        people = [f"{number}@x" for number in range(40)]
        house.source.feed([record(offset, f"{offset}@other") for offset in range(500)])
        house.source.feed([record(500 + place, email, do=["track"]) for place, email in enumerate(people)])
        house.source.feed(
            [record(offset, email, partition=1, do=["upsert", "trigger"]) for offset, email in enumerate(people)]
        )
        await asyncio.sleep(150)
        sent = told(house)
        assert [contact for endpoint, contact, _ in sent if endpoint == "trigger"] == people
        tracked = [contact for endpoint, contact, _ in sent if endpoint == "track"]
        state = [contact for endpoint, contact, _ in sent if endpoint == "upsert" and contact in people]
        assert tracked[: len(state)] == state == people[: len(state)], "what goes first goes in the order of each"
        assert len(sent) - len(people) - len(tracked) - len(state) > 50, "the rest is not forgotten meanwhile"

    virtually(story())


def test_what_stands_before_the_lowest_offset_goes_first_with_it() -> None:
    """Else a full window would wait for another partition's place in the queue of its contact."""

    async def story() -> None:
        house = House(limits=[(1, 1.0)], window_max=10)
        house.source.assign(P0, P1)
        house.source.feed([record(offset, f"{offset}@other", partition=1) for offset in range(7)])
        house.source.feed([record(7, partition=1, do=["track"])])
        house.source.feed([record(0, linger=3600.0), *(record(offset, f"{offset}@x") for offset in range(1, 8))])
        await asyncio.sleep(4)
        assert told(house)[:3] == [("upsert", "0@other", [0]), ("track", "a@x", [7]), ("upsert", "a@x", [0])]

    virtually(story())


def test_state_that_joined_what_waits_goes_first_too() -> None:
    """Another partition's upsert stands first in the call that holds a full window back."""

    async def story() -> None:
        house = House(limits=[(1, 1.0)], window_max=10)
        house.source.assign(P0, P1)
        house.source.feed([record(offset, f"{offset}@other", partition=1) for offset in range(6)])
        house.source.feed([record(6, partition=1)])
        house.source.feed([record(0), *(record(offset, f"{offset}@x") for offset in range(1, 8))])
        await asyncio.sleep(2)
        assert told(house)[0] == ("upsert", "a@x", [0, 6])

    virtually(story())
