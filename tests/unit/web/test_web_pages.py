"""What the admin server answers, asked without a socket."""

from __future__ import annotations

import base64
import re
from collections import Counter
from dataclasses import replace

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from bridge.errors import UsageError
from bridge.observe.metrics import Metrics
from bridge.observe.snapshot import (
    BreakerState,
    LaneState,
    PartitionState,
    QuotaState,
    SlowContact,
    Snapshot,
    WaitState,
)
from bridge.web import AdminServer

SNAPSHOT = Snapshot(
    version="0.1.0",
    started_at_wall_seconds=1_795_337_657.0,
    taken_at_wall_seconds=1_795_341_317.0,
    in_group=True,
    group_state="member",
    partitions=(
        PartitionState("users", 0, epoch=2, frontier=41_000, lag=9, window=5, paused=True, oldest_wait_seconds=75.0),
    ),
    quota=(QuotaState("default", "minute", used=12, limit=60, gated_until_wall_seconds=1_795_341_327.0),),
    pending=(LaneState("sync", contacts=3, events=8),),
    in_flight=4,
    waiting_for=(
        WaitState("retry", 8, "anna@example.com: 503 <script>alert(1)</script> meisa_live_abc", 1_795_341_257.0),
    ),
    breakers=(BreakerState("track", open=True, since_wall_seconds=1_795_341_000.0, detail="5 of 5 failed"),),
    totals=Counter({"delivered": 1234}),
    dead_letters={"rejected": 2},
)


def server(snapshot: Snapshot = SNAPSHOT, token: str | None = None, *, show_contacts: bool = False) -> AdminServer:
    return AdminServer("127.0.0.1:0", Metrics(lambda: snapshot), lambda: snapshot, token, show_contacts=show_contacts)


async def get(admin: AdminServer, path: str, authorization: str | bytes | None = None) -> httpx.Response:
    headers = {} if authorization is None else {"authorization": authorization}
    transport = httpx.ASGITransport(app=admin._app())
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
        return await client.get(path, headers=headers)  # type: ignore[arg-type]


async def test_livez_is_ok_while_the_process_answers() -> None:
    """Even out of the group and with a refused key: killing the process would help with neither."""
    answer = await get(server(replace(SNAPSHOT, in_group=False, refused_keys=("default",))), "/livez")
    assert (answer.status_code, answer.text) == (200, "ok")


async def test_livez_is_false_where_only_a_new_process_helps() -> None:
    """The orchestrator kills it then, and its log of the probe says why."""
    hung: list[str | None] = [None]
    admin = AdminServer("127.0.0.1:0", Metrics(lambda: SNAPSHOT), lambda: SNAPSHOT, stuck=lambda: hung[0])
    assert (await get(admin, "/livez")).status_code == 200
    hung[0] = "the thread that polls Kafka has been hung for 400 s"
    answer = await get(admin, "/livez")
    assert (answer.status_code, answer.text) == (503, hung[0])


async def test_readyz_says_why_not() -> None:
    assert (await get(server(), "/readyz")).status_code == 200
    assert (await get(server(replace(SNAPSHOT, partitions=())), "/readyz")).status_code == 200
    joining = await get(server(replace(SNAPSHOT, in_group=False, group_state="joining")), "/readyz")
    assert (joining.status_code, joining.json()["ready"]) == (503, False)
    assert "joining" in joining.json()["reason"]
    refused = await get(server(replace(SNAPSHOT, refused_keys=("trigger",))), "/readyz")
    assert refused.status_code == 503
    assert "trigger" in refused.json()["reason"]


async def test_metrics_are_a_prometheus_exposition() -> None:
    answer = await get(server(), "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=1.0.0")
    names = {family.name for family in text_string_to_metric_families(answer.text)}
    assert "meisa_bridge_partition_lag" in names


async def test_status_is_the_snapshot_as_json_with_contacts_masked_and_keys_never() -> None:
    answer = await get(server(), "/api/status")
    facts = answer.json()
    assert answer.headers["content-type"] == "application/json"
    assert (facts["ready"], facts["lag"], facts["uptime_seconds"]) == (True, 9, 3660)
    assert facts["started_at"] == "2026-11-22T08:54:17Z"
    assert facts["totals"] == {"delivered": 1234}
    assert facts["partitions"][0] == {
        "topic": "users",
        "partition": 0,
        "epoch": 2,
        "frontier": 41_000,
        "lag": 9,
        "window": 5,
        "paused": True,
        "oldest_wait_seconds": 75.0,
        "retention_seconds": None,
        "stalled_seconds": None,
        "stalled_because": [],
    }
    assert "a***@example.com" in facts["waiting_for"][0]["detail"]
    assert "anna" not in answer.text
    assert "meisa_live_abc" not in answer.text


async def test_show_contacts_shows_addresses_but_never_keys() -> None:
    text = (await get(server(show_contacts=True), "/api/status")).text
    assert "anna@example.com" in text
    assert "meisa_live_abc" not in text


async def test_the_page_shows_the_same_facts_and_escapes_them() -> None:
    answer = await get(server(), "/")
    assert answer.headers["content-type"].startswith("text/html")
    for fact in (
        "Ready",
        "41,000",
        "1,234",
        "rejected",
        "1 min 15 s",
        "1 h 1 min",
        "open",
        "paused",
        "a***@example.com",
    ):
        assert fact in answer.text, fact
    assert re.findall("<script[^>]*>", answer.text) == ['<script src="/dashboard.js" defer>']
    assert "&lt;script&gt;" in answer.text
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self';" in policy and "unsafe" not in policy
    assert not re.search(r"<[^>]* (?:style|on\w+)=", answer.text), "the policy forbids both inside of the page"


async def test_the_page_of_a_bridge_that_has_done_nothing_yet() -> None:
    answer = await get(server(Snapshot("0.1.0", 1.0, 2.0)), "/")
    assert "Not ready: not in the consumer group yet (starting)" in answer.text
    assert "owns no partition" in answer.text


async def test_the_favicon_is_there() -> None:
    answer = await get(server(), "/favicon.ico")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/svg+xml")


@pytest.mark.parametrize("path", ["/api/status", "/", "/api/live"])
@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer wrong",
        "Bearer s3crët ",
        "Bearer s3cret-and-more",
        "Basic !!!",
        "Basic " + base64.b64encode(b"s3cret:").decode(),
        "Digest s3cret",
        "Bearer ü".encode("latin-1"),
    ],
)
async def test_without_the_token_nothing_is_told(path: str, authorization: str | bytes | None) -> None:
    if isinstance(authorization, str):
        authorization = authorization.encode()
    answer = await get(server(token="s3cret"), path, authorization)
    assert answer.status_code == 401
    assert "users" not in answer.text
    assert answer.headers["www-authenticate"].startswith("Basic")


@pytest.mark.parametrize("token", ["s3cret", "schlüssel"])
@pytest.mark.parametrize("path", ["/api/status", "/"])
async def test_the_token_opens_as_bearer_and_as_a_browsers_password(path: str, token: str) -> None:
    admin = server(token=token)
    basic = "Basic " + base64.b64encode(f"anybody:{token}".encode()).decode()
    for authorization in (f"Bearer {token}".encode(), f"bearer  {token}".encode(), basic.encode()):
        assert (await get(admin, path, authorization)).status_code == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/favicon.ico", "/dashboard.css", "/dashboard.js"])
async def test_probes_and_scrapes_never_need_the_token(path: str) -> None:
    assert (await get(server(token="s3cret"), path)).status_code == 200


@pytest.mark.parametrize("path", ["/livez", "/", "/api/status", "/api/live", "/nowhere"])
async def test_other_methods_and_paths_are_refused(path: str) -> None:
    transport = httpx.ASGITransport(app=server()._app())
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
        assert (await client.post(path)).status_code in (404, 405)


@pytest.mark.parametrize("listen", ["0.0.0.0:8080", ":8080", "[::]:8080", "10.1.2.3:80", "bridge.internal:8080"])
def test_an_address_that_others_can_reach_needs_a_token(listen: str) -> None:
    with pytest.raises(UsageError, match=r"needs a token; set admin\.token"):
        AdminServer(listen, Metrics(), lambda: SNAPSHOT)
    assert AdminServer(listen, Metrics(), lambda: SNAPSHOT, "s3cret").port > 0


@pytest.mark.parametrize("listen", ["127.0.0.1:8080", "localhost:8080", "[::1]:8080", "127.8.8.8:8080"])
def test_loopback_needs_none(listen: str) -> None:
    assert AdminServer(listen, Metrics(), lambda: SNAPSHOT).port == 8080


@pytest.mark.parametrize("listen", ["", "8080", "localhost", "localhost:", "localhost:http", "localhost:70000", "a:-1"])
def test_what_is_no_address_is_said_in_one_line(listen: str) -> None:
    with pytest.raises(UsageError, match="write host:port"):
        AdminServer(listen, Metrics(), lambda: SNAPSHOT)


def test_the_url_can_be_typed() -> None:
    assert AdminServer("127.0.0.1:8080", Metrics(), lambda: SNAPSHOT).url == "http://127.0.0.1:8080"
    assert AdminServer("[::1]:8080", Metrics(), lambda: SNAPSHOT).url == "http://[::1]:8080"


async def test_status_and_page_name_the_slowest_contacts_masked() -> None:
    """They come beside the snapshot, which names nobody; ids that are no addresses are masked too."""
    slow = [SlowContact(name, 75.0, "upsert", "next", "users", 0, 7) for name in ("anna@example.com", "customer-7")]

    def admin(show: bool) -> AdminServer:
        return AdminServer("127.0.0.1:0", Metrics(), lambda: SNAPSHOT, show_contacts=show, slowest=lambda: slow)

    for path in ("/api/status", "/"):
        hidden, shown = (await get(admin(False), path)).text, (await get(admin(True), path)).text
        assert "a***@example.com" in hidden and "c***" in hidden
        assert "anna@" not in hidden and "customer-7" not in hidden
        assert "anna@example.com" in shown and "customer-7" in shown
    assert (await get(admin(False), "/api/status")).json()["slowest_contacts"][1] == {
        "contact": "c***",
        "waited_seconds": 75.0,
        "action": "upsert",
        "state": "next",
        "topic": "users",
        "partition": 0,
        "offset": 7,
    }
