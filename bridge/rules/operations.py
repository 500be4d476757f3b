"""What operators do: Python's meaning within bounds, and no text that is really a format or a repetition."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import orjson

from bridge.rules.faults import Fault, wrong

TEXT_MAX = 100_000
"""Characters that an operation may make: far above any field Meisa takes, far below what hurts."""

ITEMS_MAX = 10_000
"""Items of a list that an operation may make."""

_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1
"""What JSON encoders take as whole numbers."""


def is_number(value: Any) -> bool:
    return type(value) is int or type(value) is float


def bounded_number(value: Any) -> Any:
    """The number itself. Raises Fault where JSON could not carry it."""
    if type(value) is int:
        if not _INT_MIN <= value <= _INT_MAX:
            raise Fault("the number is too large")
    elif type(value) is float and not math.isfinite(value):
        raise Fault("the number is too large")
    return value


def add(left: Any, right: Any) -> Any:
    if is_number(left) and is_number(right):
        return bounded_number(left + right)
    if type(left) is str and type(right) is str:
        if len(left) + len(right) > TEXT_MAX:
            raise Fault(f"the text would be longer than {TEXT_MAX} characters")
        return left + right
    if type(left) is list and type(right) is list:
        if len(left) + len(right) > ITEMS_MAX:
            raise Fault(f"the list would have more than {ITEMS_MAX} items")
        return left + right
    raise wrong("add", left, right)


def _arithmetic(doing: str, compute: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def apply(left: Any, right: Any) -> Any:
        if not (is_number(left) and is_number(right)):
            raise wrong(doing, left, right)
        try:
            return bounded_number(compute(left, right))
        except ZeroDivisionError:
            raise Fault("division by zero") from None
        except OverflowError:
            raise Fault("the number is too large") from None

    return apply


subtract = _arithmetic("subtract", lambda left, right: left - right)
multiply = _arithmetic("multiply", lambda left, right: left * right)
divide = _arithmetic("divide", lambda left, right: left / right)
floor_divide = _arithmetic("divide", lambda left, right: left // right)
modulo = _arithmetic("divide", lambda left, right: left % right)


def negative(value: Any) -> Any:
    if not is_number(value):
        raise wrong("negate", value)
    return bounded_number(-value)


def positive(value: Any) -> Any:
    if not is_number(value):
        raise wrong("take as a number", value)
    return value


def text_of(value: Any) -> str:
    """A value put into a text: true and false as JSON writes them, lists and objects as JSON. null is refused."""
    if type(value) is str:
        return value
    if value is None:
        raise Fault("null cannot be put into a text", null=True)
    if value is True:
        return "true"
    if value is False:
        return "false"
    if type(value) in (int, float):
        return str(bounded_number(value))
    try:
        text = orjson.dumps(value).decode()
    except (TypeError, RecursionError):
        raise Fault("the value cannot be written as text") from None
    return short(text)


def short(text: str) -> str:
    if len(text) > TEXT_MAX:
        raise Fault(f"the text would be longer than {TEXT_MAX} characters")
    return text
