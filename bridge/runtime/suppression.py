"""Keeps the suppression list fresh (core/suppression.py): at the start, and again before each list is too old.

Its calls go in the share of the quota that everybody uses, each before what waits there: seven an hour, and one of them
may spare hundreds. The reserve is never used for it. Without the scope that it needs this is said once, and no call is
spared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from bridge.core.suppression import FRESH_SECONDS
from bridge.model import Call, Outcome, Verdict
from bridge.ports import Clock
from bridge.runtime.delivery import Delivery

log = structlog.get_logger(__name__)

REFRESH_SECONDS = FRESH_SECONDS - 30.0
"""From one list to the next: so that, as a rule, the next has come before this one is too old."""
RETRY_SECONDS, RETRY_SECONDS_MAX = 5.0, 120.0
"""After a list that did not come: doubling."""


class SuppressionSync:
    """Fills the delivery's list. `keys` are names of API keys, in the order in which they are tried for the scope."""

    def __init__(self, delivery: Delivery, keys: Sequence[str], clock: Clock) -> None:
        self._delivery = delivery
        self._keys = list(keys)
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        if self._task is not None:
            return
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        retry = RETRY_SECONDS
        while self._keys:
            asked_at = self._clock.now()
            try:
                outcome, asked_at = await self._delivery.ask_in_turn(Call("unsubscribed", key=self._keys[0]))
            except Exception:
                # The port promises not to raise. If it does it is a bug, and costs calls only.
                log.exception("asking for the suppression list failed in the bridge itself; it is asked for again")
                outcome = Outcome(Verdict.RETRY)
            if outcome.verdict is Verdict.SCOPE_MISSING:
                del self._keys[0]
                continue
            emails = _emails(outcome)
            if emails is None:
                log.info("the suppression list did not come; it is asked for again", message=outcome.message)
                await asyncio.sleep(retry)
                retry = min(retry * 2, RETRY_SECONDS_MAX)
                continue
            retry = RETRY_SECONDS
            if not self._delivery.suppressions.learn(emails, asked_at):
                log.warning(
                    "the suppression list is too long to be kept: Meisa is asked each time, and refuses",
                    addresses=len(emails),
                )
            await asyncio.sleep(max(0.0, asked_at + REFRESH_SECONDS - self._clock.now()))
        log.warning(
            "no API key has the scope contacts:read: the suppression list is not read, and calls that Meisa refuses "
            "because of it are made all the same"
        )

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


def _emails(outcome: Outcome) -> list[str] | None:
    """The list; None where it did not come."""
    data = outcome.data
    if outcome.verdict is not Verdict.DELIVERED or not isinstance(data, dict):
        return None
    emails = data.get("emails")
    return emails if isinstance(emails, list) and all(isinstance(each, str) for each in emails) else None
