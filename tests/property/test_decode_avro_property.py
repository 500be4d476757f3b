"""Any schema, any value, any bytes: Avro is read as it was written, and damage is told in one way."""

from __future__ import annotations

import base64
import itertools
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.decode import Schema
from bridge.decode.avro_reader import AvroReader
from bridge.errors import DecodeError
from tests.support.amount import examples
from tests.support.avro import avro

Pair = tuple[Any, Any]
"""What is written, and what rules see of it."""
Typed = tuple[Any, st.SearchStrategy[Pair]]
"""A schema, and its values."""


def same(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Pair]:
    return values.map(lambda value: (value, value))


def coded(raw: bytes) -> Pair:
    return raw, base64.b64encode(raw).decode()


LEAVES: list[Typed] = [
    ("null", same(st.none())),
    ("boolean", same(st.booleans())),
    ("int", same(st.integers(-(2**31), 2**31 - 1))),
    ("long", same(st.integers(-(2**63), 2**63 - 1))),
    ("double", st.floats().map(lambda value: (value, value if value - value == 0 else None))),
    ("string", same(st.text(max_size=5))),
    ("bytes", st.binary(max_size=5).map(coded)),
]


@st.composite
def types(draw: st.DrawFn, names: Any, depth: int) -> Typed:
    """A schema that nests at most so deep."""
    kinds = ["leaf", "leaf", "enum", "fixed"] + (["record", "array", "map", "union"] if depth else [])
    kind = draw(st.sampled_from(kinds))
    if kind == "leaf":
        return draw(st.sampled_from(LEAVES))
    if kind == "enum":
        return {"type": "enum", "name": f"N{next(names)}", "symbols": ["a", "b"]}, same(st.sampled_from("ab"))
    if kind == "fixed":
        schema = {"type": "fixed", "name": f"N{next(names)}", "size": 3}
        return schema, st.binary(min_size=3, max_size=3).map(coded)
    if kind == "record":
        name = f"N{next(names)}"
        fields = {f"f{number}": draw(types(names, depth - 1)) for number in range(draw(st.integers(1, 3)))}
        schema = {
            "type": "record",
            "name": name,
            "fields": [{"name": key, "type": of[0]} for key, of in fields.items()],
        }
        return schema, st.fixed_dictionaries({key: of[1] for key, of in fields.items()}).map(_object)
    if kind == "union":
        schema, values = draw(types(names, 0).filter(lambda of: of[0] != "null"))
        return ["null", schema], st.just((None, None)) | values
    schema, values = draw(types(names, depth - 1).filter(lambda of: of[0] != "null" or kind == "map"))
    if kind == "map":
        return {"type": "map", "values": schema}, st.dictionaries(st.text(max_size=3), values, max_size=3).map(_object)
    return {"type": "array", "items": schema}, st.lists(values, max_size=3).map(lambda items: _items(items))


def _object(pairs: dict[str, Pair]) -> Pair:
    return {key: pair[0] for key, pair in pairs.items()}, {key: pair[1] for key, pair in pairs.items()}


def _items(pairs: list[Pair]) -> Pair:
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


@st.composite
def records(draw: st.DrawFn) -> tuple[Any, Any, Any]:
    """A schema, a value to be written, and what rules see of it."""
    names = itertools.count()
    schema, values = draw(types(names, 3))
    return {"type": "record", "name": "Top", "fields": [{"name": "x", "type": schema}]}, *draw(values)


def bounded(schema: Any) -> bool:
    """Lists of records that may hold nothing are refused: their length is bounded by nothing."""
    text = json.dumps(schema)
    return '"array"' not in text or '"null"' not in text


@given(records().filter(lambda made: bounded(made[0])))
@settings(max_examples=examples(300), deadline=None)
def test_what_was_written_is_read_with_and_without_a_readers_schema(made: tuple[Any, Any, Any]) -> None:
    """Values are plain, and reading by the same schema changes nothing."""
    schema, written, expected = made
    raw = avro(schema, {"x": written})
    for reader in (AvroReader(schema), AvroReader(schema, (), Schema("avro", schema))):
        found = reader.read(raw).value["x"]
        assert found == expected
        json.dumps(found, allow_nan=False)
    for end in range(len(raw)):
        try:
            AvroReader(schema).read(raw[:end])
        except DecodeError:
            continue
        raise AssertionError("a part passed for the whole")


RECURSIVE = {
    "type": "record",
    "name": "Top",
    "fields": [
        {"name": "x", "type": ["null", "Top", {"type": "array", "items": "Top"}, {"type": "map", "values": "Top"}]},
        {"name": "s", "type": ["string", "bytes", "double", {"type": "int", "logicalType": "time-millis"}]},
    ],
}
BYTES = st.binary(max_size=60) | st.lists(st.sampled_from([0, 1, 2, 3, 4, 6, 0x7F, 0x80, 0xFF]), max_size=300).map(
    bytes
)


@given(st.one_of(st.just(RECURSIVE), records().map(lambda made: made[0]).filter(bounded)), BYTES)
@settings(max_examples=examples(500), deadline=None)
def test_any_bytes_are_a_value_or_a_decode_error(schema: Any, raw: bytes) -> None:
    """Nothing else is raised, whatever stands where lengths, counts and arms are; by a reader's schema too."""
    for reader in (AvroReader(schema), AvroReader(schema, (), Schema("avro", schema))):
        try:
            named = reader.read(raw)
        except DecodeError as error:
            assert len(error.message) < 200
        else:
            json.dumps(named.value, allow_nan=False)
