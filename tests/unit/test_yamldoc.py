"""Reading YAML: values, places, and a defined answer to whatever else stands in a file."""

from __future__ import annotations

import math
from typing import Any

import pytest

from bridge.errors import Problem
from bridge.yamldoc import DEPTH_MAX, Dialect, Node, json_scalar, parse, scalar

DIALECT = Dialect("SYNTAX", "DUPLICATE", "TAG", "STRUCTURE", "LARGE", values_max=1_000)


def tree(text: str) -> Node:
    root, problems = parse(text, "f", DIALECT)
    assert not problems, problems
    assert root is not None
    return root


def only(text: str) -> Problem:
    _, problems = parse(text, "f", DIALECT)
    assert len(problems) == 1, problems
    return problems[0]


def marked(text: str) -> tuple[str, tuple[int, int]]:
    """The text without its mark ^, and the line and column that it marks."""
    before, after = text.split("^")
    return before + after, (before.count("\n") + 1, len(before.rsplit("\n", 1)[-1]) + 1)


def called_from(depth: int, text: str) -> Any:
    """What the parser says when it is called with so many frames on the stack."""
    if depth:
        return called_from(depth - 1, text)
    root, problems = parse(text, "f", DIALECT)
    return problems if root is None else root.plain()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"), ("2026-01-01", "2026-01-01"), ("010", 10), ("0o17", 15), ("0x1F", 31), ("+1", 1), ("-2e3", -2e3),
        (".5", 0.5), ("1_000", "1_000"), ("", None), ("~", None), ("Null", None), ("True", True), ("tRUE", "tRUE"),
        ("=", "="), ("<<", "<<"), ("9" * 401, "9" * 401), ("-.inf", -math.inf), ("1e999", math.inf),
    ],
)  # fmt: skip
def test_scalars_mean_what_the_core_schema_of_yaml_1_2_says(text: str, value: Any) -> None:
    assert scalar(text) == value
    assert type(scalar(text)) is type(value)
    assert tree(f"a: {text}").plain() == {"a": value} or text == "<<"


def test_not_a_number_is_one_scalar() -> None:
    value = scalar(".nan")
    assert isinstance(value, float) and math.isnan(value)


@pytest.mark.parametrize("text", ["1e999", "-.inf", ".nan", str(2**64), str(-(2**63) - 1), "9" * 300])
def test_a_number_that_json_cannot_carry_stays_text_where_values_become_json(text: str) -> None:
    assert json_scalar(text) == text


@pytest.mark.parametrize(("text", "value"), [(str(2**64 - 1), 2**64 - 1), (str(-(2**63)), -(2**63)), ("1e3", 1000.0)])
def test_a_number_that_json_can_carry_is_one(text: str, value: Any) -> None:
    assert json_scalar(text) == value


@pytest.mark.parametrize("text", ["'12'", '"12"', "|-\n  12", ">-\n  12", "!!str 12"])
def test_a_number_in_quotes_or_blocks_is_text(text: str) -> None:
    assert tree(f"a: {text}\n").plain() == {"a": "12"}


def test_escaped_surrogate_pairs_are_one_character_as_in_json() -> None:
    assert tree('"\\ud83d\\ude00!"').plain() == "\U0001f600!"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: &x {p: 1}\nb: *x", {"a": {"p": 1}, "b": {"p": 1}}),
        ("&k a: 1\nb: {*k : 2}", {"a": 1, "b": {"a": 2}}),
        ("x: &x {p: 1, q: 2}\na: {<<: *x, q: 3}", {"x": {"p": 1, "q": 2}, "a": {"q": 3, "p": 1}}),
        ("x: &x {p: 1}\ny: &y {p: 2, r: 4}\na: {q: 3, <<: [*x, *y]}",
         {"x": {"p": 1}, "y": {"p": 2, "r": 4}, "a": {"q": 3, "p": 1, "r": 4}}),
        ('a: {"<<": 1}', {"a": {"<<": 1}}),
        ("? a\n: 1\n? b\n", {"a": 1, "b": None}),
        ("1: a\nnull: b\n~: c\n", {"1": "a", "null": "b", "~": "c"}),
        ("- 1\n-\n- [2, {a: }]\n", [1, None, [2, {"a": None}]]),
        ("\ufeffa: 1", {"a": 1}),
        ("--- a\n...\n", "a"),
    ],
)  # fmt: skip
def test_anchors_merges_and_keys(text: str, value: Any) -> None:
    assert tree(text).plain() == value


@pytest.mark.parametrize("text", ["", "# a comment\n"])
def test_nothing_is_no_tree_and_no_problem(text: str) -> None:
    assert parse(text, "f", DIALECT) == (None, [])


def test_what_an_alias_stands_for_can_be_changed_alone() -> None:
    """An override of one topic must not change the other that shares its anchor."""
    root = tree("a: &x {p: {q: 1}}\nb: *x\n")
    below = root.value["b"].value["p"]  # type: ignore[index,call-overload,union-attr]
    below.value["q"].value = 2
    assert root.plain() == {"a": {"p": {"q": 1}}, "b": {"p": {"q": 2}}}


def test_every_value_and_key_knows_its_place() -> None:
    root = tree("a: 1\nb:\n  - c\n  - d: [x]\ne:\nf: &y\n  g: *z\n".replace("*z", "1"))
    values = root.value
    assert isinstance(values, dict)
    places = {key: (node.key_place[1:], node.place[1:]) for key, node in values.items()}
    assert places == {
        "a": ((1, 1), (1, 4)),
        "b": ((2, 1), (3, 3)),
        "e": ((5, 1), (5, 4)),  # where a value would be written
        "f": ((6, 1), (6, 4)),
    }
    items = values["b"].value
    assert isinstance(items, list)
    assert [(item.place[1:], item.key_place[1:]) for item in items] == [((3, 5), (3, 5)), ((4, 5), (4, 5))]


@pytest.mark.parametrize(
    "text",
    [
        "a: ab^cd",
        "a: 'ab''^cd'",
        'a: "a\\u0062^cd"',
        'a: "\\ud83d\\ude00b^cd"',
        'a: "a\\\n  b^cd"',
        "a: &x ab^cd",
        "a: !!str ab^cd",
        "a: |\n  ab\n  ^cd",
        "a: >-\n  ab\n\n  ^cd",
        "a: ab\n   ^cd",
        "a: é ^cd",
    ],
)
def test_every_character_of_a_scalar_is_found_again(text: str) -> None:
    text, place = marked(text)
    values = tree(text).value
    assert isinstance(values, dict)
    node = values["a"]
    assert isinstance(node.value, str)
    assert node.at(node.value.index("cd"))[1:] == place


@pytest.mark.parametrize(
    ("text", "follows"), [("a: b # c", True), ("a: b", False), ("a: 'b' # c", False), ("a: b#c", False)]
)
def test_a_comment_that_ends_a_scalar_is_noticed(text: str, follows: bool) -> None:
    values = tree(text).value
    assert isinstance(values, dict)
    assert values["a"].comment_follows() is follows


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("a: [1\nb^: 2\n", "SYNTAX", "expected ',' or ']'"),
        ("a:\n^\tb: 1\n", "SYNTAX", "indent with spaces"),
        ("a: 1\nb: c^: d\n", "SYNTAX", "put a text that holds a colon"),
        ("a: 1\n^--- \nb: 2\n", "SYNTAX", "one file holds one document"),
        ("a: ^*b\n", "SYNTAX", "names an anchor"),
        ("a: ^\x00\n", "SYNTAX", "does not allow"),
        ('a: "x^\\UFFFFFFFF"\n', "SYNTAX", "out of range"),
        ('a: ^"\\ud800"\n', "SYNTAX", "half a surrogate pair"),
        ("a: 1\n^a: 2\n", "DUPLICATE", "line 1"),
        ("a: ^!include x\n", "TAG", "quotes"),
        ("a: ^!!set {x}\n", "TAG", "quotes"),
        ("a: ^! x\n", "TAG", "quotes"),
        ("^!x a: 1\n", "TAG", "quotes"),
        ("^{a: b}: c\n", "STRUCTURE", "key must be text"),
        ("? ^[a]\n: {b: [c]}\nd: 1\n", "STRUCTURE", "key must be text"),
        ("a: {<<: ^1}\n", "STRUCTURE", "<< takes"),
        ("a: &a [^*a]\n", "LARGE", "contains itself"),
        ("[" * DEPTH_MAX + "[^[1" + "]" * (DEPTH_MAX + 2), "LARGE", "nested"),
        ("a: &a {b: {c: 1}}\nd: " + "[" * (DEPTH_MAX - 2) + "^*a" + "]" * (DEPTH_MAX - 2), "LARGE", "nested"),
        ("[" + "1, " * 999 + "^1]", "LARGE", "1,000 values"),
    ],
)
def test_a_mistake_has_its_code_and_its_place(text: str, code: str, says: str) -> None:
    text, place = marked(text)
    problem = only(text)
    assert (problem.code, problem.line, problem.column) == (code, *place), str(problem)
    assert says in str(problem)


@pytest.mark.parametrize("text", ["%YAML 1.9\n---\na", "%YAML 2.0\n---\na", "%YAML 1." + "9" * 5_000 + "\n---\na"])
def test_another_version_is_refused_in_one_line(text: str) -> None:
    assert only(text).code == "SYNTAX"


@pytest.mark.parametrize("text", ["a: *hunter2", "a: !hunter2 ", "%TAG !e! x\n--- !hunter2!y z\n", "a: &hunter2! [*b]"])
def test_no_message_holds_a_name_that_may_be_half_of_a_password(text: str) -> None:
    _, problems = parse(text, "f", DIALECT)
    assert problems
    assert "hunter2" not in str(problems)


def test_what_aliases_repeat_counts() -> None:
    """Ten lines can stand for a billion values: neither time nor memory runs out."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    assert (only("\n".join(lines)).code, only("\n".join(lines)).line) == ("LARGE", 3)


@pytest.mark.parametrize(
    "text",
    ["[" * 400, "[\n" * 5_000, "- " * 5_000, "? " * 5_000, "[" * 45 + "]" * 45, "a: {b: &b [1]}\nc: *b\n"],
    ids=["brackets", "lines", "dashes", "keys", "allowed", "alias"],
)
def test_the_answer_does_not_depend_on_the_callers_stack(text: str) -> None:
    """What is refused deep inside a program is what is refused at its top, and for the same reason."""
    assert called_from(700, text) == called_from(0, text)


def test_the_values_of_an_override_name_their_variable_and_no_line() -> None:
    root, problems = parse("{a: [1], a: 2}", "environment X", DIALECT, override="X")
    assert root is not None and isinstance(root.value, dict)
    assert (root.value["a"].override, root.value["a"].place) == ("X", ("environment X", 0, 0))
    assert [(problem.code, problem.line, problem.hint) for problem in problems] == [
        ("DUPLICATE", 0, "remove one of them")
    ]
