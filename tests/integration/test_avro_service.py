"""Avro through the whole service: records that Confluent's client wrote, a schema registry, rules, the sandbox."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bridge.cli import dead_letters, main
from bridge.preflight import check_online
from bridge.replay import service
from bridge.runtime import schemas
from bridge.sandbox.children import free_port
from bridge.sandbox.options import TEST_KEY
from bridge.sandbox.server import SandboxServer
from tests.support.avro import avro, confluent, fixture, framed
from tests.support.inprocess import WAIT_SECONDS_MAX, Place, calls, sandbox_options
from tests.support.kafka import Cluster
from tests.support.registries import RegistryServer, registry_server

AUTH = "reader:5up3r53cr3t"
AUTHORIZATION = f"Basic {base64.b64encode(AUTH.encode()).decode()}"
RULES = """\
rules:
  - name: plan
    match: [PlanChanged, plan.changed]
    do:
      - upsert:
          email: ${data.email}
          custom_fields: {plan: "${data.plan}", seats: "${optional(data.seats)}", since: "${optional(data.at)}"}
  - name: all
    match: AllTypes
    do:
      - upsert:
          email: all@example.com
          custom_fields: {price: "${data.price}", large: "${data.large}", at: "${data.at}", score: "${data.third}"}
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A schema that does not exist is believed sooner."""
    monkeypatch.setattr(schemas, "MISSING_SECONDS", (0.05, 0.05))


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    """It gives the fixtures' schemas the ids that their records name."""
    with registry_server(AUTHORIZATION) as running:
        for each in sorted(confluent()["schemas"], key=lambda each: (each["id"], each["version"])):
            assert running.register(each["subject"], each["schema"], each["references"]) == each["id"]
        yield running


@pytest.fixture
async def sandbox() -> AsyncIterator[SandboxServer]:
    async with SandboxServer(sandbox_options()) as server:
        yield server


@pytest.fixture
def place(embedded_kafka: Cluster, sandbox: SandboxServer, tmp_path: Path) -> Place:
    return Place(embedded_kafka, tmp_path, f"{sandbox.url}/api/v1", rules=RULES, partitions=1)


def produce(place: Place, *names: str) -> None:
    for name in names:
        record = fixture(name)
        place.cluster.produce(place.topic, {"value": record.value, "headers": list(record.headers)})


def upserts(sandbox: SandboxServer) -> list[dict[str, Any]]:
    return [json.loads(call.body) for call in calls(sandbox, "upsert")]


async def test_records_of_confluents_client_reach_meisa(
    place: Place, sandbox: SandboxServer, registry: RegistryServer
) -> None:
    """Every framing, in order, with values as they were written; a foreign schema id is a dead letter."""
    place.sections["topics"][place.topic] = {
        "format": "avro",
        "registry": {"url": registry.url, "basic_auth": {"env": "REGISTRY_AUTH"}},
    }
    produce(place, "all types", "version 1", "a union of records", "id in a header", "a reference")
    place.cluster.produce(place.topic, b"\x00\x00\x00\x27\x10foreign")
    produce(place, "version 2")
    settings = place.settings(REGISTRY_AUTH=AUTH)
    async with place.running(settings):
        await place.finished(7)
    sent = upserts(sandbox)
    assert sent[0] == {
        "email": "all@example.com",
        "custom_fields": {
            "price": "12.50",
            "large": 9_007_199_254_740_993,
            "at": "2026-11-22T12:30:00.123Z",
            "score": 1 / 3,
        },
    }
    assert {body["email"] for body in sent[1:]} == {"ada@example.com"}, "as many calls as did not merge"
    assert sent[-1]["custom_fields"] == {"plan": "pro", "seats": 5, "since": "2026-11-22T12:30:00Z"}
    ((_, letter),) = place.letters()
    assert letter["kind"] == "decode" and "knows no schema 10000" in letter["message"]


async def test_a_dead_letter_is_replayed_once_its_schema_exists(
    place: Place, sandbox: SandboxServer, registry: RegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`dlq replay` asks for it anew, and what later records were written with is at hand as well."""
    monkeypatch.setattr(schemas, "REPLAY_SECONDS", 0.0)
    monkeypatch.setattr(service, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(service, "ABSENT_SECONDS", 0.1)
    monkeypatch.setattr(dead_letters, "LOOK_SECONDS", 0.1)
    place.sections["topics"][place.topic] = {
        "format": "avro",
        "registry": {"url": registry.url, "basic_auth": {"env": "REGISTRY_AUTH"}},
    }
    plan = json.loads(next(each["schema"] for each in confluent()["schemas"] if each["subject"] == "plans-value"))
    late = {**plan, "fields": [*plan["fields"], {"name": "seats", "type": "int"}]}
    body = avro(late, {"email": "late@example.com", "plan": "pro", "seats": 9})
    place.cluster.produce(place.topic, framed(6, body))
    produce(place, "version 1")
    environ = {"MEISA_API_KEY": TEST_KEY, "REGISTRY_AUTH": AUTH}
    async with place.running(place.settings(REGISTRY_AUTH=AUTH)):
        await place.finished(2)
        assert len(place.letters()) == 1
        assert registry.register("late-value", late) == 6
        words = ["dlq", "replay", "-c", str(place.config), "--all", "--yes", "--wait"]
        result = await asyncio.to_thread(CliRunner().invoke, main, words, env=environ)
        assert result.exit_code == 0, result.output
    assert upserts(sandbox)[-1] == {"email": "late@example.com", "custom_fields": {"plan": "pro", "seats": 9}}


async def test_the_registry_comes_later_than_the_records(
    place: Place, sandbox: SandboxServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The service waits and says for what; no secret shows; then everything is delivered."""
    port = free_port()
    place.sections["topics"][place.topic] = {
        "format": "avro",
        "registry": {"url": f"http://127.0.0.1:{port}", "bearer": {"env": "REGISTRY_AUTH"}},
    }
    settings = place.settings(REGISTRY_AUTH="5up3r53cr3t")
    produce(place, "version 1")
    async with place.running(settings):

        async def waiting() -> list[dict[str, Any]]:
            status = await place.status()
            return [each for each in status["waiting_for"] if each["reason"] == "schema"]

        found = await waiting()
        deadline = time.monotonic() + WAIT_SECONDS_MAX
        while not found or "cannot be reached" not in found[0]["detail"]:
            assert time.monotonic() < deadline, found
            found = await waiting()
        assert "schema 2 of" in found[0]["detail"] and not place.letters()
        with registry_server(listen=f"127.0.0.1:{port}") as running:
            for each in sorted(confluent()["schemas"], key=lambda each: (each["id"], each["version"])):
                running.register(each["subject"], each["schema"], each["references"])
            await place.finished(1)
        assert not await waiting()
    assert len(upserts(sandbox)) == 1 and not place.letters()
    assert "5up3r53cr3t" not in caplog.text


async def test_a_local_schema_needs_no_registry(place: Place, sandbox: SandboxServer) -> None:
    """The record's bytes alone; what was written with another schema is a dead letter."""
    schema = next(each["schema"] for each in confluent()["schemas"] if each["subject"] == "plans-value")
    (place.folder / "plan.avsc").write_text(schema)
    place.sections["topics"][place.topic] = {"format": "avro", "schema": "plan.avsc"}
    body = (fixture("version 1").value or b"")[5:]
    place.cluster.produce(place.topic, body, body + b"\x00", b"", fixture("version 1").value or b"")
    async with place.running():
        await place.finished(4)
    assert [body["email"] for body in upserts(sandbox)] == ["ada@example.com"]
    messages = [headers["message"] for _, headers in place.letters()]
    assert len(messages) == 3 and "set registry" in messages[2]


async def test_check_asks_the_registry(place: Place, registry: RegistryServer) -> None:
    """Reachable, and the secret accepted; each problem at the setting that it is about."""

    async def found(url: str, secret: str) -> list[tuple[str, int, str]]:
        place.sections["topics"][place.topic] = {
            "format": "avro",
            "registry": {"url": url, "basic_auth": {"env": "REGISTRY_AUTH"}},
        }
        problems = await asyncio.to_thread(check_online, place.settings(REGISTRY_AUTH=secret))
        return [(each.code, each.line, each.message) for each in problems if each.code in ("MB215", "MB216")]

    assert await found(registry.url, AUTH) == []
    ((code, line, message),) = await found(registry.url, "reader:wrong")
    assert code == "MB216" and line == 1 and "refuses the secret" in message and "wrong" not in message
    ((code, line, message),) = await found(f"http://127.0.0.1:{free_port()}", AUTH)
    assert code == "MB215" and "cannot be reached" in message


async def test_check_plans_a_sample_whose_schemas_the_registry_has(place: Place, registry: RegistryServer) -> None:
    """It may wait for them, as the service may not; without them nothing is said of the rules."""
    place.sections["topics"][place.topic] = {
        "format": "avro",
        "registry": {"url": registry.url, "basic_auth": {"env": "REGISTRY_AUTH"}},
    }
    produce(place, "all types", "version 1")
    found = await asyncio.to_thread(check_online, place.settings(REGISTRY_AUTH=AUTH))
    assert [each.code for each in found] == ["MB222"] and "upsert 2" in found[0].message
    found = await asyncio.to_thread(check_online, place.settings(REGISTRY_AUTH="reader:wrong"))
    assert sorted(each.code for each in found) == ["MB216", "MB228"]
