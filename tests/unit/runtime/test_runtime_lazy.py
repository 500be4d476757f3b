"""Lazy fields through the whole engine: what finishes at once, what takes it along, and what goes by itself."""

import asyncio
from typing import Any

import pytest

from bridge.model import Call, Ending, Outcome, Verdict
from bridge.runtime.status import Status
from tests.support.engine import P0, P1
from tests.support.fakes import DELIVERED, FakeMeisa
from tests.support.lazy import (
    DAY,
    NO_CONTACT,
    REFUSED,
    SEEN,
    SLOW,
    bridge,
    fields,
    login,
    record,
    said,
    settled,
)
from tests.support.virtual import run


def test_log_ins_of_a_day_cost_one_call_at_once_and_one_at_the_days_end() -> None:
    """The first is sent as always, the others finish at once and are committed; the last value goes a day later."""

    async def story() -> None:
        house = bridge()
        house.source.assign(P0)
        for offset in range(24):
            house.source.feed([login(offset)])
            await settled(house)
        assert said(house) == [{"seen": 0}]
        assert house.endings() == {Ending.DELIVERED: 1, Ending.LAZY: 23}
        assert house.source.committed == {P0: 24}
        assert Status(house.engine, house.delivery, house.clock, dict, dict).snapshot().lazy_contacts == 1
        await settled(house, DAY)
        assert said(house) == [{"seen": 0}, {"seen": 23}]
        assert house.meter.counts["saved", "lazy"] == 22
        assert house.delivery.lazy.contacts == 0
        await settled(house, 3 * DAY)
        assert len(said(house)) == 2, "nothing is due, so nothing is sent"

    run(story())


def test_the_next_ordinary_upsert_takes_kept_values_along_under_its_own() -> None:
    """A plan change brings `seen` to Meisa, and `count` as it says itself; nothing is left for the period's end."""

    async def story() -> None:
        house = bridge()
        house.source.assign(P0)
        house.source.feed([login(0)])
        await settled(house)
        house.source.feed([record(1, fields={"seen": 1, "count": 1}), record(2, fields={"count": 2})])
        await settled(house)
        house.source.feed([record(3, fields={"plan": "pro", "count": 3})])
        await settled(house)
        assert said(house) == [{"seen": 0}, {"plan": "pro", "seen": 1, "count": 3}]
        assert house.meter.counts["saved", "lazy"] == 2
        await settled(house, 2 * DAY)
        assert len(said(house)) == 2

    run(story())


def test_a_call_that_carried_values_begins_the_period_anew() -> None:
    """A day counts from the last call with lazy fields, not from the first."""

    async def story() -> None:
        house = bridge()
        house.source.assign(P0)
        house.source.feed([login(0)])
        await settled(house, DAY / 2)
        house.source.feed([record(1, fields={"plan": "pro", "seen": 1})])
        await settled(house, DAY / 2 + 60)
        house.source.feed([login(2)])
        await settled(house, 60)
        assert said(house) == [{"seen": 0}, {"plan": "pro", "seen": 1}]
        await settled(house, DAY / 2)
        assert said(house)[2:] == [{"seen": 2}]

    run(story())


def test_after_a_period_without_anything_kept_a_log_in_is_sent_at_once() -> None:
    """The last call is a day ago: it is an ordinary upsert."""

    async def story() -> None:
        house = bridge()
        house.source.assign(P0)
        house.source.feed([login(0)])
        await settled(house, DAY + 1)
        house.source.feed([login(1)])
        await settled(house)
        assert said(house) == [{"seen": 0}, {"seen": 1}]
        assert house.endings() == {Ending.DELIVERED: 2}

    run(story())


@pytest.mark.parametrize(
    "more",
    [
        {"first_name": "Ann"},
        {"tag_names": ["vip"]},
        {"id": "7"},
        {"email": "b@x"},
        {"preserve": [SEEN]},
        {"coalesce": False},
        {"fields": {}},
    ],
)
def test_what_says_more_than_lazy_fields_is_sent(more: dict[str, Any]) -> None:
    """A name, a tag, an id or an email that is new; a preserved path; upserts that must not coalesce; no lazy field."""

    async def story() -> None:
        house = bridge()
        house.source.assign(P0)
        house.source.feed([login(0)])
        await settled(house)
        house.source.feed([record(1, **{"fields": {"seen": 1}, **more})])
        await settled(house)
        assert house.endings() == {Ending.DELIVERED: 2}

    run(story())


@pytest.mark.parametrize("more", [{"source": "signup"}, {"tag_names": []}])
def test_what_changes_no_contact_does_not_count(more: dict[str, Any]) -> None:
    """Meisa keeps the original source; no tags are none."""

    async def story() -> None:
        house = bridge()
        house.source.assign(P0)
        house.source.feed([login(0)])
        await settled(house)
        house.source.feed([login(1, **more)])
        await settled(house)
        assert house.endings() == {Ending.DELIVERED: 1, Ending.LAZY: 1}

    run(story())


def test_a_log_in_finds_its_contact_by_either_name() -> None:
    """Signed up with email and id; then events know only the email. Values ride to the contact of the id."""

    async def story() -> None:
        house = bridge()
        house.source.assign(P0)
        house.source.feed([record(0, id="7", fields={"plan": "free", "seen": 0})])
        await settled(house)
        house.source.feed([login(1)])
        await settled(house)
        house.source.feed([record(2, "new@x", id="7", fields={"plan": "pro"})])
        await settled(house)
        assert said(house) == [{"plan": "free", "seen": 0}, {"plan": "pro", "seen": 1}]
        assert house.meisa.calls[1].body["email"] == "new@x"  # type: ignore[index]

    run(story())


def test_log_ins_between_tracks_wait_for_no_turn() -> None:
    """A track is a barrier for upserts, not for lazy values: they ride on the upsert that waits before it."""

    async def story() -> None:
        house = bridge(limits=SLOW)
        house.source.assign(P0)
        house.source.feed([record(0, "other@x", fields={"n": 1})])
        await asyncio.sleep(1)
        house.source.feed([login(offset, do=["upsert", "track"]) for offset in (1, 2, 3)])
        await settled(house, 600)
        assert said(house) == [{"n": 1}, {"seen": 3}, {"track": "track1"}, {"track": "track2"}, {"track": "track3"}]
        assert house.source.committed == {P0: 4}
        await settled(house, 2 * DAY)
        assert len(said(house)) == 5

    run(story())


def test_values_ride_on_the_last_upsert_that_waits() -> None:
    """One behind a track says an older value: after a restart it would undo what had gone before it."""

    async def story() -> None:
        house = bridge(limits=SLOW)
        house.source.assign(P0)
        house.source.feed([login(0)])
        await settled(house)
        house.source.feed(
            [
                record(1, fields={"n": 1}),
                record(2, do=["track"]),
                record(3, fields={"n": 3, "seen": 3}),
                record(4, do=["track"]),
                login(5),
            ]
        )
        await settled(house, 600)
        assert said(house) == [
            {"seen": 0},
            {"n": 1},
            {"track": "track2"},
            {"n": 3, "seen": 5},
            {"track": "track4"},
        ]
        await settled(house, 2 * DAY)
        assert len(said(house)) == 5

    run(story())


def test_a_record_is_passed_once_it_has_finished() -> None:
    """Until then a value that was sent is not forgotten, however long that takes: the record may say an older one."""

    async def story() -> None:
        house = bridge(limits=SLOW)
        house.source.assign(P0)
        house.source.feed([login(0), record(1, "b@x", fields={"n": 1}), record(2, "c@x", fields={"n": 2})])
        passed = house.delivery.lazy.values.passed
        await asyncio.sleep(1)
        assert [passed(P0, offset) for offset in (0, 1, 2)] == [True, False, False]
        await settled(house, 600)
        assert [passed(P0, offset) for offset in (0, 1, 2)] == [True, True, True]
        assert not passed(P1, 0), "of a partition that is not ours nothing is known"

    run(story())


def test_what_went_out_with_a_call_that_may_have_been_carried_out_goes_with_its_repetition() -> None:
    """Another upsert waits behind it meanwhile: without the value the repetition would undo it."""

    async def story() -> None:
        outcomes = [DELIVERED, Outcome(Verdict.UNKNOWN, message="no answer")]
        house = bridge(meisa=FakeMeisa(lambda call: outcomes.pop(0) if outcomes else DELIVERED, latency=1.0))
        house.source.assign(P0)
        house.source.feed([login(0)])
        await settled(house)
        house.source.feed([record(1, fields={"seen": 1, "n": 1}), record(2, do=["track"])])
        house.source.feed([login(3)])
        await asyncio.sleep(0.5)
        house.source.feed([record(4, fields={"n": 4, "seen": 4})])
        await settled(house, 600)
        assert said(house)[1:] == [{"n": 1, "seen": 3}, {"n": 1, "seen": 3}, {"track": "track2"}, {"n": 4, "seen": 4}]

    run(story())


def test_a_value_that_waited_for_an_upsert_which_never_went_goes_when_its_period_ends() -> None:
    """The last one that waited was another partition's, which was lost."""

    async def story() -> None:
        house = bridge(limits=SLOW)
        house.source.assign(P0, P1)
        house.source.feed([login(0)])
        await settled(house)
        house.source.feed([record(1, fields={"n": 1}), record(2, do=["track"])])
        house.source.feed([record(0, partition=1, fields={"n": 2})])
        await asyncio.sleep(1)
        house.source.lose(P1)
        house.source.feed([login(3)])
        await settled(house, 2 * DAY)
        assert said(house) == [{"seen": 0}, {"n": 1}, {"track": "track2"}, {"seen": 3}]

    run(story())


def test_a_value_whose_upsert_is_refused_goes_by_itself() -> None:
    """Nothing is on record, and what it was to ride on is a dead letter: it must not wait for a day."""

    async def story() -> None:
        house = bridge(limits=SLOW, meisa=FakeMeisa(lambda call: REFUSED if "bad" in fields(call) else DELIVERED))
        house.source.assign(P0)
        house.source.feed([record(0, "other@x", fields={"n": 1})])
        await asyncio.sleep(1)
        house.source.feed([record(1, fields={"bad": 1}), record(2, do=["track"]), login(3)])
        await settled(house, 600)
        assert [letter.record.offset for letter in house.letters.letters] == [1]
        assert {"seen": 3} in said(house)

    run(story())


def test_a_kept_value_never_gets_another_events_upsert_refused() -> None:
    """Meisa refuses seen=1: the plan change goes without it, and the value alone, where it is dropped and no letter."""

    async def story() -> None:
        house = bridge(meisa=FakeMeisa(lambda call: REFUSED if fields(call).get("seen") == 1 else DELIVERED))
        house.source.assign(P0)
        house.source.feed([record(0, fields={"seen": 0, "count": 0})])
        await settled(house)
        house.source.feed([record(1, fields={"seen": 1, "count": 1})])
        await settled(house)
        house.source.feed([record(2, fields={"plan": "pro"})])
        await settled(house)
        assert said(house)[1:] == [{"plan": "pro", "seen": 1, "count": 1}, {"plan": "pro"}]
        assert house.endings() == {Ending.DELIVERED: 2, Ending.LAZY: 1}
        await settled(house, 2 * DAY)
        assert said(house)[3:] == [{"seen": 1}, {"count": 1}]
        assert not house.letters.letters
        assert house.delivery.lazy.contacts == 0
        house.source.feed([login(3)])
        await settled(house)
        assert said(house)[-1] == {"seen": 3}, "the contact goes on as before"

    run(story())


def test_a_refused_upsert_is_a_dead_letter_though_values_rode_on_it() -> None:
    """Its own field is at fault: it is asked for once more without them, and they follow by themselves."""

    async def story() -> None:
        house = bridge(meisa=FakeMeisa(lambda call: REFUSED if "bad" in fields(call) else DELIVERED))
        house.source.assign(P0)
        house.source.feed([login(0)])
        await settled(house)
        house.source.feed([login(1)])
        await settled(house)
        house.source.feed([record(2, fields={"bad": 1})])
        await settled(house)
        assert said(house)[1:] == [{"bad": 1, "seen": 1}, {"bad": 1}]
        assert [letter.record.offset for letter in house.letters.letters] == [2]
        await settled(house, DAY)
        assert said(house)[3:] == [{"seen": 1}]

    run(story())


def test_a_track_whose_contact_is_gone_still_arrives() -> None:
    """Hard case 24 with an upsert that finished as lazy: the contact is made anew, and its value follows at once."""
    known = {"contact": True}

    def answer(call: Call) -> Outcome:
        if call.endpoint == "upsert":
            known["contact"] = True
        return DELIVERED if known["contact"] else NO_CONTACT

    async def story() -> None:
        house = bridge(meisa=FakeMeisa(answer))
        house.source.assign(P0)
        house.source.feed([login(0)])
        await settled(house)
        known["contact"] = False  # somebody deleted it in Meisa's dashboard
        house.source.feed([login(1, do=["upsert", "track"])])
        await settled(house, 5)
        assert [call.endpoint for call in house.meisa.calls] == ["upsert", "track", "upsert", "track", "upsert"]
        assert said(house)[-1] == {"seen": 1}
        assert not house.letters.letters

    run(story())


# Partitions that come and go


def test_without_a_lasting_store_values_go_with_their_partition() -> None:
    """Its next owner may have sent newer ones by the time the partition comes back: nothing old is sent then."""

    async def story() -> None:
        house = bridge()
        house.source.assign(P0)
        house.source.feed([login(0)])
        await settled(house)
        house.source.feed([login(1)])
        await settled(house)
        await house.source.revoke(P0)
        assert house.delivery.lazy.contacts == 0
        house.source.committed[P0] = 5  # another owner was there
        house.source.assign(P0)
        await settled(house, 3 * DAY)
        assert said(house) == [{"seen": 0}]
        house.source.feed([login(5)])
        await settled(house)
        assert said(house) == [{"seen": 0}, {"seen": 5}], "nothing is on record: an ordinary upsert"

    run(story())


def test_an_answer_of_a_former_topic_hides_no_value_of_the_new_one() -> None:
    """A call is under way when its topic is created anew: its record's offset is high, and says nothing there."""

    async def story() -> None:
        house = bridge(meisa=FakeMeisa(latency=5.0))
        house.source.assign(P0)
        house.source.feed([login(100)])
        await asyncio.sleep(1.0)
        house.source.lose(P0)
        house.source.fresh = True
        house.source.committed.clear()
        house.source.assign(P0)
        house.source.feed([login(0)])
        await settled(house, 20)
        house.source.feed([login(1)])
        await settled(house, 2 * DAY)
        assert said(house)[0] == {"seen": 100} and said(house)[-1] == {"seen": 1}

    run(story())


def test_a_value_on_its_way_by_itself_is_withdrawn_with_its_partition() -> None:
    """It waits for the quota when the partition goes: the next owner has it, and nothing of it leaves here."""

    async def story() -> None:
        house = bridge(limits=SLOW)
        house.source.assign(P0, P1)
        house.source.feed([login(0)])
        await settled(house, 100)
        house.source.feed([login(1)])
        await asyncio.sleep(DAY - 130)
        house.source.feed([record(n, f"{n}@x", partition=1, fields={"n": n}) for n in range(60)])
        await asyncio.sleep(100)
        assert {"seen": 1} not in said(house)
        await house.source.revoke(P0)
        await asyncio.sleep(2 * DAY)
        assert {"seen": 1} not in said(house)
        assert house.delivery.pending == 0

    run(story())


def test_values_of_a_partition_ride_on_another_partitions_upsert_only_while_both_are_ours() -> None:
    """A revocation waits for the call that carries them, and afterwards they do not ride any more."""

    async def story() -> None:
        house = bridge(meisa=FakeMeisa(latency=3.0))
        house.source.assign(P0, P1)
        house.source.feed([login(0)])
        await settled(house, 5)
        house.source.feed([login(1)])
        await settled(house)
        house.source.feed([record(0, partition=1, fields={"plan": "pro"})])
        await asyncio.sleep(1)
        began = house.clock.now()
        await house.source.revoke(P0)
        assert house.clock.now() - began > 1.5, "the call that carries its value is awaited"
        await settled(house, 5)
        assert said(house) == [{"seen": 0}, {"plan": "pro", "seen": 1}]

    run(story())
