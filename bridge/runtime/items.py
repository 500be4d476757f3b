"""What the delivery moves around: actions on their way, the events they belong to, and the keys they wait for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from bridge.core.dispatch import Dispatch
from bridge.core.ordering import Ticket
from bridge.core.quota import Quota, WindowUse
from bridge.core.retry import Attempt, Dialogue
from bridge.model import Action, Event, Lane, Result, TopicPartition
from bridge.runtime.completion import Completion

LANES = tuple(Lane)


class Batch:
    """The actions of one event, and how they ended."""

    __slots__ = ("completion", "event", "inside", "lane", "missing", "results")

    def __init__(self, event: Event, actions: Sequence[Action]) -> None:
        self.event = event
        self.completion: Completion[Sequence[Result]] = Completion()
        self.results: dict[int, Result | None] = {action.position: None for action in actions}
        self.missing = len(actions)
        """Actions that have not ended."""
        self.inside = len(actions)
        """Actions that are still in the queues, ended or not."""
        self.lane = min((action.handling.lane for action in actions), key=LANES.index, default=Lane.SYNC)
        """Where the event counts as pending: its most urgent action's."""


class Item:
    """One action on its way."""

    __slots__ = (
        "action",
        "attempt",
        "batch",
        "dialogue",
        "gone",
        "held_since",
        "hold_until",
        "in_flight",
        "lane",
        "probe",
        "sequence",
        "throttles",
        "ticket",
    )

    def __init__(self, batch: Batch, action: Action, sequence: int) -> None:
        self.batch = batch
        self.action = action
        self.sequence = sequence
        self.lane = action.handling.lane
        self.ticket: Ticket[Item] | None = None
        self.dialogue: Dialogue | None = None
        self.attempt: Attempt | None = None
        self.in_flight = False
        self.probe = False
        """Its call under way is the probe of a held endpoint."""
        self.held_since: float | None = None
        """Since when (wall) its endpoint has not taken it; a probe that fails does not begin it anew."""
        self.throttles = 0
        self.hold_until = 0.0
        """A guardrail holds its contact until then (monotonic)."""
        self.gone = False
        """Its partition was revoked: nothing new leaves for it."""

    @property
    def partition(self) -> TopicPartition:
        record = self.batch.event.record
        return TopicPartition(record.topic, record.partition)


@dataclass(slots=True)
class Key:
    """One API key with its quota, and the items that wait for it."""

    name: str
    quota: Quota
    dispatch: Dispatch[Item]
    refused: bool = False
    """Answered with 401: nothing leaves until it works again."""


class KeyState(NamedTuple):
    name: str
    windows: tuple[WindowUse, ...]
    braked_until: float | None
    refused: bool
