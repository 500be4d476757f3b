"""What the admin server answers, path by path. Imported when it starts, and in a thread: starlette takes a while."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from bridge.observe.metrics import CONTENT_TYPE
from bridge.observe.snapshot import Snapshot
from bridge.web import page
from bridge.web.access import Access, Refusal
from bridge.web.headers import HEADERS
from bridge.web.live import Live
from bridge.web.sections import Facts

Handler = Callable[[Request], Awaitable[Response]]

STATIC = {
    "/dashboard.css": ("dashboard.css", "text/css"),
    "/dashboard.js": ("dashboard.js", "text/javascript"),
    "/letters.js": ("letters.js", "text/javascript"),
}
"""Given to everybody: they say nothing of the bridge's state."""


class Exposition(Protocol):
    """The part of bridge.observe.metrics.Metrics that is needed here."""

    def render(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the answers come from."""

    access: Access
    metrics: Exposition
    snapshot: Callable[[], Snapshot]
    facts: Callable[[], Facts]
    parts: Callable[[], Mapping[str, str]]
    live: Callable[[], Live]
    resume: Callable[[str], bool | None]
    stuck: Callable[[], str | None]


def refused(request: Request, refusal: Refusal) -> Response:
    """In JSON for programs, in plain text for browsers."""
    headers = dict(HEADERS)
    if refusal.status == 401:
        headers["www-authenticate"] = 'Basic realm="meisa-bridge, the token is the password"'
    if wants_page(request):
        return PlainTextResponse(refusal.why, status_code=refusal.status, headers=headers)
    return JSONResponse({"error": refusal.why}, status_code=refusal.status, headers=headers)


def wants_page(request: Request) -> bool:
    return "text/html" in request.headers.get("accept", "")


def guarded(access: Access, handler: Handler) -> Handler:
    """The handler for those alone who may look."""

    async def checked(request: Request) -> Response:
        refusal = access.look(request.headers)
        return refused(request, refusal) if refusal is not None else await handler(request)

    return checked


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


def application(sources: Sources, more: Sequence[BaseRoute] = ()) -> Starlette:
    """`more` are routes that check by themselves who asks."""

    async def livez(request: Request) -> Response:
        stuck = sources.stuck()
        return PlainTextResponse(stuck or "ok", status_code=503 if stuck else 200, headers=HEADERS)

    async def readyz(request: Request) -> Response:
        reason = sources.snapshot().unready()
        if reason is None:
            return JSONResponse({"ready": True}, headers=HEADERS)
        return JSONResponse({"ready": False, "reason": reason}, status_code=503, headers=HEADERS)

    async def metrics(request: Request) -> Response:
        return Response(sources.metrics.render(), headers={**HEADERS, "content-type": CONTENT_TYPE})

    async def status(request: Request) -> Response:
        return Response(page.as_json(sources.facts()), media_type="application/json", headers=HEADERS)

    async def index(request: Request) -> Response:
        return Response(page.as_html(sources.parts()), media_type="text/html", headers=HEADERS)

    async def live(request: Request) -> Response:
        if request.method == "HEAD":  # its answer would have no body, and no end
            return Response(media_type="text/event-stream", headers=HEADERS)
        streams = sources.live()
        if streams.full:
            return JSONResponse({"error": "too many pages are open"}, status_code=503, headers=HEADERS)
        streams.open += 1  # here and not in the stream: what is counted late lets too many in
        return CountedStream(streams, streams.stream(), media_type="text/event-stream", headers=HEADERS)

    async def resume(request: Request) -> Response:
        topic = request.path_params["topic"]
        if refusal := sources.access.act(request.headers):
            return refused(request, refusal)
        resumed = sources.resume(topic)
        if resumed is None:
            return JSONResponse({"error": "no such topic is read here"}, status_code=404, headers=HEADERS)
        if not resumed:
            return JSONResponse({"error": f"topic {topic} is not stopped"}, status_code=409, headers=HEADERS)
        if wants_page(request):  # the page's button: back to the page
            return RedirectResponse("/", status_code=303, headers=HEADERS)
        return JSONResponse({"resumed": topic}, headers=HEADERS)

    async def static(request: Request) -> Response:
        name, media_type = STATIC[request.url.path]
        return Response(page.static(name), media_type=media_type, headers=HEADERS)

    async def favicon(request: Request) -> Response:
        return Response(page.FAVICON, media_type="image/svg+xml", headers=HEADERS)

    def seen(path: str, handler: Handler) -> BaseRoute:
        return Route(path, guarded(sources.access, handler))

    app = Starlette(
        routes=[
            Route("/livez", livez),
            Route("/readyz", readyz),
            Route("/metrics", metrics),
            seen("/api/status", status),
            seen("/", index),
            seen("/api/live", live),
            Route("/api/topics/{topic}/resume", resume, methods=["POST"]),
            *(Route(path, static) for path in STATIC),
            Route("/favicon.ico", favicon),
            *more,
        ]
    )
    # It would send whoever writes one slash too many to whatever name the Host header gives.
    app.router.redirect_slashes = False
    return app
