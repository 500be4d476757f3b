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
from functools import lru_cache
from typing import Any

from bridge.places import nearest
from bridge.rules.shapes import refining
from bridge.rules.shapes import shape as shapes
from bridge.rules.shapes.calls import FUNCTIONS, METHODS, Signature, one_or_more
from bridge.rules.shapes.equality import Finding, Side, listed, never_among, never_equal
from bridge.rules.shapes.narrow import Env, bound, dead, narrowed, path_of
from bridge.rules.shapes.notes import MAYBE, MISSING, NEVER_EQUAL, WRONG, Forgiven, Telling
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
from bridge.rules.translator import fixed, joined

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


class Walker(Telling):
    """Walks one expression."""

    def leaf(self, node: ast.expr, env: Env, *, omit: bool = False) -> tuple[Shape, bool]:
        """The shape of a field's whole value, and whether the field may be left out."""
        if omit:
            guard = Forgiven(missing=True)
            shape, absent = self.within(guard, lambda: self.leaf(node, env))
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
        self.guards += guards
        shape = self.fits(node, self.value(node, env), shapes.ALL_KINDS - {NULL}, "put {} into a text")
        del self.guards[len(self.guards) - len(guards) :]
        return shape

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
        guarded = self.forgiving
        self.forgive(null=False)
        holders = found.missing.without(NULL) if found.shape.never else shape.only([OBJECT])
        if OBJECT in shape.kinds and step in shapes.names(shape):
            message, hint = f"{path} is never there: the condition before it says so", ""
        elif OBJECT in holders.kinds and isinstance(step, str):
            known = shapes.names(shape)
            if near := _nearest(step, tuple(known)):
                hint = f"did you mean {joined(before, near)}?"
            else:
                hint = f"known there are {listed(known)}" if known else "it has no fields"
                hint += "; a schema that lets more through says additionalProperties: true" * found.undeclared
            message = f"there is no field {path}"
        else:
            what = words(holders if not holders.never else shape)
            message, hint = f"{path} is never there: {before} is {what}", ""
        severity = "warning" if guarded and found.undeclared else "error"
        self.note(MISSING, node, message, hint, severity, all_=guarded or self.condition)

    def _perhaps_there(self, node: ast.expr, path: str, before: str, found: Reading) -> None:
        if self.forgive(null=False):
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
            self.note(MAYBE, node, f"{path} may be missing{because}: the rule then fails", hint, "warning")
        elif self.traps:
            message = f"{path} may be missing{because}: the whole condition is then false"
            self.note(MAYBE, node, message, f"write default({path}, …)", "warning")

    def _index(self, node: ast.Subscript, env: Env) -> Shape:
        shape = self.value(node.value, env)
        if isinstance(node.slice, ast.Slice):
            for bound in (node.slice.lower, node.slice.upper):
                if bound is not None:
                    self.fits(bound, self.value(bound, env), (NUMBER, BOOL, NULL), "count by")
            part = self.fits(node.value, shape, (LIST, TEXT), "take a part of")
            return ANY if part.unknown else union([*_if(TEXT, part, TEXT_SHAPE), part.only([LIST])])
        index = self.value(node.slice, env)
        part = self.fits(node.value, shape, (LIST, TEXT, OBJECT), "take a part of")
        if part.unknown or part.never:
            return part
        wanted = {TEXT} if part.kinds == {OBJECT} else {NUMBER, BOOL} if OBJECT not in part.kinds else ()
        if wanted:
            self.fits(node.slice, index, wanted, f"look in {words(part)} at")
        return union([shapes.items(part), shapes.members(part), *_if(TEXT, part, TEXT_SHAPE)])

    # Operators -------------------------------------------------------------------------------------------------------

    def _boolop(self, node: ast.BoolOp, env: Env) -> Shape:
        is_and = isinstance(node.op, ast.And)
        found = []
        for number, part in enumerate(node.values):
            last = number == len(node.values) - 1
            trap = not is_and and not last
            self.traps += trap
            shape = self.value(part, env)
            self.traps -= trap
            found.append(shape if last else refining.falsy(shape) if is_and else refining.truthy(shape))
            env = narrowed(self.source, part, env, is_and)
        return union(found)

    def _unaryop(self, node: ast.UnaryOp, env: Env) -> Shape:
        trap = isinstance(node.op, ast.Not)
        self.traps += trap
        shape = self.value(node.operand, env)
        self.traps -= trap
        if trap:
            return BOOL_SHAPE
        if isinstance(node.operand, ast.Constant) and type(node.operand.value) in (int, float):
            value = node.operand.value
            return literal(-value if isinstance(node.op, ast.USub) else value)  # type: ignore[operator]  # a number
        return _if_any(self.fits(node.operand, shape, (NUMBER,), "take {} as a number"), NUMBER_SHAPE)

    def _binop(self, node: ast.BinOp, env: Env) -> Shape:
        left, right = self.value(node.left, env), self.value(node.right, env)
        groups = _ADDABLE if isinstance(node.op, ast.Add) else _NUMBERS
        doing = _WORDS.get(type(node.op), "join")
        kinds = self.together(node, Side(node.left, left), Side(node.right, right), groups, doing)
        if kinds is None:
            return NEVER
        return union(
            [
                *([NUMBER_SHAPE] if NUMBER in kinds else []),
                *([TEXT_SHAPE] if TEXT in kinds else []),
                *([list_of(lambda: union(map(shapes.items, (left, right))))] if LIST in kinds else []),
            ]
        )

    def _compare(self, node: ast.Compare, env: Env) -> Shape:
        trap = len(node.ops) == 1 and isinstance(node.ops[0], (ast.NotEq, ast.NotIn))
        self.traps += trap
        sides = [Side(side, self.value(side, env)) for side in (node.left, *node.comparators)]
        self.traps -= trap
        for number, operator in enumerate(node.ops):
            one, other = sides[number], sides[number + 1]
            if one.shape.never or other.shape.never:
                continue
            found: Iterable[Finding] = ()
            if isinstance(operator, (ast.Eq, ast.NotEq)):
                found = never_equal(node, one, other, self.source)
            elif isinstance(operator, (ast.In, ast.NotIn)):
                found = self._membership(node, one, other)
            else:
                self.together(node, one, other, _COMPARABLE, "compare")
            for each in found:
                self.note(NEVER_EQUAL, each.node, each.message, each.hint, each.severity, all_=True)
        return BOOL_SHAPE

    def _membership(self, node: ast.expr, one: Side, other: Side) -> Iterable[Finding]:
        holder = self.fits(other.node, other.shape, (TEXT, LIST, OBJECT), "look for something in")
        if holder.unknown or holder.never:
            return ()
        if holder.kinds == {LIST}:
            return never_among(node, one, Side(other.node, holder), self.source)
        if holder.kinds == {TEXT}:
            self.fits(one.node, one.shape, (TEXT,), f"look in {self.source.of(other.node)} for")
        elif holder.kinds == {OBJECT}:
            self.fits(one.node, one.shape, (TEXT, NUMBER, BOOL, NULL), f"look in {self.source.of(other.node)} for")
        return ()

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
                self.fits(name, self.value(name, env), (TEXT,), "name a field by")
                others.append(union([shape, NULL_SHAPE]))  # there optional(…) gives null
        if not others:
            return Shape([Object(fields)])
        return Shape([Object({}, Openness.OPEN, union([*others, *(each.shape for each in fields.values())]))])

    def _loop(self, node: ast.ListComp | ast.GeneratorExp | ast.DictComp, env: Env) -> Env:
        """What its parts see."""
        for generator in node.generators:
            over = self.value(generator.iter, env)
            kept = self.fits(generator.iter, over, (LIST, OBJECT), "go through")
            items = ANY if kept.unknown else union([shapes.items(kept), *_if(OBJECT, kept, TEXT_SHAPE)])
            for name, shape in self._targets(generator.target, items).items():
                env = bound(env, name, shape)
            for test in generator.ifs:
                self.value(test, env)
                env = narrowed(self.source, test, env, True)
        return env

    def _targets(self, target: ast.expr, items: Shape) -> dict[str, Shape]:
        if isinstance(target, ast.Name):
            return {target.id: items}
        names = [each.id for each in getattr(target, "elts", ()) if isinstance(each, ast.Name)]
        parts = self.fits(target, items, (LIST, OBJECT, TEXT), "take apart")
        of_lists = parts.kinds == {LIST} and not parts.unknown
        return dict.fromkeys(names, shapes.items(parts) if of_lists else ANY)

    def _listcomp(self, node: ast.ListComp | ast.GeneratorExp, env: Env) -> Shape:
        return list_of(self.value(node.elt, self._loop(node, env)))

    def _dictcomp(self, node: ast.DictComp, env: Env) -> Shape:
        inner = self._loop(node, env)
        self.fits(node.key, self.value(node.key, inner), (TEXT,), "name a field by")
        return Shape([Object({}, Openness.OPEN, self.value(node.value, inner))])

    # Calls -----------------------------------------------------------------------------------------------------------

    def _guarded(self, node: ast.expr, env: Env) -> tuple[Shape, bool]:
        """What stands inside optional, default or has; and whether it may be missing or null."""
        guard = Forgiven(missing=True, null=True)
        shape = self.within(guard, lambda: self.value(node, env))
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
            self.fits(argument, shape, kinds, doing)
            for argument, shape, (kinds, doing) in zip(
                arguments, given, signature.arguments(len(arguments)), strict=True
            )
        ]
        if signature.of_items and LIST in taken[0].kinds and not taken[0].unknown:
            items = shapes.items(taken[0])
            if not items.never and not items.kinds & signature.of_items:  # an empty list would do
                message = f"{self.source.of(arguments[0])} is a list of {words(items)}"
                self.note(WRONG, arguments[0], message, f"{self.source.of(node)} needs other items", "warning")
        return NEVER if any(shape.never for shape in taken) else signature.result(taken)


@lru_cache(maxsize=1_000)
def _nearest(name: str, known: tuple[str, ...]) -> str:
    """The same for each of the types that a rule matches."""
    return nearest(name, known)


def _if(kind: str, shape: Shape, made: Shape) -> list[Shape]:
    return [made] if kind in shape.kinds else []


def _if_any(shape: Shape, made: Shape) -> Shape:
    return NEVER if shape.never else made


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
