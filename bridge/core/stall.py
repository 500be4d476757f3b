"""Whether a partition stands still: something lies beyond its frontier, and the frontier does not move.

The theory
    A frontier that stands is ordinary: a retry waits, the quota is used up. Standing for long is worth a word, with the
    offset and the reason, because what lies behind it is delivered but not committed, and the window fills.

Rules
    1. A partition that has no lag never stalls, however long it is quiet.
    2. Each stall is told once, and once more for each time it has lasted twice as long.
"""

from __future__ import annotations


class StallWatch:
    """Watches one partition's frontier."""

    __slots__ = ("_frontier", "_since", "_tell_at", "_told", "after_seconds")

    def __init__(self, *, after_seconds: float = 60.0) -> None:
        self.after_seconds = after_seconds
        self._frontier: int | None = None
        self._since: float | None = None
        self._tell_at = after_seconds
        self._told = False

    def look(self, now: float, frontier: int | None, lag: int) -> bool:
        """Takes a look; True if the stall should be told now. `lag` counts what lies beyond, taken in or not."""
        if self._since is None or frontier != self._frontier or not lag:
            self._frontier = frontier
            self._since = now
            self._tell_at = self.after_seconds
            self._told = False
            return False
        if now - self._since < self._tell_at:
            return False
        self._tell_at = (now - self._since) * 2
        self._told = True
        return True

    @property
    def stalled(self) -> bool:
        """Whether the present frontier has been told as standing still."""
        return self._told

    def seconds(self, now: float) -> float:
        """For how long the frontier has stood, as far as anybody has looked: 0 before the first look."""
        return 0.0 if self._since is None else now - self._since
