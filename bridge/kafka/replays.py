"""KafkaLogs: topics read and written beside the group, for replays and for the commands that look at dead letters.

It joins no group and commits nothing: a partition is assigned, read from one offset to another, and let go. Every call
to librdkafka that may block is made by a small pool of threads; one reading uses one consumer at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer
from confluent_kafka import TopicPartition as KafkaPartition

from bridge.errors import LogFailed, StartFailed
from bridge.kafka.admin import create_topics, probe
from bridge.kafka.headers import read_headers
from bridge.kafka.properties import READS, LibrdkafkaLog, checked, for_letters, reason, shared
from bridge.model import Record

ASK_SECONDS = 5.0
"""For one question to the cluster. A question under way holds up the end of the process, so it must not be long."""
SILENCE_SECONDS = 30.0
"""Without a record, or word that there is none, a reading has failed."""
BATCH = 500
"""Records that are handed over at once."""
WRITE_SECONDS = 30.0
POLL_SECONDS = 0.2
THREADS = 6
"""Readings at once; one more waits its turn."""

_READING: dict[str, Any] = {
    **READS,
    # One reading at a time is in a hurry for as long as it lasts; between readings nothing is fetched.
    "queued.min.messages": 2_000,
    "queued.max.messages.kbytes": 16_384,
    "fetch.queue.backoff.ms": 20,
    "fetch.wait.max.ms": 50,
}

_GONE = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION)

_PASSING = (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN, KafkaError._RESOLVE)
"""librdkafka goes on trying; that nothing comes for too long is noticed anyway."""

T = TypeVar("T")


class KafkaLogs:
    """Implements ports.LetterLogs, and so ports.Logs.

    `group_id` is the bridge's own: librdkafka asks for the coordinator of whatever group it is given, which must be
    permitted; nothing is joined and nothing committed.
    """

    def __init__(self, bootstrap_servers: str, group_id: str, properties: Mapping[str, Any] | None = None) -> None:
        own = checked(properties or {})
        self._servers = bootstrap_servers
        self._properties = dict(properties or {})
        self._reading = {**_READING, **shared(bootstrap_servers, own), "group.id": group_id}
        self._writing = for_letters(bootstrap_servers, own)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="kafka-logs")
        self._asker: Consumer | None = None
        self._asking = asyncio.Lock()
        self._known: set[tuple[str, int]] = set()
        """Partitions that exist: asked for by name, others might be created by the asking."""
        self._producer: Producer | None = None
        self._producing = asyncio.Lock()
        self._closing = False

    async def _run(self, what: Callable[..., T], *arguments: Any) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, what, *arguments)
        except KafkaException as error:
            raise LogFailed(reason(error.args[0])) from None

    async def bounds(self, topic: str, partition: int) -> tuple[int, int] | None:
        async with self._asking:
            return await self._run(self._bounds, topic, partition)

    def _bounds(self, topic: str, partition: int) -> tuple[int, int] | None:
        if self._asker is None:
            self._asker = self._consumer()
        if (topic, partition) not in self._known:
            topics = self._asker.list_topics(timeout=ASK_SECONDS).topics
            if topic not in topics or partition not in topics[topic].partitions:
                return None
            self._known.add((topic, partition))
        try:
            low, high = self._asker.get_watermark_offsets(KafkaPartition(topic, partition), timeout=ASK_SECONDS)
        except KafkaException as error:
            if error.args[0].code() in _GONE:
                self._known.discard((topic, partition))
                return None
            raise
        return low, high

    async def partitions(self, topic: str) -> int:
        """How many the topic has; 0 where there is no such topic. Raises LogFailed."""

        def count() -> int:
            if self._asker is None:
                self._asker = self._consumer()
            topics = self._asker.list_topics(timeout=ASK_SECONDS).topics
            return len(topics[topic].partitions) if topic in topics else 0

        async with self._asking:
            return await self._run(count)

    async def create(self, topic: str) -> bool:
        """Makes a compacted topic of one partition if it is missing; True where it did. Raises LogFailed."""

        def make() -> bool:
            cluster = probe(self._servers, self._properties, ASK_SECONDS)
            if topic in cluster.topics:
                return False
            if cluster.describes:  # the embedded broker creates topics on first use, and does not answer requests to
                create_topics(self._servers, self._properties, {topic: 1}, settings={"cleanup.policy": "compact"})
            return True

        try:
            return await self._run(make)
        except StartFailed as error:
            raise LogFailed(str(error)) from None

    async def read(self, topic: str, partition: int, start: int, end: int) -> AsyncGenerator[Sequence[Record], None]:
        if start >= end:
            return
        consumer = await self._run(self._consumer)
        try:
            await self._run(consumer.assign, [KafkaPartition(topic, partition, start)])
            position = start
            heard = time.monotonic()
            while position < end:
                came, records, position = await self._run(_next, consumer, position, end)
                if came:
                    heard = time.monotonic()
                elif time.monotonic() - heard > SILENCE_SECONDS:
                    raise LogFailed(f"{topic}/{partition} cannot be read: nothing came for {SILENCE_SECONDS:g} s")
                if records:
                    yield records
        finally:
            # Also where the reading is given up in the middle: a cancelled await must not leave a client behind.
            with contextlib.suppress(RuntimeError):
                self._threads.submit(consumer.close)

    def _consumer(self) -> Consumer:
        return Consumer(self._reading, logger=LibrdkafkaLog())

    async def write(self, topic: str, entries: Sequence[tuple[bytes, bytes | None]]) -> None:
        async with self._producing:
            await self._run(self._write, topic, entries)

    def _write(self, topic: str, entries: Sequence[tuple[bytes, bytes | None]]) -> None:
        if self._producer is None:
            self._producer = Producer(self._writing, logger=LibrdkafkaLog())
        producer = self._producer
        failures: list[KafkaError] = []

        def answered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                failures.append(error)

        try:
            for key, value in entries:
                producer.produce(topic, key=key, value=value, partition=0, on_delivery=answered)
                producer.poll(0)
        except BufferError:
            failures.append(KafkaError(KafkaError._QUEUE_FULL))
        deadline = time.monotonic() + WRITE_SECONDS
        left = 1
        while left and not self._closing and time.monotonic() < deadline:
            left = producer.flush(POLL_SECONDS)
        if failures or left:
            self._producer = None  # after a fatal error, or with records left in it, it is of no more use
            raise LogFailed(f"{topic} was not written: {reason(failures[0]) if failures else 'no acknowledgement'}")

    async def close(self) -> None:
        self._closing = True
        asker, self._asker = self._asker, None
        if asker is not None:
            self._threads.submit(asker.close)
        self._producer = None
        await asyncio.to_thread(self._threads.shutdown)


def _next(consumer: Consumer, position: int, end: int) -> tuple[bool, list[Record], int]:
    """Whether anything came, the records below `end`, and where the reading stands. Raises LogFailed.

    Records are made here and not on the loop: five hundred with their headers are a tenth of a second.
    """
    messages = _consume(consumer)
    return bool(messages), *_taken(messages, position, end)


def _consume(consumer: Consumer) -> list[Message]:
    """What is there. Asked for many messages at once, librdkafka would wait for the whole timeout to find more."""
    first = consumer.consume(1, POLL_SECONDS)
    return first + consumer.consume(BATCH, 0.0) if first else first


def _taken(messages: Sequence[Message], position: int, end: int) -> tuple[list[Record], int]:
    """The records below `end`, and where the reading stands. Raises LogFailed."""
    records: list[Record] = []
    for message in messages:
        error, offset = message.error(), message.offset() or 0
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF:
                if offset >= end:
                    return records, end  # what is missing below the end are gaps: markers, or compacted records
            elif not (error.retriable() or error.code() in _PASSING):
                raise LogFailed(reason(error))
            continue
        if offset >= end:
            return records, end
        records.append(record_of(message, offset))
        position = offset + 1
    return records, position


def record_of(message: Message, offset: int) -> Record:
    topic, partition = message.topic(), message.partition()
    assert topic is not None and partition is not None
    key: Any = message.key()
    value: Any = message.value()
    return Record(topic, partition, offset, message.timestamp()[1], key, value, read_headers(message))
