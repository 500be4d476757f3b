"""The live stream on a real port: it comes as it is made, its places come back, and it does not hold up a stop."""

from __future__ import annotations

import asyncio
import re

import httpx

from bridge.observe.metrics import Metrics
from bridge.observe.snapshot import Snapshot
from bridge.web import AdminServer
from bridge.web.live import STREAMS_MAX

SNAPSHOT = Snapshot("0.1.0", 1.0, 2.0, in_group=True)


async def started(token: str | None = None) -> AdminServer:
    server = AdminServer("127.0.0.1:0", Metrics(lambda: SNAPSHOT), lambda: SNAPSHOT, token)
    await server.start()
    return server


async def opened(server: AdminServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(f"GET /api/live HTTP/1.1\r\nhost: 127.0.0.1:{server.port}\r\n\r\n".encode())
    return reader, writer


async def test_a_stop_ends_open_streams_at_once_and_cleanly() -> None:
    """By the server's own stop, with the last chunk that HTTP wants, not by a connection that breaks."""
    server = await started()
    reader, writer = await opened(server)
    head = await reader.readuntil(b"\r\n\r\n")
    assert re.match(rb"HTTP/1.1 200 ", head) and b"text/event-stream" in head and b"no-store" in head
    await reader.readuntil(b"event: sections")
    loop = asyncio.get_running_loop()
    before = loop.time()
    await server.stop()
    assert (await reader.read()).endswith(b"0\r\n\r\n")
    assert loop.time() - before < 1.9, "else uvicorn's own patience ended it"
    writer.close()


async def test_places_are_bounded_and_come_back_when_pages_are_closed() -> None:
    server = await started()
    try:
        async with asyncio.timeout(20), httpx.AsyncClient(base_url=server.url) as client:
            pages = [await opened(server) for _ in range(STREAMS_MAX)]
            for reader, _ in pages:
                await reader.readuntil(b"event: sections")
            assert (await client.get("/api/live")).status_code == 503
            assert (await client.get("/")).status_code == 200, "the page itself is still to be had"
            for _, writer in pages:
                writer.close()
            while server._live.open:
                await asyncio.sleep(0.02)
            async with client.stream("GET", "/api/live") as answer:
                assert answer.status_code == 200
    finally:
        await server.stop()


async def test_a_question_for_the_head_alone_ends() -> None:
    server = await started()
    try:
        async with asyncio.timeout(10), httpx.AsyncClient(base_url=server.url) as client:
            answer = await client.head("/api/live")
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert server._live.open == 0
    finally:
        await server.stop()
