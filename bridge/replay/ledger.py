"""The topic of replays: what its records say, and what follows from all of them together. Pure.

Keys are JSON lists, `[what, topic, partition, offset, name]`, where topic, partition and offset are those of the
*source* record, and the name tells letters (or actions) of one record apart. Values are JSON objects with a version.
A record that cannot be read is not ours, or of a later version: it is skipped, never an error.

`at` (milliseconds, the wall clock of whoever asked) names a request: marks and results repeat it, and are compared
with it for equality only, so clocks need not agree.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

VERSION = 1

OPEN_MAX = 20_000
"""Open requests that one reading of the topic keeps, about 1 KB each. More stay in the topic until these are done."""

Entry = tuple[bytes, bytes | None]
"""A record of the topic: key and value; a null value takes it back."""


class Place(NamedTuple):
    """A record's place in Kafka."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


class Wish(StrEnum):
    REPLAY = "replay"
    DISCARD = "discard"


class State(StrEnum):
    """What became of a dead letter."""

    OPEN = "open"
    """Nobody has asked for anything."""
    REQUESTED = "requested"
    """A replay was asked for and has not ended."""
    REPLAYED = "replayed"
    """Everything that it names was carried out, or need not be any more."""
    REFUSED = "refused_again"
    """A fresh letter stands for what could not be delivered."""
    FAILED = "failed"
    """Nothing was sent, and `message` says why; it can be asked for again."""
    DISCARDED = "discarded"


class Request(NamedTuple):
    """Somebody wants something done with a letter."""

    source: Place
    name: str
    """The letter's: see `letters.name_of`."""
    at: int
    wish: Wish
    letter: Place
    """Where in the dead-letter topic it stands."""
    overwrite: bool = False
    send_again: bool = False

    @property
    def key(self) -> tuple[Place, str]:
        return self.source, self.name


class Mark(NamedTuple):
    """What was done with one action of a source record."""

    source: Place
    action_id: str
    at: int
    """Of the request under which it was done."""
    done: bool
    wall: float = 0.0
    """When it started, in Unix seconds; 0 where no attempt of it is in doubt any more."""


class Answer(NamedTuple):
    """How a request ended."""

    source: Place
    name: str
    at: int
    state: State
    message: str = ""
    wall: float = 0.0


Fact = Request | Mark | Answer


def write(fact: Fact) -> Entry:
    """The record that says it."""
    value: dict[str, Any]
    match fact:
        case Request():
            what, name = "request", fact.name
            value = {"wish": fact.wish, "letter": list(fact.letter)}
            value |= {option: True for option in ("overwrite", "send_again") if getattr(fact, option)}
        case Mark():
            what, name = "mark", fact.action_id
            value = {"done": fact.done, "wall": fact.wall}
        case Answer():
            what, name = "result", fact.name
            value = {"state": fact.state, "wall": fact.wall}
            if fact.message:
                value["message"] = fact.message
    key = [what, *fact.source, name]
    return _json(key), _json({"v": VERSION, "at": fact.at, **value})


def read(entry: Entry) -> Fact | None:
    """What a record says; None for one that is not ours to understand."""
    key, value = entry
    if value is None:
        return None
    try:
        what, topic, partition, offset, name = json.loads(key)
        said = json.loads(value)
        if said["v"] != VERSION:
            return None
        source = Place(str(topic), int(partition), int(offset))
        at = int(said["at"])
        if what == "request":
            letter_topic, letter_partition, letter_offset = said["letter"]
            letter = Place(str(letter_topic), int(letter_partition), int(letter_offset))
            flags = said.get("overwrite") is True, said.get("send_again") is True
            return Request(source, str(name), at, Wish(said["wish"]), letter, *flags)
        if what == "mark":
            return Mark(source, str(name), at, said["done"] is True, float(said["wall"]))
        if what == "result":
            return Answer(
                source, str(name), at, State(said["state"]), str(said.get("message", "")), float(said["wall"])
            )
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return None
    return None


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def digest(*parts: str) -> str:
    """A short name for these parts: 64 bits, among the letters of one record."""
    return hashlib.blake2b(_json(parts), digest_size=8).hexdigest()


class OpenRequests:
    """Which replays of some partitions have not ended: tell it the whole topic, then read `first`."""

    def __init__(self, partitions: Iterable[tuple[str, int]], open_max: int = OPEN_MAX) -> None:
        self._partitions = frozenset(partitions)
        self._open_max = open_max
        self._open: dict[tuple[Place, str], Request] = {}

    def tell(self, fact: Fact | None) -> None:
        if fact is None or isinstance(fact, Mark) or fact.source[:2] not in self._partitions:
            return
        key = (fact.source, fact.name)
        if isinstance(fact, Answer):
            asked = self._open.get(key)
            if asked is not None and asked.at == fact.at:
                del self._open[key]
        elif fact.wish is Wish.DISCARD:
            self._open.pop(key, None)
        elif key in self._open or len(self._open) < self._open_max:
            self._open[key] = fact

    def first(self, count: int) -> list[Request]:
        """The requests of the lowest source records, those of one record together; at least one record's."""
        ordered = sorted(self._open.values(), key=lambda request: request.key)
        taken = ordered[:count]
        return taken + [request for request in ordered[count:] if request.source == taken[-1].source]


@dataclass(slots=True)
class Done:
    """What was done of one source record before, as far as one request cares."""

    marks: dict[str, Mark] = field(default_factory=dict)

    def tell(self, mark: Mark) -> None:
        self.marks[mark.action_id] = mark

    def was_done(self, action_id: str, request: Request) -> bool:
        """Whether the action must not be carried out (again) for this request."""
        mark = self.marks.get(action_id)
        return mark is not None and mark.done and (mark.at == request.at or not request.send_again)

    def started_wall(self, action_id: str, request: Request) -> float | None:
        """When it first left, if it may have been carried out then and this request does not look past that."""
        mark = self.marks.get(action_id)
        if mark is None or mark.done or (request.send_again and mark.at != request.at):
            return None
        return mark.wall or None


class States:
    """What became of letters, for people: tell it the whole topic, then ask."""

    def __init__(self) -> None:
        self._requests: dict[tuple[Place, str], Request] = {}
        self._answers: dict[tuple[Place, str], Answer] = {}

    def tell(self, fact: Fact | None) -> None:
        match fact:
            case Request():
                self._requests[fact.key] = fact
            case Answer():
                self._answers[fact.source, fact.name] = fact

    def of(self, source: Place, name: str) -> tuple[State, str]:
        """The letter's state, and what is to be said about it."""
        request, answer = self._requests.get((source, name)), self._answers.get((source, name))
        if request is None:
            return State.OPEN, ""
        if request.wish is Wish.DISCARD:
            return State.DISCARDED, ""
        if answer is None or answer.at != request.at:
            return State.REQUESTED, ""
        return answer.state, answer.message

    def request(self, source: Place, name: str) -> Request | None:
        """The last thing that was asked about the letter."""
        return self._requests.get((source, name))

    def forget(self, source: Place, name: str) -> None:
        """Nobody will ask about the letter any more."""
        self._requests.pop((source, name), None)
        self._answers.pop((source, name), None)
