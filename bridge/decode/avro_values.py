"""Avro's values as plain JSON values: what rules see, and what may stand in a request's body.

| Avro | here |
|---|---|
| null, boolean, int, long, string, enum, array, map, record | null, true/false, integer, text, list, object |
| float, double | number; NaN and the infinities are null, for which JSON has no number |
| bytes, fixed | base64 text |
| union | the value of the arm that was written |
| decimal, big-decimal | text with all its digits, `"12.50"`: exact, as no JSON number is; `float(…)` computes with it |
| uuid | text with hyphens |
| date | `"2026-11-22"` |
| time-millis, time-micros | `"08:30:00"`, with three or six more digits where they are not zero |
| timestamp-millis, -micros, -nanos | ISO 8601 in UTC, `"2026-11-22T08:30:00Z"`, with three, six or nine more digits |
| local-timestamp-… | the same without the Z |
| duration | ISO 8601, `"P1M2DT3.500S"`: months, days and milliseconds stay apart, as they were written |
| Debezium's dates and times (`connect.name`) | as the logical types above; NanoTime with up to nine digits |
| Debezium's VariableScaleDecimal | text with all its digits |
| a logical type that is not Avro's, or stands on the wrong type | the type under it |
| a time of day beyond a day (PostgreSQL's 24:00, MySQL's 30 hours) | the number, as it was written |

Years beyond 0000 to 9999 carry a sign (bridge/decode/texts.py).

fastavro calls the functions here while it reads, for the values that need it: its own types for custom logical types.
`marked` puts their names into a schema; everything else is read by fastavro's compiled code alone. Where a record is
read by another schema than it was written with, the reader's logical type counts.
"""

from __future__ import annotations

import base64
import math
import uuid
from collections.abc import Callable, Mapping
from typing import Any, Final

from fastavro.read import LOGICAL_READERS

from bridge.decode import texts
from bridge.decode.texts import DECIMAL_BYTES_MAX

PREFIX: Final = "meisa-"
Plain = Callable[[Any, Any], Any]
"""A value as it was written, and the schema of its type → what rules see."""


class Unfit(ValueError):
    """A value that its logical type does not allow. `str()` says what is wrong, without the value."""


# Times


def _date(data: int, schema: Any) -> str:
    return texts.day(data)


def _millis(data: int, schema: Any) -> str:
    return texts.millis(data)


def _micros(data: int, schema: Any) -> str:
    return texts.micros(data)


def _nanos(data: int, schema: Any) -> str:
    return texts.nanos(data)


def _time_of_day(digits: int) -> Plain:
    def read(data: int, schema: Any) -> str | int:
        text = texts.time_of_day(data, digits)
        return data if text is None else text

    return read


def _duration(data: bytes, schema: Any) -> str:
    months, days, millis = (int.from_bytes(data[at : at + 4], "little") for at in (0, 4, 8))
    seconds, rest = divmod(millis, 1000)
    text = "P" + (f"{months}M" if months else "") + (f"{days}D" if days else "")
    if millis or text == "P":
        text += f"T{texts.duration(seconds, rest)}"
    return text


# Numbers, bytes


def _finite(data: float, schema: Any) -> float | None:
    return data if math.isfinite(data) else None


def _base64(data: bytes, schema: Any) -> str:
    return base64.b64encode(data).decode()


def _decimal(data: bytes, schema: Mapping[str, Any]) -> str:
    return _scaled(data, schema.get("scale") or 0)


def _big_decimal(data: bytes, schema: Any) -> str:
    """Its bytes hold Avro themselves: the unscaled number as bytes, then the scale as an int."""
    length, at = _long(data, 0)
    scale, end = _long(data, at + length)
    if length < 0 or end != len(data) or not 0 <= scale <= 2 * DECIMAL_BYTES_MAX:
        raise Unfit("a big-decimal is not a number")
    return _scaled(data[at : at + length], scale)


def _scaled(data: bytes, scale: int) -> str:
    text = texts.decimal(data, scale)
    if text is None:
        raise Unfit(f"a decimal is longer than {DECIMAL_BYTES_MAX} bytes")
    return text


def _long(data: bytes, at: int) -> tuple[int, int]:
    """A variable-length zig-zag number and the place after it. Raises Unfit."""
    number = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), at
    raise Unfit("a number does not end")


def _uuid(data: bytes, schema: Any) -> str:
    return str(uuid.UUID(bytes=data))


def _variable_decimal(data: dict[str, Any], schema: Any) -> Any:
    """Debezium's record of a scale and an unscaled number, which is base64 by now; as it came where it is none."""
    scale, value = data.get("scale"), data.get("value")
    if scale.__class__ is not int or value.__class__ is not str or not 0 <= scale <= 2 * DECIMAL_BYTES_MAX:
        return data
    return _scaled(base64.b64decode(value), scale)


# Which value needs what

_LOCAL: Final[dict[str, Plain]] = {
    f"local-timestamp-{unit}": lambda data, schema, made=made: made(data, schema)[:-1]  # type: ignore[misc]
    for unit, made in (("millis", _millis), ("micros", _micros), ("nanos", _nanos))
}
_LONGS: Final[dict[str, Plain]] = {
    "timestamp-millis": _millis,
    "timestamp-micros": _micros,
    "timestamp-nanos": _nanos,
    "time-micros": _time_of_day(6),
    "time-nanos": _time_of_day(9),
    **_LOCAL,
}
_INTS: Final[dict[str, Plain]] = {"date": _date, "time-millis": _time_of_day(3)}
_BYTES: Final[dict[str, Plain]] = {"decimal": _decimal, "big-decimal": _big_decimal, "bytes": _base64}
_FIXED: Final[dict[str, Plain]] = {"decimal": _decimal, "duration": _duration, "uuid": _uuid, "bytes": _base64}
PLAIN: Final[dict[str, dict[str, Plain]]] = {
    "long": _LONGS,
    "int": _INTS,
    "bytes": _BYTES,
    "fixed": _FIXED,
    "float": {"finite": _finite},
    "double": {"finite": _finite},
    "record": {"variable-decimal": _variable_decimal},
}
_CONNECT: Final = {
    ("int", "io.debezium.time.Date"): "date",
    ("int", "io.debezium.time.Time"): "time-millis",
    ("long", "io.debezium.time.MicroTime"): "time-micros",
    ("long", "io.debezium.time.NanoTime"): "time-nanos",
    ("long", "io.debezium.time.Timestamp"): "timestamp-millis",
    ("long", "io.debezium.time.MicroTimestamp"): "timestamp-micros",
    ("long", "io.debezium.time.NanoTimestamp"): "timestamp-nanos",
    ("record", "io.debezium.data.VariableScaleDecimal"): "variable-decimal",
}
"""What Debezium's own types are, which Kafka Connect writes beside a type without a logical one. Its others are text as
they are (ZonedTimestamp, Json, Uuid, Enum …); Connect's own have Avro's logical types."""
_DEFAULTS: Final = {"bytes": "bytes", "fixed": "bytes", "float": "finite", "double": "finite"}
"""What values of these types need where no logical type says more."""
_FIXED_SIZES: Final = {"duration": 12, "uuid": 16}
_ANY: Final = "any"
"""Marks what may need something by the reader's schema alone."""
_LEAVES: Final = frozenset({"int", "long", "float", "double", "bytes", "string", "fixed"})


def _logical(kind: str, schema: Mapping[str, Any]) -> str | None:
    """The name in `PLAIN` of what a type needs; None where nothing."""
    name = schema.get("logicalType") or _CONNECT.get((kind, str(schema.get("connect.name"))))
    if not isinstance(name, str) or name not in PLAIN.get(kind, ()):
        return _DEFAULTS.get(kind)
    if name == "decimal" and not _sound_decimal(schema):
        return "bytes"
    if kind == "fixed" and _FIXED_SIZES.get(name, schema.get("size")) != schema.get("size"):
        return "bytes"
    return name


def _sound_decimal(schema: Mapping[str, Any]) -> bool:
    """Whether precision and scale are what Avro allows; else the logical type must be ignored."""
    precision, scale = schema.get("precision"), schema.get("scale", 0)
    if not isinstance(precision, int) or not isinstance(scale, int):
        return False
    return 0 <= scale <= precision <= 4 * DECIMAL_BYTES_MAX and precision > 0


def marked(schema: Any, *, resolving: bool) -> Any:
    """A schema in which every value that needs it names a function here.

    `resolving`: it is used together with a reader's schema, which may ask for something where the writer's does not.
    """
    if isinstance(schema, list):
        return [marked(arm, resolving=resolving) for arm in schema]
    if not isinstance(schema, dict):
        schema = {"type": schema} if schema in _LEAVES else schema
        if not isinstance(schema, dict):
            return schema
        made = schema
    else:
        made = {key: value for key, value in schema.items() if key not in ("logicalType", "precision", "scale")}
    kind = schema.get("type")
    if kind == "array":
        return {**made, "items": marked(schema["items"], resolving=resolving)}
    if kind == "map":
        return {**made, "values": marked(schema["values"], resolving=resolving)}
    if kind in ("record", "error"):
        fields = [{**each, "type": marked(each["type"], resolving=resolving)} for each in schema["fields"]]
        needs = _logical("record", schema)
        return {**made, "fields": fields, **({"logicalType": PREFIX + needs} if needs else {})}
    if kind not in _LEAVES:
        return made
    needs = _logical(kind, schema) or (_ANY if resolving else None)
    if needs is None:
        return made if len(made) > 1 else kind
    made["logicalType"] = PREFIX + needs
    if needs == "decimal":
        made["scale"] = schema.get("scale", 0)
    return made


def _register(kind: str, name: str, plain: Plain) -> None:
    def read(data: Any, writer: Any, reader: Any) -> Any:
        return plain(data, writer) if reader is None else _resolved(data, reader)

    LOGICAL_READERS[f"{kind}-{PREFIX}{name}"] = read


def _resolved(data: Any, reader: Any) -> Any:
    """A written value as the reader's schema wants it: promoted, then by its logical type."""
    kind = reader["type"] if isinstance(reader, dict) else reader
    if kind in ("float", "double"):
        data = float(data)
    elif kind == "string" and isinstance(data, bytes):
        data = data.decode()
    elif kind == "bytes" and isinstance(data, str):
        data = data.encode()
    return plain(data, reader)


def plain(data: Any, schema: Any) -> Any:
    """A value of a marked leaf type as it is read by that type alone."""
    if not isinstance(schema, dict):
        return data
    name = str(schema.get("logicalType", "")).removeprefix(PREFIX)
    made = PLAIN.get(schema["type"], {}).get(name)
    return data if made is None else made(data, schema)


for _kind, _of_kind in PLAIN.items():
    for _name, _plain in _of_kind.items():
        _register(_kind, _name, _plain)
for _kind in _LEAVES:
    _register(_kind, _ANY, lambda data, schema: data)
