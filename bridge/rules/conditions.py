"""What a condition says by its form alone, whatever the event: never true, always true, or not what it looks like.

Only what is certain is told. `data.plan == "pro" or "team"` is Python, and always true; `data.plan in "pro"` looks for
a part of a text. Where the value of `or` is wanted and not its truth (`data.a or "none"`), a literal is in order.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from bridge.rules import scan
from bridge.rules.scan import ExpressionError
from bridge.rules.source import Source

NEVER = "MB171"
ALWAYS = "MB172"
PART_OF_TEXT = "MB173"

_WORDS = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}
_UNKNOWN = object()
_MAY_DECIDE = re.compile(r"\b(if|in|not)\b")
"""Without one of these a value holds no condition."""


class Finding(NamedTuple):
    """Something about an expression; `offset` counts the characters of its text from 0."""

    code: str
    offset: int
    message: str
    hint: str


def of_condition(text: str) -> list[Finding]:
    """Of a `when`, which can be compiled."""
    source = Source(text)
    looking = _Looking(source)
    looking.condition(source.root)
    return looking.found


def of_template(text: str) -> list[Finding]:
    """Of a text with `${…}`, which can be compiled."""
    found = []
    for part in scan.parts(text):
        if part.is_expression and _MAY_DECIDE.search(part.text):
            source = Source(part.text)
            looking = _Looking(source)
            looking.value(source.root)
            found += [each._replace(offset=each.offset + part.start) for each in looking.found]
    return found


def required(text: str) -> dict[str, Any]:
    """What a condition compares with a literal by `==` and cannot be true without, by the source of the other side."""
    try:
        source = Source(text)
    except ExpressionError:
        return {}
    root = source.root
    parts = root.values if isinstance(root, ast.BoolOp) and isinstance(root.op, ast.And) else [root]
    return {side: value for _, side, value in _compared(source, parts, ast.Eq)}


class _Looking:
    """Goes through an expression; knows where only the truth of a value matters."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.found: list[Finding] = []

    def condition(self, node: ast.expr) -> None:
        """A part whose truth is asked for."""
        if isinstance(node, ast.BoolOp):
            self._joined(node)
            for value in node.values:
                if _literal(value) is _UNKNOWN:
                    self.condition(value)
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            self.condition(node.operand)
        elif isinstance(node, ast.IfExp):
            for part in (node.test, node.body, node.orelse):
                self.condition(part)
        else:
            literal = _literal(node)
            if literal is not _UNKNOWN and not isinstance(literal, bool) and literal:
                self._tell(ALWAYS, node, f"{self._source.of(node)} is always true", "compare it with a field")
            self.value(node)

    def value(self, node: ast.expr) -> None:
        """A part whose value is wanted."""
        if isinstance(node, ast.IfExp):
            self.condition(node.test)
            self.value(node.body)
            self.value(node.orelse)
            return
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            self.condition(node.operand)
            return
        if isinstance(node, ast.Compare):
            self._contained(node)
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.comprehension):
                self.value(child.iter)
                for test in child.ifs:
                    self.condition(test)
            elif isinstance(child, ast.expr):
                self.value(child)

    def _tell(self, code: str, node: ast.expr, message: str, hint: str) -> None:
        self.found.append(Finding(code, self._source.start(node), message, hint))

    def _joined(self, node: ast.BoolOp) -> None:
        """`and`, `or` of several conditions."""
        is_and = isinstance(node.op, ast.And)
        before = len(self.found)
        for value in node.values:
            literal = _literal(value)
            if literal is _UNKNOWN:
                continue
            shown = self._source.of(value)
            if not literal and is_and:
                self._tell(NEVER, value, f"with {shown} this `and` is never true", "remove it, or the rule")
            elif literal and not is_and:
                hint = self._listed(node.values) or f"compare it with a field, or remove or {shown}"
                self._tell(ALWAYS, value, f"{shown} is true by itself, so this `or` always is true", hint)
            elif literal and not isinstance(literal, bool):
                hint = "write the comparison for each: " + (self._each(node.values, value) or "a == x and b == x")
                self._tell(ALWAYS, value, f"{shown} is true by itself, so it adds nothing to this `and`", hint)
        if len(self.found) > before:
            return
        first: dict[str, Any] = {}
        for at, side, value in _compared(self._source, node.values, ast.Eq if is_and else ast.NotEq):
            if side not in first:
                first[side] = value
            elif not _same(first[side], value):
                both = f"[{_shown(first[side])}, {_shown(value)}]"
                if is_and:
                    message = f"{side} cannot be {_shown(first[side])} and {_shown(value)}: no event meets this"
                    self._tell(NEVER, at, message, f"write {side} in {both}")
                else:
                    message = f"{side} always differs from one of {both}, so this `or` always is true"
                    self._tell(ALWAYS, at, message, f"write {side} not in {both}")
                return

    def _listed(self, values: Iterable[ast.expr]) -> str:
        """For `x == "a" or "b"`: what was meant."""
        for _, side, value in _compared(self._source, values, ast.Eq):
            others = [_literal(each) for each in values if _literal(each) is not _UNKNOWN]
            return f"write {side} in [{', '.join(_shown(each) for each in (value, *others))}]"
        return ""

    def _each(self, values: list[ast.expr], literal: ast.expr) -> str:
        """For `"a" and "b" in x`: what was meant."""
        for value in values[values.index(literal) + 1 :]:
            if isinstance(value, ast.Compare) and len(value.ops) == 1 and isinstance(value.ops[0], ast.In):
                inside = self._source.of(value.comparators[0])
                return f"{self._source.of(literal)} in {inside} and {self._source.of(value)}"
        return ""

    def _contained(self, node: ast.Compare) -> None:
        """`data.plan in "pro"`: a letter of a text (`data.code[0] in "abc"`) is another matter."""
        left = node.left
        for operator, right in zip(node.ops, node.comparators, strict=True):
            text = _literal(right)
            looks = isinstance(operator, ast.In | ast.NotIn) and isinstance(text, str) and len(text) > 1
            if looks and _literal(left) is _UNKNOWN and not isinstance(left, ast.Subscript):
                word = "in" if isinstance(operator, ast.In) else "not in"
                side = self._source.of(left)
                message = (
                    f'{side} {word} {self._source.of(right)} looks for a part of a text: "" and "{text[:1]}" are in it'
                )
                self._tell(PART_OF_TEXT, node, message, f"write {side} {word} [{_shown(text)}]")
            left = right


def _compared(source: Source, parts: Iterable[ast.expr], operator: type[ast.cmpop]) -> list[tuple[ast.expr, str, Any]]:
    """Comparisons of something with a literal: the comparison, the other side as it is written, and the literal."""
    found: list[tuple[ast.expr, str, Any]] = []
    for part in parts:
        if isinstance(part, ast.Compare) and len(part.ops) == 1 and isinstance(part.ops[0], operator):
            left, right = part.left, part.comparators[0]
            for side, other in ((left, right), (right, left)):
                value = _literal(other)
                if value is not _UNKNOWN and _literal(side) is _UNKNOWN:
                    found.append((part, source.text[source.start(side) : source.end(side)], value))
    return found


def _literal(node: ast.expr) -> Any:
    """The value of a literal; _UNKNOWN where the event decides."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return _WORDS.get(node.id, _UNKNOWN)
    if isinstance(node, ast.List | ast.Tuple):
        items = [_literal(item) for item in node.elts]
        return _UNKNOWN if any(item is _UNKNOWN for item in items) else items
    return _UNKNOWN


def _same(one: Any, other: Any) -> bool:
    return bool(one == other)


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
