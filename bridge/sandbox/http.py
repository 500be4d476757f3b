"""HTTP/1.1 over asyncio and httptools, as thin as an imitation needs it: one handler, called in order of arrival.

Not uvicorn, for two reasons. Faults are the point of this server: a cut answer, half an answer, a reset and a hang need
the connection itself. And it shares two cores with what it tests: 27 CPU µs a request here against uvicorn's 73
(measured with an empty handler, 64 connections).

The handler runs as soon as a request is complete, so the order of arrival is the order of work; only the answer waits
(latency). Requests of one connection are answered in order; further ones wait.
"""

from __future__ import annotations

import asyncio
import http
import logging
import socket
import struct
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from email.utils import formatdate

import httptools

from bridge.sandbox.api import Reply, Request

HEADER_BYTES_MAX = 65_536
REQUESTS_WAITING_MAX = 16
"""Pipelined requests of one connection; beyond it the socket is not read until answers have left."""
CONNECTIONS_MAX = 4096
"""A connection takes about 10 KB; clients hold a few dozen."""
TOO_LARGE_GRACE_SECONDS = 5.0
"""How long the rest of a refused body is read and dropped: closing at once would reset the answer away."""

_log = logging.getLogger(__name__)
_WANTED = {b"x-api-key", b"origin", b"host", b"content-type"}
_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in http.HTTPStatus}


class Connection(asyncio.Protocol):
    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._loop = server.loop
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[tuple[Request, bool]] = deque()
        """Complete requests, each with whether the connection stays open after its answer."""
        self._answering: Reply | None = None
        self._keep_alive = True
        self._head_only = False
        self._timer: asyncio.TimerHandle | None = None
        self._reading = True
        self._write_paused = False
        self._closing = False
        self._dropping = False
        self._active_at = self._loop.time()
        self._idle_timer = self._loop.call_later(server.keep_alive_seconds, self._check_idle)
        self._begin()

    def _begin(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._header_bytes = 0
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._expects = False

    # -- the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._server.joined(self)
        if len(self._server.connections) > CONNECTIONS_MAX:
            self._refuse(503, "Too many connections.")

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.left(self)
        self._idle_timer.cancel()
        if self._timer is not None:
            self._timer.cancel()
        if self._answering is not None:
            self._server.ended(self._answering, answered=False)
            self._answering = None
        self._waiting.clear()
        self._transport = None

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        self._work()

    def shut_down(self, deadline: float) -> None:
        """Closes when the answer that is under way has left; at once when there is none, or none by the deadline."""
        self._closing = True
        late = self._timer is not None and self._timer.when() > deadline
        if self._answering is None or self._answering.hang_seconds or late:
            self._close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _check_idle(self) -> None:
        idle_seconds = self._loop.time() - self._active_at
        left = self._server.keep_alive_seconds - idle_seconds
        if self._answering is None and left <= 0:
            self._close()
        else:
            self._idle_timer = self._loop.call_later(max(left, 0.05), self._check_idle)

    # -- reading

    def data_received(self, data: bytes) -> None:
        self._active_at = self._loop.time()
        if self._closing:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(400, "This server speaks plain HTTP/1.1.")
        except (httptools.HttpParserError, UnicodeDecodeError):
            self._refuse(400, "This is not valid HTTP.")
        else:
            self._work()

    def _refuse(self, status: int, message: str) -> None:
        """An answer outside the API, after which the connection closes."""
        if self._transport is not None and not self._closing:
            self._closing = True
            if self._answering is None:
                body = b'{"error": {"code": "bad_request", "message": "%s"}}' % message.encode()
                self._write(Reply(status, body), keep_alive=False)
            self._close()

    def on_message_begin(self) -> None:
        self._begin()

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._count_header(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_header(len(name) + len(value))
        name = name.lower()
        if name in _WANTED:
            self._headers[name.decode("ascii")] = value.decode("latin-1")
        elif name == b"expect":
            self._expects = value.lower() == b"100-continue"

    def _count_header(self, count: int) -> None:
        self._header_bytes += count
        if self._header_bytes > HEADER_BYTES_MAX:
            self._refuse(431, "The request's head is too large.")
            raise httptools.HttpParserError("the request's head is too large")

    def on_headers_complete(self) -> None:
        if self._expects and self._transport is not None and self._answering is None and not self._waiting:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        if self._dropping:
            return
        self._body_bytes += len(body)
        if self._body_bytes > self._server.body_bytes_max:
            self._dropping = True
            self._body.clear()
            self._queue(too_large=True)
            self._idle_timer.cancel()
            self._idle_timer = self._loop.call_later(TOO_LARGE_GRACE_SECONDS, self._close)
        else:
            self._body.append(body)

    def on_message_complete(self) -> None:
        if not self._dropping:
            self._queue()
            return
        self._dropping = False
        if self._answering is None and not self._waiting:
            self._close()

    def _queue(self, *, too_large: bool = False) -> None:
        url = httptools.parse_url(self._url)
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        request = Request(
            self._parser.get_method().decode("ascii"),
            url.path.decode("latin-1") if url.path else "/",
            url.query.decode("latin-1") if url.query else "",
            self._headers,
            body,
            too_large,
        )
        self._waiting.append((request, not too_large and self._parser.should_keep_alive()))

    # -- answering

    def _work(self) -> None:
        """Hands out requests while there are some and nothing stands in the way."""
        while self._waiting and self._answering is None and not self._write_paused:
            transport = self._transport
            if transport is None or transport.is_closing():
                self._waiting.clear()
                return
            request, self._keep_alive = self._waiting.popleft()
            self._head_only = request.method == "HEAD"
            try:
                reply = self._server.handler(request)
            except Exception:  # a mistake in this server must look like one, and end neither it nor the connection
                _log.exception("the sandbox failed on %s %s; it answers 500", request.method, request.path)
                reply = Reply(500, b'{"error": {"code": "sandbox_failed", "message": "A mistake in the sandbox."}}')
            self._answering = reply
            delay = reply.hang_seconds or reply.delay_seconds
            if delay > 0:
                self._timer = self._loop.call_later(delay, self._answer_late, reply)
            else:
                self._answer(reply)
        self._throttle_reading()

    def _throttle_reading(self) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        full = len(self._waiting) >= REQUESTS_WAITING_MAX
        if full and self._reading:
            transport.pause_reading()
            self._reading = False
        elif not full and not self._reading:
            transport.resume_reading()
            self._reading = True

    def _answer_late(self, reply: Reply) -> None:
        self._timer = None
        self._answer(reply)
        self._work()

    def _answer(self, reply: Reply) -> None:
        self._answering = None
        transport = self._transport
        self._active_at = self._loop.time()
        if transport is None or transport.is_closing():
            self._server.ended(reply, answered=False)
        elif reply.cut or reply.hang_seconds:
            self._server.ended(reply, answered=False)
            self._cut(reply)
        else:
            keep_alive = self._keep_alive and not self._closing
            self._write(reply, keep_alive=keep_alive)
            self._server.ended(reply, answered=True)
            # After 413 the rest of the body is still dropped for a while; the timer closes.
            if not keep_alive and not self._dropping:
                self._close()

    def _cut(self, reply: Reply) -> None:
        transport = self._transport
        assert transport is not None
        self._closing = True
        self._waiting.clear()
        if reply.cut == "half":
            whole = self._head(reply, keep_alive=True) + reply.body
            transport.write(whole[: len(whole) - max(1, len(reply.body) // 2)])
        if reply.reset:
            # Linger 0 makes the close below a reset; what was written before may be lost with it.
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        else:
            transport.close()

    def _head(self, reply: Reply, *, keep_alive: bool) -> bytes:
        line = _STATUS_LINES.get(reply.status) or b"HTTP/1.1 %d Unknown\r\n" % reply.status
        extra = (
            "".join(f"{name}: {value}\r\n" for name, value in reply.headers).encode("latin-1") if reply.headers else b""
        )
        return b"%bdate: %b\r\nserver: meisa-sandbox\r\ncontent-type: %b\r\ncontent-length: %d\r\n%b%b\r\n" % (
            line,
            self._server.date(),
            reply.content_type.encode("ascii"),
            len(reply.body),
            extra,
            b"" if keep_alive else b"connection: close\r\n",
        )

    def _write(self, reply: Reply, *, keep_alive: bool) -> None:
        if self._transport is not None:
            head = self._head(reply, keep_alive=keep_alive)
            self._transport.write(head if self._head_only else head + reply.body)


class HttpServer:
    """Listens, and hands every request to `handler` on the running loop."""

    def __init__(
        self,
        handler: Callable[[Request], Reply],
        ended: Callable[[Reply, bool], None],
        now: Callable[[], float],
        *,
        body_bytes_max: int,
        keep_alive_seconds: float,
    ) -> None:
        self.handler = handler
        self._ended = ended
        self._now = now
        self.body_bytes_max = body_bytes_max
        self.keep_alive_seconds = keep_alive_seconds
        self.loop = asyncio.get_running_loop()
        self.connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._date = (0, b"")
        self._no_connections = asyncio.Event()
        self._no_connections.set()

    async def start(self, host: str, port: int) -> int:
        """Returns the port. Raises OSError when it cannot be had."""
        # One address only: with port 0 each would get a port of its own.
        found = await self.loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        self._server = await self.loop.create_server(
            lambda: Connection(self), str(address[0]), port, family=family, backlog=1024
        )
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def close(self, grace_seconds: float) -> None:
        """Stops listening, lets answers under way leave within the grace, then cuts what is left."""
        if self._server is None:
            return
        self._server.close()
        self._server = None
        for connection in list(self.connections):
            connection.shut_down(self.loop.time() + grace_seconds)
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                await self._no_connections.wait()
        for connection in list(self.connections):
            connection.abort()
        await asyncio.sleep(0)

    def joined(self, connection: Connection) -> None:
        self.connections.add(connection)
        self._no_connections.clear()

    def left(self, connection: Connection) -> None:
        self.connections.discard(connection)
        if not self.connections:
            self._no_connections.set()

    def ended(self, reply: Reply, *, answered: bool) -> None:
        self._ended(reply, answered)

    def date(self) -> bytes:
        """The Date header by the sandbox's own clock, made once a second."""
        second = int(self._now())
        if self._date[0] != second:
            self._date = (second, formatdate(second, usegmt=True).encode())
        return self._date[1]
