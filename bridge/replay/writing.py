"""What replays write into their topic, in order: marks, results; and the marks as the delivery asks for them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from bridge.errors import LogFailed
from bridge.model import Action, Kind, Record
from bridge.ports import Clock, Logs
from bridge.replay.ledger import Fact, Mark, Place, Request, write
from bridge.replay.work import Job
from bridge.runtime.marks import NoMarks

log = structlog.get_logger(__name__)

AGAIN_SECONDS = 1.0
AGAIN_SECONDS_MAX = 30.0
CLOSE_SECONDS = 3.0
BATCH_MAX = 500
"""Records written with one acknowledgement."""


class Writer:
    """One writing after the other, so that a later word about something never stands before an earlier one.

    What waits is bounded by what is carried out: two marks for each action in the queues, and results.
    """

    def __init__(self, logs: Logs, topic: str) -> None:
        self._logs = logs
        self._topic = topic
        self._waiting: list[tuple[Fact, asyncio.Future[None]]] = []
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def write(self, fact: Fact) -> asyncio.Future[None]:
        """Completes with the acknowledgement; is cancelled where that cannot be waited for any more."""
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._closed:
            written.cancel()
            return written
        self._waiting.append((fact, written))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="replay marks")
        return written

    async def _run(self) -> None:
        wait = AGAIN_SECONDS
        while self._waiting:
            batch = self._waiting[:BATCH_MAX]
            try:
                await self._logs.write(self._topic, [write(fact) for fact, _ in batch])
            except LogFailed as error:
                log.warning(
                    "what replays did could not be written down; they wait, and it is written again",
                    error=str(error),
                    again_in_seconds=wait,
                )
                await asyncio.sleep(wait)
                wait = min(wait * 2, AGAIN_SECONDS_MAX)
                continue
            wait = AGAIN_SECONDS
            del self._waiting[: len(batch)]
            for _, written in batch:
                if not written.done():
                    written.set_result(None)
        self._task = None

    async def idle(self) -> None:
        """Returns once all is written that was to be: only then the topic tells everything."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def close(self) -> None:
        """Waits a moment for what is on its way; what is lost then is done again by whoever goes on."""
        self._closed = True
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=CLOSE_SECONDS)
        if self._task is not None:
            self._task.cancel()
        for _, written in self._waiting:
            written.cancel()
        self._waiting.clear()


class ReplayMarks(NoMarks):
    """The delivery's marks for one job (runtime/marks.py): kept in the topic of replays, not in commits."""

    def __init__(
        self,
        job: Job,
        writer: Writer,
        identify: Callable[[Record, Action], str],
        clock: Clock,
        ours: Callable[[], bool],
    ) -> None:
        self._job = job
        self._writer = writer
        self._identify = identify
        self._clock = clock
        self._ours = ours
        self._requests: dict[str, Request] = {each.action_id: each.request for each in job.actions.values()}
        self.doubted: set[str] = set()
        """Triggers that left once more while an earlier attempt was in doubt. Even refused they stay in doubt: that a
        repeat is refused does not say what became of the attempt before it."""

    def started_wall(self, record: Record, action: Action) -> float | None:
        action_id = self._identify(record, action)
        return self._job.done.started_wall(action_id, self._requests[action_id])

    async def start(self, record: Record, action: Action) -> bool:
        """True once the mark is acknowledged, or was before: it is never renewed while the first is in doubt."""
        if not self._ours():
            return False
        action_id = self._identify(record, action)
        request = self._requests[action_id]
        if self._job.done.started_wall(action_id, request) is not None:
            self.doubted.add(action_id)
            return True
        mark = Mark(_place(record), action_id, request.at, done=False, wall=self._clock.wall())
        written = self._writer.write(mark)
        await asyncio.wait({written})
        if written.cancelled() or not self._ours():
            return False
        self._job.done.tell(mark)
        return True

    def clear(self, record: Record, action: Action) -> None:
        """No attempt is in doubt: the next one makes a mark anew.

        The topic keeps the old mark until then, or until the job has ended (work.py): this is called for an unknown
        outcome too, and a crash before its letter is acknowledged must find the mark.
        """
        action_id = self._identify(record, action)
        mark = self._job.done.marks.get(action_id)
        if mark is not None and not mark.done:
            self._job.done.tell(mark._replace(wall=0.0, at=self._requests[action_id].at))

    def tell(self, record: Record, action: Action) -> None:
        """The action was carried out."""
        action_id = self._identify(record, action)
        wall = self._clock.wall() if action.kind is Kind.TRIGGER else 0.0
        mark = Mark(_place(record), action_id, self._requests[action_id].at, done=True, wall=wall)
        self._job.done.tell(mark)
        self._writer.write(mark)


def _place(record: Record) -> Place:
    return Place(record.topic, record.partition, record.offset)
