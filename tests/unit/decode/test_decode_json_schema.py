"""Events are compared with JSON Schemas: what does not fit is told by its place, never its value."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bridge.config import Topic
from bridge.decode import Decoder, TopicSchemas, decoder_for
from bridge.errors import DecodeError, Problem
from bridge.model import Event, Record
from bridge.places import Place
from bridge.schema_files import load_schemas

DRAFT_07 = "http://json-schema.org/draft-07/schema#"
SECRET = "ada@example.com"
USER = {
    "type": "object",
    "required": ["email"],
    "properties": {
        "email": {"type": "string", "format": "email", "maxLength": 50},
        "plan": {"enum": ["free", "pro"]},
        "signed_up": {"type": "string", "format": "date-time"},
        "age": {"type": ["integer", "null"], "minimum": 0},
        "tags": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]+$"}, "uniqueItems": True},
        "company": {"anyOf": [{"$ref": "#/$defs/company"}, {"type": "null"}]},
        "manager": {"$ref": "#"},
        "scores": {"type": "object", "additionalProperties": {"type": "number"}},
        "pair": {"prefixItems": [{"type": "string"}, {"type": "integer"}], "items": {"type": "boolean"}},
        "contact": {"oneOf": [{"required": ["phone"]}, {"required": ["fax"]}]},
        "shape": {"oneOf": [{"$ref": "#/$defs/circle"}, {"$ref": "#/$defs/square"}, {"type": "null"}, False]},
        "a/b%~": {"$ref": "#/$defs/c~1d%25~0"},
        "never": False,
        "even": {"not": {"const": 1}},
        "by_anchor": {"$ref": "#whole"},
    },
    "patternProperties": {"^x_": {"type": "integer"}},
    "if": {"properties": {"plan": {"const": "pro"}}, "required": ["plan"]},
    "then": {"properties": {"seats": {"minimum": 1}}},
    "else": {"properties": {"seats": False}},
    "$defs": {
        "company": {
            "properties": {"name": {"type": "string"}, "size": {"multipleOf": 1}},
            "additionalProperties": False,
            "allOf": [{"dependentRequired": {"size": ["name"]}}],
        },
        "circle": {"properties": {"kind": {"const": "circle"}, "radius": {"type": "number"}}, "required": ["kind"]},
        "square": {"properties": {"kind": {"enum": ["square"]}}, "required": ["kind", "side"]},
        "c/d%~": {"items": {"type": "integer"}},
        "whole": {"$anchor": "whole", "type": "integer"},
    },
}


def setting(*route: str | int) -> Place:
    return Place("bridge.yaml", len(route), 1)


def schemas(folder: Path, files: dict[str, Any], topic: Any = "a.json") -> tuple[TopicSchemas, list[Problem]]:
    for name, document in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(document if isinstance(document, str) else json.dumps(document))
    found, problems = load_schemas({"t": Topic.model_validate({"schema": topic})}, folder, setting)
    return found["t"], problems


def decoder(folder: Path, files: dict[str, Any], format: str = "json", topic: Any = "a.json") -> Decoder:
    found, problems = schemas(folder, files, topic)
    assert not problems
    return decoder_for(format, schemas=found)


def mistake(folder: Path, files: dict[str, Any]) -> Problem:
    _, (problem,) = schemas(folder, files)
    return problem


def record(value: Any, type: str = "user.signed_up") -> Record:
    return Record("t", 0, 1, 1_795_373_100_000, None, json.dumps({"type": type, "data": value}).encode())


def data_schema(schema: Any) -> Any:
    """A schema of the whole value that says this of `data`; local references are written for a document of its own."""
    return {"properties": {"data": {"$ref": "data.json"}}} if schema else schema


def refusal(made: Decoder, value: Any) -> str:
    with pytest.raises(DecodeError) as caught:
        made.decode(record(value))
    assert SECRET not in caught.value.message
    assert caught.value.__context__ is None, "what an engine says of a value must not travel along"
    return caught.value.message


CASES: list[tuple[Any, str]] = [
    ({}, "value.data.email is missing, and the schema requires it"),
    ([], "value.data is an array; the schema wants object (type)"),
    (None, "value.data is null; the schema wants object (type)"),
    ({"email": 7}, "value.data.email is an integer; the schema wants string (type)"),
    ({"email": "ada"}, "value.data.email does not fit the schema (format)"),
    ({"email": f"{SECRET}{'x' * 50}"}, "value.data.email does not fit the schema (maxLength)"),
    ({"plan": SECRET}, "value.data.plan does not fit the schema (enum)"),
    ({"signed_up": "22.11.2026"}, "value.data.signed_up does not fit the schema (format)"),
    ({"age": "7"}, "value.data.age is a string; the schema wants integer or null (type)"),
    ({"age": -1}, "value.data.age does not fit the schema (minimum)"),
    ({"tags": ["a", SECRET]}, "value.data.tags[1] does not fit the schema (pattern)"),
    ({"tags": ["a", "a"]}, "value.data.tags does not fit the schema (uniqueItems)"),
    ({"company": {"name": 1}}, "value.data.company.name is an integer; the schema wants string (type)"),
    (
        {"company": {"nmae": 1}},
        "value.data.company.nmae is a field that the schema does not allow (additionalProperties)",
    ),
    (
        {"company": {SECRET: 1}},
        "value.data.company[…] is a field that the schema does not allow (additionalProperties)",
    ),
    ({"company": {"size": 1}}, "value.data.company does not fit the schema (dependentRequired)"),
    ({"manager": {"email": SECRET, "manager": {}}}, "value.data.manager.manager.email is missing, and the schema"),
    ({"scores": {"a": 1, SECRET: "1"}}, "value.data.scores[…] is a string; the schema wants number (type)"),
    ({"pair": ["a", "b"]}, "value.data.pair[1] is a string; the schema wants integer (type)"),
    ({"pair": ["a", 1, True, 0]}, "value.data.pair[3] is an integer; the schema wants boolean (type)"),
    ({"contact": {}}, "value.data.contact does not fit the schema (oneOf)"),
    ({"contact": {"phone": 1, "fax": 1}}, "value.data.contact does not fit the schema (oneOf)"),
    ({"shape": {"kind": "circle", "radius": "1"}}, "value.data.shape.radius is a string; the schema wants number"),
    ({"shape": {"kind": "square", "radius": "1"}}, "value.data.shape.side is missing, and the schema requires it"),
    ({"shape": {"kind": "cube"}}, "value.data.shape does not fit the schema (oneOf)"),
    ({"shape": {}}, "value.data.shape does not fit the schema (oneOf)"),
    ({"a/b%~": [1, "1"]}, "value.data[…][1] is a string; the schema wants integer (type)"),
    ({"x_size": "1"}, "value.data.x_size is a string; the schema wants integer (type)"),
    ({"plan": "pro", "seats": 0}, "value.data.seats does not fit the schema (minimum)"),
    ({"plan": "free", "seats": 1}, "value.data.seats does not fit the schema (false)"),
    ({"never": 1}, "value.data.never does not fit the schema (false)"),
    ({"even": 1}, "value.data.even does not fit the schema (not)"),
    ({"by_anchor": "1"}, "value.data.by_anchor does not fit the schema ($ref)"),
]


@pytest.mark.parametrize(("value", "says"), CASES, ids=[says[11:60] for _, says in CASES])
def test_the_path_and_the_keyword_are_told_and_no_value(tmp_path: Path, value: Any, says: str) -> None:
    made = decoder(tmp_path, {"a.json": data_schema(USER), "data.json": USER})
    if isinstance(value, dict) and value and "email" not in value:
        value = {"email": SECRET, **value}
    assert refusal(made, value).startswith(says)


def test_what_fits_passes_unchanged(tmp_path: Path) -> None:
    """Other fields than the schema names are none of its business, unless it says so."""
    made = decoder(tmp_path, {"a.json": data_schema(USER), "data.json": USER})
    user = {"email": SECRET, "plan": "pro", "age": None, "company": None, "tags": [], "pair": ["a", 1, True], "x": {}}
    event = made.decode(record(user))
    assert event is not None and event.data == user
    assert made.decode(record(user)._replace(value=None)) is None


def test_draft_07(tmp_path: Path) -> None:
    """Beside `$ref` nothing counts there; lists of items are tuples."""
    schema = {
        "$schema": DRAFT_07,
        "definitions": {"plan": {"enum": ["free"]}},
        "properties": {
            "plan": {"$ref": "#/definitions/plan", "type": "integer"},
            "pair": {"items": [{"type": "string"}], "additionalItems": {"type": "integer"}},
        },
    }
    made = decoder(tmp_path, {"a.json": data_schema(schema), "data.json": schema})
    assert made.decode(record({"plan": "free", "pair": ["a", 1]})) is not None
    assert refusal(made, {"plan": 7}) == "value.data.plan does not fit the schema (enum)"
    assert refusal(made, {"pair": [1]}).startswith("value.data.pair[0] is an integer")
    assert refusal(made, {"pair": ["a", "b"]}).startswith("value.data.pair[1] is a string")


def test_what_is_compared_depends_on_the_format(tmp_path: Path) -> None:
    """json: the value as a whole; cloudevents: the data; debezium: the payload."""
    files = {"a.json": {"required": ["email"]}}
    assert decoder(tmp_path, files).decode(Record("t", 0, 1, 1, None, b'{"type": "a", "email": 1}')) is not None
    event = {"specversion": "1.0", "id": "1", "source": "/", "type": "a"}
    cloud = decoder(tmp_path, files, "cloudevents")
    for data, fits in (({"email": 1}, True), ({}, False)):
        made = Record("t", 0, 1, 1, None, json.dumps(event | {"data": data}).encode())
        if fits:
            assert cloud.decode(made) is not None
        else:
            with pytest.raises(DecodeError, match=r"^data.email is missing"):
                cloud.decode(made)
    debezium = decoder(tmp_path, {"a.json": {"properties": {"after": {"required": ["email"]}}}}, "debezium")
    change = {"op": "c", "after": {"id": 1}, "source": {"table": "users", "ts_ms": 1}}
    with pytest.raises(DecodeError, match=r"^data.after.email is missing"):
        debezium.decode(Record("t", 0, 1, 1, None, json.dumps({"schema": {}, "payload": change}).encode()))


def test_a_schema_for_each_type(tmp_path: Path) -> None:
    """Events of other types are not compared with anything."""
    files = {"a.json": False, "b.json": True}
    made = decoder(tmp_path, files, topic={"user.deleted": "a.json", "user.updated": "b.json"})
    for type in ("user.updated", "user.signed_up"):
        assert isinstance(made.decode(record({}, type)), Event)
    with pytest.raises(DecodeError, match=r"^value does not fit the schema \(false\)"):
        made.decode(record({}, "user.deleted"))


def test_references_between_files(tmp_path: Path) -> None:
    """By path, from where the file is; by `$id`, where files of the folder have one; in circles; and bundled."""
    made = decoder(
        tmp_path,
        {
            "a.json": {"properties": {"data": {"$ref": "sub/b.json#/$defs/user"}}},
            "sub/b.json": {"$defs": {"user": {"properties": {"email": {"$ref": "../c%20d.json"}}}}},
            "c d.json": {"type": "string", "$defs": {"back": {"$ref": "a.json"}}},
        },
    )
    assert refusal(made, {"email": 7}).startswith("value.data.email is an integer")
    made = decoder(
        tmp_path,
        {
            "a.json": {"$id": "https://example.com/s/a.json", "properties": {"data": {"$ref": "other.json#"}}},
            "b.json": {"$id": "https://example.com/s/other.json", "required": ["email"]},
            "broken.json": "{",
        },
    )
    assert refusal(made, {}).startswith("value.data.email is missing")
    text = {
        "$id": "user.json",
        "properties": {"email": {"$ref": "#/$defs/text"}},
        "$defs": {"text": {"type": "string"}},
    }
    bundled = {
        "$id": "https://example.com/s/a.json",
        "properties": {"data": {"$ref": "user.json"}},
        "$defs": {"u": text},
    }
    said = refusal(decoder(tmp_path, {"a.json": bundled}), {"email": 1})
    assert said == "value.data does not fit the schema ($ref)"


@pytest.mark.parametrize(
    ("files", "place", "says"),
    [
        ({"a.json": "[]"}, (1, 1), "a JSON Schema is an object"),
        (
            {"a.json": '{\n  "type": "object", \n  "properties": {"b": {"type": "strng"}}\n}'},
            (3, 32),
            '`type`: "strng" is not what it takes',
        ),
        ({"a.json": '{"properties": {"b": {"pattern": "(?=x)y"}}}'}, (1, 34), "look-around or a back reference"),
        ({"a.json": '{"pattern": "(a)\\\\1"}'}, (1, 13), "look-around or a back reference"),
        ({"a.json": '{"pattern": "("}'}, (1, 13), "a pattern that is none"),
        ({"a.json": '{"allOf": [true, [], {"minLength": -1}]}'}, (1, 18), "`allOf`"),
        ({"a.json": '{"allOf": [true, {"minLength": -1}]}'}, (1, 32), "`minLength`"),
        ({"a.json": '{"pattern": "(a{1,1000}){1,1000}"}'}, (1, 13), "a pattern that is none"),
        ({"a.json": '{"required": "email"}'}, (1, 14), "`required`"),
        ({"a.json": '{"$schema": "https://example.com/mine"}'}, (1, 13), "a $schema other than"),
        ({"a.json": '{"items": [], "$ref": "#/$defs/x"}'}, (1, 11), "items"),
        ({"a.json": '{"$ref": "#/$defs/x"}'}, (1, 1), "'/$defs/x' does not exist"),
        ({"a.json": '{"allOf": [{"$ref": "https://example.com/x"}]}'}, (1, 21), "nothing is fetched"),
        ({"a.json": '{"allOf": [{"$ref": "file:///etc/nope.json"}]}'}, (1, 21), "nope.json, which does not exist"),
        ({"a.json": '{"$ref": "b.json"}'}, (1, 10), "the file b.json, which does not exist"),
        ({"a.json": '{"allOf": [{"$ref": "//["}]}'}, (1, 21), "`$ref` is no URI"),
        ({"a.json": '{"$id": "//["}'}, (1, 9), "`$id` is no URI"),
        ({"a.json": {"$ref": "b.json"}, "b.json": '{\n"a'}, (3, 1), "b.json, line 2: not JSON"),
        ({"a.json": {"$ref": "b.json"}, "b.json": '{\n"type": 7}'}, (3, 1), "b.json, line 2, column 9: "),
        ({"a.json": {"$ref": "b.json"}, "b.json": '{\n"$ref": "c.json"}'}, (3, 1), "b.json, line 2, column 9: "),
        ({"a.json": '{"a":' * 150 + "1" + "}" * 150}, (1, 1), "nested deeper than 100 levels"),
    ],
)
def test_a_mistake_in_a_schema_is_told_with_its_place(
    tmp_path: Path, files: dict[str, Any], place: tuple[int, int], says: str
) -> None:
    problem = mistake(tmp_path, files)
    assert problem.code == "MB042" and says in problem.message
    assert (problem.line, problem.column) == place


def test_a_schema_that_draws_in_a_folder_is_bounded(tmp_path: Path) -> None:
    files = {f"{number}.json": {"$ref": f"{number + 1}.json"} for number in range(300)}
    assert "more than 200 files" in mistake(tmp_path, files | {"a.json": {"$ref": "0.json"}}).message


def test_patterns_take_linear_time(tmp_path: Path) -> None:
    """What makes a backtracking engine run for ages is answered at once: else this test would never end."""
    schema = {"type": "object", "properties": {"a": {"pattern": "^(a+)+$"}, "b": {"pattern": "^(a|aa)+$"}}}
    made = decoder(tmp_path, {"a.json": data_schema(schema), "data.json": schema})
    assert refusal(made, {"b": "a" * 100_000 + "!"}).startswith("value.data.b does not fit the schema (pattern)")
    assert refusal(made, {"a": "a" * 100_000 + "!"}).startswith("value.data.a does not fit the schema (pattern)")


def test_a_hostile_value_cannot_make_a_schema_run_wild(tmp_path: Path) -> None:
    """Branches within branches, 120 levels of them; and hundreds of thousands of errors in two branches. The engine's
    own explanations take exponential time and gigabytes for these: this test would never end."""
    again = [{"properties": {"c": {"$ref": "#"}}, "required": [name]} for name in ("x", "y")]
    recursive = {"anyOf": again}
    made = decoder(tmp_path, {"a.json": data_schema(recursive), "data.json": recursive})
    value: Any = {}
    for _ in range(120):
        value = {"c": value}
    assert refusal(made, value) == "value.data does not fit the schema (anyOf)"
    wide = {"anyOf": [{"items": {"type": "object"}}, {"items": {"type": "string"}}]}
    made = decoder(tmp_path, {"a.json": data_schema(wide), "data.json": wide})
    assert refusal(made, [1] * 300_000) == "value.data does not fit the schema (anyOf)"


def test_a_long_path_is_shortened(tmp_path: Path) -> None:
    name = "n" * 60
    schema = {"properties": {name: {"$ref": "#"}}, "required": [name]}
    made = decoder(tmp_path, {"a.json": data_schema(schema), "data.json": schema})
    value: Any = {}
    for _ in range(50):
        value = {name: value}
    said = refusal(made, value)
    assert len(said) < 300 and said.startswith("value.data.nnn") and "…" in said
