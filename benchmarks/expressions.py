"""How many conditions and mappings a second one process evaluates.

    python -m benchmarks expressions

Each is compiled once, as a rule's is, and evaluated on the same event. Rates are by the process's own CPU time, the
best of `REPEATS`: nothing here waits. A condition whose field the event lacks costs an exception, and is listed too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from benchmarks.trace import book
from bridge.model import Event, Record
from bridge.rules import compile_expression

CONDITIONS = (
    'data.plan != "internal"',
    '"pro" in data.plans',
    'data.plan == "pro" and data.amount > 100 and not data.internal',
    "has(data.trial_ends) and data.trial_ends > event.time",
    'any([line.sku == "seat" and line.count > 3 for line in data.lines])',
)
FIELDS = tuple(f"field_{number}" for number in range(10))
MAPPING = f"""
rules:
  - name: state
    match: plan.changed
    do:
      - upsert:
          email: ${{data.email}}
          custom_fields: {{{", ".join(f'{name}: "${{data.{name}}}"' for name in FIELDS)}}}
"""
LACKED = "data.referrer.campaign == 'spring'"
COUNT = 100_000
REPEATS = 3
DATA: dict[str, Any] = {
    "email": "ada@example.com",
    "plan": "pro",
    "plans": ["free", "pro"],
    "amount": 120,
    "internal": False,
    "trial_ends": "2026-12-01T00:00:00Z",
    "lines": [{"sku": "base", "count": 1}, {"sku": "seat", "count": 5}],
    **{name: f"value of {name}" for name in FIELDS},
}


class Speed(NamedTuple):
    what: str
    per_second: float


def measure(count: int = COUNT) -> Iterator[Speed]:
    """The rate of each condition, of one that lacks its field, and of rules that map ten fields."""
    event = Event(
        id="1",
        type="plan.changed",
        time="2026-11-22T08:00:00Z",
        time_wall_seconds=1_795_334_400.0,
        data=DATA,
        record=Record("events", 0, 0, 0, None, b""),
    )
    for text in CONDITIONS:
        condition = compile_expression(text)
        assert condition.evaluate(event) is True, text
        yield Speed(f"`{text}`", _rate(condition.run, event, count))
    lacking = book(f"{MAPPING.replace('do:', f'when: {LACKED}{chr(10)}    do:')}")
    assert lacking.plan(event).missing == 1
    yield Speed(f"`{LACKED}`, which the event lacks, in a rule", _rate(lacking.plan, event, count))
    mapping = book(MAPPING)
    assert len(mapping.plan(event).actions[0].body["custom_fields"]) == len(FIELDS)
    yield Speed("a rule that maps ten fields, to the planned action", _rate(mapping.plan, event, count))


def _rate(evaluate: Callable[[Event], Any], event: Event, count: int) -> float:
    best = 0.0
    for _ in range(REPEATS):
        begun = time.process_time()
        for _ in range(count):
            evaluate(event)
        best = max(best, count / (time.process_time() - begun))
    return best


def table(speeds: Iterator[Speed]) -> Iterator[str]:
    """The rates in Markdown."""
    yield "| evaluated | a second |"
    yield "|---|---:|"
    for speed in speeds:
        yield f"| {speed.what} | {speed.per_second:,.0f} |"
