"""The benchmarks' traffic: a trace of records, the same for the same numbers, and the rules that it meets.

A trace is the sandbox's stream of lifecycle events (bridge/sandbox/stream.py: sign-ups, log-ins, onboarding, plan
changes, invoices, cancellations; contacts by Zipf's law) with two things added: a *rate over time*, and events that no
rule wants, as every real topic has.

| part | what it is |
|---|---|
| arrivals | a Poisson process with the rate of `shape`: `flat`, or `day` (quiet at night, two humps of office hours) |
| contacts | `users` people, Zipf with s = 1.1; `newcomers` of them sign up somewhere in the trace |
| mix | the stream's own; `milestones` thins out what is neither a sign-up nor a log-in (about a quarter of it) |
| unwanted | that share of all records is `page.viewed`, of the same people, which no rule matches |
| rules | benchmarks/rules.yaml: merging upserts, a preserved path, tracks, triggers, enrollments, both tag actions |

What is *not* in it: bad events, re-keys, several topics that write the same contact. The simulation and the chaos runs
have those; here they would only blur what a call was spent on.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import orjson

from bridge import rules
from bridge.rules import RuleBook
from bridge.sandbox.stream import events

ZIPF_S = 1.1
RULES = Path(__file__).with_name("rules.yaml")
SHAPES = {
    "flat": (1.0,),
    # Office hours of a continent, midnight to midnight: the busiest hour has nine times the quietest one's traffic.
    "day": (2, 2, 2, 2, 3, 4, 6, 10, 15, 18, 18, 16, 13, 15, 18, 18, 16, 12, 9, 7, 6, 5, 4, 3),
}


@dataclass(frozen=True)
class Traffic:
    """What a trace is made from. `start` and `span_seconds` count from the benchmark's beginning; both may be zero."""

    count: int
    users: int
    seed: int = 7
    start: float = 0.0
    span_seconds: float = 3600.0
    shape: str = "flat"
    unwanted: float = 0.0
    milestones: float = 1.0
    newcomers: float = 1.0
    """The share of users who sign up in the trace; the others have before, and view a page in the place of it."""


class Arrival(NamedTuple):
    """One record of a trace."""

    at: float
    """Seconds from the benchmark's beginning."""
    key: bytes
    value: bytes
    wanted: bool


def trace(traffic: Traffic, wall_at_start: float) -> Iterator[Arrival]:
    """The records in the order of their times; events carry wall times that follow from `wall_at_start`."""
    rng = _dice(traffic)
    moments = _moments(rng, traffic)
    is_wanted = [rng.random() >= traffic.unwanted for _ in moments]
    walls = [wall_at_start + at for at, wanted in zip(moments, is_wanted, strict=True) if wanted]
    wanted_events = events(
        traffic.seed,
        len(walls),
        traffic.users,
        ZIPF_S,
        now_wall_seconds=wall_at_start,
        times=walls,
        milestones=traffic.milestones,
    )
    weights = list(accumulate((rank + 1) ** -ZIPF_S for rank in range(traffic.users)))
    people = range(traffic.users)
    known = {f"u_{user + 1:05d}" for user in people if rng.random() >= traffic.newcomers}
    for number, (at, wanted) in enumerate(zip(moments, is_wanted, strict=True)):
        event = next(wanted_events) if wanted else None
        if event is not None and not (event.sequence == 1 and event.user in known):
            # A copy: the encoder's bytes keep a buffer of 4 KB, which no record from Kafka does.
            yield Arrival(at, event.key, bytes(bytearray(event.value)), True)
        else:
            user = f"u_{rng.choices(people, cum_weights=weights)[0] + 1:05d}" if event is None else event.user
            view = {
                "id": f"view_{number}",
                "type": "page.viewed",
                "time": wall_at_start + at,
                "source": "web",
                "data": {"user_id": user, "path": f"/reports/{number % 97}", "referrer": None, "ms": number % 900},
            }
            yield Arrival(at, user.encode(), bytes(bytearray(orjson.dumps(view))), False)


def book(text: str | None = None) -> RuleBook:
    """The rules of the benchmarks, or others."""
    return rules.load_text(RULES.read_text(encoding="utf-8") if text is None else text)


def times(traffic: Traffic) -> list[float]:
    """When the records of `trace` arrive."""
    return _moments(_dice(traffic), traffic)


def _dice(traffic: Traffic) -> random.Random:
    return random.Random(f"trace {traffic.seed}")


def _moments(rng: random.Random, traffic: Traffic) -> list[float]:
    """Sorted arrival times: a Poisson process, given that it had `count` arrivals in the span."""
    weights = SHAPES[traffic.shape]
    sums = [0.0, *accumulate(weights)]
    whole, width = sums[-1], traffic.span_seconds / len(weights)
    moments = []
    for _ in range(traffic.count):
        drawn = rng.random() * whole
        hour = min(bisect_right(sums, drawn) - 1, len(weights) - 1)
        moments.append(traffic.start + (hour + (drawn - sums[hour]) / weights[hour]) * width)
    moments.sort()
    return moments
