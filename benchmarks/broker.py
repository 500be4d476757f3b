"""The broker of the benchmarks: a real Apache Kafka where Java and Maven are, else the embedded one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
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
        from tests.support.kafka import RealKafka

        with RealKafka() as kafka:
            yield _Named(kafka, "Apache Kafka 4.1.1")
    else:
        from bridge.sandbox.broker import EmbeddedBroker

        with EmbeddedBroker() as mock:
            yield _Named(mock, "embedded broker")
