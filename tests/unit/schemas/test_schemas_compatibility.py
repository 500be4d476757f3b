"""schemas/released/: what was released stays readable, and the checker notices every change that would break it."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fastavro
import fastavro.utils
import jsonschema
import pytest

from schemas.generate import files
from schemas.generate.catalogue import Catalogue, Field, Type, parse
from schemas.generate.compatibility import avro, incompatible, json_schema, without_words
from tests.support.catalogue import catalogue

CATALOGUE = catalogue()
RELEASES = [
    pytest.param(type, schemas, id=f"{version}-{type}")
    for version, release in files.releases().items()
    for type, schemas in release.items()
]


def test_the_catalogue_follows_its_releases() -> None:
    """Nothing that was released changed in a way that anybody would notice, nor without a new version."""
    assert files.problems(CATALOGUE) == []
    assert files.releases()


@pytest.mark.parametrize(("type", "then"), RELEASES)
def test_data_of_a_released_schema_is_read_by_the_present_one(type: str, then: dict[str, Any]) -> None:
    """By the libraries themselves: what was valid JSON then is now, and Avro written then says the same today."""
    now = files.snapshot(CATALOGUE)[type]
    jsonschema.Draft7Validator(then["json_schema"]).validate(then["example"])
    jsonschema.Draft7Validator(now["json_schema"]).validate(then["example"])
    writer, reader = fastavro.parse_schema(then["avro"]), fastavro.parse_schema(now["avro"])
    for value in fastavro.utils.generate_many(writer, 5):
        stream = io.BytesIO()
        fastavro.schemaless_writer(stream, writer, value)
        before = fastavro.schemaless_reader(io.BytesIO(stream.getvalue()), writer, None)
        assert holds(fastavro.schemaless_reader(io.BytesIO(stream.getvalue()), writer, reader), before)


def holds(new: Any, old: Any) -> bool:
    """Whether a value says all that the other said; what was added may say more."""
    if isinstance(old, dict):
        return all(name in new and holds(new[name], value) for name, value in old.items())
    return bool(new == old)


# The checker ---------------------------------------------------------------------------------------------------------

SMALL: dict[str, Any] = {
    "version": "1.0.0",
    "namespace": "a.b",
    "topic": "t",
    "envelope": {name: {"about": name} for name in ("id", "type", "time", "data")},
    "types": {
        "cycle": {"about": "a", "enum": ["monthly", "annual"]},
        "utm": {"about": "a", "fields": {"source?": {"type": "text", "about": "a", "example": "b"}}},
    },
    "groups": {"person": {"user_id": {"type": "id", "about": "a", "example": "u"}}},
    "themes": {"money": "All of it."},
    "events": {
        "plan.changed": {
            "theme": "money",
            "about": "a",
            "at": "2026-01-01T00:00:00Z",
            "with": ["person"],
            "fields": {
                "plan": {"type": "text", "about": "a", "example": "pro"},
                "cycle": {"type": "cycle", "about": "a", "example": "annual"},
                "before?": {"type": "cycle", "about": "a", "example": "monthly"},
                "seats?": {"type": "integer", "about": "a", "example": 3},
                "utm?": {"type": "utm", "about": "a"},
            },
        }
    },
}
Change = Callable[[dict[str, Any]], None]


def changed(change: Change) -> list[str]:
    """What the checker says when the catalogue is changed so; without the file's name."""
    document = copy.deepcopy(SMALL)
    change(document)
    found = incompatible(files.snapshot(parse(SMALL)), files.snapshot(parse(document)))
    return sorted(each.partition(": ")[2] for each in found)


def fields(document: dict[str, Any]) -> dict[str, Any]:
    return document["events"]["plan.changed"]["fields"]  # type: ignore[no-any-return]


def rename(name: str, other: str) -> Change:
    return lambda document: fields(document).update({other: fields(document).pop(name)})


def retype(name: str, type: str, example: Any) -> Change:
    return lambda document: fields(document).update({name: {"type": type, "about": "a", "example": example}})


@pytest.mark.parametrize(
    "change",
    [
        lambda document: None,
        lambda document: fields(document)["plan"].update(about="In other words.", example="free"),
        lambda document: document["events"]["plan.changed"].update(about="In other words."),
        lambda document: document["types"]["cycle"]["enum"].append("lifetime"),
        lambda document: document["types"]["utm"]["fields"].update(SMALL["types"]["utm"]["fields"]),
        retype("note?", "text", "b"),
        retype("after?", "cycle", "annual"),
        lambda document: document["types"]["utm"]["fields"].update(
            {"term?": {"type": "text", "about": "a", "example": "b"}}
        ),
        lambda document: document["events"].update({"plan.ended": document["events"]["plan.changed"]}),
    ],
)
def test_what_nobody_would_notice_is_compatible(change: Change) -> None:
    """Words, new events, new optional fields (in objects too), and more symbols of an enum."""
    assert changed(change) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (retype("note", "text", "b"), ["data.note is new and not optional"] * 2),
        (rename("plan", "tier"), ["data.plan is gone"] * 2 + ["data.tier is new and not optional"] * 2),
        (lambda document: fields(document).pop("before?"), ["data.before is gone"] * 2),
        (rename("plan", "plan?"), ["data.plan became optional"] * 2),
        (rename("seats?", "seats"), ["data.seats became required"] * 2),
        (
            retype("plan", "integer", 1),
            ["data.plan changed from string to long", "data.plan: type changed from string"],
        ),
        (
            retype("seats?", "number", 1.5),
            ["data.seats changed from long to double", "data.seats: type changed from ["],
        ),
        (
            retype("seats?", "time", "2026-01-01T00:00:00Z"),
            [
                "data.seats changed from long to long (timestamp-millis)",
                "data.seats: format changed from None to date-time",
                "data.seats: type changed from ['integer', 'null'] to ['string', 'null']",
            ],
        ),
        (retype("plan", "id", "pro"), ["data.plan: minLength changed from None to 1"]),
        (retype("plan", "country", "DE"), ["data.plan: pattern changed from None to ^[A-Z]{2}$"]),
        (retype("plan", "cycle", "annual"), ["data.plan became an enum", "data.plan changed from string to enum"]),
        (
            lambda document: document["types"]["cycle"]["enum"].remove("annual"),
            [f"data.{name} lost the {what} annual" for name in ("before", "cycle") for what in ("symbol", "value")],
        ),
        (
            lambda document: document["types"]["utm"]["fields"].update(
                {"b": {"type": "text", "about": "", "example": ""}}
            ),
            ["data.utm.b is new and not optional"] * 2,
        ),
        (lambda document: document.update(namespace="a.c"), ["the schema: namespace changed from a.b to a.c"]),
        (
            lambda document: document["events"].update({"plan.moved": document["events"].pop("plan.changed")}),
            ["the event is gone"],
        ),
    ],
)
def test_what_old_data_or_old_rules_would_notice_is_not_compatible(change: Change, says: list[str]) -> None:
    """Told for Avro and for JSON Schema, with the path."""
    found = changed(change)
    assert len(found) == len(says)
    assert all(each.startswith(begin) for each, begin in zip(found, sorted(says), strict=True)), found


def test_a_symbol_that_was_lost_would_indeed_break_a_reader() -> None:
    """What the checker calls incompatible the library refuses to read; what it allows it reads."""
    old = files.snapshot(parse(SMALL))["plan.changed"]["avro"]
    for change, readable in (
        (lambda document: document["types"]["cycle"]["enum"].remove("monthly"), False),
        (retype("note", "text", "b"), False),
        (retype("note?", "text", "b"), True),
    ):
        document = copy.deepcopy(SMALL)
        fields(document)["before?"]["example"] = "annual"
        change(document)
        new = files.snapshot(parse(document))["plan.changed"]["avro"]
        stream = io.BytesIO()
        data = {"user_id": "u", "plan": "pro", "cycle": "monthly", "before": None, "seats": None, "utm": None}
        fastavro.schemaless_writer(stream, old, {"id": "1", "type": "plan.changed", "time": 0, "data": data})
        stream.seek(0)
        if readable:
            assert avro(old, new) == []
            assert fastavro.schemaless_reader(stream, old, new)["data"] == {**data, "note": None}
        else:
            assert avro(old, new)
            with pytest.raises((fastavro.read.SchemaResolutionError, ValueError)):
                fastavro.schemaless_reader(stream, old, new)


def test_the_checker_knows_what_the_generators_do_not_write() -> None:
    """Any other difference is called a change, rather than passed over."""
    string = {"type": "object", "properties": {"a": {"type": "string"}}}
    closed = {**string, "additionalProperties": False}
    assert json_schema(string, closed) == ["the schema: additionalProperties changed from None to False"]
    assert json_schema(string, {**string, "required": ["a"]}) == ["a became required"]
    assert json_schema({"const": "a"}, {"const": "b"}) == ["the schema: const changed from a to b"]
    record = {"type": "record", "name": "A", "fields": [{"name": "a", "type": "long", "default": 1}]}
    other = {"type": "record", "name": "A", "fields": [{"name": "a", "type": "long", "default": 2}]}
    assert avro(record, other) == ["a: its default changed"]
    assert avro(record, {**record, "name": "B"}) == ["the schema: name changed from A to B"]
    assert avro({"type": "fixed", "name": "F", "size": 1}, {"type": "fixed", "name": "F", "size": 2})


def test_a_field_may_be_called_as_a_keyword_that_is_only_words() -> None:
    """`title` and `description` are left out of what is compared; fields of these names are not."""
    schema = {"title": "a", "properties": {"title": {"type": "string", "title": "b"}, "examples": {"examples": [1]}}}
    assert without_words(schema) == {"properties": {"title": {"type": "string"}, "examples": {}}}


# Releases ------------------------------------------------------------------------------------------------------------


def with_field(catalogue: Catalogue, name: str, version: str, *, optional: bool = True) -> Catalogue:
    first, *others = catalogue.events
    more = Field(name, Type("text"), optional, "a", "b")
    return replace(catalogue, version=version, events=(replace(first, data=(*first.data, more)), *others))


def test_a_version_is_released_once_in_order_and_never_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An addition needs a higher version; what breaks any release, not only the last, is refused."""
    monkeypatch.setattr(files, "RELEASED", tmp_path / "released")
    first = parse(SMALL)
    assert files.problems(first) == []
    assert files.release(first).name == "1.0.0.json"
    with pytest.raises(ValueError, match="released already"):
        files.release(first)
    unversioned = with_field(first, "seats_max", "1.0.0")
    assert files.problems(unversioned) == [
        "version 1.0.0 is released and never changes: give the catalogue a higher one"
    ]
    for version, name in (("1.9.0", "seats_max"), ("1.10.0", "seats_min")):
        first = with_field(first, name, version)
        files.release(first)
    assert list(files.releases()) == ["1.0.0", "1.9.0", "1.10.0"]
    lost = replace(first, version="2.0.0", events=parse(SMALL).events)
    assert files.problems(lost) == [
        f"plan.changed.{kind}: data.{name} is gone (since {version})"
        for version, names in (("1.9.0", ["seats_max"]), ("1.10.0", ["seats_max", "seats_min"]))
        for kind in ("avsc", "schema.json")
        for name in names
    ]
    with pytest.raises(ValueError, match=r"seats_max is gone \(since 1\.9\.0\)"):
        files.release(lost)
    with pytest.raises(ValueError, match="is new and not optional"):
        files.release(with_field(first, "owner", "1.11.0", optional=False))
