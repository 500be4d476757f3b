"""The tests in rules files, read: each becomes a Case, every mistake in it a problem with its place.

A test beside a rule tests that rule alone. One at the top of a file tests all rules and handlers together, or the one
that it names under `rule` or `handler`. What a case comes to is found by testing.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from bridge.actions import MODELS
from bridge.errors import Problem
from bridge.model import Contact, Kind, Lane, LetterKind
from bridge.places import Place, did_you_mean
from bridge.rules.faults import Fault
from bridge.rules.functions import moment
from bridge.rules.reading import Reader, shape
from bridge.yamldoc import Node

TEST_KEYS = ("name", "event", "events", "given", "now", "expect", "expect_error", "exact")
TOP_TEST_KEYS = (*TEST_KEYS, "rule", "handler")
EVENT_PARTS = ("id", "type", "source", "subject", "time", "data")
"""What an event is made of; `value` is given in place of them."""
EVENT_KEYS = (*EVENT_PARTS, "key", "headers", "topic", "partition", "offset", "timestamp", "value")
GIVEN_KEYS = ("identities",)
ERROR_KEYS = ("kind", "path", "rule", "message")
ERROR_KINDS = (LetterKind.RULE, LetterKind.DECODE, LetterKind.UNKNOWN_CONTACT)
"""What can go wrong before anything is sent."""

MALFORMED = "MB190"
UNKNOWN_SUBJECT = "MB191"
WRONG_EXPECTATION = "MB192"
POINTLESS = "MB193"


@dataclass(frozen=True, slots=True)
class Expected:
    """One action that a test expects."""

    kind: Kind
    fields: Mapping[str, Any]
    """The action's own fields; null says that there is none."""
    beside: Mapping[str, Any]
    """`contact`, `aliases` and options such as `max_age`."""
    exact: bool = False
    """No other field may be there."""


@dataclass(frozen=True, slots=True)
class ExpectedError:
    """What a test expects to go wrong; None is anything."""

    kind: str | None = None
    path: str | None = None
    rule: str | None = None
    message: str | None = None
    """A part of it."""


@dataclass(frozen=True, slots=True)
class Case:
    """One test."""

    name: str
    of: Literal["rule", "handler", "book"]
    subject: str
    """The name of the rule or handler; empty where all are tested together."""
    events: tuple[Mapping[str, Any], ...]
    expect: tuple[Expected, ...] | None
    error: ExpectedError | None
    place: Place
    route: tuple[str | int, ...]
    """Keys and positions that lead to it in its file."""
    identities: tuple[Contact, ...] | None = None
    """What is known of who is who; None: nobody is looked up."""
    now_wall_seconds: float | None = None
    now: str | None = None

    @property
    def title(self) -> str:
        return f"{self.subject}: {self.name}" if self.subject else self.name


class CaseReader:
    """Reads the tests of one file."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    def beside(self, node: Node | None, rule: str, route: tuple[str | int, ...]) -> tuple[Case, ...]:
        """The tests beside a rule."""
        return self._cases(node, route, rule)

    def at_the_top(self, node: Node | None) -> tuple[Case, ...]:
        return self._cases(node, ("tests",), None)

    def expectation(self, entries: dict[str, Node]) -> tuple[Expected, ...] | None:
        """What a test expects to be made."""
        if "expect" not in entries:
            return None
        return self._expect(entries["expect"], self._reader.flag(entries.get("exact"), "exact", False))

    def _cases(self, node: Node | None, route: tuple[str | int, ...], rule: str | None) -> tuple[Case, ...]:
        if node is None:
            return ()
        items = self._reader.items(node, "tests") or ()
        found = [self._case(item, index, (*route, index), rule) for index, item in enumerate(items)]
        return tuple(case for case in found if case is not None)

    def _case(self, item: Node, index: int, route: tuple[str | int, ...], rule: str | None) -> Case | None:
        reader = self._reader
        before = len(reader.problems)
        entries = reader.mapping(item, "a test")
        if entries is None:
            return None
        reader.known_keys(entries, TEST_KEYS if rule is not None else TOP_TEST_KEYS, "a test", MALFORMED)
        mistyped = len(reader.problems) > before  # then what is missing is there, under a wrong name
        if ("event" in entries) == ("events" in entries) and not mistyped:
            reader.problem(MALFORMED, item.place, "a test needs either event or events")
        if "expect" not in entries and "expect_error" not in entries and not mistyped:
            hint = "list all actions, or none: expect: []"
            reader.problem(MALFORMED, item.place, "a test needs expect or expect_error", hint)
        if "rule" in entries and "handler" in entries:
            reader.problem(MALFORMED, entries["handler"].key_place, "a test names a rule or a handler, not both")
        of: Literal["rule", "handler", "book"] = "rule" if rule is not None or "rule" in entries else "book"
        subject = rule if rule is not None else reader.text(entries.get("rule"), "rule") or ""
        if "handler" in entries:
            of, subject = "handler", reader.text(entries["handler"], "handler") or ""
        now = self._now(entries.get("now"))
        error = self._error(entries["expect_error"]) if "expect_error" in entries else None
        identities = self._identities(entries.get("given"))
        if identities is None and error is not None and error.kind == LetterKind.UNKNOWN_CONTACT:
            identities = ()  # else nobody would be looked up, and nothing go wrong
        case = Case(
            name=reader.text(entries.get("name"), "name") or f"test {index + 1}",
            of=of,
            subject=subject,
            events=self._events(entries),
            expect=self.expectation(entries),
            error=error,
            place=entries["name"].place if "name" in entries else item.place,
            route=route,
            identities=identities,
            now_wall_seconds=None if now is None else now[1],
            now=None if now is None else now[0],
        )
        return case if len(reader.problems) == before else None

    # What happens ----------------------------------------------------------------------------------------------------

    def _events(self, entries: dict[str, Node]) -> tuple[Mapping[str, Any], ...]:
        nodes = [entries["event"]] if "event" in entries else []
        if "events" in entries:
            nodes += self._reader.items(entries["events"], "events") or []
        found = [self._event(node) for node in nodes]
        return tuple(event for event in found if event is not None)

    def _event(self, node: Node) -> Mapping[str, Any] | None:
        reader = self._reader
        fields = reader.mapping(node, "an event")
        if fields is None:
            return None
        before = len(reader.problems)
        reader.known_keys(fields, EVENT_KEYS, "an event", MALFORMED)
        mistyped = len(reader.problems) > before
        if "value" in fields:
            for name in EVENT_PARTS:
                if name in fields:
                    message = f"value is the whole record: {name} comes from it"
                    reader.problem(MALFORMED, fields[name].key_place, message, "give one or the other")
        elif "type" not in fields and mistyped:
            pass
        elif "type" not in fields:
            reader.problem(MALFORMED, node.place, "the event has no type", "e.g. type: user.signed_up")
        elif not isinstance(fields["type"].value, str) or not fields["type"].value:
            reader.problem(MALFORMED, fields["type"].place, "the event's type must be a text")
        for name in ("time", "timestamp"):
            if name in fields and fields[name].value is not None:
                self._moment(fields[name], name)
        for name in ("partition", "offset"):
            value = fields[name].value if name in fields else 0
            if type(value) is not int or not 0 <= value < 2**63:
                reader.problem(MALFORMED, fields[name].place, f"{name} must be a whole number from 0")
        for name in ("topic", "key"):
            if name in fields and fields[name].value is not None:
                reader.text(fields[name], name)
        if "headers" in fields:
            headers = reader.mapping(fields["headers"], "headers") or {}
            for name, below in headers.items():
                if below.value is not None:
                    reader.text(below, f"the header {name}")
        return node.plain()  # type: ignore[no-any-return]  # a mapping: it was looked at

    def _moment(self, node: Node, what: str) -> float | None:
        try:
            return moment(node.value).timestamp()
        except Fault:
            hint = 'e.g. "2026-01-02T03:04:05Z"'
            self._reader.problem(MALFORMED, node.place, f"{what} is no ISO 8601 time", hint)
            return None

    def _now(self, node: Node | None) -> tuple[str, float] | None:
        if node is None:
            return None
        seconds = self._moment(node, "now")
        return None if seconds is None else (str(node.value), seconds)

    def _identities(self, node: Node | None) -> tuple[Contact, ...] | None:
        reader = self._reader
        given = reader.mapping(node, "given") if node is not None else None
        if given is None:
            return None
        reader.known_keys(given, GIVEN_KEYS, "given", MALFORMED)
        if "identities" not in given:
            return None
        found = []
        for item in reader.items(given["identities"], "identities") or ():
            row = reader.mapping(item, "an identity")
            if row is None:
                continue
            aliases = reader.mapping(row["aliases"], "aliases") if "aliases" in row else {}
            named = {name: below for name, below in row.items() if name not in ("email", "external_id", "aliases")}
            names = tuple(
                sorted((name, reader.text(below, name) or "") for name, below in ({**named, **(aliases or {})}).items())
            )
            email, external_id = (reader.text(row.get(name), name) for name in ("email", "external_id"))
            if (email is not None) + (external_id is not None) + len(names) < 2 or email is external_id is None:
                hint = "e.g. {email: ada@example.com, external_id: u1, aliases: {stripe: cus_1}}"
                reader.problem(MALFORMED, item.place, "an identity links an email or external_id with another id", hint)
            found.append(Contact(email, external_id, names))
        return tuple(found)

    # What is expected ------------------------------------------------------------------------------------------------

    def _expect(self, node: Node, exact: bool) -> tuple[Expected, ...]:
        found = [self._expected(item, exact) for item in self._reader.items(node, "expect") or ()]
        return tuple(expected for expected in found if expected is not None)

    def _expected(self, node: Node, exact: bool) -> Expected | None:
        reader = self._reader
        entries = reader.mapping(node, "an expected action")
        if entries is None:
            return None
        kinds = [name for name in entries if name in MODELS]
        if len(kinds) != 1:
            near = [hint for name in entries if (hint := did_you_mean(name, list(Kind)))]
            hint = near[0] if near and not kinds else f"known are {', '.join(Kind)}"
            reader.problem(MALFORMED, node.place, "an expected action names one action", hint)
            return None
        kind = Kind(kinds[0])
        model = MODELS[kind]
        options = sorted(model.OPTIONS)
        beside: dict[str, Any] = {}
        for name, below in entries.items():
            if name in model.OPTIONS:
                beside[name] = self._option(name, below, kind)
            elif name not in (kind.value, "exact"):
                self._unknown(name, below, [*options, "exact"], f"stands beside an expected {kind.value}")
        fields: dict[str, Any] = {}
        below = entries[kind.value]
        given = {} if below.value is None else reader.mapping(below, f"an expected {kind.value}") or {}
        known = [name for name in model.model_fields if name not in model.OPTIONS]
        for name, value in given.items():
            if name in known:
                fields[name] = value.plain()
            elif name in model.OPTIONS:
                message = f"{name} is an option of {kind.value}"
                reader.problem(WRONG_EXPECTATION, value.key_place, message, f"it stands beside {kind.value}")
            else:
                self._unknown(name, value, known, f"is a field of {kind.value}")
        return Expected(kind, fields, beside, exact or reader.flag(entries.get("exact"), "exact", False))

    def _option(self, name: str, node: Node, kind: Kind) -> Any:
        """The value to compare with; text, or a mapping of texts."""
        reader = self._reader
        if name in ("contact", "aliases"):
            mapping = reader.mapping(node, name) or {}
            return {alias: below.plain() for alias, below in mapping.items()}
        if name == "max_age":
            return reader.duration(node, name, none=True)
        if name == "lane":
            return reader.choice(node, name, [lane.value for lane in Lane])
        annotation = MODELS[kind].model_fields[name].annotation
        return reader.choice(node, name, [str(value) for part in get_args(annotation) for value in get_args(part)])

    def _unknown(self, name: str, node: Node, known: Iterable[str], what: str) -> None:
        known = list(known)
        hint = did_you_mean(name, known, f"known are {', '.join(known)}")
        if name in ("when", "missing"):
            hint = "a test says what comes of it, not how"
        self._reader.problem(WRONG_EXPECTATION, node.key_place, f"nothing named {name} {what}", hint)

    def _error(self, node: Node) -> ExpectedError:
        reader = self._reader
        entries = reader.mapping(node, "expect_error")
        if entries is None:
            return ExpectedError()
        reader.known_keys(entries, ERROR_KEYS, "expect_error", MALFORMED)
        kind = entries.get("kind")
        if kind is not None and kind.value not in ERROR_KINDS:
            hint = f"known are {', '.join(ERROR_KINDS)}"
            if kind.value == LetterKind.EXPIRED:
                hint = "what is too old when it is read is finished without error: leave it out of expect"
            told = kind.value if isinstance(kind.value, str) else shape(kind.value)
            reader.problem(MALFORMED, kind.place, f"rules cannot end in {told}", hint)
        texts = {name: reader.text(entries.get(name), name) for name in ERROR_KEYS if name != "kind"}
        return ExpectedError(kind=None if kind is None else str(kind.value), **texts)


def unknown_subjects(cases: Iterable[Case], rules: Iterable[str], handlers: Iterable[str]) -> list[Problem]:
    """Tests that name a rule or handler that there is not."""
    known = {"rule": list(rules), "handler": list(handlers)}
    other = {"rule": "handler", "handler": "rule"}
    problems = []
    for case in cases:
        if case.of == "book" or case.subject in known[case.of]:
            continue
        hint = did_you_mean(case.subject, known[case.of], "handlers are known with the configuration: -c PATH")
        if case.of == "rule" and not hint.startswith("did"):
            hint = "name one of the rules that are loaded together"
        if case.subject in known[other[case.of]]:
            hint = f"it is a {other[case.of]}: {other[case.of]}: {case.subject}"
        problems.append(case.place.problem(UNKNOWN_SUBJECT, f"no {case.of} is named {case.subject}", hint))
    return problems
