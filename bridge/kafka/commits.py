"""Commits of one consumer: one in flight at a time, each answered exactly once.

One at a time, because librdkafka repeats a commit that met a passing error: with two in flight an older one could
land after a newer one and take the frontier back. A round trip takes about 8 ms, and whoever commits often unites
what has piled up meanwhile.

Everything but `submit` happens on the polling thread: confluent-kafka 2.16 lets a call from another thread wait until
the poll under way has ended. In normal work commits are asynchronous and their acknowledgement comes out of a poll.
While partitions are being revoked there is no poll, and the listener may be waiting for exactly that acknowledgement;
then `settle` carries them out synchronously, the one in flight once more (the same offsets: harmless).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from bridge.kafka.properties import reason
from bridge.model import Position, TopicPartition

WAITING_MAX = 1_000
"""Requests that wait for their turn: at 8 ms each eight seconds' worth. More means that nobody waits for answers."""

Report = Callable[[Sequence[Position], str | None], None]


class Commits:
    """`submit` never blocks and may be called from any thread; `report` is called once for every position."""

    def __init__(self, owned: Callable[[Position], bool], report: Report) -> None:
        self._owned = owned
        self._report = report
        self._lock = threading.Lock()
        self._waiting: deque[Sequence[Position]] = deque()
        self._in_flight: Sequence[Position] | None = None
        self._closed = ""

    def submit(self, positions: Sequence[Position]) -> None:
        with self._lock:
            refused = self._closed
            if not refused and len(self._waiting) >= WAITING_MAX:
                refused = f"{WAITING_MAX} commits are waiting already"
            if not refused:
                self._waiting.append(positions)
        if refused:
            self._report(positions, refused)

    @property
    def idle(self) -> bool:
        return self._in_flight is None and not self._waiting

    def send_next(self, consumer: Consumer) -> None:
        """Sends the oldest request, unless one is in flight."""
        while self._in_flight is None and (positions := self._take()) is not None:
            if not positions:
                continue
            self._in_flight = positions
            try:
                consumer.commit(offsets=_offsets(positions), asynchronous=True)
            except KafkaException as error:
                self._in_flight = None
                self._report(positions, reason(error.args[0]))

    def answered(self, error: KafkaError | None, offsets: Sequence[KafkaPartition]) -> None:
        """librdkafka's on_commit. The late answer to a commit that `settle` has repeated finds no one waiting."""
        positions = self._in_flight
        # librdkafka answers in an order of its own.
        if positions is None or {_key(offset) for offset in offsets} != {position[:3] for position in positions}:
            return
        self._in_flight = None
        self._answer(positions, error, offsets)

    def settle(self, consumer: Consumer, deadline: float) -> None:
        """Carries out all that was asked for, now. What is not begun before `deadline` (monotonic) is refused."""
        positions, self._in_flight = self._in_flight, None
        if positions is not None and (positions := self._still_ours(positions)):
            self._commit_now(consumer, positions, deadline)
        while (positions := self._take()) is not None:
            if positions:
                self._commit_now(consumer, positions, deadline)

    def close(self, why: str) -> None:
        """Refuses what has had no answer, and whatever comes later."""
        with self._lock:
            self._closed = why
            rest = list(self._waiting)
            self._waiting.clear()
            if self._in_flight is not None:
                rest.insert(0, self._in_flight)
                self._in_flight = None
        for positions in rest:
            self._report(positions, why)

    def _take(self) -> Sequence[Position] | None:
        """The oldest request's positions that are still ours; None when no request waits."""
        with self._lock:
            if not self._waiting:
                return None
            positions = self._waiting.popleft()
        return self._still_ours(positions)

    def _still_ours(self, positions: Sequence[Position]) -> Sequence[Position]:
        # The broker takes a commit from any member for any partition: only we know that a partition has gone, or has
        # gone and come back, with another owner's commits or another log's offsets in between.
        gone = [position for position in positions if not self._owned(position)]
        if gone:
            self._report(gone, "not assigned to this consumer any more")
        return [position for position in positions if self._owned(position)]

    def _commit_now(self, consumer: Consumer, positions: Sequence[Position], deadline: float) -> None:
        if time.monotonic() >= deadline:
            self._report(positions, "no time was left to commit before the partitions had to go")
            return
        try:
            answers = consumer.commit(offsets=_offsets(positions), asynchronous=False)
        except KafkaException as error:
            # Some of them may have been committed nevertheless: reported as refused, they are merely repeated.
            self._report(positions, reason(error.args[0]))
        else:
            self._answer(positions, None, answers)

    def _answer(
        self, positions: Sequence[Position], error: KafkaError | None, offsets: Sequence[KafkaPartition]
    ) -> None:
        errors = {(o.topic, o.partition): reason(o.error) for o in offsets if o.error is not None}
        if error is not None and not errors:
            self._report(positions, reason(error))
            return
        good = [position for position in positions if position.partition not in errors]
        if good:
            self._report(good, None)
        for position in positions:
            if position.partition in errors:
                self._report([position], errors[position.partition])


def _offsets(positions: Sequence[Position]) -> list[KafkaPartition]:
    return [KafkaPartition(tp.topic, tp.partition, offset, metadata) for tp, offset, metadata, *_ in positions]


def _key(answer: KafkaPartition) -> tuple[TopicPartition, int, str]:
    return TopicPartition(answer.topic, answer.partition), answer.offset, answer.metadata or ""
