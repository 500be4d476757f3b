"""The suppression list through the whole engine: what it spares, how it stays fresh, and what it never spares."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from bridge.core.suppression import FRESH_SECONDS
from bridge.model import (
    Action,
    Call,
    Contact,
    Ending,
    Event,
    Handling,
    Kind,
    Lane,
    LetterKind,
    Outcome,
    Plan,
    Record,
    Verdict,
)
from bridge.runtime.status import Status
from bridge.runtime.suppression import REFRESH_SECONDS, SuppressionSync
from tests.support.engine import P0, TOPIC, House
from tests.support.fakes import DELIVERED, FakeMeisa
from tests.support.virtual import run

NO_SCOPE = Outcome(Verdict.SCOPE_MISSING, 403, "lacks contacts:read")
UNAVAILABLE = Outcome(Verdict.RETRY, 503, "away")
SUPPRESSED = Outcome(Verdict.REFUSED, 422, "unsubscribed", "suppressed")


class ListMeisa(FakeMeisa):
    """Has a suppression list, by which it refuses; `faults` are answered to whoever asks for the list first."""

    def __init__(self, *listed: str, faults: tuple[Outcome, ...] = ()) -> None:
        super().__init__(self._answer)
        self.listed = set(listed)
        self.faults = list(faults)

    def _answer(self, call: Call) -> Outcome:
        body = call.body or {}
        if call.endpoint == "unsubscribed":
            if self.faults:
                return self.faults.pop(0)
            emails = sorted(self.listed)
            return DELIVERED._replace(data={"as_of": "now", "count": len(emails), "emails": emails})
        return SUPPRESSED if body.get("to_email", body.get("email")) in self.listed else DELIVERED

    def made(self, endpoint: str) -> int:
        return sum(call.endpoint == endpoint for call in self.calls)


def record(offset: int, kind: str = "trigger", email: str = "gone@x.io", **body: Any) -> Record:
    value = {"kind": kind, "email": email, "body": body}
    return Record(TOPIC, 0, offset, 1_780_000_000_000, None, json.dumps(value).encode())


def plan(event: Event) -> Plan:
    data = event.data
    kind, email, body = Kind(data["kind"]), data["email"], data["body"]
    handling = Handling(
        lane=Lane(body.pop("lane", "sync")), on_suppressed=body.pop("on_suppressed", "finish"), ordered=True
    )
    named = {"to_email" if kind is Kind.TRIGGER else "email": email}
    return Plan((Action(kind, "rule", 0, {**named, **body}, Contact(email), handling),))


def told(
    story: Callable[[House, ListMeisa, SuppressionSync], Coroutine[Any, Any, None]], meisa: ListMeisa, **options: Any
) -> None:
    async def main() -> None:
        house = House(meisa=meisa, plan=plan, **options)
        sync = SuppressionSync(house.delivery, ["default"], house.clock)
        house.source.assign(P0)
        sync.start()
        await story(house, meisa, sync)
        await sync.close()

    run(main())


@pytest.mark.parametrize("kind", ["trigger", "enroll"])
def test_a_listed_address_needs_no_call(kind: str) -> None:
    """It ends as Meisa would have ended it, is counted, and its offset is committed."""

    async def story(house: House, meisa: ListMeisa, sync: SuppressionSync) -> None:
        await asyncio.sleep(1)
        house.source.feed([record(0, kind), record(1, kind, "here@x.io"), record(2, kind, "Gone@x.io ")])
        await asyncio.sleep(5)
        assert meisa.made(kind) == 1
        assert house.endings() == {Ending.SUPPRESSED: 2, Ending.DELIVERED: 1}
        assert house.meter.counts["saved", "suppressed"] == 2
        assert house.source.committed[P0] == 3
        assert house.delivery.pending == 0

    told(story, ListMeisa("gone@x.io"))


def test_an_override_and_state_are_sent_all_the_same() -> None:
    """The list is about writing to people, and about enrollments that do not override it."""

    async def story(house: House, meisa: ListMeisa, sync: SuppressionSync) -> None:
        await asyncio.sleep(1)
        house.source.feed([record(0, "enroll", override_unsubscribe=True), record(1, "upsert"), record(2, "track")])
        await asyncio.sleep(5)
        assert (meisa.made("enroll"), meisa.made("upsert"), meisa.made("track")) == (1, 1, 1)

    told(story, ListMeisa("gone@x.io"))


def test_who_wants_a_letter_gets_one_without_a_call() -> None:
    """`on_suppressed: dead_letter`."""

    async def story(house: House, meisa: ListMeisa, sync: SuppressionSync) -> None:
        await asyncio.sleep(1)
        house.source.feed([record(0, on_suppressed="dead_letter")])
        await asyncio.sleep(5)
        assert meisa.made("trigger") == 0
        (letter,) = house.letters.letters
        assert (letter.kind, letter.status, letter.attempts) == (LetterKind.REJECTED, None, 0)
        assert "suppression list" in letter.message

    told(story, ListMeisa("gone@x.io"))


def test_what_waits_for_a_slot_when_the_list_comes_is_spared_too() -> None:
    """Both were admitted before anybody knew; the slot goes to somebody else."""

    async def story(house: House, meisa: ListMeisa, sync: SuppressionSync) -> None:
        house.source.feed(
            [record(0), record(1, "trigger", "b@x.io"), record(2, "enroll"), record(3, "enroll", "c@x.io")]
        )
        house.delivery.hold()
        house.delivery.suppressions.learn(["gone@x.io"], house.clock.now())
        house.delivery.open()
        await asyncio.sleep(5)
        assert house.endings() == {Ending.SUPPRESSED: 2, Ending.DELIVERED: 2}
        assert (meisa.made("trigger"), meisa.made("enroll"), meisa.made("bulk_enroll")) == (1, 1, 0)

    told(story, ListMeisa("gone@x.io"))


def test_the_list_is_asked_for_before_it_is_too_old_and_who_came_back_is_written_to() -> None:
    """Until then the bridge does not know; Meisa's own list decides from the next one on."""

    async def story(house: House, meisa: ListMeisa, sync: SuppressionSync) -> None:
        await asyncio.sleep(1)
        meisa.listed.clear()
        house.source.feed([record(0)])
        await asyncio.sleep(FRESH_SECONDS)
        house.source.feed([record(1)])
        await asyncio.sleep(3600)
        assert house.endings() == {Ending.SUPPRESSED: 1, Ending.DELIVERED: 1}
        assert meisa.made("unsubscribed") == 1 + int((1 + FRESH_SECONDS + 3600) / REFRESH_SECONDS)

    told(story, ListMeisa("gone@x.io"))


def test_a_list_that_does_not_come_spares_nobody() -> None:
    """It is asked for again, more and more rarely; once it is too old calls are made again."""

    async def story(house: House, meisa: ListMeisa, sync: SuppressionSync) -> None:
        await asyncio.sleep(1)
        meisa.faults += [UNAVAILABLE] * 1000
        await asyncio.sleep(FRESH_SECONDS)
        asked = meisa.made("unsubscribed")
        house.source.feed([record(0)])
        await asyncio.sleep(3600)
        assert meisa.made("trigger") == 1
        assert house.endings() == {Ending.SUPPRESSED: 1}, "Meisa's own answer"
        assert 20 < meisa.made("unsubscribed") - asked < 40
        meisa.faults.clear()
        await asyncio.sleep(200)
        assert house.delivery.suppressions.fresh(house.clock.now())

    told(story, ListMeisa("gone@x.io"))


@pytest.mark.parametrize("answer", [DELIVERED, DELIVERED._replace(data={"emails": [7]}), DELIVERED._replace(data=[])])
def test_an_answer_that_is_no_list_is_none(answer: Outcome) -> None:
    async def story(house: House, meisa: ListMeisa, sync: SuppressionSync) -> None:
        await asyncio.sleep(1)
        assert not house.delivery.suppressions.fresh(house.clock.now())
        await asyncio.sleep(10)
        assert house.delivery.suppressions.fresh(house.clock.now())

    told(story, ListMeisa("gone@x.io", faults=(answer,)))


def test_without_the_scope_it_is_said_once_and_never_asked_again(capsys: pytest.CaptureFixture[str]) -> None:
    """Everything else goes on as without the list."""

    async def story(house: House, meisa: ListMeisa, sync: SuppressionSync) -> None:
        house.source.feed([record(0)])
        await asyncio.sleep(7200)
        assert (meisa.made("unsubscribed"), meisa.made("trigger")) == (1, 1)

    told(story, ListMeisa("gone@x.io", faults=(NO_SCOPE,) * 5))
    assert capsys.readouterr().out.count("contacts:read") == 1


def test_a_trigger_that_may_have_been_sent_is_asked_for_although_it_is_listed() -> None:
    """Its first call had no answer, and the person unsubscribed since: Meisa's answer tells what became of it."""

    async def story(house: House, meisa: ListMeisa, sync: SuppressionSync) -> None:
        await asyncio.sleep(1)
        answers = iter([Outcome(Verdict.UNKNOWN, None, "no answer")])
        meisa.answer = lambda call: next(answers, DELIVERED)
        house.source.feed([record(0, "trigger", "b@x.io")])
        await asyncio.sleep(0.08)
        house.delivery.suppressions.learn(["b@x.io"], house.clock.now())
        await asyncio.sleep(30)
        assert meisa.made("trigger") == 2
        assert house.endings() == {Ending.DELIVERED: 1}

    told(story, ListMeisa())


def test_in_a_backlog_the_list_gets_the_next_slot() -> None:
    """Many wait for every slot: the list is asked for with the first that comes free."""

    async def story(house: House, meisa: ListMeisa, sync: SuppressionSync) -> None:
        house.source.feed([record(offset, "upsert", f"{offset}@x.io") for offset in range(500)])
        await asyncio.sleep(REFRESH_SECONDS + 120)
        asked = [number for number, call in enumerate(meisa.calls) if call.endpoint == "unsubscribed"]
        assert len(asked) == 2
        assert asked[0] == 10, "ten calls a minute were under way when it was asked for"
        assert len(meisa.calls) > asked[1] + 1

    told(story, ListMeisa("gone@x.io"), limits=[(10, 60.0)])


def test_status_shows_the_list_and_what_it_saved() -> None:
    """How many addresses while it is fresh; nothing once it is too old."""

    async def story(house: House, meisa: ListMeisa, sync: SuppressionSync) -> None:
        status = Status(house.engine, house.delivery, house.clock, dict, dict, saved=lambda: {"suppressed": 3})
        assert status.snapshot().suppressed_addresses is None
        await asyncio.sleep(1)
        assert status.snapshot().suppressed_addresses == 2
        assert status.snapshot().calls_saved == {"suppressed": 3}
        meisa.faults += [UNAVAILABLE] * 1000
        await asyncio.sleep(FRESH_SECONDS)
        assert status.snapshot().suppressed_addresses is None

    told(story, ListMeisa("gone@x.io", "b@x.io"))
