"""One quota for a whole group, while its processes are killed, join, and are stopped and continued, on a real Kafka.

The sandbox counts, and refuses what is too much. It counts a call when it comes, so its windows are the strictest that
a server can have.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import pytest

from bridge.sandbox.stream import events
from tests.support.chaos.cluster import SESSION_SECONDS, ProxiedKafka
from tests.support.chaos.fleet import Fleet, Load
from tests.support.chaos.judge import Judge
from tests.support.redis import redis_server
from tests.support.service import wait_for

pytestmark = [pytest.mark.chaos, pytest.mark.kafka]

PER_MINUTE = 200
LOAD = Load(partitions=8, backlog=0.7, events_per_second=4.0, burst=(1, 8), per_minute=PER_MINUTE)


def most_in(times: Sequence[float], seconds: float) -> int:
    """The most calls in any window of this length."""
    most = first = 0
    for last, at in enumerate(times):
        while times[first] <= at - seconds:
            first += 1
        most = max(most, last + 1 - first)
    return most


@pytest.mark.parametrize("shared", ["partitions", "redis"])
def test_four_processes_never_exceed_one_quota_whatever_befalls_them(
    shared: str, proxied_kafka: ProxiedKafka, tmp_path: Path
) -> None:
    """Three processes and one that joins; one is killed and replaced, one stopped for longer than its session and
    continued. No minute has more than a minute's calls, none is refused, nothing is lost, order is kept."""
    # None of them bad: an address that is refused alone is overwritten where its upsert waits and merges.
    produced = list(events(1, 180, 80, 0.6, 0, now_wall_seconds=time.time()))
    with ExitStack() as stack:
        url = stack.enter_context(redis_server()).url if shared == "redis" else shared
        fleet = Fleet(proxied_kafka, tmp_path, LOAD, shared=url)
        stack.callback(fleet.close)
        fleet.produce(produced)
        begun = time.monotonic()

        def calls_after(seconds: float) -> Callable[[], bool]:
            count, until = fleet.calls(), time.monotonic() + seconds
            return lambda: fleet.calls() > count and time.monotonic() >= until

        one, two, _ = [fleet.spawn() for _ in range(3)]
        wait_for(lambda: fleet.calls() > 20, "the first calls")
        fleet.spawn()
        wait_for(calls_after(4.0), "calls after one has joined")
        fleet.crash(one)
        fleet.spawn()
        wait_for(calls_after(4.0), "calls after one was killed")
        two.freeze()
        time.sleep(2.5 * SESSION_SECONDS)
        two.thaw()
        while not fleet.finished():
            fleet.look_after()
            time.sleep(0.2)
        seconds = time.monotonic() - begun
        for member in list(fleet.members):
            fleet.terminate(member)
        ledger = fleet.ledger()
        judge = Judge(fleet.group, fleet.topic, produced, fleet.places)
        judgement = judge.judge(ledger, fleet.emails(), fleet.contacts(), fleet.letters(), fleet.moments)

    times = sorted(datetime.fromisoformat(entry["received_at"]).timestamp() for entry in ledger)
    most = most_in(times, 60.0)
    capacity = PER_MINUTE * (1 + (times[-1] - times[0]) / 60.0)
    print(
        f"\n{shared}: {len(times)} calls for {len(produced)} events in {seconds:.0f} s; at most {most} of {PER_MINUTE} "
        f"in a minute ({most / PER_MINUTE:.0%}), {len(times) / capacity:.0%} of what the whole time allowed; "
        f"{len(judgement.repeats)} calls repeated"
    )
    assert [entry["number"] for entry in ledger if entry["status"] == 429] == []
    assert most <= PER_MINUTE
    assert judgement.broken == []
    assert fleet.broke == []
