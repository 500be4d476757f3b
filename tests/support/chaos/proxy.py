"""A TCP proxy that goes wrong on demand. It runs in a thread of its own; every method may be called from any thread."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Coroutine
from typing import Any

CHUNK_BYTES = 65_536


class Proxy:
    """Forwards connections to a port of this machine. `port` is where it listens, for as long as it lives."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="chaos-proxy", daemon=True)
        self._thread.start()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0
        self.port = self._do(self._listen())

    @property
    def connections(self) -> int:
        return self._do(self._count()) // 2

    def cut(self) -> int:
        """Resets every connection; new ones are welcome. Returns how many there were."""
        return self._do(self._cut())

    def stall(self) -> None:
        """Connections stay and new ones are taken, but not a byte gets through until `flow`."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def flow(self) -> None:
        """Ends a stall: what was held back gets through."""
        self._loop.call_soon_threadsafe(self._flowing.set)

    def refuse(self) -> int:
        """Cuts every connection and refuses new ones until `accept`."""
        return self._do(self._refuse())

    def accept(self) -> None:
        """Listens again, at the same port."""
        self._do(self._listen())

    def close(self) -> None:
        self._do(self._refuse())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _do(self, what: Coroutine[Any, Any, int]) -> int:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(10)

    async def _listen(self) -> int:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        return int(self._server.sockets[0].getsockname()[1])

    async def _count(self) -> int:
        return len(self._writers)

    async def _cut(self) -> int:
        # abort, not close: what is buffered is dropped, as by a network that goes away.
        writers = list(self._writers)
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0)
        return len(writers) // 2

    async def _refuse(self) -> int:
        server, self._server = self._server, None
        if server is not None:
            server.close()
        return await self._cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:  # the broker is down: so is the way to it
            writer.transport.abort()
            return
        pair = (writer, upstream_writer)
        self._writers.update(pair)
        try:
            await asyncio.gather(self._pump(reader, upstream_writer), self._pump(upstream_reader, writer))
        finally:
            for each in pair:
                self._writers.discard(each)
                each.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One direction, until either side ends; then the other direction ends too."""
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        writer.close()
