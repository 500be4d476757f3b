"""Where work waits for an endpoint that does not work at present: one breaker and one queue per key and endpoint.

Nothing is here while all goes well. An item whose endpoint is held is parked at the end of its queue; when a probe is
due the first in the queue is handed out, and when the breaker closes all are. So probes rotate over the contacts: a
poison event that failed as a probe stands behind all others when the next one is chosen.

The queues are bounded by what is admitted at all (runtime/engine.py).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

import structlog

from bridge.core.breaker import Breaker, Reason
from bridge.model import Outcome, Verdict

log = structlog.get_logger(__name__)

T = TypeVar("T")

CONSEQUENCES = {
    Reason.OUTAGE: "calls to an endpoint of Meisa fail; its work waits, nothing is dead-lettered, and probes go on",
    Reason.SCOPE: "the API key lacks a scope; the work that needs it waits, then is dead-lettered; the rest goes on",
    Reason.GUARDRAIL: "Meisa's sending guardrail throttles an endpoint; its work waits, and the rest goes on",
}


class GateState(NamedTuple):
    """A held endpoint, for status."""

    key: str
    endpoint: str
    reason: Reason
    parked: int
    probe_at: float
    message: str


@dataclass(slots=True)
class _Gate(Generic[T]):
    breaker: Breaker
    parked: deque[tuple[T, float]] = field(default_factory=deque)
    """Items with the wall time at which they were parked."""
    message: str = ""
    scope_missing_since: float | None = None
    """Since when (wall) the scope has been missing, as far as answers told; an outage says nothing of it."""


class Gates(Generic[T]):
    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._gates: dict[tuple[str, str], _Gate[T]] = {}

    def is_open(self, key: str, endpoint: str) -> bool:
        """Whether calls go freely."""
        gate = self._gates.get((key, endpoint))
        return gate is None or not gate.breaker.is_open

    def probe(self, key: str, endpoint: str, now: float) -> bool:
        """Whether a call may go as a probe of a held endpoint."""
        return self._gates[key, endpoint].breaker.allow(now)

    def park(self, key: str, endpoint: str, item: T, wall: float) -> None:
        self._gates[key, endpoint].parked.append((item, wall))

    def answered(
        self, key: str, endpoint: str, contact: Hashable, outcome: Outcome, now: float, wall: float, *, probe: bool
    ) -> list[T]:
        """Books what an answer says of its endpoint; returns items that need not wait any more."""
        verdict = outcome.verdict
        gate = self._gates.get((key, endpoint))
        if verdict in (Verdict.DELIVERED, Verdict.REFUSED, Verdict.NEEDS_CONTACT):
            return self._worked(gate, key, endpoint) if gate is not None else []
        if verdict in (Verdict.RETRY, Verdict.UNKNOWN, Verdict.SCOPE_MISSING):
            gate = gate or self._new(key, endpoint)
            was = gate.breaker.reason
            if verdict is Verdict.SCOPE_MISSING:
                if gate.scope_missing_since is None:
                    gate.scope_missing_since = wall
                gate.breaker.scope_missing(now, probe=probe)
            else:
                gate.breaker.failed(now, contact, probe=probe)
            self._say(gate, was, key, endpoint, outcome)
        elif gate is not None:
            gate.breaker.told_nothing(probe=probe)
        return []

    def guardrail(
        self, key: str, endpoint: str, contact: Hashable, outcome: Outcome, now: float, seconds: float, *, probe: bool
    ) -> None:
        """A 429 that is not the key's: holds the endpoint from the third contact on."""
        gate = self._gates.get((key, endpoint)) or self._new(key, endpoint)
        was = gate.breaker.reason
        gate.breaker.throttled(now, contact, seconds, probe=probe)
        self._say(gate, was, key, endpoint, outcome)

    def unsent(self, key: str, endpoint: str, *, probe: bool) -> None:
        """An admitted call did not leave."""
        gate = self._gates.get((key, endpoint))
        if gate is not None:
            gate.breaker.told_nothing(probe=probe)

    def due(self, now: float) -> list[T]:
        """The next item of each gate whose probe is due."""
        return [
            gate.parked.popleft()[0] for gate in self._gates.values() if gate.parked and gate.breaker.probe_at <= now
        ]

    def unpark(self, key: str, endpoint: str, wanted: Callable[[T, float], bool]) -> list[T]:
        """Takes out the parked items that `wanted(item, parked_wall)` names."""
        gate = self._gates.get((key, endpoint))
        if gate is None:
            return []
        taken = [item for item, wall in gate.parked if wanted(item, wall)]
        if taken:
            gate.parked = deque((item, wall) for item, wall in gate.parked if not wanted(item, wall))
        return taken

    def scope_missing_since(self, key: str, endpoint: str) -> float:
        """Since when (wall) answers have said that the scope is missing; infinite where none does."""
        gate = self._gates.get((key, endpoint))
        since = gate.scope_missing_since if gate is not None else None
        return math.inf if since is None else since

    def held(self) -> list[tuple[str, str]]:
        """Keys and endpoints that have parked items."""
        return [name for name, gate in self._gates.items() if gate.parked]

    def next_deadline(self) -> float:
        """When the next probe is due; infinite where nothing waits for one."""
        return min((gate.breaker.probe_at for gate in self._gates.values() if gate.parked), default=math.inf)

    def states(self) -> list[GateState]:
        return [
            GateState(key, endpoint, gate.breaker.reason, len(gate.parked), gate.breaker.probe_at, gate.message)
            for (key, endpoint), gate in self._gates.items()
            if gate.breaker.reason is not None
        ]

    def _new(self, key: str, endpoint: str) -> _Gate[T]:
        gate = self._gates[key, endpoint] = _Gate(Breaker(random=self._random))
        return gate

    def _worked(self, gate: _Gate[T], key: str, endpoint: str) -> list[T]:
        if gate.breaker.reason is not None:
            log.info("the endpoint works again; its work goes on", endpoint=endpoint, key=key, waiting=len(gate.parked))
        gate.breaker.worked()
        gate.scope_missing_since = None
        freed = [item for item, _ in gate.parked]
        gate.parked.clear()
        return freed

    def _say(self, gate: _Gate[T], was: Reason | None, key: str, endpoint: str, outcome: Outcome) -> None:
        gate.message = outcome.message
        if gate.breaker.reason is not None and was is None:
            log.warning(
                CONSEQUENCES[gate.breaker.reason],
                endpoint=endpoint,
                key=key,
                status=outcome.status,
                message=outcome.message,
            )
