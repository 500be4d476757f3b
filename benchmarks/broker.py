"""The broker of the benchmarks: a real Apache Kafka where Java and Maven are, else the embedded one."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from confluent_kafka import Consumer, KafkaException, TopicPartition


class Broker(Protocol):
    bootstrap_servers: str
    words: str

    def create_topic(self, name: str, partitions: int) -> None: ...


class _Named:
    def __init__(self, real: object, words: str) -> None:
        self._real = real
        self.words = words
        self.bootstrap_servers = real.bootstrap_servers  # type: ignore[attr-defined]

    def create_topic(self, name: str, partitions: int) -> None:
        self._real.create_topic(name, partitions)  # type: ignore[attr-defined]


def _warm(bootstrap_servers: str) -> None:
    """A broker's first group ever makes it create its offsets topic, which takes a second: not what is measured."""
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "warm", "log_level": 3})
    deadline = time.monotonic() + 30
    try:
        while time.monotonic() < deadline:
            try:
                consumer.committed([TopicPartition("none", 0)], timeout=5)
                return
            except KafkaException:
                time.sleep(0.2)
    finally:
        consumer.close()


@contextmanager
def broker(*, embedded: bool) -> Iterator[Broker]:
    """Starts a broker for the length of the block."""
    if not embedded and shutil.which("java") and shutil.which("mvn"):
        from tests.support.kafka import KAFKA, RealKafka, kafka_libs

        with tempfile.TemporaryDirectory() as folder:
            # Kafka's own timers, not the tests' short ones: the start is measured too.
            timers = {"group.consumer.heartbeat.interval.ms": "5000", "group.consumer.session.timeout.ms": "45000"}
            kafka = RealKafka(kafka_libs(), Path(folder), **timers)
            try:
                _warm(kafka.bootstrap_servers)
                yield _Named(kafka, f"Apache Kafka {KAFKA}")
            finally:
                kafka.stop()
    else:
        from bridge.sandbox.broker import EmbeddedBroker

        with EmbeddedBroker() as mock:
            yield _Named(mock, "embedded broker")
