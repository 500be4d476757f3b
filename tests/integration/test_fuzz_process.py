"""A real `meisa-bridge run` on a broker, with bad records in its topics and bad requests at its admin server."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from bridge.model import Record
from bridge.sandbox.options import SandboxOptions
from bridge.sandbox.server import SandboxServer
from tests.support.amount import THOROUGH
from tests.support.fuzz import requests
from tests.support.fuzz.case import ADMIN_TOKEN, API_KEY, no_secret
from tests.support.fuzz.corpus import ROOT, TOPICS, Corpus
from tests.support.fuzz.plant import ENVIRON, RULES
from tests.support.fuzz.records import look_at_log
from tests.support.inprocess import Place
from tests.support.kafka import Cluster, unique

RECORDS, REQUESTS = (3_000, 2_000) if THOROUGH else (250, 150)
SEED = 7
BYTES_MAX = 900_000
"""Of a record: producers and brokers take a megabyte, and the embedded one keeps five for each partition."""
SECONDS_MAX = 120.0


@contextmanager
def running(config: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The bridge, and all that it says; the process is gone when the block ends."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "bridge", "run", "-c", str(config)],
            env={**os.environ, **ENVIRON, "PYTHONPATH": str(ROOT)},
            stderr=stream,
            stdin=subprocess.DEVNULL,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


async def wait_for(true: object, what: str, process: subprocess.Popen[bytes], log: Path) -> None:
    assert callable(true)
    deadline = time.monotonic() + SECONDS_MAX
    while not await asyncio.to_thread(true):
        said = log.read_text(encoding="utf-8")[-2_000:]
        assert process.poll() is None, f"the bridge ended with {process.returncode}: {said}"
        assert time.monotonic() < deadline, f"waited in vain for: {what}: {said}"
        await asyncio.sleep(0.2)


def records_for(topics: dict[str, str]) -> list[Record]:
    """Bad records of the formats that need no registry, as a client of Kafka can write them."""
    corpus = Corpus()
    made = (corpus.bad(SEED, number) for number in itertools.count())
    fit = (each for each in made if each.topic in topics and len(each.value or b"") < BYTES_MAX)
    return [each._replace(topic=topics[each.topic]) for each in itertools.islice(fit, RECORDS)]


def produced(record: Record) -> dict[str, Any]:
    """The arguments for Kafka's client, which takes no zero byte in a header's name."""
    headers = [(name.replace("\x00", ""), value) for name, value in record.headers]
    return {"value": record.value, "key": record.key, "headers": headers}


async def ask(port: int, data: bytes) -> bytes:
    """What comes back until there is silence: the server itself waits ten seconds for the rest of a request."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    got = b""
    with contextlib.suppress(ConnectionError, TimeoutError):
        writer.write(data)
        while piece := await asyncio.wait_for(reader.read(65_536), 0.5):
            got += piece
    writer.transport.abort()
    return got


async def bad_requests(port: int) -> None:
    admin = requests.Admin()
    numbers = iter(range(REQUESTS))

    async def visitor() -> None:
        for number in numbers:
            case = requests.case(SEED, number, admin.routes, admin.csrf)
            requests.look(case, await ask(port, case.data))

    async with asyncio.TaskGroup() as group:
        for _ in range(20):
            group.create_task(visitor())


@pytest.mark.slow
async def test_a_real_bridge_outlives_bad_records_and_bad_requests(embedded_kafka: Cluster, tmp_path: Path) -> None:
    """Everything is committed, each letter holds its record as it came, the process ends well when it is told to, and
    nothing that it says or writes shows a secret or a traceback."""
    async with SandboxServer(SandboxOptions(port=0, per_minute=0, per_hour=0, keys=(API_KEY,))) as sandbox:
        place = Place(embedded_kafka, tmp_path, sandbox.base_url, rules=RULES, partitions=1)
        topics = {
            name: embedded_kafka.create_topic(unique(name), 1) for name in TOPICS if "registry" not in TOPICS[name]
        }
        place.sections["topics"] = {topic: TOPICS[name] for name, topic in topics.items()}
        place.sections["dead_letters"]["stop_at"] = {"share": 1.0, "of": 100_000}
        place.sections["admin"]["token"] = {"env": "ADMIN_TOKEN"}
        place.settings(API_KEY, **ENVIRON)  # writes the file
        log = tmp_path / "log"
        with running(place.config, log) as process:
            await wait_for(
                lambda: "started: events are taken in" in log.read_text(encoding="utf-8"), "a start", process, log
            )
            records = records_for(topics)
            by_topic = {topic: [each for each in records if each.topic == topic] for topic in topics.values()}
            for topic, found in by_topic.items():
                embedded_kafka.produce(topic, *map(produced, found))
            await bad_requests(place.port)

            def committed() -> bool:
                return all(embedded_kafka.committed(place.group, name)[0] >= len(by_topic[name]) for name in by_topic)

            await wait_for(committed, "commits of everything", process, log)
            async with httpx.AsyncClient(
                base_url=place.url, headers={"authorization": f"Bearer {ADMIN_TOKEN}"}
            ) as client:
                shown = {path: await client.get(path) for path in ("/livez", "/readyz", "/metrics", "/api/status", "/")}
            assert {path: answer.status_code for path, answer in shown.items()} == dict.fromkeys(shown, 200)
            totals = shown["/api/status"].json()["totals"]
            assert sum(totals.values()) == len(records), totals
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 40) == 0
    letters = place.letters()
    assert len({(said["source.topic"], said["source.offset"]) for _, said in letters}) == totals["dead_lettered"]
    for message, said in letters:
        record = by_topic[said["source.topic"]][int(said["source.offset"])]
        assert (message.key(), message.value()) == (record.key, record.value)
        no_secret("a letter's headers", repr(said))
    for path, answer in shown.items():
        no_secret(path, answer.text)
    look_at_log(log.read_text(encoding="utf-8"), as_json=True)
