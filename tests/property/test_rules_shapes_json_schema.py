"""JSON Schemas as shapes, against a validator: a shape holds every value that the schema lets through."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.rules.shapes.json_schema import from_json_schema
from tests.support.amount import examples
from tests.support.shapes import holds

NAMES = ["a", "b", "type"]
PLAIN: list[Any] = [None, True, False, 0, 1, 2.5, "", "a", "x"]

VALUES = st.recursive(
    st.sampled_from(PLAIN),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(st.sampled_from([*NAMES, "z"]), inner, max_size=3)
    ),
    max_leaves=5,
)
TYPES = ["null", "boolean", "number", "integer", "string", "array", "object"]


def schemas_from(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    parts = st.lists(inner, min_size=1, max_size=2)
    objects = st.fixed_dictionaries(
        {"type": st.just("object")},
        optional={
            "properties": st.dictionaries(st.sampled_from(NAMES), inner, max_size=3),
            "required": st.lists(st.sampled_from(NAMES), unique=True, max_size=2),
            "additionalProperties": st.one_of(st.booleans(), inner),
            "patternProperties": st.dictionaries(st.sampled_from(["^a", "z"]), inner, max_size=1),
            "unevaluatedProperties": st.just(False),
            "allOf": parts,
        },
    )
    arrays = st.fixed_dictionaries({"type": st.just("array")}, optional={"items": inner, "prefixItems": parts})
    combined = st.one_of(
        *(st.fixed_dictionaries({word: parts}) for word in ("allOf", "anyOf", "oneOf")),
        st.fixed_dictionaries({"allOf": parts, "anyOf": parts}),
        st.fixed_dictionaries({"type": st.sampled_from(TYPES), "anyOf": parts}),
        st.fixed_dictionaries({"$ref": st.sampled_from(["#/$defs/one", "#/$defs/two"])}, optional={"allOf": parts}),
        st.fixed_dictionaries({"not": inner}),
        st.fixed_dictionaries({"if": inner, "then": inner}, optional={"else": inner}),
    )
    return st.one_of(objects, objects, arrays, combined)


LEAVES = st.one_of(
    st.booleans(),
    st.just({}),
    st.sampled_from(TYPES).map(lambda kind: {"type": kind}),
    st.lists(st.sampled_from(TYPES), min_size=1, max_size=3, unique=True).map(lambda kinds: {"type": kinds}),
    st.sampled_from(PLAIN).map(lambda value: {"const": value}),
    st.lists(st.sampled_from(["a", "x", 1, None, True]), min_size=1, max_size=3, unique_by=repr).map(
        lambda values: {"enum": values}
    ),
    st.just({"$ref": "#/$defs/one"}),
)
SCHEMAS = st.builds(
    lambda schema, one, two: {"allOf": [schema], "$defs": {"one": one, "two": two}},
    st.recursive(LEAVES, schemas_from, max_leaves=8),
    st.recursive(LEAVES.filter(lambda leaf: "$ref" not in str(leaf)), schemas_from, max_leaves=3),
    st.sampled_from([{"type": "string"}, {"type": "object", "properties": {"a": {"$ref": "#/$defs/two"}}}]),
)


@settings(max_examples=examples(800))
@given(SCHEMAS, st.lists(VALUES, min_size=1, max_size=8))
def test_a_shape_holds_all_that_the_schema_lets_through(schema: Any, values: list[Any]) -> None:
    """What a validator accepts lies within the shape, so nothing that follows from the shape is a false alarm."""
    try:
        validator = jsonschema_rs.validator_for(schema)
    except (jsonschema_rs.ValidationError, ValueError):
        return  # a circle of references that no value gets out of
    shape = from_json_schema(schema)
    for value in values:
        if validator.is_valid(value):
            assert holds(shape, value), (schema, value)


ANYTHING = st.recursive(
    st.one_of(st.sampled_from([None, True, -1, "", "#", "#/$defs/a", "object", "%", "//["]), st.text(max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ["type", "properties", "required", "items", "allOf", "anyOf", "$ref", "$id", "$anchor", "$defs", "enum",
                 "const", "additionalProperties", "patternProperties", "prefixItems", "unevaluatedProperties", "a"]
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=15,
)  # fmt: skip


@settings(max_examples=examples(400))
@given(ANYTHING, ANYTHING)
def test_no_document_breaks_the_reader(schema: Any, value: Any) -> None:
    """Whatever stands where a schema should, there is a shape, and what it says can be looked at."""
    shape = from_json_schema(schema, "file:///s/x.json", {"file:///s/a": value})
    assert holds(shape, value) in (True, False)
