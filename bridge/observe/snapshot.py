"""What the bridge looks like at one moment: plain frozen values that status, metrics and pages are made from.

The runtime makes one on request, on its event loop, in one go: the parts of a snapshot belong together. Ages and waits
are seconds; points in time are Unix seconds and end in `_wall_seconds`, so that a reader needs no clock of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class PartitionState:
    """One partition that this instance owns."""

    topic: str
    partition: int
    epoch: int
    frontier: int
    """The lowest offset not yet finished: what is committed, or about to be."""
    lag: int | None = None
    """Offsets from the frontier to the log's end; None while the end is not known yet."""
    window: int = 0
    """Offsets from the frontier to the highest taken in."""
    paused: bool = False
    oldest_wait_seconds: float | None = None
    """How long the record at the frontier has been here; None if nothing is open."""
    retention_seconds: float | None = None
    """Until the broker deletes what the frontier stands at; None if unknown or never."""
    stalled_seconds: float | None = None
    """For how long the frontier has stood still, once that was told in the log; None while it moves."""
    stalled_because: tuple[str, ...] = ()
    """What work waits for meanwhile, as the log says it."""


@dataclass(frozen=True, slots=True)
class QuotaState:
    """One window of one API key."""

    key: str
    """`default`, or the action kind that has a key of its own."""
    window: str
    """minute | hour"""
    used: int
    limit: int
    gated_until_wall_seconds: float | None = None
    """Set while a 429 holds the whole key back."""


@dataclass(frozen=True, slots=True)
class LaneState:
    """What waits in one lane."""

    lane: str
    contacts: int = 0
    events: int = 0


@dataclass(frozen=True, slots=True)
class WaitState:
    """One reason why work waits."""

    reason: str
    count: int = 0
    detail: str = ""
    since_wall_seconds: float | None = None
    until_wall_seconds: float | None = None
    """When some of it can go on at the earliest; None where that is not known."""


@dataclass(frozen=True, slots=True)
class BreakerState:
    """One endpoint's breaker."""

    endpoint: str
    open: bool
    since_wall_seconds: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class RulesState:
    """The rules in force."""

    version: str
    """The same in every instance with the same rules."""
    rules: int
    handlers: int
    loaded_at_wall_seconds: float
    problem: str = ""
    """Why those in the files now were refused; empty while the files are what is in force."""
    refused_at_wall_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class LaneDelay:
    """How long deliveries of one lane took since the start, from the record's timestamp."""

    lane: str
    count: int
    total_seconds: float
    within: tuple[tuple[float, int], ...] = ()
    """Bounds in seconds, rising, each with how many deliveries took no longer."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What came in and went out since the start."""

    consumed: int = 0
    """Records taken in."""
    calls: Mapping[str, int] = field(default_factory=dict)
    """Calls to Meisa by what they were answered (see the metric's label `status`)."""
    delays: tuple[LaneDelay, ...] = ()


@dataclass(frozen=True, slots=True)
class SlowContact:
    """A contact whose oldest unfinished action has been here for long. No part of a snapshot: that names no contact."""

    contact: str
    """One of its names; to be masked before anybody sees it (bridge/web/page.py)."""
    waited_seconds: float
    action: str
    """The kind of that action."""
    state: str
    """in flight | next | behind others of the contact"""
    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class RuleUse:
    """What one rule or handler in force did since the start, or since it came into force."""

    name: str
    events: int = 0
    """Events for which it wanted something, or failed."""
    letters: int = 0
    """Dead letters that name it."""
    last_error: str = ""
    last_error_wall_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    version: str
    started_at_wall_seconds: float
    taken_at_wall_seconds: float
    in_group: bool = False
    """The group has assigned us our share, even if that is no partition at all."""
    group_state: str = "starting"
    """For people: starting, joining, member, draining, left …"""
    refused_keys: tuple[str, ...] = ()
    """Names (never values) of the API keys that Meisa refuses at present."""
    partitions: tuple[PartitionState, ...] = ()
    quota: tuple[QuotaState, ...] = ()
    pending: tuple[LaneState, ...] = ()
    in_flight: int = 0
    waiting_for: tuple[WaitState, ...] = ()
    breakers: tuple[BreakerState, ...] = ()
    topics: tuple[str, ...] = ()
    """All that are read."""
    stopped_topics: tuple[str, ...] = ()
    """Topics that pause because too many of their events were dead-lettered."""
    totals: Mapping[str, int] = field(default_factory=dict)
    """Events finished since the start, by outcome."""
    calls_saved: Mapping[str, int] = field(default_factory=dict)
    """Calls since the start that were not needed, by what saved them."""
    suppressed_addresses: int | None = None
    """On Meisa's suppression list; None while no list is fresh enough to spare a call."""
    lazy_contacts: int = 0
    """Contacts with values of lazy fields that wait for a call; once for each partition that has some."""
    dedupe_ids: int = 0
    """Ids of finished events that are remembered, to find repeats."""
    dead_letters: Mapping[str, int] = field(default_factory=dict)
    """Dead letters written since the start, by kind."""
    rules: RulesState | None = None
    traffic: Traffic = field(default_factory=Traffic)
    rule_uses: tuple[RuleUse, ...] = ()
    """Of every rule and handler in force, by name."""

    def unready(self) -> str | None:
        """Why work cannot be done at present, in one line; None when ready. Readiness needs no partition."""
        if not self.in_group:
            return f"not in the consumer group yet ({self.group_state})"
        if self.refused_keys:
            return f"Meisa refuses the API key: {', '.join(self.refused_keys)}; work waits until it is accepted again"
        return None

    @property
    def lag(self) -> int | None:
        """Over all partitions; None while that of any is unknown."""
        lags = [partition.lag for partition in self.partitions]
        return None if None in lags else sum(lag for lag in lags if lag is not None)
