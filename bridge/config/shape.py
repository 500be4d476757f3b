"""The shape of the configuration, derived from the models: which keys exist, and what is due under each.

The loader walks file and shape together, so that unknown keys, references and secrets are judged in one place.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from bridge.config.secret import Secret


@dataclass(frozen=True, slots=True)
class Shape:
    kind: Literal["model", "map", "list", "scalar", "secret", "either"]
    """`either` is one value, or a map of them."""
    fields: dict[str, Shape] = field(default_factory=dict)
    """A model's keys as written in YAML."""
    item: Shape | None = None
    """What a map or a list holds."""
    keys: tuple[str, ...] = ()
    """A map's only possible keys; empty where any will do."""


def shape_of(annotation: Any) -> Shape:
    """The shape of a field's type; `X | None` has the shape of X."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        arms = [shape_of(arm) for arm in get_args(annotation) if arm is not types.NoneType]
        maps = [arm for arm in arms if arm.kind == "map"]
        return Shape("either", item=maps[0].item) if maps and len(arms) > 1 else arms[0]
    if origin is dict:
        key, value = get_args(annotation)
        names = get_args(key) if get_origin(key) is Literal else ()
        return Shape("map", item=shape_of(value), keys=names)
    if origin is list:
        return Shape("list", item=shape_of(get_args(annotation)[0]))
    if annotation is Secret:
        return Shape("secret")
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = {info.alias or name: shape_of(info.annotation) for name, info in annotation.model_fields.items()}
        return Shape("model", fields=fields)
    return Shape("scalar")


def dotted_names(shape: Shape, above: str = "") -> Iterator[str]:
    """Every key that has a fixed name, dotted: `meisa.quota.per_minute`."""
    for name, below in shape.fields.items():
        yield above + name
        yield from dotted_names(below, f"{above}{name}.")
