"""Upserts that wait share a call: what they merge with, what they never pass, and how they come apart."""

import asyncio
import gc
from collections.abc import Coroutine
from typing import Any

import pytest

from bridge.core.retry import Policy
from bridge.model import Call, Ending, LetterKind, Outcome, Record, Verdict
from tests.support.engine import P0, P1, House
from tests.support.engine import record as plain_record
from tests.support.fakes import DELIVERED, FakeMeisa
from tests.support.virtual import run

UNAVAILABLE = Outcome(Verdict.RETRY, 503, "unavailable")
REFUSED = Outcome(Verdict.REFUSED, 400, "bad field")
FORBIDDEN = Outcome(Verdict.SCOPE_MISSING, 403, "no scope")
SLOW = [(2, 60.0)]
"""Two calls a minute: everything waits, and so merges."""


def record(offset: int, email: str | None = "a@x", **data: Any) -> Record:
    return plain_record(offset, email, **{"coalesce": True, "fields": {f"f{offset}": offset}, **data})


def virtually(story: Coroutine[Any, Any, None]) -> None:
    run(story)


def fields(call: Call) -> dict[str, Any]:
    assert call.body is not None
    return dict(call.body.get("custom_fields", {}))


def told(house: House) -> list[tuple[str, list[int]]]:
    """Endpoint and the offsets that each call stands for, in the order of sending."""
    return [
        (call.endpoint, sorted(fields(call).values()) if call.endpoint == "upsert" else [call.body["seq"]])  # type: ignore[index]
        for call in house.meisa.calls
    ]


async def in_flight(house: House) -> None:
    """Waits until a call is on its way."""
    while not house.meisa.active:
        await asyncio.sleep(0.01)


def poisonous(*bad: int) -> FakeMeisa:
    """Refuses every upsert that has one of these fields."""
    return FakeMeisa(lambda call: REFUSED if {f"f{n}" for n in bad} & fields(call).keys() else DELIVERED)


def test_what_waits_for_its_turn_leaves_as_one_call() -> None:
    """While the first is in flight the rest gathers: two calls for fifty events, and every offset is committed."""

    async def story() -> None:
        house = House()
        house.source.assign(P0)
        house.source.feed([record(0)])
        await asyncio.sleep(0.03)
        house.source.feed([record(offset) for offset in range(1, 50)])
        await asyncio.sleep(1)
        assert told(house) == [("upsert", [0]), ("upsert", list(range(1, 50)))]
        assert house.endings() == {Ending.DELIVERED: 2, Ending.MERGED: 48}
        assert house.source.committed == {P0: 50}
        assert house.delivery.pending == 0

    virtually(story())


@pytest.mark.parametrize("between", ["track", "trigger", "enroll"])
def test_nothing_merges_across_a_call_that_must_meet_its_state(between: str) -> None:
    """A track, trigger or enrollment leaves after the upserts before it and before those after it."""

    async def story() -> None:
        house = House(limits=[(1, 1.0)])
        house.source.assign(P0)
        house.source.feed([record(0), record(1), record(2), record(3, do=[between]), record(4), record(5)])
        await asyncio.sleep(10)
        assert told(house) == [("upsert", [0, 1, 2]), (between, [3]), ("upsert", [4, 5])]

    virtually(story())


def test_contacts_do_not_merge_and_do_not_wait_for_each_other() -> None:
    """One call each."""

    async def story() -> None:
        house = House()
        house.source.assign(P0)
        house.source.feed([record(offset, f"{offset % 3}@x") for offset in range(9)])
        await asyncio.sleep(1)
        assert sorted(told(house)) == [("upsert", [0, 3, 6]), ("upsert", [1, 4, 7]), ("upsert", [2, 5, 8])]

    virtually(story())


def test_each_value_of_a_preserved_field_is_sent() -> None:
    """free, free, pro, free: three calls, in order; other fields ride along."""

    async def story() -> None:
        house = House(limits=[(1, 1.0)])
        house.source.assign(P0)
        preserve = ["custom_fields.plan"]
        house.source.feed(
            [
                record(offset, preserve=preserve, fields=values)
                for offset, values in enumerate(
                    [{"plan": "free"}, {"plan": "free"}, {"plan": "pro"}, {"n": 1}, {"plan": "free"}, {"n": 2}]
                )
            ]
        )
        await asyncio.sleep(10)
        assert [fields(call) for call in house.meisa.calls] == [
            {"plan": "free"},
            {"plan": "pro", "n": 1},
            {"plan": "free", "n": 2},
        ]
        assert house.source.committed == {P0: 6}

    virtually(story())


def test_coalesce_false_sends_each() -> None:
    """The rule says so."""

    async def story() -> None:
        house = House(limits=[(1, 1.0)])
        house.source.assign(P0)
        house.source.feed([record(offset, coalesce=offset == 3) for offset in range(5)])
        await asyncio.sleep(10)
        assert told(house) == [("upsert", [0]), ("upsert", [1]), ("upsert", [2]), ("upsert", [3]), ("upsert", [4])]

    virtually(story())


def test_only_what_was_refused_is_dead_lettered() -> None:
    """Of 16 merged contributions two are bad: the other fourteen arrive, in order, with few calls."""

    async def story() -> None:
        house = House(meisa=poisonous(5, 11))
        house.source.assign(P0)
        house.source.feed([record(offset) for offset in range(16)])
        await asyncio.sleep(30)
        assert [letter.record.offset for letter in house.letters.letters] == [5, 11]
        assert {letter.kind for letter in house.letters.letters} == {LetterKind.REJECTED}
        assert [letter.request for letter in house.letters.letters] == [
            {"email": "a@x", "seq": bad, "custom_fields": {f"f{bad}": bad}} for bad in (5, 11)
        ]
        arrived = [value for call in house.meisa.done for value in fields(call).values() if poison_free(call)]
        assert arrived == [offset for offset in range(16) if offset not in (5, 11)]
        assert len(house.meisa.calls) <= 2 * 2 * 4 + 1, "halving, not asking one by one"
        assert house.source.committed == {P0: 16}

    def poison_free(call: Call) -> bool:
        return not {"f5", "f11"} & fields(call).keys()

    virtually(story())


def test_what_comes_while_a_refused_call_is_taken_apart_waits_behind_it() -> None:
    """Later state never passes the earlier one that is being asked for anew."""

    async def story() -> None:
        house = House(meisa=poisonous(0))
        house.source.assign(P0)
        house.source.feed([record(offset) for offset in range(4)])
        await asyncio.sleep(0.07)  # the first answer has come: refused
        house.source.feed([record(4), record(5, do=["track"])])
        await asyncio.sleep(5)
        assert told(house) == [
            ("upsert", [0, 1, 2, 3]),
            ("upsert", [0, 1]),
            ("upsert", [0]),
            ("upsert", [1]),
            ("upsert", [2, 3]),
            ("upsert", [4]),
            ("track", [5]),
        ]

    virtually(story())


def test_a_track_goes_without_its_upsert_only_if_that_was_not_refused() -> None:
    """Events 0 to 2 upsert and track; the upsert of 1 is refused alone, so its track is not sent."""

    async def story() -> None:
        house = House(meisa=poisonous(1), limits=[(1, 1.0)])
        house.source.assign(P0)
        house.source.feed([record(0), record(1, do=["upsert", "track"])])
        await asyncio.sleep(10)
        assert told(house) == [("upsert", [0, 1]), ("upsert", [0]), ("upsert", [1])]
        letter = house.letters.letters[0]
        assert (letter.record.offset, letter.undelivered) == (1, (0, 1))

    virtually(story())


def test_a_missing_scope_ends_a_merged_call_at_once_not_in_halves() -> None:
    """403 is the key's: each half would wait its hour again."""

    async def story() -> None:
        house = House(meisa=FakeMeisa(lambda call: FORBIDDEN), policy=Policy(scope_wait_seconds=60.0))
        house.source.assign(P0)
        house.source.feed([record(offset) for offset in range(8)])
        await asyncio.sleep(200)
        assert len(house.letters.letters) == 8
        assert all(len(fields(call)) == 8 for call in house.meisa.calls)

    virtually(story())


def test_what_is_tried_again_takes_in_what_came_meanwhile() -> None:
    """A 503 and its wait: the next attempt says the newest state."""

    async def story() -> None:
        answers = iter([UNAVAILABLE])
        house = House(meisa=FakeMeisa(lambda call: next(answers, DELIVERED)))
        house.source.assign(P0)
        house.source.feed([record(0)])
        await asyncio.sleep(0.08)
        house.source.feed([record(1), record(2)])
        await asyncio.sleep(5)
        assert told(house) == [("upsert", [0]), ("upsert", [0, 1, 2])]
        assert house.source.committed == {P0: 3}

    virtually(story())


def test_a_revocation_takes_its_own_contributions_out_of_a_merged_call() -> None:
    """Partition 1 goes while both wait: the call says what partition 0 has to say, and only that is finished."""

    async def story() -> None:
        house = House(limits=SLOW)
        house.source.assign(P0, P1)
        house.source.feed([record(0, "b@x"), record(1, "c@x")])  # use up the quota
        await asyncio.sleep(0.2)
        for offset in range(2, 6):
            house.source.feed([record(offset), record(offset + 100, partition=1)])
        await asyncio.sleep(1)
        await house.source.revoke(P1)
        await asyncio.sleep(120)
        assert told(house)[2:] == [("upsert", [2, 3, 4, 5])]
        assert house.source.committed[P0] == 6
        assert house.source.committed[P1] == 102, "the first of its own is still open"
        assert house.delivery.pending == 0

    virtually(story())


def test_a_revocation_while_the_call_is_in_flight_lets_it_end_well_for_both() -> None:
    """What was sent for the partition that goes is finished and committed within its drain."""

    async def story() -> None:
        house = House(limits=SLOW)
        house.source.assign(P0, P1)
        house.source.feed([record(0, "b@x"), record(1, "c@x")])
        await asyncio.sleep(0.2)
        house.source.feed([record(2), record(0, partition=1, fields={"f1": 1}), record(3)])
        await in_flight(house)
        await house.source.revoke(P1)
        await asyncio.sleep(1)
        assert told(house)[2:] == [("upsert", [1, 2, 3])]
        assert house.source.committed == {P0: 4, P1: 1}

    virtually(story())


def test_a_refused_merged_call_of_a_partition_that_goes_asks_only_for_the_rest() -> None:
    """Nothing of the revoked partition leaves again; its new owner repeats it."""

    async def story() -> None:
        house = House(meisa=poisonous(2), limits=[(1, 1.0)])
        house.source.assign(P0, P1)
        house.source.feed([record(0, "b@x")])
        await asyncio.sleep(0.2)
        house.source.feed([record(1), record(7, partition=1), record(2), record(8, partition=1)])
        await in_flight(house)
        await house.source.revoke(P1)
        await asyncio.sleep(20)
        assert told(house)[1:] == [("upsert", [1, 2, 7, 8]), ("upsert", [1]), ("upsert", [2])]
        assert [letter.record.offset for letter in house.letters.letters] == [2]
        assert house.source.committed[P0] == 3

    virtually(story())


def test_an_urgent_contribution_makes_the_merged_call_urgent() -> None:
    """The call moves to the lane of its most urgent contribution."""

    async def story() -> None:
        house = House(limits=[(1, 1.0)])
        house.source.assign(P0)
        house.source.feed([record(0, "z@x")])
        await asyncio.sleep(0.2)
        house.source.feed([record(1, "b@x"), record(2, lane="bulk"), record(3, lane="transactional")])
        await asyncio.sleep(10)
        assert told(house)[1:] == [("upsert", [2, 3]), ("upsert", [1])]
        assert house.delivery.pending_by_lane() == [("transactional", 0, 0), ("sync", 0, 0), ("bulk", 0, 0)]

    virtually(story())


def test_a_new_name_of_the_contact_joins_its_queue() -> None:
    """The second upsert adds an alias: what knows only the alias waits behind the merged call."""

    async def story() -> None:
        house = House(limits=[(1, 1.0)])
        house.source.assign(P0)
        house.source.feed([record(0, "z@x")])
        await asyncio.sleep(0.2)
        house.source.feed(
            [record(1), record(2, aliases={"stripe": "cus_1"}), record(3, "other@x", aliases={"stripe": "cus_1"})]
        )
        await asyncio.sleep(10)
        assert told(house)[1:] == [("upsert", [1, 2]), ("upsert", [3])]

    virtually(story())


def test_pending_counts_actions_however_they_leave() -> None:
    """Back-pressure is about what is in memory: merged contributions are."""

    async def story() -> None:
        house = House(limits=SLOW, pending_max=10)
        house.source.assign(P0)
        house.source.feed([record(0, "b@x"), record(1, "c@x")])
        await asyncio.sleep(0.2)
        house.source.feed([record(offset) for offset in range(2, 40)])
        assert house.delivery.pending == 10
        assert P0 in house.source.paused
        await asyncio.sleep(400)
        assert house.delivery.pending == 0
        assert house.source.committed == {P0: 40}

    virtually(story())


@pytest.mark.parametrize("kind", ["trigger", "upsert"])
def test_what_goes_in_the_moment_before_it_is_sent_is_unsent(kind: str) -> None:
    """The partition is lost between the decision and the task that carries it out: no call, no slot used, no error."""

    async def story() -> None:
        errors: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context))
        house = House(limits=[(1, 3600.0)])
        house.source.assign(P0)
        house.source.feed([record(0, do=[kind])])
        await asyncio.sleep(0)
        assert house.delivery.in_flight == 1
        house.source.lose(P0)
        await asyncio.sleep(1)
        gc.collect()
        assert not errors
        assert (house.meisa.calls, house.delivery.in_flight, house.delivery.pending) == ([], 0, 0)
        house.source.assign(P1)
        house.source.feed([record(0, "b@x", partition=1)])
        await asyncio.sleep(1)
        assert told(house) == [("upsert", [0])], "the hour's only slot was given back"

    virtually(story())


def test_a_call_that_was_withheld_is_no_attempt_and_leaves_later() -> None:
    """Kept back right before the first byte, because this process had stood still: it goes when Kafka has answered."""

    async def story() -> None:
        answers = iter([Outcome(Verdict.WITHHELD, detail="never_sent")] * 3)
        house = House(
            meisa=FakeMeisa(lambda call: next(answers, DELIVERED)),
            policy=Policy(attempts=1, max_age_seconds=0.0),
            limits=[(1, 3600.0)],
        )
        house.source.assign(P0)
        house.source.feed([record(0, do=["trigger"])])
        await asyncio.sleep(5)
        assert len(house.meisa.calls) == 4
        assert house.endings() == {Ending.DELIVERED: 1}
        assert not house.delivery.held_endpoints() and not house.letters.letters

    virtually(story())
