"""What surrounds the pages: strict headers on every answer, and no traceback for a client that went away."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from bridge.web.headers import HEADERS, StrictHeaders


async def nothing() -> Any:
    return {"type": "http.disconnect"}


async def test_an_answer_gets_what_it_lacks_and_keeps_its_own() -> None:
    sent: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": [(b"Cache-Control", b"max-age=5")]})
        await send({"type": "http.response.body", "body": b"x"})

    async def send(message: Any) -> None:
        sent.append(message)

    await StrictHeaders(app)({"type": "http"}, nothing, send)
    headers = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
    assert headers == {**HEADERS, "cache-control": "max-age=5"}
    assert len(sent[0]["headers"]) == len(HEADERS) and sent[1]["body"] == b"x"


async def test_who_goes_before_the_end_of_a_form_leaves_no_traceback() -> None:
    """The server would log one for each; other mistakes are let out, to be logged."""

    def failing(error: Exception) -> StrictHeaders:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            raise error

        return StrictHeaders(app)

    await failing(ClientDisconnect())({"type": "http"}, nothing, nothing)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="a bug"):
        await failing(ValueError("a bug"))({"type": "http"}, nothing, nothing)  # type: ignore[arg-type]
