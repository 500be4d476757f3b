"""Where a log ends for its reader: after its last record, whatever stands behind that."""

from __future__ import annotations

from typing import Any, cast

from confluent_kafka import Consumer

from bridge.kafka.ends import LOOK_SECONDS, LogEnds
from bridge.model import TopicPartition

HERE = TopicPartition("t", 0)


class Fetched:
    """Stands for the consumer: the log's end as the last fetch told it."""

    end = 0

    def get_watermark_offsets(self, partition: Any, cached: bool) -> tuple[int, int]:
        return 0, self.end


def test_what_stands_behind_the_last_record_is_no_lag() -> None:
    """A transaction's marker, or aborted records: nobody will ever read them. What is written after them is lag."""
    broker, ends = Fetched(), LogEnds()
    consumer = cast(Consumer, broker)
    ends.begin(HERE, 0)
    broker.end = 3
    ends.refresh(consumer, (), 10.0)
    assert ends.latest == {HERE: 3}
    ends.positions[HERE] = 1  # one record was read; a marker, an aborted record and its marker follow
    ends.read_to_the_end(HERE, 3)
    assert ends.latest == {HERE: 1}
    ends.refresh(consumer, (), 10.0 + LOOK_SECONDS)
    assert ends.latest == {HERE: 1}, "the next look must not bring the markers back"
    broker.end = 5
    ends.refresh(consumer, (), 10.0 + 2 * LOOK_SECONDS)
    assert ends.latest == {HERE: 5}
