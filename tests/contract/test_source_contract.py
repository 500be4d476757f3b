"""What every Source keeps to, on the embedded broker and on a real Kafka: order, resumption, rebalances, faults."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from bridge.kafka import ends
from bridge.kafka import topics as topics_room
from bridge.kafka.consumer import BATCHES_OUT_MAX, KafkaSource
from bridge.model import Position, Record, TopicPartition
from tests.support.kafka import Cluster, EmbeddedKafka, RealKafka, unique
from tests.support.listening import Listening

OnRevoked = Callable[[Sequence[TopicPartition]], Awaitable[None]]

# Where the mock's fetches would wait: it does not end a long poll when a record comes.
QUICK = {"fetch.wait.max.ms": "50"}

OFFSET_COMMIT, OFFSET_FETCH, GROUP_HEARTBEAT = 8, 9, 68
UNKNOWN_SERVER_ERROR = -1
ILLEGAL_GENERATION, UNSUPPORTED_VERSION, FENCED_MEMBER_EPOCH, STALE_MEMBER_EPOCH = 22, 35, 110, 113


@asynccontextmanager
async def member(
    kafka: Cluster,
    group: str,
    topics: dict[str, str] | str,
    listener: Listening | None = None,
    properties: dict[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[tuple[KafkaSource, Listening]]:
    """A member of the group for as long as the block lasts."""
    listener = listener or Listening()
    starts = {topics: "earliest"} if isinstance(topics, str) else topics
    options = {"revoke_seconds": 10.0, "close_seconds": 15.0, **options}
    source = KafkaSource(kafka.bootstrap_servers, group, starts, {**QUICK, **(properties or {})}, **options)
    source.start(listener)
    try:
        yield source, listener
    finally:
        await source.close()


class Lost(Counter[str]):
    """Counts lost offsets by topic."""

    def __call__(self, topic: str, count: int) -> None:
        self[topic] += count


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


async def test_a_start_that_nobody_committed_is_told_as_fresh(any_kafka: Cluster) -> None:
    """Whoever begins where `start` says must commit that place; whoever begins at a committed offset need not."""
    topic, group = any_kafka.create_topic(unique("fresh"), 2), unique("g")
    any_kafka.commit(group, topic, 0, 0)
    async with member(any_kafka, group, topic) as (_, listener):
        await listener.until(lambda: len(listener.owned) == 2)
        fresh = {tp.partition: assigned.fresh for tp, assigned in listener.owned.items()}
    assert fresh == {0: False, 1: True}


async def test_closing_drains_and_commits_first(any_kafka: Cluster) -> None:
    """`close` awaits the listener, acknowledges the commit made while draining, and only then leaves the group."""
    topic, group = any_kafka.create_topic(unique("close")), unique("g")
    any_kafka.produce(topic, *(b"x" for _ in range(5)))
    here = TopicPartition(topic, 0)

    async def drain(_: Sequence[TopicPartition]) -> None:
        source.commit([Position(here, 3, "half")])
        await listener.until_answered(1)
        source.commit([Position(here, 5, "all")])  # not awaited: still to be carried out

    listener = Listening(drain)
    async with member(any_kafka, group, topic, listener) as (source, _):
        await listener.until_records(5)
    assert [error for _, error in listener.commits] == [None, None]
    assert any_kafka.committed(group, topic) == (5, "all")
    assert "lost" not in listener.names()


async def test_a_commit_in_flight_when_draining_begins_is_answered_within_it(any_kafka: Cluster) -> None:
    """A drain may wait for a commit that was sent just before: its answer does not need another poll."""
    topic, group = any_kafka.create_topic(unique("flight")), unique("g")
    any_kafka.produce(topic, b"x")
    here = TopicPartition(topic, 0)

    async def drain(_: Sequence[TopicPartition]) -> None:
        await listener.until_answered(3)

    listener = Listening(drain)
    async with member(any_kafka, group, topic, listener) as (source, _):
        await listener.until_records(1)
        for n in range(3):
            source.commit([Position(here, 1, f"{n}")])
    assert [error for _, error in listener.commits] == [None] * 3
    assert any_kafka.committed(group, topic) == (1, "2")


async def test_partitions_move_to_a_joining_member_only_after_draining(any_kafka: Cluster) -> None:
    """The joining member reads nothing of a partition before its owner has drained and committed, and begins there."""
    topic, group = any_kafka.create_topic(unique("move"), 4), unique("g")
    any_kafka.produce(topic, *({"value": b"%d" % n, "partition": n % 4} for n in range(40)))
    history: list[tuple[str, Any]] = []

    async def drain(partitions: Sequence[TopicPartition]) -> None:
        history.append(("draining", set(partitions)))
        await asyncio.sleep(0.3)  # calls that are still under way
        first.commit([Position(tp, 6, "handed over") for tp in partitions])
        await old.until(lambda: {tp for done, _ in old.commits for tp, *_ in done} >= set(partitions))
        history.append(("drained", set(partitions)))

    old, new = Listening(drain), Listening()
    tell = new.assigned
    new.assigned = lambda given: (history.append(("assigned", {a.partition for a in given})), tell(given))[1]  # type: ignore[method-assign]
    async with member(any_kafka, group, topic, old) as (first, _):
        await old.until_records(40)
        async with member(any_kafka, group, topic, new):
            await new.until_owned(2)
            await new.until_records(8)
            moved = set(new.owned)
            assert len(old.owned) == 2 and moved.isdisjoint(old.owned)
            assert {(a.offset, a.metadata) for a in new.owned.values()} == {(6, "handed over")}
            for tp in moved:
                assert new.offsets(*tp) == [6, 7, 8, 9]
            drained_at = history.index(("drained", moved))
            assert all(index > drained_at for index, (name, what) in enumerate(history) if name == "assigned" and what)
    assert "lost" not in old.names()


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


async def test_a_partition_that_was_paused_when_it_went_is_read_when_it_comes_back(any_kafka: Cluster) -> None:
    """The pause belonged to the former assignment; librdkafka would keep it with the partition."""
    topic, group = any_kafka.create_topic(unique("back"), 2), unique("g")
    async with member(any_kafka, group, topic) as (source, listener):
        await listener.until_owned(2)
        source.pause(list(listener.owned))
        async with member(any_kafka, group, topic) as (_, other):
            await other.until_owned(1)
            await listener.until_owned(1)
            (away,) = other.owned
        await listener.until_owned(2)
        stayed = next(tp for tp in listener.owned if tp != away)
        any_kafka.produce(topic, *({"value": b"x", "partition": number} for number in range(2)))
        await listener.until(lambda: listener.offsets(*away) == [0])
        assert listener.offsets(*stayed) == [], "that one was never given up: it is still paused"
        source.resume([stayed])
        await listener.until_records(2)


async def test_a_member_that_pauses_everything_for_longer_than_the_groups_patience_keeps_its_place(
    any_kafka: Cluster,
) -> None:
    """An exhausted quota, an outage: nothing is read for hours, but polling goes on (max.poll.interval.ms)."""
    topic, group = any_kafka.create_topic(unique("patience")), unique("g")
    any_kafka.produce(topic, b"1")
    here = TopicPartition(topic, 0)
    properties = {"group.protocol": "consumer", "max.poll.interval.ms": "1000"}
    async with member(any_kafka, group, topic, properties=properties) as (source, listener):
        await listener.until_records(1)
        source.pause([here])
        await asyncio.sleep(2.5)
        any_kafka.produce(topic, b"2")
        source.resume([here])
        await listener.until_records(2)
        source.commit([Position(here, 2)])
        await listener.until_answered()
        assert source.standstill() < 1.0
    assert listener.names().count("assigned") == 1 and "lost" not in listener.names()
    assert listener.commits == [((Position(here, 2),), None)]


@pytest.mark.kafka
async def test_a_drain_longer_than_the_session_timeout_keeps_the_partitions_until_it_has_ended(
    real_kafka: RealKafka,
) -> None:
    """While calls in flight are awaited the group still hears of the member: its last commit counts, and nobody reads
    the partitions before it."""
    topic, group = real_kafka.create_topic(unique("long"), 2), unique("g")
    real_kafka.produce(topic, *({"value": b"v", "partition": number} for number in range(2)))
    properties = {"group.protocol": "classic", "session.timeout.ms": "1500", "heartbeat.interval.ms": "300"}

    async def drain(partitions: Sequence[TopicPartition]) -> None:
        await asyncio.sleep(3.0)
        if partitions:
            first.commit([Position(tp, 1, "after the drain") for tp in partitions])

    old = Listening(drain)
    async with member(real_kafka, group, topic, old, properties) as (first, _):
        await old.until_records(2)
        async with member(real_kafka, group, topic, properties=properties) as (_, new):
            await new.until_owned(1)
            assert [(each.offset, each.metadata) for each in new.owned.values()] == [(1, "after the drain")]
            assert "lost" not in old.names()
            assert [error for _, error in old.commits] == [None]


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
    topic = real_kafka.create_topic(unique("time"), 2)
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


async def test_a_drain_beyond_its_budget_gives_the_partitions_up(any_kafka: Cluster) -> None:
    """A listener that never finishes is told that its partitions are lost, and `close` ends nevertheless."""
    topic = any_kafka.create_topic(unique("stuck"))
    any_kafka.produce(topic, b"x")

    async def never(_: Sequence[TopicPartition]) -> None:
        await asyncio.Event().wait()

    listener = Listening(never)
    async with member(any_kafka, unique("g"), topic, listener, revoke_seconds=0.3):
        await listener.until_records(1)
    await listener.until(lambda: "lost" in listener.names())
    assert listener.names()[-2:] == ["revoked", "lost"]


async def test_a_drain_that_fails_gives_the_partitions_up(any_kafka: Cluster) -> None:
    """An error in the listener's drain neither hangs nor breaks the source."""
    topic = any_kafka.create_topic(unique("broken"))
    any_kafka.produce(topic, b"x")

    async def broken(_: Sequence[TopicPartition]) -> None:
        raise RuntimeError("a bug")

    listener = Listening(broken)
    async with member(any_kafka, unique("g"), topic, listener):
        await listener.until_records(1)
    await listener.until(lambda: "lost" in listener.names())


async def test_a_listener_that_cannot_take_records_stops_the_source(any_kafka: Cluster) -> None:
    """A batch that was not taken in must not be passed over by later ones: the source stops and says so."""
    topic = any_kafka.create_topic(unique("bug"))
    any_kafka.produce(topic, b"1", b"2")

    class Broken(Listening):
        def records(self, batch: Sequence[Record]) -> None:
            raise RuntimeError("a bug")

    listener = Broken()
    async with member(any_kafka, unique("g"), topic, listener):
        await listener.until(lambda: listener.failures)
        any_kafka.produce(topic, b"3")
    assert [fatal for _, fatal in listener.failures] == [True]


async def test_a_restarted_broker_is_found_again(any_kafka: Cluster) -> None:
    """Records written after the broker came back arrive, each once; commits work; nothing was fatal."""
    topic, group = any_kafka.create_topic(unique("restart")), unique("g")
    any_kafka.produce(topic, b"before")
    here = TopicPartition(topic, 0)
    async with member(any_kafka, group, topic) as (source, listener):
        await listener.until_records(1)
        await asyncio.to_thread(any_kafka.restart)
        any_kafka.produce(topic, b"after")
        await listener.until(lambda: any(record.value == b"after" for record in listener.got))
        while not (listener.commits and listener.commits[-1][1] is None):
            answered = len(listener.commits)
            source.commit([Position(here, 2)])
            await listener.until_answered(answered + 1)
    assert listener.offsets(topic) == [0, 1]
    assert not any(fatal for _, fatal in listener.failures)
    assert any_kafka.committed(group, topic)[0] == 2


@pytest.mark.kafka
async def test_the_classic_protocol_serves_as_well(real_kafka: RealKafka) -> None:
    """The same promises where KIP-848 is turned off: resume, and hand over to a joining member after draining.

    Only on the real broker: a classic rebalance of the mock cluster takes ten seconds.
    """
    topic, group = real_kafka.create_topic(unique("classic"), 2), unique("g")
    real_kafka.produce(topic, *({"value": b"%d" % n, "partition": n % 2} for n in range(10)))
    properties = {"group.protocol": "classic", "heartbeat.interval.ms": "200", "session.timeout.ms": "6000"}

    async def drain(partitions: Sequence[TopicPartition]) -> None:
        first.commit([Position(tp, 3, "classic") for tp in partitions])

    old = Listening(drain)
    async with member(real_kafka, group, topic, old, properties) as (first, _):
        await old.until_records(10)
        assert first.protocol == "classic"
        async with member(real_kafka, group, topic, properties=properties) as (_, new):
            await new.until_owned(1)
            await new.until_records(2)
            ((tp, assigned),) = new.owned.items()
            assert (assigned.offset, assigned.metadata) == (3, "classic")
            assert new.offsets(*tp) == [3, 4]
            assert len(old.owned) == 1 and tp not in old.owned


async def test_the_broker_decides_the_protocol(any_kafka: Cluster) -> None:
    """Both brokers offer KIP-848, so it is used without being asked for."""
    topic = any_kafka.create_topic(unique("auto"))
    async with member(any_kafka, unique("g"), topic) as (source, listener):
        await listener.until_owned(1)
        assert source.protocol == "consumer"


async def test_a_broker_without_kip_848_gets_the_classic_protocol() -> None:
    """An older broker does not offer the API: found out before joining."""
    kafka = EmbeddedKafka()
    try:
        kafka.broker.limit_api(GROUP_HEARTBEAT, -1, -1)
        topic = kafka.create_topic("old")
        kafka.produce(topic, b"x")
        async with member(kafka, "g", topic) as (source, listener):
            await listener.until_records(1)
            assert source.protocol == "classic"
    finally:
        kafka.stop()


async def test_a_broker_that_refuses_kip_848_gets_the_classic_protocol(embedded_kafka: EmbeddedKafka) -> None:
    """Offered but turned off in its configuration: the refusal is not fatal, the classic protocol is used."""
    topic = embedded_kafka.create_topic(unique("off"))
    embedded_kafka.produce(topic, b"x")
    embedded_kafka.broker.push_errors(GROUP_HEARTBEAT, [UNSUPPORTED_VERSION])
    async with member(embedded_kafka, unique("g"), topic) as (source, listener):
        await listener.until_records(1)
        assert source.protocol == "classic"
    assert listener.failures == []


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


async def test_lost_partitions_are_told_without_a_commit_and_come_again(embedded_kafka: EmbeddedKafka) -> None:
    """Fenced by the group: `lost`, not `revoked`; then a new assignment with a higher epoch, from what is committed."""
    topic, group = embedded_kafka.create_topic(unique("fenced")), unique("g")
    embedded_kafka.produce(topic, b"1", b"2", b"3")
    here = TopicPartition(topic, 0)
    async with member(embedded_kafka, group, topic) as (source, listener):
        await listener.until_records(3)
        source.commit([Position(here, 1)])
        await listener.until_answered()
        epoch = listener.owned[here].epoch
        embedded_kafka.broker.push_errors(GROUP_HEARTBEAT, [FENCED_MEMBER_EPOCH])
        await listener.until(lambda: "lost" in listener.names())
        assert "revoked" not in listener.names()
        await listener.until_records(5)
        assert listener.owned[here].epoch > epoch
    assert listener.offsets(topic) == [0, 1, 2, 1, 2]


async def test_a_commit_of_a_former_generation_loses_the_partitions(embedded_kafka: EmbeddedKafka) -> None:
    """The classic protocol's refusal is told as such, and the partitions are `lost`, not `revoked`.

    (The mock cluster does not answer the member's rejoining, so the return is not seen here.)
    """
    topic, group = embedded_kafka.create_topic(unique("generation")), unique("g")
    embedded_kafka.produce(topic, b"1", b"2")
    here = TopicPartition(topic, 0)
    async with member(embedded_kafka, group, topic, properties={"group.protocol": "classic"}) as (source, listener):
        await listener.until_records(2)
        embedded_kafka.broker.push_errors(OFFSET_COMMIT, [ILLEGAL_GENERATION])
        source.commit([Position(here, 2)])
        await listener.until(lambda: "lost" in listener.names())
        await listener.until_answered()
    ((_, error),) = listener.commits
    assert error is not None and error.startswith("ILLEGAL_GENERATION")
    assert "revoked" not in listener.names()


@pytest.mark.kafka
async def test_a_member_without_partitions_hears_that_it_is_in_the_group(real_kafka: RealKafka) -> None:
    """More members than partitions: the idle one is told of an empty assignment, so that it counts as ready."""
    topic, group = real_kafka.create_topic(unique("spare")), unique("g")
    async with member(real_kafka, group, topic) as (_, busy):
        await busy.until_owned(1)
        async with member(real_kafka, group, topic) as (_, spare):
            await spare.until(lambda: "assigned" in spare.names())
            assert spare.events == [("assigned", ())]
            assert list(busy.owned) == [TopicPartition(topic, 0)]


@pytest.mark.kafka
@pytest.mark.parametrize("protocol", ["consumer", "classic"])
async def test_a_rolling_restart_of_static_members_moves_no_partition(real_kafka: RealKafka, protocol: str) -> None:
    """With group.instance.id a closed member's partitions do not go to another; it returns to them, and the others
    notice nothing: with neither protocol."""
    topic, group = real_kafka.create_topic(unique("static"), 3), unique("g")
    real_kafka.produce(topic, *({"value": b"%d" % n, "partition": n % 3} for n in range(6)))
    common = {"group.protocol": protocol}
    if protocol == "classic":
        common |= {"heartbeat.interval.ms": "200", "session.timeout.ms": "6000"}
    names = ["a", "b", "c"]
    async with AsyncExitStack() as others:
        lives: dict[str, AsyncExitStack] = {}
        heard: dict[str, Listening] = {}

        async def join(name: str) -> None:
            lives[name] = await others.enter_async_context(AsyncExitStack())
            joining = member(real_kafka, group, topic, properties={**common, "group.instance.id": name})
            _, heard[name] = await lives[name].enter_async_context(joining)

        for name in names:
            await join(name)
        for name in names:
            await heard[name].until_owned(1)
        places = {name: set(heard[name].owned) for name in names}
        for name in names:
            before = {other: len(heard[other].names()) for other in names if other != name}
            await lives[name].aclose()
            assert real_kafka.static_members(group) == set(names), "a place waits for its member"
            await join(name)
            await heard[name].until_owned(1)
            assert set(heard[name].owned) == places[name]
            news = {other: heard[other].names()[count:] for other, count in before.items()}
            assert not any({"assigned", "revoked", "lost"} & set(what) for what in news.values()), news
