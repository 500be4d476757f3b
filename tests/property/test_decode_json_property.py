"""Whatever bytes a producer writes, the JSON decoder answers with an event, None or DecodeError."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.decode import JsonDecoder
from bridge.decode.json import MAX_DEPTH
from bridge.errors import DecodeError
from bridge.model import Event, Record
from tests.support.amount import examples

DECODER = JsonDecoder()
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4), max_leaves=4
)
"""Small values: six of them make an envelope, and depth has a test of its own."""
KEYS = st.sampled_from(["id", "type", "time", "data", "source", "subject"])


def record(value: bytes | None, timestamp_ms: int = 1_763_801_657_123) -> Record:
    return Record("t", 0, 1, timestamp_ms, None, value)


def answer(raw: bytes | None, timestamp_ms: int = 1_763_801_657_123) -> Event | None:
    try:
        return DECODER.decode(record(raw, timestamp_ms))
    except DecodeError:
        return None


def check(event: Event | None) -> None:
    """What rules may rely on in any event."""
    if event is None:
        return
    assert isinstance(event.id, str)
    assert event.id
    assert isinstance(event.type, str)
    assert event.type
    moment = datetime.fromisoformat(event.time)
    assert moment.tzinfo is not None
    assert abs(moment.timestamp() - event.time_wall_seconds) < 0.001
    orjson.dumps(event.value)


@settings(max_examples=examples(300), deadline=None)
@given(st.binary(max_size=200), st.integers(-(2**63), 2**63 - 1))
def test_arbitrary_bytes_never_raise_anything_else(raw: bytes, timestamp_ms: int) -> None:
    check(answer(raw, timestamp_ms))


@settings(max_examples=examples(300), deadline=None)
@given(st.dictionaries(KEYS, JSON), st.integers(0, 40), st.binary(max_size=3))
def test_nearly_valid_envelopes_never_raise_anything_else(value: dict[str, Any], at: int, junk: bytes) -> None:
    """Whole envelopes of random values, and the same with a few bytes replaced."""
    raw = json.dumps(value).encode()
    check(answer(raw))
    check(answer(raw[:at] + junk + raw[at + len(junk) :]))


EXACT = st.integers(-(2**63), 2**64 - 1)
EXACT_JSON = st.recursive(
    st.none() | st.booleans() | EXACT | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
OFFSETS = st.builds(timezone, st.integers(-1439, 1439).map(lambda minutes: timedelta(minutes=minutes)))
MOMENTS = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=OFFSETS)


@settings(max_examples=examples(300), deadline=None)
@given(st.text(min_size=1), st.text(min_size=1), MOMENTS, EXACT_JSON)
def test_valid_envelopes_round_trip(id: str, type: str, moment: datetime, data: Any) -> None:
    value = {"id": id, "type": type, "time": moment.isoformat(), "data": data}
    event = DECODER.decode(record(orjson.dumps(value)))
    assert event is not None
    assert (event.id, event.type, event.time) == (id, type, moment.isoformat())
    assert event.data == ({} if data is None else data)
    assert event.time_wall_seconds == moment.timestamp()


@settings(max_examples=examples(200), deadline=None)
@given(st.integers(0, 253_402_300_799_999))
def test_the_record_timestamp_is_told_exactly(timestamp_ms: int) -> None:
    """To the millisecond, in every year that ISO 8601 can write."""
    event = DECODER.decode(record(b'{"type":"a"}', timestamp_ms))
    assert event is not None
    moment = datetime.fromisoformat(event.time)
    assert (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1) == timestamp_ms
    assert event.time.endswith("Z")


BRACKETS = st.sampled_from(["[", '{"a":'])


@settings(max_examples=examples(100), deadline=None)
@given(st.integers(1, 2 * MAX_DEPTH).flatmap(lambda depth: st.lists(BRACKETS, min_size=depth, max_size=depth)))
def test_the_depth_limit_is_exact(opening: list[str]) -> None:
    """Half of the documents are too deep; lists of any length would nearly all be shallow."""
    closing = "".join("]" if bracket == "[" else "}" for bracket in reversed(opening))
    inner = "".join(opening) + ("" if opening[-1] == "[" else "1") + closing
    event = answer(b'{"type":"a","data":' + inner.encode() + b"}")
    assert (event is not None) == (len(opening) + 1 <= MAX_DEPTH)


@settings(max_examples=examples(300), deadline=None)
@given(st.integers(-(2**70), 2**70))
def test_integers_are_exact_or_refused(number: int) -> None:
    event = answer(b'{"type":"a","data":%d}' % number)
    assert (event is not None) == (-(2**63) <= number < 2**64)
    if event is not None:
        assert event.data == number
