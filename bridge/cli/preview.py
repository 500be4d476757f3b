"""`meisa-bridge preview`: what would be sent, without sending, committing or joining the group."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import click

from bridge.cli.options import config_option, settings_without_keys
from bridge.errors import DecodeError, LogFailed, ProblemsFound, RegistryFailed, UsageError, UserError
from bridge.observe.printable import printable_in

if TYPE_CHECKING:
    from bridge.config import Settings
    from bridge.decoders import Decoders
    from bridge.model import Record
    from bridge.preview.events import Arrival

LAST: Final = 10_000
"""Records of the live topic unless --last or --since says otherwise: half a minute's work, and days of most topics."""
SHOW_EVERY_SECONDS: Final = 0.2


@click.command(short_help="Show what would be sent, without sending anything.")
@config_option
@click.option(
    "--file",
    "file",
    type=click.Path(path_type=Path, allow_dash=True),
    metavar="events.jsonl",
    help="One event a line, as on the topic, or whole records (kcat -J, rpk). - is standard input.",
)
@click.option("--topic", metavar="T", help="Read the live topic; with --file, the topic of lines that name none.")
@click.option("--last", type=click.IntRange(1), metavar="N", help=f"The last N events; {LAST:,} of a live topic.")
@click.option("--since", metavar="TIME", help="Events since then: ISO 8601, or how long ago (30m, 2h, 1d).")
@click.option("--contact", metavar="EMAIL", help="Tell this contact's story: each event, and the call that carried it.")
@click.option("--at-once/--as-they-happened", default=None, help="All wait at the start, or arrive at their times.")
@click.option("--now", metavar="TIME", help="When the preview begins, with --at-once.")
@click.option(
    "--partitions",
    type=click.IntRange(1, 10_000),
    metavar="N",
    help="With --file: the topic's partitions, over which lines that name none are spread; 1 by default.",
)
@click.option("--new-account", is_flag=True, help="Meisa knows nobody at the start; else it knows everybody.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write a page as well.")
@click.option("--json", "as_json", is_flag=True, help="The report as JSON.")
@click.option("--show-contacts", is_flag=True, help="Show email addresses instead of masking them.")
@click.pass_context
def preview(
    ctx: click.Context,
    config: Path,
    file: Path | None,
    topic: str | None,
    last: int | None,
    since: str | None,
    contact: str | None,
    at_once: bool | None,
    now: str | None,
    partitions: int | None,
    new_account: bool,
    html: Path | None,
    as_json: bool,
    show_contacts: bool,
) -> None:
    """Show what would be sent, without sending, committing or joining the group.

    The engine itself carries the events, on a clock that jumps and against a Meisa that is imagined: calls by kind,
    what was saved and by what, how long it takes at the quota, dead letters, and with --contact one person's story.

    \b
    meisa-bridge preview --file events.jsonl
    meisa-bridge preview --topic user-events --last 5000 --html preview.html
    """
    if file is None and not (topic or last or since):
        raise click.UsageError("name the events: --file events.jsonl, or --topic T (with --last N or --since TIME)")
    if last is not None and since is not None:
        raise click.UsageError("--last and --since exclude each other")
    wall = time.time()
    began = _moment(now, wall, "--now") if now is not None else None
    since_wall = _moment(since, wall, "--since") if since is not None else None

    settings = settings_without_keys(config)
    show = show_contacts or settings.admin.show_contacts

    from bridge.config import placed
    from bridge.decoders import fetching_decoders
    from bridge.loading import load_rules
    from bridge.observe.logs import quiet
    from bridge.preview import events
    from bridge.preview.rehearsal import rehearse
    from bridge.preview.report import report
    from bridge.runtime.garbage import collect_seldom

    try:
        book = load_rules(settings)
        decode = fetching_decoders(settings, also_json=file is not None)
    except ProblemsFound as error:
        raise ProblemsFound(placed(error.problems, settings.place)) from None
    collect_seldom()
    with quiet(), _Bar(sys.stderr) as bar:
        if file is not None:
            where = events.spread(partitions, decode, book.plan) if partitions else events.first_partition
            arrivals = _from_file(file, _topic_of_lines(settings, topic), list(settings.topics), last, where)
        else:
            arrivals = _from_topic(settings, _topic(settings, topic), last, since_wall, bar)
        _fetch_schemas(arrivals, decode)
        arrivals = events.with_event_times(arrivals, decode)
        if file is not None and since_wall is not None:
            arrivals = events.since(arrivals, since_wall)
        fixed = began is not None or file is None
        line = events.timeline(arrivals, now_wall=began if began is not None else wall, at_once=at_once, fixed=fixed)
        found = rehearse(settings, book, line, decode, contact=contact or "", new_account=new_account, progress=bar)
    kind, name = ("file", "standard input" if str(file) == "-" else str(file)) if file is not None else ("topic", "")
    made = report(settings, book, found, kind=kind, name=name or _topic(settings, topic), show_contacts=show)
    if html is not None:
        _write_page(html, made)
    if as_json:
        click.echo(json.dumps(made, indent=2, ensure_ascii=False))
    else:
        _print(made)
        if html is not None:
            click.echo(f"\nwrote {html}")
    ctx.exit(0)


def _topic_of_lines(settings: Settings, topic: str | None) -> str:
    if topic is None and len(settings.topics) > 1:
        known = ", ".join(settings.topics)
        raise click.UsageError(f"of which topic are the lines? Name it with --topic; configured are {known}")
    return _topic(settings, topic)


def _topic(settings: Settings, topic: str | None) -> str:
    from bridge.places import did_you_mean

    if topic is None:
        if len(settings.topics) > 1:
            raise click.UsageError(f"name the topic with --topic; configured are {', '.join(settings.topics)}")
        return next(iter(settings.topics))
    if topic not in settings.topics:
        hint = did_you_mean(topic, settings.topics, f"configured are {', '.join(settings.topics)}")
        raise UsageError(f"--topic {topic}: no such topic in the configuration ({hint})")
    return topic


def _from_file(
    file: Path, topic: str, topics: Sequence[str], last: int | None, where: Callable[[Record], int]
) -> list[Arrival]:
    from bridge.preview import events

    name = "standard input" if str(file) == "-" else str(file)
    try:
        if str(file) == "-":
            return events.read_lines(sys.stdin.buffer, topics, topic=topic, last=last, name=name, partition_of=where)
        with file.open("rb") as stream:
            return events.read_lines(stream, topics, topic=topic, last=last, name=name, partition_of=where)
    except OSError as error:
        raise UsageError(f"{name}: cannot be read ({error.strerror})") from None


def _from_topic(settings: Settings, topic: str, last: int | None, since: float | None, bar: _Bar) -> list[Arrival]:
    from bridge.kafka.sample import RECORDS_MAX, sample
    from bridge.preview import events

    kafka = settings.kafka
    wanted = last if last is not None or since is not None else LAST
    try:
        records = sample(
            kafka.bootstrap_servers,
            kafka.properties,
            kafka.group_id,
            topic,
            last=wanted,
            since=since,
            limit=max(RECORDS_MAX, last or 0),
            progress=bar.read,
        )
        return events.from_topic(records)
    except LogFailed as error:
        raise UserError(f"Kafka at {kafka.bootstrap_servers}: {error}") from None


def _fetch_schemas(arrivals: Sequence[Arrival], decode: Decoders) -> None:
    """Asks registries for what records were written with, before the clock that jumps begins."""
    for record in (each.record for each in arrivals if each.record.topic in decode.wires):
        if decode.wires[record.topic].lacks(record) is not None:
            try:
                decode[record.topic](record)
            except DecodeError:
                pass  # a dead letter, told as such
            except RegistryFailed as error:
                raise UserError(str(error)) from None


def _moment(text: str, wall: float, option: str) -> float:
    """A time of the world: ISO 8601, or so long ago."""
    from bridge.actions import duration_seconds
    from bridge.decode import times

    try:
        return wall - duration_seconds(text)
    except ValueError:
        pass
    try:
        return times.from_text(text)[1]
    except times.NotATime:
        raise click.UsageError(f"{option}: write a time such as 2026-01-31T12:00:00Z, or how long ago: 2h") from None


def _print(report: Mapping[str, Any]) -> None:
    from bridge.preview import text

    def bold(part: str) -> str:
        return click.style(part, bold=True)

    def dim(part: str) -> str:
        return click.style(part, dim=True)

    shown = printable_in(report)  # names and messages of events are whatever somebody wrote
    click.echo(text.lines(text.text(shown, bold=bold, dim=dim)), nl=False)  # click takes styles out of a pipe


def _write_page(path: Path, report: Mapping[str, Any]) -> None:
    from bridge.preview.page import page

    try:
        path.write_text(page(report), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror})") from None


class _Bar:
    """One line on a terminal that says how far it is; nothing elsewhere."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._shown = stream.isatty()
        self._next = 0.0
        self._written = False

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *error: object) -> None:
        if self._written:
            self._stream.write("\r\033[K")
            self._stream.flush()

    def read(self, read: int, most: int) -> None:
        """Records of the topic."""
        self._say(f"reading: {read:,} of at most {most:,} records")

    def told(self, fed: int, finished: int, calls: int, seconds: float) -> None:
        """The engine's work."""
        if self._shown:
            from bridge.preview.text import duration

            self._say(f"{fed:,} events in, {finished:,} finished, {calls:,} calls; {duration(seconds)} of virtual time")

    def _say(self, text: str) -> None:
        now = time.monotonic()
        if self._shown and now >= self._next:
            self._next = now + SHOW_EVERY_SECONDS
            self._written = True
            self._stream.write(f"\r\033[K{text[:79]}")
            self._stream.flush()
