"""The promise of a preview: what it says is what the service then does; and until then, nothing is done at all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from confluent_kafka.admin import AdminClient

from bridge.cli import main
from bridge.decoders import decoders
from bridge.kafka.sample import sample
from bridge.loading import load_rules
from bridge.preview.events import from_topic, timeline
from bridge.preview.rehearsal import rehearse
from bridge.sandbox.server import SandboxServer
from tests.support.avro import confluent, fixture
from tests.support.inprocess import Place, calls, sandbox_options
from tests.support.kafka import Cluster
from tests.support.registries import registry_server

RULES = """\
rules:
  - name: plan
    match: plan.changed
    linger: 3s                # whatever the broker hands over first, all of it is merged
    do:
      - upsert: {email: "${data.email}", external_id: "${data.id}", custom_fields: {plan: "${data.plan}"}}
      - add_tag: {email: "${data.email}", tag_name: "${data.plan}"}
  - name: seen
    match: user.seen
    lazy: [custom_fields.seen]
    linger: 3s
    do:
      - upsert: {email: "${data.email}", custom_fields: {seen: "${data.at}"}}
  - name: moment
    match: moment
    do:
      - track: {external_id: "${data.id}", event_name: "${data.name}"}
  - name: welcome
    match: user.signed_up
    do:
      - upsert: {email: "${data.email}", external_id: "${data.id}", first_name: "${data.name}"}
      - trigger: {trigger_key: welcome, to_email: "${data.email}", variables: {name: "${data.name}"}}
      - enroll: {sequence_slug: onboarding, email: "${data.email}", metadata: {by: "${data.id}"}}
"""
PEOPLE = 6


@pytest.fixture
async def sandbox() -> AsyncIterator[SandboxServer]:
    async with SandboxServer(sandbox_options()) as server:
        yield server


def event(kind: str, number: int, **data: Any) -> dict[str, Any]:
    return {"type": kind, "data": {"email": f"u{number}@example.com", "id": f"x{number}", **data}}


def story_of_everybody() -> list[dict[str, Any]]:
    """Merged upserts, tags that ride, tracks between them, email last; a bad address, and a field that is missing."""
    found = [event("plan.changed", number, plan=f"p{turn}") for turn in range(3) for number in range(PEOPLE)]
    found += [event("moment", number, name="first") for number in range(PEOPLE)]
    found += [event("plan.changed", number, plan=f"p{turn}") for turn in range(3, 6) for number in range(PEOPLE)]
    found += [event("user.seen", number, at="today") for number in range(PEOPLE)]
    found += [event("user.signed_up", number, name="Ann") for number in range(0, PEOPLE, 2)]
    found.append({"type": "user.signed_up", "data": {"email": "no address", "id": "bad", "name": "Bob"}})
    found.append({"type": "plan.changed", "data": {"email": "nobody@example.com", "id": "y"}})
    return found


def preview(place: Place, *arguments: str) -> dict[str, Any]:
    place.settings()
    called = CliRunner().invoke(
        main, ["preview", "-c", str(place.config), "--topic", place.topic, "--json", "--new-account", *arguments]
    )
    assert called.exit_code == 0, called.output
    found = json.loads(called.stdout)
    assert isinstance(found, dict)
    return found


def groups(cluster: Cluster) -> set[str]:
    client = AdminClient({"bootstrap.servers": cluster.bootstrap_servers})
    return {group.group_id for group in client.list_consumer_groups(request_timeout=10).result().valid}


def made_by(found: Sequence[tuple[str, Any]], number: int) -> list[tuple[str, Any]]:
    """One contact's calls in order; by id and address, as each endpoint names it. Tags name an id that Meisa gave."""
    names = {f"u{number}@example.com", f"x{number}"}
    return [each for each in found if names & {each[1].get(name) for name in ("email", "external_id", "to_email")}]


async def test_the_service_makes_the_calls_that_the_preview_told(
    any_kafka: Cluster, sandbox: SandboxServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each contact's calls, in order and with every byte of their bodies, idempotency keys too; and as many endings and
    dead letters of each kind. Before, the sandbox has heard of nobody, and the broker of no group."""
    place = Place(any_kafka, tmp_path, f"{sandbox.url}/api/v1", rules=RULES, partitions=1)
    monkeypatch.delenv("MEISA_API_KEY", raising=False)
    events = story_of_everybody()
    place.produce(*events)

    report = await asyncio.to_thread(preview, place)
    settings = place.settings()
    told: list[tuple[str, Any]] = []

    def listen(call: Any, status: int, seconds: float) -> None:
        told.append((call.endpoint, json.loads(json.dumps(dict(call.body or {})))))

    def again() -> None:
        records = sample(
            settings.kafka.bootstrap_servers, settings.kafka.properties, settings.kafka.group_id, place.topic, last=1000
        )
        line = timeline(from_topic(records), now_wall=0.0)
        found = rehearse(settings, load_rules(settings), line, decoders(settings), called=listen, new_account=True)
        assert sum(found.tally.calls.values()) == report["calls"]["total"], "each time the same"

    await asyncio.to_thread(again)
    assert sandbox.sandbox.ledger.entries.total == 0
    assert place.committed() == 0
    assert place.group not in groups(any_kafka)
    assert any_kafka.end(place.letters_topic) == 0

    async with place.running(settings):
        await place.finished(len(events))
        status = await place.status()
    done = [(entry.endpoint, entry.json()) for entry in calls(sandbox)]
    for number in range(PEOPLE):
        assert made_by(done, number) == made_by(told, number)
        assert len(made_by(done, number)) >= 3
    own = ("ping", "unsubscribed")
    assert sorted(map(str, done)) == sorted(str(each) for each in told if each[0] not in own)
    kinds = {kind: count for kind, count in status["dead_letters"].items() if count}
    assert kinds == {each["kind"]: each["count"] for each in report["dead_letters"]["by"]}


async def test_since_and_last_of_a_live_topic(any_kafka: Cluster, sandbox: SandboxServer, tmp_path: Path) -> None:
    """The end of each partition, and one contact's story with its place on the topic."""
    place = Place(any_kafka, tmp_path, f"{sandbox.url}/api/v1", rules=RULES, partitions=1)
    place.produce(*(event("moment", number, name="n") for number in range(20)))
    found = await asyncio.to_thread(preview, place, "--last", "5", "--contact", "nobody@example.com", "--at-once")
    assert (found["events"]["read"], found["contact"]["events"]) == (5, [])
    places = {event["place"] for sample in found["samples"] for event in sample["events"]}
    assert places <= {f"{place.topic}/0/{offset}" for offset in range(15, 20)}
    everything = await asyncio.to_thread(preview, place, "--since", "1h")
    assert (everything["events"]["read"], everything["source"]["kind"]) == (20, "topic")


async def test_records_that_name_their_schema(embedded_kafka: Cluster, tmp_path: Path) -> None:
    """The registry is asked before the clock jumps; without one that answers the preview ends with a line."""
    rules = 'rules: [{name: all, match: "*", do: [{upsert: {email: all@example.com}}]}]'
    place = Place(embedded_kafka, tmp_path, "http://127.0.0.1:1/api/v1", rules=rules, partitions=1)
    for name in ("version 1", "version 2"):
        record = fixture(name)
        place.cluster.produce(place.topic, {"value": record.value, "headers": list(record.headers)})
    with registry_server() as registry:
        for each in sorted(confluent()["schemas"], key=lambda each: (each["id"], each["version"])):
            registry.register(each["subject"], each["schema"], each["references"])
        place.sections["topics"][place.topic] = {"format": "avro", "registry": {"url": registry.url}}
        found = await asyncio.to_thread(preview, place)
    assert (sum(found["events"]["outcomes"].values()), found["dead_letters"]["total"]) == (2, 0)
    place.settings()
    called = await asyncio.to_thread(
        CliRunner().invoke, main, ["preview", "-c", str(place.config), "--topic", place.topic]
    )
    assert (called.exit_code, called.stdout) == (1, "")
    assert "the schema registry at" in called.stderr
