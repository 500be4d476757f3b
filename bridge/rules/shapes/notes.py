"""What the walk over an expression has to say: notes, what guards forgive, and operands that do not do."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from bridge.rules.shapes.equality import Side
from bridge.rules.shapes.shape import NULL, Shape, words
from bridge.rules.source import Source

MISSING = "MB161"
MAYBE = "MB162"
WRONG = "MB163"
NEVER_EQUAL = "MB164"

T = TypeVar("T")


class Note(NamedTuple):
    """What the walk has to say about a part of an expression."""

    code: str
    severity: str
    start: int
    """Where the part begins and ends in the expression's text."""
    end: int
    message: str
    hint: str = ""
    everywhere: bool = False
    """Worth telling only if it holds for every kind of event that the rule applies to."""


@dataclass(slots=True)
class Forgiven:
    """What a guard around an expression forgives, and whether there was anything to forgive."""

    missing: bool = False
    null: bool = False
    count: int = 0


@dataclass(slots=True)
class Telling:
    """Collects the notes of one expression."""

    source: Source
    condition: bool = False
    """It is a `when`, in which a missing field is just false."""
    in_text: bool = False
    """The value is put into a text."""
    notes: list[Note] = field(default_factory=list)
    guards: list[Forgiven] = field(default_factory=list)
    """Around what is being looked at, the innermost last."""
    traps: int = 0
    """How many operations around make a missing field surprising, in a condition."""
    _told: set[tuple[str, str]] = field(default_factory=set)

    def note(
        self, code: str, node: ast.expr, message: str, hint: str = "", severity: str = "error", *, all_: bool = False
    ) -> None:
        """One note for each part of the expression and code. `all_`: see Note.everywhere."""
        what = (code, self.source.of(node))
        if what not in self._told:
            self._told.add(what)
            start, end = self.source.start(node), self.source.end(node)
            self.notes.append(Note(code, severity, start, end, message, hint, all_))

    def within(self, guard: Forgiven, walk: Callable[[], T]) -> T:
        self.guards.append(guard)
        try:
            return walk()
        finally:
            self.guards.pop()

    def forgive(self, *, null: bool) -> bool:
        """Whether a guard forgives what is missing or null; it then knows that there was something."""
        for guard in reversed(self.guards):
            if guard.null if null else guard.missing:
                guard.count += 1
                return True
        return False

    @property
    def forgiving(self) -> bool:
        return any(guard.missing for guard in self.guards)

    def fits(self, node: ast.expr, shape: Shape, kinds: Iterable[str], doing: str) -> Shape:
        """Of the shape what an operation takes; notes the rest."""
        if shape.unknown or shape.never:
            return shape
        good = shape.only(kinds)
        bad = shape.without(*kinds)
        if not bad.never:
            self.misfit(node, bad, certain=good.never, doing=doing)
        return good

    def misfit(self, node: ast.expr, bad: Shape, *, certain: bool, doing: str) -> None:
        """An operand that does not do, for certain or perhaps."""
        text = self.source.of(node)
        others = bad.without(NULL)
        if NULL in bad.kinds and self.forgive(null=True):
            certain = False
        elif NULL in bad.kinds and others.never and certain:
            self.note(WRONG, node, f"{text} is null: cannot {_done(doing, 'null')}")
        elif NULL in bad.kinds and not certain:
            hint = f"write default({text}, …), or ask has({text}) first"
            self.note(MAYBE, node, f"{text} may be null: cannot {_done(doing, 'null')}", hint, "warning")
        if not others.never:
            what = words(bad if certain else others)
            message = f"{text} {'is' if certain else 'may be'} {what}: cannot {_done(doing, what)}"
            self.note(WRONG, node, message, severity="error" if certain else "warning")

    def together(
        self,
        node: ast.expr,
        one: Side,
        other: Side,
        groups: tuple[frozenset[str], ...],
        doing: str,
    ) -> frozenset[str] | None:
        """The kinds for which two operands go together, of which each group is one sort; None where they never do."""
        left, right = one.shape, other.shape
        if left.never or right.never:
            return None
        shared = [group for group in groups if group & left.kinds and group & right.kinds]
        if not shared:
            self._never_together(node, left, right, doing)
            return None
        kinds = frozenset().union(*shared)
        for at, shape in (one, other):
            if not shape.unknown and (bad := shape.without(*kinds)) and not bad.never:
                self.misfit(at, bad, certain=False, doing=doing)
        return kinds

    def _never_together(self, node: ast.expr, left: Shape, right: Shape, doing: str) -> None:
        if NULL in left.kinds | right.kinds and self.forgive(null=True):
            return  # whether it is because of null only the event tells
        with_ = " with " if doing == "compare" else " and "
        told = with_.join(words(each) for each in (left, right) if not each.unknown)
        self.note(WRONG, node, f"cannot {doing} {told}: {self.source.of(node)}")


def _done(doing: str, what: str) -> str:
    """`add`, and what it is done with; `put {} into a text` says itself where that stands."""
    return doing.format(what) if "{}" in doing else f"{doing} {what}"
