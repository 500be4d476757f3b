"""Expressions and templates under random input: declared errors only, results bounded, rendering as a naive model."""

# ruff: noqa: E501  # tables read better with one case per line

from __future__ import annotations

import contextlib
import sys
import tracemalloc
from types import FrameType
from typing import Any

import orjson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.errors import MissingField, RuleError
from bridge.model import Event, Record
from bridge.rules import ExpressionError, compile_expression, compile_template
from bridge.rules.functions import FUNCTIONS, METHODS
from bridge.rules.scan import parts
from bridge.rules.unit import STEPS_MAX
from tests.support.amount import examples

SETTINGS = settings(max_examples=examples(300), deadline=None, suppress_health_check=[HealthCheck.too_slow])

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abcx") | st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def event_of(data: Any) -> Event:
    record = Record("t", 0, 7, 5, b"k", b"", (("h", b"v"),))
    return Event(id="1", type="user.x", time="2026-01-02T03:04:05Z", time_wall_seconds=0.0, data=data, record=record)


def is_plain(value: Any) -> bool:
    """Nothing but JSON can come out: no function, no object, no type of Python's."""
    if type(value) is dict:
        return all(type(key) is str and is_plain(item) for key, item in value.items())
    if type(value) is list:
        return all(is_plain(item) for item in value)
    return value is None or type(value) in (bool, int, float, str)


def run(text: str, data: Any) -> None:
    """Compiles and evaluates; anything but a plain value or a declared error fails the test."""
    try:
        expression = compile_expression(text)
    except ExpressionError as error:
        assert 0 <= error.offset <= len(text) and "\n" not in error.message
        return
    try:
        value = expression.evaluate(event_of(data))
    except RuleError as error:
        assert error.message
        return
    assert is_plain(value), value
    orjson.dumps(value)


pieces = st.sampled_from(
    [
        *"()[]{}.,:+-*/%<>=!'\"#\\$@;&|~^ \n\t0123456789",
        "data", "data.a", "event.type", "event", "headers", "key", "true", "null", "and", "or", "not", "in", "is", "if",
        "else", "for", "lambda", "x", "==", "!=", "**", "<<", ":=", "f'", "'a'", "''", '"', "...", "1e308", "__class__",
        "__import__", "import", "yield", "await", "async", "None", "é", "\u00a0", "\ud800", "𝒹ata", "ﬁ", "0x", "1_", "1.", ".5",
        "data.from", "data['a']", "[x for x in data.a]", "{'a': 1}", "optional(", "default(", "has(",
        *FUNCTIONS, *METHODS,
    ]
)  # fmt: skip


@SETTINGS
@given(
    st.text(max_size=40) | st.lists(pieces, max_size=14).map("".join) | st.lists(pieces, max_size=9).map(" ".join),
    json_values,
)
def test_random_text_is_refused_or_evaluates_to_a_plain_value(text: str, data: Any) -> None:
    run(text, data)


atoms = st.sampled_from(
    ["data", "data.a", "data.b", "data.a.b", "data.c[0]", "data.x['a']", "event.time", "headers.h", "offset", "key", "1", "-2",
     "2.5", "0", "'a'", "''", "'2026-01-02'", "true", "null", "[]", "{}", "'1d'", "x"]
)  # fmt: skip


def _combine(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    def call(draw_from: dict[str, Any], method: bool) -> st.SearchStrategy[str]:
        def build(name: str) -> st.SearchStrategy[str]:
            fewest, most = draw_from[name].arguments
            arguments = st.lists(inner, min_size=fewest, max_size=min(most, 3)).map(", ".join)
            if method:
                return st.builds(lambda base, args: f"({base}).{name}({args})", inner, arguments)
            return arguments.map(lambda args: f"{name}({args})")

        return st.sampled_from(sorted(draw_from)).flatmap(build)

    binary = st.sampled_from(
        ["+", "-", "*", "/", "//", "%", "==", "!=", "<", "<=", ">", ">=", "in", "not in", "and", "or"]
    )
    return st.one_of(
        st.builds(lambda a, op, b: f"({a} {op} {b})", inner, binary, inner),
        st.builds(lambda a, b, c: f"({a} if {b} else {c})", inner, inner, inner),
        st.builds(lambda a: f"(not {a})", inner),
        st.builds(lambda a: f"(-{a})", inner),
        st.builds(lambda a, b: f"{a}[{b}]", inner, inner),
        st.builds(lambda a, b: f"{a}[{b}:]", inner, inner),
        st.builds(lambda a, b: f"[{a}, {b}]", inner, inner),
        st.builds(lambda a, b, c: f"{{{a}: {b}, 'k': {c}}}", inner, inner, inner),
        st.builds(lambda a, b, c: f"[{a} for x in {b} if {c}]", inner, inner, inner),
        st.builds(lambda a, b: f"[{a} for x, y in {b}]", inner, inner),
        st.builds(lambda a, b, c: f"{{{a}: {b} for x in {c}}}", inner, inner, inner),
        call(FUNCTIONS, method=False),
        call(METHODS, method=True),
    )


@SETTINGS
@given(st.recursive(atoms, _combine, max_leaves=10), json_values)
def test_random_expressions_evaluate_to_plain_values_or_declared_errors(text: str, data: Any) -> None:
    run(text, data)


LARGE = {
    "a": "a" * 60_000,
    "b": [*range(5_000)],
    "c": [{"a": "b" * 1_000, "b": [*range(20)]} for _ in range(500)],
    "x": {f"k{number}": number for number in range(3_000)},
}
BYTES_MAX = 64_000_000
"""Some hundred texts of the greatest length that one operation may make."""

large_atoms = st.sampled_from(
    ["data.a", "data.b", "data.c", "data.x", "data.c[1].b", "'a'", "2", "18446744073709551615", "x"]
)


class _Counting:
    """Counts the calls that are made within, of Python's own functions too: work without a clock."""

    def __init__(self) -> None:
        self.calls = 0

    def __enter__(self) -> _Counting:
        self._before = sys.getprofile()
        sys.setprofile(self._count)
        tracemalloc.start()
        return self

    def _count(self, frame: FrameType, event: str, argument: object) -> None:
        self.calls += event in ("call", "c_call")

    def __exit__(self, *_: object) -> None:
        sys.setprofile(self._before)
        self.peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()


@settings(SETTINGS, max_examples=examples(120))
@given(st.recursive(large_atoms, _combine, max_leaves=12))
def test_work_and_memory_are_bounded_on_large_events(text: str) -> None:
    """A rule is somebody's mistake at worst, never an outage: whatever it computes, on an event of a megabyte."""
    try:
        expression = compile_expression(text)
    except ExpressionError:
        return
    event = event_of(LARGE)
    with _Counting() as counted:
        try:
            value = expression.evaluate(event)
        except RuleError:
            value = None
    assert is_plain(value)
    assert counted.peak < BYTES_MAX
    assert counted.calls < 20 * STEPS_MAX


literal_texts = st.text(alphabet=st.sampled_from("ab ${}'\"\\\n"), max_size=12)


@SETTINGS
@given(literal_texts)
def test_any_text_can_be_written_as_a_literal(text: str) -> None:
    """`${` is written `$${`; nothing else has a meaning in a template."""
    template = compile_template(text.replace("${", "$${"))
    assert template.is_literal
    assert template.render(event_of({})) == text


@SETTINGS
@given(st.text(alphabet=st.sampled_from("ab ${}'\"\\()[]."), max_size=20))
def test_random_templates_are_refused_or_rendered(text: str) -> None:
    try:
        template = compile_template(text)
    except ExpressionError as error:
        assert 0 <= error.offset <= len(text)
        return
    with contextlib.suppress(RuleError):
        assert is_plain(template.render(event_of({"a": "b"})))


@st.composite
def mixed(draw: st.DrawFn) -> list[tuple[bool, str]]:
    """Literal texts and expressions in turn, as (is expression, source). A literal that ends in $ would escape."""
    expression = st.sampled_from(
        ["data.a", "'}'", '"${"', "{'a': {'b': 1}}['a']", "[1, [2]][1]", "default(data.q, '{')"]
    )
    literal = st.text(alphabet=st.sampled_from("ab {}'\"\\$"), min_size=1, max_size=5).filter(
        lambda text: not text.endswith("$") and "${" not in text
    )
    found: list[tuple[bool, str]] = []
    for _ in range(draw(st.integers(1, 4))):
        found += [(False, draw(literal)), (True, draw(expression))]
    return found


@SETTINGS
@given(mixed())
def test_a_template_is_split_where_it_was_joined(pieces: list[tuple[bool, str]]) -> None:
    """Braces and quotes inside expressions never end them too early or too late."""
    text = "".join(f"${{{source}}}" if is_expression else source for is_expression, source in pieces)
    assert [(part.is_expression, part.text) for part in parts(text)] == pieces
    for part in parts(text):
        assert text[part.start :].startswith(part.text)


# A naive model of a small subset: trees are interpreted directly, and written out for the compiler.

Tree = Any
paths = st.lists(st.sampled_from(["a", "b", "from"]), min_size=1, max_size=3).map(lambda steps: ("path", *steps))
trees = st.recursive(
    paths | st.sampled_from([("value", value) for value in (0, 1, 2, "x", None, True)]),
    lambda inner: st.one_of(
        st.tuples(st.just("=="), inner, inner),
        st.tuples(st.just("and"), inner, inner),
        st.tuples(st.just("or"), inner, inner),
        st.tuples(st.just("not"), inner),
        st.tuples(st.just("if"), inner, inner, inner),
        st.tuples(st.just("list"), inner, inner),
        st.tuples(st.just("default"), inner, inner),
        st.tuples(st.just("has"), inner),
    ),
    max_leaves=8,
)


class _Gone(Exception):
    pass


def naive(tree: Tree, data: Any) -> Any:
    """What a tree means, by the book."""
    kind, *rest = tree
    if kind == "value":
        return rest[0]
    if kind == "path":
        found = data
        for n, step in enumerate(rest):
            if type(found) is not dict or step not in found:
                raise _Gone(".".join(["data", *rest[: n + 1]]))
            found = found[step]
        return found
    if kind == "==":
        return naive(rest[0], data) == naive(rest[1], data)
    if kind == "and":
        return naive(rest[0], data) and naive(rest[1], data)
    if kind == "or":
        return naive(rest[0], data) or naive(rest[1], data)
    if kind == "not":
        return not naive(rest[0], data)
    if kind == "if":
        return naive(rest[1], data) if naive(rest[0], data) else naive(rest[2], data)
    if kind == "list":
        return [naive(rest[0], data), naive(rest[1], data)]
    try:
        found = naive(rest[0], data)
    except _Gone:
        found = None
    if kind == "has":
        return found is not None
    return naive(rest[1], data) if found is None else found


def written(tree: Tree) -> str:
    kind, *rest = tree
    if kind == "value":
        return (
            {None: "null", True: "true"}.get(rest[0], repr(rest[0]))
            if rest[0] is None or rest[0] is True
            else repr(rest[0])
        )
    if kind == "path":
        return ".".join(["data", *rest])
    inner = [written(part) for part in rest]
    if kind in ("==", "and", "or"):
        return f"({inner[0]} {kind} {inner[1]})"
    if kind == "not":
        return f"(not {inner[0]})"
    if kind == "if":
        return f"({inner[1]} if {inner[0]} else {inner[2]})"
    if kind == "list":
        return f"[{inner[0]}, {inner[1]}]"
    return f"{kind}({', '.join(inner)})"


nested = st.recursive(
    st.sampled_from([0, 1, "x", None, True, []]),
    lambda inner: st.dictionaries(st.sampled_from(["a", "b", "from"]), inner, max_size=3),
    max_leaves=8,
)


@SETTINGS
@given(trees, nested)
def test_compiled_code_means_what_a_naive_interpreter_means(tree: Tree, data: Any) -> None:
    try:
        expected = naive(tree, data)
    except _Gone as gone:
        expected_path = str(gone)
        try:
            compile_expression(written(tree)).evaluate(event_of(data))
        except MissingField as error:
            assert error.path == expected_path
            return
        raise AssertionError(f"{expected_path} should be missing") from None
    made = compile_expression(written(tree)).evaluate(event_of(data))
    assert made == expected and type(made) is type(expected)
