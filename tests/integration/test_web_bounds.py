"""What one client can take of the admin server: bytes, time and places are bounded, and probes are always answered."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

import pytest

from bridge.observe.metrics import Metrics
from bridge.observe.snapshot import Snapshot
from bridge.web import AdminServer, serving
from bridge.web.headers import HEADERS

SNAPSHOT = Snapshot("0.1.0", 1.0, 2.0, in_group=True)
GOOD = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n"
ALONE = b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"


PATIENCE = 30.0
"""Seconds, on a busy machine, for what a bridge without the bound would never do."""


@pytest.fixture
async def admin() -> AsyncIterator[AdminServer]:
    server = AdminServer("127.0.0.1:0", Metrics(lambda: SNAPSHOT), lambda: SNAPSHOT)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def answer(admin: AdminServer, request: bytes) -> bytes:
    """All that comes back until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", admin.port)
    writer.write(request)
    try:
        async with asyncio.timeout(PATIENCE):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


def assert_strict(head: bytes) -> None:
    for name, value in HEADERS.items():
        assert head.count(f"\r\n{name}: {value}\r\n".encode()) == 1, name


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /\x00 HTTP/1.1\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nx: " + b"a" * (serving.HEAD_BYTES_MAX + 10), 431),
        (b"GET /" + b"a" * (serving.HEAD_BYTES_MAX + 10), 431),
        (b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 9000 + b"z: " + b"z" * 30_000 + b"\r\n\r\n", 431),
        (b"POST /livez HTTP/1.1\r\nconnection: close\r\ncontent-length: 5\r\n\r\nabcde", 405),
        (b"GET /nowhere HTTP/1.1\r\nconnection: close\r\n\r\n", 404),
        (b"GET /livez/ HTTP/1.1\r\nconnection: close\r\nhost: evil.example\r\n\r\n", 404),
    ],
)
async def test_errors_carry_the_strict_headers_too(admin: AdminServer, request_bytes: bytes, status: int) -> None:
    """Whoever makes them: the pages, the framework, or the parser, which has never heard of pages."""
    got = await answer(admin, request_bytes)
    assert got.startswith(b"HTTP/1.1 %d " % status), got[:100]
    head = got.partition(b"\r\n\r\n")[0] + b"\r\n"
    assert_strict(head)
    assert b"evil.example" not in got


async def test_what_clients_do_wrong_is_not_logged(admin: AdminServer, caplog: pytest.LogCaptureFixture) -> None:
    """Anybody who reaches the port could fill the log, and write into it."""
    with caplog.at_level(logging.INFO):
        await answer(admin, b"\x16\x03\x01 TLS?\r\n\r\n")
        upgrade = b"upgrade: websocket\r\nconnection: upgrade, close\r\nsec-websocket-key: YQ==\r\n\r\n"
        await answer(admin, b"GET /livez HTTP/1.1\r\n" + upgrade)
    assert [each for each in caplog.records if each.name.startswith("uvicorn")] == []


async def test_a_request_that_does_not_end_is_ended(admin: AdminServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that sends one byte now and then gets no more time by it; one that sends nothing is let go too."""
    monkeypatch.setattr(serving, "REQUEST_SECONDS_MAX", 0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", admin.port)
    silent, silent_writer = await asyncio.open_connection("127.0.0.1", admin.port)

    async def drip() -> None:
        for byte in GOOD[:-2]:
            writer.write(bytes([byte]))
            await asyncio.sleep(0.02)

    dripping = asyncio.create_task(drip())
    async with asyncio.timeout(PATIENCE):
        assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
        assert await silent.read() == b""
    dripping.cancel()
    for each in (writer, silent_writer):
        each.close()


async def test_a_body_that_does_not_end_is_ended(admin: AdminServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the answer has gone out already: nobody reads the rest, and trailers are kept nowhere."""
    monkeypatch.setattr(serving, "REQUEST_BYTES_MAX", 100_000)
    monkeypatch.setattr(serving, "REQUEST_SECONDS_MAX", 600.0)
    reader, writer = await asyncio.open_connection("127.0.0.1", admin.port)
    writer.write(b"GET /livez HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
    for _ in range(100):
        writer.write(b"trailer: %b\r\n" % (b"x" * 2_000))
    async with asyncio.timeout(PATIENCE):
        with contextlib.suppress(ConnectionError):
            while await reader.read(1_000):
                pass
    writer.close()


async def test_pipelined_requests_are_bounded(admin: AdminServer) -> None:
    """Some are answered in order; thousands in one packet end the connection instead of waiting in memory."""
    few = await answer(admin, GOOD * 5 + ALONE)
    assert few.count(b"HTTP/1.1 200 ") == 6
    many = await answer(admin, GOOD * 3_000)
    assert many.count(b"HTTP/1.1 ") <= serving.PIPELINED_MAX + 2


async def test_probes_are_answered_however_many_connections_are_held(
    admin: AdminServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silent ones, half requests, and ones that keep alive: the longest idle gives way, a stream stays."""
    monkeypatch.setattr(serving, "CONNECTIONS_MAX", 10)
    stream, stream_writer = await asyncio.open_connection("127.0.0.1", admin.port)
    stream_writer.write(b"GET /api/live HTTP/1.1\r\nhost: localhost\r\n\r\n")
    await stream.readuntil(b"event: sections")
    held = []
    for number in range(60):
        _, writer = await asyncio.open_connection("127.0.0.1", admin.port)
        writer.write((b"", b"GET /", GOOD)[number % 3])
        held.append(writer)
        assert (await answer(admin, ALONE)).startswith(b"HTTP/1.1 200 ")
    assert admin._server is not None
    assert len(admin._server.server_state.connections) <= 10
    await stream.readuntil(b":\n\n")
    for writer in [*held, stream_writer]:
        writer.close()


async def test_a_stream_ends_with_its_connection_whatever_was_asked_behind_it(admin: AdminServer) -> None:
    """Its place would be lost for ever, and after sixteen nobody could look."""
    reader, writer = await asyncio.open_connection("127.0.0.1", admin.port)
    writer.write(b"GET /api/live HTTP/1.1\r\nhost: localhost\r\n\r\n" + GOOD)
    async with asyncio.timeout(PATIENCE):
        await reader.readuntil(b"event: sections")
        assert admin._live.open == 1
        writer.close()
        while admin._live.open:
            await asyncio.sleep(0.02)
