"""The page's sections as server-sent events: those that changed, every two seconds, until the server stops.

    connection opens  → all sections
    every 2 s         → the sections that differ from what this connection has, or a comment that keeps it alive
    server stops      → the stream ends; the browser connects again by itself, as after a lost connection

Streams share one reading of the state. A client that does not read holds its own stream back and nothing else: the next
event is made when the last one has gone out.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import orjson

STREAMS_MAX = 16
"""At once: more than people look at one instance. Beyond it a page reloads itself instead, as without JavaScript."""
EVERY_SECONDS = 2.0
AGAIN_MILLISECONDS = 3_000
"""After which a browser whose stream ended asks again."""
FRESH_SECONDS = EVERY_SECONDS / 2
"""For how long what one stream read serves the others."""

ALIVE = b":\n\n"


class Live:
    """`read` makes the sections; it is asked at most once in `FRESH_SECONDS`, however many streams there are."""

    def __init__(self, read: Callable[[], Mapping[str, str]]) -> None:
        self._read = read
        self._stop = asyncio.Event()
        self._sections: Mapping[str, str] = {}
        self._read_at = float("-inf")
        self.open = 0
        """Streams at present."""

    @property
    def full(self) -> bool:
        return self.open >= STREAMS_MAX

    def stop(self) -> None:
        """Ends every stream, those that begin later too."""
        self._stop.set()

    async def stopped(self, within_seconds: float) -> bool:
        """Waits until the server stops; False if it goes on after that time."""
        try:
            async with asyncio.timeout(within_seconds):
                await self._stop.wait()
        except TimeoutError:
            return False
        return True

    async def stream(self, every_seconds: float = EVERY_SECONDS) -> AsyncIterator[bytes]:
        """One connection's events. Whoever takes it counts it in `open`."""
        sent: Mapping[str, str] = {}
        yield f"retry: {AGAIN_MILLISECONDS}\n\n".encode()
        while not self._stop.is_set():
            now = self._fresh()
            changed = {name: html for name, html in now.items() if sent.get(name) != html}
            sent = now
            yield event(changed) if changed else ALIVE
            if await self.stopped(every_seconds):
                return

    def _fresh(self) -> Mapping[str, str]:
        now = asyncio.get_running_loop().time()
        if now - self._read_at >= FRESH_SECONDS:
            self._sections, self._read_at = self._read(), now
        return self._sections


def event(sections: Mapping[str, str]) -> bytes:
    """JSON has no line ends of its own, so no text can end the event or begin another."""
    return b"event: sections\ndata: " + orjson.dumps(sections) + b"\n\n"
