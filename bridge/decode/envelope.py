"""From a decoded value to its event: which of its parts are the event's id, type, time and data.

The same for every format whose value is an object with an envelope; the table in bridge/decode/json.py says what odd
parts mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bridge.decode import times
from bridge.errors import DecodeError, RuleError
from bridge.model import Event, Record

Field = Callable[[Any, Record], Any]
"""Takes the decoded value and its record. KeyError, RuleError or a result of None mean: the field is missing."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """Where the event's parts are found, for producers with an envelope of their own. None keeps the default."""

    id: Field | None = None
    type: Field | None = None
    time: Field | None = None
    data: Field | None = None


DEFAULT_ENVELOPE = Envelope()


DEFAULT_PATHS = {"id": "value.id", "type": "value.type", "time": "value.time"}
CUSTOM_PATHS = {"id": "envelope.id", "type": "envelope.type", "time": "envelope.time"}


def part(field: Field | None, value: dict[str, Any], record: Record, name: str) -> Any:
    """A part by its own expression, else the field of that name; None where it is missing."""
    if field is None:
        return value.get(name)
    try:
        return field(value, record)
    except (KeyError, RuleError):
        return None


def event_in(record: Record, value: dict[str, Any], envelope: Envelope) -> Event:
    """The event whose parts stand where this envelope says. Raises DecodeError."""
    return event_of(
        record,
        value,
        part(envelope.id, value, record, "id"),
        part(envelope.type, value, record, "type"),
        part(envelope.time, value, record, "time"),
        part(envelope.data, value, record, "data"),
        CUSTOM_PATHS,
    )


def event_of(
    record: Record, value: dict[str, Any], id: Any, type: Any, time: Any, data: Any, paths: Mapping[str, str]
) -> Event:
    """The event of these parts, each as the value has it; `paths` names them in messages. Raises DecodeError."""
    if type.__class__ is not str or not type:
        raise wrong(paths["type"], type, "a non-empty string: it is the event's type")
    if id.__class__ is not str:
        if id is None:
            id = record.place
        elif id.__class__ is int:
            id = str(id)
        else:
            raise wrong(paths["id"], id, "a string or an integer")
    elif not id:
        id = record.place
    try:
        if time.__class__ is str:
            time_text, seconds = times.from_text(time)
        elif time is not None:
            time_text, seconds = times.parse(time)
        else:
            time_text, seconds = times.of_record(record.timestamp_ms)
    except times.NotATime as fault:
        path = paths["time"]
        raise DecodeError(f"{path} {fault}" if time is not None else f"the time {fault}", path) from None
    source = value.get("source")
    subject = value.get("subject")
    return Event(
        id=id,
        type=type,
        time=time_text,
        time_wall_seconds=seconds,
        data={} if data is None else data,
        record=record,
        value=value,
        source=source if source.__class__ is str else None,
        subject=subject if subject.__class__ is str else None,
    )


def wrong(path: str, found: Any, wanted: str) -> DecodeError:
    """What is at this path is of the wrong kind."""
    return DecodeError(f"{path} is {kind_of(found)}; it must be {wanted}", path)


def kind_of(value: Any) -> str:
    """What a value is in JSON's own words, never the value."""
    if value is None:
        return "missing or null"
    if value == "" and isinstance(value, str):
        return "an empty string"
    names: dict[type, str] = {
        str: "a string",
        bool: "a boolean",
        int: "an integer",
        float: "a number with a fraction or an exponent",
        list: "an array",
        dict: "an object",
    }
    return names.get(value.__class__, "something else")
