"""What tests had of the rules: which rules and handlers ran, which ways conditions went, which actions were made.

A branch is one outcome of a condition: every `when`, and every `a if c else b`, has two. `and`, `or` and the `if` of a
comprehension have none of their own. Constant conditions are not counted, nor are rules that are not enabled. What a
Python handler does inside is for Python's own tools: here it counts like a rule, by whether it ran.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bridge.model import Event
from bridge.places import Place
from bridge.rules.handlers import Handler
from bridge.rules.language import Expression
from bridge.rules.planner import Rule, RuleBook


class Share(NamedTuple):
    """How many of how many."""

    covered: int
    total: int

    def __str__(self) -> str:
        if not self.total:
            return "none"
        return f"{self.covered} of {self.total} ({100 * self.covered // self.total} %)"


class Gap(NamedTuple):
    """Something that no test had."""

    rule: str
    what: str
    place: Place


class Report(NamedTuple):
    rules: Share
    branches: Share
    actions: Share
    gaps: tuple[Gap, ...]


@dataclass(slots=True)
class _Condition:
    where: str
    place: Place
    outcomes: set[bool]


@dataclass(slots=True)
class _Made:
    kind: str
    place: Place
    made: bool = False


@dataclass(slots=True)
class _Subject:
    """A rule or handler."""

    name: str
    sort: str
    place: Place
    ran: bool = False
    conditions: list[_Condition] = field(default_factory=list)
    actions: list[_Made] = field(default_factory=list)


class Coverage:
    """Watches the rules and handlers of a book that was loaded `watched`: run tests on `book`, then ask to `report`."""

    def __init__(self, book: RuleBook) -> None:
        self._subjects: list[_Subject] = [self._watch(rule) for rule in book.rules if rule.enabled]
        handlers = [self._watch_handler(handler) for handler in book.handlers]
        self.book = RuleBook(book.rules, handlers, book.tests)

    def _watch(self, rule: Rule) -> _Subject:
        subject = _Subject(rule.name, "rule", Place(rule.file, rule.line, rule.column))
        rule.when = self._condition(subject, rule.when, "when")
        for action in rule.actions:
            made = _Made(action.kind.value, Place(rule.file, action.line))
            action.when = self._condition(subject, action.when, f"{action.kind.value}.when")
            action.build = _noting(action.build, subject, made)
            subject.actions.append(made)
            for conditional in action.unit.conditionals:
                place = conditional.place or made.place
                where = f"{conditional.where}: if {conditional.text}"
                subject.conditions.append(_Condition(where, place, conditional.outcomes))
        return subject

    def _condition(self, subject: _Subject, when: Expression | None, where: str) -> Expression | None:
        if when is None:
            return None
        outcomes: set[bool] = set()

        def told(outcome: bool) -> None:
            subject.ran = True
            outcomes.add(outcome)

        place = when.place or subject.place
        if when.references:
            subject.conditions.append(_Condition(where, place, outcomes))
        for conditional in when.conditionals:
            at = conditional.place or place
            subject.conditions.append(_Condition(f"{where}: if {conditional.text}", at, conditional.outcomes))
        return when.watched(told)

    def _watch_handler(self, handler: Handler) -> Handler:
        code = getattr(handler.function, "__code__", None)
        place = Place(code.co_filename, code.co_firstlineno) if code is not None else Place("")
        subject = _Subject(handler.name, "handler", place)
        self._subjects.append(subject)

        @functools.wraps(handler.function)
        def run(event: Event) -> Any:
            subject.ran = True
            return handler.function(event)

        return handler._replace(function=run)

    def report(self, names: Collection[str] | None = None) -> Report:
        """Of the rules and handlers of these names; of all where there are none."""
        subjects = [each for each in self._subjects if names is None or each.name in names]
        conditions = [condition for subject in subjects for condition in subject.conditions]
        actions = [action for subject in subjects for action in subject.actions]
        return Report(
            rules=Share(sum(subject.ran for subject in subjects), len(subjects)),
            branches=Share(sum(len(condition.outcomes) for condition in conditions), 2 * len(conditions)),
            actions=Share(sum(action.made for action in actions), len(actions)),
            gaps=tuple(gap for subject in subjects for gap in _gaps(subject)),
        )


def _noting(build: Callable[[Any], dict[str, Any]], subject: _Subject, made: _Made) -> Callable[[Any], dict[str, Any]]:
    def run(event: Any) -> dict[str, Any]:
        subject.ran = True
        fields = build(event)
        made.made = True
        return fields

    return run


def _gaps(subject: _Subject) -> list[Gap]:
    """What is missing of one rule, by place; of a rule that never ran only that."""
    if not subject.ran:
        return [Gap(subject.name, f"the {subject.sort} never ran", subject.place)]
    gaps = []
    for condition in subject.conditions:
        if len(condition.outcomes) == 2:
            continue
        never = "evaluated" if not condition.outcomes else "false" if True in condition.outcomes else "true"
        gaps.append(Gap(subject.name, f"{condition.where}: never {never}", condition.place))
    gaps += [
        Gap(subject.name, f"{action.kind}: never made", action.place) for action in subject.actions if not action.made
    ]
    return sorted(gaps, key=lambda gap: (gap.place.line, gap.place.column))
