"""What a condition tells of the fields that it looks at: after `has(data.plan) and` there is a plan.

An environment gives each name's shape. Narrowing makes it smaller by what must hold where a condition was true, or
false; that it could be computed at all tells something as well: what it read is there.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, NamedTuple

from bridge.errors import RuleError
from bridge.rules.functions import FUNCTIONS
from bridge.rules.language import compile_expression
from bridge.rules.scan import ExpressionError
from bridge.rules.shapes import refining
from bridge.rules.shapes.refining import Change
from bridge.rules.shapes.shape import ANY, NEVER, NULL, Shape, Step, union
from bridge.rules.source import Source
from bridge.rules.translator import fixed

Env = Mapping[str, Shape]
"""Names as in the language (`data`, `event.type`, `headers` …) and those after `for`."""

STEPS_MAX = 1_000
"""Conditions inside one another that one narrowing looks at; each `or` looks at its parts twice. What is not looked at
tells nothing."""

MERGED_MAX = 64
"""Alternatives of a name after an `or`; beyond, the condition tells nothing of it."""

_CONSTANTS = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}
_ORDERS: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_SWAPPED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.Gt,
    ast.LtE: ast.GtE,
    ast.Gt: ast.Lt,
    ast.GtE: ast.LtE,
    ast.Eq: ast.Eq,
    ast.NotEq: ast.NotEq,
}
_NO_VALUE = object()


class Path(NamedTuple):
    """A chain of fields and fixed indexes from a name."""

    root: str
    steps: tuple[Step, ...]
    nodes: tuple[ast.expr, ...]
    """The node of each step."""


def path_of(node: ast.expr, source: Source, env: Env) -> Path | None:
    """The path that a node is, if it is nothing else."""
    chain: list[tuple[Step, ast.expr]] = []
    while not isinstance(node, ast.Name):
        if isinstance(node, ast.Attribute):
            chain.append((source.field(node), node))
        elif isinstance(node, ast.Subscript) and (step := fixed(node.slice)) is not None:
            chain.append((step, node))
        else:
            return None
        node = node.value
    chain.reverse()
    root = node.id
    if root == "event" and root not in env and chain:
        root = "data" if chain[0][0] == "data" else f"event.{chain[0][0]}"
        chain = chain[1:]
    if root not in env:
        return None
    return Path(root, tuple(step for step, _ in chain), tuple(at for _, at in chain))


_DEAD = ""
"""The name under which an environment remembers that nothing gets there."""


def dead(env: Env) -> bool:
    """Nothing gets here."""
    return _DEAD in env


def bound(env: Env, name: str, shape: Shape) -> Env:
    """The environment with another shape for a name."""
    return {**env, name: shape, _DEAD: NEVER} if shape.never else {**env, name: shape}


def narrowed(source: Source, test: ast.expr, env: Env, truth: bool) -> Env:
    """The environment where the condition was computed and was true, or false."""
    return _Narrowing(source).narrowed(test, env, truth)


def _changed(env: Env, path: Path, change: Change) -> Env:
    """Something is at the path, and is what `change` leaves of it."""
    return bound(env, path.root, refining.refined(env[path.root], path.steps, change))


def _read_for_sure(node: ast.expr, source: Source, env: Env) -> Iterator[Path]:
    """The paths that are read whatever the values are, outside of guards."""
    if isinstance(node, (ast.Name, ast.Attribute, ast.Subscript)) and (path := path_of(node, source, env)) is not None:
        if path.steps:
            yield path
        return
    parts: list[ast.expr] = []
    match node:
        case ast.BoolOp():
            parts = node.values[:1]
        case ast.IfExp():
            parts = [node.test]
        case ast.Compare():
            parts = [node.left, node.comparators[0]]
        case ast.Call(func=ast.Name(id="has" | "default" | "optional")):
            parts = []
        case ast.Call():
            parts = [*([node.func.value] if isinstance(node.func, ast.Attribute) else []), *node.args]
        case ast.ListComp() | ast.GeneratorExp() | ast.DictComp():
            parts = [node.generators[0].iter]
        case _:
            parts = [each for each in ast.iter_child_nodes(node) if isinstance(each, ast.expr)]
    for part in parts:
        yield from _read_for_sure(part, source, env)


def constant(node: ast.expr) -> Any:
    """The value of a literal, else _NO_VALUE."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name) and node.id in _CONSTANTS:
        return _CONSTANTS[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        value = node.operand.value
        return -value if type(value) in (int, float) else _NO_VALUE  # type: ignore[operator]  # a number
    return _NO_VALUE


@lru_cache(maxsize=1_000)
def _computed(text: str, type: str, topic: str) -> bool | None:
    try:
        return bool(compile_expression(text).evaluate(SimpleNamespace(type=type, topic=topic)))
    except (RuleError, ExpressionError):
        return None


class _Narrowing:
    def __init__(self, source: Source) -> None:
        self._source = source
        self._steps = 0

    def narrowed(self, test: ast.expr, env: Env, truth: bool) -> Env:
        self._steps += 1
        if dead(env) or self._steps > STEPS_MAX:
            return env
        if not isinstance(test, ast.BoolOp) and (known := self._known(test, env)) is not None:
            return env if known is truth else bound(env, "event.type", NEVER)
        for path in _read_for_sure(test, self._source, env):
            env = _changed(env, path, lambda shape: shape)
        return env if dead(env) else self.by(test, env, truth)

    def _known(self, test: ast.expr, env: Env) -> bool | None:
        """The truth of a condition that looks at nothing but the event's type and topic, which a view knows."""
        names = [node for node in ast.walk(test) if isinstance(node, ast.Name)]
        types = [
            node.value
            for node in ast.walk(test)
            if isinstance(node, ast.Attribute) and node.attr == "type" and isinstance(node.value, ast.Name)
        ]
        others = [
            node for node in names if node.id not in _CONSTANTS and node.id not in FUNCTIONS and node.id != "topic"
        ]
        if any(node.id != "event" or node not in types for node in others):
            return None
        if not others and not any(node.id == "topic" for node in names):
            return None
        found = [env[name].values for name in ("event.type", "topic") if name in env]
        if len(found) < 2 or any(values is None or len(values) != 1 for values in found):
            return None
        type, topic = (next(iter(values))[1] for values in found if values is not None)
        return _computed(self._source.text[self._source.start(test) : self._source.end(test)], type, topic)

    def by(self, test: ast.expr, env: Env, truth: bool) -> Env:
        match test:
            case ast.UnaryOp(op=ast.Not()):
                return self.narrowed(test.operand, env, not truth)
            case ast.BoolOp():
                return self._bool(test, env, truth)
            case ast.Compare():
                return self._compare(test, env, truth)
            case ast.Call(func=ast.Name(id="bool"), args=[inner]):
                return self.narrowed(inner, env, truth)
            case ast.Call(func=ast.Name(id="has"), args=[inner]):
                return self._has(inner, env, truth)
        if (path := path_of(test, self._source, env)) is not None:
            return _changed(env, path, refining.truthy if truth else refining.falsy)
        guarded = self._guarded(test, env)
        if guarded is not None and truth and guarded.otherwise is not _NO_VALUE and not guarded.otherwise:
            return _changed(env, guarded.path, refining.truthy)
        return env

    def _bool(self, test: ast.BoolOp, env: Env, truth: bool) -> Env:
        if isinstance(test.op, ast.And) is truth:  # all of them were that
            for part in test.values:
                env = self.narrowed(part, env, truth)
            return env
        ways: list[Env] = []
        for part in test.values:  # the first ones were not, and this one was
            ways.append(self.narrowed(part, env, truth))
            env = self.narrowed(part, env, not truth)
        return _merged(ways)

    def _has(self, inner: ast.expr, env: Env, truth: bool) -> Env:
        path = path_of(inner, self._source, env)
        if path is None:
            if truth:  # it could be computed
                for read in _read_for_sure(inner, self._source, env):
                    env = _changed(env, read, lambda shape: shape)
            return env
        if truth:
            return _changed(env, path, lambda shape: shape.without(NULL))
        return bound(env, path.root, refining.lacking(env[path.root], path.steps))

    def _compare(self, test: ast.Compare, env: Env, truth: bool) -> Env:
        sides = [test.left, *test.comparators]
        if len(test.ops) > 1 and not truth:
            return env
        for number, op in enumerate(test.ops):
            env = self._pair(sides[number], op, sides[number + 1], env, truth)
        return env

    def _pair(self, left: ast.expr, op: ast.cmpop, right: ast.expr, env: Env, truth: bool) -> Env:
        if isinstance(op, (ast.In, ast.NotIn)):
            return self._member(left, right, env, isinstance(op, ast.In) is truth)
        env = self._one_side(left, type(op), constant(right), env, truth)
        return self._one_side(right, _SWAPPED[type(op)], constant(left), env, truth)

    def _one_side(self, side: ast.expr, op: type[ast.cmpop], value: Any, env: Env, truth: bool) -> Env:
        """What `side op value` tells of the side; the value may be unknown."""
        same = (op is ast.Eq and truth) or (op is ast.NotEq and not truth)
        ordering = op not in (ast.Eq, ast.NotEq)
        change: Change
        if ordering:
            change = _not_null
        elif value is _NO_VALUE:
            return env
        else:
            change = refining.equal_to([value]) if same else refining.unlike([value])
        if (path := path_of(side, self._source, env)) is not None:
            return _changed(env, path, change)
        guarded = self._guarded(side, env)
        if guarded is None or guarded.otherwise is _NO_VALUE or value is _NO_VALUE:
            return env
        try:
            without = bool(_ORDERS[op](guarded.otherwise, value))
        except TypeError:
            without = not truth  # it would have failed
        if without is truth:
            return env
        return _changed(env, guarded.path, lambda shape: change(shape.without(NULL)))

    def _member(self, left: ast.expr, right: ast.expr, env: Env, inside: bool) -> Env:
        path = path_of(left, self._source, env)
        if path is not None and isinstance(right, (ast.List, ast.Tuple)):
            values = [constant(each) for each in right.elts]
            if _NO_VALUE not in values:
                return _changed(env, path, refining.equal_to(values) if inside else refining.unlike(values))
        if (holder := path_of(right, self._source, env)) is not None:
            return _changed(env, holder, _not_null)
        return env

    def _guarded(self, node: ast.expr, env: Env) -> _Guarded | None:
        """`optional(path)` or `default(path, value)`, and what stands for a missing one."""
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or not node.args:
            return None
        if node.func.id not in ("optional", "default"):
            return None
        path = path_of(node.args[0], self._source, env)
        if path is None:
            return None
        return _Guarded(path, None if node.func.id == "optional" else constant(node.args[1]))


class _Guarded(NamedTuple):
    path: Path
    otherwise: Any


def _not_null(shape: Shape) -> Shape:
    return shape.without(NULL)


def _merged(ways: list[Env]) -> Env:
    """What holds if one of these does."""
    alive = [way for way in ways if not dead(way)] or ways[:1]
    merged: dict[str, Shape] = {}
    for name, shape in alive[0].items():
        if all(way[name] is shape for way in alive):
            merged[name] = shape
            continue
        together = union(way[name] for way in alive)
        merged[name] = together if len(together.alternatives) <= MERGED_MAX else ANY
    return merged
