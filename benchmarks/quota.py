"""The pace of the quota against every kind of server: is the window used, is anything refused, does urgent work wait?

    python -m benchmarks quota

bridge/core/quota.py alone, on virtual time: 60 calls a minute and 1,000 an hour with a reserve of a tenth, more work
than that at all times, and beside it urgent calls that come at random, one to six together: 40 an hour, or as many as
the row says. The server is the sandbox's quota; it counts a call at a random moment between its sending and its answer.
The first hour begins with an empty window; it is not in the figures, but for what is refused in it.

| column | meaning |
|---|---|
| use | accepted calls, of what is not reserved and no neighbour takes; urgent ones in the reserve come on top |
| 429 at first | calls refused in the first hour |
| 429 later | calls refused in an hour after it |
| longest gap | seconds between two accepted calls |
| p50, p99, longest | seconds for which urgent calls waited until they left to be accepted |
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from benchmarks.day import percentile
from bridge.core.quota import NEVER, Quota
from bridge.sandbox import quota as server

HOUR = 3600.0
LIMITS = ((60, 60.0), (1000, HOUR))
RESERVE = 0.1
LATENCY_SECONDS = (0.05, 0.35)
URGENT_AN_HOUR = 40.0
URGENT_BURST_MAX = 6
"""Urgent calls that come together, at most: an email and what is pulled before it."""
HOURS = 13


@dataclass(frozen=True)
class Case:
    name: str
    algorithm: str
    burst: int = 0
    """Calls that a bucket holds; 0: as many as the limit."""
    retry_after: bool = True
    reserve: float = RESERVE
    neighbour: Callable[[float], float] = lambda now: 0.0
    """The share of the limits that somebody else uses of the same key at that moment."""
    urgent_an_hour: float = URGENT_AN_HOUR
    limits: tuple[tuple[int, float], ...] = LIMITS


@dataclass
class Found:
    """What came of it, by time in seconds from the beginning."""

    case: Case
    hours: int
    accepted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    waits: list[tuple[float, float]] = field(default_factory=list)
    """Of urgent calls: when they came, and for how long they waited."""

    def use(self, first_hour: int = 1) -> float:
        """Of what all lanes may use, from that hour on."""
        calls, seconds = self.case.limits[-1]
        begun, until = first_hour * HOUR, self.hours * HOUR
        parts = 1000
        free = sum(1 - self.case.neighbour(begun + (until - begun) * part / parts) for part in range(parts)) / parts
        may = (free - self.case.reserve) * calls * (until - begun) / seconds
        return sum(begun <= at < until for at in self.accepted) / may

    def gap(self, first_hour: int = 1) -> float:
        return max(after - before for before, after in pairwise(self.accepted) if after >= first_hour * HOUR)

    def urgent(self, first_hour: int = 1) -> list[float]:
        """Waits, ascending."""
        return sorted(wait for at, wait in self.waits if at >= first_hour * HOUR)


class Run:
    """A backlog, urgent calls, and a neighbour, at one server."""

    def __init__(self, case: Case, seed: int) -> None:
        self.case = case
        self.dice = random.Random(seed)
        (self._minute, _), (self._hour, _) = case.limits
        self.server = server.Quota(self._minute, self._hour, case.algorithm, burst=case.burst)
        self.quota = Quota(case.limits, reserve=case.reserve)
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._urgent: deque[float] = deque()
        self._woken = NEVER

    def run(self, hours: int) -> Found:
        self.found = Found(self.case, hours)
        self._later(0.0, self._neighbour)
        if self.case.urgent_an_hour:
            self._later(self._next_urgent(), self._urgent_came)
        self._later(0.0, lambda: None)
        while self._events[0][0] < hours * HOUR:
            self.now, _, what = heapq.heappop(self._events)
            what()
            self._pump()
        self.found.waits += [(came, self.now - came) for came in self._urgent]
        return self.found

    def _later(self, seconds: float, what: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (self.now + seconds, self._number, what))

    def _pump(self) -> None:
        while self._urgent and self.quota.acquire(self.now, urgent=True):
            self._send(self._urgent.popleft())
        while self.quota.acquire(self.now):
            self._send(None)
        at = self.quota.earliest(self.now, urgent=bool(self._urgent))
        if at != NEVER and (at < self._woken or self._woken <= self.now):
            self._woken = at
            self._later(at - self.now + 0.001, lambda: None)

    def _send(self, came: float | None) -> None:
        seconds = self.dice.uniform(*LATENCY_SECONDS)
        sent = self.now

        def counted() -> None:
            wait, full = self.server.admit(self.now)
            self._later(seconds - (self.now - sent), lambda: answered(wait, bool(full)))

        def answered(wait: float, refused: bool) -> None:
            self.quota.answered(self.now)
            if refused:
                self.found.refused.append(self.now)
                self.quota.throttled(self.now, float(math.ceil(wait)) if self.case.retry_after else None)
                if came is not None:
                    self._urgent.appendleft(came)
                return
            self.quota.accepted()
            self.found.accepted.append(sent)
            if came is not None:
                self.found.waits.append((came, sent - came))

        self._later(seconds * self.dice.random(), counted)

    def _next_urgent(self) -> float:
        return self.dice.expovariate(self.case.urgent_an_hour / HOUR) * (1 + URGENT_BURST_MAX) / 2

    def _urgent_came(self) -> None:
        self._urgent.extend([self.now] * self.dice.randint(1, URGENT_BURST_MAX))
        self._later(self._next_urgent(), self._urgent_came)

    def _neighbour(self) -> None:
        """Takes its share of the scarcest window evenly, and is refused like anybody."""
        share = self.case.neighbour(self.now)
        if share:
            self.server.admit(self.now)
        rate = min(limit / seconds for limit, seconds in self.case.limits) * share
        self._later(self.dice.expovariate(rate) if rate else 10.0, self._neighbour)


def comes_and_goes(now: float) -> float:
    """A neighbour that uses half of the key in the third and the fourth of each six hours."""
    return 0.5 if 2 * HOUR <= now % (6 * HOUR) < 4 * HOUR else 0.0


CASES = (
    Case("sliding windows", "sliding"),
    Case("sliding, 200 urgent calls an hour", "sliding", urgent_an_hour=200.0),
    Case("fixed windows", "fixed"),
    Case("a bucket of the limit's size", "token_bucket"),
    Case("a bucket of 10", "token_bucket", burst=10),
    Case("a bucket of 10, no Retry-After", "token_bucket", burst=10, retry_after=False),
    Case("sliding, a neighbour has 30 %", "sliding", neighbour=lambda now: 0.3),
    Case("sliding, a neighbour has half for two hours of six", "sliding", neighbour=comes_and_goes),
    Case("the same, no Retry-After", "sliding", neighbour=comes_and_goes, retry_after=False),
)


def measure(case: Case, hours: int = HOURS, seed: int = 1) -> Found:
    return Run(case, seed).run(hours)


def table(found: Iterable[Found]) -> Iterator[str]:
    """In Markdown, row by row as they are found."""
    yield "| server | use | 429 at first | 429 later, an hour | longest gap s | urgent p50 s | p99 s | longest s |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    for each in found:
        waits = each.urgent()
        first = sum(at < HOUR for at in each.refused)
        yield (
            f"| {each.case.name} | {each.use():.1%} | {first} | {(len(each.refused) - first) / (each.hours - 1):.1f} "
            f"| {each.gap():.1f} | {percentile(waits, 0.5):.2f} | {percentile(waits, 0.99):.2f} | {max(waits):.2f} |"
        )
