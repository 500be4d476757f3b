"""How a rule was written: the nodes of its file, for checks that tell the place of what they find."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bridge.yamldoc import Node


@dataclass(frozen=True, slots=True)
class WrittenAction:
    fields: Mapping[str, Node] = field(default_factory=dict)
    """With `contact` and `aliases` among them."""
    when: Node | None = None
    omit: bool = False
    """`missing: omit` stands beside it."""


@dataclass(frozen=True, slots=True)
class WrittenRule:
    match: tuple[Node, ...] = ()
    """One for each pattern."""
    when: Node | None = None
