"""The engine on a virtual clock: everything between Kafka and Meisa as bridge/app.py wires it, the outside imagined.

What differs from the service: state begins empty and is kept in memory, since a preview must not write to anybody's
store; the quota is one instance's that has all of it; a topic that its dead letters would stop goes
on at once, and the report tells it. Nothing is random but retries, whose dice are seeded: the same events give the
same calls at the same moments.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from bridge.app import limits_of, policy_of, repeats, secrets, unchanged_of
from bridge.core.identity import Identities
from bridge.core.quota import Quota
from bridge.model import Action, Call, Ending, Event, Letter, Plan, Record, TopicPartition, action_id
from bridge.preview.events import Decode, Timeline
from bridge.preview.imagined import ImaginedKafka, ImaginedLetters, ImaginedMeisa, ImaginedStore
from bridge.preview.story import Story, names_of
from bridge.preview.tally import Tally
from bridge.runtime.completion import Completion
from bridge.runtime.delivery import Delivery
from bridge.runtime.duplicates import Duplicates
from bridge.runtime.engine import Engine
from bridge.runtime.suppression import SuppressionSync
from bridge.scopes import reads_suppressions
from bridge.state.memory import MemoryStore
from bridge.virtual import VirtualClock, VirtualLoop, run

if TYPE_CHECKING:
    from bridge.config import Settings
    from bridge.rules import RuleBook

BATCH: Final = 500
"""Records of one fetch, as the consumer takes them."""
FETCH_SECONDS: Final = 0.01
PING_AGAIN_SECONDS: Final = 0.02
IDLE_SECONDS: Final = 6 * 3_600.0
"""Of an idle time these are lived through at its beginning, and as much at its end: what is due in days (an older
suppression list, kept values) happens there. A looking engine's half year would take a minute."""
STANDSTILL_SECONDS: Final = 40 * 86_400.0
"""Without any call or ending for so long nothing will ever come: no setting waits longer than a month."""
LAZY_SECONDS_MAX: Final = 40 * 86_400.0
"""So long after the last event kept values of lazy fields are waited for."""


class Progress(Protocol):
    """Hears how far a preview is; must be cheap."""

    def told(self, fed: int, finished: int, calls: int, seconds: float) -> None:
        """Events handed over, events finished, calls made, and the virtual time in seconds."""


Called = Callable[[Call, int, float], None]
"""A call, its answer's status, and when it was sent (seconds since the beginning)."""


def nobody(call: Call, status: int, seconds: float) -> None:
    pass


class Unheard:
    """Nobody looks on."""

    def told(self, fed: int, finished: int, calls: int, seconds: float) -> None: ...


@dataclass
class Rehearsed:
    """What came of it."""

    tally: Tally
    timeline: Timeline
    seconds: float
    """From the beginning to the end of the last event."""
    new_account: bool = False
    unfinished: int = 0
    """Events that would wait for ever."""


def rehearse(
    settings: Settings,
    book: RuleBook,
    timeline: Timeline,
    decode: Mapping[str, Decode],
    *,
    contact: str = "",
    new_account: bool = False,
    progress: Progress | None = None,
    called: Called = nobody,
) -> Rehearsed:
    """Carries the events of a timeline through the engine. Blocks for as long as that takes to compute.

    `decode` holds the decoder of each topic (bridge/decoders.py), with what it needs to know already. `called` hears of
    each call as Meisa carries it out. A `new_account` knows nobody at the beginning.
    """
    loop = VirtualLoop()
    return run(_rehearse(settings, book, timeline, decode, contact, new_account, progress or Unheard(), called), loop)


async def _rehearse(
    settings: Settings,
    book: RuleBook,
    timeline: Timeline,
    decode: Mapping[str, Decode],
    contact: str,
    new_account: bool,
    progress: Progress,
    called: Called,
) -> Rehearsed:
    lines = {each.record.place: each.line for each in timeline.arrivals if each.line}
    story = None
    if contact:
        names = names_of(contact, (each.record for each in timeline.arrivals), decode, book.plan)
        story = Story(contact, names, lines)
    wall = timeline.wall_at_start
    clock = VirtualClock(wall)
    tally = Tally(
        book,
        lines=lines,
        now=clock.now,
        arrived_at=lambda record: min(clock.now(), max(0.0, record.timestamp_ms / 1000 - wall)),
        story=story,
    )
    house = _House(settings, book, clock, tally, decode, new_account, called)
    return await house.run(timeline, progress)


class _Meisa(ImaginedMeisa):
    def __init__(self, clock: VirtualClock, tally: Tally, new_account: bool, called: Called) -> None:
        super().__init__(clock, new_account=new_account)
        self._tally = tally
        self._called = called

    def made(self, sent: float, call: Call, status: int) -> None:
        self._tally.made(call, status, sent)
        self._called(call, status, sent)


class _Letters(ImaginedLetters):
    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def wrote(self, letter: Letter) -> None:
        self._tally.wrote(letter)


class _Engine(Engine):
    """Tells what becomes of events."""

    def __init__(self, tally: Tally, **parts: Any) -> None:
        super().__init__(**parts)
        self._tally = tally
        self.finished_events = 0
        self.awaited = -1
        self.all_finished = asyncio.Event()

    def finish(self, record: Record, ending: Ending) -> None:
        super().finish(record, ending)
        self._tally.done(record, ending)
        self._one_more()

    def _one_more(self) -> None:
        self.finished_events += 1
        if self.finished_events == self.awaited:
            self.all_finished.set()

    def too_old(self, action: Action, event: Event) -> bool:
        old = super().too_old(action, event)
        if old:
            self._tally.expired(event, action)
        return old

    def bury(self, letter: Letter) -> Completion[None]:
        completion = super().bury(letter)
        topic = letter.record.topic
        if self.burial.stopped(topic) and not self._tally.stopped_now(topic):
            self._tally.stopped(topic)
            asyncio.get_running_loop().call_soon(self._go_on, topic)
        return completion

    def _go_on(self, topic: str) -> None:
        self._tally.resumed(topic)
        self.resume_topic(topic)

    def _broken(self, record: Record, error: BaseException) -> None:
        super()._broken(record, error)
        self._tally.broken.append(record.place)
        self._one_more()


class _Meter:
    """ports.Meter: the tally hears of everything by other ways."""

    def consumed(self, topic: str, count: int) -> None: ...

    def finished(self, topic: str, outcome: str) -> None: ...

    def called(self, endpoint: str, status: str, seconds: float) -> None: ...

    def saved(self, cause: str, count: int) -> None: ...

    def delayed(self, lane: str, seconds: float) -> None: ...

    def dead_letter(self, kind: str, rule: str) -> None: ...

    def committed(self, result: str) -> None: ...

    def rebalanced(self, kind: str) -> None: ...

    def lost(self, topic: str, count: int) -> None: ...

    def reloaded(self, result: str) -> None: ...

    def letter_tried(self, result: str) -> None: ...

    def replayed(self, state: str) -> None: ...


class _House:
    """Made inside the virtual loop."""

    def __init__(
        self,
        settings: Settings,
        book: RuleBook,
        clock: VirtualClock,
        tally: Tally,
        decode: Mapping[str, Decode],
        new_account: bool,
        called: Called,
    ) -> None:
        self._clock = clock
        self._tally = tally
        self._book = book
        self._keys = list(secrets(settings))
        limits, reserve = limits_of(settings), settings.meisa.quota.reserve
        group = settings.kafka.group_id
        self.source = ImaginedKafka()
        store = MemoryStore() if settings.state.url == "memory" else ImaginedStore()
        meter = _Meter()
        meisa = _Meisa(clock, tally, new_account, called)
        self.delivery = Delivery(
            meisa,
            {name: Quota(limits, reserve=reserve) for name in self._keys},
            clock=clock,
            meter=meter,
            policy=policy_of(settings),
            identify=lambda record, action: action_id(group, record, action),
            max_in_flight=settings.meisa.max_in_flight,
            dice=random.Random(1),
            identities=Identities(store=store if store.lasting else None),
            store=store,
            bulk_after_seconds=settings.delivery.bulk_after,
            unchanged=unchanged_of(settings, book.writers(settings.topics), clock, self.source.partition_counts, store),
        )
        self.delivery.sending.watch = tally
        self.engine = _Engine(
            tally,
            group=group,
            decoders=decode,
            plan=self._plan,
            source=self.source,
            letters=_Letters(tally),
            clock=clock,
            meter=meter,
            delivery=self.delivery,
            metadata_bytes_max=settings.kafka.offset_metadata_max_bytes,
            stop_at=(settings.dead_letters.stop_at.share, settings.dead_letters.stop_at.of),
            store=store,
            duplicates=Duplicates(repeats(settings), clock=clock, store=store),
        )
        self.suppressions = SuppressionSync(self.delivery, self._keys, clock)
        self._new_account = new_account
        self._fed = 0

    def _plan(self, event: Event) -> Plan:
        plan = self._book.plan(event)
        self._tally.planned_for(event, plan)
        return plan

    async def run(self, timeline: Timeline, progress: Progress) -> Rehearsed:
        engine, tally = self.engine, self._tally
        engine.awaited = len(timeline.arrivals)
        self.source.start(engine)
        self.source.assign(timeline.starts)
        feeding = asyncio.get_running_loop().create_task(self._feed(timeline, progress))
        telling = asyncio.get_running_loop().create_task(self._tell(progress))
        for key in self._keys if timeline.arrivals else ():
            await self._ping(key)
        self.delivery.open()
        if reads_suppressions(self._book):
            self.suppressions.start()
        await feeding
        unfinished = 0 if await self._finished() else engine.awaited - engine.finished_events
        telling.cancel()
        await self.suppressions.close()
        seconds = tally.last_finish
        await self._lazy_values()
        await engine.stop(1.0)
        await self.delivery.close()
        return Rehearsed(tally, timeline, seconds, self._new_account, unfinished)

    async def _ping(self, key: str) -> None:
        """The service's first call; it needs a share of the quota, and a commit that permits it."""
        while True:
            if await self.delivery.ask(Call("ping", key=key)) is not None:
                return
            await asyncio.sleep(PING_AGAIN_SECONDS)

    async def _idle_until(self, arrival: float) -> None:
        """Waits for what comes next. Of days in which nothing happens only the ends are lived through."""
        now = self._clock.now()
        await asyncio.sleep(max(FETCH_SECONDS, min(arrival - now, IDLE_SECONDS)))
        if arrival - now <= IDLE_SECONDS or self.delivery.pending or self._fed > self.engine.finished_events:
            return
        at = self.delivery.lazy.values.next_deadline()
        until = min(arrival, math.inf if at is None else at - self._clock.wall_at_start) - IDLE_SECONDS
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        loop.skip_to(until)

    async def _tell(self, progress: Progress) -> None:
        while True:
            progress.told(self._fed, self.engine.finished_events, self._tally.calls.total(), self._clock.now())
            await asyncio.sleep(60.0)

    async def _finished(self) -> bool:
        """Whether all events finish; False once nothing happens any more."""
        engine, tally = self.engine, self._tally
        if not engine.awaited:
            return True

        def far() -> tuple[int, int]:
            return engine.finished_events, tally.calls.total() - tally.calls["unsubscribed"]  # these never end

        while True:
            before = far()
            try:
                async with asyncio.timeout(STANDSTILL_SECONDS):
                    await engine.all_finished.wait()
                return True
            except TimeoutError:
                if far() == before:
                    return False

    async def _lazy_values(self) -> None:
        """What no call took along goes by itself, within its period."""
        values, end = self.delivery.lazy.values, self._clock.now() + LAZY_SECONDS_MAX
        while self._clock.now() < end:
            at = values.next_deadline()
            if at is None and not self.delivery.pending:
                return
            await asyncio.sleep(max(1.0, (at or 0.0) - self._clock.wall()))

    async def _feed(self, timeline: Timeline, progress: Progress) -> None:
        """Hands over what has arrived, in the order of each partition, to those that are not paused."""
        waiting: dict[TopicPartition, deque[Record]] = {name: deque() for name in timeline.starts}
        arrivals, place, start = timeline.arrivals, 0, timeline.wall_at_start
        source, flowing = self.source, self.source.flowing
        backlog = 0
        while place < len(arrivals) or backlog:
            now = self._clock.now()
            while place < len(arrivals) and arrivals[place].at - start <= now:
                record = arrivals[place].record
                waiting[TopicPartition(record.topic, record.partition)].append(record)
                self._tally.minute(now).arrived += 1
                place += 1
                backlog += 1
            fed = 0
            for name, records in waiting.items():
                if records and name not in source.paused:
                    batch = [records.popleft() for _ in range(min(BATCH, len(records)))]
                    source.feed(batch)
                    fed += len(batch)
            backlog -= fed
            self._fed += fed
            if fed:
                progress.told(self._fed, self.engine.finished_events, self._tally.calls.total(), now)
                await asyncio.sleep(FETCH_SECONDS)
                continue
            coming = arrivals[place].at - start - now if place < len(arrivals) else None
            if not backlog:
                await self._idle_until(arrivals[place].at - start)
                continue
            flowing.clear()
            try:
                async with asyncio.timeout(None if coming is None else max(FETCH_SECONDS, coming)):
                    await flowing.wait()
            except TimeoutError:
                pass
