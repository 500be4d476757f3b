"""The broker of the benchmarks: a real Apache Kafka where Java and Maven are, else the embedded one."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol


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
                yield _Named(kafka, f"Apache Kafka {KAFKA}")
            finally:
                kafka.stop()
    else:
        from bridge.sandbox.broker import EmbeddedBroker

        with EmbeddedBroker() as mock:
            yield _Named(mock, "embedded broker")
