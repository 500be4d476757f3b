"""What every Source keeps to, on the embedded broker and on a real Kafka: order, resumption, commits, pauses, bugs."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from bridge.kafka.consumer import BATCHES_OUT_MAX, KafkaSource
from bridge.model import Position, Record, TopicPartition
from tests.support.kafka import Cluster, EmbeddedKafka, RealKafka, unique
from tests.support.listening import Listening
from tests.support.member import QUICK, member

OFFSET_COMMIT, OFFSET_FETCH = 8, 9
UNKNOWN_SERVER_ERROR = -1
STALE_MEMBER_EPOCH = 113


async def test_all_records_arrive_in_order_as_they_were_written(any_kafka: Cluster) -> None:
    """Each partition comes complete and in offset order, bytes untouched: null keys, tombstones, null headers."""
    topic = any_kafka.create_topic(unique("order"), 3)
    plain = [{"value": b"%d" % n, "key": b"k%d" % (n % 7), "partition": n % 3} for n in range(600)]
    odd: list[dict[str, Any]] = [
        {"value": b"v", "key": None, "partition": 0},
        {"value": None, "key": b"gone", "partition": 0},
        {"value": b"", "key": b"", "partition": 0},
        {"value": b"h", "partition": 0, "headers": [("a", b"1"), ("b", None), ("a", b"\xff\x00")]},
        {"value": b"t", "partition": 0, "timestamp": 1_700_000_000_123},
    ]
    any_kafka.produce(topic, *plain, *odd)
    async with member(any_kafka, unique("g"), topic) as (_, listener):
        await listener.until_records(605)
    for partition in range(3):
        assert listener.offsets(topic, partition) == list(range(205 if partition == 0 else 200))
    values = [record.value for record in listener.got if record.partition == 1]
    assert values == [b"%d" % n for n in range(1, 600, 3)]
    tail = [record for record in listener.got if record.partition == 0][-5:]
    assert [(record.key, record.value) for record in tail[:3]] == [(None, b"v"), (b"gone", None), (b"", b"")]
    assert tail[3].headers == (("a", b"1"), ("b", None), ("a", b"\xff\x00"))
    assert tail[4].timestamp_ms == 1_700_000_000_123
    assert all(record.epoch > 0 for record in listener.got)


async def test_resumes_at_exactly_the_committed_offset_with_its_metadata(any_kafka: Cluster) -> None:
    """A commit is acknowledged, and the next life begins there, with the text beside it, not at `start`."""
    topic, group = any_kafka.create_topic(unique("resume")), unique("g")
    any_kafka.produce(topic, *(b"%d" % n for n in range(10)))
    here = TopicPartition(topic, 0)
    async with member(any_kafka, group, topic) as (source, listener):
        await listener.until_records(10)
        assert listener.owned[here].offset == 0
        source.commit([Position(here, 4, "progress: 7,9")])
        await listener.until_answered()
    assert listener.commits == [((Position(here, 4, "progress: 7,9"),), None)]
    async with member(any_kafka, group, topic) as (_, again):
        await again.until_records(6)
        assigned = again.owned[here]
    assert (assigned.offset, assigned.metadata) == (4, "progress: 7,9")
    assert again.offsets(topic) == [4, 5, 6, 7, 8, 9]
    assert all(record.epoch == assigned.epoch for record in again.got)


async def test_commits_in_flight_are_each_answered_in_their_order(any_kafka: Cluster) -> None:
    """Several commits asked for at once are all acknowledged, in order, and the last one stands."""
    topic, group = any_kafka.create_topic(unique("commits")), unique("g")
    any_kafka.produce(topic, *(b"x" for _ in range(20)))
    here = TopicPartition(topic, 0)
    asked = [(Position(here, n, f"m{n}"),) for n in range(1, 21)]
    async with member(any_kafka, group, topic) as (source, listener):
        await listener.until_records(20)
        for positions in asked:
            source.commit(positions)
        await listener.until_answered(20)
    assert listener.commits == [(positions, None) for positions in asked]
    assert any_kafka.committed(group, topic) == (20, "m20")


async def test_a_commit_of_several_partitions_is_answered_whatever_their_order(any_kafka: Cluster) -> None:
    """librdkafka answers in an order of its own; an answer that is not recognised would stop all further commits."""
    topic, group = any_kafka.create_topic(unique("several"), 4), unique("g")
    any_kafka.produce(topic, *({"value": b"v", "partition": number} for number in range(4)))
    positions = [Position(TopicPartition(topic, number), 1, f"m{number}") for number in (2, 0, 3, 1)]
    async with member(any_kafka, group, topic) as (source, listener):
        await listener.until_records(4)
        source.commit(positions)
        await listener.until_answered()
        source.commit(positions[:1])
        await listener.until_answered(2)
    assert {position for answered, error in listener.commits for position in answered if error is None} == set(
        positions
    )
    assert [any_kafka.committed(group, topic, number) for number in range(4)] == [(1, f"m{n}") for n in range(4)]


async def test_paused_partitions_bring_nothing_until_resumed(any_kafka: Cluster) -> None:
    """What is written to a paused partition waits; another goes on; after `resume` it comes, complete and in order."""
    topic, group = any_kafka.create_topic(unique("pause"), 2), unique("g")
    still, open_ = TopicPartition(topic, 0), TopicPartition(topic, 1)
    async with member(any_kafka, group, topic) as (source, listener):
        await listener.until_owned(2)
        source.pause([still])
        # An answered commit proves that the thread has been round, so the pause has been taken.
        source.commit([Position(open_, 0)])
        await listener.until_answered()
        any_kafka.produce(topic, *({"value": b"%d" % n, "partition": n % 2} for n in range(100)))
        await listener.until(lambda: len(listener.offsets(*open_)) == 50)
        assert listener.offsets(*still) == []
        source.resume([still])
        await listener.until_records(100)
    assert listener.offsets(*still) == list(range(50))


async def test_pausing_in_the_middle_of_a_log_loses_and_repeats_nothing(any_kafka: Cluster) -> None:
    """Prefetched records that a pause throws away come again after it, each exactly once."""
    topic, group = any_kafka.create_topic(unique("mid")), unique("g")
    any_kafka.produce(topic, *(b"x" * 100 for _ in range(5_000)))
    here = TopicPartition(topic, 0)
    async with member(any_kafka, group, topic, batch_records=50) as (source, listener):
        for goal in (1, 1_000, 2_000, 4_000):
            await listener.until_records(goal)
            source.pause([here])
            source.commit([Position(here, 0)])
            answered = len(listener.commits)
            await listener.until_answered(answered + 1)
            source.resume([here])
        await listener.until_records(5_000)
    assert listener.offsets(*here) == list(range(5_000))


async def test_a_lone_record_arrives_without_company(any_kafka: Cluster) -> None:
    """A record that nothing follows is delivered: no batch has to fill first."""
    topic = any_kafka.create_topic(unique("lone"))
    async with member(any_kafka, unique("g"), topic) as (_, listener):
        await listener.until_owned(1)
        any_kafka.produce(topic, b"only")
        await listener.until_records(1)
    assert [record.value for record in listener.got] == [b"only"]


async def test_a_refused_commit_is_reported_and_the_next_one_works(real_kafka_or_refusal: Any) -> None:
    """The broker's refusal reaches the listener by name; nothing breaks, and a later commit is acknowledged."""
    kafka, refuse, name = real_kafka_or_refusal
    topic, group = kafka.create_topic(unique("refused")), unique("g")
    kafka.produce(topic, *(b"x" for _ in range(3)))
    here = TopicPartition(topic, 0)
    async with member(kafka, group, topic) as (source, listener):
        await listener.until_records(3)
        source.commit([refuse(here)])
        await listener.until_answered(1)
        source.commit([Position(here, 2)])
        await listener.until_answered(2)
        kafka.produce(topic, b"later")
        await listener.until_records(4)
    (_, refused), (_, accepted) = listener.commits
    assert refused is not None and refused.startswith(name)
    assert accepted is None
    assert kafka.committed(group, topic) == (2, "")


@pytest.fixture(params=["embedded", pytest.param("real", marks=pytest.mark.kafka)])
def real_kafka_or_refusal(request: pytest.FixtureRequest) -> tuple[Cluster, Callable[[TopicPartition], Position], str]:
    if request.param == "real":
        real: RealKafka = request.getfixturevalue("real_kafka")
        return real, lambda tp: Position(tp, 1, "x" * 5_000), "OFFSET_METADATA_TOO_LARGE"
    embedded: EmbeddedKafka = request.getfixturevalue("embedded_kafka")

    def refuse(tp: TopicPartition) -> Position:
        embedded.broker.push_errors(OFFSET_COMMIT, [STALE_MEMBER_EPOCH])
        return Position(tp, 1)

    return embedded, refuse, "STALE_MEMBER_EPOCH"


async def test_commits_for_partitions_of_others_are_refused(any_kafka: Cluster) -> None:
    """The broker would take them from any member: the source does not."""
    topic, group = any_kafka.create_topic(unique("others")), unique("g")
    async with member(any_kafka, group, topic) as (source, listener):
        await listener.until_owned(1)
        source.commit([Position(TopicPartition(topic, 7), 5), Position(TopicPartition(topic, 0), 0, "mine")])
        await listener.until_answered(2)
    answers = {positions[0].partition.partition: error for positions, error in listener.commits}
    assert answers[0] is None and "not assigned" in str(answers[7])


async def test_a_topic_that_does_not_exist_is_told_and_holds_up_no_other(any_kafka: Cluster) -> None:
    """One notice that names the topic and the consequence, not fatal; the other topic is read."""
    topic, missing = any_kafka.create_topic(unique("here")), unique("missing")
    any_kafka.produce(topic, b"x")
    async with member(any_kafka, unique("g"), {topic: "earliest", missing: "earliest"}) as (_, listener):
        await listener.until_records(1)
        await listener.until(lambda: listener.failures, "a notice")
    assert [(missing in message, fatal) for message, fatal in listener.failures] == [(True, False)]


async def test_a_loop_that_stands_still_loses_neither_partition_nor_record(any_kafka: Cluster) -> None:
    """Blocked for longer than the group's patience the member stays: its thread polls on, and holds few records."""
    topic, group = any_kafka.create_topic(unique("slow")), unique("g")
    any_kafka.produce(topic, *(b"x" * 200 for _ in range(6_000)))

    class Slow(Listening):
        def records(self, batch: Sequence[Record]) -> None:
            if not self.got:
                time.sleep(2.0)
            super().records(batch)

    class Counting(KafkaSource):
        out_max = 0

        def _deliver(self, batch: list[Record]) -> None:
            self.out_max = max(self.out_max, self._batches_out)
            super()._deliver(batch)

    listener = Slow()
    source = Counting(
        any_kafka.bootstrap_servers,
        group,
        {topic: "earliest"},
        {**QUICK, "group.protocol": "consumer", "max.poll.interval.ms": "1200"},
        batch_records=100,
    )
    source.start(listener)
    try:
        await listener.until_records(6_000)
    finally:
        await source.close()
    assert listener.offsets(topic) == list(range(6_000))
    assert listener.names().count("assigned") == 1 and "lost" not in listener.names()
    assert source.out_max <= BATCHES_OUT_MAX


async def test_a_listener_that_cannot_take_records_stops_the_source(any_kafka: Cluster) -> None:
    """A batch that was not taken in must not be passed over by later ones: the source stops and says so, and what was
    read meanwhile goes nowhere."""
    topic = any_kafka.create_topic(unique("bug"))
    any_kafka.produce(topic, b"1", b"2")

    class Broken(Listening):
        def records(self, batch: Sequence[Record]) -> None:
            any_kafka.produce(topic, b"3")
            time.sleep(0.3)  # until that has been read, and waits behind this batch
            raise RuntimeError("a bug")

    listener = Broken()
    async with member(any_kafka, unique("g"), topic, listener):
        await listener.until(lambda: listener.failures)
    assert [fatal for _, fatal in listener.failures] == [True]


async def test_a_position_that_cannot_be_read_is_asked_for_again(embedded_kafka: EmbeddedKafka) -> None:
    """While the coordinator refuses to tell what is committed nothing is read, least of all from `start`."""
    topic, group = embedded_kafka.create_topic(unique("unknown")), unique("g")
    embedded_kafka.produce(topic, *(b"%d" % n for n in range(5)))
    embedded_kafka.commit(group, topic, 0, 3, "known")
    embedded_kafka.broker.push_errors(OFFSET_FETCH, [UNKNOWN_SERVER_ERROR])
    async with member(embedded_kafka, group, topic) as (_, listener):
        await listener.until_records(2)
        assigned = listener.owned[TopicPartition(topic, 0)]
    assert (assigned.offset, assigned.metadata) == (3, "known")
    assert listener.offsets(topic) == [3, 4]
    assert ["cannot be read" in message and not fatal for message, fatal in listener.failures] == [True]
