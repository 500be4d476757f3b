"""How many events a second one process takes in when nothing can be sent: filtered by type, and planned and merged.

    python -m benchmarks absorption

The records are in memory and no call may leave, so this is what stands between Kafka and the queues, and nothing else:
decode, rules, order, merging, offsets. `filtered`: no rule wants the type. `merged`: each event is an upsert with three
custom fields, of 2,000 contacts by Zipf's law, that joins what its contact has waiting. As many events as a bridge with
the default bounds takes in before it stops to read (50,000 pending actions; 20,000 offsets of each of 6 partitions).

Rates are by the process's own CPU time, the best of `repeats`, because other processes share the machine; nothing here
waits, so that is what a quiet machine would show. Each repeat is a fresh process: a heap that has grown is slower.
"""

from __future__ import annotations

import cProfile
import json
import pstats
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

import structlog

from benchmarks.house import Log
from benchmarks.trace import Traffic, book, trace
from bridge.core.identity import Identities
from bridge.core.quota import Quota
from bridge.core.retry import Policy
from bridge.decode import decoder_for
from bridge.model import Record, TopicPartition, action_id
from bridge.runtime.delivery import Delivery
from bridge.runtime.engine import Engine
from bridge.runtime.garbage import collect_seldom
from tests.support.fakes import CountingMeter, FakeLetters, FakeMeisa, FakeSource
from tests.support.virtual import VirtualClock, run

EVENTS = 45_000
PARTITIONS = 6
BATCH = 500
RULES = """
rules:
  - name: state
    match: {match}
    do:
      - upsert:
          email: ${{data.email}}
          external_id: ${{data.user_id}}
          custom_fields: {{seq: "${{data.seq}}", last_type: "${{event.type}}", last_active: "${{event.time}}"}}
"""
MODES = {"filtered": "nothing.like_it", "merged": '"*"'}


class Rate(NamedTuple):
    mode: str
    events: int
    per_cpu_second: float
    per_second: float
    contacts: int


def measure(repeats: int = 3) -> Iterator[Rate]:
    """The best rate of each mode."""
    for mode in MODES:
        found = []
        for _ in range(repeats):
            command = [sys.executable, "-m", "benchmarks.absorption", mode]
            found.append(Rate(*json.loads(subprocess.run(command, check=True, capture_output=True).stdout)))
        yield max(found, key=lambda rate: rate.per_cpu_second)


async def absorb(mode: str, events: int, profile: cProfile.Profile | None = None) -> Rate:
    """Takes the events in; raises AssertionError where one was not."""
    clock, meter, source = VirtualClock(), CountingMeter(), FakeSource()
    delivery = Delivery(
        FakeMeisa(),
        {"default": Quota([(60, 60.0), (1000, 3600.0)], reserve=0.1)},
        clock=clock,
        meter=meter,
        policy=Policy(),
        identify=lambda record, action: action_id("group", record, action),
        identities=Identities(),
    )
    engine = Engine(
        group="group",
        decoders={"events": decoder_for("json", envelope=None).decode},
        plan=book(RULES.format(match=MODES[mode])).plan,
        source=source,
        letters=FakeLetters(),
        clock=clock,
        meter=meter,
        delivery=delivery,
    )
    source.start(engine)
    names = [TopicPartition("events", number) for number in range(PARTITIONS)]
    source.assign(*names)
    batches = _batches(names, events, source.epoch)
    collect_seldom()  # as the service does
    cpu, wall = time.process_time(), time.perf_counter()
    if profile is not None:
        profile.enable()
    for batch in batches:
        engine.records(batch)
    if profile is not None:
        profile.disable()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    finished = meter.counts["finished", "filtered"]
    assert (finished if mode == "filtered" else delivery.pending) == events, "an event was not taken in"
    waiting = sum(contacts for _, contacts, _ in delivery.pending_by_lane())
    return Rate(mode, events, events / cpu, events / wall, waiting)


def _batches(names: list[TopicPartition], events: int, epoch: int) -> list[list[Record]]:
    """Batches as the consumer hands them over: mixed partitions, each in its order."""
    traffic = Traffic(events, 2_000, start=-3600.0, milestones=0.0)
    log = Log("events", len(names), trace(traffic, VirtualClock.WALL_AT_START), VirtualClock.WALL_AT_START)
    records: list[Record] = []
    while not log.empty:
        for number in range(len(names)):
            records += (record._replace(epoch=epoch) for record in log.read(number, 0.0))
    return [records[place : place + BATCH] for place in range(0, len(records), BATCH)]


def main(mode: str, *, profiled: bool = False) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    profile = cProfile.Profile() if profiled else None
    rate = run(absorb(mode, EVENTS, profile))
    if profile is not None:
        pstats.Stats(profile).sort_stats("tottime").print_stats(25)
    print(json.dumps(rate))


if __name__ == "__main__":
    main(sys.argv[1], profiled="--profile" in sys.argv)
