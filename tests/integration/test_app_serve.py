"""The service from its start to its end, in this process: what it needs, what it refuses, what it shows."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from bridge import app
from bridge.app import Bridge, serve
from bridge.errors import ProblemsFound, StartFailed
from bridge.kafka import consumer
from bridge.loading import load_rules
from bridge.observe.metrics import CATALOGUE
from bridge.sandbox.children import free_port
from bridge.sandbox.faults import Rule
from bridge.sandbox.server import SandboxServer
from tests.support.inprocess import Place, calls, sandbox_options, until
from tests.support.kafka import Cluster, EmbeddedKafka

GROUP_HEARTBEAT = 68
GROUP_AUTHORIZATION_FAILED = 30


@pytest.fixture
async def sandbox() -> AsyncIterator[SandboxServer]:
    async with SandboxServer(sandbox_options()) as server:
        yield server


def signup(number: int, **data: Any) -> dict[str, Any]:
    return {"type": "user.signed_up", "data": {"email": f"user{number}@example.com", **data}}


@asynccontextmanager
async def answering(body: bytes, status: str = "200 OK") -> AsyncIterator[str]:
    """A server that answers everything with this; gives its base URL."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        writer.write(f"{head}connection: close\r\n\r\n".encode() + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/api/v1"


async def refusal(place: Place, key: str = "meisa_test_sandbox", **environ: str) -> str:
    """The one line with which a start is refused; nothing of it is left behind."""
    with pytest.raises(StartFailed) as caught:
        async with asyncio.timeout(20):
            await serve(place.settings(key, **environ))
    words = str(caught.value)
    assert "\n" not in words
    assert key not in words
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", place.port)) != 0, "its port is still served"
    assert [task for task in asyncio.all_tasks() if task.get_name() == "admin server"] == []
    return words


# Starts and ends


async def test_it_delivers_commits_and_ends(embedded_kafka: Cluster, sandbox: SandboxServer, tmp_path: Path) -> None:
    """Told to stop it has committed what it finished, left nothing in flight, and closed its port."""
    place = Place(embedded_kafka, tmp_path, sandbox.base_url)
    place.produce(*(signup(number) for number in range(20)))
    async with place.running():
        await place.finished(20)
    assert sorted(entry.contact for entry in calls(sandbox)) == sorted(f"user{n}@example.com" for n in range(20))
    assert place.committed() == 20
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", place.port)) != 0
    assert sandbox.sandbox.ledger.counts["received"] == sandbox.sandbox.ledger.counts["answered"]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that is not there is given up sooner."""
    monkeypatch.setattr(app, "START_SECONDS", 0.5)
    monkeypatch.setattr(consumer, "PROBE_SECONDS", 0.5)


@pytest.mark.usefixtures("impatient")
async def test_it_can_be_stopped_before_it_has_started(
    sandbox: SandboxServer, tmp_path: Path, embedded_kafka: Cluster
) -> None:
    """SIGTERM while the broker is still looked for ends it at once, with 0: nothing went wrong."""
    place = Place(embedded_kafka, tmp_path, sandbox.base_url)
    place.sections["kafka"]["bootstrap_servers"] = f"127.0.0.1:{free_port()}"
    stop = asyncio.Event()
    task = asyncio.create_task(serve(place.settings(), stop=stop))
    await asyncio.sleep(0.3)  # nothing shows yet from outside that it looks for the broker
    stop.set()
    assert await asyncio.wait_for(task, 20) == 0
    assert not sandbox.sandbox.ledger.entries.total, "without partitions it owns no call, not even a ping"


async def test_the_process_ends_with_0_on_ctrl_c(
    embedded_kafka: Cluster, sandbox: SandboxServer, tmp_path: Path
) -> None:
    """And its standard error is one JSON object a line: no stray words of a library."""
    place = Place(embedded_kafka, tmp_path, sandbox.base_url)
    place.produce(signup(1))
    place.settings()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bridge", "run", "-c", str(place.config)),
        env={**os.environ, "MEISA_API_KEY": "meisa_test_sandbox"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        await until(lambda: calls(sandbox), "its call")
        process.send_signal(signal.SIGINT)
        out, err = await asyncio.wait_for(process.communicate(), 20)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (process.returncode, out) == (0, b"")
    lines = [json.loads(line) for line in err.splitlines()]
    assert lines[-1]["event"] == "stopped: everything finished is committed"
    assert not [line for line in lines if line["level"] not in ("info", "debug")]
    assert b"meisa_test_sandbox" not in err
    assert place.committed() == 1


# What it refuses


@pytest.mark.usefixtures("impatient")
async def test_no_broker_is_one_line(sandbox: SandboxServer, tmp_path: Path, embedded_kafka: Cluster) -> None:
    place = Place(embedded_kafka, tmp_path, sandbox.base_url)
    nowhere = f"127.0.0.1:{free_port()}"
    place.sections["kafka"]["bootstrap_servers"] = nowhere
    words = await refusal(place)
    assert words.startswith(f"no Kafka broker answers at {nowhere} (")
    assert "check kafka.bootstrap_servers" in words


async def test_a_refused_key_is_one_line(embedded_kafka: Cluster, sandbox: SandboxServer, tmp_path: Path) -> None:
    place = Place(embedded_kafka, tmp_path, sandbox.base_url)
    place.produce(signup(1))
    words = await refusal(place, key="meisa_test_nobody")
    assert words.startswith(f"Meisa at {sandbox.base_url} refuses the key of meisa.api_key (401): check")
    assert calls(sandbox) == []
    assert place.committed() == 0


async def test_a_refused_key_of_one_kind_names_its_setting(
    embedded_kafka: Cluster, sandbox: SandboxServer, tmp_path: Path
) -> None:
    place = Place(embedded_kafka, tmp_path, sandbox.base_url)
    place.sections["meisa"]["keys"] = {"trigger": {"env": "TRIGGER_KEY"}}
    assert "the key of meisa.keys.trigger (401)" in await refusal(place, TRIGGER_KEY="meisa_test_nobody")


async def test_a_key_of_the_other_environment_is_one_line(embedded_kafka: Cluster, tmp_path: Path) -> None:
    """Meisa's own word counts, whatever the key looks like."""
    async with answering(b'{"scopes": [], "environment": "live", "product": {"name": "Acme"}}') as base_url:
        words = await refusal(Place(embedded_kafka, tmp_path, base_url))
    assert words == (
        "the key of meisa.api_key is of the live environment, but meisa.environment is test: "
        "use a test key, or set meisa.environment: live"
    )


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"<html>hello</html>", "200 OK"), (b"", "204 No Content"), (b"not here", "404 Not Found"), (b"", "302 Found")],
)
async def test_what_is_not_meisa_is_refused(body: bytes, status: str, embedded_kafka: Cluster, tmp_path: Path) -> None:
    """A base_url with a wrong path or host: else each event would be refused and dead-lettered, or, where a web page
    answers everything with 200, taken for delivered."""
    async with answering(body, status) as base_url:
        words = await refusal(Place(embedded_kafka, tmp_path, base_url))
    assert words.startswith(f"what answers at {base_url} is not Meisa's API ({status[:3]}")
    assert "check meisa.base_url" in words


async def test_a_busy_admin_port_is_one_line(embedded_kafka: Cluster, sandbox: SandboxServer, tmp_path: Path) -> None:
    place = Place(embedded_kafka, tmp_path, sandbox.base_url)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", place.port))
        taken.listen()
        with pytest.raises(StartFailed, match=f"127.0.0.1:{place.port} cannot be used: Address already in use; stop"):
            await serve(place.settings())


async def test_a_fatal_kafka_error_ends_the_service(
    embedded_kafka: EmbeddedKafka, sandbox: SandboxServer, tmp_path: Path
) -> None:
    """What no waiting gets over ends the process with status 1 and the reason in one line; nothing hangs."""
    place = Place(embedded_kafka, tmp_path, sandbox.base_url)
    task = asyncio.create_task(serve(place.settings()))
    while not task.done() and not await place.ready():
        await asyncio.sleep(0.02)
    embedded_kafka.broker.push_errors(GROUP_HEARTBEAT, [GROUP_AUTHORIZATION_FAILED])
    with pytest.raises(StartFailed) as caught:
        await asyncio.wait_for(task, 20)
    assert str(caught.value).startswith("the service ended: Kafka does not permit using this group: grant READ")
    assert caught.value.exit_status == 1


# What it bears


async def test_meisa_unreachable_at_the_start_is_an_outage_not_a_mistake(
    embedded_kafka: Cluster, tmp_path: Path
) -> None:
    """It starts, says so, and delivers once Meisa is there; nothing was dead-lettered."""
    port = free_port()
    place = Place(embedded_kafka, tmp_path, f"http://127.0.0.1:{port}/api/v1")
    place.produce(signup(1), signup(2))
    with capture_logs() as logs:
        async with place.running():
            told = [line for line in logs if line["event"].startswith("Meisa does not answer properly yet")]
            assert [(line["log_level"], line["key"]) for line in told] == [("warning", "default")]
            async with SandboxServer(sandbox_options(port=port)) as sandbox:
                await place.finished(2)
                assert len(calls(sandbox)) == 2
    assert place.letters() == []


async def test_a_missing_scope_is_a_warning_with_its_name(embedded_kafka: Cluster, tmp_path: Path) -> None:
    """Only for what the rules need; the rest is delivered."""
    poor = "meisa_test_poor"
    rules = """\
rules:
  - name: signup
    match: user.signed_up
    do:
      - upsert: {email: "${data.email}"}
      - trigger: {trigger_key: welcome, to_email: "${data.email}"}
"""
    async with SandboxServer(sandbox_options(keys=(f"{poor}=contacts:write",))) as sandbox:
        place = Place(embedded_kafka, tmp_path, sandbox.base_url, rules=rules)
        place.produce(signup(1))
        with capture_logs() as logs:
            async with place.running(place.settings(poor)):
                await until(lambda: calls(sandbox, "upsert"), "the upsert")
    told = [line for line in logs if "lacks the scope" in line["event"]]
    assert [(line["log_level"], line["action"], line["scope"]) for line in told] == [
        ("warning", "trigger", "emails:trigger")
    ]
    assert place.letters() == []


async def test_a_missing_topic_is_a_warning_and_the_others_are_read(
    embedded_kafka: Cluster, sandbox: SandboxServer, tmp_path: Path
) -> None:
    place = Place(embedded_kafka, tmp_path, sandbox.base_url)
    place.sections["topics"]["not-there-yet"] = {}
    place.produce(signup(1))
    with capture_logs() as logs:
        async with place.running():
            await place.finished(1)
    told = [line for line in logs if line["event"].startswith("a topic does not exist (yet)")]
    assert [line["topic"] for line in told] == ["not-there-yet"]


# What is configured works


async def test_handlers_beside_the_config_are_found_and_called(
    embedded_kafka: Cluster, sandbox: SandboxServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`handlers` names a module in the configuration's own folder, wherever the process was started."""
    (tmp_path / "acme_serve").mkdir()
    (tmp_path / "acme_serve" / "lifecycle.py").write_text(
        "from bridge import Event, Track, Upsert, handles\n\n\n"
        '@handles("invoice.*")\n'
        "def invoice(event: Event):\n"
        '    yield Upsert(email=event.data["email"], custom_fields={"mrr": event.data["mrr"]})\n'
        '    yield Track(email=event.data["email"], event_name=event.type)\n'
    )
    monkeypatch.chdir("/")
    place = Place(embedded_kafka, tmp_path, sandbox.base_url)
    place.sections["handlers"] = ["acme_serve.lifecycle"]
    place.produce({"type": "invoice.paid", "data": {"email": "a@example.com", "mrr": 29.5}})
    try:
        async with place.running():
            await place.finished(1)
    finally:
        sys.path[:] = [path for path in sys.path if path != str(tmp_path)]
    assert [(entry.endpoint, entry.json()) for entry in calls(sandbox)] == [
        ("upsert", {"email": "a@example.com", "custom_fields": {"mrr": 29.5}}),
        ("track", {"email": "a@example.com", "event_name": "invoice.paid"}),
    ]


async def test_an_envelope_of_ones_own_is_read_by_its_expressions(
    embedded_kafka: Cluster, sandbox: SandboxServer, tmp_path: Path
) -> None:
    rules = """\
rules:
  - name: any
    match: app.user.signed_up
    do:
      - upsert:
          email: ${data.mail}
          custom_fields: {id: "${event.id}", at: "${event.time}", tenant: "${headers.tenant}"}
"""
    place = Place(embedded_kafka, tmp_path, sandbox.base_url, rules=rules)
    place.sections["topics"][place.topic] = {
        "envelope": {
            "id": "${value.meta.uuid}",
            "type": "app.${value.entity}.${value['what happened']}",
            "time": "${value.meta.at}",
            "data": "${value.payload}",
        }
    }
    value = {
        "meta": {"uuid": 77, "at": 1_780_000_000},
        "entity": "user",
        "what happened": "signed_up",
        "payload": {"mail": "a@example.com"},
    }
    embedded_kafka.produce(place.topic, {"value": json.dumps(value).encode(), "headers": [("tenant", b"acme")]})
    async with place.running():
        await place.finished(1)
    (entry,) = calls(sandbox)
    assert entry.json() == {
        "email": "a@example.com",
        "custom_fields": {"id": "77", "at": "2026-05-28T20:26:40Z", "tenant": "acme"},
    }


async def test_a_key_of_its_own_has_its_own_quota(
    embedded_kafka: Cluster, sandbox: SandboxServer, tmp_path: Path
) -> None:
    """`meisa.keys`: triggers leave with their own key, and each key's windows count its own calls only."""
    rules = """\
rules:
  - name: signup
    match: user.signed_up
    do:
      - upsert: {email: "${data.email}"}
      - trigger: {trigger_key: welcome, to_email: "${data.email}"}
"""
    sandbox.sandbox.keys["meisa_test_mail"] = sandbox.options.parse_key("meisa_test_mail=emails:trigger")
    place = Place(embedded_kafka, tmp_path, sandbox.base_url, rules=rules)
    place.sections["meisa"]["keys"] = {"trigger": {"env": "MAIL_KEY"}}
    place.produce(*(signup(number) for number in range(5)))
    async with place.running(place.settings(MAIL_KEY="meisa_test_mail")):
        await place.finished(5)
        quota = {(window["key"], window["window"]): window["used"] for window in (await place.status())["quota"]}
        samples = await metrics(place)
    assert {entry.key for entry in calls(sandbox, "trigger")} == {"meisa_test_mail"}
    assert {entry.key for entry in calls(sandbox, "upsert")} == {"meisa_test_sandbox"}
    # Five calls and the ping at the start, with each of the two; and the suppression list.
    used = {"default": 7, "trigger": 6}
    assert quota == {(key, window): used[key] for key in used for window in ("minute", "hour")}
    assert samples['meisa_bridge_quota_used{key="trigger",window="minute"}'] == 6
    assert samples['meisa_bridge_quota_limit{key="trigger",window="minute"}'] == 100_000


async def test_a_key_for_tracks_alone_leaves_contacts_to_the_other(
    embedded_kafka: Cluster, sandbox: SandboxServer, tmp_path: Path
) -> None:
    """A contact that Meisa does not know is made with the key of upserts, and what a key may do beyond its work is said
    at the start."""
    rules = """\
rules:
  - name: paid
    match: user.signed_up
    do:
      - track: {event_name: paid, email: "${data.email}"}
"""
    for text in ("meisa_test_track=events:track,tags:write", "meisa_test_write=contacts:write"):
        sandbox.sandbox.keys[text.partition("=")[0]] = sandbox.options.parse_key(text)
    place = Place(embedded_kafka, tmp_path, sandbox.base_url, rules=rules)
    place.sections["meisa"]["keys"] = {"track": {"env": "TRACK_KEY"}}
    place.produce(signup(1))
    with capture_logs() as logs:
        async with place.running(place.settings("meisa_test_write", TRACK_KEY="meisa_test_track")):
            await place.finished(1)
    assert [(entry.endpoint, entry.key, entry.status) for entry in calls(sandbox)] == [
        ("track", "meisa_test_track", 404),
        ("upsert", "meisa_test_write", 201),
        ("track", "meisa_test_track", 200),
    ]
    told = [(line["key"], line["unneeded_scopes"]) for line in logs if "unneeded_scopes" in line]
    assert told == [("track", ["tags:write"])]


async def test_a_quota_in_a_redis_that_is_away_is_refused_at_the_start(
    embedded_kafka: Cluster, sandbox: SandboxServer, tmp_path: Path
) -> None:
    """A wrong address must not look like an outage."""
    place = Place(embedded_kafka, tmp_path, sandbox.base_url)
    place.sections["meisa"]["quota"]["shared"] = {"env": "QUOTA"}
    words = await refusal(place, QUOTA=f"redis://:secret@127.0.0.1:{free_port()}/0")
    assert words.startswith("meisa.quota.shared: Redis at 127.0.0.1:") and "secret" not in words
    assert not sandbox.sandbox.ledger.entries.total


def test_plain_http_in_a_private_network_is_allowed_where_it_is_said(embedded_kafka: Cluster, tmp_path: Path) -> None:
    """What docker-compose.yml sets: the sandbox by its name there. The setting must reach the client."""
    place = Place(embedded_kafka, tmp_path, "http://sandbox:8900/api/v1")
    with pytest.raises(ProblemsFound, match="allow_http: true"):
        place.settings()
    place.sections["meisa"]["allow_http"] = True
    settings = place.settings()
    Bridge(settings, load_rules(settings), failed=lambda message: None)


# What it shows


async def metrics(place: Place) -> dict[str, float]:
    """Every sample as Prometheus would see it: name{label="value",…}."""
    lines = (await place.get("/metrics")).text.splitlines()
    samples = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in samples}


LATER = {
    "meisa_bridge_breaker_open": "no endpoint is held back",
    "meisa_bridge_waiting_for": "nothing waits",
    "meisa_bridge_partition_retention_seconds": "not known of this broker",
    "meisa_bridge_partition_oldest_wait_seconds": "nothing is open",
    "meisa_bridge_suppression_list_addresses": "no rule sends what the list would spare",
}
"""Families without a sample here, and why."""


async def test_metrics_of_a_running_bridge(embedded_kafka: Cluster, sandbox: SandboxServer, tmp_path: Path) -> None:
    """Every metric of the interface that applies has a sample, and the figures are those of what happened: one event
    delivered, one filtered, one that cannot be read, one whose rule fails."""
    place = Place(embedded_kafka, tmp_path, sandbox.base_url, partitions=1)
    place.produce(signup(1), {"type": "nobody.cares"}, b"{", {"type": "user.signed_up", "data": {}})
    async with place.running():
        await place.finished(4)
        deadline = time.monotonic() + 10
        # The commit is told, and a call's slot given back, a moment after what they belong to.
        while not (found := await metrics(place)).get('meisa_bridge_commits_total{result="ok"}'):
            assert time.monotonic() < deadline
    topic = f'topic="{place.topic}"'
    partition = f'{{partition="0",{topic}}}'
    expected = {
        f"events_consumed_total{{{topic}}}": 4,
        f'events_finished_total{{outcome="delivered",{topic}}}': 1,
        f'events_finished_total{{outcome="filtered",{topic}}}': 1,
        f'events_finished_total{{outcome="dead_lettered",{topic}}}': 2,
        'calls_total{endpoint="upsert",status="201"}': 1,
        'calls_total{endpoint="ping",status="200"}': 1,
        'call_duration_seconds_count{endpoint="upsert"}': 1,
        'event_delay_seconds_count{lane="sync"}': 1,
        'quota_used{key="default",window="minute"}': 2,
        'quota_limit{key="default",window="hour"}': 1_000_000,
        'pending_contacts{lane="sync"}': 0,
        'pending_events{lane="transactional"}': 0,
        "in_flight_calls": 0,
        f"partition_lag{partition}": 0,
        f"partition_window{partition}": 0,
        f"partition_frontier{partition}": 4,
        'dead_letters_total{kind="decode",rule=""}': 1,
        'dead_letters_total{kind="rule",rule="signup"}': 1,
        'rebalances_total{kind="assigned"}': 1,
    }
    assert {name: found.get(f"meisa_bridge_{name}") for name in expected} == expected
    told = {name.partition("{")[0].removesuffix("_count") for name in found}
    assert {definition.name for definition in CATALOGUE} - told == set(LATER)


async def test_metrics_of_an_outage(embedded_kafka: Cluster, sandbox: SandboxServer, tmp_path: Path) -> None:
    """What shows only while something is wrong: a held endpoint, what waits for it, and a frontier that stands;
    gone with the outage. Every family is declared from the start, whatever there is to tell."""
    place = Place(embedded_kafka, tmp_path, sandbox.base_url, partitions=1)
    sandbox.sandbox.faults.add([Rule(endpoint="upsert", status=503)])
    place.produce(*(signup(number) for number in range(12)))
    async with place.running():
        declared = re.findall(r"^# TYPE (meisa_bridge_\w+) (\w+)$", (await place.get("/metrics")).text, re.MULTILINE)
        assert sorted(declared) == sorted((definition.name, definition.type) for definition in CATALOGUE)
        deadline = time.monotonic() + 15
        while not (found := await metrics(place)).get('meisa_bridge_waiting_for{reason="outage"}'):
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.05)
        held = 'meisa_bridge_breaker_open{endpoint="upsert"}'
        assert found[held] == 1
        stands = f'meisa_bridge_partition_oldest_wait_seconds{{partition="0",topic="{place.topic}"}}'
        assert found[stands] >= 0
        sandbox.sandbox.faults.clear()
        await place.finished(12)
        found = await metrics(place)
        assert held not in found and stands not in found


async def test_readiness_follows_the_key(embedded_kafka: Cluster, sandbox: SandboxServer, tmp_path: Path) -> None:
    """Refused in the middle: not ready, with the reason; alive all the while; ready again by itself, and what waited
    is delivered. Nothing was dead-lettered."""
    place = Place(embedded_kafka, tmp_path, sandbox.base_url)
    key = sandbox.sandbox.keys["meisa_test_sandbox"]
    async with place.running():
        key.revoked = True
        place.produce(signup(1), signup(2))
        deadline = time.monotonic() + 10
        while (answer := await place.get("/readyz")).status_code == 200:
            assert time.monotonic() < deadline
        assert answer.status_code == 503
        assert answer.json()["reason"].startswith("Meisa refuses the API key: default")
        assert (await place.get("/livez")).status_code == 200
        status = await place.status()
        assert status["refused_keys"] == ["default"]
        assert place.committed() == 0
        key.revoked = False
        await place.finished(2)
        assert await place.ready()
    assert place.letters() == []


@pytest.mark.kafka
async def test_two_bridges_of_one_group_are_both_ready_with_fewer_partitions_than_members(
    real_kafka: Cluster, sandbox: SandboxServer, tmp_path: Path
) -> None:
    """A member without partitions is ready: a rolling deploy must not wait for it."""
    place = Place(real_kafka, tmp_path, sandbox.base_url, partitions=1)
    async with place.running():
        first_url, surplus = place.url, free_port()
        place.url = f"http://127.0.0.1:{surplus}"
        async with place.running(place.settings(MEISA_BRIDGE__ADMIN__LISTEN=f"127.0.0.1:{surplus}")):
            owned = [len((await place.status())["partitions"])]
            place.url = first_url
            assert await place.ready()
            owned.append(len((await place.status())["partitions"]))
    assert sorted(owned) == [0, 1]
