"""One sliding window of an API key's quota: what counts in it, at which pace it is used, and for whom it yields.

The theory
    A call counts from the moment it leaves until its answer plus the window's length (core/quota.py says why). What is
    not urgent may have the window less its `reserve`, and is *paced*: used at once, the window would give its slots
    back at once, an hour later, and whoever needs one meanwhile would wait for it. The pace follows from what counts
    alone:

        Until any moment ahead no more calls may leave than are free now or come back before it. The slowest rate that
        this asks for, looking at most one window ahead, empties nothing too early and leaves nothing unused: it is the
        straightest line below what is available. The gap to the next call is that of this rate, times the share of the
        window that is used.

    So after an idle time calls follow each other quickly, and more and more slowly as the window fills up; while there
    is more work than slots, slots are used as they come back, and whatever bunches there were are drawn apart within a
    window's length. Of 900 calls an hour one goes every 4 s then, and every 11 s at last in the hour before.

Rules that never break
    1. No more calls count than the limit, and what is not urgent leaves the reserve free.
    2. The pace wastes nothing: with work all the time, all that is not reserved is used in each length of the window.

Giving way
    Where somebody else uses the same key the window gets a *ceiling*: what we had used of it, less a twentieth, and a
    quarter of the limit at least: a refusal that has another reason would stop nearly everything else. The
    reserve is the same share of that; where that is a twentieth or more, what is not urgent gives way by it, and
    the ceiling is one call less only: so urgent calls go on as slots come back. It rises with the cube of the time
    since, by a twentieth of the limit in one length of the window and by all of it in three: so a neighbour who stays
    is asked about after some length of the window, when what the refusal held up is drawn apart, and one who has gone
    is soon noticed.

The bounds
    The ends of the calls that count: at most `limit` of them. For limits above `EXACT_MAX` ends are rounded up to a
    fraction of the window and counted per fraction, which errs on the safe side by that fraction; at Meisa's 60 and
    1,000 every call is exact. The pace looks at `PARTS` moments ahead, after each thousandth of the limit or of the
    window: that is what a call costs.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections.abc import Iterable

EXACT_MAX = 10_000

PARTS = 120
"""Into which the pace divides a window: within a part (30 s of an hour) slots may come back unevenly."""

GAPS = 1_000
"""Of a window's limit or length: at Meisa's limits the gap is computed for each call, else for some at once."""

CATCH_UP_SHARE = 1 / 600
"""Of a window's length (0.1 s of a minute, 6 s of an hour): by so much whoever comes late is still in time. Timers are
not exact, and where calls follow each other within a millisecond several leave at once."""

GIVE_WAY = 0.05
"""Of what we had used when somebody else's use showed: so much less is used from then on."""

RECOVERY_SHARE = 0.05
"""Of a limit, by which a ceiling has risen after one length of its window."""

FULL_SHARE = 0.25
"""Of a limit: as much use of our own says that this window is the one that is short (core/quota.py). No ceiling is
lower: below it a refusal says nothing of how much there is, and the server's own brake is answer enough."""

NEVER = math.inf


class Window:
    __slots__ = (
        "_back",
        "_ceiling",
        "_ceiling_at",
        "_counts",
        "_ends",
        "_gap",
        "_gap_until",
        "_in_flight",
        "_next_at",
        "_paced",
        "_part",
        "_past",
        "_reserve",
        "_step",
        "limit",
        "seconds",
        "spare",
    )

    def __init__(self, limit: int, seconds: float, reserve: float) -> None:
        self.seconds = seconds
        self._reserve = reserve
        self._ceiling = math.inf
        self._ceiling_at = 0.0
        self._step = seconds / EXACT_MAX if limit > EXACT_MAX else 0.0
        self._part = seconds / PARTS
        self._clear()
        self._in_flight = 0
        self._gap = 0.0
        """Seconds from the last paced call to the next."""
        self._paced = 0
        """Calls with this gap."""
        self.resize(limit)

    def _clear(self) -> None:
        self._ends: list[float] = []
        """When calls that were answered cease to count, ascending, each moment once."""
        self._counts: dict[float, int] = {}
        """How many cease to count then."""
        self._back: dict[int, int] = {}
        """The same by part of the window."""
        self._past = 0

    def resize(self, limit: int) -> None:
        """Another limit from now on; what was used counts on."""
        self.limit = limit
        # At least one call for everybody: a reserve of 0.9 of 5 must not stop all other work.
        self.spare = max(0, min(limit - 1, math.ceil(limit * self._reserve))) if self._reserve > 0 else 0
        self._next_at = self._gap_until = -math.inf

    def reshare(self, limit: int, ends: Iterable[tuple[float, int]]) -> None:
        """Another limit from now on, and these calls have ended, in place of those that were known."""
        self._clear()
        for at, count in ends:
            self.remember(at, count)
        self.resize(limit)

    # What counts

    def used(self, now: float) -> int:
        ends = self._ends
        if ends and ends[0] <= now:
            gone = bisect_right(ends, now)
            for end in ends[:gone]:
                count = self._counts.pop(end)
                self._past -= count
                self._comes_back(end, -count)
            del ends[:gone]
        return self._past + self._in_flight

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
        """So many calls ended then."""
        end = at + self.seconds
        if self._step:
            end = math.ceil(end / self._step) * self._step
        if end in self._counts:
            self._counts[end] += count
        else:
            self._counts[end] = count
            insort(self._ends, end)  # nearly always the last: unanswered calls end later than those answered after them
        self._comes_back(end, count)
        self._past += count

    def _comes_back(self, end: float, count: int) -> None:
        part = int(end // self._part)
        there = self._back.get(part, 0) + count
        if there:
            self._back[part] = there
        else:
            del self._back[part]

    # Room

    def most(self, now: float) -> int:
        """The limit, or less where somebody else's use has shown."""
        if self._ceiling is math.inf:
            return self.limit
        lengths = (now - self._ceiling_at) / self.seconds
        risen = self._ceiling + self.limit * RECOVERY_SHARE * lengths**3
        if risen >= self.limit:
            self._ceiling = math.inf
            return self.limit
        return max(min(1, self.limit), int(risen))

    def _common(self, now: float) -> int:
        """What is not urgent may have."""
        most = self.most(now)
        return most - self.kept(most)

    def kept(self, most: int) -> int:
        """The reserve where so many calls are thought to be there: the same share of them, and one is for everybody."""
        return max(0, min(-(-self.spare * most // max(1, self.limit)), most - 1))

    def room(self, now: float, urgent: bool) -> bool:
        return self.used(now) < (self.most(now) if urgent else self._common(now))

    def fullness(self, now: float) -> float:
        """Used, of the limit."""
        return self.used(now) / max(1, self.limit)

    def give_way(self, now: float) -> None:
        used = self.used(now)
        given = min(self.most(now), used) - max(1.0, used * GIVE_WAY - self.kept(used))
        self._ceiling = max(1.0, self.limit * FULL_SHARE, given)
        self._ceiling_at = now

    def _allows_at(self, now: float, used: int, urgent: bool) -> float:
        """When so many calls in the window leave room for one more; NEVER where only their number stands against it."""
        if used == 0 and self.limit:
            return now
        wanted = used + 1
        if not urgent and self.spare:
            # So many are needed beside the reserve, give or take one.
            wanted = max(wanted, wanted * self.limit // (self.limit - self.spare))
            while wanted - self.kept(wanted) <= used:
                wanted += 1
        if wanted <= self.most(now):
            return now
        if wanted > self.limit:
            return NEVER
        # A hair later: at that very moment a rounding error may still deny it.
        lengths = math.cbrt((wanted - self._ceiling) / (self.limit * RECOVERY_SHARE))
        return self._ceiling_at + lengths * self.seconds + 1e-6

    def earliest(self, now: float, urgent: bool) -> float:
        """When there is room again; NEVER where that depends on an answer that has not come."""
        used = self.used(now)
        at = self._allows_at(now, used, urgent)
        if at == now:
            return at
        for end in self._ends:  # as many as have to come back: few
            if end >= at:
                break
            used -= self._counts[end]
            at = min(at, max(end, self._allows_at(now, used, urgent)))
        return at

    # The pace of what is not urgent

    def paced(self, now: float) -> float:
        """When the pace lets the next call go."""
        return max(now, self._next_at)

    def keep_pace(self, now: float) -> None:
        """A call that is not urgent leaves now."""
        if self._reserve > 0:  # else nobody is kept waiting by a burst: the window alone decides
            self._paced += 1
            if self._paced * GAPS >= self.limit or now >= self._gap_until:
                self._gap, self._gap_until, self._paced = self._gap_after(now), now + self.seconds / GAPS, 0
            self._next_at = max(self._next_at, now - self.seconds * CATCH_UP_SHARE) + self._gap

    def give_back(self) -> None:
        """It has not left after all: its place is the next one's."""
        self._next_at -= self._gap

    def _gap_after(self, now: float) -> float:
        # Without the ceiling: that rises by itself, and a gap drawn below it would keep calls back long after.
        used, common = self.used(now), self.limit - self.spare
        part, back = self._part, self._back
        first = int(now // part)
        # At equal gaps one more than what is there fits before the moment at which more comes.
        calls = max(1, common - used + 1)
        gap = 0.0
        for number in range(first, first + PARTS):
            calls += back.get(number, 0)
            gap = max(gap, ((number + 1) * part - now) / calls)
        return gap * min(1.0, used / common)
