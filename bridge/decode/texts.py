"""Days, moments, times of day and decimals: from the numbers that they are encoded as to the text that rules see.

Times are ISO 8601; a fraction of a second has three, six or nine digits, as few as it takes. Years beyond 0000 to 9999
carry a sign, `"+10000-01-01T00:00:00Z"`: databases use such ends of time for "never", and they must not make a whole
record bad. Decimals have all their digits, as no JSON number has.
"""

from __future__ import annotations

from datetime import date, timedelta
from functools import lru_cache
from typing import Final

DECIMAL_BYTES_MAX: Final = 512
"""More than 1,200 digits. Python itself turns no integer of more than 4,300 into text: that takes square time."""

_DAY_SECONDS: Final = 86_400
_EPOCH: Final = date(1970, 1, 1)


@lru_cache(maxsize=4096)  # records of one time share their days
def day(days: int) -> str:
    """A day since 1970 as `YYYY-MM-DD`, in the proleptic Gregorian calendar."""
    try:
        return (_EPOCH + timedelta(days=days)).isoformat()
    except OverflowError:
        pass
    # Shifted to a year that begins in March, in eras of 400 years (146,097 days).
    era, of_era = divmod(days + 719_468, 146_097)
    year_of_era = (of_era - of_era // 1460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month = (5 * of_year + 2) // 153
    of_month = of_year - (153 * month + 2) // 5 + 1
    month = month + 3 if month < 10 else month - 9
    year = year_of_era + 400 * era + (month <= 2)
    sign = "-" if year < 0 else "+" if year > 9999 else ""
    return f"{sign}{abs(year):04d}-{month:02d}-{of_month:02d}"


@lru_cache(maxsize=4096)  # neighbouring records share their second
def _second(seconds: int) -> str:
    days, rest = divmod(seconds, _DAY_SECONDS)
    return f"{day(days)}T{_clock(rest)}"


def _clock(seconds: int) -> str:
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def _fraction(rest: int, digits: int) -> str:
    """Fractional digits in groups of three, as few groups as it takes."""
    if not rest:
        return ""
    while rest % 1000 == 0:
        rest //= 1000
        digits -= 3
    return f".{rest:0{digits}d}"


def millis(number: int) -> str:
    """A moment, from milliseconds since 1970."""
    seconds, rest = divmod(number, 1000)
    return f"{_second(seconds)}.{rest:03d}Z" if rest else f"{_second(seconds)}Z"


def micros(number: int) -> str:
    """A moment, from microseconds since 1970."""
    seconds, rest = divmod(number, 1_000_000)
    return f"{_second(seconds)}{_fraction(rest, 6)}Z"


def nanos(number: int) -> str:
    """A moment, from nanoseconds since 1970."""
    seconds, rest = divmod(number, 1_000_000_000)
    return f"{_second(seconds)}{_fraction(rest, 9)}Z"


def time_of_day(number: int, digits: int) -> str | None:
    """A time, from so many thousandths, millionths or billionths of a second (digits 3, 6, 9); None beyond a day."""
    seconds, rest = divmod(number, 10**digits)
    return f"{_clock(seconds)}{_fraction(rest, digits)}" if 0 <= seconds < _DAY_SECONDS else None


def duration(seconds: int, rest_millis: int) -> str:
    """The part of an ISO 8601 duration after its T."""
    return f"{seconds}{_fraction(rest_millis, 3)}S"


def decimal(unscaled: bytes, scale: int) -> str | None:
    """A decimal from its unscaled number, big endian in two's complement; None where that is longer than is read."""
    if len(unscaled) > DECIMAL_BYTES_MAX:
        return None
    number = int.from_bytes(unscaled, "big", signed=True)
    digits = str(abs(number))
    sign = "-" if number < 0 else ""
    if scale <= 0:
        return f"{sign}{digits}{'0' * -scale}" if number else "0"
    digits = digits.rjust(scale + 1, "0")
    return f"{sign}{digits[:-scale]}.{digits[-scale:]}"
