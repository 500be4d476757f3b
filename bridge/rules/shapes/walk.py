"""What an expression makes of shapes: every operation is looked at with all that its operands may be.

The walk follows the meaning of the language (translator.py, operations.py, functions.py) node by node, and notes what
must fail (an error), what may (a warning), and what can never be true. Conditions narrow: after `has(data.plan) and`,
in `a if data.plan == "pro" else b`, and in the actions below a `when`, a field is what the condition leaves of it.

An error is certain: for no value of the shape the operation succeeds. So a shape that holds more than the schema allows
loses errors and never makes them up.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from bridge.places import did_you_mean, nearest
from bridge.rules.shapes import shape as shapes
from bridge.rules.shapes.calls import FUNCTIONS, METHODS, Signature, one_or_more
from bridge.rules.shapes.narrow import Env, dead, fixed, narrowed, path_of
from bridge.rules.shapes.shape import (
    ANY,
    BOOL,
    BOOL_SHAPE,
    LIST,
    NEVER,
    NULL,
    NULL_SHAPE,
    NUMBER,
    NUMBER_SHAPE,
    OBJECT,
    TEXT,
    TEXT_SHAPE,
    Field,
    Object,
    Openness,
    Reading,
    Shape,
    list_of,
    literal,
    union,
    words,
)
from bridge.rules.source import Source
from bridge.rules.translator import joined

MISSING = "MB161"
MAYBE = "MB162"
WRONG = "MB163"
NEVER_EQUAL = "MB164"

T = TypeVar("T")

KNOWN_MAX = 8
"""Fields or values that a hint lists."""

_CONSTANTS = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}
_COMPARABLE = (frozenset({NUMBER, BOOL}), frozenset({TEXT}), frozenset({LIST}))
_ADDABLE = (frozenset({NUMBER}), frozenset({TEXT}), frozenset({LIST}))
_NUMBERS = (frozenset({NUMBER}),)
_WORDS: dict[type[ast.AST], str] = {
    ast.Add: "add",
    ast.Sub: "subtract",
    ast.Mult: "multiply",
    ast.Div: "divide",
    ast.FloorDiv: "divide",
    ast.Mod: "divide",
}


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
class Walker:
    """Walks one expression. `condition`: it is a `when`, in which a missing field is just false."""

    source: Source
    condition: bool = False
    in_text: bool = False
    """The value is put into a text."""
    notes: list[Note] = field(default_factory=list)
    _guards: list[Forgiven] = field(default_factory=list)
    _traps: int = 0
    _told: set[tuple[str, str]] = field(default_factory=set)

    def leaf(self, node: ast.expr, env: Env, *, omit: bool = False) -> tuple[Shape, bool]:
        """The shape of a field's whole value, and whether the field may be left out."""
        if omit:
            guard = Forgiven(missing=True)
            shape, absent = self._within(guard, lambda: self.leaf(node, env))
            return shape, absent or guard.count > 0
        if isinstance(node, ast.IfExp):
            self.value(node.test, env)
            parts = [
                (node.body, narrowed(self.source, node.test, env, True)),
                (node.orelse, narrowed(self.source, node.test, env, False)),
            ]
            found = [self.leaf(part, inner) for part, inner in parts if not dead(inner)]
            return union(shape for shape, _ in found), any(absent for _, absent in found)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "optional":
            return self._guarded(node.args[0], env)[0].without(NULL), True
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "default":
            shape, absent = self._guarded(node.args[0], env)
            if not absent:
                return shape, False
            other, left_out = self.leaf(node.args[1], env)
            return union([shape.without(NULL), other]), left_out
        return self.value(node, env), False

    def value(self, node: ast.expr, env: Env) -> Shape:
        """What the expression may give where it gives anything."""
        if dead(env):
            return NEVER
        walk = _WALKS.get(type(node))
        return walk(self, node, env) if walk else ANY

    def put_into_text(self, node: ast.expr, env: Env, *, omit: bool) -> Shape:
        """The value of a `${…}` with text around it."""
        self.in_text = True
        guards = [Forgiven(missing=True)] if omit else []
        self._guards += guards
        shape = self._fits(node, self.value(node, env), shapes.ALL_KINDS - {NULL}, "put {} into a text")
        del self._guards[len(self._guards) - len(guards) :]
        return shape

    # Telling ---------------------------------------------------------------------------------------------------------

    def _note(
        self, code: str, node: ast.expr, message: str, hint: str = "", severity: str = "error", *, all_: bool = False
    ) -> None:
        what = (code, self.source.of(node))
        if what not in self._told:
            self._told.add(what)
            start, end = self.source.start(node), self.source.end(node)
            self.notes.append(Note(code, severity, start, end, message, hint, all_))

    def _within(self, guard: Forgiven, walk: Callable[[], T]) -> T:
        self._guards.append(guard)
        try:
            return walk()
        finally:
            self._guards.pop()

    def _forgive(self, *, null: bool) -> bool:
        """Whether a guard forgives what is missing or null; it then knows that there was something."""
        for guard in reversed(self._guards):
            if guard.null if null else guard.missing:
                guard.count += 1
                return True
        return False

    @property
    def _forgiving(self) -> bool:
        return any(guard.missing for guard in self._guards)

    def _fits(self, node: ast.expr, shape: Shape, kinds: Iterable[str], doing: str) -> Shape:
        """Of the shape what an operation takes; notes the rest."""
        if shape.unknown or shape.never:
            return shape
        good = shape.only(kinds)
        bad = shape.without(*kinds)
        if not bad.never:
            self._misfit(node, bad, certain=good.never, doing=doing)
        return good

    def _misfit(self, node: ast.expr, bad: Shape, *, certain: bool, doing: str) -> None:
        """An operand that does not do, for certain or perhaps."""
        text = self.source.of(node)
        others = bad.without(NULL)
        if NULL in bad.kinds and self._forgive(null=True):
            certain = False
        elif NULL in bad.kinds and others.never and certain:
            self._note(WRONG, node, f"{text} is null: cannot {_done(doing, 'null')}")
        elif NULL in bad.kinds and not certain:
            hint = f"write default({text}, …), or ask has({text}) first"
            self._note(MAYBE, node, f"{text} may be null: cannot {_done(doing, 'null')}", hint, "warning")
        if not others.never:
            what = words(bad if certain else others)
            message = f"{text} {'is' if certain else 'may be'} {what}: cannot {_done(doing, what)}"
            self._note(WRONG, node, message, severity="error" if certain else "warning")

    # Fields ----------------------------------------------------------------------------------------------------------

    def _constant(self, node: ast.Constant, env: Env) -> Shape:
        return literal(node.value)

    def _name(self, node: ast.Name, env: Env) -> Shape:
        return literal(_CONSTANTS[node.id]) if node.id in _CONSTANTS else env.get(node.id, ANY)

    def _access(self, node: ast.expr, env: Env) -> Shape:
        assert isinstance(node, (ast.Attribute, ast.Subscript))
        path = path_of(node, self.source, env)
        if path is not None:
            shape, told = env[path.root], path.root
            for step, at in zip(path.steps, path.nodes, strict=True):
                shape, told = self._step(at, shape, step, told), joined(told, step)
            return shape
        if isinstance(node, ast.Subscript) and fixed(node.slice) is None:
            return self._index(node, env)
        last = self.source.field(node) if isinstance(node, ast.Attribute) else fixed(node.slice)
        assert last is not None
        return self._step(node, self.value(node.value, env), last, self.source.of(node.value))

    def _step(self, node: ast.expr, shape: Shape, step: str | int, before: str) -> Shape:
        """One step of a chain; `before` is the path up to it."""
        if shape.never:
            return NEVER
        found = shapes.read(shape, step)
        path = joined(before, step)
        if found.shape.never or found.undeclared:
            self._never_there(node, shape, step, before, found)
        elif found.maybe or not found.missing.never:
            self._perhaps_there(node, path, before, found)
        return found.shape

    def _never_there(self, node: ast.expr, shape: Shape, step: str | int, before: str, found: Reading) -> None:
        path = joined(before, step)
        guarded = self._forgiving
        self._forgive(null=False)
        holders = found.missing.without(NULL) if found.shape.never else shape.only([OBJECT])
        if OBJECT in holders.kinds and isinstance(step, str):
            known = shapes.names(shape)
            listed = ", ".join(known[:KNOWN_MAX]) + (" …" if len(known) > KNOWN_MAX else "")
            if near := nearest(step, known):
                hint = f"did you mean {joined(before, near)}?"
            else:
                hint = f"known there are {listed}" if known else "it has no fields"
                hint += "; a schema that lets more through says additionalProperties: true" * found.undeclared
            message = f"there is no field {path}"
        else:
            what = words(holders if not holders.never else shape)
            message, hint = f"{path} is never there: {before} is {what}", ""
        severity = "warning" if guarded and found.undeclared else "error"
        self._note(MISSING, node, message, hint, severity, all_=guarded or self.condition)

    def _perhaps_there(self, node: ast.expr, path: str, before: str, found: Reading) -> None:
        if self._forgive(null=False):
            return
        others = found.missing.without(NULL, OBJECT)
        if found.maybe or OBJECT in found.missing.kinds or others.never:
            cause = f"{before} may be null" if set(found.missing.kinds) == {NULL} and not found.maybe else ""
        else:
            cause = f"{before} may be {words(others)}"
        because = f", because {cause}" if cause else ""
        if not self.condition:
            hint = f"write default({path}, …)"
            if node is self.source.root and not self.in_text:
                hint = f"write optional({path}) to leave the field out, or default({path}, …)"
            self._note(MAYBE, node, f"{path} may be missing{because}: the rule then fails", hint, "warning")
        elif self._traps:
            message = f"{path} may be missing{because}: the whole condition is then false"
            self._note(MAYBE, node, message, f"write default({path}, …)", "warning")

    def _index(self, node: ast.Subscript, env: Env) -> Shape:
        shape = self.value(node.value, env)
        if isinstance(node.slice, ast.Slice):
            for bound in (node.slice.lower, node.slice.upper):
                if bound is not None:
                    self._fits(bound, self.value(bound, env), (NUMBER, BOOL, NULL), "count by")
            part = self._fits(node.value, shape, (LIST, TEXT), "take a part of")
            return ANY if part.unknown else union([*_if(TEXT, part, TEXT_SHAPE), part.only([LIST])])
        index = self.value(node.slice, env)
        part = self._fits(node.value, shape, (LIST, TEXT, OBJECT), "take a part of")
        if part.unknown or part.never:
            return part
        wanted = {TEXT} if part.kinds == {OBJECT} else {NUMBER, BOOL} if OBJECT not in part.kinds else ()
        if wanted:
            self._fits(node.slice, index, wanted, f"look in {words(part)} at")
        return union([shapes.items(part), shapes.members(part), *_if(TEXT, part, TEXT_SHAPE)])

    # Operators -------------------------------------------------------------------------------------------------------

    def _boolop(self, node: ast.BoolOp, env: Env) -> Shape:
        is_and = isinstance(node.op, ast.And)
        found = []
        for number, part in enumerate(node.values):
            last = number == len(node.values) - 1
            trap = not is_and and not last
            self._traps += trap
            shape = self.value(part, env)
            self._traps -= trap
            found.append(shape if last else shapes.falsy(shape) if is_and else shapes.truthy(shape))
            env = narrowed(self.source, part, env, is_and)
        return union(found)

    def _unaryop(self, node: ast.UnaryOp, env: Env) -> Shape:
        trap = isinstance(node.op, ast.Not)
        self._traps += trap
        shape = self.value(node.operand, env)
        self._traps -= trap
        if trap:
            return BOOL_SHAPE
        if isinstance(node.operand, ast.Constant) and type(node.operand.value) in (int, float):
            value = node.operand.value
            return literal(-value if isinstance(node.op, ast.USub) else value)  # type: ignore[operator]  # a number
        return _if_any(self._fits(node.operand, shape, (NUMBER,), "take {} as a number"), NUMBER_SHAPE)

    def _binop(self, node: ast.BinOp, env: Env) -> Shape:
        left, right = self.value(node.left, env), self.value(node.right, env)
        groups = _ADDABLE if isinstance(node.op, ast.Add) else _NUMBERS
        kinds = self._together(node, (node.left, left), (node.right, right), groups, _WORDS.get(type(node.op), "join"))
        if kinds is None:
            return NEVER
        return union(
            [
                *([NUMBER_SHAPE] if NUMBER in kinds else []),
                *([TEXT_SHAPE] if TEXT in kinds else []),
                *([list_of(lambda: union(map(shapes.items, (left, right))))] if LIST in kinds else []),
            ]
        )

    def _together(
        self,
        node: ast.expr,
        one: tuple[ast.expr, Shape],
        other: tuple[ast.expr, Shape],
        groups: tuple[frozenset[str], ...],
        doing: str,
    ) -> frozenset[str] | None:
        """The kinds for which two operands go together, of which each group is one sort; None where they never do."""
        left, right = one[1], other[1]
        if left.never or right.never:
            return None
        shared = [group for group in groups if group & left.kinds and group & right.kinds]
        if not shared:
            self._never_together(node, left, right, doing)
            return None
        kinds = frozenset().union(*shared)
        for at, shape in (one, other):
            if not shape.unknown and (bad := shape.without(*kinds)) and not bad.never:
                self._misfit(at, bad, certain=False, doing=doing)
        return kinds

    def _never_together(self, node: ast.expr, left: Shape, right: Shape, doing: str) -> None:
        if NULL in left.kinds | right.kinds and self._forgive(null=True):
            return  # whether it is because of null only the event tells
        with_ = " with " if doing == "compare" else " and "
        told = with_.join(words(each) for each in (left, right) if not each.unknown)
        self._note(WRONG, node, f"cannot {doing} {told}: {self.source.of(node)}")

    def _compare(self, node: ast.Compare, env: Env) -> Shape:
        trap = len(node.ops) == 1 and isinstance(node.ops[0], (ast.NotEq, ast.NotIn))
        self._traps += trap
        sides = [(side, self.value(side, env)) for side in (node.left, *node.comparators)]
        self._traps -= trap
        for number, operator in enumerate(node.ops):
            one, other = sides[number], sides[number + 1]
            if one[1].never or other[1].never:
                continue
            if isinstance(operator, (ast.Eq, ast.NotEq)):
                self._equality(node, one, other)
            elif isinstance(operator, (ast.In, ast.NotIn)):
                self._membership(node, one, other)
            else:
                self._together(node, one, other, _COMPARABLE, "compare")
        return BOOL_SHAPE

    def _equality(self, node: ast.expr, one: tuple[ast.expr, Shape], other: tuple[ast.expr, Shape]) -> None:
        left, right = one[1], other[1]
        if NULL_SHAPE.kinds in (left.kinds, right.kinds) or shapes.may_be_equal(left, right):
            return  # a comparison with null is a guard, where nothing is ever null too
        if _kinds_meet(left, right):
            for (at, shape), (fixed, mine) in ((one, other), (other, one)):
                if isinstance(fixed, ast.Constant):
                    self._not_among(fixed, self.source.of(at), shape, mine)
                    return
            self._note(NEVER_EQUAL, node, f"never equal: {self.source.of(node)}", severity="warning", all_=True)
            return
        message = f"{words(left)} and {words(right)} are never equal: {self.source.of(node)}"
        self._note(NEVER_EQUAL, node, message, _as_text(one, other, self.source), all_=True)

    def _not_among(self, node: ast.expr, text: str, shape: Shape, mine: Shape) -> None:
        """A fixed value that is none of those that the schema lists."""
        known = sorted(str(value) for _, value in shape.values or ())
        listed = ", ".join(known[:KNOWN_MAX]) + (" …" if len(known) > KNOWN_MAX else "")
        wanted = next((str(value) for _, value in mine.values or ()), "")
        hint = did_you_mean(wanted, known, f"it is {'one of ' if len(known) > 1 else ''}{listed}")
        self._note(NEVER_EQUAL, node, f"{text} is never {self.source.of(node)}", hint, severity="warning", all_=True)

    def _membership(self, node: ast.expr, one: tuple[ast.expr, Shape], other: tuple[ast.expr, Shape]) -> None:
        holder = self._fits(other[0], other[1], (TEXT, LIST, OBJECT), "look for something in")
        if holder.unknown or holder.never:
            return
        if holder.kinds == {TEXT}:
            self._fits(one[0], one[1], (TEXT,), f"look in {self.source.of(other[0])} for")
        elif holder.kinds == {OBJECT}:
            self._fits(one[0], one[1], (TEXT, NUMBER, BOOL, NULL), f"look in {self.source.of(other[0])} for")
        elif holder.kinds == {LIST}:
            self._among(node, one, other[0], shapes.items(holder))

    def _among(self, node: ast.expr, one: tuple[ast.expr, Shape], listed: ast.expr, items: Shape) -> None:
        looked_for, shape = one
        if not _kinds_meet(shape, items) and not items.never:
            message = f"{words(shape)} is looked for among items that are {words(items)}: {self.source.of(node)}"
            self._note(NEVER_EQUAL, node, message, _as_text(one, (listed, items), self.source), all_=True)
        elif isinstance(listed, (ast.List, ast.Tuple)):
            for item in listed.elts:
                if isinstance(item, ast.Constant) and item.value is not None:
                    mine = literal(item.value)
                    if not shapes.may_be_equal(shape, mine) and _kinds_meet(shape, mine):
                        self._not_among(item, self.source.of(looked_for), shape, mine)
        elif not shapes.may_be_equal(shape, items) and isinstance(looked_for, ast.Constant):
            self._not_among(looked_for, f"an item of {self.source.of(listed)}", items, shape)

    def _ifexp(self, node: ast.IfExp, env: Env) -> Shape:
        self.value(node.test, env)
        return union(
            self.value(part, inner)
            for part, inner in (
                (node.body, narrowed(self.source, node.test, env, True)),
                (node.orelse, narrowed(self.source, node.test, env, False)),
            )
        )

    # Displays and comprehensions -------------------------------------------------------------------------------------

    def _list(self, node: ast.List | ast.Tuple, env: Env) -> Shape:
        return list_of(union([self.leaf(item, env)[0] for item in node.elts]))

    def _dict(self, node: ast.Dict, env: Env) -> Shape:
        fields: dict[str, Field] = {}
        others: list[Shape] = []
        for name, value in zip(node.keys, node.values, strict=True):
            shape, absent = self.leaf(value, env)
            if isinstance(name, ast.Constant):
                fields[str(name.value)] = Field(shape, not absent)
            elif name is not None:
                self._fits(name, self.value(name, env), (TEXT,), "name a field by")
                others.append(union([shape, NULL_SHAPE]))  # there optional(…) gives null
        if not others:
            return Shape([Object(fields)])
        return Shape([Object({}, Openness.OPEN, union([*others, *(each.shape for each in fields.values())]))])

    def _loop(self, node: ast.ListComp | ast.GeneratorExp | ast.DictComp, env: Env) -> Env:
        """What its parts see."""
        for generator in node.generators:
            over = self.value(generator.iter, env)
            kept = self._fits(generator.iter, over, (LIST, OBJECT), "go through")
            items = ANY if kept.unknown else union([shapes.items(kept), *_if(OBJECT, kept, TEXT_SHAPE)])
            env = {**env, **self._targets(generator.target, items)}
            for test in generator.ifs:
                self.value(test, env)
                env = narrowed(self.source, test, env, True)
        return env

    def _targets(self, target: ast.expr, items: Shape) -> dict[str, Shape]:
        if isinstance(target, ast.Name):
            return {target.id: items}
        names = [each.id for each in getattr(target, "elts", ()) if isinstance(each, ast.Name)]
        parts = self._fits(target, items, (LIST, OBJECT, TEXT), "take apart")
        of_lists = parts.kinds == {LIST} and not parts.unknown
        return dict.fromkeys(names, shapes.items(parts) if of_lists else ANY)

    def _listcomp(self, node: ast.ListComp | ast.GeneratorExp, env: Env) -> Shape:
        return list_of(self.value(node.elt, self._loop(node, env)))

    def _dictcomp(self, node: ast.DictComp, env: Env) -> Shape:
        inner = self._loop(node, env)
        self._fits(node.key, self.value(node.key, inner), (TEXT,), "name a field by")
        return Shape([Object({}, Openness.OPEN, self.value(node.value, inner))])

    # Calls -----------------------------------------------------------------------------------------------------------

    def _guarded(self, node: ast.expr, env: Env) -> tuple[Shape, bool]:
        """What stands inside optional, default or has; and whether it may be missing or null."""
        guard = Forgiven(missing=True, null=True)
        shape = self._within(guard, lambda: self.value(node, env))
        return shape, bool(guard.count) or shape.unknown or NULL in shape.kinds

    def _call(self, node: ast.Call, env: Env) -> Shape:
        if isinstance(node.func, ast.Attribute):
            name = self.source.field(node.func)
            return self._apply(node, METHODS.get(name), [node.func.value, *node.args], env)
        assert isinstance(node.func, ast.Name)
        name = node.func.id
        if name in ("has", "optional", "default"):
            return self._forgiving_call(name, node, env)
        if name in ("min", "max"):
            return self._apply(node, one_or_more(name, len(node.args)), node.args, env)
        return self._apply(node, FUNCTIONS.get(name), node.args, env)

    def _forgiving_call(self, name: str, node: ast.Call, env: Env) -> Shape:
        shape, absent = self._guarded(node.args[0], env)
        if name == "has":
            return BOOL_SHAPE
        if name == "optional":
            return union([shape, NULL_SHAPE]) if absent else shape
        return union([shape.without(NULL), self.value(node.args[1], env)]) if absent else shape

    def _apply(self, node: ast.Call, signature: Signature | None, arguments: list[ast.expr], env: Env) -> Shape:
        given = [self.value(argument, env) for argument in arguments]
        if signature is None:
            return ANY
        taken = [
            self._fits(argument, shape, kinds, doing)
            for argument, shape, (kinds, doing) in zip(
                arguments, given, signature.arguments(len(arguments)), strict=True
            )
        ]
        if signature.of_items and LIST in taken[0].kinds and not taken[0].unknown:
            items = shapes.items(taken[0])
            if not items.never and not items.kinds & signature.of_items:  # an empty list would do
                message = f"{self.source.of(arguments[0])} is a list of {words(items)}"
                self._note(WRONG, arguments[0], message, f"{self.source.of(node)} needs other items", "warning")
        return NEVER if any(shape.never for shape in taken) else signature.result(taken)


def _done(doing: str, what: str) -> str:
    """`add`, and what it is done with; `put {} into a text` says itself where that stands."""
    return doing.format(what) if "{}" in doing else f"{doing} {what}"


def _if(kind: str, shape: Shape, made: Shape) -> list[Shape]:
    return [made] if kind in shape.kinds else []


def _if_any(shape: Shape, made: Shape) -> Shape:
    return NEVER if shape.never else made


def _kinds_meet(left: Shape, right: Shape) -> bool:
    numbers = {NUMBER, BOOL}
    return bool(left.kinds & right.kinds) or bool(left.kinds & numbers and right.kinds & numbers)


def _as_text(one: tuple[ast.expr, Shape], other: tuple[ast.expr, Shape], source: Source) -> str:
    """What to write where a number and a text of digits meet."""
    for (at, shape), (_, against) in ((one, other), (other, one)):
        if not isinstance(at, (ast.Constant, ast.List, ast.Tuple)) and NUMBER in shape.kinds and TEXT in against.kinds:
            return f"{source.of(at)} is a number: write it without quotes, or str({source.of(at)})"
    return ""


_WALKS: Mapping[type[ast.expr], Callable[[Walker, Any, Env], Shape]] = {
    ast.Attribute: Walker._access,
    ast.BinOp: Walker._binop,
    ast.BoolOp: Walker._boolop,
    ast.Call: Walker._call,
    ast.Compare: Walker._compare,
    ast.Constant: Walker._constant,
    ast.Dict: Walker._dict,
    ast.DictComp: Walker._dictcomp,
    ast.GeneratorExp: Walker._listcomp,
    ast.IfExp: Walker._ifexp,
    ast.List: Walker._list,
    ast.ListComp: Walker._listcomp,
    ast.Name: Walker._name,
    ast.Subscript: Walker._access,
    ast.Tuple: Walker._list,
    ast.UnaryOp: Walker._unaryop,
}
