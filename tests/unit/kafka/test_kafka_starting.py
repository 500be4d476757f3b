"""Where reading starts, by what is committed and which topic it was committed for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import TopicPartition as KafkaPartition

from bridge.kafka.starting import EARLIEST, LATEST, Beginning, resolve
from bridge.model import TopicPartition

HERE, THERE = TopicPartition("t", 0), TopicPartition("t", 1)


class Log:
    """Stands in for a Consumer: what is committed, and logs from `low` to `end`."""

    def __init__(self, committed: Mapping[int, tuple[int, str]], low: int = 0, end: int = 50) -> None:
        self._committed = committed
        self._offsets = {EARLIEST: low, LATEST: end}

    def committed(self, partitions: Sequence[KafkaPartition], timeout: float) -> list[KafkaPartition]:
        return [
            KafkaPartition(each.topic, each.partition, *self._committed.get(each.partition, (-1001, "")))
            for each in partitions
        ]

    def offsets_for_times(self, partitions: Sequence[KafkaPartition], timeout: float) -> list[KafkaPartition]:
        return [KafkaPartition(each.topic, each.partition, self._offsets[each.offset]) for each in partitions]


def begin(
    log: Log, hashes: Callable[[], Mapping[str, int]] = dict, start: int = LATEST
) -> dict[TopicPartition, Beginning]:
    consumer: Any = log
    found = resolve(
        consumer,
        [HERE, THERE],
        {"t": start},
        1.0,
        hashes=hashes,
        stale=lambda offset, metadata, topic_hash: metadata != f"for {topic_hash}",
    )
    assert found.unresolved == ()
    return {beginning.partition: beginning for beginning in found.beginnings}


def test_a_commit_for_a_former_topic_is_not_followed() -> None:
    """Its successor is read from its beginning, though it is longer, whatever `start` says; the text is dropped."""
    found = begin(Log({0: (10, "for 1"), 1: (10, "for 2")}, low=3), lambda: {"t": 2})
    assert found[HERE] == Beginning(HERE, 3, fresh=True, of_another=10, former_metadata="for 1")
    assert found[THERE] == Beginning(THERE, 10, "for 2")


def test_without_the_topics_id_a_commit_is_believed() -> None:
    """The broker did not tell: nothing is repeated for that."""
    found = begin(Log({0: (10, "for 1")}), dict)
    assert found[HERE] == Beginning(HERE, 10, "for 1")


def test_start_counts_where_nothing_is_committed() -> None:
    assert begin(Log({}), lambda: {"t": 2})[HERE] == Beginning(HERE, 50, fresh=True)


def test_starts_may_change_by_what_the_hashes_tell() -> None:
    """A topic found to have been created anew loses its committed offset too: not to be taken for a new group."""
    starts = {"t": LATEST}

    def hashes() -> dict[str, int]:
        starts["t"] = EARLIEST
        return {"t": 2}

    consumer: Any = Log({})
    (found,) = resolve(consumer, [HERE], starts, 1.0, hashes=hashes).beginnings
    assert found == Beginning(HERE, 0, fresh=True)
