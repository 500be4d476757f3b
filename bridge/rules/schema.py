"""The JSON Schema of rules files, so that editors complete and check them while they are written.

It knows keys, options and shapes; what stands inside `${…}` and `when`, and how things go together, `check` knows.
Fields and options come from the actions' own models, so nothing here can name one that does not exist.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import Any, Final, Literal, get_args, get_origin

from bridge.actions import MODELS, ActionModel
from bridge.model import Kind, Lane
from bridge.rules import cases
from bridge.rules.loader import RULE_KEYS

Schema = dict[str, Any]
TITLE: Final = "Meisa bridge rules"
DURATION: Final = r"^\s*\d+(\.\d+)?\s*(ms|s|m|h|d)\s*$"

ACTIONS: Final[Mapping[Kind, str]] = {
    Kind.UPSERT: "The contact's current state: created, or changed in the fields that are given.",
    Kind.TRACK: "A moment that automations react to.",
    Kind.TRIGGER: "One transactional email to one recipient.",
    Kind.ENROLL: "Starts a sequence for a contact; one that is in it already stays as it is.",
    Kind.ADD_TAG: "Adds a tag to a contact.",
    Kind.REMOVE_TAG: "Takes a tag from a contact.",
}

FIELDS: Final[Mapping[str, str]] = {
    "email": "The contact's email address.",
    "to_email": "The recipient's email address.",
    "external_id": "The contact's id in your application; Meisa looks for it first.",
    "first_name": "The contact's first name.",
    "last_name": "The contact's last name.",
    "display_name": "The name to show.",
    "source": "Where a new contact comes from; Meisa keeps the first.",
    "custom_fields": "State that automations and segments filter on; fields that are not named stay as they are.",
    "tag_names": "Tags to add; none is ever taken away by this.",
    "event_name": "The event's name in Meisa.",
    "properties": "What is known of the moment.",
    "trigger_key": "The email's key, as configured in Meisa.",
    "variables": "Values for the email's template.",
    "recipient": "Contact fields with which Meisa creates or completes the recipient.",
    "idempotency_key": "Rarely needed: the bridge gives every trigger a stable key of its own.",
    "sequence_slug": "The sequence's slug; it must be active.",
    "metadata": "What is known of the enrollment; without it several may share one call.",
    "trigger_source": "Where the enrollment comes from; without it several may share one call.",
    "override_unsubscribe": "Enrolls unsubscribed contacts too.",
    "tag_name": "The tag's name; a new one is created.",
    "tag_id": "The tag's id, instead of its name.",
}

OPTIONS: Final[Mapping[str, str]] = {
    "when": "Only events for which this expression is true; written without ${ }.",
    "missing": "omit: leaves out fields whose value is missing, never those that name the contact.",
    "max_age": "How old an event may be when this is sent, e.g. 15m; default 1d for trigger, track and enroll. none "
    "turns it off.",
    "lane": "Priority in the shared quota; default: transactional for triggers, else sync.",
    "contact": "Names the contact by another id, e.g. {stripe: ${data.customer}}, where the identity table knows it.",
    "aliases": "Other ids of this person for the identity table; never sent.",
    "on_suppressed": "What becomes of it when the address is suppressed: finish (default) or dead_letter.",
    "on_missing": "When Meisa has no such contact: upsert (default where an email is known), wait, or dead_letter.",
    "order": "independent: may leave before earlier work of the same contact.",
}

RULE: Final[Mapping[str, str]] = {
    "name": "Identifies the rule's actions for ever: it is part of their ids.",
    "match": "An event type, a list, or a glob such as user.*; quote a leading *.",
    "topic": "Only events of this topic, or of these.",
    "when": "Only events for which this expression is true; written without ${ }. A missing field makes it false.",
    "do": "The actions, in order.",
    "enabled": "false turns the rule off.",
    "lane": "For all its actions: priority in the shared quota.",
    "coalesce": "Whether upserts of one contact that wait may merge into one call; default true.",
    "preserve": "Fields of which every value is sent, e.g. custom_fields.plan; holds for all rules.",
    "linger": "How long its upserts wait for more to merge with.",
    "lazy": "Fields whose change alone is not worth a call, e.g. custom_fields.last_active; holds for all rules.",
    "lazy_every": "How often a change of lazy fields alone is sent; default 1d.",
    "tests": "Tests of this rule: meisa-bridge test runs them.",
}

TEST: Final[Mapping[str, str]] = {
    "name": "What the test shows.",
    "event": "The event.",
    "events": "Several events, in order.",
    "given": "What is known before: {identities: [{email: …, external_id: …}]}.",
    "now": "The time at which the events are read, ISO 8601; decides what is too old.",
    "expect": "All actions, in order; fields that are not named are free.",
    "expect_error": "What goes wrong: its kind, the path that is missing.",
    "exact": "Fields that are not named may not be there.",
    "rule": "The rule that is tested alone.",
    "handler": "The handler that is tested alone.",
}

EVENT: Final[Mapping[str, str]] = {
    "id": "The event's id.",
    "type": "The event's type.",
    "source": "Where it comes from (CloudEvents).",
    "subject": "What it is about (CloudEvents).",
    "time": "When it happened, ISO 8601.",
    "data": "What expressions name data.",
    "key": "The record's key.",
    "headers": "The record's headers.",
    "topic": "The record's topic.",
    "partition": "The record's partition.",
    "offset": "The record's offset.",
    "timestamp": "The record's timestamp.",
    "value": "The whole record, in place of id, type, source, subject, time and data.",
}

TEMPLATE: Final[Schema] = {"type": "string", "pattern": r"\$\{"}
WHOLE: Final[Schema] = {"type": "string", "pattern": r"^\$\{[\s\S]*\}$"}
TEXT: Final[Schema] = {"type": ["string", "number"]}
NAME: Final[Schema] = {"type": ["string", "number"], "minLength": 1}
CONDITION: Final[Schema] = {"type": ["string", "boolean"]}
LANE: Final[Schema] = {"enum": [lane.value for lane in Lane]}


def json_schema() -> Schema:
    """The schema as plain data, the same on every run."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": TITLE,
        "description": "Made by: meisa-bridge schema rules",
        "type": "object",
        "properties": {
            "rules": {"type": "array", "items": _ref("rule"), "description": "All rules that match an event apply."},
            "tests": {
                "type": "array",
                "items": _ref("top_test"),
                "description": "Tests of all rules and handlers together, or of the one that they name.",
            },
        },
        "patternProperties": {"^x-": {"description": "For anchors; ignored."}},
        "additionalProperties": False,
        "anyOf": [{"required": ["rules"]}, {"required": ["tests"]}],
        "$defs": _definitions(),
    }


def _definitions() -> dict[str, Schema]:
    found: dict[str, Schema] = {
        "rule": _rule(),
        "action": {"oneOf": [_ref(kind.value) for kind in MODELS]},
        "expected": {"oneOf": [_ref(f"expected_{kind.value}") for kind in MODELS]},
        "event": _object(EVENT, {name: _event_field(name) for name in cases.EVENT_KEYS}),
        "test": _test(cases.TEST_KEYS),
        "top_test": _test(cases.TOP_TEST_KEYS),
        "duration": {"type": "string", "pattern": DURATION, "examples": ["30s", "10m", "2h", "1d"]},
        "max_age": {"anyOf": [_ref("duration"), {"const": "none"}]},
    }
    for kind, model in MODELS.items():
        found[kind.value] = _action(kind, model)
        found[f"expected_{kind.value}"] = _expected(kind, model)
    return found


def _rule() -> Schema:
    texts: Schema = {"anyOf": [NAME, {"type": "array", "items": NAME, "minItems": 1}]}
    sent = [name for name in MODELS[Kind.UPSERT].model_fields if name not in MODELS[Kind.UPSERT].OPTIONS]
    path: Schema = {"type": "string", "pattern": rf"^({'|'.join(sent)})(\.|$)"}
    paths: Schema = {"anyOf": [path, {"type": "array", "items": path, "minItems": 1}]}
    shapes: dict[str, Schema] = {
        "name": NAME,
        "match": texts,
        "topic": texts,
        "when": CONDITION,
        "do": {"type": "array", "items": _ref("action"), "minItems": 1},
        "enabled": {"type": "boolean", "default": True},
        "lane": LANE,
        "coalesce": {"type": "boolean", "default": True},
        "preserve": paths,
        "linger": _ref("duration"),
        "lazy": paths,
        "lazy_every": _ref("duration"),
        "tests": {"type": "array", "items": _ref("test")},
    }
    return _object(RULE, {name: shapes[name] for name in RULE_KEYS}, required=["name", "match", "do"])


def _action(kind: Kind, model: type[ActionModel]) -> Schema:
    names = [name for name in model.model_fields if name not in model.OPTIONS]
    fields = {name: _field(model, name) for name in names}
    required = [name for name in names if model.model_fields[name].is_required()]
    body = _object(FIELDS, fields, required)
    if kind in (Kind.ADD_TAG, Kind.REMOVE_TAG):
        body["oneOf"] = [{"required": ["tag_name"]}, {"required": ["tag_id"]}]
    options: dict[str, Schema] = {"when": CONDITION, "missing": {"const": "omit"}}
    options |= {name: _field(model, name) for name in sorted(model.OPTIONS)}
    whole = _object(OPTIONS, {kind.value: body, **options}, [kind.value])
    whole["properties"][kind.value]["description"] = ACTIONS[kind]
    return whole


def _expected(kind: Kind, model: type[ActionModel]) -> Schema:
    """An action as a test expects it: any fields, plain values."""
    names = [name for name in model.model_fields if name not in model.OPTIONS]
    body: Schema = {
        "type": ["object", "null"],
        "description": ACTIONS[kind],
        "properties": {name: {"description": FIELDS[name]} for name in names},
        "additionalProperties": False,
    }
    options = {name: _field(model, name) for name in sorted(model.OPTIONS)}
    for name in ("contact", "aliases"):
        if name in options:
            options[name] = {"type": "object"}
    exact: Schema = {"exact": {"type": "boolean", "description": TEST["exact"]}}
    return _object(OPTIONS, {kind.value: body, **options, **exact}, [kind.value])


def _field(model: type[ActionModel], name: str) -> Schema:
    """What may stand under a field or option; fields may be computed, and left empty where they are not required."""
    info = model.model_fields[name]
    annotation = info.annotation
    if name == "max_age":
        return _ref("max_age")
    if get_origin(annotation) in (typing.Union, types.UnionType):
        (annotation,) = [part for part in get_args(annotation) if part is not types.NoneType]
    computed = name not in model.OPTIONS or name in ("contact", "aliases")
    arms = _arms(annotation, computed, bool(info.metadata))
    if computed and not info.is_required():
        arms.append({"type": "null"})
    return arms[0] if len(arms) == 1 else {"anyOf": arms}


def _arms(annotation: Any, computed: bool, named: bool) -> list[Schema]:
    origin = get_origin(annotation)
    if origin is typing.Annotated:
        return _arms(get_args(annotation)[0], computed, True)
    if annotation is str:
        return [NAME if named else TEXT]
    if origin is list:
        return [{"type": "array", "items": {"anyOf": [NAME, {"type": "null"}]}}, WHOLE]
    if origin is dict:
        inner: Schema = {} if get_args(annotation)[1] is Any else NAME
        return [{"type": "object", "additionalProperties": inner}, WHOLE]
    found: list[Schema] = [{"type": "boolean"}]
    if origin is Literal:
        found = [{"enum": list(get_args(annotation))}]
    elif annotation is Lane:
        found = [LANE]
    return [*found, TEMPLATE] if computed else found


def _test(keys: tuple[str, ...]) -> Schema:
    shapes: dict[str, Schema] = {
        "name": NAME,
        "event": _ref("event"),
        "events": {"type": "array", "items": _ref("event")},
        "given": _object(
            {"identities": "Who is who: ids of one person."},
            {"identities": {"type": "array", "items": {"type": "object"}}},
        ),
        "now": {"type": ["string", "number"]},
        "expect": {"type": "array", "items": _ref("expected")},
        "expect_error": _object(
            {
                "kind": "What ends it.",
                "path": "The field that is missing.",
                "rule": "The rule that fails.",
                "message": "A part of the message.",
            },
            {name: {"enum": list(cases.ERROR_KINDS)} if name == "kind" else NAME for name in cases.ERROR_KEYS},
        ),
        "exact": {"type": "boolean", "default": False},
        "rule": NAME,
        "handler": NAME,
    }
    made = _object(TEST, {name: shapes[name] for name in keys})
    made["allOf"] = [
        {"oneOf": [{"required": ["event"]}, {"required": ["events"]}]},
        {"anyOf": [{"required": ["expect"]}, {"required": ["expect_error"]}]},
    ]
    if "rule" in keys:
        made["not"] = {"required": ["rule", "handler"]}
    return made


def _event_field(name: str) -> Schema:
    if name == "headers":
        return {"type": "object"}
    if name in ("partition", "offset"):
        return {"type": "integer", "minimum": 0}
    return {"type": "string", "minLength": 1} if name == "type" else {}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _object(descriptions: Mapping[str, str], shapes: Mapping[str, Schema], required: list[str] | None = None) -> Schema:
    properties = {}
    for name, shape in shapes.items():
        said = {"description": descriptions[name]} if name in descriptions else {}
        properties[name] = {**said, **shape}
    made: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    if required:
        made["required"] = required
    return made
