"""A bounded reading of a topic: the right records, in order, and no trace in the cluster. Embedded and real Kafka."""

from __future__ import annotations

import time
from typing import Any

import pytest

from bridge.errors import LogFailed
from bridge.kafka.admin import has_committed
from bridge.kafka.sample import Sampler, sample
from bridge.sandbox.children import free_port
from tests.support.kafka import Cluster, unique


def values(kafka: Cluster, topic: str, **which: Any) -> list[bytes | None]:
    return [record.value for record in sample(kafka.bootstrap_servers, {}, "beside", topic, **which)]


def minutes(kafka: Cluster, topic: str, now: float, ages: dict[str, tuple[int, int]]) -> None:
    """Produces value → (partition, age in minutes)."""
    kafka.produce(
        topic,
        *(
            {"value": value.encode(), "partition": partition, "timestamp": int((now - 60 * age) * 1000)}
            for value, (partition, age) in ages.items()
        ),
    )


def test_the_last_records_come_in_the_order_of_their_times(any_kafka: Cluster) -> None:
    """Merged over partitions, shared out evenly; a partition that has few gives all of them."""
    topic = any_kafka.create_topic(unique("sample"), 2)
    ages = {"a": (0, 9), "b": (0, 7), "c": (1, 6), "d": (0, 5), "e": (0, 3)}
    minutes(any_kafka, topic, time.time(), ages)
    assert values(any_kafka, topic, last=100) == [b"a", b"b", b"c", b"d", b"e"]
    assert values(any_kafka, topic, last=4) == [b"b", b"c", b"d", b"e"]
    assert values(any_kafka, topic, last=1) in ([b"c"], [b"e"])
    assert values(any_kafka, topic, last=100, limit=2) == [b"c", b"e"]


def test_records_since_a_time(any_kafka: Cluster) -> None:
    """Also where a broker knows no times; nothing where the time is after the last record, all where it is before."""
    topic = any_kafka.create_topic(unique("sample"), 2)
    now = time.time()
    minutes(any_kafka, topic, now, {"a": (0, 90), "b": (1, 80), "c": (1, 30), "d": (0, 20)})
    assert values(any_kafka, topic, since=now - 3_600) == [b"c", b"d"]
    assert values(any_kafka, topic, since=now - 60) == []
    assert values(any_kafka, topic, since=0) == [b"a", b"b", b"c", b"d"]


def test_keys_headers_offsets_and_tombstones_come_as_they_are(any_kafka: Cluster) -> None:
    topic = any_kafka.create_topic(unique("sample"))
    any_kafka.produce(topic, b"1", {"value": None, "key": b"k", "headers": [("h", b"x")]})
    found = list(sample(any_kafka.bootstrap_servers, {}, "beside", topic, last=1))
    assert [(each.offset, each.key, each.value, each.headers) for each in found] == [(1, b"k", None, (("h", b"x"),))]


def test_an_empty_topic_gives_nothing_and_a_missing_one_is_told(any_kafka: Cluster) -> None:
    """And is not created by the asking."""
    topic, missing = any_kafka.create_topic(unique("sample")), unique("missing")
    assert values(any_kafka, topic, last=5) == values(any_kafka, topic, since=0) == []
    for _ in range(2):
        with pytest.raises(LogFailed, match=f"topic {missing} does not exist"):
            values(any_kafka, missing, last=5)


def test_what_retention_took_is_left_out(any_kafka: Cluster) -> None:
    topic = any_kafka.create_topic(unique("sample"))
    any_kafka.produce(topic, *(b"%d" % n for n in range(10)))
    any_kafka.delete_records(topic, 0, 6)
    assert values(any_kafka, topic, last=100) == [b"6", b"7", b"8", b"9"]


def test_no_group_is_joined_and_nothing_committed(any_kafka: Cluster) -> None:
    """Even under the name of a group that exists, whose offsets can be asked for."""
    topic, group = any_kafka.create_topic(unique("sample"), 2), unique("group")
    any_kafka.produce(topic, {"value": b"1", "partition": 0}, {"value": b"2", "partition": 1})
    with Sampler(any_kafka.bootstrap_servers, {}, group) as sampler:
        slices = sampler.whole(topic)
        for _ in range(2):
            assert len(sampler.read(slices)) == 2, "also a second time"
        assert sampler.committed(each.partition for each in slices) == {}
    assert not has_committed(any_kafka.bootstrap_servers, {}, group)
    any_kafka.commit(group, topic, 1, 1)
    with Sampler(any_kafka.bootstrap_servers, {}, group) as sampler:
        sampler.read(slices)
        assert sampler.committed(each.partition for each in slices) == {slices[1].partition: 1}
    assert any_kafka.committed(group, topic, 1) == (1, "")


def test_a_broker_that_does_not_answer_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bridge.kafka.sample.ASK_SECONDS", 0.3)
    with pytest.raises(LogFailed):
        list(sample(f"127.0.0.1:{free_port()}", {}, "beside", "topic", last=1))


@pytest.mark.kafka
def test_an_open_transaction_ends_a_reading(real_kafka: Cluster) -> None:
    """What is not committed is not read, and the reading does not wait for it."""
    from confluent_kafka import Producer

    topic = real_kafka.create_topic(unique("sample"))
    real_kafka.produce(topic, b"1")
    producer = Producer({"bootstrap.servers": real_kafka.bootstrap_servers, "transactional.id": unique("t")})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic, b"2")
    producer.flush(10)
    try:
        assert values(real_kafka, topic, last=10) == [b"1"]
    finally:
        producer.abort_transaction(30)
