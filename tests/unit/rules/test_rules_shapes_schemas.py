"""Avro schemas and JSON Schemas as shapes: which values they let through, in the words of the checker."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.rules.shapes import json_schema
from bridge.rules.shapes.avro import from_avro
from bridge.rules.shapes.json_schema import from_json_schema
from bridge.rules.shapes.shape import Object, Openness, Shape, intersection, items, names, read, words


def at(shape: Shape, *path: str | int) -> Shape:
    for step in path:
        shape = read(shape, step).shape
    return shape


def in_words(shape: Shape) -> str:
    """`any`, or the kinds, with the values where they are listed."""
    if shape.unknown:
        return "any"
    listed = shape.values
    return words(shape) + (f" of {sorted(str(value) for _, value in listed)}" if listed and len(listed) < 9 else "")


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (True, "any"),
        ({}, "any"),
        ({"description": "no more than that"}, "any"),
        ({"type": "string"}, "a text"),
        ({"type": "integer"}, "a number"),
        ({"type": ["number", "null"]}, "a number or null"),
        ({"type": "strnig"}, "any"),
        ({"enum": ["a", "b"]}, "a text of ['a', 'b']"),
        ({"enum": ["a", 1, None]}, "a text, a number or null of ['1', 'None', 'a']"),
        ({"type": "string", "enum": ["a", 1]}, "a text of ['a']"),
        ({"const": True}, "true/false of ['True']"),
        ({"type": "string", "nullable": True}, "a text or null"),
        ({"properties": {}}, "an object"),
        ({"required": ["a"]}, "an object"),
        ({"items": {"type": "string"}}, "a list"),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, "a text or null"),
        ({"type": "string", "oneOf": [{"const": "a"}, {"const": "b"}]}, "a text of ['a', 'b']"),
        ({"allOf": [{"type": ["string", "integer"]}, {"type": ["string", "null"]}]}, "a text"),
        ({"allOf": [{"type": "string"}] * 100}, "any"),
        ({"not": {"type": "string"}}, "any"),
        ({"if": {"type": "string"}, "then": {"const": "a"}}, "any"),
        ({"anyOf": [{"if": {}, "then": {}}, {"type": "string"}]}, "any"),
        ({"$ref": "#/$defs/x", "$defs": {"x": {"type": "string"}}}, "a text"),
        ({"$ref": "#/$defs/x", "type": ["string", "null"], "$defs": {"x": {"enum": ["a", None, 1]}}},
         "a text or null of ['None', 'a']"),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "$ref": "#/definitions/x", "type": "null",
          "definitions": {"x": {"type": "string"}}}, "a text"),
        ({"$ref": "#name", "$defs": {"x": {"$anchor": "name", "type": "string"}}}, "a text"),
        ({"$ref": "#/$defs/a~1b%20c", "$defs": {"a/b c": {"type": "string"}}}, "a text"),
        ({"$ref": "#/nowhere"}, "any"),
        ({"$ref": "elsewhere.json"}, "any"),
        ({"$ref": "#"}, "any"),
        ({"anyOf": [{"$ref": "#"}, {"type": "string"}]}, "any"),
        ({"enum": [str(number) for number in range(2000)]}, "any"),
    ],
)  # fmt: skip
def test_json_schema_values(schema: Any, expected: str) -> None:
    """Keywords narrow what a value may be; what is not understood lets everything through."""
    assert in_words(from_json_schema(schema)) == expected


def test_json_schema_objects() -> None:
    """Fields are there always or perhaps, and others are forbidden, not named, or expressly let through."""
    shape = from_json_schema(
        {
            "type": "object",
            "properties": {"a": {"type": "string"}, "b": {"type": "integer"}, "list": {"items": {"type": "string"}}},
            "required": ["a"],
        }
    )
    assert in_words(at(shape, "a")) == "a text"
    assert (read(shape, "a").maybe, read(shape, "b").maybe) == (False, True)
    assert read(shape, "c").undeclared
    assert in_words(items(at(shape, "list"))) == "a text"
    assert in_words(at(shape, "list", 0)) == "a text"
    closed = from_json_schema({"properties": {"a": {}}, "additionalProperties": False})
    assert read(closed, "b").shape.never
    free = from_json_schema({"type": "object"})
    assert not read(free, "b").undeclared
    mapped = from_json_schema({"type": "object", "additionalProperties": {"type": "integer"}})
    assert in_words(at(mapped, "any")) == "a number"
    patterned = from_json_schema({"patternProperties": {"^x": {"type": "string"}}, "additionalProperties": False})
    assert in_words(at(patterned, "xy")) == "a text"
    conditional = from_json_schema({"properties": {"a": {}}, "if": {}, "then": {"properties": {"b": {}}}})
    assert not read(conditional, "b").undeclared


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"a": {}}, "allOf": [{"if": {}, "then": {"properties": {"b": {}}}}]},
        {"allOf": [{"properties": {"a": {}}}], "if": {}, "then": {"properties": {"b": {}}}},
        {"properties": {"a": {}}, "anyOf": [{"$ref": "#/$defs/c"}], "$defs": {"c": {"if": {}, "else": {}}}},
        {"properties": {"a": {}}, "unevaluatedProperties": True},
        {"properties": {"a": {}}, "additionalProperties": {}},
        {"properties": {"a": {}}, "allOf": [{"additionalProperties": True, "properties": {"c": {}}}]},
    ],
)
def test_fields_that_are_named_where_nobody_looks(schema: Any) -> None:
    """Where a condition may name further fields, or the schema lets more through, none is called missing."""
    shape = from_json_schema(schema)
    assert not read(shape, "b").undeclared
    assert in_words(at(shape, "b")) == "any"


def test_json_schema_objects_together() -> None:
    """allOf joins fields; what one part forbids the other cannot have; unevaluatedProperties closes all of it."""
    parts = [{"properties": {"a": {"type": "string"}}}, {"properties": {"b": {"type": "integer"}}, "required": ["b"]}]
    joined = from_json_schema({"allOf": parts})
    assert names(joined) == ["a", "b"]
    assert read(joined, "c").undeclared
    assert not read(joined, "b").maybe
    assert read(from_json_schema({"allOf": parts, "unevaluatedProperties": False}), "c").shape.never
    forbidden = from_json_schema({"allOf": [{**parts[0], "additionalProperties": False}, parts[1]]})
    assert forbidden.never
    extended = from_json_schema(
        {"$ref": "#/$defs/base", "properties": {"c": {"type": "null"}}, "$defs": {"base": parts[0]}}
    )
    assert names(extended) == ["a", "c"]


def test_json_schema_in_several_files() -> None:
    """References go to other documents by their URI, or by the $id that they give themselves."""
    others = {
        "file:///s/common.json": {"$defs": {"money": {"type": "integer"}}},
        "https://acme.example/s/plan.json": {"enum": ["free", "pro"]},
    }
    shape = from_json_schema(
        {"properties": {"amount": {"$ref": "common.json#/$defs/money"}, "gone": {"$ref": "gone.json"}}},
        "file:///s/event.json",
        others,
    )
    assert in_words(at(shape, "amount")) == "a number"
    assert in_words(at(shape, "gone")) == "any"
    named = from_json_schema(
        {"$id": "https://acme.example/s/event.json", "properties": {"plan": {"$ref": "plan.json"}}}, "file:///x", others
    )
    assert in_words(at(named, "plan")) == "a text of ['free', 'pro']"


def test_recursive_schemas() -> None:
    """A type that holds itself is looked at as deep as a path goes."""
    tree = {"properties": {"name": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#"}}}}
    shape = from_json_schema({**tree, "required": ["name"]})
    assert in_words(at(shape, "children", 0, "children", 0, "name")) == "a text"
    assert read(at(shape, "children", 0), "nmae").undeclared
    node = {"type": "record", "name": "Node", "fields": [
        {"name": "value", "type": "string"}, {"name": "next", "type": ["null", "Node"]}]}  # fmt: skip
    assert in_words(at(from_avro(node), "next", "next", "value")) == "a text"


def test_references_that_double_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A schema that refers twice at each of many steps costs bounded work, and then allows anything."""
    combined = 0

    def counted(left: Shape, right: Shape) -> Shape:
        nonlocal combined
        combined += 1
        assert combined < 10 * json_schema.CONVERSIONS_MAX
        return intersection(left, right)

    monkeypatch.setattr(json_schema, "intersection", counted)
    defs: dict[str, Any] = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(50)}
    defs["d50"] = {"type": "string"}
    assert from_json_schema({"$ref": "#/$defs/d0", "$defs": defs}).unknown


def test_a_schema_that_combines_too_much_allows_anything() -> None:
    """Thousands of parts for one field are no error of the checker."""
    part = {"properties": {"a": {"type": "string"}}}
    defs: dict[str, Any] = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}, *[dict(part)] * 59]} for n in range(50)}
    shape = from_json_schema({"$ref": "#/$defs/d0", "$defs": {**defs, "d50": part}})
    assert in_words(at(shape, "a")) in ("any", "a text")


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ("null", "null of ['None']"),
        ("boolean", "true/false"),
        ("long", "a number"),
        ("double", "a number"),
        ("string", "a text"),
        ("bytes", "a text"),
        (["null", "string"], "a text or null"),
        ({"type": "string"}, "a text"),
        ({"type": {"type": "string"}}, "a text"),
        ({"type": "enum", "name": "E", "symbols": ["A", "B"]}, "a text of ['A', 'B']"),
        ({"type": "fixed", "name": "F", "size": 2}, "a text"),
        ({"type": "array", "items": "int"}, "a list"),
        ({"type": "map", "values": "int"}, "an object"),
        ({"type": "long", "logicalType": "timestamp-millis"}, "a text"),
        ({"type": "long", "logicalType": "local-timestamp-micros"}, "a text"),
        ({"type": "int", "logicalType": "date"}, "a text"),
        ({"type": "int", "logicalType": "time-millis"}, "a text"),
        ({"type": "long", "logicalType": "time-micros"}, "a text"),
        ({"type": "long", "logicalType": "date"}, "a number"),
        ({"type": "int", "logicalType": "timestamp-millis"}, "a number"),
        ({"type": "bytes", "logicalType": "decimal", "precision": 4}, "a text"),
        ({"type": "string", "logicalType": "uuid"}, "a text"),
        ({"type": "long", "connect.name": "io.debezium.time.MicroTimestamp"}, "any"),
        ("Unknown", "any"),
        (3, "any"),
    ],
)
def test_avro_values(schema: Any, expected: str) -> None:
    """Avro's types, as its decoder writes their values."""
    assert in_words(from_avro(schema)) == expected


def test_avro_records() -> None:
    """Every field of a record is there, and no other; named types are found by their full name and by namespace."""
    schema = {
        "type": "record",
        "name": "Changed",
        "namespace": "acme",
        "fields": [
            {"name": "plan", "type": {"type": "enum", "name": "Plan", "symbols": ["FREE", "PRO"]}},
            {"name": "before", "type": ["null", "Plan"]},
            {"name": "same", "type": "acme.Plan"},
            {"name": "other", "type": "other.Money"},
            {"name": "tags", "type": {"type": "array", "items": "string"}},
            {"name": "map", "type": {"type": "map", "values": "long"}},
        ],
    }
    money = {"type": "record", "name": "other.Money", "fields": [{"name": "amount", "type": "long"}]}
    shape = from_avro(schema, {"other.Money": money})
    only = shape.alternatives[0]
    assert isinstance(only, Object)
    assert only.openness is Openness.CLOSED
    assert in_words(at(shape, "plan")) == "a text of ['FREE', 'PRO']"
    assert in_words(at(shape, "before")) == "a text or null of ['FREE', 'None', 'PRO']"
    assert in_words(at(shape, "same")) == in_words(at(shape, "plan"))
    assert in_words(at(shape, "other", "amount")) == "a number"
    assert in_words(items(at(shape, "tags"))) == "a text"
    assert in_words(at(shape, "map", "any")) == "a number"
    assert read(shape, "nope").shape.never
    assert not read(shape, "plan").maybe
