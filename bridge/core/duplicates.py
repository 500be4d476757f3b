"""Which events have been here before: by their ids, for a while.

The theory
    Producers write an event again when they are not sure that it was written. Both records have the same id, and
    whoever carries both out sends everything twice. So the ids of events that finished are remembered for a window, and
    an event whose id is among them is a *duplicate*. One whose id is that of an event still under way is a duplicate as
    well, at once: the first one's offset is open until it has its end, here or at whoever owns its partition next, so
    nothing rests on the second. It need not wait for it, and holds back nobody.

    An id is remembered with the record that had it. The same record read again (after a crash, or because somebody set
    the offset back) is no duplicate of itself.

Rules that never break
    1. Of records with one id at least one is never called a duplicate; it has finished, or its offset is open.
    2. A record is no duplicate of itself.
    3. What finished longer ago than `window_seconds` is not remembered.
    4. An event of which nothing was to be done is not remembered: its repetition ends the same way, and rules may be
       others by then.

The bounds
    `entries_max` ids of some 220 bytes, 44 MB for a topic; the oldest are forgotten before their time. Events under way
    are bounded by the partitions' windows. Within ten minutes 200,000 finished events are 333 a second: far more than a
    quota lets out, so they are events that merged, or changed nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

ENTRIES_MAX = 200_000
NAME_BYTES = 16

Place = tuple[int, int]
"""Partition and offset."""


class Finished(NamedTuple):
    wall: float
    place: Place


class FinishedIds:
    """The ids of one topic. Names are digests of whatever tells events apart."""

    def __init__(self, window_seconds: float, *, entries_max: int = ENTRIES_MAX) -> None:
        if window_seconds <= 0 or entries_max < 1:
            raise ValueError("a window, and room for one id at least")
        self._window_seconds = window_seconds
        self._entries_max = entries_max
        self._finished: OrderedDict[bytes, Finished] = OrderedDict()
        """In the order in which they finished."""
        self._open: dict[bytes, Place] = {}
        self._names: dict[Place, bytes] = {}
        """Of those under way."""

    def __len__(self) -> int:
        """Ids remembered."""
        return len(self._finished)

    def begin(self, name: bytes, place: Place, wall: float) -> bool:
        """A record with this id is read: whether it is a duplicate. If not, `end` or `drop` must follow."""
        first = self._open.get(name)
        if first is not None and first != place:
            return True
        done = self._finished.get(name)
        if done is not None and done.place != place and not self._is_past(done, wall):
            return True
        self._open[name] = place
        self._names[place] = name
        return False

    def end(self, place: Place, wall: float, *, remember: bool) -> tuple[bytes, Finished] | None:
        """A record has finished. What is remembered of it now; None where that is nothing."""
        name = self._names.pop(place, None)
        if name is None:
            return None  # a duplicate, or of a former assignment
        del self._open[name]
        if not remember:
            return None
        done = self._finished[name] = Finished(wall, place)
        self._finished.move_to_end(name)
        return name, done

    def drop(self, partition: int) -> None:
        """The partition goes: its open records are read again by whoever has it next."""
        for place in [place for place in self._names if place[0] == partition]:
            del self._open[self._names.pop(place)]

    def load(self, entries: Iterable[tuple[bytes, Finished]]) -> None:
        """What a store kept, in any order; before anything else."""
        self._finished = OrderedDict(sorted(entries, key=lambda entry: entry[1].wall))

    def old(self, wall: float) -> Iterator[bytes]:
        """Forgets what has finished too long ago, and what there is no room for; gives the names."""
        while self._finished:
            name, done = next(iter(self._finished.items()))
            if len(self._finished) <= self._entries_max and not self._is_past(done, wall):
                return
            del self._finished[name]
            yield name

    def _is_past(self, done: Finished, wall: float) -> bool:
        return abs(wall - done.wall) >= self._window_seconds  # or of the future: a clock was set back
