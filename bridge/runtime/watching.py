"""Who hears of every call and every action's end beside those who work on them: `meisa-bridge preview`, and traces.

Metrics count; these also tell which events made a call, and what became of each action.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from bridge.model import Call, Outcome, Result
from bridge.runtime.items import Item, Part


class Watch(Protocol):
    """Hears only: whatever it is told of goes on being worked on."""

    def called(self, items: Collection[Item], call: Call, outcome: Outcome, sent_wall: float) -> None:
        """A call that left at `sent_wall` was answered. It stands for the present groups of these items."""

    def ended(self, part: Part, result: Result) -> None:
        """An action has ended, with a call or without."""


class Nobody:
    """The service itself: metrics are enough."""

    def called(self, items: Collection[Item], call: Call, outcome: Outcome, sent_wall: float) -> None:
        pass

    def ended(self, part: Part, result: Result) -> None:
        pass
