"""Requests and answers of the API, checked by pydantic.

Requests of the six actions are in bridge/actions.py; here are the others. Answers are read leniently: what Meisa adds
is kept as it is, what it may leave out is optional. Field names that no documentation states are marked `(assumed)`.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

BULK_EMAILS_MAX = 500
"""Of one bulk enroll (documented)."""

Name = Annotated[str, Field(min_length=1)]


class Request(BaseModel):
    """Strict: a misspelt field would silently send nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    def body(self) -> dict[str, Any]:
        return self.model_dump(exclude_none=True)


class BulkEnrollRequest(Request):
    sequence_slug: Name
    emails: Annotated[list[Name], Field(min_length=1, max_length=BULK_EMAILS_MAX)]
    override_unsubscribe: bool | None = None


class SequencesQuery(Request):
    status: Name | None = None
    """`all`; left out, Meisa lists active ones."""
    search: Name | None = None


class EnrollmentsQuery(Request):
    email: Name


class Answer(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, hide_input_in_errors=True, coerce_numbers_to_str=True)


class Ping(Answer):
    scopes: list[str]
    environment: str
    """`live` or `test`."""
    product: Any = None


class Tag(Answer):
    id: str | None = None
    name: str


class ContactAnswer(Answer):
    """The whole contact, as an upsert answers it."""

    id: str
    email: str | None = None
    external_id: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    display_name: str | None = None
    custom_fields: dict[str, Any] | None = None
    tags: list[Tag] | None = None
    status: str | None = None
    created_at: str | None = None
    updated_at: str | None = None


class Tracked(Answer):
    status: str | None = None
    contact_id: str | None = None
    event_name: str | None = None
    timestamp: str | None = None


class TagChanged(Answer):
    """Nothing is documented of it but that the tag was added or removed."""


class Unsubscribed(Answer):
    """Addresses that unsubscribed, bounced or complained."""

    as_of: str
    count: int
    emails: list[str]


class Enrolled(Answer):
    """Nothing is documented of it but that the contact is in the sequence."""

    already_enrolled: bool = False
    """Set by this client where Meisa rejected a second enrolment."""


class BulkResult(Answer):
    """The outcome for one address (assumed names)."""

    email: str
    status: Annotated[str | None, Field(validation_alias=AliasChoices("status", "outcome", "result"))] = None
    reason: Annotated[str | None, Field(validation_alias=AliasChoices("reason", "message", "error", "detail"))] = None
    contact_id: str | None = None


class BulkEnrolled(Answer):
    """Per-address outcomes, as a list of objects or as an object by address (assumed)."""

    results: list[BulkResult]

    @model_validator(mode="before")
    @classmethod
    def _one_shape(cls, value: Any) -> Any:
        found = value
        if isinstance(value, dict):
            found = next((value[name] for name in ("results", "outcomes", "contacts") if name in value), None)
        if isinstance(found, dict):
            found = [
                {"email": email, **(outcome if isinstance(outcome, dict) else {"status": outcome})}
                for email, outcome in found.items()
            ]
        rest = value if isinstance(value, dict) else {}
        return {**rest, "results": found} if found is not None else value


class Sequence(Answer):
    slug: str
    name: str | None = None
    status: str | None = None


class Enrollment(Answer):
    sequence_slug: Annotated[str | None, Field(validation_alias=AliasChoices("sequence_slug", "slug"))] = None
    status: str | None = None


def _listed(value: Any, *names: str) -> Any:
    """A bare list, or a list under one of `names`, as {"items": list} (assumed: which of them Meisa sends)."""
    if isinstance(value, list):
        return {"items": value}
    if isinstance(value, dict):
        for name in names:
            if isinstance(value.get(name), list):
                return {**value, "items": value[name]}
    return value


class Sequences(Answer):
    items: list[Sequence]

    @model_validator(mode="before")
    @classmethod
    def _one_shape(cls, value: Any) -> Any:
        return _listed(value, "sequences", "results")


class Enrollments(Answer):
    items: list[Enrollment]

    @model_validator(mode="before")
    @classmethod
    def _one_shape(cls, value: Any) -> Any:
        return _listed(value, "enrollments", "results")


class Triggered(Answer):
    status: str
    """sent | scheduled | skipped"""
    reason: str | None = None
    email_send_id: str | None = None
    contact_id: str | None = None
    contact_created: bool | None = None
