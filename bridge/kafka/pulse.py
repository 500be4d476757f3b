"""Whether this process stood still: suspended with its machine, stopped by a signal, starved of its processor.

The polling thread beats at least once a second. A process that was suspended finds its clocks ahead of its last beat;
either clock, because a suspended machine may stop the monotonic one. Whoever asks first after waking is told: the
thread's own late beat keeps the gap for the asker.
"""

from __future__ import annotations

import time


class Pulse:
    """`beat` and `longest_gap` may be called from any thread; an update lost between them costs a false alarm."""

    def __init__(self) -> None:
        self._now, self._wall = time.monotonic(), time.time()
        self._longest = 0.0

    def beat(self) -> None:
        now, wall = time.monotonic(), time.time()
        gap = max(now - self._now, wall - self._wall)
        self._now, self._wall = now, wall
        if gap > self._longest:
            self._longest = gap

    def longest_gap(self) -> float:
        """Seconds, since this was asked last."""
        self.beat()
        longest, self._longest = self._longest, 0.0
        return longest
