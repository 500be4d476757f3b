"""A running service shows none of its secrets, even where the API answers with the very request that held the key."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from pathlib import Path

import httpx
import pytest

from bridge.observe.logs import configure
from tests.support.inprocess import Place, until
from tests.support.kafka import Cluster
from tests.support.misbehaving import MisbehavingServer, Peer

API_KEY = "meisa_test_5up3rS3cr3tKey"
TRIGGER_KEY = "meisa_test_0th3rS3cr3tKey"
ADMIN_TOKEN = "4dm1nS3cr3t"
KAFKA_PASSWORD = "k4fk4S3cr3t"
REGISTRY_AUTH = "reader:r3g1stryS3cr3t"
REDIS_PASSWORD = "r3d1sS3cr3t"

TRACES = [
    API_KEY.removeprefix("meisa_test_"),
    TRIGGER_KEY.removeprefix("meisa_test_"),
    ADMIN_TOKEN,
    KAFKA_PASSWORD,
    REGISTRY_AUTH.partition(":")[2],
    REDIS_PASSWORD,
    base64.b64encode(REGISTRY_AUTH.encode()).decode(),
    base64.b64encode(f"x:{ADMIN_TOKEN}".encode()).decode(),
]

RULES = """\
rules:
  - name: signup
    match: user.signed_up
    do:
      - upsert: {email: "${data.email}"}
      - trigger: {trigger_key: welcome, to_email: "${data.email}"}
  - name: broken
    match: user.broken
    do:
      - upsert: {email: "${data.nothing}"}
"""


@pytest.fixture
def log() -> io.StringIO:
    """All that the service logs, at the level at which it says most."""
    stream = io.StringIO()
    configure(stream, "debug", show_contacts=True)
    return stream


async def echo(peer: Peer) -> None:
    """Lets itself be pinged, and refuses all else with answers that repeat the request, and with it the key."""
    while True:
        body = await peer.read_request()
        head = peer.server.heads[-1].decode()
        answer = json.dumps({"detail": f"what is this? {head}", "error": head, "you_sent": body.decode()}).encode()
        if " /api/v1/ping/ " in head:
            granted = {"scopes": ["contacts:write", "emails:send"], "environment": "test", "product": head}
            ping = json.dumps(granted).encode()
            await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
            await peer.send(b"Content-Length: %d\r\n\r\n" % len(ping) + ping)
            continue
        line = b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json"
        await peer.send(line + b"\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer)


async def test_no_secret_shows_in_logs_metrics_status_pages_letters_or_settings(
    embedded_kafka: Cluster, tmp_path: Path, log: io.StringIO
) -> None:
    """With a registry and a Redis that are away, refused calls, rules that fail, and records that cannot be read."""
    async with MisbehavingServer(echo) as api:
        base_url = f"http://127.0.0.1:{api.port}/api/v1"
        place = Place(embedded_kafka, tmp_path, base_url, rules=RULES, partitions=1)
        avro = embedded_kafka.create_topic(f"{place.topic}-avro", 1)
        place.sections["kafka"]["properties"] = {"sasl.password": {"env": "KAFKA_PASSWORD"}}
        place.sections["topics"][avro] = {
            "format": "avro",
            "registry": {"url": "http://127.0.0.1:1", "basic_auth": {"env": "REGISTRY_AUTH"}},
        }
        place.sections["meisa"]["keys"] = {"trigger": {"env": "TRIGGER_KEY"}}
        place.sections["meisa"]["quota"]["shared"] = {"env": "SHARED"}
        place.sections["admin"]["token"] = {"env": "ADMIN_TOKEN"}
        environ = {
            "KAFKA_PASSWORD": KAFKA_PASSWORD,
            "REGISTRY_AUTH": REGISTRY_AUTH,
            "TRIGGER_KEY": TRIGGER_KEY,
            "ADMIN_TOKEN": ADMIN_TOKEN,
            "SHARED": "partitions",
        }
        settings = place.settings(API_KEY, **environ)
        away = place.settings(API_KEY, **{**environ, "SHARED": f"redis://user:{REDIS_PASSWORD}@127.0.0.1:1/0"})
        place.produce(
            {"type": "user.signed_up", "data": {"email": "ada@example.com"}},
            {"type": "user.broken", "data": {}},
            b"no json",
        )
        embedded_kafka.produce(avro, b"\x00\x00\x00\x00\x07rest")
        shown = [repr(settings), str(settings), repr(away), str(away)]
        authorization = {"authorization": f"Bearer {ADMIN_TOKEN}"}
        async with place.running(settings), httpx.AsyncClient(base_url=place.url, headers=authorization) as client:
            await asyncio.to_thread(until_committed, place, 3)
            await until(lambda: "registry" in log.getvalue(), "a word about the registry")
            for path in ("/api/status", "/", "/metrics", "/readyz", "/livez"):
                answer = await client.get(path)
                assert answer.is_success
                shown += [answer.text, str(answer.headers)]
            letter_pages = ["/dead-letters", "/dead-letters/replay", "/dead-letters/discard", "/api/dead-letters"]
            for each in (await client.get("/api/dead-letters")).json()["letters"]:
                letter_pages += [f"/dead-letters/{each['letter']}", f"/api/dead-letters/{each['letter']}"]
            assert len(letter_pages) > 4
            for path in letter_pages:
                answer = await client.get(path, timeout=30)
                assert answer.is_success
                shown += [answer.text, str(answer.headers)]
            wrong = await client.get("/api/status", headers={"authorization": "Bearer other"})
            assert wrong.status_code == 401
            shown.append(wrong.text)
        letters = place.letters()
        assert {headers["kind"] for _, headers in letters} == {"rejected", "rule", "decode"}
        assert any("what is this?" in headers.get("response", "") for _, headers in letters), "the echo was kept"
        shown += [repr(headers) for _, headers in letters]
        shown += [repr((message.key(), message.value())) for message, _ in letters]
        shown.append(log.getvalue())
    for trace in TRACES:
        for text in shown:
            where = text.find(trace)
            assert where < 0, f"a secret shows: …{text[max(0, where - 200) : where]}[here]"


def until_committed(place: Place, count: int) -> None:
    asyncio.run(place.finished(count))
