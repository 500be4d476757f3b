"""Which offsets of one partition are finished, and what may be committed.

The theory
    A partition is read in offset order, but its records finish in any order. The *frontier* is the lowest offset that
    was taken and has not finished; where everything taken has finished, it is the offset after the last taken one. Only
    the frontier may ever be committed: a group that starts there reads again everything that may not have been done.

Rules that never break
    1. The frontier never moves backwards and never passes a taken, unfinished offset [parallel-consumer#826].
    2. Offsets have gaps (compaction, aborted transactions, control markers): what was never taken between two taken
       offsets counts as finished [parallel-consumer#329].
    3. A commit that was asked for does not count; only an acknowledged one does.
    4. An offset finishes once. A second finish says so and changes nothing.
    5. What was finished beyond the frontier before a restart is told to `restore`, and is not taken again; it stays
       in `finished_bitmap` until the frontier has passed it, so a second restart knows it too.
    6. Whatever is taken in, claimed and marked fits into the text beside a commit, in the worst case (progress.py).
    7. The event at the frontier always finds room for what it needs, so something can always go on.

The bounds
    `window_max` offsets may lie between the frontier and the next offset to take: it bounds memory, and what a crash
    repeats. `room_bytes` of the text are shared by the bitmap, in its worst case, and by the places of delivered
    actions: a place is *claimed* before an action leaves whose event has others that have not ended, and released when
    the event finishes. So half-done events narrow the window, and a full window lets no further event become half
    done; but neither lets anything be forgotten. The frontier's event has room of its own for PLACES_EXTRA actions.
    Those beyond it (an event of a dozen actions) share the room with all others, and where that is full too they are
    let go without a place: told in what room the real text leaves, which is nearly always enough because no real
    bitmap is the worst case, and repeated after a restart where it is not. Triggers are not concerned: each needs a
    mark.
"""

from __future__ import annotations

from collections import deque

from bridge.core.arrivals import Arrivals
from bridge.core.progress import (
    DELIVERED,
    PLACES_EXTRA_BYTES,
    STARTED_BYTES,
    STARTED_EXTRA,
    Progress,
    finished_offsets,
    place_bytes,
    room_limit,
    started_limit,
)

ROOM_BYTES = room_limit(4096)
STARTED_MAX = started_limit(4096)
WALL_MAX = 2**32 - 1
CROWDED_SHARE = 0.75
"""Of the window, and of what its progress can tell: beyond it the lowest offset goes before all others."""


class PartitionOffsets:
    """Offsets of one partition during one assignment."""

    __slots__ = (
        "_acknowledged",
        "_base",
        "_bitmap",
        "_changes",
        "_claimed",
        "_claimed_bytes",
        "_far",
        "_finished",
        "_next",
        "_open",
        "_requested",
        "_restored",
        "_seen_told",
        "_start_changes",
        "_told",
        "arrivals",
        "delivered",
        "room_bytes",
        "started",
        "started_max",
        "unsure_below",
        "window_max",
    )

    def __init__(
        self,
        *,
        start: int | None = None,
        window_max: int = 20_000,
        room_bytes: int = ROOM_BYTES,
        started_max: int = STARTED_MAX,
    ) -> None:
        """`start` is the committed offset, or None where the group has none: then the first taken one begins."""
        if window_max < 1:
            raise ValueError("a window holds at least one offset")
        self.window_max = window_max
        self.room_bytes = room_bytes
        self.started_max = started_max
        self.arrivals = Arrivals()
        self.unsure_below = 0
        """Below it a trigger may have been sent by a former owner whose progress could not be read."""
        self._next = start
        self._open: deque[int] = deque()  # taken, ascending; its head is unfinished
        self._finished: set[int] = set()  # finished, but behind an unfinished one
        self._restored: set[int] = set()  # finished before a restart, not passed yet
        # The same knowledge as _finished and _restored, one bit per offset from _base (a multiple of eight) on, kept
        # up to date so that a commit costs a copy and not a walk.
        self._base = (start or 0) & ~7
        self._bitmap = bytearray()
        self._far = -1  # the highest offset that was finished before a restart
        self.delivered: dict[int, set[int]] = {}
        """Digests of the delivered actions of unfinished events, by offset."""
        self._claimed: dict[int, set[int]] = {}  # offset → digests that have a place, delivered or not
        self._claimed_bytes = 0
        self.started: dict[int, dict[int, int]] = {}
        """Started triggers of unfinished events: offset → digest → wall seconds of the first start."""
        self._start_changes: dict[tuple[int, int], int] = {}  # which change told a start; absent: an earlier owner's
        self._changes = 0  # grows with whatever a commit would tell: the frontier, or work beyond it
        self._told = 0
        self._acknowledged = start
        self._seen_told = start or 0
        self._requested: tuple[tuple[int, str], int, int] | None = None  # what, which change, how far intake was

    def note_start(self) -> None:
        """The start was chosen, not committed: a crash before the first commit must not choose again (`latest`)."""
        self._changes += 1

    def restore(self, progress: Progress) -> None:
        """Takes over what an earlier owner told beyond the committed offset, before anything is taken.

        All of it, though the owner may have had a larger limit: `fits` then lets nothing in until this has shrunk.
        """
        start = self._next
        assert start is not None and not self._open, "restored too late"
        self._restored = {offset for offset in finished_offsets(progress) if offset >= start}
        self._base = start & ~7
        for offset in self._restored:
            self._mark(offset)
        self._far = max(self._restored, default=-1)
        for offset, digests in progress.delivered.items():
            if self._lies_ahead(offset):
                self.delivered[offset] = set(digests)
                self._set_claims(offset, set(digests))
        self.started = {
            offset: dict(triggers) for offset, triggers in progress.started.items() if self._lies_ahead(offset)
        }
        if progress.seen is not None:
            self.arrivals = Arrivals(progress.seen, float(progress.since_wall))
            self._seen_told = max(start, progress.seen)
        if progress.unsure_below is not None:
            self.unsure_below = progress.unsure_below

    def _lies_ahead(self, offset: int) -> bool:
        return self._next is not None and offset >= self._next and offset not in self._restored

    def note_started(self, offset: int, digest: int, wall_seconds: int) -> None:
        """A trigger is about to leave for the first time; it may once `start_told` says so.

        The time of a trigger that has started before stays: that is what its age counts from.
        """
        triggers = self.started.setdefault(offset, {})
        if digest not in triggers:
            triggers[digest] = min(max(wall_seconds, 1), WALL_MAX)
            self._changes += 1
            self._start_changes[offset, digest] = self._changes

    def note_trigger_delivered(self, offset: int, digest: int) -> None:
        """A trigger of an event that has not finished yet was delivered: its place stays until the event has."""
        if self.started.get(offset, {}).get(digest) == DELIVERED:
            return
        self.started.setdefault(offset, {})[digest] = DELIVERED
        self._start_changes.pop((offset, digest), None)
        self._changes += 1

    def start_told(self, offset: int, digest: int) -> bool:
        """Whether an acknowledged commit has told that the trigger has started."""
        return digest in self.started.get(offset, ()) and self._start_changes.get((offset, digest), 0) <= self._told

    def clear_started(self, offset: int, digest: int) -> None:
        """The trigger is known not to have been sent, or its action has ended."""
        triggers = self.started.get(offset)
        if triggers is not None and triggers.pop(digest, None) is not None:
            self._changes += 1
            self._start_changes.pop((offset, digest), None)
            if not triggers:
                del self.started[offset]

    def drop_untold_starts(self) -> None:
        """The partition goes: what no commit has told has not left, and the last commit must not tell it either."""
        untold = [name for name, change in self._start_changes.items() if change > self._told]
        for offset, digest in untold:
            self.clear_started(offset, digest)

    @property
    def started_count(self) -> int:
        return sum(map(len, self.started.values()))

    def was_delivered(self, offset: int, digest: int) -> bool:
        """Whether the action was delivered, here or by an earlier owner."""
        return digest in self.delivered.get(offset, ()) or self.started.get(offset, {}).get(digest) == DELIVERED

    def note_delivered(self, offset: int, digest: int) -> None:
        """An action of an event that has not finished yet was delivered; without a place if there is no room for one.

        Without a claim come the actions of events that could have finished at once, but for a letter.
        """
        done = self.delivered.setdefault(offset, set())
        if digest not in done:
            done.add(digest)
            self._place(offset, digest)
            self._changes += 1

    # Room (the module's text, "The bounds")

    def place_fits(self, offset: int) -> bool:
        """Whether there is room for the mark of one more trigger of this event."""
        count = self.started_count
        if count < self.started_max:
            return True
        if offset != self.frontier:
            return False
        return count < self.started_max + STARTED_EXTRA or self._used(self._next) + STARTED_BYTES <= self.room_bytes

    def claim(self, offset: int, digest: int) -> bool:
        """Keeps a place for an action of an unfinished event; False where there is no room now."""
        if digest in self.delivered.get(offset, ()) or not self.is_open(offset):
            return True
        return self._place(offset, digest) or offset == self.frontier

    def unclaim(self, offset: int, digest: int) -> None:
        """The action will not be told as delivered."""
        claimed = self._claimed.get(offset)
        if claimed is not None and digest in claimed and digest not in self.delivered.get(offset, ()):
            self._set_claims(offset, claimed - {digest})

    @property
    def claims_free(self) -> int:
        """How many further events could claim a place for one action."""
        return max(0, self.room_bytes - self._used(self._next)) // place_bytes(1)

    @property
    def room_used(self) -> float:
        """The share of the room that is taken, in the worst case."""
        return self._used(self._next) / self.room_bytes

    def _place(self, offset: int, digest: int) -> bool:
        claimed = self._claimed.get(offset, set())
        if digest in claimed:
            return True
        self._set_claims(offset, claimed | {digest})
        if self._used(self._next) <= self.room_bytes:
            return True
        self._set_claims(offset, claimed)
        return False

    def _set_claims(self, offset: int, digests: set[int]) -> None:
        self._claimed_bytes += place_bytes(len(digests)) - place_bytes(len(self._claimed.get(offset, ())))
        if digests:
            self._claimed[offset] = digests
        else:
            self._claimed.pop(offset, None)

    def _used(self, next_offset: int | None) -> int:
        """Bytes of the room that are taken in the worst case, if `next_offset` were the next one to take."""
        frontier = self.frontier
        if frontier is None or next_offset is None:
            return 0
        far = max(next_offset - 1, self._far)
        used = (far >> 3) - (frontier >> 3) + 1 if far >= frontier else 0
        if self._claimed:
            own = place_bytes(len(self._claimed.get(frontier, ())))
            used += self._claimed_bytes - min(own, PLACES_EXTRA_BYTES)
        if self.started:
            used += max(0, self.started_count - self.started_max - STARTED_EXTRA) * STARTED_BYTES
        return used

    # What a commit tells

    def progress(self, topic: int | None = None) -> tuple[Progress, dict[int, set[int]]]:
        """All that is to be told beside the frontier, and the delivered actions without a place."""
        frontier = self.frontier
        assert frontier is not None
        self._forget_passed(frontier)
        base, bitmap = self.finished_bitmap()
        placed: dict[int, set[int]] = {}
        unclaimed: dict[int, set[int]] = {}
        for offset, digests in self.delivered.items():
            claimed = self._claimed.get(offset, set())
            if digests & claimed:
                placed[offset] = digests & claimed
            if digests - claimed:
                unclaimed[offset] = digests - claimed
        since = min(max(int(self.arrivals.oldest(frontier)), 0), WALL_MAX)
        unsure = self.unsure_below or None
        return Progress(base, bitmap, placed, self.started, self.seen, since, unsure, topic), unclaimed

    def _forget_passed(self, frontier: int) -> None:
        """What a former owner told of records that are not in the log any more never finishes."""
        if self.started and min(self.started) < frontier:
            self.started = {offset: each for offset, each in self.started.items() if offset >= frontier}
        for offset in [offset for offset in self.delivered if offset < frontier]:
            del self.delivered[offset]
            self._set_claims(offset, set())

    @property
    def seen(self) -> int | None:
        """The offset after the highest that this owner or one before it has taken in."""
        return None if self._next is None else max(self._next, self.arrivals.seen)

    def seen_told(self, offset: int) -> bool:
        """Whether an acknowledged commit, or the one at the beginning, has told that intake went beyond `offset`."""
        return offset < self._seen_told

    @property
    def catching_up(self) -> bool:
        """Whether a former owner took in records that this one has not reached."""
        return self._next is not None and self._next < self.arrivals.seen

    def finished_bitmap(self) -> tuple[int, bytes]:
        """Finished offsets beyond the frontier: the first bit's offset, a multiple of eight, and the bits."""
        frontier = self.frontier
        if frontier is None:
            return 0, b""
        base = frontier & ~7
        if base > self._base:
            del self._bitmap[: (base - self._base) >> 3]
            self._base = base
        if self._bitmap:
            self._bitmap[0] &= 0xFF << (frontier & 7) & 0xFF  # below the frontier there is nothing to tell
        return base, bytes(self._bitmap)

    @property
    def frontier(self) -> int | None:
        """The lowest unfinished offset; None before anything was taken where nothing was committed either."""
        return self._open[0] if self._open else self._next

    @property
    def next_offset(self) -> int | None:
        """The lowest offset that can be taken."""
        return self._next

    @property
    def window(self) -> int:
        """Offsets from the frontier to the highest taken one."""
        return self._next - self._open[0] if self._open and self._next is not None else 0

    @property
    def open_count(self) -> int:
        """Taken and unfinished."""
        return len(self._open) - len(self._finished)

    @property
    def committed(self) -> int | None:
        """The highest offset whose commit the broker acknowledged."""
        return self._acknowledged

    @property
    def commit_under_way(self) -> bool:
        """Whether a commit was asked for and its answer has not come."""
        return self._requested is not None

    @property
    def crowded(self) -> bool:
        """Whether the window, its room, or the places of started triggers are so full that its lowest offset must go
        first: soon nothing more could be taken in, or started."""
        return (
            self.window > self.window_max * CROWDED_SHARE
            or self.started_count > self.started_max * CROWDED_SHARE
            or self.room_used > CROWDED_SHARE
        )

    def is_open(self, offset: int) -> bool:
        """Whether the offset was taken and has not finished."""
        open_ = self._open
        return bool(open_) and open_[0] <= offset < (self._next or 0) and offset not in self._finished

    def fits(self, offset: int) -> bool:
        """Whether taking `offset` keeps the window, and the room of its progress, within their bounds."""
        open_ = self._open
        if not open_:
            return True
        first = open_[0]
        if offset - first >= self.window_max:
            return False
        if not self._claimed and not self.started:  # nearly always: what `_used` comes to then
            return (max(offset, self._far) >> 3) - (first >> 3) < self.room_bytes
        return self._used(offset + 1) <= self.room_bytes

    def take(self, offset: int) -> bool:
        """Takes an offset in; False where it needs nothing: taken or passed before, or finished before a restart."""
        if self._next is not None and offset < self._next:
            return False
        if self._next is None:
            self._base = offset & ~7
        self._next = offset + 1
        self._changes += 1  # how far intake has come is told too
        if offset in self._restored:
            self._restored.discard(offset)
            return False
        self._open.append(offset)
        return True

    def skip_to(self, start: int) -> None:
        """The log begins at `start` now, and nothing is open: what was to come before it will not."""
        assert self._next is not None and not self._open and start > self._next
        self._next = start
        self._restored = {offset for offset in self._restored if offset >= start}
        self._changes += 1

    def finish(self, offset: int) -> bool:
        """Finishes a taken offset; False where it was not open (any more)."""
        open_, finished = self._open, self._finished
        if not open_ or offset < open_[0] or self._next is None or offset >= self._next or offset in finished:
            return False
        self._changes += 1
        if self.delivered:
            self.delivered.pop(offset, None)
        if self._claimed:
            self._set_claims(offset, set())
        for digest in self.started.pop(offset, ()):
            self._start_changes.pop((offset, digest), None)
        if offset != open_[0]:
            finished.add(offset)
            self._mark(offset)
            return True
        open_.popleft()
        while open_ and open_[0] in finished:
            finished.discard(open_.popleft())
        return True

    def _mark(self, offset: int) -> None:
        place = (offset - self._base) >> 3
        bitmap = self._bitmap
        if place >= len(bitmap):
            bitmap.extend(bytes(place + 1 - len(bitmap)))
        bitmap[place] |= 1 << (offset & 7)

    # Commits: at most one under way, so that acknowledgements cannot overtake each other.

    def commit_due(self) -> int | None:
        """The offset to commit now, or None: nothing new, or a commit under way."""
        if self._requested is not None or self._changes == self._told:
            return None
        return self.frontier

    def commit_requested(self, offset: int, metadata: str = "") -> None:
        frontier = self.frontier
        assert frontier is not None and offset <= frontier, "a commit beyond the frontier would lose records"
        self._requested = (offset, metadata), self._changes, self.seen or 0

    def commit_forgotten(self) -> None:
        """Nobody will tell how the commit under way went (a revocation): a new one may be asked for.

        Both may reach the broker, in order; that is harmless, because a frontier never moves backwards.
        """
        self._requested = None

    def commit_settled(self, offset: int, metadata: str = "", *, acknowledged: bool) -> None:
        """The broker answered (or never will): a refused commit is due again.

        Two commits of one offset may be under way after a revocation began; what they tell differs by the metadata.
        """
        if self._requested is not None and self._requested[0] == (offset, metadata):
            if acknowledged:
                self._told = self._requested[1]
                self._seen_told = max(self._seen_told, self._requested[2])
            self._requested = None
        if acknowledged and (self._acknowledged is None or offset > self._acknowledged):
            self._acknowledged = offset
