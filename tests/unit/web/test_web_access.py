"""Under which names the pages and the JSON beside them are given, and to whose requests. Without a socket."""

from __future__ import annotations

import httpx
import pytest

from bridge.observe.metrics import Metrics
from bridge.observe.snapshot import Snapshot
from bridge.web import AdminServer
from bridge.web.access import FOREIGN_HOST, Access

SNAPSHOT = Snapshot("0.1.0", 1.0, 2.0, in_group=True)
TOLD = ["/", "/api/status"]


async def get(path: str, token: str | None = None, allowed: tuple[str, ...] = (), **headers: str) -> httpx.Response:
    admin = AdminServer("127.0.0.1:8080", Metrics(lambda: SNAPSHOT), lambda: SNAPSHOT, token, allowed_hosts=allowed)
    transport = httpx.ASGITransport(app=admin._app())
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
        return await client.get(path, headers=headers)


@pytest.mark.parametrize("path", TOLD)
@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "localhost.evil.example", "", "[::1"])
async def test_nothing_is_told_under_a_foreign_name(path: str, host: str) -> None:
    """DNS rebinding: a page under a name that was made to point to this machine could read it all."""
    answer = await get(path, host=host)
    assert answer.status_code == 403
    assert "admin.allowed_hosts" in answer.json()["error"] and "group" not in answer.text


async def test_the_live_stream_is_no_way_around() -> None:
    """Asked without a body, since a stream that begins never ends."""
    admin = AdminServer("127.0.0.1:8080", Metrics(lambda: SNAPSHOT), lambda: SNAPSHOT)
    transport = httpx.ASGITransport(app=admin._app())
    async with httpx.AsyncClient(transport=transport, base_url="http://evil.example") as client:
        assert (await client.head("/api/live")).status_code == 403


@pytest.mark.parametrize("path", TOLD)
@pytest.mark.parametrize("host", ["localhost:8080", "LOCALHOST", "localhost.", "127.0.0.1:9", "[::1]:8080", "10.0.0.7"])
async def test_names_that_nobody_else_can_take_are_answered(path: str, host: str) -> None:
    assert (await get(path, host=host)).status_code == 200


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
async def test_probes_and_scrapes_come_under_any_name(path: str) -> None:
    """A scraper knows a service by the name that its network gives it."""
    assert (await get(path, host="bridge.monitoring.svc")).status_code == 200


async def test_names_can_be_allowed() -> None:
    """Whatever their case and port; others are still refused."""
    allowed = ("Bridge.example.com",)
    assert (await get("/", allowed=allowed, host="bridge.example.com:8443")).status_code == 200
    assert (await get("/", allowed=allowed, host="evil.bridge.example.com")).status_code == 403


async def test_with_a_token_any_name_will_do_until_some_are_named() -> None:
    """No browser sends the password that it keeps for one name to another; whoever wants more names the names."""
    bearer = "Bearer s3cret"
    assert (await get("/", "s3cret", host="bridge.internal", authorization=bearer)).status_code == 200
    refused = await get("/", "s3cret", ("bridge.example.com",), host="bridge.internal", authorization=bearer)
    assert refused.status_code == 403
    assert (await get("/", "s3cret", host="bridge.internal")).status_code == 401


async def test_a_browser_reads_why_as_text() -> None:
    answer = await get("/", host="evil.example", accept="text/html,*/*")
    assert answer.headers["content-type"].startswith("text/plain") and answer.text == FOREIGN_HOST


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize("token", [None, "s3cret"])
def test_what_a_browser_says_comes_from_elsewhere_changes_nothing(site: str, token: str | None) -> None:
    """Also where the page's origin is not told."""
    access = Access("127.0.0.1", token)
    headers = {"host": "127.0.0.1:8080", "authorization": "Bearer s3cret"}
    assert access.act(headers) is None
    assert access.act({**headers, "sec-fetch-site": "same-origin"}) is None
    refusal = access.act({**headers, "sec-fetch-site": site})
    assert refusal is not None and refusal.status == 403


def test_a_form_brings_the_word_that_only_the_pages_hold() -> None:
    """Another one in each process where there is no token; with one the same in all instances behind a name."""
    access, other = Access("127.0.0.1", None), Access("127.0.0.1", None)
    headers = {"host": "127.0.0.1:8080"}
    assert access.submit(headers, access.csrf) is None
    for wrong in ("", other.csrf, access.csrf[:-1], "é"):
        refusal = access.submit(headers, wrong)
        assert refusal is not None and refusal.status == 403 and "load the page again" in refusal.why
    assert Access("", "s3cret").csrf == Access("", "s3cret").csrf != Access("", "other").csrf
    assert "s3cret" not in Access("", "s3cret").csrf


def test_without_the_token_the_word_does_not_help() -> None:
    access = Access("127.0.0.1", "s3cret")
    refusal = access.submit({"host": "127.0.0.1:8080"}, access.csrf)
    assert refusal is not None and refusal.status == 401
