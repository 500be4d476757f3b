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

The bound
    `window_max` offsets may lie between the frontier and the next offset to take. It bounds memory, and what a crash
    repeats; later, that progress beyond the frontier always fits into the commit's metadata (about 20,000).
"""

from __future__ import annotations

from collections import deque


class PartitionOffsets:
    """Offsets of one partition during one assignment."""

    __slots__ = ("_acknowledged", "_finished", "_next", "_open", "_requested", "window_max")

    def __init__(self, *, start: int | None = None, window_max: int = 20_000) -> None:
        """`start` is the committed offset, or None where the group has none: then the first taken one begins."""
        if window_max < 1:
            raise ValueError("a window holds at least one offset")
        self.window_max = window_max
        self._next = start
        self._open: deque[int] = deque()  # taken, ascending; its head is unfinished
        self._finished: set[int] = set()  # finished, but behind an unfinished one
        self._acknowledged = start
        self._requested: int | None = None

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
        """Takes an offset in; False where it was taken or passed before (a record that came twice)."""
        if self._next is not None and offset < self._next:
            return False
        self._open.append(offset)
        self._next = offset + 1
        return True

    def finish(self, offset: int) -> bool:
        """Finishes a taken offset; False where it was not open (any more)."""
        open_, finished = self._open, self._finished
        if not open_ or offset < open_[0] or self._next is None or offset >= self._next or offset in finished:
            return False
        if offset != open_[0]:
            finished.add(offset)
            return True
        open_.popleft()
        while open_ and open_[0] in finished:
            finished.discard(open_.popleft())
        return True

    # Commits: at most one under way, so that acknowledgements cannot overtake each other.

    def commit_due(self) -> int | None:
        """The offset to commit now, or None: nothing new, or a commit under way."""
        frontier = self.frontier
        if self._requested is not None or frontier is None or frontier == self._acknowledged:
            return None
        return frontier

    def commit_requested(self, offset: int) -> None:
        frontier = self.frontier
        assert frontier is not None and offset <= frontier, "a commit beyond the frontier would lose records"
        self._requested = offset

    def commit_forgotten(self) -> None:
        """Nobody will tell how the commit under way went (a revocation): a new one may be asked for.

        Both may reach the broker, in order; that is harmless, because a frontier never moves backwards.
        """
        self._requested = None

    def commit_settled(self, offset: int, *, acknowledged: bool) -> None:
        """The broker answered (or never will): a refused commit is due again."""
        if self._requested == offset:
            self._requested = None
        if acknowledged and (self._acknowledged is None or offset > self._acknowledged):
            self._acknowledged = offset
