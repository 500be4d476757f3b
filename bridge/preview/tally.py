"""What is counted while events are carried: by type, rule, kind, call and minute; with samples of calls and letters.

The arithmetic that must add up
    actions planned + calls beside them = calls made + actions without a call of their own
A call is the own one of the first action that had none before; the others that it stands for shared it. An action that
ended without any is saved for the reason it ended with, or was dead-lettered before it could be called. What else is
called stands in `EXTRA`. A test holds previews to it.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import orjson

from bridge.model import Action, Call, Ending, Event, Kind, Letter, Outcome, Plan, Record, Result
from bridge.preview.story import Story
from bridge.rules import RuleBook
from bridge.runtime.items import Item, Part
from bridge.runtime.lazy import ALONE

SAVED: Final = ("merged", "tags", "bulk", "unchanged", "lazy", "suppressed", "expired")
"""Why an action needed no call of its own."""
EXTRA: Final = ("contacts", "repeats", "lazy_values", "service")
"""Calls beside those: further ones of a track or a tag whose contact Meisa did not know yet, other further attempts,
kept values of lazy fields, and the service's own (a ping at the start, the suppression list)."""

CONTACT_NEEDED: Final = frozenset({Kind.TRACK, Kind.ADD_TAG, Kind.REMOVE_TAG})

SAMPLES: Final = 3
"""Calls shown of each endpoint: those that stand for most events, the earliest first."""
LETTER_SAMPLES: Final = 5
"""Dead letters shown of each kind and rule."""
EVENTS_SHOWN: Final = 10
"""Of those that made a call."""
TYPES_MAX: Final = 1_000
"""Event types that are told apart; a producer that puts ids into its types must not fill the memory."""
OTHER_TYPES: Final = "(other types)"
MINUTE: Final = 60.0


class EventName(NamedTuple):
    """An event as reports name it."""

    place: str
    line: int
    type: str
    id: str
    time: str


@dataclass(slots=True)
class OfType:
    events: int = 0
    wanted: int = 0
    """So many made actions."""
    actions: int = 0


@dataclass(slots=True)
class OfRule:
    matched: int = 0
    """Events of its types and topics."""
    applied: int = 0
    """Of those, how many made actions."""
    actions: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class CallSample:
    endpoint: str
    at_seconds: float
    """Since the beginning, when its answer came."""
    status: int | None
    contact: str
    body: Mapping[str, Any]
    events: tuple[EventName, ...]
    """Those that made it; at most EVENTS_SHOWN."""
    count: int
    """How many actions it stands for."""


@dataclass(frozen=True, slots=True)
class LetterSample:
    kind: str
    rule: str
    message: str
    place: str
    line: int
    type: str


@dataclass(slots=True)
class Minute:
    arrived: int = 0
    finished: int = 0
    calls: int = 0


class Tally:
    """The watch of a preview (runtime/watching.py), and what else its engine, Meisa and dead letters tell."""

    def __init__(
        self,
        book: RuleBook,
        *,
        lines: Mapping[str, int],
        now: Callable[[], float],
        arrived_at: Callable[[Record], float],
        story: Story | None,
    ) -> None:
        """`lines` tells the line of each record in its file, by place; `now` the seconds since the beginning, and
        `arrived_at` when a record could be read first."""
        self._book = book
        self._lines = lines
        self.now = now
        self.arrived_at = arrived_at
        self.story = story
        self.types: dict[tuple[str, str], OfType] = {}
        self.rules: dict[str, OfRule] = {}
        self._matching: dict[tuple[str, str], tuple[str, ...]] = {}
        self.endings: Counter[str] = Counter()
        """Of events."""
        self.planned: Counter[str] = Counter()
        """Actions by kind."""
        self.action_endings: Counter[tuple[str, str]] = Counter()
        """Actions by kind and ending."""
        self.calls: Counter[str] = Counter()
        self.answers: Counter[tuple[str, int | None]] = Counter()
        self.saved: Counter[str] = Counter()
        self.extra: Counter[str] = Counter()
        self.letters: Counter[tuple[str, str]] = Counter()
        """By kind and rule."""
        self.letter_samples: dict[tuple[str, str], list[LetterSample]] = {}
        self._called: set[Part] = set()
        """Actions under way that had a call."""
        self.uncalled_letters = 0
        """Actions that were dead-lettered and never had a call."""
        self.samples: dict[str, list[CallSample]] = {}
        self.delays = array("d")
        """Of emails, from when their event could be read until Meisa's answer, in seconds."""
        self.minutes: dict[int, Minute] = {}
        self.stops: Counter[str] = Counter()
        """How often a topic would have paused because of its dead letters."""
        self._stopped: set[str] = set()
        self.broken: list[str] = []
        """Places of records whose path broke in the bridge itself."""
        self.last_finish = 0.0
        self.last_call = 0.0
        self._types_of: dict[str, str] = {}

    # Events

    def planned_for(self, event: Event, plan: Plan) -> None:
        """The rules have made a plan of an event."""
        pair = (event.record.topic, event.type)
        counts = self.types.get(pair)
        if counts is None:
            if len(self.types) >= TYPES_MAX:
                pair = (event.record.topic, OTHER_TYPES)
            counts = self.types.setdefault(pair, OfType())
        counts.events += 1
        matching = self._matching.get((event.record.topic, event.type))
        if matching is None:
            if len(self._matching) >= TYPES_MAX:
                self._matching.clear()
            matching = self._book.names_matching(event.record.topic, event.type)
            self._matching[event.record.topic, event.type] = matching
        for name in matching:
            self.of_rule(name).matched += 1
        if plan.actions:
            counts.wanted += 1
            counts.actions += len(plan.actions)
            for name in {action.rule for action in plan.actions}:
                self.of_rule(name).applied += 1
            for action in plan.actions:
                self.planned[action.kind.value] += 1
                self.of_rule(action.rule).actions += 1
        for failure in plan.failures:
            self.of_rule(failure.rule).failed += 1
            self._types_of[event.record.place] = event.type
        if self.story is not None:
            self.story.planned(event, plan, self.now())

    def of_rule(self, name: str) -> OfRule:
        return self.rules.setdefault(name, OfRule())

    def expired(self, event: Event, action: Action) -> None:
        """An action was too old already when its event was read."""
        self.action_endings[action.kind.value, Ending.EXPIRED.value] += 1
        self.saved["expired"] += 1
        if self.story is not None:
            self.story.ended(event.record.place, action.position, Ending.EXPIRED.value, "too old when it was read")

    def done(self, record: Record, ending: Ending) -> None:
        """An event has finished."""
        now = self.now()
        self._types_of.pop(record.place, None)
        self.endings[ending] += 1
        self.last_finish = max(self.last_finish, now)
        self.minute(now).finished += 1
        if self.story is not None:
            self.story.done(record.place, ending.value, now)

    def minute(self, now: float) -> Minute:
        number = int(now // MINUTE)
        found = self.minutes.get(number)
        if found is None:
            found = self.minutes[number] = Minute()
        return found

    def name_of(self, event: Event) -> EventName:
        place = event.record.place
        return EventName(place, self._lines.get(place, 0), event.type, event.id, event.time)

    # Letters

    def stopped(self, topic: str) -> None:
        """Too many of the topic's last events were dead-lettered: the service would pause it here."""
        self.stops[topic] += 1
        self._stopped.add(topic)

    def stopped_now(self, topic: str) -> bool:
        return topic in self._stopped

    def resumed(self, topic: str) -> None:
        self._stopped.discard(topic)

    def wrote(self, letter: Letter) -> None:
        kind = (letter.kind.value, letter.rule)
        self.letters[kind] += 1
        samples = self.letter_samples.setdefault(kind, [])
        place = letter.record.place
        event_type = self._types_of.get(place, "")
        if len(samples) < LETTER_SAMPLES:
            message = letter.message
            samples.append(LetterSample(*kind, message, place, self._lines.get(place, 0), event_type))
        if self.story is not None:
            self.story.letter(place, letter)

    # The watch

    def called(self, items: Collection[Item], call: Call, outcome: Outcome, sent_wall: float) -> None:
        """A call for actions was answered."""
        # A call for kept values stands alone, until an event's own upsert joins it.
        parts = [part for item in items for part in item.pending.group if part.batch.marks is not ALONE]
        first = next(iter(items))
        new = [part for part in parts if part not in self._called]
        if not parts:
            self.extra["lazy_values"] += 1
        elif not new:
            self.extra["contacts" if first.kind in CONTACT_NEEDED else "repeats"] += 1
        else:
            self._called.update(new)
            for part in new[1:]:
                self.saved["bulk" if len(items) > 1 else "tags" if part.action.kind is Kind.ADD_TAG else "merged"] += 1
        self._sample(call, outcome, parts)
        if self.story is not None:
            self.story.called(call, outcome.status, parts, self.now())

    def _sample(self, call: Call, outcome: Outcome, parts: list[Part]) -> None:
        if not parts:
            return
        samples = self.samples.setdefault(call.endpoint, [])
        if len(samples) == SAMPLES and len(parts) <= samples[-1].count:
            return
        contact = parts[0].action.contact
        events = tuple(self.name_of(part.batch.event) for part in parts[:EVENTS_SHOWN])
        made = CallSample(
            call.endpoint,
            self.now(),
            outcome.status,
            contact.email or contact.external_id or "",
            plain(call.body),
            events,
            len(parts),
        )
        samples.append(made)
        samples.sort(key=lambda each: -each.count)  # stable: the earliest first
        del samples[SAMPLES:]

    def ended(self, part: Part, result: Result) -> None:
        """An action has ended, with a call or without."""
        if part.batch.marks is ALONE:
            return
        action, ending, detail = part.action, result.ending, result.detail
        self.action_endings[action.kind.value, ending.value] += 1
        if ending is Ending.LAZY:
            detail = "kept for the contact's next call, or for one of its own once a period"
        if part in self._called:
            self._called.discard(part)
        elif result.letter is not None:
            self.uncalled_letters += 1
        else:
            self.saved[ending.value] += 1
        if action.kind is Kind.TRIGGER and ending is Ending.DELIVERED:
            self.delays.append(max(0.0, self.now() - self.arrived_at(part.record)))
        if result.letter is not None:
            self._types_of[part.record.place] = part.batch.event.type
            detail = f"{result.letter.value}: {result.message}"
        if self.story is not None:
            self.story.ended(part.record.place, action.position, ending.value, detail)

    def made(self, call: Call, status: int, sent: float) -> None:
        """Meisa has carried out a call, an action's or the service's own."""
        self.calls[call.endpoint] += 1
        self.answers[call.endpoint, status] += 1
        self.minute(sent).calls += 1
        self.last_call = max(self.last_call, sent)
        if call.endpoint in ("ping", "unsubscribed"):
            self.extra["service"] += 1

    def total(self) -> tuple[int, int]:
        """Both sides of the arithmetic; they are equal."""
        planned = sum(self.planned.values()) + sum(self.extra.values())
        made = sum(self.calls.values()) + sum(self.saved.values()) + self.uncalled_letters
        return planned, made


def plain(body: Mapping[str, Any] | None) -> dict[str, Any]:
    """The body as it leaves: the bridge may go on changing its own."""
    found = orjson.loads(orjson.dumps(dict(body or {})))
    assert isinstance(found, dict)
    return found
