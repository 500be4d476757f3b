"""What reading and writing beside the group keeps to: in memory, on the embedded broker and on a real Kafka."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from bridge.errors import LogFailed
from bridge.kafka.replays import KafkaLogs
from bridge.model import Record
from bridge.ports import Logs
from tests.support.kafka import Cluster, EmbeddedKafka, unique


@pytest.fixture
async def logs(any_kafka: Cluster) -> AsyncIterator[KafkaLogs]:
    made = KafkaLogs(any_kafka.bootstrap_servers, "beside")
    yield made
    await made.close()


async def read(logs: Logs, topic: str, start: int, end: int, partition: int = 0) -> list[Record]:
    async with contextlib.aclosing(logs.read(topic, partition, start, end)) as batches:
        return [record async for batch in batches for record in batch]


async def test_what_was_written_is_there_when_write_returns(any_kafka: Cluster, logs: KafkaLogs) -> None:
    """Keys, values and nulls, in order, in partition 0, however many partitions there are."""
    topic = any_kafka.create_topic(unique("replays"), 3)
    entries: list[tuple[bytes, bytes | None]] = [(b"a", b"1"), (b"b", None), (b"a", b"2")]
    await logs.write(topic, entries)
    assert await logs.bounds(topic, 0) == (0, 3)
    assert [(record.key, record.value) for record in await read(logs, topic, 0, 3)] == entries


async def test_a_reading_gives_exactly_its_range(any_kafka: Cluster, logs: KafkaLogs) -> None:
    """Up to its end even where more comes after it; nothing for an empty range; headers and timestamps as they are."""
    topic = any_kafka.create_topic(unique("source"))
    any_kafka.produce(topic, *({"value": str(n).encode(), "headers": [("h", b"x"), ("n", None)]} for n in range(1_200)))
    found = await read(logs, topic, 100, 1_100)
    assert [record.offset for record in found] == list(range(100, 1_100))
    assert found[0].value == b"100" and found[0].headers == (("h", b"x"), ("n", None))
    assert found[0].timestamp_ms > 1_700_000_000_000
    assert await read(logs, topic, 5, 5) == []


async def test_what_retention_removed_is_no_guess(any_kafka: Cluster, logs: KafkaLogs) -> None:
    """The log begins later, and a reading from before that fails instead of beginning elsewhere."""
    topic = any_kafka.create_topic(unique("source"))
    any_kafka.produce(topic, *(b"x" for _ in range(10)))
    any_kafka.delete_records(topic, 0, 4)
    assert await logs.bounds(topic, 0) == (4, 10)
    with pytest.raises(LogFailed):
        await read(logs, topic, 0, 10)
    assert len(await read(logs, topic, 4, 10)) == 6


async def test_a_topic_that_is_not_there_is_said_so_and_not_created(any_kafka: Cluster, logs: KafkaLogs) -> None:
    """Asking again and again does not make it; once it is there it is found."""
    topic = unique("absent")
    assert await logs.bounds(topic, 0) is None
    assert await logs.bounds(topic, 0) is None
    any_kafka.create_topic(topic)
    assert await logs.bounds(topic, 0) == (0, 0)
    assert await logs.bounds(topic, 1) is None


async def test_a_reading_that_is_given_up_leaves_nothing_behind(any_kafka: Cluster) -> None:
    """`close` returns although one was in the middle."""
    topic = any_kafka.create_topic(unique("source"))
    any_kafka.produce(topic, *(b"x" for _ in range(2_000)))
    logs = KafkaLogs(any_kafka.bootstrap_servers, "beside")
    async with contextlib.aclosing(logs.read(topic, 0, 0, 2_000)) as batches:
        async for _ in batches:
            break
    await asyncio.wait_for(logs.close(), 20)


async def test_a_refused_write_is_raised_and_the_next_one_goes_through(embedded_kafka: EmbeddedKafka) -> None:
    topic = embedded_kafka.create_topic(unique("replays"))
    logs = KafkaLogs(embedded_kafka.bootstrap_servers, "beside")
    await logs.write(topic, [(b"a", b"1")])
    embedded_kafka.broker.push_errors(0, [44])  # POLICY_VIOLATION for one produce request
    with pytest.raises(LogFailed, match="POLICY_VIOLATION"):
        await logs.write(topic, [(b"a", b"2")])
    await logs.write(topic, [(b"a", b"3")])
    assert [record.value for record in await read(logs, topic, 0, 2)] == [b"1", b"3"]
    await logs.close()


@pytest.mark.kafka
async def test_compacted_records_and_markers_are_gaps(real_kafka: Cluster) -> None:
    """A reading ends at its end although the last offsets hold no record."""
    from confluent_kafka import Producer

    topic = real_kafka.create_topic(unique("source"))
    producer = Producer({"bootstrap.servers": real_kafka.bootstrap_servers, "transactional.id": unique("t")})
    await asyncio.to_thread(producer.init_transactions, 20)
    for commit in (True, False, True):
        producer.begin_transaction()
        producer.produce(topic, str(commit).encode())
        await asyncio.to_thread(producer.flush, 20)
        await asyncio.to_thread(producer.commit_transaction if commit else producer.abort_transaction, 20)
    logs = KafkaLogs(real_kafka.bootstrap_servers, "beside")
    bounds = await logs.bounds(topic, 0)
    assert bounds == (0, 6)
    assert [record.value for record in await read(logs, topic, *bounds)] == [b"True", b"True"]
    await logs.close()
