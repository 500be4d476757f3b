"""Carries replays out while the bridge runs: reads what is asked for, and does what concerns partitions that we own.

    look      every two seconds: has the topic of replays grown, and do its new requests concern us?
      → work  one worker per source partition, as long as it has open requests
          read     the topic from its beginning: the lowest open requests, and what was done of them before
          fetch    their letters, by place; decode and plan by the present rules
          scan     the source partition behind them: what later events wrote
          deliver  through the queues and quotas of live events, at most `WINDOW` records at once
          answer   fresh letters, then marks, then results; each acknowledged before the next

No such topic, no traffic but one look every thirty seconds. A partition that goes takes its worker with it; what it had
in the queues is withdrawn by the engine, and the next owner goes on from what was acknowledged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

import structlog

from bridge.errors import LetterNotWritten, LogFailed
from bridge.model import Action, Event, Letter, Plan, Record, Result, TopicPartition
from bridge.ports import Clock, Letters, Logs, Meter
from bridge.replay.later import Later
from bridge.replay.ledger import Answer, Request, State, Wish
from bridge.replay.letters import Decoders
from bridge.replay.preparing import Preparing, Problems
from bridge.replay.work import Asked, Job, end
from bridge.replay.writing import ReplayMarks, Writer
from bridge.runtime.completion import Completion, start
from bridge.runtime.delivery import Delivery
from bridge.runtime.schemas import Schemas
from bridge.runtime.traces import Traces

log = structlog.get_logger(__name__)

LOOK_SECONDS = 2.0
"""Between looks for new requests: one question to the broker."""
ABSENT_SECONDS = 30.0
"""Between looks for the topic itself, while it does not exist."""
AGAIN_SECONDS = 5.0
"""After something outside failed."""

BATCH = 200
"""Requests of one partition taken up together: their letters are held in memory, 2 KB each as a rule, 1 MB at most
with Kafka's defaults, and one scan of the source serves all of them."""
WINDOW = 64
"""Records whose replays stand in the queues at once. The queues are first come, first served: with all of ten thousand
replays in them, live events would wait for hours at the quota."""


class Replays:
    """`owned` tells the partitions that are ours and stay so, with their assignment epochs."""

    def __init__(
        self,
        *,
        topic: str,
        logs: Logs,
        letters: Letters,
        decoders: Decoders,
        plan: Callable[[Event], Plan],
        knows_rule: Callable[[str], bool],
        identify: Callable[[Record, Action], str],
        delivery: Delivery,
        owned: Callable[[], Mapping[TopicPartition, int]],
        clock: Clock,
        meter: Meter,
        schemas: Schemas | None = None,
        deduplicated: Collection[str] = (),
    ) -> None:
        """`deduplicated` are the topics in which repeated events are skipped."""
        self._topic = topic
        self._logs = logs
        self._letters = letters
        self._plan = plan
        self._identify = identify
        self._delivery = delivery
        self._owned = owned
        self._clock = clock
        self._meter = meter
        self.preparing_on: Callable[[Logs], Preparing] = partial(
            Preparing,
            topic=topic,
            decoders=decoders,
            plan=plan,
            knows_rule=knows_rule,
            identify=identify,
            clock=clock,
            schemas=schemas,
            deduplicated=deduplicated,
        )
        """What reads and plans as replays do, on other connections."""
        self._preparing = self.preparing_on(logs)
        self._writer = Writer(logs, topic)
        self._watcher: asyncio.Task[None] | None = None
        self._workers: dict[TopicPartition, tuple[int, asyncio.Task[None]]] = {}
        """With the epoch under which each works."""
        self._again: set[TopicPartition] = set()
        """Partitions with requests that came after their worker last read the topic."""
        self._later: dict[TopicPartition, Later] = {}
        self._reading = asyncio.Semaphore(1)
        """One worker reads at a time: reading is for the broker and the processor, waiting for Meisa is not."""
        self._window = asyncio.Semaphore(WINDOW)
        self._trouble = ""
        self.traces: Traces | None = None

    def plan(self, event: Event) -> Plan:
        """The rules' plan of a live event; replays that wait in its partition hear of what it writes."""
        plan = self._plan(event)
        if self._later and plan.actions:
            record = event.record
            later = self._later.get(TopicPartition(record.topic, record.partition))
            if later is not None:
                later.see(record.offset, plan.actions)
        return plan

    # Life

    def start(self) -> None:
        self._watcher = asyncio.get_running_loop().create_task(self._watch(), name="replays")

    async def hold(self) -> None:
        """Nothing more is begun. What is in the queues may still end well, and is written down."""
        tasks = [worker for _, worker in self._workers.values()]
        if self._watcher is not None:
            tasks.append(self._watcher)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        """After the engine has stopped. Replays that have not ended go on where they are, here or elsewhere."""
        await self.hold()
        await self._writer.close()

    async def _watch(self) -> None:
        position = 0
        known: dict[TopicPartition, int] = {}
        while True:
            owned = dict(self._owned())
            self._end_workers(owned)
            pause = LOOK_SECONDS
            try:
                bounds = await self._logs.bounds(self._topic, 0)
                if bounds is None:
                    pause, position = ABSENT_SECONDS, 0
                else:
                    if bounds[1] < position or owned.items() - known.items():
                        position = bounds[0]  # created anew, or partitions came: all that was ever asked counts
                    await self._notice(max(position, bounds[0]), bounds[1], owned)
                    position, known = bounds[1], owned
                self._trouble = ""
            except LogFailed as error:
                if not self._trouble:
                    log.warning("the topic of replays cannot be read; replays wait until it can", error=str(error))
                self._trouble = str(error)
                pause = AGAIN_SECONDS
            except Exception as error:
                log.exception("looking for replays broke in the bridge itself; it looks again", error=repr(error))
                pause = AGAIN_SECONDS
            await asyncio.sleep(pause)

    def _end_workers(self, owned: Mapping[TopicPartition, int]) -> None:
        for partition, (epoch, worker) in list(self._workers.items()):
            if owned.get(partition) != epoch:
                worker.cancel()  # the engine has withdrawn what it had in the queues
                del self._workers[partition]

    async def _notice(self, position: int, end: int, owned: Mapping[TopicPartition, int]) -> None:
        """Sets workers to work for whose partitions something is asked."""
        concerned: set[TopicPartition] = set()
        async for fact in self._preparing.facts(position, end):
            if isinstance(fact, Request) and fact.wish is Wish.REPLAY:
                concerned.add(TopicPartition(fact.source.topic, fact.source.partition))
        for partition in concerned & owned.keys():
            self._again.add(partition)
            if partition not in self._workers:
                work = self._work(partition, owned[partition])
                task = asyncio.get_running_loop().create_task(work, name=f"replays of {partition}")
                self._workers[partition] = owned[partition], task

    # A partition's worker

    def _ours(self, partition: TopicPartition, epoch: int) -> bool:
        return self._owned().get(partition) == epoch

    async def _work(self, partition: TopicPartition, epoch: int) -> None:
        try:
            while self._ours(partition, epoch):
                self._again.discard(partition)
                try:
                    if not await self._batch(partition, epoch) and partition not in self._again:
                        break
                except (LogFailed, LetterNotWritten) as error:
                    log.warning(
                        "replays of a partition wait, and go on later", partition=str(partition), error=str(error)
                    )
                    await asyncio.sleep(AGAIN_SECONDS)
        except Exception as error:
            log.exception(
                "replays of a partition broke in the bridge itself; they go on with the next request or restart",
                partition=str(partition),
                error=repr(error),
            )
        if self._workers.get(partition, (None,))[0] == epoch:
            del self._workers[partition]

    async def _batch(self, partition: TopicPartition, epoch: int) -> bool:
        """Carries out the lowest open requests; False where there are none."""
        later = Later()
        try:
            async with self._reading:
                await self._writer.idle()  # what an earlier assignment of the partition did must be told first
                requests = await self._preparing.open_requests(partition, BATCH)
                if not requests:
                    return False
                log.info("dead letters are replayed", partition=str(partition), letters=len(requests))
                prepared = await self._preparing.jobs(requests)
                await self._say(prepared.problems)
                # From here on live events tell what they write; whatever came before them the scan finds in the log.
                self._later[partition] = later
                prepared = await self._preparing.scan(partition, prepared.jobs, later)
                await self._say(prepared.problems)
            await self._deliver(partition, epoch, prepared.jobs)
            return True
        finally:
            if self._later.get(partition) is later:
                del self._later[partition]

    async def _say(self, problems: Problems) -> None:
        """Answers requests for which nothing was sent."""
        for request, why in problems:
            log.warning("a dead letter was not replayed, and stays as it is", letter=str(request.letter), why=why)
        await self._answer(
            [
                Answer(request.source, request.name, request.at, State.FAILED, why, self._clock.wall())
                for request, why in problems
            ]
        )

    async def _answer(self, answers: Sequence[Answer]) -> None:
        if answers:
            await asyncio.wait({self._writer.write(answer) for answer in answers})
            for answer in answers:
                self._meter.replayed(answer.state)

    # Delivery

    async def _deliver(self, partition: TopicPartition, epoch: int, jobs: Sequence[Job]) -> None:
        """Lets the jobs into the queues one after the other, as earlier ones end; returns when all have ended."""
        carried: set[asyncio.Task[None]] = set()

        def ours() -> bool:
            return self._ours(partition, epoch)

        try:
            for job in jobs:
                await self._window.acquire()
                # From here to the queues nothing waits, so no live event comes between what is known and what is sent.
                if not ours():
                    self._window.release()
                    return
                sent = job.sendable()
                marks = ReplayMarks(job, self._writer, self._identify, self._clock, ours)
                completion: Completion[Sequence[Result]] | None = None
                if sent:
                    job.event.record = job.record._replace(epoch=epoch)
                    actions = [each.action for each in sent]
                    if self.traces is not None:
                        self.traces.replaying(job.event, actions)
                    completion = self._delivery.deliver(job.event, actions, alone=False, marks=marks, tell=marks.tell)
                task = asyncio.get_running_loop().create_task(self._carry(job, sent, marks, completion))
                carried.add(task)
                task.add_done_callback(lambda _: self._window.release())
            # One that breaks must not take the others along: what they have in the queues would be sent twice.
            for broken in await asyncio.gather(*carried, return_exceptions=True):
                if isinstance(broken, Exception):
                    raise broken
        finally:
            for task in carried:
                task.cancel()

    async def _carry(
        self,
        job: Job,
        sent: Sequence[Asked],
        marks: ReplayMarks,
        completion: Completion[Sequence[Result]] | None,
    ) -> None:
        """Waits until a job has ended, and says so. A withdrawn one never ends here: its worker is cancelled."""
        try:
            results = await _awaited(completion) if completion is not None else ()
            ended = end(job, sent, results, self, self._clock.wall(), marks.doubted)
            for letter in ended.letters:
                await self._bury(letter)
            for mark in ended.marks:
                self._writer.write(mark)
            await self._answer(ended.answers)
            for answer in ended.answers:
                log.info("a replay ended", source=job.record.place, state=answer.state, message=answer.message)
            if self.traces is not None:
                self.traces.replayed(job.record, {answer.state for answer in ended.answers})
        finally:
            if self.traces is not None:
                self.traces.abandoned(job.record)

    def identify(self, record: Record, action: Action) -> str:
        return self._identify(record, action)

    async def _bury(self, letter: Letter) -> None:
        """Writes a fresh letter until it is acknowledged: only then may its request be answered."""
        start_wall = self._clock.wall()
        while True:
            try:
                await self._letters.write(replace(letter, failed_at_wall_seconds=self._clock.wall()))
                break
            except LetterNotWritten as error:
                self._meter.letter_tried("error")
                log.warning(
                    "a fresh dead letter was not acknowledged; its replay waits, and it is written again",
                    place=letter.record.place,
                    error=str(error),
                )
                await asyncio.sleep(AGAIN_SECONDS)
        self._meter.letter_tried("ok")
        self._meter.dead_letter(letter.kind, letter.rule)
        if self.traces is not None:
            self.traces.buried(letter, start_wall, replay=True)


async def _awaited(completion: Completion[Sequence[Result]]) -> Sequence[Result]:
    """The value of a completion, for a task."""
    came: asyncio.Future[Sequence[Result]] = asyncio.get_running_loop().create_future()

    async def hand_over() -> None:
        results = await completion
        if not came.done():
            came.set_result(results)

    def failed(came: asyncio.Future[Sequence[Result]], error: BaseException) -> None:
        if not came.done():
            came.set_exception(error)

    start(hand_over(), failed, came)
    return await came
