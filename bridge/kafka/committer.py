"""Commits, one after the other, in a thread of their own.

Why not `commit(asynchronous=True)` on the polling thread: its acknowledgement is a callback that only a poll serves,
and while partitions are being revoked that thread does not poll but waits for a listener which may itself be waiting
for exactly this acknowledgement. Here nothing that the listener waits for ever waits for the polling thread
(delivery.md, 19). One at a time keeps acknowledgements in the order of the requests; a round trip takes about 8 ms,
and whoever commits often unites what has piled up meanwhile.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

from confluent_kafka import Consumer, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from bridge.kafka.properties import reason
from bridge.model import Position, TopicPartition

WAITING_MAX = 1_000
"""Requests that wait for their turn: at 8 ms each eight seconds' worth. More means that nobody waits for answers."""

Report = Callable[[Sequence[Position], str | None], None]


class Committer:
    """`submit` never blocks; `report` is called from the committing thread, once for every request's positions."""

    def __init__(self, consumer: Consumer, owned: Callable[[TopicPartition], bool], report: Report) -> None:
        self._consumer = consumer
        self._owned = owned
        self._report = report
        self._changed = threading.Condition()
        self._waiting: deque[Sequence[Position]] = deque()
        self._busy = False
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="kafka-commits", daemon=True)
        self._thread.start()

    def submit(self, positions: Sequence[Position]) -> None:
        with self._changed:
            refused = None
            if self._stopping:
                refused = "the consumer is closed"
            elif len(self._waiting) >= WAITING_MAX:
                refused = f"{WAITING_MAX} commits are waiting already"
            else:
                self._waiting.append(positions)
                self._changed.notify_all()
        if refused:
            self._report(positions, refused)

    def flush(self, timeout_seconds: float) -> bool:
        """Waits until all that was submitted has been answered; False if that took too long."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting and not self._busy, timeout_seconds)

    def stop(self, timeout_seconds: float) -> bool:
        """Takes no more, lets the one under way end, and refuses the rest; False if it did not end in time.

        Must come before the consumer is destroyed: a commit that is still under way then would use freed memory.
        """
        with self._changed:
            self._stopping = True
            rest = list(self._waiting)
            self._waiting.clear()
            self._changed.notify_all()
        for positions in rest:
            self._report(positions, "the consumer is closed")
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._waiting or self._stopping)
                if not self._waiting:
                    return
                positions = self._waiting.popleft()
                self._busy = True
            self._commit(positions)

    def _commit(self, positions: Sequence[Position]) -> None:
        # The broker takes a commit from any member for any partition: only we know that a partition has gone.
        gone = [position for position in positions if not self._owned(position.partition)]
        if gone:
            self._report(gone, "not assigned to this consumer any more")
            positions = [position for position in positions if self._owned(position.partition)]
        if not positions:
            return
        offsets = [
            KafkaPartition(tp.topic, tp.partition, offset, metadata) for tp, offset, metadata in positions
        ]
        try:
            answers = self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            # Some of them may have been committed nevertheless: reported as refused, they are merely sent again.
            self._report(positions, reason(error.args[0]))
            return
        except Exception as error:
            self._report(positions, f"{type(error).__name__}: {error}")
            return
        errors = {TopicPartition(a.topic, a.partition): reason(a.error) for a in answers if a.error is not None}
        good = [position for position in positions if position.partition not in errors]
        if good:
            self._report(good, None)
        for position in positions:
            if position.partition in errors:
                self._report([position], errors[position.partition])
