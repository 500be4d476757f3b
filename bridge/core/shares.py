"""One API key's quota, shared by all instances of a group without another service: each partition owns a part of it.

The theory
    Of the P partitions of all topics of the group, in sorted order, partition i owns `limit // P` calls of a window,
    and one more if i is below `limit % P`. These are whole numbers and their sum is the limit, so if no partition's
    calls exceed its own share in any window, all instances together never exceed the limit. An instance pools what its
    partitions own: a call may be charged to one of them in one window and to another one in the next.

    Share and spend move with the partition: what a commit carries beside the offset (core/progress.py) tells them. It
    tells calls *before* they leave: beside those that have ended it carries an `open` number, of calls under way and of
    calls that may yet be made. A call leaves only on what an acknowledged commit permits, and no commit under way takes
    back. So whenever an instance dies, the text that is read next tells of every call that it can have made.

Ages, not times
    The text tells how long before the commit each call ended, and the next owner counts as if that commit had been made
    at the very moment of the take-over. That is never too early, whatever the clocks of the two machines say. Only
    where both have learnt Meisa's time (core/skew.py) the time in between is credited, less CLOCK_SECONDS. What was
    open counts as ended at the take-over, plus the time for which an unanswered call may still be under way.
    Ages are kept by buckets on a grid that moves with the partition: a call counts as ended at its bucket's end, once,
    however often the partition changes hands. A bucket is a twelfth of the window (5 min of the hour, 5 s of the
    minute); with many keys a quarter, the whole, or no grid at all, so that the text always fits. While a partition
    stays where it is its own calls are counted exactly.

Rules that never break
    1. In no window do more calls count in a cell (one window of one key in one partition) than its share; what was
       inherited may, and then nothing is charged to it.
    2. charged ≤ the least that any commit permits that may be the last one applied.
    3. What cannot be read counts as used up (`Before`).

The bounds
    SPEND_BYTES for all keys. Ahead of its calls an instance tells AHEAD_SHARE of what it owns: a crash costs at most
    twice as much. A cell remembers at most `share` ends, rounded up where that is above EXACT_MAX (core/quota.py).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import NamedTuple

from bridge.core.quota import EXACT_MAX, NEVER, Quota, Slot
from bridge.model import Kind, TopicPartition

AHEAD_SHARE = 0.02
AHEAD_MIN = 3
"""Calls told ahead at least, where the share has so many: fewer would make most calls wait for a commit (8 ms)."""
CLOCK_SECONDS = 30.0
"""By how much two instances together may be wrong about Meisa's time (core/skew.py: 2 s and a slow answer, each)."""
DIVISIONS = (12, 4, 1, 0)
"""Into how many buckets a window is divided, finest first; 0: everything counts as open."""
TOLD_BYTES = 145
"""Of progress.SPEND_BYTES; the rest is for the section's head and an assignment id."""
KEYS = ("default", *Kind)
"""A key is told by its place in this list: never change the order."""
_UNITS = 3600
"""Into which the place of a commit on its grid is rounded (down, which is the safe side)."""
_WALL_BYTES = 4
_EVEN_MAX = 1_000
"""Into how many moments unknown spend is divided at most."""


class Before(Enum):
    """What is known of a partition's spend where no commit tells it."""

    NOBODY = "nobody"
    """The group has no offset there: no instance was ever permitted a call of it."""
    UNKNOWN = "unknown"
    """An offset without our text: another tool has set it while no member lived, or an older version. Counts as if the
    limits had been used evenly, as a bridge with work does: urgent calls go on at that pace, at once; where there is a
    reserve all others wait until as much of the window has passed."""
    UNREADABLE = "unreadable"
    """Our text, damaged or of a newer version: counts as used up to the last moment."""


class Told(NamedTuple):
    """What a commit told of a partition's spend."""

    wall: int
    """Meisa's time of the commit in seconds; 0 where it was not known."""
    divisions: int
    phases: tuple[int, ...]
    """Of each window: how far into its grid the commit was made, in _UNITS of the window."""
    keys: Mapping[str, tuple[tuple[int, tuple[int, ...]], ...]]
    """Of each key, of each window: the open calls, and the ended ones by bucket, the youngest first."""


def share_of(limit: int, index: int, count: int) -> int:
    """What the partition at `index` of `count` owns of a limit; nothing where the count is not known."""
    return limit // count + (index < limit % count) if 0 <= index < count else 0


class Cell:
    """One window of one key in one partition."""

    __slots__ = (
        "_acknowledged",
        "_asked",
        "_counts",
        "_ends",
        "_past",
        "_step",
        "ahead",
        "in_flight",
        "issued",
        "seconds",
        "share",
        "whole",
    )

    def __init__(self, whole: int, seconds: float) -> None:
        self.whole = whole
        self.seconds = seconds
        self.share = 0
        self._step = seconds / EXACT_MAX if whole > EXACT_MAX else 0.0
        self._ends: list[float] = []  # a heap
        self._counts: dict[float, int] = {}
        self._past = 0
        self.in_flight = 0
        self.issued = 0
        """Calls charged in all, under this owner."""
        self.ahead = 0
        """Calls that the next commit is to permit beyond these."""
        self._acknowledged = 0
        self._asked: int | None = None

    def used(self, now: float) -> int:
        ends, counts = self._ends, self._counts
        while ends and ends[0] + self.seconds <= now:
            self._past -= counts.pop(heapq.heappop(ends))
        return self._past + self.in_flight

    def room(self, now: float) -> int:
        return max(0, self.share - self.used(now))

    @property
    def permitted(self) -> int:
        """Calls that may still leave on what was told."""
        told = self._acknowledged if self._asked is None else min(self._acknowledged, self._asked)
        return told - self.issued

    @property
    def promised(self) -> int:
        """The same once the commit under way is acknowledged."""
        return (self._acknowledged if self._asked is None else self._asked) - self.issued

    @property
    def cover(self) -> int:
        return self.issued + self.ahead

    def book(self) -> None:
        self.issued += 1
        self.in_flight += 1

    def unbook(self) -> None:
        self.issued -= 1
        self.in_flight -= 1

    def end(self, at: float) -> None:
        self.in_flight -= 1
        assert self.in_flight >= 0, "ended without having been charged"
        self.remember(at, 1)

    def remember(self, at: float, count: int) -> None:
        if count <= 0:
            return
        if self._step:
            at = math.ceil(at / self._step) * self._step
        if at in self._counts:
            self._counts[at] += count
        else:
            self._counts[at] = count
            heapq.heappush(self._ends, at)
        self._past += count

    def entries(self) -> list[tuple[float, int]]:
        """Ends and how many calls ended then, oldest first."""
        return sorted(self._counts.items())

    def counting(self) -> Iterator[tuple[float, int]]:
        """The same, but no more calls than the share: what others left too much must not stop the cells beside it."""
        left = self.share
        for at, count in reversed(self.entries()):
            if left > 0:
                yield at, min(count, left)
            left -= count

    def shift(self, seconds: float, until: float) -> None:
        """What ended up to `until` ended so much earlier."""
        entries, self._ends, self._counts, self._past = self.entries(), [], {}, 0
        for at, count in entries:
            self.remember(at - seconds if at <= until else at, count)

    def next_room(self) -> float:
        """When the oldest call leaves the window; NEVER where none has ended."""
        return self._ends[0] + self.seconds if self._ends else NEVER

    # Commits

    def asked(self, cover: int) -> None:
        if self._asked is not None:
            self._acknowledged = min(self._acknowledged, self._asked)  # nobody will tell what became of that one
        self._asked = cover

    def settled(self, *, acknowledged: bool) -> None:
        """A commit that was not acknowledged may have been applied all the same."""
        assert self._asked is not None
        self._acknowledged = self._asked if acknowledged else min(self._acknowledged, self._asked)
        self._asked = None


class Books:
    """The spend of one partition during one assignment: all keys, all windows."""

    def __init__(self, limits: Sequence[tuple[int, float]], keys: Iterable[str], now: float) -> None:
        self.cells = {key: tuple(Cell(limit, seconds) for limit, seconds in limits) for key in keys}
        self._seconds = [seconds for _, seconds in limits]
        self._anchors = [now for _ in limits]
        """A moment at which a bucket of each size begins."""
        self._inherited: tuple[float, int] | None = None
        """When the partition was taken over (`now`) and the wall seconds of the commit, until that is credited."""
        self._requested: str | None = None
        self.tellable = True
        """Whether there is an offset beside which it can be told."""

    def resize(self, index: int, count: int) -> None:
        """The partition is at `index` of so many. Where a topic grew the shares of all others shrink."""
        for cells in self.cells.values():
            for cell in cells:
                cell.share = share_of(cell.whole, index, count)

    # What a former owner left

    def restore(self, told: Told | Before, now: float, unanswered_seconds: float) -> None:
        """Takes over what the commit told that is read at `now`."""
        if isinstance(told, Told):
            self._restore(told, now, unanswered_seconds)
        elif told is not Before.NOBODY:
            for cells in self.cells.values():
                for cell in cells:
                    if told is Before.UNREADABLE:
                        cell.remember(now + unanswered_seconds, cell.whole)
                        continue
                    count = min(cell.share or cell.whole, _EVEN_MAX)
                    size = -(-(cell.share or cell.whole) // count)
                    for number in range(count):
                        cell.remember(now - cell.seconds * number / count, size)

    def inherit(self, former: Books, now: float, unanswered_seconds: float) -> None:
        """Takes over what this instance itself knows of an earlier assignment, where no commit does."""
        self._anchors = list(former._anchors)
        for key, cells in self.cells.items():
            for cell, other in zip(cells, former.cells[key], strict=True):
                for at, count in other.entries():
                    cell.remember(at, count)
                cell.remember(now + unanswered_seconds, other.in_flight)

    def _restore(self, told: Told, now: float, unanswered_seconds: float) -> None:
        self._inherited = (now, told.wall) if told.wall else None
        self._anchors = [
            now - phase * seconds / _UNITS for phase, seconds in zip(told.phases, self._seconds, strict=True)
        ]
        for key, cells in self.cells.items():
            for place, (cell, (still_open, counts)) in enumerate(zip(cells, told.keys.get(key, ()), strict=False)):
                cell.remember(now + unanswered_seconds, still_open)
                for back, count in enumerate(counts):
                    size = cell.seconds / told.divisions
                    present = told.phases[place] // (_UNITS // told.divisions)
                    cell.remember(min(now, self._anchors[place] + (present - back + 1) * size), count)

    def credit(self, now: float, wall: float) -> bool:
        """Meisa's time is known: counts the time between the commit and the take-over; True if that changed anything.

        What was open counts on: nobody knows when a crash was.
        """
        if self._inherited is None:
            return False
        since, told_wall = self._inherited
        self._inherited = None
        seconds = wall - (now - since) - told_wall - CLOCK_SECONDS
        if seconds <= 0:
            return False
        self._anchors = [anchor - seconds for anchor in self._anchors]
        for cells in self.cells.values():
            for cell in cells:
                # Own calls ended later than `since`, and so did what was open.
                cell.shift(seconds, since)
        return True

    # Commits

    def tell(self, now: float, wall: int) -> bytes:
        """What a commit made now must tell; at most TOLD_BYTES."""
        told = (self._tell(now, wall, divisions) for divisions in DIVISIONS)
        return next(each for each in told if len(each) <= TOLD_BYTES)

    def _tell(self, now: float, wall: int, divisions: int) -> bytes:
        phases = [
            min(_UNITS - 1, int((now - anchor) % seconds / seconds * _UNITS))
            for anchor, seconds in zip(self._anchors, self._seconds, strict=True)
        ]
        told = bytearray([divisions | len(phases) << 4])
        told += max(0, wall).to_bytes(_WALL_BYTES, "big")
        for phase in phases:
            _put(told, phase if divisions else 0)
        for key, cells in self.cells.items():
            told.append(KEYS.index(key))
            for cell, phase in zip(cells, phases, strict=True):
                still_open, counts = self._sorted(cell, now, phase, divisions)
                _put(told, min(still_open, cell.whole))
                _put(told, len(counts))
                for count in counts:
                    _put(told, min(count, cell.whole))
        return bytes(told)

    @staticmethod
    def _sorted(cell: Cell, now: float, phase: int, divisions: int) -> tuple[int, list[int]]:
        still_open = cell.in_flight + cell.ahead
        counts = [0] * (divisions + 1 if divisions else 0)
        cell.used(now)
        if not divisions:
            return still_open + sum(count for _, count in cell.entries()), counts
        size = cell.seconds / divisions
        # Of the bucket that goes on: it began at this place of the grid.
        begun = now - (phase % (_UNITS // divisions)) * cell.seconds / _UNITS
        for at, count in cell.entries():
            if at > now:
                still_open += count  # unanswered, or inherited as open
                continue
            # A bucket has its end, but not its beginning. A hair more: what stands on the grid must not, by a rounding
            # error, get into the bucket after it, again with each change of hands.
            back = math.floor((begun - at) / size + 1e-9) + 1
            counts[min(max(0, back), divisions)] += count
        while counts and not counts[-1]:
            counts.pop()
        return still_open, counts

    def asked(self, metadata: str) -> None:
        """The commit with this text is under way; it carries what `tell` gave last."""
        self._requested = metadata
        for cells in self.cells.values():
            for cell in cells:
                cell.asked(cell.cover)

    def settled(self, metadata: str, *, acknowledged: bool) -> None:
        if metadata != self._requested:
            return
        self._requested = None
        for cells in self.cells.values():
            for cell in cells:
                cell.settled(acknowledged=acknowledged)

    def close(self) -> None:
        """The partition goes: nothing is told ahead any more."""
        for cells in self.cells.values():
            for cell in cells:
                cell.ahead = 0


def read(text: bytes, windows: int) -> Told | None:
    """What `Books.tell` wrote; None for anything else."""
    try:
        return _read(text, windows)
    except (IndexError, ValueError):
        return None


def _read(text: bytes, windows: int) -> Told | None:
    numbers = _Numbers(text)
    head = numbers.byte()
    divisions = head & 0x0F
    if head >> 4 != windows or divisions not in DIVISIONS:
        return None
    wall = int.from_bytes(bytes(numbers.byte() for _ in range(_WALL_BYTES)), "big")
    phases = tuple(numbers.number(_UNITS - 1) for _ in range(windows))
    keys = {}
    while numbers.left:
        key = KEYS[numbers.byte()]
        cells = []
        for _ in range(windows):
            still_open = numbers.number()
            cells.append((still_open, tuple(numbers.number() for _ in range(numbers.number(divisions + 1)))))
        keys[str(key)] = tuple(cells)
    return Told(wall, divisions, phases, keys)


class _Numbers:
    def __init__(self, text: bytes) -> None:
        self._text = text
        self._place = 0

    @property
    def left(self) -> int:
        return len(self._text) - self._place

    def byte(self) -> int:
        self._place += 1
        return self._text[self._place - 1]

    def number(self, most: int = 1 << 62) -> int:
        number = shift = 0
        while True:
            byte = self.byte()
            number |= (byte & 0x7F) << shift
            shift += 7
            if number > most:
                raise ValueError("larger than any that was told")
            if byte < 0x80:
                return number


def _put(target: bytearray, number: int) -> None:
    """A varint: seven bits a byte, the lowest first."""
    while number > 0x7F:
        target.append(number & 0x7F | 0x80)
        number >>= 7
    target.append(number)


class Charged(Slot):
    """The cells that a booked call takes from, one of each window."""

    __slots__ = ("cells", "partitions")

    def __init__(self, cells: Sequence[Cell], partitions: Sequence[TopicPartition]) -> None:
        self.cells = tuple(cells)
        self.partitions = tuple(partitions)


class Shares(Quota):
    """The quota of one API key as far as it is this instance's: the sum of what its partitions own."""

    def __init__(
        self, limits: Sequence[tuple[int, float]], *, reserve: float = 0.0, unanswered_seconds: float = 60.0
    ) -> None:
        super().__init__(limits, reserve=reserve, unanswered_seconds=unanswered_seconds)
        self._cells: dict[TopicPartition, tuple[Cell, ...]] = {}
        self._tellable: Mapping[TopicPartition, Books] = {}
        self._seconds = [seconds for _, seconds in limits]
        self.resize([0] * len(limits))

    def rebuild(self, now: float, books: Mapping[TopicPartition, Books], key: str) -> None:
        """These partitions are owned from now on, with the shares and the spend that their books have."""
        self._tellable = dict(sorted(books.items()))
        self._cells = {name: each.cells[key] for name, each in self._tellable.items()}
        columns = list(zip(*self._cells.values(), strict=True)) or [() for _ in self._seconds]
        self.reshare(
            [sum(cell.share for cell in column) for column in columns],
            [[entry for cell in column for entry in cell.counting()] for column in columns],
        )

    # Calls

    def acquire(self, now: float, *, urgent: bool = False) -> bool:
        """As in Quota; also False where no acknowledged commit permits a call: then `untold` says so."""
        places = [self._place(now, number) for number in range(len(self._seconds))]
        found = [place for place in places if place is not None]
        if len(found) < len(places):
            self.untold = self.untold or self.has_room(now)
            return False
        if not super().acquire(now, urgent=urgent):
            return False
        for _, cell in found:
            cell.book()
        self.slot = Charged([cell for _, cell in found], [name for name, _ in found])
        return True

    def _place(self, now: float, number: int) -> tuple[TopicPartition, Cell] | None:
        """The first cell that may be charged: always in the same order, so that few commits tell of all calls."""
        for name, cells in self._cells.items():
            cell = cells[number]
            if cell.permitted > 0 and cell.used(now) < cell.share:
                return name, cell
        return None

    def leaves(self, slot: Slot) -> bool:
        """Whether a call booked earlier may leave now: not where a cell that it takes from has another owner."""
        assert isinstance(slot, Charged)
        return all(
            self._cells.get(name, ())[number : number + 1] == (cell,)
            for number, (name, cell) in enumerate(zip(slot.partitions, slot.cells, strict=True))
        )

    def unsent(self, *, urgent: bool = False, slot: Slot | None = None) -> None:
        assert isinstance(slot, Charged)
        super().unsent(urgent=urgent)
        for cell in slot.cells:
            cell.unbook()

    def _ended(self, at: float, slot: Slot | None) -> None:
        assert isinstance(slot, Charged)
        super()._ended(at, slot)
        for cell in slot.cells:
            cell.end(at)

    def earliest(self, now: float, *, urgent: bool = False) -> float:
        """As in Quota; NEVER where only a commit is missing, whose acknowledgement wakes whoever waits."""
        at = super().earliest(now, urgent=urgent)
        if at <= now and any(self._place(now, number) is None for number in range(len(self._seconds))):
            self.untold = True
            return NEVER
        return at

    # What is told ahead

    def plan(self, now: float) -> set[TopicPartition]:
        """Decides what the next commits are to permit; returns the partitions that need one for that."""
        due: set[TopicPartition] = set()
        for number in range(len(self._seconds)):
            cells = [
                (name, cells[number])
                for name, cells in self._cells.items()
                if self._tellable[name].tellable and cells[number].share
            ]
            limit = sum(cell.share for _, cell in cells)
            left = min(limit, max(AHEAD_MIN, math.ceil(limit * AHEAD_SHARE)))
            for cells_of in self._cells.values():
                cells_of[number].ahead = 0
            short = False
            for _, cell in sorted(cells, key=lambda each: (each[1].room(now) == 0, each[1].next_room())):
                # A full cell's next room is used by whoever comes then: permitted beforehand, it need not wait.
                cell.ahead = min(left, cell.room(now) or cell.share)
                left -= cell.ahead
                short = short or cell.promised < (cell.ahead + 1) // 2
                if not left:
                    break
            if short:
                due.update(name for name, cell in cells if cell.promised != cell.ahead)
        return due
