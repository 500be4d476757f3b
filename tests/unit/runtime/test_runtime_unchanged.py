"""Unchanged state through the whole engine: what is not sent, what still is, and after what nothing is believed."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

import pytest

from bridge.core.known import DOUBT_SECONDS
from bridge.model import Action, Call, Contact, Event, Handling, Kind, Outcome, Plan, Record, TopicPartition, Verdict
from bridge.runtime.unchanged import Unchanged
from tests.support.engine import P0, P1, TOPIC, House
from tests.support.fakes import DELIVERED, FakeMeisa
from tests.support.virtual import run

NO_CONTACT = Outcome(Verdict.NEEDS_CONTACT, 404, "no such contact", "no_contact")
UNANSWERED = Outcome(Verdict.UNKNOWN, message="no answer", detail="timeout")
FAILING = Outcome(Verdict.RETRY, 503, "away")
UNSENT = Outcome(Verdict.RETRY, message="no way", detail="never_sent")
REFUSED = Outcome(Verdict.REFUSED, 400, "no", "refused")


class Contacts(FakeMeisa):
    """Keeps contacts as upserts say them, and answers with the whole one; `faults` come first, whatever is asked."""

    def __init__(self, *faults: Outcome, latency: float = 0.05) -> None:
        super().__init__(self._answer, latency)
        self.faults = list(faults)
        self.contacts: dict[str, dict[str, Any]] = {}

    def _answer(self, call: Call) -> Outcome:
        if self.faults:
            return self.faults.pop(0)
        body = call.body or {}
        if call.endpoint == "track":
            return DELIVERED if body["email"] in self.contacts else NO_CONTACT
        if call.endpoint != "upsert":
            return DELIVERED
        found = next(
            (each for each in self.contacts.values() if each["external_id"] == body.get("external_id", 0)), None
        )
        found = found or self.contacts.get(body["email"])
        if found is None:
            found = {"id": f"m{len(self.contacts)}", "external_id": None, "custom_fields": {}, "tags": []}
        self.contacts.pop(found.get("email", ""), None)
        found.update({name: body[name] for name in ("email", "external_id", "first_name") if name in body})
        found["custom_fields"].update(body.get("custom_fields", {}))
        found["tags"] += [{"id": name, "name": name} for name in body.get("tag_names", [])]
        self.contacts[found["email"]] = found
        answer = json.loads(json.dumps(found))
        return DELIVERED._replace(data=answer, contact_id=found["id"])

    def made(self, endpoint: str = "upsert") -> list[Mapping[str, Any]]:
        return [call.body or {} for call in self.calls if call.endpoint == endpoint]


class Feeder:
    """Feeds events of one contact; each says what to do, and offsets count on."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.offsets: dict[TopicPartition, int] = {}

    async def __call__(
        self, *actions: tuple[str, Mapping[str, Any]], where: TopicPartition = P0, key: bytes | None = b"7",
        seconds: float = 1.0, email: str = "a@x.io", id: str | None = None
    ) -> None:  # fmt: skip
        offset = self.offsets.get(where, 0)
        self.offsets[where] = offset + 1
        value = json.dumps({"email": email, "id": id, "do": actions}).encode()
        self.house.source.feed([Record(where.topic, where.partition, offset, 1_780_000_000_000, key, value)])
        await asyncio.sleep(seconds)


def plan(event: Event) -> Plan:
    data = event.data
    made: list[Action] = []
    for position, (name, fields) in enumerate(data["do"]):
        kind, body = Kind(name), dict(fields)
        options = {"coalesce": body.pop("coalesce", True), "preserve": tuple(body.pop("preserve", ()))}
        if kind is Kind.TRIGGER:
            body["to_email"] = data["email"]
        elif kind is not Kind.REMOVE_TAG:
            body["email"] = data["email"]
        if data["id"] is not None and kind is Kind.UPSERT:
            body["external_id"] = data["id"]
        needs = position - 1 if position and kind in (Kind.TRACK, Kind.REMOVE_TAG) else None
        contact = Contact(data["email"], data["id"])
        made.append(Action(kind, "rule", position, body, contact, Handling(**options), needs=needs))
    return Plan(tuple(made))


def plan_upsert(plan_name: str, **more: Any) -> tuple[str, Mapping[str, Any]]:
    return "upsert", {"custom_fields": {"plan": plan_name}, **more}


FREE, PRO = plan_upsert("free"), plan_upsert("pro")
Story = Callable[[House, Feeder], Coroutine[Any, Any, None]]


def told(
    story: Story,
    meisa: Contacts,
    *,
    topics: Iterable[str] = (TOPIC,),
    assign: tuple[TopicPartition, ...] = (P0,),
    counts: Mapping[str, int] | None = None,
    **unchanged: Any,
) -> House:
    """Runs a story to its end; `unchanged` are settings of the room."""
    houses = []

    async def main() -> None:
        house = House(
            meisa=meisa,
            plan=plan,
            unchanged=lambda clock: Unchanged(
                clock=clock, topics=tuple(topics), counts=lambda: counts or {}, **unchanged
            ),
        )
        houses.append(house)
        house.source.assign(*assign)
        await story(house, Feeder(house))
        await asyncio.sleep(120.0)
        assert not house.delivery.pending
        await house.engine.stop(1.0)
        await house.delivery.close()

    run(main())
    return houses[0]


def plans(meisa: Contacts) -> list[str]:
    return [body.get("custom_fields", {}).get("plan", "") for body in meisa.made()]


def test_what_meisa_has_is_not_sent_again_and_is_counted() -> None:
    meisa = Contacts()

    async def story(house: House, event: Feeder) -> None:
        for what in (FREE, FREE, PRO, PRO, FREE):
            await event(what)

    house = told(story, meisa)
    assert plans(meisa) == ["free", "pro", "free"]
    assert house.endings() == {"delivered": 3, "unchanged": 2}
    assert house.meter.counts["saved", "unchanged"] == 2
    assert house.source.committed[P0] == 5


def test_without_a_keyed_topic_all_is_sent() -> None:
    meisa = Contacts()

    async def story(house: House, event: Feeder) -> None:
        for what in (FREE, FREE):
            await event(what)

    assert told(story, meisa, topics=()).endings() == {"delivered": 2}
    assert plans(meisa) == ["free", "free"]


def test_nothing_is_believed_for_longer_than_unchanged_for() -> None:
    meisa = Contacts()

    async def story(house: House, event: Feeder) -> None:
        await event(FREE, seconds=80.0)
        await event(FREE, seconds=80.0)
        await event(FREE)

    assert told(story, meisa, believed_seconds=100.0).endings() == {"delivered": 2, "unchanged": 1}


def test_zero_turns_it_off() -> None:
    meisa = Contacts()

    async def story(house: House, event: Feeder) -> None:
        await event(FREE)
        await event(FREE)

    assert told(story, meisa, believed_seconds=0.0).endings() == {"delivered": 2}


def test_what_was_sent_but_is_held_otherwise_is_sent_again() -> None:
    """Meisa may store a value in another form; what it answers counts."""
    normalising = Contacts()
    answer = normalising.answer
    normalising.answer = lambda call: _upper(answer(call))

    async def story(house: House, event: Feeder) -> None:
        await event(FREE)
        await event(FREE)

    assert told(story, normalising).endings() == {"delivered": 2}


def _upper(outcome: Outcome) -> Outcome:
    fields = {name: value.upper() for name, value in outcome.data["custom_fields"].items()}
    return outcome._replace(data={**outcome.data, "custom_fields": fields})


def test_an_event_goes_on_with_its_track_when_its_upsert_is_unchanged() -> None:
    meisa = Contacts()

    async def story(house: House, event: Feeder) -> None:
        await event(FREE)
        await event(FREE, ("track", {"event_name": "seen"}))

    assert told(story, meisa).endings() == {"delivered": 2}
    assert (len(meisa.made()), len(meisa.made("track"))) == (1, 1)


def test_a_track_that_finds_nobody_sends_the_upsert_that_was_spared() -> None:
    """Somebody deleted the contact: what was believed is not so."""
    meisa = Contacts()

    async def story(house: House, event: Feeder) -> None:
        await event(FREE)
        meisa.contacts.clear()
        await event(FREE, ("track", {"event_name": "seen"}))
        await event(FREE)

    told(story, meisa)
    assert [call.endpoint for call in meisa.calls] == ["upsert", "track", "upsert", "track", "upsert"]
    assert plans(meisa) == ["free", "free", "free"]
    assert meisa.contacts["a@x.io"]["custom_fields"] == {"plan": "free"}


@pytest.mark.parametrize(
    "change",
    [
        ("remove_tag", {"tag_name": "trial"}),
        ("trigger", {"trigger_key": "hello", "recipient": {"first_name": "x"}}),
    ],
)
def test_after_what_may_have_changed_the_contact_its_state_is_sent(change: tuple[str, Mapping[str, Any]]) -> None:
    """A removed tag, and a trigger's recipient."""
    meisa = Contacts()

    async def story(house: House, event: Feeder) -> None:
        await event(FREE)
        await event(FREE)
        await event(change)
        await event(FREE)

    house = told(story, meisa)
    assert plans(meisa)[-1] == "free" and house.endings() == {"delivered": 3, "unchanged": 1}


def test_after_a_404_on_anything_the_contacts_state_is_sent() -> None:
    """Meisa does not know whom we know."""
    meisa = Contacts()

    async def story(house: House, event: Feeder) -> None:
        await event(FREE)
        meisa.faults = [Outcome(Verdict.REFUSED, 404, "no such contact", "refused")]
        await event(("enroll", {"sequence_slug": "x"}), seconds=30.0)
        await event(FREE)

    assert told(story, meisa).endings() == {"delivered": 2, "dead_lettered": 1}
    assert plans(meisa) == ["free", "free"]


def test_a_plain_trigger_and_an_enrollment_change_nothing() -> None:
    meisa = Contacts()

    async def story(house: House, event: Feeder) -> None:
        await event(FREE)
        await event(("trigger", {"trigger_key": "hello"}))
        await event(("enroll", {"sequence_slug": "x"}), seconds=30.0)
        await event(("track", {"event_name": "seen"}))
        await event(FREE)

    assert told(story, meisa).endings() == {"delivered": 4, "unchanged": 1}


def test_a_re_key_makes_the_former_email_unknown() -> None:
    """Who has the email now is somebody else, or nobody."""
    meisa = Contacts()

    async def story(house: House, event: Feeder) -> None:
        await event(FREE, id="7")
        await event(FREE, id="7", email="b@x.io")
        await event(FREE, email="a@x.io")
        await event(FREE, id="7", email="b@x.io")

    assert told(story, meisa).endings() == {"delivered": 3, "unchanged": 1}
    assert sorted(meisa.contacts) == ["a@x.io", "b@x.io"]


@pytest.mark.parametrize("fault", [UNANSWERED, FAILING])
def test_after_a_call_that_may_still_be_carried_out_nothing_is_believed_for_a_while(fault: Outcome) -> None:
    """It may come behind the one that was answered."""
    meisa = Contacts(fault)

    async def story(house: House, event: Feeder) -> None:
        await event(FREE, seconds=5.0)
        await event(FREE, seconds=DOUBT_SECONDS)
        await event(FREE)
        await event(FREE)

    assert told(story, meisa).endings() == {"delivered": 3, "unchanged": 1}
    assert len(meisa.made()) == 4


@pytest.mark.parametrize("fault", [UNSENT, REFUSED])
def test_a_call_that_was_not_carried_out_leaves_no_doubt(fault: Outcome) -> None:
    meisa = Contacts(fault)

    async def story(house: House, event: Feeder) -> None:
        await event(FREE, seconds=5.0)
        await event(PRO)
        await event(PRO)

    assert told(story, meisa).endings()["unchanged"] == 1


def test_every_preserved_value_is_sent() -> None:
    """Each of a transition's values differs from what Meisa has when its turn comes, the last one too."""
    meisa = Contacts(latency=1.0)
    preserved = [(name, {**body, "preserve": ["custom_fields.plan"]}) for name, body in (PRO, FREE, PRO, PRO)]

    async def story(house: House, event: Feeder) -> None:
        await event(PRO, seconds=2.0)
        for each in preserved:
            await event(each, seconds=0.0)

    house = told(story, meisa)
    assert plans(meisa) == ["pro", "free", "pro"]
    assert house.meter.counts["saved", "unchanged"] == 1


def test_what_came_to_equal_meisas_state_while_it_waited_is_not_sent() -> None:
    """Its turn had come when it differed; right before it leaves it does not any more."""
    meisa = Contacts()

    async def story(house: House, event: Feeder) -> None:
        await event(FREE)
        house.delivery.hold()
        await event(PRO)
        await event(FREE)
        house.delivery.open()

    house = told(story, meisa)
    assert plans(meisa) == ["free"]
    assert house.endings() == {"delivered": 1, "unchanged": 2}


def test_a_partition_that_was_away_believes_nothing_of_before() -> None:
    meisa = Contacts()

    async def story(house: House, event: Feeder) -> None:
        await event(FREE)
        house.source.lose(P0)
        house.source.assign(P0, offset=1)
        await asyncio.sleep(DOUBT_SECONDS)
        await event(FREE)
        await house.source.revoke(P0)
        house.source.assign(P0)
        await event(FREE)
        await asyncio.sleep(DOUBT_SECONDS)
        await event(FREE)
        await event(FREE)

    house = told(story, meisa)
    assert house.endings() == {"delivered": 4, "unchanged": 1}


def test_a_path_that_several_topics_write_is_always_sent() -> None:
    meisa = Contacts()

    async def story(house: House, event: Feeder) -> None:
        for _ in range(2):
            await event(FREE)
            await event(("upsert", {"first_name": "Ada"}))

    house = told(story, meisa, others=lambda path: path == "custom_fields.plan")
    assert house.endings() == {"delivered": 3, "unchanged": 1}


def test_what_several_topics_write_since_the_rules_changed_is_sent_from_then_on() -> None:
    """What was learned before says nothing of a field that another topic writes now."""
    meisa = Contacts()

    async def story(house: House, event: Feeder) -> None:
        await event(FREE)
        await event(FREE)
        house.delivery.unchanged.rules_changed(lambda path: path == "custom_fields.plan", (), b"new")
        await event(FREE)

    assert told(story, meisa).endings() == {"delivered": 2, "unchanged": 1}


@pytest.mark.parametrize(("owned", "believed"), [((P0, P1), True), ((P0,), False)])
@pytest.mark.parametrize("why", ["others", "key"])
def test_where_others_may_re_key_the_whole_group_must_be_ours(
    owned: tuple[TopicPartition, ...], believed: bool, why: str
) -> None:
    """Another topic may, or records of the same contact under another email: these are in another partition."""
    meisa = Contacts()

    async def story(house: House, event: Feeder) -> None:
        for _ in range(2):
            await event(FREE, id="7", key=b'"A@X.IO"' if why == "key" else b"7")

    rekeyers = {"others": ["billing"], "key": [TOPIC]}[why]
    house = told(story, meisa, assign=owned, counts={TOPIC: 2}, rekeyers=rekeyers)
    assert house.endings() == ({"delivered": 1, "unchanged": 1} if believed else {"delivered": 2})


@pytest.mark.parametrize(("owned", "believed"), [((P0, P1), True), ((P0,), False)])
def test_records_without_a_key_may_be_anywhere(owned: tuple[TopicPartition, ...], believed: bool) -> None:
    """Another instance may have sent what others of the same contact say."""
    meisa = Contacts()

    async def story(house: House, event: Feeder) -> None:
        for _ in range(2):
            await event(FREE, key=None)

    house = told(story, meisa, assign=owned, counts={TOPIC: 2})
    assert house.endings() == ({"delivered": 1, "unchanged": 1} if believed else {"delivered": 2})


def test_a_partition_that_came_since_may_have_been_re_keyed_by_its_former_owner() -> None:
    meisa = Contacts()

    async def story(house: House, event: Feeder) -> None:
        await event(FREE, id="7")
        house.source.assign(P1)
        house.source.epoch -= 1  # that of the partition that is fed
        await event(FREE, id="7")
        await event(FREE, id="7")

    counts = {TOPIC: 2}
    assert told(story, meisa, counts=counts, rekeyers=["other"]).endings() == {"delivered": 2, "unchanged": 1}


def test_a_contact_with_records_of_a_topic_that_is_not_keyed_is_sent() -> None:
    """A merged upsert is of both."""
    meisa = Contacts()

    async def story(house: House, event: Feeder) -> None:
        await event(FREE)
        await event(FREE)

    assert told(story, meisa, topics=["another"]).endings() == {"delivered": 2}


def test_a_replay_is_always_sent() -> None:
    meisa = Contacts()

    async def story(house: House, event: Feeder) -> None:
        await event(FREE)
        value = json.dumps({"email": "a@x.io", "id": None, "do": [FREE]}).encode()
        record = Record(TOPIC, 0, 0, 1_780_000_000_000, b"7", value, epoch=house.source.epoch)
        again = Event(id="r", type="t", time="", time_wall_seconds=0.0, data=json.loads(value), record=record)
        house.delivery.deliver(again, plan(again).actions, marks=house.delivery.marks, tell=lambda *done: None)
        await asyncio.sleep(1.0)
        await event(FREE)

    assert told(story, meisa).endings() == {"delivered": 1, "unchanged": 1}
    assert len(meisa.made()) == 2
