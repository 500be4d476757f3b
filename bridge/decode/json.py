"""JSON records: an object that is the event's envelope, by default `{"id", "type", "time", "data"}`.

What each odd input means is decided here, once:

| input | answer |
|---|---|
| null value (tombstone) | None: filtered |
| empty or blank value | DecodeError |
| invalid UTF-8, invalid JSON, NaN, Infinity, a lone surrogate | DecodeError with the place |
| a byte order mark in front | ignored, as RFC 8259 allows |
| Confluent's framing (a zero byte, a schema id) | DecodeError that says so |
| not an object at the top | DecodeError |
| nested deeper than 128 levels | DecodeError |
| an integer beyond 64 bits | DecodeError with its path: as a double it would silently name somebody else |
| duplicate keys in one object | the last wins, as in JavaScript, Python, Java and Go: what producers' own tools see |
| type missing, null, empty, or no string | DecodeError |
| id missing, null or "" | `topic/partition/offset`; an integer becomes its text; anything else is a DecodeError |
| time missing or null | the record's timestamp; what else counts as a time: bridge/decode/times.py |
| data missing or null | `{}`; anything else stays as it is |
| source, subject | taken where they are strings |

Duplicate keys are not refused because noticing them needs a hook per object (parsing takes five times as long), and
the record is not ambiguous: every mainstream parser agrees on the last. The two other checks cost next to nothing: an
event can only nest 128 deep, or hold an integer beyond 64 bits, if its bytes hold that many brackets, or 20 digits in
a row (19 after a minus).
"""

from __future__ import annotations

import json
from typing import Any

import orjson

from bridge.decode.envelope import DEFAULT_ENVELOPE, DEFAULT_PATHS, Envelope, event_in, event_of, kind_of
from bridge.errors import DecodeError
from bridge.model import Event, Record

MAX_DEPTH = 128
"""Levels of nesting. orjson reads 1,024 but writes only 254, and code that walks a value recursively ends at about
1,000 in Python: what is let in here must be able to get out again. No lifecycle event comes near."""

_DIGITS_TO_ZERO = bytes(48 if 48 <= byte <= 57 else byte for byte in range(256))
_MANY_DIGITS = b"0" * 20  # orjson keeps -2**63 to 2**64-1 exact: every positive integer of 19 digits,
_MANY_NEGATIVE = b"-" + b"0" * 19  # but not every negative one
_INTEGERS_FROM, _INTEGERS_TO = -(2**63), 2**64 - 1
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_NOT_JSON = object()


class JsonDecoder:
    """Decodes the records of one topic; see the module's table for what odd input means."""

    def __init__(self, envelope: Envelope | None = None) -> None:
        self._envelope = None if envelope is None or envelope == DEFAULT_ENVELOPE else envelope

    def decode(self, record: Record) -> Event | None:
        """The record's event; None for a tombstone. Raises DecodeError."""
        raw = record.value
        if raw is None:
            return None
        value = parse_object(raw)
        if self._envelope is None:
            get = value.get
            return event_of(record, value, get("id"), get("type"), get("time"), get("data"), DEFAULT_PATHS)
        return event_in(record, value, self._envelope)


def parse_object(raw: bytes) -> dict[str, Any]:
    """The JSON object in these bytes. Raises DecodeError with the place of what is wrong, never the content."""
    value = parse_value(raw)
    if value.__class__ is not dict:
        raise DecodeError(f"the value is {kind_of(value) if value is not None else 'null'}; it must be a JSON object")
    return value


def parse_value(raw: bytes, path: str = "value") -> Any:
    """Whatever JSON is in these bytes, within the bounds. Raises DecodeError, which names places from `path` on."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        value = _NOT_JSON
    if value is _NOT_JSON:  # outside the handler, so that no traceback carries the document along
        raw = raw.removeprefix(_BYTE_ORDER_MARK)
        fault = _not_json(raw)
        if fault is not None:
            raise fault
        value = orjson.loads(raw)
    if raw.count(b"{") + raw.count(b"[") > MAX_DEPTH and _deeper_than(value, MAX_DEPTH):
        raise DecodeError(f"nested deeper than {MAX_DEPTH} levels")
    zeros = raw.translate(_DIGITS_TO_ZERO)
    if _MANY_DIGITS in zeros or _MANY_NEGATIVE in zeros:
        huge = _path_of_huge_integer(raw, path)
        if huge is not None:
            raise DecodeError(f"{huge} is an integer beyond 64 bits; producers must send it as a string", huge)
    return value


def _not_json(raw: bytes) -> DecodeError | None:
    """Why these bytes are not JSON, as a person would want to know it; None if they are."""
    if not raw:
        return DecodeError("the value is empty (a tombstone would be null)")
    if raw[0] == 0 and len(raw) > 5:
        schema_id = int.from_bytes(raw[1:5], "big")
        return DecodeError(
            f"looks like a schema registry's framing (a zero byte, then schema id {schema_id}), not plain JSON: "
            "set the topic's format to the one it is written in, or let the producer write plain JSON"
        )
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        return DecodeError(f"invalid UTF-8 at byte {error.start}")
    if not text.strip(" \t\r\n"):
        return DecodeError("the value is blank")
    try:
        orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        # orjson's reasons are fixed phrases; they never quote the document.
        reason = error.msg.partition(": line")[0]
        if "memory" in reason:  # what it says of a document that ends after a bracket
            reason = "unexpected end of data"
        return DecodeError(f"invalid JSON at line {error.lineno}, column {error.colno}: {reason}")
    return None


def _deeper_than(value: Any, limit: int) -> bool:
    """Level by level, not recursively: this runs on what is too deep for recursion."""
    level = [value]
    for _ in range(limit):
        below: list[Any] = []
        for item in level:
            children = item.values() if item.__class__ is dict else item
            below.extend(child for child in children if child.__class__ is dict or child.__class__ is list)
        if not below:
            return False
        level = below
    return True


class _Huge:
    """Stands for an integer that orjson would have rounded."""


_HUGE = _Huge()


def _integer(digits: str) -> Any:
    # Beyond 20 digits and a sign it is huge in any case; int() of a very long text would be slow.
    if len(digits) > 21 or not _INTEGERS_FROM <= int(digits) <= _INTEGERS_TO:
        return _HUGE
    return 0


def _path_of_huge_integer(raw: bytes, root: str) -> str | None:
    """The path of the first integer beyond 64 bits; None if the long run of digits was text or a fraction."""
    stack = [(root, json.loads(raw, parse_int=_integer))]
    while stack:
        path, item = stack.pop()
        if item is _HUGE:
            return path
        if isinstance(item, dict):
            stack += [(f"{path}{step(key)}", child) for key, child in item.items()]
        elif isinstance(item, list):
            stack += [(f"{path}[{index}]", child) for index, child in enumerate(item)]
    return None


def step(key: str) -> str:
    """A key in a path. It is the producer's choice of words and might be anybody's address: only names are shown."""
    return f".{key}" if len(key) <= 64 and key.isidentifier() else "[…]"
