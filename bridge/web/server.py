"""Health, metrics and status over HTTP, in the bridge's own process and on its event loop.

`/livez`, `/readyz` and `/metrics` are for machines and never need the token; all else that tells or changes something
does where one is set, and looks at the names under which it is asked (access.py). What is answered stands in routes.py.

starlette and uvicorn take a third of a second to import, so they are imported in a thread while the bridge joins its
group, after the port was taken: a busy port is told at once.
"""

from __future__ import annotations

import asyncio
import importlib
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import structlog

from bridge.errors import StartFailed, UsageError
from bridge.observe.history import EVERY_SECONDS as HISTORY_EVERY_SECONDS
from bridge.observe.history import History
from bridge.observe.snapshot import SlowContact, Snapshot
from bridge.web import page
from bridge.web.access import Access, is_loopback, parse_listen
from bridge.web.live import Live

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from bridge.replay.desk import Desk
    from bridge.web.routes import Exposition
    from bridge.web.serving import QuietServer

log = structlog.get_logger(__name__)

BACKLOG = 100
"""Connections that the system keeps until the loop has time for them."""
STOP_SECONDS = 3
"""More than serving.py waits for open requests."""


class AdminServer:
    """Serves from `start()` to `stop()`. Raises UsageError for a listen address that is not one or needs a token.

    `resume` goes on with a topic that its dead letters had stopped: True if it did, False if the topic was not stopped,
    None if it is none of ours. `slowest` tells the contacts that wait longest, not masked yet. `stuck` tells why the
    process should be killed, None while it should not. `letters` are the dead letters; without them there are no pages
    of these.
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
        allowed_hosts: Sequence[str] = (),
        letters: Desk | None = None,
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
        self._access = Access(self._host, token, allowed_hosts)
        self._show_contacts = show_contacts
        self._resume = resume
        self._slowest = slowest
        self._stuck = stuck
        self._letters = letters
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
        token = ' -H "Authorization: Bearer $TOKEN"' if self._access.has_token else ""
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
        from bridge.web.letter_routes import LetterRoutes
        from bridge.web.routes import Sources, application

        letters = self._letters
        more = LetterRoutes(letters, self._access, show_contacts=self._show_contacts).routes() if letters else []
        return application(
            Sources(
                access=self._access,
                metrics=self._metrics,
                snapshot=self._snapshot,
                facts=lambda: page.facts(self._snapshot(), self._slowest(), show_contacts=self._show_contacts),
                parts=self._parts,
                live=lambda: self._live,
                resume=self._resume,
                stuck=self._stuck,
            ),
            more,
        )


def _import() -> None:
    for name in ("bridge.web.letter_routes", "bridge.web.serving"):
        importlib.import_module(name)


def _server(app: Starlette, started: asyncio.Event) -> QuietServer:
    from bridge.web.serving import server

    return server(app, started)
