"""Schemas, values of them, and expressions: what the checker calls certain must be so for every value.

A certain mistake is one where the operation cannot succeed. So the operation's source is replaced by a probe, which
raises a fault of its own once the operation has succeeded: with values that the schema allows that must never happen.
"""

from __future__ import annotations

import ast
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from bridge.errors import MissingField, RuleError
from bridge.model import Event, Record
from bridge.rules.scan import ExpressionError
from bridge.rules.shapes.events import View
from bridge.rules.shapes.json_schema import from_json_schema
from bridge.rules.shapes.notes import MISSING, NEVER_EQUAL, WRONG, Note
from bridge.rules.shapes.walk import Walker
from bridge.rules.source import Source
from bridge.rules.template import compile_template
from tests.support.amount import examples

PROBE = "division by zero"
"""No expression here divides otherwise."""

# Schemas and their values --------------------------------------------------------------------------------------------

TEXTS = ["", "a", "pro", "7"]
SCALARS: list[dict[str, Any]] = [
    {"type": "string"},
    {"type": "integer"},
    {"type": "number"},
    {"type": "boolean"},
    {"type": "null"},
    {"enum": ["a", "pro"]},
    {"const": "a"},
    {"enum": ["a", None]},
    {"enum": [0, 1]},
    {"type": ["string", "null"]},
    {"type": ["integer", "null"]},
    {"type": ["string", "integer"]},
]
NAMES = ["a", "b", "c"]


def objects(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    fields = st.dictionaries(st.sampled_from(NAMES), inner, max_size=3)

    def made(parts: tuple[dict[str, Any], set[str], bool]) -> dict[str, Any]:
        properties, required, closed = parts
        schema = {"type": "object", "properties": properties, "required": sorted(required & properties.keys())}
        return {**schema, "additionalProperties": False} if closed or not properties else schema

    return st.tuples(fields, st.sets(st.sampled_from(NAMES)), st.booleans()).map(made)


def composed(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.one_of(
        objects(inner),
        inner.map(lambda items: {"type": "array", "items": items}),
        st.lists(inner, min_size=2, max_size=2).map(lambda ways: {"anyOf": ways}),
    )


FIELDS = st.recursive(st.sampled_from(SCALARS), composed, max_leaves=4)
SCHEMAS = st.builds(
    lambda a, b, more, required: {**more, "properties": {**more["properties"], "a": a, "b": b}, "required": required},
    st.sampled_from(SCALARS),
    FIELDS,
    objects(FIELDS),
    st.sampled_from([["a", "b"], ["a"], []]),
)


def values_of(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that the schema allows, with no field that it does not name."""
    if "anyOf" in schema:
        return st.one_of(*map(values_of, schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum") or [schema["const"]])
    kind = schema["type"]
    if isinstance(kind, list):
        return st.one_of(*(values_of({"type": each}) for each in kind))
    if kind == "object":
        parts = {name: values_of(each) for name, each in schema["properties"].items()}
        required = {name: part for name, part in parts.items() if name in schema["required"]}
        others = {name: part for name, part in parts.items() if name not in required}
        return st.fixed_dictionaries(required, optional=others)
    if kind == "array":
        return st.lists(values_of(schema["items"]), max_size=2)
    plain: dict[str, st.SearchStrategy[Any]] = {
        "string": st.sampled_from(TEXTS),
        "integer": st.sampled_from([-1, 0, 1, 7]),
        "number": st.sampled_from([0, 1.5, 7]),
        "boolean": st.booleans(),
        "null": st.none(),
    }
    return plain[kind]


# Expressions ---------------------------------------------------------------------------------------------------------

LITERALS = st.sampled_from(["'a'", "'pro'", "'x'", "0", "1", "2.5", "true", "null", "['a', 'x']", "[0]"])
PATHS = st.sampled_from(["data.a"] * 3 + ["data.b", "data.b.a", "data.b.b", "data.c", "data.c.a", "data.z", "data.b.z"])


TESTS = ["has(P)", "P", "P == L", "P != L", "P in [L, 'a']", "P not in [L, 0]", "P.a == L", "P < L", "P.a", "has(P.b)",
         "default(P, L) == L", "optional(P)", "P.a != null", "default(P, 'x') != 'x'", "bool(P)"]  # fmt: skip
USES = ["P", "P.a", "P.b", "(P).lower()", "P + 1", "P == M", "-P", "P.a == M", "len(P)", "P < M"]
GUARDED = st.builds(
    lambda shape, path, literal, second, one, other, use, last: (
        (shape.replace("TEST", one).replace("ALSO", other).replace("USE", use).replace("LAST", last))
        .replace("P", path)
        .replace("L", literal)
    ),
    st.sampled_from(
        [
            "(TEST and USE)",
            "(TEST or USE)",
            "(not (TEST) and USE)",
            "(USE if TEST else LAST)",
            "(TEST and ALSO and USE)",
            "((TEST or ALSO) and USE)",
            "(USE if not (TEST and ALSO) else LAST)",
            "[USE for i in [1] if TEST]",
            "((not (TEST or ALSO)) and USE)",
            "(USE if TEST and ALSO else LAST)",
        ]
    ),
    PATHS,
    LITERALS.filter(lambda text: text[0] != "["),
    LITERALS.filter(lambda text: text[0] != "["),
    st.sampled_from(TESTS),
    st.sampled_from(TESTS),
    st.sampled_from(USES),
    st.sampled_from(USES),
)
"""A condition on a field, and what is done with the same field because of it."""


def larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    def of(*shapes: str) -> st.SearchStrategy[str]:
        return st.builds(
            lambda shape, x, y, z: shape.replace("X", x).replace("Y", y).replace("Z", z),
            st.sampled_from(shapes),
            inner,
            inner,
            inner,
        )

    return st.one_of(
        GUARDED,
        of("(X == Y)", "(X != Y)", "(X < Y)", "(X >= Y)", "(X in Y)", "(X not in Y)"),
        of("(X and Y)", "(X or Y)", "(not X)", "(X if Y else Z)", "(X and Y and Z)"),
        of("(X + Y)", "(X - Y)", "(-X)", "(X * Y)"),
        of("has(X)", "default(X, Y)", "optional(X)"),
        of("len(X)", "str(X)", "int(X)", "bool(X)", "sum(X)", "sorted(X)", "unique(X)", "any(X)", "round(X)"),
        of("min(X, Y)", "max(X)", "first(X)", "last(X)", "keys(X)", "values(X)", "items(X)"),
        of("(X).lower()", "(X).split(Y)", "(X).startswith(Y)", "(X).join(Y)", "(X).replace('a', Y)"),
        of("[X, Y]", "{'a': X, 'b': Y}", "(X)[Y]", "(X)[0]", "(X)['a']", "(X).a", "(X)[0:1]"),
        of("[i for i in X]", "[i.a for i in X if i]", "{k: v for k, v in items(X)}", "any(i == Y for i in X)"),
        of("[i for i in X if i != Y]", "[j for i in X for j in i]"),
    )


EXPRESSIONS = st.one_of(GUARDED, st.recursive(st.one_of(PATHS, PATHS, LITERALS), larger, max_leaves=6))
CASES = SCHEMAS.flatmap(
    lambda schema: st.tuples(st.just(schema), st.lists(values_of(schema), min_size=1, max_size=6), EXPRESSIONS)
)


def event_of(data: Any) -> Event:
    record = Record("t", 0, 0, 0, b"k", b"{}")
    return Event(id="1", type="x", time="2026-01-01T00:00:00Z", time_wall_seconds=0.0, data=data, record=record)


def fault(text: str, data: Any) -> RuleError | None:
    try:
        compile_template(f"${{{text}}}").render(event_of(data))
    except RuleError as error:
        return error
    return None


def looked_at(schema: dict[str, Any], text: str, *, condition: bool = False) -> tuple[Source, list[Note]]:
    source = Source(text)
    walker = Walker(source, condition=condition)
    walker.leaf(source.root, View("t", from_json_schema(schema)).env())
    return source, walker.notes


def operation(source: Source, note: Note) -> tuple[int, int]:
    """The part of the text that is said to fail: of an operand, the operation on it."""
    if note.code == MISSING or note.message.startswith("cannot"):
        return note.start, note.end
    methods = {id(node.func) for node in ast.walk(source.root) if isinstance(node, ast.Call)}
    around = [
        (source.start(node), source.end(node))
        for node in ast.walk(source.root)
        if isinstance(node, ast.expr) and not isinstance(node, ast.Slice) and id(node) not in methods
    ]
    wider = [
        span for span in around if span[0] <= note.start and note.end <= span[1] and span != (note.start, note.end)
    ]
    return min(wider, key=lambda span: span[1] - span[0])


def comparison(source: Source, note: Note) -> tuple[int, int]:
    """The comparison that a note of equality is about; it stands at the comparison or at one of its sides."""
    spans = [(source.start(node), source.end(node)) for node in ast.walk(source.root) if isinstance(node, ast.Compare)]
    around = [span for span in spans if span[0] <= note.start and note.end <= span[1]]
    return min(around, key=lambda span: span[1] - span[0])


@settings(max_examples=examples(500))
@given(CASES)
@example(({"type": "object", "properties": {"a": {"enum": [0, 1]}}, "required": ["a"]}, [{"a": 1}], "(data.a == true)"))
def test_what_is_called_certain_is_so_for_every_value(case: tuple[dict[str, Any], list[Any], str]) -> None:
    """An error of the checker means that the operation fails for every value; a comparison, that it never holds."""
    schema, values, text = case
    try:
        compile_template(f"${{{text}}}")
    except ExpressionError:
        return
    source, notes = looked_at(schema, text)
    for note in notes:
        if note.severity == "error" and note.code in (MISSING, WRONG):
            start, end = operation(source, note)
            if "for j in" in text[start:end]:
                continue  # an inner loop, of a list that may be empty
            probe = f"(1 // (len([{text[start:end]}]) - 1))"
        elif note.code == NEVER_EQUAL:
            start, end = comparison(source, note)
            if " in " in text[start:end] or text[start:end].count("=") > 2:
                continue
            holds = "" if "==" in text[start:end] else "not "
            probe = f"(1 // (0 if {holds}({text[start:end]}) else 1))"
        else:
            continue
        for value in values:
            error = fault(text[:start] + probe + text[end:], value)
            assert error is None or PROBE not in error.message, (note, value)


@settings(max_examples=examples(500))
@given(CASES)
def test_what_may_be_missing_is_told(case: tuple[dict[str, Any], list[Any], str]) -> None:
    """An expression that a missing field, or null, makes fail for a value is one of which the checker has told
    something; only how long lists are no schema here tells."""
    schema, values, text = case
    if any(part in text for part in ("[0]", "first(", "last(", "min(", "max(", "sorted(", "sum(", "join(", "k, v")):
        return
    try:
        compile_template(f"${{{text}}}")
    except ExpressionError:
        return
    _, notes = looked_at(schema, text)
    for value in values:
        error = fault(text, value)
        if isinstance(error, MissingField) or (error is not None and "null can be caught" in error.message):
            assert notes, (value, error.message)


@settings(max_examples=examples(300))
@given(SCHEMAS, EXPRESSIONS, st.booleans())
def test_the_walk_ends_for_every_expression(schema: dict[str, Any], text: str, condition: bool) -> None:
    """No expression of the language makes the checker fail, and every note lies within the text."""
    try:
        compile_template(f"${{{text}}}")
    except ExpressionError:
        return
    for note in looked_at(schema, text, condition=condition)[1]:
        assert 0 <= note.start < note.end <= len(text)
        assert note.message and note.severity in ("error", "warning")
