"""Lines and records as a preview reads them, and when each arrives."""

import base64
import json
import re
from typing import Any

import pytest

from bridge.decode import decoder_for
from bridge.errors import DecodeError, UsageError
from bridge.model import Action, Contact, Event, Kind, Plan, Record, TopicPartition
from bridge.preview import events
from bridge.preview.events import Arrival, read_lines, timeline, with_event_times

TOPICS = ["users", "bills"]
NOON = 1_780_000_000.0


def lines(*values: Any, last: int | None = None) -> list[Arrival]:
    """Bytes stay as they are; anything else is written as JSON."""
    raw = [each if isinstance(each, bytes) else json.dumps(each).encode() for each in values]
    return read_lines([each + b"\n" for each in raw], TOPICS, topic="users", last=last)


def only(*values: Any) -> Record:
    (arrival,) = lines(*values)
    return arrival.record


def test_a_line_is_the_records_value_as_it_stands() -> None:
    """Blank lines are left out, and each record knows its line."""
    found = lines(b'\xef\xbb\xbf{"type": "a"}', b"", b'  {"type": "b"}  ')
    assert [(each.record.value, each.line) for each in found] == [(b'{"type": "a"}', 1), (b'{"type": "b"}', 3)]
    assert [each.record[:3] for each in found] == [("users", 0, 0), ("users", 0, 1)]


def test_a_record_as_kcat_prints_it() -> None:
    """Payload as text, time in milliseconds, headers as one flat list."""
    record = only(
        {
            "topic": "bills",
            "partition": 3,
            "offset": 17,
            "tstype": "create",
            "ts": 1_780_000_000_250,
            "broker": 0,
            "headers": ["trace", "7", "empty", None],
            "key": "u1",
            "payload": '{"type":"a"}',
        }
    )
    assert record == Record(
        "bills", 3, 17, 1_780_000_000_250, b"u1", b'{"type":"a"}', (("trace", b"7"), ("empty", None)), 1
    )


def test_a_record_as_rpk_prints_it() -> None:
    """Headers are objects there."""
    record = only(
        {
            "topic": "users",
            "key": "k",
            "value": "{}",
            "headers": [{"key": "h", "value": "v"}],
            "timestamp": 1_780_000_000_000,
            "partition": 0,
            "offset": 5,
        }
    )
    assert (record.offset, record.headers, record.value) == (5, (("h", b"v"),), b"{}")


def test_a_record_written_by_hand() -> None:
    """The value as JSON, the time as text, headers as an object; bytes as base64; null is a tombstone."""
    record = only({"value": {"type": "a"}, "timestamp": "2026-05-28T20:26:40Z", "headers": {"h": "v"}})
    assert (record.value, record.timestamp_ms, record.headers) == (b'{"type":"a"}', 1_780_000_000_000, (("h", b"v"),))
    encoded = base64.b64encode(b"\0\1avro").decode()
    assert only({"topic": "users", "value_base64": encoded, "key_base64": encoded})[4:6] == (b"\0\1avro", b"\0\1avro")
    assert only({"topic": "users", "value": None}).value is None


@pytest.mark.parametrize(
    "value",
    [
        {"type": "a", "value": {}, "topic": "users"},
        {"schema": {}, "payload": {"op": "c"}},
        {"value": 1},
        {"topic": "users", "key": "k"},
    ],
)
def test_an_event_that_resembles_a_record_is_an_event(value: dict[str, Any]) -> None:
    """One more key, no value, or nothing beside the value: it is the value itself."""
    assert json.loads(only(value).value or b"") == value


@pytest.mark.parametrize(
    "bad",
    [
        {"topic": "users", "value_base64": "!!!"},
        {"topic": "users", "value": "{}", "offset": -7},
        {"topic": "users", "value": "{}", "timestamp": "noon"},
        {"topic": "users", "value": "{}", "headers": ["odd"]},
        {"topic": "users", "value": "{}", "headers": [{"name": "no key"}]},
        {"topic": "users", "value": "{}", "headers": 7},
        b'{"topic": "users", "value": {',
        b"not JSON",
    ],
)
def test_a_line_that_cannot_be_read_is_a_dead_letter_and_ends_nothing(bad: Any) -> None:
    """Its bytes are the value that the decoder refuses, under its line."""
    (_, broken, after) = lines({"type": "a"}, bad, {"type": "b"})
    assert broken.line == 2
    with pytest.raises(DecodeError):
        decoder_for("json").decode(broken.record)
    assert after.record.offset == 2


def test_offsets_rise_in_each_partition_whatever_the_lines_say() -> None:
    """The engine takes an offset once: what repeats one gets the next."""
    given = [(0, 5), (1, 5), (0, 5), (0, 9)]
    found = lines(*({"value": {}, "partition": part, "offset": offset} for part, offset in given))
    assert [each.record[1:3] for each in found] == [(0, 5), (1, 5), (0, 6), (0, 9)]


def test_a_topic_that_is_not_configured_is_read_as_the_named_one() -> None:
    """A dump of another environment's topic."""
    assert only({"topic": "staging-users", "value": {}}).topic == "users"


@pytest.mark.parametrize(("first", "cure"), [(b"{", "jq -c . "), (b"[", "jq -c '.[]' ")])
def test_json_over_several_lines_is_told_with_its_cure(first: bytes, cure: str) -> None:
    """Each of its lines would be a dead letter, and say nothing of the mistake."""
    with pytest.raises(UsageError, match=re.escape(cure)):
        lines(first, b'"type": "a"', b"}")


def test_the_last_lines_and_the_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """`last` keeps the end; too many are refused with what to do."""
    assert [each.line for each in lines(*[{"type": "a"}] * 5, last=2)] == [4, 5]
    monkeypatch.setattr(events, "EVENTS_MAX", 3)
    with pytest.raises(UsageError, match="--last"):
        lines(*[{"type": "a"}] * 4)
    assert len(lines(*[{"type": "a"}] * 9, last=3)) == 3


def test_lines_are_spread_over_partitions() -> None:
    """By the key where there is one, else by whom the rules find; what a line says itself stays."""

    def plan(event: Event) -> Plan:
        email = event.data.get("email")
        who = (Action(Kind.UPSERT, "r", 0, {}, Contact(email)),) if email else ()
        return Plan(who)

    where = events.spread(7, {"users": decoder_for("json").decode}, plan)
    given: list[Any] = [{"type": "a", "data": {"email": f"u{n % 20}@x"}} for n in range(40)]
    given += [{"value": {"type": "a"}, "key": f"k{n % 20}"} for n in range(40)]
    given += [{"value": {"type": "a"}, "partition": 9}, b"bad", {"type": "a"}]
    raw = [each if isinstance(each, bytes) else json.dumps(each).encode() for each in given]
    found = [each.record.partition for each in read_lines(raw, TOPICS, topic="users", partition_of=where)]
    assert found[:20] == found[20:40]
    assert found[40:60] == found[60:80]
    assert len(set(found[:20])) > 3
    assert found[80] == 9
    assert all(0 <= number < 7 for number in found[81:])


# Time


def at(*seconds: float | None, partition: int = 0) -> list[Arrival]:
    return [
        Arrival(Record("users", partition, offset, -1, None, b"{}", (), 1), -1.0 if each is None else NOON + each)
        for offset, each in enumerate(seconds)
    ]


def moments(found: events.Timeline) -> list[float]:
    return [each.at - NOON for each in found.arrivals]


def stamped(found: list[Arrival]) -> list[Arrival]:
    """As a broker stamps records: their order is the log's."""
    return [
        each._replace(record=each.record._replace(timestamp_ms=int(each.at * 1000))) if each.at >= 0 else each
        for each in found
    ]


def test_lines_come_in_the_order_of_their_events() -> None:
    """A file of events need not be sorted; one without a time stays behind the one before it. Offsets rise."""
    found = timeline(at(None, 90, 60, None, 0), now_wall=NOON + 1000)
    assert moments(found) == [0, 0, 60, 60, 90]
    assert [each.record.offset for each in found.arrivals] == [0, 1, 2, 3, 4]
    assert moments(timeline(at(60, 0), now_wall=NOON + 1000, at_once=True)) == [60, 60]


def test_records_arrive_when_they_happened() -> None:
    """Never before those that stand in front of them in the log; without a time, with the one before."""
    found = timeline(stamped(at(None, 0, 60, 30, None, 90)), now_wall=NOON + 1000)
    assert moments(found) == [0, 0, 60, 60, 60, 90]
    assert (found.at_once, found.wall_at_start, found.timed) == (False, NOON, 4)
    assert found.arrivals[4].record.timestamp_ms == (NOON + 60) * 1000, "as a broker would have stamped it"


def test_partitions_are_merged_by_time() -> None:
    """Each keeps its own order."""
    found = timeline(stamped([*at(0, 50), *at(20, 10, partition=1)]), now_wall=NOON + 1000)
    assert [(each.record.partition, each.record.offset) for each in found.arrivals] == [(0, 0), (1, 0), (1, 1), (0, 1)]
    assert found.starts == {TopicPartition("users", 0): 0, TopicPartition("users", 1): 0}


def test_times_that_cannot_be_do_not_hold_back_the_rest() -> None:
    """A zero, and the far future."""
    found = timeline(stamped(at(0, -NOON, 10_000_000, 20)), now_wall=NOON + 1000)
    assert moments(found) == [0, 0, 0, 20]


def test_at_once_all_wait_from_the_beginning() -> None:
    """At the last one's time, unless a time is given; so for events of one moment, and of none."""
    assert moments(timeline(at(0, 60), now_wall=NOON + 1000, at_once=True)) == [60, 60]
    assert moments(timeline(at(0, 60), now_wall=NOON + 1000, at_once=True, fixed=True)) == [1000, 1000]
    together = timeline(at(5, 5), now_wall=NOON + 1000)
    assert (together.at_once, moments(together)) == (True, [5, 5])
    timeless = timeline(at(None, None), now_wall=NOON)
    assert (timeless.at_once, moments(timeless), timeless.first) == (True, [0, 0], None)


def test_lines_without_a_time_take_their_events() -> None:
    """What cannot be decoded has none."""

    def decode(record: Record) -> Event | None:
        return decoder_for("json").decode(record)

    found = with_event_times(
        lines({"type": "a", "time": "2026-05-28T20:26:40Z"}, {"type": "a"}, b"bad"), {"users": decode}
    )
    assert [each.at for each in found] == [NOON, 0.0, -1.0]
