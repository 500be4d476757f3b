"""The dead letters of one bridge as people look at them: read beside the group, with what became of each.

A reading takes three steps, and their order matters. The end of the topic of replays is asked for first, then the
letters are read to their present end, then the topic of replays up to the end that was asked for. So every fact that is
read is about a letter that was read before it, or about one that is not held; what comes meanwhile the next reading
finds. A shelf that is read again reads only what is new.

A command holds all letters up to `LETTERS_MAX`. A page looks at the topic's tail alone (`Tail`): a topic may hold
millions, of which nobody turns the pages.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bridge.errors import UsageError, UserError
from bridge.model import Record
from bridge.ports import LetterLogs
from bridge.replay.ledger import Answer, Place, Request, State, States, read, write
from bridge.replay.letters import DeadLetter, NotALetter, parse

LETTERS_MAX = 50_000
"""Letters that are held at once, 1 to 2 KB each; of more only the newest, which is said."""
WRITE_BATCH = 1_000
STEP = 500
"""Records of a tail that are read at once, from the end backwards; between two steps its bounds are looked at."""
BREATH = 20
"""Records that are parsed (a millisecond) before whatever else runs on the same loop gets its turn."""
VALUE_LOOKED_AT = 4_096
"""Characters of a value in which a letter without a request is searched for its contact's email."""

WAITING = frozenset({State.OPEN.value, State.REQUESTED.value, State.FAILED.value})
"""States of letters that still need somebody."""

_MARK = b'["mark"'
"""How the keys of marks begin (ledger.py): half of the topic of replays, and nothing of it is for people."""
_EMAIL = re.compile(r'"(?:to_)?email"\s*:\s*"([^"\\]{1,254})"')


class Tail(NamedTuple):
    """How much of the topics' ends is read."""

    letters: int
    """Records of the dead-letter topic, shared among its partitions."""
    bytes: int
    """Keys and values of these, at most; what is read already stays."""
    facts: int
    """Records of the topic of replays."""


@dataclass(slots=True)
class Found:
    """A dead letter, the newest of its copies, and what became of it."""

    letter: DeadLetter
    """Without its request and response: those are read with its record."""
    state: State
    message: str = ""
    """What there is to say about the state."""
    copies: int = 1
    """How often it was written: more than once after a crash between acknowledgement and commit."""
    short: bool = True
    """The topic has one partition, so that offsets alone name letters."""
    request: Request | None = field(default=None, repr=False)
    contact: str = field(default="", repr=False)
    """Whom it is about, as far as the request or the record tells; not masked."""

    @property
    def name_in_list(self) -> str:
        place = self.letter.place
        return str(place.offset) if self.short else f"{place.partition}/{place.offset}"

    @property
    def waits(self) -> bool:
        """Whether somebody still has to do something about it, or it is being done."""
        return self.state.value in WAITING


Key = tuple[Place, str]
Keep = Callable[[Record, DeadLetter], bool]


class Shelf:
    """`topics` are those that the configuration reads; letters of others can be looked at, and not be replayed."""

    def __init__(
        self, logs: LetterLogs, *, topic: str, replays_topic: str, topics: Iterable[str], tail: Tail | None = None
    ) -> None:
        self._logs = logs
        self._tail = tail
        self.topic = topic
        self.replays_topic = replays_topic
        self.topics = frozenset(topics)
        self.foreign = 0
        """Records in the dead-letter topic that are no letters of a bridge."""
        self.dropped = 0
        """Letters, or records of their topic, that were too many to be looked at."""
        self.forgotten = 0
        """Records of the topic of replays that were too many: states of letters may be missing."""
        self._states = States()
        self._found: dict[Key, Found] = {}
        self._ends: dict[int, int] = {}
        """Partition of the dead-letter topic → where the last reading ended."""
        self._told = -1
        """Where the last reading of the topic of replays ended; -1 before the first."""

    # Reading

    async def read(self, keep: Keep | None = None) -> None:
        """Reads what is new. Raises LogFailed, and UserError where there is no such topic."""
        facts = await self._logs.bounds(self.replays_topic, 0)
        partitions = await self._logs.partitions(self.topic)
        if not partitions:
            raise UserError(f"the dead-letter topic {self.topic} does not exist: check dead_letters.topic")
        for partition in range(partitions):
            await self._read_partition(partition, partitions, keep)
        self._trim()
        if facts is not None:
            await self._read_facts(*facts)
        for number, (key, each) in enumerate(list(self._found.items())):
            if number % (BREATH * 10) == 0:
                await asyncio.sleep(0)
            each.short = partitions == 1
            each.state, each.message = self._states.of(*key)
            each.request = self._states.request(*key)

    async def _read_partition(self, partition: int, partitions: int, keep: Keep | None) -> None:
        bounds = await self._logs.bounds(self.topic, partition)
        if bounds is None:
            return
        low, high = bounds
        begin = self._ends.get(partition)
        if begin is not None and begin > high:  # created anew: nothing of before is there any more
            self._forget(lambda place: place.partition == partition)
            begin = None
        elif begin is not None and begin < low:
            begin = low
        self._forget(lambda place: place.partition == partition and place.offset < low)
        if self._tail is None:
            await self._take(partition, low if begin is None else begin, high, keep)
        else:
            await self._take_tail(partition, partitions, low if begin is None else begin, high, keep)
        self._ends[partition] = high

    async def _take_tail(self, partition: int, partitions: int, low: int, high: int, keep: Keep | None) -> None:
        """From the end backwards, so that of too many the newest are read."""
        assert self._tail is not None
        share, size_max = -(-self._tail.letters // partitions), self._tail.bytes // partitions
        end, size = high, 0
        while end > low and high - end < share and size < size_max:
            start = max(low, end - min(STEP, share))
            size += await self._take(partition, start, end, keep)
            end = start
        self.dropped += end - low

    async def _take(self, partition: int, start: int, end: int, keep: Keep | None) -> int:
        """The letters of a stretch; returns the bytes of its keys and values."""
        size = 0
        async with contextlib.aclosing(self._logs.read(self.topic, partition, start, end)) as batches:
            async for batch in batches:
                for number, record in enumerate(batch):
                    size += len(record.value or b"") + len(record.key or b"")
                    self._put(record, keep)
                    if number % BREATH == BREATH - 1:
                        await asyncio.sleep(0)
        return size

    def _put(self, record: Record, keep: Keep | None) -> None:
        try:
            letter = parse(record)
        except NotALetter:
            self.foreign += 1
            return
        if keep is not None and not keep(record, letter):
            return
        key = (letter.source, letter.name)
        slim = letter._replace(request="", response="")
        before = self._found.get(key)
        if before is not None:
            before.copies += 1
            if before.letter.place < letter.place:
                before.letter = slim
            return
        self._found[key] = Found(slim, State.OPEN, contact=contact_of(record, letter))
        if len(self._found) >= self._held_max * 5 // 4:  # by a quarter at once: each time all are sorted
            self._trim()

    @property
    def _held_max(self) -> int:
        return LETTERS_MAX if self._tail is None else self._tail.letters

    def _trim(self) -> None:
        """Lets the oldest go where there are too many."""
        many = len(self._found) - self._held_max
        if many > 0:
            for key in sorted(self._found, key=lambda each: _age(self._found[each]))[:many]:
                self._drop(key)
            self.dropped += many

    def _forget(self, gone: Callable[[Place], bool]) -> None:
        for key in [key for key, each in self._found.items() if gone(each.letter.place)]:
            self._drop(key)

    def _drop(self, key: Key) -> None:
        del self._found[key]
        self._states.forget(*key)

    async def _read_facts(self, low: int, high: int) -> None:
        begin = max(self._told, low)
        if self._told > high:  # created anew
            self._states, begin = States(), low
        if self._tail is not None and high - begin > self._tail.facts:
            self.forgotten += high - self._tail.facts - begin
            begin = high - self._tail.facts
        async with contextlib.aclosing(self._logs.read(self.replays_topic, 0, begin, high)) as batches:
            async for batch in batches:
                for number, record in enumerate(batch):
                    key = record.key or b""
                    if key.startswith(_MARK):
                        continue
                    fact = read((key, record.value))
                    if isinstance(fact, Request | Answer) and (fact.source, fact.name) in self._found:
                        self._states.tell(fact)
                    if number % BREATH == BREATH - 1:
                        await asyncio.sleep(0)
        self._told = high

    # Looking

    def all(self) -> list[Found]:
        """Every letter that is held, by time of failure; of one that was written twice the newest copy."""
        return sorted(self._found.values(), key=_age)

    def named(self, names: Sequence[str]) -> list[Found]:
        """The letters of these names. Raises UsageError for what is no name, UserError for what is not there."""
        every = self.all()
        chosen: dict[int, Found] = {}
        for name in names:
            wanted = [each for each in every if is_named(each, name, self.topic)]
            if not wanted:
                raise UserError(f"no dead letter is named {name}; see: meisa-bridge dlq list --all")
            if name.isdecimal() and len({each.letter.place.partition for each in wanted}) > 1:
                raise UsageError(f"several dead letters are named {name}: write partition/offset")
            chosen.update((id(each), each) for each in wanted)
        return list(chosen.values())

    async def record(self, found: Found) -> Record | None:
        """The letter as it stands in its topic; None where it is gone. Raises LogFailed."""
        place = found.letter.place
        reading = self._logs.read(*place[:2], place.offset, place.offset + 1)
        async with contextlib.aclosing(reading) as batches:
            async for batch in batches:
                for record in batch:
                    return record
        return None

    # Writing

    async def make_topic(self) -> bool:
        """Creates the topic of replays if it is missing; True where it did. Raises LogFailed."""
        return await self._logs.create(self.replays_topic)

    async def ask(self, requests: Sequence[Request]) -> None:
        """Returns once all requests are acknowledged. Raises LogFailed; some may have been written all the same."""
        for index in range(0, len(requests), WRITE_BATCH):
            batch = [write(request) for request in requests[index : index + WRITE_BATCH]]
            await self._logs.write(self.replays_topic, batch)


def _age(found: Found) -> tuple[str, Place]:
    return found.letter.failed_at, found.letter.place


def matching(
    found: Iterable[Found],
    *,
    kinds: Sequence[str] = (),
    rules: Sequence[str] = (),
    since: str = "",
    until: str = "~",
) -> list[Found]:
    """The letters that match all filters; times as letters write them (UTC, ISO 8601, which sorts as text)."""
    return [
        each
        for each in found
        if (not kinds or each.letter.kind in kinds)
        and (not rules or each.letter.rule in rules)
        and since <= each.letter.failed_at < until
    ]


def is_named(found: Found, name: str, topic: str) -> bool:
    """Whether this names the letter: its record's place, or its own in the dead-letter `topic`."""
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


def contact_of(record: Record, letter: DeadLetter) -> str:
    """Whom a letter is about, for a list: what was asked of Meisa names them, else the record may."""
    asked = names_in(letter.request)
    if asked:
        return asked[0]
    found = _EMAIL.search((record.value or b"")[:VALUE_LOOKED_AT].decode("utf-8", "replace"))
    return found[1] if found is not None else ""


def names_in(request: str) -> list[str]:
    """The names of contacts in a request's JSON text, the email first."""
    try:
        body: Any = json.loads(request) if request else None
    except (ValueError, RecursionError):  # cut at its bound
        found = _EMAIL.search(request)
        return [found[1]] if found is not None else []
    if not isinstance(body, dict):
        return []
    names = [body.get(name) for name in ("email", "to_email", "external_id")]
    return [name for name in names if isinstance(name, str) and name]
