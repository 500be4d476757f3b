"""Requests per second and client CPU per request, by transport and by requests in flight.

    python benchmarks/transport.py --latency-ms 0 --seconds 2 --in-flight 1 16 64 256

The server runs in another process and answers every POST with a contact after `--latency-ms`. CPU is this process's
own, so the figures say what a call costs the bridge. Trust the ratios: the rows of one run are measured in turn.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from multiprocessing.connection import Connection
from typing import Any

import aiohttp
import httpx
import orjson

from bridge.meisa.client import MeisaClient
from bridge.model import Call, Verdict

CONTACT = {
    "id": "0b7c7b1e-5a54-4b2e-9d57-3f1f0c2f9a11",
    "email": "ada@example.com",
    "external_id": "7",
    "first_name": "Ada",
    "last_name": "Lovelace",
    "custom_fields": {"plan": "pro", "mrr": 49, "signup_date": "2026-01-01T00:00:00Z"},
    "tags": [{"id": "1", "name": "trial"}],
    "status": "active",
    "created_at": "2026-01-01T00:00:00Z",
    "updated_at": "2026-01-01T00:00:00Z",
}
BODY = {"email": "ada@example.com", "external_id": "7", "custom_fields": {"plan": "pro", "mrr": 49}}
KEY = "meisa_test_" + "0" * 24


class _Answering(asyncio.Protocol):
    """The smallest server that reads POSTs with a length; the client is what is measured."""

    def __init__(self, latency_seconds: float, answer: bytes) -> None:
        self._latency_seconds = latency_seconds
        self._answer = answer
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._buffer) < end + 4 + length:
                return
            self._buffer = self._buffer[end + 4 + length :]
            if self._latency_seconds:
                asyncio.get_running_loop().call_later(self._latency_seconds, self._write)
            else:
                self._write()

    def _write(self) -> None:
        if not self._transport.is_closing():
            self._transport.write(self._answer)


def _serve(latency_seconds: float, ready: Connection) -> None:
    body = orjson.dumps(CONTACT)
    answer = (
        b"HTTP/1.1 200 OK\r\nDate: Sun, 22 Nov 2026 09:00:00 GMT\r\nContent-Type: application/json\r\n"
        b"Server: bench\r\nVary: Accept\r\nX-Request-Id: 1234\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    )

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Answering(latency_seconds, answer), "127.0.0.1", 0, backlog=1024)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(main())


@contextmanager
def server(latency_seconds: float) -> Iterator[str]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(latency_seconds, theirs), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}/api/v1"
    finally:
        process.terminate()
        process.join()


Send = Callable[[], Awaitable[Any]]


async def meisa_client(stack: AsyncExitStack, url: str, in_flight: int) -> Send:
    client = await stack.enter_async_context(MeisaClient(url, {"default": lambda: KEY}, max_in_flight=in_flight))
    call = Call("upsert", BODY)

    async def send() -> None:
        outcome = await client.send(call)
        assert outcome.verdict is Verdict.DELIVERED, outcome

    return send


async def plain_httpx(stack: AsyncExitStack, url: str, in_flight: int) -> Send:
    limits = httpx.Limits(max_connections=in_flight, max_keepalive_connections=in_flight)
    client = await stack.enter_async_context(httpx.AsyncClient(limits=limits, trust_env=False, timeout=30))

    async def send() -> None:
        response = await client.post(url + "/contacts/upsert/", json=BODY, headers={"X-API-Key": KEY})
        assert response.json()["id"]

    return send


async def aiohttp_alone(stack: AsyncExitStack, url: str, in_flight: int) -> Send:
    session = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=in_flight)))

    async def send() -> None:
        headers = {"X-API-Key": KEY, "Content-Type": "application/json"}
        async with session.post(url + "/contacts/upsert/", data=orjson.dumps(BODY), headers=headers) as response:
            assert orjson.loads(await response.read())["id"]

    return send


ROWS = {"plain httpx": plain_httpx, "aiohttp alone": aiohttp_alone, "MeisaClient": meisa_client}


async def measure(row: str, url: str, in_flight: int, seconds: float) -> tuple[float, float]:
    """Requests per second, and CPU microseconds per request, of one row."""
    async with AsyncExitStack() as stack:
        send = await ROWS[row](stack, url, in_flight)
        await asyncio.gather(*(send() for _ in range(in_flight)))  # connections are open before the clock starts
        done = 0
        end = time.perf_counter() + seconds

        async def lane() -> None:
            nonlocal done
            while time.perf_counter() < end:
                await send()
                done += 1

        cpu, start = time.process_time(), time.perf_counter()
        await asyncio.gather(*(lane() for _ in range(in_flight)))
        return done / (time.perf_counter() - start), (time.process_time() - cpu) / done * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency-ms", type=float, default=0.0, help="how long the server takes for an answer")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each figure")
    parser.add_argument("--in-flight", type=int, nargs="+", default=[1, 16, 64, 256])
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--uvloop", action="store_true", help="use uvloop, which must be installed")
    arguments = parser.parse_args()
    run: Callable[[Any], Any] = asyncio.run
    if arguments.uvloop:
        import uvloop

        run = uvloop.run
    with server(arguments.latency_ms / 1000) as url:
        print(f"{'requests/s · CPU µs each':<26}" + "".join(f"{count:>18}" for count in arguments.in_flight))
        for row in arguments.rows:
            cells = []
            for count in arguments.in_flight:
                rate, cpu = run(measure(row, url, count, arguments.seconds))
                cells.append(f"{rate:,.0f} · {cpu:,.0f}".rjust(18))
            print(f"{row:<26}" + "".join(cells), flush=True)


if __name__ == "__main__":
    main()
