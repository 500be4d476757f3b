"""What the delivery moves around: actions on their way, the events they belong to, and the keys they wait for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from bridge.core.bulk import BULK_MAX, bulkable
from bridge.core.dispatch import Dispatch
from bridge.core.lazy import Ride
from bridge.core.ordering import Ticket
from bridge.core.pending import Pending, mergeable
from bridge.core.quota import Quota, Slot, WindowUse
from bridge.core.retry import Attempt, Dialogue
from bridge.model import Action, Event, Kind, Lane, Record, Result, TopicPartition
from bridge.runtime.completion import Completion
from bridge.runtime.marks import Marks

LANES = tuple(Lane)
FIRST = "first"
"""Before all lanes: what holds back a partition whose window is nearly full (runtime/sending.py)."""
PULLED = "pulled"
"""Behind the urgent, before the rest: what an urgent action of the same contact waits for (runtime/delivery.py)."""


NO_SLOT = Slot()


class Batch:
    """The actions of one event, and how they ended."""

    __slots__ = (
        "beside",
        "completion",
        "event",
        "inside",
        "lane",
        "marks",
        "missing",
        "old",
        "partition",
        "read_at",
        "results",
        "shared",
        "tell",
    )

    def __init__(
        self,
        event: Event,
        actions: Sequence[Action],
        *,
        read_at: float,
        alone: bool,
        old: bool,
        marks: Marks,
        tell: Callable[[Record, Action], None],
        beside: bool = False,
    ) -> None:
        self.event = event
        self.beside = beside
        """It is not of the log's window: a replay, or a call for kept values."""
        self.partition = TopicPartition(event.record.topic, event.record.partition)
        self.completion: Completion[Sequence[Result]] = Completion()
        self.results: dict[int, Result | None] = {action.position: None for action in actions}
        self.missing = len(actions)
        """Actions that have not ended."""
        self.inside = len(actions)
        """Actions that are still in the queues, ended or not."""
        self.shared = len(actions) > 1 or not alone
        """Whether one of its actions may be carried out while its event goes on: progress must tell it."""
        self.read_at = read_at
        """Monotonic."""
        self.old = old
        """Too old, when it was read, for anybody to wait for it: all of it goes in the last lane."""
        lane = (
            actions[0].handling.lane  # nearly always
            if len(actions) == 1
            else min((action.handling.lane for action in actions), key=LANES.index, default=Lane.SYNC)
        )
        self.lane = Lane.BULK if old else lane
        """Where the event counts as pending: its most urgent action's."""
        self.marks = marks
        self.tell = tell


class Part:
    """One action of an event, as it waits. Several upserts may share an item."""

    __slots__ = ("action", "batch", "gone")

    def __init__(self, batch: Batch, action: Action) -> None:
        self.batch = batch
        self.action = action
        self.gone = False
        """Its partition was revoked: nothing new leaves for it."""

    @property
    def lane(self) -> Lane:
        return Lane.BULK if self.batch.old else self.action.handling.lane

    @property
    def record(self) -> Record:
        return self.batch.event.record

    @property
    def partition(self) -> TopicPartition:
        return self.batch.partition


class Item:
    """What stands in a contact's queue as one: an action, or upserts that leave together."""

    __slots__ = (
        "asleep",
        "at",
        "attempt",
        "bare",
        "begun",
        "body",
        "company",
        "dialogue",
        "gather_until",
        "held_since",
        "hold_until",
        "in_flight",
        "kind",
        "lane",
        "leaving",
        "linger_until",
        "out",
        "partitions",
        "pending",
        "probe",
        "pulled",
        "ride",
        "sequence",
        "slot",
        "throttles",
        "ticket",
        "urgent",
    )

    def __init__(self, part: Part, sequence: int) -> None:
        self.pending = Pending(part)
        self.kind: Kind = Kind.UPSERT if mergeable(part.action) else part.action.kind
        """What its calls are: a tag that rides is an upsert (core/pending.py)."""
        self.sequence = sequence
        self.lane = part.lane
        self.at: str = part.lane
        """The lane in which it waits; more urgent than its own where somebody waits for it."""
        self.pulled = False
        """An urgent action of its contact waits behind it."""
        self.linger_until = 0.0
        """Its rule wants it to wait for more until then (monotonic)."""
        self.gather_until: float | None = None
        """It waits for others that can share its call until then (monotonic); None before its turn."""
        self.company = BULK_MAX if bulkable(part.action) else 1
        """With how many its next call may be shared (core/bulk.py)."""
        self.partitions: tuple[TopicPartition, ...] = (part.partition,)
        """Of everything that was ever in it."""
        self.ticket: Ticket[Item] | None = None
        """Its place in its contact's queues; None before it has one, and once it is out."""
        self.begun = False
        """Its turn has come."""
        self.dialogue: Dialogue | None = None
        self.attempt: Attempt | None = None
        self.body: Mapping[str, Any] | None = None
        """What its last call said."""
        self.ride: Ride | None = None
        """What its last call took along of lazy fields (runtime/lazy.py)."""
        self.bare = False
        """It was refused with what it took along, and takes nothing any more."""
        self.urgent = False
        """Its slot is one that only urgent calls may have."""
        self.slot = NO_SLOT
        """What its booked call takes from."""
        self.leaving = False
        """It has a slot of the quota and is about to leave, or has left: nothing joins it."""
        self.in_flight = False
        self.asleep = False
        """It waits to be called again (runtime/marks.py) and stands nowhere else."""
        self.probe = False
        """Its call under way is the probe of a held endpoint."""
        self.held_since: float | None = None
        """Since when (wall) its endpoint has not taken it; a probe that fails does not begin it anew."""
        self.throttles = 0
        self.hold_until = 0.0
        """A guardrail holds its contact until then (monotonic)."""
        self.out = False
        """It has left its queues: ended, or nothing of it is ours any more."""

    @property
    def part(self) -> Part:
        """The first of what its next call stands for."""
        return self.pending.group[0]

    @property
    def trigger(self) -> bool:
        return self.kind is Kind.TRIGGER

    def lingers(self, now: float) -> bool:
        """Whether it waits for others only, not for a moment before which it may not be called."""
        return self.attempt is not None and max(self.attempt.not_before, self.hold_until) <= now

    def newest(self) -> Iterable[Part]:
        """Of what its next call stands for, the last from each partition."""
        group = self.pending.group
        return group if len(group) == 1 else {part.partition: part for part in group}.values()


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
