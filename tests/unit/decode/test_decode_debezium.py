"""Change events of Debezium become events, and each odd input has its answer (bridge/decode/debezium.py)."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from bridge.decode import decoder_for
from bridge.decode.avro_reader import AvroReader
from bridge.errors import DecodeError
from bridge.model import Event, Record
from tests.support.avro import avro
from tests.support.formats import debezium, debezium_avro

DECODER = decoder_for("debezium", encoding="json")
PAYLOAD = {"op": "u", "before": None, "after": {"id": 1}, "source": {"table": "users", "ts_ms": 1_795_337_657_123}}


def record(value: Any) -> Record:
    raw = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
    return Record("users-cdc", 3, 42, 1_795_373_100_000, None, raw)


def decoded(value: Any) -> Event:
    event = DECODER.decode(record(value))
    assert event is not None
    return event


def refusal(value: Any) -> str:
    with pytest.raises(DecodeError) as caught:
        DECODER.decode(record(value))
    return caught.value.message


def source(**changes: Any) -> dict[str, Any]:
    return PAYLOAD | {"source": {**PAYLOAD["source"], **changes}}  # type: ignore[dict-item]


def events(name: str) -> list[Event | None]:
    """What becomes of the connector's records."""
    if name != "avro":
        return [DECODER.decode(each) for each in debezium(name)]
    records, values = debezium_avro()
    decoder = decoder_for("debezium", encoding="avro", values=values)
    return [decoder.decode(each) for each in records]


@pytest.mark.parametrize("name", ["plain", "with-schema", "avro"])
def test_what_the_postgresql_connector_writes_is_read(name: str) -> None:
    """In JSON with and without the schema beside each value, and in Avro: rows, and everything that tells of none."""
    found = events(name)
    assert [event.type if event is not None else None for event in found] == [
        "users.read",
        None,  # heartbeat
        None,  # BEGIN
        "users.created",
        None,  # END
        "users.updated",
        "users.updated",
        "users.deleted",
        None,  # tombstone
        "message",
        "users.truncated",
    ]
    read, created, updated = (found[index] for index in (0, 3, 5))
    assert read is not None and created is not None and updated is not None
    assert read.data["after"]["email"] == "old@example.com"
    assert created.id == "app.public.users/3/42"
    assert created.source == "app"
    assert created.data["op"] == "c" and created.data["before"] is None
    assert created.data["source"]["ts_ms"] == round(created.time_wall_seconds * 1000)
    assert updated.data["after"]["plan"] == "pro"


@pytest.mark.parametrize("name", ["with-schema", "avro"])
def test_encodings_become_plain_values_where_the_schema_is_known(name: str) -> None:
    """Checked against what was written into the database: see tests/data/formats/debezium/Make.java."""
    created = events(name)[3]
    assert created is not None
    row = created.data["after"]
    assert len(row.pop("bio")) > 5000
    assert row == {
        "id": 2,
        "email": "ada@example.com",
        "plan": "free",
        "active": True,
        "balance": "1234.50",
        "weight": "-0.00125",
        "born": "1815-12-10",
        "wakes": "06:30:00.250",
        "signed_up": "2026-11-22T07:54:17.123456Z",
        "changed": "2026-11-22T08:54:17.123456Z",
        "precise": "2026-11-22T08:54:17.123Z",
        "tags": ["a", "b"],
        "settings": '{"theme": "dark"}',
        "token": "6e8bc430-9c3a-11d9-9669-0800200c9a66",
        "avatar": "AP8=",
        "score": 0.1,
    }


def test_without_a_schema_encodings_stay() -> None:
    plain = events("plain")[3]
    assert plain is not None
    row = plain.data["after"]
    assert (row["balance"], row["born"], row["changed"]) == ("AeI6", -56270, 1795337657123456)
    assert (row["weight"], row["signed_up"]) == ("-0.00125", "2026-11-22T07:54:17.123456Z")


@pytest.mark.parametrize("name", ["plain", "with-schema", "avro"])
def test_a_column_that_was_not_logged_is_missing(name: str) -> None:
    """PostgreSQL does not log a large column that an update left alone; the placeholder must not pass for its value."""
    created, updated = (events(name)[index] for index in (3, 5))
    assert created is not None and updated is not None
    assert len(created.data["after"]["bio"]) > 5000
    assert "bio" not in updated.data["after"] and "plan" in updated.data["after"]
    placeholder = "__debezium_unavailable_value"
    encoded = base64.b64encode(placeholder.encode()).decode()
    row = {"a": [placeholder], "b": encoded, "c": [1], "d": [placeholder, "x"]}
    assert decoded(PAYLOAD | {"before": row}).data["before"] == {"c": [1], "d": [placeholder, "x"]}


@pytest.mark.parametrize("name", ["with-schema", "avro"])
def test_the_ends_of_time_are_told(name: str) -> None:
    """PostgreSQL's infinity is a moment beyond the year 9999, and must not make the row bad."""
    event = events(name)[6]
    assert event is not None
    assert event.data["after"]["changed"] == "+294247-01-10T04:00:25.200Z"


def wrapped(value: Any, name: str | None, **more: Any) -> Any:
    """The value as the only column of a row, as it is after decoding."""
    column = {"field": "x", "name": name, **more}
    schema = {"type": "struct", "fields": [{"field": "after", "type": "struct", "fields": [column]}]}
    return decoded({"schema": schema, "payload": PAYLOAD | {"after": {"x": value}}}).data["after"]["x"]


CONNECT = "org.apache.kafka.connect.data."
TIME = "io.debezium.time."


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        (f"{CONNECT}Date", 0, "1970-01-01"),
        (f"{CONNECT}Timestamp", -1, "1969-12-31T23:59:59.999Z"),
        (f"{CONNECT}Time", 86_399_999, "23:59:59.999"),
        (f"{TIME}NanoTimestamp", 1_795_337_657_123_456_789, "2026-11-22T08:54:17.123456789Z"),
        (f"{TIME}NanoTime", 1_000, "00:00:00.000001"),
        (f"{TIME}Time", 0, "00:00:00"),
        (f"{TIME}ZonedTimestamp", "2026-11-22T08:54:17Z", "2026-11-22T08:54:17Z"),
        # Not what the name promises, or beyond what can be written
        (f"{TIME}Date", "0", "0"),
        (f"{TIME}Date", True, True),
        (f"{TIME}Date", 2_932_897, "+10000-01-01"),
        (f"{TIME}Timestamp", 1.5, 1.5),
        (f"{TIME}Time", 86_400_000, 86_400_000),
        (f"{TIME}MicroTime", -1, -1),
        (f"{TIME}Date", None, None),
        (None, 7, 7),
    ],
)
def test_names_of_encodings(name: str | None, value: Any, expected: Any) -> None:
    assert wrapped(value, name) == expected


@pytest.mark.parametrize(
    ("encoded", "scale", "expected"),
    [
        ("Kg==", "2", "0.42"),
        ("/w==", "0", "-1"),
        ("AA==", "2", "0.00"),
        (base64.b64encode((10**60).to_bytes(26, "big")).decode(), "10", "1" + "0" * 50 + "." + "0" * 10),
        ("", "2", ""),
        ("no base64", "2", "no base64"),
        ("Kg==", "two", "Kg=="),
        ("Kg==", "99999", "Kg=="),
        ("Kg==", 2, "Kg=="),
        (7, "2", 7),
        ("A" * 4000, "2", "A" * 4000),
    ],
)
def test_decimals_are_exact_text(encoded: Any, scale: Any, expected: Any) -> None:
    """Every digit counts: a binary fraction would change amounts of money."""
    assert wrapped(encoded, f"{CONNECT}Decimal", parameters={"scale": scale}) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"scale": 5, "value": "gw=="}, "-0.00125"),
        ({"scale": 0, "value": "Kg=="}, "42"),
        ({"scale": -2, "value": "Kg=="}, "4200"),
        *(
            (odd, odd)
            for odd in (
                {"scale": 10**9, "value": "Kg=="},
                {"scale": "0", "value": "Kg=="},
                {"scale": 0, "value": 7},
                {"value": "Kg=="},
                {"scale": 0, "value": "Kg==", "unit": "kg"},
            )
        ),
    ],
)
def test_decimals_that_carry_their_scale(value: Any, expected: Any) -> None:
    """PostgreSQL's numeric without a scale, with or without a schema beside; not so a document of MongoDB."""
    assert decoded(PAYLOAD | {"after": {"x": value}}).data["after"]["x"] == expected
    document = source(table=None, collection="users") | {"after": {"x": value}}
    assert decoded(document).data["after"]["x"] == value


@pytest.mark.parametrize(("type", "unit"), [("int", ""), ("long", "Micro"), ("long", "Nano")])
def test_a_time_beyond_a_day_stays_a_number_in_avro(type: str, unit: str) -> None:
    """MySQL has times of 838 hours, and PostgreSQL 24:00:00: unlike in Avro's own times that is nobody's mistake."""
    column = {"type": type, "connect.name": f"{TIME}{unit}Time"}
    schema = {"type": "record", "name": "A", "fields": [{"name": name, "type": column} for name in ("x", "y")]}
    assert AvroReader(schema).read(avro(schema, {"x": -1, "y": 0})).value == {"x": -1, "y": "00:00:00"}


def test_lists_maps_and_structs_are_walked() -> None:
    date = {"name": f"{TIME}Date"}
    assert wrapped([0, None, 1], None, items=date) == ["1970-01-01", None, "1970-01-02"]
    assert wrapped({"a": 0}, None, values=date) == {"a": "1970-01-01"}
    assert wrapped({"a": 0, "b": 0}, None, fields=[date | {"field": "a"}]) == {"a": "1970-01-01", "b": 0}
    assert wrapped([1], None, items=7) == [1]
    assert wrapped({"a": 0}, None, fields=[None, {"field": 7}]) == {"a": 0}


@pytest.mark.parametrize("schema", [None, 7, [], {}, {"fields": {}}, {"fields": [7]}, {"name": ["a"], "fields": None}])
def test_a_schema_that_says_nothing_changes_nothing(schema: Any) -> None:
    assert decoded({"schema": schema, "payload": PAYLOAD}).data == PAYLOAD


@pytest.mark.parametrize(
    ("op", "type"), [("c", "users.created"), ("u", "users.updated"), ("d", "users.deleted"), ("r", "users.read")]
)
def test_types(op: str, type: str) -> None:
    assert decoded(PAYLOAD | {"op": op}).type == type


def test_the_time_is_the_database_s() -> None:
    """Then the connector's, then the record's: some snapshots have 0 for it."""
    assert decoded(PAYLOAD).time == "2026-11-22T08:54:17.123Z"
    for missing in (None, 0):
        assert decoded(source(ts_ms=missing) | {"ts_ms": 1_795_337_658_000}).time == "2026-11-22T08:54:18Z"
        assert decoded(source(ts_ms=missing)).time == "2026-11-22T18:45:00Z"
    assert "data.source.ts_ms is a string" in refusal(source(ts_ms="now"))
    assert "data.source.ts_ms is before 1970" in refusal(source(ts_ms=-1))
    assert "data.ts_ms is beyond the year 9999" in refusal(source(ts_ms=None) | {"ts_ms": 2**62})
    late = record(source(ts_ms=None))._replace(timestamp_ms=-1)
    with pytest.raises(DecodeError, match="no timestamp"):
        DECODER.decode(late)


@pytest.mark.parametrize(
    "value",
    [
        None,
        {"schema": None, "payload": None},
        {"ts_ms": 1},
        {"schema": {}, "payload": {"ts_ms": 1}},
        {"status": "END", "id": "571", "event_count": 2, "data_collections": [], "ts_ms": 1},
        {"source": {}, "ts_ms": 1, "databaseName": "app", "schemaName": None, "ddl": "ALTER …", "tableChanges": []},
    ],
)
def test_what_tells_of_no_row_is_filtered(value: Any) -> None:
    assert DECODER.decode(record(value)) is None


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (b"", "empty"),
        ({}, "no op"),
        ({"id": 1, "email": "ada@example.com", "__op": "c"}, "write format: json"),
        ({"schema": {}, "payload": []}, "value.payload is an array"),
        (PAYLOAD | {"op": "x"}, "data.op is none of: c, u, d, r, t, m"),
        (PAYLOAD | {"op": ["c"]}, "data.op is none of"),
        (PAYLOAD | {"source": None}, "data.source is missing or null"),
        (source(table=None), "data.source.table is missing"),
        (source(table=""), "data.source.table is an empty string"),
    ],
)
def test_what_is_no_change_event_is_refused(value: Any, says: str) -> None:
    assert says in refusal(value)


def test_documents_of_mongodb() -> None:
    """before and after are JSON in a text there, in its extended form."""
    after = {
        "_id": {"$oid": "596e275826f08b2730779e1f"},
        "email": "ada@example.com",
        "logins": {"$numberLong": "9007199254740993"},
        "mrr": {"$numberDecimal": "12.50"},
        "score": {"$numberDouble": "0.5"},
        "odd": {"$numberDouble": "NaN"},
        "age": {"$numberInt": "36"},
        "none": {"$numberLong": "x"},
        "signed_up": {"$date": 1_795_337_657_123},
        "left": [{"$date": {"$numberLong": "-1"}}, {"$date": "2026-11-22T08:54:17Z"}, {"$date": 1.5}],
    }
    changes = {"table": None, "collection": "users", "connector": "mongodb"}
    event = decoded(source(**changes) | {"after": json.dumps(after)})
    assert event.type == "users.updated"
    assert event.data["after"] == {
        "_id": "596e275826f08b2730779e1f",
        "email": "ada@example.com",
        "logins": 9007199254740993,
        "mrr": "12.50",
        "score": 0.5,
        "odd": {"$numberDouble": "NaN"},
        "age": 36,
        "none": {"$numberLong": "x"},
        "signed_up": "2026-11-22T08:54:17.123Z",
        "left": ["1969-12-31T23:59:59.999Z", "2026-11-22T08:54:17Z", {"$date": 1.5}],
    }
    assert refusal(source(**changes) | {"after": "{"}).startswith("data.after: invalid JSON at line 1")
    assert "data.before.a is an integer beyond" in refusal(source(**changes) | {"before": f'{{"a": {10**30}}}'})
