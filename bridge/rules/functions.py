"""The published functions and methods of expressions: all that an expression can call.

One table each, FUNCTIONS and METHODS, with signature, one line of documentation and examples; the reference page is
made from them and the tests run every example. What they make is bounded: texts by TEXT_MAX, lists by ITEMS_MAX.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from bridge.actions import duration_seconds
from bridge.rules.faults import Fault, kind_of, wrong
from bridge.rules.operations import ITEMS_MAX, TEXT_MAX, bounded_number, is_number, text_of


@dataclass(frozen=True, slots=True)
class Function:
    """One published function or method. `call` is None where the language itself carries it out."""

    name: str
    signature: str
    doc: str
    examples: tuple[tuple[str, Any], ...]
    arguments: tuple[int, int]
    """Fewest and most; of a method without its text."""
    call: Callable[..., Any] | None = None


# Numbers -------------------------------------------------------------------------------------------------------------


def _number(doing: str, value: Any) -> Any:
    if not is_number(value):
        raise wrong(doing, value)
    return value


def _int(value: Any) -> int:
    if type(value) is int or type(value) is bool:
        return int(bounded_number(value))
    if type(value) is float:
        return int(bounded_number(int(value) if math.isfinite(value) else value))
    if type(value) is str and len(value) <= 40:
        try:
            return int(bounded_number(int(value)))
        except ValueError:
            raise Fault("the text is not a whole number") from None
    raise wrong("make a whole number of", value)


def _float(value: Any) -> float:
    if type(value) in (int, float, bool):
        try:
            return float(bounded_number(float(value)))
        except OverflowError:
            raise Fault("the number is too large") from None
    if type(value) is str and len(value) <= 400:
        try:
            return float(bounded_number(float(value)))
        except ValueError:
            raise Fault("the text is not a number") from None
    raise wrong("make a number of", value)


def _digits(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= 15:
        raise Fault("the number of digits must be from 0 to 15")
    return value


def _round(value: Any, digits: Any = None) -> Any:
    number = _number("round", value)
    if type(number) is float and not math.isfinite(number):
        raise Fault("the number is too large")
    return bounded_number(round(number) if digits is None else round(number, _digits(digits)))


def _fixed(value: Any, digits: Any) -> str:
    number = _number("write with digits", value)
    if abs(number) > 1e15:
        raise Fault("the number is too large")
    return f"{number:.{_digits(digits)}f}"


def _abs(value: Any) -> Any:
    return bounded_number(abs(_number("take the size of", value)))


# Texts ---------------------------------------------------------------------------------------------------------------


def _text(doing: str, value: Any) -> str:
    if type(value) is not str:
        raise wrong(doing, value)
    return value


def _plain(name: str) -> Callable[..., Any]:
    """A method of str without arguments that matter: texts in, at most three times the length out."""
    method = getattr(str, name)

    def apply(text: Any, *arguments: Any) -> Any:
        for value in (text, *arguments):
            if type(value) is not str:
                raise wrong(f"use {name} on", value)
        return method(text, *arguments)

    return apply


def _starts(name: str) -> Callable[..., bool]:
    method = getattr(str, name)

    def apply(text: Any, start: Any) -> bool:
        _text(f"use {name} on", text)
        options = start if type(start) is list else [start]
        for option in options:
            _text(f"use {name} with", option)
        return bool(method(text, tuple(options)))

    return apply


def _split(text: Any, separator: Any = None) -> list[str]:
    _text("split", text)
    if separator is not None and not _text("split at", separator):
        raise Fault("cannot split at an empty text")
    found: list[str] = text.split(separator, ITEMS_MAX)
    if len(found) > ITEMS_MAX:
        raise Fault(f"the list would have more than {ITEMS_MAX} items")
    return found


def _replace(text: Any, old: Any, new: Any) -> str:
    for value in (text, old, new):
        _text("replace in", value)
    if len(text) + text.count(old) * max(0, len(new) - len(old)) > TEXT_MAX and len(new) > len(old):
        raise Fault(f"the text would be longer than {TEXT_MAX} characters")
    return str(text.replace(old, new))


def _join(separator: Any, items: Any) -> str:
    _text("join with", separator)
    texts = [text_of(item) for item in _list("join", items)]
    if sum(map(len, texts)) + len(separator) * len(texts) > TEXT_MAX:
        raise Fault(f"the text would be longer than {TEXT_MAX} characters")
    return str(separator.join(texts))


# Lists and objects ---------------------------------------------------------------------------------------------------


def _list(doing: str, value: Any) -> list[Any]:
    if type(value) is not list:
        raise wrong(doing, value)
    return value


def _len(value: Any) -> int:
    if type(value) not in (str, list, dict):
        raise wrong("take the length of", value)
    return len(value)


def _pick(name: str, choose: Callable[[list[Any]], Any]) -> Callable[..., Any]:
    def apply(*values: Any) -> Any:
        items = _list(f"take the {name} of", values[0]) if len(values) == 1 else list(values)
        if not items:
            raise Fault(f"the {name} of an empty list")
        try:
            return choose(items)
        except TypeError:
            raise _unlike(items) from None

    return apply


def _unlike(items: list[Any]) -> Fault:
    kinds = sorted({kind_of(item) for item in items})
    return Fault(f"cannot compare {' with '.join(kinds)}", null=None in items)


def _sum(items: Any) -> Any:
    total: Any = 0
    for item in _list("add up", items):
        total += _number("add up", item)
    return bounded_number(total)


def _sorted(items: Any) -> list[Any]:
    found = _list("sort", items)
    try:
        return sorted(found)
    except TypeError:
        raise _unlike(found) from None


def _edge(name: str, index: int) -> Callable[[Any], Any]:
    def apply(items: Any) -> Any:
        found = _list(f"take the {name} item of", items)
        if not found:
            raise Fault(f"the {name} item of an empty list", missing=True)
        return found[index]

    return apply


def _object(doing: str, value: Any) -> dict[str, Any]:
    if type(value) is not dict:
        raise wrong(doing, value)
    return value


def _unique(items: Any) -> list[Any]:
    try:
        return list(dict.fromkeys(_list("take the different items of", items)))
    except TypeError:
        raise Fault("unique takes texts and numbers only") from None


# Times ---------------------------------------------------------------------------------------------------------------

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment(value: Any) -> datetime:
    """ISO 8601 text (without a zone: UTC), or Unix time in seconds, milliseconds, microseconds or nanoseconds.

    Raises Fault.
    """
    if type(value) is str:
        if len(value) > 60:
            raise Fault("the text is not an ISO 8601 time")
        try:
            found = datetime.fromisoformat(value.strip())
            return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, OverflowError):
            raise Fault("the text is not an ISO 8601 time") from None
    if not is_number(value):
        raise wrong("read a time from", value)
    # 1e11 seconds is the year 5138, 1e11 ms is 1973: the size tells the unit for all times since 1973.
    size = abs(value)
    unit = 1 if size < 1e11 else 1e3 if size < 1e14 else 1e6 if size < 1e17 else 1e9
    try:
        return _EPOCH + timedelta(seconds=value / unit)
    except (OverflowError, ValueError):
        raise Fault("the number is not a time") from None


def _written(moment: datetime) -> str:
    spec = "milliseconds" if moment.microsecond else "seconds"
    return moment.replace(tzinfo=None).isoformat(timespec=spec) + "Z"


def _iso(value: Any) -> str:
    return _written(moment(value))


def _date(value: Any) -> str:
    return moment(value).date().isoformat()


def _epoch(value: Any) -> int:
    return math.floor((moment(value) - _EPOCH).total_seconds())


def _days_between(start: Any, end: Any) -> int:
    return (moment(end) - moment(start)).days


def _shifted(sign: int) -> Callable[[Any, Any], str]:
    def apply(time: Any, duration: Any) -> str:
        try:
            seconds = duration_seconds(_text("use as a duration", duration))
        except ValueError:
            raise Fault("the duration must be like 30s, 10m, 2h or 1d") from None
        try:
            return _written(moment(time) + sign * timedelta(seconds=seconds))
        except OverflowError:
            raise Fault("the time is out of range") from None

    return apply


# The tables ----------------------------------------------------------------------------------------------------------


def _table(*entries: Function) -> dict[str, Function]:
    return {entry.name: entry for entry in entries}


_JAN = "'2026-01-02T03:04:05Z'"

FUNCTIONS: dict[str, Function] = _table(
    Function("optional", "optional(x)", "x, or nothing: the field is left out where x is missing or null",
             (("optional(data.absent)", None), ("optional(data.plan)", "pro")), (1, 1)),
    Function("default", "default(x, y)", "x, or y where x is missing or null",
             (("default(data.absent, 'free')", "free"), ("default(data.plan, 'free')", "pro")), (2, 2)),
    Function("has", "has(x)", "whether x is there and not null",
             (("has(data.plan)", True), ("has(data.absent.deep)", False), ("has(data.nothing)", False)), (1, 1)),
    Function("len", "len(x)", "how many characters, items or fields",
             (("len('abc')", 3), ("len(data.plans)", 2)), (1, 1), _len),
    Function("str", "str(x)", "as text; lists and objects as JSON",
             (("str(12)", "12"), ("str(true)", "true"), ("str([1, 2])", "[1,2]")), (1, 1), text_of),
    Function("int", "int(x)", "a whole number from a number (its fraction is cut off) or a text",
             (("int('42')", 42), ("int(2.9)", 2)), (1, 1), _int),
    Function("float", "float(x)", "a number from a number or a text", (("float('2.5')", 2.5),), (1, 1), _float),
    Function("bool", "bool(x)", "false for false, null, 0, and an empty text, list or object; true for all else",
             (("bool('')", False), ("bool(data.plan)", True)), (1, 1), bool),
    Function("round", "round(x, digits)", "rounded to whole or to digits; a half goes to the even neighbour",
             (("round(2.6)", 3), ("round(2.345, 1)", 2.3)), (1, 2), _round),
    Function("fixed", "fixed(x, digits)", "as text with exactly so many decimal digits",
             (("fixed(1250 / 100, 2)", "12.50"),), (2, 2), _fixed),
    Function("abs", "abs(x)", "without its sign", (("abs(-3)", 3),), (1, 1), _abs),
    Function("min", "min(list) or min(a, b, …)", "the smallest",
             (("min([3, 1, 2])", 1), ("min(3, 1)", 1)), (1, 20), _pick("smallest", min)),
    Function("max", "max(list) or max(a, b, …)", "the largest",
             (("max([3, 1, 2])", 3), ("max(0, -1)", 0)), (1, 20), _pick("largest", max)),
    Function("sum", "sum(list)", "the sum of a list of numbers", (("sum([1, 2, 3])", 6),), (1, 1), _sum),
    Function("sorted", "sorted(list)", "the items in ascending order", (("sorted(['b', 'a'])", ["a", "b"]),), (1, 1),
             _sorted),
    Function("unique", "unique(list)", "the different items, in the order in which they first appear",
             (("unique(['a', 'b', 'a'])", ["a", "b"]),), (1, 1), _unique),
    Function("any", "any(list)", "whether some item is true",
             (("any([false, true])", True), ("any(p == 'pro' for p in data.plans)", True)), (1, 1),
             lambda items: any(_list("look through", items))),
    Function("all", "all(list)", "whether every item is true", (("all([true, false])", False), ("all([])", True)),
             (1, 1), lambda items: all(_list("look through", items))),
    Function("first", "first(list)", "the first item; an empty list has none, as if it were missing",
             (("first(data.plans)", "free"), ("default(first([]), 'none')", "none")), (1, 1), _edge("first", 0)),
    Function("last", "last(list)", "the last item; an empty list has none, as if it were missing",
             (("last(data.plans)", "pro"),), (1, 1), _edge("last", -1)),
    Function("keys", "keys(object)", "the names of the fields", (("keys({'a': 1})", ["a"]),), (1, 1),
             lambda value: list(_object("take the keys of", value))),
    Function("values", "values(object)", "the values of the fields", (("values({'a': 1})", [1]),), (1, 1),
             lambda value: list(_object("take the values of", value).values())),
    Function("items", "items(object)", "the fields as pairs of name and value",
             (("[k for k, v in items({'a': 1, 'b': 0}) if v]", ["a"]),), (1, 1),
             lambda value: [list(pair) for pair in _object("take the fields of", value).items()]),
    Function("iso", "iso(x)", "a time as ISO 8601 in UTC; from such text, or from Unix seconds, ms, µs or ns",
             (("iso(1767323045)", "2026-01-02T03:04:05Z"), ("iso(1767323045250)", "2026-01-02T03:04:05.250Z"),
              ("iso('2026-01-02T04:04:05+01:00')", "2026-01-02T03:04:05Z")), (1, 1), _iso),
    Function("date", "date(x)", "the day of a time, in UTC", ((f"date({_JAN})", "2026-01-02"),), (1, 1), _date),
    Function("epoch", "epoch(x)", "a time as whole Unix seconds", ((f"epoch({_JAN})", 1767323045),), (1, 1), _epoch),
    Function("days_between", "days_between(start, end)", "whole days from one time to another",
             (("days_between('2026-01-01', '2026-01-15')", 14),), (2, 2), _days_between),
    Function("later", "later(time, duration)", "the time that much later, e.g. the end of a trial",
             ((f"later({_JAN}, '14d')", "2026-01-16T03:04:05Z"),), (2, 2), _shifted(1)),
    Function("earlier", "earlier(time, duration)", "the time that much earlier",
             ((f"earlier({_JAN}, '1h')", "2026-01-02T02:04:05Z"),), (2, 2), _shifted(-1)),
)  # fmt: skip

METHODS: dict[str, Function] = _table(
    Function("lower", "text.lower()", "in lower case", (("'Pro'.lower()", "pro"),), (0, 0), _plain("lower")),
    Function("upper", "text.upper()", "in upper case", (("'eur'.upper()", "EUR"),), (0, 0), _plain("upper")),
    Function("title", "text.title()", "every word capitalised", (("'ada byron'.title()", "Ada Byron"),), (0, 0),
             _plain("title")),
    Function("capitalize", "text.capitalize()", "the first letter large, the rest small",
             (("'ADA'.capitalize()", "Ada"),), (0, 0), _plain("capitalize")),
    Function("strip", "text.strip(characters)", "without white space, or those characters, at both ends",
             (("' a '.strip()", "a"), ("'#a#'.strip('#')", "a")), (0, 1), _plain("strip")),
    Function("lstrip", "text.lstrip(characters)", "the same at the start", (("' a '.lstrip()", "a "),), (0, 1),
             _plain("lstrip")),
    Function("rstrip", "text.rstrip(characters)", "the same at the end", (("' a '.rstrip()", " a"),), (0, 1),
             _plain("rstrip")),
    Function("startswith", "text.startswith(start)", "whether it begins with a text, or with one of a list",
             (("'plan.changed'.startswith('plan.')", True), ("'b'.startswith(['a', 'b'])", True)), (1, 1),
             _starts("startswith")),
    Function("endswith", "text.endswith(end)", "whether it ends with a text, or with one of a list",
             (("'a@example.com'.endswith('@example.com')", True),), (1, 1), _starts("endswith")),
    Function("removeprefix", "text.removeprefix(start)", "without that start",
             (("'cus_7'.removeprefix('cus_')", "7"),), (1, 1), _plain("removeprefix")),
    Function("removesuffix", "text.removesuffix(end)", "without that end",
             (("'pro_monthly'.removesuffix('_monthly')", "pro"),), (1, 1), _plain("removesuffix")),
    Function("split", "text.split(separator)", "the parts between separators, or between white space",
             (("'a,b'.split(',')", ["a", "b"]), ("'Ada Byron'.split()[0]", "Ada")), (0, 1), _split),
    Function("replace", "text.replace(old, new)", "every old replaced by new", (("'a-b'.replace('-', '_')", "a_b"),),
             (2, 2), _replace),
    Function("join", "separator.join(list)", "the items as one text with the separator between them",
             (("', '.join(data.plans)", "free, pro"),), (1, 1), _join),
)  # fmt: skip
