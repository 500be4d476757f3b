"""Whether calls to one endpoint make sense at present, or wait for an outage, a scope or a guardrail to pass.

The theory
    A call that fails may be to blame itself (poison) or the endpoint may be (an outage). What tells them apart is
    everybody else: failures of several contacts with no success between them are an outage. The breaker then *opens*:
    work for the endpoint waits, and nothing is counted against it. After a while one call goes out as a *probe*; its
    success closes the breaker, its failure opens it again, for longer.

    Two other answers close an endpoint for a while. A missing scope (403) holds it until somebody grants the scope. A
    guardrail (a 429 on a trigger while our own windows have room) holds its contact only, but the third contact in a
    row shows that it is the endpoint's.

Rules that never break
    1. Failures of fewer than `contacts_min` contacts never open it: one poison event stops nobody.
    2. While it is open, at most one probe is under way.
    3. Any answer that shows the endpoint working closes it at once.

Whoever drives it lets the probes rotate over the waiting contacts; else a poison event could be the probe for ever.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from enum import StrEnum


class Reason(StrEnum):
    """Why an endpoint is held."""

    OUTAGE = "outage"
    SCOPE = "scope_missing"
    GUARDRAIL = "guardrail"


class Breaker:
    """The breaker of one endpoint, for one API key."""

    def __init__(
        self,
        *,
        failures_min: int = 5,
        contacts_min: int = 3,
        open_seconds: float = 1.0,
        open_seconds_max: float = 60.0,
        scope_seconds: float = 30.0,
        random: Callable[[], float] = lambda: 0.5,
    ) -> None:
        """It opens after `failures_min` failures in a row of at least `contacts_min` contacts."""
        self._failures_min, self._contacts_min = failures_min, contacts_min
        self._open_first, self._open_max = open_seconds, open_seconds_max
        self._scope_seconds = scope_seconds
        self._random = random
        self._failures = 0
        self._failed_contacts: set[Hashable] = set()  # at most failures_min + calls in flight: cleared by any success
        self._throttled_contacts: set[Hashable] = set()  # at most contacts_min
        self._open_next = open_seconds
        self._probe_at = math.inf
        self._probing = False
        self.reason: Reason | None = None
        """None while it is closed."""

    @property
    def is_open(self) -> bool:
        return self.reason is not None

    @property
    def probe_at(self) -> float:
        """When the next probe may go; infinite while none may, or while one is under way."""
        return math.inf if self._probing or not self.is_open else self._probe_at

    def allow(self, now: float) -> bool:
        """Whether a call may go now; while it is open the call is a probe, and its end is told with `probe=True`."""
        if self.reason is None:
            return True
        if self._probing or now < self._probe_at:
            return False
        self._probing = True
        return True

    def worked(self) -> None:
        """The endpoint answered properly, were it with a refusal of this one call."""
        self.reason = None
        self._probing = False
        self._failures = 0
        self._failed_contacts.clear()
        self._throttled_contacts.clear()
        self._open_next = self._open_first

    def failed(self, now: float, contact: Hashable, *, probe: bool = False) -> None:
        """A 5xx, a broken connection, no answer."""
        self._failures += 1
        if len(self._failed_contacts) < self._contacts_min:
            self._failed_contacts.add(contact)
        if self.reason is None:
            if self._failures >= self._failures_min and len(self._failed_contacts) >= self._contacts_min:
                self._open(Reason.OUTAGE, now, self._longer())
        elif probe:
            # Calls that were under way when it opened fail too, and say nothing new; only the probe does.
            self._open(Reason.OUTAGE, now, self._longer())

    def scope_missing(self, now: float, *, probe: bool = False) -> None:
        """The key lacks the endpoint's scope."""
        if self.reason is None or probe:
            self._open(Reason.SCOPE, now, self._scope_seconds)

    def throttled(self, now: float, contact: Hashable, seconds: float, *, probe: bool = False) -> None:
        """A guardrail's 429: the contact waits anyway; the third contact in a row holds the endpoint."""
        if len(self._throttled_contacts) < self._contacts_min:
            self._throttled_contacts.add(contact)
        if probe or (self.reason is None and len(self._throttled_contacts) >= self._contacts_min):
            self._open(Reason.GUARDRAIL, now, seconds)

    def told_nothing(self, *, probe: bool = False) -> None:
        """The call said nothing of the endpoint: it did not leave, or met a refused key or the key's own throttle."""
        if probe:
            self._probing = False

    def _open(self, reason: Reason, now: float, seconds: float) -> None:
        self.reason = reason
        self._probing = False
        self._probe_at = now + seconds

    def _longer(self) -> float:
        """The present wait, give or take a quarter; the next one is twice as long."""
        seconds = self._open_next * (0.75 + self._random() / 2)
        self._open_next = min(self._open_next * 2, self._open_max)
        return seconds
