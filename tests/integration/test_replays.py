"""Dead letters are replayed while the bridge runs: by the command line, on a broker, with the sandbox as judge."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from click.testing import CliRunner

from bridge.cli import dead_letters, main
from bridge.kafka.admin import probe
from bridge.observe import logs
from bridge.replay import service
from bridge.sandbox.faults import Rule
from bridge.sandbox.server import SandboxServer
from tests.support.inprocess import Place, calls, sandbox_options
from tests.support.kafka import Cluster

RULES = """\
rules:
  - name: signup
    match: user.signed_up
    do:
      - upsert:
          email: ${data.email}
          first_name: ${optional(data.first_name)}
          custom_fields: {plan: "${data.plan}", country: "${optional(data.country)}"}
      - trigger: {trigger_key: welcome, to_email: "${data.email}"}
  - name: changed
    match: plan.changed
    do:
      - upsert: {email: "${data.email}", custom_fields: {plan: "${data.plan}"}}
"""


@pytest.fixture(autouse=True)
def prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are noticed sooner."""
    monkeypatch.setattr(service, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(service, "ABSENT_SECONDS", 0.1)
    monkeypatch.setattr(dead_letters, "LOOK_SECONDS", 0.1)


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


def placed(cluster: Cluster, folder: Path, sandbox: SandboxServer) -> Place:
    place = Place(cluster, folder, sandbox.base_url, rules=RULES, partitions=1)
    place.settings()
    return place


@pytest.fixture
def place(embedded_kafka: Cluster, tmp_path: Path, sandbox: SandboxServer) -> Place:
    return placed(embedded_kafka, tmp_path, sandbox)


def event(type: str, user: str, **data: Any) -> dict[str, Any]:
    return {"type": type, "data": {"email": f"{user}@example.com", **data}}


async def dlq(place: Place, *arguments: str, status: int = 0) -> Any:
    """What `meisa-bridge dlq … --json` says."""
    command, *rest = arguments
    words = ["dlq", command, "-c", str(place.config), "--json", *rest]
    environ = {"MEISA_API_KEY": "meisa_test_sandbox"}
    result = await asyncio.to_thread(CliRunner().invoke, main, words, env=environ)
    assert result.exit_code == status, result.output
    assert "Traceback" not in result.output
    return json.loads(result.stdout) if result.stdout else result.stderr


def contact(sandbox: SandboxServer, user: str) -> dict[str, Any]:
    contacts = sandbox.sandbox.worlds["test"].contacts
    found = contacts.find(f"{user}@example.com")
    assert found is not None
    return contacts.view(found)


def emails(sandbox: SandboxServer) -> list[str]:
    return sorted(email.to_email for email in sandbox.sandbox.worlds["test"].emails)


def refuse(sandbox: SandboxServer, user: str, times: int | None, endpoint: str = "*") -> None:
    sandbox.sandbox.faults.add(
        [Rule(endpoint=endpoint, contact=f"{user}@example.com", status=400, message="no", times=times)]
    )


def heal(sandbox: SandboxServer) -> None:
    sandbox.sandbox.faults.clear()


async def test_a_replay_delivers_what_was_missing_and_undoes_nothing(
    any_kafka: Cluster, tmp_path: Path, sandbox: SandboxServer
) -> None:
    """Refused until Meisa was healed, then replayed: the contact has what the letter says, except what a later event
    wrote; its email went out once; and a second replay sends nothing."""
    place = placed(any_kafka, tmp_path, sandbox)
    refuse(sandbox, "ann", 2)
    place.produce(
        event("user.signed_up", "ann", plan="free", country="DE", first_name="Ann"),
        event("user.signed_up", "ben", plan="free", country="DE"),
        event("plan.changed", "ann", plan="pro"),
    )
    async with place.running():
        await place.finished(3)
        letters = await dlq(place, "list")
        assert [(each["kind"], each["action"], each["state"]) for each in letters] == [
            ("rejected", "upsert", "open"),
            ("rejected", "trigger", "open"),
        ]
        assert emails(sandbox) == ["ben@example.com"]
        dry = await dlq(place, "replay", "--all", "--dry-run")
        upsert, trigger = (each["sends"][0] for each in dry["would_send"])
        assert upsert["left_out"] == ["custom_fields.plan"] and "custom_fields.country" in upsert["fields"]
        assert (trigger["what"], trigger["contact"]) == ("welcome", "a***@example.com")
        assert [each["state"] for each in await dlq(place, "list")] == ["open", "open"]
        told = await dlq(place, "replay", "--all", "--wait")
        assert [result["state"] for result in told["results"]] == ["replayed", "replayed"]
        assert await dlq(place, "list") == []
        before = len(calls(sandbox))
        again = await dlq(place, "replay", f"{place.topic}/0/0")
        assert again["requested"] == [] and len(again["skipped"]) == 2
        assert len(calls(sandbox)) == before
    found = contact(sandbox, "ann")
    assert found["custom_fields"] == {"plan": "pro", "country": "DE"}
    assert found["first_name"] == "Ann"
    assert emails(sandbox) == ["ann@example.com", "ben@example.com"]


@pytest.mark.slow
async def test_overwrite_sends_everything_but_only_where_somebody_agreed(sandbox: SandboxServer, place: Place) -> None:
    """Without a terminal and --yes nothing is written."""
    refuse(sandbox, "ann", 1, "upsert")
    place.produce(event("user.signed_up", "ann", plan="free", country="DE"), event("plan.changed", "ann", plan="pro"))
    async with place.running():
        await place.finished(2)
        refusal = await dlq(place, "replay", "--all", "--overwrite", status=2)
        assert "--yes" in refusal
        await dlq(place, "replay", "--all", "--overwrite", "--yes", "--wait")
    assert contact(sandbox, "ann")["custom_fields"] == {"plan": "free", "country": "DE"}


@pytest.mark.slow
async def test_what_is_refused_again_is_a_fresh_letter_and_only_that(sandbox: SandboxServer, place: Place) -> None:
    """The fresh letter counts the replay and stands for the former one, in the list and for the next replay."""
    refuse(sandbox, "ann", None, "trigger")
    place.produce(event("user.signed_up", "ann", plan="free", country="DE"))
    async with place.running():
        await place.finished(1)
        told = await dlq(place, "replay", "--rule", "signup", "--wait", status=1)
        assert [result["state"] for result in told["results"]] == ["refused_again"]
        assert [headers.get("replays") for _, headers in place.letters()] == ["0", "1"]
        assert place.letters()[0][0].value() == place.letters()[1][0].value()
        (fresh,) = await dlq(place, "list")
        assert (fresh["replays"], fresh["state"]) == (1, "open")
        heal(sandbox)
        told = await dlq(place, "replay", f"{place.topic}/0/0", "--wait")
        assert [result["state"] for result in told["results"]] == ["replayed"]
        assert len(told["skipped"]) == 1
        assert await dlq(place, "list") == []
    assert emails(sandbox) == ["ann@example.com"]
    assert len(calls(sandbox, "upsert")) == 1, "what was delivered is not sent again"


@pytest.mark.slow
async def test_a_letter_that_was_written_twice_is_replayed_once(sandbox: SandboxServer, place: Place) -> None:
    """As after a crash between the letter's acknowledgement and the commit: one entry in the list, one email."""
    refuse(sandbox, "ann", 1, "trigger")
    place.produce(event("user.signed_up", "ann", plan="free", country="DE"))
    async with place.running():
        await place.finished(1)
        ((message, _),) = place.letters()
        copy = {"value": message.value(), "key": message.key(), "headers": message.headers()}
        place.cluster.produce(place.letters_topic, copy)
        (letter,) = await dlq(place, "list")
        assert letter["copies"] == 2
        await dlq(place, "replay", "--all", "--wait")
        assert await dlq(place, "list") == []
    assert len(calls(sandbox, "trigger")) == 2, "the refused one, and one replay"


async def test_an_unknown_outcome_is_sent_again_only_on_demand(sandbox: SandboxServer, place: Place) -> None:
    """It may have been sent: only --send-again, agreed to, sends it."""
    refuse(sandbox, "ann", 1, "trigger")
    place.produce(event("user.signed_up", "ann", plan="free", country="DE"))
    async with place.running():
        await place.finished(1)
        ((message, _),) = place.letters()
        headers = [(name, b"unknown_outcome" if name == "meisa-bridge.kind" else it) for name, it in message.headers()]
        place.cluster.produce(place.letters_topic, {"value": message.value(), "headers": headers})
        told = await dlq(place, "replay", "--all", "--wait")
        assert told["requested"] == [] and "--send-again" in told["skipped"][0]["why"]
        assert emails(sandbox) == []
        told = await dlq(place, "replay", "--all", "--send-again", "--yes", "--wait")
        assert [result["state"] for result in told["results"]] == ["replayed"]
    assert emails(sandbox) == ["ann@example.com"]


@pytest.mark.slow
async def test_where_retention_removed_later_events_nothing_is_sent_unless_told_to(
    sandbox: SandboxServer, place: Place
) -> None:
    """What they wrote cannot be known: the letter stays as it is and says so."""
    refuse(sandbox, "ann", 1, "upsert")
    place.produce(event("user.signed_up", "ann", plan="free", country="DE"), event("plan.changed", "ann", plan="pro"))
    async with place.running():
        await place.finished(2)
        place.cluster.delete_records(place.topic, 0, 2)
        before = len(calls(sandbox))
        told = await dlq(place, "replay", "--all", "--wait", status=1)
        assert told["results"][0]["state"] == "failed" and "--overwrite" in told["results"][0]["message"]
        assert len(calls(sandbox)) == before
        (letter,) = await dlq(place, "list")
        assert letter["state"] == "failed"
        told = await dlq(place, "replay", "--all", "--overwrite", "--yes", "--wait")
        assert told["results"][0]["state"] == "replayed"
    assert contact(sandbox, "ann")["custom_fields"] == {"plan": "free", "country": "DE"}


@pytest.mark.slow
async def test_replays_wait_for_a_bridge_and_discarded_letters_are_left_alone(
    sandbox: SandboxServer, place: Place
) -> None:
    """Asked for while nothing runs, carried out by whoever starts; what was discarded meanwhile is not."""
    refuse(sandbox, "ann", None)
    refuse(sandbox, "ben", None)
    place.produce(*(event("plan.changed", user, plan="pro") for user in ("ann", "ben", "ann")))
    async with place.running():
        await place.finished(3)
    heal(sandbox)
    told = await dlq(place, "replay", "--all")
    assert len(told["requested"]) == 3
    (dropped,) = (await dlq(place, "discard", "--contact", "ben@example.com", "--yes"))["discarded"]
    assert dropped["source"] == f"{place.topic}/0/1"
    before = len(calls(sandbox))
    async with place.running():
        listed: list[Any] = [None]
        while listed:
            listed = await dlq(place, "list")
    states = {each["source"][-1]: each["state"] for each in await dlq(place, "list", "--all")}
    assert states == {"0": "replayed", "1": "discarded", "2": "replayed"}
    assert {entry.contact for entry in list(calls(sandbox))[before:]} == {"ann@example.com"}


async def test_a_mended_rule_delivers_what_it_could_not(sandbox: SandboxServer, place: Place, tmp_path: Path) -> None:
    """A letter of kind `rule`: while the rule still fails it stays, with the reason; then its actions are delivered."""
    place.produce(event("user.signed_up", "ann", country="DE"))
    async with place.running():
        await place.finished(1)
        told = await dlq(place, "replay", "--kind", "rule", "--wait", status=1)
        assert told["results"][0]["state"] == "failed" and "data.plan" in told["results"][0]["message"]
    (tmp_path / "rules.yaml").write_text(RULES.replace("${data.plan}", "${default(data.plan, 'free')}"))
    async with place.running():
        told = await dlq(place, "replay", "--kind", "rule", "--wait")
        assert told["results"][0]["state"] == "replayed"
    assert contact(sandbox, "ann")["custom_fields"] == {"plan": "free", "country": "DE"}
    assert emails(sandbox) == ["ann@example.com"]


async def test_without_replays_nothing_asks_for_their_topic(sandbox: SandboxServer, place: Place) -> None:
    """No topic of replays comes into being by looking for it, and looking is rare."""
    place.produce(event("plan.changed", "ann", plan="pro"))
    async with place.running():
        await place.finished(1)
        assert await dlq(place, "list") == []
    cluster = await asyncio.to_thread(probe, place.cluster.bootstrap_servers, {})
    assert f"{place.letters_topic}.replays" not in cluster.topics
