"""Sequences and triggered email."""

from __future__ import annotations

import random
from typing import Any

import pytest

from bridge.sandbox import world as world_module
from bridge.sandbox.contacts import Answer
from bridge.sandbox.fields import Refused
from bridge.sandbox.world import TriggerConfig, World, WorldOptions

NOW = 1_800_000_000.0
HOUR = 3600.0


def make(**options: Any) -> World:
    return World(WorldOptions(**options), random.Random(1))


@pytest.fixture
def world() -> World:
    return make()


def trigger(world: World, now: float = NOW, **body: Any) -> Answer:
    return world.trigger({"trigger_key": "welcome", "to_email": "a@example.com"} | body, now)


def enroll(world: World, now: float = NOW, **body: Any) -> Answer:
    return world.enroll({"sequence_slug": "onboarding", "email": "a@example.com"} | body, now)


def refused(call: Any) -> Refused:
    with pytest.raises(Refused) as error:
        call()
    return error.value


def fired(world: World) -> list[str]:
    return [line.type for line in world.contacts.automations]


# -- email


def test_a_send_is_answered_with_its_ids_and_creates_the_contact(world: World) -> None:
    first = trigger(world, variables={"first_name": "Ann"})
    assert first.status == 200
    assert first.body["status"] == "sent"
    assert first.body["contact_created"] is True
    second = trigger(world)
    assert second.body["contact_created"] is False
    assert second.body["contact_id"] == first.body["contact_id"]
    assert second.body["email_send_id"] != first.body["email_send_id"]
    email = next(iter(world.emails))
    assert (email.to_email, email.variables) == ("a@example.com", {"first_name": "Ann"})
    assert fired(world) == ["contact_created"]


def test_recipient_creates_and_enriches_like_an_upsert(world: World) -> None:
    """Its fields merge into the contact, also one that is found by its external_id."""
    trigger(world, recipient={"external_id": "7", "first_name": "Ann", "custom_fields": {"plan": "free"}})
    trigger(world, to_email="new@example.com", recipient={"external_id": "7", "custom_fields": {"mrr": 1}})
    (contact,) = world.contacts.by_id.values()
    assert (contact.email, contact.names["first_name"]) == ("new@example.com", "Ann")
    assert contact.custom_fields == {"plan": "free", "mrr": 1}
    assert refused(lambda: trigger(world, recipient={"email": "other@example.com"})).field == "recipient.email"
    assert refused(lambda: trigger(world, recipient={"plan": "x"})).field == "recipient.plan"
    assert refused(lambda: trigger(world, recipient={"first_name": 1})).field == "recipient.first_name"
    assert world.emails.total == 2


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"trigger_key": None}, "trigger_key"),
        ({"to_email": "nobody"}, "to_email"),
        ({"to_email": ["a@example.com"]}, "to_email"),
        ({"variables": []}, "variables"),
        ({"recipient": "a@example.com"}, "recipient"),
        ({"idempotency_key": 5}, "idempotency_key"),
        ({"cc": "b@example.com"}, "cc"),
    ],
)
def test_a_bad_trigger_is_refused_by_field(world: World, body: dict[str, Any], field: str) -> None:
    """400; no email leaves and no contact appears."""
    error = refused(lambda: trigger(world, **body))
    assert (error.status, error.field) == (400, field)
    assert world.emails.total == 0
    assert not world.contacts.by_id


def test_unknown_and_inactive_triggers_are_400_and_one_without_sender_422() -> None:
    world = make(triggers={"off": TriggerConfig(active=False), "mute": TriggerConfig(sender=False)})
    assert refused(lambda: trigger(world)).code == "unknown_trigger"
    assert refused(lambda: trigger(world)).status == 400
    assert refused(lambda: trigger(world, trigger_key="off")).status == 400
    assert refused(lambda: trigger(world, trigger_key="mute")).status == 422
    assert not world.contacts.by_id
    world.set_trigger("welcome", TriggerConfig())
    assert trigger(world).status == 200


def test_a_delayed_trigger_is_scheduled(world: World) -> None:
    """202; the email counts as sent when its time has come."""
    world.set_trigger("welcome", TriggerConfig(delay_seconds=600))
    answer = trigger(world)
    assert (answer.status, answer.body["status"]) == (202, "scheduled")
    assert answer.body["scheduled_for"] == "2027-01-15T08:10:00.000000Z"
    (email,) = world.emails
    assert email.view(NOW + 599)["status"] == "scheduled"
    assert email.view(NOW + 600)["status"] == "sent"


def test_conditions_that_are_not_met_skip_the_send(world: World) -> None:
    """The recipient's fields count already; a skipped send is not remembered by its idempotency key."""
    world.set_trigger("welcome", TriggerConfig(conditions={"plan": "pro"}))
    answer = trigger(world, idempotency_key="k", recipient={"custom_fields": {"plan": "free"}})
    assert answer.status == 200
    assert (answer.body["status"], answer.body["reason"]) == ("skipped", "conditions_not_met")
    assert world.emails.total == 0
    upgraded = trigger(world, idempotency_key="k", recipient={"custom_fields": {"plan": "pro"}})
    assert upgraded.body["status"] == "sent"


def test_an_unsubscribed_recipient_is_422_and_untouched(world: World) -> None:
    world.contacts.suppress("a@example.com")
    error = refused(lambda: trigger(world, to_email="A@example.com", recipient={"first_name": "Ann"}))
    assert (error.status, error.code) == (422, "unsubscribed")
    assert not world.contacts.by_id
    assert world.emails.total == 0


@pytest.mark.parametrize(
    ("seconds_later", "emails"), [(0, 1), (HOUR - 1, 1), (HOUR - 0.001, 1), (HOUR, 2), (HOUR + 1, 2)]
)
def test_an_idempotency_key_holds_for_one_hour_only(world: World, seconds_later: float, emails: int) -> None:
    """Up to 59:59 the first answer comes again without an email; from 60:00 on a second email leaves."""
    first = trigger(world, idempotency_key="k")
    second = trigger(world, NOW + seconds_later, idempotency_key="k")
    assert world.emails.total == emails
    assert (second.body == first.body) is (emails == 1)
    assert second.repeated is (emails == 1)


def test_repeats_do_not_prolong_the_hour(world: World) -> None:
    trigger(world, idempotency_key="k")
    trigger(world, NOW + HOUR - 1, idempotency_key="k")
    trigger(world, NOW + HOUR + 1, idempotency_key="k")
    assert world.emails.total == 2
    # The second email began an hour of its own.
    trigger(world, NOW + 2 * HOUR, idempotency_key="k")
    assert world.emails.total == 2


def test_only_identical_sends_are_deduplicated(world: World) -> None:
    """Another recipient or trigger under the same key is another send; without a key each call sends."""
    trigger(world, idempotency_key="k")
    trigger(world, idempotency_key="k", to_email="b@example.com")
    trigger(world, idempotency_key="k", trigger_key="other")
    trigger(world)
    trigger(world)
    assert world.emails.total == 5
    trigger(world, idempotency_key="k", to_email="B@example.com ")
    assert world.emails.total == 5


def test_a_refused_send_is_not_remembered(world: World) -> None:
    """After a 422 the same key sends once the address is allowed; what was answered is repeated even if it is not."""
    world.contacts.suppress("a@example.com")
    refused(lambda: trigger(world, idempotency_key="k"))
    world.contacts.allow("a@example.com")
    first = trigger(world, idempotency_key="k")
    assert first.body["status"] == "sent"
    world.contacts.suppress("a@example.com")
    assert trigger(world, idempotency_key="k").body == first.body


def test_the_memory_of_sends_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the bound the oldest is forgotten, which is counted."""
    monkeypatch.setattr(world_module, "IDEMPOTENCY_KEYS_MAX", 3)
    for number in range(5):
        trigger(world, NOW + number, idempotency_key=f"{number}")
    assert world.counts["idempotency_forgotten"] == 2
    trigger(world, NOW + 5, idempotency_key="4")
    assert world.emails.total == 5
    trigger(world, NOW + 5, idempotency_key="0")
    assert world.emails.total == 6


def test_sends_older_than_an_hour_take_no_memory(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """They make room by themselves: nothing that still counts is forgotten for them."""
    monkeypatch.setattr(world_module, "IDEMPOTENCY_KEYS_MAX", 3)
    for start in (NOW, NOW + 1.5 * HOUR, NOW + 3 * HOUR):
        for number in range(3):
            trigger(world, start, idempotency_key=f"{start}-{number}")
    assert world.counts["idempotency_forgotten"] == 0


def test_a_guardrail_stops_too_many_emails_to_one_contact() -> None:
    """429 for that contact alone, until an hour after its first email."""
    world = make(guardrail_per_hour=2)
    trigger(world)
    trigger(world, NOW + 1)
    assert refused(lambda: trigger(world, NOW + 2)).status == 429
    assert trigger(world, NOW + 2, to_email="b@example.com").status == 200
    assert trigger(world, NOW + HOUR).status == 200


# -- sequences


def test_enrolling_creates_the_contact_and_fires(world: World) -> None:
    answer = enroll(world, metadata={"from": "test"}, trigger_source="signup")
    assert answer.status == 201
    assert (answer.body["status"], answer.body["contact_created"]) == ("enrolled", True)
    assert fired(world) == ["contact_created", "sequence_enrolled"]
    (held,) = world.list_enrollments("a@example.com").body["enrollments"]
    assert held["sequence_slug"] == "onboarding"
    assert (held["status"], held["metadata"], held["trigger_source"]) == ("active", {"from": "test"}, "signup")


@pytest.mark.parametrize(("status", "again"), [("active", 409), ("paused", 409), ("completed", 201), ("canceled", 201)])
def test_a_contact_is_enrolled_once_while_active_or_paused(world: World, status: str, again: int) -> None:
    enroll(world)
    world.set_enrollment("a@example.com", "onboarding", status)
    if again == 409:
        error = refused(lambda: enroll(world))
        assert (error.status, error.code) == (409, "already_enrolled")
        assert world.counts["enrolled"] == 1
    else:
        assert enroll(world).status == 201
        assert len(world.list_enrollments("a@example.com").body["enrollments"]) == 2
    assert enroll(world, sequence_slug="other").status == 201


def test_the_status_of_already_enrolled_can_be_chosen() -> None:
    world = make(already_enrolled_status=400)
    enroll(world)
    assert refused(lambda: enroll(world)).status == 400


def test_unsubscribed_contacts_enroll_only_with_the_override(world: World) -> None:
    world.contacts.suppress("a@example.com")
    assert refused(lambda: enroll(world)).status == 422
    assert refused(lambda: enroll(world, override_unsubscribe="yes")).status == 400
    assert not world.contacts.by_id
    assert enroll(world, override_unsubscribe=True).status == 201


def test_unknown_and_inactive_sequences_are_refused() -> None:
    world = make(sequences={"onboarding": "active", "old": "inactive"})
    assert enroll(world).status == 201
    assert refused(lambda: enroll(world, sequence_slug="old")).code == "inactive_sequence"
    error = refused(lambda: enroll(world, email="b@example.com", sequence_slug="none"))
    assert (error.status, error.code) == (400, "unknown_sequence")
    assert len(world.contacts.by_id) == 1


def test_sequences_are_listed_by_status_and_search() -> None:
    world = make(sequences={"onboarding": "active", "old-trial": "inactive", "win-back": "active"})

    def slugs(status: str = "", search: str = "") -> list[str]:
        return [sequence["slug"] for sequence in world.list_sequences(status, search).body["results"]]

    assert slugs() == ["onboarding", "win-back"]
    assert slugs("all") == ["onboarding", "old-trial", "win-back"]
    assert slugs("inactive") == ["old-trial"]
    assert slugs("all", "TRIAL") == ["old-trial"]
    assert refused(lambda: world.list_sequences("paused", "")).status == 400


def test_a_sequence_that_nobody_configured_is_listed_to_whoever_asks_for_it() -> None:
    """It counts as active; asking changes nothing. With a catalogue there are only those that it names."""

    def listed(world: World, status: str, search: str) -> list[tuple[str, str]]:
        results = world.list_sequences(status, search).body["results"]
        return [(sequence["slug"], sequence["status"]) for sequence in results]

    anything = make()
    assert listed(anything, "all", "win-back") == [("win-back", "active")]
    assert listed(anything, "all", "") == listed(anything, "inactive", "win-back") == []
    assert anything.list_sequences("", "win-back").body == anything.list_sequences("", "win-back").body
    anything.set_sequence("win-back", status="inactive")
    assert listed(anything, "all", "win-back") == [("win-back", "inactive")]
    assert listed(make(sequences={}), "all", "win-back") == []


def test_bulk_enrollment_tells_each_outcome(world: World) -> None:
    """Already enrolled and suppressed ones are skipped, a bad address does not stop the others."""
    enroll(world, email="in@example.com")
    world.contacts.suppress("no@example.com")
    emails = ["in@example.com", "no@example.com", "new@example.com", "bad", "NEW@example.com"]
    body = {"sequence_slug": "onboarding", "emails": emails}
    answer = world.bulk_enroll(body, NOW).body
    outcomes = [(result["email"], result["status"]) for result in answer["results"]]
    assert outcomes == list(
        zip(emails, ["already_enrolled", "suppressed", "enrolled", "invalid", "already_enrolled"], strict=True)
    )
    assert (answer["enrolled"], answer["skipped"]) == (1, 4)
    again = world.bulk_enroll({**body, "override_unsubscribe": True}, NOW).body
    assert again["results"][1]["status"] == "enrolled"


def test_bulk_enrollment_takes_500_and_not_one_more(world: World) -> None:
    emails = [f"{number}@example.com" for number in range(501)]
    error = refused(lambda: world.bulk_enroll({"sequence_slug": "s", "emails": emails}, NOW))
    assert (error.status, error.field) == (400, "emails")
    assert not world.contacts.by_id
    assert world.bulk_enroll({"sequence_slug": "s", "emails": emails[:500]}, NOW).body["enrolled"] == 500
    assert refused(lambda: world.bulk_enroll({"sequence_slug": "s", "emails": []}, NOW)).status == 400
    assert refused(lambda: world.bulk_enroll({"sequence_slug": "s"}, NOW)).status == 400


def test_enrollments_of_nobody(world: World) -> None:
    assert refused(lambda: world.list_enrollments("")).status == 400
    assert refused(lambda: world.list_enrollments("a@example.com")).status == 404
