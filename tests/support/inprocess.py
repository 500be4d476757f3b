"""A bridge inside the test's own process: quick to start, and everything about it can be looked at.

For what a process of its own is not essential to; `tests.support.service` has the real thing.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from bridge.app import serve
from bridge.config import Settings, load
from bridge.sandbox.children import free_port
from bridge.sandbox.options import TEST_KEY, SandboxOptions
from bridge.sandbox.server import SandboxServer
from tests.support.kafka import Cluster, unique

WAIT_SECONDS_MAX = 20.0

SIGNUP = """\
rules:
  - name: signup
    match: user.signed_up
    do:
      - upsert: {email: "${data.email}"}
"""


async def until(true: Callable[[], Any], what: str, seconds: float = WAIT_SECONDS_MAX) -> Any:
    """Polls until `true()` gives something true, and returns that; fails with `what` it waited for."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, f"waited in vain for: {what}"
        await asyncio.sleep(0.02)
    return found


def sandbox_options(**more: Any) -> SandboxOptions:
    """A sandbox on a free port, without a quota unless `more` gives one."""
    return SandboxOptions(**{"port": 0, "per_minute": 0, "per_hour": 0, **more})


class Place:
    """A folder with a configuration and rules, and topics of its own on a broker."""

    def __init__(
        self, cluster: Cluster, folder: Path, base_url: str, *, rules: str = SIGNUP, partitions: int = 2
    ) -> None:
        self.cluster = cluster
        self.folder = folder
        self.topic = cluster.create_topic(unique("events"), partitions)
        self.letters_topic = cluster.create_topic(unique("letters"), 1)
        self.group = unique("group")
        self.partitions = partitions
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.config = folder / "bridge.yaml"
        (folder / "rules.yaml").write_text(rules, encoding="utf-8")
        sections = {
            "kafka": {"bootstrap_servers": cluster.bootstrap_servers, "group_id": self.group},
            "topics": {self.topic: {"format": "json"}},
            "meisa": {
                "base_url": base_url,
                "environment": "test",
                "api_key": {"env": "MEISA_API_KEY"},
                "quota": {"per_minute": 100_000, "per_hour": 1_000_000},
            },
            "rules": ["rules.yaml"],
            "dead_letters": {"topic": self.letters_topic},
            "admin": {"listen": f"127.0.0.1:{self.port}"},
        }
        self.sections: dict[str, Any] = sections

    def settings(self, key: str = TEST_KEY, **environ: str) -> Settings:
        """Written as YAML (JSON is YAML) and read as users' files are."""
        self.config.write_text(json.dumps(self.sections), encoding="utf-8")
        return load(self.config, {"MEISA_API_KEY": key, **environ})

    def produce(self, *events: Mapping[str, Any] | bytes) -> None:
        self.cluster.produce(
            self.topic, *(each if isinstance(each, bytes) else json.dumps(each).encode() for each in events)
        )

    def committed(self) -> int:
        """The sum of committed offsets; the topic begins at 0."""
        return sum(
            max(0, self.cluster.committed(self.group, self.topic, number)[0]) for number in range(self.partitions)
        )

    def letters(self) -> list[tuple[Any, dict[str, str]]]:
        """Every dead letter: the message, and its headers without `meisa-bridge.` in front."""
        count = self.cluster.end(self.letters_topic)
        found = []
        for message in self.cluster.read(self.letters_topic, count):
            headers = {
                name.removeprefix("meisa-bridge."): value.decode()
                for name, value in message.headers()
                if name.startswith("meisa-bridge.") and value is not None
            }
            found.append((message, headers))
        return found

    async def get(self, path: str) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
            return await client.get(self.url + path)

    async def ready(self) -> bool:
        try:
            return (await self.get("/readyz")).status_code == 200
        except httpx.HTTPError:
            return False

    @asynccontextmanager
    async def running(self, settings: Settings | None = None) -> AsyncIterator[asyncio.Event]:
        """The bridge from the moment in which it is ready until the block ends; it must then end with 0.

        Raises what `serve` raises. Setting the event that it gives ends the bridge earlier.
        """
        stop = asyncio.Event()
        task = asyncio.create_task(serve(settings or self.settings(), stop=stop))
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        try:
            while not task.done() and not await self.ready():
                assert time.monotonic() < deadline, "the bridge did not become ready"
                await asyncio.sleep(0.02)
            if task.done():
                task.result()
            yield stop
        except BaseException:
            stop.set()
            await asyncio.gather(task, return_exceptions=True)
            raise
        stop.set()
        assert await task == 0

    async def finished(self, count: int) -> None:
        """Waits until `count` records of the topic are committed."""
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while await asyncio.to_thread(self.committed) < count:
            assert time.monotonic() < deadline, f"waited in vain for {count} commits: {await self.status()}"

    async def status(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.get("/api/status")).json()
        return found


def calls(server: SandboxServer, *endpoints: str) -> Sequence[Any]:
    """The ledger's entries; unless they are asked for, only those that events caused."""
    return [
        entry
        for entry in server.sandbox.ledger.entries
        if (entry.endpoint in endpoints if endpoints else entry.endpoint not in ("ping", "unsubscribed"))
    ]
