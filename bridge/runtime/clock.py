"""The clock of the world."""

from __future__ import annotations

import time


class SystemClock:
    """Monotonic seconds for waits, wall seconds for ages."""

    now = staticmethod(time.monotonic)
    wall = staticmethod(time.time)
