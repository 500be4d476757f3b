"""Where the logs of owned partitions end, so that lag can be told, and where those of paused ones begin.

Three things make this more than a look-up. The offset after the last *record* counts: behind it may stand markers of
transactions, or offsets that compaction removed, and lag would never reach zero. A paused partition is not fetched, so
nobody tells of new records, nor that retention took old ones: then the broker is asked. And asking blocks the polling
thread, hence seldom.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from confluent_kafka import Consumer, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from bridge.kafka.starting import EARLIEST, LATEST, offsets_at
from bridge.model import TopicPartition

LOOK_SECONDS = 1.0
"""How often what the last fetches said is looked up; that is local."""
ASK_SECONDS = 5.0
"""How often the broker is asked about paused partitions, in two requests."""
ASK_SECONDS_MAX = 1.0


class LogEnds:
    """Belongs to the polling thread; `latest` is replaced as a whole and may be read from anywhere."""

    def __init__(self) -> None:
        self.latest: dict[TopicPartition, int] = {}
        self.positions: dict[TopicPartition, int] = {}
        """The offset after the last record read; before the first, where reading starts."""
        self._quiet: dict[TopicPartition, int] = {}
        """The offset up to which a partition was found to hold nothing more to read."""
        self._look_at = 0.0
        self._ask_at = 0.0

    def begin(self, partition: TopicPartition, offset: int) -> None:
        self.positions[partition] = offset
        self._quiet.pop(partition, None)

    def forget(self, partitions: Iterable[TopicPartition]) -> None:
        for partition in partitions:
            self.positions.pop(partition, None)
            self._quiet.pop(partition, None)
        self.latest = {tp: end for tp, end in self.latest.items() if tp in self.positions}

    def read_to_the_end(self, partition: TopicPartition, offset: int) -> None:
        """librdkafka's _PARTITION_EOF: nothing is left to read below `offset`."""
        if partition in self.positions:
            self._quiet[partition] = offset
            self.latest = {**self.latest, partition: self.positions[partition]}

    def refresh(self, consumer: Consumer, paused: Collection[TopicPartition], now: float) -> dict[TopicPartition, int]:
        """Returns the log's start of those paused partitions whose next record is below it, so gone."""
        if now < self._look_at:
            return {}
        self._look_at = now + LOOK_SECONDS
        ends = {}
        for partition in self.positions:
            marks = consumer.get_watermark_offsets(KafkaPartition(*partition), cached=True)
            if marks is not None and marks[1] >= 0:  # nothing was fetched yet
                ends[partition] = marks[1]
        overtaken = {}
        if paused and now >= self._ask_at:
            self._ask_at = now + ASK_SECONDS
            try:
                asked = offsets_at(consumer, dict.fromkeys(paused, LATEST), ASK_SECONDS_MAX)
                lows = offsets_at(consumer, dict.fromkeys(paused, EARLIEST), ASK_SECONDS_MAX)
            except KafkaException:
                asked, lows = {}, {}  # the broker is out of reach, which others report
            overtaken = {tp: low for tp, low in lows.items() if self.positions.get(tp, low) < low}
            ends.update({tp: max(end, ends.get(tp, 0)) for tp, end in asked.items() if tp in self.positions})
        known = self.latest
        for partition, end in ends.items():
            position = self.positions[partition]
            if end <= self._quiet.get(partition, -1):
                ends[partition] = position
            elif partition in paused:
                ends[partition] = max(end, known.get(partition, 0), position)
            else:
                ends[partition] = max(end, position)
        self.latest = {**{tp: end for tp, end in known.items() if tp in self.positions}, **ends}
        return overtaken
