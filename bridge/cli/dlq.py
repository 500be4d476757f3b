"""`meisa-bridge dlq`: dead letters, listed, shown, replayed, discarded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from bridge.cli.boundary import LazyGroup
from bridge.cli.options import agree, config_option, settings_without_keys
from bridge.errors import UsageError

if TYPE_CHECKING:
    from bridge.config import Settings
    from bridge.kafka.replays import KafkaLogs
    from bridge.replay.shelf import Found, Shelf

Command = TypeVar("Command", bound=Callable[..., Any])
T = TypeVar("T")

LISTED = 50
"""Letters in a list unless told otherwise."""
KINDS = ("decode", "rule", "rejected", "exhausted", "expired", "unknown_contact", "unknown_outcome")
STATES = ("open", "requested", "replayed", "refused_again", "failed", "discarded")

COMMANDS = {
    "list": "bridge.cli.dlq:list_letters",
    "show": "bridge.cli.dlq:show",
    "replay": "bridge.cli.dlq:replay",
    "discard": "bridge.cli.dlq:discard",
}


@click.group(cls=LazyGroup, commands_at=COMMANDS, short_help="List, show, replay or discard dead letters.")
def dlq() -> None:
    """Dead letters: records of which something could not be delivered.

    A LETTER is the place of its record (topic/partition/offset, as logs name it), or its own place in the dead-letter
    topic (partition/offset, or the offset alone), as the list shows it.
    """


def filters(command: Command) -> Command:
    """Which letters: kind, rule, contact, time."""
    for option in (
        click.option("--until", metavar="TIME", help="Failed before this."),
        click.option("--since", metavar="TIME", help="Failed at or after this: ISO 8601, or an age such as 2h."),
        click.option("--contact", metavar="EMAIL", help="About this person: their email or id stands in it."),
        click.option("--rule", multiple=True, metavar="RULE", help="Of this rule; may be repeated."),
        click.option("--kind", multiple=True, type=click.Choice(KINDS), help="Of this kind; may be repeated."),
    ):
        command = option(command)
    return command


def common(command: Command) -> Command:
    command = click.option("--show-contacts", is_flag=True, help="Do not mask email addresses.")(command)
    return click.option("--json", "as_json", is_flag=True, help="As JSON.")(command)


@dlq.command("list", short_help="List dead letters and what became of them.")
@config_option
@filters
@click.option("--state", multiple=True, type=click.Choice(STATES), help="In this state; may be repeated.")
@click.option("--all", "everything", is_flag=True, help="Also those that need nothing any more.")
@click.option("--limit", type=click.IntRange(1), default=LISTED, show_default=True, help="The newest so many.")
@common
def list_letters(config: Path, everything: bool, state: tuple[str, ...], limit: int, **options: Any) -> None:
    """List dead letters, the newest last.

    Without --state or --all those that still need somebody: open, requested, failed.
    """
    from bridge.cli.dead_letters import find, line, summary
    from bridge.replay.shelf import WAITING
    from bridge.replay.telling import plain

    as_json, show_contacts = options.pop("as_json"), options.pop("show_contacts")

    async def work(shelf: Shelf, *_: object) -> None:
        found = await find(shelf, **options)
        states = set(STATES) if everything else set(state) or WAITING
        wanted = [each for each in found if each.state.value in states]
        shown = wanted[-limit:]
        if as_json:
            click.echo(_json([plain(each, show_contacts=show_contacts) for each in shown]))
            return
        for each in shown:
            click.echo(line(each, show_contacts=show_contacts))
        click.echo(summary(shelf, found, wanted, shown), err=True)

    _run(config, work)


@dlq.command(short_help="Show everything of one dead letter.")
@config_option
@click.argument("letter")
@common
def show(config: Path, letter: str, as_json: bool, show_contacts: bool) -> None:
    """Show everything of one LETTER: why it is here, what was asked and answered, its record, what became of it."""
    from bridge.cli.dead_letters import named, page
    from bridge.replay.telling import plain

    async def work(shelf: Shelf, *_: object) -> None:
        found = await named(shelf, [letter])
        records = [(each, await shelf.record(each)) for each in found]
        if as_json:
            click.echo(_json([plain(each, record, show_contacts=show_contacts) for each, record in records]))
            return
        for number, (each, record) in enumerate(records):
            click.echo(("\n" if number else "") + page(each, record, show_contacts=show_contacts))

    _run(config, work)


@dlq.command(short_help="Ask the running bridge to deliver what was not delivered.")
@config_option
@click.argument("letters", nargs=-1)
@filters
@click.option("--all", "everything", is_flag=True, help="All letters that are open.")
@click.option("--dry-run", is_flag=True, help="Say what would be sent and left out; write nothing, send nothing.")
@click.option("--overwrite", is_flag=True, help="Send fields too that later events of the contact wrote. Asks first.")
@click.option(
    "--send-again",
    is_flag=True,
    help="Send also what may have been sent (unknown_outcome), or was replayed already. Asks first.",
)
@click.option("--wait", is_flag=True, help="Wait until the bridge has carried them out; fail if one failed.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@common
def replay(
    config: Path,
    letters: tuple[str, ...],
    everything: bool,
    dry_run: bool,
    overwrite: bool,
    send_again: bool,
    wait: bool,
    yes: bool,
    **options: Any,
) -> None:
    """Ask the running bridge to deliver what was not delivered of LETTERS, or of all that match the filters.

    The bridge does it through the same queues and the same quota as live events, with the same idempotency keys, and
    without their max_age. It leaves out fields that later events of the contact wrote. What was asked for stays asked
    for: a bridge that is stopped goes on when it starts again.
    """
    from bridge.cli import dead_letters
    from bridge.replay.telling import plain, plain_outlook
    from bridge.replay.wishes import Wishes

    as_json, show_contacts = options.pop("as_json"), options.pop("show_contacts")
    _one_way(letters, options, everything=everything)

    async def work(shelf: Shelf, logs: KafkaLogs, settings: Settings) -> int:
        found = await (dead_letters.named(shelf, letters) if letters else dead_letters.find(shelf, **options))
        wishes = Wishes.replays(shelf.topics, found, named=bool(letters), overwrite=overwrite, send_again=send_again)
        looks, remark = await dead_letters.would_send(settings, logs, wishes) if dry_run else ({}, "")
        if not dry_run and wishes.chosen and (overwrite or send_again):
            agree(f"{wishes.consequence(overwrite=overwrite, send_again=send_again)} Go on?", yes)
        results: list[tuple[Found, str, str]] = []
        if not dry_run and wishes.chosen:
            if await shelf.make_topic():
                click.echo(
                    f"topic {shelf.replays_topic} did not exist and was created; a running bridge finds it within 30 s",
                    err=True,
                )
            await shelf.ask(wishes.requests)
            if wait:
                results = await dead_letters.results(shelf, wishes)
        bad = [each for each, state, _ in results if state != "replayed"]
        if as_json:
            told: dict[str, Any] = {
                "dry_run": dry_run,
                "requested": [plain(each, show_contacts=show_contacts) for each in wishes.chosen],
                "skipped": [{"letter": str(each.letter.place), "why": why} for each, why in wishes.skipped],
            }
            if dry_run:
                told["would_send"] = [
                    {"letter": str(each.letter.place), **plain_outlook(look, show_contacts=show_contacts)}
                    for each in wishes.chosen
                    if (look := looks.get((each.letter.source, each.letter.name))) is not None
                ]
                told["remark"] = remark or None
            if wait:
                told["results"] = [
                    {"letter": str(each.letter.place), "state": state, "message": message}
                    for each, state, message in results
                ]
            click.echo(_json(told))
        else:
            done = "would be replayed" if dry_run else "requested"
            for text in dead_letters.lines(wishes, done, show_contacts=show_contacts, looks=looks):
                click.echo(text)
            if remark:
                click.echo(remark, err=True)
            for each, state, message in results:
                click.echo(f"{each.name_in_list}  {state}: {message}")
            if wishes.chosen and not (dry_run or wait):
                click.echo("the bridge carries them out; see: meisa-bridge dlq list --all", err=True)
        return 1 if bad else 0

    _exit(_run(config, work))


@dlq.command(short_help="Mark dead letters as settled.")
@config_option
@click.argument("letters", nargs=-1)
@filters
@click.option("--all", "everything", is_flag=True, help="All letters that are open.")
@click.option("--dry-run", is_flag=True, help="Say what would be discarded; write nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@common
def discard(config: Path, letters: tuple[str, ...], everything: bool, dry_run: bool, yes: bool, **options: Any) -> None:
    """Mark LETTERS, or all that match the filters, as settled: they are not listed or replayed any more.

    Nothing is deleted: the letters stay in their topic, and can still be replayed by name.
    """
    from bridge.cli import dead_letters
    from bridge.replay.telling import plain
    from bridge.replay.wishes import Wishes, counted

    as_json, show_contacts = options.pop("as_json"), options.pop("show_contacts")
    _one_way(letters, options, everything=everything)

    async def work(shelf: Shelf, *_: object) -> None:
        found = await (dead_letters.named(shelf, letters) if letters else dead_letters.find(shelf, **options))
        wishes = Wishes.discards(found)
        if wishes.chosen and not dry_run:
            agree(f"Discard {counted(len(wishes.chosen))}? They will not be delivered.", yes)
            if await shelf.make_topic():
                click.echo(f"topic {shelf.replays_topic} did not exist and was created", err=True)
            await shelf.ask(wishes.requests)
        if as_json:
            told = {
                "dry_run": dry_run,
                "discarded": [plain(each, show_contacts=show_contacts) for each in wishes.chosen],
                "skipped": [{"letter": str(each.letter.place), "why": why} for each, why in wishes.skipped],
            }
            click.echo(_json(told))
            return
        done = "would be discarded" if dry_run else "discarded"
        for text in dead_letters.lines(wishes, done, show_contacts=show_contacts):
            click.echo(text)

    _run(config, work)


def _one_way(letters: Sequence[str], options: dict[str, Any], *, everything: bool) -> None:
    """Letters are named, or filtered, or all are meant; never by accident."""
    filtered = any(options.values())
    if letters and (filtered or everything):
        raise UsageError("name letters, or give filters, not both")
    if not (letters or filtered or everything):
        raise UsageError("say which: name letters, or give a filter such as --kind, or --all")


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


def _exit(status: int) -> None:
    click.get_current_context().exit(status)


def _run(config: Path, work: Callable[[Shelf, KafkaLogs, Settings], Coroutine[Any, Any, T]]) -> T:
    settings = settings_without_keys(config)

    from bridge.cli.dead_letters import opened

    async def open_and_work() -> T:
        async with opened(settings) as (shelf, logs):
            return await work(shelf, logs, settings)

    return asyncio.run(open_and_work())
