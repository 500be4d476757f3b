"""Templates: text with `${…}` in it, and whole structures of them.

A structure (an action's fields) becomes one function that builds it, so an event pays for one call and one dict per
mapping. A text that is one `${…}` keeps the value's type; otherwise values are put into the text.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from typing import Any

from bridge.model import FromRecord, Record
from bridge.rules import scan
from bridge.rules.faults import ABSENT
from bridge.rules.language import ENVELOPE_NAMES, RULE_NAMES
from bridge.rules.scan import ExpressionError
from bridge.rules.translator import Translator
from bridge.rules.unit import Reference, Site, Unit


def translate_text(translator: Translator, unit: Unit, text: str, *, omit: bool = False) -> tuple[ast.expr, bool]:
    """The compiled form of a template, and whether it can leave its field out. Raises ExpressionError."""
    parts = scan.parts(text)
    if len(parts) == 1 and parts[0].is_expression:
        part = parts[0]
        try:
            return translator.translate_field(part.text, part.start, omit=omit)
        except ExpressionError as error:
            raise error.moved(part.start) from None
    pieces: list[ast.expr] = []
    for part in parts:
        if not part.is_expression:
            pieces.append(ast.Constant(part.text))
            continue
        try:
            value = translator.translate(part.text, part.start)
        except ExpressionError as error:
            raise error.moved(part.start) from None
        made = ast.Call(ast.Name("text_of", ast.Load()), [value], [])
        made.lineno = unit.site(Site(f"${{{' '.join(part.text.split())}}}", where=unit.where))
        pieces.append(ast.FormattedValue(made, -1, None))
    if all(isinstance(piece, ast.Constant) for piece in pieces):
        return pieces[0], False
    joined = ast.JoinedStr(pieces)
    if not omit:
        return joined, False
    thunk = ast.Lambda(ast.arguments([], [], None, [], [], None, []), joined)
    return ast.Call(ast.Name("guard_missing", ast.Load()), [thunk], []), True


class Template:
    """A compiled text with `${…}`. `references` are the fields that it names; `is_literal` where there are none."""

    __slots__ = ("_run", "_unit", "is_literal", "references", "text")

    def __init__(self, text: str, unit: Unit, run: Callable[[Any], Any], is_literal: bool) -> None:
        self.text = text
        self.is_literal = is_literal
        self.references: tuple[Reference, ...] = tuple(unit.references)
        self._unit = unit
        self._run = run

    def render(self, scope: Any) -> Any:
        """The value; None where `optional(…)` leaves it out.

        `scope` has the names as attributes: an Event, or an EnvelopeScope for a template of an envelope. Raises
        MissingField (with `path`) where a field is missing, RuleError for any other fault.
        """
        try:
            value = self._run(scope)
        except Exception as raised:
            raise self._unit.error(raised) from None
        return None if value is ABSENT else value


def compile_template(text: str, names: Mapping[str, str] = RULE_NAMES) -> Template:
    """Compiles a text with `${…}`; `names` is RULE_NAMES or ENVELOPE_NAMES. Raises ExpressionError."""
    unit = Unit()
    made, _ = translate_text(Translator(unit, names), unit, text)
    return Template(text, unit, unit.compile(made, dict(names)), isinstance(made, ast.Constant))


class EnvelopeScope(FromRecord):
    """What an envelope's templates see of a record: its decoded value and the record's own parts."""

    __slots__ = ("record", "value")

    def __init__(self, value: Any, record: Record) -> None:
        self.value = value
        self.record = record


def compile_envelope_field(text: str) -> Callable[[Any, Record], Any]:
    """A function of a decoded value and its record, for the decoders' envelopes.

    It gives None where `optional(…)` leaves the field out, and raises MissingField or RuleError as `Template.render`
    does. Raises ExpressionError.
    """
    template = compile_template(text, ENVELOPE_NAMES)

    def field(value: Any, record: Record) -> Any:
        return template.render(EnvelopeScope(value, record))

    return field
