"""The sandbox as a server: the API under /api/v1, the control API under /_sandbox/, a page at /, perhaps a Kafka.

In tests, on the running loop:

    async with SandboxServer(SandboxOptions(port=0, per_minute=0, per_hour=0)) as server:
        ... server.base_url, server.sandbox.ledger.entries ...
"""

from __future__ import annotations

import asyncio
import errno
import signal
import sys
from importlib.resources import files
from types import TracebackType
from typing import TYPE_CHECKING, Self

from bridge.errors import UserError
from bridge.sandbox.api import BASE_PATH, Clock, Reply, Request, Sandbox
from bridge.sandbox.control import PREFIX, Control
from bridge.sandbox.http import HttpServer
from bridge.sandbox.options import TEST_KEY, SandboxOptions, with_catalogue

if TYPE_CHECKING:
    from bridge.sandbox.playground import Playground

KAFKA_PATH = f"{PREFIX}kafka"
STOP_GRACE_SECONDS = 5.0
"""Answers that are under way may still leave when the server is stopped; hanging ones are cut at once."""

_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/_sandbox/page.css": ("page.css", "text/css; charset=utf-8"),
    "/_sandbox/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/favicon.ico": ("favicon.svg", "image/svg+xml"),
}
_PAGE_HEADERS = (
    ("content-security-policy", "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-cache"),
)


class SandboxServer:
    """A running sandbox. `sandbox` may be looked at and changed directly, from the loop that it runs on."""

    def __init__(self, options: SandboxOptions | None = None, *, clock: Clock | None = None) -> None:
        """Raises UsageError for options that cannot be."""
        self.options = options if options is not None else SandboxOptions(port=0)
        self.clock = clock or Clock()
        self.sandbox = Sandbox(self.options)
        self._control = Control(self.sandbox, self.clock)
        self._pages = {path: _page(name, kind) for path, (name, kind) in _FILES.items()}
        self._http: HttpServer | None = None
        self.playground: Playground | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """Where the page is, without a slash at the end."""
        host = self.options.host
        if host in ("0.0.0.0", "::", ""):  # noqa: S104 - recognised, not bound here
            host = "127.0.0.1"
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def base_url(self) -> str:
        """What a client takes as Meisa's base URL."""
        return self.url + BASE_PATH

    async def start(self) -> None:
        """Raises OSError when the address cannot be had, StartFailed where the embedded Kafka does not start."""
        if self.options.kafka:  # before the port opens: whoever finds it open finds the broker too
            from bridge.sandbox.playground import Playground  # librdkafka: who needs none of it need not wait for it

            self.playground = await asyncio.to_thread(Playground)
        self._http = HttpServer(
            self._handle,
            self._ended,
            self.clock.now,
            body_bytes_max=self.options.body_bytes_max,
            keep_alive_seconds=self.options.keep_alive_seconds,
        )
        try:
            self.port = await self._http.start(self.options.host, self.options.port)
        except OSError:
            await self.close(0)
            raise

    async def close(self, grace_seconds: float = STOP_GRACE_SECONDS) -> None:
        playground, self.playground = self.playground, None
        if playground is not None:
            await asyncio.to_thread(playground.close)
        if self._http is not None:
            await self._http.close(grace_seconds)
            self._http = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _handle(self, request: Request) -> Reply:
        path = request.path
        page = self._pages.get(path)
        if page is not None and request.method in ("GET", "HEAD"):
            return page
        if self.playground is not None and (path == KAFKA_PATH or path.startswith(f"{KAFKA_PATH}/")):
            return self.playground.handle(request)
        if path.startswith(PREFIX):
            return self._control.handle(request)
        return self.sandbox.handle(request, self.clock.now())

    def _ended(self, reply: Reply, answered: bool) -> None:
        if reply.entry is not None and reply.ledger is not None:
            reply.ledger.ended(reply.entry, answered=answered)


def _page(name: str, kind: str) -> Reply:
    content = files("bridge.sandbox").joinpath("static", name).read_bytes()
    return Reply(200, content, _PAGE_HEADERS, kind)


async def _serve(options: SandboxOptions) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with SandboxServer(options) as server:
        sys.stderr.write(f"Meisa sandbox: {server.base_url} with X-API-Key {TEST_KEY}; page {server.url}/\n")
        if server.playground is not None:
            sys.stderr.write(f"embedded Kafka: {server.playground.bootstrap_servers}; forgotten at the end\n")
        sys.stderr.flush()
        await stop.wait()


def run(options: SandboxOptions) -> int:
    """Serves until SIGTERM or SIGINT and returns the exit status. Says on standard error where it listens, or what is
    wrong."""
    try:
        asyncio.run(_serve(with_catalogue(options)))
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_status
    except OSError as error:
        place = f"{options.host}:{options.port}"
        if error.errno == errno.EADDRINUSE:
            hint = "the port is in use; choose another with --port, or --port 0 for a free one"
        else:
            hint = f"{error.strerror or error}; choose another --host or --port"
        sys.stderr.write(f"sandbox: cannot listen on {place}: {hint}\n")
        return 1
    return 0
