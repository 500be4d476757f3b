"""The quota of one key: a minute window and an hour window, by one of three algorithms.

Meisa documents two limits and no algorithm, so all three that servers use can be chosen (assumed):

- `sliding`: in no 60 s (3,600 s) more calls than the limit; an exact log, the strictest.
- `fixed`: the counter returns to zero at each full minute (hour) of the clock.
- `token_bucket`: `limit` tokens at first, refilled evenly; up to twice the limit passes in the first window. With
  `burst` the minute's bucket holds fewer: so many calls at once, and as many in the long run.

A call is admitted only if both windows have room, and then counts in both. A refused call counts in neither, unless
`count_refused` (then it counts in both, as on some servers, and hammering keeps the key shut). A limit of 0 is none.
Time comes in as `now`, wall seconds that never go back.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Protocol

ALGORITHMS = ("sliding", "fixed", "token_bucket")


class Window(Protocol):
    limit: int
    seconds: float

    def wait(self, now: float) -> float:
        """Seconds until a call has room; 0 when it has."""

    def take(self, now: float) -> None:
        """Counts one call."""

    def used(self, now: float) -> int:
        """How much of the limit is used up."""


class SlidingWindow:
    """The times of the newest `limit` calls: there is room when the oldest of them has left the window."""

    def __init__(self, limit: int, seconds: float) -> None:
        self.limit = limit
        self.seconds = seconds
        self._times: deque[float] = deque(maxlen=limit)

    def wait(self, now: float) -> float:
        if len(self._times) < self.limit:
            return 0.0
        return max(0.0, self._times[0] + self.seconds - now)

    def take(self, now: float) -> None:
        self._times.append(now)

    def used(self, now: float) -> int:
        return sum(1 for time in self._times if time + self.seconds > now)


class FixedWindow:
    def __init__(self, limit: int, seconds: float) -> None:
        self.limit = limit
        self.seconds = seconds
        self._window = -1
        self._count = 0

    def wait(self, now: float) -> float:
        if self.used(now) < self.limit:
            return 0.0
        return (int(now // self.seconds) + 1) * self.seconds - now

    def take(self, now: float) -> None:
        self._count = self.used(now) + 1
        self._window = int(now // self.seconds)

    def used(self, now: float) -> int:
        return self._count if self._window == int(now // self.seconds) else 0


class TokenBucket:
    def __init__(self, limit: int, seconds: float, size: int = 0) -> None:
        """`size`: tokens that it holds; 0: as many as the limit."""
        self.limit = limit
        self.seconds = seconds
        self._size = min(size, limit) or limit
        self._tokens = float(self._size)
        self._at: float | None = None

    def _level(self, now: float) -> float:
        if self._at is None:
            return self._tokens
        return min(float(self._size), self._tokens + (now - self._at) * self.limit / self.seconds)

    def wait(self, now: float) -> float:
        missing = 1.0 - self._level(now)
        # The tolerance: a caller that waits exactly as told must not miss by a rounding error.
        return missing * self.seconds / self.limit if missing > 1e-6 else 0.0

    def take(self, now: float) -> None:
        self._tokens = max(0.0, self._level(now) - 1.0)
        self._at = now

    def used(self, now: float) -> int:
        return self._size - int(self._level(now) + 1e-6)


def window(algorithm: str, limit: int, seconds: float, burst: int = 0) -> Window:
    """Raises ValueError for an unknown algorithm."""
    if algorithm == "sliding":
        return SlidingWindow(limit, seconds)
    if algorithm == "fixed":
        return FixedWindow(limit, seconds)
    if algorithm == "token_bucket":
        return TokenBucket(limit, seconds, burst)
    raise ValueError(f"{algorithm!r} is no quota algorithm; choose one of {', '.join(ALGORITHMS)}")


class Quota:
    """Both windows of one key."""

    def __init__(
        self,
        per_minute: int = 60,
        per_hour: int = 1000,
        algorithm: str = "sliding",
        *,
        count_refused: bool = False,
        burst: int = 0,
    ) -> None:
        if per_minute < 0 or per_hour < 0 or burst < 0:
            raise ValueError("a quota, and its burst, is 0 (none) or more")
        if burst and algorithm != "token_bucket":
            raise ValueError(f"only a token_bucket has a burst; {algorithm} has none")
        self.per_minute = per_minute
        self.per_hour = per_hour
        self.algorithm = algorithm
        self.count_refused = count_refused
        self.burst = burst
        self._windows: list[tuple[str, Window]] = []
        for name, limit, seconds in (("minute", per_minute, 60.0), ("hour", per_hour, 3600.0)):
            checked = window(algorithm, max(1, limit), seconds, burst if name == "minute" else 0)
            if limit:
                self._windows.append((name, checked))

    def admit(self, now: float) -> tuple[float, str]:
        """Counts a call and returns (0, ""), or refuses it: (seconds until there is room, the window that is full)."""
        wait_seconds, full = 0.0, ""
        for name, held in self._windows:
            seconds = held.wait(now)
            if seconds > wait_seconds:
                wait_seconds, full = seconds, name
        if not full or self.count_refused:
            for _, held in self._windows:
                held.take(now)
        return wait_seconds, full

    def snapshot(self, now: float) -> dict[str, Any]:
        used = {name: held.used(now) for name, held in self._windows}
        return {
            "algorithm": self.algorithm,
            "count_refused": self.count_refused,
            "burst": self.burst,
            "minute": {"limit": self.per_minute, "used": used.get("minute", 0)},
            "hour": {"limit": self.per_hour, "used": used.get("hour", 0)},
        }
