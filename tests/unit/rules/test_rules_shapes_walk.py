"""Expressions against the shape of data: what is certain, what may be, and what is in order."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.rules.functions import FUNCTIONS, METHODS
from bridge.rules.shapes import calls, narrow
from bridge.rules.shapes.events import View
from bridge.rules.shapes.json_schema import from_json_schema
from bridge.rules.shapes.notes import Note
from bridge.rules.shapes.shape import words
from bridge.rules.shapes.walk import Walker
from bridge.rules.source import Source

ADDRESS = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "number": {"type": "number"},
        "flag": {"type": "boolean"},
        "plan": {"enum": ["free", "standard", "pro"]},
        "maybe": {"type": "string"},
        "maybe_flag": {"type": "boolean"},
        "maybe_number": {"type": "integer"},
        "nullable": {"type": ["string", "null"]},
        "nullable_number": {"type": ["integer", "null"]},
        "nothing": {"type": "null"},
        "mixed": {"type": ["string", "integer"]},
        "texts": {"type": "array", "items": {"type": "string"}},
        "plans": {"type": "array", "items": {"enum": ["free", "pro"]}},
        "lines": {"type": "array", "items": {"type": "object", "properties": {"sku": {"type": "string"}}}},
        "address": ADDRESS,
        "maybe_address": ADDRESS,
        "nullable_address": {"anyOf": [ADDRESS, {"type": "null"}]},
        "anything": {},
        "map": {"type": "object", "additionalProperties": {"type": "number"}},
        "from": {"type": "string"},
    },
    "required": ["text", "number", "flag", "plan", "nullable", "nullable_number", "nothing", "mixed", "texts", "plans",
                 "lines", "address", "nullable_address", "anything", "map", "from"],
    "additionalProperties": False,
}  # fmt: skip


def walked(text: str, schema: Any = SCHEMA, *, condition: bool = False) -> list[Note]:
    source = Source(text)
    walker = Walker(source, condition=condition)
    walker.leaf(source.root, View("t", from_json_schema(schema)).env())
    return walker.notes


def told(text: str, schema: Any = SCHEMA, *, condition: bool = False) -> list[str]:
    return [
        f"{note.severity[0]} {note.code} {text[note.start : note.end]}: {note.message}"
        for note in walked(text, schema, condition=condition)
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # fields
        ("data.txt", "e MB161 data.txt: there is no field data.txt"),
        ("data.address.cty", "e MB161 data.address.cty: there is no field data.address.cty"),
        ('data["first name"]', 'e MB161 data["first name"]: there is no field data["first name"]'),
        ("data.text.first", "e MB161 data.text.first: data.text.first is never there: data.text is a text"),
        ("data.nothing.x", "e MB161 data.nothing.x: data.nothing.x is never there: data.nothing is null"),
        ("data.texts.x", "e MB161 data.texts.x: data.texts.x is never there: data.texts is a list"),
        ("optional(data.txt)", "e MB161 data.txt: there is no field data.txt"),
        ("default(data.address.cty, 1)", "e MB161 data.address.cty: there is no field data.address.cty"),
        ("has(data.txt)", "e MB161 data.txt: there is no field data.txt"),
        ("data.maybe", "w MB162 data.maybe: data.maybe may be missing: the rule then fails"),
        (
            "data.maybe_address.city",
            "w MB162 data.maybe_address: data.maybe_address may be missing: the rule then fails",
        ),
        (
            "data.nullable_address.city",
            "w MB162 data.nullable_address.city: data.nullable_address.city may be missing, "
            "because data.nullable_address may be null: the rule then fails",
        ),
        ("data.mixed.x", "e MB161 data.mixed.x: data.mixed.x is never there: data.mixed is a text or a number"),
        ("[line.sku for line in data.lines]", "w MB162 line.sku: line.sku may be missing: the rule then fails"),
        ("[line.sky for line in data.lines]", "e MB161 line.sky: there is no field line.sky"),
        # arithmetic
        ("data.number + 'x'", "e MB163 data.number + 'x': cannot add a number and a text: data.number + 'x'"),
        ("data.text - 1", "e MB163 data.text - 1: cannot subtract a text and a number: data.text - 1"),
        ("-data.text", "e MB163 data.text: data.text is a text: cannot take a text as a number"),
        (
            "data.nullable_number * 2",
            "w MB162 data.nullable_number: data.nullable_number may be null: cannot multiply null",
        ),
        ("data.mixed + 1", "w MB163 data.mixed: data.mixed may be a text: cannot add a text"),
        ("data.flag + 1", "e MB163 data.flag + 1: cannot add true/false and a number: data.flag + 1"),
        ("data.nothing + 1", "e MB163 data.nothing + 1: cannot add null and a number: data.nothing + 1"),
        # comparisons
        ("data.text < 3", "e MB163 data.text < 3: cannot compare a text with a number: data.text < 3"),
        (
            "data.nullable_number < 3",
            "w MB162 data.nullable_number: data.nullable_number may be null: cannot compare null",
        ),
        ("data.address < 3", "e MB163 data.address < 3: cannot compare an object with a number: data.address < 3"),
        ("data.number == '3'", "e MB164 data.number == '3': a number and a text are never equal: data.number == '3'"),
        ("data.plan == 'premium'", "w MB164 'premium': data.plan is never 'premium'"),
        ("'premium' != data.plan", "w MB164 'premium': data.plan is never 'premium'"),
        ("data.plan in ['free', 'pr']", "w MB164 'pr': data.plan is never 'pr'"),
        (
            "data.number in ['1', '2']",
            "e MB164 data.number in ['1', '2']: a number is looked for among items that are "
            "a text: data.number in ['1', '2']",
        ),
        ("'premium' in data.plans", "w MB164 'premium': an item of data.plans is never 'premium'"),
        ("'a' in data.number", "e MB163 data.number: data.number is a number: cannot look for something in a number"),
        ("1 in data.text", "e MB163 1: 1 is a number: cannot look in data.text for a number"),
        ("'a' in data.nullable", "w MB162 data.nullable: data.nullable may be null: cannot look for something in null"),
        # functions and methods
        ("data.number.lower()", "e MB163 data.number: data.number is a number: cannot use lower() on a number"),
        ("data.nullable.lower()", "w MB162 data.nullable: data.nullable may be null: cannot use lower() on null"),
        ("len(data.number)", "e MB163 data.number: data.number is a number: cannot take the length of a number"),
        ("round(data.text)", "e MB163 data.text: data.text is a text: cannot round a text"),
        ("sum(data.texts)", "w MB163 data.texts: data.texts is a list of a text"),
        ("keys(data.texts)", "e MB163 data.texts: data.texts is a list: cannot take the keys of a list"),
        ("', '.join(data.text)", "e MB163 data.text: data.text is a text: cannot join a text"),
        ("later(data.text, 3)", "e MB163 3: 3 is a number: cannot use a number as a duration"),
        ("iso(data.flag)", "e MB163 data.flag: data.flag is true/false: cannot read a time from true/false"),
        ("max(data.number)", "e MB163 data.number: data.number is a number: cannot take the largest of a number"),
        ("[x for x in data.number]", "e MB163 data.number: data.number is a number: cannot go through a number"),
        ("[x.lower() for x in values(data.map)]", "e MB163 x: x is a number: cannot use lower() on a number"),
        ("[k for k, v in items(data.map) if v.x]", "e MB161 v.x: v.x is never there: v is a text or a number"),
        ("data.number[0:2]", "e MB163 data.number: data.number is a number: cannot take a part of a number"),
        ("data.texts[data.text]", "e MB163 data.text: data.text is a text: cannot look in a list at a text"),
        ("{data.number: 1}", "e MB163 data.number: data.number is a number: cannot name a field by a number"),
        # what a guard and a condition leave
        (
            "default(data.number.lower(), 0)",
            "e MB163 data.number: data.number is a number: cannot use lower() on a number",
        ),
        (
            "data.nullable_address.cty if data.nullable_address else ''",
            "e MB161 data.nullable_address.cty: there is no field data.nullable_address.cty",
        ),
        ("data.txt if data.flag == 1 else ''", "e MB161 data.txt: there is no field data.txt"),
        ("data.txt if not has(data.maybe) else ''", "e MB161 data.txt: there is no field data.txt"),
        (
            "data.maybe if not has(data.maybe) else ''",
            "e MB161 data.maybe: data.maybe is never there: the condition before it says so",
        ),
        # what is known without a schema
        ("partition.lower()", "e MB163 partition: partition is a number: cannot use lower() on a number"),
        ("event.type + 1", "e MB163 event.type + 1: cannot add a text and a number: event.type + 1"),
        ("topic == 'user-event'", "w MB164 'user-event': topic is never 'user-event'"),
    ],
)
def test_mistakes(text: str, expected: str) -> None:
    """One note for one mistake, at its own place, certain (e) or possible (w)."""
    assert told(text) == [expected]


@pytest.mark.parametrize(
    "text",
    [
        "data.text",
        "data.from",
        "data.address.city",
        "data.texts[0]",
        "data.text[0]",
        "data.map.any",
        "data.anything.x.y",
        "optional(data.maybe)",
        "default(data.maybe, 'x').lower()",
        "default(data.nullable.lower(), 'x')",
        "default(data.nullable_address.city, 1)",
        "has(data.maybe_address.city)",
        "optional(data.nullable_number * 2)",
        "data.nullable",
        "data.nullable == 'x'",
        "data.nullable != null",
        "data.text == null",
        "data.flag == 1",
        "data.maybe.lower() if has(data.maybe) else 'x'",
        "'x' if not has(data.maybe) else data.maybe",
        "data.nullable.lower() if data.nullable else 'x'",
        "data.nullable and data.nullable.lower()",
        "data.nullable == null or data.nullable.lower() == 'x'",
        "data.nullable_number > 3 if data.nullable_number != null else false",
        "has(data.maybe) and has(data.nullable) and data.maybe + data.nullable",
        "data.nullable.lower() if data.nullable in ['a', 'b'] else ''",
        "data.maybe_number + 1 if default(data.maybe_number, 0) > 0 else 0",
        "data.maybe + 'x' if optional(data.maybe) == 'y' else ''",
        "data.nullable.lower() if bool(data.nullable) else ''",
        "data.mixed + 1 if data.mixed == 7 else 0",
        "data.plan == 'pro' if not (data.plan == 'pro' == data.text) else false",
        "data.mixed == 'a' and data.mixed.lower()",
        "[line.sku for line in data.lines if has(line.sku)]",
        "[t.lower() for t in data.texts]",
        "any(p == 'pro' for p in data.plans)",
        "'pro' in data.plans",
        "'x' in data.address",
        "data.plan in ['free', 'pro']",
        "len(data.texts) + sum([1, 2])",
        "min(data.number, 3)",
        "max(data.texts)",
        "sorted(data.texts)[0].upper()",
        "fixed(data.number / 100, 2) + ' EUR'",
        "str(data.address)",
        "int(data.text)",
        "later(event.time, '14d')",
        "{'a': optional(data.maybe)}",
        "[optional(data.maybe)]",
        "keys(data.map)[0].lower()",
        "first(data.texts).title()",
        "event.subject.lower()",
        "headers.tenant.lower()",
        "key.lower()",
        "data.text + str(data.number)",
        "data.text.startswith(['a', 'b'])",
        "data.text.split(',')[0].strip()",
        "-data.number",
        "not data.flag",
    ],
)
def test_no_false_alarm(text: str) -> None:
    """What can be computed, or is guarded, is in order."""
    assert told(text) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data.maybe == 'x'", []),
        ("data.maybe_address.city == 'x' and data.flag", []),
        ("data.txt == 'x'", ["e MB161 data.txt: there is no field data.txt"]),
        ("data.maybe != 'x'", ["w MB162 data.maybe: data.maybe may be missing: the whole condition is then false"]),
        (
            "not data.maybe_flag",
            ["w MB162 data.maybe_flag: data.maybe_flag may be missing: the whole condition is then false"],
        ),
        (
            "data.maybe == 'x' or data.flag",
            ["w MB162 data.maybe: data.maybe may be missing: the whole condition is then false"],
        ),
        ("data.flag or data.maybe == 'x'", []),
        ("default(data.maybe, '') != 'x'", []),
        ("has(data.maybe) and data.maybe != 'x'", []),
        (
            "data.nullable_number > 3",
            ["w MB162 data.nullable_number: data.nullable_number may be null: cannot compare null"],
        ),
    ],
)
def test_conditions(text: str, expected: list[str]) -> None:
    """In a `when` a missing field is just false; it is told where that surprises."""
    assert told(text, condition=True) == expected


def test_fields_that_nobody_forbids() -> None:
    """A schema that names fields, and says nothing of others, is believed; one that lets more through allows all."""
    silent = {"properties": {"plan": {"type": "string"}}}
    assert [note.severity for note in walked("data.plna", silent)] == ["error"]
    assert [note.severity for note in walked("optional(data.plna)", silent)] == ["warning"]
    assert "additionalProperties" in walked("data.zzz", silent)[0].hint
    assert told("data.plna", {**silent, "additionalProperties": True}) == []
    assert told("data.plna + 1", {**silent, "additionalProperties": {"type": "string"}}) == [
        "e MB163 data.plna + 1: cannot add a text and a number: data.plna + 1"
    ]


def test_hints_name_what_was_meant() -> None:
    """The nearest field or value, with its path, and else what there is."""
    assert walked("data.address.cty")[0].hint == "did you mean data.address.city?"
    assert walked("data.plan == 'standrad'")[0].hint == "did you mean standard?"
    assert walked("data.plan == 'xyz'")[0].hint == "it is one of free, pro, standard"
    assert (
        walked("data.number == '3'")[0].hint == "data.number is a number: write it without quotes, or str(data.number)"
    )
    assert (
        walked("data.maybe")[0].hint == "write optional(data.maybe) to leave the field out, or default(data.maybe, …)"
    )
    assert walked("data.maybe + 'x'")[0].hint == "write default(data.maybe, …)"


def test_alternatives_are_told_apart_by_a_fixed_value() -> None:
    """Where one field says which object it is, a condition on it decides which fields there are."""
    card = {"properties": {"kind": {"const": "card"}, "brand": {"type": "string"}}, "required": ["kind", "brand"]}
    debit = {"properties": {"kind": {"const": "debit"}, "iban": {"type": "string"}}, "required": ["kind", "iban"]}
    schema = {"oneOf": [{**card, "additionalProperties": False}, {**debit, "additionalProperties": False}]}
    assert told("data.brand if data.kind == 'card' else data.iban", schema) == []
    assert told("data.iban if data.kind == 'card' else ''", schema) == [
        "e MB161 data.iban: there is no field data.iban"
    ]
    assert told("data.brand if data.kind in ['card', 'x'] else data.iban", schema) == [
        "w MB164 'x': data.kind is never 'x'"
    ]
    assert told("data.brand", schema)[0].startswith("w MB162 data.brand: data.brand may be missing")
    assert told("data.brand if not (data.kind == 'debit') else ''", schema) == []
    assert told("data.brand if data.kind != 'debit' and data.kind != 'x' else ''", schema) == [
        "w MB164 'x': data.kind is never 'x'"
    ]
    assert told("data.brand if has(data.brand) else data.iban", schema) == []
    either = "data.brand if data.kind == 'card' or data.kind == 'debit' else ''"
    assert [note.code for note in walked(either, schema)] == ["MB162"]


def test_every_published_function_has_a_signature() -> None:
    """A function that is added to the language is known to the checker too."""
    own = {"optional", "default", "has", "min", "max"}
    assert calls.FUNCTIONS.keys() | own == FUNCTIONS.keys()
    assert calls.METHODS.keys() == METHODS.keys()


def test_every_example_of_a_function_is_in_order() -> None:
    """The documented examples get no error where nothing is known of data."""
    for entry in (*FUNCTIONS.values(), *METHODS.values()):
        for text, _ in entry.examples:
            assert [note for note in walked(text, {}) if note.severity == "error"] == [], text


def test_conditions_inside_one_another_take_bounded_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alternating `and` and `or`, as deep as the language allows, is not looked at twice as often at each level."""
    looks = 0

    def dead(env: narrow.Env) -> bool:
        nonlocal looks
        looks += 1
        assert looks < 200_000
        return real(env)

    real = narrow.dead
    monkeypatch.setattr(narrow, "dead", dead)
    text = "data.flag"
    for depth in range(25):
        text = f"({text} {'or' if depth % 2 else 'and'} data.number == {depth})"
    walked(f"data.text if {text} else data.txt", condition=True)
    assert looks > narrow.STEPS_MAX


def test_words_of_several_kinds() -> None:
    """Kinds are listed as people say them."""
    assert words(from_json_schema({"type": ["null", "string", "integer"]})) == "a text, a number or null"
