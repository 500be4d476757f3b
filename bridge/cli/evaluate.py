"""`meisa-bridge eval`: one expression on one event, or on each event of a file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from bridge.errors import MissingField, RecordError, UsageError, UserError

if TYPE_CHECKING:
    from bridge.model import Event
    from bridge.rules import Expression

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
    help="The event as JSON or YAML: type, data, and perhaps id, time, key, headers … Several as JSON lines or a list. "
    "- is standard input.",
)
@click.option("--json", "as_json", is_flag=True, help="The value as JSON in one line.")
@click.pass_context
def evaluate(ctx: click.Context, expression: str, file: Path, as_json: bool) -> None:
    """Evaluate one expression on one event and print its value as JSON.

    The expression stands without ${ }: meisa-bridge eval 'data.plan != "free"' --file event.json

    Where the file holds several events, each has its value in a line of its own; those that fail are told by line.
    """
    import orjson

    from bridge.rules import ExpressionError, compile_expression

    try:
        compiled = compile_expression(expression)
    except ExpressionError as error:
        raise UserError("\n".join([str(error), *_marked(expression, error.offset)])) from None
    events = list(_events(_read(file), file))
    several = len(events) > 1
    options = orjson.OPT_NON_STR_KEYS | (0 if as_json or several else orjson.OPT_INDENT_2)
    failed = False
    for label, value in events:
        try:
            made = compiled.evaluate(_event(value, compiled))
        except RecordError as error:
            if not several:
                raise UserError(_told(error, compiled)) from None
            failed = True
            click.echo(f"{label}: {error.message}", err=True)
        else:
            click.echo(orjson.dumps(made, option=options, default=str).decode())
    ctx.exit(1 if failed else 0)


def _told(error: RecordError, compiled: Expression) -> str:
    """The fault; where it is about a field, the place that names it."""
    text = error.message
    if isinstance(error, MissingField):
        text += " (a `when` would be false; optional(x), default(x, y) and has(x) allow for that)"
    offset = next((each.offset for each in compiled.references if error.path and each.path == error.path), None)
    return text if offset is None else "\n".join([text, *_marked(compiled.text, offset)])


def _marked(expression: str, offset: int) -> list[str]:
    """The line of the expression at fault, and a caret under the place."""
    before = expression[:offset]
    start = before.rfind("\n") + 1
    line = expression[start:].split("\n", 1)[0]
    return [f"  {line}", "  " + " " * (offset - start) + "^"] if line else []


def _read(file: Path) -> bytes:
    if str(file) == "-":
        return sys.stdin.buffer.read(EVENT_BYTES_MAX)
    try:
        with file.open("rb") as opened:
            return opened.read(EVENT_BYTES_MAX)
    except OSError as error:
        raise UsageError(f"{file}: cannot be read ({error.strerror})") from None


def _events(content: bytes, file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each event and how it is called. Raises UserError."""
    import orjson

    lines = content.splitlines()
    try:
        if file.suffix in (".yaml", ".yml"):
            value = _yaml(content, file)
        else:
            value = orjson.loads(content.removeprefix(b"\xef\xbb\xbf"))
        found = [(f"{file}: event {number}", each) for number, each in enumerate(value, 1)] if _many(value) else []
        found = found or [(str(file), value)]
    except orjson.JSONDecodeError as error:
        found = []
        for number, line in enumerate(lines, 1):
            try:
                found += [(f"{file}:{number}", orjson.loads(line))] if line.strip() else []
            except orjson.JSONDecodeError as wrong:
                where = f":{number}" if found else ""  # the first line is none: no JSON lines at all
                raise UserError(f"{file}{where}: not JSON: {wrong if found else error}") from None
        if not found:
            raise UserError(f"{file}: not JSON: it is empty") from None
    for label, value in found:
        if not isinstance(value, dict) or not ("data" in value or "type" in value):
            example = '{"type": "user.signed_up", "data": {}}'
            raise UserError(f"{label}: not an event; write an object with type and data, e.g. {example}")
        yield label, value


def _many(value: Any) -> bool:
    return isinstance(value, list) and bool(value)


def _yaml(content: bytes, file: Path) -> Any:
    from bridge.errors import ProblemsFound
    from bridge.rules.yaml_traps import YAML
    from bridge.yamldoc import parse

    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{file}: not UTF-8 text") from None
    root, problems = parse(text, str(file), YAML)
    if problems:
        raise ProblemsFound(problems)
    return root.plain() if root is not None else None


def _event(value: Mapping[str, Any], compiled: Expression) -> Event:
    """The event as the service would decode it now; names are those of tests in rules files. Raises RecordError."""
    from bridge.decode import JsonDecoder
    from bridge.errors import DecodeError
    from bridge.model import Record
    from bridge.rules.faults import Fault
    from bridge.rules.testing import record_of

    given = {name: value.get(name) for name in ("key", "headers", "topic", "partition", "offset", "timestamp")}
    if not isinstance(given["headers"], dict):
        given["headers"] = {}
    for name in ("partition", "offset"):
        if type(given[name]) is not int:
            given[name] = 0
    for name in ("key", "topic"):
        if isinstance(given[name], dict | list):
            given[name] = None
    stamp: Any = given["timestamp"] if given["timestamp"] is not None else time.time()
    try:
        record: Record = record_of({**given, "timestamp": stamp, "value": dict(value)}, 0)
    except (Fault, TypeError):
        raise DecodeError("its timestamp is no time") from None
    if value.get("type") is None:
        if any(each.path == "event.type" for each in compiled.references):
            raise MissingField("event.type is missing", "event.type")
        record = record_of({**given, "timestamp": stamp, "value": {**value, "type": "event"}}, 0)
    event = JsonDecoder().decode(record)
    assert event is not None
    return event
