"""The admin server's HTTP: uvicorn, with bounds on what a client takes that sends little, slowly, or without an end.

uvicorn's parser has no bound on a request's head, and waits for the rest of a request for ever. Here

    a request's head has at most HEAD_BYTES_MAX, else 431; all of a request has REQUEST_BYTES_MAX, else 413
    a request is complete within REQUEST_SECONDS_MAX of its first byte, or of the connection, else 408
    at CONNECTIONS_MAX the connection that has asked for nothing for longest gives way to the new one

so that nobody can keep a probe from its answer: kubelet would restart a bridge that has nothing wrong. An answer of
this layer carries the same headers as the pages. What clients do wrong is not logged: anybody could fill the log.

Imported when the server starts, and in a thread (see server.py): uvicorn takes a while to import.
"""

from __future__ import annotations

import asyncio
import contextlib
import http
import socket
from collections.abc import Generator
from typing import Any

import httptools
import uvicorn
import uvicorn.lifespan.off  # which uvicorn would import by its name, on the loop
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from bridge.web.headers import HEADERS, StrictHeaders

CONNECTIONS_MAX = 100
"""More than probes, a scraper and a few people ever hold."""
HEAD_BYTES_MAX = 65_536
"""Request line and headers: browsers and proxies send a few thousand, common servers take 8,000 to 64,000."""
REQUEST_BYTES_MAX = 1_048_576
"""No page here takes a body of more than a form."""
PIPELINED_MAX = 16
"""Requests that wait for the answer before theirs. Of one packet there could be thousands, of some kilobytes each."""
REQUEST_SECONDS_MAX = 10.0
"""More than any network needs for a request that fits into a few packets."""
KEEP_ALIVE_SECONDS = 30
"""Prometheus scrapes every 15 s by default and keeps its connection."""
STOP_SECONDS = 2
"""How long open requests may go on at a stop; none here takes longer than a scrape."""

_EXTRA = b"".join(f"{name}: {value}\r\n".encode() for name, value in HEADERS.items())


class TooLarge(Exception):
    """Raised within the parser's callbacks, which end its work."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.access_log = False  # uvicorn asks only whether the logger has handlers
        self._timer: asyncio.TimerHandle | None = None
        self._idle_since = self.loop.time()
        self._begun = False
        """Part of a request has come, and not all of it."""
        self._in_head = True
        self._bytes = 0
        """Of the request that is being read; what stands in one packet with the request before counts too."""
        self._refused = False
        self._running: RequestResponseCycle | None = None
        """The request that is being answered, or was last."""

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if len(self.connections) >= CONNECTIONS_MAX:
            # Those with an answer under way stay: a stream of the page is busy, and there are few (live.py).
            idle = [each for each in self.connections if isinstance(each, BoundedProtocol) and not each._answering]
            longest = min(idle, key=lambda each: each._idle_since, default=None)
            if longest is not None:
                longest.transport.abort()
                self.connections.discard(longest)  # it hears of its end only later
        super().connection_made(transport)
        self._wait_for_rest()

    def connection_lost(self, exc: Exception | None) -> None:
        self._complete()
        super().connection_lost(exc)
        # uvicorn tells the request that was read last, which may wait behind this one: a stream would go on for ever.
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        self._unset_keepalive_if_required()  # uvicorn keeps its timer where the connection was reset
        self.pipeline.clear()

    def data_received(self, data: bytes) -> None:
        if self._refused or self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        self._bytes += len(data)
        refused = self._read(data)
        if refused is not None:
            self._refuse(refused)
        elif self._begun or not self._answering:
            self._wait_for_rest()

    def _read(self, data: bytes) -> int | None:
        """The status with which the request is refused, if it is."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # no other protocol is spoken: HTTP goes on
        except httptools.HttpParserError as error:
            return 431 if isinstance(error.__context__, TooLarge) else 400
        if self._in_head and self._bytes > HEAD_BYTES_MAX:
            return 431
        return 413 if self._begun and self._bytes > REQUEST_BYTES_MAX else None

    # Callbacks of the parser

    def on_message_begin(self) -> None:
        self._begun = self._in_head = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # else a trailer: nobody reads these
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        # However the packets were cut: what came at once may be more than what is refused when it comes in pieces.
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > HEAD_BYTES_MAX:
            raise TooLarge
        self._in_head = False
        super().on_headers_complete()
        if len(self.pipeline) > PIPELINED_MAX:
            raise TooLarge

    def on_message_complete(self) -> None:
        self._complete()
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        self._idle_since = self.loop.time()
        super().on_response_complete()

    # Ours

    def _wait_for_rest(self) -> None:
        """From the first byte on: a client that sends one more now and then gets no more time."""
        if self._timer is None:
            self._timer = self.loop.call_later(REQUEST_SECONDS_MAX, self._too_slow)

    def _complete(self) -> None:
        self._begun, self._in_head, self._bytes = False, True, 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        if self._begun:
            self._refuse(408)
        else:
            self.transport.close()

    def _refuse(self, status: int) -> None:
        """Says why and closes. Where another answer is under way it only closes: the two would run together."""
        self._refused = True
        if not self._answering and not self.pipeline:
            text = http.HTTPStatus(status).phrase.encode() + b"\n"
            line = b"HTTP/1.1 %d %s\r\n" % (status, text.strip())
            about = b"content-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n" % len(
                text
            )
            date = b"".join(name + b": " + value + b"\r\n" for name, value in self.server_state.default_headers)
            self.transport.write(line + date + about + _EXTRA + b"\r\n" + text)
        self.transport.close()


class QuietServer(uvicorn.Server):
    """Leaves signals to the bridge: SIGTERM means drain and commit, not only: stop this server."""

    def __init__(self, config: uvicorn.Config, started: asyncio.Event) -> None:
        super().__init__(config)
        self._told = started

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._told.set()


def server(app: ASGIApp, started: asyncio.Event) -> QuietServer:
    """Not started yet; it sets `started` once it listens."""
    config = uvicorn.Config(
        StrictHeaders(app),
        http=BoundedProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    return QuietServer(config, started)
