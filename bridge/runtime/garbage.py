"""When Python's garbage collector runs: for a process that is a service, not for a library to decide.

What waits is a heap of up to a million live objects without cycles, and what has ended is freed at once, without the
collector (tests/unit/runtime/test_runtime_freed.py). Its default walks the young ones after each 700, and all of them
again and again: more than half of the time that taking events in costs. So it is left to runs by the clock.

Cycles are few: tracebacks, closed connections, rules that were replaced. Each minute's young ones are collected then;
what had survived one such run waits for the hour's. Where 100,000 objects are new before a minute is over (some 20 MB)
that is a reason too. What is there at the start stays.
"""

from __future__ import annotations

import asyncio
import gc

EVERY_SECONDS = 60.0
"""A page that is closed leaves some 50 KB. At most 100,000 young objects are looked at, in 15 ms."""
WHOLE_EVERY = 60
"""Runs. The whole heap takes some 20 ms where little waits, and 0.2 s at a million objects."""


def collect_seldom() -> None:
    """Settings for this process, once everything is imported."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


async def collect_by_the_clock() -> None:
    """Runs until it is cancelled."""
    runs = 0
    while True:
        await asyncio.sleep(EVERY_SECONDS)
        runs += 1
        gc.collect(2 if runs % WHOLE_EVERY == 0 else 0)
