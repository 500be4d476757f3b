"""The admin server on a real port of this machine."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
import sys

import httpx
import pytest

from bridge.errors import StartFailed
from bridge.observe.metrics import Metrics
from bridge.observe.snapshot import Snapshot
from bridge.web import AdminServer

SNAPSHOT = Snapshot("0.1.0", 1.0, 2.0, in_group=True)


def admin(listen: str = "127.0.0.1:0") -> AdminServer:
    return AdminServer(listen, Metrics(lambda: SNAPSHOT), lambda: SNAPSHOT)


async def test_it_serves_from_start_to_stop_on_a_port_the_system_chose() -> None:
    server = admin()
    await server.start()
    try:
        assert server.port > 0
        async with httpx.AsyncClient(base_url=server.url) as client:
            assert (await client.get("/livez")).text == "ok"
            assert (await client.get("/readyz")).status_code == 200
            assert "meisa_bridge_in_flight_calls 0.0" in (await client.get("/metrics")).text
    finally:
        await server.stop()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", server.port)


async def test_stop_does_not_wait_for_idle_connections_and_can_be_repeated() -> None:
    server = admin()
    await server.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
    assert b"200" in await reader.readline()
    async with asyncio.timeout(10):
        await server.stop()
    await server.stop()
    writer.close()


async def test_the_port_can_be_taken_again_at_once() -> None:
    """A restarted process must not wait for the old connections' TIME_WAIT."""
    first = admin()
    await first.start()
    async with httpx.AsyncClient(base_url=first.url) as client:
        await client.get("/livez")
    await first.stop()
    second = admin(f"127.0.0.1:{first.port}")
    await second.start()
    await second.stop()


async def test_a_busy_port_is_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        with pytest.raises(StartFailed) as caught:
            await admin(f"127.0.0.1:{port}").start()
    assert f"127.0.0.1:{port} cannot be used: Address already in use" in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_signals_stay_with_the_bridge() -> None:
    """uvicorn would take SIGTERM for itself, and nothing would be drained or committed."""
    before = (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))
    server = admin()
    await server.start()
    during = (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT))
    await server.stop()
    assert during == before
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_importing_the_room_does_not_import_the_server_libraries() -> None:
    """The bridge's start must not wait for pages nobody has asked for yet."""
    code = "import sys, bridge.web; print([name for name in ('starlette', 'uvicorn') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
