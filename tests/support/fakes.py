"""Fakes of the outside: a Kafka, a Meisa and a dead-letter topic that live in memory."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from bridge.errors import LetterNotWritten
from bridge.model import Assigned, Call, Letter, Outcome, Position, Record, TopicPartition, Verdict
from bridge.ports import SourceListener

DELIVERED = Outcome(Verdict.DELIVERED, 200)

Answer = Outcome | Awaitable[Outcome]


class FakeMeisa:
    """Answers after `latency` seconds with what `answer(call)` says; remembers who was served when."""

    def __init__(self, answer: Callable[[Call], Outcome] = lambda call: DELIVERED, latency: float = 0.05) -> None:
        self.answer = answer
        self.latency = latency
        self.calls: list[Call] = []
        """In the order in which they were sent."""
        self.done: list[Call] = []
        self.active = 0
        self.active_max = 0
        self.busy: Counter[str] = Counter()
        self.overlaps = 0

    async def send(self, call: Call) -> Outcome:
        self.calls.append(call)
        who = str((call.body or {}).get("email"))
        self.active += 1
        self.active_max = max(self.active, self.active_max)
        self.busy[who] += 1
        self.overlaps += self.busy[who] > 1
        try:
            await asyncio.sleep(self.latency)
            outcome = self.answer(call)
            self.done.append(call)
            return outcome
        finally:
            self.active -= 1
            self.busy[who] -= 1

    async def close(self) -> None:
        pass


class FakeSource:
    """One partition group member, fed by the test."""

    session_seconds = 45.0

    def __init__(self) -> None:
        self.listener: SourceListener | None = None
        self.committed: dict[TopicPartition, int] = {}
        self.metadata: dict[TopicPartition, str] = {}
        self.paused: set[TopicPartition] = set()
        self.pauses = 0
        self.commit_error: str | None = None
        self.answer_commits = True
        self.fresh = False
        self.stood = 0.0
        self.unanswered: list[Sequence[Position]] = []
        self.owned: list[TopicPartition] = []
        self.epoch = 0
        self.counts: dict[str, int] = {}
        self.closed = False

    def start(self, listener: SourceListener) -> None:
        self.listener = listener

    def assign(self, *names: TopicPartition, offset: int | None = 0) -> None:
        assert self.listener is not None
        self.epoch += 1
        self.owned += names
        self.listener.assigned(
            [
                Assigned(
                    name, self.epoch, self.committed.get(name, offset), self.metadata.get(name, ""), fresh=self.fresh
                )
                for name in names
            ]
        )

    def feed(self, records: Sequence[Record]) -> None:
        assert self.listener is not None
        self.listener.records([record._replace(epoch=self.epoch) for record in records])

    async def revoke(self, *names: TopicPartition) -> None:
        assert self.listener is not None
        await self.listener.revoked(names)
        for name in names:
            self.owned.remove(name)

    def lose(self, *names: TopicPartition) -> None:
        assert self.listener is not None
        self.listener.lost(names)
        for name in names:
            self.owned.remove(name)

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        self.paused.update(partitions)
        self.pauses += 1

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        self.paused.difference_update(partitions)

    def commit(self, positions: Sequence[Position]) -> None:
        if not self.answer_commits:
            self.unanswered.append(positions)
        else:
            asyncio.get_running_loop().call_later(0.008, self._settle, positions)

    def standstill(self) -> float:
        stood, self.stood = self.stood, 0.0
        return stood

    def log_ends(self) -> dict[TopicPartition, int]:
        return {}

    def partition_counts(self) -> dict[str, int]:
        return self.counts

    def _settle(self, positions: Sequence[Position]) -> None:
        assert self.listener is not None
        if self.commit_error is None:
            for position in positions:
                assert position.offset >= self.committed.get(position.partition, 0), "a commit moved backwards"
                self.committed[position.partition] = position.offset
                self.metadata[position.partition] = position.metadata
        self.listener.committed(positions, self.commit_error)

    async def close(self) -> None:
        if self.owned:
            await self.revoke(*self.owned)
        self.closed = True


class FakeLetters:
    """Keeps letters; refuses the first `refusals` writes."""

    def __init__(self, refusals: int = 0) -> None:
        self.letters: list[Letter] = []
        self.refusals = refusals

    async def write(self, letter: Letter) -> None:
        await asyncio.sleep(0.005)
        if self.refusals:
            self.refusals -= 1
            raise LetterNotWritten("the broker is away")
        self.letters.append(letter)

    async def close(self) -> None:
        pass


class CountingMeter:
    """Counts what is metered, by name and labels."""

    def __init__(self) -> None:
        self.counts: Counter[Any] = Counter()

    def consumed(self, topic: str, count: int) -> None:
        self.counts["consumed", topic] += count

    def finished(self, topic: str, outcome: str) -> None:
        self.counts["finished", str(outcome)] += 1

    def called(self, endpoint: str, status: str, seconds: float) -> None:
        self.counts["called", endpoint, status] += 1

    def saved(self, cause: str, count: int) -> None:
        self.counts["saved", cause] += count

    def delayed(self, lane: str, seconds: float) -> None:
        self.counts["delayed", str(lane)] += 1

    def dead_letter(self, kind: str, rule: str) -> None:
        self.counts["dead_letter", str(kind), rule] += 1

    def committed(self, result: str) -> None:
        self.counts["committed", result] += 1

    def rebalanced(self, kind: str) -> None:
        self.counts["rebalanced", kind] += 1

    def lost(self, topic: str, count: int) -> None:
        self.counts["lost", topic] += count

    def reloaded(self, result: str) -> None:
        self.counts["reloaded", result] += 1

    def letter_tried(self, result: str) -> None:
        self.counts["letter_tried", result] += 1

    def replayed(self, state: str) -> None:
        self.counts["replayed", str(state)] += 1
