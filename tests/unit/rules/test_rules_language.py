"""The expression language: what it gives, what it refuses, and how it tells."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.errors import MissingField, RuleError
from bridge.rules import ExpressionError, compile_expression
from bridge.rules.functions import FUNCTIONS, METHODS

DATA: dict[str, Any] = {
    "plan": "pro",
    "plans": ["free", "pro"],
    "nothing": None,
    "amount": 1250,
    "from": "a",
    "class": {"in": 3},
    "first name": "Ada",
    "élan": "é",
    "items": [{"sku": "a", "q": 2}, {"sku": "b", "q": 0}],
    "empty": [],
    "secret": "hunter2@example.com",
}


@pytest.fixture
def value(make_event: Any) -> Any:
    return lambda text: compile_expression(text).evaluate(make_event(**DATA))


EXAMPLES = [(text, result) for entry in (*FUNCTIONS.values(), *METHODS.values()) for text, result in entry.examples]


@pytest.mark.parametrize(("text", "result"), EXAMPLES)
def test_every_documented_example_gives_what_it_says(value: Any, text: str, result: Any) -> None:
    made = value(text)
    assert made == result and type(made) is type(result)


def test_every_function_has_documentation_and_an_example() -> None:
    for entry in (*FUNCTIONS.values(), *METHODS.values()):
        assert entry.doc and entry.signature and entry.examples, entry.name


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ('data.plan != "internal"', True),
        ("data.from", "a"),
        ("data.class.in + 1", 4),
        ('data["first name"]', "Ada"),
        ("data.élan", "é"),
        ("data.items[-1].sku", "b"),
        ("data.items[0]['q']", 2),
        ("data['pl' + 'an']", "pro"),
        ("data.plan[1:]", "ro"),
        ("data.plans[:1]", ["free"]),
        ("event.type", "user.signed_up"),
        ("event.data.plan", "pro"),
        ("event.source", "app"),
        ("event.subject", None),
        ("[key, topic, partition, offset, timestamp]", ["k1", "user-events", 3, 41, 1_767_323_045_000]),
        ("headers.tenant", "acme"),
        ("true and not false and null == null", True),
        ("1 < 2 <= 2 != 3", True),
        ("data.plan in ['free', 'pro'] and data.plan not in data.empty", True),
        ("'a' if data.amount > 1000 else 'b'", "a"),
        ("data.amount // 100 + data.amount % 100 / 2 - -1", 12 + 25 + 1),
        ("('x', 1)", ["x", 1]),
        ("{'a': 1, data.plan: 2}", {"a": 1, "pro": 2}),
        ("[i.sku for i in data.items if i.q > 0]", ["a"]),
        ("[p + i.sku for i in data.items for p in data.plans]", ["freea", "proa", "freeb", "prob"]),
        ("{k: v for k, v in items({'a': 1})}", {"a": 1}),
        ("[k for k in {'a': 1}]", ["a"]),
        ("any(i.q == 2 for i in data.items)", True),
        ("{'a': optional(data.absent), 'b': 1}", {"b": 1}),
        ("[optional(data.nothing), 2]", [2]),
        ("  data.plan  ", "pro"),
        ("data.plan\n  ==\n'pro'", True),
        ("'}' + \"'\"", "}'"),
        (r"'a\tb'", "a\tb"),
        ("'a\u00a0b'", "a\u00a0b"),
    ],
)
def test_expressions_mean_what_python_means(value: Any, text: str, result: Any) -> None:
    assert value(text) == result


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("data.absent", "data.absent"),
        ("data.plan.absent", "data.plan.absent"),
        ("data.nothing.deep.er", "data.nothing.deep"),
        ("data.absent == null", "data.absent"),
        ("data.items[7].sku", "data.items[7]"),
        ("data.empty[0]", "data.empty[0]"),
        ('data["last name"]', 'data["last name"]'),
        (r'data["a\n\"b"]', 'data["a\\n\\"b"]'),
        ("[i.price for i in data.items]", "data.items[].price"),
        ("event.data.absent", "data.absent"),
        ("headers.absent", "headers.absent"),
        ("data[data.plan]", "data[data.plan]"),
        ("1 + data.absent.lower()", "data.absent"),
        ("first(data.empty)", "data.empty"),
        ("data.from_", "data.from_"),
        ("data.class.import", "data.class.import"),
    ],
)
def test_a_missing_field_is_named_by_its_path(value: Any, text: str, path: str) -> None:
    with pytest.raises(MissingField) as caught:
        value(text)
    assert caught.value.path == path


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("default(data.absent.deep, 1)", 1),
        ("default(data.nothing, 1)", 1),
        ("default(data.absent, data.plan)", "pro"),
        ("default(data.absent, default(data.nothing, 'x'))", "x"),
        ("default(data.plan, data.absent)", "pro"),
        ("default(data.absent.lower(), 1)", 1),
        ("default(data.nothing + 1, 2)", 2),
        ("default(data.nothing > 1, false)", False),
        ("default(iso(data.nothing), 'never')", "never"),
        ("default(data.items[9].sku, 'none')", "none"),
        ("optional(data.absent)", None),
        ("optional(data.absent) == null", True),
        ("has(data.plan)", True),
        ("has(data.nothing)", False),
        ("has(data.plan.deep)", False),
        ("has(data.items[1]) and not has(data.items[2])", True),
        ("[default(i.price, 0) for i in data.items]", [0, 0]),
        ("default(false, true)", False),
    ],
)
def test_optional_default_and_has_take_missing_and_null_as_absent(value: Any, text: str, result: Any) -> None:
    assert value(text) == result


@pytest.mark.parametrize(
    "text",
    ["default(data.plan + 1, 2)", "optional(1 / 0)", "has(int(data.plan))", "default(data.plan < 1, 0)"],
)
def test_optional_default_and_has_do_not_hide_other_faults(value: Any, text: str) -> None:
    with pytest.raises(RuleError) as caught:
        value(text)
    assert not isinstance(caught.value, MissingField)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("data.nothing + 1", "cannot add null and a number in data.nothing + 1"),
        ("data.secret < 1", "cannot compare a text with a number in data.secret < 1"),
        ("data.amount / 0", "division by zero in data.amount / 0"),
        ("1 in data.amount", "cannot look for something in a number"),
        ("1 in data.secret", "only a text can be looked for in a text"),
        ("data.items in {}", "a list or an object cannot be a key"),
        ("int(data.secret)", "the text is not a whole number in int(data.secret)"),
        ("sum(data.plans)", "cannot add up a text"),
        ("data.amount.lower()", "cannot use lower on a number"),
        ("iso(data.secret)", "the text is not an ISO 8601 time"),
        ("[a for a, b in [1, 2]]", "the values have the wrong types in a, b"),
        ("[a for a, b in [[1]]]", "as many parts as there are names"),
        ("[c for c in data.secret]", "a comprehension needs a list or an object"),
        ("data.secret['a' + 'b']", "indexed by whole numbers"),
        ("{data.amount: 1}", "the keys of an object must be texts"),
        ("-data.secret", "cannot negate a text"),
        ("sorted([1, 'a'])", "cannot compare a number with a text"),
        ("min([])", "the smallest of an empty list"),
        ("'a'.replace('', data.secret * 2)", "cannot multiply a text and a number"),
    ],
)
def test_a_fault_is_told_by_kinds_of_values_never_by_values(value: Any, text: str, told: str) -> None:
    with pytest.raises(RuleError) as caught:
        value(text)
    message = caught.value.message
    assert told in message
    assert "hunter2" not in message and "Traceback" not in message and "NoneType" not in message


def test_a_fault_names_the_only_field_it_is_about(value: Any) -> None:
    with pytest.raises(RuleError) as caught:
        value("data.plan == 'pro' and data.amount > data.amount.x or data.nothing > 100")
    assert caught.value.path == "data.amount.x"
    with pytest.raises(RuleError) as caught:
        value("data.nothing > 100")
    assert caught.value.path == "data.nothing"


@pytest.mark.parametrize(
    ("text", "code", "column", "part"),
    [
        ("dta.plan", "MB131", 1, "data"),
        ("data.plan == 'a' and evnt.type", "MB131", 22, "event"),
        ("event.tpye", "MB131", 1, "type"),
        ("event", "MB131", 1, "event.type"),
        ("value.id", "MB131", 1, "unknown name value"),
        ("data.first-name", "MB131", 12, "hyphen"),
        ("1 + lenn(data.x)", "MB132", 5, "len"),
        ("lower(data.x)", "MB132", 1, "text.lower()"),
        ("data.plan.lowr()", "MB132", 1, "lower"),
        ("data.plan.len()", "MB132", 1, "len(x)"),
        ("data.plan.format()", "MB132", 1, "unknown method"),
        ("len", "MB132", 1, "len(x)"),
        ("len()", "MB135", 1, "1 argument"),
        ("default(data.x)", "MB135", 1, "default(x, y)"),
        ("round(1, digits=2)", "MB133", 1, "order"),
        ("data.plan =", "MB130", 11, "=="),
        ("data.plan ==", "MB130", 13, "ends too early"),
        ("data.plan = 1", "MB130", 11, "=="),
        ("data.a && data.b", "MB130", 8, "and"),
        ("data.a || data.b", "MB130", 8, "or"),
        ("!data.a", "MB130", 1, "not"),
        ("data?.a", "MB130", 5, "optional"),
        ("'é' == dta", "MB131", 8, "data"),
        ("'é'\u00a0\u2003== dta", "MB131", 9, "data"),
        ("\u00a0data.a == dta", "MB131", 12, "data"),
        (r"data['\udfff']", "MB133", 6, "surrogate"),
        ("${data.a}", "MB130", 1, "without ${ }"),
        ("data.a # c", "MB130", 8, "comments"),
        ("data.a == 'x", "MB130", 11, "quote"),
        ("(data.a", "MB130", 1, "never closed"),
        ("data.a)", "MB130", 7, "without its opening"),
        ("(data.a]", "MB130", 8, "write )"),
        ("", "MB130", 1, "empty"),
        ("   ", "MB130", 1, "empty"),
        ("data.a is null", "MB133", 1, "== null"),
        ("2 ** 9", "MB133", 1, "x * x"),
        ("1 << 9", "MB133", 1, "operator"),
        ("~1", "MB133", 1, "not"),
        ("lambda: 1", "MB133", 1, "lambda"),
        ("(lambda: 1)()", "MB132", 1, "only functions"),
        ("f'{data.a}'", "MB133", 1, "f-string"),
        ("b'a'", "MB133", 1, "prefix"),
        ("'''a'''", "MB133", 1, "triple"),
        ("{1, 2}", "MB133", 1, "list"),
        ("{1: 2}", "MB133", 2, "quotes"),
        ("{**data.a}", "MB133", 4, "**"),
        ("[*data.a]", "MB133", 2, "+"),
        ("len(*data.a)", "MB133", 1, "*"),
        ("(x := 1)", "MB133", 2, "=="),
        ("1j", "MB133", 1, "1j"),
        ("...", "MB133", 1, "..."),
        ("1e999", "MB133", 1, "too large"),
        ("99999999999999999999", "MB133", 1, "too large"),
        (r"'\ud800'", "MB133", 1, "surrogate"),
        ("[data for data in data.a]", "MB133", 11, "another name"),
        ("[x for x.y in data.a]", "MB133", 8, "plain names"),
        ("[x async for x in data.a]", "MB13", 1, ""),
        ("data.a[::2]", "MB133", 10, "step"),
        ("await data", "MB13", 1, ""),
        ("yield", "MB13", 1, ""),
        ("import os", "MB130", 1, ""),
        ("__import__('os')", "MB132", 1, "unknown function"),
        ("().__class__.__bases__[0].__subclasses__()", "MB132", 1, "unknown method"),
        ("data.__class__.__init__.__globals__()", "MB132", 1, "unknown method"),
        ("n_data", "MB131", 1, ""),
        ("scope.record", "MB131", 1, ""),
        ("budget", "MB131", 1, ""),
    ],
)
def test_a_mistake_is_told_with_its_column_and_what_to_write(text: str, code: str, column: int, part: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_expression(text)
    error = caught.value
    assert error.code.startswith(code), str(error)
    assert part in f"{error.message} {error.hint}"
    if len(code) == 5:
        assert error.offset + 1 == column, str(error)
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    "text",
    ["data.__class__", "data.plan.__class__", "headers.__init__", "data.items[0].__dict__", "event.data.__len__"],
)
def test_no_attribute_of_a_python_object_can_be_reached(value: Any, text: str) -> None:
    with pytest.raises(MissingField):
        value(text)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 100 + "1" + ")" * 100,
        "-" * 3_000 + "1",
        "not " * 900 + "1",
        "[" * 39 + "1" + "]" * 39 + "+1" * 500,
        "data" + ".a" * 1_900,
        "1" + "+1" * 1_500,
        "a if b else " * 300 + "c",
        "[" + "1," * 1_900 + "]",
        "'" + "a" * 5_000 + "'",
        "default(1," * 39 + "1" + ")" * 39 + " or 1" * 800,
    ],
)
def test_what_is_too_large_is_refused_when_it_is_compiled(text: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_expression(text)
    assert caught.value.code == "MB134"


@pytest.mark.parametrize(
    "text",
    [
        "[1 for a in data.many for b in data.many]",
        "[a for a in data.many if data.many == data.same]",
        "[data.many for a in data.many]",
        "[sorted(data.many) for a in data.many]",
        "[a in data.many for a in data.many]",
        "[data.many[1:][0] for a in data.many]",
        "[data.many for a in data.many if data.many] == []",
        "{str(a): data.many for a in data.many}",
        "[[b for b in data.many] for a in data.many]",
        "any(any(b == a for b in data.many) for a in data.many)",
    ],
)
def test_comprehensions_stop_at_their_budget(make_event: Any, text: str) -> None:
    """Whatever a comprehension repeats is paid for by its size, so work stays bounded however rules are nested."""
    event = make_event(many=list(range(2_000)), same=list(range(2_000)))
    with pytest.raises(RuleError, match="more than 100000 steps"):
        compile_expression(text).evaluate(event)


def test_an_ordinary_comprehension_is_within_the_budget(make_event: Any) -> None:
    event = make_event(items=[{"sku": f"s{n}", "q": n} for n in range(500)])
    made = compile_expression("[i.sku.upper() for i in data.items if i.q % 2 == 0]").evaluate(event)
    assert len(made) == 250


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("data.long + data.long", "longer than"),
        ("data.long.replace('a', data.long)", "longer than"),
        ("data.long.join(data.parts)", "longer than"),
        ("data.huge * data.huge", "too large"),
        ("data.huge + data.huge + data.huge", "too large"),
        ("data.float * 10", "too large"),
        ("float('nan')", "too large"),
        ("int(data.float * 1.0)", "too large"),
        ("round(data.huge, 400)", "digits"),
        ("fixed(1, 400)", "digits"),
        ("int('9' * 2)", "cannot multiply"),
        ("iso(1e300)", "not a time"),
        ("later(event.time, '99999999999d')", "out of range"),
    ],
)
def test_what_an_operation_makes_is_bounded(make_event: Any, text: str, told: str) -> None:
    event = make_event(long="a" * 60_000, parts=["b"] * 10, huge=2**63, float=1e308)
    with pytest.raises(RuleError, match=told):
        compile_expression(text).evaluate(event)


def test_the_fields_that_an_expression_names_are_known_without_an_event() -> None:
    text = "data.plan == event.type or has(data.a.b) and any(i.sku for i in data.items) or headers['x-y'] == key"
    found = {(reference.path, reference.guarded) for reference in compile_expression(text).references}
    assert found == {
        ("data.plan", False),
        ("event.type", False),
        ("data.a.b", True),
        ("data.items", False),
        ("data.items[].sku", False),
        ('headers["x-y"]', False),
        ("key", False),
    }


def test_a_reference_knows_where_it_stands() -> None:
    text = "1 + data.plan"
    (reference,) = compile_expression(text).references
    assert text[reference.offset :] == "data.plan"


def test_faults_are_told_without_python_keeping_columns(make_event: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -X no_debug_ranges` drops columns; the path must not depend on them, so each operation has a line."""
    expression = compile_expression("data.plan == 'a' or data.b.c")
    lines = {line for _, _, line in expression.run.__code__.co_lines()}
    assert len(lines) >= 3
    with pytest.raises(MissingField, match=r"data\.b is missing"):
        expression.evaluate(make_event(plan="b"))
