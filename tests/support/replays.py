"""Replays in memory: topics with their faults, and an instance that can be killed at any step."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Collection, Sequence

from bridge.core.quota import Quota
from bridge.core.retry import Policy
from bridge.errors import LogFailed
from bridge.kafka.letters import headers_of
from bridge.model import Event, Letter, LetterKind, Plan, Record, TopicPartition, action_id
from bridge.replay.ledger import Place, Request, State, States, Wish, read, write
from bridge.replay.letters import DeadLetter, parse
from bridge.replay.service import Replays
from bridge.runtime.delivery import Delivery
from tests.support.engine import TOPIC, decode
from tests.support.engine import plan as plan_
from tests.support.fakes import CountingMeter, FakeMeisa
from tests.support.virtual import VirtualClock

LETTERS, REPLAYS = "letters", "letters.replays"
GROUP = "group"


class MemoryLogs:
    """Implements ports.LetterLogs. `fails()` is asked before and after each operation: a write may fail either way."""

    def __init__(self, fails: Callable[[], bool] = lambda: False, latency: float = 0.004) -> None:
        self.topics: dict[TopicPartition, list[Record | None]] = {}
        """By offset; None where retention or compaction has removed a record."""
        self.fails = fails
        self.latency = latency

    def append(self, topic: str, partition: int, key: bytes | None, value: bytes | None, **more: object) -> Record:
        log = self.topics.setdefault(TopicPartition(topic, partition), [])
        record = Record(topic, partition, len(log), 1_780_000_000_000, key, value)._replace(**more)  # type: ignore[arg-type]
        log.append(record)
        return record

    def low(self, topic: str, partition: int) -> int:
        log = self.topics[TopicPartition(topic, partition)]
        return next((offset for offset, record in enumerate(log) if record is not None), len(log))

    async def bounds(self, topic: str, partition: int) -> tuple[int, int] | None:
        await self._pass()
        log = self.topics.get(TopicPartition(topic, partition))
        return None if log is None else (self.low(topic, partition), len(log))

    async def read(self, topic: str, partition: int, start: int, end: int) -> AsyncGenerator[Sequence[Record], None]:
        for offset in range(start, end, 3):
            await self._pass()
            log = self.topics[TopicPartition(topic, partition)]
            yield [record for record in log[offset : min(offset + 3, end)] if record is not None]

    async def write(self, topic: str, entries: Sequence[tuple[bytes, bytes | None]]) -> None:
        await self._pass()
        for key, value in entries:
            self.append(topic, 0, key, value)
        await self._pass()

    async def partitions(self, topic: str) -> int:
        await self._pass()
        return sum(1 for partition in self.topics if partition.topic == topic)

    async def create(self, topic: str) -> bool:
        await self._pass()
        missing = TopicPartition(topic, 0) not in self.topics
        self.topics.setdefault(TopicPartition(topic, 0), [])
        return missing

    async def _pass(self) -> None:
        await asyncio.sleep(self.latency)
        if self.fails():
            raise LogFailed("the broker is away")

    async def close(self) -> None:
        pass

    # What a test does and asks

    def bury(self, letter: Letter) -> Record:
        """Writes a dead letter as the bridge does, and returns it as it is read."""
        record = letter.record
        kept = [header for header in record.headers if not header[0].startswith("meisa-bridge.")]
        return self.append(LETTERS, 0, record.key, record.value, headers=(*kept, *headers_of(letter)))

    def ask(self, letter: Record, at: int = 1, *, overwrite: bool = False, send_again: bool = False) -> Request:
        found = parse(letter)
        request = Request(found.source, found.name, at, Wish.REPLAY, found.place, overwrite, send_again)
        self.append(REPLAYS, 0, *write(request))
        return request

    def states(self) -> States:
        states = States()
        for record in self.topics.get(TopicPartition(REPLAYS, 0), ()):
            if record is not None:
                states.tell(read((record.key or b"", record.value)))
        return states

    def state(self, request: Request) -> tuple[State, str]:
        return self.states().of(*request.key)

    def letters(self) -> list[DeadLetter]:
        return [parse(record) for record in self.topics.get(TopicPartition(LETTERS, 0), ()) if record is not None]


class MemoryLetters:
    """Implements ports.Letters into the same logs."""

    def __init__(self, logs: MemoryLogs) -> None:
        self._logs = logs

    async def write(self, letter: Letter) -> None:
        await asyncio.sleep(self._logs.latency)
        self._logs.bury(letter)

    async def close(self) -> None:
        pass


class Instance:
    """Delivery and replays of one process, without an engine: `partitions` are what it owns."""

    def __init__(
        self,
        logs: MemoryLogs,
        meisa: FakeMeisa,
        *,
        policy: Policy | None = None,
        plan: Callable[[Event], Plan] = plan_,
        rules: Callable[[str], bool] = lambda name: True,
        seed: int = 1,
        deduplicated: Collection[str] = (),
    ) -> None:
        self.clock = VirtualClock()
        self.meter = CountingMeter()
        self.partitions: dict[TopicPartition, int] = {}
        self.delivery = Delivery(
            meisa,
            {"default": Quota([(1_000_000, 60.0)])},
            clock=self.clock,
            meter=self.meter,
            policy=policy or Policy(),
            identify=identify,
            dice=random.Random(seed),
        )
        self.replays = Replays(
            topic=REPLAYS,
            logs=logs,
            letters=MemoryLetters(logs),
            decoders={TOPIC: decode},
            plan=plan,
            knows_rule=rules,
            identify=identify,
            delivery=self.delivery,
            owned=lambda: self.partitions,
            clock=self.clock,
            meter=self.meter,
            deduplicated=deduplicated,
        )

    def start(self, *partitions: TopicPartition, epoch: int = 1) -> None:
        self.partitions.update(dict.fromkeys(partitions, epoch))
        self.delivery.open()
        self.replays.start()

    async def revoke(self, *partitions: TopicPartition) -> None:
        """As the engine does it."""
        for partition in partitions:
            del self.partitions[partition]
        self.delivery.withdraw(partitions)
        await self.delivery.drained(partitions)

    async def stop(self) -> None:
        await self.replays.hold()
        await self.revoke(*self.partitions)
        await self.replays.close()
        await self.delivery.close()

    def live(self, record: Record) -> None:
        """A live event, as the engine's intake would carry it."""
        event = decode(record)
        assert event is not None
        self.delivery.deliver(event, self.replays.plan(event).actions)


def identify(record: Record, action: object) -> str:
    return action_id(GROUP, record, action)  # type: ignore[arg-type]


def refused(record: Record, *positions: int, kind: LetterKind = LetterKind.REJECTED) -> Letter:
    """A dead letter of some of a record's actions."""
    event = decode(record)
    assert event is not None
    actions = [action for action in plan_(event).actions if action.position in positions]
    ids = tuple(identify(record, action) for action in actions)
    return Letter(record, kind, "no", rule="rule", undelivered=positions, undelivered_ids=ids)


async def settled(logs: MemoryLogs, *requests: Request, seconds: float = 36_000.0) -> None:
    """Waits, in virtual time, until all requests are answered."""
    async with asyncio.timeout(seconds):
        while any(logs.state(request)[0] is State.REQUESTED for request in requests):
            await asyncio.sleep(0.5)


def place_of(record: Record) -> Place:
    return Place(record.topic, record.partition, record.offset)
