"""The six actions, as rules write them and handlers yield them; their fields are the API's own.

    yield Upsert(email=event.data["email"], custom_fields={"mrr": 12})

Each class holds the request's fields (checked here, once, by pydantic: the client sends `body()` as it is) and the
options that stand beside them in YAML. `OPTIONS` names the options; everything else is sent.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from bridge.model import Contact, Kind, Lane

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}


def duration_seconds(text: str) -> float:
    """Seconds of `30s`, `10m`, `2h`, `1d` (also `250ms`). Raises ValueError with what is wrong."""
    match = _DURATION.fullmatch(text.strip())
    if not match:
        raise ValueError(f"{text!r} is not a duration; write a number and a unit, e.g. 30s, 10m, 2h or 1d")
    return float(match[1]) * _UNIT_SECONDS[match[2]]


def _duration(text: str) -> str:
    duration_seconds(text)
    return text


def _max_age(text: str) -> str:
    return text if text == "none" else _duration(text)


Duration = Annotated[str, AfterValidator(_duration)]
MaxAge = Annotated[str, AfterValidator(_max_age)]
Name = Annotated[str, Field(min_length=1)]
JsonObject = dict[str, Any]


class ActionModel(BaseModel):
    """What all actions share. Unknown fields are errors: a typo would silently send nothing.

    Numbers become text where text is due: producers send ids as numbers, and 7 and "7" are one contact.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, coerce_numbers_to_str=True)

    KIND: ClassVar[Kind]
    OPTIONS: ClassVar[frozenset[str]] = frozenset({"max_age", "lane", "contact", "on_suppressed"})
    EMAIL_FIELD: ClassVar[str] = "email"
    LOCAL: ClassVar[frozenset[str]] = frozenset()
    """Fields that name the contact for the bridge but are not part of this endpoint's request."""

    max_age: MaxAge | None = None
    lane: Lane | None = None
    contact: dict[Name, Name] | None = None
    """`{alias: value}`: names the person where neither email nor external_id is at hand."""
    on_suppressed: Literal["finish", "dead_letter"] | None = None

    def body(self) -> JsonObject:
        """The request's fields that were set; None counts as not set."""
        left_out = self.OPTIONS | self.LOCAL
        return {
            name: value
            for name, value in self.__dict__.items()
            if value is not None and name in self.model_fields_set and name not in left_out
        }

    def who(self) -> Contact:
        """The contact that this action names."""
        aliases = tuple(sorted((self.contact or {}).items()))
        values = self.__dict__
        return Contact(values.get(self.EMAIL_FIELD), values.get("external_id"), aliases)

    def _named(self) -> bool:
        who = self.who()
        return who.email is not None or who.external_id is not None or bool(who.aliases)

    @model_validator(mode="after")
    def _names_a_contact(self) -> Self:
        if not self._named():
            raise ValueError(f"names no contact: give {self.EMAIL_FIELD}, external_id or contact")
        return self


class Upsert(ActionModel):
    """POST /contacts/upsert/: the contact's current state."""

    KIND = Kind.UPSERT
    OPTIONS = ActionModel.OPTIONS | {"aliases"}

    email: Name | None = None
    external_id: Name | None = None
    first_name: str | None = None
    last_name: str | None = None
    display_name: str | None = None
    source: Literal["api", "import", "manual", "signup", "initial_sync"] | None = None
    custom_fields: JsonObject | None = None
    tag_names: list[Name] | None = None
    aliases: dict[Name, Name] | None = None
    """Other ids of this person; never sent."""

    def who(self) -> Contact:
        named = {**(self.contact or {}), **(self.aliases or {})}
        return Contact(self.email, self.external_id, tuple(sorted(named.items())))


class Track(ActionModel):
    """POST /events/track/: a moment that automations react to."""

    KIND = Kind.TRACK
    OPTIONS = ActionModel.OPTIONS | {"on_missing"}

    event_name: Name
    email: Name | None = None
    external_id: Name | None = None
    properties: JsonObject | None = None
    on_missing: Literal["upsert", "wait", "dead_letter"] | None = None


class Trigger(ActionModel):
    """POST /emails/trigger/: one transactional email to one recipient."""

    KIND = Kind.TRIGGER
    OPTIONS = ActionModel.OPTIONS | {"order"}
    EMAIL_FIELD = "to_email"
    LOCAL = frozenset({"external_id"})

    trigger_key: Name
    to_email: Name | None = None
    variables: JsonObject | None = None
    recipient: JsonObject | None = None
    idempotency_key: Name | None = None
    """Rarely needed: the bridge gives every trigger a stable key of its own."""
    external_id: Name | None = None
    order: Literal["contact", "independent"] | None = None


class Enroll(ActionModel):
    """POST /sequences/enroll/: starts a sequence for a contact."""

    KIND = Kind.ENROLL
    LOCAL = frozenset({"external_id"})

    sequence_slug: Name
    email: Name | None = None
    external_id: Name | None = None
    metadata: JsonObject | None = None
    trigger_source: Name | None = None
    override_unsubscribe: bool | None = None


class _Tag(ActionModel):
    LOCAL = frozenset({"email", "external_id"})

    tag_name: Name | None = None
    tag_id: Name | None = None
    email: Name | None = None
    external_id: Name | None = None

    @model_validator(mode="after")
    def _one_tag(self) -> Self:
        if (self.tag_name is None) == (self.tag_id is None):
            raise ValueError("give either tag_name or tag_id")
        return self


class AddTag(_Tag):
    """POST /contacts/{id}/add_tag/"""

    KIND = Kind.ADD_TAG


class RemoveTag(_Tag):
    """POST /contacts/{id}/remove_tag/"""

    KIND = Kind.REMOVE_TAG


AnyAction = Upsert | Track | Trigger | Enroll | AddTag | RemoveTag

MODELS: dict[Kind, type[ActionModel]] = {
    model.KIND: model for model in (Upsert, Track, Trigger, Enroll, AddTag, RemoveTag)
}
