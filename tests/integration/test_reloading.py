"""Rules reloaded under a running service: a real process, the embedded broker, and the sandbox's ledger as judge."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from bridge.app import serve
from bridge.sandbox.server import SandboxServer
from tests.support.inprocess import Place, calls, sandbox_options, until
from tests.support.kafka import Cluster, EmbeddedKafka, unique
from tests.support.service import sandbox, service, wait_for

RULES = """\
rules:
- name: signup
  match: user.signed_up
  do:
  - upsert: {{email: "${{data.email}}", custom_fields: {{{field}: "${{data.value}}"}}}}
"""


def rules(field: str) -> str:
    return RULES.format(field=field)


def put(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


@pytest.mark.slow
def test_a_running_service_takes_good_rules_and_keeps_the_old_ones_where_they_are_bad(
    embedded_kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    """By SIGHUP, by a replaced file and by an exchanged symlink; a mistake changes nothing but what is told of it, and
    a topic that bad rules had stopped goes on with good ones. What is delivered shows which rules were in force."""
    with sandbox() as meisa, service(embedded_kafka, tmp_path, meisa, latency_ms=0) as made:
        for folder, text in (("one", rules("one")), ("five", rules("five"))):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "rules.yaml").write_text(text)
        mounted = tmp_path / "rules.yaml"
        mounted.unlink()
        (tmp_path / "..data").symlink_to("one")
        mounted.symlink_to("..data/rules.yaml")
        bridge = made.start(more="state: {url: memory}")
        number = 0

        def sent() -> dict[str, Any]:
            """The custom fields that a new event is delivered with."""
            nonlocal number
            number += 1
            email = f"user{number}@example.com"
            value = f'{{"type": "user.signed_up", "data": {{"email": "{email}", "value": {number}}}}}'
            embedded_kafka.produce(made.topic, value.encode())

            def entry() -> Any:
                return next((each for each in meisa.ledger() if (each.get("body") or {}).get("email") == email), None)

            wait_for(lambda: entry() is not None, f"the call of event {number}")
            return dict(entry()["body"]["custom_fields"])

        def version() -> Any:
            return made.status()["rules"]["version"]

        def reloaded(before: str) -> None:
            wait_for(lambda: version() != before, "the rules to be reloaded")
            bridge.check()

        assert sent() == {"one": 1}
        first = version()

        put(mounted, rules("two"))  # over the symlink
        reloaded(first)
        assert sent() == {"two": 2}

        second = version()
        put(mounted, rules("three").replace("  do:", "  wehn: x\n  do:"))
        wait_for(lambda: made.status()["rules"]["problem"], "the refusal")
        refused = made.status()["rules"]
        assert refused["version"] == second and "MB103" in refused["problem"] and "rules.yaml:4:" in refused["problem"]
        assert "meisa_bridge_rules_refused 1.0" in httpx.get(f"{made.admin_url}/metrics").text
        page = httpx.get(f"{made.admin_url}/").text
        assert "Not reloaded: " in page and "MB103" in page
        assert sent() == {"two": 3}

        put(mounted, rules("four").replace("data.value", "data.nothing"))
        os.kill(bridge.pid, signal.SIGHUP)
        reloaded(second)
        fourth = version()
        bad = b'{"type": "user.signed_up", "data": {"email": "bad@example.com"}}'
        embedded_kafka.produce(made.topic, *[bad] * 110)
        wait_for(lambda: made.status()["stopped_topics"] == [made.topic], "the topic to stop")

        mounted.unlink()
        mounted.symlink_to("..data/rules.yaml")
        (tmp_path / "..tmp").symlink_to("five")
        (tmp_path / "..tmp").replace(tmp_path / "..data")
        reloaded(fourth)
        assert made.status()["stopped_topics"] == []
        assert sent() == {"five": 4}
        wait_for(lambda: made.committed() == number + 110, "all to be committed")

        os.kill(bridge.pid, signal.SIGHUP)
        bridge.end()
        assert any(re.search("not reloaded.*old|not reloaded.*before", line) for line in bridge.said)


UPSERTS = """\
rules:
- name: signup
  match: user.signed_up
  do:
  - upsert: {email: "${data.email}", custom_fields: {plan: "${data.plan}"}}
"""
PLANS = """\
- name: plan
  match: plan.changed
  topic: billing
  do:
  - upsert: {email: "${data.email}", custom_fields: {plan: "${data.plan}"}}
  - trigger: {trigger_key: welcome, to_email: "${data.email}"}
"""


async def test_all_that_follows_from_rules_follows_from_the_new_ones(
    embedded_kafka: EmbeddedKafka, tmp_path: Path
) -> None:
    """Scopes that only they need are looked at, the suppression list is read for them, and what they let another topic
    write is not believed to be unchanged any more."""
    async with SandboxServer(sandbox_options()) as server:
        server.sandbox.keys["meisa_test_few"] = server.options.parse_key("meisa_test_few=contacts:read,contacts:write")
        place = Place(embedded_kafka, tmp_path, server.base_url, rules=UPSERTS, partitions=1)
        place.sections["topics"][place.topic]["keyed_by"] = "contact"
        billing = embedded_kafka.create_topic(unique("billing"))
        place.sections["topics"][billing] = {}
        rules = tmp_path / "rules.yaml"
        rules.write_text(UPSERTS.replace("  do:", f"  topic: {place.topic}\n  do:", 1))
        event = {"type": "user.signed_up", "data": {"email": "a@example.com", "plan": "pro"}}
        key = {"key": b"a@example.com", "value": json.dumps(event).encode()}
        count = 0

        async def outcomes() -> dict[str, int]:
            nonlocal count
            count += 1
            embedded_kafka.produce(place.topic, key)
            await place.finished(count)
            return dict((await place.status())["totals"])

        with capture_logs() as logs:
            async with place.running(place.settings("meisa_test_few")):
                assert await outcomes() == {"delivered": 1}
                assert await outcomes() == {"delivered": 1, "unchanged": 1}
                assert calls(server, "unsubscribed") == []
                put(rules, rules.read_text() + PLANS.replace("billing", billing))
                os.kill(os.getpid(), signal.SIGHUP)
                await until(lambda: calls(server, "unsubscribed"), "the suppression list to be read")
                assert await outcomes() == {"delivered": 2, "unchanged": 1}
                put(rules, UPSERTS)
                os.kill(os.getpid(), signal.SIGHUP)
                await until(lambda: [line for line in logs if line.get("removed") == ["plan"]], "the second reload")
                assert await outcomes() == {"delivered": 3, "unchanged": 1}, "former rules' work may still leave"
        told = [line["scope"] for line in logs if "lacks the scope" in line["event"]]
        assert told == ["emails:trigger"]


async def test_a_hangup_while_starting_or_stopping_ends_nothing(embedded_kafka: Cluster, tmp_path: Path) -> None:
    """The process gets its SIGHUP at any moment; it must neither die of it nor end otherwise than with 0."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `meisa-bridge run` does first
    try:
        async with SandboxServer(sandbox_options()) as server:
            place = Place(embedded_kafka, tmp_path, server.base_url)
            stop = asyncio.Event()
            task = asyncio.create_task(serve(place.settings(), stop=stop))
            while not task.done() and not await place.ready():
                os.kill(os.getpid(), signal.SIGHUP)
                await asyncio.sleep(0.02)
            stop.set()
            for _ in range(500):
                os.kill(os.getpid(), signal.SIGHUP)
                await asyncio.sleep(0.02)
                if task.done():
                    break
            assert task.done() and await task == 0
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
