"""One contact's story: each of its events in order, what the rules made of it, and which call carried that when."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from bridge.errors import DecodeError
from bridge.model import Call, Event, Letter, Plan, Record, email_key
from bridge.runtime.items import Part

EVENTS_MAX: Final = 2_000
"""Of one contact; whoever has more is a test account, and nobody reads on."""
CALLS_MAX: Final = 5_000


@dataclass(slots=True)
class StoryAction:
    kind: str
    rule: str
    position: int
    what: str
    """The template, sequence, tag, or tracked event's name; empty for an upsert."""
    ending: str = ""
    detail: str = ""
    calls: list[int] = field(default_factory=list)
    """Numbers of the calls that carried it, from 1."""


@dataclass(slots=True)
class StoryEvent:
    place: str
    line: int
    type: str
    id: str
    time: str
    read_at_seconds: float
    """Since the beginning."""
    actions: list[StoryAction]
    ending: str = ""
    ended_at_seconds: float | None = None
    failures: list[str] = field(default_factory=list)
    """What dead letters say, and rules that could not be applied."""


@dataclass(frozen=True, slots=True)
class StoryCall:
    number: int
    at_seconds: float
    """Since the beginning, when its answer came."""
    endpoint: str
    status: int | None
    body: Mapping[str, Any]
    places: tuple[str, ...]
    """The events that it stands for."""


class Story:
    """Hears what the tally hears, and keeps what concerns one contact."""

    def __init__(self, contact: str, names: frozenset[str], lines: Mapping[str, int]) -> None:
        self.contact = contact
        self.names = names
        """All its ordering keys that the events tell of."""
        self._lines = lines
        self.events: dict[str, StoryEvent] = {}
        """By place, in the order in which they were read."""
        self.calls: list[StoryCall] = []
        self.left_out = 0

    def planned(self, event: Event, plan: Plan, now: float) -> None:
        mine = [action for action in plan.actions if not self.names.isdisjoint(action.contact.ordering_keys())]
        if not mine:
            return
        if len(self.events) >= EVENTS_MAX:
            self.left_out += 1
            return
        place = event.record.place
        actions = [StoryAction(each.kind.value, each.rule, each.position, what_of(each.body)) for each in mine]
        failures = [f"rule {failure.rule}: {failure.message}" for failure in plan.failures]
        line = self._lines.get(place, 0)
        self.events[place] = StoryEvent(place, line, event.type, event.id, event.time, now, actions, failures=failures)

    def called(self, call: Call, status: int | None, parts: Sequence[Part], now: float) -> None:
        mine = [part for part in parts if part.record.place in self.events and self._concerns(part)]
        own = mine or (parts and self._concerns(parts[0]) and len(parts) == 1)
        if not own or len(self.calls) >= CALLS_MAX:
            return
        number = len(self.calls) + 1
        for part in mine:
            for action in self.events[part.record.place].actions:
                if action.position == part.action.position:
                    action.calls.append(number)
        body = orjson.loads(orjson.dumps(dict(call.body or {})))
        if call.endpoint == "bulk_enroll":
            others = [each for each in body["emails"] if f"e:{email_key(each)}" not in self.names]
            body["emails"] = [each for each in body["emails"] if each not in others]
            if others:
                body["emails"].append(f"… and {len(others)} others")
        places = tuple(dict.fromkeys(part.record.place for part in mine))
        self.calls.append(StoryCall(number, now, call.endpoint, status, body, places))

    def _concerns(self, part: Part) -> bool:
        return not self.names.isdisjoint(part.action.contact.ordering_keys())

    def ended(self, place: str, position: int, ending: str, detail: str) -> None:
        event = self.events.get(place)
        for action in event.actions if event is not None else ():
            if action.position == position:
                action.ending, action.detail = ending, detail

    def letter(self, place: str, letter: Letter) -> None:
        event = self.events.get(place)
        if event is not None:
            event.failures.append(f"dead letter ({letter.kind.value}): {letter.message}")

    def done(self, place: str, ending: str, now: float) -> None:
        event = self.events.get(place)
        if event is not None:
            event.ending, event.ended_at_seconds = ending, now


def what_of(body: Mapping[str, Any]) -> str:
    """What an action is about, beside its contact."""
    for name in ("trigger_key", "event_name", "sequence_slug", "tag_name", "tag_id"):
        if name in body:
            return str(body[name])
    return ""


def names_of(
    contact: str,
    records: Iterable[Record],
    decoders: Mapping[str, Callable[[Record], Event | None]],
    plan: Callable[[Event], Plan],
) -> frozenset[str]:
    """All names (ids, aliases, former emails) that the events tie to this email, by whatever way.

    Plans each event once before the preview does: an event that names only an id may stand before the one that ties
    the id to the email.
    """
    tied: set[tuple[str, ...]] = set()
    for record in records:
        try:
            event = decoders[record.topic](record)
        except DecodeError:
            continue
        for action in plan(event).actions if event is not None else ():
            names = action.contact.ordering_keys()
            if len(names) > 1:
                tied.add(names)
    found = {f"e:{email_key(contact)}"}
    beside: dict[str, set[str]] = {}
    for names in tied:
        for name in names:
            beside.setdefault(name, set()).update(names)
    fresh = list(found)
    while fresh:
        for name in beside.get(fresh.pop(), ()):
            if name not in found:
                found.add(name)
                fresh.append(name)
    return frozenset(found)
