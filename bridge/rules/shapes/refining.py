"""Shapes made smaller by what is known of a value, or of something inside it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bridge.rules.shapes.shape import (
    ANY,
    BOOL,
    LIST,
    NEVER,
    NULL,
    NUMBER,
    OBJECT,
    TEXT,
    Alternative,
    Field,
    Object,
    Scalar,
    Shape,
    Step,
    intersection,
    kind_of,
    literal,
    text_in,
    union,
)

Change = Callable[[Shape], Shape]


def refined(shape: Shape, path: tuple[Step, ...], change: Change) -> Shape:
    """The values that have something at the path, with what is there changed (made smaller) by `change`."""
    if not path:
        return change(shape)
    if shape.unknown:
        return ANY
    step, rest = path[0], path[1:]
    kept: list[Alternative] = []
    for each in shape.alternatives:
        if isinstance(each, Object) and isinstance(step, str):
            field = each.fields.get(step)
            inner = refined(field.shape if field else each.rest, rest, change)
            if not inner.never:
                kept.append(each.with_field(step, Field(inner)))
        elif isinstance(step, int) and kind_of(each) in (LIST, TEXT):
            kept.append(each)  # its items are not told apart
    return Shape(kept)


def lacking(shape: Shape, path: tuple[Step, ...]) -> Shape:
    """The values that have nothing at the path, or null there."""
    if shape.unknown or not path:
        return shape if shape.unknown else shape.only([NULL])
    step, rest = path[0], path[1:]
    kept: list[Alternative] = []
    for each in shape.alternatives:
        field = each.fields.get(step) if isinstance(each, Object) and isinstance(step, str) else None
        if field is None:
            kept.append(each)
            continue
        assert isinstance(each, Object) and isinstance(step, str)
        inner = lacking(field.shape, rest)
        if not inner.never:
            kept.append(each.with_field(step, Field(inner, field.always)))
        elif not field.always:
            kept.append(each.with_field(step, Field(NEVER, always=False)))
    return Shape(kept)


def truthy(shape: Shape) -> Shape:
    """Without what counts as false."""
    return _scalars(shape.without(NULL), bool, {})


def falsy(shape: Shape) -> Shape:
    """What counts as false: also an empty text, list or object, and 0."""
    empty = {NUMBER: frozenset({0}), TEXT: frozenset({""})}
    return _scalars(shape, lambda value: not value, empty)


def _scalars(shape: Shape, keep: Callable[[Any], bool], of_all: Mapping[str, frozenset[Any]]) -> Shape:
    kept: list[Alternative] = []
    for each in shape.alternatives:
        if not isinstance(each, Scalar):
            kept.append(each)
            continue
        known = frozenset({True, False}) if each.kind == BOOL and each.values is None else each.values
        values = of_all.get(each.kind) if known is None else frozenset(filter(keep, known))
        if values is None or values:
            kept.append(Scalar(each.kind, values))
    return Shape(kept, unknown=shape.unknown)


def equal_to(values: Iterable[Any]) -> Change:
    """Keeps what may equal one of these fixed values, by Python's ==, for which true is 1."""
    known = list(values)

    def change(shape: Shape) -> Shape:
        return ANY if shape.unknown else union(_equal(shape, value) for value in known)

    return change


def _equal(shape: Shape, value: Any) -> Shape:
    if value is None:
        return shape.only([NULL])
    if isinstance(value, (bool, int, float)):
        if value in (0, 1):  # false and true too
            return _scalars(shape.only([NUMBER, BOOL]), lambda mine: mine == value, {})
        return intersection(shape, literal(value))
    if isinstance(value, str):
        return intersection(shape, text_in(value))
    return shape.only([LIST if isinstance(value, list) else OBJECT])


def unlike(values: Iterable[Any]) -> Change:
    """Leaves out these fixed values, where the others are known."""
    gone = [value for value in values if value is None or isinstance(value, (bool, int, float, str))]

    def change(shape: Shape) -> Shape:
        return _scalars(shape, lambda mine: not any(mine == value for value in gone), {})

    return change
