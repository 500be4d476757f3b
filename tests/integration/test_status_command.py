"""`meisa-bridge status` against a running service, and on a terminal."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bridge.sandbox.server import SandboxServer
from tests.support.inprocess import Place, sandbox_options, until
from tests.support.kafka import Cluster

TOKEN = "5up3r-t0ken"


@pytest.fixture
async def sandbox() -> AsyncIterator[SandboxServer]:
    async with SandboxServer(sandbox_options()) as server:
        yield server


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "TERM": "xterm", **more}


async def status(*options: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bridge", "status", *options]
    return await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=60, env=environment(**env), check=False
    )


@pytest.mark.slow
async def test_a_running_service_tells_its_status_and_watching_ends_well(
    embedded_kafka: Cluster, sandbox: SandboxServer, tmp_path: Path
) -> None:
    """With a token; the same command then watches on a terminal, draws over what it drew, and Ctrl-C ends it with 0."""
    place = Place(embedded_kafka, tmp_path, sandbox.base_url, partitions=2)
    place.sections["admin"]["token"] = {"env": "ADMIN_TOKEN"}
    place.produce(*({"type": "user.signed_up", "data": {"email": f"u{n}@example.com"}} for n in range(3)))
    async with place.running(place.settings(ADMIN_TOKEN=TOKEN)):
        await asyncio.to_thread(wait_for_commits, place, 3)
        denied = await status("--url", place.url, MEISA_BRIDGE_ADMIN_TOKEN="")
        assert (denied.returncode, denied.stdout) == (2, "") and "needs the token" in denied.stderr
        text = await status("--url", place.url, MEISA_BRIDGE_ADMIN_TOKEN=TOKEN)
        assert (text.returncode, text.stderr) == (0, "")
        assert text.stdout.startswith("READY\nmember, ") and f"{place.topic}/1" in text.stdout
        assert "delivered 3" in text.stdout and "\x1b" not in text.stdout
        plain = await status("--url", place.url, "--json", MEISA_BRIDGE_ADMIN_TOKEN=TOKEN)
        told = json.loads(plain.stdout)
        assert told["ready"] and told["drain"]["measured"] and told["drain"]["calls_per_event"] == pytest.approx(1.0)
        assert told["drain"]["key"] == "default"

        ours, theirs = pty.openpty()
        watching = subprocess.Popen(
            [sys.executable, "-m", "bridge", "status", "--watch", "--url", place.url],
            stdin=theirs, stdout=theirs, stderr=theirs, env=environment(MEISA_BRIDGE_ADMIN_TOKEN=TOKEN),
        )  # fmt: skip
        os.close(theirs)
        os.set_blocking(ours, False)
        seen = bytearray()
        try:
            await until(lambda: read_more(ours, seen).count(b"\x1b[H") >= 2, "two frames")
            watching.send_signal(signal.SIGINT)
            assert await asyncio.to_thread(watching.wait, 30) == 0
        finally:
            watching.kill()
            os.close(ours)
        assert seen.count(b"\x1b[2J") == 1, "the screen is cleared once only: more would flicker"
        assert b"READY" in seen and b"Traceback" not in seen


def wait_for_commits(place: Place, count: int) -> None:
    asyncio.run(place.finished(count))


def read_more(terminal: int, seen: bytearray) -> bytearray:
    with contextlib.suppress(OSError):  # nothing there yet, or the other end is closed
        seen += os.read(terminal, 65_536)
    return seen
