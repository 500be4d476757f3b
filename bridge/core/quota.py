"""How many calls one API key may still make: several sliding windows held at once, and the server's own brake.

The theory
    Meisa counts a call at some moment between its sending and its answer; which, nobody knows. So a call counts here
    from the moment it leaves until its answer plus the window's length: whatever the network does in between, the
    server never sees more than the limit in any window. A call without an answer may still be under way: it counts
    `unanswered_seconds` longer.

Rules that never break
    1. In no window do more than `limit` calls count.
    2. Either a call fits into every window, or it takes nothing from any: the check and the booking are one step.
    3. A share of each window (`reserve`) is for urgent calls only.
    4. While the server's brake is on (a 429), nothing may leave.

The bounds
    Each window remembers the end of every call that counts: at most `limit` of them. For limits above
    `EXACT_MAX` ends are rounded up to a fraction of the window and counted per fraction, which errs on the safe
    side by that fraction; at Meisa's 60 and 1,000 every call is exact.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import NamedTuple

EXACT_MAX = 10_000

NEVER = math.inf


class WindowUse(NamedTuple):
    """A window as status shows it."""

    seconds: float
    limit: int
    used: int


class _Window:
    __slots__ = ("_counts", "_ends", "_in_flight", "_past", "_step", "limit", "seconds", "spare")

    def __init__(self, limit: int, seconds: float, reserve: float) -> None:
        self.limit = limit
        self.seconds = seconds
        # At least one call for everybody: a reserve of 0.9 of 5 must not stop all other work.
        self.spare = min(limit - 1, math.ceil(limit * reserve)) if reserve > 0 else 0
        self._step = seconds / EXACT_MAX if limit > EXACT_MAX else 0.0
        self._ends: list[float] = []  # a heap: unanswered calls end later than calls answered after them
        self._counts: dict[float, int] = {}
        self._past = 0
        self._in_flight = 0

    def used(self, now: float) -> int:
        ends, counts = self._ends, self._counts
        while ends and ends[0] <= now:
            self._past -= counts.pop(heapq.heappop(ends))
        return self._past + self._in_flight

    def room(self, now: float, urgent: bool) -> bool:
        return self.used(now) < self.limit - (0 if urgent else self.spare)

    def leave(self) -> None:
        self._in_flight += 1

    def end(self, at: float) -> None:
        self._in_flight -= 1
        assert self._in_flight >= 0, "answered without having left"
        self.remember(at, 1)

    def unleave(self) -> None:
        self._in_flight -= 1
        assert self._in_flight >= 0, "taken back without having left"

    def remember(self, at: float, count: int) -> None:
        end = at + self.seconds
        if self._step:
            end = math.ceil(end / self._step) * self._step
        if end in self._counts:
            self._counts[end] += count
        else:
            self._counts[end] = count
            heapq.heappush(self._ends, end)
        self._past += count

    def earliest(self, now: float, urgent: bool) -> float:
        """When there is room again; NEVER where that depends on an answer that has not come."""
        surplus = self.used(now) - (self.limit - (0 if urgent else self.spare)) + 1
        if surplus <= 0:
            return now
        if surplus == 1:
            return self._ends[0] if self._ends else NEVER
        for end in sorted(self._ends):
            surplus -= self._counts[end]
            if surplus <= 0:
                return end
        return NEVER


class Quota:
    """The quota of one API key."""

    def __init__(
        self,
        limits: Sequence[tuple[int, float]],
        *,
        reserve: float = 0.0,
        unanswered_seconds: float = 60.0,
        brake_seconds: float = 1.0,
        brake_seconds_max: float = 60.0,
    ) -> None:
        """`limits` are pairs of calls and seconds, e.g. `[(60, 60.0), (1000, 3600.0)]`."""
        if not all(limit >= 1 and seconds > 0 for limit, seconds in limits):
            raise ValueError("a window needs at least one call and some seconds")
        if not 0 <= reserve < 1:
            raise ValueError("the reserve is a share from 0 to below 1")
        self._windows = [_Window(limit, seconds, reserve) for limit, seconds in limits]
        self._unanswered_seconds = unanswered_seconds
        self._brake_first, self._brake_max = brake_seconds, brake_seconds_max
        self._brake_next = brake_seconds
        self._braked_until = -math.inf
        self.in_flight = 0

    def acquire(self, now: float, *, urgent: bool = False) -> bool:
        """Books one call that leaves now; False where it may not."""
        if now < self._braked_until or not all(window.room(now, urgent) for window in self._windows):
            return False
        for window in self._windows:
            window.leave()
        self.in_flight += 1
        return True

    def has_room(self, now: float) -> bool:
        """Whether our own count has room in every window, whatever the server says."""
        return all(window.room(now, urgent=True) for window in self._windows)

    def answered(self, now: float) -> None:
        """A call's answer came at `now`."""
        self._ended(now)

    def unanswered(self, now: float) -> None:
        """A call was given up at `now` without an answer: the server may count it later still."""
        self._ended(now + self._unanswered_seconds)

    def unsent(self) -> None:
        """A booked call never left: it counts nowhere."""
        self.in_flight -= 1
        for window in self._windows:
            window.unleave()

    def _ended(self, at: float) -> None:
        self.in_flight -= 1
        for window in self._windows:
            window.end(at)

    def throttled(self, now: float, retry_after_seconds: float | None) -> float:
        """The server answered 429; returns when the brake is released.

        Without a Retry-After the brake doubles with each 429 in a row. Answers that were under way together count
        once: a burst of 64 refusals is one refusal.
        """
        if retry_after_seconds is not None:
            until = now + max(0.0, retry_after_seconds)
        elif now < self._braked_until:
            until = self._braked_until
        else:
            until = now + self._brake_next
            self._brake_next = min(self._brake_next * 2, self._brake_max)
        self._braked_until = max(self._braked_until, until)
        return self._braked_until

    def accepted(self) -> None:
        """The server took a call: the next brake without Retry-After starts small again."""
        self._brake_next = self._brake_first

    def earliest(self, now: float, *, urgent: bool = False) -> float:
        """When `acquire` may succeed; NEVER where that needs an answer that is still under way."""
        at = max(now, self._braked_until)
        for window in self._windows:
            at = max(at, window.earliest(now, urgent))
        return at

    def braked_until(self, now: float) -> float | None:
        return self._braked_until if now < self._braked_until else None

    def snapshot(self, now: float) -> tuple[WindowUse, ...]:
        return tuple(WindowUse(window.seconds, window.limit, window.used(now)) for window in self._windows)
