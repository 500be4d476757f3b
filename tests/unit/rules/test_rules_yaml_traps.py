"""What YAML makes of careless rules: told, and the line that the hint shows is right."""

# ruff: noqa: E501  # lines of YAML as people write them

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import Problem, ProblemsFound
from bridge.rules import RuleBook, load_text

FRAME = """\
rules:
  - name: one
    match: user.x
    do:
      - upsert: {email: a}
"""


def told(text: str) -> list[Problem]:
    """Mistakes, or what is hardly meant."""
    try:
        return [problem for rule in load_text(text, "r.yaml").rules for problem in rule.advice]
    except ProblemsFound as error:
        return error.problems


def corrected(text: str, problem: Problem) -> str:
    """The file with the line that the hint shows."""
    written = re.search(r"write (.*)$", problem.hint)
    assert written, problem
    lines = text.splitlines(keepends=True)
    old = lines[problem.line - 1]
    key = re.match(r"\s*(- )?[\w.]+: ", written[1])
    lead = re.match(r"\s*(?:- )?(?:[\w.]+: )?" if not key else r"\s*(?:- )?", old)
    assert lead
    lines[problem.line - 1] = f"{lead[0]}{written[1]}\n"
    return "".join(lines)


@pytest.mark.parametrize(
    ("line", "code", "right"),
    [
        ("    match: *.deleted", "MB110", 'match: "*.deleted"'),
        ("    match: [user.created, *.deleted]", "MB110", 'match: [user.created, "*.deleted"]'),
        ("    match: *", "MB110", 'match: "*"'),
        ("    when: !data.internal", "MB112", "when: not data.internal"),
        ("    when: !has(data.internal)", "MB112", "when: not has(data.internal)"),
        ("    when: !(data.a and data.b)", "MB112", "when: not (data.a and data.b)"),
        ('    when: "pro" in data.plans', "MB113", "when: '\"pro\" in data.plans'"),
        ("    when: 'pro' in data.plans  # paying", "MB113", "when: \"'pro' in data.plans\""),
        ("    when: data.tag == 'a #1'", "MB181", "when: \"data.tag == 'a #1'\""),
        ('    when: data.tag == "a # b" or data.x', "MB181", "when: 'data.tag == \"a # b\" or data.x'"),
    ],
)
def test_a_line_of_a_rule(line: str, code: str, right: str) -> None:
    key = line.split(":")[0]
    rest = FRAME if "match" not in key else FRAME.replace("    match: user.x\n", "")
    text = rest.replace("    do:\n", f"{line}\n    do:\n")
    (problem,) = told(text)
    assert (problem.code, problem.line) == (code, text.splitlines().index(line) + 1)
    assert problem.hint.endswith(f"write {right}")
    assert told(corrected(text, problem)) == []


@pytest.mark.parametrize(
    ("action", "code", "right"),
    [
        ("upsert: {email: ${data.email}}", "MB111", 'upsert: {email: "${data.email}"}'),
        ("upsert: {email: ${data.email}, first_name: ${data.name} }", "MB111", 'upsert: {email: "${data.email}", first_name: "${data.name}" }'),
        ("upsert: {email: a, first_name: Dr. ${data.x} Jr.}", "MB111", 'upsert: {email: a, first_name: "Dr. ${data.x} Jr."}'),
        ("""upsert: {email: "${data.e}", first_name: ${default(data.x, "there")}}""", "MB111", """upsert: {email: "${data.e}", first_name: '${default(data.x, "there")}'}"""),
        ("""upsert: {email: a, first_name: ${default({'a': 1}.a, "it's")}}""", "MB111", """upsert: {email: a, first_name: '${default({''a'': 1}.a, "it''s")}'}"""),
        ("""upsert: {email: "a" + data.x, first_name: b}""", "MB113", """upsert: {email: '"a" + data.x', first_name: b}"""),
        ("""{upsert: {email: a}, when: 'x' in data.y}""", "MB113", """{upsert: {email: a}, when: "'x' in data.y"}"""),
        ("upsert: {email: a, tag_names: [b, ${data.x}]}", "MB111", 'upsert: {email: a, tag_names: [b, "${data.x}"]}'),
        ("upsert: {email: a, custom_fields: {x: ${data.items[0]}}}", "MB111", 'upsert: {email: a, custom_fields: {x: "${data.items[0]}"}}'),
    ],
)  # fmt: skip
def test_an_expression_inside_braces_of_yaml(action: str, code: str, right: str) -> None:
    text = FRAME.replace("upsert: {email: a}", action)
    (problem,) = told(text)
    assert (problem.code, problem.line) == (code, 5)
    assert problem.hint == f"write {right}"
    assert told(text.replace(action, right)) == []


@pytest.mark.parametrize(
    ("value", "right"),
    [
        ("Order #${data.id}", "'Order #${data.id}'"),
        ("${data.a} #INV-${data.id}", "'${data.a} #INV-${data.id}'"),
        ("it's #${data.id}", '"it\'s #${data.id}"'),
    ],
)
def test_a_text_that_a_comment_cut_off_silently(value: str, right: str) -> None:
    """`Order` alone is a text in order, so only a warning can tell."""
    text = FRAME.replace("{email: a}", f"\n          email: a\n          first_name: {value}")
    (problem,) = told(text)
    assert (problem.code, problem.severity, problem.line, problem.column) == ("MB182", "warning", 7, 23)
    assert problem.hint == f"write {right}"
    assert told(text.replace(value, right)) == []


def test_an_expression_that_a_comment_cut_off() -> None:
    text = FRAME.replace("{email: a}", "\n          email: a\n          first_name: ${default(data.a, 'no #')}")
    (problem,) = told(text)
    assert (problem.code, problem.line) == ("MB181", 7)
    assert problem.hint.endswith("write first_name: \"${default(data.a, 'no #')}\"")
    text = FRAME.replace("upsert: {email: a}", "upsert: {email: a, first_name: Order #${data.id}}")
    (problem,) = told(text)
    assert (problem.code, problem.line, problem.column) == ("MB181", 5, 46)


@pytest.mark.parametrize(
    "line",
    [
        "    when: data.n > 1 # once only",
        "    when: data.n > 1 #once",
        "    match: [user.x, user.y] # ${data.x}",
        "    linger: 30s # or ${more}",
    ],
)
def test_a_comment_is_a_comment(line: str) -> None:
    text = FRAME.replace("    match: user.x\n", "") if "match" in line else FRAME
    assert told(text.replace("    do:\n", f"{line}\n    do:\n")) == []


def test_an_expression_that_is_wrong_either_way_keeps_its_own_code() -> None:
    (problem,) = told(FRAME.replace("    do:\n", "    when: data.x == # todo\n    do:\n"))
    assert problem.code == "MB130" and "begins a comment" in problem.hint


def _book(match: str) -> RuleBook:
    return load_text(FRAME.replace("user.x", match), "r.yaml")


@pytest.mark.parametrize(
    ("match", "column", "hint"),
    [
        ("user.created, user.updated", 24, "write match: [user.created, user.updated]"),
        ("user.* | account.*", 19, "write match: [user.*, account.*]"),
        ("[user.x, 'user.{a,b}']", 27, "write a type, or a glob"),
        ("^user\\..*$", 12, "write a type, or a glob"),
        ("${data.type}", 12, "write a type, or a glob"),
    ],
)
def test_a_pattern_that_is_a_list_or_a_regular_expression(match: str, column: int, hint: str) -> None:
    """It would match nothing, and nobody would be told."""
    ((problem, *_),) = [rule.advice for rule in _book(match).rules]
    assert (problem.code, problem.severity, problem.line, problem.column) == ("MB176", "warning", 3, column)
    assert hint in problem.hint


@pytest.mark.parametrize(
    "match", ["user.*", "User Signed Up", "com.acme/user:created", "user.[ab]?", "'*'", "$identify", "a$b"]
)
def test_a_pattern_that_may_be_meant(match: str) -> None:
    assert _book(match).rules[0].advice == ()


PIECES = st.sampled_from(
    ["{", "}", "[", "]", ": ", ",", " and ", " == ", " != ", " in ", "not ", "(", ")", "'", '"', "|", ">", "*", "!", "&",
     "#", " #", " # ", "${", "${data.x}", "data.x", '"pro"', "a", "b: 1", "- ", "@", "%", "\\", "$${", "null", "x.*", "<<"]
)  # fmt: skip
LINES = st.lists(PIECES, max_size=10).map("".join)


@given(st.sampled_from(["    match: ", "    when: ", "      - upsert: "]), LINES)
def test_whatever_stands_in_a_line_is_told_in_one_line_or_loaded(key: str, value: str) -> None:
    lines = [f"{key}{value}" if line.startswith(key) else line for line in FRAME.splitlines()]
    if "when" in key:
        lines.insert(3, f"{key}{value}")
    for problem in told("\n".join(lines) + "\n"):
        assert "\n" not in str(problem) and problem.line <= len(lines) + 1


def test_a_long_line_is_not_repeated() -> None:
    (problem,) = told(FRAME.replace("{email: a}", "{email: ${data.x}, tag_names: [" + "a, " * 400 + "]}"))
    assert (problem.code, problem.hint) == ("MB111", "put it in quotes")
