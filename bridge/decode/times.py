"""What counts as an event's time: ISO 8601 text, or a number of seconds or milliseconds since 1970.

- Text with an offset or Z is kept as the producer wrote it. Without one it means UTC. A date alone is its first
  instant. Whatever is not `YYYY-MM-DDThh:mm…` with an offset (no offset, a space for the T, the basic format, a week
  date) is rewritten in UTC, so that `event.time` reads the same everywhere.
- A number below 100,000,000,000 is seconds (until the year 5138), below 100,000,000,000,000 milliseconds (from March
  1973). Nothing beyond: micro- and nanoseconds would only be guessed at. Nothing below zero.
- Digits finer than a microsecond are dropped from the number of seconds, and stay in the text.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECONDS_END = 100_000_000_000
_MILLISECONDS_END = 100_000_000_000_000
_SHAPE = re.compile(r"(?:\d{4}-\d\d-\d\d|\d{8}|\d{4}-?W\d\d(?:-?\d)?)(?:T[\d:.,]+(?:Z|[+-][\d:]+)?)?", re.ASCII)
"""fromisoformat takes any character between date and time, so it alone would read `2026-11-22-08:00` as a time."""


class NotATime(ValueError):
    """`str()` says what is wrong, without the value."""


def utc_text(moment: datetime) -> str:
    """ISO 8601 in UTC with Z, with as many fractional digits as it takes (none, 3 or 6)."""
    moment = moment.astimezone(UTC)
    microsecond = moment.microsecond
    digits = "seconds" if microsecond == 0 else "milliseconds" if microsecond % 1000 == 0 else "microseconds"
    return moment.replace(tzinfo=None).isoformat(timespec=digits) + "Z"


def from_milliseconds(milliseconds: int) -> tuple[str, float]:
    """Text and Unix seconds of a record's timestamp. Raises NotATime outside the years 1970 to 9999."""
    if milliseconds < 0:
        raise NotATime("is before 1970")
    second, rest = divmod(milliseconds, 1000)
    try:
        text = _second_text(second)
    except OverflowError:
        raise NotATime("is beyond the year 9999") from None
    return f"{text}.{rest:03d}Z" if rest else f"{text}Z", milliseconds / 1000


def of_record(milliseconds: int) -> tuple[str, float]:
    """The same, for an event that tells no time of its own; below zero means that the record has none. Raises NotATime.

    An age nobody knows must not pass for a young one: a trigger might be a year old.
    """
    if milliseconds < 0:
        raise NotATime("is missing, and the record has no timestamp either")
    return from_milliseconds(milliseconds)


@lru_cache(maxsize=4096)  # neighbouring records share their second; an hour of seconds fits
def _second_text(second: int) -> str:
    return (_EPOCH + timedelta(seconds=second)).replace(tzinfo=None).isoformat()


def from_text(text: str) -> tuple[str, float]:
    """Text and Unix seconds of ISO 8601 text. Raises NotATime."""
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None and text[10:11] == "T" and text[7:8] == "-":
            return text, moment.timestamp()
    except (ValueError, OverflowError):
        pass  # perhaps only lower case; else the slow path says so
    canonical = text.strip().upper().replace(" ", "T", 1)
    if not _SHAPE.fullmatch(canonical):
        raise NotATime("is not an ISO 8601 time")
    try:
        moment = datetime.fromisoformat(canonical)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return utc_text(moment), moment.timestamp()
    except (ValueError, OverflowError):
        raise NotATime("is not a time that exists") from None


def from_number(number: int | float) -> tuple[str, float]:
    """Text and Unix seconds of an epoch number. Raises NotATime."""
    if not 0 <= number < _MILLISECONDS_END:
        raise NotATime("is a number that is neither seconds nor milliseconds since 1970")
    seconds = number if number < _SECONDS_END else number / 1000
    moment = _EPOCH + timedelta(seconds=seconds)
    return utc_text(moment), float(seconds)


def parse(value: Any) -> tuple[str, float]:
    """Text and Unix seconds of what a producer wrote as a time. Raises NotATime."""
    if isinstance(value, str):
        return from_text(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return from_number(value)
    raise NotATime("is neither ISO 8601 text nor a number")
