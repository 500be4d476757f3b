"""What `meisa-bridge dlq` reads and writes: the dead-letter topic beside the topic of replays, never the group, never
Meisa. What pages do with letters as well stands in bridge/replay (shelf, wishes, telling, outlook)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from bridge.cli.options import wall_of
from bridge.errors import LogFailed, RegistryFailed, StartFailed, UserError
from bridge.kafka.admin import probe
from bridge.kafka.replays import KafkaLogs
from bridge.model import Record, action_id
from bridge.observe.masking import mask
from bridge.observe.printable import printable
from bridge.replay.ledger import State
from bridge.replay.outlook import Key, Outlook, outlook
from bridge.replay.shelf import Found, Keep, Shelf, about, matching
from bridge.replay.telling import outlook_lines, plain
from bridge.replay.wishes import Wishes

if TYPE_CHECKING:
    from bridge.config import Settings

PROBE_SECONDS = 5.0
LOOK_SECONDS = 0.5
OUTLOOK_MAX = 200
"""Letters of which a dry run tells what would be sent: as many as a replay takes up together."""
MESSAGE_MAX = 100
"""Characters of a message in the list."""


@contextlib.asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[tuple[Shelf, KafkaLogs]]:
    """Raises StartFailed where there is no broker, and where Kafka fails later."""
    kafka = settings.kafka
    await asyncio.to_thread(probe, kafka.bootstrap_servers, kafka.properties, PROBE_SECONDS)
    logs = KafkaLogs(kafka.bootstrap_servers, kafka.group_id, kafka.properties)
    letters = settings.dead_letters
    try:
        yield (
            Shelf(logs, topic=letters.topic, replays_topic=letters.replays_topic, topics=settings.topics),
            logs,
        )
    except LogFailed as error:
        raise StartFailed(str(error)) from None
    finally:
        await logs.close()


async def find(
    shelf: Shelf,
    kind: Sequence[str] = (),
    rule: Sequence[str] = (),
    contact: str | None = None,
    since: str | None = None,
    until: str | None = None,
) -> list[Found]:
    """The letters that match all filters, as command lines give them. Raises UserError."""
    keep: Keep | None = None if contact is None else partial(about, contact=contact)
    first = _moment(since, "--since") if since else ""
    last = _moment(until, "--until") if until else "~"
    await shelf.read(keep)
    return matching(shelf.all(), kinds=kind, rules=rule, since=first, until=last)


async def named(shelf: Shelf, names: Sequence[str]) -> list[Found]:
    """Raises UsageError for what is no name, UserError for what is not there."""
    await shelf.read()
    return shelf.named(names)


async def results(shelf: Shelf, wishes: Wishes) -> list[tuple[Found, str, str]]:
    """Waits until all requests are answered."""
    while True:
        await shelf.read(lambda record, letter: False)  # fresh letters are nobody's concern here
        if all(each.state is not State.REQUESTED for each in wishes.chosen):
            return [(each, each.state.value, each.message) for each in wishes.chosen]
        await asyncio.sleep(LOOK_SECONDS)


async def would_send(settings: Settings, logs: KafkaLogs, wishes: Wishes) -> tuple[dict[Key, Outlook], str]:
    """What the first `OUTLOOK_MAX` letters would send, and what there is to say about the others or of all."""
    from bridge.decoders import fetching_decoders
    from bridge.loading import load_rules
    from bridge.replay.preparing import Preparing
    from bridge.runtime.clock import SystemClock

    try:
        book = load_rules(settings)
        preparing = Preparing(
            logs,
            settings.dead_letters.replays_topic,
            decoders=fetching_decoders(settings),
            plan=book.plan,
            knows_rule=lambda name: name in book.names,
            identify=lambda record, action: action_id(settings.kafka.group_id, record, action),
            clock=SystemClock(),
            deduplicated=[name for name, topic in settings.topics.items() if topic.dedupe is not None],
        )
        looks = await outlook(preparing, logs, wishes.requests[:OUTLOOK_MAX])
    except (UserError, RegistryFailed) as error:
        return {}, f"what would be sent is not known: {error}"
    many = len(wishes.requests) - OUTLOOK_MAX
    return looks, f"what the other {many} would send was not looked at" if many > 0 else ""


def summary(shelf: Shelf, found: Sequence[Found], wanted: Sequence[Found], shown: Sequence[Found]) -> str:
    counts: dict[str, int] = {}
    for each in found:
        counts[each.state.value] = counts.get(each.state.value, 0) + 1
    text = ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "no dead letters"
    if len(shown) < len(wanted):
        text += f"; the newest {len(shown)} of {len(wanted)} are shown (--limit)"
    if shelf.dropped:
        text += f"; {shelf.dropped} older ones are left out"
    if shelf.foreign:
        text += f"; {shelf.foreign} records in {shelf.topic} are not this bridge's"
    return text


def _moment(text: str, option: str) -> str:
    """A time as letters write it (UTC, ISO 8601, which sorts as text)."""
    moment = wall_of(text, option)
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# For people


def lines(
    wishes: Wishes, done: str, *, show_contacts: bool, looks: Mapping[Key, Outlook] | None = None
) -> Iterator[str]:
    """What was or would be done; with what it would send where that is known."""
    for each in wishes.chosen:
        yield f"{done}: {line(replace(each, message=''), show_contacts=show_contacts)}"
        look = (looks or {}).get((each.letter.source, each.letter.name))
        if look is not None:
            yield from (f"    {printable(text)}" for text in outlook_lines(look, show_contacts=show_contacts))
    for each, why in wishes.skipped:
        yield f"left out: {each.name_in_list}  {each.letter.source}  {why}"
    if not wishes.chosen:
        yield "nothing to do"


def line(found: Found, *, show_contacts: bool) -> str:
    """One letter in a list."""
    letter = found.letter
    what = " ".join(part for part in (letter.rule, letter.action) if part)
    status = f" ({letter.status})" if letter.status else ""
    text = f"{found.name_in_list}  {letter.failed_at}  {letter.source}  {letter.kind}  {what}{status}  "
    said = str(mask(letter.message, show_contacts=show_contacts))
    text += said if len(said) <= MESSAGE_MAX else said[: MESSAGE_MAX - 1] + "…"
    if found.state is not State.OPEN:
        text += f"  [{found.state.value}{': ' + _masked(found.message, show_contacts) if found.message else ''}]"
    return printable(text)


def _masked(text: str, show_contacts: bool) -> str:
    return str(mask(text, show_contacts=show_contacts))


def page(found: Found, record: Record | None, *, show_contacts: bool) -> str:
    """Everything of a letter, one fact a line."""
    told = plain(found, record, show_contacts=show_contacts)
    rows = {name: value for name, value in told.items() if value not in (None, [], "")}
    width = max(len(name) for name in rows)
    written = []
    for name, value in rows.items():
        if name == "headers":
            value = ", ".join(f"{header}={text}" for header, text in value)
        elif isinstance(value, list):
            value = ", ".join(map(str, value))
        written.append(f"{name.replace('_', ' '):<{width}}  {printable(str(value))}")
    return "\n".join(written)
