"""Contacts: matching, merging, re-keying, tags, tracked events and what they fire."""

from __future__ import annotations

import random
from typing import Any

import pytest

from bridge.sandbox.contacts import Contacts
from bridge.sandbox.fields import Refused

NOW = 1_800_000_000.0


@pytest.fixture
def contacts() -> Contacts:
    return Contacts(random.Random(1), 1000)


def upsert(contacts: Contacts, now: float = NOW, **body: Any) -> dict[str, Any]:
    return contacts.upsert(body, now).body


def fired(contacts: Contacts) -> list[str]:
    return [line.type for line in contacts.automations]


def refused(call: Any) -> Refused:
    with pytest.raises(Refused) as error:
        call()
    return error.value


def test_a_new_contact_is_created_whole(contacts: Contacts) -> None:
    """201 with every field of the documented answer; contact_created and tag_added fire, in this order."""
    body = {
        "email": "ann@example.com",
        "external_id": "7",
        "first_name": "Ann",
        "source": "signup",
        "custom_fields": {"plan": "free"},
        "tag_names": ["trial"],
    }
    answer = contacts.upsert(body, NOW)
    assert answer.status == 201
    contact = answer.body
    assert contact["email"] == "ann@example.com"
    assert contact["external_id"] == "7"
    assert contact["first_name"] == "Ann"
    assert contact["custom_fields"] == {"plan": "free"}
    assert [tag["name"] for tag in contact["tags"]] == ["trial"]
    assert contact["status"] == "active"
    assert contact["created_at"] == contact["updated_at"] == "2027-01-15T08:00:00.000000Z"
    assert fired(contacts) == ["contact_created", "tag_added"]


def test_an_update_merges_custom_fields_and_only_adds_tags(contacts: Contacts) -> None:
    """Keys sent overwrite, keys omitted stay; tags that are not named stay; 200; the changed fields are named."""
    upsert(contacts, email="a@example.com", custom_fields={"plan": "free", "mrr": 1}, tag_names=["x"])
    answer = contacts.upsert({"email": "a@example.com", "custom_fields": {"plan": "pro"}, "tag_names": ["y"]}, NOW + 1)
    assert answer.status == 200
    assert answer.body["custom_fields"] == {"plan": "pro", "mrr": 1}
    assert [tag["name"] for tag in answer.body["tags"]] == ["x", "y"]
    assert fired(contacts) == ["contact_created", "tag_added", "contact_updated", "tag_added"]
    updated = next(line for line in contacts.automations if line.type == "contact_updated")
    assert updated.detail == {"changes": {"custom_fields.plan": {"old": "free", "new": "pro"}}}


def test_an_upsert_that_changes_nothing_fires_nothing(contacts: Contacts) -> None:
    """The same state again leaves the log and updated_at as they were."""
    body = {
        "email": "a@example.com",
        "external_id": "7",
        "custom_fields": {"on": True, "list": [1]},
        "tag_names": ["x"],
    }
    first = contacts.upsert(body, NOW).body
    before = fired(contacts)
    again = contacts.upsert(dict(body, source="import"), NOW + 60).body
    assert again == first
    assert fired(contacts) == before


def test_true_is_not_one(contacts: Contacts) -> None:
    """JSON's true and 1 are different values, though Python calls them equal."""
    upsert(contacts, email="a@example.com", custom_fields={"flag": 1})
    assert upsert(contacts, email="a@example.com", custom_fields={"flag": True})["custom_fields"]["flag"] is True
    assert fired(contacts)[-1] == "contact_updated"


def test_external_id_is_matched_before_email(contacts: Contacts) -> None:
    """With an id that is known, the id decides whose contact it is."""
    seven = upsert(contacts, email="seven@example.com", external_id="7")
    upsert(contacts, email="eight@example.com", external_id="8")
    changed = upsert(contacts, email="seven@example.com", external_id="7", first_name="S")
    assert changed["id"] == seven["id"]
    tracked = contacts.track({"event_name": "e", "external_id": "7", "email": "eight@example.com"}, NOW).body
    assert tracked["contact_id"] == seven["id"]


def test_a_changed_email_rekeys_the_contact(contacts: Contacts) -> None:
    """The contact keeps its id under the new email; the old email is free again."""
    old = upsert(contacts, email="old@example.com", external_id="7")
    new = upsert(contacts, email="new@example.com", external_id="7")
    assert new["id"] == old["id"]
    assert new["email"] == "new@example.com"
    assert contacts.find("old@example.com") is None
    assert upsert(contacts, email="old@example.com")["id"] != old["id"]


def test_a_rekey_to_somebody_elses_email_is_refused_and_changes_nothing(contacts: Contacts) -> None:
    """400: two people are never merged."""
    upsert(contacts, email="a@example.com", external_id="7", first_name="A")
    upsert(contacts, email="b@example.com")
    error = refused(lambda: upsert(contacts, email="B@example.com", external_id="7", first_name="Z"))
    assert (error.status, error.code) == (400, "email_taken")
    found = contacts.find(None, "7")
    assert found is not None
    assert (found.email, found.names) == ("a@example.com", {"first_name": "A"})


def test_a_known_email_is_taken_over_by_a_new_id(contacts: Contacts) -> None:
    """Matched by email, the contact gets the id that was sent, also in place of another."""
    first = upsert(contacts, email="a@example.com")
    assert upsert(contacts, email="a@example.com", external_id="7")["id"] == first["id"]
    assert upsert(contacts, email="a@example.com", external_id="8")["external_id"] == "8"
    assert contacts.find(None, "7") is None


def test_emails_compare_without_case_and_outer_spaces(contacts: Contacts) -> None:
    first = upsert(contacts, email="Ann@Example.com")
    again = upsert(contacts, email=" ann@example.COM ", first_name="A")
    assert (again["id"], again["email"]) == (first["id"], "Ann@Example.com")


def test_an_update_keeps_the_original_source(contacts: Contacts) -> None:
    upsert(contacts, email="a@example.com", source="signup")
    assert upsert(contacts, email="a@example.com", source="import")["source"] == "signup"
    assert upsert(contacts, email="b@example.com")["source"] == "api"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "email"),
        ({"email": None}, "email"),
        ({"email": 7}, "email"),
        ({"email": "nobody"}, "email"),
        ({"email": "a b@example.com"}, "email"),
        ({"email": "a@localhost"}, "email"),
        ({"email": f"{'a' * 250}@example.com"}, "email"),
        ({"email": "a@example.com", "external_id": 7}, "external_id"),
        ({"email": "a@example.com", "external_id": ""}, "external_id"),
        ({"email": "a@example.com", "external_id": "x" * 256}, "external_id"),
        ({"email": "a@example.com", "source": "web"}, "source"),
        ({"email": "a@example.com", "source": []}, "source"),
        ({"email": "a@example.com", "custom_fields": []}, "custom_fields"),
        ({"email": "a@example.com", "tag_names": "x"}, "tag_names"),
        ({"email": "a@example.com", "tag_names": [""]}, "tag_names"),
        ({"email": "a@example.com", "first_name": 1}, "first_name"),
        ({"email": "a@example.com", "status": "active"}, "status"),
        ({"email": "a@example.com", "tags": ["x"]}, "tags"),
    ],
)
def test_a_bad_field_is_refused_by_name_and_changes_nothing(
    contacts: Contacts, body: dict[str, Any], field: str
) -> None:
    """400 with the field at fault; no contact appears."""
    error = refused(lambda: contacts.upsert(body, NOW))
    assert (error.status, error.field) == (400, field)
    assert field in error.message
    assert not contacts.by_id


def test_null_counts_as_not_sent(contacts: Contacts) -> None:
    """For optional fields; inside custom_fields null is a value like any other."""
    upsert(contacts, email="a@example.com", external_id="7", first_name="A", custom_fields={"plan": "pro"})
    body = {"email": "a@example.com", "external_id": None, "first_name": None, "custom_fields": {"plan": None}}
    changed = contacts.upsert(body, NOW).body
    assert (changed["external_id"], changed["first_name"]) == ("7", "A")
    assert changed["custom_fields"] == {"plan": None}


def test_track_finds_by_id_then_email_and_is_404_without_a_contact(contacts: Contacts) -> None:
    contact = upsert(contacts, email="a@example.com", external_id="7")
    answer = contacts.track({"event_name": "login", "email": "a@example.com", "properties": {"n": 1}}, NOW + 5)
    assert answer.status == 200
    assert answer.body == {
        "status": "tracked",
        "contact_id": contact["id"],
        "event_name": "login",
        "timestamp": "2027-01-15T08:00:05.000000Z",
    }
    # An unknown id does not hide a known email.
    assert contacts.track({"event_name": "x", "email": "a@example.com", "external_id": "9"}, NOW).status == 200
    assert fired(contacts) == ["contact_created", "custom_event", "custom_event"]
    assert refused(lambda: contacts.track({"event_name": "x", "email": "b@example.com"}, NOW)).status == 404
    assert refused(lambda: contacts.track({"event_name": "x"}, NOW)).status == 400
    assert refused(lambda: contacts.track({"email": "a@example.com"}, NOW)).field == "event_name"


def test_tags_are_added_and_removed_by_name_and_by_id(contacts: Contacts) -> None:
    """A new tag is created; repeating either call is 200 and fires nothing."""
    one, two = (upsert(contacts, email=f"{name}@example.com")["id"] for name in ("one", "two"))
    tag = contacts.add_tag(one, {"tag_name": "vip"}, NOW).body["tags"][0]
    assert contacts.add_tag(two, {"tag_id": tag["id"]}, NOW).body["tags"] == [tag]
    contacts.add_tag(two, {"tag_name": "vip"}, NOW)
    assert contacts.remove_tag(two, {"tag_name": "vip"}, NOW).body["tags"] == []
    contacts.remove_tag(two, {"tag_id": tag["id"]}, NOW)
    assert contacts.remove_tag(two, {"tag_name": "never-seen"}, NOW).status == 200
    assert fired(contacts)[2:] == ["tag_added", "tag_added", "tag_removed"]


def test_tag_calls_refuse_what_they_cannot_find(contacts: Contacts) -> None:
    contact = upsert(contacts, email="a@example.com")["id"]
    assert refused(lambda: contacts.add_tag("nobody", {"tag_name": "x"}, NOW)).code == "contact_not_found"
    assert refused(lambda: contacts.add_tag(contact, {"tag_id": "none"}, NOW)).code == "tag_not_found"
    assert refused(lambda: contacts.add_tag(contact, {}, NOW)).status == 400
    assert refused(lambda: contacts.add_tag(contact, {"tag_name": "x", "tag_id": "y"}, NOW)).status == 400


def test_suppressed_addresses_are_listed_and_shown_on_the_contact(contacts: Contacts) -> None:
    upsert(contacts, email="a@example.com")
    contacts.suppress("A@example.com", "complained")
    contacts.suppress("nobody@example.com", "bounced")
    listed = contacts.suppressed(NOW).body
    assert listed == {
        "as_of": "2027-01-15T08:00:00.000000Z",
        "count": 2,
        "emails": ["A@example.com", "nobody@example.com"],
    }
    assert upsert(contacts, email="a@example.com")["status"] == "complained"
    assert contacts.allow("a@example.com")
    assert upsert(contacts, email="a@example.com")["status"] == "active"
    assert not contacts.allow("a@example.com")


@pytest.mark.parametrize(("reason", "status"), [("unsubscribed", "unsubscribed"), ("bounced", "active")])
def test_a_persons_no_follows_to_a_new_address_and_a_bounce_does_not(
    contacts: Contacts, reason: str, status: str
) -> None:
    upsert(contacts, email="old@example.com", external_id="7")
    contacts.suppress("old@example.com", reason)
    assert upsert(contacts, email="new@example.com", external_id="7")["status"] == status


def test_the_automations_log_is_bounded_and_its_counters_are_not() -> None:
    """Old lines go, their numbers and counts stay right."""
    contacts = Contacts(random.Random(1), 3)
    for number in range(10):
        upsert(contacts, email=f"{number}@example.com")
    assert [line.number for line in contacts.automations] == [8, 9, 10]
    assert contacts.automations.dropped == 7
    assert contacts.fired["contact_created"] == 10
    assert [line.number for line in contacts.automations.since(8, 10)] == [9, 10]
    assert [line.number for line in contacts.automations.since(2, 2)] == [8, 9]
