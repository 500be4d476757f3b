"""The judge of the chaos runs catches each kind of lie: else a good table would say nothing."""

from __future__ import annotations

import copy
import time
from typing import Any

import orjson
import pytest

from bridge.core.progress import digest
from bridge.model import Action, Contact, Kind, Record, action_id
from bridge.sandbox.stream import SampleEvent, events
from tests.support.chaos.fleet import Moment, Place, Told
from tests.support.chaos.judge import PLANS, RULES, TRIGGER_KEYS, Judge, Judgement

GROUP, TOPIC = "group", "events"
NOTHING_TOLD = Told(0, frozenset(), {})


class Letter:
    """A dead letter, as far as the judge reads it."""

    def __init__(self, place: Place, kind: str, undelivered: str = "[]") -> None:
        self._headers = [
            ("meisa-bridge.kind", kind.encode()),
            ("meisa-bridge.source.partition", str(place.partition).encode()),
            ("meisa-bridge.source.offset", str(place.offset).encode()),
            ("meisa-bridge.undelivered", undelivered.encode()),
        ]

    def headers(self) -> list[tuple[str, bytes]]:
        return self._headers


class Story:
    """A run in which all went well, to be spoiled: one partition, every call once, in the order of the events."""

    def __init__(self) -> None:
        self.produced: list[SampleEvent] = list(events(7, 120, 10, poison=5, now_wall_seconds=time.time()))
        self.places = {(e.user, e.sequence): Place(0, offset, 1_000 + offset) for offset, e in enumerate(self.produced)}
        self.ledger: list[dict[str, Any]] = []
        self.emails: list[dict[str, Any]] = []
        self.letters: list[Letter] = []
        self.moments: list[Moment] = []
        contacts: dict[str, dict[str, Any]] = {}
        for event in self.produced:
            if event.poison is not None:
                kinds = {"missing_email": "rule", "refused_address": "rejected"}
                self.letters.append(Letter(self.place(event), kinds.get(event.poison, "decode")))
                continue
            value = orjson.loads(event.value)
            data = value["data"]
            contact = contacts.setdefault(
                event.user, {"external_id": event.user, "email": data["email"], "custom_fields": {}, "tags": []}
            )
            for endpoint in PLANS[value["type"]]:
                self.call(endpoint, event)
                if endpoint == "upsert":
                    contact["custom_fields"]["seq"] = event.sequence
                    if "plan" in data and value["type"] != "invoice.payment_failed":
                        contact["custom_fields"]["plan"] = data["plan"]
                elif endpoint in ("add_tag", "remove_tag"):
                    contact["tags"] = [{"name": "paying"}] if endpoint == "add_tag" else []
                elif endpoint == "trigger":
                    self.emails.append(
                        {
                            "to_email": data["email"],
                            "trigger_key": TRIGGER_KEYS[value["type"]],
                            "variables": {"seq": event.sequence},
                        }
                    )
        self.contacts = [*contacts.values()]

    def place(self, event: SampleEvent) -> Place:
        return self.places[event.user, event.sequence]

    def call(self, endpoint: str, event: SampleEvent, **spoiled: Any) -> dict[str, Any]:
        """Appends a call that was carried out and answered."""
        email = orjson.loads(event.value)["data"]["email"]
        part = {"upsert": "custom_fields", "track": "properties", "trigger": "variables", "enroll": "metadata"}
        body: dict[str, Any] = {"tag_name": "paying"}
        if endpoint in part:
            body = {"to_email" if endpoint == "trigger" else "email": email, part[endpoint]: {"seq": event.sequence}}
        entry = {
            "number": len(self.ledger) + 1,
            "endpoint": endpoint,
            "body": body,
            "contact": email,
            "carried_out": True,
            "repeated": False,
            "status": 200,
            "answered": True,
            "fault": "",
            "key": "m1",
            **spoiled,
        }
        self.ledger.append(entry)
        return entry

    def first(self, type: str) -> SampleEvent:
        return next(e for e in self.produced if e.poison is None and orjson.loads(e.value)["type"] == type)

    def judge(self) -> Judgement:
        judge = Judge(GROUP, TOPIC, self.produced, self.places)
        return judge.judge(self.ledger, self.emails, self.contacts, self.letters, self.moments)


@pytest.fixture(scope="module")
def told() -> Story:
    return Story()


@pytest.fixture
def story(told: Story) -> Story:
    return copy.deepcopy(told)


def test_a_run_in_which_all_went_well_is_found_to_be_so(story: Story) -> None:
    found = story.judge()
    assert found.broken == []
    assert found.repeats == []
    assert found.effects == len(story.ledger)
    assert sum(found.letters.values()) == 5
    assert {entry["endpoint"] for entry in story.ledger} >= {"upsert", "track", "trigger", "add_tag"}


def test_a_call_that_never_came_is_lost(story: Story) -> None:
    """Whatever its kind; a refused one has not come either."""
    for endpoint in ("upsert", "track", "trigger", "add_tag"):
        spoiled = copy.deepcopy(story)
        entry = next(entry for entry in spoiled.ledger if entry["endpoint"] == endpoint)
        entry["carried_out"], entry["status"] = False, 503
        found = spoiled.judge()
        assert len(found.lost) == 1 and endpoint in found.lost[0]
        assert found.refused == {f"{endpoint} 503": 1}


def test_a_bad_event_without_a_letter_is_lost(story: Story) -> None:
    story.letters.pop()
    assert len(story.judge().lost) == 1


def test_first_effects_out_of_order_are_found(story: Story) -> None:
    """Two first calls of one contact that changed places; repeats of earlier ones in between are no disorder."""
    mine = [entry for entry in story.ledger if entry["contact"] == story.ledger[0]["contact"]]
    one, other = [entry for entry in mine if entry["endpoint"] == "upsert"][:2]
    one["body"], other["body"] = other["body"], one["body"]
    assert len(story.judge().disorder) >= 1


def test_actions_of_one_event_out_of_order_are_found(story: Story) -> None:
    event = story.first("user.signed_up")
    upsert, trigger = [e for e in story.ledger if e["contact"] == orjson.loads(event.value)["data"]["email"]][:2]
    for name in ("endpoint", "body"):
        upsert[name], trigger[name] = trigger[name], upsert[name]
    assert len(story.judge().disorder) == 1


def test_a_repeat_is_counted_and_is_no_disorder(story: Story) -> None:
    """Also where it sets a contact back for a moment: that is counted by itself."""
    story.call("upsert", story.first("user.signed_up"), key="m2")
    found = story.judge()
    assert found.broken == []
    assert len(found.repeats) == 1
    assert found.set_back == 1
    assert found.repeats_by_member == {"m2": 1}


def test_a_repeat_after_a_lost_answer_is_told_from_others(story: Story) -> None:
    entry = story.ledger[0]
    entry["status"], entry["fault"] = 500, "error_after"
    story.call("upsert", story.produced[0])
    story.call("upsert", story.produced[0])
    found = story.judge()
    assert (len(found.repeats), found.unanswered_repeats) == (2, 1)


def test_a_tag_that_came_again_after_a_lost_answer_is_told_from_others(story: Story) -> None:
    """Also where a later event of the contact asks for the same tag: a tag call does not say which event it is of."""
    event = story.first("plan.changed")
    index = next(index for index, entry in enumerate(story.ledger) if entry["endpoint"] == "add_tag")
    again = story.call("add_tag", event)
    story.ledger[index + 1 : index + 1] = [story.ledger.pop()]
    story.ledger[index]["answered"] = False
    assert again["contact"] == story.ledger[index]["contact"]
    found = story.judge()
    assert (len(found.repeats), found.unanswered_repeats) == (1, 1)
    story.call("add_tag", event)
    found = story.judge()
    assert (len(found.repeats), found.unanswered_repeats) == (2, 1)


def test_a_trigger_that_meisa_recognised_is_a_repeat_without_an_email(story: Story) -> None:
    story.call("trigger", story.first("user.signed_up"), carried_out=False, repeated=True)
    found = story.judge()
    assert (len(found.repeats), found.recognised, found.emails_twice) == (1, 1, [])


def test_an_email_that_went_out_twice_is_found(story: Story) -> None:
    story.emails.append(story.emails[0])
    assert len(story.judge().emails_twice) == 1


def test_a_contact_that_ends_in_an_old_state_is_found(story: Story) -> None:
    """By its fields, and by its tag."""
    contact = story.contacts[0]
    contact["custom_fields"]["seq"] -= 1
    assert len(story.judge().wrong_state) == 1
    contact["custom_fields"]["seq"] += 1
    tagged = next(contact for contact in story.contacts if contact["tags"])
    tagged["tags"] = []
    assert len(story.judge().wrong_state) == 1


def test_a_repeat_of_what_a_commit_told_is_found(story: Story) -> None:
    """Told by the offset, beyond it, or by a delivered action of an open event; before the repeat, not after it."""
    event = story.first("plan.changed")
    place = story.place(event)
    record = Record(TOPIC, place.partition, place.offset, place.timestamp_ms, event.key, event.value)
    action = Action(Kind.TRACK, RULES["plan.changed"], 1, {}, Contact())
    name = digest(action_id(GROUP, record, action))
    calls = len(story.ledger)
    story.call("track", event)
    for told in (
        Told(place.offset + 1, frozenset(), {}),
        Told(0, frozenset({place.offset}), {}),
        Told(0, frozenset(), {place.offset: frozenset({name})}),
    ):
        story.moments = [Moment(calls, {0: told}, crash=True)]
        assert len(story.judge().told_repeats) == 1
        story.moments = [Moment(calls + 1, {0: told}, crash=True)]
        assert story.judge().told_repeats == []
    for told in (Told(place.offset, frozenset(), {}), Told(0, frozenset(), {place.offset: frozenset({name + 1})})):
        story.moments = [Moment(calls, {0: told}, crash=True)]
        assert story.judge().told_repeats == []


def test_what_is_at_risk_at_a_crash_is_what_no_commit_told(story: Story) -> None:
    """Planned changes put nothing at risk."""
    story.moments = [Moment(10, {0: NOTHING_TOLD}, crash=True), Moment(20, {0: NOTHING_TOLD}, crash=False)]
    assert story.judge().at_risk == 10
    story.moments = [Moment(10, {0: Told(len(story.produced), frozenset(), {})}, crash=True)]
    assert story.judge().at_risk == 0


def test_an_unknown_outcome_excuses_its_trigger_only(story: Story) -> None:
    """The letter names what is undelivered; any other letter of a good event is wrong."""
    event = story.first("user.signed_up")
    email = orjson.loads(event.value)["data"]["email"]
    story.ledger = [e for e in story.ledger if not (e["endpoint"] == "trigger" and e["contact"] == email)]
    missing = len(story.judge().lost)
    story.letters.append(Letter(story.place(event), "unknown_outcome", "[1]"))
    found = story.judge()
    assert len(found.lost) == missing - 1
    assert (found.unknown_outcome, found.wrong_letters) == (1, [])
    story.letters.append(Letter(story.place(event), "exhausted", "[0]"))
    assert len(story.judge().wrong_letters) == 1


def test_a_letter_that_was_written_twice_is_counted_once(story: Story) -> None:
    story.letters.append(story.letters[0])
    found = story.judge()
    assert (found.letters_again, found.broken) == (1, [])
