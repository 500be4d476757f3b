"""The catalogue as values: what every output is made from.

A field has a type; a type is one of SCALARS, or of the catalogue's own `types`: an enum or an object. There is nothing
else on purpose: what Avro and JSON Schema both say in one way needs no table of exceptions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

SCALARS = ("text", "id", "email", "url", "country", "currency", "time", "boolean", "integer", "number", "money")
_FIELD_NAME = re.compile(r"[a-z][a-z0-9_]*")
_EVENT_TYPE = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_KEYS = ("version", "namespace", "topic", "envelope", "types", "groups", "themes", "events")


class CatalogueError(ValueError):
    """The catalogue cannot be right; the text begins with the place."""


@dataclass(frozen=True, slots=True)
class Type:
    """What a value may be."""

    name: str
    """One of SCALARS, or the catalogue's own."""
    about: str = ""
    symbols: tuple[str, ...] = ()
    """Of an enum."""
    fields: tuple[Field, ...] = ()
    """Of an object."""


@dataclass(frozen=True, slots=True)
class Field:
    name: str
    type: Type
    optional: bool
    """May be absent or null, which mean the same."""
    about: str
    example: Any = None


@dataclass(frozen=True, slots=True)
class Event:
    type: str
    theme: str
    about: str
    at: str
    """When the example happened."""
    data: tuple[Field, ...]

    @property
    def record(self) -> str:
        """The name of its Avro record, e.g. PlanChanged."""
        return pascal(self.type)


@dataclass(frozen=True, slots=True)
class Catalogue:
    version: str
    namespace: str
    topic: str
    themes: Mapping[str, str]
    envelope: Mapping[str, str]
    """What id, type, time and data are."""
    events: tuple[Event, ...] = field(default=())


def pascal(name: str) -> str:
    """`password_reset.requested` → `PasswordResetRequested`."""
    return "".join(part.capitalize() for part in re.split(r"[._]", name))


def load(path: Path) -> Catalogue:
    """Reads the catalogue. Raises CatalogueError."""
    try:
        document = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except YAMLError as error:
        raise CatalogueError(f"{path.name}: {' '.join(str(error).split())}") from None
    return parse(document)


def parse(document: Mapping[str, Any]) -> Catalogue:
    """The catalogue of a YAML document. Raises CatalogueError."""
    _known("the catalogue", document, _KEYS, _KEYS)
    for section in _KEYS[3:]:
        if not isinstance(document[section], Mapping):
            raise CatalogueError(f"{section}: a mapping is due")
    if not _VERSION.fullmatch(str(document["version"])):
        raise CatalogueError("version: write it like 1.0.0")
    types = {name: Type(name) for name in SCALARS}
    for name, entry in document["types"].items():
        where = f"types.{name}"
        if name in types:
            raise CatalogueError(f"{where}: there is such a type already")
        types[name] = _type(where, name, entry, types)
    groups = {name: tuple(_fields(f"groups.{name}", entry, types)) for name, entry in document["groups"].items()}
    envelope = {name: str(entry["about"]) for name, entry in document["envelope"].items()}
    if list(envelope) != ["id", "type", "time", "data"]:
        raise CatalogueError("envelope: it is id, type, time, data")
    events = tuple(_event(type, entry, types, groups, document["themes"]) for type, entry in document["events"].items())
    _unique("events", [event.record for event in events])
    for theme in document["themes"]:
        if not any(event.theme == theme for event in events):
            raise CatalogueError(f"themes.{theme}: no event has it")
    return Catalogue(
        document["version"], document["namespace"], document["topic"], document["themes"], envelope, events
    )


def _type(where: str, name: str, entry: Mapping[str, Any], types: Mapping[str, Type]) -> Type:
    _known(where, entry, ("about",), ("about", "enum", "fields"))
    if ("enum" in entry) == ("fields" in entry):
        raise CatalogueError(f"{where}: give either enum or fields")
    if "fields" in entry:
        return Type(name, entry["about"], fields=tuple(_fields(f"{where}.fields", entry["fields"], types)))
    symbols = tuple(entry["enum"])
    for symbol in symbols:
        if not isinstance(symbol, str) or not _FIELD_NAME.fullmatch(symbol):
            raise CatalogueError(f"{where}: {symbol!r} is no symbol; write it like past_due")
    _unique(where, symbols)
    return Type(name, entry["about"], symbols=symbols)


def _event(
    type: str,
    entry: Mapping[str, Any],
    types: Mapping[str, Type],
    groups: Mapping[str, tuple[Field, ...]],
    themes: Mapping[str, str],
) -> Event:
    where = f"events.{type}"
    if not _EVENT_TYPE.fullmatch(type):
        raise CatalogueError(f"{where}: write the type like plan.changed")
    _known(where, entry, ("theme", "about", "at", "with"), ("theme", "about", "at", "with", "fields", "examples"))
    if entry["theme"] not in themes:
        raise CatalogueError(f"{where}.theme: there is no theme {entry['theme']}")
    data: list[Field] = []
    for group in entry["with"]:
        if group not in groups:
            raise CatalogueError(f"{where}.with: there is no group {group}")
        data += groups[group]
    data += _fields(f"{where}.fields", entry.get("fields") or {}, types)
    others = dict(entry.get("examples", {}))
    data = [
        Field(each.name, each.type, each.optional, each.about, others.pop(each.name, each.example)) for each in data
    ]
    if others:
        raise CatalogueError(f"{where}.examples: there is no field {next(iter(others))}")
    _unique(where, [each.name for each in data])
    if any(each.type.name == "money" for each in data) and not any(each.type.name == "currency" for each in data):
        raise CatalogueError(f"{where}: an amount needs a currency")
    return Event(type, entry["theme"], entry["about"], entry["at"], tuple(data))


def _fields(where: str, entries: Mapping[str, Any], types: Mapping[str, Type]) -> Iterator[Field]:
    for written, entry in entries.items():
        name = written.removesuffix("?")
        at = f"{where}.{name}"
        if not _FIELD_NAME.fullmatch(name):
            raise CatalogueError(f"{at}: write the name like trial_ends_at")
        _known(at, entry, ("type", "about"), ("type", "about", "example"))
        if entry["type"] not in types:
            raise CatalogueError(f"{at}: there is no type {entry['type']}")
        type = types[entry["type"]]
        if (type.name == "money") != name.endswith("_minor"):
            raise CatalogueError(f"{at}: a field of money, and no other, ends with _minor")
        if ("example" in entry) == bool(type.fields):
            raise CatalogueError(f"{at}: an example is due, except of an object, whose fields have theirs")
        yield Field(name, type, written.endswith("?"), entry["about"], entry.get("example"))


def _known(where: str, entry: Any, required: tuple[str, ...], known: tuple[str, ...]) -> None:
    if not isinstance(entry, Mapping):
        raise CatalogueError(f"{where}: a mapping is due")
    for name in required:
        if name not in entry:
            raise CatalogueError(f"{where}: there is no {name}")
    for name in entry:
        if name not in known:
            raise CatalogueError(f"{where}: there is no key {name}; known are {', '.join(known)}")


def _unique(where: str, names: tuple[str, ...] | list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise CatalogueError(f"{where}: {name} stands twice")


# Examples ------------------------------------------------------------------------------------------------------------


def example(catalogue: Catalogue, event: Event, *, only_required: bool = False) -> dict[str, Any]:
    """The example of an event; `only_required` leaves out all that may be absent."""
    number = catalogue.events.index(event) + 1
    data = _example(event.data, only_required)
    return {"id": f"evt_{number:04d}", "type": event.type, "time": event.at, "data": data}


def _example(fields: tuple[Field, ...], only_required: bool) -> dict[str, Any]:
    return {
        each.name: _example(each.type.fields, only_required) if each.type.fields else each.example
        for each in fields
        if not (only_required and each.optional)
    }
