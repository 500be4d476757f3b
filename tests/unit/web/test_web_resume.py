"""Resuming a stopped topic over HTTP: who may ask, from where, and what is answered. Without a socket."""

from __future__ import annotations

import re
from dataclasses import replace

import httpx
import pytest

from bridge.observe.metrics import Metrics
from bridge.observe.snapshot import Snapshot
from bridge.web import AdminServer

SNAPSHOT = Snapshot("0.1.0", 1.0, 2.0, in_group=True)
PATH = "/api/topics/users/resume"


class Desk:
    """An admin server over one stopped topic, `users`, and one that runs, `orders`."""

    def __init__(self, token: str | None = None, listen: str = "127.0.0.1:8080") -> None:
        self.stopped = {"users": True, "orders": False}
        self.resumed: list[str] = []
        self.admin = AdminServer(listen, Metrics(), self._snapshot, token, resume=self._resume)

    def _snapshot(self) -> Snapshot:
        return replace(SNAPSHOT, stopped_topics=tuple(topic for topic, stopped in self.stopped.items() if stopped))

    def _resume(self, topic: str) -> bool | None:
        stopped = self.stopped.get(topic)
        if stopped:
            self.stopped[topic] = False
            self.resumed.append(topic)
        return stopped

    async def post(self, path: str = PATH, method: str = "POST", **headers: str) -> httpx.Response:
        transport = httpx.ASGITransport(app=self.admin._app())
        headers = {"host": "127.0.0.1:8080", **headers}
        async with httpx.AsyncClient(transport=transport, base_url="http://bridge") as client:
            return await client.request(method, path, headers=headers)


async def test_a_stopped_topic_is_resumed_once() -> None:
    desk = Desk()
    first, second = await desk.post(), await desk.post()
    assert (first.status_code, first.json()) == (200, {"resumed": "users"})
    assert (second.status_code, second.json()) == (409, {"error": "topic users is not stopped"})
    assert desk.resumed == ["users"]


async def test_what_is_not_stopped_or_not_ours_is_told_so() -> None:
    """In JSON, and nothing else is touched."""
    desk = Desk()
    running, unknown = await desk.post("/api/topics/orders/resume"), await desk.post("/api/topics/nobody/resume")
    assert (running.status_code, unknown.status_code) == (409, 404)
    assert "error" in running.json() and "error" in unknown.json()
    assert desk.resumed == []


async def test_a_link_or_an_image_resumes_nothing() -> None:
    desk = Desk()
    assert (await desk.post(method="GET")).status_code == 405
    assert desk.resumed == []


@pytest.mark.parametrize("offered", ["", "Bearer wrong", "Bearer", "Basic eDp3cm9uZw=="])
async def test_where_a_token_is_set_it_is_needed(offered: str) -> None:
    desk = Desk("s3cret")
    assert (await desk.post(authorization=offered)).status_code == 401
    assert desk.resumed == []
    assert (await desk.post(authorization="Bearer s3cret")).status_code == 200
    assert desk.resumed == ["users"]


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "", "[::1", "localhost.evil"]
)
async def test_a_foreign_name_for_this_host_is_refused_where_no_token_is_set(host: str) -> None:
    """DNS rebinding: a page under a name that was made to point to 127.0.0.1 may ask anything of its own host."""
    desk = Desk()
    answer = await desk.post(host=host)
    assert answer.status_code == 403 and "admin.token" in answer.json()["error"]
    assert desk.resumed == []


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8080", "127.0.0.1:9", "[::1]:8080", "10.0.0.7"])
async def test_names_that_nobody_else_can_take_are_ours(host: str) -> None:
    """localhost, and addresses: also those under which a forwarded port is reached."""
    assert (await Desk().post(host=host)).status_code == 200


async def test_with_the_token_any_name_will_do() -> None:
    """Behind a proxy the bridge has names that it does not know; a page that knows the token is nobody's trick."""
    desk = Desk("s3cret")
    assert (await desk.post(host="bridge.internal", authorization="Bearer s3cret")).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "http://[", ""])
@pytest.mark.parametrize("token", [None, "s3cret"])
async def test_another_sites_page_is_refused_even_with_the_browsers_password(origin: str, token: str | None) -> None:
    """CSRF: a form of another site is sent with the password that the browser keeps for this one."""
    desk = Desk(token)
    answer = await desk.post(origin=origin, authorization="Bearer s3cret")
    assert answer.status_code == 403 and "another site" in answer.json()["error"]
    assert desk.resumed == []


async def test_a_page_of_this_very_server_may_ask() -> None:
    assert (await Desk().post(origin="http://127.0.0.1:8080")).status_code == 200
    behind = Desk("s3cret")
    answer = await behind.post(host="Bridge.internal", origin="https://bridge.internal", authorization="Bearer s3cret")
    assert answer.status_code == 200


def test_the_command_for_people_names_the_address_and_never_the_token() -> None:
    assert Desk().admin.how_to_resume("users") == "curl -X POST http://127.0.0.1:8080/api/topics/users/resume"
    told = Desk("s3cret").admin.how_to_resume("users")
    assert 'Authorization: Bearer $TOKEN"' in told and "s3cret" not in told


async def test_the_page_has_a_button_for_a_stopped_topic_and_no_other() -> None:
    """It sends the very request, as a browser would, and leads back to the page, where it is gone."""
    desk = Desk()
    page = await desk.post("/", "GET")
    actions = re.findall(r'<form method="post" action="([^"]+)"', page.text)
    assert actions == [PATH]
    assert "form-action 'self'" in page.headers["content-security-policy"]
    assert page.headers["referrer-policy"] == "same-origin", "else the browser hides the page's origin"
    answer = await desk.post(actions[0], origin="http://127.0.0.1:8080", accept="text/html,*/*;q=0.8")
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert desk.resumed == ["users"]
    assert "<form" not in (await desk.post("/", "GET")).text
