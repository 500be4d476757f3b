"""Reading values of a rules file, with every mistake collected at its place."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bridge.actions import duration_seconds
from bridge.errors import Problem
from bridge.places import Place, did_you_mean
from bridge.rules import scan, yaml_traps
from bridge.rules.scan import ExpressionError
from bridge.yamldoc import Node


def _reads_without_cut(node: Node, where: str) -> bool:
    """Whether the expression is right with what the comment took from it."""
    whole = yaml_traps.whole_line(node)
    try:
        if where.endswith("when"):
            scan.tokens(whole)
        else:
            scan.parts(whole)
    except ExpressionError:
        return False
    return True


def _corrected(node: Node, where: str) -> str:
    key = where.rpartition(".")[2].partition("[")[0]
    return f"{key}: {yaml_traps.in_quotes(yaml_traps.whole_line(node))}"


_SHAPES = {dict: "a mapping", list: "a list", str: "a text", bool: "true or false", type(None): "nothing"}


def shape(value: Any) -> str:
    return _SHAPES.get(type(value), "a number")


class Reader:
    """Collects the problems of one file; what cannot be read comes back as None."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def problem(self, code: str, place: Place, message: str, hint: str = "") -> None:
        self.problems.append(place.problem(code, message, hint))

    def expression_problem(self, node: Node, error: ExpressionError, where: str) -> None:
        """The mistake at its own column."""
        code, hint = error.code, error.hint
        if yaml_traps.comment_in(node):
            hint = "a # after a space begins a comment in YAML: put the whole in quotes"
            if _reads_without_cut(node, where):
                code, hint = "MB181", f"a # after a space begins a comment in YAML: write {_corrected(node, where)}"
        self.problem(code, node.at(error.offset), f"{where}: {error.message}", hint)

    def known_keys(self, entries: dict[str, Node], known: Iterable[str], what: str, code: str = "MB103") -> None:
        known = list(known)
        for name, below in entries.items():
            if name not in known:
                hint = did_you_mean(name, known, f"known are {', '.join(known)}")
                self.problem(code, below.key_place, f"{what} has no key {name}", hint)

    def mapping(self, node: Node, what: str) -> dict[str, Node] | None:
        if isinstance(node.value, dict):
            return node.value
        self.problem("MB104", node.place, f"{what} must be a mapping, not {shape(node.value)}")
        return None

    def items(self, node: Node, what: str) -> list[Node] | None:
        if isinstance(node.value, list):
            return node.value
        self.problem(
            "MB104", node.place, f"{what} must be a list, not {shape(node.value)}", "begin each item with a dash"
        )
        return None

    def text(self, node: Node | None, what: str) -> str | None:
        """A text that is not empty; a number is taken as its text, as YAML makes numbers of ids."""
        if node is None:
            return None
        if type(node.value) in (int, float):
            return str(node.value)
        if isinstance(node.value, str) and node.value.strip():
            return node.value
        found = "empty" if node.value == "" else shape(node.value)
        self.problem("MB104", node.place, f"{what} must be a text, not {found}")
        return None

    def texts(self, node: Node | None, what: str) -> tuple[str, ...]:
        """One text or a list of them."""
        if node is None:
            return ()
        if isinstance(node.value, list):
            if not node.value:
                self.problem("MB104", node.place, f"{what} is an empty list")
            found = [self.text(item, f"an item of {what}") for item in node.value]
            return tuple(text for text in found if text is not None)
        text = self.text(node, what)
        return () if text is None else (text,)

    def flag(self, node: Node | None, what: str, default: bool) -> bool:
        if node is None:
            return default
        if isinstance(node.value, bool):
            return node.value
        self.problem("MB107", node.place, f"{what} must be true or false", "YAML 1.2 knows no yes, no, on and off")
        return default

    def choice(self, node: Node | None, what: str, allowed: Iterable[str]) -> str | None:
        if node is None:
            return None
        allowed = list(allowed)
        if isinstance(node.value, str) and node.value in allowed:
            return node.value
        hint = did_you_mean(str(node.value), allowed)
        self.problem("MB107", node.place, f"{what} must be {' or '.join(allowed)}", hint)
        return None

    def duration(self, node: Node | None, what: str, *, none: bool = False) -> str | None:
        """The text of a duration; with `none` that word is allowed as well."""
        if node is None:
            return None
        if none and node.value == "none":
            return "none"
        if isinstance(node.value, str):
            try:
                duration_seconds(node.value)
                return node.value
            except ValueError:
                pass
        also = ", or none" if none else ""
        self.problem("MB107", node.place, f"{what} must be a time such as 30s, 10m, 2h or 1d{also}")
        return None
