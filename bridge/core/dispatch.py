"""Which of the items that could be sent goes next: waits, lanes, and the lowest first.

The theory
    An item arrives with the earliest moment at which it may go. Until then it rests in a heap of waits; afterwards in
    the heap of its lane. Lanes come in the order of their priority, and within a lane the item admitted first goes
    first: old work holds the frontier of its partition back, and so goes before new work whenever both could go.

Rules that never break
    1. Nothing goes before its moment.
    2. `next` costs O(log n), never a scan of what waits.

The bound is the caller's: an item is in here at most once, and admissions are bounded by the windows.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Dispatch(Generic[T]):
    """Items that wait for their moment, then for their turn. `lanes` go from most to least urgent."""

    def __init__(self, lanes: Sequence[str]) -> None:
        self._order = tuple(lanes)
        self._lanes: dict[str, list[tuple[int, T]]] = {lane: [] for lane in lanes}
        self._waits: list[tuple[float, int, str, T]] = []

    def put(self, item: T, *, lane: str, sequence: int, not_before: float, now: float) -> None:
        """`sequence` is the item's admission number, unique among the items in here."""
        if not_before <= now:
            heapq.heappush(self._lanes[lane], (sequence, item))
        else:
            heapq.heappush(self._waits, (not_before, sequence, lane, item))

    def next(self, now: float, may_go: Callable[[str], bool]) -> T | None:
        """Takes out the item to send now; `may_go(lane)` books its slot, and is asked for a lane that has an item."""
        waits = self._waits
        while waits and waits[0][0] <= now:
            _, sequence, lane, item = heapq.heappop(waits)
            heapq.heappush(self._lanes[lane], (sequence, item))
        for lane in self._order:
            queue = self._lanes[lane]
            if queue and may_go(lane):
                return heapq.heappop(queue)[1]
        return None

    def next_deadline(self) -> float | None:
        """When the first wait ends; None where nothing waits for a moment."""
        return self._waits[0][0] if self._waits else None

    def ready_lanes(self) -> list[str]:
        """Lanes that have an item which could go."""
        return [lane for lane in self._order if self._lanes[lane]]

    @property
    def waiting(self) -> int:
        """Items whose moment has not come."""
        return len(self._waits)

    def __len__(self) -> int:
        return len(self._waits) + sum(len(queue) for queue in self._lanes.values())
