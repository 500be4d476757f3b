"""Hard cases of Kafka through the whole service: topics created anew, retention, a stopped topic, static members."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from bridge.core.progress import decode
from bridge.kafka import assignment as assignment_room
from bridge.kafka import topics as topics_room
from bridge.sandbox.children import free_port
from bridge.sandbox.server import SandboxServer
from tests.support.inprocess import Place, calls, sandbox_options, until
from tests.support.kafka import Cluster, RealKafka


@pytest.fixture
async def sandbox() -> AsyncIterator[SandboxServer]:
    async with SandboxServer(sandbox_options()) as server:
        yield server


def signup(name: str) -> dict[str, Any]:
    return {"type": "user.signed_up", "data": {"email": f"{name}@example.com"}}


async def metrics(url: str) -> dict[str, float]:
    """Every sample as Prometheus would see it: name{label="value",…}."""
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        lines = (await client.get(f"{url}/metrics")).text.splitlines()
    samples = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in samples}


# Topics created anew (7)


@pytest.mark.kafka
async def test_a_topic_created_anew_is_delivered_from_its_beginning(
    real_kafka: RealKafka, sandbox: SandboxServer, tmp_path: Path
) -> None:
    """Ten events of the former topic were committed; the new one has fifty, so offset 10 exists in it. All fifty are
    delivered, loudly; without the id's hash in the commit the first ten would be lost."""
    place = Place(real_kafka, tmp_path, sandbox.base_url, partitions=1)
    place.produce(*(signup(f"old{number}") for number in range(10)))
    async with place.running():
        await place.finished(10)
    offset, metadata = real_kafka.committed(place.group, place.topic)
    progress = decode(offset, metadata)
    assert offset == 10 and progress is not None and progress.topic is not None
    real_kafka.recreate_topic(place.topic)
    place.produce(*(signup(f"new{number}") for number in range(50)))
    # Kafka forgets a deleted topic's commits, but not one that came a moment later.
    real_kafka.commit(place.group, place.topic, 0, offset, metadata)
    with capture_logs() as logs:
        async with place.running():
            await place.finished(50)
    emails = [entry.contact for entry in calls(sandbox)][10:]
    assert sorted(emails) == sorted(f"new{number}@example.com" for number in range(50))
    told = [line for line in logs if "created anew" in line["event"]]
    assert told and {line["log_level"] for line in told} <= {"warning", "error"}
    offset, metadata = real_kafka.committed(place.group, place.topic)
    anew = decode(offset, metadata)
    assert offset == 50 and anew is not None and anew.topic not in (None, progress.topic)


@pytest.mark.kafka
async def test_a_topic_created_anew_under_a_running_bridge_is_delivered_from_its_beginning(
    real_kafka: RealKafka, sandbox: SandboxServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the classic protocol the consumer reads on in the new topic at offset 10, and the bridge commits there."""
    monkeypatch.setattr(topics_room, "LOOK_SECONDS", 0.5)
    place = Place(real_kafka, tmp_path, sandbox.base_url, partitions=1)
    place.sections["kafka"]["properties"] = {"group.protocol": "classic"}
    place.produce(*(signup(f"old{number}") for number in range(10)))
    async with place.running():
        await place.finished(10)
        await asyncio.to_thread(real_kafka.recreate_topic, place.topic)
        place.produce(*(signup(f"new{number}") for number in range(50)))
        wanted = {f"new{number}@example.com" for number in range(50)}
        await until(lambda: wanted <= {entry.contact for entry in calls(sandbox)}, "all fifty")
        await place.finished(50)


# Retention (7)


async def test_what_retention_took_before_it_was_read_is_counted_and_no_lag_remains(
    any_kafka: Cluster, sandbox: SandboxServer, tmp_path: Path
) -> None:
    """Offsets 4 to 9 went, and nothing follows: the frontier goes on at the log's start, and the metric tells what was
    lost."""
    place = Place(any_kafka, tmp_path, sandbox.base_url, partitions=1)
    place.produce(*(signup(f"user{number}") for number in range(10)))
    any_kafka.commit(place.group, place.topic, 0, 4)
    any_kafka.delete_records(place.topic, 0, 10)
    async with place.running():
        await place.finished(10)
        found = await metrics(place.url)
        assert found[f'meisa_bridge_lost_records_total{{topic="{place.topic}"}}'] == 6
        (state,) = (await place.status())["partitions"]
        assert (state["frontier"], state["lag"] or 0) == (10, 0)
    assert calls(sandbox) == []


@pytest.mark.kafka
async def test_a_running_bridge_goes_on_where_the_emptied_log_begins(
    real_kafka: RealKafka, sandbox: SandboxServer, tmp_path: Path
) -> None:
    """Retention empties the log while the bridge cannot read it; no record follows, and yet nothing waits for ever."""
    place = Place(real_kafka, tmp_path, sandbox.base_url, partitions=1)
    place.sections["dead_letters"]["stop_at"] = {"share": 0.5, "of": 10}
    place.produce(*(b"{" for _ in range(10)))
    async with place.running():
        await until(lambda: place.letters(), "the first letters")
        await paused(place)
        place.produce(*(signup(f"user{number}") for number in range(20)))
        real_kafka.delete_records(place.topic, 0, 30)
        deadline = time.monotonic() + 20
        while await asyncio.to_thread(place.committed) < 30:
            assert time.monotonic() < deadline, await place.status()
            await resume(place)
            await asyncio.sleep(0.1)
    assert len(place.letters()) == 10, "what was read before is dead-lettered all the same"


@pytest.mark.kafka
async def test_how_far_retention_is_from_the_frontier_is_a_metric(
    real_kafka: RealKafka, sandbox: SandboxServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a refused key holds the work back; under an hour it is said in the log too; nothing open, no sample."""
    monkeypatch.setattr(assignment_room, "WARN_LOOK_SECONDS", 0.05)
    place = Place(real_kafka, tmp_path, sandbox.base_url, partitions=1)
    place.topic = real_kafka.create_topic(f"{place.topic}-kept", retention_ms="7200000")
    place.sections["topics"] = {place.topic: {"format": "json"}}
    born = time.time() - 5_400
    record = {"value": json.dumps(signup("anna")).encode(), "timestamp": int(born * 1000)}
    name = f'meisa_bridge_partition_retention_seconds{{partition="0",topic="{place.topic}"}}'
    key = sandbox.sandbox.keys["meisa_test_sandbox"]
    with capture_logs() as logs:
        async with place.running():
            key.revoked = True
            real_kafka.produce(place.topic, record)
            deadline = time.monotonic() + 10
            while (left := (await metrics(place.url)).get(name)) is None:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.05)
            assert 1_700 < left <= 1_800
            key.revoked = False
            await place.finished(1)
            assert name not in await metrics(place.url)
    told = [line for line in logs if line["event"].startswith("retention is about to reach")]
    assert [(line["log_level"], line["partition"], line["offset"]) for line in told] == [
        ("warning", f"{place.topic}/0", 0)
    ]


# A topic that its dead letters stopped (15)


async def paused(place: Place) -> dict[str, Any]:
    """Waits until the topic is stopped; gives the reason that status tells."""
    deadline = time.monotonic() + 10
    while True:
        reasons = [each for each in (await place.status())["waiting_for"] if each["reason"] == "dead_letter_cap"]
        if reasons:
            found: dict[str, Any] = reasons[0]
            return found
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def resume(place: Place, topic: str = "", **headers: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        return await client.post(f"{place.url}/api/topics/{topic or place.topic}/resume", headers=headers)


async def test_a_stopped_topic_goes_on_when_the_command_in_its_status_is_carried_out(
    embedded_kafka: Cluster, sandbox: SandboxServer, tmp_path: Path
) -> None:
    """The log and the status name the very request; after it the held letters are written and the rest is read."""
    place = Place(embedded_kafka, tmp_path, sandbox.base_url, partitions=1)
    place.sections["dead_letters"]["stop_at"] = {"share": 0.5, "of": 10}
    place.produce(*(b"{" for _ in range(6)), *(signup(f"user{number}") for number in range(4)))
    command = f"curl -X POST {place.url}/api/topics/{place.topic}/resume"
    with capture_logs() as logs:
        async with place.running():
            reason = await paused(place)
            assert reason["detail"] == f"{place.topic}; resume it with: {command}"
            assert [line["resume_with"] for line in logs if "resume_with" in line] == [command]
            assert (await resume(place, "nobody")).status_code == 404
            assert (await resume(place, Origin="http://evil.example")).status_code == 403
            assert len(place.letters()) < 5, "nothing was resumed by that"
            answer = await resume(place)
            assert (answer.status_code, answer.json()) == (200, {"resumed": place.topic})
            await place.finished(10)
            assert (await resume(place)).status_code == 409
    assert len(place.letters()) == 6
    assert len(calls(sandbox)) == 4


# Static members (21)


class Member:
    """A bridge in a process of its own, with a place in the group that waits for it."""

    def __init__(self, place: Place, name: str, protocol: str) -> None:
        self.name = name
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.config = place.folder / f"{name}.yaml"
        kafka: Mapping[str, Any] = place.sections["kafka"]
        properties = {"group.instance.id": name, "group.protocol": protocol}
        sections = {
            **place.sections,
            "kafka": {**kafka, "properties": properties},
            "admin": {"listen": f"127.0.0.1:{self.port}"},
        }
        self.config.write_text(json.dumps(sections), encoding="utf-8")
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bridge", "run", "-c", str(self.config)),
            env={**os.environ, "MEISA_API_KEY": "meisa_test_sandbox"},
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while len(await self.places()) != 1:
            assert time.monotonic() < deadline and self.process.returncode is None
            await asyncio.sleep(0.1)

    async def places(self) -> list[int]:
        """The partitions that it owns; none while it does not answer."""
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
                answer = await client.get(f"{self.url}/api/status")
        except httpx.HTTPError:
            return []
        return [each["partition"] for each in answer.json()["partitions"]]

    async def rebalances(self) -> dict[str, float]:
        return {name: n for name, n in (await metrics(self.url)).items() if "rebalances_total" in name}

    async def end(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), 30)

    async def kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


@pytest.mark.kafka
@pytest.mark.parametrize("protocol", ["consumer", "classic"])
async def test_sigterm_with_an_instance_id_keeps_the_place_and_a_restart_stops_nobody(
    real_kafka: RealKafka, sandbox: SandboxServer, tmp_path: Path, protocol: str
) -> None:
    """A stopped pod is not out of the group: its partition waits for its return, and the other pod hears of nothing.
    What was written meanwhile is delivered by the one that came back."""
    place = Place(real_kafka, tmp_path, sandbox.base_url)
    members = [Member(place, name, protocol) for name in ("pod-0", "pod-1")]
    try:
        await asyncio.gather(*(each.start() for each in members))
        leaving, staying = members

        async def shared() -> bool:
            """One partition each, at the same time: whoever came first may have both again before the other joins."""
            return sorted(await leaving.places() + await staying.places()) == [0, 1]

        while not (await shared() and await shared()):
            await asyncio.sleep(0.5)
        before, (home,) = await staying.rebalances(), await leaving.places()
        assert await leaving.end() == 0
        assert await asyncio.to_thread(real_kafka.static_members, place.group) == {"pod-0", "pod-1"}
        real_kafka.produce(place.topic, {"value": json.dumps(signup("anna")).encode(), "partition": home})
        await leaving.start()
        assert await leaving.places() == [home]
        await until(lambda: calls(sandbox), "the event written meanwhile")
        assert await staying.rebalances() == before
        assert [await each.end() for each in members] == [0, 0]
    finally:
        for each in members:
            await each.kill()
