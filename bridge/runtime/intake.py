"""Which records are taken in, and which wait: windows, the total of all partitions, and partitions that recover.

The theory
    A record is taken in while its partition's window and the total of pending actions have room. What comes when there
    is none is held, its partition paused, and let in again when half of the room is free. So is a record whose schema
    is not at hand, until that is fetched (runtime/schemas.py).

    After a restart a partition *recovers* until intake has come as far as a former owner's had (delivery.md, 22): its
    upserts wait until then, so that an older state merges into a newer one instead of being sent over it. Recovery
    must always end. It needs room, so one partition at a time may exceed the total; the next one follows when that
    much has drained. It needs records, so it ends when none came for RECOVERY_SECONDS.

The bounds
    What is pending is bounded by `pending_max` and one window.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog

from bridge.model import Record, SchemaId, TopicPartition
from bridge.ports import Clock, Source
from bridge.runtime.delivery import Delivery
from bridge.runtime.partition import Partition

log = structlog.get_logger(__name__)

PENDING_MAX = 50_000
"""Actions waiting over all partitions: four to five KB each with their events, so some 230 MB, however many there are
of partitions; `make backlog` measures it."""

RESUME_AT = 0.5
"""A paused partition resumes once its window is half empty: pausing drops librdkafka's prefetch, so it must be rare."""

ROOM_RESUME_AT = 0.75
"""So does one that half-done events have paused, once a quarter of its progress's room is free."""

RECOVERY_SECONDS = 5.0
"""A fetch takes milliseconds, a slow one a second. Without a record for so long there is none, or none is let in."""


class Intake:
    """`begin` carries a record that was taken in; `stopped` tells whether a topic's dead letters have stopped it;
    `lacks` names the schema that a record has to wait for."""

    def __init__(
        self,
        *,
        source: Source,
        clock: Clock,
        delivery: Delivery,
        partitions: Mapping[TopicPartition, Partition],
        stopped: Callable[[str], bool],
        begin: Callable[[Partition, Record, float], None],
        pending_max: int,
        lacks: Callable[[Record], SchemaId | None] | None = None,
    ) -> None:
        self._source = source
        self._clock = clock
        self._delivery = delivery
        self._partitions = partitions
        self._stopped = stopped
        self._begin = begin
        self._lacks = lacks
        self._pending_max = pending_max
        self._full = False
        self._beyond: Partition | None = None
        """The one that recovers, or has recovered, beyond `pending_max`."""

    # Taking in

    def offer(self, partition: Partition, record: Record, wall: float) -> None:
        """A record that was read at `wall` is taken in, or held."""
        if partition.held or not self._fits(partition, record):
            partition.held.append((record, wall))
            self._pause(partition)
        else:
            self._take(partition, record, wall)

    def let_in(self, partition: Partition) -> None:
        """Goes on with what was held back, once enough room is there."""
        if self._full and not self._may_exceed(partition):
            if self._delivery.pending > self._pending_max * RESUME_AT:
                return
            self._full = False
            for other in list(self._partitions.values()):
                if other is not partition:
                    self.let_in(other)
        if not partition.paused or partition.closing or partition.letting_in:
            return
        if not partition.recovering and not self._half_empty(partition):
            return
        held = partition.held
        partition.letting_in = True
        while held and self._fits(partition, held[0][0]):
            self._take(partition, *held.popleft())
        partition.letting_in = False
        if not held and partition.paused:
            partition.paused = False
            self._source.resume([partition.name])

    @staticmethod
    def _half_empty(partition: Partition) -> bool:
        offsets = partition.offsets
        if offsets.window > offsets.window_max * RESUME_AT:
            return False
        return not offsets.open_count or offsets.room_used <= ROOM_RESUME_AT

    def finished(self, partition: Partition) -> None:
        """An event of the partition has finished, or the log's start has moved."""
        offsets = partition.offsets
        if partition.paused or self._full:
            self.let_in(partition)
        if partition.log_start and not offsets.open_count and not partition.held:
            if offsets.next_offset is not None and offsets.next_offset < partition.log_start:
                offsets.skip_to(partition.log_start)
            partition.log_start = 0

    def room_made(self) -> None:
        """Actions are out, finished or not: those of partitions that went end without a finish."""
        if self._beyond is not None:
            self._pass_on()
        if self._full:
            for partition in list(self._partitions.values()):
                self.let_in(partition)

    def _take(self, partition: Partition, record: Record, wall: float) -> None:
        if partition.offsets.take(record.offset):
            partition.offsets.arrivals.note(record.offset, wall)
            self._begin(partition, record, wall)
        if partition.recovering:
            partition.taken_now = self._clock.now()
            if not partition.offsets.catching_up:
                self._recovered(partition)

    def _fits(self, partition: Partition, record: Record) -> bool:
        if self._stopped(record.topic):
            return False
        if self._delivery.pending >= self._pending_max and not self._may_exceed(partition):
            self._full = True
            return False
        if not partition.offsets.fits(record.offset):
            return False
        # Last, so that nothing is fetched for what would have to wait anyhow.
        partition.schema = None if self._lacks is None else self._lacks(record)
        return partition.schema is None

    def learned(self, partition: Partition) -> None:
        """What the partition waited for is at hand."""
        if not partition.closing:
            partition.schema = None
            self.let_in(partition)

    def _pause(self, partition: Partition) -> None:
        if not partition.paused:
            partition.paused = True
            self._source.pause([partition.name])

    # Recovery

    def recover(self, partition: Partition) -> None:
        """A partition is assigned; a former owner may have taken in more than it told as finished."""
        if partition.offsets.catching_up:
            partition.recovering = True
            partition.taken_now = self._clock.now()
            self._look_later(partition, RECOVERY_SECONDS)

    def _look_later(self, partition: Partition, seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds, self._look, partition)

    def _look(self, partition: Partition) -> None:
        if not partition.recovering or partition.closing:
            return
        if partition.paused and self._full and self._beyond not in (None, partition):
            partition.taken_now = self._clock.now()  # its turn comes: whoever goes first drains, or ends here itself
        if partition.schema is not None:
            partition.taken_now = self._clock.now()  # nothing can come before it, and older state must not leave either
        left = partition.taken_now + RECOVERY_SECONDS - self._clock.now()
        if left > 0.001:
            self._look_later(partition, left)
            return
        offsets = partition.offsets
        log.warning(
            "a partition's records up to where its former owner had come do not come: they are gone, or held back. Its "
            "upserts leave now: one that was sent before may go out again over a newer one, until that one is read",
            partition=str(partition.name),
            came_to=offsets.next_offset,
            former_owner_came_to=offsets.arrivals.seen,
            held=len(partition.held),
        )
        self._recovered(partition)

    def _recovered(self, partition: Partition) -> None:
        partition.recovering = False
        waiting, partition.recovered = partition.recovered, []
        for again in waiting:
            again()
        if self._beyond is partition:
            self._pass_on()

    def _may_exceed(self, partition: Partition) -> bool:
        if not partition.recovering or self._beyond not in (None, partition):
            return False
        if self._delivery.pending >= self._pending_max:
            self._beyond = partition
        return True

    def _pass_on(self) -> None:
        """Lets the next one exceed the total, once what the last one took beyond it has drained."""
        beyond = self._beyond
        if beyond is None:
            return
        lives = self._partitions.get(beyond.name) is beyond
        if lives and (beyond.recovering or self._delivery.pending > self._pending_max):
            return
        self._beyond = None
        for partition in list(self._partitions.values()):
            if partition.recovering and partition.paused:
                self.let_in(partition)
