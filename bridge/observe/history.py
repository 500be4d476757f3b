"""The last hour, for the dashboard's plots: kept in this process, and gone with it. Prometheus has the rest.

A moment is taken every ten seconds and 361 are kept: an hour. A moment holds a number or two for each outcome, lane and
quota window, 1 to 2 KB with one key: half a megabyte in all, and it does not grow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bridge.observe.snapshot import Snapshot

EVERY_SECONDS = 10.0
KEPT = 361
SPAN_SECONDS = EVERY_SECONDS * (KEPT - 1)


@dataclass(frozen=True, slots=True)
class Moment:
    """Counts since the start, and what the quota's windows held then."""

    at_wall_seconds: float
    consumed: int = 0
    calls: int = 0
    finished: Mapping[str, int] = field(default_factory=dict)
    """Events by outcome."""
    saved: Mapping[str, int] = field(default_factory=dict)
    """Calls by what saved them."""
    quota: Mapping[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    """Key and window → used and limit."""
    delays: Mapping[str, tuple[int, float]] = field(default_factory=dict)
    """Lane → deliveries, and their seconds in total."""


class History:
    """Moments, oldest first. Whoever has a clock calls `take` every `EVERY_SECONDS`."""

    def __init__(self) -> None:
        self._moments: deque[Moment] = deque(maxlen=KEPT)

    def take(self, snapshot: Snapshot) -> None:
        moment = moment_of(snapshot)
        # A clock that was set back would draw lines backwards: what is later than now goes.
        while self._moments and self._moments[-1].at_wall_seconds >= moment.at_wall_seconds:
            self._moments.pop()
        self._moments.append(moment)

    def __len__(self) -> int:
        return len(self._moments)

    def until(self, now: Moment) -> Sequence[Moment]:
        """The moments of the last hour, and now."""
        since, end = now.at_wall_seconds - SPAN_SECONDS, now.at_wall_seconds
        return [*(each for each in self._moments if since <= each.at_wall_seconds < end), now]


def moment_of(snapshot: Snapshot) -> Moment:
    return Moment(
        at_wall_seconds=snapshot.taken_at_wall_seconds,
        consumed=snapshot.traffic.consumed,
        calls=sum(snapshot.traffic.calls.values()),
        finished=dict(snapshot.totals),
        saved=dict(snapshot.calls_saved),
        quota={(window.key, window.window): (window.used, window.limit) for window in snapshot.quota},
        delays={delay.lane: (delay.count, delay.total_seconds) for delay in snapshot.traffic.delays},
    )


def per_minute(moments: Sequence[Moment], *, over_seconds: float = 60.0) -> tuple[Moment, Moment, float] | None:
    """The moment about `over_seconds` ago (or the first there is), now, and the minutes between; None at the start."""
    now = moments[-1]
    before = next((each for each in moments if each.at_wall_seconds >= now.at_wall_seconds - over_seconds), now)
    minutes = (now.at_wall_seconds - before.at_wall_seconds) / 60
    return (before, now, minutes) if minutes > 0 else None
