"""`meisa-bridge offsets`: where the group stands in its topics, and setting it elsewhere."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bridge.cli.boundary import LazyGroup
from bridge.cli.options import agree, config_option, settings_without_keys, wall_of
from bridge.errors import LogFailed, StartFailed, UsageError

if TYPE_CHECKING:
    from bridge.config import Settings
    from bridge.kafka.groups import Offsets
    from bridge.kafka.sample import Sampler, Slice
    from bridge.model import Record
    from bridge.positions import Consequence, Move, Standing

Command = TypeVar("Command", bound=Callable[..., Any])

COMMANDS = {"show": "bridge.cli.offsets:show", "reset": "bridge.cli.offsets:reset"}
WINDOWS = ("minute", "hour")
KEYS_TOLD = 20
"""Trigger keys named of each sort; rules have a handful."""


@click.group(cls=LazyGroup, commands_at=COMMANDS, short_help="Show or set the group's offsets.")
def offsets() -> None:
    """The offsets of the consumer group, and what the bridge tells beside them."""


def topic_option(command: Command) -> Command:
    return click.option(
        "--topic", "topics", multiple=True, metavar="T[:P]", help="A topic, or one partition of it; may be repeated."
    )(command)


@offsets.command(short_help="Show where the group stands.")
@config_option
@topic_option
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def show(config: Path, topics: tuple[str, ...], as_json: bool) -> None:
    """Show for each partition: the committed offset, the log, and what the bridge tells beside the offset.

    Beyond the committed offset events may have finished, and triggers may have started that are not known to be sent.
    """
    settings = settings_without_keys(config)
    with _Desk(settings, topics) as desk:
        standings = desk.standings()
    wall = time.time()
    if as_json:
        click.echo(json.dumps([plain(each, wall) for each in standings], indent=2))
        return
    click.echo(f"group {settings.kafka.group_id}")
    for line in table(standings, wall):
        click.echo(line)


@offsets.command(short_help="Set the group's offsets. Asks first.")
@config_option
@topic_option
@click.option("--to", required=True, metavar="earliest|latest|OFFSET|TIME", help="TIME: ISO 8601, or an age: 2h.")
@click.option("--dry-run", is_flag=True, help="Say what would be done; change nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def reset(config: Path, topics: tuple[str, ...], to: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Set the offsets of the group, which must be stopped, and say what that does.

    Events that are read again are delivered again: which emails could go out twice is told before anything is asked.
    What of the quota is used stays used.
    """
    from bridge.kafka.groups import GroupHasMembers, members
    from bridge.model import Position

    settings = settings_without_keys(config)
    kafka = settings.kafka
    with _Desk(settings, topics) as desk:
        there = desk.asked(lambda: members(kafka.bootstrap_servers, kafka.properties, kafka.group_id))
        if there:
            who = "; ".join(map(str, there))
            raise GroupHasMembers(
                f"group {kafka.group_id} has {len(there)} member{'s' if len(there) > 1 else ''}: {who}. Stop all "
                "instances first; a static member leaves the group only after its session timeout"
            )
        moves = desk.moves(to)
        again, skipped = desk.consequences(moves)
        if as_json:
            click.echo(json.dumps(_told(moves, again, skipped, dry_run=dry_run), indent=2))
        else:
            for line in report(moves, again, skipped):
                click.echo(line)
        changed = [each for each in moves if each.target != each.standing.committed]
        if dry_run or not changed:
            click.echo("nothing was changed" if dry_run else "the group stands there already", err=True)
            return
        agree(f"Set {len(changed)} offsets of group {kafka.group_id}?", yes)
        hashes = desk.hashes()
        wall, limit = time.time(), kafka.offset_metadata_max_bytes
        desk.commit(
            [
                Position(
                    each.standing.partition,
                    each.target,
                    each.text(wall, hashes.get(each.standing.partition.topic), limit),
                )
                for each in changed
            ]
        )
    click.echo(f"{len(changed)} offsets of group {kafka.group_id} were set", err=True)


class _Desk:
    """Asks Kafka about chosen partitions. Every failure outside is a StartFailed with one line."""

    def __init__(self, settings: Settings, topics: Sequence[str]) -> None:
        self._settings = settings
        self._chosen = _chosen(settings, topics)

    def __enter__(self) -> _Desk:
        from bridge.kafka.admin import probe
        from bridge.kafka.groups import Offsets
        from bridge.kafka.sample import Sampler
        from bridge.observe.logs import quiet

        kafka = self._settings.kafka
        with contextlib.ExitStack() as opened:
            opened.enter_context(quiet())
            self._describes = probe(kafka.bootstrap_servers, kafka.properties).describes
            sampler = self.asked(lambda: Sampler(kafka.bootstrap_servers, kafka.properties, kafka.group_id))
            self._sampler: Sampler = opened.enter_context(sampler)
            offsets = self.asked(lambda: Offsets(kafka.bootstrap_servers, kafka.properties, kafka.group_id))
            self._offsets: Offsets = opened.enter_context(offsets)
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._opened.close()

    def asked(self, question: Callable[[], Any]) -> Any:
        try:
            return question()
        except LogFailed as error:
            raise StartFailed(f"Kafka at {self._settings.kafka.bootstrap_servers}: {error}") from None

    def _wanted(self, slices: Iterable[Slice]) -> list[Slice]:
        found = []
        for each in slices:
            numbers = self._chosen[each.partition.topic]
            if not numbers or each.partition.partition in numbers:
                found.append(each)
        return found

    def standings(self) -> list[Standing]:
        from bridge.positions import Standing

        logs = [each for topic in self._chosen for each in self._wanted(self.asked(lambda: self._sampler.whole(topic)))]  # noqa: B023  # called at once
        there = {(each.partition.topic, each.partition.partition) for each in logs}
        for topic, numbers in self._chosen.items():
            for number in sorted(numbers):
                if (topic, number) not in there:
                    raise UsageError(f"--topic {topic}:{number}: the topic has no such partition")
        committed = self.asked(lambda: self._offsets.committed([each.partition for each in logs]))
        return [Standing.of(each, committed.get(each.partition)) for each in logs]

    def moves(self, to: str) -> list[Move]:
        """Where each partition goes: within its log."""
        from bridge.positions import Move

        standings = self.standings()
        if to == "earliest":
            return [Move(each, each.start) for each in standings]
        if to == "latest":
            return [Move(each, each.end) for each in standings]
        if to.isdecimal():
            if len(standings) != 1:
                raise UsageError("--to OFFSET is of one partition: name it with --topic T:P")
            (one,) = standings
            if not one.start <= int(to) <= one.end:
                raise UsageError(f"--to {to}: the log of {one.partition} has offsets {one.start} to {one.end}")
            return [Move(one, int(to))]
        wall = wall_of(to, "--to")
        targets = {}
        for topic in self._chosen:
            for each in self.asked(lambda: self._sampler.since(topic, wall)):  # noqa: B023  # called at once
                targets[each.partition] = each.start
        if self._sampler.knows_no_times:
            raise StartFailed("this broker cannot find offsets by time")
        return [Move(each, targets[each.partition]) for each in standings]

    def consequences(self, moves: Sequence[Move]) -> tuple[Consequence, Consequence]:
        """What is done again, and what is never done."""
        from bridge.decoders import fetching_decoders
        from bridge.loading import load_rules
        from bridge.positions import READ_MAX, consequence

        book = load_rules(self._settings)
        by_topic = fetching_decoders(self._settings)
        finished = {each.standing.partition: set(each.standing.finished) for each in moves}
        committed = {each.standing.partition: each.standing.committed or 0 for each in moves}

        def is_finished(record: Record) -> bool:
            at = (record.topic, record.partition)
            return record.offset < committed[at] or record.offset in finished[at]  # type: ignore[index]

        def read(slices: Sequence[Slice]) -> list[Record]:
            found: list[Record] = self.asked(lambda: self._sampler.read(slices))
            return found

        again = {each.standing.partition: each.again for each in moves}
        skipped = {each.standing.partition: each.skipped for each in moves}
        total = sum(min(READ_MAX, sum(max(0, each.length) for each in them.values())) for them in (again, skipped))
        bar = click.progressbar(length=total, label="reading what it is about", file=sys.stderr)
        shown = sys.stderr.isatty() and total > 0

        def told(count: int) -> None:
            if shown:
                bar.update(count)

        def ask(parts: Mapping[Any, Slice], concerned: Callable[[Record], bool]) -> Consequence:
            return consequence(
                parts, concerned, read=read, decoders=by_topic, plan=book.plan, wall=time.time(), told=told
            )

        made = ask(again, is_finished), ask(skipped, lambda record: not is_finished(record))
        if shown:
            bar.render_finish()
        return made

    def hashes(self) -> dict[str, int]:
        from bridge.kafka.groups import topic_hashes

        kafka = self._settings.kafka
        if not self._describes:
            return {}
        return topic_hashes(kafka.bootstrap_servers, kafka.properties, list(self._chosen))

    def commit(self, positions: Sequence[Any]) -> None:
        self.asked(lambda: self._offsets.commit(positions))


def _chosen(settings: Settings, topics: Sequence[str]) -> dict[str, set[int]]:
    """The partitions of each topic; none: all of it. Raises UsageError."""
    from bridge.places import did_you_mean

    found: dict[str, set[int]] = {}
    for text in topics or settings.topics:
        name, colon, number = text.partition(":")
        if name not in settings.topics:
            hint = did_you_mean(name, list(settings.topics), f"known are {', '.join(settings.topics)}")
            raise UsageError(f"--topic {text}: {name} is not among the configured topics ({hint})")
        if colon and not number.isdecimal():
            raise UsageError(f"--topic {text}: write T or T:P, e.g. {name}:0")
        if colon and found.get(name, {-1}):
            found.setdefault(name, set()).add(int(number))
        else:
            found[name] = set()
    return found


# For people and programs


def plain(each: Standing, wall: float) -> dict[str, Any]:
    started = sorted(at for walls in each.started.values() for at in walls)
    return {
        "topic": each.partition.topic,
        "partition": each.partition.partition,
        "committed": each.committed,
        "log_start": each.start,
        "log_end": each.end,
        "lag": each.lag,
        "finished_beyond": len(each.finished),
        "came_to": each.came_to if each.committed is not None else None,
        "triggers_started": len(started),
        "oldest_start_seconds": round(max(0.0, wall - started[0])) if started else None,
        "calls_used": {key: dict(zip(WINDOWS, counts, strict=False)) for key, counts in each.spend(2).items()},
        "unreadable": each.unreadable,
    }


def table(standings: Sequence[Standing], wall: float) -> Iterator[str]:
    head = ("partition", "committed", "log", "lag", "finished beyond", "triggers in doubt", "calls counted")
    rows = [head]
    for each in standings:
        facts = plain(each, wall)
        doubt = str(facts["triggers_started"])
        if facts["triggers_started"]:
            doubt += f", oldest {_age(facts['oldest_start_seconds'])}"
        calls = "; ".join(
            f"{key} {', '.join(f'{count} a {window}' for window, count in windows.items())}"
            for key, windows in facts["calls_used"].items()
        )
        rows.append(
            (
                str(each.partition),
                "none" if each.committed is None else f"{each.committed:,}",
                f"{each.start:,} to {each.end:,}",
                "" if each.lag is None else f"{each.lag:,}",
                "cannot be read" if each.unreadable else f"{facts['finished_beyond']:,}",
                doubt,
                calls,
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _told(moves: Sequence[Move], again: Consequence, skipped: Consequence, *, dry_run: bool) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "partitions": [
            {
                "topic": each.standing.partition.topic,
                "partition": each.standing.partition.partition,
                "from": each.standing.committed,
                "to": each.target,
            }
            for each in moves
        ],
        "done_again": _facts(again),
        "never_done": _facts(skipped),
    }


def _facts(found: Consequence) -> dict[str, Any]:
    return {
        "offsets": found.length,
        "read": found.looked_at,
        "events": found.events,
        "undecodable": found.undecodable,
        "triggers": dict(found.triggers),
        "triggers_stopped_by_max_age": dict(found.stopped),
        "calls": dict(found.calls),
    }


def report(moves: Sequence[Move], again: Consequence, skipped: Consequence) -> Iterator[str]:
    for each in moves:
        standing = each.standing
        before = "no offset" if standing.committed is None else f"{standing.committed:,}"
        yield f"{standing.partition}: {before} → {each.target:,} (log {standing.start:,} to {standing.end:,})"
        doubt = sum(len(walls) for offset, walls in standing.started.items() if offset < each.target)
        if doubt:
            yield f"  {doubt} of its triggers may have been sent or not, and are forgotten"
        if standing.unreadable:
            yield (
                "  what stands beside its offset cannot be read, and stays: its quota counts as used up, and triggers "
                "of its next events are dead-lettered as unknown_outcome"
            )
    if again.length:
        yield f"Done again, by the present rules ({_read(again)}):"
        yield from _lines(again, "triggers that could fire again", "triggers that max_age stops")
    if skipped.length:
        yield f"Never done, though not finished ({_read(skipped)}):"
        yield from _lines(skipped, "triggers that never fire", "triggers that max_age would have stopped")


def _read(found: Consequence) -> str:
    if found.complete:
        return f"{found.length:,} offsets, {found.events:,} events"
    return (
        f"{found.length:,} offsets are too many to be read: this is of the youngest {found.looked_at:,} of them; "
        "triggers of older ones too, unless max_age stops them, as the default of a day does after a day"
    )


def _lines(found: Consequence, fire: str, stopped: str) -> Iterator[str]:
    yield f"  {fire}: {_counts(found.triggers)}"
    if found.stopped:
        yield f"  {stopped}: {_counts(found.stopped)}"
    if found.calls:
        yield f"  other calls, before any are merged or spared: {_counts(found.calls)}"
    if found.undecodable:
        yield f"  records that cannot be decoded here: {found.undecodable:,}"


def _counts(counts: Mapping[str, int]) -> str:
    listed = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    told = ", ".join(f"{name} {count:,}" for name, count in listed[:KEYS_TOLD])
    more = f" and {len(listed) - KEYS_TOLD} other keys" if len(listed) > KEYS_TOLD else ""
    return told + more or "none"


def _age(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3_600:.0f} h"
