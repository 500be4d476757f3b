"""Upserts of a few people under a few names, against a naive list of dicts."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bridge.sandbox.contacts import Contacts
from bridge.sandbox.fields import Refused

EMAILS = ["a@example.com", "b@example.com", "c@example.com", "A@Example.com "]
IDS = ["1", "2", "3"]
BODIES = st.fixed_dictionaries(
    {"email": st.sampled_from(EMAILS)},
    optional={
        "external_id": st.sampled_from(IDS),
        "first_name": st.sampled_from(["", "Ann", "Bob"]),
        "source": st.sampled_from(["signup", "import"]),
        "custom_fields": st.dictionaries(
            st.sampled_from(["plan", "n"]), st.sampled_from([1, True, None, "x", [1], [True], {"k": 0}]), max_size=2
        ),
        "tag_names": st.lists(st.sampled_from(["t", "u", "v"]), max_size=3),
    },
)


def same(left: Any, right: Any) -> bool:
    return repr(left) == repr(right)  # tells 1 and True apart


class Model:
    """Every rule in the most obvious way: scan the list."""

    def __init__(self) -> None:
        self.people: list[dict[str, Any]] = []

    def upsert(self, body: dict[str, Any]) -> tuple[str, list[str]]:
        """What is answered (created, updated, refused), and the automations that fire."""
        email = body["email"].strip()
        by_id = [one for one in self.people if body.get("external_id") and one["id"] == body["external_id"]]
        by_email = [one for one in self.people if one["email"].lower() == email.lower()]
        found = (by_id or by_email or [None])[0]
        if found is None:
            found = {
                "email": email,
                "id": body.get("external_id"),
                "name": body.get("first_name", ""),
                "source": body.get("source", "api"),
                "fields": dict(body.get("custom_fields", {})),
                "tags": [],
            }
            self.people.append(found)
            return "created", ["contact_created", *self._tag(found, body)]
        if by_email and by_email[0] is not found:
            return "refused", []
        before = repr([found["email"], found["id"], found["name"], sorted(found["fields"].items(), key=str)])
        if found["email"].lower() != email.lower():
            found["email"] = email
        found["id"] = body.get("external_id", found["id"])
        found["name"] = body.get("first_name", found["name"])
        found["fields"].update(body.get("custom_fields", {}))
        after = repr([found["email"], found["id"], found["name"], sorted(found["fields"].items(), key=str)])
        return "updated", (["contact_updated"] if before != after else []) + self._tag(found, body)

    def _tag(self, person: dict[str, Any], body: dict[str, Any]) -> list[str]:
        fired = []
        for tag in body.get("tag_names", []):
            if tag not in person["tags"]:
                person["tags"].append(tag)
                fired.append("tag_added")
        return fired


@given(st.lists(BODIES, max_size=25))
def test_upserts_end_like_the_naive_model(bodies: list[dict[str, Any]]) -> None:
    """Same answers, same automations, same people in the end, and every contact found under its own names only."""
    contacts, model = Contacts(random.Random(0), 10_000), Model()
    for now, body in enumerate(bodies):
        logged = contacts.automations.total
        try:
            outcome = "created" if contacts.upsert(body, float(now)).status == 201 else "updated"
        except Refused as refused:
            assert refused.code == "email_taken"
            outcome = "refused"
        fired = [line.type for line in contacts.automations.since(logged, 100)]
        assert (outcome, fired) == model.upsert(body)
    held = {contact.id: contact for contact in contacts.by_id.values()}
    assert len(held) == len(model.people)
    for person in model.people:
        contact = contacts.find(person["email"])
        assert contact is not None
        assert contact is held.pop(contact.id)
        assert (contact.email, contact.external_id) == (person["email"], person["id"])
        assert contact.names.get("first_name", "") == person["name"]
        assert contact.source == person["source"]
        assert same(sorted(contact.custom_fields.items()), sorted(person["fields"].items()))
        assert list(contact.tags) == person["tags"]
        if person["id"] is not None:
            assert contacts.find(None, person["id"]) is contact
    for external_id in IDS:
        known = any(person["id"] == external_id for person in model.people)
        assert (contacts.find(None, external_id) is not None) == known
