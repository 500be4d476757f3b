"""From an event to one action's body and contact.

An action's fields are one compiled function. What it makes is what pydantic would make of it wherever the values have
the types they should have, and that is looked at first, for a tenth of pydantic's time; anything else goes through the
model, which turns numbers into text where that is due, and refuses the rest.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import ValidationError

from bridge.actions import ActionModel
from bridge.errors import RuleError
from bridge.model import Contact, Event, Handling, Kind
from bridge.places import Place
from bridge.rules.language import Expression
from bridge.rules.unit import Unit
from bridge.rules.writers import NOTHING, Writes
from bridge.rules.written import WrittenAction

Fits = Callable[[Any], bool]


def _is_name(value: Any) -> bool:
    return type(value) is str and value != ""


def _is_text(value: Any) -> bool:
    return type(value) is str


def _is_object(value: Any) -> bool:
    return type(value) is dict


def _are_names(value: Any) -> bool:
    return type(value) is list and all(type(item) is str and item != "" for item in value)


def _name_values(value: Any) -> bool:
    return type(value) is dict and all(type(item) is str and item != "" for item in value.values())


def _never(value: Any) -> bool:
    return False


def fits(model: type[ActionModel], name: str) -> Fits:
    """Whether a value is certainly right for a field as it is; False sends it through the model."""
    annotation = model.model_fields[name].annotation
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        annotation = next(part for part in typing.get_args(annotation) if part is not types.NoneType)
    metadata = model.model_fields[name].metadata
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        annotation, *metadata = typing.get_args(annotation)
    if annotation is str:
        return _is_name if metadata else _is_text
    if origin is list:
        return _are_names
    if origin is dict:
        return _is_object if typing.get_args(annotation)[1] is Any else _name_values
    if origin is Literal:
        allowed = frozenset(typing.get_args(annotation))
        return lambda value: type(value) is str and value in allowed
    if annotation is bool:
        return lambda value: type(value) is bool
    return _never


@dataclass(slots=True)
class ActionTemplate:
    """One action of a rule, ready to be made from events."""

    kind: Kind
    model: type[ActionModel]
    build: Callable[[Any], dict[str, Any]]
    """Makes the fields, with `contact` and `aliases` among them."""
    unit: Unit
    checks: tuple[tuple[str, Fits, bool], ...]
    """Of each field that is not fixed: whether a value fits as it is, and whether the field is required."""
    paths: Mapping[str, str]
    """The field of the event that a field is made from, where it is only one."""
    when: Expression | None
    handling: Handling
    handling_without_email: Handling
    line: int = 0
    writes: Writes = NOTHING
    given: Mapping[str, Any] = field(default_factory=dict)
    """Its fields and options as written, plain values with `${…}` in them."""
    places: Mapping[str, Place] = field(default_factory=dict)
    """Where they are written: `max_age`, `trigger_key`, `custom_fields.plan`; that of the action is under ``."""
    written: WrittenAction | None = None

    def place(self, *names: str) -> Place:
        """Of the first of these that is written, else of the action."""
        return next((self.places[name] for name in names if name in self.places), self.places.get("", Place("")))

    def make(self, event: Event) -> tuple[dict[str, Any], Contact]:
        """The request's body, and whom it is about. Raises RuleError; its text holds no value of the event."""
        try:
            fields = self.build(event)
        except Exception as raised:
            raise self.unit.error(raised) from None
        model = self.model
        for name, fit, required in self.checks:
            value = fields.get(name)
            if value is None:
                if required:
                    return self._validated(fields)
            elif not fit(value):
                return self._validated(fields)
        if self.kind in _TAGS and (fields.get("tag_name") is None) == (fields.get("tag_id") is None):
            return self._validated(fields)
        names = fields.pop("contact", None)
        if aliases := fields.pop("aliases", None):
            names = {**names, **aliases} if names else aliases
        email, external_id = fields.get(model.EMAIL_FIELD), fields.get("external_id")
        if email is None and external_id is None and not names:
            return self._validated(fields)
        for name in model.LOCAL:
            fields.pop(name, None)
        if None in fields.values():
            fields = {name: value for name, value in fields.items() if value is not None}
        return fields, Contact(email, external_id, tuple(sorted(names.items())) if names else ())

    def _validated(self, fields: dict[str, Any]) -> tuple[dict[str, Any], Contact]:
        """The whole check, where a value is not plainly right."""
        try:
            action = self.model(**fields)
        except ValidationError as error:
            raise self._refused(error) from None
        return action.body(), action.who()

    def _refused(self, error: ValidationError) -> RuleError:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in (self.kind.value, *first["loc"]))
        path = self.paths.get(str(first["loc"][0]) if first["loc"] else self.model.EMAIL_FIELD, "")
        origin = f" (from {path})" if path else ""
        return RuleError(f"{place}: {told(first['type'], first['msg'])}{origin}", path)


_TAGS = (Kind.ADD_TAG, Kind.REMOVE_TAG)

_TOLD = {
    "missing": "is required",
    "string_type": "must be a text",
    "string_too_short": "must not be empty",
    "dict_type": "must be an object",
    "list_type": "must be a list",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "extra_forbidden": "is no field of this action",
}


def told(kind: str, message: str) -> str:
    """pydantic's error in the words of rules; its message never holds the input."""
    if kind in _TOLD:
        return _TOLD[kind]
    if kind == "value_error":
        return message.removeprefix("Value error, ")
    return message.replace("Input should be", "must be")
