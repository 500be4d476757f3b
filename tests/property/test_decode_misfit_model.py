"""Where a value does not fit its JSON Schema, compared with the errors of another library (jsonschema)."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator, Draft202012Validator

from bridge.decode import SchemaError, TopicSchemas, decoder_for
from bridge.decode.json import step
from bridge.decode.json_schema import Check
from bridge.decode.schema import parse
from bridge.errors import DecodeError
from bridge.model import Record
from tests.support.amount import examples

NAMES = st.sampled_from(["a", "b", "kind", "not a name", "s/l~a%sh"])
SCALARS = (
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, "", "x", "circle", "secret@example.com"])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8
)
TYPES = st.sampled_from(["null", "boolean", "integer", "number", "string", "array", "object"])
_LAST_STEP = re.compile(r"(\.\w+|\[[^\]]*\])$")
_WHOLE = tuple(f"({name})" for name in ("anyOf", "oneOf", "not", "contains", "unevaluatedProperties"))
"""Keywords below which the place is not looked for."""
DEFINITIONS = ("one", "two/~%")
REFERENCES = st.sampled_from(["#", "#/definitions/one", "#/definitions/two~1~0%25", "#anchor"])


def schemas(inner: st.SearchStrategy[Any], *, old: bool) -> st.SearchStrategy[Any]:
    """Keywords of every kind, together as they come. References only lead further into the value: the other library
    follows circles for ever."""
    some = st.lists(inner, min_size=1, max_size=3)
    below = inner | st.fixed_dictionaries({"$ref": REFERENCES}, optional={"type": TYPES})
    tuples = st.lists(below, min_size=1, max_size=3)
    keywords: dict[str, st.SearchStrategy[Any]] = {
        "type": TYPES | st.lists(TYPES, min_size=1, max_size=3, unique=True),
        "enum": st.lists(SCALARS, min_size=1, max_size=3),
        "const": SCALARS,
        "minimum": st.integers(-2, 2),
        "maxLength": st.integers(0, 3),
        "pattern": st.sampled_from(["^c", "x$"]),
        "minItems": st.integers(0, 2),
        "uniqueItems": st.booleans(),
        "required": st.lists(NAMES, max_size=2, unique=True),
        "properties": st.dictionaries(NAMES, below, max_size=3),
        "additionalProperties": st.booleans() | below,
        "patternProperties": st.dictionaries(st.sampled_from(["^a", "d$"]), below, max_size=1),
        "items": (tuples | below) if old else below,
        "allOf": some,
        "anyOf": some,
        "oneOf": some,
        "not": inner,
        "if": inner,
        "then": inner,
        "contains": below,
        **({"additionalItems": below} if old else {"prefixItems": tuples, "unevaluatedProperties": below}),
    }
    return st.lists(st.sampled_from(sorted(keywords)), max_size=4, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: keywords[name] for name in names})
    )


def whole(*, old: bool) -> st.SearchStrategy[Any]:
    part = st.recursive(st.booleans(), lambda inner: schemas(inner, old=old), max_leaves=6)
    anchor = {"$id": "#anchor"} if old else {"$anchor": "anchor"}
    draft = {"$schema": "http://json-schema.org/draft-07/schema#"} if old else {}
    first = st.just({}) | st.just({"$ref": "#/definitions/one"})
    return st.builds(
        lambda start, root, one, two: {
            **draft,
            **start,
            **root,
            "definitions": {DEFINITIONS[0]: one, DEFINITIONS[1]: two, "c": anchor},
        },
        first,
        schemas(part, old=old),
        part,
        part,
    )


def paths(errors: Any) -> set[str]:
    """Of all errors, those within branches too."""
    found = set()
    stack = list(errors)
    while stack:
        error = stack.pop()
        found.add("value" + "".join(step(p) if isinstance(p, str) else f"[{p}]" for p in error.absolute_path))
        stack += error.context
    return found


def compare(schema: Any, value: Any, reference: Any) -> None:
    check = Check(schema, "file:///schemas/a.json", {})
    said = None
    try:
        check(value, "value")
    except DecodeError as error:
        said = error
    try:
        expected = paths(reference(schema).iter_errors(value))
    except TypeError:  # it takes no boolean for items
        assume(False)
    assert (said is not None) == bool(expected)
    if said is not None:
        assert "secret@" not in said.message
        # `items: false` is told of the list there, and of the item that it does not allow here
        parent = _LAST_STEP.sub("", said.path) if "(false)" in said.message else said.path
        assert (
            said.path in expected
            or parent in expected
            or (said.message.endswith(_WHOLE) and any(path.startswith(said.path) for path in expected))
        )


@settings(max_examples=examples(600), deadline=None)
@given(whole(old=False), VALUES)
def test_the_place_that_is_told_is_one_of_an_error(schema: Any, value: Any) -> None:
    compare(schema, value, Draft202012Validator)


@settings(max_examples=examples(300), deadline=None)
@given(whole(old=True), VALUES)
def test_so_it_is_in_draft_07(schema: Any, value: Any) -> None:
    compare(schema, value, Draft7Validator)


URIS = st.sampled_from(["#", "#/definitions/a", "#/definitions/%zz", "#x", "", "http://[", "b.json", "b.json#/x"])
ODD = URIS | st.sampled_from(
    [
        "file:///%00",
        "//",
        "urn:a",
        "~",
        "\ufffe",
        "http://json-schema.org/draft-07/schema#",
        "http://json-schema.org/draft-04/schema#",
    ]
)
KEYWORDS = st.one_of(
    st.sampled_from(["$ref", "$id", "id", "$schema", "$dynamicRef", "$anchor", "$vocabulary", "definitions", "$defs"]),
    st.sampled_from(["type", "properties", "items", "required", "enum", "pattern", "format", "allOf", "oneOf"]),
    st.sampled_from(["minLength", "dependencies", "additionalProperties", "if", "then", "patternProperties"]),
)
DOCUMENTS = st.recursive(
    SCALARS | ODD | TYPES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYWORDS | NAMES, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=examples(800), deadline=None)
@given(st.dictionaries(KEYWORDS, DOCUMENTS, max_size=4), DOCUMENTS, VALUES)
def test_any_document_is_a_schema_or_a_mistake(document: Any, beside: Any, value: Any) -> None:
    """Whatever stands in the files, it can be compared with, or is told as one mistake."""

    def at_uri(uri: str) -> str | None:
        return json.dumps(beside) if uri.endswith("b.json") else None

    try:
        schema = parse(json.dumps(document), Path("/schemas/a.json"), lambda name: None, at_uri)
    except SchemaError as error:
        assert error.message
        return
    decoder = decoder_for("json", schemas=TopicSchemas(schema))
    with contextlib.suppress(DecodeError):
        decoder.decode(Record("t", 0, 1, 1, None, json.dumps({"type": "a", "data": value}).encode()))
