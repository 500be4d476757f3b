"""Dead letters on the pages of a running bridge: refused, looked at, replayed, delivered once. The sandbox judges."""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bridge.kafka.replays import KafkaLogs
from bridge.replay import desk, service
from bridge.runtime.clock import SystemClock
from bridge.sandbox.faults import Rule
from bridge.sandbox.server import SandboxServer
from tests.support.inprocess import Place, calls, sandbox_options
from tests.support.kafka import Cluster

RULES = """\
rules:
  - name: changed
    match: plan.changed
    do:
      - upsert: {email: "${data.email}", custom_fields: {plan: "${data.plan}", country: "${optional(data.country)}"}}
      - track: {event_name: plan_changed, email: "${data.email}", properties: {plan: "${data.plan}"}}
"""


@pytest.fixture(autouse=True)
def prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests are noticed sooner, and letters read anew at each look."""
    monkeypatch.setattr(service, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(service, "ABSENT_SECONDS", 0.1)
    monkeypatch.setattr(desk, "FRESH_SECONDS", 0.0)


@pytest.fixture
async def sandbox() -> AsyncIterator[SandboxServer]:
    async with SandboxServer(sandbox_options()) as server:
        yield server


def placed(cluster: Cluster, folder: Path, sandbox: SandboxServer, **quota: int) -> Place:
    place = Place(cluster, folder, sandbox.base_url, rules=RULES, partitions=1)
    place.sections["meisa"]["quota"] |= quota
    place.settings()
    return place


def event(user: str, plan: str, **data: Any) -> dict[str, Any]:
    return {"type": "plan.changed", "data": {"email": f"{user}@example.com", "plan": plan, **data}}


def refuse(sandbox: SandboxServer, user: str) -> None:
    sandbox.sandbox.faults.add([Rule(endpoint="*", contact=f"{user}@example.com", status=400, message="no")])


async def hour(place: Place) -> int:
    """Calls that the bridge has counted in the hour's window."""
    used: int = next(each["used"] for each in (await place.status())["quota"] if each["window"] == "hour")
    return used


class Visitor:
    """What somebody does in a browser."""

    def __init__(self, place: Place) -> None:
        self.place = place

    async def get(self, path: str) -> str:
        answer = await self.place.get(path)
        assert answer.status_code == 200, answer.text
        return answer.text

    async def press(self, page: str, *boxes: str) -> httpx.Response:
        action, inside = re.findall(r'<form class="decide" method="post" action="([^"]+)">(.*?)</form>', page)[0]
        fields = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', inside)
        data: dict[str, list[str]] = {}
        for name, value in [*fields, *((box, "yes") for box in boxes)]:
            data.setdefault(name, []).append(value)
        async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
            return await client.post(self.place.url + action, data=data, headers={"origin": self.place.url})

    async def states(self) -> list[str]:
        facts = (await self.place.get("/api/dead-letters?state=all")).json()
        return [each["state"] for each in reversed(facts["letters"])]

    async def until(self, *states: str) -> None:
        async with asyncio.timeout(20):
            while await self.states() != list(states):
                await asyncio.sleep(0.1)


async def test_what_was_refused_is_replayed_from_the_page_in_order_and_once(
    any_kafka: Cluster, tmp_path: Path, sandbox: SandboxServer
) -> None:
    """The page tells first what is left out; then each missing action leaves once, in the order of the source, and what
    a later event wrote stays."""
    place = placed(any_kafka, tmp_path, sandbox)
    refuse(sandbox, "ann")
    place.produce(event("ann", "free", country="DE"), event("ann", "pro"), event("ben", "free"))
    visitor = Visitor(place)
    async with place.running():
        await place.finished(3)
        listed = await visitor.get("/dead-letters")
        assert "a***@example.com" in listed and "ann@" not in listed
        sandbox.sandbox.faults.clear()
        place.produce(event("ann", "team"))
        await place.finished(4)
        before, used = len(calls(sandbox)), await hour(place)
        form = await visitor.get("/dead-letters/replay?kind=rejected")
        assert "leaves out what later events wrote: custom_fields.plan" in form
        assert len(calls(sandbox)) == before
        assert (await visitor.press(form)).status_code == 303
        await visitor.until(*["replayed"] * len(await visitor.states()))
        again = await visitor.press(form)
        assert again.status_code == 409
        sent = list(calls(sandbox))[before:]
        tracked = [entry for entry in sent if entry.endpoint == "track"]
        assert len(tracked) == 2 and {entry.contact for entry in sent} == {"ann@example.com"}
        contacts = sandbox.sandbox.worlds["test"].contacts
        found = contacts.find("ann@example.com")
        assert found is not None
        assert contacts.view(found)["custom_fields"] == {"plan": "team", "country": "DE"}
        plans = [json.loads(entry.body)["properties"]["plan"] for entry in tracked]
        assert plans == ["free", "pro"]
        assert await hour(place) == used + len(sent), "a replay's calls count like all others"


@pytest.mark.slow
async def test_a_bridge_that_was_stopped_meanwhile_goes_on(
    embedded_kafka: Cluster, tmp_path: Path, sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was asked for on the page stays asked for."""
    place = placed(embedded_kafka, tmp_path, sandbox)
    refuse(sandbox, "ann")
    place.produce(event("ann", "free"))
    visitor = Visitor(place)
    monkeypatch.setattr(service, "ABSENT_SECONDS", 60.0)
    async with place.running():
        await place.finished(1)
        form = await visitor.get("/dead-letters/replay?kind=rejected")
        await visitor.press(form)
        assert set(await visitor.states()) == {"requested"}
    sandbox.sandbox.faults.clear()
    before = len(calls(sandbox))
    async with place.running():
        await visitor.until(*["replayed"] * len(await visitor.states()))
    assert [entry.endpoint for entry in list(calls(sandbox))[before:]] == ["upsert", "track"]


@pytest.mark.slow
async def test_a_discarded_letter_is_left_alone(
    embedded_kafka: Cluster, tmp_path: Path, sandbox: SandboxServer
) -> None:
    """By the page, seen by the command line's own topic, and by what a replay of all sends."""
    place = placed(embedded_kafka, tmp_path, sandbox)
    refuse(sandbox, "ann")
    refuse(sandbox, "ben")
    place.produce(event("ann", "free"), event("ben", "free"))
    visitor = Visitor(place)
    async with place.running():
        await place.finished(2)
        facts = (await place.get("/api/dead-letters")).json()
        anns = [each["letter"] for each in facts["letters"] if each["contact"] == "a***@example.com"]
        for name in anns:
            await visitor.press(await visitor.get(f"/dead-letters/discard?letter={name}"))
        sandbox.sandbox.faults.clear()
        before = len(calls(sandbox))
        await visitor.press(await visitor.get("/dead-letters/replay"))
        async with asyncio.timeout(20):
            while {"replayed", "discarded"} != set(await visitor.states()):
                await asyncio.sleep(0.1)
        assert {entry.contact for entry in list(calls(sandbox))[before:]} == {"ben@example.com"}


@pytest.mark.slow
async def test_a_broker_that_is_away_is_told_within_seconds() -> None:
    """Who looks waits a moment; the reason is there as soon as it is known, and closing does not hang."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
    away = desk.Desk(
        lambda: KafkaLogs(f"127.0.0.1:{port}", "beside"),
        lambda logs: pytest.fail("nothing is planned"),
        topic="letters",
        replays_topic="letters.replays",
        topics=[],
        clock=SystemClock(),
    )
    async with asyncio.timeout(desk.WAIT_SECONDS + 2):
        first = await away.look()
    assert first.letters == () and (first.reading or first.problem)
    async with asyncio.timeout(20):
        while not (await away.look(wait_seconds=0.2)).problem:
            pass
        await away.close()
