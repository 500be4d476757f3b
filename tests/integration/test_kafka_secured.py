"""TLS, SASL and ACLs on a real broker that has them: every way in, and every command with the rights that docs name."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from click.testing import CliRunner
from ruamel.yaml import YAML

from bridge import preflight
from bridge.cli import dead_letters, main
from bridge.config import load
from bridge.errors import KafkaRefused, ProblemsFound
from bridge.kafka import admin
from bridge.kafka.properties import validate
from bridge.observe import logs
from bridge.replay import service
from bridge.sandbox.children import Child
from bridge.sandbox.faults import Rule
from bridge.sandbox.options import TEST_KEY
from bridge.sandbox.server import SandboxServer
from tests.support.inprocess import Place, calls, sandbox_options, until
from tests.support.kafka import unique
from tests.support.papers import KEY_PASSWORD
from tests.support.secured import (
    CLIENT_ID,
    CLIENT_SECRET,
    MECHANISMS,
    PASSWORD,
    USER,
    SecuredKafka,
)
from tests.support.tokens import token_endpoint

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

PAGE = (Path(__file__).parents[2] / "docs" / "kafka-security.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```yaml\n(kafka:.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
ROW = r"^\| (topic|group) `([^`]+)` \| ([A-Z_, ]+) \|"
NEEDED, NICE = (
    [
        (resource, name, operation)
        for resource, name, operations in re.findall(
            r"^\| (topic|group) `([^`]+)` \| ([A-Z_, ]+) \|", part, re.MULTILINE
        )
        for operation in operations.split(", ")
    ]
    for part in PAGE.split("Nice to have:")
)
LISTENERS = {"9093": "TLS", "9094": "MUTUAL", "9095": "SASLTLS", "9096": "SASL"}
"""By the ports of the page's examples."""
SECRETS = {"KAFKA_PASSWORD": PASSWORD, "KAFKA_CLIENT_SECRET": CLIENT_SECRET}


@pytest.fixture(autouse=True)
def prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests of replays are noticed sooner, and a broker that refuses us is given up sooner."""
    for module, name, seconds in (
        (service, "LOOK_SECONDS", 0.1),
        (service, "ABSENT_SECONDS", 0.1),
        (dead_letters, "LOOK_SECONDS", 0.1),
        (admin, "REFUSED_SECONDS", 0.5),
        (preflight, "ASK_SECONDS", 2.0),
    ):
        monkeypatch.setattr(module, name, seconds)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The bridge logs as in a service: not into the standard output of the commands that run in the same process."""
    logs.configure(stream=sys.stderr)
    yield
    structlog.reset_defaults()


@pytest.fixture
async def sandbox() -> AsyncIterator[SandboxServer]:
    async with SandboxServer(sandbox_options()) as server:
        yield server


@pytest.fixture
def place(secured_kafka: SecuredKafka, tmp_path: Path, sandbox: SandboxServer) -> Iterator[Place]:
    yield Place(secured_kafka, tmp_path, sandbox.base_url)
    secured_kafka.revoke()


def rights(place: Place, rows: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """Rows of the page's tables, with the names that they have here."""
    names = {
        "user-events": place.topic,
        "meisa-bridge": place.group,
        "meisa-bridge.dead-letters": place.letters_topic,
        "meisa-bridge.dead-letters.replays": f"{place.letters_topic}.replays",
    }
    return [(resource, names[name], operation) for resource, name, operation in rows]


async def command(place: Place, *arguments: str, status: int = 0) -> str:
    """What a command of `meisa-bridge` says on standard output."""
    environ = {"MEISA_API_KEY": TEST_KEY, **SECRETS}
    asked = [*arguments, "-c", str(place.config)]
    done = await asyncio.to_thread(CliRunner().invoke, main, asked, env=environ)
    assert done.exit_code == status, done.output
    return done.stdout


async def problems(place: Place, *arguments: str, status: int = 1) -> dict[str, dict[str, Any]]:
    """What `check` finds, without its notices, by code."""
    found = json.loads(await command(place, "check", "--output-format", "json", *arguments, status=status))
    return {each["code"]: each for each in found if each["severity"] != "notice"}


def signups(*names: str) -> list[dict[str, Any]]:
    return [{"type": "user.signed_up", "data": {"email": f"{name}@example.com"}} for name in names]


# The page's examples


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_each_example_of_the_page_connects(number: int, secured_kafka: SecuredKafka, tmp_path: Path) -> None:
    """As it stands there, but for addresses and the folder of secrets."""
    papers = secured_kafka.papers
    text = EXAMPLES[number]
    (port,) = set(re.findall(r"example\.com:(\d+)", text))
    text = re.sub(r"[\w.-]+\.example\.com:\d+", secured_kafka.address(LISTENERS[port]), text)
    text = text.replace("/run/secrets/meisa-bridge/", "secrets/")
    for name, source in {
        "kafka-ca.pem": papers.authority,
        "kafka-client.pem": papers.client_certificate,
        "kafka-client.key": papers.client_key,
        "kafka-client-encrypted.key": papers.client_key_encrypted,
    }.items():
        (tmp_path / name).write_bytes(source.read_bytes())
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "kafka-password").write_text(f"{PASSWORD}\n")
    (tmp_path / "secrets" / "kafka-key-password").write_text(f"{KEY_PASSWORD}\n")
    environ = {
        **SECRETS,
        "KAFKA_CERTIFICATE": papers.client_certificate.read_text(),
        "KAFKA_KEY": papers.client_key.read_text(),
        "MEISA_API_KEY": TEST_KEY,
    }
    with token_endpoint(CLIENT_ID, CLIENT_SECRET) as url:
        text = text.replace("https://login.example.com/oauth2/token", url)
        config = tmp_path / "bridge.yaml"
        meisa = "{api_key: {env: MEISA_API_KEY}, environment: test}"
        config.write_text(f"{text}topics: {{a: {{}}}}\nmeisa: {meisa}\nrules: [r.yaml]\n")
        kafka = load(config, environ).kafka
        validate(kafka.bootstrap_servers, kafka.properties)
        assert admin.probe(kafka.bootstrap_servers, kafka.properties).brokers == 1


def test_the_page_has_an_example_of_every_way() -> None:
    """TLS, mutual TLS three times, each mechanism, with TLS and without."""
    found = [YAML(typ="safe").load(example)["kafka"]["properties"] for example in EXAMPLES]
    assert {each["security.protocol"] for each in found} == {"SSL", "SASL_SSL", "SASL_PLAINTEXT"}
    assert {each.get("sasl.mechanism") for each in found} == {None, *MECHANISMS, "OAUTHBEARER"}
    assert sum("ssl.key.location" in each or "ssl.key.pem" in each for each in found) == 3


# The whole way, with the rights that the page names and no other


async def test_the_whole_way_with_a_user_by_tls_and_just_the_rights_that_the_page_names(
    secured_kafka: SecuredKafka, place: Place, sandbox: SandboxServer
) -> None:
    """Checked, previewed, delivered, committed, dead-lettered, listed, replayed, shown, set back."""
    secured_kafka.use(place, "SCRAM-SHA-512")
    secured_kafka.grant(*rights(place, NEEDED))
    sandbox.sandbox.faults.add([Rule("upsert", status=400, contact="bad@example.com", times=1)])
    place.produce(*signups("ada", "bad", "eve"))
    settings = place.settings(**SECRETS)
    assert await problems(place, status=0) == {}
    assert "3 events" in await command(place, "preview", "--topic", place.topic, "--last", "10")
    async with place.running(settings):
        await place.finished(3)
        (letter,) = json.loads(await command(place, "dlq", "list", "--json"))
        assert letter["kind"] == "rejected"
        await command(place, "dlq", "replay", "--all", "--wait", "--yes")
        assert (await place.status())["in_group"] is True
    (gone,) = json.loads(await command(place, "dlq", "list", "--all", "--json"))
    assert gone["state"] == "replayed"
    assert {entry.contact for entry in calls(sandbox, "upsert") if entry.carried_out} == {
        f"{name}@example.com" for name in ("ada", "bad", "eve")
    }
    shown = json.loads(await command(place, "offsets", "show", "--json"))
    assert sum(each["committed"] for each in shown if each["committed"]) == 3
    await command(place, "offsets", "reset", "--to", "earliest", "--yes")
    assert place.committed() == 0
    secured_kafka.grant(*rights(place, NICE))
    secured_kafka.grant(("topic", fresh := unique("fresh"), "create"), ("topic", fresh, "read"))
    place.sections["topics"][fresh] = {}
    place.settings(**SECRETS)
    assert await problems(place, "--create-topics", status=0) == {}
    assert secured_kafka.end(fresh) == 0


async def test_check_names_each_right_that_is_missing(secured_kafka: SecuredKafka, place: Place) -> None:
    """With its code, the place of the setting, the user, and what to grant; a topic that may not be seen is not
    said to be missing."""
    secured_kafka.use(place, "SCRAM-SHA-512")
    place.settings(**SECRETS)
    found = await problems(place)
    assert set(found) == {"MB234", "MB235", "MB236", "MB237"}
    assert f"the user {USER} may not read topic {place.topic}" in found["MB234"]["message"]
    assert found["MB235"]["hint"] == f"grant READ on group {place.group}"
    letters = place.letters_topic
    assert f"READ and WRITE on topic {letters}" in found["MB236"]["hint"]
    assert f"topic {letters}.replays" in found["MB237"]["message"]
    assert [found[code]["severity"] for code in sorted(found)] == ["error", "error", "error", "warning"]
    assert all(each["line"] == 1 and each["column"] > 1 for each in found.values())

    secured_kafka.grant(*rights(place, NEEDED))
    secured_kafka.revoke(operation="read")
    secured_kafka.grant(("topic", place.topic, "read"), ("group", place.group, "read"))
    found = await problems(place, status=0)
    assert set(found) == {"MB236"}, "what does not exist is not told"
    assert found["MB236"]["severity"] == "warning", "letters can be written"


async def test_a_topic_that_may_not_be_read_is_waited_for_and_a_group_is_not(
    secured_kafka: SecuredKafka, place: Place, tmp_path: Path
) -> None:
    """The first says so, and reads once READ is granted; without the group the service ends with 1 and one line."""
    secured_kafka.use(place, "SCRAM-SHA-512")
    secured_kafka.grant(*(each for each in rights(place, NEEDED) if each[1] != place.topic))
    place.produce(*signups("ada"))
    place.settings(**SECRETS)
    bridge = Child("the bridge", ["run", "-c", str(place.config)], {"MEISA_API_KEY": TEST_KEY, **SECRETS})
    try:
        await asyncio.to_thread(
            bridge.wait_for, re.compile(f"Kafka does not permit reading topic {place.topic}; its events wait")
        )
        secured_kafka.grant(("topic", place.topic, "read"))
        await place.finished(1)
        await asyncio.to_thread(bridge.end)
    finally:
        bridge.close()
    secured_kafka.revoke()
    secured_kafka.grant(*(each for each in rights(place, NEEDED) if each[0] != "group"))
    done = await asyncio.to_thread(run, place)
    assert done[0] == 1
    assert "grant READ on kafka.group_id" in done[1].splitlines()[-1]
    assert "Traceback" not in done[1]


async def test_what_cannot_be_buried_waits_until_it_may_be(
    secured_kafka: SecuredKafka, place: Place, sandbox: SandboxServer
) -> None:
    """Without WRITE on the dead-letter topic the offset waits; with it the letter is written, without a restart."""
    secured_kafka.use(place, "SCRAM-SHA-512")
    secured_kafka.grant(*(each for each in rights(place, NEEDED) if each[1:] != (place.letters_topic, "WRITE")))
    sandbox.sandbox.faults.add([Rule("upsert", status=400, contact="bad@example.com")])
    place.produce(*signups("bad"))

    async def waits() -> bool:
        return 'meisa_bridge_waiting_for{reason="dead_letters"} 1.0' in (await place.get("/metrics")).text

    async with place.running(place.settings(**SECRETS)):
        async with asyncio.timeout(20):
            while not await waits():
                await asyncio.sleep(0.05)
        assert place.committed() == 0
        secured_kafka.grant(("topic", place.letters_topic, "write"))
        await place.finished(1)
    ((_, headers),) = place.letters()
    assert headers["kind"] == "rejected"


def run(place: Place, **environ: str) -> tuple[int, str]:
    """Exit status of `meisa-bridge run`, and all that it says."""
    done = subprocess.run(
        [sys.executable, "-m", "bridge", "run", "-c", str(place.config)],
        env={**os.environ, "MEISA_API_KEY": TEST_KEY, **SECRETS, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


# Mistakes

Change = Callable[[SecuredKafka, dict[str, Any]], dict[str, Any]]


def wrong(way: str, code: str, setting: str, says: str, listener: str = "", **changes: Any) -> Any:
    """A right way with some properties changed (None: left out), and what `check` must say of it."""
    named = {name.replace("_", "."): value for name, value in changes.items()}
    return pytest.param(way, code, setting, says, listener, named)


@pytest.mark.parametrize(
    ("way", "code", "setting", "says", "listener", "changes"),
    [
        wrong("TLS", "MB230", "ssl.ca.location", "not of an authority that is trusted", ssl_ca_location="stranger"),
        wrong("TLS", "MB230", "security.protocol", "set ssl.ca.location", ssl_ca_location=None),
        wrong("TLS", "MB230", "bootstrap_servers", "is for other.example.com", "OTHERNAME"),
        wrong("TLS", "MB230", "ssl.ca.location", "has expired", "EXPIRED"),
        wrong("TLS", "MB231", "security.protocol", "does not speak TLS", "PLAINTEXT"),
        wrong("TLS", "MB231", "security.protocol", "wants a user (SASL)", "SASLTLS"),
        wrong("TLS", "MB233", "security.protocol", "wants a certificate of its clients", "MUTUAL"),
        wrong("MUTUAL", "MB233", "ssl.certificate.location", "authority", ssl_certificate_location="unknown"),
        wrong("PLAINTEXT", "MB231", "properties", "speaks TLS", "SASLTLS"),
        wrong("PLAINTEXT", "MB231", "properties", "one of OAUTHBEARER, PLAIN, SCRAM-SHA-256", "SASL"),
        *(
            wrong(mechanism, "MB232", "sasl.password", "refuses the user", sasl_username="nobody")
            for mechanism in ("PLAIN", "SCRAM-SHA-512")
        ),
        wrong("SCRAM-SHA-512", "MB231", "security.protocol", "does not speak TLS", "SASL"),
        wrong("SASL", "MB231", "security.protocol", "takes no user (SASL)", "PLAINTEXT"),
    ],
)
async def test_a_wrong_setting_is_told_in_one_line_with_its_place(
    way: str,
    code: str,
    setting: str,
    says: str,
    listener: str,
    changes: dict[str, Any],
    secured_kafka: SecuredKafka,
    place: Place,
) -> None:
    """Its code, the line of the property to change, and words that say what is wrong."""
    secured_kafka.use(place, way, listener)
    papers = {
        "stranger": secured_kafka.papers.stranger,
        "unknown": secured_kafka.papers.unknown_certificate,
    }
    properties = place.sections["kafka"]["properties"]
    for name, value in changes.items():
        properties[name] = str(papers.get(value, value))
        if value is None:
            del properties[name]
        elif value == "unknown":
            properties["ssl.key.location"] = str(secured_kafka.papers.unknown_key)
    place.settings(**SECRETS)
    text = yaml(place)
    place.config.write_text(text)
    (found,) = (await problems(place)).values()
    assert found["code"] == code and says in f"{found['message']} ({found['hint']})", found
    assert setting in text.splitlines()[found["line"] - 1], found


def yaml(place: Place) -> str:
    """The configuration with each of Kafka's properties on a line of its own."""
    kafka = place.sections["kafka"]
    lines = [f"  {name}: {json.dumps(kafka[name])}" for name in ("bootstrap_servers", "group_id")]
    own = [f"    {name}: {json.dumps(value)}" for name, value in kafka["properties"].items()]
    rest = [f"{name}: {json.dumps(value)}" for name, value in place.sections.items() if name != "kafka"]
    return "\n".join(["kafka:", *lines, "  properties:", *own, *rest, ""])


async def test_no_secret_shows_when_connections_fail(secured_kafka: SecuredKafka, place: Place) -> None:
    """Not where everything that librdkafka tells is logged. `run` ends with 1, with one line and no traceback."""
    wrong_password = "wr0ng-S3cr3t"
    secured_kafka.use(place, "PLAIN")
    place.sections["kafka"]["properties"]["debug"] = "all"
    settings = place.settings(KAFKA_PASSWORD=wrong_password)
    everything = io.StringIO()
    logs.configure(stream=everything, level="debug")
    with pytest.raises(KafkaRefused):
        async with place.running(settings):
            raise AssertionError("it runs")
    shown = everything.getvalue()
    assert "nothing is read" in shown.lower()
    status, said = await asyncio.to_thread(run, place, KAFKA_PASSWORD=wrong_password)
    assert status == 1 and said.splitlines()[-1].startswith("meisa-bridge: the broker at ")
    assert "refuses the user of kafka.properties" in said.splitlines()[-1]
    shown += said

    secured_kafka.use(place, "SCRAM-SHA-512")
    place.sections["kafka"]["properties"]["debug"] = "all"
    secured_kafka.grant(*rights(place, NEEDED))
    async with place.running(place.settings(**SECRETS)):
        await place.get("/api/status")
    shown += everything.getvalue()

    secured_kafka.use(place, "MUTUAL")
    place.sections["kafka"]["properties"] |= {
        "debug": "all",
        "ssl.key.location": str(secured_kafka.papers.client_key_encrypted),
        "ssl.key.password": {"env": "KAFKA_PASSWORD"},
    }
    with contextlib.suppress(ProblemsFound):
        place.settings(KAFKA_PASSWORD=wrong_password)
    status, said = await asyncio.to_thread(run, place, KAFKA_PASSWORD=wrong_password)
    assert status == 1 and "MB056" in said and "does not open the key" in said
    shown += said
    for secret in (wrong_password, PASSWORD, base64.b64encode(wrong_password.encode()).decode()):
        assert secret not in shown
    assert "PRIVATE KEY" not in shown and "Traceback" not in shown


async def test_a_new_password_needs_a_restart_and_no_hurry(
    secured_kafka: SecuredKafka, place: Place, tmp_path: Path
) -> None:
    """A connection that exists goes on; what is started later reads the file anew."""
    file = tmp_path / "kafka-password"
    file.write_text("the-0ld-one")
    user = secured_kafka.add_user("rotating", "the-0ld-one")
    secured_kafka.use(place, "SCRAM-SHA-512")
    place.sections["kafka"]["properties"] |= {"sasl.username": user, "sasl.password": {"file": "kafka-password"}}
    secured_kafka.grant(*rights(place, NEEDED), user=user)
    try:
        async with place.running():
            secured_kafka.add_user(user, "the-n3w-one")
            file.write_text("the-n3w-one")
            place.produce(*signups("ada"))
            await place.finished(1)
        place.produce(*signups("eve"))
        async with place.running():
            await until(lambda: place.committed() == 2, "the second event")
    finally:
        secured_kafka.revoke(user)
