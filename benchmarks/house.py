"""The whole bridge on the virtual clock: an imagined Kafka with a trace in it, the sandbox's world as Meisa.

Everything between the two is what runs in production: decoder, rules, engine, delivery, quota. An hour of waiting takes
as long as its calls and events need.
"""

from __future__ import annotations

import asyncio
import random
import zlib
from array import array
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from benchmarks.trace import Arrival
from bridge.core.identity import Identities
from bridge.core.quota import Quota
from bridge.core.retry import Policy
from bridge.decode import decoder_for
from bridge.model import Action, Call, Event, Kind, Plan, Record, TopicPartition, action_id
from bridge.rules import RuleBook
from bridge.runtime.delivery import Delivery
from bridge.runtime.engine import Engine
from tests.support.fakes import CountingMeter, FakeLetters, FakeSource
from tests.support.virtual import VirtualClock
from tests.support.world_meisa import WorldMeisa

LIMITS = ((60, 60.0), (1000, 3600.0))
RESERVE = 0.1
BULK_AFTER_SECONDS = 3600.0
BATCH = 500
TICK_SECONDS = 0.2
"""Between two fetches of a partition."""
READ_AHEAD_MAX = 10_000
"""Records of one partition that are held while the others are paused: the log is one stream here."""


class Log:
    """A topic whose records are there from their time on, by partition as the record's key says."""

    def __init__(self, name: str, partitions: int, arrivals: Iterator[Arrival], wall_at_start: float) -> None:
        self.name = name
        self.names = [TopicPartition(name, number) for number in range(partitions)]
        self.given = 0
        self._arrivals = arrivals
        self._next = next(arrivals, None)
        self._wall_at_start = wall_at_start
        self._waiting: list[deque[Record]] = [deque() for _ in range(partitions)]
        self._times = [array("d") for _ in range(partitions)]

    def read(self, number: int, now: float) -> list[Record]:
        """The next batch of a partition."""
        waiting = self._waiting[number]
        while len(waiting) < BATCH and self._next is not None and self._next.at <= now:
            if max(map(len, self._waiting)) > READ_AHEAD_MAX:
                break
            self._take(self._next)
            self._next = next(self._arrivals, None)
        batch = [waiting.popleft() for _ in range(min(BATCH, len(waiting)))]
        self.given += len(batch)
        return batch

    def _take(self, arrival: Arrival) -> None:
        number = zlib.crc32(arrival.key) % len(self.names)
        times = self._times[number]
        stamp = int((self._wall_at_start + arrival.at) * 1000)
        self._waiting[number].append(Record(self.name, number, len(times), stamp, arrival.key, arrival.value))
        times.append(arrival.at)

    def oldest(self, number: int, frontier: int | None, now: float) -> float:
        """The age in seconds of what stands at the frontier, read or not; 0 where there is nothing."""
        times = self._times[number]
        if frontier is not None and frontier < len(times):
            return now - times[frontier]
        return 0.0 if self._next is None else max(0.0, now - self._next.at)

    @property
    def next_at(self) -> float | None:
        """When the next record comes that has not been read ahead."""
        return None if self._next is None else self._next.at

    @property
    def empty(self) -> bool:
        return self._next is None and not any(self._waiting)


class TopicMeter(CountingMeter):
    """Also tells how many events of a topic are finished."""

    def __init__(self) -> None:
        super().__init__()
        self.finished_of: Counter[str] = Counter()

    def finished(self, topic: str, outcome: str) -> None:
        super().finished(topic, outcome)
        self.finished_of[topic] += 1


class Email(NamedTuple):
    """One email's way, in seconds from the benchmark's beginning."""

    happened: float
    taken: float
    """When its event was taken in: from then on it waits for nothing but its turn."""
    answered: float


class House:
    """Build it inside the virtual loop. `taken` holds what was planned, and when, if `remember` says so."""

    def __init__(
        self,
        book: RuleBook,
        logs: Sequence[Log],
        *,
        limits: Sequence[tuple[int, float]] = LIMITS,
        reserve: float = RESERVE,
        remember: bool = False,
    ) -> None:
        self.clock = VirtualClock()
        self.meter = TopicMeter()
        self.meisa = WorldMeisa(self.clock, log_limit=1000)
        self.meisa.answered = self._answered
        self.logs = logs
        self.taken: list[tuple[float, Action]] = []
        self.emails: list[Email] = []
        """Those that Meisa has answered."""
        self.wanted = 0
        """Events that a rule made something of."""
        self._remember = remember
        self._book = book
        self._due: dict[str, tuple[float, float]] = {}
        self.source = FakeSource()
        self.delivery = Delivery(
            self.meisa,
            {"default": Quota(list(limits), reserve=reserve)},
            clock=self.clock,
            meter=self.meter,
            policy=Policy(),
            identify=lambda record, action: action_id("group", record, action),
            dice=random.Random(3),
            identities=Identities(),
            bulk_after_seconds=BULK_AFTER_SECONDS,
        )
        self.engine = Engine(
            group="group",
            decoders={log.name: decoder_for("json", envelope=None).decode for log in logs},
            plan=self._plan,
            source=self.source,
            letters=FakeLetters(),
            clock=self.clock,
            meter=self.meter,
            delivery=self.delivery,
        )
        self.source.start(self.engine)
        self.source.assign(*(name for log in logs for name in log.names))

    def open(self) -> None:
        """Calls may leave."""
        self.delivery.open()

    def _plan(self, event: Event) -> Plan:
        plan = self._book.plan(event)
        self.wanted += bool(plan.actions)
        for action in plan.actions:
            if self._remember:
                self.taken.append((self.clock.now(), action))
            if action.kind is Kind.TRIGGER:
                happened = event.time_wall_seconds - self.clock.WALL_AT_START
                self._due[event.id] = (happened, self.clock.now())
        return plan

    def _answered(self, call: Call) -> None:
        if call.endpoint == "trigger":
            due = self._due.pop(str((call.body or {})["variables"]["event"]), None)
            if due is not None:
                self.emails.append(Email(*due, self.clock.now()))

    def waiting_emails(self) -> list[Email]:
        """Those that were taken in and have no answer yet, as if it came now."""
        now = self.clock.now()
        return [Email(*due, now) for due in self._due.values()]

    async def pour(self) -> None:
        """Feeds what is there, until there is nothing more to come."""
        while not all(log.empty for log in self.logs):
            if not self.fetch():
                coming = [log.next_at for log in self.logs if log.next_at is not None]
                wait = min(coming, default=0.0) - self.clock.now()
                await asyncio.sleep(max(TICK_SECONDS, wait))
            else:
                await asyncio.sleep(TICK_SECONDS)

    def fetch(self) -> bool:
        """One fetch of each partition that is not paused; whether there was anything."""
        found = False
        for log in self.logs:
            for number, name in enumerate(log.names):
                if name not in self.source.paused:
                    batch = log.read(number, self.clock.now())
                    if batch:
                        found = True
                        self.source.feed(batch)
        return found

    async def drained(self) -> None:
        """Returns once nothing is pending."""
        while self.delivery.pending:
            await asyncio.sleep(1.0)

    def finished(self, topic: str) -> int:
        """Events of the topic that are done with."""
        return self.meter.finished_of[topic]

    @property
    def slots(self) -> list[float]:
        """When calls left."""
        return sorted(made.at for made in self.meisa.calls)

    def oldest(self) -> float:
        """The age in seconds of the oldest event that is not finished."""
        now = self.clock.now()
        ages = [0.0]
        for log in self.logs:
            for number, name in enumerate(log.names):
                partition = self.engine.partitions.get(name)
                ages.append(log.oldest(number, partition.offsets.frontier if partition else None, now))
        return max(ages)

    async def close(self) -> None:
        await self.engine.stop(1.0)
        await self.delivery.close()


def calls_by_kind(calls: Sequence[Call]) -> Mapping[str, int]:
    """Calls by endpoint."""
    found: dict[str, int] = {}
    for call in calls:
        found[call.endpoint] = found.get(call.endpoint, 0) + 1
    return found
