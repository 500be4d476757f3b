"""Compiled units: one Python function made from one or more expressions, and how its faults are told.

What an expression does is compiled to plain Python: `data.plan` becomes `data["plan"]`, without a check of its own.
A missing field then shows as a KeyError, and where it happened is found from the line number: every operation of the
compiled code stands on a line of its own, and the line is the index of its Site. So a field that is there costs
nothing extra, and one that is not is named by its path. (Line numbers, not columns: `python -X no_debug_ranges` drops
the columns.)
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bridge.errors import MissingField, RuleError
from bridge.places import Place
from bridge.rules import operations
from bridge.rules.faults import ABSENT, Fault, from_type_error
from bridge.rules.functions import FUNCTIONS, METHODS
from bridge.rules.scan import ExpressionError

STEPS_MAX = 100_000
"""Steps that the comprehensions of one unit may take for one event: about 20 ms."""

_FILE = "<expression>"


class Site(NamedTuple):
    """Where in the source an operation stands."""

    text: str
    """The source of the operation."""
    path: str = ""
    """The field that it reads, or the only one that it uses."""
    reads_field: bool = False
    """It does nothing but read a field: any failure means that the field is missing."""
    where: str = ""
    """The place in the action, e.g. `upsert.custom_fields.plan`; empty in a plain expression."""


class Reference(NamedTuple):
    """A field that an expression names; known without an event."""

    path: str
    """E.g. `data.plan`, `event.type`, `headers.tenant`, `data.items[].sku`."""
    offset: int
    """Where it begins in the expression's text."""
    guarded: bool
    """It stands inside optional, default or has."""


@dataclass(slots=True)
class Conditional:
    """An `a if c else b`: where its condition stands, and which outcomes it had, if the unit is watched."""

    text: str
    offset: int
    """Where the condition begins in the expression's text."""
    where: str
    place: Place | None = None
    """In the rules file, where the loader knows it."""
    outcomes: set[bool] = field(default_factory=set)


def charge(budget: list[int], value: Any) -> Any:
    """Pays for what an operation inside a comprehension may cost, and gives the value back."""
    kind = type(value)
    if kind is str:
        budget[0] -= 1 + (len(value) >> 6)
    elif kind is list or kind is dict:
        budget[0] -= 1
        if budget[0] >= 0:
            for item in value if kind is list else value.values():
                charge(budget, item)
    else:
        budget[0] -= 1
    if budget[0] < 0:
        raise Fault(f"more than {STEPS_MAX} steps in comprehensions")
    return value


def each(budget: list[int], value: Any) -> list[Any]:
    """What a comprehension goes through: a list, or the keys of an object."""
    if type(value) is not list and type(value) is not dict:
        raise Fault("a comprehension needs a list or an object", null=value is None)
    budget[0] -= 1 + len(value)
    if budget[0] < 0:
        raise Fault(f"more than {STEPS_MAX} steps in comprehensions")
    return value if type(value) is list else list(value)


def key(value: Any) -> str:
    if type(value) is not str:
        raise Fault("the keys of an object must be texts", null=value is None)
    return value


def reach(value: Any, *path: str | int) -> Any:
    """The field at the path, or None where anything on the way is missing or null."""
    for step in path:
        try:
            value = value[step]
        except (KeyError, TypeError, IndexError):
            return None
    return value


def reach_or_absent(value: Any, *path: str | int) -> Any:
    """The field at the path, null included, or ABSENT where it is missing."""
    for step in path:
        try:
            value = value[step]
        except (KeyError, TypeError, IndexError):
            return ABSENT
    return value


def absent_if_null(value: Any) -> Any:
    return ABSENT if value is None else value


def reach_optional(value: Any, *path: str | int) -> Any:
    value = reach(value, *path)
    return ABSENT if value is None else value


def otherwise(value: Any, default: Any) -> Any:
    return default if value is None else value


def otherwise_do(value: Any, default: Callable[[], Any]) -> Any:
    return default() if value is None else value


def drop(made: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Leaves out those of the named fields that are absent."""
    for name in names:
        if made.get(name) is ABSENT:
            del made[name]
    return made


def drop_items(made: list[Any]) -> list[Any]:
    return [item for item in made if item is not ABSENT]


_HELPERS: dict[str, Any] = {
    "__builtins__": {},
    "ABSENT": ABSENT,
    "add": operations.add,
    "subtract": operations.subtract,
    "multiply": operations.multiply,
    "divide": operations.divide,
    "floor_divide": operations.floor_divide,
    "modulo": operations.modulo,
    "negative": operations.negative,
    "positive": operations.positive,
    "text_of": operations.text_of,
    "charge": charge,
    "each": each,
    "key": key,
    "reach": reach,
    "reach_or_absent": reach_or_absent,
    "reach_optional": reach_optional,
    "absent_if_null": absent_if_null,
    "otherwise": otherwise,
    "otherwise_do": otherwise_do,
    "drop": drop,
    "drop_items": drop_items,
    **{f"f_{name}": entry.call for name, entry in FUNCTIONS.items() if entry.call},
    **{f"m_{name}": entry.call for name, entry in METHODS.items() if entry.call},
}


@dataclass(slots=True)
class Unit:
    """Collects the sites of the expressions that become one function; `compile` makes it."""

    sites: list[Site] = field(default_factory=list)
    references: list[Reference] = field(default_factory=list)
    conditionals: list[Conditional] = field(default_factory=list)
    watched: bool = False
    """Remember the outcomes of conditionals: tests beside rules ask for them, the service does not pay for it."""
    names_used: set[str] = field(default_factory=set)
    needs_budget: bool = False
    where: str = ""

    def site(self, site: Site) -> int:
        """The line on which the operation is to stand."""
        self.sites.append(site)
        return len(self.sites)

    def condition(self, made: ast.expr, conditional: Conditional) -> ast.expr:
        """The compiled condition of an `a if c else b`."""
        self.conditionals.append(conditional)
        if not self.watched:
            return made
        index = ast.Constant(len(self.conditionals) - 1)
        return ast.Call(ast.Name("seen", ast.Load()), [index, made], [])

    def compile(self, body: ast.expr, names: dict[str, str]) -> Callable[[Any], Any]:
        """A function of one argument, the scope; `names` maps each usable name to the scope's attribute."""
        statements: list[ast.stmt] = []
        for name in sorted(self.names_used):
            attribute = ast.Attribute(ast.Name("scope", ast.Load()), names[name], ast.Load())
            statements.append(ast.Assign([ast.Name(f"n_{name}", ast.Store())], attribute))
        if self.needs_budget:
            steps = ast.List([ast.Constant(STEPS_MAX)], ast.Load())
            statements.append(ast.Assign([ast.Name("budget", ast.Store())], steps))
        statements.append(ast.Return(body))
        arguments = ast.arguments([], [ast.arg("scope")], None, [], [], None, [])
        function = ast.FunctionDef("evaluate", arguments, statements, [], None, None)
        if hasattr(function, "type_params"):  # Python 3.12
            function.type_params = []
        module = ast.Module([function], [])
        _place(module, 1)
        space = dict(_HELPERS)
        space["guard"] = self._guard
        space["guard_missing"] = self._guard_missing
        space["seen"] = self._seen
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # e.g. that 1(2) is never callable: it is refused before this
            try:
                code = compile(module, _FILE, "exec", dont_inherit=True)
            except (RecursionError, MemoryError, SyntaxError, ValueError):
                raise ExpressionError("MB134", "the expression is nested too deeply") from None
            exec(code, space)  # noqa: S102  # made of nodes that were built here
        made: Callable[[Any], Any] = space["evaluate"]
        return made

    def error(self, raised: Exception) -> RuleError:
        """What was raised by the function made here, told without a traceback and without the event's values."""
        site, direct = self._find(raised)
        prefix = f"{site.where}: " if site.where else ""
        if direct and site.path and isinstance(raised, (KeyError, IndexError)):
            return MissingField(f"{prefix}{site.path} is missing", site.path)
        if direct and site.reads_field and isinstance(raised, TypeError):
            return MissingField(f"{prefix}{site.path} is missing", site.path)
        if isinstance(raised, Fault) and raised.missing:
            return MissingField(f"{prefix}{site.text} is missing", site.path or site.text)
        fault = _fault_of(raised)
        hint = "; null can be caught with default(x, y)" if fault.null else ""
        at = f" in {site.text}" if site.text else ""
        return RuleError(f"{prefix}{fault}{at}{hint}", site.path)

    def _find(self, raised: Exception) -> tuple[Site, bool]:
        """The innermost site on the way to the fault, and whether the fault is Python's own at that place."""
        site, direct = Site(""), False
        trace = raised.__traceback__
        while trace is not None:
            direct = trace.tb_frame.f_code.co_filename == _FILE
            if direct and 0 < trace.tb_lineno <= len(self.sites):
                site = self.sites[trace.tb_lineno - 1]
            trace = trace.tb_next
        return site, direct

    def _seen(self, index: int, value: Any) -> Any:
        self.conditionals[index].outcomes.add(bool(value))
        return value

    def _guard(self, thunk: Callable[[], Any]) -> Any:
        """The value, or None where it is missing or cannot be made because something in it is null."""
        try:
            return thunk()
        except Exception as raised:
            if isinstance(self.error(raised), MissingField) or _fault_of(raised).null:
                return None
            raise

    def _guard_missing(self, thunk: Callable[[], Any]) -> Any:
        """The value, or ABSENT where a field that it needs is missing."""
        try:
            return thunk()
        except Exception as raised:
            if isinstance(self.error(raised), MissingField):
                return ABSENT
            raise


def _fault_of(raised: Exception) -> Fault:
    if isinstance(raised, Fault):
        return raised
    if isinstance(raised, TypeError):
        return from_type_error(raised)
    if isinstance(raised, RecursionError):
        return Fault("the value is nested too deeply")
    if isinstance(raised, ValueError):
        return Fault("the item does not have as many parts as there are names")  # only unpacking raises it
    return Fault("the value cannot be computed")


def _place(node: ast.AST, line: int) -> None:
    """Gives every node its line: its own where it has one, else its parent's."""
    line = getattr(node, "lineno", None) or line
    if isinstance(node, (ast.expr, ast.stmt, ast.arg)):
        node.lineno = node.end_lineno = line
        node.col_offset = node.end_col_offset = 0
    for child in ast.iter_child_nodes(node):
        _place(child, line)
