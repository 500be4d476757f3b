"""A bounded reading of what topics hold: their last records, or those since a time; for `check` and `preview`.

No group is joined and nothing is committed: partitions are assigned, read from one offset to another, and let go. All
of it blocks. Whatever is read is held in memory, hence the bounds.
"""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaPartition

from bridge.errors import LogFailed
from bridge.kafka.admin import COORDINATOR_BUSY
from bridge.kafka.properties import READS, LibrdkafkaLog, checked, reason, shared
from bridge.kafka.replays import record_of
from bridge.kafka.starting import EARLIEST, LATEST, offsets_at
from bridge.model import Record, TopicPartition

RECORDS_MAX = 100_000
"""Unless more are asked for: about 150 MB at a kilobyte each."""
BYTES_MAX = 1_000_000_000
"""Keys and values of one reading; a command on somebody's machine takes no more."""
ASK_SECONDS = 5.0
SILENCE_SECONDS = 30.0
"""Without a record, or word that there is none, a reading has failed."""
POLL_SECONDS = 0.2
BATCH = 1_000

_READING: dict[str, Any] = {
    **READS,
    # What retention takes away while it is being read is no longer asked for.
    "auto.offset.reset": "earliest",
    "queued.min.messages": 10_000,
    "queued.max.messages.kbytes": 16_384,
    "fetch.queue.backoff.ms": 20,
    "fetch.wait.max.ms": 50,
}
_PASSING = (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._RESOLVE)
"""librdkafka goes on trying; that nothing comes for too long is noticed anyway."""


class Slice(NamedTuple):
    """Offsets of one partition, from `start` up to but without `end`; compaction and transactions leave gaps."""

    partition: TopicPartition
    start: int
    end: int

    @property
    def length(self) -> int:
        return self.end - self.start


Progress = Callable[[int, int], None]
"""Told now and then: records read so far, and how many there can be at most."""


def sample(
    bootstrap_servers: str,
    properties: Mapping[str, Any],
    group_id: str,
    topic: str,
    *,
    last: int | None = None,
    since: float | None = None,
    limit: int = RECORDS_MAX,
    progress: Progress | None = None,
) -> Iterator[Record]:
    """The last records of a topic, or those since a time (wall seconds), as they are when this is called.

    They come in the order of their timestamps, those of one partition in the order of their offsets. Of more than
    `limit` the oldest are left out. `last` is shared out among partitions: each gives as many, a short one all that it
    has. Raises LogFailed, also where there is no such topic.
    """
    with Sampler(bootstrap_servers, properties, group_id) as sampler:
        slices = sampler.whole(topic) if since is None else sampler.since(topic, since)
        wanted = limit if last is None else min(last, limit)
        records = sampler.read(fitted(slices, wanted), progress)
        if since is not None and sampler.knows_no_times:
            records = [record for record in records if record.timestamp_ms >= since * 1000]
    yield from in_time(records)


def fitted(slices: Iterable[Slice], count: int) -> list[Slice]:
    """The ends of slices, so that together they hold `count` offsets: each the same, and a short one all of it."""
    left, found = count, []
    by_length = sorted((each for each in slices if each.length > 0), key=lambda each: (each.length, each.partition))
    for position, each in enumerate(by_length):
        # A share is rounded up, so that `count` below the number of partitions still gives `count`.
        taken = min(each.length, math.ceil(left / (len(by_length) - position)))
        left -= taken
        if taken:
            found.append(each._replace(start=each.end - taken))
    return sorted(found)


def spread(slices: Iterable[Slice], count: int, spots: int) -> list[list[Slice]]:
    """`spots` rounds of short slices, evenly over the given ones: together at most about `count` offsets.

    What one hour brings differs from the next: a topic's end alone tells little of a day.
    """
    slices = [each for each in slices if each.length > 0]
    share = max(1, count // (spots * len(slices))) if slices else 0
    rounds: list[list[Slice]] = []
    for spot in range(spots):
        found = []
        for each in slices:
            step = each.length / spots
            start = each.start + int(spot * step)
            end = min(start + share, each.start + int((spot + 1) * step))
            if end > start:
                found.append(Slice(each.partition, start, end))
        rounds.append(found)
    return [each for each in rounds if each]


def in_time(records: Sequence[Record]) -> Iterator[Record]:
    """Merged by timestamp; a record never comes before one of its partition with a lower offset."""
    by_partition: dict[tuple[str, int], list[tuple[int, Record]]] = {}
    for record in records:
        known = by_partition.setdefault((record.topic, record.partition), [])
        known.append((max(record.timestamp_ms, known[-1][0] if known else -1), record))
    for _, record in heapq.merge(*by_partition.values(), key=lambda each: each[0]):
        yield record


class Sampler:
    """Asks and reads with one consumer; a context manager. Every call raises LogFailed.

    librdkafka looks for the coordinator of whatever group it is given, and reads nothing where that is not permitted:
    hence the bridge's own group, which it may use, though nothing is joined.
    """

    def __init__(self, bootstrap_servers: str, properties: Mapping[str, Any], group_id: str) -> None:
        own = shared(bootstrap_servers, checked(properties))
        self._config = {**_READING, **own, "group.id": group_id}
        self._consumer: Consumer | None = None
        self.knows_no_times = False
        """The broker (the embedded one) answered the end to a time before its last record: nothing is as `since`
        says, and timestamps must be looked at."""

    def __enter__(self) -> Self:
        try:
            self._consumer = Consumer(self._config, logger=LibrdkafkaLog())
        except KafkaException as error:
            raise LogFailed(reason(error.args[0])) from None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close()

    @property
    def _reader(self) -> Consumer:
        assert self._consumer is not None, "used as a context manager"
        return self._consumer

    def whole(self, topic: str) -> list[Slice]:
        """What each partition holds now."""
        partitions = self._partitions(topic)
        starts, ends = self._offsets(partitions, EARLIEST), self._offsets(partitions, LATEST)
        return [Slice(each, starts[each], max(starts[each], ends[each])) for each in partitions]

    def since(self, topic: str, wall: float) -> list[Slice]:
        """What each partition holds from the first record on that is not older than `wall` (seconds)."""
        whole = self.whole(topic)
        starts = self._offsets([each.partition for each in whole], max(0, int(wall * 1000)))
        found = [each._replace(start=min(max(each.start, starts[each.partition]), each.end)) for each in whole]
        if any(each.length for each in found) or not any(each.length for each in whole):
            return found
        tails = self.read([each._replace(start=each.end - 1) for each in whole if each.length])
        if any(record.timestamp_ms >= wall * 1000 for record in tails):
            self.knows_no_times = True
            return whole
        return found

    def committed(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """The offsets that the group named at the beginning has; without those where it has none."""
        asked = [KafkaPartition(*partition) for partition in partitions]
        deadline = time.monotonic() + ASK_SECONDS
        while asked:
            try:
                answers = self._reader.committed(asked, timeout=ASK_SECONDS)
                break
            except KafkaException as error:
                problem = error.args[0]
                if problem.code() not in COORDINATOR_BUSY or time.monotonic() >= deadline:
                    raise LogFailed(reason(problem)) from None
                time.sleep(POLL_SECONDS)
        else:
            answers = []
        return {
            TopicPartition(answer.topic, answer.partition): answer.offset
            for answer in answers
            if answer.error is None and answer.offset >= 0
        }

    def read(self, slices: Iterable[Slice], progress: Progress | None = None) -> list[Record]:
        """The records of slices, one for a partition at most; each partition's in the order of their offsets."""
        wanted = {each.partition: each for each in slices if each.length > 0}
        found: list[Record] = []
        if not wanted:
            return found
        total, size = sum(each.length for each in wanted.values()), 0
        open_ends = {partition: each.end for partition, each in wanted.items()}
        self._reader.assign([KafkaPartition(*each.partition, each.start) for each in wanted.values()])
        try:
            heard = time.monotonic()
            while open_ends:
                messages = self._consumed()
                now = time.monotonic()
                if messages:
                    heard = now
                elif now - heard > SILENCE_SECONDS:
                    missing = min(open_ends)
                    raise LogFailed(f"{missing} cannot be read: nothing came for {SILENCE_SECONDS:g} s")
                for message in messages:
                    record = self._taken(message, open_ends)
                    if record is not None:
                        found.append(record)
                        size += len(record.value or b"") + len(record.key or b"")
                if size > BYTES_MAX:
                    raise LogFailed(f"more than {BYTES_MAX // 1_000_000:,} MB: read fewer records")
                if progress is not None:
                    progress(len(found), total)
        finally:
            # Paused they would stay, in the next reading too.
            self._reader.resume([KafkaPartition(*partition) for partition in wanted])
            self._reader.unassign()
        return found

    def _consumed(self) -> list[Message]:
        """What is there. Asked for many messages at once, librdkafka would wait for the whole timeout to find more."""
        try:
            first = self._reader.consume(1, POLL_SECONDS)
            return first + self._reader.consume(BATCH, 0.0) if first else first
        except KafkaException as error:
            raise LogFailed(reason(error.args[0])) from None

    def _taken(self, message: Message, open_ends: dict[TopicPartition, int]) -> Record | None:
        """The record, if it is wanted; the partition is closed where its end is reached."""
        topic, partition, offset = message.topic(), message.partition(), message.offset() or 0
        at = TopicPartition(str(topic), -1 if partition is None else partition)
        error = message.error()
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF:
                open_ends.pop(at, None)  # below the end are gaps only, or an open transaction
            elif not (error.retriable() or error.code() in _PASSING):
                raise LogFailed(reason(error))
            return None
        end = open_ends.get(at)
        if end is None:
            return None
        if offset + 1 >= end:
            del open_ends[at]
            self._reader.pause([KafkaPartition(*at)])
        return record_of(message, offset) if offset < end else None

    def _partitions(self, topic: str) -> list[TopicPartition]:
        try:
            # All topics are asked for: one asked for by name might be created by the asking.
            known = self._reader.list_topics(timeout=ASK_SECONDS).topics.get(topic)
        except KafkaException as error:
            raise LogFailed(reason(error.args[0])) from None
        if known is None or known.error is not None:
            raise LogFailed(f"topic {topic} does not exist")
        return [TopicPartition(topic, number) for number in sorted(known.partitions)]

    def _offsets(self, partitions: Sequence[TopicPartition], when: int) -> dict[TopicPartition, int]:
        try:
            found = offsets_at(self._reader, dict.fromkeys(partitions, when), ASK_SECONDS)
        except KafkaException as error:
            raise LogFailed(reason(error.args[0])) from None
        silent = [partition for partition in partitions if partition not in found]
        if silent:
            raise LogFailed(f"no broker tells the offsets of {silent[0]}")
        return found
