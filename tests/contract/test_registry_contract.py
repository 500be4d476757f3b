"""What every schema registry must answer: franz-go's imitation through our client, and the fake of the unit tests."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bridge.config import Secret, Settings
from bridge.decode import TopicSchemas
from bridge.decode.avro import WireAvro
from bridge.decoders import fetching_decoders
from bridge.errors import DecodeError, RegistryFailed, UnknownSchema, UsageError
from bridge.model import Record, SchemaId
from bridge.ports import Registry
from bridge.registry.client import RegistryClient
from tests.support.avro import avro, framed
from tests.support.registries import FakeRegistry, RegistryServer, registry_server

PLAN = {"type": "enum", "name": "Plan", "namespace": "acme", "symbols": ["free", "pro"]}
ACCOUNT = {"type": "record", "name": "acme.Account", "fields": [{"name": "plan", "type": "acme.Plan"}]}
CHANGED = {
    "type": "record",
    "name": "acme.Changed",
    "fields": [{"name": "before", "type": "acme.Account"}, {"name": "plan", "type": "acme.Plan"}],
}


class Given(NamedTuple):
    registry: Registry
    plan: SchemaId
    plan_guid: SchemaId
    changed: SchemaId


@pytest.fixture(scope="module")
def server() -> Iterator[RegistryServer]:
    with registry_server() as running:
        running.register("plan", PLAN)
        plan = {"name": "acme.Plan", "subject": "plan", "version": 1}
        running.register("account", ACCOUNT, [plan])
        yield running


@pytest.fixture(params=["fake", "franz-go"])
async def given(request: pytest.FixtureRequest) -> AsyncIterator[Given]:
    """A registry that knows a type, one that refers to it, and one that refers to both."""
    if request.param == "fake":
        fake = FakeRegistry()
        fake.add(1, PLAN)
        fake.add("00000000-0000-0000-0000-000000000001", PLAN)
        fake.add(3, CHANGED, PLAN, ACCOUNT)
        yield Given(fake, 1, "00000000-0000-0000-0000-000000000001", 3)
        return
    server = request.getfixturevalue("server")
    references = [
        {"name": "acme.Account", "subject": "account", "version": 1},
        {"name": "acme.Plan", "subject": "plan", "version": 1},
    ]
    changed = server.register("changed", CHANGED, references)
    client = RegistryClient(server.url)
    yield Given(client, server.register("plan", PLAN), server.guid("plan"), changed)
    await client.close()


async def test_a_schema_by_its_id_and_by_its_guid(given: Given) -> None:
    """The same text, word by word what was registered."""
    for id in (given.plan, given.plan_guid):
        found = await given.registry.schema(id)
        assert (found.kind, json.loads(found.text), found.references) == ("AVRO", PLAN, ())


async def test_references_come_with_it_the_innermost_first_and_each_once(given: Given) -> None:
    """In this order a reader can take them in."""
    found = await given.registry.schema(given.changed)
    assert [json.loads(each)["name"] for each in found.references] == ["Plan", "acme.Account"]
    values = WireAvro(TopicSchemas())
    assert values.learn(given.changed, found.text, found.references) is None
    whole: list[Any] = [PLAN, ACCOUNT, CHANGED]
    body = avro(whole, {"before": {"plan": "free"}, "plan": "pro"})
    named = values.read(Record("a", 0, 0, 0, None, framed(given.changed, body[1:])))
    assert named is not None and named.value == {"before": {"plan": "free"}, "plan": "pro"}


async def test_what_it_does_not_know_it_says(given: Given) -> None:
    for id in (999, "00000000-0000-0000-0000-00000000ffff"):
        with pytest.raises(UnknownSchema):
            await given.registry.schema(id)


@pytest.mark.parametrize("kind", ["basic", "bearer"])
async def test_a_secret_is_sent_as_the_registry_wants_it_and_told_nowhere(kind: str) -> None:
    """A wrong or missing one is no answer about schemas, and a rotated one is read anew."""
    secret = "user:pässword" if kind == "basic" else "token-5up3r53cr3t"
    wanted = f"Basic {base64.b64encode(secret.encode()).decode()}" if kind == "basic" else f"Bearer {secret}"
    current = ["wrong:secret"]

    def read() -> str:
        if not current:
            raise UsageError("the environment variable REGISTRY_AUTH is not set")
        return current[0]

    with registry_server(wanted) as server:
        id = server.register("plan", PLAN)
        bare = RegistryClient(server.url)
        client = RegistryClient(server.url, **{kind: read})
        try:
            with pytest.raises(RegistryFailed, match="wants a secret") as missing:
                await bare.probe()
            with pytest.raises(RegistryFailed, match="refuses the secret") as refused:
                await client.schema(id)
            assert {missing.value.status, refused.value.status} <= {401, 403}
            assert "wrong" not in str(refused.value)
            current[0] = secret
            assert json.loads((await client.schema(id)).text) == PLAN
            await client.probe()
            current.clear()
            with pytest.raises(RegistryFailed, match="REGISTRY_AUTH is not set"):
                await client.probe()
        finally:
            await bare.close()
            await client.close()


def test_a_command_has_schemas_fetched_while_it_decodes(server: RegistryServer, tmp_path: Path) -> None:
    """Each schema once, in whatever thread; a registry that is away is told, and asked no more."""
    settings = Settings.model_validate(
        {
            "kafka": {"bootstrap_servers": "localhost:9092"},
            "topics": {
                "events": {"format": "avro", "registry": {"url": server.url}},
                "others": {"format": "avro", "registry": {"url": "http://127.0.0.1:9"}},
            },
            "meisa": {"api_key": Secret.literal("meisa_test_x")},
        }
    )
    changed = {"type": "record", "name": "Plain", "fields": [{"name": "plan", "type": "string"}]}
    id = server.register("plain", changed)
    made = fetching_decoders(settings)
    for topic, raw in (("events", framed(id, avro(changed, {"plan": "pro"}))), ("events", None)):
        event = made[topic](Record(topic, 0, 0, 0, None, raw))
        assert event is None if raw is None else event is not None and event.data == {"plan": "pro"}
    with pytest.raises(DecodeError, match="knows no schema 999"):
        made["events"](Record("events", 0, 0, 0, None, framed(999, b"")))
    for _ in range(2):
        with pytest.raises(RegistryFailed, match="cannot be reached"):
            made["others"](Record("others", 0, 0, 0, None, framed(id, b"")))
