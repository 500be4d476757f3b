"""The benchmarks' light API tells order, overlap and repetition apart; otherwise no benchmark proves anything."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

SERVER = Path(__file__).parents[2] / "benchmarks" / "api_server.py"


@pytest.fixture(scope="module")
def server() -> Iterator[dict[str, Any]]:
    command = [sys.executable, str(SERVER), "--port", "0", "--latency-ms", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())
        finally:
            process.terminate()
        assert process.wait(10) == 0


@pytest.fixture
def client(server: dict[str, Any]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server["url"]) as client:
        client.post("/reset", params={"latency_ms": 0})
        yield client


def upsert(client: httpx.Client, email: str, seq: int) -> httpx.Response:
    return client.post("/api/v1/contacts/upsert/", json={"email": email, "custom_fields": {"seq": seq}})


def track(client: httpx.Client, email: str, seq: int, name: str = "login") -> httpx.Response:
    body = {"email": email, "event_name": name, "properties": {"seq": seq}}
    return client.post("/api/v1/events/track/", json=body)


def report(client: httpx.Client) -> dict[str, Any]:
    answer: dict[str, Any] = client.get("/report").json()
    return answer


def test_calls_in_order_are_no_violation(client: httpx.Client) -> None:
    """An event's upsert and its track carry the same number; gaps are no disorder either."""
    for seq in (1, 2, 5):
        assert upsert(client, "a@example.com", seq).status_code == 200
        assert track(client, " A@example.com", seq).json()["status"] == "tracked"
    upsert(client, "b@example.com", 1)
    facts = report(client)
    assert (facts["calls"], facts["contacts"], facts["distinct_seqs"]) == (7, 2, 4)
    assert facts["covered"] == 5 + 1
    assert (facts["out_of_order"], facts["duplicates"], facts["overlapping"], facts["without_seq"]) == (0, 0, 0, 0)
    assert facts["by_path"] == {"/contacts/upsert/": 4, "/events/track/": 3}


def test_disorder_and_repetition_are_counted(client: httpx.Client) -> None:
    for seq in (1, 3, 2, 3):
        upsert(client, "a@example.com", seq)
    facts = report(client)
    assert (facts["out_of_order"], facts["duplicates"]) == (1, 1)


async def test_two_calls_of_one_contact_at_once_are_seen(server: dict[str, Any]) -> None:
    async with httpx.AsyncClient(base_url=server["url"]) as client:
        await client.post("/reset", params={"latency_ms": 200})
        bodies = [
            {"email": email, "custom_fields": {"seq": 1}} for email in ("a@example.com", "a@example.com", "b@x.org")
        ]
        await asyncio.gather(*(client.post("/api/v1/contacts/upsert/", json=body) for body in bodies))
        facts = (await client.get("/report")).json()
    assert (facts["overlapping"], facts["in_flight"], facts["in_flight_max"]) == (1, 0, 3)
    assert facts["seconds"] >= 0.2


def test_it_answers_what_a_client_asks_at_its_start(client: httpx.Client) -> None:
    ping = client.get("/api/v1/ping/", headers={"x-api-key": "meisa_test_x"}).json()
    assert (ping["environment"], "emails:trigger" in ping["scopes"]) == ("test", True)
    assert client.get("/api/v1/contacts/api/unsubscribed-emails/").json()["emails"] == []
    assert client.get("/api/v1/nowhere/").status_code == 404
    assert client.post("/api/v1/contacts/upsert/", content=b"[]").status_code == 400
    assert client.post("/api/v1/contacts/upsert/", content=b"{").status_code == 400


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/emails/trigger/", {"to_email": "a@example.com", "trigger_key": "welcome", "variables": {"seq": 1}}),
        ("/sequences/enroll/", {"email": "a@example.com", "sequence_slug": "s", "metadata": {"seq": 1}}),
        ("/contacts/3f2a/add_tag/", {"tag_name": "trial"}),
    ],
)
def test_the_other_calls_are_answered_too(client: httpx.Client, path: str, body: dict[str, Any]) -> None:
    assert client.post(f"/api/v1{path}", json=body).status_code == 200
    assert report(client)["without_seq"] == int(path.endswith("_tag/"))


def test_the_answers_satisfy_the_bridges_own_models(client: httpx.Client) -> None:
    """A benchmark in which every answer is judged broken would measure something else."""
    from bridge.meisa.models import ContactAnswer, Ping, Tracked, Unsubscribed

    ContactAnswer.model_validate(upsert(client, "a@example.com", 1).json())
    Tracked.model_validate(track(client, "a@example.com", 1).json())
    Ping.model_validate(client.get("/api/v1/ping/").json())
    Unsubscribed.model_validate(client.get("/api/v1/contacts/api/unsubscribed-emails/").json())
