"""When the client's typed methods repeat a call, and how long they wait in between (tenacity).

Only for people and commands that call Meisa directly. The delivery has its own rules, because it must hold order and
quota while it waits.

    endpoint        repeated after
    ──────────────────────────────────────────────────────────────────────────────────────────────────────────
    reads, upsert,  never sent, throttled, 5xx, outcome unknown
    tags, enrolls
    track           never sent, throttled, 5xx; not after an unknown outcome: Meisa has no key to know it by
    trigger         never sent, throttled, 5xx, outcome unknown: with an idempotency_key only, and only while the
                    first attempt is younger than the idempotency window. Without one: never
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tenacity import AsyncRetrying, RetryCallState, retry_if_result

from bridge.meisa.endpoints import Endpoint, Repeat
from bridge.model import Call, Outcome, Verdict
from bridge.ports import Clock

_NOT_DONE = frozenset({Verdict.RETRY, Verdict.THROTTLED})
_NOT_FINAL = _NOT_DONE | {Verdict.UNKNOWN}


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a typed call is repeated."""

    attempts: int = 6
    """The first one included. With the waits below: about 15 s at most in all, against a server that fails at once."""
    first_wait_seconds: float = 0.5
    """Doubles with each attempt, times a random factor of 0.5 to 1, so that many clients do not return together."""
    wait_seconds_max: float = 30.0
    """Of one wait chosen here. A longer `Retry-After` is honoured."""
    total_seconds: float = 120.0
    """A wait that would end later than this after the first attempt is not begun: the failure is told instead."""
    idempotency_window_seconds: float = 55 * 60.0
    """Meisa forgets an idempotency_key after an hour; five minutes are left for clocks and for the last attempt."""


async def repeat(
    send: Callable[[Call], Awaitable[Outcome]],
    endpoint: Endpoint,
    call: Call,
    *,
    patience: Patience,
    clock: Clock,
    sleep: Callable[[float], Awaitable[None]],
    rand: Callable[[], float] = random.random,
) -> Outcome:
    """The outcome of the last attempt. Raises nothing of its own."""
    first_now, first_wall = clock.now(), clock.wall()
    keyed = bool((call.body or {}).get("idempotency_key"))
    last: Outcome | None = None

    def too_old(after_seconds: float = 0.0) -> bool:
        # Wall time too: it goes on while the machine is suspended.
        age = max(clock.now() - first_now, clock.wall() - first_wall)
        return endpoint.repeat is Repeat.WITH_KEY and age + after_seconds >= patience.idempotency_window_seconds

    def harmless(outcome: Outcome) -> bool:
        if endpoint.repeat is Repeat.ALWAYS:
            return outcome.verdict in _NOT_FINAL
        if endpoint.repeat is Repeat.WITH_KEY:
            return keyed and outcome.verdict in _NOT_FINAL
        return outcome.verdict in _NOT_DONE

    def wait(state: RetryCallState) -> float:
        grown = patience.first_wait_seconds * 2.0 ** min(state.attempt_number - 1, 30)
        seconds = min(grown, patience.wait_seconds_max) * (0.5 + rand() / 2)
        asked = last.retry_after_seconds if last is not None else None
        return max(seconds, asked or 0.0)

    def stop(state: RetryCallState) -> bool:
        if state.attempt_number >= patience.attempts or too_old(state.upcoming_sleep):
            return True
        return clock.now() - first_now + state.upcoming_sleep > patience.total_seconds

    async def attempt() -> Outcome:
        nonlocal last
        if last is not None and too_old():  # the wait took longer than it should: the process was stopped meanwhile
            return last
        last = await send(call)
        return last

    def give_up(state: RetryCallState) -> Outcome:
        assert last is not None
        return last

    retrying = AsyncRetrying(
        retry=retry_if_result(harmless), wait=wait, stop=stop, sleep=sleep, retry_error_callback=give_up
    )
    outcome: Outcome = await retrying(attempt)
    return outcome
