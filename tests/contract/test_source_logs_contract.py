"""Where a Source reads: starts, ends, what retention removed, logs that were cut, topics created anew."""

from __future__ import annotations

import asyncio
import time

import pytest

from bridge.kafka import ends
from bridge.kafka import topics as topics_room
from bridge.model import Position, TopicPartition
from tests.support.kafka import Cluster, EmbeddedKafka, RealKafka, unique
from tests.support.member import Lost, member


async def test_a_start_that_nobody_committed_is_told_as_fresh(any_kafka: Cluster) -> None:
    """Whoever begins where `start` says must commit that place; whoever begins at a committed offset need not."""
    topic, group = any_kafka.create_topic(unique("fresh"), 2), unique("g")
    any_kafka.commit(group, topic, 0, 0)
    async with member(any_kafka, group, topic) as (_, listener):
        await listener.until(lambda: len(listener.owned) == 2)
        fresh = {tp.partition: assigned.fresh for tp, assigned in listener.owned.items()}
    assert fresh == {0: False, 1: True}


async def test_records_that_retention_removed_are_told_and_the_rest_is_read(any_kafka: Cluster) -> None:
    """A frontier below the log's start goes on at the start, keeps its progress, and says what is lost."""
    topic, group = any_kafka.create_topic(unique("retained")), unique("g")
    any_kafka.produce(topic, *(b"%d" % n for n in range(10)))
    any_kafka.commit(group, topic, 0, 2, "done: 7")
    any_kafka.delete_records(topic, 0, 5)
    counted = Lost()
    async with member(any_kafka, group, topic, lost=counted) as (_, listener):
        await listener.until_records(5)
        assigned = listener.owned[TopicPartition(topic, 0)]
    assert (assigned.offset, assigned.metadata, assigned.fresh, assigned.committed) == (5, "done: 7", True, 2)
    assert listener.offsets(topic) == [5, 6, 7, 8, 9]
    assert [("2 to 4" in message, fatal) for message, fatal in listener.failures] == [(True, False)]
    assert counted == {topic: 3}


async def test_retention_that_overtakes_a_paused_partition_is_a_gap(any_kafka: Cluster) -> None:
    """Removed while we were waiting: told as lost, reading goes on at the log's start, under the same assignment."""
    topic, group = any_kafka.create_topic(unique("overtaken")), unique("g")
    any_kafka.produce(topic, *(b"%d" % n for n in range(3)))
    here = TopicPartition(topic, 0)
    async with member(any_kafka, group, topic) as (source, listener):
        await listener.until_records(3)
        source.pause([here])
        source.commit([Position(here, 3)])
        await listener.until_answered()
        any_kafka.produce(topic, *(b"%d" % n for n in range(3, 10)))
        any_kafka.delete_records(topic, 0, 6)
        source.resume([here])
        await listener.until_records(7)
        source.commit([Position(here, 10, "on")])
        await listener.until_answered(2)
    assert listener.offsets(topic) == [0, 1, 2, 6, 7, 8, 9]
    assert listener.names().count("assigned") == 1 and "lost" not in listener.names()
    assert ["3 to 5" in message for message, _ in listener.failures] == [True]
    assert any_kafka.committed(group, topic) == (10, "on")


@pytest.mark.parametrize("paused", [True, False])
async def test_a_log_that_was_emptied_before_it_was_read_is_told_though_no_record_follows(
    any_kafka: Cluster, monkeypatch: pytest.MonkeyPatch, paused: bool
) -> None:
    """Else the frontier would wait, with lag, for records that never come. A paused partition stays paused, and what is
    written later comes after it is resumed."""
    monkeypatch.setattr(ends, "ASK_SECONDS", 0.1 if paused else 1_000.0)
    monkeypatch.setattr(ends, "LOOK_SECONDS", 0.1)
    topic, group, counted = any_kafka.create_topic(unique("emptied")), unique("g"), Lost()
    any_kafka.produce(topic, *(b"%d" % n for n in range(3)))
    here = TopicPartition(topic, 0)
    async with member(any_kafka, group, topic, lost=counted) as (source, listener):
        await listener.until_records(3)
        source.pause([here])
        source.commit([Position(here, 3)])
        await listener.until_answered()
        any_kafka.produce(topic, *(b"%d" % n for n in range(3, 10)))
        any_kafka.delete_records(topic, 0, 10)
        if not paused:
            source.resume([here])
        await listener.until(lambda: "removed" in listener.names())
        source.commit([Position(here, 10)])
        await listener.until_answered(2)
        any_kafka.produce(topic, b"10")
        if paused:
            async with asyncio.timeout(15):
                while source.log_ends().get(here) != 11:  # so it was looked at again, and nothing was told twice
                    await asyncio.sleep(0.02)
            assert listener.offsets(topic) == [0, 1, 2], "still paused"
            source.resume([here])
        await listener.until_records(4)
    assert listener.offsets(topic) == [0, 1, 2, 10]
    assert [what for name, what in listener.events if name == "removed"] == [(here, 10)]
    assert listener.names().count("assigned") == 1 and "lost" not in listener.names()
    assert ["3 to 9" in message for message, _ in listener.failures] == [True]
    assert counted == {topic: 7}


def of_former(offset: int, metadata: str, topic_hash: int) -> bool:
    """What `progress` tells in the real service."""
    return metadata.startswith("of ") and metadata != f"of {topic_hash}"


@pytest.mark.kafka
@pytest.mark.parametrize("start", ["earliest", "latest"])
async def test_a_topic_created_anew_while_nobody_read_is_read_from_its_beginning(
    real_kafka: RealKafka, start: str
) -> None:
    """It is longer already than what was committed, so only its id tells. (Kafka forgets a deleted topic's commits, but
    a late one, or a tool that restores them, brings them back.)"""
    topic, group = real_kafka.create_topic(unique("anew")), unique("g")
    real_kafka.produce(topic, *(b"old" for _ in range(10)))
    here = TopicPartition(topic, 0)
    async with member(real_kafka, group, {topic: "earliest"}, stale=of_former) as (source, listener):
        await listener.until_records(10)
        before = listener.owned[here].topic_hash
        source.commit([Position(here, 10, f"of {before}")])
        await listener.until_answered()
    async with member(real_kafka, group, {topic: start}, stale=of_former) as (_, listener):
        await listener.until_owned(1)
        same = listener.owned[here]
        assert (same.offset, same.topic_hash, same.fresh) == (10, before, False), (
            "as long as it is the same, it goes on"
        )
    real_kafka.recreate_topic(topic)
    real_kafka.produce(topic, *(b"new" for _ in range(50)))
    real_kafka.commit(group, topic, 0, 10, f"of {before}")
    async with member(real_kafka, group, {topic: start}, stale=of_former) as (_, listener):
        await listener.until_records(50)
        anew = listener.owned[here]
    assert (anew.offset, anew.metadata, anew.fresh, anew.committed) == (0, "", True, None)
    assert before is not None and anew.topic_hash not in (None, before)
    assert listener.offsets(topic) == list(range(50))
    assert ["created anew" in message and "offset 10" in message for message, _ in listener.failures] == [True]


@pytest.mark.kafka
@pytest.mark.parametrize("protocol", ["consumer", "classic"])
async def test_a_topic_created_anew_under_a_running_reader_is_read_from_its_beginning(
    real_kafka: RealKafka, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    """With the classic protocol Kafka's clients read on at the old offset and commit there: ten records would be lost,
    and nobody would know. With KIP-848 the group takes the partition away first; `start: latest` must not skip then."""
    monkeypatch.setattr(topics_room, "LOOK_SECONDS", 0.3)
    topic, group = real_kafka.create_topic(unique("under")), unique("g")
    real_kafka.produce(topic, *(b"old" for _ in range(10)))
    here = TopicPartition(topic, 0)
    real_kafka.commit(group, topic, 0, 0)
    properties = {"group.protocol": protocol}
    async with member(real_kafka, group, {topic: "latest"}, properties=properties, stale=of_former) as (
        source,
        listener,
    ):
        await listener.until_records(10)
        before = listener.owned[here]
        real_kafka.recreate_topic(topic)
        real_kafka.produce(topic, *(b"new" for _ in range(50)))

        def current() -> list[int]:
            epoch = listener.owned[here].epoch if here in listener.owned else None
            return [record.offset for record in listener.got if record.epoch == epoch]

        await listener.until(lambda: current() == list(range(50)))
        after = listener.owned[here]
        source.commit([Position(here, 50, f"of {after.topic_hash}", after.epoch)])
        await listener.until_answered()
    assert after.epoch > before.epoch
    assert after.topic_hash not in (None, before.topic_hash)
    assert any("created anew" in message and not fatal for message, fatal in listener.failures)
    assert real_kafka.committed(group, topic) == (50, f"of {after.topic_hash}")


async def test_a_broker_that_tells_no_ids_does_not_hold_up_an_assignment(embedded_kafka: EmbeddedKafka) -> None:
    """Asked all the same, the embedded broker would let the question time out at every rebalance."""
    topic, group = embedded_kafka.create_topic(unique("noid")), unique("g")
    embedded_kafka.produce(topic, b"x")
    embedded_kafka.commit(group, topic, 0, 0, "of 1")
    async with member(embedded_kafka, group, topic, stale=of_former) as (source, listener):
        await listener.until_records(1)
        assert source._assignment.topics._client is None
        assert listener.owned[TopicPartition(topic, 0)].topic_hash is None
        assert source.retention_seconds(TopicPartition(topic, 0), 0) is None


@pytest.mark.kafka
async def test_how_far_retention_is_from_the_frontier_is_known(real_kafka: RealKafka) -> None:
    """By the frontier's own record and the topic's own retention.ms; nothing is told once nothing is open."""
    topic, group = real_kafka.create_topic(unique("keeps"), retention_ms="7200000"), unique("g")
    born = time.time() - 3_600
    real_kafka.produce(topic, *({"value": b"v", "timestamp": int((born + n * 600) * 1000)} for n in range(3)))
    here = TopicPartition(topic, 0)
    async with member(real_kafka, group, topic) as (source, listener):
        await listener.until_records(3)
        async with asyncio.timeout(10):
            while source.retention_seconds(here, 0) is None:
                await asyncio.sleep(0.02)
        lefts = [source.retention_seconds(here, frontier) for frontier in range(4)]
    assert lefts[3] is None
    for number, left in enumerate(lefts[:3]):
        assert left is not None and 3_600 + number * 600 - 60 < left <= 3_600 + number * 600


async def test_a_position_beyond_the_log_begins_again_without_its_progress(any_kafka: Cluster) -> None:
    """Truncated or recreated: loudly from the beginning, as a new assignment without the old metadata."""
    topic, group = any_kafka.create_topic(unique("recreated")), unique("g")
    any_kafka.produce(topic, *(b"%d" % n for n in range(4)))
    any_kafka.commit(group, topic, 0, 50, "stale")
    here = TopicPartition(topic, 0)
    async with member(any_kafka, group, topic) as (source, listener):
        await listener.until_records(4)
        assigned = listener.owned[here]
        source.commit([Position(here, 4, "new")])
        await listener.until_answered()
    assert (assigned.offset, assigned.metadata, assigned.fresh) == (0, "", True)
    assert listener.offsets(topic) == [0, 1, 2, 3]
    assert {record.epoch for record in listener.got} == {assigned.epoch}
    assert [name for name in listener.names() if name in ("assigned", "lost")] == ["assigned", "lost", "assigned"]
    assert ["offset 50" in message and not fatal for message, fatal in listener.failures] == [True]
    assert any_kafka.committed(group, topic) == (4, "new")


async def test_latest_begins_behind_what_is_there(any_kafka: Cluster) -> None:
    """`start: latest` gives the end's offset at the assignment, and only later records come."""
    topic = any_kafka.create_topic(unique("latest"))
    any_kafka.produce(topic, b"old", b"old")
    async with member(any_kafka, unique("g"), {topic: "latest"}) as (_, listener):
        await listener.until_owned(1)
        assert listener.owned[TopicPartition(topic, 0)].offset == 2
        any_kafka.produce(topic, b"new")
        await listener.until_records(1)
    assert [record.value for record in listener.got] == [b"new"]


@pytest.mark.kafka
async def test_a_start_time_finds_the_first_record_from_then_on(real_kafka: RealKafka) -> None:
    """Only the real broker knows times; a time after the last record is the end."""
    topic = real_kafka.create_topic(unique("time"), 2, retention_ms="-1")  # else the broker may remove what is so old
    real_kafka.produce(
        topic,
        *({"value": b"%d" % n, "partition": 0, "timestamp": 1_700_000_000_000 + n * 1000} for n in range(5)),
        {"value": b"before", "partition": 1, "timestamp": 1_600_000_000_000},
    )
    async with member(real_kafka, unique("g"), {topic: "2023-11-14T22:13:23Z"}) as (_, listener):
        await listener.until_records(2)
        starts = {tp.partition: assigned.offset for tp, assigned in listener.owned.items()}
    assert starts == {0: 3, 1: 1}
    assert [record.value for record in listener.got] == [b"3", b"4"]


async def test_log_ends_count_records_of_paused_partitions_too(any_kafka: Cluster) -> None:
    """Lag can be told while a partition stands still, and is zero once all is read."""
    topic, group = any_kafka.create_topic(unique("lag")), unique("g")
    here = TopicPartition(topic, 0)
    any_kafka.produce(topic, b"x", b"x")
    async with member(any_kafka, group, topic) as (source, listener):
        await listener.until_records(2)
        async with asyncio.timeout(15):
            while source.log_ends().get(here) != 2:
                await asyncio.sleep(0.02)
            source.pause([here])
            any_kafka.produce(topic, b"x", b"x", b"x")
            while source.log_ends().get(here) != 5:
                await asyncio.sleep(0.02)


@pytest.mark.kafka
async def test_a_transaction_marker_at_the_end_leaves_no_lag(real_kafka: RealKafka) -> None:
    """The log ends with a marker and an aborted record that nobody will ever read: the end told is before them."""
    from confluent_kafka import Producer

    topic, group = real_kafka.create_topic(unique("transactions")), unique("g")
    producer = Producer({"bootstrap.servers": real_kafka.bootstrap_servers, "transactional.id": unique("tx")})
    producer.init_transactions(20)
    producer.begin_transaction()
    producer.produce(topic, b"kept")
    producer.commit_transaction(20)
    producer.begin_transaction()
    producer.produce(topic, b"aborted")
    producer.flush(10)
    producer.abort_transaction(20)
    here = TopicPartition(topic, 0)
    async with member(real_kafka, group, topic) as (source, listener):
        await listener.until_records(1)
        async with asyncio.timeout(15):
            while source.log_ends().get(here) != 1:
                await asyncio.sleep(0.02)
        await asyncio.sleep(1.2)  # the next look must not bring the marker back
        assert source.log_ends()[here] == 1
    assert [record.value for record in listener.got] == [b"kept"]
