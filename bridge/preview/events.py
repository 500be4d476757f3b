"""Where a preview's events come from, and when each of them arrives.

A file has one event a line, in either of two forms; both may be mixed.

| a line | is |
|---|---|
| an object with a value, something beside it, and no key but those of `RECORD_KEYS` | a whole record |
| anything else | the record's value as it stands on the topic |

Whole records are what `kcat -J` and `rpk topic consume` print, or what is written by hand in that way.
A line that cannot be read is a record too, whose value is that line: the topic's decoder refuses it, and it counts as a
dead letter of kind `decode`, under its line's number.
"""

from __future__ import annotations

import base64
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any, Final, NamedTuple

import orjson

from bridge.decode import times
from bridge.errors import DecodeError, UsageError
from bridge.model import Event, Plan, Record, TopicPartition

EVENTS_MAX: Final = 1_000_000
"""Of one preview, all in memory: about a gigabyte."""
BYTES_MAX: Final = 1_000_000_000
LINE_BYTES_MAX: Final = 64 * 1024 * 1024
"""Far above what a broker accepts for one record (1 MB unless configured)."""

_VALUES: Final = ("value", "payload", "value_base64")
_BESIDE: Final = frozenset({"topic", "partition", "offset", "timestamp", "ts", "key", "key_base64", "headers"})
RECORD_KEYS: Final = frozenset({*_VALUES, *_BESIDE, "tstype", "broker", "timestamp_type", "leader_epoch"})

EARLIEST_WALL: Final = 946_684_800.0
"""2000-01-01: no event of a topic is older. What claims to be (a zero, a wrong unit) has no time of its own."""
AHEAD_SECONDS: Final = 86_400.0
"""Later than a day from now no event has happened; one such must not hold back all that follow it."""

Decode = Callable[[Record], Event | None]


class Arrival(NamedTuple):
    """A record, and from when on it can be read."""

    record: Record
    at: float
    """Wall seconds."""
    line: int = 0
    """In the file, from 1; 0 where it comes from a topic."""


@dataclass
class Timeline:
    """What a preview runs on."""

    arrivals: list[Arrival]
    """In the order in which they can be read."""
    starts: dict[TopicPartition, int] = field(default_factory=dict)
    """Where each partition begins."""
    wall_at_start: float = 0.0
    at_once: bool = False
    """All of it waits when the preview begins; else each event arrives at its time."""
    first: float | None = None
    last: float | None = None
    """When the first and the last of them happened (wall seconds); None of none."""
    timed: int = 0
    """So many had a time of their own."""


# A file


def first_partition(record: Record) -> int:
    return 0


def read_lines(
    stream: Iterable[bytes],
    topics: Sequence[str],
    *,
    topic: str,
    last: int | None = None,
    name: str = "the file",
    partition_of: Callable[[Record], int] = first_partition,
) -> list[Arrival]:
    """The records of a file's lines, those without a topic (or of one that is not configured) being of `topic`, and
    those without a partition of `partition_of`.

    `last` keeps the last so many. `at` is -1 where the line tells no time. Raises UsageError beyond the bounds.
    """
    lasts: dict[TopicPartition, int] = {}
    kept: deque[Arrival] = deque(maxlen=last)
    size = 0
    for number, raw in enumerate(stream, 1):
        line = raw.strip()
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line:
            continue
        if number == 1 and line in (b"{", b"["):
            every = "jq -c '.[]'" if line == b"[" else "jq -c ."
            raise UsageError(f"{name} is JSON over several lines; write one event a line: {every} {name}")
        if len(line) > LINE_BYTES_MAX:
            raise UsageError(f"{name}:{number}: more than {LINE_BYTES_MAX:,} bytes in one line: is this JSON lines?")
        record = _record(line, topics, topic)
        if record.partition < 0:
            record = record._replace(partition=partition_of(record))
        place = TopicPartition(record.topic, record.partition)
        before = lasts.get(place, -1)
        offset = record.offset if record.offset > before else before + 1
        lasts[place] = offset
        if last is not None and len(kept) == last and kept:
            size -= len(kept[0].record.value or b"")
        size += len(record.value or b"")
        kept.append(Arrival(record._replace(offset=offset), record.timestamp_ms / 1000, number))
        if len(kept) > EVENTS_MAX or size > BYTES_MAX:
            raise UsageError(
                f"{name} has more than {EVENTS_MAX:,} events or {BYTES_MAX // 1_000_000:,} MB: "
                "look at the last ones with --last 100000"
            )
    return list(kept)


def _record(line: bytes, topics: Sequence[str], topic: str) -> Record:
    """A line's record; partition, offset and timestamp are -1 where the line tells none."""
    if line.startswith(b"{"):
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError:
            value = None  # for the decoder to say
        if isinstance(value, dict) and _is_record(value):
            try:
                return _given(value, topics, topic)
            except (ValueError, TypeError, KeyError, OverflowError):
                pass  # told as what it is: a line that is no event
    return Record(topic, -1, -1, -1, None, line, (), 1)


def _is_record(value: Mapping[str, Any]) -> bool:
    return value.keys() <= RECORD_KEYS and any(name in value for name in _VALUES) and not _BESIDE.isdisjoint(value)


def _given(value: Mapping[str, Any], topics: Sequence[str], topic: str) -> Record:
    named = value.get("topic")
    stamp = value.get("timestamp", value.get("ts"))
    return Record(
        named if isinstance(named, str) and named in topics else topic,
        _whole(value.get("partition"), -1),
        _whole(value.get("offset"), -1),
        -1 if stamp in (None, -1) else int(times.parse(stamp)[1] * 1000),
        _bytes(value, "key"),
        _bytes(value, "payload" if "payload" in value else "value"),
        tuple(_headers(value.get("headers"))),
        1,
    )


def _whole(value: Any, otherwise: int) -> int:
    if value is None:
        return otherwise
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**62:
        raise ValueError("not a number of a record")
    return value


def _bytes(value: Mapping[str, Any], name: str) -> bytes | None:
    """Text is its bytes, anything else its JSON, `…_base64` what it encodes; null stays null."""
    encoded = value.get(f"{name}_base64")
    if encoded is not None:
        return base64.b64decode(encoded, validate=True)
    given = value.get(name)
    if given is None:
        return None
    return given.encode() if isinstance(given, str) else orjson.dumps(given)


def _headers(given: Any) -> Iterator[tuple[str, bytes | None]]:
    """An object, a list of {key, value} or of pairs, or kcat's flat list of names and values."""
    if given is None:
        return
    if isinstance(given, Mapping):
        pairs: Iterable[Any] = given.items()
    elif all(isinstance(each, Mapping) for each in given):
        pairs = [(each["key"], each.get("value")) for each in given]
    elif all(isinstance(each, list) for each in given):
        pairs = given
    else:
        pairs = zip(given[::2], given[1::2], strict=True)
    for name, text in pairs:
        yield str(name), None if text is None else str(text).encode()


def spread(count: int, decode: Mapping[str, Decode], plan: Callable[[Event], Plan]) -> Callable[[Record], int]:
    """Where a record without a partition would stand on a topic with so many: by its key, as producers do it, else by
    the first contact that the rules make of it, as if that were its key."""

    def partition_of(record: Record) -> int:
        name = record.key
        if name is None:
            try:
                event = decode[record.topic](record._replace(partition=0, offset=0, timestamp_ms=0))
            except DecodeError:
                event = None
            actions = plan(event).actions if event is not None else ()
            names = actions[0].contact.ordering_keys() if actions else ()
            name = names[0].encode() if names else record.value or b""
        return zlib.crc32(name) % count

    return partition_of


# A topic


def from_topic(records: Iterable[Record]) -> list[Arrival]:
    """Of records as they were read, under the epoch of a preview."""
    return [Arrival(record._replace(epoch=1), record.timestamp_ms / 1000) for record in records]


# Time


def with_event_times(arrivals: Iterable[Arrival], decoders: Mapping[str, Decode]) -> list[Arrival]:
    """Those whose line tells no time arrive when their event says that it happened."""
    return [
        each if each.at >= 0 else each._replace(at=_happened(each.record, decoders[each.record.topic]))
        for each in arrivals
    ]


def _happened(record: Record, decode: Decode) -> float:
    try:
        event = decode(record._replace(timestamp_ms=0))
    except DecodeError:
        return -1.0
    return -1.0 if event is None else event.time_wall_seconds


def since(arrivals: Iterable[Arrival], wall: float) -> list[Arrival]:
    """Those that are not older."""
    return [each for each in arrivals if each.at >= wall]


def _by_event_time(
    arrivals: Sequence[Arrival], known: Sequence[float | None], first: float
) -> tuple[list[Arrival], list[float | None]]:
    """Puts the lines of partitions that nothing but events tell the time of into the order of these."""
    logged = {_partition(each) for each in arrivals if each.record.timestamp_ms >= 0}
    offsets: dict[TopicPartition, Iterator[int]] = {}
    before = first
    keyed: list[tuple[float, Arrival, float | None]] = []
    for each, at in zip(arrivals, known, strict=True):
        before = before if at is None else at
        if _partition(each) not in logged:
            keyed.append((before, each, at))
    keyed.sort(key=itemgetter(0))
    for partition in {_partition(each) for _, each, _ in keyed}:
        offsets[partition] = iter(sorted(each.record.offset for _, each, _ in keyed if _partition(each) == partition))
    found = [(each, at) for each, at in zip(arrivals, known, strict=True) if _partition(each) in logged]
    found += [
        (each._replace(record=each.record._replace(offset=next(offsets[_partition(each)]))), at)
        for _, each, at in keyed
    ]
    return [each for each, _ in found], [at for _, at in found]


def _partition(arrival: Arrival) -> TopicPartition:
    return TopicPartition(arrival.record.topic, arrival.record.partition)


def timeline(
    arrivals: Sequence[Arrival], *, now_wall: float, at_once: bool | None = None, fixed: bool = False
) -> Timeline:
    """When each can be read.

    They arrive when they happened, unless `at_once` says otherwise or their times are all the same: then all of them
    wait from the beginning, at `now_wall` if that is `fixed`, else at the last one's time. An event without a time
    arrives with the one before it. Where a log's order is known a record never comes before the one in front of it;
    lines of which only events tell the time come in the order of these.
    """
    known = [each.at if EARLIEST_WALL <= each.at <= now_wall + AHEAD_SECONDS else None for each in arrivals]
    times_known = [at for at in known if at is not None]
    first, last = (min(times_known), max(times_known)) if times_known else (now_wall, now_wall)
    together = last - first < 1.0 if at_once is None else at_once
    if not together:
        arrivals, known = _by_event_time(arrivals, known, first)
    wall = now_wall if fixed or not times_known else last
    reached: dict[TopicPartition, float] = {}
    starts: dict[TopicPartition, int] = {}
    placed = []
    for each, at in zip(arrivals, known, strict=True):
        partition = _partition(each)
        starts.setdefault(partition, each.record.offset)
        arrives = reached[partition] = max(at if at is not None else first, reached.get(partition, first))
        record = each.record
        if record.timestamp_ms < 0:
            # As a broker would have stamped it: an event without a time of its own takes this one.
            record = record._replace(timestamp_ms=int((arrives if times_known else wall) * 1000))
        placed.append(Arrival(record, wall if together else arrives, each.line))
    if not together:
        placed.sort(key=itemgetter(1))  # stable: within a partition they never go back
    return Timeline(
        placed,
        starts,
        wall if together else first,
        together,
        first if times_known else None,
        last if times_known else None,
        len(times_known),
    )
