"""Translates an expression's syntax tree into nodes of its own: the whitelist of the language.

Everything that comes out was built here; see language.py for why that is safe. Each operation that can fail is put on
a line of its own (unit.py).
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping
from typing import Any

from bridge.places import did_you_mean
from bridge.rules.functions import FUNCTIONS, METHODS, Function
from bridge.rules.source import Source
from bridge.rules.unit import Conditional, Reference, Site, Unit

EVENT_FIELDS = ("data", "id", "source", "subject", "time", "type")

_CONSTANTS = {"true": True, "false": False, "null": None, "True": True, "False": False, "None": None}
_COMPARISONS = (ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.In, ast.NotIn)
_ARITHMETIC: dict[type[ast.operator], str] = {
    ast.Add: "add",
    ast.Sub: "subtract",
    ast.Mult: "multiply",
    ast.Div: "divide",
    ast.FloorDiv: "floor_divide",
    ast.Mod: "modulo",
}
_LEFT_OUT: dict[type[ast.AST], tuple[str, str]] = {
    ast.Lambda: ("lambda", ""),
    ast.NamedExpr: (":=", "write == to compare"),
    ast.JoinedStr: ("an f-string", "join with +"),
    ast.Starred: ("*", "join lists with +"),
    ast.Set: ("a set", "write a list: [ ]"),
    ast.SetComp: ("a set", "write unique([… for …])"),
    ast.Await: ("await", ""),
    ast.Yield: ("yield", ""),
    ast.YieldFrom: ("yield", ""),
}


class Translator:
    """Translates expressions into the body of one Unit."""

    def __init__(self, unit: Unit, names: Mapping[str, str]) -> None:
        self._unit = unit
        self._names = names
        self._roots = {name.split(".")[0] for name in names}
        self._source = Source("null")
        self._base = 0
        self._locals: dict[str, str] = {}
        self._guards = 0
        self._loops = 0

    def translate(self, text: str, start: int = 0) -> ast.expr:
        """The compiled form of one expression, which begins at `start` of its surroundings; raises ExpressionError."""
        return self._gen(self._read(text, start))

    def translate_field(self, text: str, start: int, *, omit: bool) -> tuple[ast.expr, bool]:
        """The same for an expression that is a field's whole value, and whether it can leave the field out.

        `optional(…)` does where its argument is absent; with `omit` so does everything where a field is missing.
        """
        node = self._read(text, start)
        if omit:
            return self._omitting(node), True
        return self._leaf(node), self._may_be_absent(node)

    def _read(self, text: str, start: int) -> ast.expr:
        self._source = Source(text)
        self._base, self._locals, self._guards, self._loops = start, {}, 0, 0
        return self._source.root

    def _at(self, made: ast.expr, node: ast.expr, path: str = "", *, reads_field: bool = False) -> ast.expr:
        """Puts the made node on a line of its own, so that a fault there can be told."""
        made.lineno = self._unit.site(Site(self._source.of(node), path, reads_field, self._unit.where))
        return made

    def _used(self, since: int) -> str:
        """The only field that was named since then, else nothing."""
        paths = {reference.path for reference in self._unit.references[since:]}
        return paths.pop() if len(paths) == 1 else ""

    # Translation -----------------------------------------------------------------------------------------------------

    def _gen(self, node: ast.expr) -> ast.expr:
        translate = _TRANSLATORS.get(type(node))
        if translate is None:
            what, hint = _LEFT_OUT.get(type(node), (f"`{self._source.of(node)}`", ""))
            raise self._source.fail("MB133", node, f"{what} is not part of expressions", hint)
        return translate(self, node)

    def _constant(self, node: ast.Constant) -> ast.expr:
        value = node.value
        if isinstance(value, int) and not isinstance(value, bool):
            if value > 2**64 - 1:
                raise self._source.fail("MB133", node, "the number is too large for JSON")
        elif isinstance(value, float):
            if value != value or value in (float("inf"), float("-inf")):
                raise self._source.fail("MB133", node, "the number is too large for JSON")
        elif value is not None and not isinstance(value, (bool, str)):
            raise self._source.fail("MB133", node, f"{self._source.of(node)} is not part of expressions")
        return ast.Constant(value)

    def _name(self, node: ast.Name) -> ast.expr:
        name = node.id
        if name in _CONSTANTS:
            return ast.Constant(_CONSTANTS[name])
        if name in self._locals:
            return ast.Name(f"v_{name}", ast.Load())
        if name in self._names:
            self._refer(name, node)
            return self._root(name)
        if name == "event" and "event" in self._roots:
            fields = ", ".join(f"event.{field}" for field in EVENT_FIELDS)
            raise self._source.fail("MB131", node, "event is not a value", f"name one of its fields: {fields}")
        if name in FUNCTIONS:
            signature = FUNCTIONS[name].signature
            raise self._source.fail("MB132", node, f"{name} is a function", f"call it: {signature}")
        known = sorted(self._roots | set(self._locals) | {"true", "false", "null"})
        hint = did_you_mean(name, known, f"known are {', '.join(known)}")
        start = self._source.start(node)
        if start and self._source.text[start - 1] == "-":
            hint = f'for a field whose name has a hyphen write data["…-{name}"]'
        raise self._source.fail("MB131", node, f"unknown name {name}", hint)

    def _root(self, name: str) -> ast.expr:
        self._unit.names_used.add(name)
        return ast.Name(f"n_{name}", ast.Load())

    def _refer(self, path: str, node: ast.expr) -> None:
        self._unit.references.append(Reference(path, self._base + self._source.start(node), self._guards > 0))

    def _steps(self, node: ast.expr) -> tuple[ast.expr, list[tuple[str | int, ast.expr]]]:
        """What a chain of fields and fixed indexes starts from, and the chain."""
        chain: list[tuple[str | int, ast.expr]] = []
        while True:
            if isinstance(node, ast.Attribute):
                chain.append((self._source.field(node), node))
            elif isinstance(node, ast.Subscript) and (key := fixed(node.slice)) is not None:
                chain.append((key, node))
            else:
                return node, chain[::-1]
            node = node.value

    def _based(self, node: ast.expr) -> tuple[ast.expr, str, list[tuple[str | int, ast.expr]], ast.expr]:
        """A chain's compiled start, its path if that is known, what remains of it, and the start's own node."""
        base, chain = self._steps(node)
        if isinstance(base, ast.Name) and base.id not in self._locals and base.id not in self._names:
            if base.id == "event" and "event" in self._roots and chain:
                name = chain[0][0]
                if f"event.{name}" not in self._names:
                    hint = did_you_mean(str(name), EVENT_FIELDS, f"it has {', '.join(EVENT_FIELDS)}")
                    raise self._source.fail("MB131", base, f"event has no {name}", hint)
                path = "data" if name == "data" else f"event.{name}"
                return self._root(path), path, chain[1:], base
            if isinstance(chain[0][1], ast.Attribute) and base.id in FUNCTIONS:
                raise self._source.fail("MB132", base, f"{base.id} is a function", FUNCTIONS[base.id].signature)
        if isinstance(base, ast.Name) and base.id in self._names:
            return self._root(base.id), base.id, chain, base
        if isinstance(base, ast.Name) and base.id in self._locals:
            return self._gen(base), self._locals[base.id], chain, base
        return self._gen(base), "", chain, base

    def _access(self, node: ast.Attribute | ast.Subscript) -> ast.expr:
        if isinstance(node, ast.Subscript) and fixed(node.slice) is None:
            return self._index(node)
        made, path, chain, base = self._based(node)
        known = bool(path)
        path = path or self._source.of(base)
        for step, at in chain:
            path = joined(path, step)
            made = ast.Subscript(made, ast.Constant(step), ast.Load())
            self._at(made, at, path, reads_field=True)
        if known:
            self._refer(path, node)
        return made

    def _index(self, node: ast.Subscript) -> ast.expr:
        value = self._gen(node.value)
        if isinstance(node.slice, ast.Slice):
            bounds = [self._gen(part) if part else None for part in (node.slice.lower, node.slice.upper)]
            if node.slice.step is not None:
                raise self._source.fail("MB133", node.slice.step, "a step in a slice is not part of expressions")
            return self._charged(self._at(ast.Subscript(value, ast.Slice(*bounds), ast.Load()), node))
        index = self._gen(node.slice)
        return self._at(ast.Subscript(value, index, ast.Load()), node, self._source.of(node))

    def _boolop(self, node: ast.BoolOp) -> ast.expr:
        return ast.BoolOp(node.op, [self._gen(value) for value in node.values])

    def _unaryop(self, node: ast.UnaryOp) -> ast.expr:
        since = len(self._unit.references)
        operand = self._gen(node.operand)
        if isinstance(node.op, ast.Not):
            return ast.UnaryOp(node.op, operand)
        if isinstance(node.op, ast.Invert):
            raise self._source.fail("MB133", node, "~ is not part of expressions", "write not")
        if isinstance(operand, ast.Constant) and type(operand.value) in (int, float):
            sign = -1 if isinstance(node.op, ast.USub) else 1
            return ast.Constant(sign * operand.value)  # type: ignore[operator]  # the line above made it a number
        name = "negative" if isinstance(node.op, ast.USub) else "positive"
        return self._at(_call(name, operand), node, self._used(since))

    def _binop(self, node: ast.BinOp) -> ast.expr:
        name = _ARITHMETIC.get(type(node.op))
        if name is None:
            hint = "write x * x" if isinstance(node.op, ast.Pow) else "combine conditions with and, or"
            raise self._source.fail("MB133", node, "this operator is not part of expressions", hint)
        since = len(self._unit.references)
        operands = [self._charged(self._gen(side)) for side in (node.left, node.right)]
        return self._at(_call(name, *operands), node, self._used(since))

    def _compare(self, node: ast.Compare) -> ast.expr:
        for operator in node.ops:
            if not isinstance(operator, _COMPARISONS):
                raise self._source.fail("MB133", node, "is is not part of expressions", "write == null or != null")
        since = len(self._unit.references)
        sides = [self._charged(self._gen(side)) for side in (node.left, *node.comparators)]
        return self._at(ast.Compare(sides[0], node.ops, sides[1:]), node, self._used(since))

    def _ifexp(self, node: ast.IfExp) -> ast.expr:
        return ast.IfExp(self._condition(node.test), self._gen(node.body), self._gen(node.orelse))

    def _condition(self, node: ast.expr) -> ast.expr:
        made = self._gen(node)
        offset = self._base + self._source.start(node)
        return self._unit.condition(made, Conditional(self._source.of(node), offset, self._unit.where))

    def _list(self, node: ast.List | ast.Tuple) -> ast.expr:
        items = [self._leaf(item) for item in node.elts]
        made = ast.List(items, ast.Load())
        return _call("drop_items", made) if any(self._may_be_absent(item) for item in node.elts) else made

    def _dict(self, node: ast.Dict) -> ast.expr:
        keys: list[ast.expr | None] = []
        droppable: list[ast.expr] = []
        for name, value in zip(node.keys, node.values, strict=True):
            if name is None:
                raise self._source.fail("MB133", value, "** is not part of expressions")
            made = self._gen(name)
            if isinstance(made, ast.Constant):
                if not isinstance(made.value, str):
                    raise self._source.fail("MB133", name, "the keys of an object are texts", "put the key in quotes")
                if self._may_be_absent(value):
                    droppable.append(ast.Constant(made.value))
                keys.append(made)
            else:
                keys.append(self._at(_call("key", made), name))
        literal = all(isinstance(made, ast.Constant) for made in keys)
        values = [self._leaf(value) if literal else self._gen(value) for value in node.values]
        result: ast.expr = ast.Dict(keys, values)
        if droppable and literal:
            result = _call("drop", result, ast.Tuple(droppable, ast.Load()))
        return result

    # Comprehensions --------------------------------------------------------------------------------------------------

    def _charged(self, made: ast.expr) -> ast.expr:
        """Inside a comprehension an operation pays for what it works on."""
        if not self._loops or isinstance(made, ast.Constant):
            return made
        return _call("charge", ast.Name("budget", ast.Load()), made)

    def _loop(self, node: ast.ListComp | ast.GeneratorExp | ast.DictComp, parts: list[ast.expr]) -> tuple[Any, Any]:
        self._unit.needs_budget = True
        outer = dict(self._locals)
        generators = []
        for generator in node.generators:
            if generator.is_async:
                raise self._source.fail("MB133", node, "async is not part of expressions")
            since = len(self._unit.references)
            source = self._gen(generator.iter)
            path = self._used(since) if isinstance(generator.iter, (ast.Attribute, ast.Name)) else ""
            if isinstance(generator.iter, ast.Name) and generator.iter.id in self._locals:
                path = self._locals[generator.iter.id]
            over = self._at(_call("each", ast.Name("budget", ast.Load()), source), generator.iter, path)
            target = self._target(generator.target, f"{path}[]" if path else "")
            self._loops += 1
            tests = [self._gen(test) for test in generator.ifs]
            self._loops -= 1
            generators.append(ast.comprehension(target, over, tests, 0))
            self._loops += 1  # later loops run inside this one
        made = [self._charged(self._gen(part)) for part in parts]
        self._loops -= len(node.generators)
        self._locals = outer
        return made, generators

    def _target(self, target: ast.expr, path: str) -> ast.expr:
        names = target.elts if isinstance(target, (ast.Tuple, ast.List)) else [target]
        for name in names:
            if not isinstance(name, ast.Name):
                raise self._source.fail("MB133", name, "a comprehension needs plain names after for")
            if name.id in self._roots or name.id in FUNCTIONS or name.id in _CONSTANTS:
                raise self._source.fail(
                    "MB133", name, f"{name.id} has a meaning already", "choose another name after for"
                )
            self._locals[name.id] = path if name is target else ""
        made: list[ast.expr] = [ast.Name(f"v_{name.id}", ast.Store()) for name in names if isinstance(name, ast.Name)]
        return made[0] if names[0] is target else self._at(ast.Tuple(made, ast.Store()), target)

    def _listcomp(self, node: ast.ListComp | ast.GeneratorExp) -> ast.expr:
        made, generators = self._loop(node, [node.elt])
        return ast.ListComp(made[0], generators)

    def _dictcomp(self, node: ast.DictComp) -> ast.expr:
        made, generators = self._loop(node, [node.key, node.value])
        return ast.DictComp(self._at(_call("key", made[0]), node.key), made[1], generators)

    # Calls -----------------------------------------------------------------------------------------------------------

    def _call(self, node: ast.Call) -> ast.expr:
        if node.keywords:
            raise self._source.fail("MB133", node, "arguments have no names in expressions", "give them in order")
        for argument in node.args:
            if isinstance(argument, ast.Starred):
                raise self._source.fail("MB133", node, "* is not part of expressions")
        if isinstance(node.func, ast.Attribute):
            return self._method(node, node.func)
        if not isinstance(node.func, ast.Name):
            raise self._source.fail("MB132", node, "only functions can be called")
        name = node.func.id
        if name not in FUNCTIONS or name in self._locals:
            hint = did_you_mean(name, FUNCTIONS, "see the list of functions")
            if name in METHODS:
                hint = f"it is a method: {METHODS[name].signature}"
            raise self._source.fail("MB132", node, f"unknown function {name}", hint)
        self._count(FUNCTIONS[name], node)
        if name in ("optional", "default", "has"):
            return self._forgiving(node, name)
        since = len(self._unit.references)
        arguments = [self._charged(self._gen(argument)) for argument in node.args]
        return self._at(_call(f"f_{name}", *arguments), node, self._used(since))

    def _method(self, node: ast.Call, func: ast.Attribute) -> ast.expr:
        name = self._source.field(func)
        if name not in METHODS:
            hint = did_you_mean(name, METHODS, "see the list of methods")
            if name in FUNCTIONS:
                hint = f"it is a function: {FUNCTIONS[name].signature}"
            raise self._source.fail("MB132", node, f"unknown method {name}", hint)
        self._count(METHODS[name], node)
        since = len(self._unit.references)
        arguments = [self._charged(self._gen(part)) for part in (func.value, *node.args)]
        return self._at(_call(f"m_{name}", *arguments), node, self._used(since))

    def _count(self, entry: Function, node: ast.Call) -> None:
        fewest, most = entry.arguments
        if not fewest <= len(node.args) <= most:
            expected = str(fewest) if fewest == most else f"{fewest} to {most}"
            message = f"{entry.name} takes {expected} argument{'' if expected == '1' else 's'}, not {len(node.args)}"
            raise self._source.fail("MB135", node, message, entry.signature)

    def _forgiving(self, node: ast.Call, name: str) -> ast.expr:
        """optional, default, has where their value is used in an expression: absent is null."""
        value = self._guarded(node.args[0], "reach", "guard")
        if name == "has":
            return ast.Compare(value, [ast.IsNot()], [ast.Constant(None)])
        if name == "default":
            other = self._gen(node.args[1])
            if isinstance(other, ast.Constant):
                return _call("otherwise", value, other)
            return _call("otherwise_do", value, _thunk(other))
        return value

    def _guarded(self, node: ast.expr, by_path: str, by_thunk: str) -> ast.expr:
        self._guards += 1
        try:
            base, chain = self._steps(node)
            if chain and isinstance(base, ast.Name):
                made, path, rest, _ = self._based(node)
                if path:
                    for step, _at in rest:
                        path = joined(path, step)
                    self._refer(path, node)
                return _call(by_path, made, *(ast.Constant(step) for step, _ in rest))
            return _call(by_thunk, _thunk(self._gen(node)))
        finally:
            self._guards -= 1

    # Fields ----------------------------------------------------------------------------------------------------------

    def _may_be_absent(self, node: ast.expr) -> bool:
        """Whether the value of a field may be `optional(…)`, so that the field is left out."""
        if isinstance(node, ast.IfExp):
            return self._may_be_absent(node.body) or self._may_be_absent(node.orelse)
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
            return False
        if node.func.id == "default" and len(node.args) == 2:
            return self._may_be_absent(node.args[1])
        return node.func.id == "optional"

    def _leaf(self, node: ast.expr) -> ast.expr:
        """Like _gen, but where `optional(…)` is the whole value it gives ABSENT."""
        if not self._may_be_absent(node):
            return self._gen(node)
        if isinstance(node, ast.IfExp):
            return ast.IfExp(self._condition(node.test), self._leaf(node.body), self._leaf(node.orelse))
        assert isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if node.func.id == "default":
            value = self._guarded(node.args[0], "reach", "guard")
            return _call("otherwise_do", value, _thunk(self._leaf(node.args[1])))
        if node.keywords:
            raise self._source.fail("MB133", node, "arguments have no names in expressions")
        self._count(FUNCTIONS["optional"], node)
        made = self._guarded(node.args[0], "reach_optional", "guard")
        reached = isinstance(made, ast.Call) and isinstance(made.func, ast.Name) and made.func.id == "reach_optional"
        return made if reached else _call("absent_if_null", made)

    def _omitting(self, node: ast.expr) -> ast.expr:
        """A leaf under `missing: omit`."""
        base, chain = self._steps(node)
        if chain and isinstance(base, ast.Name):
            return self._guarded(node, "reach_or_absent", "guard_missing")
        return _call("guard_missing", _thunk(self._leaf(node)))


_TRANSLATORS: dict[type[ast.expr], Callable[[Translator, Any], ast.expr]] = {
    ast.Attribute: Translator._access,
    ast.BinOp: Translator._binop,
    ast.BoolOp: Translator._boolop,
    ast.Call: Translator._call,
    ast.Compare: Translator._compare,
    ast.Constant: Translator._constant,
    ast.Dict: Translator._dict,
    ast.DictComp: Translator._dictcomp,
    ast.GeneratorExp: Translator._listcomp,  # `any(x for x in …)`: made as a list, which the functions take
    ast.IfExp: Translator._ifexp,
    ast.List: Translator._list,
    ast.ListComp: Translator._listcomp,
    ast.Name: Translator._name,
    ast.Subscript: Translator._access,
    ast.Tuple: Translator._list,
    ast.UnaryOp: Translator._unaryop,
}
"""The whitelist: what is not here is refused."""


def joined(path: str, step: str | int) -> str:
    """The path one step further: `data.plan`, `data["first name"]`, `data.items[0]`."""
    if isinstance(step, int):
        return f"{path}[{step}]"
    return f"{path}.{step}" if step.isidentifier() else f"{path}[{json.dumps(step, ensure_ascii=False)}]"


def fixed(node: ast.expr) -> str | int | None:
    """A fixed key or index, as `data["first name"]` and `data.items[-1]` have it."""
    if isinstance(node, ast.Constant) and type(node.value) in (str, int):
        return node.value  # type: ignore[return-value]  # the type was looked at
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = node.operand
        if isinstance(inner, ast.Constant) and type(inner.value) is int:
            return -inner.value
    return None


def _call(name: str, *arguments: ast.expr) -> ast.expr:
    return ast.Call(ast.Name(name, ast.Load()), list(arguments), [])


def _thunk(body: ast.expr) -> ast.expr:
    return ast.Lambda(ast.arguments([], [], None, [], [], None, []), body)
