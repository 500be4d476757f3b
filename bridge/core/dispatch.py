"""Which of the items that could be sent goes next: waits, lanes, and the lowest first.

The theory
    An item arrives with the earliest moment at which it may go. Until then it rests in a heap of waits; afterwards in
    the heap of its lane. Lanes come in the order of their priority, and within a lane the item admitted first goes
    first: old work holds the frontier of its partition back, and so goes before new work whenever both could go.

    An item can change its lane while it waits. What it leaves behind in the other heap is stale, and is dropped when it
    comes up: so a change costs O(log n) like everything else.

Rules that never break
    1. Nothing goes before its moment, unless it is taken out by its number.
    2. `next` costs O(log n), never a scan of what waits.
    3. An item is handed out once for each `put`.
    4. The last lane does not starve: of `last_after` + 1 items that go while it has some, one is its.

The bound is the caller's: an item is in here at most once, and admissions are bounded by the windows. Stale entries are
bounded by the changes of lane, at most one for each lane above an item's own.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Dispatch(Generic[T]):
    """Items that wait for their moment, then for their turn. `lanes` go from most to least urgent."""

    def __init__(self, lanes: Sequence[str], *, last_after: int = 0) -> None:
        """`last_after`: so many items may go before the last lane, while it has some, until one of it goes; 0: any."""
        self._order = tuple(lanes)
        self._last_after = last_after
        self._passed = 0
        """How many went before the last lane's since one of those went."""
        self._lanes: dict[str, list[tuple[int, int, T]]] = {lane: [] for lane in lanes}
        self._ready = dict.fromkeys(lanes, 0)
        self._waits: list[tuple[float, int, int, T]] = []
        self._wait_of: dict[int, int] = {}
        """The present entry among the waits of everything whose moment has not come, by sequence."""
        self._lane_of: dict[int, str] = {}
        """The present lane of everything in here, by sequence."""
        self._entries = 0
        """Tells entries of one item apart: heaps compare no items."""
        self._due: set[int] = set()
        """Sequences whose moment has come."""

    def put(self, item: T, *, lane: str, sequence: int, not_before: float, now: float) -> None:
        """`sequence` is the item's admission number, unique among the items in here."""
        assert sequence not in self._lane_of, "an item is in here once"
        self._lane_of[sequence] = lane
        if not_before <= now:
            self._is_due(sequence, item)
        else:
            self._entries += 1
            self._wait_of[sequence] = self._entries
            heapq.heappush(self._waits, (not_before, self._entries, sequence, item))

    def hasten(self, item: T, *, sequence: int) -> None:
        """The moment of an item has come earlier than it was to."""
        if self._wait_of.pop(sequence, None) is not None:
            self._is_due(sequence, item)

    def take_out(self, sequence: int) -> bool:
        """Takes an item out that goes with another one's call, before its moment too; False where it is not in here."""
        lane = self._lane_of.pop(sequence, None)
        if lane is None:
            return False
        if self._wait_of.pop(sequence, None) is None:
            self._due.discard(sequence)
            self._ready[lane] -= 1
            if not self._ready[lane]:
                self._lanes[lane].clear()  # all stale; elsewhere they are dropped as older ones are taken
        return True

    def move(self, item: T, *, sequence: int, lane: str) -> bool:
        """Puts an item that is in here into another lane; False where it is not in here, or in that lane already."""
        old = self._lane_of.get(sequence)
        if old is None or old == lane:
            return False
        self._lane_of[sequence] = lane
        if sequence in self._due:
            self._ready[old] -= 1
            self._ready[lane] += 1
            self._push(lane, sequence, item)
        return True

    def next(self, now: float, may_go: Callable[[str], bool]) -> T | None:
        """Takes out the item to send now; `may_go(lane)` books its slot, and is asked for a lane that has an item."""
        waits = self._waits
        while waits and waits[0][0] <= now:
            _, entry, sequence, item = heapq.heappop(waits)
            if self._wait_of.get(sequence) == entry:
                del self._wait_of[sequence]
                self._is_due(sequence, item)
        last = self._order[-1]
        if self._last_after and self._passed >= self._last_after and self._ready[last] and may_go(last):
            self._passed = 0
            return self._take(last)
        for lane in self._order:
            if self._ready[lane] and may_go(lane):
                self._passed = self._passed + 1 if lane != last and self._ready[last] else 0
                return self._take(lane)
        return None

    def _is_due(self, sequence: int, item: T) -> None:
        lane = self._lane_of[sequence]
        self._due.add(sequence)
        self._ready[lane] += 1
        self._push(lane, sequence, item)

    def _push(self, lane: str, sequence: int, item: T) -> None:
        self._entries += 1
        heapq.heappush(self._lanes[lane], (sequence, self._entries, item))

    def _take(self, lane: str) -> T:
        queue = self._lanes[lane]
        while True:
            sequence, _, item = heapq.heappop(queue)
            if self._lane_of.get(sequence) == lane and sequence in self._due:
                self._ready[lane] -= 1
                del self._lane_of[sequence]
                self._due.discard(sequence)
                return item

    def next_deadline(self) -> float | None:
        """When the first wait ends; None where nothing waits for a moment."""
        waits = self._waits
        while waits and self._wait_of.get(waits[0][2]) != waits[0][1]:
            heapq.heappop(waits)  # hastened
        return waits[0][0] if waits else None

    def ready_lanes(self) -> list[str]:
        """Lanes that have an item which could go."""
        return [lane for lane in self._order if self._ready[lane]]

    @property
    def waiting(self) -> int:
        """Items whose moment has not come."""
        return len(self._wait_of)

    def not_yet(self) -> Iterator[T]:
        """The items whose moment has not come."""
        return (item for _, entry, sequence, item in self._waits if self._wait_of.get(sequence) == entry)

    def __len__(self) -> int:
        return len(self._lane_of)
