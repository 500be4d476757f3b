"""Avro schemas: the whole value of a record, envelope included.

An optional field is a union with null whose default is null. A type of the catalogue's own is defined where it stands
first in a schema and named from then on. `type` has the event's type as its default, so that generated classes fill it
in by themselves.
"""

from __future__ import annotations

from typing import Any

from schemas.generate.catalogue import Catalogue, Event, Field, Type, pascal

_SCALARS: dict[str, Any] = {
    "text": "string",
    "id": "string",
    "email": "string",
    "url": "string",
    "country": "string",
    "currency": "string",
    "time": {"type": "long", "logicalType": "timestamp-millis"},
    "boolean": "boolean",
    "integer": "long",
    "number": "double",
    "money": "long",
}


def schema(catalogue: Catalogue, event: Event) -> dict[str, Any]:
    """The Avro schema of one event."""
    return _event(catalogue, event, set())


def for_topic(catalogue: Catalogue) -> list[dict[str, Any]]:
    """One Avro schema for a topic that carries every type: a union of all events."""
    defined: set[str] = set()
    return [_event(catalogue, event, defined) for event in catalogue.events]


def _event(catalogue: Catalogue, event: Event, defined: set[str]) -> dict[str, Any]:
    """`defined`: the names that the schema around has defined already."""
    about = catalogue.envelope
    data = _record(f"{event.record}Data", about["data"], event.data, defined)
    return {
        "type": "record",
        "name": event.record,
        "namespace": catalogue.namespace,
        "doc": event.about,
        "fields": [
            {"name": "id", "type": "string", "doc": about["id"]},
            {"name": "type", "type": "string", "default": event.type, "doc": about["type"]},
            {"name": "time", "type": _SCALARS["time"], "doc": about["time"]},
            {"name": "data", "type": data, "doc": about["data"]},
        ],
    }


def _record(name: str, about: str, fields: tuple[Field, ...], defined: set[str]) -> dict[str, Any]:
    defined.add(name)
    return {"type": "record", "name": name, "doc": about, "fields": [_field(each, defined) for each in fields]}


def _field(each: Field, defined: set[str]) -> dict[str, Any]:
    made = _type(each.type, defined)
    if each.optional:
        return {"name": each.name, "type": ["null", made], "default": None, "doc": each.about}
    return {"name": each.name, "type": made, "doc": each.about}


def _type(type: Type, defined: set[str]) -> Any:
    if type.name in _SCALARS:
        return _SCALARS[type.name]
    name = pascal(type.name)
    if name in defined:
        return name
    if type.fields:
        return _record(name, type.about, type.fields, defined)
    defined.add(name)
    return {"type": "enum", "name": name, "doc": type.about, "symbols": list(type.symbols)}
