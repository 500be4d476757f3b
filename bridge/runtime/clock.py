"""The clock of the world, and Meisa's."""

from __future__ import annotations

import time

import structlog

from bridge.core.skew import News, Skew
from bridge.ports import Clock

log = structlog.get_logger(__name__)


class SystemClock:
    """Monotonic seconds for waits, wall seconds for ages."""

    now = staticmethod(time.monotonic)
    wall = staticmethod(time.time)


class MeisaClock:
    """A clock whose wall time is Meisa's, as well as its answers tell: the same on every machine.

    For what one instance writes down and another one compares: when a trigger started. Without an answer yet, or where
    the `Date` header is not believed, it is the machine's own. See core/skew.py.
    """

    def __init__(self, clock: Clock, skew: Skew | None = None) -> None:
        self._clock = clock
        self._skew = skew or Skew()
        self.now = clock.now

    @property
    def known(self) -> bool:
        """Whether an answer has told Meisa's time."""
        return self._skew.known

    def wall(self) -> float:
        return self._clock.wall() + self._skew.correction_seconds

    def at(self, wall: float) -> float:
        """A time of the machine's own clock as Meisa's clock had it."""
        return wall + self._skew.correction_seconds

    def observe(self, sent_wall: float, answered_wall: float, date_wall: float | None) -> None:
        """An answer came: when its call was sent and it came, by the machine's own clock, and what it says."""
        if date_wall is None:
            return
        news = self._skew.observe(sent_wall, answered_wall, date_wall)
        if news is News.CORRECTED:
            log.warning(
                "this machine's clock and Meisa's differ; the age of started triggers is judged by Meisa's from now on",
                seconds=round(self._skew.correction_seconds, 1),
                hint="is NTP running here?",
            )
        elif news is News.UNBELIEVABLE:
            log.warning(
                "the Date of Meisa's answers is too far from this machine's clock to be believed; it is ignored. If it "
                "is this clock that is wrong, triggers may be repeated too late or parked too early: set it",
                seconds=round(date_wall - answered_wall),
            )
