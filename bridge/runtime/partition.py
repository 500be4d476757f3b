"""What is kept of one assigned partition."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from bridge.core.offsets import PartitionOffsets
from bridge.core.stall import StallWatch
from bridge.model import Record, TopicPartition


class Mark(NamedTuple):
    """A trigger that waits until a commit has told that it starts."""

    offset: int
    digest: int
    kept: asyncio.Future[bool]


@dataclass(slots=True)
class Partition:
    """An assigned partition."""

    name: TopicPartition
    epoch: int
    offsets: PartitionOffsets
    held: deque[tuple[Record, float]] = field(default_factory=deque)
    """Came after the window was full, and when (wall). Bounded by what the source had on its way when it was paused."""
    paused: bool = False
    letters: int = 0
    """Dead letters waiting for their acknowledgement."""
    capped: set[int] = field(default_factory=set)
    """Open offsets that count as dead-lettered for the topic's cap; at most a window of them."""
    stall: StallWatch = field(default_factory=StallWatch)
    closing: bool = False
    letting_in: bool = False
    """Records that finish at once must not let in further ones recursively."""
    marks: list[Mark] = field(default_factory=list)
    """Triggers that wait for their mark's acknowledgement; at most `started_max`."""
    unmarked: list[tuple[int, int, Callable[[], None]]] = field(default_factory=list)
    """A heap by offset of those that found no room to be marked: what calls them again. At most what is admitted."""
