"""How few calls the bridge needs: beside one call per event, and beside the fewest that are possible at all.

    python -m benchmarks savings

Everything runs on the virtual clock, at Meisa's default quota, with the trace of trace.py and the bound of optimum.py.

| column | meaning |
|---|---|
| events | those that a rule wants |
| actions | what the rules make of them: the calls of a bridge that makes one for each, as peers do |
| calls | those that the bridge made until all was delivered |
| optimum | the fewest that were possible (optimum.py says what that means for a backlog, and for live traffic) |
| ÷ optimum | calls ÷ optimum: 1 cannot be beaten |
| calls/event | calls ÷ events |
| more upserts, more enrolls | than the optimum has, where it tells: which calls were lost |

The second table has traffic that is mostly log-ins, once as it is and once with lazy fields (docs/lazy-fields.md),
until the last kept value has been sent.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from benchmarks import optimum
from benchmarks.house import House, Log
from benchmarks.optimum import Fewest, Step
from benchmarks.trace import RULES, Arrival, Traffic, book, trace
from tests.support.virtual import VirtualClock, VirtualLoop, run

PARTITIONS = 6
PER_HOUR = 1000
"""Calls, by the default quota: what loads are multiples of."""
NEWCOMERS = 0.1
"""Most of a topic's people are known already. A sign-up costs its two calls whoever schedules them."""


@dataclass
class Found:
    """One row of the table."""

    name: str
    events: int
    actions: int
    calls: int
    fewest: Fewest
    made: Counter[str] = field(default_factory=Counter)
    whole: int = 0
    """The fewest calls of a scheduler that may wait for the trace's end; live traffic only."""

    @property
    def ratio(self) -> float:
        return self.calls / max(1, self.fewest.calls)


def backlog(count: int, users: int, *, milestones: float = 1.0, first: bool = True) -> Found:
    """All events are in the topic when the bridge starts; `first`: they are read before calls may leave."""
    traffic = Traffic(count, users, start=-3600.0, milestones=milestones, newcomers=NEWCOMERS)
    name = f"backlog, {count:,} events" + ("" if first else ", calls leave while it is read")
    name += ", mostly log-ins" if milestones < 1 else ""
    return run(_measure(name, trace(traffic, VirtualClock.WALL_AT_START), first, live=False), VirtualLoop())


def live(load: float, hours: float) -> Found:
    """`load` times as many events as there are calls in the quota, each at its time, of one person in 40."""
    count = int(load * PER_HOUR * hours)
    traffic = Traffic(count, count // 40, span_seconds=hours * 3600.0, newcomers=NEWCOMERS)
    arrivals = trace(traffic, VirtualClock.WALL_AT_START)
    return run(_measure(f"live, {load:g} events per call", arrivals, False, live=True), VirtualLoop())


async def _measure(name: str, arrivals: Iterator[Arrival], first: bool, *, live: bool) -> Found:
    house = House(book(), [Log("events", PARTITIONS, arrivals, VirtualClock.WALL_AT_START)], remember=True)
    if first:
        while house.fetch():
            pass
    house.open()
    await house.pour()
    await house.drained()
    steps = optimum.steps(action for _, action in house.taken)
    whole = optimum.backlog(steps)
    fewest = whole
    if live:
        timed: list[tuple[float, Step]] = [(at, step) for (at, _), step in zip(house.taken, steps, strict=True)]
        fewest = max(optimum.live(timed, house.slots), whole, key=lambda each: each.calls)  # both are bounds
    calls = [made.call for made in house.meisa.calls]
    finished = sum(count for what, count in house.meter.counts.items() if what[0] == "finished")
    assert finished == sum(log.given for log in house.logs), "an event was not finished"
    await house.close()
    made = Counter(call.endpoint for call in calls)
    return Found(name, house.wanted, len(steps), len(calls), fewest, made, whole.calls)


class Lazily(NamedTuple):
    """The same traffic twice: log-ins as ordinary upserts, and with lazy fields."""

    name: str
    events: int
    calls: int
    calls_lazily: int
    """Until no kept value is left."""


LOGIN = "    match: user.logged_in\n"
LAZY_LOGIN = LOGIN + "    lazy: [custom_fields.last_active, custom_fields.signin_count]\n    lazy_every: 1d\n"


def lazily(load: float, hours: float) -> Lazily:
    """Live traffic, mostly log-ins: milestones are one in ten of what they are elsewhere."""
    count = int(load * PER_HOUR * hours)

    async def calls(rules: str) -> tuple[int, int]:
        traffic = Traffic(count, count // 40, span_seconds=hours * 3600.0, milestones=0.1, newcomers=NEWCOMERS)
        arrivals = trace(traffic, VirtualClock.WALL_AT_START)
        house = House(book(rules), [Log("events", PARTITIONS, arrivals, VirtualClock.WALL_AT_START)])
        house.open()
        await house.pour()
        await house.drained()
        while house.delivery.lazy.contacts:
            await asyncio.sleep(600.0)
        made = len(house.meisa.calls)
        await house.close()
        return house.wanted, made

    text = RULES.read_text(encoding="utf-8")
    assert LOGIN in text
    events, ordinary = run(calls(text), VirtualLoop())
    _, fewer = run(calls(text.replace(LOGIN, LAZY_LOGIN)), VirtualLoop())
    return Lazily(f"live, {load:g} events per call, {hours:g} hours", events, ordinary, fewer)


def lazy_table(rows: Iterable[Lazily]) -> Iterator[str]:
    """In Markdown, row by row as they are found."""
    yield "| mostly log-ins | events | calls | calls with lazy log-ins | calls/event | with lazy log-ins |"
    yield "|---|---:|---:|---:|---:|---:|"
    for row in rows:
        yield (
            f"| {row.name} | {row.events:,} | {row.calls:,} | {row.calls_lazily:,} "
            f"| {row.calls / row.events:.2f} | {row.calls_lazily / row.events:.2f} |"
        )


def measure_lazily(*, long: bool = False) -> Iterator[Lazily]:
    return (lazily(load, 24.0 if long else 6.0) for load in (0.2, 1.0, 2.0))


def measure(*, long: bool = False) -> Iterator[Found]:
    """The rows, one after the other."""
    size = 10 if long else 1
    hours = 12.0 if long else 3.0
    yield from chain(
        (backlog(4_000 * size, 400 * size), backlog(4_000 * size, 400 * size, first=False)),
        (backlog(4_000 * size, 400 * size, milestones=0.1),),
        (live(load, hours) for load in (0.2, 1.0, 2.0, 5.0)),
    )


def table(rows: Iterable[Found]) -> Iterator[str]:
    """In Markdown, row by row as they are found."""
    yield "| | events | actions | calls | optimum | ÷ optimum | calls/event | more upserts | more enrolls |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|---:|"
    for row in rows:
        enrolls = row.made["enroll"] + row.made["bulk_enroll"] - row.fewest.bulk
        yield (
            f"| {row.name} | {row.events:,} | {row.actions:,} | {row.calls:,} | {row.fewest.calls:,} | {row.ratio:.3f} "
            f"| {row.calls / max(1, row.events):.2f} | {row.made['upsert'] - row.fewest.upserts} | {enrolls} |"
        )
