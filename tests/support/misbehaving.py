"""An HTTP server that misbehaves on purpose, for the contract of transports.

A `Behaviour` is one connection's life, written as a coroutine over a `Peer`. The server keeps a ledger of what reached
it, which is the truth that a transport's claims are compared with.

    async with MisbehavingServer(close_after_request) as server:
        ...  # server.url
        assert server.requests == 1
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import zlib
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Self

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n" + b'{"id":"c1"}'
REQUEST_BYTES_MAX = 1 << 20


class Peer:
    """One connection, seen from the server."""

    def __init__(self, server: MisbehavingServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer

    async def read_request(self) -> bytes:
        """Reads one whole request and enters it in the ledger. Raises IncompleteReadError at the connection's end."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        self.server.bytes_received += len(head)
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        body = await self.reader.readexactly(length)
        self.server.bytes_received += length
        self.server.requests += 1
        self.server.heads.append(head)
        return body

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """Ends the connection with RST: lingering for no time throws away whatever is unsent."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def hang(self) -> None:
        """Does nothing until the server ends."""
        await self.server.ending.wait()


Behaviour = Callable[[Peer], Awaitable[None]]


class MisbehavingServer:
    """Serves `behaviour` on 127.0.0.1, on a free port, in the running loop."""

    def __init__(self, behaviour: Behaviour, *, tls: ssl.SSLContext | None = None) -> None:
        self._behaviour = behaviour
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._peers: set[asyncio.Task[None]] = set()
        self.ending = asyncio.Event()
        self.port = 0
        self.connections = 0
        self.requests = 0
        """Whole requests that were read."""
        self.bytes_received = 0
        self.heads: list[bytes] = []

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/api/v1/contacts/upsert/"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._peers.add(task)
        peer = Peer(self, reader, writer)
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
                await self._behaviour(peer)
        finally:
            self._peers.discard(task)
            writer.close()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls, limit=REQUEST_BYTES_MAX)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.ending.set()
        assert self._server is not None
        self._server.close()
        for task in list(self._peers):
            task.cancel()
        await asyncio.gather(*self._peers, return_exceptions=True)


# Before the request was read.


async def close_at_once(peer: Peer) -> None:
    peer.close()


async def reset_at_once(peer: Peer) -> None:
    peer.reset()


async def garbage_at_once(peer: Peer) -> None:
    await peer.send(b"220 mail.example.com ESMTP ready\r\n")
    await peer.hang()


async def never_read(peer: Peer) -> None:
    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await peer.hang()


async def answer_without_reading(peer: Peer) -> None:
    await peer.send(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    await peer.hang()


async def reset_in_the_middle_of_the_request(peer: Peer) -> None:
    peer.server.bytes_received += len(await peer.reader.readexactly(20))
    peer.reset()


# After the request was read.


def after_request(*sent: bytes, end: str = "hang") -> Behaviour:
    """Reads a request, sends `sent`, then ends by `hang`, `close` or `reset`."""

    async def behaviour(peer: Peer) -> None:
        await peer.read_request()
        for piece in sent:
            await peer.send(piece)
            await asyncio.sleep(0.01)  # pieces arrive apart, and what was sent arrives before a reset throws it away
        if end == "close":
            peer.close()
        elif end == "reset":
            peer.reset()
        else:
            await peer.hang()

    return behaviour


def dripping(head: bytes, drop: bytes, every_seconds: float) -> Behaviour:
    """Reads a request, then answers for ever, a drop at a time."""

    async def behaviour(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(head)
        while True:
            await asyncio.sleep(every_seconds)
            await peer.send(drop)

    return behaviour


def keep_answering(answer: bytes = OK) -> Behaviour:
    """A proper server."""

    async def behaviour(peer: Peer) -> None:
        while True:
            await peer.read_request()
            await peer.send(answer)

    return behaviour


def answer_once_then(end: str, extra: bytes = b"") -> Behaviour:
    """Answers the first request as if the connection stayed open.

    Then ends it: `close` or `reset` while it is idle, `close_on_next` or `reset_on_next` when the next request was
    read. `extra` is sent unasked, while the connection is idle, just before that.
    """

    async def behaviour(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(OK)
        if extra:
            await asyncio.sleep(0.01)
            await peer.send(extra)
        if end.endswith("_on_next"):
            await peer.read_request()
        if end.startswith("close"):
            peer.close()
        elif end.startswith("reset"):
            await asyncio.sleep(0.01)
            peer.reset()
        else:
            await peer.hang()

    return behaviour


def chunked(*chunks: bytes, last: bool = True) -> bytes:
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body + (b"0\r\n\r\n" if last else b"")


def packed(body: bytes) -> bytes:
    """A gzip answer."""
    packer = zlib.compressobj(wbits=31)
    data = packer.compress(body) + packer.flush()
    return b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(data), data)
