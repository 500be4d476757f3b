"""Change events of Debezium: data is the payload (`op`, `before`, `after`, `source`), type is `<table>.created` etc.

| input | answer |
|---|---|
| null value (tombstone), or a wrapper whose payload is null | None: filtered |
| `{"schema": …, "payload": …}` (Connect's JsonConverter) | its payload; encodings that the schema names become plain \
values (bridge/decode/connect.py) |
| any other object | is the payload; dates and decimals stay as the connector encodes them |
| op c, u, d, r | `<table>.created`, `.updated`, `.deleted`, `.read` (a row of a snapshot) |
| op t | `<table>.truncated` |
| op m (PostgreSQL's logical message) | `message` |
| any other op | DecodeError |
| no op: a heartbeat, a transaction's begin or end, a change of the schema | None: filtered; they tell of no row |
| no op else (flattened by a transformation, or not Debezium) | DecodeError that says to use format json |
| neither source.table nor source.collection (MongoDB) | DecodeError, but for a message |
| source.ts_ms missing, null or 0 | the payload's own ts_ms; without it the record's timestamp |
| ts_ms that is no integer, or no time | DecodeError |
| a column that the database did not log (`__debezium_unavailable_value`) | missing |
| a decimal that carries its scale (`{"scale": …, "value": …}`) | its text |
| MongoDB's before and after, which are JSON in a text | objects, with plain values for extended JSON |

The id is `topic/partition/offset`: what Debezium says of a place in the database's log is not unique per row (a
snapshot, or one statement, shares it). So a change that a restarted connector writes again counts as another event.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from bridge.decode import texts, times
from bridge.decode.connect import decimal_of, plain
from bridge.decode.envelope import kind_of, wrong
from bridge.decode.json import parse_object, parse_value
from bridge.errors import DecodeError
from bridge.model import Event, Record

_VERBS: Final = {"c": "created", "u": "updated", "d": "deleted", "r": "read", "t": "truncated"}
_UNAVAILABLE: Final = ("__debezium_unavailable_value", "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==")
"""The connector's placeholder, and the same as bytes in base64."""
_ROWS: Final = ("before", "after")

ReadValue = Callable[[Record], dict[str, Any]]
"""The decoded value of a record whose value is not null. Raises DecodeError."""


class DebeziumDecoder:
    """Decodes the records of one topic; see the module's table for what odd input means."""

    def __init__(self, read: ReadValue | None = None) -> None:
        """`read` decodes another encoding than JSON."""
        self._read = read

    def decode(self, record: Record) -> Event | None:
        """The record's event; None for what tells of no row. Raises DecodeError."""
        if record.value is None:
            return None
        value = parse_object(record.value) if self._read is None else self._read(record)
        if len(value) == 2 and "payload" in value and "schema" in value:
            payload = value["payload"]
            if payload is None:
                return None
            if payload.__class__ is not dict:
                raise wrong("value.payload", payload, "an object")
            plain(payload, value["schema"])
        else:
            payload = value
        op = payload.get("op")
        if op is None:
            if _tells_of_no_row(payload):
                return None
            raise DecodeError(
                "the payload has no op, so it is no change event of Debezium; where a transformation flattens them, "
                "write format: json, with an envelope that says where type, time and data stand",
                "data.op",
            )
        source = payload.get("source")
        if source.__class__ is not dict:
            raise wrong("data.source", source, "an object")
        type = _type(op, source)
        documents = "collection" in source
        if documents:
            _open_documents(payload)
        for row in _ROWS:
            if payload.get(row).__class__ is dict:
                payload[row] = _columns(payload[row], documents)
        time, seconds = _time(record, payload, source)
        name = source.get("name")
        return Event(
            id=record.place,
            type=type,
            time=time,
            time_wall_seconds=seconds,
            data=payload,
            record=record,
            value=value,
            source=name if name.__class__ is str else None,
        )


def _tells_of_no_row(payload: dict[str, Any]) -> bool:
    """Debezium's own records: heartbeats; BEGIN and END of transactions; changes of the database's schema."""
    names = payload.keys()
    return (
        ("ts_ms" in names and names <= {"ts_ms", "ts_us", "ts_ns"})
        or (payload.get("status") in ("BEGIN", "END") and "id" in names)
        or {"databaseName", "ddl"} <= names
    )


def _type(op: Any, source: dict[str, Any]) -> str:
    if op == "m":
        return "message"
    verb = _VERBS.get(op) if op.__class__ is str else None
    if verb is None:
        raise DecodeError(f"data.op is none of: {', '.join(_VERBS)}, m", "data.op")
    table = source.get("table")
    if table is None:
        table = source.get("collection")
    if table.__class__ is not str or not table:
        raise wrong("data.source.table", table, "a non-empty string (or data.source.collection): the type begins so")
    return f"{table}.{verb}"


def _time(record: Record, payload: dict[str, Any], source: dict[str, Any]) -> tuple[str, float]:
    where = "the time"
    try:
        for path, holder in (("data.source.ts_ms", source), ("data.ts_ms", payload)):
            milliseconds = holder.get("ts_ms")
            if milliseconds is None or milliseconds == 0:
                continue
            where = path
            if milliseconds.__class__ is not int:
                raise times.NotATime(f"is {kind_of(milliseconds)}; it must be milliseconds since 1970")
            return times.from_milliseconds(milliseconds)
        return times.of_record(record.timestamp_ms)
    except times.NotATime as fault:
        message = f"{where} {fault}"
    raise DecodeError(message, where)


def _columns(row: dict[str, Any], documents: bool) -> dict[str, Any]:
    """A row as rules see it.

    Without the columns whose value the connector was not given: a placeholder must not pass for a value. And with text
    for decimals that carry their own scale: no other column of a table is an object of scale and value.
    """
    for name, value in row.items():
        if value.__class__ is dict and not documents:
            made = decimal_of(value)
            if made is not None:
                row[name] = made
    if any(_is_placeholder(value) for value in row.values()):
        return {name: value for name, value in row.items() if not _is_placeholder(value)}
    return row


def _is_placeholder(value: Any) -> bool:
    if value.__class__ is list:
        return len(value) == 1 and value[0].__class__ is str and value[0] in _UNAVAILABLE
    return value.__class__ is str and value in _UNAVAILABLE


def _open_documents(payload: dict[str, Any]) -> None:
    for row in _ROWS:
        text = payload.get(row)
        if text.__class__ is str:
            try:
                document = parse_value(text.encode(), f"data.{row}")
            except DecodeError as error:
                fault: DecodeError | None = DecodeError(f"data.{row}: {error.message}", f"data.{row}")
            else:
                fault = None
            if fault is not None:
                raise fault
            payload[row] = _relaxed(document)


def _relaxed(value: Any) -> Any:
    """Extended JSON's objects for ids, numbers and dates as plain values. `value` nests within json.MAX_DEPTH."""
    if value.__class__ is list:
        return [_relaxed(item) for item in value]
    if value.__class__ is not dict:
        return value
    if len(value) == 1:
        ((name, inner),) = value.items()
        convert = _EXTENDED.get(name)
        made = convert(inner) if convert is not None else None
        if made is not None:
            return made
    return {name: _relaxed(item) for name, item in value.items()}


def _text(value: Any) -> str | None:
    return value if value.__class__ is str else None


def _whole(value: Any) -> int | None:
    try:
        number = int(value) if value.__class__ is str and len(value) <= 20 else None
    except ValueError:
        return None
    return number if number is not None and -(2**63) <= number < 2**63 else None


def _double(value: Any) -> float | None:
    try:
        number = float(value) if value.__class__ is str and len(value) <= 400 else None
    except ValueError:
        return None
    return number if number is not None and abs(number) < float("inf") else None  # NaN is not below either


def _date(value: Any) -> str | None:
    if value.__class__ is str:
        return str(value)
    if value.__class__ is dict:
        value = _whole(value.get("$numberLong"))
    if value.__class__ is not int:
        return None
    return texts.millis(value)


_EXTENDED: Final[dict[str, Callable[[Any], Any]]] = {
    "$oid": _text,
    "$numberInt": _whole,
    "$numberLong": _whole,
    "$numberDouble": _double,
    "$numberDecimal": _text,
    "$date": _date,
}
