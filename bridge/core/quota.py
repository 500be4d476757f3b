"""How many calls one API key may still make: several sliding windows held at once, and the server's own brake.

The theory
    Meisa counts a call at some moment between its sending and its answer; which, nobody knows. So a call counts here
    from the moment it leaves until its answer plus the window's length: whatever the network does in between, the
    server never sees more than the limit in any window. A call without an answer may still be under way: it counts
    `unanswered_seconds` longer.

Rules that never break
    1. In no window do more than `limit` calls count.
    2. Either a call fits into every window, or it takes nothing from any: the check and the booking are one step.
    3. A share of each window (`reserve`) is for urgent calls only, and the others are *paced* (core/window.py). So
       slots come free all the time, and an urgent call that finds the reserve used up waits for seconds, never for a
       whole window.
    4. While the server's brake is on (a 429), nothing may leave.

How the server counts
    Fixed windows, sliding ones, or a bucket of tokens that holds as many as the limit: what fits every sliding window
    fits all of these. So a 429 has one of two reasons, and teaches one of two things.
    - The bucket is smaller: it refuses what runs ahead of the even rate. `Burst` follows how far we do. If it was two
      calls or more, and no longer wait is asked for than a token takes, we run ahead by half as much at most from now
      on. That costs bursts, never rate, so it is never forgotten.
    - Somebody else uses the same key, or has used it before this process began. Then a window gives way
      (core/window.py; `yielding` says which).
    A neighbour may be taken for a bucket at first. That costs a few refusals more: bursts are soon too small to be the
    reason.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from bridge.core.window import EXACT_MAX, FULL_SHARE, NEVER, Window

__all__ = ["EXACT_MAX", "FULL_SHARE", "NEVER", "Burst", "Quota", "Slot", "WindowUse"]

AHEAD_TELLING = 2.0
"""Calls ahead of the even rate from which on a refusal may be a small bucket's: with fewer there was no burst."""


class WindowUse(NamedTuple):
    """A window as status shows it."""

    seconds: float
    limit: int
    used: int


class Slot:
    """What a booked call takes from, where that has parts (core/shares.py), or what permits it (core/permits.py)."""

    __slots__ = ()

    leave_by: float = math.inf
    """Whoever has not let the call leave by then (monotonic) must not."""


class Burst:
    """How far calls run ahead of the even rate, and how far they may."""

    __slots__ = ("_ahead", "_at", "_window", "most")

    def __init__(self, window: Window) -> None:
        self._window = window
        self._ahead = 0.0
        self._at = 0.0
        self.most = math.inf
        """Calls that may leave at once."""

    def _rate(self) -> float:
        return self._window.limit / self._window.seconds

    def ahead(self, now: float) -> float:
        self._ahead = max(0.0, self._ahead - (now - self._at) * self._rate())
        self._at = now
        return self._ahead

    def earliest(self, now: float) -> float:
        """When the next call may leave."""
        over = self.ahead(now) + 1.0 - self.most
        return now if over <= 1e-9 else now + over / self._rate() if self._window.limit else NEVER

    def leave(self, calls: float = 1.0) -> None:
        """A call leaves (after `earliest` was asked), or has not left after all (-1)."""
        self._ahead = max(0.0, self._ahead + calls)

    def explains(self, now: float, wait_seconds: float) -> bool:
        """Whether a refusal that asks for this wait can be that of a bucket which holds fewer calls than the limit."""
        token_seconds = math.ceil(self._window.seconds / max(1, self._window.limit))  # as Retry-After has no fractions
        return self.ahead(now) >= AHEAD_TELLING and wait_seconds <= token_seconds

    def refused(self, now: float) -> None:
        """A call was refused for its sake, so it took nothing from the bucket."""
        self._ahead = max(0.0, self.ahead(now) - 1.0)
        self.most = max(1.0, min(self.most, self._ahead / 2))


def yielding(windows: Sequence[Window], now: float, wait_seconds: float) -> Window:
    """Which window gives way to a neighbour: of those that are as long as the wait, the fullest by our own count.

    Where we have hardly used any of them nobody knows. Then the shortest: taken for it by mistake, it has recovered
    after three minutes, an hour's window after three hours. If it is the hour's all the same, more refusals follow.
    """
    fitting = [window for window in windows if wait_seconds <= window.seconds] or windows[-1:]
    fullest = max(fitting, key=lambda window: window.fullness(now))
    return fullest if fullest.fullness(now) >= FULL_SHARE else min(fitting, key=lambda window: window.seconds)


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
        self._windows = [Window(limit, seconds, reserve) for limit, seconds in limits]
        self.unanswered_seconds = unanswered_seconds
        self._burst = Burst(min(self._windows, key=lambda window: window.seconds))
        self._too_bursty = False
        """What the brake is on for."""
        self._brake_first, self._brake_max = brake_seconds, brake_seconds_max
        self._brake_next = brake_seconds
        self._braked_until = -math.inf
        self.in_flight = 0
        self.slot = Slot()
        """Of the call that was booked last; whoever ends it gives it back."""
        self.untold = False
        """Calls wait for a commit that permits them, or for an answer of the ledger that all share."""
        self.trouble = ""
        """Why nobody can tell at present whether a call may leave."""

    def acquire(self, now: float, *, urgent: bool = False) -> bool:
        """Books one call that leaves now; False where it may not."""
        if now < self._braked_until or self._burst.earliest(now) > now:
            return False
        if not all(window.room(now, urgent) and (urgent or window.paced(now) <= now) for window in self._windows):
            return False
        self._burst.leave()
        for window in self._windows:
            window.leave()
            if not urgent:
                window.keep_pace(now)
        self.in_flight += 1
        return True

    def has_room(self, now: float) -> bool:
        """Whether our own count has room in every window, whatever the server says."""
        return all(window.room(now, urgent=True) for window in self._windows)

    def answered(self, now: float, slot: Slot | None = None) -> None:
        """A call's answer came at `now`."""
        self._ended(now, slot)

    def unanswered(self, now: float, slot: Slot | None = None) -> None:
        """A call was given up at `now` without an answer: the server may count it later still."""
        self._ended(now + self.unanswered_seconds, slot)

    def leaves(self, slot: Slot) -> bool:
        """Whether a call that was booked may still leave."""
        return True

    def unsent(self, *, urgent: bool = False, slot: Slot | None = None) -> None:
        """A booked call never left: it counts nowhere."""
        self.in_flight -= 1
        self._burst.leave(-1.0)
        for window in self._windows:
            window.unleave()
            if not urgent:
                window.give_back()

    def _ended(self, at: float, slot: Slot | None) -> None:
        self.in_flight -= 1
        for window in self._windows:
            window.end(at)

    def throttled(self, now: float, retry_after_seconds: float | None) -> float:
        """The server answered 429; returns when the brake is released.

        Without a Retry-After the brake doubles with each 429 in a row. Answers that were under way together count
        once: a burst of 64 refusals is one refusal.
        """
        first = now >= self._braked_until
        if first:
            self._too_bursty = self._burst.explains(now, retry_after_seconds or 0.0)
        if self._too_bursty:
            self._burst.refused(now)
        elif first:
            self._give_way(now, retry_after_seconds or 0.0)
        if retry_after_seconds is not None:
            until = now + max(0.0, retry_after_seconds)
        elif now < self._braked_until:
            until = self._braked_until
        else:
            until = now + self._brake_next
            self._brake_next = min(self._brake_next * 2, self._brake_max)
        self._braked_until = max(self._braked_until, until)
        return self._braked_until

    def _give_way(self, now: float, wait_seconds: float) -> None:
        """Somebody else uses the key."""
        yielding(self._windows, now, wait_seconds).give_way(now)

    def resize(self, limits: Sequence[int]) -> None:
        """Other limits from now on, in the order of the windows; what was used counts on. Zero stops everything."""
        for window, limit in zip(self._windows, limits, strict=True):
            window.resize(limit)

    def remember(self, ended_at: float, count: int) -> None:
        """So many calls ended then, made by somebody whose share of the limits is ours now."""
        for window in self._windows:
            window.remember(ended_at, count)

    def reshare(self, limits: Sequence[int], ends: Sequence[Iterable[tuple[float, int]]]) -> None:
        """Shares came or went: the limit of each window, and what has ended in it."""
        for window, limit, each in zip(self._windows, limits, ends, strict=True):
            window.reshare(limit, each)

    def take_untold(self) -> bool:
        """Whether calls wait for somebody's permission, since this was asked last."""
        untold, self.untold = self.untold, False
        return untold

    @property
    def none_owned(self) -> bool:
        """Whether not a single call is ours in some window."""
        return any(window.limit == 0 for window in self._windows)

    def accepted(self) -> None:
        """The server took a call: the next brake without Retry-After starts small again."""
        self._brake_next = self._brake_first

    def earliest(self, now: float, *, urgent: bool = False) -> float:
        """When `acquire` may succeed; NEVER where that needs an answer that is still under way."""
        at = max(now, self._braked_until, self._burst.earliest(now))
        for window in self._windows:
            at = max(at, window.earliest(now, urgent))
            if not urgent:
                at = max(at, window.paced(now))
        return at

    def braked_until(self, now: float) -> float | None:
        return self._braked_until if now < self._braked_until else None

    def yields(self, now: float) -> WindowUse | None:
        """A window that gives way to a neighbour, with what it may have now in place of its limit; None if none."""
        for window in self._windows:
            most = window.most(now)
            if most < window.limit:
                return WindowUse(window.seconds, most, window.used(now))
        return None

    def snapshot(self, now: float) -> tuple[WindowUse, ...]:
        return tuple(WindowUse(window.seconds, window.limit, window.used(now)) for window in self._windows)
