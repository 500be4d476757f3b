"""One quota for all processes of a group, on a real broker: the sandbox counts, and refuses what is too much."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, TopicPartition

from bridge.errors import StartFailed
from bridge.kafka.admin import has_committed
from bridge.sandbox.children import free_port
from bridge.sandbox.stream import events
from tests.support.kafka import Cluster, unique
from tests.support.redis import redis_server
from tests.support.service import Sandbox, service, wait_for

PER_MINUTE = 80


@pytest.fixture
def meisa() -> Iterator[Sandbox]:
    made = Sandbox("--per-minute", str(PER_MINUTE), "--per-hour", "1000", "--algorithm", "sliding")
    try:
        yield made
    finally:
        made.child.close()


@pytest.mark.kafka
@pytest.mark.slow
def test_processes_that_are_killed_join_and_leave_never_exceed_one_quota(
    real_kafka: Cluster, meisa: Sandbox, tmp_path: Path
) -> None:
    """With more work than the quota lets through: a process is killed with half of the minute used, two follow it, one
    of them is stopped in order. All together make no call too many, pings included, and use what is there."""
    produced = list(events(1, 1500, 300, now_wall_seconds=time.time()))
    with service(real_kafka, tmp_path, meisa, latency_ms=5) as made:
        made.quota = f"{{per_minute: {PER_MINUTE}, per_hour: 1000, reserve: 0}}"
        made.produce(produced)
        begun = time.monotonic()
        first = made.spawn()
        wait_for(lambda: meisa.received() >= PER_MINUTE // 4, "the first calls")
        first.crash()
        second = made.start()
        made.start()
        time.sleep(3.0)
        second.end()
        time.sleep(2.0)
        calls = meisa.ledger()
        assert [entry["status"] for entry in calls if entry["status"] == 429] == []
        if time.monotonic() - begun < 60.0:
            assert PER_MINUTE // 4 <= len(calls) <= PER_MINUTE


def test_whether_a_group_is_new_is_known_by_its_commits(any_kafka: Cluster) -> None:
    """A quota that is shared through Redis begins at once with a new group only."""
    topic, group = any_kafka.create_topic(unique("events"), 2), unique("group")
    assert not has_committed(any_kafka.bootstrap_servers, {}, group)
    consumer = Consumer({"bootstrap.servers": any_kafka.bootstrap_servers, "group.id": group, "log_level": 0})
    consumer.commit(offsets=[TopicPartition(topic, 1, 0)], asynchronous=False)
    consumer.close()
    assert has_committed(any_kafka.bootstrap_servers, {}, group)
    with pytest.raises(StartFailed, match="no Kafka broker answers"):
        has_committed(f"127.0.0.1:{free_port()}", {}, group, timeout_seconds=0.5)


@pytest.mark.slow
def test_a_quota_in_redis_is_used_by_whoever_has_work_and_kept_over_restarts(
    embedded_kafka: Cluster, meisa: Sandbox, tmp_path: Path
) -> None:
    """A new group begins at once; one that was killed leaves what it used; a Redis that is gone stops all calls and it
    is said so, and one that comes back empty counts as used up."""
    produced = list(events(1, 1500, 300, now_wall_seconds=time.time()))
    with redis_server() as redis, service(embedded_kafka, tmp_path, meisa, latency_ms=5) as made:
        made.quota = f"{{per_minute: {PER_MINUTE}, per_hour: 1000, reserve: 0, shared: '{redis.url}'}}"
        made.produce(produced)
        first = made.spawn()
        wait_for(lambda: meisa.received() >= PER_MINUTE // 4, "the first calls")
        first.crash()
        made.start()
        wait_for(lambda: "quota" in [each["reason"] for each in made.status()["waiting_for"]], "a quota that is used")
        # How many less than all depends on how many permits the killed one held: those are lost for now.
        assert len(meisa.ledger()) <= PER_MINUTE
        redis.stop()
        wait_for(
            lambda: any("redis.sock" in each["detail"] for each in made.status()["waiting_for"]), "a Redis that is gone"
        )
        redis.start()
        wait_for(
            lambda: any("had lost" in each["detail"] for each in made.status()["waiting_for"]), "a Redis that is empty"
        )
        used = {each["window"]: each["used"] for each in made.status()["quota"]}
        assert used == {"minute": PER_MINUTE, "hour": 1000}
        assert [entry for entry in meisa.ledger() if entry["status"] == 429] == []
        assert any("has lost what was used" in line for line in made.bridges[-1].said)
