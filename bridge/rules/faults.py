"""How a fault while an expression runs is told: by kinds of values, never by the values, which may name people."""

from __future__ import annotations

import re
from typing import Any


class Fault(Exception):
    """A function refused its arguments; the text holds no value of the event.

    `null`: because one was null, which `optional`, `default` and `has` forgive. `missing`: because there is no such
    item, which counts as a missing field.
    """

    def __init__(self, message: str, *, null: bool = False, missing: bool = False) -> None:
        self.null = null
        self.missing = missing
        super().__init__(message)


class Absent:
    """Stands for a field that is to be left out. One instance: ABSENT."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT = Absent()

_WORDS = {
    "NoneType": "null",
    "bool": "true/false",
    "int": "a number",
    "float": "a number",
    "str": "a text",
    "list": "a list",
    "tuple": "a list",
    "dict": "an object",
}


def kind_of(value: Any) -> str:
    """What sort of JSON value it is, in words."""
    return _WORDS.get(type(value).__name__, "a value of another kind")


def wrong(doing: str, *values: Any) -> Fault:
    """The fault that says which kinds of values something cannot be done with."""
    return Fault(f"cannot {doing} {' and '.join(kind_of(value) for value in values)}", null=None in values)


_TYPE_NAME = re.compile(r"'(NoneType|bool|int|float|str|list|tuple|dict)'")


def from_type_error(error: TypeError) -> Fault:
    """Python's own TypeError, told by kinds of values. Its text names types only where this pattern finds them."""
    text = str(error)
    names = _TYPE_NAME.findall(text)
    null = "NoneType" in text
    if "not supported between" in text and len(names) == 2:
        return Fault(f"cannot compare {_WORDS[names[0]]} with {_WORDS[names[1]]}", null=null)
    if "is not iterable" in text and names:
        return Fault(f"cannot look for something in {_WORDS[names[-1]]}", null=null)
    if "in <string>" in text:
        return Fault("only a text can be looked for in a text", null=null)
    if "unhashable" in text:
        return Fault("a list or an object cannot be a key", null=null)
    if "not subscriptable" in text and names:
        return Fault(f"cannot take a part of {_WORDS[names[0]]}", null=null)
    if "indices must be" in text:
        return Fault("a list or a text is indexed by whole numbers, an object by texts", null=null)
    return Fault("the values have the wrong types", null=null)
