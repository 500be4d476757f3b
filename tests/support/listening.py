"""A SourceListener that remembers everything in order, for tests of a Source."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from bridge.model import Assigned, Position, Record, TopicPartition

WAIT_SECONDS = 20.0
"""Never reached by a test that passes; generous because machines are busy."""


class Listening:
    """`events` holds (name, argument) in the order of the calls; `until` waits for a condition on all of it."""

    def __init__(self, on_revoked: Callable[[Sequence[TopicPartition]], Awaitable[None]] | None = None) -> None:
        self.events: list[tuple[str, Any]] = []
        self.got: list[Record] = []
        self.owned: dict[TopicPartition, Assigned] = {}
        self.commits: list[tuple[tuple[Position, ...], str | None]] = []
        self.failures: list[tuple[str, bool]] = []
        self._on_revoked = on_revoked
        self._changed = asyncio.Event()

    def _note(self, name: str, what: Any) -> None:
        self.events.append((name, what))
        self._changed.set()

    def assigned(self, partitions: Sequence[Assigned]) -> None:
        self.owned.update({each.partition: each for each in partitions})
        self._note("assigned", tuple(partitions))

    def records(self, batch: Sequence[Record]) -> None:
        self.got.extend(batch)
        self._note("records", tuple(batch))

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        self._note("revoked", tuple(partitions))
        if self._on_revoked is not None:
            await self._on_revoked(partitions)
        for each in partitions:
            self.owned.pop(each, None)
        self._note("released", tuple(partitions))

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        for each in partitions:
            self.owned.pop(each, None)
        self._note("lost", tuple(partitions))

    def removed(self, partition: TopicPartition, start: int) -> None:
        self._note("removed", (partition, start))

    def committed(self, positions: Sequence[Position], error: str | None) -> None:
        self.commits.append((tuple(positions), error))
        self._note("committed", (tuple(positions), error))

    def failed(self, message: str, *, fatal: bool) -> None:
        self.failures.append((message, fatal))
        self._note("failed", (message, fatal))

    async def until(self, condition: Callable[[], object], what: str = "") -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            try:
                while not condition():
                    self._changed.clear()
                    await self._changed.wait()
            except asyncio.CancelledError:
                raise AssertionError(f"never happened: {what or condition}; events: {self.names()[-12:]}") from None

    async def until_records(self, count: int) -> None:
        await self.until(lambda: len(self.got) >= count, f"{count} records, got {len(self.got)}")

    async def until_owned(self, count: int) -> None:
        await self.until(lambda: len(self.owned) == count, f"{count} partitions, own {list(self.owned)}")

    async def until_answered(self, count: int = 1) -> None:
        await self.until(lambda: len(self.commits) >= count, f"{count} answered commits")

    def names(self) -> list[str]:
        return [name for name, _ in self.events]

    def offsets(self, topic: str, partition: int = 0) -> list[int]:
        return [record.offset for record in self.got if (record.topic, record.partition) == (topic, partition)]
