"""Avro schemas to a Shape: of what the decoder makes of their values (bridge/decode/avro_values.py).

A float or a double is a number here, although one that is no number (NaN, infinity) arrives as null: warning of that in
every rule would help nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bridge.rules.shapes.shape import (
    ANY,
    BOOL_SHAPE,
    NULL_SHAPE,
    NUMBER_SHAPE,
    TEXT_SHAPE,
    Field,
    Object,
    Openness,
    Shape,
    list_of,
    text_in,
    union,
)

DEPTH_MAX = 200
"""Types inside one another that are looked through for names; what is deeper is ANY."""

_PLAIN: dict[str, Shape] = {
    "null": NULL_SHAPE,
    "boolean": BOOL_SHAPE,
    "int": NUMBER_SHAPE,
    "long": NUMBER_SHAPE,
    "float": NUMBER_SHAPE,
    "double": NUMBER_SHAPE,
    "bytes": TEXT_SHAPE,
    "string": TEXT_SHAPE,
}


def from_avro(schema: Any, named: Mapping[str, Any] | None = None) -> Shape:
    """What values of the schema look like to rules; `named` are types of other files by their full names."""
    names: dict[str, tuple[Any, str]] = {name: (each, name.rpartition(".")[0]) for name, each in (named or {}).items()}
    for each in list(names.values()):
        _collect(each[0], "", names, 0)
    _collect(schema, "", names, 0)
    return _Converter(names).convert(schema, "", 0)


def _collect(schema: Any, space: str, names: dict[str, tuple[Any, str]], depth: int) -> None:
    """The named types by their full names, each with the namespace that holds inside it."""
    if depth > DEPTH_MAX:
        return
    if isinstance(schema, list):
        for each in schema:
            _collect(each, space, names, depth + 1)
    elif isinstance(schema, dict):
        if isinstance(schema.get("name"), str) and schema.get("type") in _NAMED:
            full = _full_name(schema["name"], schema.get("namespace"), space)
            names[full] = (schema, space)
            space = full.rpartition(".")[0]
        for word in ("items", "values", "type"):
            if isinstance(schema.get(word), (dict, list)):
                _collect(schema[word], space, names, depth + 1)
        for each in _fields(schema):
            _collect(each.get("type"), space, names, depth + 1)


_NAMED = ("record", "error", "enum", "fixed")


def _full_name(name: str, namespace: Any, space: str) -> str:
    if "." in name:
        return name
    space = namespace if isinstance(namespace, str) else space
    return f"{space}.{name}" if space else name


def _fields(schema: dict[str, Any]) -> list[dict[str, Any]]:
    found = schema.get("fields")
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


class _Converter:
    def __init__(self, names: Mapping[str, tuple[Any, str]]) -> None:
        self._names = names
        self._made: dict[str, Shape] = {}

    def convert(self, schema: Any, space: str, depth: int) -> Shape:
        if depth > DEPTH_MAX:
            return ANY
        if isinstance(schema, list):
            return union(self.convert(each, space, depth + 1) for each in schema)
        if isinstance(schema, str):
            return _PLAIN[schema] if schema in _PLAIN else self._named(schema, space)
        if not isinstance(schema, dict):
            return ANY
        kind = schema.get("type")
        if kind in _NAMED:
            name = _full_name(str(schema.get("name", "")), schema.get("namespace"), space)
            if name not in self._made:
                self._made[name] = self._define(schema, name.rpartition(".")[0])
            return self._made[name]
        if kind == "array":
            return list_of(self._later(schema.get("items"), space))
        if kind == "map":
            return Shape([Object({}, Openness.OPEN, self._later(schema.get("values"), space))])
        logical = schema.get("logicalType")
        if isinstance(logical, str) and isinstance(kind, str) and _is_text(kind, logical):
            return TEXT_SHAPE
        if str(schema.get("connect.name", "")).startswith(("io.debezium.", "org.apache.kafka.connect.data.")):
            return ANY  # encodings of Kafka Connect's
        return self.convert(kind, space, depth + 1)

    def _define(self, schema: dict[str, Any], space: str) -> Shape:
        if schema["type"] == "enum":
            symbols = schema.get("symbols")
            return text_in(*map(str, symbols)) if isinstance(symbols, list) and symbols else TEXT_SHAPE
        if schema["type"] == "fixed":
            return TEXT_SHAPE
        fields = {str(each.get("name")): Field(self._later(each.get("type"), space)) for each in _fields(schema)}
        return Shape([Object(fields)])

    def _named(self, name: str, space: str) -> Shape:
        for full in (name,) if "." in name or not space else (f"{space}.{name}", name):
            if full in self._names:
                schema, around = self._names[full]
                return self.convert(schema, around, 0) if isinstance(schema, dict) else ANY
        return ANY

    def _later(self, schema: Any, space: str) -> Callable[[], Shape]:
        return lambda: self.convert(schema, space, 0)


_TIMES = {"int": ("date", "time-millis"), "long": ("time-micros",)}


def _is_text(kind: str, logical: str) -> bool:
    """Whether the decoder writes this logical type as text: all that are Avro's own, where they stand on their type."""
    if kind == "long" and logical.endswith(("timestamp-millis", "timestamp-micros", "timestamp-nanos")):
        return True
    return logical in _TIMES.get(kind, ())  # bytes, fixed and text are text in any case


def branches(schema: Any) -> list[tuple[str, Any]]:
    """The records that a value may be, each with its name without the namespace; others have none."""
    found = schema if isinstance(schema, list) else [schema]
    return [(str(_get(each, "name") or "").rpartition(".")[2], each) for each in found]


def _get(schema: Any, word: str) -> Any:
    return schema.get(word) if isinstance(schema, dict) else None
