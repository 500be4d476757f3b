"""One quota for all processes of a group, on a real broker: the sandbox counts, and refuses what is too much."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.sandbox.stream import events
from tests.support.kafka import Cluster
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
