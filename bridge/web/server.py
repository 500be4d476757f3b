"""Health, metrics and status over HTTP, in the bridge's own process and on its event loop.

`/livez`, `/readyz` and `/metrics` are for machines and never need the token; `/api/status`, `/api/live` and `/` do
where one is set: as `Authorization: Bearer …`, or as the password of basic authentication, which is what a browser can
ask for. The page's script and style say nothing of the bridge's state, and are given to everybody.
`POST /api/topics/<topic>/resume` is the one request that changes something. It needs the token too, and is refused to
pages of other sites: a browser would carry it out for them, with the password that it keeps, or (where none is set)
under a foreign name that was made to point to this machine.

starlette and uvicorn take a third of a second to import, so they are imported in a thread while the bridge joins its
group, after the port was taken: a busy port is told at once.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import hmac
import importlib
import ipaddress
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import structlog

from bridge.errors import StartFailed, UsageError
from bridge.observe.history import EVERY_SECONDS as HISTORY_EVERY_SECONDS
from bridge.observe.history import History
from bridge.observe.metrics import CONTENT_TYPE
from bridge.observe.snapshot import SlowContact, Snapshot
from bridge.web import page
from bridge.web.headers import HEADERS
from bridge.web.live import Live

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send

    from bridge.web.serving import QuietServer

log = structlog.get_logger(__name__)

BACKLOG = 100
"""Connections that the system keeps until the loop has time for them."""
STOP_SECONDS = 3
"""More than serving.py waits for open requests."""


class Exposition(Protocol):
    """The part of bridge.observe.metrics.Metrics that is needed here."""

    def render(self) -> bytes: ...


def parse_listen(listen: str) -> tuple[str, int]:
    """Host and port of `127.0.0.1:8080`, `[::1]:8080` or `:8080` (all addresses). Raises UsageError."""
    host, colon, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise UsageError(f"admin.listen: {listen!r} is not an address; write host:port, e.g. 127.0.0.1:8080")
    return host, int(port)


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class AdminServer:
    """Serves from `start()` to `stop()`. Raises UsageError for a listen address that is not one or needs a token.

    `resume` goes on with a topic that its dead letters had stopped: True if it did, False if the topic was not stopped,
    None if it is none of ours. `slowest` tells the contacts that wait longest, not masked yet. `stuck` tells why the
    process should be killed, None while it should not.
    """

    def __init__(
        self,
        listen: str,
        metrics: Exposition,
        snapshot: Callable[[], Snapshot],
        token: str | None = None,
        *,
        show_contacts: bool = False,
        resume: Callable[[str], bool | None] = lambda topic: None,
        slowest: Callable[[], Sequence[SlowContact]] = tuple,
        stuck: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._host, self._port = parse_listen(listen)
        if not token and not is_loopback(self._host):
            raise UsageError(
                f"admin.listen: {listen} can be reached from other machines, so it needs a token; "
                "set admin.token: {env: NAME}, or listen on 127.0.0.1"
            )
        self._listen = listen
        self._metrics = metrics
        self._snapshot = snapshot
        self._token = token or None
        self._token_digest = _digest((token or "").encode())
        self._show_contacts = show_contacts
        self._resume = resume
        self._slowest = slowest
        self._stuck = stuck
        self._history = History()
        self._live = self._streams()
        self._watching: asyncio.Task[None] | None = None
        self._server: QuietServer | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port that is served: the one given, or the one the system chose for 0."""
        return self._port

    @property
    def url(self) -> str:
        host = self._host or "127.0.0.1"
        return f"http://[{host}]:{self._port}" if ":" in host else f"http://{host}:{self._port}"

    def how_to_resume(self, topic: str) -> str:
        """A command for a person; the token, where one is set, is for the shell to fill in."""
        token = ' -H "Authorization: Bearer $TOKEN"' if self._token is not None else ""
        return f"curl -X POST{token} {self.url}/api/topics/{topic}/resume"

    async def start(self) -> None:
        """Returns once requests are answered. Raises StartFailed where the port is not to be had."""
        listener = self._bind()
        try:
            await asyncio.to_thread(_import)
            started = asyncio.Event()
            self._live = self._streams()
            self._watching = asyncio.create_task(self._watch(), name="history")
            self._server = _server(self._app(), started)
            self._task = asyncio.create_task(self._server.serve(sockets=[listener]), name="admin server")
            waiting = asyncio.create_task(started.wait())
            await asyncio.wait({self._task, waiting}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            if self._task.done():
                self._task.result()
                raise StartFailed(f"the admin server on {self._listen} ended while starting")
        except BaseException:
            await self.stop()
            listener.close()
            raise

    async def stop(self) -> None:
        """Stops listening; open requests get a moment to end. Does nothing if it never started."""
        server, task = self._server, self._task
        self._server = self._task = None
        self._live.stop()
        if self._watching is not None:
            await asyncio.wait({self._watching})
        if server is None or task is None:
            return
        server.should_exit = True
        await asyncio.wait({task}, timeout=STOP_SECONDS)
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=1)

    def _streams(self) -> Live:
        return Live(self._parts)

    def _parts(self) -> Mapping[str, str]:
        """The page's sections as they are now."""
        return page.parts(self._snapshot(), self._history, self._slowest(), show_contacts=self._show_contacts)

    async def _watch(self) -> None:
        """Takes a moment for the plots now and then, until the stop."""
        while True:
            try:
                self._history.take(self._snapshot())
            except Exception:
                log.exception("the state could not be read: the dashboard's plots have a gap, and nothing else")
            if await self._live.stopped(HISTORY_EVERY_SECONDS):
                return

    def _bind(self) -> socket.socket:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                self._host or None, self._port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            listener = socket.socket(family, kind, protocol)
        except OSError as error:
            raise StartFailed(f"admin.listen: {self._listen} cannot be used: {error.strerror or error}") from None
        try:
            # Without it a restart would have to wait for the last connections' TIME_WAIT.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError as error:
            listener.close()
            raise StartFailed(
                f"admin.listen: {self._listen} cannot be used: {error.strerror or error}; "
                "stop what holds it, or set admin.listen (MEISA_BRIDGE__ADMIN__LISTEN) to another port"
            ) from None
        listener.setblocking(False)
        self._port = listener.getsockname()[1]
        return listener

    def _app(self) -> Starlette:
        from starlette.applications import Starlette
        from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
        from starlette.routing import Route

        async def livez(request: Request) -> Response:
            stuck = self._stuck()
            return PlainTextResponse(stuck or "ok", status_code=503 if stuck else 200, headers=HEADERS)

        async def readyz(request: Request) -> Response:
            reason = self._snapshot().unready()
            if reason is None:
                return JSONResponse({"ready": True}, headers=HEADERS)
            return JSONResponse({"ready": False, "reason": reason}, status_code=503, headers=HEADERS)

        async def metrics(request: Request) -> Response:
            return Response(self._metrics.render(), headers={**HEADERS, "content-type": CONTENT_TYPE})

        async def status(request: Request) -> Response:
            if not self._admits(request):
                return denied()
            facts = page.facts(self._snapshot(), self._slowest(), show_contacts=self._show_contacts)
            return Response(page.as_json(facts), media_type="application/json", headers=HEADERS)

        async def index(request: Request) -> Response:
            if not self._admits(request):
                return denied()
            return Response(page.as_html(self._parts()), media_type="text/html", headers=HEADERS)

        async def live(request: Request) -> Response:
            if not self._admits(request):
                return denied()
            if request.method == "HEAD":  # its answer would have no body, and no end
                return Response(media_type="text/event-stream", headers=HEADERS)
            if self._live.full:
                return JSONResponse({"error": "too many pages are open"}, status_code=503, headers=HEADERS)
            streams = self._live
            streams.open += 1  # here and not in the stream: what is counted late lets too many in
            return CountedStream(streams, streams.stream(), media_type="text/event-stream", headers=HEADERS)

        class CountedStream(StreamingResponse):
            """Gives its place back however it ends, begun or not."""

            def __init__(self, streams: Live, *given: Any, **named: Any) -> None:
                super().__init__(*given, **named)
                self._streams = streams

            async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
                try:
                    await super().__call__(scope, receive, send)
                finally:
                    self._streams.open -= 1

        async def style(request: Request) -> Response:
            return Response(page.static("dashboard.css"), media_type="text/css", headers=HEADERS)

        async def script(request: Request) -> Response:
            return Response(page.static("dashboard.js"), media_type="text/javascript", headers=HEADERS)

        async def resume(request: Request) -> Response:
            topic = request.path_params["topic"]
            if foreign := self._foreign(request):
                return JSONResponse({"error": foreign}, status_code=403, headers=HEADERS)
            if not self._admits(request):
                return denied()
            resumed = self._resume(topic)
            if resumed is None:
                return JSONResponse({"error": "no such topic is read here"}, status_code=404, headers=HEADERS)
            if not resumed:
                return JSONResponse({"error": f"topic {topic} is not stopped"}, status_code=409, headers=HEADERS)
            if "text/html" in request.headers.get("accept", ""):  # the page's button: back to the page
                return RedirectResponse("/", status_code=303, headers=HEADERS)
            return JSONResponse({"resumed": topic}, headers=HEADERS)

        async def favicon(request: Request) -> Response:
            return Response(page.FAVICON, media_type="image/svg+xml", headers=HEADERS)

        def denied() -> Response:
            return JSONResponse(
                {"error": "this page needs the token of admin.token: Authorization: Bearer …"},
                status_code=401,
                headers={**HEADERS, "www-authenticate": 'Basic realm="meisa-bridge, the token is the password"'},
            )

        app = Starlette(
            routes=[
                Route("/livez", livez),
                Route("/readyz", readyz),
                Route("/metrics", metrics),
                Route("/api/status", status),
                Route("/api/topics/{topic}/resume", resume, methods=["POST"]),
                Route("/", index),
                Route("/api/live", live),
                Route("/dashboard.css", style),
                Route("/dashboard.js", script),
                Route("/favicon.ico", favicon),
            ]
        )
        # It would send whoever writes one slash too many to whatever name the Host header gives.
        app.router.redirect_slashes = False
        return app

    def _foreign(self, request: Request) -> str | None:
        """Why the request may come from another site's page; None where it does not."""
        host = request.headers.get("host", "")
        # A page that has a token needs no guess about names: nobody else's page knows it, and proxies have names.
        if self._token is None and not self._ours(host):
            return "this name of the host is not known here: use the address of admin.listen, or set admin.token"
        origin = request.headers.get("origin")
        if origin is not None and _place_of(origin) != host.lower():
            return "a page of another site may not ask for this"
        return None

    def _ours(self, host: str) -> bool:
        """Whether a Host header names this server in a way that no other site's name can be made to."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in ("localhost", self._host.lower()):
            return bool(name)
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _admits(self, request: Request) -> bool:
        if self._token is None:
            return True
        offered = _offered_token(request.headers.get("authorization", ""))
        return hmac.compare_digest(_digest(offered), self._token_digest)


def _digest(token: bytes) -> bytes:
    """What is compared in constant time in a token's place: of equal length, which would show in the time too."""
    return hashlib.sha256(token).digest()


def _place_of(origin: str) -> str | None:
    """Host and port; None for `null` and for what is no origin. The scheme is a proxy's matter."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None


def _offered_token(header: str) -> bytes:
    scheme, _, credentials = header.partition(" ")
    credentials = credentials.strip()
    if scheme.lower() == "bearer":
        return credentials.encode("latin-1")  # header bytes, as starlette decoded them
    if scheme.lower() == "basic":
        with contextlib.suppress(binascii.Error, ValueError):
            return base64.b64decode(credentials, validate=True).partition(b":")[2]
    return b""


def _import() -> None:
    for name in ("starlette.applications", "bridge.web.serving"):
        importlib.import_module(name)


def _server(app: Starlette, started: asyncio.Event) -> QuietServer:
    from bridge.web.serving import server

    return server(app, started)
