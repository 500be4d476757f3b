"""JSON Schema, draft 7: what AsyncAPI, ajv and schema registries take without being told.

An optional field may be absent or null. Objects are open: a producer may send more than this version knows, so that a
new optional field needs no release of its readers first.
"""

from __future__ import annotations

from typing import Any

from schemas.generate.catalogue import Catalogue, Event, Field, Type, example

DRAFT = "http://json-schema.org/draft-07/schema#"

_SCALARS: dict[str, dict[str, Any]] = {
    "text": {"type": "string"},
    "id": {"type": "string", "minLength": 1},
    "email": {"type": "string", "format": "email", "minLength": 3},
    "url": {"type": "string", "format": "uri"},
    "country": {"type": "string", "pattern": "^[A-Z]{2}$"},
    "currency": {"type": "string", "pattern": "^[A-Z]{3}$"},
    "time": {"type": "string", "format": "date-time"},
    "boolean": {"type": "boolean"},
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "money": {"type": "integer"},
}


def schema(catalogue: Catalogue, event: Event) -> dict[str, Any]:
    """The JSON Schema of one event: the whole value of a record, envelope included."""
    return {"$schema": DRAFT, **_event(catalogue, event)}


def for_topic(catalogue: Catalogue) -> dict[str, Any]:
    """One JSON Schema for a topic that carries every type; `type` tells which of them a value must satisfy."""
    return {
        "$schema": DRAFT,
        "title": "LifecycleEvent",
        "description": f"Any event of the topic {catalogue.topic}.",
        "type": "object",
        "properties": {"type": {"enum": [event.type for event in catalogue.events]}},
        "required": ["type"],
        "oneOf": [{"$ref": f"#/definitions/{event.record}"} for event in catalogue.events],
        "definitions": {event.record: _event(catalogue, event) for event in catalogue.events},
    }


def _event(catalogue: Catalogue, event: Event) -> dict[str, Any]:
    about = catalogue.envelope
    return {
        "title": event.record,
        "description": event.about,
        "type": "object",
        "properties": {
            "id": {**_SCALARS["id"], "description": about["id"]},
            "type": {"const": event.type, "description": about["type"]},
            "time": {**_SCALARS["time"], "description": about["time"]},
            "data": {**_object(event.data), "description": about["data"]},
        },
        "required": ["id", "type", "time", "data"],
        "examples": [example(catalogue, event)],
    }


def _object(fields: tuple[Field, ...]) -> dict[str, Any]:
    made: dict[str, Any] = {"type": "object", "properties": {each.name: _field(each) for each in fields}}
    if required := [each.name for each in fields if not each.optional]:
        made["required"] = required
    return made


def _field(each: Field) -> dict[str, Any]:
    made = _type(each.type)
    if each.optional:
        made["type"] = [made["type"], "null"]
        if "enum" in made:
            made["enum"] = [*made["enum"], None]
    made["description"] = each.about
    return made


def _type(type: Type) -> dict[str, Any]:
    if type.name in _SCALARS:
        return dict(_SCALARS[type.name])
    return _object(type.fields) if type.fields else {"type": "string", "enum": list(type.symbols)}
