"""Hours of work on a backlog of a million events at Meisa's quota, on the virtual clock: is memory flat?

    python -m tests.support.backlog --events 1000000 --hours 12

The whole engine with the demo's rules over an imagined Kafka that has everything at once and a Meisa that answers in
50 ms. Whatever grows with time rather than with the window shows in the process's memory from hour to hour.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from importlib.resources import files
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import structlog

from bridge import rules
from bridge.core.quota import Quota
from bridge.core.retry import Policy
from bridge.decode import decoder_for
from bridge.model import Call, Outcome, Record, TopicPartition, Verdict, action_id
from bridge.runtime.delivery import Delivery
from bridge.runtime.engine import PENDING_MAX, Engine
from bridge.sandbox.stream import events
from tests.support.fakes import CountingMeter, FakeLetters, FakeSource
from tests.support.virtual import VirtualClock, VirtualLoop, run

TOPIC = "user-events"
PARTITIONS = 4
BATCH = 500
GROWTH_MAX = 1.05
"""What the last hour may need beyond the second: allocators round, and a peak is a matter of luck."""


class Backlog(FakeSource):
    """Has all the events from the start, and gives a batch of each partition that is not paused, again and again."""

    def __init__(self, number: int, users: int) -> None:
        super().__init__()
        self._stream = events(7, number, users, now_wall_seconds=VirtualClock.WALL_AT_START)
        self._offsets = [count() for _ in range(PARTITIONS)]
        self._waiting: list[deque[Record]] = [deque() for _ in range(PARTITIONS)]
        self.given = 0

    async def pour(self) -> None:
        while True:
            await asyncio.sleep(0.1)
            for partition in range(PARTITIONS):
                name = TopicPartition(TOPIC, partition)
                batch: list[Record] = []
                while name not in self.paused and len(batch) < BATCH:
                    record = self._next(partition)
                    if record is None:
                        break
                    batch.append(record)
                if batch:
                    self.given += len(batch)
                    self.feed(batch)

    def _next(self, partition: int) -> Record | None:
        waiting = self._waiting[partition]
        while not waiting:
            if max(map(len, self._waiting)) > 10_000:
                return None  # the others are paused, and the log is one stream here: it would be held in memory
            event = next(self._stream, None)
            if event is None:
                return None
            other = int(event.user[2:]) % PARTITIONS
            self._waiting[other].append(
                # A copy: the encoder's bytes keep a buffer of 4 KB, which no record from Kafka does.
                Record(
                    TOPIC,
                    other,
                    next(self._offsets[other]),
                    1_780_000_000_000,
                    event.key,
                    bytes(bytearray(event.value)),
                )
            )
        return waiting.popleft()


class Answering:
    """A Meisa that takes everything and remembers nothing."""

    def __init__(self) -> None:
        self.calls = 0

    async def send(self, call: Call) -> Outcome:
        await asyncio.sleep(0.05)
        self.calls += 1
        return Outcome(Verdict.DELIVERED, 200)

    async def close(self) -> None:
        pass


def memory_mb() -> float:
    """What the process holds in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


async def work(number: int, users: int, hours: int) -> Iterator[dict[str, float]]:
    clock = VirtualClock()
    meisa, source, meter = Answering(), Backlog(number, users), CountingMeter()
    with TemporaryDirectory() as folder:
        (Path(folder) / "rules.yaml").write_bytes(
            files("bridge.sandbox").joinpath("demo_files", "rules.yaml").read_bytes()
        )
        book = rules.load(("rules.yaml",), Path(folder), ())
    delivery = Delivery(
        meisa,
        {"default": Quota([(60, 60.0), (1000, 3600.0)], reserve=0.1)},
        clock=clock,
        meter=meter,
        policy=Policy(),
        identify=lambda record, action: action_id("group", record, action),
    )
    engine = Engine(
        group="group",
        decoders={TOPIC: decoder_for("json", envelope=None).decode},
        plan=book.plan,
        source=source,
        letters=FakeLetters(),
        clock=clock,
        meter=meter,
        delivery=delivery,
    )
    source.start(engine)
    delivery.open()
    source.assign(*(TopicPartition(TOPIC, partition) for partition in range(PARTITIONS)))
    pouring = asyncio.get_running_loop().create_task(source.pour())
    found = []
    for hour in range(1, hours + 1):
        pending_most = 0
        for _ in range(60):
            await asyncio.sleep(60)
            pending_most = max(pending_most, delivery.pending)
        found.append(
            {
                "hour": hour,
                "taken_in": source.given,
                "finished": sum(value for name, value in meter.counts.items() if name[0] == "finished"),
                "calls": meisa.calls,
                "pending_most": pending_most,
                "memory_mb": round(memory_mb(), 1),
            }
        )
    pouring.cancel()
    await engine.stop(1.0)
    await delivery.close()
    return iter(found)


def wrong(hours: Sequence[dict[str, float]]) -> list[str]:
    """What must not be: memory that grows, a bound passed, quota left unused."""
    found = []
    if hours[-1]["memory_mb"] > hours[1]["memory_mb"] * GROWTH_MAX:
        found.append(f"memory grew from {hours[1]['memory_mb']} MB in hour 2 to {hours[-1]['memory_mb']} MB")
    if max(hour["pending_most"] for hour in hours) > PENDING_MAX + 4:  # an event's actions are taken in together
        found.append("more actions are pending than the bound says")
    calls = hours[-1]["calls"]
    if not 0.95 * 1000 * len(hours) * 0.9 <= calls <= 1000 * len(hours):
        found.append(f"{calls} calls in {len(hours)} hours are not what the quota is for")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--hours", type=int, default=12)
    options = parser.parse_args(arguments)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    hours = list(run(work(options.events, options.users, max(3, options.hours)), VirtualLoop()))
    for hour in hours:
        print(json.dumps(hour))
    problems = wrong(hours)
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
