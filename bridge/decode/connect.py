"""What Kafka Connect's and Debezium's encodings mean, as plain values: times as ISO 8601, decimals as exact text.

Works on JSON that carries its schema beside it (Connect's JsonConverter with `schemas.enable=true`). Values are
converted by the schema's name:

| schema name | from | to |
|---|---|---|
| `io.debezium.time.Date`, `…connect.data.Date` | days since 1970 | `2026-11-22` |
| `io.debezium.time.Timestamp`, `…connect.data.Timestamp` | milliseconds since 1970 | `2026-11-22T08:54:17.123Z` |
| `io.debezium.time.MicroTimestamp`, `NanoTimestamp` | micro-, nanoseconds since 1970 | the same |
| `io.debezium.time.Time`, `…connect.data.Time`, `MicroTime`, `NanoTime` | since midnight | `08:54:17.123` |
| `…connect.data.Decimal` | base64 of the unscaled number | `"12.50"` |

A value that its schema does not fit stays as it came (a time of day beyond a day, as some databases have it), and so
does all else: Connect's schema is a help here, not a promise that a record could break.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any, Final

from bridge.decode import texts

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


def _text_of(text: Callable[[int], str | None]) -> Callable[[Any, dict[str, Any]], str | None]:
    return lambda value, schema: text(value) if value.__class__ is int else None


def _time_of_day(digits: int) -> Callable[[Any, dict[str, Any]], str | None]:
    return _text_of(lambda number: texts.time_of_day(number, digits))


def _decimal(value: Any, schema: dict[str, Any]) -> str | None:
    parameters = schema.get("parameters")
    scale = parameters.get("scale") if parameters.__class__ is dict else None
    try:
        return _scaled(value, int(scale)) if scale.__class__ is str and len(scale) < 5 else None
    except ValueError:
        return None


def decimal_of(value: Any) -> str | None:
    """The text of Debezium's VariableScaleDecimal, which carries its scale; None where it is none."""
    if value.__class__ is not dict or value.keys() != {"scale", "value"}:
        return None
    scale = value["scale"]
    return _scaled(value["value"], scale) if scale.__class__ is int else None


def _scaled(encoded: Any, scale: int) -> str | None:
    """An unscaled integer, big endian in two's complement, in base64; None where it is none."""
    if encoded.__class__ is not str or not encoded or not -_SCALE_MAX <= scale <= _SCALE_MAX:
        return None
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None
    return texts.decimal(raw, scale)


_DEBEZIUM: Final = "io.debezium.time."
_CONNECT: Final = "org.apache.kafka.connect.data."
_CONVERTERS: Final[dict[str, Callable[[Any, dict[str, Any]], str | None]]] = {
    f"{_DEBEZIUM}Date": _text_of(texts.day),
    f"{_CONNECT}Date": _text_of(texts.day),
    f"{_DEBEZIUM}Timestamp": _text_of(texts.millis),
    f"{_CONNECT}Timestamp": _text_of(texts.millis),
    f"{_DEBEZIUM}MicroTimestamp": _text_of(texts.micros),
    f"{_DEBEZIUM}NanoTimestamp": _text_of(texts.nanos),
    f"{_DEBEZIUM}Time": _time_of_day(3),
    f"{_CONNECT}Time": _time_of_day(3),
    f"{_DEBEZIUM}MicroTime": _time_of_day(6),
    f"{_DEBEZIUM}NanoTime": _time_of_day(9),
    f"{_CONNECT}Decimal": _decimal,
}
