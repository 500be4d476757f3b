"""A member of a consumer group for as long as a block lasts."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from bridge.kafka.consumer import KafkaSource
from tests.support.kafka import Cluster
from tests.support.listening import Listening

# Where the mock's fetches would wait: it does not end a long poll when a record comes.
QUICK = {"fetch.wait.max.ms": "50"}


@asynccontextmanager
async def member(
    kafka: Cluster,
    group: str,
    topics: dict[str, str] | str,
    listener: Listening | None = None,
    properties: dict[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[tuple[KafkaSource, Listening]]:
    """A member of the group for as long as the block lasts."""
    listener = listener or Listening()
    starts = {topics: "earliest"} if isinstance(topics, str) else topics
    options = {"revoke_seconds": 10.0, "close_seconds": 15.0, **options}
    source = KafkaSource(kafka.bootstrap_servers, group, starts, {**QUICK, **(properties or {})}, **options)
    source.start(listener)
    try:
        yield source, listener
    finally:
        await source.close()


class Lost(Counter[str]):
    """Counts lost offsets by topic."""

    def __call__(self, topic: str, count: int) -> None:
        self[topic] += count
