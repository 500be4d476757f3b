"""Templates: literal text, `${…}`, and both."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.errors import MissingField, RuleError
from bridge.model import Record
from bridge.rules import (
    ENVELOPE_NAMES,
    EnvelopeScope,
    ExpressionError,
    compile_envelope_field,
    compile_expression,
    compile_template,
)

DATA: dict[str, Any] = {"plan": "pro", "n": 7, "f": 1.5, "yes": True, "nothing": None, "tags": ["a", "b"]}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("", ""),
        ("plain", "plain"),
        ("100% {data.plan} $5 $", "100% {data.plan} $5 $"),
        ("${data.n}", 7),
        ("${ data.tags }", ["a", "b"]),
        ("${data.nothing}", None),
        (" ${data.n}", " 7"),
        ("${data.plan}/${data.n}/${data.f}/${data.yes}", "pro/7/1.5/true"),
        ("tags: ${data.tags}", 'tags: ["a","b"]'),
        ("$${data.plan}", "${data.plan}"),
        ("$${a} ${data.plan} $${", "${a} pro ${"),
        ("${'}'}", "}"),
        ("${ {'a': {'b': '}'}}.a.b }", "}"),
        ('${data.plan + "}${"}!', "pro}${!"),
        ("${'it\\'s }'}", "it's }"),
        ("${data.tags[0]}${data.tags[1]}", "ab"),
        ("${optional(data.absent)}", None),
    ],
)
def test_a_template_renders(make_event: Any, text: str, result: Any) -> None:
    made = compile_template(text).render(make_event(**DATA))
    assert made == result and type(made) is type(result)


def test_null_inside_a_text_is_an_error(make_event: Any) -> None:
    with pytest.raises(RuleError, match="null cannot be put into a text"):
        compile_template("Hi ${data.nothing}").render(make_event(**DATA))
    with pytest.raises(RuleError, match="null cannot be put into a text"):
        compile_template("Hi ${optional(data.absent)}").render(make_event(**DATA))


def test_a_missing_field_is_named(make_event: Any) -> None:
    with pytest.raises(MissingField) as caught:
        compile_template("Hi ${data.first.name}").render(make_event(**DATA))
    assert caught.value.path == "data.first"


@pytest.mark.parametrize(
    ("text", "code", "column"),
    [
        ("${", "MB136", 1),
        ("a ${data.plan", "MB136", 3),
        ("a ${}", "MB136", 3),
        ("a ${ }", "MB136", 3),
        ("a ${data.plan + }", "MB130", 16),
        ("a ${dta.plan}", "MB131", 5),
        ("${data.plan} ${lenn(data.plan)}", "MB132", 16),
        ("a ${'x}", "MB130", 5),
        ("a ${(data.plan}", "MB130", 15),
        ("a ${data.a ${data.b}}", "MB130", 12),
    ],
)
def test_a_mistake_is_told_with_its_column_in_the_whole_text(text: str, code: str, column: int) -> None:
    with pytest.raises(ExpressionError) as caught:
        compile_template(text)
    assert (caught.value.code, caught.value.offset + 1) == (code, column)


def test_references_stand_at_their_column_in_the_whole_text() -> None:
    text = "Hi ${data.first} ${data.last}"
    assert [text[ref.offset :].split("}")[0] for ref in compile_template(text).references] == [
        "data.first",
        "data.last",
    ]


def test_a_template_knows_whether_it_is_literal() -> None:
    assert compile_template("a $${b}").is_literal
    assert not compile_template("a ${data.b}").is_literal


RECORD = Record("t", 2, 9, 5_000, b"\xffk", b"", (("h", b"v"), ("h", b"w"), ("n", None)))


def test_an_envelope_sees_the_value_and_the_record() -> None:
    field = compile_envelope_field("${value.meta.id}-${topic}-${partition}-${offset}-${timestamp}-${headers.h}-${key}")
    assert field({"meta": {"id": "e9"}}, RECORD) == "e9-t-2-9-5000-w-\ufffdk"


def test_an_envelope_tells_a_missing_field_from_an_absent_one() -> None:
    with pytest.raises(MissingField) as caught:
        compile_envelope_field("${value.id}")({"a": 1}, RECORD)
    assert caught.value.path == "value.id"
    assert compile_envelope_field("${optional(value.id)}")({"a": 1}, RECORD) is None


def test_an_envelope_has_no_event_and_a_rule_has_no_value() -> None:
    with pytest.raises(ExpressionError, match="unknown name data"):
        compile_template("${data.id}", ENVELOPE_NAMES)
    with pytest.raises(ExpressionError, match="unknown name value"):
        compile_template("${value.id}")
    scope = EnvelopeScope({"n": 1}, RECORD)
    assert compile_expression("value.n == 1 and topic == 't'", ENVELOPE_NAMES).evaluate(scope) is True
