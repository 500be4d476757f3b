"""What is kept of one assigned partition."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from bridge.core.offsets import PartitionOffsets
from bridge.core.stall import StallWatch
from bridge.model import Record, SchemaId, TopicPartition


class Mark(NamedTuple):
    """A trigger that waits until a commit has told that it starts."""

    offset: int
    digest: int
    kept: asyncio.Future[bool]


class Sight(NamedTuple):
    """An upsert that waits until a commit has told that intake went beyond its record."""

    offset: int
    told: asyncio.Future[bool]


Waiters = list[tuple[int, int, Callable[[], None]]]
"""A heap by offset, then by when they came, of what calls those that wait again. At most what is admitted."""


@dataclass(slots=True)
class Partition:
    """An assigned partition."""

    name: TopicPartition
    epoch: int
    offsets: PartitionOffsets
    topic_hash: int | None = None
    held: deque[tuple[Record, float]] = field(default_factory=deque)
    """Came after the window was full, and when (wall). Bounded by what the source had on its way when it was paused."""
    paused: bool = False
    letters: int = 0
    """Dead letters waiting for their acknowledgement."""
    capped: set[int] = field(default_factory=set)
    """Open offsets that count as dead-lettered for the topic's cap; at most a window of them."""
    stall: StallWatch = field(default_factory=StallWatch)
    schema: SchemaId | None = None
    """What the first of those held has to wait for (runtime/schemas.py)."""
    closing: bool = False
    letting_in: bool = False
    """Records that finish at once must not let in further ones recursively."""
    log_start: int = 0
    """Everything below was removed from the log."""
    recovering: bool = False
    """A former owner took in records that have not been taken in again yet (runtime/recovery.py)."""
    taken_now: float = 0.0
    """When the last record was taken in (monotonic), while the partition recovers."""
    recovered: list[Callable[[], None]] = field(default_factory=list)
    """What calls the upserts again that wait for the recovery's end. At most what is admitted."""
    marks: list[Mark] = field(default_factory=list)
    """Triggers that wait for their mark's acknowledgement; at most `started_max`."""
    sights: list[Sight] = field(default_factory=list)
    """Upserts that wait for an acknowledgement; at most as many as there may be calls in flight."""
    unmarked: Waiters = field(default_factory=list)
    """Those that found no room to be marked."""
    unclaimed: Waiters = field(default_factory=list)
    """Those that found no place to be told as delivered."""
