"""Lazy fields through the whole engine: what finishes at once, what takes it along, and what goes by itself."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from bridge.core.identity import Identities
from bridge.core.registers import merged
from bridge.model import (
    Action,
    Call,
    Contact,
    Ending,
    Event,
    Handling,
    Kind,
    Outcome,
    Plan,
    Record,
    Verdict,
)
from bridge.ports import Store
from bridge.state import open_store
from tests.support.engine import P0, P1, House
from tests.support.engine import record as plain_record
from tests.support.fakes import DELIVERED, FakeMeisa
from tests.support.virtual import run

DAY = 86_400.0
REFUSED = Outcome(Verdict.REFUSED, 400, "bad field")
NO_CONTACT = Outcome(Verdict.NEEDS_CONTACT, 404, "no such contact")
SLOW = [(1, 60.0)]
SEEN = "custom_fields.seen"


def plan(event: Event) -> Plan:
    """What `do` lists, about one contact; `seen` and `count` are lazy for all."""
    data = event.data
    handling = Handling(
        lazy=(SEEN, "custom_fields.count"),
        lazy_every_seconds=DAY,
        coalesce=data.get("coalesce", True),
        preserve=tuple(data.get("preserve", ())),
    )
    contact = Contact(data["email"], data.get("id"))
    actions, upsert = [], None
    for position, name in enumerate(data.get("do", ["upsert"])):
        kind = Kind(name)
        body: dict[str, Any] = {"email": data["email"]}
        if "id" in data:
            body["external_id"] = data["id"]
        if kind is Kind.UPSERT:
            body |= {name: data[name] for name in ("source", "tag_names", "first_name") if name in data}
            body["custom_fields"] = data.get("fields", {})
            upsert = position
        elif kind is Kind.TRACK:
            body["event_name"] = f"track{data['seq']}"
        needs = upsert if kind is Kind.TRACK else None
        actions.append(Action(kind, "rule", position, body, contact, handling, needs=needs))
    return Plan(tuple(actions))


def record(offset: int, email: str = "a@x", **data: Any) -> Record:
    return plain_record(offset, email, **data)


def login(offset: int, email: str = "a@x", **data: Any) -> Record:
    """A change in lazy fields only."""
    return record(offset, email, fields={"seen": offset}, **data)


def bridge(store: Store | None = None, **options: Any) -> House:
    return House(plan=plan, store=store, identities=Identities(store=store), **options)


def said(house: House) -> list[dict[str, Any]]:
    """The custom fields of each upsert, and the names of tracks, in the order of sending."""
    return [
        fields(call) if call.endpoint == "upsert" else {call.endpoint: (call.body or {})["event_name"]}
        for call in house.meisa.calls
    ]


async def settled(house: House, seconds: float = 2.0) -> None:
    await asyncio.sleep(seconds)
    assert house.delivery.pending == 0


def file(folder: Path) -> Store:
    return open_store("sqlite:///state.db", base_dir=folder, namespace="g", merge=merged)


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
        assert house.delivery.lazy.contacts == 1
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


def fields(call: Call) -> dict[str, Any]:
    return dict((call.body or {}).get("custom_fields", {}))


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


# A store that outlives the process


def test_kept_values_survive_a_kill_and_ride_or_go_later(tmp_path: Path) -> None:
    """What was finished as lazy and committed by a killed process is sent by its successor when the period ends."""

    async def before() -> tuple[int, str]:
        house = bridge(file(tmp_path))
        house.source.assign(P0)
        house.source.feed([login(0), login(0, "b@x")._replace(offset=1)])
        await settled(house)
        house.source.feed([login(2), login(3, "b@x"), login(4)])
        await settled(house)
        assert said(house) == [{"seen": 0}, {"seen": 0}]
        return house.source.committed[P0], house.source.metadata[P0]

    async def after(committed: tuple[int, str]) -> None:
        house = bridge(file(tmp_path))
        house.source.committed[P0], house.source.metadata[P0] = committed
        house.source.assign(P0)
        assert house.delivery.lazy.contacts == 2
        house.source.feed([record(5, "b@x", fields={"plan": "pro"})])
        await settled(house)
        assert said(house) == [{"plan": "pro", "seen": 3}]
        await settled(house, DAY)
        assert said(house) == [{"plan": "pro", "seen": 3}, {"seen": 4}]

    committed = run(before())
    assert committed[0] == 5
    run(after(committed))


def test_an_offset_is_committed_only_when_its_kept_value_lasts() -> None:
    """A process that dies right after a commit leaves every value of the offsets below it in the store."""
    from tests.unit.runtime.test_runtime_state import FarStore

    async def story() -> None:
        store = FarStore()
        house = bridge(store)
        house.source.assign(P0)
        house.source.feed([login(0)])
        await settled(house)
        store.full = True
        house.source.feed([login(1)])
        await settled(house)
        assert house.endings() == {Ending.DELIVERED: 1, Ending.LAZY: 1}
        assert house.source.committed == {P0: 1}
        store.full = False
        await asyncio.sleep(10)
        assert house.source.committed == {P0: 2}

    run(story())


def test_an_older_value_that_is_read_again_is_not_kept_over_one_that_was_sent(tmp_path: Path) -> None:
    """Offset 1 is read again after offset 2's value reached Meisa, because its track had not ended: nothing is due."""

    async def before() -> tuple[int, str]:
        house = bridge(file(tmp_path), meisa=FakeMeisa(unreachable_track))
        house.source.assign(P0)
        house.source.feed([login(0)])
        await settled(house)
        house.source.feed([login(1, do=["upsert", "track"]), record(2, fields={"plan": "pro", "seen": 2})])
        await asyncio.sleep(5)
        return house.source.committed[P0], house.source.metadata[P0]

    def unreachable_track(call: Call) -> Outcome:
        return Outcome(Verdict.RETRY, 503, "unavailable") if call.endpoint == "track" else DELIVERED

    async def after(committed: tuple[int, str]) -> None:
        house = bridge(file(tmp_path))
        house.source.committed[P0], house.source.metadata[P0] = committed
        house.source.assign(P0)
        house.source.feed([login(1, do=["upsert", "track"]), record(2, fields={"plan": "pro", "seen": 2})])
        await settled(house, 10)
        assert {"seen": 1} not in said(house)
        await settled(house, 3 * DAY)
        assert all(call.get("seen", 2) == 2 for call in said(house))

    committed = run(before())
    assert committed[0] == 1
    run(after(committed))


def test_a_person_erased_from_the_store_is_not_written_to(tmp_path: Path) -> None:
    """`contact forget` runs beside the bridge: a kept value of the person does not go out a day later."""

    async def story() -> None:
        house = bridge(file(tmp_path))
        house.source.assign(P0)
        house.source.feed([login(0), login(1, "b@x")])
        await settled(house)
        house.source.feed([login(2), login(3, "b@x")])
        await settled(house)
        other = file(tmp_path)
        async for name, value in other.scan("l:"):
            if b"a@x" in value:
                other.delete(name)
        await other.flush()
        await other.close()
        await settled(house, 2 * DAY)
        assert said(house)[2:] == [{"seen": 3}]

    run(story())


def test_the_next_owner_with_the_same_store_goes_on(tmp_path: Path) -> None:
    """Two instances, one store that both reach: a partition that moves takes its kept values along."""

    async def story() -> None:
        first, second = bridge(file(tmp_path)), bridge(file(tmp_path))
        first.source.assign(P0)
        first.source.feed([login(0)])
        await settled(first)
        first.source.feed([login(1)])
        await settled(first)
        await first.source.revoke(P0)
        second.source.committed.update(first.source.committed)
        second.source.metadata.update(first.source.metadata)
        second.source.assign(P0)
        await settled(second, 2 * DAY)
        assert said(first) == [{"seen": 0}]
        assert said(second) == [{"seen": 1}]

    run(story())


# After a crash (hard case 22)


def test_a_value_rides_only_once_a_commit_told_of_its_record() -> None:
    """Else a crash would send the older value of the upsert again, and whoever reads on knows nothing of the newer."""

    async def story() -> None:
        house = bridge(limits=SLOW)
        house.source.assign(P0)
        house.source.feed([record(0, "other@x", fields={"n": 1})])
        await asyncio.sleep(1)
        house.source.feed([login(1, do=["upsert", "track"])])
        await asyncio.sleep(58)
        house.source.answer_commits = False
        house.source.feed([login(2)])
        await asyncio.sleep(5)
        assert said(house)[1:] == [{"seen": 1}]
        house.source.answer_commits = True
        for positions in house.source.unanswered:
            house.source.commit(positions)
        await settled(house, 300)
        assert {"seen": 2} not in said(house), "it waits for the period: seen=1 was sent a moment ago"
        assert house.delivery.lazy.contacts == 1

    run(story())


def test_no_kept_value_leaves_while_newer_records_are_to_be_read_again(tmp_path: Path) -> None:
    """Offset 2 had reached Meisa and was not committed; offset 1's value, due by now, must not be sent over it."""

    async def before() -> tuple[int, str]:
        house = bridge(file(tmp_path))
        house.source.assign(P0)
        house.source.feed([login(0)])
        await settled(house)
        house.source.feed([login(1)])
        await settled(house)
        house.source.feed([record(2, fields={"seen": 2, "plan": "pro"})])
        while not house.meisa.active:
            await asyncio.sleep(0.001)
        house.source.answer_commits = False
        await asyncio.sleep(1)
        assert said(house) == [{"seen": 0}, {"seen": 2, "plan": "pro"}]
        return house.source.committed[P0], house.source.metadata[P0]

    async def after(committed: tuple[int, str]) -> None:
        house = bridge(file(tmp_path))
        house.clock.wall_offset = 2 * DAY
        house.source.committed[P0], house.source.metadata[P0] = committed
        house.source.assign(P0)
        await asyncio.sleep(3)
        assert said(house) == []
        house.source.feed([record(2, fields={"seen": 2, "plan": "pro"})])
        await settled(house, 3 * DAY)
        assert said(house) == [{"seen": 2, "plan": "pro"}]

    committed = run(before())
    assert committed[0] == 2
    run(after(committed))
