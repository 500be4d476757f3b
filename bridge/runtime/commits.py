"""When commits are asked for, what their answers mean, and when calls must not leave because none come.

The theory
    An acknowledged commit is two things: what an earlier owner did is told, and the group's word that the partitions
    are still ours. Without such a word another member may own them already, so calls stop leaving: after a standstill
    of this process at once, after half of a session timeout without an answer, and when more was done than an
    unanswered request may leave untold.

What may still go wrong: calls that left before the word failed to come are repeated by the next owner.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence

import structlog

from bridge.core.progress import DoesNotFit, encode
from bridge.model import Position, TopicPartition, Waiting
from bridge.ports import Clock, Meter, Source
from bridge.runtime.delivery import Delivery
from bridge.runtime.partition import Partition

log = structlog.get_logger(__name__)

COMMIT_INTERVAL_SECONDS = 0.1
"""At most this much finished work is unacknowledged, beside the commit under way (about 8 ms)."""

MARK_INTERVAL_SECONDS = 0.005
"""What waits for a commit before it leaves waits so long for others to join it."""

AFTER_REFUSAL_SECONDS = 1.0
"""During a rebalance the broker refuses for seconds."""

ACK_PATIENCE_SHARE = 0.5
"""Of the session timeout: without an acknowledged commit for so long another member may soon own the partitions. The
group counts from the last heartbeat, which is up to an interval older than the last acknowledgement, and intervals are
up to a third of the timeout: two thirds are left, and a busy machine may be late itself."""

STANDSTILL_SECONDS = 2.0
"""Without a poll for so long this process may have been suspended. A false alarm costs one commit (8 ms)."""

COMMIT_ATTEMPTS_AT_REVOCATION = 3
"""A commit that a rebalance refuses must not block the revocation; the next owner repeats what it covered."""

UNTOLD_MAX = 500
"""Endings of actions since the last request that was acknowledged: what an instance that was cut off may do for its
successor to repeat. At half of it a commit is asked for at once, so that the bound is met only when none is answered:
250 more endings within the 13 ms of a commit would be 19,000 calls a second."""

ASKED_MAX = 256
"""Requests remembered until they are answered: one under way per partition, and those of a revocation."""


class Commits:
    """`answered` hears of each partition whose commit was answered; `failed` of an error that ends the service."""

    def __init__(
        self,
        *,
        source: Source,
        clock: Clock,
        meter: Meter,
        delivery: Delivery,
        partitions: Mapping[TopicPartition, Partition],
        limit_bytes: int,
        answered: Callable[[Partition], None],
        settled: asyncio.Event,
        failed: Callable[[str], None],
    ) -> None:
        self._source = source
        self._clock = clock
        self._meter = meter
        self._delivery = delivery
        self._partitions = partitions
        self._limit_bytes = limit_bytes
        self._answered = answered
        self._settled = settled
        self._failed = failed
        self._timer: asyncio.TimerHandle | None = None
        self._last_ok = True
        self._serial = 0
        self._proof_after = 0
        """Only the acknowledgement of a later request proves that the partitions are still ours."""
        self._unacknowledged_since: float | None = None
        self._waits_for_kafka = False
        self._endings = 0
        self._endings_told = 0
        self._asked: deque[tuple[int, int]] = deque(maxlen=ASKED_MAX)
        """Requests: their serial, and how many endings there were then."""
        self._too_much_untold = False
        self.stopping = False

    # Asking

    def soon(self, partition: Partition) -> None:
        if self._timer is None and not partition.closing:
            self._arm(COMMIT_INTERVAL_SECONDS)

    def now(self) -> None:
        """For what waits for the commit: earlier than the usual interval would have it, but never later."""
        due = asyncio.get_running_loop().time() + MARK_INTERVAL_SECONDS
        if self._timer is None or self._timer.when() > due:
            self._arm(MARK_INTERVAL_SECONDS)

    def _arm(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._commit)

    def _commit(self) -> None:
        self._timer = None
        if not self._request(self._staying()):
            self._ask_for_room()

    def _staying(self) -> list[Partition]:
        return [partition for partition in self._partitions.values() if not partition.closing]

    def _request(self, partitions: Iterable[Partition]) -> bool:
        """Asks for a commit of every partition that has news; True where there was one."""
        positions = []
        self._serial += 1
        for partition in partitions:
            due = partition.offsets.commit_due()
            if due is None:
                continue
            progress, unclaimed = partition.offsets.progress(partition.topic_hash)
            try:
                metadata = encode(due, progress, self._limit_bytes, unclaimed)
            except DoesNotFit as error:
                self._give_up(partition, error)
                continue
            partition.offsets.commit_requested(due, metadata)
            positions.append(Position(partition.name, due, metadata, partition.epoch, self._serial))
        if positions:
            if self._unacknowledged_since is None:
                self._unacknowledged_since = self._clock.now()
            self._asked.append((self._serial, self._endings))
            self._source.commit(positions)
        return bool(positions)

    def ask(self) -> None:
        """A commit without news, as a question whether the partitions are ours."""
        for partition in self._partitions.values():
            partition.offsets.note_start()
        self._request(self._staying())

    async def last(self, leaving: Sequence[Partition]) -> None:
        """Commits the frontiers of partitions that go away; a refusal is tried again, but never for long."""
        for partition in leaving:
            partition.offsets.commit_forgotten()
        for _ in range(COMMIT_ATTEMPTS_AT_REVOCATION):
            if not self._request(leaving):
                return
            while any(partition.offsets.commit_under_way for partition in leaving):
                self._settled.clear()
                await self._settled.wait()
            await asyncio.sleep(0 if self._last_ok else 0.2)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    # Answers

    def settle(self, positions: Sequence[Position], error: str | None) -> None:
        """The broker has answered."""
        for position in positions:
            partition = self._partitions.get(position.partition)
            if partition is not None and partition.epoch == position.epoch:
                partition.offsets.commit_settled(position.offset, position.metadata, acknowledged=error is None)
                self._answered(partition)
        self._last_ok = error is None
        if error is None:
            self._note_told(max((position.serial for position in positions), default=0))
            if any(position.serial > self._proof_after for position in positions):
                self.heard_of_kafka()
        self._meter.committed("error" if error else "ok")
        if error:
            log.warning("a commit was refused; it is tried again, and nothing is lost", error=error)
        self._settled.set()
        if self._timer is None and any(each.offsets.commit_due() is not None for each in self._staying()):
            hurry = any(partition.marks or partition.sights for partition in self._staying())
            self._arm(AFTER_REFUSAL_SECONDS if error else MARK_INTERVAL_SECONDS if hurry else COMMIT_INTERVAL_SECONDS)

    def heard_of_kafka(self) -> None:
        """The group's word that what we own is ours: an acknowledged commit, or an assignment when we owned nothing."""
        self._unacknowledged_since = None
        if self._waits_for_kafka:
            self._waits_for_kafka = False
            log.info("Kafka acknowledges commits again; calls leave again")
            if not self.stopping:
                self._delivery.open()

    def nothing_owned(self) -> None:
        """Nothing can be acknowledged any more, and nothing told."""
        self._unacknowledged_since = None
        self._endings_told = self._endings

    # Whether calls may leave

    def may_leave(self) -> bool:
        """Whether calls may be decided on."""
        return self.still_ours() and (not self._partitions or self._enough_told())

    def still_ours(self) -> bool:
        """False after a standstill: answers in the sockets are handled before the news that others took over."""
        seconds = self._source.standstill()
        if not self._partitions:
            return True
        if seconds <= STANDSTILL_SECONDS:
            return not self.unheard_of(self._clock.now())
        log.warning(
            "this process stood still, so another instance may own the partitions: no call leaves until Kafka has "
            "acknowledged a commit",
            seconds=round(seconds, 1),
        )
        self._waits_for_kafka = True
        self._delivery.hold()
        self._proof_after = self._serial
        self.ask()
        return False

    def unheard_of(self, now: float) -> bool:
        """Whether Kafka has acknowledged nothing for so long that calls must not leave."""
        since = self._unacknowledged_since
        if since is None or now - since <= self._source.session_seconds * ACK_PATIENCE_SHARE:
            return False
        if not self._waits_for_kafka:
            self._waits_for_kafka = True
            self._delivery.hold()
            log.error(
                "Kafka has acknowledged no commit for half of a session timeout, so another instance may own the "
                "partitions: no call leaves until it does",
                seconds=round(now - since),
            )
        return True

    def look(self, now: float) -> None:
        """Now and then: is somebody else possibly the owner."""
        self.unheard_of(now)
        if self._waits_for_kafka or (self._delivery.pending and self._unacknowledged_since is None):
            # A partition that came back with nothing to tell would ask nothing, and so would work that waits for its
            # quota: it must not go on when the way to Kafka was cut meanwhile.
            self.ask()

    # How much is untold

    def ended(self) -> None:
        """An action is out."""
        self._endings += 1
        if self.untold >= UNTOLD_MAX // 2 and self._partitions:
            self.now()

    @property
    def untold(self) -> int:
        """Endings of actions since the last request that was acknowledged."""
        return self._endings - self._endings_told

    def _enough_told(self) -> bool:
        if self.untold < UNTOLD_MAX:
            return True
        self._too_much_untold = True
        if self._timer is None:
            self._ask_for_room()
        return False

    def _ask_for_room(self) -> None:
        """Where what ended is news of no partition, a question is answered too: of one that went, or letters wait."""
        if self._too_much_untold and not any(each.offsets.commit_under_way for each in self._staying()):
            self.ask()

    def _note_told(self, serial: int) -> None:
        while self._asked and self._asked[0][0] <= serial:
            self._endings_told = max(self._endings_told, self._asked.popleft()[1])
        if self._too_much_untold and self.untold < UNTOLD_MAX:
            self._too_much_untold = False
            self._delivery.wake()

    def _give_up(self, partition: Partition, error: DoesNotFit) -> None:
        message = (
            f"the progress of {partition.name} does not fit into kafka.offset_metadata_max_bytes ({error}): set it "
            "back to the value under which it was written, until the work that it tells of is done"
        )
        log.error("the service ends, and nothing that was not committed is lost", error=message)
        self._failed(message)

    def waiting(self) -> list[Waiting]:
        """Why calls wait for commits."""
        if self._waits_for_kafka:
            return [Waiting("commits", 0, detail="Kafka acknowledges none")]
        if self._too_much_untold:
            return [Waiting("commits", self.untold, detail="endings that no acknowledged commit tells of")]
        return []
