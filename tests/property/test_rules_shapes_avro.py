"""Avro schemas as shapes, against the decoder: what it makes of any value lies within the shape."""

from __future__ import annotations

import datetime
import io
from copy import deepcopy
from typing import Any

import fastavro
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.decode.avro_reader import AvroReader
from bridge.errors import DecodeError
from bridge.rules.shapes.avro import from_avro
from tests.support.amount import examples
from tests.support.shapes import holds

INTS = st.integers(-(2**31), 2**31 - 1)
LONGS = st.integers(-(2**62), 2**62)
Kind = tuple[Any, st.SearchStrategy[Any]]
"""A type, and values of it as they are written; logical types as the plain value under them."""


def logical(kind: str, name: str, values: st.SearchStrategy[Any], **more: Any) -> Kind:
    return {"type": kind, "logicalType": name, **more}, values


PLAIN: list[Kind] = [
    ("null", st.none()),
    ("boolean", st.booleans()),
    ("int", INTS),
    ("long", LONGS),
    ("double", st.floats(allow_nan=False, allow_infinity=False)),
    ("string", st.text(max_size=3)),
    ("bytes", st.binary(max_size=3)),
    logical("int", "date", INTS),
    logical("int", "time-millis", st.integers(0, 86_399_999)),
    logical("long", "time-micros", st.integers(0, 86_399_999_999)),
    logical("long", "timestamp-millis", st.integers(-(10**12), 10**13)),
    logical("long", "timestamp-micros", st.integers(-(10**15), 10**16)),
    logical("long", "local-timestamp-millis", st.integers(-(10**12), 10**13)),
    logical("bytes", "decimal", st.binary(min_size=1, max_size=4), precision=9, scale=2),
    logical("string", "uuid", st.uuids().map(str)),
    logical("int", "timestamp-millis", INTS),
    logical("long", "date", LONGS),
    logical("string", "colour", st.text(max_size=2)),
]


def composed(inner: st.SearchStrategy[Kind]) -> st.SearchStrategy[Kind]:
    return st.one_of(
        inner.filter(lambda kind: kind[0] != "null").map(
            lambda kind: ({"type": "array", "items": kind[0]}, st.lists(kind[1], max_size=2))
        ),
        inner.map(
            lambda kind: (
                {"type": "map", "values": kind[0]},
                st.dictionaries(st.sampled_from(["a", "b"]), kind[1], max_size=2),
            )
        ),
        inner.filter(lambda kind: kind[0] != "null" and not isinstance(kind[0], list)).map(
            lambda kind: (["null", kind[0]], st.one_of(st.none(), kind[1]))
        ),
    )


KINDS = st.recursive(st.sampled_from(PLAIN), composed, max_leaves=3)


def record(kinds: list[Kind]) -> tuple[Any, st.SearchStrategy[Any]]:
    named = [{"type": "enum", "name": "Plan", "namespace": "other", "symbols": ["FREE", "PRO"]},
             {"type": "fixed", "name": "Two", "size": 2}]  # fmt: skip
    values = [*(values for _, values in kinds), st.sampled_from(["FREE", "PRO"]), st.binary(min_size=2, max_size=2)]
    fields = [
        {"name": f"f{number}", "type": kind} for number, kind in enumerate([*(each[0] for each in kinds), *named])
    ]
    again = ["null", "other.Plan", "Two", "acme.R"]
    fields.append({"name": "again", "type": again})
    every = st.fixed_dictionaries({f"f{number}": each for number, each in enumerate(values)})
    inner = every.map(lambda value: {**value, "again": None})
    value = st.tuples(every, st.one_of(st.none(), inner)).map(lambda pair: {**pair[0], "again": pair[1]})
    return {"type": "record", "name": "R", "namespace": "acme", "fields": fields}, value


CASES = st.lists(KINDS, min_size=1, max_size=3).map(record).flatmap(lambda case: st.tuples(st.just(case[0]), case[1]))


def without_logical(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {key: without_logical(value) for key, value in schema.items() if key != "logicalType"}
    return [without_logical(each) for each in schema] if isinstance(schema, list) else schema


@settings(max_examples=examples(400))
@given(CASES)
def test_a_shape_holds_what_the_decoder_makes(case: tuple[Any, Any]) -> None:
    """Bytes of any schema are read, and the value is one that the schema's shape knows."""
    schema, value = case
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(without_logical(deepcopy(schema))), value)
    try:
        read = AvroReader(deepcopy(schema)).read(stream.getvalue()).value
    except DecodeError:
        return  # a time beyond what can be told
    assert not isinstance(read["f0"], datetime.date)
    assert holds(from_avro(schema), read), (schema, read)
