"""A Source as a member of its group: protocols, handing over, draining, losing, static members."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest

from bridge.model import Position, TopicPartition
from tests.support.kafka import Cluster, EmbeddedKafka, RealKafka, unique
from tests.support.listening import Listening
from tests.support.member import member

OFFSET_COMMIT, GROUP_HEARTBEAT = 8, 68
ILLEGAL_GENERATION, UNSUPPORTED_VERSION, FENCED_MEMBER_EPOCH = 22, 35, 110


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


async def test_a_drain_at_the_end_may_outlast_the_groups_session() -> None:
    """It is still a member while it drains, heard of by the group: its last commit is taken, whatever calls took."""
    kafka = EmbeddedKafka(session_seconds=0.5)
    try:
        topic, group = kafka.create_topic(unique("long")), unique("g")
        kafka.produce(topic, b"x")

        async def drain(_: Sequence[TopicPartition]) -> None:
            await asyncio.sleep(1.5)  # a call that is under way
            source.commit([Position(TopicPartition(topic, 0), 1, "late")])
            await listener.until_answered(1)

        listener = Listening(drain)
        async with member(kafka, group, topic, listener) as (source, _):
            await listener.until_records(1)
        assert [error for _, error in listener.commits] == [None]
        assert kafka.committed(group, topic) == (1, "late")
        assert "lost" not in listener.names()
    finally:
        kafka.stop()


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
