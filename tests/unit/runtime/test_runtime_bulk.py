"""Enrollments that share a bulk call, through the whole engine and against the sandbox's own world."""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from bridge.meisa.endpoints import ENDPOINTS
from bridge.meisa.judge import Judge, Reply
from bridge.model import (
    Action,
    Call,
    Contact,
    Ending,
    Event,
    Handling,
    Kind,
    LetterKind,
    Outcome,
    Plan,
    Record,
    Verdict,
)
from bridge.sandbox.fields import Refused
from bridge.sandbox.world import World, WorldOptions
from tests.support.engine import P0, P1, TOPIC, House
from tests.support.fakes import FakeMeisa
from tests.support.virtual import run

MINUTE = [(1, 60.0)]


class WorldMeisa(FakeMeisa):
    """Carries calls out as the sandbox does, judged as the client judges; `fault(call)` may answer instead."""

    def __init__(self, fault: Callable[[Call], Outcome | None] = lambda call: None) -> None:
        super().__init__(self._answer)
        self.world = World(WorldOptions(), random.Random(1))
        self.fault = fault
        self.carried_out_first = False
        """The fault hits the answer, not the call."""

    def _answer(self, call: Call) -> Outcome:
        fault = self.fault(call)
        if fault is not None and not self.carried_out_first:
            return fault
        body = dict(call.body or {})
        doors = {
            "enroll": self.world.enroll,
            "bulk_enroll": self.world.bulk_enroll,
            "upsert": self.world.contacts.upsert,
        }
        try:
            answer = doors[call.endpoint](body, 0.0)
            reply = Reply(answer.status, json.dumps(answer.body).encode())
        except Refused as refused:
            reply = Reply(refused.status, json.dumps({"error": {"message": refused.message}}).encode())
        return fault or Judge().answer(ENDPOINTS[call.endpoint], reply, 0.0)

    def enrolled(self, slug: str = "welcome") -> list[str]:
        return sorted(each.contact.email for each in self.world._enrollments.values() if each.slug == slug)

    def sizes(self) -> list[tuple[str, int]]:
        return [(call.endpoint, len((call.body or {}).get("emails", [1]))) for call in self.calls]


def record(offset: int, email: str, *, partition: int = 0, before: str = "", **body: Any) -> Record:
    value = {"email": email, "before": before, "body": {"email": email, "sequence_slug": "welcome", **body}}
    return Record(TOPIC, partition, offset, 1_780_000_000_000, None, json.dumps(value).encode())


def plan(event: Event) -> Plan:
    """An enrollment, and an upsert before it where `before` is set."""
    data = event.data
    contact = Contact(data["email"])
    handling = Handling(
        max_age_seconds=data["body"].pop("max_age", 86_400.0),
        on_suppressed=data["body"].pop("on_suppressed", "finish"),
    )
    actions = [Action(Kind.UPSERT, "rule", 0, {"email": data["email"]}, contact)] if data["before"] else []
    actions.append(Action(Kind.ENROLL, "rule", len(actions), data["body"], contact, handling))
    return Plan(tuple(actions))


def told(
    story: Callable[[House, WorldMeisa], Coroutine[Any, Any, None]], meisa: WorldMeisa | None = None, **options: Any
) -> None:
    async def main() -> None:
        made = meisa or WorldMeisa()
        house = House(meisa=made, plan=plan, **options)
        house.source.assign(P0, P1)
        await story(house, made)
        assert house.delivery.pending == 0
        assert not house.failures

    run(main())


def test_enrollments_that_come_together_leave_in_one_call() -> None:
    """A burst within a moment; each event ends, and the calls that were not needed are counted."""

    async def story(house: House, meisa: WorldMeisa) -> None:
        for offset in range(20):
            house.source.feed([record(offset, f"{offset}@x.io")])
            await asyncio.sleep(0.04)
        await asyncio.sleep(5)
        assert meisa.sizes() == [("bulk_enroll", 20)]
        assert len(meisa.enrolled()) == 20
        assert house.endings() == {Ending.DELIVERED: 20}
        assert house.meter.counts["saved", "bulk"] == 19
        assert house.source.committed[P0] == 20

    told(story)


def test_an_enrollment_alone_is_a_plain_one() -> None:
    """Nobody came within the moment that it waits."""

    async def story(house: House, meisa: WorldMeisa) -> None:
        house.source.feed([record(0, "a@x.io")])
        await asyncio.sleep(0.5)
        assert meisa.calls == []
        await asyncio.sleep(3)
        assert meisa.sizes() == [("enroll", 1)]
        assert meisa.enrolled() == ["a@x.io"]

    told(story)


def test_while_no_slot_is_free_more_gather_and_500_go_at_most() -> None:
    """One call a minute: 1,100 enrollments are three calls."""

    async def story(house: House, meisa: WorldMeisa) -> None:
        house.source.feed([record(offset, f"{offset}@x.io") for offset in range(1100)])
        await asyncio.sleep(400)
        assert meisa.sizes() == [("bulk_enroll", 500), ("bulk_enroll", 500), ("bulk_enroll", 100)]
        assert len(meisa.enrolled()) == 1100

    told(story, limits=MINUTE)


def test_the_wait_for_others_begins_with_the_turn() -> None:
    """Each stands behind its contact's upsert, which takes two seconds: what follows within a second goes along."""

    async def story(house: House, meisa: WorldMeisa) -> None:
        meisa.latency = 2.0
        for offset in range(5):
            house.source.feed([record(offset, f"{offset}@x.io", before="yes")])
            await asyncio.sleep(0.1)
        await asyncio.sleep(10)
        assert meisa.sizes() == [*[("upsert", 1)] * 5, ("bulk_enroll", 5)]

    told(story)


def test_in_a_backlog_others_use_the_place_of_what_waits_for_company() -> None:
    """Sixty contacts at a call a minute: enrollments wait longer the older they are, and no minute is lost by it."""

    async def story(house: House, meisa: WorldMeisa) -> None:
        house.source.feed([record(offset, f"{offset}@x.io", before="yes") for offset in range(60)])
        await asyncio.sleep(90 * 60)
        enrolls = [size for name, size in meisa.sizes() if name != "upsert"]
        assert sum(enrolls) == 60
        assert len(enrolls) < 30
        assert house.endings() == {Ending.DELIVERED: 60}

    told(story, limits=MINUTE)


def test_only_alike_enrollments_unite() -> None:
    """Per sequence and override; one with metadata or a trigger_source goes alone."""

    async def story(house: House, meisa: WorldMeisa) -> None:
        bodies: list[dict[str, Any]] = [
            {},
            {"override_unsubscribe": True},
            {"sequence_slug": "other"},
            {"metadata": {"a": 1}},
            {"trigger_source": "app"},
            {"override_unsubscribe": False},
            {"override_unsubscribe": True},
        ]
        house.source.feed([record(offset, f"{offset}@x.io", **body) for offset, body in enumerate(bodies)])
        await asyncio.sleep(10)
        assert Counter(meisa.sizes()) == {("bulk_enroll", 2): 2, ("enroll", 1): 3}
        told = [call.body for call in meisa.calls if call.endpoint == "bulk_enroll"]
        assert {"sequence_slug": "welcome", "emails": ["0@x.io", "5@x.io"]} in told
        assert {"sequence_slug": "welcome", "emails": ["1@x.io", "6@x.io"], "override_unsubscribe": True} in told

    told(story)


def test_each_address_ends_by_what_was_told_of_it() -> None:
    """Enrolled, in it already, suppressed (finished, or dead-lettered where the rule says so), no address at all."""

    async def story(house: House, meisa: WorldMeisa) -> None:
        meisa.world.enroll({"email": "in@x.io", "sequence_slug": "welcome"}, 0.0)
        meisa.world.contacts.suppress("gone@x.io")
        meisa.world.contacts.suppress("told@x.io", "bounced")
        house.source.feed(
            [
                record(0, "new@x.io"),
                record(1, "in@x.io"),
                record(2, "gone@x.io"),
                record(3, "no address"),
                record(4, "told@x.io", on_suppressed="dead_letter"),
            ]
        )
        await asyncio.sleep(5)
        assert meisa.sizes() == [("bulk_enroll", 5)]
        assert house.endings() == {Ending.DELIVERED: 2, Ending.SUPPRESSED: 1, Ending.DEAD_LETTERED: 2}
        letters = {letter.record.offset: letter for letter in house.letters.letters}
        assert {offset: letter.kind for offset, letter in letters.items()} == {
            3: LetterKind.REJECTED,
            4: LetterKind.REJECTED,
        }
        assert letters[3].request == {"email": "no address", "sequence_slug": "welcome"}
        assert meisa.enrolled() == ["in@x.io", "new@x.io"]

    told(story)


def test_what_the_answer_does_not_tell_is_asked_for_alone() -> None:
    """An answer without two of the addresses, and one in words that nobody knows: nobody is lost or enrolled twice."""

    def short(call: Call) -> Outcome | None:
        if call.endpoint != "bulk_enroll":
            return None
        body = {"results": [{"email": "0@x.io", "status": "enrolled"}, {"email": "1@x.io", "status": "shrug"}]}
        return Judge().answer(ENDPOINTS["bulk_enroll"], Reply(200, json.dumps(body).encode()), 0.0)

    async def story(house: House, meisa: WorldMeisa) -> None:
        meisa.carried_out_first = True
        house.source.feed([record(offset, f"{offset}@x.io") for offset in range(4)])
        await asyncio.sleep(20)
        assert meisa.sizes() == [("bulk_enroll", 4), *[("enroll", 1)] * 3]
        assert len(meisa.enrolled()) == 4
        assert house.endings() == {Ending.DELIVERED: 4}

    told(story, WorldMeisa(short))


@pytest.mark.parametrize("carried_out", [False, True])
@pytest.mark.parametrize("verdict", [Verdict.RETRY, Verdict.UNKNOWN])
def test_a_bulk_call_without_an_answer_is_made_again_in_parts(verdict: Verdict, carried_out: bool) -> None:
    """Whether or not it was carried out: each is enrolled once, and in few calls."""
    faults = iter([Outcome(verdict, 503 if verdict is Verdict.RETRY else None, "away")])

    async def story(house: House, meisa: WorldMeisa) -> None:
        meisa.carried_out_first = carried_out
        house.source.feed([record(offset, f"{offset}@x.io") for offset in range(100)])
        await asyncio.sleep(30)
        assert len(meisa.enrolled()) == 100
        assert meisa.sizes() == [("bulk_enroll", 100), ("bulk_enroll", 50), ("bulk_enroll", 50)]
        assert house.endings() == {Ending.DELIVERED: 100}

    told(story, WorldMeisa(lambda call: next(faults, None)))


def test_an_address_that_breaks_the_call_holds_up_only_itself() -> None:
    """Every call that names it fails: the others come apart from it, and arrive."""

    def poisoned(call: Call) -> Outcome | None:
        named = json.dumps(call.body)
        return Outcome(Verdict.RETRY, 500, "internal error") if '"7@x.io"' in named else None

    async def story(house: House, meisa: WorldMeisa) -> None:
        house.source.feed([record(offset, f"{offset}@x.io") for offset in range(64)])
        await asyncio.sleep(60)
        assert len(meisa.enrolled()) == 63
        assert len(meisa.calls) < 30
        await house.source.revoke(P0, P1)

    told(story, WorldMeisa(poisoned))


def test_a_bulk_call_that_is_refused_as_a_whole_refuses_only_who_is_to_blame() -> None:
    """One address is bad for everybody: it alone is dead-lettered, after few calls."""

    def strict(call: Call) -> Outcome | None:
        return Outcome(Verdict.REFUSED, 400, "a bad address") if '"bad"' in json.dumps(call.body) else None

    async def story(house: House, meisa: WorldMeisa) -> None:
        house.source.feed([record(offset, "bad" if offset == 30 else f"{offset}@x.io") for offset in range(400)])
        await asyncio.sleep(60)
        assert [letter.record.offset for letter in house.letters.letters] == [30]
        assert len(meisa.enrolled()) == 399
        assert len(meisa.calls) <= 1 + 8 + 9 + 8
        assert house.source.committed[P0] == 400

    told(story, WorldMeisa(strict))


def test_a_sequence_that_takes_nobody_refuses_each() -> None:
    """Each is a dead letter with Meisa's own reason."""

    async def story(house: House, meisa: WorldMeisa) -> None:
        meisa.world.set_sequence("welcome", status="inactive")
        house.source.feed([record(offset, f"{offset}@x.io") for offset in range(20)])
        await asyncio.sleep(60)
        assert len(house.letters.letters) == 20
        assert {letter.message for letter in house.letters.letters} == {"The sequence welcome is not active."}

    told(story, stop_at=(1.0, 10_000))


def test_where_bulk_calls_always_fail_single_ones_do_the_work() -> None:
    """The bulk endpoint is out: enrollments go one by one, and it is asked now and then."""

    def out(call: Call) -> Outcome | None:
        return Outcome(Verdict.RETRY, 503, "away") if call.endpoint == "bulk_enroll" else None

    async def story(house: House, meisa: WorldMeisa) -> None:
        for burst in range(20):
            house.source.feed([record(offset, f"{offset}@x.io") for offset in range(burst * 10, burst * 10 + 10)])
            await asyncio.sleep(2)
        await asyncio.sleep(200)
        assert len(meisa.enrolled()) == 200
        assert sum(endpoint == "bulk_enroll" for endpoint, _ in meisa.sizes()) < 60

    told(story, WorldMeisa(out))


def test_order_of_a_contact_holds() -> None:
    """A contact's upsert goes before its enrollment, and nothing of it while that is under way."""

    async def story(house: House, meisa: WorldMeisa) -> None:
        house.source.feed([record(offset, f"{offset % 5}@x.io", before="upsert") for offset in range(10)])
        await asyncio.sleep(30)
        seen: Counter[str] = Counter()
        for call in meisa.calls:
            assert call.body is not None
            for email in call.body.get("emails", [call.body.get("email")]):
                step = 0 if call.endpoint == "upsert" else 1
                assert seen[email] % 2 == step, "upsert, enroll, upsert, enroll"
                seen[email] += 1
        assert set(seen.values()) == {4}
        assert house.source.committed[P0] == 10

    told(story)


def test_a_revocation_takes_its_own_out_of_what_waits() -> None:
    """Partition 1 goes while all wait for a slot: the call names only the contacts of partition 0."""

    async def story(house: House, meisa: WorldMeisa) -> None:
        house.source.feed([record(0, "first@x.io")])
        await asyncio.sleep(2)
        house.source.feed([record(offset, f"{offset}@x.io") for offset in range(1, 4)])
        house.source.feed([record(offset, f"p{offset}@x.io", partition=1) for offset in range(3)])
        await asyncio.sleep(2)
        await house.source.revoke(P1)
        await asyncio.sleep(120)
        assert meisa.sizes() == [("enroll", 1), ("bulk_enroll", 3)]
        assert meisa.enrolled() == ["1@x.io", "2@x.io", "3@x.io", "first@x.io"]
        assert house.source.committed == {P0: 4, P1: 0}

    told(story, limits=MINUTE)


def test_a_revocation_while_the_call_is_under_way_lets_it_end_well_for_both() -> None:
    """What was sent for the partition that goes is finished and committed within its drain."""

    async def story(house: House, meisa: WorldMeisa) -> None:
        house.source.feed([record(0, "a@x.io"), record(0, "b@x.io", partition=1)])
        while not meisa.active:
            await asyncio.sleep(0.01)
        await house.source.revoke(P1)
        await asyncio.sleep(2)
        assert meisa.sizes() == [("bulk_enroll", 2)]
        assert house.source.committed == {P0: 1, P1: 1}

    told(story)


def test_one_that_has_become_too_old_is_not_taken_along() -> None:
    """It waited longer than its max_age: a dead letter, as alone."""

    async def story(house: House, meisa: WorldMeisa) -> None:
        house.source.feed([record(0, "first@x.io")])
        await asyncio.sleep(2)
        house.source.feed([record(1, "1@x.io"), record(2, "old@x.io", max_age=30.0), record(3, "3@x.io")])
        await asyncio.sleep(200)
        assert meisa.enrolled() == ["1@x.io", "3@x.io", "first@x.io"]
        assert [(each.record.offset, each.kind) for each in house.letters.letters] == [(2, LetterKind.EXPIRED)]

    told(story, limits=MINUTE)
