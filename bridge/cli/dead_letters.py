"""What `meisa-bridge dlq` reads and writes: the dead-letter topic beside the topic of replays, never the group, never
Meisa."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bridge.cli.options import wall_of
from bridge.errors import LogFailed, StartFailed, UsageError, UserError
from bridge.kafka.admin import Cluster, create_topics, probe
from bridge.kafka.replays import KafkaLogs
from bridge.model import LetterKind, Record
from bridge.observe.masking import mask
from bridge.replay.ledger import Place, Request, State, States, Wish, read, write
from bridge.replay.letters import PREFIX, DeadLetter, NotALetter, parse

if TYPE_CHECKING:
    from bridge.config import Settings

LETTERS_MAX = 50_000
"""Letters that are held at once, 1 to 2 KB each; of more only the newest, which is said."""
WRITE_BATCH = 1_000
PROBE_SECONDS = 5.0
LOOK_SECONDS = 0.5
MESSAGE_MAX = 100
"""Characters of a message in the list."""

WAITING = frozenset({State.OPEN.value, State.REQUESTED.value, State.FAILED.value})
"""States of letters that still need somebody."""


@dataclass(slots=True)
class Found:
    """A dead letter, the newest of its copies, and what became of it."""

    letter: DeadLetter
    state: State
    message: str = ""
    """What there is to say about the state."""
    copies: int = 1
    """How often it was written: more than once after a crash between acknowledgement and commit."""
    short: bool = True
    """The topic has one partition, so that offsets alone name letters."""
    request: Request | None = field(default=None, repr=False)

    @property
    def name_in_list(self) -> str:
        place = self.letter.place
        return str(place.offset) if self.short else f"{place.partition}/{place.offset}"


class Shelf:
    """The dead letters of one bridge."""

    def __init__(self, settings: Settings, logs: KafkaLogs, cluster: Cluster) -> None:
        self._settings = settings
        self._logs = logs
        self._cluster = cluster
        self.topic = settings.dead_letters.topic
        self.replays_topic = settings.dead_letters.replays_topic
        self.topics = frozenset(settings.topics)
        self.foreign = 0
        """Records in the dead-letter topic that are no letters of a bridge."""
        self.dropped = 0
        """Letters that were too many to be held."""

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[Shelf]:
        """Raises StartFailed where there is no broker, UserError where Kafka fails later."""
        kafka = settings.kafka
        cluster = await asyncio.to_thread(probe, kafka.bootstrap_servers, kafka.properties, PROBE_SECONDS)
        logs = KafkaLogs(kafka.bootstrap_servers, kafka.properties)
        try:
            yield cls(settings, logs, cluster)
        except LogFailed as error:
            raise StartFailed(str(error)) from None
        finally:
            await logs.close()

    # Reading

    async def _records(self, topic: str) -> AsyncIterator[Record]:
        for partition in range(self._cluster.topics.get(topic, 0)):
            bounds = await self._logs.bounds(topic, partition)
            if bounds is None:
                continue
            async with contextlib.aclosing(self._logs.read(topic, partition, *bounds)) as batches:
                async for batch in batches:
                    for record in batch:
                        yield record

    async def states(self) -> States:
        states = States()
        bounds = await self._logs.bounds(self.replays_topic, 0)
        if bounds is not None:
            async with contextlib.aclosing(self._logs.read(self.replays_topic, 0, *bounds)) as batches:
                async for batch in batches:
                    for record in batch:
                        states.tell(read((record.key or b"", record.value)))
        return states

    async def _all(self, contact: str | None = None) -> list[Found]:
        """Every letter, by time of failure; of one that was written twice the newest copy."""
        if self.topic not in self._cluster.topics:
            raise UserError(f"the dead-letter topic {self.topic} does not exist: check dead_letters.topic")
        states = await self.states()
        short = self._cluster.topics[self.topic] == 1
        found: dict[tuple[Place, str], Found] = {}
        async for record in self._records(self.topic):
            try:
                letter = parse(record)
            except NotALetter:
                self.foreign += 1
                continue
            if contact is not None and not about(record, letter, contact):
                continue
            key = (letter.source, letter.name)
            before = found.pop(key, None)
            state, message = states.of(*key)
            slim = letter._replace(request="", response="")
            copies = before.copies + 1 if before is not None else 1
            found[key] = Found(slim, state, message, copies, short, states.request(*key))
            if len(found) > LETTERS_MAX:
                del found[next(iter(found))]
                self.dropped += 1
        return sorted(found.values(), key=lambda each: (each.letter.failed_at, each.letter.place))

    async def find(
        self,
        kind: Sequence[str] = (),
        rule: Sequence[str] = (),
        contact: str | None = None,
        since: str | None = None,
        until: str | None = None,
    ) -> list[Found]:
        """The letters that match all filters."""
        first = _moment(since, "--since") if since else ""
        last = _moment(until, "--until") if until else "~"
        return [
            each
            for each in await self._all(contact)
            if (not kind or each.letter.kind in kind)
            and (not rule or each.letter.rule in rule)
            and first <= each.letter.failed_at < last
        ]

    async def named(self, names: Sequence[str]) -> list[Found]:
        """The letters of these names. Raises UsageError for what is no name, UserError for what is not there."""
        every = await self._all()
        chosen: dict[int, Found] = {}
        for name in names:
            wanted = [each for each in every if _is(each, name, self.topic)]
            if not wanted:
                raise UserError(f"no dead letter is named {name}; see: meisa-bridge dlq list --all")
            if name.isdecimal() and len({each.letter.place.partition for each in wanted}) > 1:
                raise UsageError(f"several dead letters are named {name}: write partition/offset")
            chosen.update((id(each), each) for each in wanted)
        return list(chosen.values())

    async def record(self, found: Found) -> Record | None:
        """The letter as it stands in its topic."""
        place = found.letter.place
        reading = self._logs.read(*place[:2], place.offset, place.offset + 1)
        async with contextlib.aclosing(reading) as batches:
            async for batch in batches:
                for record in batch:
                    return record
        return None

    def summary(self, found: Sequence[Found], wanted: Sequence[Found], shown: Sequence[Found]) -> str:
        counts: dict[str, int] = {}
        for each in found:
            counts[each.state.value] = counts.get(each.state.value, 0) + 1
        text = ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "no dead letters"
        if len(shown) < len(wanted):
            text += f"; the newest {len(shown)} of {len(wanted)} are shown (--limit)"
        if self.dropped:
            text += f"; {self.dropped} older ones are left out"
        if self.foreign:
            text += f"; {self.foreign} records in {self.topic} are not this bridge's"
        return text

    # Writing

    async def make_topic(self) -> bool:
        """Creates the topic of replays if it is missing; True where it did. Raises StartFailed."""
        if self.replays_topic in self._cluster.topics:
            return False
        if self._cluster.describes:  # the embedded broker creates topics on first use, and does not answer requests to
            kafka = self._settings.kafka
            await asyncio.to_thread(
                create_topics,
                kafka.bootstrap_servers,
                kafka.properties,
                {self.replays_topic: 1},
                settings={"cleanup.policy": "compact"},
            )
        return True

    async def ask(self, requests: Sequence[Request]) -> None:
        for index in range(0, len(requests), WRITE_BATCH):
            batch = [write(request) for request in requests[index : index + WRITE_BATCH]]
            await self._logs.write(self.replays_topic, batch)

    async def results(self, wishes: Wishes) -> list[tuple[Found, str, str]]:
        """Waits until all requests are answered."""
        while True:
            states = await self.states()
            told = [states.of(*request.key) for request in wishes.requests]
            if all(state is not State.REQUESTED for state, _ in told):
                return [(each, state.value, text) for each, (state, text) in zip(wishes.chosen, told, strict=True)]
            await asyncio.sleep(LOOK_SECONDS)


@dataclass(slots=True)
class Wishes:
    """What is asked for, and for which letters it cannot be."""

    chosen: list[Found] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    skipped: list[tuple[Found, str]] = field(default_factory=list)

    @classmethod
    def replays(cls, shelf: Shelf, found: Sequence[Found], *, named: bool, overwrite: bool, send_again: bool) -> Wishes:
        wishes = cls()
        options = {"overwrite": overwrite, "send_again": send_again}
        for each in found:
            why = _no_replay(each, shelf, named=named, **options)
            if why:
                wishes.skipped.append((each, why))
            else:
                wishes._add(each, Wish.REPLAY, **options)
        return wishes

    @classmethod
    def discards(cls, found: Sequence[Found]) -> Wishes:
        wishes = cls()
        for each in found:
            if each.state.value in WAITING:
                wishes._add(each, Wish.DISCARD)
            else:
                wishes.skipped.append((each, f"it is {each.state.value.replace('_', ' ')}"))
        return wishes

    def _add(self, each: Found, wish: Wish, **options: bool) -> None:
        self.chosen.append(each)
        # Later than any earlier request for it, whatever this machine's clock says: that names the request.
        before = each.request.at if each.request is not None else 0
        at = max(int(time.time() * 1000), before + 1)
        self.requests.append(Request(each.letter.source, each.letter.name, at, wish, each.letter.place, **options))

    def consequence(self, *, overwrite: bool, send_again: bool) -> str:
        parts = []
        if overwrite:
            parts.append("overwrite what later events wrote")
        if send_again:
            parts.append("perhaps send emails a second time")
        count = len(self.chosen)
        letters = "1 dead letter" if count == 1 else f"{count} dead letters"
        return f"Replaying {letters} may {' and '.join(parts)}. Go on?"

    def lines(self, done: str, *, show_contacts: bool) -> Iterator[str]:
        for each in self.chosen:
            yield f"{done}: {line(replace(each, message=''), show_contacts=show_contacts)}"
        for each, why in self.skipped:
            yield f"left out: {each.name_in_list}  {each.letter.source}  {why}"
        if not self.chosen:
            yield "nothing to do"


def _no_replay(each: Found, shelf: Shelf, *, named: bool, overwrite: bool, send_again: bool) -> str:
    """Why a letter cannot be replayed like this; empty where it can."""
    if each.letter.source.topic not in shelf.topics:
        return f"topic {each.letter.source.topic} is not in the configuration"
    match each.state:
        case State.REPLAYED if not send_again:
            return "it was replayed already; --send-again sends it once more"
        case State.REPLAYED if not named:
            return "it was replayed already; name it to send it once more"
        case State.REFUSED:
            return "it was refused again; a fresh letter stands for it"
        case State.DISCARDED if not named:
            return "it was discarded; name it to replay it all the same"
        case State.REQUESTED:
            asked = each.request
            if asked is not None and (asked.overwrite, asked.send_again) == (overwrite, send_again):
                return "it is requested already"
        case _:
            pass
    if each.letter.kind == LetterKind.UNKNOWN_OUTCOME and not send_again:
        return "it may have been sent already; --send-again sends it all the same"
    return ""


def in_state(found: Found, states: set[str] | frozenset[str]) -> bool:
    return found.state.value in states


def _is(found: Found, name: str, topic: str) -> bool:
    """Whether this names the letter: its record's place, or its own."""
    letter = found.letter
    match name.split("/"):
        case [offset] if offset.isdecimal():
            return letter.place.offset == int(offset)
        case [partition, offset] if partition.isdecimal() and offset.isdecimal():
            return letter.place[1:] == (int(partition), int(offset))
        case [named, partition, offset] if partition.isdecimal() and offset.isdecimal():
            place = (named, int(partition), int(offset))
            return place == (letter.place if named == topic else letter.source)
    raise UsageError(f"{name!r} names no letter: write topic/partition/offset, partition/offset or an offset")


def about(record: Record, letter: DeadLetter, contact: str) -> bool:
    """Whether the person's email or id stands in the record, or in what was asked of Meisa."""
    wanted = contact.strip().casefold()
    texts = [(record.value or b"").decode("utf-8", "replace"), (record.key or b"").decode("utf-8", "replace")]
    return any(wanted in text.casefold() for text in (letter.request, *texts))


def _moment(text: str, option: str) -> str:
    """A time as letters write it (UTC, ISO 8601, which sorts as text)."""
    moment = wall_of(text, option)
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


# For people and programs


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
    return text


def _masked(text: str, show_contacts: bool) -> str:
    return str(mask(text, show_contacts=show_contacts))


def plain(found: Found, record: Record | None = None, *, show_contacts: bool) -> dict[str, Any]:
    """A letter as JSON's types; with its record, everything."""
    letter = found.letter if record is None else parse(record)
    told: dict[str, Any] = {
        "letter": str(letter.place),
        "source": str(letter.source),
        "kind": letter.kind,
        "rule": letter.rule or None,
        "action": letter.action or None,
        "status": int(letter.status) if letter.status.isdecimal() else None,
        "message": letter.message,
        "attempts": int(letter.attempts) if letter.attempts.isdecimal() else None,
        "failed_at": letter.failed_at,
        "undelivered_ids": list(letter.ids),
        "replays": letter.replays,
        "copies": found.copies,
        "state": found.state.value,
        "state_message": found.message or None,
    }
    if record is not None:
        told |= {
            "request": letter.request or None,
            "response": letter.response or None,
            "source_timestamp": letter.source_timestamp_ms,
            "key": _text(record.key),
            "value": _text(record.value),
            "whole": letter.whole,
            "headers": [[name, _text(value)] for name, value in record.headers if not name.startswith(PREFIX)],
        }
    masked: dict[str, Any] = mask(told, show_contacts=show_contacts)
    return masked


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace")


def page(found: Found, record: Record | None, *, show_contacts: bool) -> str:
    """Everything of a letter, one fact a line."""
    told = plain(found, record, show_contacts=show_contacts)
    rows = {name: value for name, value in told.items() if value not in (None, [], "")}
    width = max(len(name) for name in rows)
    lines = []
    for name, value in rows.items():
        if name == "headers":
            value = ", ".join(f"{header}={text}" for header, text in value)
        elif isinstance(value, list):
            value = ", ".join(map(str, value))
        lines.append(f"{name.replace('_', ' '):<{width}}  {value}")
    return "\n".join(lines)
