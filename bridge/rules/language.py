"""The expression language: a subset of Python's expressions, compiled once to Python code.

Every node of the source passes a whitelist and is *translated*: the result is built from nodes made here, and holds no
attribute access, no name and no call that the source chose freely. `data.plan` becomes a look-up in a dict; calls go to
the functions published in functions.py and to nothing else. So safety rests on what is generated, not on what is
forbidden. Work and memory are bounded: the source in length, depth and nodes; made texts and lists in size; numbers to
what JSON carries; comprehensions by a budget of steps (unit.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from bridge.errors import MissingField, RuleError
from bridge.places import Place
from bridge.rules.translator import EVENT_FIELDS, Translator
from bridge.rules.unit import Conditional, Unit

RULE_NAMES: dict[str, str] = {
    "data": "data",
    "key": "key",
    "headers": "headers",
    "topic": "topic",
    "partition": "partition",
    "offset": "offset",
    "timestamp": "timestamp",
    **{f"event.{name}": name for name in EVENT_FIELDS},
}
"""The names of rules, and the attribute of the scope (an Event) that each one is."""

ENVELOPE_NAMES: dict[str, str] = {
    name: name for name in ("value", "key", "headers", "topic", "partition", "offset", "timestamp")
}
"""The names of an envelope. The scope is any object with these attributes; an Event made for it will do."""


class Expression:
    """A compiled expression. `references` are the fields that it names."""

    __slots__ = ("_run", "_unit", "place", "references", "text")

    def __init__(self, text: str, unit: Unit, run: Callable[[Any], Any]) -> None:
        self.text = text
        self._unit = unit
        self._run = run
        self.references = tuple(unit.references)
        self.place: Place | None = None
        """Where it is written, if that is a rules file."""

    @property
    def conditionals(self) -> list[Conditional]:
        return self._unit.conditionals

    @property
    def run(self) -> Callable[[Any], Any]:
        """The bare compiled function, for loops that call it often; hand what it raises to `error`."""
        return self._run

    def error(self, raised: Exception) -> RuleError:
        """What `run` raised, as MissingField or RuleError."""
        return self._unit.error(raised)

    def evaluate(self, scope: Any) -> Any:
        """The value. Raises MissingField where a named field is missing, RuleError for any other fault."""
        try:
            return self._run(scope)
        except Exception as raised:
            raise self._unit.error(raised) from None

    def watched(self, told: Callable[[bool], None]) -> Expression:
        """The same condition, which tells after each run whether it was true (with a missing field it is false)."""

        def run(scope: Any) -> Any:
            try:
                value = self._run(scope)
            except Exception as raised:
                if isinstance(self._unit.error(raised), MissingField):
                    told(False)
                raise
            told(bool(value))
            return value

        made = Expression(self.text, self._unit, run)
        made.place = self.place
        return made


def compile_expression(text: str, names: Mapping[str, str] = RULE_NAMES, *, watched: bool = False) -> Expression:
    """Compiles one expression; `names` says what it can name. Raises ExpressionError."""
    unit = Unit(watched=watched)
    body = Translator(unit, names).translate(text)
    return Expression(text, unit, unit.compile(body, dict(names)))
