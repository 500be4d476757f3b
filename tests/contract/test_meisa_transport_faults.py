"""What a transport under the Meisa client must tell of every fault, held against a server that misbehaves.

The same cases run on the bridge's own transport and on plain httpx. Plain httpx tells the truth too (it is only slow),
but for the bounds in `PLAIN_DIFFERS`; the ready-made fast transports do not, which is why the bridge has its own.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from enum import Enum
from typing import NamedTuple

import httpx
import pytest

from bridge.meisa.transport import NEVER_SENT, AiohttpTransport
from tests.support import misbehaving as bad
from tests.support.misbehaving import Behaviour, MisbehavingServer

LONG_SECONDS = 20.0
"""Where no timeout is expected."""
SHORT_SECONDS = 0.4
"""Where one is."""
BODY = b'{"email":"ada@example.com"}'


class Told(Enum):
    NEVER_SENT = "never sent"
    UNKNOWN = "sent, outcome unknown"
    ANSWERED = "answered"


class Case(NamedTuple):
    behaviour: Behaviour
    told: Told
    kinds: tuple[type[httpx.HTTPError], ...] = ()
    """The exceptions that fit, where there is one; any of these."""
    status: int | None = None
    times_out: bool = False


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n"
OPEN_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
LOST = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError)
LATE = (httpx.ReadTimeout, httpx.WriteTimeout)

CASES: dict[str, Case] = {
    # Before the request was read. The connection stood, so bytes may have left: unknown, never "never sent".
    "close before reading": Case(bad.close_at_once, Told.UNKNOWN, LOST),
    "reset before reading": Case(bad.reset_at_once, Told.UNKNOWN, LOST),
    "garbage before reading": Case(bad.garbage_at_once, Told.UNKNOWN, LOST + LATE, times_out=True),
    "accepts but never reads": Case(bad.never_read, Told.UNKNOWN, LATE, times_out=True),
    "reset in the middle of the request": Case(bad.reset_in_the_middle_of_the_request, Told.UNKNOWN, LOST),
    "answers without reading": Case(bad.answer_without_reading, Told.ANSWERED, status=503),
    # After the request was read, no whole head of an answer.
    "close after reading": Case(bad.after_request(end="close"), Told.UNKNOWN, LOST),
    "reset after reading": Case(bad.after_request(end="reset"), Told.UNKNOWN, LOST),
    "garbage after reading": Case(bad.after_request(b"\x00\xff no http\r\n\r\n"), Told.UNKNOWN, LOST),
    "hangs after reading": Case(bad.after_request(), Told.UNKNOWN, LATE, times_out=True),
    "half a status line, then close": Case(bad.after_request(b"HTTP/1.1 2", end="close"), Told.UNKNOWN, LOST),
    "half a status line, then hang": Case(bad.after_request(b"HTTP/1.1 2"), Told.UNKNOWN, LATE, times_out=True),
    "half the headers, then close": Case(bad.after_request(HEAD[:40], end="close"), Told.UNKNOWN, LOST),
    "half the headers, then reset": Case(bad.after_request(HEAD[:40], end="reset"), Told.UNKNOWN, LOST),
    "half the headers, then hang": Case(bad.after_request(HEAD[:40]), Told.UNKNOWN, LATE, times_out=True),
    "a header without end": Case(
        bad.after_request(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000), Told.UNKNOWN, LOST + LATE
    ),
    "only 100 Continue, then close": Case(
        bad.after_request(b"HTTP/1.1 100 Continue\r\n\r\n", end="close"), Told.UNKNOWN, LOST
    ),
    "only 103 Early Hints, then hang": Case(
        bad.after_request(b"HTTP/1.1 103 Early Hints\r\n\r\n"), Told.UNKNOWN, LATE, times_out=True
    ),
    # A whole head, and not all of the body.
    "headers, then close": Case(bad.after_request(HEAD, end="close"), Told.UNKNOWN, LOST, status=200),
    "headers, then reset": Case(bad.after_request(HEAD, end="reset"), Told.UNKNOWN, LOST, status=200),
    "headers, then hang": Case(bad.after_request(HEAD), Told.UNKNOWN, LATE, status=200, times_out=True),
    "half the body, then close": Case(bad.after_request(HEAD + b'{"id"', end="close"), Told.UNKNOWN, LOST, status=200),
    "half the body apart, then close": Case(
        bad.after_request(HEAD, b'{"id"', end="close"), Told.UNKNOWN, LOST, status=200
    ),
    "half the body, then reset": Case(bad.after_request(HEAD, b'{"id"', end="reset"), Told.UNKNOWN, LOST, status=200),
    "half the body, then hang": Case(
        bad.after_request(HEAD + b'{"id"'), Told.UNKNOWN, LATE, status=200, times_out=True
    ),
    "chunks cut between two": Case(
        bad.after_request(bad.chunked(b'{"id":', last=False), end="close"), Told.UNKNOWN, LOST, status=200
    ),
    "chunks cut within one": Case(
        bad.after_request(bad.chunked(b'{"id":"c1"}', last=False)[:-6], end="close"), Told.UNKNOWN, LOST, status=200
    ),
    "chunks without the last, then hang": Case(
        bad.after_request(bad.chunked(b'{"id":"c1"}', last=False)), Told.UNKNOWN, LATE, status=200, times_out=True
    ),
    "a chunk's length is garbage": Case(
        # aiohttp closes the connection, but lets who waits for the body wait for the deadline.
        bad.after_request(bad.chunked(b"{}", last=False), b"zz\r\n"),
        Told.UNKNOWN,
        LOST + LATE,
        status=200,
        times_out=True,
    ),
    "a body until the end, then reset": Case(
        bad.after_request(OPEN_HEAD, b'{"id":', end="reset"), Told.UNKNOWN, LOST, status=200
    ),
    "a refusal's body cut short": Case(
        bad.after_request(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 99\r\n\r\n{", end="close"),
        Told.UNKNOWN,
        LOST,
        status=400,
    ),
    # Whole answers, some of them odd.
    "an answer": Case(bad.keep_answering(), Told.ANSWERED, status=200),
    "an answer in pieces": Case(
        bad.after_request(b"HTTP/1.1 20", b"0 OK\r\nContent-", b"Length: 11\r\n\r\n", b'{"id":"', b'c1"}'),
        Told.ANSWERED,
        status=200,
    ),
    "100 Continue before the answer": Case(
        bad.after_request(b"HTTP/1.1 100 Continue\r\n\r\n" + bad.OK), Told.ANSWERED, status=200
    ),
    "several 1xx before the answer": Case(
        bad.after_request(b"HTTP/1.1 102 Processing\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\n\r\n", bad.OK),
        Told.ANSWERED,
        status=200,
    ),
    "204 without a body": Case(bad.after_request(b"HTTP/1.1 204 No Content\r\n\r\n"), Told.ANSWERED, status=204),
    "headers only": Case(bad.after_request(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), Told.ANSWERED, status=200),
    "chunks": Case(bad.after_request(bad.chunked(b'{"id"', b':"c1"}')), Told.ANSWERED, status=200),
    "a body until the end": Case(bad.after_request(OPEN_HEAD, b'{"id":"c1"}', end="close"), Told.ANSWERED, status=200),
    "an answer, then close": Case(bad.after_request(bad.OK, end="close"), Told.ANSWERED, status=200),
    "an answer, then reset": Case(bad.after_request(bad.OK, end="reset"), Told.ANSWERED, status=200),
    "a redirect": Case(
        bad.after_request(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere/\r\nContent-Length: 0\r\n\r\n"),
        Told.ANSWERED,
        status=302,
    ),
    "a packed answer": Case(bad.after_request(bad.packed(b'{"id":"c1"}')), Told.ANSWERED, status=200),
    "a packed answer that is garbage": Case(
        bad.after_request(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 9\r\n\r\nno gzip!!"),
        Told.UNKNOWN,
        (*LOST, httpx.DecodingError),
        status=200,
    ),
    # What must be bounded.
    "a body that drips for ever": Case(
        bad.dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n", b"x", 0.05),
        Told.UNKNOWN,
        LATE,
        status=200,
        times_out=True,
    ),
    "headers that drip for ever": Case(
        bad.dripping(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", 0.05), Told.UNKNOWN, LATE, times_out=True
    ),
    "a body that is too large": Case(
        bad.after_request(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000),
        Told.UNKNOWN,
        LOST,
        status=200,
    ),
    "a packed body that is too large unpacked": Case(
        bad.after_request(bad.packed(b"x" * 4_000_000)), Told.UNKNOWN, LOST, status=200
    ),
}

# Where plain httpx would wait for ever or swallow everything: not run on it.
PLAIN_DIFFERS = {
    "a body that drips for ever": "each read is bounded, the whole is not",
    "headers that drip for ever": "each read is bounded, the whole is not",
    "a body that is too large": "nothing bounds an answer's size",
    "a packed body that is too large unpacked": "nothing bounds an answer's size",
}

Make = Callable[[], httpx.AsyncBaseTransport]


def _ours() -> httpx.AsyncBaseTransport:
    return AiohttpTransport(max_in_flight=4, response_bytes_max=200_000)


def _plain() -> httpx.AsyncBaseTransport:
    # Nothing here uses TLS, and reading the authorities for each test takes long.
    return httpx.AsyncHTTPTransport(verify=False, trust_env=False, limits=httpx.Limits(max_connections=4))


MAKERS: dict[str, Make] = {"ours": _ours, "plain-httpx": _plain}


@pytest.fixture(params=MAKERS)
async def transport(request: pytest.FixtureRequest) -> AsyncIterator[httpx.AsyncBaseTransport]:
    async with MAKERS[request.param]() as made:
        yield made


@pytest.fixture
async def ours() -> AsyncIterator[httpx.AsyncBaseTransport]:
    async with _ours() as made:
        yield made


class Exchange(NamedTuple):
    told: Told
    status: int | None = None
    body: bytes = b""
    error: Exception | None = None


async def exchange(
    transport: httpx.AsyncBaseTransport, url: str, *, method: str = "POST", seconds: float = LONG_SECONDS
) -> Exchange:
    """One request, and what the transport told of it."""
    timeouts = dict.fromkeys(("connect", "read", "write", "pool"), seconds)
    content = BODY if method == "POST" else b""
    request = httpx.Request(method, url, content=content, extensions={"timeout": timeouts})
    status = None
    try:
        response = await transport.handle_async_request(request)
        status = response.status_code
        try:
            body = await response.aread()
        finally:
            await response.aclose()
    except NEVER_SENT as error:
        return Exchange(Told.NEVER_SENT, status, error=error)
    except httpx.HTTPError as error:
        return Exchange(Told.UNKNOWN, status, error=error)
    return Exchange(Told.ANSWERED, status, body)


def _cases(make: str, *, time_out: bool) -> list[str]:
    left_out = PLAIN_DIFFERS if make == "plain-httpx" else {}
    return [name for name, case in CASES.items() if case.times_out is time_out and name not in left_out]


async def _run(make: str, name: str) -> None:
    case = CASES[name]
    seconds = SHORT_SECONDS if case.times_out else LONG_SECONDS
    async with MisbehavingServer(case.behaviour) as server, MAKERS[make]() as transport:
        got = await exchange(transport, server.url, seconds=seconds)
        assert (got.told, got.status) == (case.told, case.status), (name, got)
        if case.kinds:
            assert isinstance(got.error, case.kinds), (name, got)
        assert server.requests <= 1, name
        assert server.connections == 1, name


@pytest.mark.parametrize(("make", "name"), [(make, name) for make in MAKERS for name in _cases(make, time_out=False)])
async def test_a_fault_is_told_for_what_it_is(make: str, name: str) -> None:
    """Every way in which a server can fail is told as never sent, unknown or answered, and the request left once."""
    await _run(make, name)


@pytest.mark.parametrize("make", MAKERS)
async def test_a_server_that_never_gets_done_is_told_for_what_it_is(make: str) -> None:
    """The same where only a timeout ends it. All cases at a time: each waits for its timeout."""
    names = _cases(make, time_out=True)
    assert len(names) >= 8
    async with asyncio.TaskGroup() as group:
        for name in names:
            group.create_task(_run(make, name))


@pytest.mark.parametrize("name", ["an answer", "an answer in pieces", "chunks", "a body until the end"])
async def test_an_answer_is_whole(name: str, transport: httpx.AsyncBaseTransport) -> None:
    """However an answer is cut into packets or chunks, its body arrives byte for byte."""
    async with MisbehavingServer(CASES[name].behaviour) as server:
        got = await exchange(transport, server.url)
    assert got.body == b'{"id":"c1"}'


async def test_a_packed_answer_is_unpacked_once(transport: httpx.AsyncBaseTransport) -> None:
    """gzip is undone by somebody, and only once."""
    async with MisbehavingServer(CASES["a packed answer"].behaviour) as server:
        got = await exchange(transport, server.url)
    assert got.body == b'{"id":"c1"}'


async def test_refused_is_never_sent(transport: httpx.AsyncBaseTransport) -> None:
    """Nobody listens: not one byte can have left."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        got = await exchange(transport, f"http://127.0.0.1:{free.getsockname()[1]}/")
    assert got.told is Told.NEVER_SENT
    assert isinstance(got.error, httpx.ConnectError)


async def test_no_address_is_never_sent(transport: httpx.AsyncBaseTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that has no address."""

    def no_address(*_: object, **__: object) -> object:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", no_address)
    got = await exchange(transport, "http://meisa.invalid/")
    assert got.told is Told.NEVER_SENT
    assert isinstance(got.error, httpx.ConnectError)


async def test_a_connect_timeout_is_never_sent(transport: httpx.AsyncBaseTransport) -> None:
    """The server's queue is full, so that connecting hangs."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = []
        for _ in range(3):  # one more than the queue holds; Linux then drops further ones
            client = socket.socket()
            client.setblocking(False)
            client.connect_ex(listener.getsockname())
            waiting.append(client)
        await asyncio.sleep(0.05)
        try:
            got = await exchange(transport, f"http://127.0.0.1:{listener.getsockname()[1]}/", seconds=SHORT_SECONDS)
        finally:
            for client in waiting:
                client.close()
    assert got.told is Told.NEVER_SENT
    assert isinstance(got.error, httpx.ConnectTimeout)


async def test_no_free_connection_is_never_sent() -> None:
    """A request that waited for its turn in vain never left."""
    for made in (
        AiohttpTransport(max_in_flight=1),
        httpx.AsyncHTTPTransport(trust_env=False, limits=httpx.Limits(max_connections=1)),
    ):
        async with made, MisbehavingServer(bad.after_request()) as server:
            first = asyncio.create_task(exchange(made, server.url))
            while server.requests == 0:
                await asyncio.sleep(0.01)
            second = await exchange(made, server.url, seconds=SHORT_SECONDS)
            assert second.told is Told.NEVER_SENT
            assert isinstance(second.error, httpx.PoolTimeout)
            assert server.requests == 1
            first.cancel()


# Connections that are used again.


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("end", ["close", "reset"])
async def test_a_connection_closed_while_idle_is_not_used(
    transport: httpx.AsyncBaseTransport, method: str, end: str
) -> None:
    """The server hung up between two requests: the second one goes over a new connection."""
    async with MisbehavingServer(bad.answer_once_then(end)) as server:
        assert (await exchange(transport, server.url, method=method)).told is Told.ANSWERED
        await asyncio.sleep(0.05)
        assert (await exchange(transport, server.url, method=method)).told is Told.ANSWERED
        assert server.connections == 2


async def test_a_close_that_the_loop_has_not_seen_is_noticed(ours: httpx.AsyncBaseTransport) -> None:
    """The close has arrived in the kernel while the loop was busy: still the request does not go into it."""
    accepted: list[bad.Peer] = []

    async def behaviour(peer: bad.Peer) -> None:
        accepted.append(peer)
        await bad.keep_answering()(peer)

    async with MisbehavingServer(behaviour) as server:
        assert (await exchange(ours, server.url)).told is Told.ANSWERED
        # Without a turn of the loop in between, so that the client cannot have been told.
        sock = accepted[0].writer.get_extra_info("socket")
        sock.shutdown(socket.SHUT_RDWR)
        assert (await exchange(ours, server.url)).told is Told.ANSWERED
        assert (server.connections, server.requests) == (2, 2)


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("end", ["close_on_next", "reset_on_next"])
async def test_a_used_connection_that_breaks_is_unknown(
    transport: httpx.AsyncBaseTransport, method: str, end: str
) -> None:
    """The server read a request over a kept connection and hung up: unknown, and nothing sends it again, GET or not."""
    async with MisbehavingServer(bad.answer_once_then(end)) as server:
        assert (await exchange(transport, server.url, method=method)).told is Told.ANSWERED
        got = await exchange(transport, server.url, method=method)
        assert got.told is Told.UNKNOWN
        assert isinstance(got.error, LOST)
        assert server.requests == 2


@pytest.mark.parametrize(
    "extra",
    [b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"],
    ids=["408", "200"],
)
async def test_an_unasked_answer_is_nobodys(transport: httpx.AsyncBaseTransport, extra: bytes) -> None:
    """What came over an idle connection is not taken for the next request's answer."""
    async with MisbehavingServer(bad.answer_once_then("hang", extra)) as server:
        assert (await exchange(transport, server.url)).body == b'{"id":"c1"}'
        await asyncio.sleep(0.05)
        assert (await exchange(transport, server.url)).body == b'{"id":"c1"}'
        assert server.connections == 2


async def test_a_connection_is_kept(transport: httpx.AsyncBaseTransport) -> None:
    """Requests in turn share one connection."""
    async with MisbehavingServer(bad.keep_answering()) as server:
        for _ in range(5):
            assert (await exchange(transport, server.url)).told is Told.ANSWERED
        assert (server.connections, server.requests) == (1, 5)


@pytest.mark.parametrize("name", ["hangs after reading", "headers, then hang", "accepts but never reads"])
async def test_a_cancelled_request_frees_its_connection(name: str, transport: httpx.AsyncBaseTransport) -> None:
    """Cancelling ends as a cancellation, and leaves neither a half-used connection nor a lost place in the pool."""
    async with MisbehavingServer(CASES[name].behaviour) as server:
        for _ in range(6):  # more than the pool holds
            task = asyncio.create_task(exchange(transport, server.url))
            seen = server.connections
            while server.connections == seen:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert server.connections == 6
    async with MisbehavingServer(bad.keep_answering()) as server:
        assert (await exchange(transport, server.url)).told is Told.ANSWERED


async def test_a_timeout_of_the_caller_is_the_callers(ours: httpx.AsyncBaseTransport) -> None:
    """A deadline around the transport ends as that deadline, not as the transport's own timeout."""
    async with MisbehavingServer(bad.after_request()) as server:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await exchange(ours, server.url)


async def test_only_what_the_request_says_is_sent(
    ours: httpx.AsyncBaseTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No header of aiohttp's own, no proxy from the environment, no cookie from an earlier answer."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9/")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9/")
    answer = b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b; Path=/\r\nContent-Length: 2\r\n\r\n{}"
    async with MisbehavingServer(bad.keep_answering(answer)) as server:
        url = server.url.replace("127.0.0.1", "localhost")  # cookie jars take none from bare addresses
        for _ in range(2):
            assert (await exchange(ours, url)).told is Told.ANSWERED
        names = [line.partition(b":")[0].lower() for line in server.heads[1].split(b"\r\n")[1:] if line]
    assert sorted(names) == [b"content-length", b"host"]
    assert server.heads[1].startswith(b"POST /api/v1/contacts/upsert/ HTTP/1.1\r\n")
