"""Whether this process stood still: suspended with its machine, stopped by a signal, starved of its processor.

The polling thread beats at least once a second. A process that was suspended finds its clocks ahead of its last beat;
either clock, because a suspended machine may stop the monotonic one. Whoever asks first after waking is told: the
thread's own late beat keeps the gap for the asker.

A thread that never comes back is another matter: it hangs inside a library, and only a new process helps.
"""

from __future__ import annotations

import time


class Pulse:
    """`beat` and `longest_gap` may be called from any thread; an update lost between them costs a false alarm."""

    def __init__(self) -> None:
        self._now, self._wall = time.monotonic(), time.time()
        self._longest = 0.0
        self._beaten = self._now

    def beat(self) -> None:
        """Of the polling thread: it is alive."""
        self._look()
        self._beaten = self._now

    def _look(self) -> None:
        now, wall = time.monotonic(), time.time()
        gap = max(now - self._now, wall - self._wall)
        self._now, self._wall = now, wall
        if gap > self._longest:
            self._longest = gap

    def longest_gap(self) -> float:
        """Seconds, since this was asked last."""
        self._look()
        longest, self._longest = self._longest, 0.0
        return longest

    def silent_seconds(self) -> float:
        """Since the polling thread's own last beat."""
        return time.monotonic() - self._beaten
