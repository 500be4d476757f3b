"""When commits are asked for, what their answers mean, and when calls must not leave because none come.

The theory
    An acknowledged commit is two things: what an earlier owner did is told, and the group's word that the partitions
    were still ours when it was asked for. A word that is half a session timeout old proves nothing any more: another
    member may own them already. So before a call leaves there must be a younger one, whatever went on meanwhile: after
    an idle time, too, a commit is asked for first, because a fetch brings records also to a member that was expelled.
    After a standstill of this process only a new word counts. And calls stop leaving when more was done than an
    unanswered request may leave untold.

What may still go wrong: calls that left before the word failed to come are repeated by the next owner.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import structlog

from bridge.core.progress import DoesNotFit, encode
from bridge.model import Position, TopicPartition, Waiting
from bridge.ports import Clock, Meter, Source
from bridge.runtime.delivery import Delivery
from bridge.runtime.partition import Partition
from bridge.runtime.spend import Spend

log = structlog.get_logger(__name__)

COMMIT_INTERVAL_SECONDS = 0.1
"""At most this much finished work is unacknowledged, beside the commit under way (about 8 ms)."""

MARK_INTERVAL_SECONDS = 0.005
"""What waits for a commit before it leaves waits so long for others to join it."""

AFTER_REFUSAL_SECONDS = 1.0
"""During a rebalance the broker refuses for seconds."""

ACK_PATIENCE_SHARE = 0.5
"""Of the session timeout: when the last acknowledged commit was asked for so long ago, another member may own them. The
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


class Request(NamedTuple):
    """A commit that was asked for."""

    serial: int
    at: float
    """Monotonic."""
    endings: int
    """How many actions had ended by then."""


class Commits:
    """`commit` hands a request to Kafka, once what must last before it does.

    `answered` hears of each partition whose commit was answered; `failed` of an error that ends the service.
    """

    def __init__(
        self,
        *,
        source: Source,
        commit: Callable[[Sequence[Position]], None],
        clock: Clock,
        meter: Meter,
        delivery: Delivery,
        partitions: Mapping[TopicPartition, Partition],
        limit_bytes: int,
        answered: Callable[[Partition], None],
        settled: asyncio.Event,
        failed: Callable[[str], None],
        spend: Spend | None = None,
    ) -> None:
        self._spend = spend
        self._source = source
        self._commit_to_kafka = commit
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
        self._proven_at = 0.0
        """When (monotonic) the partitions were ours for certain."""
        self._waits_since: float | None = None
        """Since when calls are held until the partitions are known to be ours."""
        self._said_so = False
        self._endings = 0
        self._endings_told = 0
        self._asked: deque[Request] = deque(maxlen=ASKED_MAX)
        """Those that no acknowledgement has reached yet, oldest first."""
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
        spend = self._spend
        if spend is not None:
            self._plan(spend)
        for partition in partitions:
            due = partition.offsets.commit_due()
            if due is None:
                continue
            progress, unclaimed = partition.offsets.progress(partition.topic_hash)
            if spend is not None:
                progress = progress._replace(spend=spend.tell(partition.name))
            progress = progress._replace(assignment=self._delivery.unchanged.assignment(partition.name))
            try:
                metadata = encode(due, progress, self._limit_bytes, unclaimed)
            except DoesNotFit as error:
                self._give_up(partition, error)
                continue
            partition.offsets.commit_requested(due, metadata)
            if spend is not None:
                spend.asked(partition.name, metadata)
            positions.append(Position(partition.name, due, metadata, partition.epoch, self._serial))
        if positions:
            self._asked.append(Request(self._serial, self._clock.now(), self._endings))
            self._commit_to_kafka(positions)
        return bool(positions)

    def _plan(self, spend: Spend) -> None:
        """What calls may take of the quota is news that a commit has to tell before they leave."""

        def tellable(name: TopicPartition) -> bool:
            partition = self._partitions.get(name)
            return partition is not None and partition.offsets.frontier is not None

        for name in spend.plan(tellable):
            self._partitions[name].offsets.note_start()

    def short(self) -> None:
        """Calls wait for a commit that permits them."""
        if self._spend is not None:
            self._spend.short = True
            self.now()

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
                if self._spend is not None:
                    self._spend.settled(position.partition, position.metadata, acknowledged=error is None)
                self._answered(partition)
        self._last_ok = error is None
        if error is None:
            self._acknowledged(max((position.serial for position in positions), default=0))
        self._meter.committed("error" if error else "ok")
        if error:
            log.warning("a commit was refused; it is tried again, and nothing is lost", error=error)
        self._settled.set()
        hurry = any(partition.marks or partition.sights for partition in self._staying())
        if self._spend is not None and self._spend.short:
            hurry = True
            self._spend.short = False
            self._delivery.wake()
        if self._timer is None and any(each.offsets.commit_due() is not None for each in self._staying()):
            self._arm(AFTER_REFUSAL_SECONDS if error else MARK_INTERVAL_SECONDS if hurry else COMMIT_INTERVAL_SECONDS)

    def _acknowledged(self, serial: int) -> None:
        """What was asked for up to this serial is told, and was asked for by the owner."""
        asked_at = None
        while self._asked and self._asked[0].serial <= serial:
            request = self._asked.popleft()
            asked_at = request.at
            self._endings_told = max(self._endings_told, request.endings)
        if asked_at is not None and serial > self._proof_after:
            self.proven(asked_at)
        if self._too_much_untold and self.untold < UNTOLD_MAX:
            self._too_much_untold = False
            self._delivery.wake()

    def proven(self, at: float) -> None:
        """What is owned was ours at that moment: an acknowledged commit, or an assignment when we owned nothing."""
        self._proven_at = max(self._proven_at, at)
        if self._waits_since is not None and self._clock.now() - self._proven_at <= self._patience:
            self._waits_since = None
            if self._said_so:
                log.info("Kafka acknowledges commits again; calls leave again")
            self._said_so = False
            if not self.stopping:
                self._delivery.open()

    def nothing_owned(self) -> None:
        """Nothing can be acknowledged any more, and nothing told."""
        self._endings_told = self._endings
        self._asked.clear()

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
            return self._known_to_be_ours(self._clock.now())
        log.warning(
            "this process stood still, so another instance may own the partitions: no call leaves until Kafka has "
            "acknowledged a commit",
            seconds=round(seconds, 1),
        )
        self._said_so = True
        self._proof_after = self._serial
        self._hold(self._clock.now())
        return False

    @property
    def _patience(self) -> float:
        return self._source.session_seconds * ACK_PATIENCE_SHARE

    def _known_to_be_ours(self, now: float) -> bool:
        if self._waits_since is not None:
            return False
        if now - self._proven_at <= self._patience:
            return True
        self._hold(now)
        return False

    def _hold(self, now: float) -> None:
        """Nothing leaves until a commit that is asked for from now on is acknowledged."""
        if self._waits_since is None:
            self._waits_since = now
        self._delivery.hold()
        self.ask()
        self._say_so(now)

    def _say_so(self, now: float) -> None:
        """Tells an operator once, where the wait is more than the few milliseconds of an answer."""
        assert self._waits_since is not None
        since = min(self._asked[0].at, self._waits_since) if self._asked else self._waits_since
        if not self._said_so and now - since > self._patience:
            self._said_so = True
            log.error(
                "Kafka has acknowledged no commit for half of a session timeout, so another instance may own the "
                "partitions: no call leaves until it does",
                seconds=round(now - since),
            )

    def look(self, now: float) -> None:
        """Now and then: is somebody else possibly the owner."""
        if self._waits_since is not None:
            self._say_so(now)
            self.ask()
        elif self._delivery.pending:
            # Work that waits for its quota would find the last word too old each time.
            self.ask()
            if self._asked and now - self._asked[0].at > self._patience:
                self._known_to_be_ours(now)

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

    def _give_up(self, partition: Partition, error: DoesNotFit) -> None:
        message = (
            f"the progress of {partition.name} does not fit into kafka.offset_metadata_max_bytes ({error}): set it "
            "back to the value under which it was written, until the work that it tells of is done"
        )
        log.error("the service ends, and nothing that was not committed is lost", error=message)
        self._failed(message)

    def waiting(self) -> list[Waiting]:
        """Why calls wait for commits."""
        if self._waits_since is not None:
            return [Waiting("commits", 0, detail="Kafka acknowledges none")]
        if self._too_much_untold:
            return [Waiting("commits", self.untold, detail="endings that no acknowledged commit tells of")]
        return []
