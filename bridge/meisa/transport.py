"""An httpx transport over aiohttp's connections that is fast and tells the truth about faults.

Whoever must not send an email twice has to know, of every call that failed, whether it can have been carried out:

    fault                                              raised as
    ──────────────────────────────────────────────────────────────────────────────────────────────
    NEVER SENT: not one byte of the request left       httpx.ConnectError, ConnectTimeout,
      no address, refused, TLS handshake failed,       PoolTimeout (all in NEVER_SENT)
      no free connection, each also by timeout
    SENT, OUTCOME UNKNOWN: any fault from the moment   httpx.ReadError, ReadTimeout, WriteError,
      at which the first byte may have left            RemoteProtocolError
    ANSWERED: status and headers came whole            a Response; its body may still break (ReadError,
                                                       ReadTimeout, RemoteProtocolError while reading)

How it knows: aiohttp writes nothing before its connector has handed over a connection, so the connector marks that
moment. Everything before it is never sent, everything after it is unknown; the kind of aiohttp's exception is used for
the words only, never for the decision. In doubt a fault is unknown.

What it leaves out on purpose: redirects, cookies, proxies from the environment, netrc, and aiohttp's silent second try
of a GET (it would be a call that no quota counted).
"""

from __future__ import annotations

import asyncio
import os
import select
import ssl
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Self

import aiohttp
import httpx
import yarl
from aiohttp.client_reqrep import ClientRequest

from bridge.meisa.deadlines import Deadlines

if TYPE_CHECKING:
    from aiohttp.abc import AbstractStreamWriter
    from aiohttp.client import ClientTimeout
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)
"""What this transport raises where not one byte of the request left."""

TIMEOUT_SECONDS = 10.0
"""For one whole exchange: waiting for a connection, connecting, sending, and reading the last byte of the answer."""

RESPONSE_BYTES_MAX = 8 * 1024 * 1024
"""Of one answer, after decompression. The longest one, the unsubscribed list, holds some 250,000 emails in it."""

KEEPALIVE_SECONDS = 4.0
"""How long an idle connection is kept. Servers close idle ones after 5 s (uvicorn, Node) or more (nginx 75 s); a
request sent into a connection that is just being closed has an unknown outcome, so this side gives up first."""

DNS_SECONDS = 30
"""How long an address is believed. New connections are rare, so that this only spares bursts of them."""

MAX_IN_FLIGHT = 64

_READ_BUFFER_BYTES = 64 * 1024
_NO_AIOHTTP_TIMEOUTS = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None, sock_read=None)
# What aiohttp would add by itself; a request carries what its httpx.Request says and nothing else.
_NO_AUTO_HEADERS = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


class _Attempt:
    """How far one request has got. `sent` turns False again only where the request was `withheld`."""

    __slots__ = ("connecting", "may_write", "protocol", "sent", "withheld")

    def __init__(self, may_write: Callable[[], bool]) -> None:
        self.may_write = may_write
        self.connecting = False
        self.sent = False
        self.withheld = False
        self.protocol: ResponseHandler | None = None


_attempt: ContextVar[_Attempt] = ContextVar("meisa_attempt")


class _SecondTry(Exception):
    """aiohttp was about to send a request again by itself."""


class Withheld(httpx.ConnectError):
    """The caller did not want it to leave any more; nothing of it did."""


class _Request(ClientRequest):
    """Asks a last time right before the first byte leaves.

    aiohttp writes in a task of its own, a round of the loop after everything was decided. A process that is stopped in
    between would send on waking what another instance may have sent by then.
    """

    async def write_bytes(
        self, writer: AbstractStreamWriter, conn: Connection, content_length: int | None = None
    ) -> None:
        attempt = _attempt.get()
        if attempt.may_write():
            await super().write_bytes(writer, conn, content_length)
            return
        attempt.sent, attempt.withheld = False, True
        if conn.protocol is not None:
            conn.protocol.set_exception(ConnectionAbortedError("withheld"))
        conn.close()


class _Connector(aiohttp.TCPConnector):
    """Marks the moment before which nothing can have left, and hands out no connection that is known to be bad."""

    def __init__(self, *, limit: int, keepalive_timeout: float, ssl: ssl.SSLContext | bool) -> None:
        super().__init__(limit=limit, keepalive_timeout=keepalive_timeout, ssl=ssl, ttl_dns_cache=DNS_SECONDS)
        self._poll = select.poll()

    # Both parameters named `timeout` are aiohttp's: these methods are its own, overridden.
    async def connect(self, req: ClientRequest, traces: list[Trace], timeout: ClientTimeout) -> Connection:  # noqa: ASYNC109
        attempt = _attempt.get()
        if attempt.sent:
            raise _SecondTry
        while True:
            # Ends: each round takes one idle connection out of the pool, and a fresh one is never refused.
            attempt.connecting = False
            connection = await super().connect(req, traces, timeout)
            try:
                if attempt.connecting or await self._fit(connection):
                    break
            except BaseException:  # cancelled: the connection must not stay taken
                connection.close()
                raise
            connection.close()
        attempt.protocol = connection.protocol
        attempt.sent = True  # from here on, whatever happens, the request may have left
        return connection

    async def _create_connection(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: ClientTimeout,  # noqa: ASYNC109
    ) -> ResponseHandler:
        _attempt.get().connecting = True
        return await super()._create_connection(req, traces, timeout)

    async def _fit(self, connection: Connection) -> bool:
        """Whether an idle connection can carry another request.

        Two traps. The server's close may have arrived without the event loop having looked: then the request would go
        nowhere and its outcome be unknown. And a late or unasked answer may wait in it (some proxies send a 408 to an
        idle connection): the next request would take it for its own.
        """
        protocol = connection.protocol
        if protocol is None or protocol.transport is None or protocol.should_close:
            return False
        if not self._readable(protocol.transport):
            return True
        # Something came: an end, or a TLS session ticket. One round lets the loop notice, the second lets it act.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        transport = protocol.transport
        return (
            protocol.is_connected()
            and not protocol.should_close
            and transport is not None
            and not self._readable(transport)
        )

    def _readable(self, transport: asyncio.BaseTransport) -> bool:
        sock = transport.get_extra_info("socket")
        if sock is None or (number := sock.fileno()) < 0:
            return True
        poll = self._poll
        poll.register(number, select.POLLIN)
        try:
            return bool(poll.poll(0))
        finally:
            poll.unregister(number)


class Whole(httpx.AsyncByteStream):
    """A body that had come whole with its headers."""

    __slots__ = ("body",)

    def __init__(self, body: bytes) -> None:
        self.body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self.body


class _Arriving(httpx.AsyncByteStream):
    """A body that is still on its way, bounded in size and by the exchange's deadline."""

    def __init__(
        self,
        response: aiohttp.ClientResponse,
        attempt: _Attempt,
        deadlines: Deadlines,
        deadline: float,
        bytes_max: int,
        request: httpx.Request,
    ) -> None:
        self._response = response
        self._deadlines = deadlines
        self._attempt = attempt
        self._deadline = deadline
        self._bytes_max = bytes_max
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        content = self._response.content
        size = 0
        try:
            while True:
                try:
                    async with self._deadlines.until(self._deadline):
                        chunk = await content.readany()
                except Exception as fault:
                    raise _unknown(fault, self._request, "while reading the answer's body") from fault
                if not chunk:
                    break
                size += len(chunk)
                if size > self._bytes_max:
                    raise _too_large(self._bytes_max, self._request)
                yield chunk
            _check_end(self._response, self._attempt, self._request)
        finally:
            self._response.close()  # without effect on a connection that went back to the pool at the end

    async def aclose(self) -> None:
        self._response.close()


def _check_end(response: aiohttp.ClientResponse, attempt: _Attempt, request: httpx.Request) -> None:
    """A body without a length ends when the connection does: then a reset is a body cut short, not an end.

    aiohttp takes either for the end, so this asks the connection how it ended.
    """
    headers = response.headers
    if "Content-Length" in headers or "Transfer-Encoding" in headers or attempt.protocol is None:
        return
    if isinstance(attempt.protocol.exception(), OSError):
        raise httpx.ReadError("the connection was reset in the middle of the answer's body", request=request)


def _too_large(bytes_max: int, request: httpx.Request) -> httpx.ReadError:
    return httpx.ReadError(f"the answer is larger than {bytes_max} bytes", request=request)


def _unknown(
    fault: BaseException, request: httpx.Request, where: str = "after the request was sent"
) -> httpx.HTTPError:
    """The httpx error for a fault after which the outcome is unknown."""
    if isinstance(fault, httpx.HTTPError):
        return fault
    # A timeout of ours has no errno; the kernel's ETIMEDOUT, of the same class, is a lost connection.
    if isinstance(fault, TimeoutError) and getattr(fault, "errno", None) is None:
        return httpx.ReadTimeout(f"timed out {where}", request=request)
    if isinstance(fault, aiohttp.ClientConnectionResetError):
        return httpx.WriteError(f"the connection was lost {where}", request=request)
    if isinstance(fault, aiohttp.ServerDisconnectedError | _SecondTry):
        return httpx.RemoteProtocolError("the server closed the connection without an answer", request=request)
    if isinstance(fault, OSError):
        return httpx.ReadError(
            f"the connection was lost {where}: {fault.strerror or type(fault).__name__}", request=request
        )
    if isinstance(fault, aiohttp.ClientPayloadError | aiohttp.ClientResponseError | aiohttp.http.HttpProcessingError):
        return httpx.RemoteProtocolError(
            f"the server's answer is not valid HTTP, or was cut short ({where})", request=request
        )
    return httpx.ReadError(f"{type(fault).__name__} {where}", request=request)


def _never_sent(fault: BaseException, attempt: _Attempt, request: httpx.Request) -> httpx.HTTPError:
    """The httpx error for a fault before which nothing left."""
    if isinstance(fault, TimeoutError) and getattr(fault, "errno", None) is None:
        if attempt.connecting:
            return httpx.ConnectTimeout("timed out while connecting", request=request)
        return httpx.PoolTimeout("timed out while waiting for a free connection", request=request)
    if isinstance(fault, aiohttp.NonHttpUrlClientError | aiohttp.InvalidURL):
        return httpx.UnsupportedProtocol(f"no http or https address: {request.url}", request=request)
    return httpx.ConnectError(f"cannot connect to {request.url.netloc.decode()}: {_reason(fault)}", request=request)


def _reason(fault: BaseException) -> str:
    """Why there is no connection, in the system's words: aiohttp's own name its TLS setting, asyncio's the address."""
    cause = fault.os_error if isinstance(fault, aiohttp.ClientConnectorError) else fault
    if isinstance(cause, ConnectionError) and cause.errno:
        return os.strerror(cause.errno)
    return getattr(cause, "strerror", None) or str(cause)


class AiohttpTransport(httpx.AsyncBaseTransport):
    """See the module's text. Made outside a loop or in one; serves the loop of its first request only.

    `max_in_flight` bounds the connections; more requests wait. `timeout_seconds` bounds a whole exchange; a request
    that carries httpx's own `timeout` extension is bounded by the longest wait that it allows for any part instead
    (each of httpx's timeouts bounds one wait only, so that an answer that drips could take for ever). TLS is verified
    against what httpx trusts: certifi's list, or `SSL_CERT_FILE`; `ssl_context` replaces that.
    """

    def __init__(
        self,
        *,
        max_in_flight: int = MAX_IN_FLIGHT,
        timeout_seconds: float = TIMEOUT_SECONDS,
        keepalive_seconds: float = KEEPALIVE_SECONDS,
        response_bytes_max: int = RESPONSE_BYTES_MAX,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        if max_in_flight < 1:
            raise ValueError("max_in_flight must be at least 1")
        self._max_in_flight = max_in_flight
        self._timeout_seconds = timeout_seconds
        self._keepalive_seconds = keepalive_seconds
        self._response_bytes_max = response_bytes_max
        self._ssl_context = ssl_context
        self.may_write: Callable[[], bool] = lambda: True
        """Asked right before a request with a body leaves; False ends it with Withheld."""
        self._session: aiohttp.ClientSession | None = None
        self._deadlines = Deadlines()
        self._closed = False

    def _open(self, request: httpx.Request) -> aiohttp.ClientSession:
        if self._closed:
            raise httpx.ConnectError("this transport was closed", request=request)
        context: ssl.SSLContext | bool = True
        if request.url.scheme == "https":
            context = self._ssl_context or httpx.create_ssl_context()
        self._session = aiohttp.ClientSession(
            connector=_Connector(limit=self._max_in_flight, keepalive_timeout=self._keepalive_seconds, ssl=context),
            timeout=_NO_AIOHTTP_TIMEOUTS,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_NO_AUTO_HEADERS,
            read_bufsize=_READ_BUFFER_BYTES,
            auto_decompress=True,
            trust_env=False,
            request_class=_Request,
        )
        return self._session

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        session = self._session or self._open(request)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._budget_seconds(request)
        stream = request.stream
        body = stream.body if isinstance(stream, Whole) else await request.aread()
        leave_by = request.extensions.get("leave_by")
        attempt = _Attempt(self.may_write if leave_by is None else lambda: loop.time() <= leave_by and self.may_write())
        _attempt.set(attempt)
        try:
            async with self._deadlines.until(deadline):
                response = await session.request(
                    request.method,
                    yarl.URL(str(request.url), encoded=True),
                    data=body or None,
                    headers=[(name.decode("ascii"), value.decode("latin-1")) for name, value in request.headers.raw],
                    allow_redirects=False,
                )
        except Exception as fault:
            if attempt.withheld:
                raise Withheld("kept back right before it left", request=request) from fault
            if attempt.sent:
                raise _unknown(fault, request) from fault
            raise _never_sent(fault, attempt, request) from fault
        return self._answer(response, attempt, deadline, request)

    def _budget_seconds(self, request: httpx.Request) -> float:
        timeouts = request.extensions.get("timeout")
        if not timeouts:
            return self._timeout_seconds
        given = [seconds for seconds in timeouts.values() if seconds is not None]
        return max(given) if given else self._timeout_seconds

    def _answer(
        self, response: aiohttp.ClientResponse, attempt: _Attempt, deadline: float, request: httpx.Request
    ) -> httpx.Response:
        headers = list(response.raw_headers)
        if "Content-Encoding" in response.headers:
            # aiohttp has undone it (in bounded steps); httpx must not try again, nor believe the packed length.
            headers = [pair for pair in headers if pair[0].lower() not in (b"content-encoding", b"content-length")]
        stream: httpx.AsyncByteStream
        content = response.content
        if content.is_eof() and content.exception() is None:
            body = content.read_nowait(-1)
            if len(body) > self._response_bytes_max:
                raise _too_large(self._response_bytes_max, request)
            _check_end(response, attempt, request)
            response.close()
            stream = Whole(body)
        else:
            stream = _Arriving(response, attempt, self._deadlines, deadline, self._response_bytes_max, request)
        return httpx.Response(response.status, headers=headers, stream=stream, request=request)

    async def aclose(self) -> None:
        self._closed = True
        self._deadlines.close()
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.aclose()
