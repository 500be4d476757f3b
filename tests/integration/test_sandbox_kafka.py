"""`sandbox --kafka`: an embedded broker beside the imitation of Meisa, fed over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from confluent_kafka import Consumer, TopicPartition

from bridge.sandbox.options import SandboxOptions
from bridge.sandbox.playground import LINES_MAX, TOPICS
from bridge.sandbox.server import SandboxServer


@pytest.fixture
async def server() -> AsyncIterator[SandboxServer]:
    async with SandboxServer(SandboxOptions(port=0, kafka=True)) as started:
        yield started


async def ask(server: SandboxServer, method: str, path: str = "", **given: Any) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, timeout=20) as client:
        return await client.request(method, f"{server.url}/_sandbox/kafka{path}", **given)


async def test_lines_become_records_with_the_key_and_everything_a_bridge_needs_is_there(server: SandboxServer) -> None:
    """In their order, in one partition; without a key they have none. The topics of dead letters and replays exist."""
    address = (await ask(server, "GET")).text.strip()
    sent = await ask(server, "POST", "/user-events?key=u1", content=b'{"n": 1}\n\n{"n": 2}\n')
    assert (sent.status_code, sent.json()) == (200, {"produced": 2})
    assert (await ask(server, "POST", "/user-events", content=b'{"n": 3}')).json() == {"produced": 1}
    consumer = Consumer({"bootstrap.servers": address, "group.id": "test", "log_level": 0})
    try:
        assert set(consumer.list_topics(timeout=10).topics) >= set(TOPICS)
        consumer.assign([TopicPartition("user-events", number, 0) for number in range(TOPICS["user-events"])])
        records = []
        while len(records) < 3:
            records += consumer.consume(3, 10)
    finally:
        consumer.close()
    of_u1 = [record for record in records if record.key() == b"u1"]
    assert [record.value() for record in of_u1] == [b'{"n": 1}', b'{"n": 2}']
    assert len({record.partition() for record in of_u1}) == 1
    assert [record.value() for record in records if record.key() is None] == [b'{"n": 3}']


async def test_what_cannot_be_is_told(server: SandboxServer) -> None:
    """A topic that is not there, too many lines, a page of another site; nothing is produced then."""
    unknown = await ask(server, "POST", "/orders", content=b"{}")
    many = await ask(server, "POST", "/user-events", content=b"{}\n" * (LINES_MAX + 1))
    foreign = await ask(server, "POST", "/user-events", content=b"{}", headers={"origin": "http://elsewhere"})
    assert [answer.status_code for answer in (unknown, many, foreign)] == [404, 413, 403]
    assert all(answer.json()["error"]["message"] for answer in (unknown, many, foreign))
    assert "user-events" in unknown.json()["error"]["message"]


async def test_without_the_flag_there_is_none() -> None:
    async with SandboxServer(SandboxOptions(port=0)) as plain:
        assert (await ask(plain, "GET")).status_code == 404
