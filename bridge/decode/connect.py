"""What Kafka Connect's and Debezium's encodings mean, as plain values: times as ISO 8601, decimals as exact text.

Works on JSON that carries its schema beside it (Connect's JsonConverter with `schemas.enable=true`). Values are
converted by the schema's name:

| schema name | from | to |
|---|---|---|
| `io.debezium.time.Date`, `…connect.data.Date` | days since 1970 | `2026-11-22` |
| `io.debezium.time.Timestamp`, `…connect.data.Timestamp` | milliseconds since 1970 | `2026-11-22T08:54:17.123Z` |
| `io.debezium.time.MicroTimestamp`, `NanoTimestamp` | micro-, nanoseconds since 1970 | the same, to the microsecond |
| `io.debezium.time.Time`, `…connect.data.Time`, `MicroTime`, `NanoTime` | since midnight | `08:54:17.123` |
| `…connect.data.Decimal` | base64 of the unscaled number | `"12.50"` |
| `io.debezium.data.VariableScaleDecimal` | an object with scale and value | `"12.50"` |

A value that its schema does not fit stays as it came (infinity in a PostgreSQL timestamp, for instance), and so does
all else: Connect's schema is a help here, not a promise that a record could break.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from bridge.decode import times

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_MICROSECONDS: Final = 86_400_000_000
_UNSCALED_BYTES_MAX: Final = 128
"""Of a decimal: over 300 digits. Databases end at 131,072 digits, but writing those as text takes quadratic time."""
_SCALE_MAX: Final = 400
"""Digits after the point, or zeros before it: each is a character that a record can ask for with a few bytes."""


def plain(value: Any, schema: Any) -> Any:
    """The value with what its schema names converted; changes objects and lists in place."""
    if value is None or schema.__class__ is not dict:
        return value
    name = schema.get("name")
    convert = _CONVERTERS.get(name) if name.__class__ is str else None
    if convert is not None:
        made = convert(value, schema)
        return value if made is None else made
    if value.__class__ is dict:
        _plain_object(value, schema)
    elif value.__class__ is list:
        items = schema.get("items")
        if items.__class__ is dict:
            value[:] = [plain(item, items) for item in value]
    return value


def _plain_object(value: dict[str, Any], schema: dict[str, Any]) -> None:
    fields = schema.get("fields")
    if fields.__class__ is list:
        for field in fields:
            name = field.get("field") if field.__class__ is dict else None
            if name.__class__ is str and value.get(name) is not None:
                value[name] = plain(value[name], field)
        return
    values = schema.get("values")  # a map with text keys; others are lists of pairs, and stay
    if values.__class__ is dict:
        for name, item in value.items():
            value[name] = plain(item, values)


def _days(value: Any, schema: dict[str, Any]) -> str | None:
    if value.__class__ is not int:
        return None
    try:
        return (date(1970, 1, 1) + timedelta(days=value)).isoformat()
    except OverflowError:
        return None


def _moment(per_second: int) -> Callable[[Any, dict[str, Any]], str | None]:
    def convert(value: Any, schema: dict[str, Any]) -> str | None:
        if value.__class__ is not int:
            return None
        try:
            return times.utc_text(_EPOCH + timedelta(microseconds=value * 1_000_000 // per_second))
        except OverflowError:
            return None

    return convert


def _time_of_day(per_second: int) -> Callable[[Any, dict[str, Any]], str | None]:
    def convert(value: Any, schema: dict[str, Any]) -> str | None:
        if value.__class__ is not int:
            return None
        microseconds = value * 1_000_000 // per_second
        if not 0 <= microseconds < _DAY_MICROSECONDS:
            return None  # PostgreSQL's 24:00:00, MySQL's TIME of up to 838 hours
        return times.utc_text(_EPOCH + timedelta(microseconds=microseconds))[11:-1]

    return convert


def _decimal(value: Any, schema: dict[str, Any]) -> str | None:
    parameters = schema.get("parameters")
    scale = parameters.get("scale") if parameters.__class__ is dict else None
    try:
        return _scaled(value, int(scale)) if scale.__class__ is str and len(scale) < 5 else None
    except ValueError:
        return None


def _variable_scale_decimal(value: Any, schema: dict[str, Any]) -> str | None:
    if value.__class__ is not dict:
        return None
    scale = value.get("scale")
    return _scaled(value.get("value"), scale) if scale.__class__ is int else None


def _scaled(encoded: Any, scale: int) -> str | None:
    """An unscaled integer, big endian in two's complement, in base64; None where it is none."""
    if encoded.__class__ is not str or not encoded or not -_SCALE_MAX <= scale <= _SCALE_MAX:
        return None
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None
    if not 0 < len(raw) <= _UNSCALED_BYTES_MAX:
        return None
    unscaled = int.from_bytes(raw, "big", signed=True)
    digits = tuple(int(digit) for digit in str(abs(unscaled)))
    return format(Decimal((int(unscaled < 0), digits, -scale)), "f")


_DEBEZIUM: Final = "io.debezium.time."
_CONNECT: Final = "org.apache.kafka.connect.data."
_CONVERTERS: Final[dict[str, Callable[[Any, dict[str, Any]], str | None]]] = {
    f"{_DEBEZIUM}Date": _days,
    f"{_CONNECT}Date": _days,
    f"{_DEBEZIUM}Timestamp": _moment(1_000),
    f"{_CONNECT}Timestamp": _moment(1_000),
    f"{_DEBEZIUM}MicroTimestamp": _moment(1_000_000),
    f"{_DEBEZIUM}NanoTimestamp": _moment(1_000_000_000),
    f"{_DEBEZIUM}Time": _time_of_day(1_000),
    f"{_CONNECT}Time": _time_of_day(1_000),
    f"{_DEBEZIUM}MicroTime": _time_of_day(1_000_000),
    f"{_DEBEZIUM}NanoTime": _time_of_day(1_000_000_000),
    f"{_CONNECT}Decimal": _decimal,
    "io.debezium.data.VariableScaleDecimal": _variable_scale_decimal,
}
