"""The service while it runs: what is assigned, what is taken in, what is committed; the stations of the path.

The engine is the source's listener and the pipeline's line. It owns the assigned partitions and lets their offsets
finish. Four helpers do the rest: `Intake` takes records in while they fit, `Commits` tells frontiers and progress,
`PartitionMarks` lets actions wait for what must be told first, `Burial` writes dead letters.

What may still go wrong, and what then: a commit that is never acknowledged makes the next owner read again from the
last acknowledged one; a bug in a record's path leaves its offset open, is logged once with its place, and the record
comes again after a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

import structlog

from bridge.core.offsets import PartitionOffsets
from bridge.core.progress import Progress, decode, digest, ours, room_limit, started_limit, window_limit
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
    SchemaId,
    TopicPartition,
    Waiting,
    action_id,
)
from bridge.pipeline import Line, carry
from bridge.ports import Clock, Letters, Meter, Source, Store
from bridge.runtime.burial import Burial
from bridge.runtime.commits import Commits
from bridge.runtime.completion import Completion, start
from bridge.runtime.delivery import Delivery
from bridge.runtime.duplicates import Duplicates
from bridge.runtime.intake import PENDING_MAX, Intake
from bridge.runtime.lasting import Lasting
from bridge.runtime.marks import PartitionMarks
from bridge.runtime.partition import Partition
from bridge.runtime.schemas import Schemas
from bridge.runtime.spend import Spend
from bridge.runtime.traced import TracedLine
from bridge.runtime.traces import Traces

log = structlog.get_logger(__name__)

Decode = Callable[[Record], Event | None]

LOOK_SECONDS = 10.0
"""Between looks for frontiers that stand still."""

COMMIT_SECONDS_AT_REVOCATION = 3.0
"""Kept of the budget for the last commit; a quarter of a budget that is shorter than twelve seconds."""


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
        store: Store | None = None,
        spend: Spend | None = None,
        schemas: Schemas | None = None,
        duplicates: Duplicates | None = None,
    ) -> None:
        """`spend` keeps the shares of the quota; `schemas` fetches what records were written with; `duplicates` knows
        which events have been here before."""
        self._spend = spend
        self._duplicates = duplicates
        self._group = group
        self._decoders = decoders
        self.plan = plan  # a station of the line
        self._source = source
        self._clock = clock
        self._meter = meter
        self._delivery = delivery
        self.partitions: dict[TopicPartition, Partition] = {}
        self._settled = asyncio.Event()
        self._lasting = Lasting(store, source.commit, self._committing) if store is not None else None
        self._commits = Commits(
            source=source,
            commit=self._lasting.commit if self._lasting is not None else source.commit,
            clock=clock,
            meter=meter,
            delivery=delivery,
            partitions=self.partitions,
            limit_bytes=metadata_bytes_max,
            answered=lambda partition: self._marks.answer(partition),
            settled=self._settled,
            failed=failed,
            spend=spend,
        )
        self.burial = Burial(
            letters,
            topics=decoders,
            stop_at=stop_at,
            owned=self._owned,
            clock=clock,
            meter=meter,
            settled=self._settled.set,
        )
        self._intake = Intake(
            source=source,
            clock=clock,
            delivery=delivery,
            partitions=self.partitions,
            stopped=self.burial.stopped,
            begin=self._begin,
            pending_max=pending_max,
            lacks=schemas.lacks if schemas is not None else None,
        )
        self._schemas = schemas
        if schemas is not None:
            schemas.wanted = lambda topic, id: bool(self._lacking(topic, id))
            schemas.learned = self._learned
        self._marks = PartitionMarks(
            owned=self._owned,
            partitions=self.partitions,
            identify=self.identify,
            clock=delivery.meisa_clock,
            commit_now=self._commits.now,
            commit_soon=self._commits.soon,
        )
        delivery.part_done = self._part_done
        delivery.marks = self._marks
        delivery.left = self._left
        delivery.may_leave = self._commits.may_leave
        delivery.sending.short = self._commits.short
        delivery.lazy.told = self._told
        delivery.lazy.values.passed = self._passed
        if spend is not None:
            spend.wake = delivery.wake
        self._revoke_seconds = revoke_seconds
        self._failed = failed
        self._window_max = window_max or window_limit(metadata_bytes_max)
        self._room_bytes = room_limit(metadata_bytes_max)
        self._started_max = started_limit(metadata_bytes_max)
        self._arrived_wall = 0.0
        """When the record that is being taken was first read, here or by a former owner, or earlier."""
        self._look_timer: asyncio.TimerHandle | None = None
        self._broken_places: set[str] = set()
        self._line: Line = self
        self._traces: Traces | None = None
        self.joined = False
        self.kafka_trouble = ""
        """What the source last complained about; empty while all is well."""

    def trace(self, traces: Traces) -> None:
        """Tells of every record's path from now on."""
        self._traces = traces
        self._line = TracedLine(self, traces, self._clock)
        self._delivery.sending.watch = traces

    # The line: stations of the path (pipeline.py)

    def decode(self, record: Record) -> Event | None:
        return self._decoders[record.topic](record)

    def repeated(self, event: Event) -> bool:
        return self._duplicates is not None and self._duplicates.begins(event)

    def too_old(self, action: Action, event: Event) -> bool:
        max_age = action.handling.max_age_seconds
        # Held records were read earlier than now, and those of before a restart too: what became too old here is no
        # history, and must not end silently.
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

    def still_ours(self) -> bool:
        """Whether what is owned is still ours as far as anybody can know: asked right before a call is written."""
        return self._commits.still_ours()

    def bury(self, letter: Letter) -> Completion[None]:
        return self.burial.bury(letter)

    def resume_topic(self, topic: str) -> None:
        """Goes on with a topic that its dead letters had stopped."""
        self.burial.resume(topic)
        for partition in list(self.partitions.values()):
            if partition.name.topic == topic:
                self._intake.let_in(partition)

    def _lacking(self, topic: str, id: SchemaId) -> list[Partition]:
        """The partitions that wait for a schema."""
        return [
            each
            for each in self.partitions.values()
            if each.schema == id and each.name.topic == topic and not each.closing
        ]

    def _learned(self, topic: str, id: SchemaId) -> None:
        for partition in self._lacking(topic, id):
            self._intake.learned(partition)

    def finish(self, record: Record, ending: Ending) -> None:
        partition = self._owned(record)
        if partition is None or not partition.offsets.finish(record.offset):
            return  # of an older assignment: its new owner has it
        if self._duplicates is not None:
            self._duplicates.ended(record, ending)
        self._meter.finished(record.topic, ending)
        self.burial.finished(record, partition)
        if partition.unmarked or partition.unclaimed:
            self._marks.make_room(partition)
        self._commits.soon(partition)
        self._intake.finished(partition)
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
            self._commits.soon(partition)

    def _told(self, name: TopicPartition, offset: int) -> bool:
        """Whether what this record said may ride on a call: a commit told of it, and nothing newer is to be read."""
        partition = self.partitions.get(name)
        if partition is None or partition.closing or partition.recovering:
            return False
        return partition.offsets.seen_told(offset)

    def _committing(self, positions: Sequence[Position]) -> None:
        """What is put beside a commit before it is handed to Kafka."""
        self._delivery.lazy.committing(positions)
        self._delivery.unchanged.handed(positions)

    def _passed(self, name: TopicPartition, offset: int) -> bool:
        """Whether everything up to this record has finished."""
        partition = self.partitions.get(name)
        return partition is not None and (partition.offsets.frontier or 0) > offset

    def _left(self) -> None:
        self._commits.ended()
        self._intake.room_made()

    # The source's listener

    def assigned(self, partitions: Sequence[Assigned]) -> None:
        if not self.partitions:
            self._commits.proven(self._clock.now())
        for new in partitions:
            offsets = PartitionOffsets(
                start=new.offset,
                window_max=self._window_max,
                room_bytes=self._room_bytes,
                started_max=self._started_max,
            )
            progress = self._restore(new, offsets)
            partition = Partition(new.partition, new.epoch, offsets, new.topic_hash)
            self.partitions[new.partition] = partition
            self._delivery.unchanged.assigned(new, progress)
            if self._delivery.unchanged.assignment(new.partition) is not None:
                offsets.note_start()  # whose it is now is news to be told
                self._commits.soon(partition)
            if new.fresh:
                # Perhaps of another topic under the same name: what was known by offsets says nothing about these.
                self._delivery.offsets_restarted(new.partition, new.topic_hash)
                offsets.note_start()
                self._commits.soon(partition)
            self._delivery.lazy.assigned(new)
            self._intake.recover(partition)
        if self._spend is not None and partitions:
            self._spend.assigned(partitions)
            self._commits.short()  # the first call need not wait
        self.joined = True
        self.kafka_trouble = ""
        if self._look_timer is None:
            self._look_timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)
        self._meter.rebalanced("assigned")
        log.info("partitions assigned; their events are taken in from here", partitions=_names(partitions))

    def _restore(self, new: Assigned, offsets: PartitionOffsets) -> Progress | None:
        """Takes over what a former owner told beside the committed offset; None where that can not be done."""
        if new.offset is None or not new.metadata:
            return None
        committed = new.offset if new.committed is None else new.committed
        progress = decode(committed, new.metadata)
        where = {"partition": str(new.partition), "offset": committed}
        if progress is None and ours(new.metadata):
            # A trigger of which this text told may have gone out: without it only its age is known.
            end = committed + self._window_max
            offsets.restore(Progress(offsets.next_offset or 0, unsure_below=end))
            log.error(
                "the progress beside the committed offset is damaged, or of a newer version: what was done beyond that "
                "offset is done again, except for triggers of older events, which may have been sent: they are "
                "dead-lettered as unknown_outcome for a person to decide",
                up_to=end,
                **where,
            )
        elif progress is None:
            log.warning(
                "the text beside the committed offset is not the bridge's and is ignored; what was done beyond that "
                "offset by whoever wrote it is done again",
                **where,
            )
        elif None not in (progress.topic, new.topic_hash) and progress.topic != new.topic_hash:
            log.error(
                "the topic was created anew since that commit: the progress beside it speaks of other records, and is "
                "dropped",
                **where,
            )
        else:
            offsets.restore(progress)
            return progress
        return None

    def records(self, batch: Sequence[Record]) -> None:
        counts: dict[str, int] = {}
        wall = self._clock.wall()
        self.kafka_trouble = ""
        touched = set()
        for record in batch:
            partition = self._owned(record)
            if partition is None:
                continue
            counts[record.topic] = counts.get(record.topic, 0) + 1
            self._intake.offer(partition, record, wall)
            touched.add(partition.name)
        for name in touched:
            self._commits.soon(self.partitions[name])  # how far intake has come
        for topic, count in counts.items():
            self._meter.consumed(topic, count)

    def removed(self, name: TopicPartition, start: int) -> None:
        """Retention or truncation removed everything below `start`; the source has counted and told what that was."""
        partition = self.partitions.get(name)
        if partition is not None:
            partition.log_start = max(partition.log_start, start)
            self._intake.finished(partition)
            self._commits.soon(partition)

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
        if self._spend is not None:
            self._spend.closing(names)
            for partition in leaving:
                partition.offsets.note_start()  # the last commit tells the spend as it is
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
                await self._commits.last(leaving)
        except TimeoutError:
            log.warning(
                "the last commit was not acknowledged in time; the next owner repeats what it would have told",
                partitions=_names(leaving),
            )
        self._forget(names)
        self._meter.rebalanced("revoked")
        log.info("partitions given up; the next owner goes on from what was committed", partitions=_names(leaving))

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
        self._commits.settle(positions, error)

    def failed(self, message: str, *, fatal: bool) -> None:
        self.kafka_trouble = message
        if fatal:
            log.error(
                "the consumer has failed; the service ends, and nothing that was not committed is lost", error=message
            )
            self._failed(message)

    # Records on their path

    def _begin(self, partition: Partition, record: Record, read_wall: float) -> None:
        self._arrived_wall = partition.offsets.arrivals.of(record.offset, read_wall)
        start(carry(record, self._line), self._broken, record)

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
        if self._traces is not None:
            self._traces.broke(record, error)

    def _look(self) -> None:
        """Now and then: is somebody else possibly the owner; does a frontier stand still."""
        self._look_timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)
        now = self._clock.now()
        self._commits.look(now)
        self.burial.look(now)
        if self._spend is not None:
            self._spend.refresh()
        ends = self._source.log_ends()
        for partition in list(self.partitions.values()):
            self._marks.make_room(partition)
            offsets = partition.offsets
            frontier = offsets.frontier
            unread = 0 if frontier is None else max(0, ends.get(partition.name, 0) - frontier)
            if partition.stall.look(now, frontier, offsets.open_count or len(partition.held) or unread):
                log.warning(
                    "a partition's frontier stands still; what is done behind it is told in commits, and waits there",
                    partition=str(partition.name),
                    offset=frontier,
                    seconds=round(partition.stall.seconds(now)),
                    waiting_for=self.stall_reasons(partition),
                )

    def stall_reasons(self, partition: Partition) -> list[str]:
        """What a partition whose frontier stands still may be waiting for, for the log and the status."""
        reasons = [waiting.reason for waiting in self.waiting()]
        if not partition.offsets.open_count:
            reasons.append("room for its records" if partition.held else "records that do not come")
        return reasons or ["its turn"]

    def _forget(self, names: Sequence[TopicPartition]) -> None:
        for name in names:
            self.partitions.pop(name, None)
            self._delivery.unchanged.gone(name)
        if self._duplicates is not None:
            self._duplicates.gone(names)
        self.burial.forget(names)
        if self._lasting is not None:
            self._lasting.withdraw(names)
        if self._traces is not None:
            self._traces.gone(names)
        if self._spend is not None:
            self._spend.gone(names)
        self._intake.room_made()
        if not self.partitions:
            self._commits.nothing_owned()

    # Life

    async def stop(self, budget_seconds: float) -> None:
        """Leaves the group: the source revokes everything, which drains and commits within the budget."""
        self._commits.stopping = True
        self._delivery.hold()
        self._revoke_seconds = budget_seconds
        if self._look_timer is not None:
            self._look_timer.cancel()
        if self._schemas is not None:
            await self._schemas.close()
        await self._source.close()
        self._commits.close()
        if self._lasting is not None:
            await self._lasting.close()
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
        unclaimed = sum(len(partition.unclaimed) for partition in self.partitions.values())
        if unclaimed:
            reasons.append(Waiting("progress", unclaimed, detail="half-done events hold all places"))
        recovering = [partition for partition in self.partitions.values() if partition.recovering]
        if recovering:
            waiting = sum(len(partition.recovered) for partition in recovering)
            reasons.append(Waiting("recovery", waiting, detail=str(recovering[0].name)))
        if self._schemas is not None:
            reasons += self._schemas.waiting()
        reasons += self._commits.waiting()
        if self._lasting is not None:
            reasons += self._lasting.waiting()
        if self._broken_places:
            reasons.append(Waiting("broken", len(self._broken_places), detail=sorted(self._broken_places)[0]))
        if self.kafka_trouble:
            reasons.append(Waiting("kafka", 0, detail=self.kafka_trouble))
        return reasons


def _names(partitions: Iterable[Assigned | Partition]) -> list[str]:
    return [str(each.partition if isinstance(each, Assigned) else each.name) for each in partitions]
