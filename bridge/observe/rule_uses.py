"""What each rule in force does: how many events it took up, and what went wrong last."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from bridge.model import Letter, Plan
from bridge.observe.snapshot import RuleUse

ERROR_CHARACTERS = 300
"""Of a message that are kept; the dead letter has all of it."""


class RuleUses:
    """Counts for the rules and handlers in force, and for no others: so it is bounded by them."""

    def __init__(self, names: Iterable[str]) -> None:
        self._events = dict.fromkeys(names, 0)
        self._errors: dict[str, RuleUse] = {}

    def in_force(self, names: Iterable[str]) -> None:
        """Other rules are in force now; those that stay keep their counts."""
        self._events = {name: self._events.get(name, 0) for name in names}
        self._errors = {name: use for name, use in self._errors.items() if name in self._events}

    def planned(self, plan: Plan) -> None:
        """The rules' plan of one event. A rule counts once for it, whatever it wants."""
        actions, failures = plan.actions, plan.failures
        if not failures and len(actions) <= 1:  # nearly always
            for action in actions:
                if action.rule in self._events:
                    self._events[action.rule] += 1
            return
        for name in {action.rule for action in actions} | {failure.rule for failure in failures}:
            if name in self._events:
                self._events[name] += 1

    def heard(self, letter: Letter) -> None:
        """A dead letter; one that names no rule in force (what cannot be decoded) concerns none."""
        if letter.rule not in self._events:
            return
        before = self._errors.get(letter.rule) or RuleUse(letter.rule)
        self._errors[letter.rule] = replace(
            before,
            letters=before.letters + 1,
            last_error=letter.message[:ERROR_CHARACTERS],
            last_error_wall_seconds=letter.failed_at_wall_seconds,
        )

    def states(self) -> tuple[RuleUse, ...]:
        """One for each rule in force, by name."""
        return tuple(
            replace(self._errors.get(name) or RuleUse(name), events=events)
            for name, events in sorted(self._events.items())
        )
