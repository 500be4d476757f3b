"""How many calls one API key may still make: several sliding windows held at once, and the server's own brake.

The theory
    Meisa counts a call at some moment between its sending and its answer; which, nobody knows. So a call counts here
    from the moment it leaves until its answer plus the window's length: whatever the network does in between, the
    server never sees more than the limit in any window. A call without an answer may still be under way: it counts
    `unanswered_seconds` longer.

Rules that never break
    1. In no window do more than `limit` calls count.
    2. Either a call fits into every window, or it takes nothing from any: the check and the booking are one step.
    3. A share of each window (`reserve`) is for urgent calls only, and the others are *paced*: they may begin with a
       burst, then go at the rate at which the window gives slots back. So slots come free all the time, and an urgent
       call that finds the reserve used up waits for seconds, never for a whole window.
    4. While the server's brake is on (a 429), nothing may leave.

Giving way
    A 429 while our own count has room says that somebody else uses the same key. Then the window that can explain the
    wait (the shortest where the answer names none) gets a *ceiling*: what we had used of it, less a tenth. It rises
    again by a quarter of the limit in each length of the window, so that a neighbour who has gone is noticed, and one
    who stays is asked about now and then. The server may count in fixed windows, sliding ones, or by a bucket of
    tokens: what fits every sliding window here fits the first two, and a bucket that holds fewer tokens than the limit
    answers like a neighbour, and is given way to like one.

The bounds
    Each window remembers the end of every call that counts: at most `limit` of them. For limits above
    `EXACT_MAX` ends are rounded up to a fraction of the window and counted per fraction, which errs on the safe
    side by that fraction; at Meisa's 60 and 1,000 every call is exact.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

EXACT_MAX = 10_000

BURST_SHARE = 0.25
"""Of what is not reserved in a window may leave at once before the pace sets in: a sign-up's few calls need not wait,
and an urgent burst still finds most of the window free."""

GIVE_WAY = 0.9
"""Of what we had used when somebody else's use showed."""

RECOVERY_SHARE = 0.25
"""Of a limit, by which a ceiling rises in each length of its window."""

NEVER = math.inf


class WindowUse(NamedTuple):
    """A window as status shows it."""

    seconds: float
    limit: int
    used: int


class Slot:
    """What a booked call takes from, where that has parts (core/shares.py)."""

    __slots__ = ()


class _Window:
    __slots__ = (
        "_burst",
        "_ceiling",
        "_ceiling_at",
        "_counts",
        "_ends",
        "_filled_at",
        "_in_flight",
        "_past",
        "_rate",
        "_reserve",
        "_step",
        "_tokens",
        "limit",
        "seconds",
        "spare",
    )

    def __init__(self, limit: int, seconds: float, reserve: float) -> None:
        self.seconds = seconds
        self._reserve = reserve
        self._ceiling = math.inf
        self._ceiling_at = 0.0
        self._filled_at = -math.inf
        self._tokens = 0.0
        self.resize(limit)
        self._tokens = self._burst
        self._step = seconds / EXACT_MAX if limit > EXACT_MAX else 0.0
        self._ends: list[float] = []  # a heap: unanswered calls end later than calls answered after them
        self._counts: dict[float, int] = {}
        self._past = 0
        self._in_flight = 0

    def resize(self, limit: int) -> None:
        """Another limit from now on; what was used counts on."""
        self.limit = limit
        # At least one call for everybody: a reserve of 0.9 of 5 must not stop all other work.
        self.spare = max(0, min(limit - 1, math.ceil(limit * self._reserve))) if self._reserve > 0 else 0
        common = limit - self.spare
        self._rate = max(1, common) / self.seconds
        # Without a reserve nobody is kept waiting by a burst: the window alone decides.
        self._burst = max(1.0, common * BURST_SHARE) if self._reserve > 0 else math.inf
        self._tokens = min(self._tokens, self._burst)

    def most(self, now: float) -> int:
        """The limit, or less where somebody else's use has shown."""
        if self._ceiling is math.inf:
            return self.limit
        risen = self._ceiling + self.limit * RECOVERY_SHARE * (now - self._ceiling_at) / self.seconds
        if risen >= self.limit:
            self._ceiling = math.inf
            return self.limit
        return max(min(1, self.limit), int(risen))

    def give_way(self, now: float) -> None:
        self._ceiling = min(self.most(now), max(1.0, self.used(now) * GIVE_WAY))
        self._ceiling_at = now

    def _allows_at(self, now: float, used: int, spare: int) -> float:
        """When so many calls in the window leave room for one more; NEVER where only their number stands against it."""
        if used == 0 and self.limit:
            return now
        wanted = used + 1 + spare
        if wanted <= self.most(now):
            return now
        if wanted > self.limit:
            return NEVER
        # A hair later: at that very moment a rounding error may still deny it.
        return self._ceiling_at + (wanted - self._ceiling) * self.seconds / (self.limit * RECOVERY_SHARE) + 1e-6

    # The pace of what is not urgent

    def _fill(self, now: float) -> None:
        if now > self._filled_at:
            if self._filled_at > -math.inf:
                self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._rate)
            self._filled_at = now

    def paced(self, now: float) -> float:
        """When the pace lets the next call go."""
        if self._burst is math.inf:
            return now
        self._fill(now)
        return now if self._tokens >= 1.0 - 1e-9 else now + (1.0 - self._tokens) / self._rate

    def pay(self, tokens: float) -> None:
        if self._burst is not math.inf:
            self._tokens = min(self._burst, self._tokens - tokens)

    def used(self, now: float) -> int:
        ends, counts = self._ends, self._counts
        while ends and ends[0] <= now:
            self._past -= counts.pop(heapq.heappop(ends))
        return self._past + self._in_flight

    def room(self, now: float, urgent: bool) -> bool:
        most = self.most(now)
        kept = 0 if urgent else max(0, min(self.spare, most - 1))
        return self.used(now) < most - kept

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

    def reshare(self, now: float, limit: int, ends: Iterable[tuple[float, int]]) -> None:
        """Another limit from now on, and these calls have ended, in place of those that were known.

        The pace goes on as if both had always been so: what comes unused may leave in a burst, what comes used may not.
        """
        self._fill(now)
        tokens = self._tokens + self.used(now) - self._burst
        self._ends, self._counts, self._past = [], {}, 0
        for at, count in ends:
            self.remember(at, count)
        self.resize(limit)
        if self._burst is not math.inf:
            self._tokens = min(self._burst, max(0.0, tokens - self.used(now) + self._burst))

    def earliest(self, now: float, urgent: bool) -> float:
        """When there is room again; NEVER where that depends on an answer that has not come."""
        spare = 0 if urgent else self.spare
        used = self.used(now)
        at = self._allows_at(now, used, spare)
        if at == now or not self._ends:
            return at
        for end in sorted(self._ends):
            if end >= at:
                break
            used -= self._counts[end]
            at = min(at, max(end, self._allows_at(now, used, spare)))
        return at


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
        self.unanswered_seconds = unanswered_seconds
        self._brake_first, self._brake_max = brake_seconds, brake_seconds_max
        self._brake_next = brake_seconds
        self._braked_until = -math.inf
        self.in_flight = 0
        self.slot = Slot()
        """Of the call that was booked last; whoever ends it gives it back."""
        self.untold = False
        """Calls wait for a commit that permits them."""

    def acquire(self, now: float, *, urgent: bool = False) -> bool:
        """Books one call that leaves now; False where it may not."""
        if now < self._braked_until or not all(window.room(now, urgent) for window in self._windows):
            return False
        if not urgent:
            if any(window.paced(now) > now for window in self._windows):
                return False
            for window in self._windows:
                window.pay(1.0)
        for window in self._windows:
            window.leave()
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
        for window in self._windows:
            window.unleave()
            if not urgent:
                window.pay(-1.0)

    def _ended(self, at: float, slot: Slot | None) -> None:
        self.in_flight -= 1
        for window in self._windows:
            window.end(at)

    def throttled(self, now: float, retry_after_seconds: float | None) -> float:
        """The server answered 429; returns when the brake is released.

        Without a Retry-After the brake doubles with each 429 in a row. Answers that were under way together count
        once: a burst of 64 refusals is one refusal.
        """
        if now >= self._braked_until and self.has_room(now):
            self._give_way(now, retry_after_seconds)
        if retry_after_seconds is not None:
            until = now + max(0.0, retry_after_seconds)
        elif now < self._braked_until:
            until = self._braked_until
        else:
            until = now + self._brake_next
            self._brake_next = min(self._brake_next * 2, self._brake_max)
        self._braked_until = max(self._braked_until, until)
        return self._braked_until

    def _give_way(self, now: float, retry_after_seconds: float | None) -> None:
        """Somebody else uses the key: the shortest window that can explain the wait yields."""
        wait = retry_after_seconds or 0.0
        fitting = (window for window in self._windows if wait <= window.seconds)
        next(fitting, self._windows[-1]).give_way(now)

    def resize(self, limits: Sequence[int]) -> None:
        """Other limits from now on, in the order of the windows; what was used counts on. Zero stops everything."""
        for window, limit in zip(self._windows, limits, strict=True):
            window.resize(limit)

    def remember(self, ended_at: float, count: int) -> None:
        """So many calls ended then, made by somebody whose share of the limits is ours now."""
        for window in self._windows:
            window.remember(ended_at, count)

    def reshare(self, now: float, limits: Sequence[int], ends: Sequence[Iterable[tuple[float, int]]]) -> None:
        """Shares came or went: the limit of each window, and what has ended in it."""
        for window, limit, each in zip(self._windows, limits, ends, strict=True):
            window.reshare(now, limit, each)

    def take_untold(self) -> bool:
        """Whether calls wait for a commit that permits them, since this was asked last."""
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
        at = max(now, self._braked_until)
        for window in self._windows:
            at = max(at, window.earliest(now, urgent))
            if not urgent:
                at = max(at, window.paced(now))
        return at

    def braked_until(self, now: float) -> float | None:
        return self._braked_until if now < self._braked_until else None

    def snapshot(self, now: float) -> tuple[WindowUse, ...]:
        return tuple(WindowUse(window.seconds, window.limit, window.used(now)) for window in self._windows)
