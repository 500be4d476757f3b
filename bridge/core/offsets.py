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

The bound
    `window_max` offsets may lie between the frontier and the next offset to take. It bounds memory, and what a crash
    repeats; later, that progress beyond the frontier always fits into the commit's metadata (about 20,000).
"""

from __future__ import annotations

from collections import deque

from bridge.core.progress import DELIVERED, Progress, finished_offsets


class PartitionOffsets:
    """Offsets of one partition during one assignment."""

    __slots__ = (
        "_acknowledged",
        "_base",
        "_bitmap",
        "_changes",
        "_finished",
        "_next",
        "_open",
        "_requested",
        "_restored",
        "_start_changes",
        "_told",
        "delivered",
        "started",
        "window_max",
    )

    def __init__(self, *, start: int | None = None, window_max: int = 20_000) -> None:
        """`start` is the committed offset, or None where the group has none: then the first taken one begins."""
        if window_max < 1:
            raise ValueError("a window holds at least one offset")
        self.window_max = window_max
        self._next = start
        self._open: deque[int] = deque()  # taken, ascending; its head is unfinished
        self._finished: set[int] = set()  # finished, but behind an unfinished one
        self._restored: set[int] = set()  # finished before a restart, not passed yet
        # The same knowledge as _finished and _restored, one bit per offset from _base (a multiple of eight) on, kept
        # up to date so that a commit costs a copy and not a walk.
        self._base = (start or 0) & ~7
        self._bitmap = bytearray()
        self.delivered: dict[int, set[int]] = {}
        """Digests of the delivered actions of unfinished events, by offset."""
        self.started: dict[int, dict[int, int]] = {}
        """Started triggers of unfinished events: offset → digest → wall seconds of the first start."""
        self._start_changes: dict[tuple[int, int], int] = {}  # which change told a start; absent: an earlier owner's
        self._changes = 0  # grows with whatever a commit would tell: the frontier, or work beyond it
        self._told = 0
        self._acknowledged = start
        self._requested: tuple[tuple[int, str], int] | None = None

    def note_start(self) -> None:
        """The start was chosen, not committed: a crash before the first commit must not choose again (`latest`)."""
        self._changes += 1

    def restore(self, progress: Progress) -> None:
        """Takes over what an earlier owner did beyond the committed offset, before anything is taken.

        What lies beyond this owner's window is forgotten, and so repeated: its commits could not hold it.
        """
        start = self._next
        assert start is not None and not self._open, "restored too late"
        end = start + self.window_max
        self._restored = {offset for offset in finished_offsets(progress) if start <= offset < end}
        self._base = start & ~7
        for offset in self._restored:
            self._mark(offset)
        self.delivered = {
            offset: set(digests)
            for offset, digests in progress.delivered.items()
            if start <= offset < end and offset not in self._restored
        }
        self.started = {
            offset: dict(triggers)
            for offset, triggers in progress.started.items()
            if start <= offset < end and offset not in self._restored
        }

    def note_started(self, offset: int, digest: int, wall_seconds: int) -> None:
        """A trigger is about to leave for the first time; it may once `start_told` says so.

        The time of a trigger that has started before stays: that is what its age counts from.
        """
        triggers = self.started.setdefault(offset, {})
        if digest not in triggers:
            triggers[digest] = wall_seconds
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
        """An action of an event that has not finished yet was delivered."""
        self.delivered.setdefault(offset, set()).add(digest)
        self._changes += 1

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

    def fits(self, offset: int) -> bool:
        """Whether taking `offset` keeps the window within its bound."""
        return not self._open or offset - self._open[0] < self.window_max

    def take(self, offset: int) -> bool:
        """Takes an offset in; False where it needs nothing: taken or passed before, or finished before a restart."""
        if self._next is not None and offset < self._next:
            return False
        if self._next is None:
            self._base = offset & ~7
        before = self.frontier
        self._next = offset + 1
        new = offset not in self._restored
        if new:
            self._open.append(offset)
        else:
            self._restored.discard(offset)
        if self.frontier != before:
            self._changes += 1
        return new

    def finish(self, offset: int) -> bool:
        """Finishes a taken offset; False where it was not open (any more)."""
        open_, finished = self._open, self._finished
        if not open_ or offset < open_[0] or self._next is None or offset >= self._next or offset in finished:
            return False
        self._changes += 1
        if self.delivered:
            self.delivered.pop(offset, None)
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
        self._requested = (offset, metadata), self._changes

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
            self._requested = None
        if acknowledged and (self._acknowledged is None or offset > self._acknowledged):
            self._acknowledged = offset
