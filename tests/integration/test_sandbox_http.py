"""The sandbox over real sockets: framing, cut answers, control API, page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

import bridge.sandbox
from bridge.sandbox.faults import Rule
from bridge.sandbox.options import SandboxOptions
from bridge.sandbox.server import SandboxServer

KEY = "meisa_test_sandbox"
UPSERT = b'{"email": "a@example.com"}'


@pytest.fixture
async def server() -> AsyncIterator[SandboxServer]:
    options = SandboxOptions(port=0, per_minute=0, per_hour=0, seed=1, body_bytes_max=10_000, hang_seconds=0.05)
    async with SandboxServer(options) as running:
        yield running


@pytest.fixture
async def client(server: SandboxServer) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, headers={"X-API-Key": KEY}, timeout=5, trust_env=False) as made:
        yield made


def request(body: bytes = UPSERT, path: str = "/contacts/upsert/", *extra: str) -> bytes:
    lines = [
        f"POST /api/v1{path} HTTP/1.1",
        "Host: sandbox",
        f"X-API-Key: {KEY}",
        f"Content-Length: {len(body)}",
        *extra,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def talk(server: SandboxServer, *parts: bytes) -> bytes:
    """Sends the parts, and returns all that comes until the server closes. A reset raises ConnectionResetError."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        async with asyncio.timeout(5):
            return await reader.read()
    finally:
        writer.close()


def statuses(answer: bytes) -> list[int]:
    return [int(part[:3]) for part in answer.split(b"HTTP/1.1 ")[1:]]


# -- framing


async def test_answers_carry_date_length_and_type(client: httpx.AsyncClient, server: SandboxServer) -> None:
    """The Date header is the sandbox's own clock, also after it was moved."""
    server.clock.advance(7200)
    answer = await client.get("/api/v1/ping/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert abs(parsedate_to_datetime(answer.headers["date"]).timestamp() - server.clock.now()) < 5


async def test_requests_in_pieces_and_pipelined_are_answered_in_order(server: SandboxServer) -> None:
    """However the bytes arrive, each request is carried out once and answered in its turn."""
    whole = request() + request(b"{", "/contacts/upsert/") + request(UPSERT, "/contacts/upsert/", "Connection: close")
    for size in (1, 7, 64, len(whole)):
        parts = [whole[start : start + size] for start in range(0, len(whole), size)]
        answer = await talk(server, *parts)
        assert statuses(answer)[1:] == [400, 200]
        assert statuses(answer)[0] in (200, 201)
    assert [entry.answered for entry in server.sandbox.ledger.entries] == [True] * 12


async def test_many_pipelined_requests_wait_for_a_slow_answer(server: SandboxServer) -> None:
    """More than the connection queues: reading stops meanwhile, all are answered in the end."""
    server.sandbox.faults.rates.latency_ms = 1
    bodies = [b'{"email": "%d@example.com"}' % number for number in range(60)]
    parts = [request(body) for body in bodies]
    answer = await talk(server, *parts, request(UPSERT, "/contacts/upsert/", "Connection: close"))
    assert statuses(answer) == [201] * 61
    arrived = [entry.contact for entry in server.sandbox.ledger.entries]
    assert arrived == [f"{number}@example.com" for number in range(60)] + ["a@example.com"]


async def test_a_client_that_pipelines_without_end_is_held_back(server: SandboxServer) -> None:
    """While an answer waits the socket is read no further, so that what is queued stays bounded."""
    server.sandbox.faults.rates.latency_ms = 60_000
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request() * 100_000)
    async with asyncio.timeout(5):
        while writer.transport.get_write_buffer_size() == 0 or not server.sandbox.ledger.entries:
            await asyncio.sleep(0.002)
    assert server._http is not None
    (connection,) = server._http.connections
    async with asyncio.timeout(5):
        while connection._reading:
            await asyncio.sleep(0.002)
    for _ in range(100):  # whoever still reads takes in a chunk with each turn of the loop
        await asyncio.sleep(0)
    assert len(connection._waiting) < 5_000  # one chunk of the socket: 256 KiB
    assert len(server.sandbox.ledger.entries) == 1
    writer.transport.abort()


async def test_chunked_bodies_and_expect_continue(server: SandboxServer) -> None:
    head = f"POST /api/v1/contacts/upsert/ HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEY}\r\nConnection: close\r\n".encode()
    chunked = (
        head + b"Transfer-Encoding: chunked\r\n\r\n5\r\n" + UPSERT[:5] + b"\r\n15\r\n" + UPSERT[5:] + b"\r\n0\r\n\r\n"
    )
    assert statuses(await talk(server, chunked)) == [201]
    waiting = head + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(UPSERT)
    assert statuses(await talk(server, waiting, UPSERT)) == [100, 200]


async def test_http_1_0_and_head_end_as_they_should(server: SandboxServer) -> None:
    """HTTP/1.0 closes after its answer; HEAD has no body."""
    answer = await talk(server, f"GET /api/v1/ping/ HTTP/1.0\r\nX-API-Key: {KEY}\r\n\r\n".encode())
    assert statuses(answer) == [200]
    headed = await talk(server, b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert headed.endswith(b"\r\n\r\n")
    assert b"content-length: 0" not in headed


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000 + b"\r\n\r\n",
    ],
)
async def test_garbage_is_refused_and_the_server_lives(server: SandboxServer, garbage: bytes) -> None:
    answer = await talk(server, garbage)
    assert statuses(answer) in ([400], [431])
    assert statuses(await talk(server, request(UPSERT, "/contacts/upsert/", "Connection: close"))) == [201]


async def test_a_body_over_the_limit_is_413_and_dropped(client: httpx.AsyncClient, server: SandboxServer) -> None:
    """The answer arrives although the client is still sending; nothing is carried out."""
    for size in (10_001, 2_000_000):
        answer = await client.post("/api/v1/contacts/upsert/", content=b"x" * size)
        assert answer.status_code == 413
        assert "10000" in answer.json()["error"]["message"]
    assert (await client.get("/api/v1/ping/")).status_code == 200
    assert not server.sandbox.worlds["test"].contacts.by_id


async def test_a_mistake_in_the_sandbox_is_500_and_the_connection_goes_on(
    server: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shows, and hurts nobody else: the next request on the same connection is answered."""
    open_entry = server.sandbox.ledger.open

    def fails_once(*given: Any) -> Any:
        monkeypatch.setattr(server.sandbox.ledger, "open", open_entry)
        raise ZeroDivisionError

    monkeypatch.setattr(server.sandbox.ledger, "open", fails_once)
    answer = await talk(server, request(), request(UPSERT, "/contacts/upsert/", "Connection: close"))
    assert statuses(answer) == [500, 201]


# -- faults


@pytest.mark.parametrize(("cut", "carried_out"), [("before", False), ("after", True)])
async def test_a_cut_answer_closes_without_a_byte(server: SandboxServer, cut: str, carried_out: bool) -> None:
    """The client sees the connection end; the ledger tells whether the work was done, and that nobody was told."""
    server.sandbox.faults.add([Rule.parse({"cut": cut, "times": 1})])
    assert await talk(server, request()) == b""
    (entry,) = server.sandbox.ledger.entries
    assert (entry.carried_out, entry.answered) == (carried_out, False)
    assert bool(server.sandbox.worlds["test"].contacts.by_id) is carried_out


async def test_half_an_answer_ends_inside_its_body(server: SandboxServer) -> None:
    server.sandbox.faults.add([Rule.parse({"cut": "half"})])
    head, _, body = (await talk(server, request())).partition(b"\r\n\r\n")
    promised = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    assert head.startswith(b"HTTP/1.1 201 ")
    assert 0 < len(body) < promised
    (entry,) = server.sandbox.ledger.entries
    assert (entry.carried_out, entry.answered) == (True, False)


async def test_a_cut_can_be_a_reset(server: SandboxServer) -> None:
    server.sandbox.faults.add([Rule.parse({"cut": "after", "reset": True})])
    with pytest.raises(ConnectionResetError):
        await talk(server, request())
    assert server.sandbox.worlds["test"].contacts.by_id


async def test_a_hanging_call_is_closed_in_the_end(server: SandboxServer) -> None:
    server.sandbox.faults.add([Rule.parse({"hang": "after"})])
    assert await talk(server, request()) == b""
    (entry,) = server.sandbox.ledger.entries
    assert (entry.carried_out, entry.answered) == (True, False)


async def test_a_client_that_gives_up_was_not_answered(server: SandboxServer) -> None:
    """The call is carried out on arrival; the ledger knows that its answer found nobody."""
    server.sandbox.faults.rates.latency_ms = 60_000
    _, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(request())
    await writer.drain()
    entries = server.sandbox.ledger.entries
    async with asyncio.timeout(5):
        while not entries:
            await asyncio.sleep(0.002)
        (entry,) = entries
        assert (entry.carried_out, entry.answered) == (True, None)
        writer.transport.abort()
        while entry.answered is None:
            await asyncio.sleep(0.002)
    assert entry.answered is False


async def test_calls_are_carried_out_in_order_of_arrival_whatever_their_latency(client: httpx.AsyncClient) -> None:
    """A slow answer does not delay the work behind it: order in the ledger is order of effect."""
    await client.post("/_sandbox/faults", json={"rules": [{"contact": "slow@example.com", "latency_ms": 60}]})
    slow = asyncio.create_task(client.post("/api/v1/contacts/upsert/", json={"email": "slow@example.com"}))
    while not (await client.get("/_sandbox/ledger")).json()["entries"]:
        await asyncio.sleep(0.002)
    assert (await client.post("/api/v1/contacts/upsert/", json={"email": "fast@example.com"})).status_code == 201
    entries = (await client.get("/_sandbox/ledger")).json()["entries"]
    assert [(entry["contact"], entry["carried_out"]) for entry in entries] == [
        ("slow@example.com", True),
        ("fast@example.com", True),
    ]
    assert (await slow).status_code == 201


# -- closing


async def test_closing_lets_answers_under_way_leave_and_cuts_idle_connections() -> None:
    async with SandboxServer(SandboxOptions(port=0, latency_ms=50)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        idle_reader, idle_writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(request())
        await writer.drain()
        async with asyncio.timeout(5):
            while not server.sandbox.ledger.entries:
                await asyncio.sleep(0.002)
            await server.close()
            assert statuses(await reader.read()) == [201]
            assert await idle_reader.read() == b""
        for one in (writer, idle_writer):
            one.close()
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", server.port)


async def test_an_idle_connection_is_closed() -> None:
    async with SandboxServer(SandboxOptions(port=0, keep_alive_seconds=0.05)) as server:
        assert statuses(await talk(server, request())) == [201]  # talk ends only when the server closes


# -- the control API


async def control(client: httpx.AsyncClient, name: str, body: Any) -> Any:
    answer = await client.post(f"/_sandbox/{name}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_faults_are_switched_over_http(client: httpx.AsyncClient) -> None:
    shown = await control(client, "faults", {"error_rate": 1, "rules": [{"endpoint": "ping", "status": 418}]})
    assert shown["error_rate"] == 1
    assert (await client.get("/api/v1/ping/")).status_code == 418
    assert (await client.get("/api/v1/sequences/api/list/")).status_code >= 500
    assert (await client.delete("/_sandbox/faults")).json()["rules"] == []
    assert (await client.get("/api/v1/ping/")).status_code == 200


async def test_a_wrong_fault_changes_nothing(client: httpx.AsyncClient) -> None:
    """All of a request or nothing, with a message that names what is wrong."""
    for body, word in [
        ({"error_rate": 1, "eror_rate": 1}, "eror_rate"),
        ({"error_rate": 2}, "error_rate"),
        ({"error_rate": "1"}, "number"),
        ({"error_rate": 1, "rules": [{"status": 1}]}, "status"),
        ({"rules": {}}, "rules"),
    ]:
        answer = await client.post("/_sandbox/faults", json=body)
        assert answer.status_code == 400
        assert word in answer.json()["error"]["message"]
    assert (await client.get("/_sandbox/faults")).json()["error_rate"] == 0
    assert (await client.get("/_sandbox/faults")).json()["rules"] == []


async def test_keys_are_made_changed_and_revoked(client: httpx.AsyncClient) -> None:
    """A new key works at once with its scopes and quota; changing one thing leaves the rest."""
    made = {"key": "meisa_live_new", "scopes": ["contacts:read"], "per_minute": 1, "algorithm": "fixed"}
    shown = await control(client, "keys", made)
    assert (shown["environment"], shown["quota"]["minute"]["limit"], shown["quota"]["hour"]["limit"]) == ("live", 1, 0)
    with_key = {"X-API-Key": "meisa_live_new"}
    assert (await client.get("/api/v1/ping/", headers=with_key)).json()["scopes"] == ["contacts:read"]
    assert (await client.get("/api/v1/ping/", headers=with_key)).status_code == 429
    await control(client, "keys", {"key": "meisa_live_new", "revoked": True})
    assert (await client.get("/api/v1/ping/", headers=with_key)).status_code == 401
    shown = await control(client, "keys", {"key": "meisa_live_new", "revoked": False, "per_minute": 5})
    assert (shown["scopes"], shown["quota"]["algorithm"]) == (["contacts:read"], "fixed")
    assert (await client.get("/api/v1/ping/", headers=with_key)).status_code == 200
    for wrong in ({"key": "sk_1"}, {"key": KEY, "scopes": ["all"]}, {"key": KEY, "per_minute": -1}, {}):
        assert (await client.post("/_sandbox/keys", json=wrong)).status_code == 400


async def test_the_dashboards_part_is_set_over_http(client: httpx.AsyncClient) -> None:
    """Suppression, triggers, sequences, enrollments and the clock."""
    send = {"trigger_key": "welcome", "to_email": "a@example.com", "idempotency_key": "k"}
    await control(client, "suppress", {"email": "a@example.com", "reason": "bounced"})
    assert (await client.post("/api/v1/emails/trigger/", json=send)).status_code == 422
    listed = (await client.get("/api/v1/contacts/api/unsubscribed-emails/")).json()
    assert listed["emails"] == ["a@example.com"]
    assert (await control(client, "allow", {"email": "a@example.com"}))["was_suppressed"] is True
    await control(client, "triggers", {"trigger_key": "welcome", "delay_seconds": 60})
    assert (await client.post("/api/v1/emails/trigger/", json=send)).status_code == 202
    await control(client, "triggers", {"trigger_key": "welcome", "active": False})
    assert (await client.post("/api/v1/emails/trigger/", json=send)).status_code == 400

    await control(client, "triggers", {"trigger_key": "welcome", "environment": "test"})
    assert (await client.post("/api/v1/emails/trigger/", json=send)).status_code == 202  # the first answer again
    await control(client, "clock", {"advance_seconds": 3600})
    assert (await client.post("/api/v1/emails/trigger/", json=send)).status_code == 200
    emails = (await client.get("/_sandbox/emails", params={"environment": "test"})).json()
    assert [email["status"] for email in emails["entries"]] == ["sent", "sent"]

    enroll = {"email": "a@example.com", "sequence_slug": "onboarding"}
    await control(client, "sequences", {"sequence_slug": "onboarding", "status": "inactive"})
    assert (await client.post("/api/v1/sequences/enroll/", json=enroll)).status_code == 400
    await control(client, "sequences", {"sequence_slug": "onboarding", "status": "active", "name": "Welcome"})
    assert (await client.post("/api/v1/sequences/enroll/", json=enroll)).status_code == 201
    assert (await client.post("/api/v1/sequences/enroll/", json=enroll)).status_code == 409
    await control(client, "enrollments", {**enroll, "status": "completed"})
    assert (await client.post("/api/v1/sequences/enroll/", json=enroll)).status_code == 201
    (story,) = (await client.get("/_sandbox/contacts", params={"email": "a@example.com"})).json()["contacts"]
    assert [held["status"] for held in story["enrollments"]] == ["completed", "active"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "nothing", None, 404),
        ("PUT", "faults", b"{}", 405),
        ("GET", "keys", None, 405),
        ("POST", "keys", b"[", 400),
        ("POST", "keys", b"[]", 400),
        ("POST", "suppress", b'{"email": "a@example.com", "reason": "shy"}', 400),
        ("POST", "suppress", b'{"email": "nobody"}', 400),
        ("POST", "triggers", b'{"trigger_key": "k", "delay_seconds": "1"}', 400),
        ("POST", "triggers", b'{"trigger_key": "k", "delay_seconds": true}', 400),
        ("POST", "triggers", b'{"trigger_key": "k", "environment": "stage"}', 400),
        ("POST", "sequences", b'{"sequence_slug": "s", "status": "paused"}', 400),
        ("POST", "enrollments", b'{"email": "a@example.com", "sequence_slug": "s", "status": "paused"}', 404),
        ("POST", "clock", b'{"advance_seconds": -1}', 400),
        ("POST", "clock", b'{"advance_seconds": "1h"}', 400),
        ("GET", "ledger?limit=-1", None, 400),
        ("GET", "ledger?limit=100000", None, 400),
        ("GET", "emails?environment=stage", None, 400),
    ],
)
async def test_control_mistakes_have_a_readable_answer(
    client: httpx.AsyncClient, method: str, path: str, body: bytes | None, status: int
) -> None:
    answer = await client.request(method, f"/_sandbox/{path}", content=body)
    assert answer.status_code == status
    assert len(answer.json()["error"]["message"]) > 10


async def test_the_ledger_is_read_in_pages(client: httpx.AsyncClient) -> None:
    """`next` goes on exactly behind the last entry; filters keep their place."""
    for number in range(25):
        await client.post(
            "/api/v1/contacts/upsert/", json={"email": f"{number % 2}@example.com", "first_name": f"{number}"}
        )
    seen, since = [], 0
    while page := (await client.get("/_sandbox/ledger", params={"since": since, "limit": 10})).json():
        seen += [entry["body"]["first_name"] for entry in page["entries"]]
        if not page["entries"]:
            break
        since = page["next"]
    assert seen == [f"{number}" for number in range(25)]
    params = {"contact": "1@example.com", "limit": 5, "endpoint": "upsert"}
    page = (await client.get("/_sandbox/ledger", params=params)).json()
    assert [entry["number"] for entry in page["entries"]] == [2, 4, 6, 8, 10]
    assert page["next"] == 10
    (await client.get("/_sandbox/automations", params={"since": 1, "limit": 1})).raise_for_status()


async def test_reset_begins_anew(client: httpx.AsyncClient, server: SandboxServer) -> None:
    await client.post("/api/v1/contacts/upsert/", json={"email": "a@example.com"})
    await control(client, "faults", {"error_rate": 1})
    await control(client, "reset", {})
    state = (await client.get("/_sandbox/state")).json()
    assert state["environments"]["test"]["contacts"] == 0
    assert state["counts"] == {}
    assert state["faults"]["error_rate"] == 0
    assert (await client.get("/api/v1/ping/")).status_code == 200


async def test_foreign_pages_cannot_change_anything(client: httpx.AsyncClient, server: SandboxServer) -> None:
    """A POST with another page's Origin is refused; the sandbox's own page may."""
    for origin, status in [("http://evil.example", 403), ("null", 403), (server.url, 200)]:
        answer = await client.post("/_sandbox/reset", json={}, headers={"Origin": origin})
        assert answer.status_code == status


# -- the page

HOSTILE = '"><img src=x onerror=alert(1)></script><script>alert(1)</script>'


async def test_the_page_and_its_files_are_served(client: httpx.AsyncClient) -> None:
    """Everything that the page names is there, and it may load nothing from elsewhere."""
    page = await client.get("/")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    for path, kind in [
        ("/favicon.ico", "image/svg+xml"),
        ("/_sandbox/page.js", "text/javascript"),
        ("/_sandbox/page.css", "text/css"),
    ]:
        assert path in page.text
        served = await client.get(path)
        assert served.status_code == 200
        assert served.headers["content-type"].startswith(kind)
    assert "prefers-color-scheme: dark" in (await client.get("/_sandbox/page.css")).text


async def test_hostile_values_stay_data(client: httpx.AsyncClient) -> None:
    """Values reach the page only as JSON, and the page puts them in as text only."""
    body = {
        "email": "a@example.com",
        "external_id": HOSTILE,
        "custom_fields": {HOSTILE: HOSTILE},
        "tag_names": [HOSTILE],
    }
    await client.post("/api/v1/contacts/upsert/", json=body)
    answer = await client.get("/_sandbox/overview")
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    shown = answer.json()
    assert shown["contacts"][0]["external_id"] == HOSTILE
    assert shown["ledger"][0]["body"] == body
    page = (await client.get("/")).text
    script = (await client.get("/_sandbox/page.js")).text
    assert "alert(1)" not in page
    for unsafe in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "setAttribute"):
        assert unsafe not in script
    assert "textContent" in script


async def test_the_overview_is_small_however_much_there_is(client: httpx.AsyncClient) -> None:
    """At most 50 entries of each kind, so that the page can ask every second; found by part of a name."""
    emails = [f"user{number}@example.com" for number in range(400)]
    await client.post("/api/v1/sequences/api/bulk-enroll/", json={"sequence_slug": "s", "emails": emails})
    shown = (await client.get("/_sandbox/overview", params={"search": "USER39"})).json()
    assert {contact["email"] for contact in shown["contacts"]} == {
        "user39@example.com",
        *(f"user39{digit}@example.com" for digit in range(10)),
    }
    assert len(shown["automations"]) == 50


def test_the_pages_files_are_shipped_with_the_package() -> None:
    """They lie inside the package, with endings that the package data names."""
    folder = Path(bridge.sandbox.__file__).parent / "static"
    assert {path.suffix for path in folder.iterdir()} == {".html", ".css", ".js", ".svg"}
