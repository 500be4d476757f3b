"""Whether too many of a topic's events become dead letters: a wrong deployment must not drain a topic into them.

The theory
    Of the last `of` events that finished, at most `share` may be dead letters. Beyond it the topic *stops*: nothing
    more of it is dead-lettered or taken in until somebody has looked. `expired` and `unknown_contact` do not count:
    they say something of time and of other systems, not of the rules.

Rules that never break
    1. Below `of` events the share is taken of `of` all the same: the first bad event of a topic stops nothing.
    2. Once stopped it stays so until `resume`, which forgets the past: the next decision rests on new events.

The bound: one bit for each of the last `of` events.
"""

from __future__ import annotations

from collections import deque


class LetterCap:
    """The cap of one topic."""

    def __init__(self, share: float, of: int) -> None:
        if not 0 < share <= 1 or of < 1:
            raise ValueError("a share above 0 and at most 1, of at least one event")
        self._limit = max(1, round(share * of))
        self._last: deque[bool] = deque(maxlen=of)
        self._dead = 0
        self.stopped = False

    @property
    def dead(self) -> int:
        """Dead letters among the last events."""
        return self._dead

    def finished(self, *, dead_lettered: bool) -> bool:
        """Books an event; True if it is this one that stops the topic."""
        last = self._last
        if len(last) == last.maxlen and last[0]:
            self._dead -= 1
        last.append(dead_lettered)
        self._dead += dead_lettered
        if self._dead >= self._limit and not self.stopped:
            self.stopped = True
            return True
        return False

    def resume(self) -> None:
        self._last.clear()
        self._dead = 0
        self.stopped = False
