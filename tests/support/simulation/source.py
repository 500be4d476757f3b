"""A group member's way to the imagined Kafka: ports.Source as the real one behaves."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import deque
from collections.abc import Mapping, Sequence
from contextvars import Context
from typing import Any

from bridge.model import Assigned, Position, Record, TopicPartition
from bridge.ports import SourceListener
from tests.support.simulation.broker import Broker, Request
from tests.support.simulation.ledger import ALIVE

BATCHES_OUT_MAX = 4
COMMIT_SECONDS = 0.008
REFUSALS_MAX = 3
"""Of the last commit of a revocation; after so many nobody can ask a member to try on."""
UNOWNED = "not assigned to this consumer any more"


class SimSource:
    """ports.Source of one member. What the listener is told reaches it in the order in which it happened."""

    def __init__(self, broker: Broker, name: str, context: Context) -> None:
        self.broker = broker
        self.world = broker.world
        self.session_seconds = broker.world.scenario.session_seconds
        self.name = name
        self.reachable = True
        self._context = context
        self._dice = self.world.dice(f"source {name}")
        self._listener: SourceListener | None = None
        self._notices: deque[tuple[Any, ...]] = deque()
        self._due = False
        self._epoch = 0
        self.epochs: dict[TopicPartition, int] = {}
        self._positions: dict[TopicPartition, int] = {}
        self._adrift: set[TopicPartition] = set()
        """The log does not begin before what is to be read next; it is not noticed yet."""
        self._stood = 0.0
        self._paused: set[TopicPartition] = set()
        self._batches_out = 0
        self._on_their_way: deque[list[Record]] = deque()
        self._fetching = False
        self._revoking = 0
        self._refusals = 0
        self._commits: deque[Request] = deque()
        self._in_flight: Request | None = None
        self._ticket = 0
        self.closed = False
        self.dead = False
        self.joined = False
        self._idle = asyncio.Event()
        self._revocations: deque[tuple[TopicPartition, ...]] = deque()

    # ports.Source

    def start(self, listener: SourceListener) -> None:
        self._listener = listener
        self.world.later(self._dice.random(), self._join)

    def _join(self) -> None:
        if not self.reachable and not self.dead:
            self.world.later(1.0, self._join)
        elif not self.closed:
            self.joined = True
            self.broker.join(self)

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        self._paused.update(partitions)

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        self._paused.difference_update(partitions)
        self.fetch_soon()

    def commit(self, positions: Sequence[Position]) -> None:
        if not positions:
            return
        logs = self.broker.logs
        self.broker.ledger.commit_asked(self.name)
        self._commits.append([(p, logs[p.partition].generation, self.epochs.get(p.partition, 0)) for p in positions])
        self._next_commit()

    def standstill(self) -> float:
        stood, self._stood = self._stood, 0.0
        return stood

    def stood_still(self, seconds: float) -> None:
        """The process was stopped for so long: nobody polled."""
        self._stood = max(self._stood, seconds)

    def partition_counts(self) -> Mapping[str, int]:
        return {name.topic: len(self.broker.logs) for name in self.broker.logs}

    def log_ends(self) -> Mapping[TopicPartition, int]:
        # Where nothing is left to read, the position is the end: what retention removed is no lag.
        ends = {}
        for name, position in self._positions.items():
            records = self.broker.logs[name].records
            ends[name] = max(position, records[-1].offset + 1) if records else position
        return {name: end for name, end in ends.items() if name in self.epochs}

    async def close(self) -> None:
        self.closed = True
        self.told_to_revoke(tuple(self.epochs))
        while self.epochs or self._revoking:
            self._idle.clear()
            await self._idle.wait()
        self.broker.leave(self)

    @property
    def busy(self) -> bool:
        """In a rebalance callback: its polling thread does nothing else meanwhile."""
        return self._revoking > 0

    def carry_on(self) -> None:
        """The broker can be reached again."""
        self.broker.offer(self)
        self._next_revocation()
        self.fetch_soon()

    # Notices, in order

    def _tell(self, what: str, *arguments: Any) -> None:
        self._notices.append((what, *arguments))
        if not self._due:
            self._due = True
            self.world.loop.call_soon(self._deliver, context=self._context)

    def _deliver(self) -> None:
        self._due = False
        listener = self._listener
        assert listener is not None
        while self._notices:
            what, *arguments = self._notices.popleft()
            try:
                if what == "records":
                    self._hand_over(listener, arguments[0])
                elif what == "revoked":
                    asyncio.get_running_loop().create_task(self._revoke(arguments[0]))
                else:
                    getattr(listener, what)(*arguments)
            except Exception as error:
                self.world.break_promise(ALIVE, f"{self.name}: listener.{what} raised {error!r}")

    def _hand_over(self, listener: SourceListener, batch: list[Record]) -> None:
        self._batches_out -= 1
        for record in batch:
            if self.epochs.get((record.topic, record.partition)) == record.epoch:  # type: ignore[call-overload]
                self.broker.ledger.read(self.name, TopicPartition(record.topic, record.partition), record.offset)
        listener.records(batch)
        self.fetch_soon()

    # Fetching

    def fetch_soon(self) -> None:
        if not self._fetching:
            self._fetching = True
            self.world.loop.call_later(self._dice.random() * 0.01, self._fetch, context=self._context)

    def _fetch(self) -> None:
        self._fetching = False
        if self._revoking or not self.reachable or self._batches_out >= BATCHES_OUT_MAX:
            return
        room = self._dice.randint(1, self.world.scenario.batch_max)
        batch: list[Record] = []
        more = False
        names = [name for name in self.epochs if name not in self._paused and name not in self._adrift]
        self._dice.shuffle(names)
        for name in names:
            log, position, epoch = self.broker.logs[name], self._positions[name], self.epochs[name]
            for place in range(bisect_left(log.records, position, key=_offset), len(log.records)):
                record = log.records[place]
                if len(batch) >= room:
                    more = True
                    break
                batch.append(record._replace(epoch=epoch))
                self._positions[name] = record.offset + 1
        if batch:
            self._batches_out += 1
            self._on_their_way.append(batch)
            self.world.loop.call_later(self._dice.choice((0.0, 0.001, 0.02)), self._arrive, context=self._context)
        if more:
            self.fetch_soon()

    def _arrive(self) -> None:
        self._tell("records", self._on_their_way.popleft())  # the oldest first, whichever timer it was

    # Rebalances

    def assigned(
        self,
        name: TopicPartition,
        offset: int,
        metadata: str,
        *,
        fresh: bool,
        topic_hash: int,
        committed: int | None = None,
        former: tuple[int, str] | None = None,
    ) -> None:
        self._epoch += 1
        self.epochs[name] = self._epoch
        self._positions[name] = offset
        self._paused.discard(name)
        self._adrift.discard(name)
        self.world.say(self.name, f"gets {name} at {offset}, epoch {self._epoch} {metadata[:40]}")
        self.broker.ledger.commit_acknowledged(self.name)
        self.broker.ledger.assigned(
            self.name, name, self._epoch, offset, offset if committed is None else committed, metadata
        )
        self._tell("assigned", [Assigned(name, self._epoch, offset, metadata, fresh, committed, topic_hash, former)])
        self.fetch_soon()

    def told_to_revoke(self, names: tuple[TopicPartition, ...]) -> None:
        self._revocations.append(names)
        self._next_revocation()

    def _next_revocation(self) -> None:
        if self._revoking or not self.reachable:
            return
        while self._revocations:
            names = tuple(name for name in self._revocations.popleft() if name in self.epochs)
            if not self.closed:
                names = tuple(name for name in names if self.broker.logs[name].target is not self)
            if names:
                self._revoking += 1
                self._tell("revoked", names)
                return
        self._idle.set()

    async def _revoke(self, names: tuple[TopicPartition, ...]) -> None:
        assert self._listener is not None
        self.world.say(self.name, f"must give up {', '.join(map(str, names))}")
        begun = self.world.now
        budget = self.world.scenario.revoke_seconds + 1.0
        self._refusals = 0
        self._settle_in_flight()
        try:
            async with asyncio.timeout(budget):
                await self._listener.revoked(names)
        except TimeoutError:
            self.world.break_promise(ALIVE, f"{self.name} did not give up {names} within its budget of {budget} s")
        while self._in_flight is not None or self._commits:
            await asyncio.sleep(0.01)
        self.world.say(self.name, f"gives up {', '.join(map(str, names))} after {self.world.now - begun:.2f} s")
        mine = [name for name in names if name in self.epochs]
        self._drop(mine, "lost" if self._refusals >= REFUSALS_MAX else "revoked")
        self._revoking -= 1
        self.broker.released(self, mine)
        self._next_revocation()
        self.fetch_soon()

    def _drop(self, names: Sequence[TopicPartition], how: str) -> None:
        for name in names:
            self.broker.ledger.given_up(self.name, name, how)
            self.epochs.pop(name, None)
            self._paused.discard(name)
        self._idle.set()

    def lose(self, names: Sequence[TopicPartition]) -> None:
        """The group has given them to somebody else already."""
        names = [name for name in names if name in self.epochs]
        if names:
            self.world.say(self.name, f"has lost {', '.join(map(str, names))}")
            self._drop(names, "lost")
            self._tell("lost", names)

    def recreated(self, name: TopicPartition) -> None:
        """The topic's id is another one."""
        if name in self.epochs:
            self.lose([name])
            self.assigned(name, 0, "", fresh=True, topic_hash=self.broker.logs[name].topic_hash)

    def truncated(self, name: TopicPartition) -> None:
        """Retention removed what was to be read next; a fetch, or a look at a paused partition, will tell."""
        if name in self.epochs and self._positions[name] < self.broker.logs[name].low:
            self._adrift.add(name)
            self.world.later(5.0 * self._dice.random(), self._find_position, name, self.epochs[name])

    def _find_position(self, name: TopicPartition, epoch: int) -> None:
        if self.epochs.get(name) != epoch or self.dead:
            return
        if not self.reachable or self._revoking:
            self.world.later(1.0, self._find_position, name, epoch)
            return
        low = self.broker.logs[name].low
        self._adrift.discard(name)
        if low > self._positions[name]:
            self._positions[name] = low
            self.world.say(self.name, f"notices that {name} begins at {low}")
            self._tell("removed", name, low)
        self.fetch_soon()

    def die(self) -> None:
        """kill -9: nothing is told and nothing is drained."""
        self.closed = self.dead = True
        self.reachable = False
        for name in self.epochs:
            self.broker.ledger.given_up(self.name, name, "killed")

    # Commits: one in flight at a time, each answered once

    def _next_commit(self) -> None:
        while self._in_flight is None and self._commits and not self.dead:
            request = self._commits.popleft()
            gone = [each[0] for each in request if self.epochs.get(each[0].partition) != each[2]]
            if gone:
                self._tell("committed", gone, UNOWNED)
            rest = [each for each in request if self.epochs.get(each[0].partition) == each[2]]
            if rest:
                self._send(rest)

    def _send(self, request: Request) -> None:
        self._in_flight = request
        self._ticket += 1
        fault = self._fault()
        if fault:
            self.world.say(self.name, f"commit meets {fault}")
            self.broker.ledger.commit_troubled(self.name)
            self._refusals += 1 if fault == "refused" else REFUSALS_MAX
        way = COMMIT_SECONDS * (0.5 + self._dice.random())
        if fault in ("", "late_done"):
            self.world.later(way / 2, self._apply, request, self._ticket, fault)
        elif fault == "refused":
            self.world.later(way, self._answer, request, self._ticket, "REBALANCE_IN_PROGRESS")
        if fault in ("late", "late_done"):
            wait = 10.0 + 30.0 * self._dice.random()
            self.world.later(wait, self._answer, request, self._ticket, "Local: Timed out")

    def _fault(self) -> str:
        if not self.reachable:
            return "late"
        if self.world.faults_on:
            drawn = self._dice.random()
            for kind, share in sorted(self.world.scenario.commits.items()):
                drawn -= share
                if drawn < 0:
                    return "refused" if self._revoking and kind == "late" else kind
        return ""

    def _settle_in_flight(self) -> None:
        """A revocation does not wait for the answer to the commit under way: it is made once more."""
        if self._in_flight is not None:
            request, self._in_flight = self._in_flight, None
            self._commits.appendleft(request)
            self._ticket += 1  # the former answer finds no one waiting
            self._next_commit()

    def _apply(self, request: Request, ticket: int, fault: str) -> None:
        answers = self.broker.commit(self, request)
        if not fault:
            self.world.later(COMMIT_SECONDS / 2, self._answer_each, answers, ticket)

    def _answer_each(self, answers: list[tuple[Position, str | None]], ticket: int) -> None:
        if ticket != self._ticket or self.dead:
            return
        self._in_flight = None
        good = [position for position, error in answers if error is None]
        if good:
            self.broker.ledger.commit_acknowledged(self.name)
            self._tell("committed", good, None)
        for position, error in answers:
            if error is not None:
                self._tell("committed", [position], error)
        self._next_commit()

    def _answer(self, request: Request, ticket: int, error: str) -> None:
        if ticket != self._ticket or self.dead:
            return
        self._in_flight = None
        self._tell("committed", [position for position, _, _ in request], error)
        self._next_commit()


def _offset(record: Record) -> int:
    return record.offset
