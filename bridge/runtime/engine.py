"""The service while it runs: what is assigned, what is taken in, what is committed; the stations of the path.

The engine is the source's listener and the pipeline's line. It owns the windows of the assigned partitions: it takes
records in while they fit, holds and pauses where they do not, lets offsets finish, and commits frontiers.

What may still go wrong, and what then: a commit that is never acknowledged makes the next owner read again from the
last acknowledged one; a bug in a record's path leaves its offset open, is logged once with its place, and the record
comes again after a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

import structlog

from bridge.core.offsets import PartitionOffsets
from bridge.core.progress import decode as decode_progress
from bridge.core.progress import digest, started_limit, window_limit
from bridge.core.progress import encode as encode_progress
from bridge.model import (
    Action,
    Assigned,
    Ending,
    Event,
    Kind,
    Letter,
    Plan,
    Position,
    Record,
    Result,
    TopicPartition,
    Waiting,
    action_id,
)
from bridge.pipeline import carry
from bridge.ports import Clock, Letters, Meter, Source
from bridge.runtime.burial import Burial
from bridge.runtime.completion import Completion, start
from bridge.runtime.delivery import Delivery
from bridge.runtime.marks import StartMarks
from bridge.runtime.partition import Partition

log = structlog.get_logger(__name__)

Decode = Callable[[Record], Event | None]

PENDING_MAX = 50_000
"""Actions waiting over all partitions: about 2 KB each, so about 100 MB, whatever the number of partitions."""

RESUME_AT = 0.5
"""A paused partition resumes once its window is half empty: pausing drops librdkafka's prefetch, so it must be rare."""

COMMIT_INTERVAL_SECONDS = 0.1
"""At most this much finished work is unacknowledged, beside the commit under way (about 8 ms)."""

MARK_INTERVAL_SECONDS = 0.005
"""A trigger waits for its mark's commit; so long others may join that commit."""

ACK_PATIENCE_SHARE = 0.75
"""Of the session timeout: without an acknowledged commit for so long another member may soon own the partitions. The
group counts from the last heartbeat, which may be a heartbeat interval older than the last acknowledgement."""

STANDSTILL_SECONDS = 2.0
"""Without a poll for so long this process may have been suspended. A false alarm costs one commit (8 ms)."""

LOOK_SECONDS = 10.0
"""Between looks for frontiers that stand still."""

COMMIT_SECONDS_AT_REVOCATION = 3.0
"""Kept of the budget for the last commit; a quarter of a budget that is shorter than twelve seconds."""

COMMIT_ATTEMPTS_AT_REVOCATION = 3
"""A commit that a rebalance refuses must not block the revocation; the next owner repeats what it covered."""


class Engine:
    """See the module's text. `opened` hears of the first assignment; `failed` of an error that ends the service."""

    def __init__(
        self,
        *,
        group: str,
        decoders: Mapping[str, Decode],
        plan: Callable[[Event], Plan],
        source: Source,
        letters: Letters,
        clock: Clock,
        meter: Meter,
        delivery: Delivery,
        revoke_seconds: float = 20.0,
        failed: Callable[[str], None] = lambda message: None,
        window_max: int | None = None,
        metadata_bytes_max: int = 4096,
        pending_max: int = PENDING_MAX,
        stop_at: tuple[float, int] = (0.2, 500),
    ) -> None:
        self._group = group
        self._decoders = decoders
        self.plan = plan  # a station of the line
        self._source = source
        self._clock = clock
        self._meter = meter
        self._delivery = delivery
        self._marks = StartMarks(
            owned=self._owned,
            identify=self.identify,
            clock=clock,
            started_max=started_limit(metadata_bytes_max),
            commit_now=self._commit_now,
            commit_soon=self._commit_soon,
        )
        self._settled = asyncio.Event()
        self.burial = Burial(
            letters,
            topics=decoders,
            stop_at=stop_at,
            owned=self._owned,
            clock=clock,
            meter=meter,
            settled=self._settled.set,
        )
        delivery.part_done = self._part_done
        delivery.marks = self._marks
        delivery.left = self._room_made
        delivery.may_leave = self._may_leave
        self._revoke_seconds = revoke_seconds
        self._failed = failed
        self._metadata_bytes_max = metadata_bytes_max
        self._window_max = window_max or window_limit(metadata_bytes_max)
        self._pending_max = pending_max
        self.partitions: dict[TopicPartition, Partition] = {}
        self._arrived_wall = 0.0
        """When the record came that is being taken."""
        self._unacknowledged_since: float | None = None
        self._waits_for_kafka = False
        self._serial = 0
        self._proof_after = 0
        """Only the acknowledgement of a later request proves that the partitions are still ours."""
        self._stopping = False
        self._look_timer: asyncio.TimerHandle | None = None
        self._full = False
        self._commit_timer: asyncio.TimerHandle | None = None
        self._last_commit_ok = True
        self._broken_places: set[str] = set()
        self.joined = False
        self.kafka_trouble = ""
        """What the source last complained about; empty while all is well."""

    # The line: stations of the path (pipeline.py)

    def decode(self, record: Record) -> Event | None:
        return self._decoders[record.topic](record)

    def too_old(self, action: Action, event: Event) -> bool:
        max_age = action.handling.max_age_seconds
        # Held records were read earlier than now: what became too old here is no history, and must not end silently.
        if max_age is None or self._arrived_wall - event.time_wall_seconds <= max_age:
            return False
        # A trigger that started before a restart is not history: what became of it is unknown, and somebody must know.
        return self._marks.started_wall(event.record, action) is None

    def done_before(self, record: Record, action: Action) -> bool:
        partition = self._owned(record)
        if partition is None:
            return False
        offsets = partition.offsets
        if record.offset not in offsets.delivered and record.offset not in offsets.started:
            return False
        return offsets.was_delivered(record.offset, digest(self.identify(record, action)))

    def deliver(self, event: Event, actions: Sequence[Action], *, alone: bool) -> Completion[Sequence[Result]]:
        return self._delivery.deliver(event, actions, alone=alone)

    def identify(self, record: Record, action: Action) -> str:
        return action_id(self._group, record, action)

    def bury(self, letter: Letter) -> Completion[None]:
        return self.burial.bury(letter)

    def resume_topic(self, topic: str) -> None:
        """Goes on with a topic that its dead letters had stopped."""
        self.burial.resume(topic)
        for partition in list(self.partitions.values()):
            if partition.name.topic == topic:
                self._let_in(partition)

    def finish(self, record: Record, ending: Ending) -> None:
        partition = self._owned(record)
        if partition is None or not partition.offsets.finish(record.offset):
            return  # of an older assignment: its new owner has it
        self._meter.finished(record.topic, ending)
        self.burial.finished(record, partition)
        if partition.unmarked:
            self._marks.make_room(partition)
        self._commit_soon(partition)
        if partition.paused or self._full:
            self._let_in(partition)
        if partition.closing:
            self._settled.set()

    def _part_done(self, record: Record, action: Action) -> None:
        partition = self._owned(record)
        if partition is not None:
            name = digest(self.identify(record, action))
            if action.kind is Kind.TRIGGER:
                partition.offsets.note_trigger_delivered(record.offset, name)
            else:
                partition.offsets.note_delivered(record.offset, name)
            self._commit_soon(partition)

    # The source's listener

    def assigned(self, partitions: Sequence[Assigned]) -> None:
        if not self.partitions:
            self._heard_of_kafka()
        for new in partitions:
            offsets = PartitionOffsets(start=new.offset, window_max=self._window_max)
            if new.offset is not None and new.metadata:
                committed = new.offset if new.committed is None else new.committed
                progress = decode_progress(committed, new.metadata)
                if progress is not None:
                    offsets.restore(progress)
                else:
                    log.warning(
                        "the text beside the committed offset is not this version's progress and is ignored; "
                        "what was done beyond that offset is done again",
                        partition=str(new.partition),
                        offset=new.offset,
                    )
            partition = self.partitions[new.partition] = Partition(new.partition, new.epoch, offsets)
            if new.fresh:
                offsets.note_start()
                self._commit_soon(partition)
        self.joined = True
        self.kafka_trouble = ""
        if self._look_timer is None:
            self._look_timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)
        self._meter.rebalanced("assigned")
        log.info("partitions assigned; their events are taken in from here", partitions=_names(partitions))

    def records(self, batch: Sequence[Record]) -> None:
        counts: dict[str, int] = {}
        wall = self._clock.wall()
        self.kafka_trouble = ""
        for record in batch:
            partition = self._owned(record)
            if partition is None:
                continue
            counts[record.topic] = counts.get(record.topic, 0) + 1
            if partition.held or not self._fits(partition, record):
                partition.held.append((record, wall))
                self._pause(partition)
            else:
                self._take(partition, record, wall)
        for topic, count in counts.items():
            self._meter.consumed(topic, count)

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Drops what is unsent, waits for what is in flight, commits; the budget bounds all of it together.

        The commit has a part of the budget to itself: one call that hangs must not make the others repeat.
        """
        leaving = [self.partitions[name] for name in partitions if name in self.partitions]
        for partition in leaving:
            partition.closing = True
            partition.held.clear()
            self._marks.drop(partition)
        names = [partition.name for partition in leaving]
        commit_seconds = min(COMMIT_SECONDS_AT_REVOCATION, self._revoke_seconds / 4)
        try:
            async with asyncio.timeout(self._revoke_seconds - commit_seconds):
                self._delivery.withdraw(names)
                await self._delivery.drained(names)
                while any(partition.letters for partition in leaving):
                    self._settled.clear()
                    await self._settled.wait()
        except TimeoutError:
            log.warning(
                "the drain budget ended before all calls and dead letters were answered; the next owner repeats those",
                partitions=_names(leaving),
                budget_seconds=self._revoke_seconds,
            )
        try:
            async with asyncio.timeout(commit_seconds):
                await self._commit_last(leaving)
        except TimeoutError:
            log.warning(
                "the last commit was not acknowledged in time; the next owner repeats what it would have told",
                partitions=_names(leaving),
            )
        self._forget(names)
        self._meter.rebalanced("revoked")
        log.info("partitions given up; the next owner goes on from what was committed", partitions=_names(leaving))

    async def _commit_last(self, leaving: Sequence[Partition]) -> None:
        """Commits the frontiers of partitions that go away; a refusal is tried again, but never for long."""
        for partition in leaving:
            partition.offsets.commit_forgotten()
        for _ in range(COMMIT_ATTEMPTS_AT_REVOCATION):
            if not self._request_commits(leaving):
                return
            while any(partition.offsets.commit_under_way for partition in leaving):
                self._settled.clear()
                await self._settled.wait()
            await asyncio.sleep(0 if self._last_commit_ok else 0.2)

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        names = [name for name in partitions if name in self.partitions]
        for name in names:
            partition = self.partitions[name]
            partition.closing = True
            partition.held.clear()  # else the room that withdrawing makes would let these in
            self._marks.drop(partition)
        self._delivery.withdraw(names)
        self._forget(names)
        self._meter.rebalanced("lost")
        log.warning(
            "partitions lost without notice; nothing of them is committed, and their new owner may repeat calls",
            partitions=[str(name) for name in names],
        )

    def committed(self, positions: Sequence[Position], error: str | None) -> None:
        for position in positions:
            partition = self.partitions.get(position.partition)
            if partition is not None and partition.epoch == position.epoch:
                partition.offsets.commit_settled(position.offset, position.metadata, acknowledged=error is None)
                if partition.marks:
                    self._marks.answer(partition)
        self._last_commit_ok = error is None
        if error is None and any(position.serial > self._proof_after for position in positions):
            self._heard_of_kafka()
        self._meter.committed("error" if error else "ok")
        if error:
            log.warning("a commit was refused; it is tried again, and nothing is lost", error=error)
        self._settled.set()
        if self._commit_timer is None and any(
            not partition.closing and partition.offsets.commit_due() is not None
            for partition in self.partitions.values()
        ):
            # After a refusal slower: during a rebalance the broker refuses for seconds. Triggers wait for their marks.
            hurry = any(partition.marks for partition in self.partitions.values())
            delay = 1.0 if error else MARK_INTERVAL_SECONDS if hurry else COMMIT_INTERVAL_SECONDS
            self._commit_timer = asyncio.get_running_loop().call_later(delay, self._commit)

    def failed(self, message: str, *, fatal: bool) -> None:
        self.kafka_trouble = message
        if fatal:
            log.error(
                "the consumer has failed; the service ends, and nothing that was not committed is lost", error=message
            )
            self._failed(message)

    # Intake

    def _take(self, partition: Partition, record: Record, arrived_wall: float) -> None:
        if partition.offsets.take(record.offset):
            self._arrived_wall = arrived_wall
            start(carry(record, self), lambda error: self._broken(record, error))

    def _fits(self, partition: Partition, record: Record) -> bool:
        if self.burial.stopped(record.topic):
            return False
        if self._delivery.pending >= self._pending_max:
            self._full = True
            return False
        return partition.offsets.fits(record.offset)

    def _pause(self, partition: Partition) -> None:
        if not partition.paused:
            partition.paused = True
            self._source.pause([partition.name])

    def _let_in(self, partition: Partition) -> None:
        """Goes on with what was held back, once enough room is there."""
        if self._full:
            if self._delivery.pending > self._pending_max * RESUME_AT:
                return
            self._full = False
            for other in self.partitions.values():
                if other is not partition and other.paused:
                    self._let_in(other)
        if not partition.paused or partition.closing or partition.letting_in:
            return
        if partition.offsets.window > self._window_max * RESUME_AT:
            return
        held = partition.held
        partition.letting_in = True
        while held and self._fits(partition, held[0][0]):
            self._take(partition, *held.popleft())
        partition.letting_in = False
        if not held and partition.paused:
            partition.paused = False
            self._source.resume([partition.name])

    def _room_made(self) -> None:
        """Actions are out, finished or not: those of partitions that went end without a finish."""
        if self._full:
            for partition in list(self.partitions.values()):
                self._let_in(partition)

    def _owned(self, record: Record) -> Partition | None:
        # A plain tuple equals and hashes like the TopicPartition, and is three times cheaper to make.
        partition = self.partitions.get((record.topic, record.partition))  # type: ignore[call-overload]
        if partition is None or partition.epoch != record.epoch:
            return None
        return partition  # type: ignore[no-any-return]

    def _broken(self, record: Record, error: BaseException) -> None:
        self._broken_places.add(record.place)
        log.error(
            "a record's path broke in the bridge itself: its offset stays open, and it comes again after a restart",
            place=record.place,
            error=repr(error),
            exc_info=error,
        )

    # Commits

    def _commit_soon(self, partition: Partition) -> None:
        if self._commit_timer is None and not partition.closing:
            self._commit_timer = asyncio.get_running_loop().call_later(COMMIT_INTERVAL_SECONDS, self._commit)

    def _commit_now(self) -> None:
        """For a mark: earlier than the usual interval would have it."""
        if self._commit_timer is not None:
            self._commit_timer.cancel()
        self._commit_timer = asyncio.get_running_loop().call_later(MARK_INTERVAL_SECONDS, self._commit)

    def _commit(self) -> None:
        self._commit_timer = None
        self._request_commits([partition for partition in self.partitions.values() if not partition.closing])

    def _request_commits(self, partitions: Iterable[Partition]) -> bool:
        """Asks for a commit of every frontier that moved; True where there was one."""
        positions = []
        self._serial += 1
        for partition in partitions:
            due = partition.offsets.commit_due()
            if due is not None:
                offsets = partition.offsets
                base, bitmap = offsets.finished_bitmap()
                metadata = encode_progress(
                    due, base, bitmap, offsets.delivered, self._metadata_bytes_max, offsets.started
                )
                offsets.commit_requested(due, metadata)
                positions.append(Position(partition.name, due, metadata, partition.epoch, self._serial))
        if positions:
            if self._unacknowledged_since is None:
                self._unacknowledged_since = self._clock.now()
            self._source.commit(positions)
        return bool(positions)

    def _heard_of_kafka(self) -> None:
        """The group's word that what we own is ours: an acknowledged commit, or an assignment when we owned nothing."""
        self._unacknowledged_since = None
        if self._waits_for_kafka:
            self._waits_for_kafka = False
            log.info("Kafka acknowledges commits again; calls leave again")
            if not self._stopping:
                self._delivery.open()

    def _may_leave(self) -> bool:
        """False after a standstill: answers in the sockets are handled before the news that others took over."""
        seconds = self._source.standstill()
        if not self.partitions:
            return True
        if seconds <= STANDSTILL_SECONDS:
            return not self._unheard_of(self._clock.now())
        log.warning(
            "this process stood still, so another instance may own the partitions: no call leaves until Kafka has "
            "acknowledged a commit",
            seconds=round(seconds, 1),
        )
        self._waits_for_kafka = True
        self._delivery.hold()
        self._proof_after = self._serial
        self._ask_kafka()
        return False

    def _unheard_of(self, now: float) -> bool:
        """Whether Kafka has acknowledged nothing for so long that calls must not leave."""
        since = self._unacknowledged_since
        if since is None or now - since <= self._source.session_seconds * ACK_PATIENCE_SHARE:
            return False
        if not self._waits_for_kafka:
            self._waits_for_kafka = True
            self._delivery.hold()
            log.error(
                "Kafka has acknowledged no commit for most of a session timeout, so another instance may own the "
                "partitions: no call leaves until it does",
                seconds=round(now - since),
            )
        return True

    def _ask_kafka(self) -> None:
        """A commit without news, as a question whether the partitions are ours."""
        for partition in self.partitions.values():
            partition.offsets.note_start()
        self._request_commits([partition for partition in self.partitions.values() if not partition.closing])

    def _look(self) -> None:
        """Now and then: is somebody else possibly the owner; does a frontier stand still."""
        self._look_timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)
        now = self._clock.now()
        self._unheard_of(now)
        if self._waits_for_kafka or (self._delivery.pending and self._unacknowledged_since is None):
            # A partition that came back with nothing to tell would ask nothing, and so would work that waits for its
            # quota: it must not go on when the way to Kafka was cut meanwhile.
            self._ask_kafka()
        for partition in self.partitions.values():
            offsets = partition.offsets
            if partition.stall.look(now, offsets.frontier, offsets.open_count):
                log.warning(
                    "a partition's frontier stands still; what is done behind it is told in commits, and waits there",
                    partition=str(partition.name),
                    offset=offsets.frontier,
                    seconds=round(partition.stall.seconds(now)),
                    waiting_for=[waiting.reason for waiting in self.waiting()] or ["its turn"],
                )

    def _forget(self, names: Sequence[TopicPartition]) -> None:
        for name in names:
            self.partitions.pop(name, None)
        self.burial.forget(names)
        self._room_made()
        if not self.partitions:
            self._unacknowledged_since = None  # nothing is owned, so nothing can be acknowledged

    # Life

    async def stop(self, budget_seconds: float) -> None:
        """Leaves the group: the source revokes everything, which drains and commits within the budget."""
        self._stopping = True
        self._delivery.hold()
        self._revoke_seconds = budget_seconds
        if self._look_timer is not None:
            self._look_timer.cancel()
        await self._source.close()
        if self._commit_timer is not None:
            self._commit_timer.cancel()
        await self.burial.close()

    def log_ends(self) -> Mapping[TopicPartition, int]:
        """The offset after the last record of each partition, as far as the source knows."""
        return self._source.log_ends()

    def waiting(self) -> list[Waiting]:
        """Why work waits, for status and metrics."""
        reasons = self._delivery.waiting()
        reasons += self.burial.waiting(self.partitions.values())
        unmarked = sum(len(partition.unmarked) for partition in self.partitions.values())
        if unmarked:
            reasons.append(Waiting("marks", unmarked, detail="triggers in doubt hold all places"))
        if self._waits_for_kafka:
            reasons.append(Waiting("commits", 0, detail="Kafka acknowledges none"))
        if self._broken_places:
            reasons.append(Waiting("broken", len(self._broken_places), detail=sorted(self._broken_places)[0]))
        if self.kafka_trouble:
            reasons.append(Waiting("kafka", 0, detail=self.kafka_trouble))
        return reasons


def _names(partitions: Iterable[Assigned | Partition]) -> list[str]:
    return [str(each.partition if isinstance(each, Assigned) else each.name) for each in partitions]
