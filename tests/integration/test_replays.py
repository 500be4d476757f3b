"""Dead letters are replayed while the bridge runs: by the command line, on a broker, with the sandbox as judge."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from bridge.replay import service
from bridge.sandbox.faults import Rule
from bridge.sandbox.server import SandboxServer
from tests.support.inprocess import Place, calls, sandbox_options, until
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


@pytest.fixture
async def sandbox() -> AsyncIterator[SandboxServer]:
    async with SandboxServer(sandbox_options()) as server:
        yield server


@pytest.fixture
def place(any_kafka: Cluster, tmp_path: Path, sandbox: SandboxServer) -> Place:
    place = Place(any_kafka, tmp_path, sandbox.base_url, rules=RULES, partitions=1)
    place.settings()
    return place


def event(type: str, user: str, **data: Any) -> dict[str, Any]:
    return {"type": type, "data": {"email": f"{user}@example.com", **data}}


async def dlq(place: Place, *arguments: str, status: int = 0) -> Any:
    """What `meisa-bridge dlq … --json` says."""
    command, *rest = arguments
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bridge", "dlq", command, "-c", str(place.config), "--json", *rest),
        env={**os.environ, "MEISA_API_KEY": "meisa_test_sandbox"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == status, err.decode()
    assert b"Traceback" not in err
    return json.loads(out) if out else err.decode()


def contact(sandbox: SandboxServer, user: str) -> Any:
    return sandbox.sandbox.world("test").contacts.by_email(f"{user}@example.com")


async def test_a_replay_delivers_what_was_missing_and_undoes_nothing(sandbox: SandboxServer, place: Place) -> None:
    """Refused until Meisa was healed, then replayed: the contact has what the letter says, except what a later event
    wrote; its email went out once; and a second replay sends nothing."""
    sandbox.sandbox.faults.add([Rule(contact="ann@example.com", status=400, message="no", times=2)])
    place.produce(
        event("user.signed_up", "ann", plan="free", country="DE", first_name="Ann"),
        event("user.signed_up", "ben", plan="free"),
        event("plan.changed", "ann", plan="pro"),
    )
    async with place.running():
        await place.finished(3)
        letters = await dlq(place, "list")
        assert [(each["kind"], each["action"], each["state"]) for each in letters] == [
            ("rejected", "upsert", "open"),
            ("rejected", "trigger", "open"),
        ]
        told = await dlq(place, "replay", "--all", "--wait")
        assert [result["state"] for result in told["results"]] == ["replayed", "replayed"]
        assert await dlq(place, "list") == []
        before = len(calls(sandbox))
        again = await dlq(place, "replay", f"{place.topic}/0/0", "--wait")
        assert again["requested"] == [] and len(again["skipped"]) == 2
        assert len(calls(sandbox)) == before
    view = sandbox.sandbox
    print(view)
