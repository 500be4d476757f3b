"""Damaged, truncated and foreign records: in every format each one is an event, filtered, or a DecodeError that shows
nothing of what the record holds. Real records of other tools are what the damage begins with (tests/data/formats)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.decode import DebeziumDecoder, Decoder, Schema, TopicSchemas, decoder_for
from bridge.decode.avro import AvroDecoder
from bridge.errors import DecodeError
from bridge.model import Event, Record
from tests.support.amount import THOROUGH, examples
from tests.support.avro import fixture, fixture_names, knowing_all
from tests.support.formats import cloud_events, debezium, debezium_avro

SECRET = "s3cr3t!@example.com"
"""Stands in headers and values of damaged records, and must not stand in a message."""
EMAIL = {"properties": {"email": {"type": "string", "format": "email", "pattern": "^[a-z]+@"}}, "required": ["email"]}
SCHEMA = {
    "properties": {
        **EMAIL["properties"],  # type: ignore[dict-item]
        "op": {"enum": ["c"]},
        "after": {"anyOf": [EMAIL | {"additionalProperties": False}, {"type": "null"}]},
        "data": EMAIL,
        "type": {"const": "user.signed_up"},
        "source": {"oneOf": [{"type": "string", "maxLength": 5}, {"required": ["table"]}]},
    },
    "additionalProperties": {"type": ["string", "null"]},
}
JSON_EVENTS = [
    b'{"id": "evt_1", "type": "user.signed_up", "time": "2026-11-22T08:54:17Z", "data": {"email": "ada@example.com"}}',
    b'{"type": "plan.changed", "time": 1795337657123, "data": [1, 2.5e3, "\\u00fc", null, true, {"a": {}}]}',
]


@cache
def records() -> Sequence[Record]:
    """What other tools wrote, in all formats: each decoder gets each of them."""
    return (
        *(Record("user-events", 0, 1, 1_795_373_100_000, b"u_7", value) for value in JSON_EVENTS),
        *cloud_events().values(),
        *debezium("plain"),
        *debezium("with-schema"),
        *(fixture(name) for name in fixture_names()),
        *debezium_avro()[0],
    )


@cache
def decoders() -> Sequence[Decoder]:
    """Every format, with and without a schema to be compared with."""
    compared = TopicSchemas(Schema("json", SCHEMA))
    plain = [decoder_for(format) for format in ("json", "cloudevents", "debezium")]
    checked = [decoder_for(format, schemas=compared) for format in ("json", "cloudevents", "debezium")]
    return (*plain, *checked, AvroDecoder(VALUES), DebeziumDecoder(ROWS.fields))


VALUES = knowing_all()
ROWS = debezium_avro()[1]


def answer(decoder: Decoder, record: Record) -> Event | DecodeError | None:
    """Anything else that is raised fails the test."""
    for values in (VALUES, ROWS):
        unknown = values.lacks(record)
        if unknown is not None:
            values.refuse(unknown, "the registry knows no such schema")
    try:
        event = decoder.decode(record)
    except DecodeError as error:
        assert error.message and SECRET not in error.message
        assert "s3cr3t" not in error.path and "memory" not in error.message
        assert len(error.message) < 500, "a message holds no content, so it is short"
        return error
    if event is not None:
        assert event.type and event.id and event.time and isinstance(event.time_wall_seconds, float | int)
        json.dumps(event.data)  # plain values, that rules and requests can hold
        assert all(isinstance(text, str) for text in event.headers.values())
    return event


# Damage to bytes

Damage = Callable[[bytes], bytes]
PLACES = st.integers(0, 2**20)
ODD = st.sampled_from(
    [b"\x00", b"\xff", b"\xed\xa0\x80", b"{", b"}", b"[", b'"', b"\\", b",", b"-", b"9" * 40, b"1e999", b"NaN", b"null"]
) | st.sampled_from(
    [
        b"[" * 300,
        b'{"a":' * 300,
        b"\x00\x00\x00\x00\x07",
        b"\xef\xbb\xbf",
        b"\xfe" * 9 + b"\x01",
        b"\x80" * 12,
        b"Obj\x01",
        b"PAR1",
        "ü".encode("utf-16"),
        SECRET.encode(),
        b'"' + SECRET.encode(),
    ]
)


def truncated(place: int) -> Damage:
    return lambda raw: raw[: place % (len(raw) + 1)]


def flipped(place: int, bit: int) -> Damage:
    def damage(raw: bytes) -> bytes:
        at = place % max(1, len(raw))
        return raw[:at] + bytes([raw[at] ^ (1 << bit)]) + raw[at + 1 :] if raw else raw

    return damage


def inserted(place: int, odd: bytes) -> Damage:
    def damage(raw: bytes) -> bytes:
        at = place % (len(raw) + 1)
        return raw[:at] + odd + raw[at:]

    return damage


def replaced(place: int, length: int, odd: bytes) -> Damage:
    def damage(raw: bytes) -> bytes:
        at = place % (len(raw) + 1)
        return raw[:at] + odd + raw[at + length :]

    return damage


def spliced(place: int, other: Record) -> Damage:
    def damage(raw: bytes) -> bytes:
        tail = other.value or b""
        return raw[: place % (len(raw) + 1)] + tail[place % (len(tail) + 1) :]

    return damage


# Damage to what a JSON document says

STRANGE = st.sampled_from([None, True, 0, -1, 1.5, 2**63, 10**18, 1e300]) | st.sampled_from(
    [
        "",
        SECRET,
        "c",
        "0.3",
        "2026-11-22",
        "A" * 2000,
        [],
        {},
        [[]],
        {SECRET: SECRET},
        {"$oid": 7},
        {"$date": 1e17},
        {"scale": 10**9, "value": "Kg=="},
    ]
)


def rewritten(place: int, strange: Any) -> Damage:
    """Something in the document becomes something else."""

    def damage(raw: bytes) -> bytes:
        try:
            document = json.loads(raw)
        except ValueError:
            return raw
        slots: list[tuple[Any, Any]] = []
        stack = [document]
        while stack:
            node = stack.pop()
            below = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
            for key, child in below:
                slots.append((node, key))
                stack.append(child)
        if not slots:
            return raw
        node, key = slots[place % len(slots)]
        node[key] = strange
        return json.dumps(document).encode()

    return damage


DAMAGES = st.one_of(
    st.builds(truncated, PLACES),
    st.builds(flipped, PLACES, st.integers(0, 7)),
    st.builds(inserted, PLACES, ODD),
    st.builds(replaced, PLACES, st.integers(0, 50), ODD),
    st.builds(spliced, PLACES, st.deferred(lambda: st.sampled_from(records()))),
)
REWRITES = st.builds(rewritten, PLACES, STRANGE)
NAMES = st.sampled_from(["content-type", "Content-Type", "__value_schema_id", SECRET, ""]) | st.sampled_from(
    [f"ce_{name}" for name in ("specversion", "id", "type", "source", "time", "subject", "datacontenttype", "", SECRET)]
)
CONTENTS = st.one_of(
    st.none(),
    st.binary(max_size=30),
    st.sampled_from([b"", b"\xff", b"1.0", b"0.3", b"2026-11-22T08:54:17Z", SECRET.encode(), b"a" * 5000]),
    st.sampled_from(
        [
            b"application/json",
            b"application/json; charset=utf-16",
            b"text/plain",
            b"text/plain; charset=punycode",
            b"application/octet-stream",
            b"application/cloudevents+json",
            b"application/cloudevents-batch+json",
            b"application/cloudevents+avro",
            b"application/xml; charset=" + SECRET.encode(),
        ]
    ),
)


@st.composite
def damaged(draw: st.DrawFn) -> Record:
    record = draw(st.sampled_from(records()))
    value = record.value
    for damage in draw(st.lists(REWRITES, max_size=3) | st.lists(DAMAGES | REWRITES, max_size=4)):
        value = None if value is None else damage(value)
    headers = list(record.headers)
    for name, content in draw(st.lists(st.tuples(NAMES, CONTENTS), max_size=3)):
        if draw(st.booleans()):
            headers = [each for each in headers if each[0] != name]
        headers.insert(draw(st.integers(0, len(headers))), (name, content))
    if draw(st.integers(0, 9)) == 0:
        headers = []
    timestamp_ms = draw(st.sampled_from([record.timestamp_ms, -1, 0, 2**62]))
    return record._replace(value=value, headers=tuple(headers), timestamp_ms=timestamp_ms)


@settings(max_examples=examples(1500), deadline=None)
@given(damaged())
def test_every_damaged_record_has_a_defined_answer(record: Record) -> None:
    for decoder in decoders():
        answer(decoder, record)


@settings(max_examples=examples(300), deadline=None)
@given(st.binary(max_size=200), st.lists(st.tuples(NAMES, CONTENTS), max_size=4))
def test_bytes_of_no_format_have_a_defined_answer(value: bytes, headers: list[tuple[str, bytes | None]]) -> None:
    for decoder in decoders():
        answer(decoder, Record("t", 0, 1, 1_795_373_100_000, None, value, tuple(headers)))


def test_undamaged_records_are_events_in_their_own_format() -> None:
    """Else the damage above would begin with records that nothing can be said of."""
    for decoder, written in (
        (decoder_for("cloudevents"), cloud_events().values()),
        (decoder_for("debezium"), debezium("with-schema")),
        (DebeziumDecoder(ROWS.fields), debezium_avro()[0]),
    ):
        events = [answer(decoder, each) for each in written]
        assert sum(isinstance(event, Event) for event in events) >= len(events) / 2
    assert all(isinstance(answer(AvroDecoder(VALUES), fixture(name)), Event | None) for name in fixture_names())


def test_no_record_takes_more_than_its_share() -> None:
    """Much (in CI a megabyte) of whatever is worst for a decoder: this test would not end, or not fit, were one not
    bounded."""
    size = 1_000_000 if THOROUGH else 100_000
    worst = [
        b"[" * size,
        b'{"a":' * (size // 5),
        b'{"specversion": ' + b"9" * size + b"}",
        b'{"op": "c", "after": [' + b"1," * (size // 2) + b"1]}",
        b'{"schema": {"name": "x"}, "payload": {"op": "c", "ts_ms": ' + b"1" * size + b"}}",
        b'{"type": "a", "data": {' + b",".join(b'"%d": 1' % number for number in range(size // 12)) + b"}}",
        b'{"type": "a", "time": "' + b"2" * size + b'"}',
        b"\x00" * size,
        b"\x00\x00\x00\x00\x01" + b"\xff" * size,
        b"\xff" * size,
        b" " * size,
    ]
    for value in worst:
        for headers in ((), (("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_type", b"t"), ("ce_source", b"s"))):
            for decoder in decoders():
                answer(decoder, Record("t", 0, 1, 1_795_373_100_000, None, value, headers))
