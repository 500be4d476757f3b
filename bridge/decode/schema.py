"""Schemas: what a topic's records are said to look like. Parsed here, read from files elsewhere.

A schema describes a record's value as a whole, its envelope included; with cloudevents it describes the event's data.
`.avsc` files are Avro: records are read by them. `.json` files are JSON Schema: values are compared with them.

Avro types that a file only names are looked up in files beside it, `<full name>.avsc`, as Avro's own tools do.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bridge.errors import BridgeError
from bridge.places import nearest

AVRO_TYPES = [
    "null",
    "boolean",
    "int",
    "long",
    "float",
    "double",
    "bytes",
    "string",
    "record",
    "enum",
    "array",
    "map",
    "fixed",
]
FILES_MAX = 200
"""Files that one schema may draw in: real ones draw in a handful."""
DEPTH_MAX = 100
"""Levels of a schema's own nesting. It bounds how deep a value without recursive types can nest."""


class SchemaError(BridgeError):
    """A text is not a usable schema. Line and column count from 1; 0 where it is the whole."""

    def __init__(self, message: str, line: int = 0, column: int = 0) -> None:
        self.message = message
        self.line = line
        self.column = column
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Schema:
    """A schema that was found good."""

    kind: Literal["avro", "json"]
    document: Any
    """What its text says, as plain data."""
    path: Path = Path()
    """The file, absolute: what relative references start from."""
    others: Mapping[str, Any] = field(default_factory=dict)
    """Avro: the documents in which types stand that this one only names, in the order in which they are needed.
    JSON: the documents that this one refers to, directly or not, by URI."""


@dataclass(frozen=True, slots=True)
class TopicSchemas:
    """The schemas of one topic: one for all its records, or one for each type of event, or none."""

    whole: Schema | None = None
    by_type: Mapping[str, Schema] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return self.whole is not None or bool(self.by_type)


NO_SCHEMAS = TopicSchemas()


def parse(
    text: str, path: Path, beside: Callable[[str], str | None], at_uri: Callable[[str], str | None] = lambda uri: None
) -> Schema:
    """The schema in a file's text. `beside` gives the text of a file beside it by its name, `at_uri` that of a JSON
    Schema by its URI; None where there is none.

    Raises SchemaError, and what these raise.
    """
    document = parse_json(text)
    if path.suffix.lower() == ".avsc":
        from bridge.decode.avro_reader import AvroReader  # here, since fastavro takes a while to import

        others = avro_others(document, beside)
        AvroReader(document, others.values())
        return Schema("avro", document, path, others)
    return Schema("json", _json_schema(document), path, _json_others(text, document, path, at_uri))


def _json_schema(document: Any) -> Any:
    if not isinstance(document, dict | bool):
        raise SchemaError("a JSON Schema is an object", 1, 1)
    if deeper_than(document, DEPTH_MAX):
        raise SchemaError(f"nested deeper than {DEPTH_MAX} levels", 1, 1)
    return document


def _json_others(text: str, document: Any, path: Path, at_uri: Callable[[str], str | None]) -> dict[str, Any]:
    """The documents that a JSON Schema refers to. Raises SchemaError where it, or one of them, is no good."""
    from bridge.decode.json_schema import SchemaFault, documents_of, place_in

    texts = {"": text}

    def read(uri: str) -> Any:
        other = at_uri(uri)
        if other is None:
            return None
        texts[uri] = other
        try:
            return _json_schema(parse_json(other))
        except SchemaError as error:
            raise SchemaError(f"{uri.rpartition('/')[2]}, line {error.line}: {error.message}") from None

    try:
        return documents_of(document, path.as_uri(), read)
    except SchemaFault as error:
        fault = error
    line, column = place_in(texts[fault.document], fault.way)
    if fault.document:
        name = fault.document.rpartition("/")[2]
        raise SchemaError(f"{name}, line {line}, column {column}: {fault.message}")
    raise SchemaError(fault.message, line, column)


def parse_json(text: str) -> Any:
    """Raises SchemaError with the place."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise SchemaError(f"not JSON: {error.msg}", error.lineno, error.colno) from None
    except RecursionError:
        raise SchemaError("nested too deeply") from None


def avro_others(document: Any, beside: Callable[[str], str | None]) -> dict[str, Any]:
    """The documents in which types stand that this one only names. Raises SchemaError where it is no Avro schema."""
    from fastavro.schema import SchemaParseException, UnknownType, parse_schema

    if deeper_than(document, DEPTH_MAX):
        raise SchemaError(f"nested deeper than {DEPTH_MAX} levels")
    others: dict[str, Any] = {}
    wanted: list[str] = []
    """Types under way, the innermost last: a circle of files is no schema."""
    while True:
        named: dict[str, Any] = {}
        try:
            for other in others.values():
                parse_schema(other, named_schemas=named)
            if not wanted:
                parse_schema(document, named_schemas=named)
                _need_fields(document)
                return others
            name = wanted[-1]
            text = beside(f"{name}.avsc")
            if text is None:
                close = nearest(name, AVRO_TYPES)
                where = f"did you mean {close}?" if close else f"nor is there a file {name}.avsc beside it"
                raise SchemaError(f"names the type {name}, which is not defined in it; {where}")
            try:
                other = parse_json(text)
            except SchemaError as error:
                raise SchemaError(f"{name}.avsc, line {error.line}: {error.message}") from None
            if deeper_than(other, DEPTH_MAX):
                raise SchemaError(f"{name}.avsc: nested deeper than {DEPTH_MAX} levels")
            parse_schema(other, named_schemas=named)
            _need_fields(other)
            if name not in named:
                raise SchemaError(f"the file {name}.avsc does not define the type {name}")
            others[name] = other
            wanted.pop()
        except UnknownType as error:
            name = str(error.name["type"] if isinstance(error.name, dict) else error.name)
            if name in wanted or len(others) + len(wanted) >= FILES_MAX:
                raise SchemaError(f"the files of type {name} need one another in a circle") from None
            wanted.append(name)
        except SchemaParseException as error:
            raise SchemaError(f"not an Avro schema: {one_line(error)}") from None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SchemaError(f"not an Avro schema: {one_line(error)}") from None


def _need_fields(document: Any) -> None:
    """Raises SchemaError for a record without fields: fastavro reads it as an empty one, so a typo would go unseen."""
    if isinstance(document, list):
        for arm in document:
            _need_fields(arm)
    elif isinstance(document, dict):
        kind = document["type"]
        if kind in ("record", "error"):
            if not isinstance(document.get("fields"), list):
                raise SchemaError(f"not an Avro schema: the record {document.get('name')} has no list of fields")
            for each in document["fields"]:
                _need_fields(each["type"])
        else:
            _need_fields(document.get("items") if kind == "array" else document.get("values"))


def one_line(error: Exception) -> str:
    """What a library says of a schema, short enough for a line. Schemas hold no secrets and nobody's data."""
    text = " ".join(str(error).split())
    if isinstance(error, KeyError):
        text = f"{text} is missing"
    return text if len(text) <= 200 else text[:199] + "…"


def deeper_than(document: Any, limit: int) -> bool:
    level = [document]
    for _ in range(limit):
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
        if not below:
            return False
        level = below
    return True
