"""What every answer of the admin server says to browsers, errors too."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # Not `no-referrer`: with it a browser says `Origin: null` for our own page's button, as for anybody's.
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}

_RAW = [(name.encode(), value.encode()) for name, value in HEADERS.items()]


class StrictHeaders:
    """Around a whole application: adds what an answer lacks of them, so that no route can forget them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def strict(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = list(message.get("headers", ()))
                names = {name.lower() for name, _ in given}
                message = {**message, "headers": [*given, *(each for each in _RAW if each[0] not in names)]}
            await send(message)

        from starlette.requests import ClientDisconnect

        # Who went before the end of a request gets no answer; a traceback of it would be in the log for everybody.
        with contextlib.suppress(ClientDisconnect):
            await self._app(scope, receive, strict)
