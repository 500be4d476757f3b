"""Whether a value lies within a shape: what the shapes' property tests ask."""

from __future__ import annotations

from typing import Any

from bridge.rules.shapes.shape import Array, Object, Openness, Scalar, Shape

KINDS = {type(None): "null", bool: "true/false", int: "a number", float: "a number", str: "a text"}


def holds(shape: Shape, value: Any) -> bool:
    """Whether the value is one of the shape's."""
    return shape.unknown or any(_is(each, value) for each in shape.alternatives)


def _is(each: Any, value: Any) -> bool:
    if isinstance(each, Scalar):
        return KINDS.get(type(value)) == each.kind and (each.values is None or value in each.values)
    if isinstance(each, Array):
        return isinstance(value, list) and all(holds(each.shape, item) for item in value)
    assert isinstance(each, Object)
    if not isinstance(value, dict):
        return False
    for name, field in each.fields.items():
        if name in value:
            if not holds(field.shape, value[name]):
                return False
        elif field.always:
            return False
    others = [item for name, item in value.items() if name not in each.fields]
    return all(each.openness is not Openness.CLOSED and holds(each.rest, item) for item in others)
