"""From an event to its plan: which rules apply, and the actions that they make.

An event type that no rule wants costs one look-up. One failing rule fails alone: it contributes none of its actions,
the others all of theirs.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from bridge.errors import MissingField, Problem, RuleError
from bridge.model import EMPTY_PLAN, Action, Contact, Event, Handling, Kind, Plan, RuleFailure
from bridge.places import Place
from bridge.rules.composing import ActionTemplate
from bridge.rules.handlers import Handler, run_handler
from bridge.rules.handling import ActionOptions, RuleOptions, Shared, handling_of, options_of
from bridge.rules.language import Expression
from bridge.rules.writers import EVERYTHING, NOTHING, Writers
from bridge.rules.written import WrittenRule

if TYPE_CHECKING:
    from bridge.rules.cases import Case

MATCHES_MAX = 10_000
"""Pairs of topic and event type whose rules are remembered. Real systems have hundreds of types; a producer that puts
ids into its types must not fill the memory, so at this many all are forgotten and found again."""
TYPE_REMEMBERED_MAX = 256
"""Characters. Longer types are nobody's names; ten thousand of a megabyte each would fill the memory after all."""

HANDLINGS_MAX = 1_000
"""Remembered option sets of actions that handlers yield; code has a handful."""

_DEPENDENT = frozenset({Kind.TRACK, Kind.ADD_TAG, Kind.REMOVE_TAG})


@dataclass(frozen=True, slots=True)
class FieldReference:
    """A field of events that a rule names, and where: for checks against schemas."""

    path: str
    guarded: bool
    """Within optional, default or has."""
    where: str
    """`when`, `upsert.custom_fields.plan` …"""
    line: int
    column: int


@dataclass(slots=True)
class Rule:
    """One rule as loaded."""

    name: str
    match: tuple[str, ...]
    topics: tuple[str, ...] = ()
    """The topics it is restricted to; none: all."""
    enabled: bool = True
    when: Expression | None = None
    actions: tuple[ActionTemplate, ...] = ()
    options: RuleOptions = field(default_factory=RuleOptions)
    tests: tuple[Case, ...] = ()
    """The tests beside the rule."""
    digest: str = ""
    """Of all that it says, but for its tests; where in a file it stands is no part of it."""
    references: tuple[FieldReference, ...] = ()
    identity_problems: tuple[Problem, ...] = ()
    advice: tuple[Problem, ...] = ()
    """Warnings about how its expressions and patterns are written."""
    lazy_notice: Problem | None = None
    """What to know of its lazy fields where the state does not outlive the process."""
    written: WrittenRule = field(default_factory=WrittenRule)
    file: str = ""
    line: int = 0
    """Of its name, as is the column."""
    column: int = 0
    places: Mapping[str, Place] = field(default_factory=dict)
    """Where its keys' values are written, and items of lists: `when`, `match`, `match[1]`."""

    def place(self, *names: str) -> Place:
        """Of the first of these that is written, else of the rule's name."""
        found = next((self.places[name] for name in names if name in self.places), None)
        return found or Place(self.file, self.line, self.column)

    @property
    def kinds(self) -> frozenset[Kind]:
        return frozenset(action.kind for action in self.actions)

    def wants(self, topic: str, event_type: str) -> bool:
        """Whether it matches this type of event on this topic, enabled or not."""
        return _matches(_matcher(self.match), self.topics, topic, event_type)


class RuleBook:
    """All rules and handlers. `plan` never raises."""

    def __init__(
        self, rules: Iterable[Rule] = (), handlers: Sequence[Handler] = (), tests: Iterable[Case] = ()
    ) -> None:
        self.rules = tuple(rules)
        self.handlers = tuple(handlers)
        self._tests = tuple(tests)
        enabled = [rule for rule in self.rules if rule.enabled]
        self._shared = Shared.of(rule.options for rule in enabled)
        for rule in self.rules:
            for action in rule.actions:
                action.handling = self._shared.hold(action.handling)
                action.handling_without_email = self._shared.hold(action.handling_without_email)
        self._matchers = [(_matcher(rule.match), rule.topics, rule) for rule in enabled]
        self._handler_matchers = [(_matcher(handler.match), handler.topics, handler) for handler in self.handlers]
        self._wanted: dict[tuple[str, str], tuple[tuple[Rule, ...], tuple[Handler, ...]] | None] = {}
        self._handlings: dict[tuple[Kind, ActionOptions, bool], Handling] = {}

    @property
    def topics(self) -> frozenset[str]:
        """The topics that enabled rules and handlers are restricted to, by name."""
        restricted = [topics for _, topics, _ in self._matchers] + [topics for _, topics, _ in self._handler_matchers]
        return frozenset(topic for topics in restricted for topic in topics)

    @property
    def names(self) -> frozenset[str]:
        """Of all rules and handlers, those that are not enabled too."""
        return frozenset({rule.name for rule in self.rules} | {handler.name for handler in self.handlers})

    @property
    def tests(self) -> list[Case]:
        """All tests: those beside rules, and those at the top of files."""
        return [*(case for rule in self.rules for case in rule.tests), *self._tests]

    @property
    def version(self) -> str:
        """The same in every process with the same rules in the same order, and the same handlers by name."""
        told = [*(f"{rule.name} {rule.digest}" for rule in self.rules), *(f"@{each.name}" for each in self.handlers)]
        return blake2b("\n".join(told).encode(), digest_size=6).hexdigest()

    def kinds(self) -> frozenset[Kind]:
        """The kinds of actions in enabled rules. What handlers yield shows only when they run."""
        return frozenset(kind for _, _, rule in self._matchers for kind in rule.kinds)

    def needs_identities(self) -> list[Problem]:
        """Actions that name their contact by an id where the endpoint needs the email; refused with `state: memory`."""
        return [problem for _, _, rule in self._matchers for problem in rule.identity_problems]

    def forgets_lazy_values(self) -> list[Problem]:
        """Notices of rules with lazy fields: with `state: memory` a restart forgets their kept values."""
        return [rule.lazy_notice for _, _, rule in self._matchers if rule.lazy_notice is not None]

    def writers(self, topics: Iterable[str]) -> Writers:
        """Which of these topics, all that are read, may write which fields of contacts."""
        found = dict.fromkeys(topics, NOTHING)
        for restricted, writes in [
            *((rule.topics, action.writes) for _, _, rule in self._matchers for action in rule.actions),
            *((handler.topics, EVERYTHING) for handler in self.handlers),
        ]:
            for topic in restricted or found:
                if topic in found:
                    found[topic] = found[topic].joined(writes)
        return Writers(found)

    def wants(self, topic: str, event_type: str) -> bool:
        """Whether any rule or handler matches this type of event on this topic."""
        return self._find((topic, event_type)) is not None

    def matching(self, topic: str, event_type: str) -> tuple[Rule, ...]:
        """The enabled rules that match this type of event on this topic, in order; without handlers."""
        wanted = self._find((topic, event_type))
        return () if wanted is None else wanted[0]

    def names_matching(self, topic: str, event_type: str) -> tuple[str, ...]:
        """The names of enabled rules and handlers that match this type of event on this topic, in order."""
        rules, handlers = self._find((topic, event_type)) or ((), ())
        return (*(rule.name for rule in rules), *(handler.name for handler in handlers))

    def plan(self, event: Event) -> Plan:
        """What the rules make of an event; rules that fail stand in the plan."""
        pair = (event.record.topic, event.type)
        try:
            wanted = self._wanted[pair]
        except KeyError:
            wanted = self._find(pair)
        if wanted is None:
            return EMPTY_PLAN
        rules, handlers = wanted
        actions: list[Action] = []
        failures: list[RuleFailure] = []
        unmet = missing = 0
        for rule in rules:
            try:
                made, was_missing = self._apply(rule, event, actions)
            except RuleError as error:
                failures.append(RuleFailure(rule.name, error.message, error.path))
            else:
                if made is None:
                    unmet += 1
                    missing += was_missing
                else:
                    actions += made
        for handler in handlers:
            try:
                actions += self._handle(handler, event, actions)
            except RuleError as error:
                failures.append(RuleFailure(handler.name, error.message, error.path))
        return Plan(tuple(actions), tuple(failures), unmet, missing)

    def _apply(self, rule: Rule, event: Event, before: list[Action]) -> tuple[list[Action] | None, bool]:
        """The rule's actions; None where its `when` (or that of each of its actions) is false, and whether a missing
        field made it so. Raises RuleError."""
        if rule.when is not None:
            met, was_missing = _holds(rule.when, event, "when")
            if not met:
                return None, was_missing
        made: list[Action] = []
        any_missing = False
        for template in rule.actions:
            if template.when is not None:
                met, was_missing = _holds(template.when, event, f"{template.kind.value}.when")
                if not met:
                    any_missing = any_missing or was_missing
                    continue
            body, contact = template.make(event)
            handling = template.handling if contact.email is not None else template.handling_without_email
            made.append(_action(template.kind, rule.name, body, contact, handling, before, made))
        return (made, False) if made or not rule.actions else (None, any_missing)

    def _handle(self, handler: Handler, event: Event, before: list[Action]) -> list[Action]:
        made: list[Action] = []
        for model in run_handler(handler, event):
            contact = model.who()
            handling = self._handling(model.KIND, options_of(model), contact.email is not None)
            made.append(_action(model.KIND, handler.name, model.body(), contact, handling, before, made))
        return made

    def _handling(self, kind: Kind, options: ActionOptions, email_known: bool) -> Handling:
        wanted = (kind, options, email_known)
        handling = self._handlings.get(wanted)
        if handling is None:
            if len(self._handlings) >= HANDLINGS_MAX:
                self._handlings.clear()
            handling = self._shared.hold(handling_of(kind, RuleOptions(), options, email_known=email_known))
            self._handlings[wanted] = handling
        return handling

    def _find(self, pair: tuple[str, str]) -> tuple[tuple[Rule, ...], tuple[Handler, ...]] | None:
        topic, event_type = pair
        rules = tuple(rule for match, topics, rule in self._matchers if _matches(match, topics, topic, event_type))
        handlers = tuple(
            handler for match, topics, handler in self._handler_matchers if _matches(match, topics, topic, event_type)
        )
        wanted = (rules, handlers) if rules or handlers else None
        if len(event_type) <= TYPE_REMEMBERED_MAX:
            if len(self._wanted) >= MATCHES_MAX:
                self._wanted.clear()
            self._wanted[pair] = wanted
        return wanted


_Matcher = tuple[frozenset[str], tuple[re.Pattern[str], ...]]


def _matcher(patterns: Iterable[str]) -> _Matcher:
    patterns = list(patterns)
    globs = [pattern for pattern in patterns if any(char in pattern for char in "*?[")]
    exact = frozenset(pattern for pattern in patterns if pattern not in globs)
    return exact, tuple(re.compile(fnmatch.translate(pattern)) for pattern in globs)


def _matches(matcher: _Matcher, topics: tuple[str, ...], topic: str, event_type: str) -> bool:
    if topics and topic not in topics:
        return False
    exact, globs = matcher
    return event_type in exact or any(glob.match(event_type) for glob in globs)


def _holds(when: Expression, event: Event, where: str) -> tuple[bool, bool]:
    """Whether a condition is true, and whether it is false because a field is missing. Raises RuleError."""
    try:
        return bool(when.run(event)), False
    except Exception as raised:
        error = when.error(raised)
        if isinstance(error, MissingField):
            return False, True
        raise RuleError(f"{where}: {error.message}", error.path) from None


def _action(
    kind: Kind,
    rule: str,
    body: dict[str, Any],
    contact: Contact,
    handling: Handling,
    before: list[Action],
    made: list[Action],
) -> Action:
    """The action at its place in the plan: after those of other rules (`before`) and of its own rule (`made`)."""
    trigger_key = body.get("trigger_key")
    occurrence = 0
    for earlier in made:
        if earlier.kind is kind and earlier.body.get("trigger_key") == trigger_key:
            occurrence += 1
    needs = _needed(contact, before, made) if kind in _DEPENDENT else None
    return Action(kind, rule, len(before) + len(made), body, contact, handling, occurrence, needs)


def _needed(contact: Contact, before: list[Action], made: list[Action]) -> int | None:
    """The nearest preceding upsert of the same person: without it a track or a tag makes no sense."""
    names: set[str] | None = None
    for earlier in (*reversed(made), *reversed(before)):
        if earlier.kind is Kind.UPSERT:
            names = names if names is not None else set(contact.ordering_keys())
            if not names.isdisjoint(earlier.contact.ordering_keys()):
                return earlier.position
    return None
