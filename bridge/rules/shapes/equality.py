"""Comparisons that never hold: by kinds (`data.seats == "3"`), or because the schema lists the values.

They can be computed, so no event fails; but a rule that waits for one never applies.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import NamedTuple

from bridge.places import did_you_mean
from bridge.rules.shapes import shape as shapes
from bridge.rules.shapes.shape import BOOL, NULL, NULL_SHAPE, NUMBER, TEXT, Shape, literal, words
from bridge.rules.source import Source

KNOWN_MAX = 8
"""Fields or values that a hint lists."""


class Side(NamedTuple):
    node: ast.expr
    shape: Shape


class Finding(NamedTuple):
    node: ast.expr
    message: str
    hint: str
    severity: str


def listed(names: list[str]) -> str:
    return ", ".join(names[:KNOWN_MAX]) + (" …" if len(names) > KNOWN_MAX else "")


def never_equal(node: ast.expr, one: Side, other: Side, source: Source) -> Iterator[Finding]:
    """Of `one == other`. A comparison with null is a guard, also where nothing is ever null."""
    if NULL_SHAPE.kinds in (one.shape.kinds, other.shape.kinds) or shapes.may_be_equal(one.shape, other.shape):
        return
    if not _kinds_meet(one.shape, other.shape):
        message = f"{words(one.shape)} and {words(other.shape)} are never equal: {source.of(node)}"
        yield Finding(node, message, _without_quotes(one, other, source), "error")
    elif isinstance(other.node, ast.Constant):
        yield _not_listed(other, source.of(one.node), one.shape, source)
    elif isinstance(one.node, ast.Constant):
        yield _not_listed(one, source.of(other.node), other.shape, source)
    else:
        yield Finding(node, f"never equal: {source.of(node)}", "", "warning")


def never_among(node: ast.expr, one: Side, holder: Side, source: Source) -> Iterator[Finding]:
    """Of `one in holder`, which is a list."""
    items = shapes.items(holder.shape)
    if items.never:
        return
    if not _kinds_meet(one.shape, items):
        message = f"{words(one.shape)} is looked for among items that are {words(items)}: {source.of(node)}"
        yield Finding(node, message, _without_quotes(one, Side(holder.node, items), source), "error")
    elif isinstance(holder.node, (ast.List, ast.Tuple)):
        for item in holder.node.elts:
            if isinstance(item, ast.Constant):
                side = Side(item, literal(item.value))
                if not shapes.may_be_equal(one.shape, side.shape) and _kinds_meet(one.shape, side.shape):
                    yield _not_listed(side, source.of(one.node), one.shape, source)
    elif not shapes.may_be_equal(one.shape, items) and isinstance(one.node, ast.Constant):
        yield _not_listed(one, f"an item of {source.of(holder.node)}", items, source)


def _not_listed(fixed: Side, text: str, shape: Shape, source: Source) -> Finding:
    """A fixed value that is none of those that the schema lists."""
    known = sorted(str(value) for kind, value in shape.only(fixed.shape.kinds).values or () if kind != NULL)
    wanted = next((str(value) for _, value in fixed.shape.values or ()), "")
    hint = did_you_mean(wanted, known, f"it is {'one of ' if len(known) > 1 else ''}{listed(known)}")
    return Finding(fixed.node, f"{text} is never {source.of(fixed.node)}", hint, "warning")


def _kinds_meet(left: Shape, right: Shape) -> bool:
    numbers = {NUMBER, BOOL}
    return bool(left.kinds & right.kinds) or bool(left.kinds & numbers and right.kinds & numbers)


def _without_quotes(one: Side, other: Side, source: Source) -> str:
    """What to write where a number and a text of digits meet."""
    for side, against in ((one, other), (other, one)):
        fixed = isinstance(side.node, (ast.Constant, ast.List, ast.Tuple))
        if not fixed and NUMBER in side.shape.kinds and TEXT in against.shape.kinds:
            text = source.of(side.node)
            return f"{text} is a number: write it without quotes, or str({text})"
    return ""
