"""One expression's source: parsed by Python's own parser, measured, and every node's place in the text."""

from __future__ import annotations

import ast
import warnings

from bridge.rules import scan
from bridge.rules.scan import ExpressionError

DEPTH_MAX = 60
"""Nodes inside one another; `a + b + …` nests once per operator. What is generated nests up to four times as deeply,
and Python's own limit is 1,000."""

NODES_MAX = 1_000
"""Nodes of one expression; a mapping of ten fields has about 60."""


class Source:
    """The text of an expression and its syntax tree. Raises ExpressionError where it cannot be read."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._prepared, self._fields = scan.parseable(text)
        self._lead = len(self._prepared) - len(self._prepared.lstrip())
        self._ascii = self._prepared.isascii()
        self.root = self._parse(self._prepared.strip())
        self._measure()

    def _parse(self, source: str) -> ast.expr:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return ast.parse(source, mode="eval").body
        except SyntaxError as error:
            column = error.offset or 0  # 0: at the end
            offset = column - 1 if column > 0 else len(source)
            hint = "write == to compare" if source[offset : offset + 1] == "=" else ""
            what = error.msg
            if what == "invalid syntax":
                what = f"unexpected {source[offset]}" if offset < len(source) else "the expression ends too early"
            raise ExpressionError("MB130", what, min(self._lead + offset, len(self.text)), hint) from None
        except (MemoryError, RecursionError, ValueError):
            raise ExpressionError("MB134", "the expression is nested too deeply", self._lead) from None

    def _measure(self) -> None:
        """Refuses what is too large before anything recursive looks at it, and texts that JSON cannot carry."""
        level: list[ast.AST] = [self.root]
        depth = count = 0
        while level:
            depth, count = depth + 1, count + len(level)
            if depth > DEPTH_MAX or count > NODES_MAX:
                what = "nested too deeply" if depth > DEPTH_MAX else "too long"
                raise ExpressionError("MB134", f"the expression is {what}", self._lead, "split it over several rules")
            for node in level:
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and not _sendable(node.value):
                    raise self.fail("MB133", node, "half a surrogate pair cannot be sent as JSON")
            level = [child for parent in level for child in ast.iter_child_nodes(parent)]

    def _offset(self, byte_column: int) -> int:
        """Python counts the bytes of what it parsed; people count characters."""
        if self._ascii:
            return self._lead + byte_column
        return self._lead + len(self._prepared[self._lead :].encode()[:byte_column].decode("utf-8", "replace"))

    def start(self, node: ast.expr) -> int:
        return self._offset(node.col_offset)

    def end(self, node: ast.expr) -> int:
        return self._offset(node.end_col_offset or 0)

    def of(self, node: ast.expr) -> str:
        """The source of a node in one line, shortened where it is long."""
        text = " ".join(self.text[self.start(node) : self.end(node)].split())
        return text if len(text) <= 80 else text[:77] + "…"

    def field(self, node: ast.Attribute) -> str:
        """The field's name as written: Python's parser would normalise it, and keywords were masked."""
        return self._fields.get(self.end(node), node.attr)

    def fail(self, code: str, node: ast.expr, message: str, hint: str = "") -> ExpressionError:
        return ExpressionError(code, message, self.start(node), hint)


def _sendable(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)
