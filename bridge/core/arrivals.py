"""When the records of a partition were first read, as far as it is worth remembering.

The theory
    Whether an event was history already when it was first read is judged with the moment of that reading, and a
    restart must not change it: what had to wait here until it was too old is a dead letter, never a silent end. One
    number beside each commit is enough for that: `since`, when the record at the frontier was first read. Everything
    beyond the frontier came later, so `since` is a lower bound for all of it, and a bound that is too low errs towards
    a dead letter that somebody sees.

Rules that never break
    1. `oldest(frontier)` is never later than the first reading of any offset from the frontier on, by any owner.
    2. Looking after the arrivals costs a comparison per record.

The bounds
    An arrival is noted at most once per second, and at most `NOTES_MAX` are kept: where they do not reach, the time
    between them doubles, and what was read in between counts as read with the note before it. Notes below the frontier
    go, and with the last of them the time is a second again.
"""

from __future__ import annotations

from collections import deque

SECONDS_BETWEEN = 1.0
NOTES_MAX = 256
"""A window that fills within four minutes keeps the second; one that takes a day, eight minutes."""


class Arrivals:
    """`seen` and `since` are what a former owner told: it took in what lies below, and nothing of it before `since`."""

    __slots__ = ("_apart", "_notes", "seen", "since")

    def __init__(self, seen: int = 0, since: float = 0.0) -> None:
        self.seen = seen
        self.since = since
        self._notes: deque[tuple[int, float]] = deque()  # offsets and walls, both ascending
        self._apart = SECONDS_BETWEEN

    def note(self, offset: int, wall: float) -> None:
        """A record is taken in that was read at `wall`."""
        notes = self._notes
        if notes and 0.0 <= wall - notes[-1][1] < self._apart:
            return
        while notes and notes[-1][1] >= wall:  # the clock was set back
            offset = notes.pop()[0]
        notes.append((offset, wall))
        while len(self._notes) > NOTES_MAX:
            notes = self._notes
            self._notes = deque()
            self._apart *= 2
            for each in notes:
                if not self._notes or each[1] - self._notes[-1][1] >= self._apart:
                    self._notes.append(each)

    def of(self, offset: int, wall: float) -> float:
        """When a record that is read at `wall` was first read, or earlier."""
        return min(self.since, wall) if offset < self.seen else wall

    def oldest(self, frontier: int) -> float:
        """When the record at the frontier was first read, or earlier."""
        notes = self._notes
        if frontier < self.seen:
            return min(self.since, notes[0][1]) if notes else self.since  # lower where the clock was set back since
        while len(notes) > 1 and notes[1][0] <= frontier:
            notes.popleft()
        if len(notes) == 1:
            self._apart = SECONDS_BETWEEN
        return notes[0][1] if notes else 0.0
