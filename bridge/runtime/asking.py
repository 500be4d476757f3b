"""Calls that belong to no action: the ping of a key, the suppression list. They count in the quota like all others.

A ping that finds no room is told so, and its asker decides. What can wait takes its turn instead: before all actions,
so that it never starves, but in the share of the quota that is everybody's, so that no urgent call waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Mapping

from bridge.core.quota import NEVER, Quota, Slot
from bridge.model import Call, Outcome, Verdict
from bridge.ports import Clock, Meisa, Meter
from bridge.runtime.clock import MeisaClock
from bridge.runtime.items import Key

TURN_SECONDS = 1.0
"""Before a call that found no room, though its turn had come, takes its turn anew."""


class Asking:
    """`wake` has the pump look at who waits; `untold` hears that a call found no room, perhaps for want of a permit."""

    def __init__(
        self,
        meisa: Meisa,
        keys: Mapping[str, Key],
        *,
        clock: Clock,
        meisa_clock: MeisaClock,
        meter: Meter,
        wake: Callable[[], None],
        untold: Callable[[], None],
    ) -> None:
        self._meisa = meisa
        self._keys = keys
        self._clock = clock
        self._meisa_clock = meisa_clock
        self._meter = meter
        self._wake = wake
        self._untold = untold
        self._turns: dict[str, deque[asyncio.Future[None]]] = {name: deque() for name in keys}
        """Who waits for a slot of each key: a few, for each asker has one call at a time."""

    def wants(self, key: str) -> bool:
        """Whether somebody waits for a slot of the key."""
        return bool(self._turns[key])

    def call(self, key: str) -> None:
        """Lets the first that waits take a slot, in the next round of the loop."""
        turns = self._turns[key]
        while turns:
            turn = turns.popleft()
            if not turn.done():  # one that was cancelled takes itself out, but only in a later round
                turn.set_result(None)
                return

    async def ask_in_turn(self, call: Call) -> tuple[Outcome, float]:
        """Makes a call once there is room. Returns the outcome, and a moment (monotonic) before the call left."""
        while True:
            turn = asyncio.get_running_loop().create_future()
            self._turns[call.key].append(turn)
            self._wake()
            try:
                await turn
            finally:
                if not turn.done() or turn.cancelled():
                    with contextlib.suppress(ValueError):
                        self._turns[call.key].remove(turn)
            asked_at = self._clock.now()
            outcome = await self.ask(call, urgent=False)
            if outcome is not None:
                return outcome, asked_at
            await asyncio.sleep(TURN_SECONDS)  # somebody else was quicker, or may not tell yet

    async def ask(self, call: Call, *, urgent: bool = True) -> Outcome | None:
        """Makes a call within its key's quota; None where that has no room now."""
        quota = self._keys[call.key].quota
        if not quota.acquire(self._clock.now(), urgent=urgent):
            self._untold()
            return None
        slot = quota.slot
        sent_now, sent_wall = self._clock.now(), self._clock.wall()
        try:
            outcome = await self._meisa.send(in_time(call, slot))
        except BaseException:
            quota.unanswered(self._clock.now(), slot)
            raise
        now = self._clock.now()
        count(quota, outcome, now, urgent=urgent, slot=slot)
        self._meisa_clock.observe(sent_wall, self._clock.wall(), outcome.date_wall_seconds)
        self._meter.called(call.endpoint, status_label(outcome), now - sent_now)
        if outcome.verdict is Verdict.THROTTLED:
            quota.throttled(now, outcome.retry_after_seconds)
        return outcome


def in_time(call: Call, slot: Slot) -> Call:
    """The call as it may leave with this slot."""
    return call if slot.leave_by == NEVER else call._replace(leave_by=slot.leave_by)


def count(quota: Quota, outcome: Outcome, now: float, *, urgent: bool, slot: Slot) -> None:
    """Books a call's end."""
    if outcome.status is not None:
        quota.answered(now, slot)
    elif outcome.sent:
        quota.unanswered(now, slot)
    else:
        quota.unsent(urgent=urgent, slot=slot)


def status_label(outcome: Outcome) -> str:
    """What the metrics call an outcome: the answer's status, or what is known without one."""
    if outcome.status is not None:
        return str(outcome.status)
    return "never_sent" if not outcome.sent else "unanswered"
