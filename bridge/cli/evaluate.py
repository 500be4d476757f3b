"""`meisa-bridge eval`: one expression on one event."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import click

from bridge.errors import RecordError, UsageError, UserError

EVENT_BYTES_MAX: Final = 64 * 1024 * 1024
"""Far above what a broker accepts for one record (1 MB unless configured)."""


@click.command("eval", short_help="Evaluate one expression on one event.")
@click.argument("expression")
@click.option(
    "--file",
    "file",
    required=True,
    type=click.Path(path_type=Path, allow_dash=True),
    metavar="event.json",
    help="The event as JSON: type, data, and perhaps id, time, source, subject. - is standard input.",
)
@click.option("--json", "as_json", is_flag=True, help="The value as JSON in one line.")
def evaluate(expression: str, file: Path, as_json: bool) -> None:
    """Evaluate one expression on one event and print its value as JSON.

    The expression stands without ${ }: meisa-bridge eval 'data.plan != "free"' --file event.json
    """
    import orjson

    from bridge.rules import ExpressionError, compile_expression

    try:
        compiled = compile_expression(expression)
    except ExpressionError as error:
        raise UserError("\n".join([str(error), *_marked(expression, error.offset)])) from None
    event = _event(_read(file), file)
    try:
        value = compiled.evaluate(event)
    except RecordError as error:
        where = f" (at {error.path})" if error.path and error.path not in error.message else ""
        raise UserError(f"{error.message}{where}") from None
    options = orjson.OPT_NON_STR_KEYS | (0 if as_json else orjson.OPT_INDENT_2)
    click.echo(orjson.dumps(value, option=options, default=str).decode())


def _marked(expression: str, offset: int) -> list[str]:
    """The line of the expression at fault, and a caret under the place."""
    before = expression[:offset]
    start = before.rfind("\n") + 1
    line = expression[start:].split("\n", 1)[0]
    return [f"  {line}", "  " + " " * (offset - start) + "^"]


def _read(file: Path) -> bytes:
    if str(file) == "-":
        return sys.stdin.buffer.read(EVENT_BYTES_MAX)
    try:
        with file.open("rb") as opened:
            return opened.read(EVENT_BYTES_MAX)
    except OSError as error:
        raise UsageError(f"{file}: cannot be read ({error.strerror})") from None


def _event(content: bytes, file: Path) -> Any:
    import orjson

    from bridge.model import Event, Record

    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise UserError(f"{file}: not JSON: {error}") from None
    if not isinstance(value, dict) or "data" not in value:
        raise UserError(f'{file}: not an event; write an object with type and data, e.g. {{"type": "a", "data": {{}}}}')

    def text(name: str, default: str) -> str:
        found = value.get(name)
        return default if found is None else str(found)

    return Event(
        id=text("id", "events/0/0"),
        type=text("type", ""),
        time=text("time", "1970-01-01T00:00:00Z"),
        time_wall_seconds=0.0,
        data=value["data"],
        record=Record("events", 0, 0, 0, None, content),
        value=value,
        source=value.get("source"),
        subject=value.get("subject"),
    )
