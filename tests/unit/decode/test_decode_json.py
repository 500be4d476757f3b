"""JSON records become events, and each odd input has one defined answer (the table in bridge/decode/json.py)."""

from __future__ import annotations

import traceback
from typing import Any

import orjson
import pytest

from bridge.decode import FORMATS, NO_SCHEMAS, Envelope, JsonDecoder, decoder_for, values_in_avro
from bridge.errors import DecodeError, RuleError, StartFailed
from bridge.model import Event, Record

TIMESTAMP_MS = 1_763_801_657_123  # 2025-11-22T08:54:17.123Z


def record(value: bytes | None, *, timestamp_ms: int = TIMESTAMP_MS) -> Record:
    return Record("user-events", 3, 42, timestamp_ms, b"u_7", value)


def decode(value: Any, **options: Any) -> Event:
    raw = value if isinstance(value, bytes) else orjson.dumps(value)
    event = JsonDecoder().decode(record(raw, **options))
    assert event is not None
    return event


def refusal(value: Any, **options: Any) -> DecodeError:
    with pytest.raises(DecodeError) as caught:
        decode(value, **options)
    return caught.value


def test_a_whole_envelope_is_taken_as_it_stands() -> None:
    value = {
        "id": "evt_1",
        "type": "user.signed_up",
        "time": "2026-11-22T08:54:17+01:00",
        "source": "app",
        "subject": "u_7",
        "data": {"email": "a@example.com"},
    }
    event = decode(value)
    assert (event.id, event.type, event.time) == ("evt_1", "user.signed_up", "2026-11-22T08:54:17+01:00")
    assert event.time_wall_seconds == 1_795_334_057
    assert (event.source, event.subject, event.data, event.value) == ("app", "u_7", value["data"], value)
    assert event.record.place == "user-events/3/42"


def test_what_is_missing_comes_from_the_record() -> None:
    """Without id, time and data an event gets its place, the record's timestamp and an empty object."""
    event = decode({"type": "ping"})
    assert (event.id, event.time, event.data) == ("user-events/3/42", "2025-11-22T08:54:17.123Z", {})
    assert event.time_wall_seconds == TIMESTAMP_MS / 1000
    assert (event.source, event.subject) == (None, None)


def test_null_counts_as_missing() -> None:
    event = decode({"type": "ping", "id": None, "time": None, "data": None, "source": None, "subject": 5})
    assert (event.id, event.time, event.data) == ("user-events/3/42", "2025-11-22T08:54:17.123Z", {})
    assert (event.source, event.subject) == (None, None)


def test_a_tombstone_is_no_event_and_no_error() -> None:
    assert JsonDecoder().decode(record(None)) is None


@pytest.mark.parametrize(
    ("id", "expected"), [("evt", "evt"), (7, "7"), ("", "user-events/3/42"), (2**64 - 1, str(2**64 - 1))]
)
def test_ids_become_text(id: Any, expected: str) -> None:
    assert decode({"type": "ping", "id": id}).id == expected


@pytest.mark.parametrize("id", [1.5, True, [], {"a": 1}])
def test_an_id_that_identifies_nothing_is_refused(id: Any) -> None:
    assert refusal({"type": "ping", "id": id}).path == "value.id"


@pytest.mark.parametrize("type", [None, "", 7, True, ["a"], {}])
def test_an_event_without_a_type_is_refused_with_the_path(type: Any) -> None:
    error = refusal({"type": type, "data": {}})
    assert error.path == "value.type"
    assert "value.type is" in error.message


def test_missing_type_says_missing() -> None:
    assert "value.type is missing or null" in refusal({"data": {}}).message


@pytest.mark.parametrize("data", [[1], "text", 5, False, {}])
def test_data_of_any_kind_stays_as_it_is(data: Any) -> None:
    assert decode({"type": "ping", "data": data}).data == data


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "the value is empty"),
        (b" \r\n\t", "the value is blank"),
        (b"\xef\xbb\xbf", "the value is empty"),
        (b'{"type":"a\xff"}', "invalid UTF-8 at byte 10"),
        (b'{"type":\n "a",}', "invalid JSON at line 2, column 5"),
        (b'{"type":"a"', "invalid JSON at line 1"),
        (b'{"type":"a","data":NaN}', "invalid JSON at line 1, column 20"),
        (b'{"type":"a","data":-Infinity}', "invalid JSON"),
        (b'{"type":"a","data":1e999}', "invalid JSON"),
        (b'{"type":"a","data":"\\ud800"}', "invalid JSON"),
        (b'{"type":"a"} {}', "invalid JSON"),
        (b"null", "the value is null"),
        (b"[]", "the value is an array"),
        (b'"text"', "the value is a string"),
        (b"1", "the value is an integer"),
        (b'\x00\x00\x00\x00\x2a{"type":"a"}', "schema registry's framing (a zero byte, then schema id 42)"),
        (b"\xef\xbb\xbf" * 5000, "invalid JSON"),
    ],
)
def test_bytes_that_are_no_json_object_are_refused_with_the_place(raw: bytes, message: str) -> None:
    assert message in refusal(raw).message


def test_a_byte_order_mark_is_ignored() -> None:
    assert decode(b'\xef\xbb\xbf{"type":"a"}').type == "a"


def test_of_duplicate_keys_the_last_wins() -> None:
    event = decode(b'{"type":"first","type":"last","data":{"plan":"free","plan":"pro"}}')
    assert (event.type, event.data) == ("last", {"plan": "pro"})


def nested(levels: int) -> bytes:
    """An object whose deepest list lies on that level; the top object is the first."""
    return b'{"type":"a","data":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


def test_nesting_is_bounded_at_128_levels() -> None:
    """What is let in can be written out again: orjson writes 254 levels at most."""
    event = decode(nested(128))
    assert orjson.dumps(event.value) == nested(128)
    for levels in (129, 1000, 5000, 200_000):
        assert "nested" in refusal(nested(levels)).message or "depth" in refusal(nested(levels)).message


def test_many_brackets_side_by_side_are_not_deep() -> None:
    assert len(decode({"type": "a", "data": [[]] * 500}).data) == 500


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1, 10**30, -(10**19), 10**300])
def test_an_integer_that_would_lose_digits_is_refused_with_its_path(number: int) -> None:
    """As a double two ids would become one person; the producer must know."""
    digits = str(number)
    error = refusal(b'{"type":"a","data":{"list":[{"user_id":' + digits.encode() + b"}]}}")
    assert error.path == "value.data.list[0].user_id"
    assert digits not in error.message


@pytest.mark.parametrize("number", [2**64 - 1, -(2**63), 10**19])
def test_integers_of_64_bits_stay_exact(number: int) -> None:
    assert decode({"type": "a", "data": number}).data == number


def test_long_digits_in_text_and_fractions_are_no_integers() -> None:
    raw = b'{"type":"a","data":{"card":"12345678901234567890123","pi":3.14159265358979323846264}}'
    assert decode(raw).data == {"card": "12345678901234567890123", "pi": 3.141592653589793}


@pytest.mark.parametrize(
    ("time", "text", "seconds"),
    [
        ("2026-11-22T08:54:17Z", "2026-11-22T08:54:17Z", 1_795_337_657),
        ("2026-11-22T08:54:17.5Z", "2026-11-22T08:54:17.5Z", 1_795_337_657.5),
        ("2026-11-22T08:54:17.123456789Z", "2026-11-22T08:54:17.123456789Z", 1_795_337_657.123456),
        ("2026-11-22T09:54:17+01:00", "2026-11-22T09:54:17+01:00", 1_795_337_657),
        ("2026-11-22T08:54:17", "2026-11-22T08:54:17Z", 1_795_337_657),
        ("2026-11-22 08:54:17.250", "2026-11-22T08:54:17.250Z", 1_795_337_657.25),
        ("2026-11-22t08:54:17z", "2026-11-22T08:54:17Z", 1_795_337_657),
        ("20261122T085417Z", "2026-11-22T08:54:17Z", 1_795_337_657),
        ("2026-11-22", "2026-11-22T00:00:00Z", 1_795_305_600),
        ("2026-W47-7", "2026-11-22T00:00:00Z", 1_795_305_600),
        (1_795_337_657, "2026-11-22T08:54:17Z", 1_795_337_657),
        (1_795_337_657.25, "2026-11-22T08:54:17.250Z", 1_795_337_657.25),
        (1_795_337_657_123, "2026-11-22T08:54:17.123Z", 1_795_337_657.123),
        (0, "1970-01-01T00:00:00Z", 0),
    ],
)
def test_times_in_all_the_ways_producers_write_them(time: Any, text: str, seconds: float) -> None:
    event = decode({"type": "a", "time": time})
    assert event.time == text
    assert event.time_wall_seconds == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize(
    "time",
    ["", "yesterday", "1795337657", "2026-13-01", "2026-02-30T00:00:00Z", "2026-11-22x08:54:17", "2026-11-22-08:00",
     "2026-11-22T08:54:17 anna@example.com", "0001-01-01T00:00:00+23:00 ", -1, 10**14, 1_795_337_657_123_456, True, [],
     {}],
)  # fmt: skip
def test_anything_else_is_no_time(time: Any) -> None:
    error = refusal({"type": "a", "time": time})
    assert error.path == "value.time"
    assert error.message.startswith("value.time is ")


@pytest.mark.parametrize("timestamp_ms", [-1, 10**18])
def test_an_event_whose_age_nobody_knows_is_refused(timestamp_ms: int) -> None:
    """It might be a year old, and a trigger must not be sent for it."""
    assert refusal({"type": "a"}, timestamp_ms=timestamp_ms).path == "value.time"
    assert decode({"type": "a", "time": "2026-11-22"}, timestamp_ms=timestamp_ms).time_wall_seconds == 1_795_305_600


def custom(**fields: Any) -> JsonDecoder:
    return JsonDecoder(Envelope(**fields))


def test_an_envelope_of_ones_own_says_where_things_are() -> None:
    decoder = custom(
        id=lambda value, record: value["meta"]["uuid"],
        type=lambda value, record: f"{value['table']}.{value['op']}",
        time=lambda value, record: value["meta"]["at"],
        data=lambda value, record: value,
    )
    raw = orjson.dumps({"meta": {"uuid": 9, "at": 1_795_337_657_000}, "table": "users", "op": "created"})
    event = decoder.decode(record(raw))
    assert event is not None
    assert (event.id, event.type, event.time) == ("9", "users.created", "2026-11-22T08:54:17Z")
    assert event.data is event.value


def test_parts_that_the_envelope_does_not_name_keep_their_default() -> None:
    event = custom(data=lambda value, record: value["payload"]).decode(
        record(b'{"id":"e1","type":"a","time":"2026-11-22T08:54:17Z","payload":{"x":1}}')
    )
    assert event is not None
    assert (event.id, event.type, event.time, event.data) == ("e1", "a", "2026-11-22T08:54:17Z", {"x": 1})


@pytest.mark.parametrize("error", [KeyError("meta"), RuleError("no field value.meta", "value.meta")])
def test_a_missing_field_of_the_envelope_counts_as_missing(error: Exception) -> None:
    def absent(value: Any, record: Record) -> Any:
        raise error

    event = custom(id=absent, time=absent, data=absent).decode(record(b'{"type":"a"}'))
    assert event is not None
    assert (event.id, event.time, event.data) == ("user-events/3/42", "2025-11-22T08:54:17.123Z", {})
    with pytest.raises(DecodeError) as caught:
        custom(type=absent).decode(record(b'{"type":"a"}'))
    assert caught.value.path == "envelope.type"


SECRET = "anna.secret@example.com"


@pytest.mark.parametrize(
    "raw",
    [
        f'{{"type":"{SECRET}" x}}'.encode(),
        f'"{SECRET}"'.encode(),
        f'{{"type":"a","time":"{SECRET}"}}'.encode(),
        f'{{"type":"a","id":["{SECRET}"]}}'.encode(),
        f'{{"type":["{SECRET}"]}}'.encode(),
        f'{{"type":"a","{SECRET}":{10**30}}}'.encode(),
        f'{{"type":"{SECRET}\\ud800"}}'.encode(),
        f'{{"type":"{SECRET}'.encode() + b'\xff"}',
    ],
)
def test_neither_message_nor_traceback_tells_what_the_record_holds(raw: bytes) -> None:
    """Dead letters' headers and logs carry these; they must not carry people's addresses."""
    error = refusal(raw)
    assert "secret" not in error.message
    assert "secret" not in error.path
    assert "secret" not in "".join(traceback.format_exception(error))
    assert error.__context__ is None or "secret" not in repr(vars(error.__context__))


def test_the_factory_makes_what_it_lists_and_refuses_the_rest_in_one_line() -> None:
    for format in FORMATS:
        values = values_in_avro(NO_SCHEMAS, registry=True) if format == "avro" else None
        assert decoder_for(format, values=values).decode(record(None)) is None
    with pytest.raises(StartFailed, match="'xml' is not supported"):
        decoder_for("xml")
