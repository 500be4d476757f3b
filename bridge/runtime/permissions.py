"""Asks the ledger that all instances share for permits, and tells it what became of calls (core/permits.py).

One question for each API key at a time. Redis that cannot be asked stops that key's calls, which is said once, and
again when it goes on; nothing is guessed. Everything runs on the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog

from bridge.core.permits import Permits
from bridge.core.quota import NEVER
from bridge.errors import LedgerFailed
from bridge.ports import Clock, Ledger

log = structlog.get_logger(__name__)

LEAVE_SECONDS = 2.0
"""For the last news, when the instance ends: without them its last permits count somewhat longer."""
SAY_AFTER = 2
"""Failures in a row before it is said: an idle connection that was closed is one, and costs a tenth of a second."""


class Permissions:
    """See the module's text. `fingerprint` names the API key of that name as it is at present, without telling it."""

    def __init__(
        self, quotas: Mapping[str, Permits], ledger: Ledger, *, clock: Clock, fingerprint: Callable[[str], str]
    ) -> None:
        self._quotas = quotas
        self._ledger = ledger
        self._clock = clock
        self._fingerprint = fingerprint
        self._first_use = False
        self._running = False
        self._closed = False
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._failures = dict.fromkeys(quotas, 0)
        self._lost = False
        self.wake: Callable[[], None] = lambda: None
        """Hears that calls may be able to leave."""

    async def probe(self) -> None:
        """Raises LedgerFailed where the ledger cannot be used."""
        await self._ledger.probe()

    def start(self, *, first_use: bool) -> None:
        """From here on it is asked. `first_use`: the group has never made a call."""
        self._first_use = first_use
        self._running = True
        self.short()

    def short(self) -> None:
        """Calls wait for a permit, or there is news that others must hear."""
        for key in self._quotas:
            self._arm(key)

    def _arm(self, key: str) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if not self._running or self._closed or key in self._tasks:
            return
        now = self._clock.now()
        at = self._quotas[key].next_deadline()
        if at <= now:
            self._tasks[key] = asyncio.get_running_loop().create_task(self._ask(key))
        elif at != NEVER:
            # A millisecond late rather than early: a timer that fires early would spin until the moment has come.
            self._timers[key] = asyncio.get_running_loop().call_later(at - now + 0.001, self._arm, key)

    async def _ask(self, key: str) -> None:
        try:
            await self._ask_once(key)
        finally:
            del self._tasks[key]
            self._arm(key)
        self.wake()

    async def _ask_once(self, key: str) -> None:
        quota = self._quotas[key]
        ledger_key = self._fingerprint(key)
        question = quota.ask(self._clock.now(), ledger_key, first_use=self._first_use)
        try:
            answer = await self._ledger.ask(ledger_key, question)
        except LedgerFailed as error:
            quota.failed(self._clock.now(), str(error))
            self._failed(key, str(error))
            return
        except BaseException as error:
            quota.failed(self._clock.now(), f"internal error: {type(error).__name__}")
            if not isinstance(error, Exception):
                raise
            # The port promises not to raise. If it does it is a bug, and asking goes on.
            log.exception("asking for the shared quota failed in the bridge itself; it is asked again", key=key)
            return
        quota.granted(self._clock.now(), answer)
        self._first_use = False
        if self._failures[key] >= SAY_AFTER:
            log.info("the shared quota can be asked again; calls go on", key=key, ledger=self._ledger.where)
        self._failures[key] = 0
        self._say_lost(key, answer.lost_seconds)

    def _failed(self, key: str, message: str) -> None:
        self._failures[key] += 1
        if self._failures[key] == SAY_AFTER:
            log.error(
                "the shared quota cannot be asked: no call leaves until it can, nothing is lost, and work goes on by "
                "itself",
                key=key,
                error=message,
            )

    def _say_lost(self, key: str, seconds: float) -> None:
        if seconds and not self._lost:
            log.error(
                "the shared quota's Redis has lost what was used of it (emptied, restarted or another one?): what may "
                "have been used counts as used now, and calls wait",
                key=key,
                ledger=self._ledger.where,
                seconds=round(seconds),
            )
        self._lost = bool(seconds)

    async def close(self) -> None:
        """Gives back what is in hand, as far as the ledger answers now."""
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        if self._running:
            try:
                async with asyncio.timeout(LEAVE_SECONDS):
                    await asyncio.gather(*self._tasks.values(), return_exceptions=True)
                    for key, quota in self._quotas.items():
                        quota.leave(self._clock.now())
                        await self._ask_once(key)
            except TimeoutError:
                log.info("the shared quota's Redis did not answer at the end; the last calls count somewhat longer")
        await self._ledger.close()
