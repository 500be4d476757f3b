"""What the published functions and methods take and give, as shapes (bridge/rules/functions.py has what they do)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from bridge.rules.shapes import shape as shapes
from bridge.rules.shapes.shape import (
    ALL_KINDS,
    BOOL,
    BOOL_SHAPE,
    LIST,
    NULL,
    NUMBER,
    NUMBER_SHAPE,
    OBJECT,
    TEXT,
    TEXT_SHAPE,
    Shape,
    list_of,
    union,
)

Kinds = frozenset[str]
Result = Callable[[Sequence[Shape]], Shape]


class Signature(NamedTuple):
    """What each argument may be and what is done with it; the last stands for all further ones."""

    wanted: tuple[tuple[Kinds, str], ...]
    result: Result
    of_items: Kinds = frozenset()
    """What the items of a list may be, which is the first argument; empty: anything."""

    def arguments(self, count: int) -> list[tuple[Kinds, str]]:
        last = self.wanted[-1]
        return [self.wanted[number] if number < len(self.wanted) else last for number in range(count)]


def _is(shape: Shape) -> Result:
    return lambda taken: shape


def _takes(result: Shape | Result, *wanted: tuple[tuple[str, ...] | Kinds, str]) -> Signature:
    made = _is(result) if isinstance(result, Shape) else result
    return Signature(tuple((frozenset(kinds), doing) for kinds, doing in wanted), made)


def _items(taken: Sequence[Shape]) -> Shape:
    return shapes.items(taken[0])


def _same(taken: Sequence[Shape]) -> Shape:
    return taken[0].only([LIST])


def _one_of(taken: Sequence[Shape]) -> Shape:
    """Of min and max: an item of a list, or one of several values."""
    return shapes.items(taken[0]) if len(taken) == 1 else union(taken)


def _pairs(taken: Sequence[Shape]) -> Shape:
    return list_of(list_of(lambda: union([TEXT_SHAPE, shapes.members(taken[0])])))


def _text(doing: str) -> tuple[tuple[str, ...], str]:
    return (TEXT,), doing


_TIME: Final = ((TEXT, NUMBER), "read a time from")
_TEXTS: Final = list_of(TEXT_SHAPE)

FUNCTIONS: Final[dict[str, Signature]] = {
    "len": _takes(NUMBER_SHAPE, ((TEXT, LIST, OBJECT), "take the length of")),
    "str": _takes(TEXT_SHAPE, (ALL_KINDS - {NULL}, "write {} as text")),
    "int": _takes(NUMBER_SHAPE, ((NUMBER, BOOL, TEXT), "make a whole number of")),
    "float": _takes(NUMBER_SHAPE, ((NUMBER, BOOL, TEXT), "make a number of")),
    "bool": _takes(BOOL_SHAPE, (ALL_KINDS, "look at")),
    "round": _takes(NUMBER_SHAPE, ((NUMBER,), "round"), ((NUMBER, NULL), "round to as many digits as")),
    "fixed": _takes(TEXT_SHAPE, ((NUMBER,), "write {} with digits"), ((NUMBER,), "write as many digits as")),
    "abs": _takes(NUMBER_SHAPE, ((NUMBER,), "take the size of")),
    "sum": _takes(NUMBER_SHAPE, ((LIST,), "add up"))._replace(of_items=frozenset({NUMBER})),
    "sorted": _takes(_same, ((LIST,), "sort"))._replace(of_items=frozenset({NUMBER, BOOL, TEXT, LIST})),
    "unique": _takes(_same, ((LIST,), "take the different items of"))._replace(of_items=ALL_KINDS - {LIST, OBJECT}),
    "any": _takes(BOOL_SHAPE, ((LIST,), "look through")),
    "all": _takes(BOOL_SHAPE, ((LIST,), "look through")),
    "first": _takes(_items, ((LIST,), "take the first item of")),
    "last": _takes(_items, ((LIST,), "take the last item of")),
    "keys": _takes(_TEXTS, ((OBJECT,), "take the keys of")),
    "values": _takes(lambda taken: list_of(lambda: shapes.members(taken[0])), ((OBJECT,), "take the values of")),
    "items": _takes(_pairs, ((OBJECT,), "take the fields of")),
    "iso": _takes(TEXT_SHAPE, _TIME),
    "date": _takes(TEXT_SHAPE, _TIME),
    "epoch": _takes(NUMBER_SHAPE, _TIME),
    "days_between": _takes(NUMBER_SHAPE, _TIME, _TIME),
    "later": _takes(TEXT_SHAPE, _TIME, _text("use {} as a duration")),
    "earlier": _takes(TEXT_SHAPE, _TIME, _text("use {} as a duration")),
}
"""`optional`, `default` and `has` are the language's own (walk.py)."""


def one_or_more(name: str, count: int) -> Signature:
    """`min` and `max`: of one list, or of several values."""
    doing = "smallest" if name == "min" else "largest"
    return _takes(_one_of, ((LIST,) if count == 1 else ALL_KINDS, f"take the {doing} of"))


_STRIP: Final = _takes(TEXT_SHAPE, _text("strip"), _text("strip {} off a text"))
_STARTS: Final = ((TEXT, LIST), "look for {} at its start or end")

METHODS: Final[dict[str, Signature]] = {
    **{name: _takes(TEXT_SHAPE, _text(f"use {name}() on")) for name in ("lower", "upper", "title", "capitalize")},
    "strip": _STRIP,
    "lstrip": _STRIP,
    "rstrip": _STRIP,
    "startswith": _takes(BOOL_SHAPE, _text("use startswith() on"), _STARTS),
    "endswith": _takes(BOOL_SHAPE, _text("use endswith() on"), _STARTS),
    "removeprefix": _takes(TEXT_SHAPE, _text("use removeprefix() on"), _text("remove {} from a text")),
    "removesuffix": _takes(TEXT_SHAPE, _text("use removesuffix() on"), _text("remove {} from a text")),
    "split": _takes(_TEXTS, _text("split"), ((TEXT, NULL), "split at")),
    "replace": _takes(TEXT_SHAPE, _text("replace in"), _text("replace {} in a text"), _text("put {} into a text")),
    "join": _takes(TEXT_SHAPE, _text("join with"), ((LIST,), "join")),
}
