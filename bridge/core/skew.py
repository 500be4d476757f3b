"""How far Meisa's clock is ahead of ours, from the `Date` of its answers.

The theory
    An answer says `Date: D`, in whole seconds, cut off. Meisa's clock stood in [D, D + 1) at some moment between the
    sending of the call (our wall s) and its answer (our wall a). A server that makes the header once a second may be
    another second late. So the *offset*, which is Meisa's clock minus ours, lies in [D - a, D + 2 - s].

    Offsets that several answers allow are those in all their intervals: quick answers narrow what slow ones leave
    open. The *correction* is the offset nearest to 0 among these. So clocks that agree as well as one can tell are left
    alone, and no other dead zone is needed: an interval is never narrower than two seconds, and what uses the
    correction has minutes to spare (Meisa remembers a key for 60 min, the bridge repeats a trigger for 55).

What it is for, and what not
    Two instances compare wall times: one marks that a trigger has started, another one judges the mark's age. Only
    these times are corrected. An event's age counts from its producer's clock, waits are monotonic; neither is touched,
    so that a `Date` that lies can expire no event and end no wait.

Rules that never break
    1. One answer that contradicts what was known changes nothing; three in a row that agree with each other do: then
       somebody has set a clock. A server of Meisa's whose clock is off, behind a balancer, does not make ours jump.
    2. An offset beyond `believed_max` is not believed at all: the correction stays as it was. A header of 1970, or one
       that a cache in between keeps for days, must not open the window in which a trigger may be repeated.
    3. Where nothing is known the correction is 0.

    What a lie within `believed_max` can do: while all instances hear it, nothing, because it is in both of the times
    that are compared. If only some do, a mark seems older than it is (the trigger is parked, a person decides) or
    younger; one that seems to lie in the future by more than a few minutes is parked too (core/retry.py).

The bound: the last `RECENT` intervals. Older ones say nothing of a clock that drifts.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

RECENT = 16
AGREEING = 3
HEADER_LATE_SECONDS = 1.0
BELIEVED_MAX_SECONDS = 86_400.0
"""Wrong time zones are off by hours and real; beyond a day it is a broken header rather than a clock."""
WORTH_TELLING_SECONDS = 5.0

Interval = tuple[float, float]


class News(Enum):
    """What an answer changed that an operator should hear."""

    CORRECTED = "corrected"
    """The correction is another one by several seconds."""
    UNBELIEVABLE = "unbelievable"
    """The header is too far off to be believed; told once, and again only after `RECENT` believable ones in a row."""


class Skew:
    """Meisa's clock against this machine's."""

    def __init__(self, *, believed_max_seconds: float = BELIEVED_MAX_SECONDS) -> None:
        if believed_max_seconds <= 0:
            raise ValueError("a correction that may be above 0 seconds")
        self._believed_max_seconds = believed_max_seconds
        self._recent: deque[Interval] = deque(maxlen=RECENT)
        self._against: list[Interval] = []
        self._believed = RECENT
        """Believable answers since the last other one."""
        self._told_seconds = 0.0
        self.correction_seconds = 0.0
        """To be added to our wall seconds."""

    @property
    def known(self) -> bool:
        """Whether any answer told Meisa's time."""
        return bool(self._recent)

    def observe(self, sent_wall: float, answered_wall: float, date_wall: float) -> News | None:
        """Takes in the `Date` of one answer, as Unix seconds, with our own clock's times around it."""
        interval = (date_wall - answered_wall, date_wall + 1.0 + HEADER_LATE_SECONDS - sent_wall)
        if not interval[0] <= interval[1]:
            return None  # our own clock was set back in between (or the header is no number)
        if abs(_nearest_to_zero(interval)) > self._believed_max_seconds:
            before, self._believed = self._believed, 0
            return News.UNBELIEVABLE if before >= RECENT else None
        self._believed += 1
        if _common([*self._recent, interval]) is not None:
            self._against.clear()
            self._recent.append(interval)
        else:
            if _common([*self._against, interval]) is None:
                self._against.clear()
            self._against.append(interval)
            if len(self._against) < AGREEING:
                return None
            self._recent = deque(self._against, maxlen=RECENT)
            self._against.clear()
        common = _common(self._recent)
        assert common is not None
        self.correction_seconds = _nearest_to_zero(common)
        if abs(self.correction_seconds - self._told_seconds) < WORTH_TELLING_SECONDS:
            return None
        self._told_seconds = self.correction_seconds
        return News.CORRECTED


def _common(intervals: list[Interval] | deque[Interval]) -> Interval | None:
    """What lies in all of them."""
    low, high = max(low for low, _ in intervals), min(high for _, high in intervals)
    return (low, high) if low <= high else None


def _nearest_to_zero(interval: Interval) -> float:
    return max(interval[0], min(0.0, interval[1]))
