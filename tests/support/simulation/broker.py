"""An imagined Kafka: logs with gaps, one consumer group with cooperative rebalances, and the offsets it has committed.

A partition has one owner at a time, except that a member that was expelled may not know it yet. The broker takes
commits from the owner only, and refuses text above its limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bridge.core.progress import decode
from bridge.model import Position, Record, TopicPartition
from tests.support.simulation import events
from tests.support.simulation.ledger import LOST, OURS, Ledger
from tests.support.simulation.world import World

if TYPE_CHECKING:
    from tests.support.simulation.source import SimSource

Request = list[tuple[Position, int, int]]
"""Positions to commit, each with the generation of its log and the epoch of its assignment when it was asked for."""


@dataclass(slots=True)
class PartitionLog:
    name: TopicPartition
    records: list[Record] = field(default_factory=list)
    low: int = 0
    next_offset: int = 0
    generation: int = 0
    """How often the topic was made anew. Each partition is a topic of its own in this."""
    owner: SimSource | None = None
    target: SimSource | None = None
    committed: tuple[int, str] | None = None
    forgotten_of: SimSource | None = None
    """Who alone knows what was used of the quota, because the offsets went with the topic."""

    @property
    def topic_hash(self) -> int:
        return 1_000 * self.name.partition + self.generation + 1


def of_former_topic(offset: int, metadata: str, topic_hash: int) -> bool:
    """As the adapter asks (bridge/app.py)."""
    progress = decode(offset, metadata) if metadata else None
    topic = getattr(progress, "topic", None)
    return topic is not None and topic != topic_hash


def _work(offset: int, metadata: str) -> tuple[int, object]:
    """What a commit tells of records."""
    progress = decode(offset, metadata)
    return offset, metadata if progress is None else progress._replace(spend=None)


class Broker:
    def __init__(self, world: World, ledger: Ledger) -> None:
        self.world = world
        self.ledger = ledger
        self._dice = world.dice("broker")
        self._producer = world.dice("producer")
        self.logs = {name: PartitionLog(name) for name in map(events.partition_name, range(world.scenario.partitions))}
        self.members: list[SimSource] = []
        self._ids: list[str] = []

    # Logs

    def produce(self, name: TopicPartition, count: int) -> None:
        """Appends records; between them offsets may be missing."""
        log, dice, scenario = self.logs[name], self._producer, self.world.scenario
        offsets = []
        for _ in range(count):
            while dice.random() < scenario.gaps:
                log.next_offset += dice.choice((1, 1, 2, 9))
            offsets.append(log.next_offset)
            log.next_offset += 1
        for entry in events.make(scenario, dice, self.world.now, name.partition, log.generation, offsets, self._ids):
            log.records.append(entry.record)
            self.ledger.produced(name, entry)
        if dice.random() < scenario.gaps:
            log.next_offset += 1  # a transaction's marker at the end
        self.world.say("broker", f"{name} holds records up to {log.records[-1].offset}")
        if log.owner is not None:
            log.owner.fetch_soon()

    def recreate(self, name: TopicPartition, *, offsets_stay: bool = False) -> None:
        """The topic is deleted and made again; whoever reads it notices that its id is another one."""
        log = self.logs[name]
        self.world.say("broker", f"{name} was recreated")
        log.records, log.low, log.next_offset = [], 0, 0
        log.generation += 1
        if not (offsets_stay and log.committed and of_former_topic(*log.committed, log.topic_hash)):
            if log.committed is not None and log.owner is None:
                self.world.forget_spend()
            log.committed = None  # also where nothing would tell of which topic they are
            log.forgotten_of = log.owner
        self.ledger.recreated(name)
        if log.owner is not None:
            log.owner.recreated(name)

    def truncate(self, name: TopicPartition, *, all_of_it: bool) -> None:
        """Retention removes the beginning of the log."""
        log = self.logs[name]
        cut = len(log.records) if all_of_it else self._dice.randrange(len(log.records) + 1)
        for record in log.records[:cut]:
            entry = self.ledger.logs[name].entries[record.offset]
            self.ledger.removed(name, entry)
        if cut:
            log.low = log.records[cut - 1].offset + 1
            log.records = log.records[cut:]
            self.world.say("broker", f"{name} begins at {log.low} now")
            if log.owner is not None:
                log.owner.truncated(name)

    # The group

    def join(self, source: SimSource) -> None:
        self.world.say("broker", f"{source.name} joins")
        self.members.append(source)
        self._rebalance()

    def leave(self, source: SimSource) -> None:
        if source in self.members:
            self.world.say("broker", f"{source.name} leaves")
            self.members.remove(source)
            for log in self.logs.values():
                if log.owner is source:
                    log.owner = None
            self._rebalance()

    def expel(self, source: SimSource) -> None:
        """No heartbeat for a session timeout."""
        if source in self.members:
            self.world.say("broker", f"{source.name} is expelled")
            self.leave(source)

    def _rebalance(self) -> None:
        """Sticky: partitions stay where they are as far as the counts allow."""
        if not self.members:
            for log in self.logs.values():
                log.target = None
            return
        share = -(-len(self.logs) // len(self.members))
        counts = dict.fromkeys(self.members, 0)
        homeless = []
        for log in self.logs.values():
            keep = log.owner if log.owner in counts else log.target
            if keep in counts and counts[keep] < share:
                log.target = keep
                counts[keep] += 1
            else:
                homeless.append(log)
        for log in homeless:
            log.target = min(counts, key=lambda member: counts[member])
            counts[log.target] += 1
        taken: dict[SimSource, list[TopicPartition]] = {}
        for log in self.logs.values():
            if log.owner is None:
                self.world.later(self._dice.random() * 3.5, self._give, log)
            elif log.owner is not log.target:
                taken.setdefault(log.owner, []).append(log.name)
        for source, names in taken.items():
            self.world.later(self._dice.random() * 3.0, source.told_to_revoke, tuple(names))

    def _give(self, log: PartitionLog) -> None:
        target = log.target
        if log.owner is not None or target is None or target not in self.members:
            return
        if target.closed or not target.reachable:
            return  # it leaves, is expelled, or comes back
        log.owner = target
        committed, metadata = log.committed or (log.low, "")
        offset = max(committed, log.low)
        damaged = bool(metadata) and self.world.faults_on and self._dice.random() < self.world.scenario.metadata_damage
        # Nobody could know, without the text, that the offset beside it is of a former topic.
        if damaged and not of_former_topic(committed, metadata, log.topic_hash):
            metadata = self._damage(metadata)
            if not OURS.match(metadata):
                self.world.forget_spend()
            self.world.say("broker", f"the text beside {offset} of {log.name} is damaged: {metadata[:60]!r}")
        moved = None if offset == committed else committed
        fresh = log.committed is None or moved is not None
        former = None
        if log.committed is None and log.forgotten_of not in (None, target):
            self.world.forget_spend()
        if of_former_topic(committed, metadata, log.topic_hash):
            self.world.say("broker", f"{log.name} is another topic than that of which {committed} was committed")
            former = (committed, metadata)
            offset, metadata, fresh, moved = log.low, "", True, None
        target.assigned(
            log.name,
            offset,
            metadata,
            fresh=fresh,
            committed=moved,
            topic_hash=log.topic_hash,
            former=former,
        )

    def offer(self, source: SimSource) -> None:
        """Gives what could not be given while the member was out of reach."""
        for log in self.logs.values():
            if log.owner is None and log.target is source:
                self.world.later(self._dice.random(), self._give, log)

    def _damage(self, metadata: str) -> str:
        dice = self._dice
        place = dice.randrange(len(metadata))
        match dice.randrange(6):
            case 0:
                return metadata[:place]
            case 1:
                return metadata[:place] + chr(33 + dice.randrange(90)) + metadata[place + 1 :]
            case 2:
                return "somebody else's"
            case 3:
                return "mb9:" + metadata[4:]
            case 4:
                return metadata + "~"
        return "mb1:" + "".join(chr(33 + dice.randrange(90)) for _ in range(dice.randrange(60)))

    def released(self, source: SimSource, names: Sequence[TopicPartition]) -> None:
        for name in names:
            log = self.logs[name]
            if log.owner is source:
                log.owner = None
                self.world.later(self._dice.random() * 3.5, self._give, log)

    def commit(self, source: SimSource, request: Request) -> list[tuple[Position, str | None]]:
        """Applies a commit; what the broker says of each position."""
        answers: list[tuple[Position, str | None]] = []
        for position, generation, _ in request:
            name, offset, metadata = position[:3]
            log = self.logs[name]
            error = None
            if log.owner is not source:
                error = "ILLEGAL_GENERATION"
            elif log.generation != generation:
                error = "UNKNOWN_TOPIC_ID"
            elif len(metadata.encode()) > self.world.scenario.metadata_bytes_max:
                error = "OFFSET_METADATA_TOO_LARGE"
                self.world.break_promise(LOST, f"{source.name} commits {len(metadata)} bytes of text beside {offset}")
            if error is None:
                before = log.committed[0] if log.committed else 0
                former = log.committed is not None and of_former_topic(*log.committed, log.topic_hash)
                if offset < before and not former:
                    self.world.break_promise(LOST, f"{source.name} takes {name} back from {before} to {offset}")
                # A commit without news is a question, and one of what calls may use of the quota no movement either.
                if log.committed is None or _work(*log.committed) != _work(offset, metadata):
                    self.world.last_effect = self.world.now
                log.committed = (offset, metadata)
                log.forgotten_of = None
                self.ledger.committed(source.name, name, offset, metadata)
            self.world.say("broker", f"{source.name} commits {name} {offset} {metadata[:40]} {error or ''}")
            answers.append((position, error))
        return answers
