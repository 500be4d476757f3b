"""Traces of a whole service: a producer's header, the bridge, its calls and letters, as a collector gets them."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from bridge.observe.logs import configure
from bridge.sandbox.faults import Rule
from bridge.sandbox.server import SandboxServer
from tests.support.inprocess import Place, calls, sandbox_options
from tests.support.kafka import Cluster
from tests.support.misbehaving import MisbehavingServer, Peer
from tests.support.tracing import TRACEPARENT, Collector, attributes, collector

RULES = """\
rules:
  - name: signup
    match: user.signed_up
    do:
      - upsert: {email: "${data.email}", external_id: "${data.user_id}", custom_fields: {plan: "${data.plan}"}}
      - trigger: {trigger_key: welcome, to_email: "${data.email}", variables: {name: "${data.name}"}}
  - name: changed
    match: plan.changed
    do:
      - upsert: {email: "${data.email}", custom_fields: {plan: "${data.plan}"}}
  - name: broken
    match: user.broken
    do:
      - upsert: {email: "${data.email.secret_value}"}
"""
CONSUMER, PRODUCER, CLIENT, ERROR = 5, 4, 3, 2
CANARIES = ["canary", "ada", "Lovelace", "example.com", "5up3r53cr3t", "meisa_test_", "pr0plan", "idempotency"]


@pytest.fixture
async def sandbox() -> AsyncIterator[SandboxServer]:
    async with SandboxServer(sandbox_options()) as server:
        yield server


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    with collector() as found:
        yield found


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """What the service logs; logging is global, and put back."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    stream = io.StringIO()
    configure(stream, "info")
    yield stream
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def placed(cluster: Cluster, folder: Path, sandbox: SandboxServer, collected: Collector) -> Place:
    place = Place(cluster, folder, sandbox.base_url, rules=RULES, partitions=1)
    place.sections["tracing"] = {"endpoint": collected.url, "headers": {"x-token": {"env": "OTLP_TOKEN"}}}
    return place


def sent(type: str, traceparent: bytes = TRACEPARENT, **data: Any) -> dict[str, Any]:
    value = {"id": "canary-id ada@example.com", "type": type, "data": data}
    return {
        "value": json.dumps(value).encode(),
        "key": b"canary-key ada@example.com",
        "headers": [("traceparent", traceparent), ("canary-header", b"ada@example.com")],
    }


ADA = {"email": "ada@example.com", "user_id": "canary-7", "plan": "pr0plan", "name": "Lovelace"}


async def test_one_trace_from_the_producer_to_meisa_and_nobody_is_named(
    embedded_kafka: Cluster, sandbox: SandboxServer, tmp_path: Path, collected: Collector, log: io.StringIO
) -> None:
    """A welcome that succeeds at the second try, a refused upsert, a rule that fails, a record that is no JSON: right
    parents and kinds, and neither address, id, key, value nor secret in anything that leaves."""
    place = placed(embedded_kafka, tmp_path, sandbox, collected)
    sandbox.sandbox.faults.add(
        [
            Rule(endpoint="trigger", status=503, message="no ada@example.com", times=1),
            Rule(endpoint="upsert", contact="poison*", status=400, message="no canary ada@example.com"),
        ]
    )
    embedded_kafka.produce(
        place.topic,
        sent("user.signed_up", **ADA),
        sent("plan.changed", email="poison-canary@example.com", plan="pr0plan"),
        sent("user.broken", **ADA),
        {**sent("none"), "value": b"canary ada@example.com"},
    )
    async with place.running(place.settings(OTLP_TOKEN="5up3r53cr3t")):
        await place.finished(4)
        metrics = (await place.get("/metrics")).text
    assert 'meisa_bridge_trace_spans_total{result="dropped"} 0.0' in metrics

    spans = collected.spans
    trace_id, producer = bytes.fromhex(TRACEPARENT[3:35].decode()), bytes.fromhex(TRACEPARENT[36:52].decode())
    assert {span.trace_id for span in spans} == {trace_id}
    processes = {attributes(span)["messaging.kafka.offset"]: span for span in collected.named(f"process {place.topic}")}
    assert sorted(processes) == [0, 1, 2, 3]
    assert {(span.parent_span_id, span.kind) for span in processes.values()} == {(producer, CONSUMER)}
    welcomed = processes[0]
    assert attributes(welcomed)["meisa_bridge.outcome"] == "delivered" and welcomed.status.code == 0
    below = sorted(
        (span for span in spans if span.parent_span_id == welcomed.span_id), key=lambda s: s.start_time_unix_nano
    )
    assert [(span.name, span.kind, attributes(span)["http.response.status_code"]) for span in below] == [
        ("POST /contacts/upsert/", CLIENT, 201),
        ("POST /emails/trigger/", CLIENT, 503),
        ("POST /emails/trigger/", CLIENT, 200),
    ]
    assert attributes(below[2])["http.request.resend_count"] == 1
    assert attributes(below[1])["error.type"] == "503"
    assert below[-1].end_time_unix_nano <= welcomed.end_time_unix_nano
    for offset, kind in ((1, "rejected"), (2, "rule"), (3, "decode")):
        dead = processes[offset]
        assert dead.status.code == ERROR and attributes(dead)["error.type"] == kind
        (letter,) = [
            span for span in collected.named(f"send {place.letters_topic}") if span.parent_span_id == dead.span_id
        ]
        assert letter.kind == PRODUCER and attributes(letter)["messaging.destination.name"] == place.letters_topic
    assert {resource["service.name"] for resource in collected.resources} == {"meisa-bridge"}
    assert {head["x-token"] for head in collected.heads} == {"5up3r53cr3t"}

    shown = b"".join(collected.raw).lower()
    assert [canary for canary in CANARIES if canary.lower().encode() in shown] == []


async def test_a_merged_call_links_the_traces_of_all_its_events(
    embedded_kafka: Cluster, sandbox: SandboxServer, tmp_path: Path, collected: Collector
) -> None:
    """Three events of three producers in one call: a child of the first, linked with the others both ways."""
    place = placed(embedded_kafka, tmp_path, sandbox, collected)
    parents = [TRACEPARENT.replace(b"4bf9", b"4bf%d" % number) for number in range(3)]
    embedded_kafka.produce(
        place.topic, *(sent("plan.changed", parent, email="ada@example.com", plan="p") for parent in parents)
    )
    async with place.running(place.settings(OTLP_TOKEN="x")):
        await place.finished(3)
    (call,) = collected.named("POST /contacts/upsert/")
    first, *others = sorted(
        collected.named(f"process {place.topic}"), key=lambda span: attributes(span)["messaging.kafka.offset"]
    )
    assert call.parent_span_id == first.span_id and call.trace_id == first.trace_id
    assert [(link.trace_id, link.span_id) for link in call.links] == [(each.trace_id, each.span_id) for each in others]
    assert all(
        [(link.trace_id, link.span_id) for link in each.links] == [(call.trace_id, call.span_id)] for each in others
    )
    assert len({span.trace_id for span in (first, *others)}) == 3


async def test_a_collector_that_is_down_is_told_once_and_stops_nothing(
    embedded_kafka: Cluster, sandbox: SandboxServer, tmp_path: Path, collected: Collector, log: io.StringIO
) -> None:
    """Events are delivered, and their spans are counted as failed."""
    collected.status = 500
    place = placed(embedded_kafka, tmp_path, sandbox, collected)
    embedded_kafka.produce(
        place.topic, *(sent("plan.changed", email=f"user{n}@example.com", plan="p") for n in range(20))
    )
    async with place.running(place.settings(OTLP_TOKEN="x")):
        await place.finished(20)
        async with asyncio.timeout(20):
            while 'result="failed"} 40.0' not in (await place.get("/metrics")).text:
                await asyncio.sleep(0.05)
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    (told,) = [line for line in lines if "collector" in line["event"]]
    assert told["level"] == "warning" and "500" in told["error"]
    assert len(calls(sandbox, "upsert")) == 20


async def refusing(peer: Peer) -> None:
    """Is not well when it is pinged, and answers all else with 400; the server remembers the requests' heads."""
    while True:
        await peer.read_request()
        ping = b"/ping/" in peer.server.heads[-1]
        await peer.send(b"HTTP/1.1 503 Not Now\r\n" if ping else b"HTTP/1.1 400 Bad Request\r\n")
        await peer.send(b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")


async def test_no_trace_goes_to_meisa(embedded_kafka: Cluster, tmp_path: Path, collected: Collector) -> None:
    """It is another company's service: neither the header's name nor the trace's id is in a request."""
    async with MisbehavingServer(refusing) as api:
        place = Place(embedded_kafka, tmp_path, f"http://127.0.0.1:{api.port}/api/v1", rules=RULES, partitions=1)
        place.sections["tracing"] = {"endpoint": collected.url}
        embedded_kafka.produce(place.topic, sent("plan.changed", email="ada@example.com", plan="p"))
        async with place.running():
            await place.finished(1)
        heads = b"".join(api.heads).lower()
    assert b"/contacts/upsert/" in heads and len(collected.named("POST /contacts/upsert/")) == 1
    assert b"trace" not in heads and TRACEPARENT[3:35] not in heads
