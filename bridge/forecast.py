"""How many calls rules will make of a topic's traffic, and how long a backlog takes: arithmetic on a sample. Pure.

The theory
    A sample of the last day's records is planned by the rules themselves. What their actions come to, divided by the
    records sampled, is what one record of the topic costs; times the records of a day, that is a day's calls. Two
    numbers are told. *Unmerged*: one call for each action, which only repeated calls exceed. *Merged*: upserts and
    riding tags of one contact within a minute count as one call, so do enrollments that may share one, and changes of
    lazy fields alone count once for each contact. Where calls need not wait they hardly merge, and the first number is
    nearer; then the quota is not at stake. Where they wait they merge more than a sample can show, which sees few
    events of one contact together: there the second errs on the high side.

    A backlog drains with what the day's own calls leave of the quota. Each key has its own; the slowest decides. Of
    records older than a day only state is sent: what reacts to a moment has expired (`max_age`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from bridge.core.bulk import BULK_MAX, bulkable, shelf_of
from bridge.core.lazy_entries import only_lazy
from bridge.core.pending import mergeable
from bridge.model import Action, Kind

DAY_SECONDS = 86_400.0
MERGING_SECONDS = 60.0
"""Upserts of one contact that leave within a minute could have been one call; the quota's own shorter window."""

_MOMENTS = frozenset({Kind.TRIGGER, Kind.TRACK, Kind.ENROLL})


@dataclass(slots=True)
class Sample:
    """What the rules make of some records of one topic."""

    records: int = 0
    unmerged: Counter[Kind] = field(default_factory=Counter)
    merged: Counter[Kind] = field(default_factory=Counter)

    def add(self, run: Iterable[tuple[float, Sequence[Action]]]) -> None:
        """Records that followed one another: the time of each (wall seconds), and its actions."""
        seen: set[tuple[object, ...]] = set()
        for wall, actions in run:
            self.records += 1
            minute = math.floor(wall / MERGING_SECONDS)
            for action in actions:
                self.unmerged[action.kind] += 1
                kind, group = _call(action, minute)
                if group is None or group not in seen:
                    self.merged[kind] += 1
                if group is not None:
                    seen.add(group)


def _call(action: Action, minute: int) -> tuple[Kind, tuple[object, ...] | None]:
    """The kind of call that carries the action, and what it shares that call with; None: nothing."""
    names = action.contact.ordering_keys()
    if mergeable(action):
        return Kind.UPSERT, ("lazy", names[0]) if only_lazy(action) else (minute, names[0])
    shelf = shelf_of(action, "", BULK_MAX) if bulkable(action) else None
    return action.kind, None if shelf is None else (minute, shelf)


@dataclass(frozen=True, slots=True)
class Traffic:
    """One topic."""

    topic: str
    sample: Sample
    a_day: float
    """Records of the last day."""
    backlog: int = 0
    """Records that the group has not finished."""
    retention_seconds: float | None = None
    """None: not known, or for ever."""

    def calls(self, kinds: Counter[Kind], *, backlog: bool = False) -> Counter[Kind]:
        """A day's calls at what the sample says of each kind; or those of the backlog."""
        made: Counter[Kind] = Counter()
        for kind, count in kinds.items():
            records = float(self.backlog if backlog else self.a_day)
            if backlog and kind in _MOMENTS:
                records = min(records, self.a_day)
            made[kind] = round(count / max(self.sample.records, 1) * records)
        return made


class Limits(NamedTuple):
    """A key's quota."""

    per_minute: int
    per_hour: int

    @property
    def a_day(self) -> int:
        return min(self.per_minute * 1440, self.per_hour * 24)

    def __str__(self) -> str:
        if self.per_minute * 60 < self.per_hour:
            return f"{self.per_minute:,} a minute"
        return f"{self.per_hour:,} an hour"


@dataclass(frozen=True, slots=True)
class Outlook:
    """Of one key."""

    key: str
    by_kind: Counter[Kind]
    """A day's calls, merged."""
    unmerged: int
    backlog_calls: int
    limits: Limits

    @property
    def calls(self) -> int:
        return self.by_kind.total()

    @property
    def drain_seconds(self) -> float:
        """How long the backlog takes beside what comes in; infinite where the quota leaves nothing for it."""
        if not self.backlog_calls:
            return 0.0
        spare = self.limits.a_day - self.calls
        return math.inf if spare <= 0 else self.backlog_calls / spare * DAY_SECONDS


def outlook(topics: Iterable[Traffic], key_of: Callable[[Kind], str], limits: Limits) -> list[Outlook]:
    """What awaits each key that has calls to make, by name."""
    topics = list(topics)
    merged: dict[str, Counter[Kind]] = {}
    unmerged: Counter[str] = Counter()
    backlog: Counter[str] = Counter()
    for each in topics:
        for kind, count in each.calls(each.sample.merged).items():
            merged.setdefault(key_of(kind), Counter())[kind] += count
        for kind, count in each.calls(each.sample.unmerged).items():
            unmerged[key_of(kind)] += count
        for kind, count in each.calls(each.sample.merged, backlog=True).items():
            backlog[key_of(kind)] += count
    return [Outlook(key, merged[key], unmerged[key], backlog[key], limits) for key in sorted(merged)]


def about(number: float) -> str:
    """Two figures of a number, as estimates deserve: 31,234 is 31,000."""
    if number < 100:
        return f"{round(number):,}"
    size = 10 ** (math.floor(math.log10(number)) - 1)
    return f"{round(number / size) * size:,}"


def period(seconds: float) -> str:
    """`about 3 days`, `about 5 hours`."""
    for unit, size in (("day", DAY_SECONDS), ("hour", 3_600.0), ("minute", 60.0)):
        if seconds >= 2 * size:
            return f"{about(seconds / size)} {unit}s"
    return f"{about(seconds)} seconds"
