"""How long it takes until retention reaches the frontier of a partition.

The timestamps of records that were read are kept by the minute, so that the frontier's is known within one; a step
down to what has finished is made with each commit. Told is the earliest moment at which `retention.ms` permits the
deletion: a broker deletes whole segments, later than that, and `retention.bytes` may make it delete sooner.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter

import structlog

from bridge.kafka.faults import REMEMBERED_MAX
from bridge.model import Position, Record, TopicPartition

log = structlog.get_logger(__name__)

STEP_MS = 60_000
SAMPLES_MAX = 4_096
"""Per partition: almost three days of records between the frontier and what was read last. Of more, every second is
forgotten; the frontier then seems older than it is."""
WARN_SECONDS = 3_600.0
WARN_AGAIN_SECONDS = 3_600.0

_PLACE = itemgetter(0, 1)


class Ages:
    """Fed by the polling thread, asked and told of commits by the loop; `now` and `wall` are seconds."""

    def __init__(self, retention: Callable[[], Mapping[str, float]]) -> None:
        self._retention = retention
        self._lock = threading.Lock()
        self._samples: dict[TopicPartition, list[tuple[int, int]]] = {}
        """Offset and timestamp in milliseconds of the first record and of those a minute from the one before."""
        self._next: dict[TopicPartition, int] = {}
        """The offset after the last record read."""
        self._frontiers: dict[TopicPartition, int] = {}
        self._warned: dict[TopicPartition, float] = {}

    def begin(self, partition: TopicPartition, offset: int) -> None:
        with self._lock:
            self._samples[partition] = []
            self._next[partition] = self._frontiers[partition] = offset

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        with self._lock:
            for partition in partitions:
                self._samples.pop(partition, None)
                self._next.pop(partition, None)
                self._frontiers.pop(partition, None)

    def read(self, batch: Sequence[Record]) -> None:
        """Records of any partitions, in the order of their offsets."""
        with self._lock:
            for place, run in groupby(batch, _PLACE):
                partition = TopicPartition(*place)
                samples = self._samples.get(partition)
                if samples is None:
                    continue
                records = list(run)
                first, last = records[0], records[-1]
                self._next[partition] = last.offset + 1
                # Timestamps of one batch rise, or nearly so: where both ends are within the minute, all are.
                if samples and _near(first, samples) and _near(last, samples):
                    continue
                for record in records:
                    if record.timestamp_ms >= 0 and not (samples and _near(record, samples)):
                        samples.append((record.offset, record.timestamp_ms))
                        if len(samples) > SAMPLES_MAX:
                            del samples[1::2]

    def passed(self, positions: Sequence[Position]) -> None:
        """A commit is asked for: what lies before the frontiers is of no interest any more."""
        with self._lock:
            for partition, offset, *_ in positions:
                samples = self._samples.get(partition)
                if samples is not None:
                    self._frontiers[partition] = offset
                    del samples[: _place(samples, offset)]

    def seconds_left(self, partition: TopicPartition, frontier: int, wall: float) -> float | None:
        """None where nothing at or behind the frontier was read, or nothing is deleted by age; never negative."""
        keeps = self._retention().get(partition.topic)
        if keeps is None:
            return None
        with self._lock:
            samples = self._samples.get(partition)
            if not samples or frontier >= self._next[partition] or samples[0][0] > frontier:
                return None
            stamp = samples[_place(samples, frontier)][1]
        return max(0.0, stamp / 1000 + keeps - wall)

    def warn(self, now: float, wall: float) -> None:
        """Says, once an hour, which partitions are about to lose records."""
        with self._lock:
            frontiers = list(self._frontiers.items())
        for partition, frontier in frontiers:
            left = self.seconds_left(partition, frontier, wall)
            if left is None or left >= WARN_SECONDS:
                continue
            if now - self._warned.get(partition, float("-inf")) < WARN_AGAIN_SECONDS:
                continue
            if len(self._warned) >= REMEMBERED_MAX:
                self._warned.clear()
            self._warned[partition] = now
            log.warning(
                "retention is about to reach what was not finished: a restart after that loses it; raise the topic's "
                "retention.ms, or see what the partition waits for",
                partition=str(partition),
                offset=frontier,
                seconds_left=round(left),
            )


def _near(record: Record, samples: Sequence[tuple[int, int]]) -> bool:
    return abs(record.timestamp_ms - samples[-1][1]) < STEP_MS


def _place(samples: Sequence[tuple[int, int]], offset: int) -> int:
    """Of the last sample at or before `offset`; 0 where all are behind it."""
    return max(0, bisect_right(samples, offset, key=lambda sample: sample[0]) - 1)
