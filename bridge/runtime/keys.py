"""API keys that Meisa refuses: their work stands still, and goes on by itself once the key is accepted.

A 401 loses nothing and dead-letters nothing: the key was revoked, or is being rotated. From the first one on no call
leaves with that key but a ping now and then, made with the key as it is kept *now*: a rotated file is read again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from bridge.errors import UsageError
from bridge.model import Call, Outcome
from bridge.ports import Meisa
from bridge.runtime.delivery import Delivery

log = structlog.get_logger(__name__)

ASK_SECONDS = 1.0
ASK_SECONDS_MAX = 60.0
"""Between pings. They cost quota, so they become rarer, but a minute of delay after a repair is enough."""


class RefusedKeys:
    """Watches refused keys. `refresh` reads all anew; raises UsageError where the one it is given cannot be read."""

    def __init__(self, meisa: Meisa, delivery: Delivery, refresh: Callable[[str], object]) -> None:
        self._meisa = meisa
        self._delivery = delivery
        self._refresh = refresh
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def refused(self, key: str, outcome: Outcome) -> None:
        """Told by the delivery, once per refusal."""
        log.error(
            "Meisa refuses the API key: its calls wait, nothing is lost, and work goes on once the key is accepted",
            key=key,
            message=outcome.message,
        )
        if key not in self._tasks or self._tasks[key].done():
            self._tasks[key] = asyncio.get_running_loop().create_task(self._watch(key))

    async def _watch(self, key: str) -> None:
        wait = ASK_SECONDS
        while True:
            await asyncio.sleep(wait)
            wait = min(wait * 2, ASK_SECONDS_MAX)
            try:
                self._refresh(key)
            except UsageError as error:
                log.warning(
                    "the API key cannot be read; its work goes on waiting, and reading it is tried again",
                    key=key,
                    error=str(error),
                )
                continue
            try:
                outcome = await self._delivery.ask(Call("ping", key=key))
            except Exception:
                # The port promises not to raise. If it does it is a bug, but the key must not stay refused for ever.
                log.exception("asking for the API key failed in the bridge itself; it is asked again")
                continue
            # Any 2xx shows the key accepted, whatever else the answer says.
            if outcome is not None and outcome.status is not None and 200 <= outcome.status < 300:
                log.info("Meisa accepts the API key again; its work goes on", key=key)
                self._delivery.key_works(key)
                return

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
