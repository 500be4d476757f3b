"""docs/http.md and docs/dead-letter-headers.md: every route and header stands there, and answers as it says."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import httpx
import pytest

from bridge.kafka import letters
from bridge.model import Letter, LetterKind, Record
from bridge.web import AdminServer
from docs.outside import HEADERS, ROUTES, Route
from tests.support.letters import LetterDesk

OF_EVERY_ANSWER = ("content-security-policy", "cache-control", "x-content-type-options", "x-frame-options")


def admin(token: str | None = "secret") -> AdminServer:
    return LetterDesk(token).admin


async def answer(server: AdminServer, method: str, path: str, **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(app=server._app())
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
        return await client.request(method, re.sub(r"\{\w+\}", "0", path), headers=headers)


def test_every_route_stands_on_the_page_and_every_route_of_the_page_is_there() -> None:
    """A new route gets its row in docs/outside.py; then: python docs/generate.py"""
    served = {
        (method, route.path)
        for route in admin()._app().routes
        for method in getattr(route, "methods", None) or {"GET"}
        if method != "HEAD"
    }
    assert served == {(route.method, route.path) for route in ROUTES}


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
async def test_a_route_asks_for_the_token_where_the_page_says_so(route: Route) -> None:
    """Without a token it asks for a known name of the host. Every answer carries the headers that the page names."""
    refused = await answer(admin(), route.method, route.path)
    assert (refused.status_code == 401) == route.token
    rebound = await answer(admin(None), "HEAD" if route.method == "GET" else route.method, route.path, host="elsewhere")
    assert (rebound.status_code == 403) == route.token
    for told in (refused, rebound):
        assert [name for name in OF_EVERY_ANSWER if name not in told.headers] == []


@pytest.mark.parametrize("route", [route for route in ROUTES if route.method == "GET"], ids=lambda route: route.path)
async def test_head_is_answered_wherever_get_is(route: Route) -> None:
    told = await answer(admin(), "HEAD", route.path, authorization="Bearer secret")
    assert told.status_code != 405 and told.content == b""


@pytest.mark.parametrize("route", [route for route in ROUTES if route.method != "GET"], ids=lambda route: route.path)
async def test_what_changes_something_is_refused_to_pages_of_other_sites(route: Route) -> None:
    """By what their browser says of itself, whatever password it keeps."""
    known = {"authorization": "Bearer secret"}
    foreign = await answer(admin(), route.method, route.path, origin="http://elsewhere", **known)
    fetched = await answer(admin(), route.method, route.path, **{"sec-fetch-site": "cross-site"}, **known)
    assert (foreign.status_code, fetched.status_code) == (403, 403)


def test_every_header_of_a_letter_stands_on_the_page_and_none_else() -> None:
    """Those of a letter that has everything, and those of letters that are too large."""
    record = Record("users", 0, 7, 1, b"k", b"v", (("meisa-bridge.replays", b"1"),))
    whole = Letter(record, LetterKind.REJECTED, "no", rule="a", action="upsert", status=400, request={}, response={},
                   attempts=1, undelivered=(0,), undelivered_ids=("x",))  # fmt: skip
    written = {name.removeprefix(letters.PREFIX) for name, _ in letters.headers_of(whole)}
    of_large_ones = set(re.findall(r'_text\("(\w+)"', inspect.getsource(letters)))
    assert written | of_large_ones == set(HEADERS)


def test_every_kind_of_letter_is_named() -> None:
    assert set(re.findall(r"`(\w+)`", HEADERS["kind"])) == {kind.value for kind in LetterKind}


async def test_every_field_of_the_status_stands_on_its_page() -> None:
    """And every kind of part has its section."""
    told = (await answer(admin(), "GET", "/api/status", authorization="Bearer secret")).json()
    page = (Path(__file__).parents[3] / "docs" / "status-json.md").read_text(encoding="utf-8")
    top = page.split("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", top, re.MULTILINE)) == set(told)
    linked = set(re.findall(r"\]\(#(\w+)\)", page))
    assert linked == {name.lower() for name in re.findall(r"^## (\w+)$", page, re.MULTILINE)}
