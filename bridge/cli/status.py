"""`meisa-bridge status`: what a running bridge does and waits for, asked over HTTP."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import click

from bridge.errors import StartFailed, UsageError, UserError

if TYPE_CHECKING:
    import httpx

    from bridge.cli.panel import Drain, Facts

TOKEN_VARIABLE: Final = "MEISA_BRIDGE_ADMIN_TOKEN"  # noqa: S105  (a variable's name)
TIMEOUT_SECONDS: Final = 5.0
"""A status takes milliseconds; a bridge that needs longer is not well, which is what is asked."""
EVERY_SECONDS: Final = 2.0
ANSWER_BYTES_MAX: Final = 16 * 1024 * 1024
"""Some ten thousand partitions."""
EXPECTED: Final = frozenset({"ready", "lag", "partitions", "quota", "waiting_for", "taken_at_wall_seconds"})
"""What makes an answer a status."""
TONES: Final[dict[str, dict[str, Any]]] = {
    "good": {"fg": "green", "bold": True},
    "bad": {"fg": "red", "bold": True},
    "head": {"bold": True},
}


@click.command(short_help="Show what a running bridge does and waits for.")
@click.option(
    "--url", default="http://127.0.0.1:8080", show_default=True, metavar="URL", help="Of admin.listen, as seen here."
)
@click.option("--watch", is_flag=True, help="Show it anew every 2 s, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="As JSON; with --watch one line each time.")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help=f"Holds the token of admin.token; else the variable {TOKEN_VARIABLE} does.",
)
def status(url: str, watch: bool, as_json: bool, token_file: Path | None) -> None:
    """Show whether a running bridge is ready, what it waits for, its lag, its quota and how long the backlog takes.

    It tells of one instance: of the partitions that this one owns. Exit status 0: the bridge answered, ready or not
    (/readyz is for probes); 1: it did not; 2: the command line is wrong, or a token is needed and none was given.
    """
    with _Asker(url, _token(token_file)) as asker:
        if not watch:
            facts, drain = asker.ask()
            click.echo(_as_json(facts, drain, indent=2) if as_json else _text(facts, drain))
            return
        try:
            _watch(asker, as_json=as_json)
        except KeyboardInterrupt:
            click.echo()  # the shell's prompt on a line of its own


def _watch(asker: _Asker, *, as_json: bool) -> None:
    """Until interrupted. A bridge that is away later on is waited for: it may just be restarting."""
    screen = sys.stdout.isatty() and not as_json
    told, trouble = asker.ask(), ""
    if screen:
        click.echo("\x1b[2J", nl=False)
    while True:
        if as_json:
            click.echo(json.dumps({"error": trouble}) if trouble else _as_json(*told))
        else:
            text = _text(*told)
            if trouble:
                text = click.style(f"{trouble}; trying again. The last that it said:", **TONES["bad"]) + f"\n\n{text}"
            click.echo(_frame(text) if screen else f"{text}\n", nl=not screen)
        time.sleep(EVERY_SECONDS)
        try:
            told, trouble = asker.ask(), ""
        except UserError as error:
            trouble = str(error)


def _frame(text: str) -> str:
    """Drawn over what stands there, line by line, so that nothing flickers; what is too high is cut off."""
    height = max(2, shutil.get_terminal_size().lines - 1)
    lines = text.split("\n")
    if len(lines) > height:
        lines = [*lines[: height - 1], f"... {len(lines) - height + 1} more lines: without --watch all are shown"]
    return "\x1b[H" + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J"


def _text(facts: Facts, drain: Drain | None) -> str:
    from bridge.cli.panel import WIDTH, lines

    width = max(40, min(shutil.get_terminal_size((WIDTH, 24)).columns, 120)) if sys.stdout.isatty() else WIDTH
    colours = "NO_COLOR" not in os.environ
    made = lines(facts, drain, width)
    return "\n".join(
        click.style(each.text, **TONES[each.tone]) if each.tone and colours else each.text for each in made
    )


def _as_json(facts: Facts, drain: Drain | None, indent: int | None = None) -> str:
    told: dict[str, Any] = {**facts, "drain": None}
    if drain is not None:
        told["drain"] = {
            "seconds_at_best": round(drain.seconds, 1),
            "events": drain.events,
            "calls_per_event": round(drain.calls_per_event, 4),
            "measured": drain.measured,
            "key": drain.key,
            "calls_per_hour": round(drain.per_hour, 1),
        }
    return json.dumps(told, indent=indent, ensure_ascii=False)


def _token(file: Path | None) -> str | None:
    if file is None:
        return os.environ.get(TOKEN_VARIABLE, "").strip() or None
    from bridge.config.secret import read_reference_file

    try:
        return read_reference_file(file)
    except UsageError as error:
        raise UsageError(f"--token-file: {error}") from None


class _Asker:
    """Asks one bridge. Whatever it does, or whoever answers instead, is one line."""

    def __init__(self, url: str, token: str | None) -> None:
        from bridge.config.urls import http_url, is_loopback

        scheme, host = http_url(url)
        if not host or "@" in url:
            raise UsageError("--url is no address of a bridge: write http://host:port, e.g. http://127.0.0.1:8080")
        import httpx

        self._url = url.rstrip("/")
        self._where = f"{scheme}://{urlsplit(url).netloc}"
        self._token = token
        try:
            headers = {} if token is None else {b"authorization": f"Bearer {token}".encode("latin-1")}
            # A proxy of the environment knows nothing of this machine's own ports.
            self._client = httpx.Client(headers=headers, timeout=TIMEOUT_SECONDS, trust_env=not is_loopback(host))
        except UnicodeEncodeError:
            raise UsageError("the token holds characters that cannot be sent") from None

    def __enter__(self) -> _Asker:
        return self

    def __exit__(self, *exception: object) -> None:
        self._client.close()

    def ask(self) -> tuple[Facts, Drain | None]:
        """The status and the time to drain. Raises UserError."""
        from bridge.cli.panel import calls_in, drain_of, lines

        answer = self._get("/api/status")
        if answer.status_code in (401, 403):
            if self._token is None:
                raise UsageError(
                    f"{self._where} needs the token of admin.token: set {TOKEN_VARIABLE}, or give --token-file PATH"
                )
            raise StartFailed(f"{self._where} refuses the token: is it the one of this bridge's admin.token?")
        facts = self._facts(answer)
        metrics = self._get("/metrics")
        try:
            drain = drain_of(facts, calls_in(metrics.text if metrics.is_success else ""))
            lines(facts, drain)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise StartFailed(self._stranger("other JSON")) from None
        return facts, drain

    def _get(self, path: str) -> httpx.Response:
        import httpx

        try:
            with self._client.stream("GET", self._url + path) as answer:
                read = b""
                for part in answer.iter_bytes():
                    read += part
                    if len(read) > ANSWER_BYTES_MAX:
                        raise StartFailed(self._stranger("far too much for a status"))
                headers = {"content-type": answer.headers.get("content-type", "")}
                return httpx.Response(answer.status_code, headers=headers, content=read)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            if isinstance(error, httpx.TimeoutException):
                said = f"no answer within {TIMEOUT_SECONDS:g} s"
            elif isinstance(error, httpx.ConnectError):
                said = (str(error) or type(error).__name__).partition("\n")[0]
                said = "nothing listens there" if "refused" in said.lower() else said
            else:
                said = f"no proper answer ({type(error).__name__})"
            raise StartFailed(
                f"no bridge at {self._where}: {said}; is it running, and is --url the address of its admin.listen?"
            ) from None

    def _facts(self, answer: httpx.Response) -> Facts:
        if not answer.is_success:
            raise StartFailed(self._stranger(f"status {answer.status_code}"))
        try:
            facts = json.loads(answer.content)
        except ValueError:
            raise StartFailed(self._stranger("no JSON")) from None
        if not isinstance(facts, dict) or not facts.keys() >= EXPECTED:
            raise StartFailed(self._stranger("other JSON"))
        return facts

    def _stranger(self, what: str) -> str:
        return (
            f"what answers at {self._where} is no bridge ({what} at /api/status): "
            "is --url the address of its admin.listen?"
        )
