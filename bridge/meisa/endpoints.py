"""The catalogue of Meisa's eleven endpoints. Everything that depends on an endpoint's name is looked up here."""

from __future__ import annotations

from enum import Enum
from types import MappingProxyType
from typing import NamedTuple

from pydantic import BaseModel

from bridge import actions
from bridge.meisa import models


class Repeat(Enum):
    """When a call may be made again whose first try had no final answer."""

    ALWAYS = "always"
    """Reading, or setting what is set already."""
    WITH_KEY = "with_key"
    """Only with an idempotency_key, and only while Meisa remembers it."""
    IF_NOT_DONE = "if_not_done"
    """Only where the first try is known not to have been carried out: never sent, throttled, or answered with 5xx."""


class Endpoint(NamedTuple):
    name: str
    """As in `Call.endpoint` and the metrics' label."""
    method: str
    path: str
    """Below the base URL; `{id}` is the contact's id."""
    scope: str | None
    """None: any key will do."""
    request: type[BaseModel] | None
    """Of the body, or for a GET of the query."""
    response: type[models.Answer]
    repeat: Repeat

    @property
    def reads(self) -> bool:
        return self.method == "GET"


_ALL = (
    Endpoint("ping", "GET", "/ping/", None, None, models.Ping, Repeat.ALWAYS),
    Endpoint(
        "upsert", "POST", "/contacts/upsert/", "contacts:write", actions.Upsert, models.ContactAnswer, Repeat.ALWAYS
    ),
    Endpoint("track", "POST", "/events/track/", "events:track", actions.Track, models.Tracked, Repeat.IF_NOT_DONE),
    Endpoint(
        "add_tag",
        "POST",
        "/contacts/{id}/add_tag/",
        "contacts:write",
        actions.AddTag,
        models.TagChanged,
        Repeat.ALWAYS,
    ),
    Endpoint(
        "remove_tag",
        "POST",
        "/contacts/{id}/remove_tag/",
        "contacts:write",
        actions.RemoveTag,
        models.TagChanged,
        Repeat.ALWAYS,
    ),
    Endpoint(
        "unsubscribed",
        "GET",
        "/contacts/api/unsubscribed-emails/",
        "contacts:read",
        None,
        models.Unsubscribed,
        Repeat.ALWAYS,
    ),
    # A contact that is in the sequence already is rejected, so that a repeat never enrols twice (documented).
    Endpoint(
        "enroll", "POST", "/sequences/enroll/", "sequences:enroll", actions.Enroll, models.Enrolled, Repeat.ALWAYS
    ),
    Endpoint(
        "bulk_enroll",
        "POST",
        "/sequences/api/bulk-enroll/",
        "sequences:enroll",
        models.BulkEnrollRequest,
        models.BulkEnrolled,
        Repeat.ALWAYS,
    ),
    Endpoint(
        "sequences",
        "GET",
        "/sequences/api/list/",
        "sequences:read",
        models.SequencesQuery,
        models.Sequences,
        Repeat.ALWAYS,
    ),
    Endpoint(
        "enrollments",
        "GET",
        "/sequences/api/contact-enrollments/",
        "sequences:read",
        models.EnrollmentsQuery,
        models.Enrollments,
        Repeat.ALWAYS,
    ),
    Endpoint(
        "trigger", "POST", "/emails/trigger/", "emails:trigger", actions.Trigger, models.Triggered, Repeat.WITH_KEY
    ),
)

ENDPOINTS = MappingProxyType({endpoint.name: endpoint for endpoint in _ALL})
