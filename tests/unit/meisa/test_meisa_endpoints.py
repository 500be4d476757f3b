"""The catalogue, against the API's documentation."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from bridge.meisa import models
from bridge.meisa.endpoints import ENDPOINTS, Repeat
from bridge.model import Kind


def test_the_catalogue_is_the_documentation() -> None:
    """Names, methods, paths and scopes of all eleven endpoints, as documented."""
    assert {(e.name, e.method, e.path, e.scope) for e in ENDPOINTS.values()} == {
        ("ping", "GET", "/ping/", None),
        ("upsert", "POST", "/contacts/upsert/", "contacts:write"),
        ("track", "POST", "/events/track/", "events:track"),
        ("add_tag", "POST", "/contacts/{id}/add_tag/", "contacts:write"),
        ("remove_tag", "POST", "/contacts/{id}/remove_tag/", "contacts:write"),
        ("unsubscribed", "GET", "/contacts/api/unsubscribed-emails/", "contacts:read"),
        ("enroll", "POST", "/sequences/enroll/", "sequences:enroll"),
        ("bulk_enroll", "POST", "/sequences/api/bulk-enroll/", "sequences:enroll"),
        ("sequences", "GET", "/sequences/api/list/", "sequences:read"),
        ("enrollments", "GET", "/sequences/api/contact-enrollments/", "sequences:read"),
        ("trigger", "POST", "/emails/trigger/", "emails:trigger"),
    }


def test_every_action_has_an_endpoint_of_its_name() -> None:
    """An action's kind names its endpoint."""
    assert {kind.value for kind in Kind} <= set(ENDPOINTS)


def test_only_what_is_harmless_is_repeated_freely() -> None:
    """A trigger sends an email and a track fires an automation: each has a rule of its own."""
    assert {name: e.repeat for name, e in ENDPOINTS.items() if e.repeat is not Repeat.ALWAYS} == {
        "track": Repeat.IF_NOT_DONE,
        "trigger": Repeat.WITH_KEY,
    }


def test_fields_that_meisa_adds_are_kept() -> None:
    """A newer Meisa does not break an older bridge."""
    contact = models.ContactAnswer.model_validate({"id": "c1", "opens": 3})
    assert contact.model_extra == {"opens": 3}


@pytest.mark.parametrize(
    "body",
    [
        {"results": [{"email": "a@x.io", "status": "enrolled"}]},
        {"outcomes": [{"email": "a@x.io", "outcome": "enrolled"}]},
        {"results": {"a@x.io": "enrolled"}},
        {"results": {"a@x.io": {"status": "enrolled"}}},
        {"contacts": [{"email": "a@x.io", "result": "enrolled"}], "count": 1},
    ],
)
def test_bulk_outcomes_in_several_shapes(body: Any) -> None:
    """That there is an outcome per address is documented, its shape is not."""
    (result,) = models.BulkEnrolled.model_validate(body).results
    assert (result.email, result.status) == ("a@x.io", "enrolled")


@pytest.mark.parametrize("body", [[{"slug": "s"}], {"results": [{"slug": "s"}]}, {"sequences": [{"slug": "s"}]}])
def test_lists_in_several_shapes(body: Any) -> None:
    """A bare list, or a list under a name."""
    assert [item.slug for item in models.Sequences.model_validate(body).items] == ["s"]


def test_at_most_500_emails_at_once() -> None:
    """The documented limit is found before the call."""
    emails = [f"u{n}@x.io" for n in range(501)]
    assert len(models.BulkEnrollRequest(sequence_slug="s", emails=emails[:500]).emails) == 500
    with pytest.raises(ValidationError):
        models.BulkEnrollRequest(sequence_slug="s", emails=emails)
    with pytest.raises(ValidationError):
        models.BulkEnrollRequest(sequence_slug="s", emails=[])
