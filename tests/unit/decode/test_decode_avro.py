"""Avro records become events: local schemas, the registry's framing, and the values that rules see."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from bridge.decode import Decoder, Envelope, Schema, SchemaError, TopicSchemas, decoder_for, values_in_avro
from bridge.decode.avro import SCHEMAS_MAX, AvroDecoder, SchemaNotAtHand, WireAvro
from bridge.decode.avro_reader import AvroReader
from bridge.errors import DecodeError
from bridge.model import Event, Record
from tests.support.avro import avro, confluent, fixture, fixture_names, framed, java, knowing_all

GUID = "00112233-4455-6677-8899-aabbccddeeff"
PLAN = {
    "type": "record",
    "name": "PlanChanged",
    "namespace": "com.acme",
    "fields": [{"name": "email", "type": "string"}, {"name": "plan", "type": "string"}],
}
ADA = {"email": "ada@example.com", "plan": "pro"}


def record(value: bytes | None, headers: tuple[tuple[str, bytes | None], ...] = (), timestamp_ms: int = 1000) -> Record:
    return Record("user-events", 2, 7, timestamp_ms, None, value, headers)


def one_field(type: Any) -> dict[str, Any]:
    return {"type": "record", "name": "A", "fields": [{"name": "x", "type": type}]}


def seen(type: Any, value: Any) -> Any:
    """What rules see of a value that was written with this type."""
    schema = one_field(type)
    return AvroReader(schema).read(avro(schema, {"x": value})).value["x"]


def decoder(schema: Any, envelope: Envelope | None = None) -> Decoder:
    values = values_in_avro(TopicSchemas(Schema("avro", schema)), registry=False)
    return decoder_for("avro", values=values, envelope=envelope)


def event(schema: Any, value: Any, envelope: Envelope | None = None) -> Event:
    made = decoder(schema, envelope).decode(record(avro(schema, value)))
    assert made is not None
    return made


def refusal(values: WireAvro, at: Record) -> str:
    with pytest.raises(DecodeError) as caught:
        values.read(at)
    return caught.value.message


# What Confluent's own client wrote


def test_every_type_that_confluents_client_writes_has_its_plain_value() -> None:
    """Exact decimals and large integers, times in UTC, nothing that JSON cannot say."""
    named = knowing_all().read(fixture("all types"))
    assert named is not None and named.name == "AllTypes"
    assert named.value == {
        "nothing": None,
        "flag": True,
        "small": -7,
        "large": 9_007_199_254_740_993,
        "half": 0.5,
        "third": 1 / 3,
        "not_a_number": None,
        "raw": "AP9yYXc=",
        "text": "Zoë ✓",
        "plan": "pro",
        "hash": "AQIDBA==",
        "tags": ["a", "b"],
        "scores": {"logins": 12},
        "maybe": None,
        "former_plan": "free",
        "address": {"city": "Zürich"},
        "other_address": {"city": "Bern"},
        "price": "12.50",
        "debt": "-0.005",
        "user": "12345678-1234-5678-1234-567812345678",
        "born": "1999-12-31",
        "wakes": "06:30:00.005",
        "sleeps": "22:00:00.000001",
        "at": "2026-11-22T12:30:00.123Z",
        "exactly": "2026-11-22T12:30:00.123456Z",
        "there": "2026-11-22T12:30:00",
    }
    assert json.loads(json.dumps(named.value, allow_nan=False)) == named.value


def test_what_avros_own_java_library_writes_is_read() -> None:
    """Another implementation, and the types that are new in Avro 1.12."""
    schema, raw = java()["all types"]
    assert AvroReader(schema).read(raw).value == {
        "at": "2026-11-22T12:30:00.123Z",
        "micros": "2026-11-22T12:30:00.123456Z",
        "nanos": "2026-11-22T12:30:00.123456789Z",
        "there": "2026-11-22T12:30:00",
        "never": "+292278994-08-17T07:12:55.807Z",
        "born": "1999-12-31",
        "wakes": "06:30:00.005",
        "sleeps": "22:00:00.000001",
        "price": "12345678901234567890.1234",
        "debt": "-0.005",
        "exact": "-12.3400",
        "trial": "P1M14DT1.500S",
        "user": "12345678-1234-5678-1234-567812345678",
        "ratio": 0.25,
        "raw": "AAH/",
    }
    schema, raw = java()["a recursive type"]
    leaf: Any = {"name": "leaf", "teams": [], "owners": {}}
    assert AvroReader(schema).read(raw).value == {
        "name": "top",
        "teams": [leaf, {"name": "middle", "teams": [leaf], "owners": {}}],
        "owners": {"nobody": None, "somebody": leaf},
    }
    schema, raw = java()["blocks that tell their size"]
    teams = AvroReader(schema).read(raw).value["teams"]
    assert [team["name"] for team in teams] == [f"team {number}" for number in range(20)]


@pytest.mark.parametrize("name", ["version 1", "id in a header", "a union of records"])
def test_framings_of_confluents_client(name: str) -> None:
    """An id before the value, a GUID in a header, a union of record types with references: the same record."""
    values = knowing_all()
    at = fixture(name)
    assert values.lacks(at) is None
    made = AvroDecoder(values).decode(at)
    assert made is not None
    assert (made.type, made.data, made.id) == ("PlanChanged", ADA, "user-events/0/0")


def test_a_referenced_type_and_an_envelope_of_confluents_client() -> None:
    """The envelope's fields are the event's; its data is of a type that stands under another subject."""
    made = AvroDecoder(knowing_all()).decode(fixture("a reference"))
    assert made is not None
    assert (made.id, made.type) == ("00000000-0000-0000-0000-000000000007", "plan.changed")
    assert (made.time, made.data) == ("2026-11-22T12:30:00Z", ADA)


def test_an_unknown_schema_is_named_before_the_record_begins() -> None:
    """By id or by GUID; learnt, it is lacking no more. To decode without it is a bug, and no dead letter."""
    values = WireAvro()
    first = confluent()["schemas"][0]
    assert {name: values.lacks(fixture(name)) for name in fixture_names()} == {
        "all types": first["id"],
        "version 1": 2,
        "version 2": 3,
        "id in a header": next(each["guid"] for each in confluent()["schemas"] if each["id"] == 2),
        "a reference": 4,
        "a union of records": 5,
    }
    with pytest.raises(SchemaNotAtHand):
        values.read(fixture("version 1"))
    assert values.learn(2, json.dumps(PLAN)) is None
    assert values.lacks(fixture("version 1")) is None and values.lacks(fixture("version 2")) == 3
    values.forget(2)
    assert values.lacks(fixture("version 1")) == 2


# Evolution


def test_a_readers_schema_gives_old_and_new_records_one_shape() -> None:
    """Fields that the reader lacks are left out, new ones have their default, both ways."""
    schemas = {each["id"]: each["schema"] for each in confluent()["schemas"]}
    for reader, expected in (
        (2, [ADA, ADA]),
        (3, [{**ADA, "seats": 1, "at": None}, {**ADA, "seats": 5, "at": "2026-11-22T12:30:00Z"}]),
    ):
        values = WireAvro(TopicSchemas(Schema("avro", json.loads(schemas[reader]))))
        for id in (2, 3):
            assert values.learn(id, schemas[id]) is None
        read = [values.read(fixture(name)) for name in ("version 1", "version 2")]
        assert [named and named.value for named in read] == expected


def test_a_reader_of_one_type_leaves_the_others_as_they_were_written() -> None:
    """A map of schemas applies to records of the same full name."""
    reader = {**PLAN, "fields": [PLAN["fields"][1]]}
    values = WireAvro(TopicSchemas(by_type={"plan.changed": Schema("avro", reader)}))
    other = {**PLAN, "name": "SignedUp"}
    assert values.learn(1, json.dumps(PLAN)) is None and values.learn(2, json.dumps(other)) is None
    body = avro(PLAN, ADA)
    read = [values.read(record(framed(id, body))) for id in (1, 2)]
    assert [named and (named.name, named.value) for named in read] == [
        ("PlanChanged", {"plan": "pro"}),
        ("SignedUp", ADA),
    ]


def test_the_readers_logical_type_counts_and_numbers_are_promoted() -> None:
    """As Avro's resolution says: the value is what the reader's schema calls it."""
    written = {
        "type": "record",
        "name": "A",
        "fields": [
            {"name": "was_plain", "type": "long"},
            {"name": "was_time", "type": {"type": "long", "logicalType": "timestamp-millis"}},
            {"name": "count", "type": "int"},
            {"name": "note", "type": "bytes"},
            {"name": "name", "type": "string"},
            {"name": "old", "type": ["null", "long"]},
        ],
    }
    read = {
        "type": "record",
        "name": "B",
        "aliases": ["A"],
        "fields": [
            {"name": "was_plain", "type": {"type": "long", "logicalType": "timestamp-millis"}},
            {"name": "was_time", "type": "long"},
            {"name": "count", "type": "double"},
            {"name": "note", "type": "string"},
            {"name": "name", "type": "bytes"},
            {"name": "new", "aliases": ["old"], "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}]},
            {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 1},
             "default": "\u0005"},
            {"name": "hash", "type": "bytes", "default": "\u00ff"},
            {"name": "at", "type": [{"type": "int", "logicalType": "date"}, "null"], "default": 0},
            {"name": "nested", "type": {"type": "record", "name": "C", "fields": [
                {"name": "raw", "type": "bytes", "default": "\u0001"}]}, "default": {}},
            {"name": "many", "type": {"type": "array", "items": "bytes"}, "default": ["a"]},
            {"name": "by", "type": {"type": "map", "values": "double"}, "default": {"a": 1.5}},
        ],
    }  # fmt: skip
    value = {"was_plain": 1, "was_time": 2, "count": 3, "note": b"hello", "name": "x", "old": 4}
    named = AvroReader(written, (), Schema("avro", read)).read(avro(written, value))
    assert named.name == "B"
    assert named.value == {
        "was_plain": "1970-01-01T00:00:00.001Z",
        "was_time": 2,
        "count": 3.0,
        "note": "hello",
        "name": "eA==",
        "new": "1970-01-01T00:00:00.000004Z",
        "price": "0.5",
        "hash": "/w==",
        "at": "1970-01-01",
        "nested": {"raw": "AQ=="},
        "many": ["YQ=="],
        "by": {"a": 1.5},
    }


def test_the_readers_schema_may_be_a_union_of_several_files_types() -> None:
    """Each record is read by the arm of its name, and keeps the name that it was written under."""
    other = {"type": "record", "name": "acme.Other", "fields": [{"name": "n", "type": "int", "default": 3}]}
    union = Schema("avro", ["acme.Other", {**PLAN, "fields": [PLAN["fields"][1]]}], others={"acme.Other": other})
    values = WireAvro(TopicSchemas(union))
    empty = {**other, "fields": []}
    assert values.learn(1, json.dumps(PLAN)) is None and values.learn(2, json.dumps(empty)) is None
    read = [values.read(record(framed(1, avro(PLAN, ADA)))), values.read(record(framed(2, b"")))]
    assert [named and tuple(named) for named in read] == [("PlanChanged", {"plan": "pro"}), ("acme.Other", {"n": 3})]


def test_a_writer_that_the_reader_cannot_read_is_a_bad_record() -> None:
    values = WireAvro(TopicSchemas(Schema("avro", {**PLAN, "name": "Other"})))
    assert values.learn(1, json.dumps(PLAN)) is None
    assert "not compatible" in refusal(values, record(framed(1, avro(PLAN, ADA))))


# Values


@pytest.mark.parametrize(
    ("logical", "base", "written", "expected"),
    [
        ("timestamp-millis", "long", 0, "1970-01-01T00:00:00Z"),
        ("timestamp-millis", "long", -1, "1969-12-31T23:59:59.999Z"),
        ("timestamp-millis", "long", 253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ("timestamp-millis", "long", 253_402_300_800_000, "+10000-01-01T00:00:00Z"),
        ("timestamp-millis", "long", 2**63 - 1, "+292278994-08-17T07:12:55.807Z"),
        ("timestamp-millis", "long", -(2**63), "-292275055-05-16T16:47:04.192Z"),
        ("timestamp-millis", "long", -62_135_596_800_001, "0000-12-31T23:59:59.999Z"),
        ("timestamp-micros", "long", 1, "1970-01-01T00:00:00.000001Z"),
        ("timestamp-micros", "long", 1000, "1970-01-01T00:00:00.001Z"),
        ("timestamp-nanos", "long", 1, "1970-01-01T00:00:00.000000001Z"),
        ("timestamp-nanos", "long", 1_000_000_000, "1970-01-01T00:00:01Z"),
        ("local-timestamp-micros", "long", 86_400_000_001, "1970-01-02T00:00:00.000001"),
        ("local-timestamp-nanos", "long", 1_000, "1970-01-01T00:00:00.000001"),
        ("date", "int", -719_529, "-0001-12-31"),
        ("date", "int", 11_016, "2000-02-29"),
        ("time-millis", "int", 86_399_999, "23:59:59.999"),
        ("time-millis", "int", 86_400_000, 86_400_000),
        ("time-micros", "long", 0, "00:00:00"),
        ("time-micros", "long", -1, -1),
        ("duration", "int", 5, 5),
        ("decimal", "long", 5, 5),
        ("unheard-of", "string", "a", "a"),
    ],
)
def test_logical_types(logical: str, base: str, written: Any, expected: Any) -> None:
    """Times in the calendar without end in either direction; on a wrong type the logical type is ignored."""
    raw = avro(one_field(base), {"x": written})
    schema = one_field({"type": base, "logicalType": logical})
    assert AvroReader(schema).read(raw).value["x"] == expected


@pytest.mark.parametrize(
    ("unscaled", "scale", "expected"),
    [(0, 0, "0"), (0, 2, "0.00"), (5, 2, "0.05"), (-5, 2, "-0.05"), (-12345, 2, "-123.45"), (7, 0, "7"),
     (10**30 + 1, 10, "100000000000000000000.0000000001")],
)  # fmt: skip
def test_decimals_keep_every_digit(unscaled: int, scale: int, expected: str) -> None:
    raw = unscaled.to_bytes(16, "big", signed=True)
    decimal = {"logicalType": "decimal", "precision": 38, "scale": scale}
    assert AvroReader(one_field({"type": "bytes", **decimal})).read(b"\x20" + raw).value["x"] == expected
    assert AvroReader(one_field({"type": "fixed", "name": "F", "size": 16, **decimal})).read(raw).value["x"] == expected
    inner = b"\x20" + raw + avro("int", scale)
    big = AvroReader(one_field({"type": "bytes", "logicalType": "big-decimal"}))
    assert big.read(avro("bytes", inner)).value["x"] == expected


def test_other_values() -> None:
    assert seen({"type": "fixed", "name": "D", "size": 12}, bytes(12)) == "AAAAAAAAAAAAAAAA"
    for raw, text in (
        (bytes(12), "PT0S"),
        (b"\1\0\0\0\2\0\0\0\xac\x0d\0\0", "P1M2DT3.500S"),
        (b"\1" + bytes(11), "P1M"),
    ):
        schema = one_field({"type": "fixed", "name": "D", "size": 12, "logicalType": "duration"})
        assert AvroReader(schema).read(raw).value["x"] == text
    uuid16 = one_field({"type": "fixed", "name": "U", "size": 16, "logicalType": "uuid"})
    assert AvroReader(uuid16).read(bytes(range(16))).value["x"] == "00010203-0405-0607-0809-0a0b0c0d0e0f"
    assert seen("float", float("inf")) is None and seen("double", float("-inf")) is None
    assert seen(["null", "int", "string"], "a") == "a" and seen(["null", "int", "string"], 5) == 5
    for type, raw in (
        ({"type": "bytes", "logicalType": "decimal", "precision": 2, "scale": 3}, b"\x06abc"),
        ({"type": "bytes", "logicalType": "decimal"}, b"\x06abc"),
        ({"type": "fixed", "name": "U", "size": 3, "logicalType": "uuid"}, b"abc"),
    ):
        assert AvroReader(one_field(type)).read(raw).value["x"] == "YWJj", "an invalid logical type is ignored"
    assert seen({"type": "map", "values": {"type": "array", "items": "bytes"}}, {"a": [b"b"]}) == {"a": ["Yg=="]}
    assert seen({"type": "int", "logicalType": "date"}, date(2026, 11, 22)) == "2026-11-22"
    assert (
        seen(["null", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}], Decimal("1.20"))
        == "1.20"
    )


# Parts of the event


def test_a_record_without_an_envelope_is_data_as_a_whole() -> None:
    """Its name, without the namespace that stands apart, is the type; id and time are the record's own."""
    made = event(PLAN, ADA)
    assert (made.type, made.data, made.value) == ("PlanChanged", ADA, ADA)
    assert (made.id, made.time) == ("user-events/2/7", "1970-01-01T00:00:01Z")
    assert event({**PLAN, "name": "plan.changed"}, ADA).type == "plan.changed"


def test_the_fields_of_an_envelope_are_taken_where_the_record_has_them() -> None:
    fields = [
        {"name": "id", "type": "long"},
        {"name": "type", "type": ["null", {"type": "enum", "name": "T", "symbols": ["upgraded"]}]},
        {"name": "time", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "source", "type": "string"},
        {"name": "subject", "type": "string"},
    ]
    schema = {"type": "record", "name": "Flat", "fields": fields}
    value = {"id": 5, "type": "upgraded", "time": datetime(2026, 1, 1, tzinfo=UTC), "source": "a", "subject": "b"}
    made = event(schema, value)
    assert (made.id, made.type, made.time) == ("5", "upgraded", "2026-01-01T00:00:00Z")
    assert (made.source, made.subject) == ("a", "b")
    assert made.data == {**value, "time": "2026-01-01T00:00:00Z"}, "without a field data, the whole record"
    assert event(schema, {**value, "type": None}).type == "Flat"
    with_data = {**schema, "fields": [*fields, {"name": "data", "type": ["null", PLAN]}]}
    assert event(with_data, {**value, "data": ADA}).data == ADA
    assert event(with_data, {**value, "data": None}).data == {}


def test_an_envelope_of_its_own_names_parts_and_leaves_the_others() -> None:
    envelope = Envelope(id=lambda value, record: value["email"], data=lambda value, record: {"to": value["plan"]})
    made = event(PLAN, ADA, envelope)
    assert (made.id, made.type, made.data) == ("ada@example.com", "PlanChanged", {"to": "pro"})
    with pytest.raises(DecodeError, match=r"envelope\.type is missing"):
        event(PLAN, ADA, Envelope(type=lambda value, record: None))


def test_only_a_record_is_an_event() -> None:
    for schema, value in (
        ("string", "a@example.com"),
        (["null", "string"], None),
        ({"type": "array", "items": "int"}, [1]),
    ):
        with pytest.raises(DecodeError, match="must be a record") as caught:
            decoder(schema).decode(record(avro(schema, value)))
        assert "example.com" not in str(caught.value)


def test_debeziums_own_types_in_avro_are_those_of_its_json() -> None:
    """Kafka Connect names them beside the type, where Avro has no logical type for them."""
    variable = {
        "type": "record",
        "name": "VariableScaleDecimal",
        "namespace": "io.debezium.data",
        "fields": [{"name": "scale", "type": "int"}, {"name": "value", "type": "bytes"}],
        "connect.name": "io.debezium.data.VariableScaleDecimal",
    }
    for type, value, expected in (
        ({"type": "int", "connect.version": 1, "connect.name": "io.debezium.time.Date"}, 20_779, "2026-11-22"),
        ({"type": "int", "connect.name": "io.debezium.time.Time"}, 23_400_250, "06:30:00.250"),
        ({"type": "long", "connect.name": "io.debezium.time.MicroTime"}, 108_000_000_000, 108_000_000_000),
        ({"type": "long", "connect.name": "io.debezium.time.NanoTime"}, 1, "00:00:00.000000001"),
        ({"type": "long", "connect.name": "io.debezium.time.Timestamp"}, 1, "1970-01-01T00:00:00.001Z"),
        ({"type": "long", "connect.name": "io.debezium.time.MicroTimestamp"}, 1, "1970-01-01T00:00:00.000001Z"),
        ({"type": "long", "connect.name": "io.debezium.time.NanoTimestamp"}, 10**9, "1970-01-01T00:00:01Z"),
        ({"type": "string", "connect.name": "io.debezium.time.ZonedTimestamp"}, "2026", "2026"),
        ({"type": "long", "connect.name": ["odd"]}, 5, 5),
        (variable, {"scale": 3, "value": b"\x04\xd2"}, "1.234"),
        (["null", variable], {"scale": 0, "value": b"\xff"}, "-1"),
        (variable, {"scale": -1, "value": b"\xff"}, {"scale": -1, "value": "/w=="}),
    ):
        assert seen(type, value) == expected
    schema = one_field(variable)
    assert AvroReader(schema, (), Schema("avro", schema)).read(
        avro(schema, {"x": {"scale": 1, "value": b"\x05"}})
    ).value == {"x": "0.5"}


def test_debezium_in_avro() -> None:
    """A change event whose payload is the Avro record itself, as Debezium writes it with a registry."""
    row = {"type": "record", "name": "Value", "fields": [
        {"name": "id", "type": "long"}, {"name": "plan", "type": ["null", "string"], "default": None}]}  # fmt: skip
    source = {"type": "record", "name": "Source", "fields": [
        {"name": "ts_ms", "type": "long"}, {"name": "table", "type": "string"}]}  # fmt: skip
    change = {
        "type": "record",
        "name": "Envelope",
        "namespace": "app.public.users",
        "fields": [
            {"name": "before", "type": ["null", row], "default": None},
            {"name": "after", "type": ["null", "Value"], "default": None},
            {"name": "source", "type": source},
            {"name": "op", "type": "string"},
        ],
    }
    values = values_in_avro(TopicSchemas(), registry=True)
    assert isinstance(values, WireAvro) and values.learn(3, json.dumps(change)) is None
    debezium = decoder_for("debezium", encoding="avro", values=values)
    where = {"ts_ms": 1_767_323_045_000, "table": "users"}
    body = avro(change, {"before": None, "after": {"id": 7, "plan": "pro"}, "source": where, "op": "c"})
    made = debezium.decode(record(framed(3, body)))
    assert made is not None and (made.type, made.time) == ("users.created", "2026-01-02T03:04:05Z")
    assert made.data["after"] == {"id": 7, "plan": "pro"} and made.data["before"] is None
    assert debezium.decode(record(None)) is None
    assert values.learn(4, '"string"') is None
    with pytest.raises(DecodeError, match="must be a record"):
        debezium.decode(record(framed(4, avro("string", "a"))))


def test_a_tombstone_is_no_event() -> None:
    values = WireAvro()
    assert AvroDecoder(values).decode(record(None)) is None and values.lacks(record(None)) is None
    local = decoder(PLAN)
    assert local.decode(record(None)) is None


# Damage


@pytest.mark.parametrize(
    ("value", "headers", "says"),
    [
        (b"", (), "empty"),
        (b'{"type": "a"}', (), "looks like JSON"),
        (b"\x00\x00\x01", (), "no schema registry's framing"),
        (b"\x01" + bytes(15), (), "no schema registry's framing"),
        (b"\xc3\x01" + bytes(8), (), "single-object"),
        (b"Obj\x01", (), "an Avro file"),
        (b"a", (("__value_schema_id", b"\x00\x00"),), "the header __value_schema_id"),
        (b"a", (("__value_schema_id", b"\x01" + bytes(17)),), "the header __value_schema_id"),
        (b"a", (("__value_schema_id", None),), "the header __value_schema_id"),
    ],
)
def test_other_framings_are_refused(value: bytes, headers: tuple[tuple[str, bytes | None], ...], says: str) -> None:
    """What can never be decoded lacks no schema: nothing is asked for."""
    values = WireAvro()
    assert values.lacks(record(value, headers)) is None
    assert says in refusal(values, record(value, headers))


def test_framed_values_where_a_schema_is_local_get_a_hint() -> None:
    with pytest.raises(DecodeError, match=r"schema id 7\): set registry"):
        decoder(PLAN).decode(record(framed(7, avro(PLAN, ADA))))


def test_a_header_counts_before_a_prefix() -> None:
    values = WireAvro()
    assert values.lacks(record(framed(1, b""), (("__value_schema_id", framed(2, b"")),))) == 2
    assert values.lacks(record(framed(1, b""), (("__value_schema_id", framed(GUID, b"")),))) == GUID
    assert values.lacks(record(framed(GUID, b""))) == GUID


def test_damaged_bytes_have_a_defined_answer() -> None:
    """Each cut and each byte too many is told; no message holds what the record holds."""
    values = WireAvro()
    assert values.learn(1, json.dumps(PLAN)) is None
    body = avro(PLAN, ADA)
    for end in range(len(body)):
        assert "not Avro of its schema" in refusal(values, record(framed(1, body[:end])))
    for message in (
        refusal(values, record(framed(1, body + b"ada"))),
        refusal(values, record(framed(1, b"\x06\xff\xfe\xfd\x00"))),
        refusal(values, record(framed(1, b"\x01ada@example.com"))),
    ):
        assert "ada" not in message
    assert "3 bytes are left" in refusal(values, record(framed(1, body + b"ada")))


def bad(schema: Any, raw: bytes) -> str:
    with pytest.raises(DecodeError) as caught:
        AvroReader(schema).read(raw)
    return caught.value.message


def test_lengths_and_counts_beyond_the_bytes_end_at_once() -> None:
    huge = b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"
    for type in ("string", "bytes", {"type": "array", "items": "long"}, {"type": "map", "values": "null"}):
        assert "ends within" in bad(one_field(type), huge)
    assert "arm or symbol" in bad(one_field(["null", "string"]), b"\x08")
    assert "arm or symbol" in bad(["null", PLAN], b"\x08") and "arm or symbol" in bad(["null", PLAN], b"\x01")
    assert "arm or symbol" in bad(one_field({"type": "enum", "name": "E", "symbols": ["a"]}), b"\x06")
    big = one_field({"type": "bytes", "logicalType": "decimal", "precision": 9})
    assert "longer than" in bad(big, avro("bytes", bytes(600)))
    for raw in (b"", b"\x02", b"\x02a", b"\x01\x00", b"\x02a\x01", b"\x80"):
        bad(one_field({"type": "bytes", "logicalType": "big-decimal"}), avro("bytes", raw))


def test_nesting_without_end_is_refused_before_it_is_read() -> None:
    """fastavro's compiled code would crash the process at some 10,000 levels."""
    schema = {"type": "record", "name": "N", "fields": [{"name": "n", "type": ["null", "N"]}]}
    reader = AvroReader(schema)
    assert reader.read(b"\x02" * 127 + b"\x00").value["n"] is not None
    for levels in (128, 1_000, 1_000_000):
        assert "deeper than 128" in bad(schema, b"\x02" * levels + b"\x00")
    lists = {"type": "record", "name": "N", "fields": [{"name": "n", "type": {"type": "array", "items": "N"}}]}
    assert AvroReader(lists).read(b"\x02\x02\x00\x00\x00").value == {"n": [{"n": [{"n": []}]}]}
    assert "deeper than 128" in bad(lists, b"\x02" * 5000)
    everything = {
        "type": "record",
        "name": "N",
        "fields": [
            {"name": "f", "type": {"type": "fixed", "name": "F", "size": 2}},
            {"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["a"]}},
            {"name": "m", "type": {"type": "map", "values": ["null", "N"]}},
            {"name": "d", "type": "double"},
            {"name": "b", "type": "boolean"},
            {"name": "s", "type": "string"},
        ],
    }
    value = {"f": b"ab", "e": "a", "m": {"x": None}, "d": 1.5, "b": True, "s": "text"}
    raw = avro(everything, {**value, "m": {"y": value}})
    assert AvroReader(everything).read(raw).value["m"]["y"]["s"] == "text"
    for end in range(len(raw)):
        assert "ends within" in bad(everything, raw[:end])
    assert "ends within" in bad(lists, b"\x01")
    assert AvroReader(lists).read(b"\x01\x02\x00\x00").value == {"n": [{"n": []}]}, "a block that tells its size"


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        (one_field({"type": "array", "items": "null"}), "take no bytes"),
        (one_field({"type": "array", "items": {"type": "record", "name": "B", "fields": []}}), "take no bytes"),
        (one_field({"type": "array", "items": {"type": "fixed", "name": "F", "size": 0}}), "take no bytes"),
        ({"type": "record", "name": "A", "fields": [{"name": "x", "type": "Unknown"}]}, "Unknown is not defined"),
        (one_field({"type": "array"}), "not an Avro schema"),
        (json.loads("[" * 150 + "]" * 150), "nested deeper"),
    ],
)
def test_schemas_that_nothing_bounds_are_refused(schema: Any, says: str) -> None:
    """At start for a local one; as the answer for its records where a registry gave it."""
    with pytest.raises(SchemaError, match=says):
        AvroReader(schema)
    values = WireAvro()
    reason = values.learn(9, json.dumps(schema))
    assert reason is not None and says in reason
    assert refusal(values, record(framed(9, b"\x00"))) == reason


def test_fields_that_double_are_refused() -> None:
    """A schema of a few hundred bytes would make a billion values of no bytes at all."""
    types: list[Any] = [{"type": "record", "name": "L0", "fields": []}]
    for level in range(1, 31):
        below = types[-1] if level == 1 else f"L{level - 1}"
        fields = [{"name": "a", "type": types[-1]}, {"name": "b", "type": f"L{level - 1}"}]
        types.append({"type": "record", "name": f"L{level}", "fields": fields})
        assert below
    with pytest.raises(SchemaError, match="more than 100,000 values"):
        AvroReader(types[-1])


def test_a_long_chain_of_types_is_refused_and_a_shorter_one_bounded() -> None:
    """Types that only name one another nest as deep as there are of them, whatever each text's own nesting is."""

    def chain(length: int) -> list[Any]:
        first = {"type": "record", "name": "T0", "fields": [{"name": "x", "type": "int"}]}
        return [first] + [
            {"type": "record", "name": f"T{at}", "fields": [{"name": "x", "type": f"T{at - 1}"}]}
            for at in range(1, length)
        ]

    *others, last = chain(100)
    assert AvroReader(last, others).read(b"\x02").name == "T99"
    *others, last = chain(200)
    with pytest.raises(DecodeError, match="deeper than 128"):
        AvroReader(last, others).read(b"\x02")
    *others, last = chain(5000)
    with pytest.raises(SchemaError, match="too deeply"):
        AvroReader(last, others)


def test_what_the_registry_refused_is_the_answer_for_its_records() -> None:
    values = WireAvro()
    values.refuse(9, "the registry knows no schema 9")
    assert values.lacks(record(framed(9, b""))) is None
    assert refusal(values, record(framed(9, b""))) == "the registry knows no schema 9"
    assert values.learn(8, "{") is not None


def test_schemas_at_hand_are_bounded() -> None:
    values = WireAvro()
    for id in range(SCHEMAS_MAX + 5):
        values.refuse(id, "no")
    assert [id for id in range(SCHEMAS_MAX + 5) if values.lacks(record(framed(id, b""))) is not None] == [0, 1, 2, 3, 4]


def test_values_for_other_formats_need_a_schema() -> None:
    with pytest.raises(SchemaError):
        values_in_avro(TopicSchemas(), registry=False)
    with pytest.raises(SchemaError):
        values_in_avro(TopicSchemas(Schema("avro", {"type": "array", "items": "null"})), registry=True)


def test_why_a_registrys_schema_cannot_be_used_is_one_line() -> None:
    """It may name what the schema names, and goes into the message of its records' dead letters."""
    schema = {"type": "record", "name": "A", "fields": [{"name": "a", "type": "b\r\nX-Forged: 1\x1b[2J" + "c" * 9_000}]}
    reason = WireAvro().learn(1, json.dumps(schema))
    assert reason is not None
    assert reason.isprintable() and len(reason) < 600 and "X-Forged" in reason
