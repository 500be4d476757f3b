"""Runs the tests in rules files: events go through the very planning that the service does.

An event of a test is written to a record and decoded like any other, then planned. What the rules make of it is what
would be handed to the delivery: actions that are too old at the test's `now` are left out, as the service finishes them
as `expired`; and where the test says who is known (`given.identities`), actions carry the names that the identity table
finds, or end as `unknown_contact`. Pure: the decoders and the table come in with the World.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

import orjson

from bridge.errors import DecodeError, Problem
from bridge.model import Action, Contact, Event, LetterKind, Record, TopicPartition
from bridge.places import nearest
from bridge.rules.cases import POINTLESS, Case, ExpectedError
from bridge.rules.comparing import Line, Written, difference, duration, flow, written
from bridge.rules.functions import moment
from bridge.rules.handlers import Handler
from bridge.rules.planner import Rule, RuleBook

TIME = "2026-01-01T00:00:00Z"
"""Of an event that has no time, in a test without `now`."""
TOPIC = "events"
"""Of an event where neither the test, nor the rule, nor the configuration names one."""


class People(Protocol):
    """The identity table of one test."""

    def named(self, action: Action, partition: TopicPartition, offset: int) -> Action | None:
        """The action under its contact's present names; None where Meisa needs one that nobody knows."""


@dataclass(frozen=True, slots=True)
class World:
    """What surrounds the rules."""

    decode: Callable[[Record], Event | None]
    """Of the default envelope. Raises DecodeError."""
    people: Callable[[Iterable[Contact]], People]
    decoders: Mapping[str, Callable[[Record], Event | None]]
    """Of the configured topics, for events that are given as a record's whole value."""


class Ending(StrEnum):
    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong with an event before anything was sent."""

    kind: LetterKind
    message: str
    path: str = ""
    rule: str = ""

    def shown(self) -> str:
        told = {"kind": self.kind.value, **({"path": self.path} if self.path else {})}
        return f"expect_error: {flow(told)}"


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one test."""

    case: Case
    ending: Ending
    difference: tuple[Line, ...] = ()
    notes: tuple[str, ...] = ()
    """What a reader of the difference should know beside it."""
    made: tuple[Written, ...] = ()
    failures: tuple[Failure, ...] = ()


class Bench:
    """Runs tests against the rules and handlers of one book."""

    def __init__(self, book: RuleBook, world: World) -> None:
        self._world = world
        self._whole = book
        self._rules = {rule.name: rule for rule in book.rules}
        self._handlers = {handler.name: handler for handler in book.handlers}
        self._topic = next(iter(world.decoders), TOPIC)

    def run(self, case: Case) -> Result:
        subject = self._subject(case)
        if isinstance(subject, Rule) and not subject.enabled:
            return Result(case, Ending.SKIPPED, notes=("the rule is not enabled",))
        run = _Run(case, self._book(subject), self._world, _topic_of(subject) or self._topic)
        for index, event in enumerate(case.events):
            run.event(event, index)
        return run.result()

    def _subject(self, case: Case) -> Rule | Handler | None:
        if case.of == "book":
            return None
        return self._rules[case.subject] if case.of == "rule" else self._handlers[case.subject]

    def _book(self, subject: Rule | Handler | None) -> RuleBook:
        if subject is None:
            return self._whole
        return RuleBook([subject]) if isinstance(subject, Rule) else RuleBook((), [subject])


def _topic_of(subject: Rule | Handler | None) -> str:
    return subject.topics[0] if subject is not None and subject.topics else ""


class _Run:
    """One test while it runs."""

    def __init__(self, case: Case, book: RuleBook, world: World, topic: str) -> None:
        self._case = case
        self._book = book
        self._world = world
        self._topic = topic
        self._people = None if case.identities is None else world.people(case.identities)
        self._made: list[Written] = []
        self._failures: list[Failure] = []
        self._notes: list[str] = []

    def event(self, fields: Mapping[str, Any], index: int) -> None:
        record = record_of(fields, index, topic=self._topic, now=self._case.now)
        decode = self._world.decode
        if "value" in fields:
            decode = self._world.decoders.get(record.topic, decode)
        try:
            event = decode(record)
        except DecodeError as error:
            self._failures.append(Failure(LetterKind.DECODE, error.message, error.path))
            return
        if event is None:
            self._notes.append(f"event {index + 1} says nothing: it is a tombstone")
            return
        if not self._book.wants(event.topic, event.type):
            self._notes.append(f"{self._who()} matches no event of type {event.type} on topic {event.topic}")
            return
        plan = self._book.plan(event)
        for failed in plan.failures:
            self._failures.append(Failure(LetterKind.RULE, failed.message, failed.path, failed.rule))
        if plan.missing and not plan.actions:
            self._notes.append("a `when` is false because it names a field that the event lacks")
        for action in plan.actions:
            self._take(action, event)

    def _who(self) -> str:
        case = self._case
        return f"the {case.of} {case.subject}" if case.subject else "no rule or handler"

    def _take(self, action: Action, event: Event) -> None:
        now, max_age = self._case.now_wall_seconds, action.handling.max_age_seconds
        if now is not None and max_age is not None and now - event.time_wall_seconds > max_age:
            message = f"{action.kind.value} is left out: at {self._case.now} it is older than {duration(max_age)}"
            self._notes.append(message)
            return
        if self._people is not None:
            partition = TopicPartition(event.record.topic, event.record.partition)
            named = self._people.named(action, partition, event.record.offset)
            if named is None:
                message = f"{action.kind.value} needs an email that no identity tells"
                self._failures.append(Failure(LetterKind.UNKNOWN_CONTACT, message, rule=action.rule))
                return
            action = named
        self._made.append(written(action))

    def result(self) -> Result:
        case = self._case
        lines: list[Line] = []
        unexpected = self._failures
        if case.error is not None:
            unexpected = [failure for failure in self._failures if not _is(failure, case.error)]
            if not self._failures:
                lines.append(Line("-", f"expect_error: {_error(case.error)}"))
                self._notes.append("nothing went wrong")
            elif unexpected:
                lines.append(Line("-", f"expect_error: {_error(case.error)}"))
        for failure in unexpected:
            lines.append(Line("+", failure.shown()))
            origin = f"rule {failure.rule}: " if failure.rule and failure.rule != case.subject else ""
            self._notes.append(f"{origin}{failure.message}")
        if case.expect is not None:
            lines += difference(case.expect, self._made)
        ending = Ending.FAILED if lines else Ending.PASSED
        return Result(case, ending, tuple(lines), tuple(self._notes), tuple(self._made), tuple(self._failures))


def record_of(fields: Mapping[str, Any], index: int, *, topic: str = TOPIC, now: str | None = None) -> Record:
    """The record that an event of a test stands for; what it does not name has defaults."""
    if "value" in fields:
        value = fields["value"]
    else:
        value = {name: fields[name] for name in ("id", "type", "source", "subject", "time", "data") if name in fields}
    written_at = fields.get("timestamp")
    for other in (fields.get("time"), now, TIME):
        written_at = other if written_at is None else written_at
    key = fields.get("key")
    return Record(
        topic=str(fields.get("topic") or topic),
        partition=fields.get("partition") or 0,
        offset=fields["offset"] if fields.get("offset") is not None else index,
        timestamp_ms=round(moment(written_at).timestamp() * 1000),
        key=None if key is None else str(key).encode(),
        value=None if value is None else orjson.dumps(value),
        headers=tuple(
            (name, None if text is None else str(text).encode()) for name, text in (fields.get("headers") or {}).items()
        ),
    )


def _is(failure: Failure, expected: ExpectedError) -> bool:
    return (
        expected.kind in (None, failure.kind.value)
        and expected.path in (None, failure.path)
        and expected.rule in (None, failure.rule)
        and (expected.message is None or expected.message in failure.message)
    )


def _error(expected: ExpectedError) -> str:
    named = ("kind", "path", "rule", "message")
    return flow({name: value for name in named if (value := getattr(expected, name)) is not None})


def pointless(book: RuleBook, cases: Sequence[Case]) -> list[Problem]:
    """Warnings of tests whose rule matches none of their events: they pass or fail without it."""
    rules = {rule.name: rule for rule in book.rules}
    problems = []
    for case in cases:
        rule = rules.get(case.subject) if case.of == "rule" else None
        types = [event["type"] for event in case.events if "type" in event]
        if rule is None or not rule.enabled or len(types) < len(case.events):
            continue
        if any(rule.wants(topic, type) for type in types for topic in (rule.topics or (TOPIC,))):
            continue
        close = nearest(types[0], rule.match) if types else ""
        hint = f"did you mean {close}?" if close else f"it matches {', '.join(rule.match)}"
        message = f"the rule {rule.name} matches no event of type {types[0]}" if types else "the test has no events"
        problems.append(case.place.problem(POINTLESS, message, hint, severity="warning"))
    return problems
