"""Which partitions are ours, from which offset each is read, and which stand still.

A partition that is ours is in one of three states: *read*; *paused*, by the runtime or because the event loop is
behind (`held`); or *adrift*: it has no position that the log knows. Adrift partitions are not read but asked about
again, every second, and the runtime hears of a new one only once its position is known.

Belongs to the polling thread.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

import structlog
from confluent_kafka import Consumer, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from bridge.kafka.ages import Ages
from bridge.kafka.ends import LogEnds
from bridge.kafka.faults import Notices, names
from bridge.kafka.properties import reason
from bridge.kafka.starting import EARLIEST, Beginning, Resolved, Stale, offsets_at, resolve
from bridge.kafka.topics import Topics
from bridge.model import Assigned, Position, TopicPartition

log = structlog.get_logger(__name__)

ASK_SECONDS = 5.0
"""For each question to the coordinator while partitions are assigned; after that it is asked again, less patiently."""
ASK_AGAIN_SECONDS = 1.0
WARN_LOOK_SECONDS = 10.0
TOPIC_SECONDS = 1.0
"""For the topics' ids, counted from when what is committed is known: the group waits meanwhile. A broker on the same
continent takes less than a tenth of it."""

Partitions = Iterable[TopicPartition]
TellAssigned = Callable[[list[Assigned]], None]
TellLost = Callable[[list[TopicPartition]], None]
TellRemoved = Callable[[TopicPartition, int], None]
CountLost = Callable[[str, int], None]


class Assignment:
    """What is told reaches the listener; all is told in the order in which things happen.

    `count_lost` hears of removed offsets by their topic; `stale` is explained where it is defined.
    """

    def __init__(
        self,
        starts: Mapping[str, int],
        notices: Notices,
        *,
        tell_assigned: TellAssigned,
        tell_lost: TellLost,
        tell_removed: TellRemoved,
        count_lost: CountLost,
        stale: Stale,
    ) -> None:
        self._starts = dict(starts)
        self._notices = notices
        self._tell_assigned = tell_assigned
        self._tell_lost = tell_lost
        self._tell_removed = tell_removed
        self._count_lost = count_lost
        self._stale = stale
        self._epoch_numbers = itertools.count(1)
        self.epochs: dict[TopicPartition, int] = {}
        """Every partition that is ours, and the number of this assignment of it."""
        self.ends = LogEnds()
        self.topics = Topics(list(starts))
        self.ages = Ages(lambda: self.topics.retention_seconds)
        self.held = False
        self._warn_at = 0.0
        self._paused: set[TopicPartition] = set()
        self._adrift: dict[TopicPartition, int | None] = {}
        """None before the first position is known, else the offset that the log does not have."""
        self._anew: set[TopicPartition] = set()
        """Of those adrift: their topic was created anew, so that offsets of the former one mean nothing."""
        self._ask_at = 0.0
        self._hashes: Mapping[str, int] = {}
        """The topics' hashes as they were told for the positions that are being looked for."""

    def owns(self, position: Position) -> bool:
        """Whether the assignment that asks for this commit lasts; epoch 0 stands for the present one."""
        epoch = self.epochs.get(position.partition)
        return epoch is not None and position.epoch in (0, epoch)

    def told(self, partitions: Partitions) -> list[TopicPartition]:
        """Those that the listener knows of as its own."""
        return [tp for tp in partitions if tp in self.epochs and self._adrift.get(tp, 0) is not None]

    # --- rebalances ---------------------------------------------------------------------------------------------------

    def add(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        """Starts reading; blocks for as long as it takes to learn from where, within bounds."""
        found = self._resolve(consumer, partitions, ASK_SECONDS)
        self._count_partitions(consumer, partitions)
        offsets = {beginning.partition: beginning.offset for beginning in found.beginnings}
        consumer.incremental_assign([KafkaPartition(*tp, offsets.get(tp, EARLIEST)) for tp in partitions])
        # Without a position a partition is assigned, so that the group moves on, but not read.
        still = set(partitions if self.held else found.unresolved)
        _pause(consumer, still)
        _resume_anew(consumer, [tp for tp in partitions if tp not in still])
        for tp in partitions:
            self.epochs[tp] = next(self._epoch_numbers)
        if found.unresolved:
            self._adrift.update(dict.fromkeys(found.unresolved))
            self._ask_at = time.monotonic() + ASK_AGAIN_SECONDS
            self._notices.say(
                "positions",
                f"the committed offsets of {names(found.unresolved)} cannot be read ({found.why}); these partitions "
                "wait, and the question is repeated",
            )
        self._announce(found.beginnings)

    def _count_partitions(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        """Of topics that are new, or have grown, since they were counted: for brokers that do not describe topics."""
        known = self.topics.partitions
        for topic in sorted({tp.topic for tp in partitions if tp.partition >= known.get(tp.topic, 0)}):
            try:
                told = consumer.list_topics(topic, timeout=TOPIC_SECONDS).topics.get(topic)
            except KafkaException as error:
                log.debug("the partitions of a topic are not told", topic=topic, error=reason(error.args[0]))
                continue
            if told is not None and told.error is None:
                self.topics.note_partitions({topic: len(told.partitions)})

    def forget(self, partitions: Partitions) -> None:
        gone = list(partitions)
        for tp in gone:
            self.epochs.pop(tp, None)
            self._adrift.pop(tp, None)
            self._anew.discard(tp)
            self._paused.discard(tp)
        self.ends.forget(gone)
        self.ages.forget(gone)

    def _resolve(self, consumer: Consumer, partitions: Sequence[TopicPartition], seconds: float) -> Resolved:
        self.topics.ask()  # answered while what is committed is read

        def hashes() -> Mapping[str, int]:
            fresh = self._hashes = self.topics.fresh(TOPIC_SECONDS)
            self._note_anew(consumer)
            return fresh

        return resolve(consumer, partitions, self._starts, seconds, hashes=hashes, stale=self._stale)

    def _announce(self, beginnings: Sequence[Beginning]) -> None:
        for beginning in beginnings:
            tp, offset = beginning.partition, beginning.offset
            self.ends.begin(tp, offset)
            self.ages.begin(tp, offset)
            if beginning.lost_from is not None:
                self._say_removed(tp, beginning.lost_from, offset)
            if beginning.of_another is not None:
                self._say_anew(tp, beginning.of_another, offset)
        self._tell_assigned(
            [
                Assigned(
                    b.partition,
                    self.epochs[b.partition],
                    b.offset,
                    b.metadata,
                    b.fresh,
                    b.lost_from,
                    self._hashes.get(b.partition.topic),
                    (b.of_another, b.former_metadata) if b.of_another is not None else None,
                )
                for b in beginnings
            ]
        )

    # --- standing still -----------------------------------------------------------------------------------------------

    def pause(self, consumer: Consumer, partitions: Partitions) -> None:
        ours = [tp for tp in partitions if tp in self.epochs]
        self._paused.update(ours)
        _pause(consumer, ours)

    def resume(self, consumer: Consumer, partitions: Partitions) -> None:
        ours = [tp for tp in partitions if tp in self._paused]
        self._paused.difference_update(ours)
        if not self.held:
            _resume(consumer, [tp for tp in ours if tp not in self._adrift])

    def hold(self, consumer: Consumer) -> None:
        """Stops all fetching, beside what the runtime has paused."""
        self.held = True
        _pause(consumer, self.epochs)

    def release(self, consumer: Consumer) -> None:
        self.held = False
        _resume(consumer, self.epochs.keys() - self._paused - self._adrift.keys())

    def look_around(self, consumer: Consumer) -> None:
        """At the logs' ends, at the topics, and at what retention threatens; seldom more than a look at the clock."""
        now = time.monotonic()
        for tp, low in self.ends.refresh(consumer, self._paused - self._adrift.keys(), now).items():
            log.debug("retention has overtaken a paused partition", partition=str(tp), start=low)
            self.cut_off(tp, self.ends.positions[tp])
        self.topics.look(now)
        self._note_anew(consumer)
        if now >= self._warn_at:
            self._warn_at = now + WARN_LOOK_SECONDS
            self.ages.warn(now, time.time())

    # --- positions that the log does not have -------------------------------------------------------------------------

    def cut_off(self, partition: TopicPartition, offset: int) -> None:
        """The broker has nothing at `offset`: below the log's start, or beyond its end."""
        if partition in self.epochs:
            self._adrift[partition] = offset
            self._ask_at = 0.0

    def _note_anew(self, consumer: Consumer) -> None:
        """What is read of a topic that was created anew goes on at the beginning, whatever `start` says."""
        for topic in self.topics.take_anew():
            self._starts[topic] = EARLIEST
            ours = [tp for tp in self.epochs if tp.topic == topic and self._adrift.get(tp, 0) is not None]
            self._notices.say(
                f"recreated {topic}",
                f"topic {topic} was deleted and created anew: progress is dropped and it is read from its beginning; "
                "what was delivered from its former records is not taken back",
            )
            _pause(consumer, ours)
            for tp in ours:
                self._anew.add(tp)
                self._adrift[tp] = self.ends.positions.get(tp, 0)
            self._ask_at = 0.0

    def find_positions(self, consumer: Consumer) -> None:
        """Asks again for what could not be known before; what stays unknown waits for the next time."""
        if not self._adrift or time.monotonic() < self._ask_at:
            return
        self._ask_at = time.monotonic() + ASK_AGAIN_SECONDS
        fresh = [tp for tp, offset in self._adrift.items() if offset is None]
        if fresh and (found := self._resolve(consumer, fresh, ASK_AGAIN_SECONDS).beginnings):
            self._move(consumer, {beginning.partition: beginning.offset for beginning in found})
            self._announce(found)
        outside = {tp: offset for tp, offset in self._adrift.items() if offset is not None}
        if outside:
            self.topics.ask()
        try:
            lows = offsets_at(consumer, dict.fromkeys(outside, EARLIEST), ASK_AGAIN_SECONDS)
        except KafkaException as error:
            log.debug("the log's start cannot be found out", error=reason(error.args[0]))
            return
        if outside:
            self._hashes = self.topics.fresh(TOPIC_SECONDS)
            self._note_anew(consumer)
        for tp, low in lows.items():
            self._back_into_the_log(consumer, tp, outside[tp], low)

    def _back_into_the_log(self, consumer: Consumer, tp: TopicPartition, offset: int, low: int) -> None:
        anew = tp in self._anew
        if offset < low and not anew:
            # Retention overtook us. What has been read stays valid; the rest is a gap (delivery.md, 5 and 7).
            self._move(consumer, {tp: low})
            self.ends.begin(tp, low)
            self._say_removed(tp, offset, low)
            self._tell_removed(tp, low)
            return
        # Beyond the log's end, or of another log: the old positions mean other records now, or none.
        if not anew:  # that has been told
            self._notices.say(
                f"recreated {tp}",
                f"{tp} does not reach offset {offset}: it was truncated or recreated. Its progress is dropped and it "
                f"is read from its beginning, offset {low}; what was delivered from its former records is not taken "
                "back",
            )
        self._tell_lost([tp])
        self.epochs[tp] = next(self._epoch_numbers)
        self._paused.discard(tp)
        self._move(consumer, {tp: low})
        self._announce([Beginning(tp, low, fresh=True)])

    def _move(self, consumer: Consumer, offsets: Mapping[TopicPartition, int]) -> None:
        """Reads on at `offsets`. Not by seek: that is refused for a partition whose fetching has stopped."""
        consumer.incremental_unassign([KafkaPartition(*tp) for tp in offsets])
        consumer.incremental_assign([KafkaPartition(*tp, offset) for tp, offset in offsets.items()])
        for tp in offsets:
            self._adrift.pop(tp, None)
            self._anew.discard(tp)
        still = set(offsets) if self.held else self._paused & offsets.keys()
        _pause(consumer, still)
        _resume_anew(consumer, offsets.keys() - still)

    def _say_anew(self, tp: TopicPartition, offset: int, low: int) -> None:
        self._notices.say(
            f"recreated {tp}",
            f"{tp.topic} is not the topic it was: it was deleted and created anew. What was committed for {tp}, offset "
            f"{offset}, means nothing there: progress is dropped and it is read from its beginning, offset {low}; what "
            "was delivered from its former records is not taken back",
        )

    def _say_removed(self, tp: TopicPartition, first: int, low: int) -> None:
        self._count_lost(tp.topic, low - first)
        self._notices.say(
            f"retention {tp}",
            f"{tp} begins at offset {low}: offsets {first} to {low - 1} were removed by retention before they were "
            "read. They are lost to the bridge; it goes on at the beginning of what is there",
        )


def _pause(consumer: Consumer, partitions: Partitions) -> None:
    if chosen := [KafkaPartition(*tp) for tp in partitions]:
        consumer.pause(chosen)


def _resume_anew(consumer: Consumer, partitions: Partitions) -> None:
    """For partitions just assigned: librdkafka keeps one paused, for ever, that was so when it was unassigned last."""
    _resume(consumer, partitions)


def _resume(consumer: Consumer, partitions: Partitions) -> None:
    if chosen := [KafkaPartition(*tp) for tp in partitions]:
        consumer.resume(chosen)
