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
from tests.support.chaos.judge import Judge, Judgement
from tests.support.chaos.plans import PLANS, RULES, TRIGGER_KEYS, says, type_of
from tests.support.contributions import RING, contributions, tag

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


def add(contact: dict[str, Any], name: str) -> None:
    if {"name": name} not in contact["tags"]:
        contact["tags"].append({"name": name})


LOG_IN, ONBOARDED = "user.logged_in", "onboarding.completed"


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
                    contact["custom_fields"] |= says(event)
                    add(contact, tag(event.sequence))
                elif endpoint == "add_tag":
                    add(contact, "paying")
                elif endpoint == "remove_tag":
                    contact["tags"].remove({"name": "paying"})
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
        part = {"track": "properties", "trigger": "variables", "enroll": "metadata"}
        body: dict[str, Any] = {"tag_name": "paying"}
        if endpoint == "upsert":
            body = {"email": email, "custom_fields": says(event), "tag_names": [tag(event.sequence)]}
        elif endpoint in part:
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

    def merged(self, *events: SampleEvent, **spoiled: Any) -> dict[str, Any]:
        """Appends the one call that these events' upserts leave as."""
        entry = self.call("upsert", events[-1], **spoiled)
        entry["body"]["custom_fields"] = {k: v for event in events for k, v in says(event).items()}
        entry["body"]["tag_names"] = [tag(event.sequence) for event in events]
        return entry

    def upsert(self, event: SampleEvent) -> int:
        """Where the ledger has the call that carried the event's upsert out."""
        email = orjson.loads(event.value)["data"]["email"]
        return next(
            at
            for at, entry in enumerate(self.ledger)
            if entry["endpoint"] == "upsert"
            and entry["contact"] == email
            and event.sequence in contributions(entry["body"])
        )

    def merge(self, *events: SampleEvent) -> dict[str, Any]:
        """These events' upserts leave as one call, where the newest one's was; the ledger is numbered anew."""
        at = self.upsert(events[-1])
        self.merged(*events)
        self.ledger[at] = self.ledger.pop()
        for event in events[:-1]:
            del self.ledger[self.upsert(event)]
        for number, entry in enumerate(self.ledger, 1):
            entry["number"] = number
        return self.ledger[self.upsert(events[-1])]

    def first(self, type: str) -> SampleEvent:
        return next(e for e in self.produced if e.poison is None and type_of(e) == type)

    def in_a_row(self, *types: str) -> list[SampleEvent]:
        """Good events of one user that follow each other directly and are of these types; the first such."""
        by_user: dict[str, list[SampleEvent]] = {}
        for event in self.produced:
            mine = by_user.setdefault(event.user, [])
            mine.append(event)
            tail = mine[-len(types) :]
            if all(each.poison is None for each in tail) and tuple(map(type_of, tail)) == types:
                return tail
        raise AssertionError(f"nobody has {types}")

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
    assert found.effects == found.actions == len(story.ledger)
    assert (found.merged, found.again, found.set_back_across) == (0, 0, 0)
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
    found = story.judge()
    assert len(found.disorder) >= 1
    assert found.lost == found.wrong_calls == []


def test_actions_of_one_event_out_of_order_are_found(story: Story) -> None:
    event = story.first("user.signed_up")
    upsert, trigger = [e for e in story.ledger if e["contact"] == orjson.loads(event.value)["data"]["email"]][:2]
    for name in ("endpoint", "body"):
        upsert[name], trigger[name] = trigger[name], upsert[name]
    assert len(story.judge().disorder) == 1


def test_a_repeat_is_counted_and_is_no_disorder(story: Story) -> None:
    """Also where it sets a contact back for a moment: that is counted by itself. An email stands between the sign-up
    and whatever followed, so it had to be."""
    story.call("upsert", story.first("user.signed_up"), key="m2")
    found = story.judge()
    assert found.broken == []
    assert (len(found.repeats), found.again) == (1, 1)
    assert (found.set_back, found.set_back_across) == ([], 1)
    assert found.repeats_by_member == {"m2": 1}


def test_a_contact_that_is_set_back_for_no_reason_is_found(story: Story) -> None:
    """Two log-ins in a row, and the first once more: they might have merged. The last one once more takes nothing
    back."""
    one, two = story.in_a_row(LOG_IN, LOG_IN)
    at = story.upsert(two)
    story.call("upsert", one, key="m2")
    story.ledger.insert(at + 1, story.ledger.pop())
    found = story.judge()
    assert found.broken == []
    assert (len(found.set_back), found.set_back_across, found.set_back_by_member) == (1, 0, {"m2": 1})
    del story.ledger[at + 1]
    story.call("upsert", two)
    story.ledger.insert(at + 1, story.ledger.pop())
    found = story.judge()
    assert (len(found.repeats), found.set_back, found.set_back_across) == (1, [], 0)


def test_numbers_of_merged_upserts_are_told_by_their_call() -> None:
    """Modulo RING, so the newest one's number tells the round."""
    body = {"custom_fields": {"seq": RING + 2}, "tag_names": ["trial", tag(RING - 1), tag(RING), tag(RING + 2), "n"]}
    assert contributions(body) == [RING - 1, RING, RING + 2]
    assert contributions({"tag_names": ["paying"]}) == []


@pytest.mark.parametrize("types", [(LOG_IN, LOG_IN), (LOG_IN, ONBOARDED, LOG_IN), (LOG_IN, "plan.changed")])
def test_merged_upserts_came(types: tuple[str, ...], story: Story) -> None:
    story.merge(*story.in_a_row(*types))
    found = story.judge()
    assert found.broken == []
    assert found.repeats == found.partly == []
    assert found.merged == len(types) - 1 == found.actions - found.effects


def test_an_upsert_that_a_later_one_does_not_stand_for_is_lost(story: Story) -> None:
    """A later call of the same run is not enough: it has to stand for it."""
    one, _ = story.in_a_row(LOG_IN, LOG_IN)
    del story.ledger[story.upsert(one)]
    found = story.judge()
    assert found.lost == [f"{one.user}: upsert of event {one.sequence} never came"]


def test_a_merged_call_that_says_less_than_its_events_is_found(story: Story) -> None:
    """A field that is missing, one with an older event's value, and one that no event asked for."""
    events = story.in_a_row(LOG_IN, ONBOARDED, LOG_IN)
    entry = story.merge(*events)
    said = entry["body"]["custom_fields"]
    for spoiled in (
        {name: value for name, value in said.items() if name != "onboarding_completed"},
        {**said, "signin_count": says(events[0])["signin_count"]},
        {**said, "plan": "pro"},
    ):
        entry["body"]["custom_fields"] = spoiled
        found = story.judge()
        assert len(found.wrong_calls) == 1
        assert found.broken == found.wrong_calls


def test_a_merge_across_what_had_to_meet_the_first_ones_state_is_disorder(story: Story) -> None:
    """A track between two upserts: on whichever side of it the merged call stands, one is at a wrong place."""
    first, _, last = story.in_a_row(LOG_IN, "invoice.paid", LOG_IN)
    late = copy.deepcopy(story)
    late.merge(first, last)
    assert len(late.judge().disorder) == 1
    at = story.upsert(first)
    story.merge(first, last)
    early = next(place for place, entry in enumerate(story.ledger) if entry["body"].get("tag_names", [])[1:])
    story.ledger.insert(at, story.ledger.pop(early))
    assert len(story.judge().disorder) == 1


def test_after_a_crash_a_call_with_something_new_is_needed_and_one_without_is_a_repeat(story: Story) -> None:
    """First alone, then merged with the next: the call was needed, one action came again. First merged, then each
    alone: two calls for nothing, two actions again, and one sets the contact back."""
    one, two = story.in_a_row(LOG_IN, LOG_IN)
    needed = copy.deepcopy(story)
    at = needed.upsert(two)
    needed.merged(one, two)
    needed.ledger[at] = needed.ledger.pop()
    found = needed.judge()
    assert found.broken == []
    assert (len(found.repeats), len(found.partly), found.again, found.set_back) == (0, 1, 1, [])
    assert found.actions == len(story.ledger)
    story.merge(one, two)
    at = story.upsert(two)
    for event in (two, one):
        story.call("upsert", event)
        story.ledger.insert(at + 1, story.ledger.pop())
    found = story.judge()
    assert found.broken == []
    assert (len(found.repeats), len(found.partly), found.again, len(found.set_back)) == (2, 0, 2, 1)


def test_what_a_commit_told_must_not_come_again_in_a_merged_call_either(story: Story) -> None:
    """The call is needed for what is new in it, and still says something that was finished."""
    one, two = story.in_a_row(LOG_IN, LOG_IN)
    at = story.upsert(two)
    entry = story.merged(one, two)
    story.ledger[at] = story.ledger.pop()
    entry["number"] = at + 1
    told = Told(story.place(one).offset + 1, frozenset(), {})
    story.moments = [Moment(at, {0: told}, crash=True)]
    found = story.judge()
    assert (len(found.told_repeats), found.told_by_member) == (1, {"m1": 1})
    story.moments = [Moment(at, {0: NOTHING_TOLD}, crash=True)]
    assert story.judge().told_repeats == []


def test_a_merged_call_whose_answer_was_lost_may_come_again_with_more(story: Story) -> None:
    """What is in doubt is each of its actions; what nobody doubts is a repeat as ever."""
    one, two, three = story.in_a_row(LOG_IN, LOG_IN, LOG_IN)
    at = story.upsert(three)
    story.merge(one, two)["answered"] = False
    at -= 1
    story.merged(one, two, three)
    story.ledger[at] = story.ledger.pop()
    found = story.judge()
    assert found.broken == []
    assert (len(found.partly), found.again, found.unanswered_repeats) == (1, 2, 1)
    story.ledger[story.upsert(two)]["answered"] = True
    assert story.judge().unanswered_repeats == 0


def test_a_repeat_after_a_lost_answer_is_told_from_others(story: Story) -> None:
    entry = story.ledger[0]
    entry["status"], entry["fault"] = 500, "error_after"
    story.call("upsert", story.produced[0])
    story.call("upsert", story.produced[0])
    found = story.judge()
    assert (len(found.repeats), found.unanswered_repeats) == (2, 1)


def test_a_repeat_that_no_crash_explains_is_told_from_others(story: Story) -> None:
    """What came and was answered comes again only when another bridge takes over; once for each time."""
    event = story.first("plan.changed")
    calls = len(story.ledger)
    story.call("track", event)
    assert len(story.judge().sudden_repeats) == 1
    story.moments = [Moment(calls, {0: NOTHING_TOLD}, crash=True)]
    assert story.judge().sudden_repeats == []
    story.call("track", event)
    found = story.judge()
    assert (len(found.repeats), len(found.sudden_repeats)) == (2, 1)
    story.ledger[-2]["answered"] = False
    assert story.judge().sudden_repeats == []


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


def test_a_tag_that_rode_on_the_next_upsert_is_none_that_is_missing(story: Story) -> None:
    """The upsert says what its own event says, with one tag name more; both count, the tag as merged."""
    before = story.judge()
    place = next(
        place
        for place, entry in enumerate(story.ledger)
        if entry["endpoint"] == "add_tag"
        and any(
            later["endpoint"] == "upsert" and later["contact"] == entry["contact"] for later in story.ledger[place:]
        )
    )
    tagged = story.ledger.pop(place)
    assert len(story.judge().lost) == 1
    upsert = next(
        later
        for later in story.ledger[place:]
        if later["endpoint"] == "upsert" and later["contact"] == tagged["contact"]
    )
    upsert["body"]["tag_names"].insert(0, "paying")
    found = story.judge()
    assert (found.lost, found.wrong_calls, found.disorder, found.repeats) == ([], [], [], [])
    assert (found.actions, found.merged) == (before.actions, before.merged + 1)


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
    tagged = next(contact for contact in story.contacts if {"name": "paying"} in contact["tags"])
    tagged["tags"].remove({"name": "paying"})
    assert len(story.judge().wrong_state) == 1
    add(tagged, "paying")
    assert story.judge().wrong_state == []
    tagged["tags"].pop(0)
    assert len(story.judge().wrong_state) == 1, "the tag of one of its upserts"
    onboarded = story.first(ONBOARDED)
    fields = next(c for c in story.contacts if c["external_id"] == onboarded.user)["custom_fields"]
    del fields["onboarding_completed"]
    assert any("onboarding_completed" in words for words in story.judge().wrong_state)


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
