"""What commits say, and what each owner of a partition was told by them."""

from collections import defaultdict
from dataclasses import dataclass, field

from bridge.core.progress import DELIVERED, digest, finished_offsets
from bridge.core.progress import decode as decode_progress
from tests.support.simulation.events import Act, Entry


@dataclass(slots=True)
class Claims:
    """What a commit says is done: everything below `offset`, `finished` beyond it, and single actions."""

    offset: int = 0
    finished: frozenset[int] = frozenset()
    delivered: frozenset[tuple[int, int]] = frozenset()
    seen: int = 0
    """How far intake had come; 0 where that is not told."""

    def cover(self, act: Act) -> bool:
        offset = act.entry.record.offset
        return offset < self.offset or offset in self.finished or (offset, digest(act.identity)) in self.delivered


def claims(offset: int, metadata: str) -> Claims:
    """Reads a commit as the next owner will."""
    progress = decode_progress(offset, metadata) if metadata else None
    if progress is None:
        return Claims(offset)
    finished = frozenset(each for each in finished_offsets(progress) if each >= offset)
    delivered = {(place, each) for place, digests in progress.delivered.items() for each in digests}
    for place, triggers in progress.started.items():
        delivered.update((place, each) for each, wall in triggers.items() if wall == DELIVERED)
    return Claims(offset, finished, frozenset(delivered), getattr(progress, "seen", None) or 0)


@dataclass(slots=True)
class Tenure:
    """One assignment of a partition to a member."""

    member: str
    epoch: int
    told: Claims
    """What the owner was told by the commit before it."""
    whole: bool
    """Whether that is all that the commit said: not where its text was damaged."""
    answered: list[tuple[float, Act, int]] = field(default_factory=list)
    """When, what, and by which call."""
    ended: set[Act] = field(default_factory=set)
    """What an answer ended in this tenure."""


@dataclass(slots=True)
class Log:
    """A partition as the ledger sees it."""

    entries: dict[int, Entry] = field(default_factory=dict)
    verified: int = 0
    """Everything below was verified to be finished."""
    committed: Claims = field(default_factory=Claims)
    position: tuple[int, str] | None = None
    """The last commit as it was made."""
    by_contact: dict[str, list[Act]] = field(default_factory=lambda: defaultdict(list))
    tenures: dict[tuple[str, int], Tenure] = field(default_factory=dict)
    unsure: bool = False
    """An owner could not read what its predecessor had told of triggers."""
    owner: Tenure | None = None
    """Whom the group gave it to last."""
