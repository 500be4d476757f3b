"""What a condition says by its form: told where it is certain, and nowhere else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.model import Event, Record
from bridge.rules import compile_expression, conditions

RECORD = Record("user-events", 0, 0, 0, None, b"")
VALUES = ("a", "b", "ab", "", 1, 2, None, True)


def evaluated(text: str, data: dict[str, object]) -> bool | None:
    """Whether the condition holds; None where it fails."""
    event = Event(id="1", type="t", time="", time_wall_seconds=0.0, data=data, record=RECORD)
    try:
        return bool(compile_expression(text).run(event))
    except Exception:
        return None


@pytest.mark.parametrize(
    ("text", "code", "hint"),
    [
        ('data.plan == "pro" or ^"team"', "MB172", 'write data.plan in ["pro", "team"]'),
        ('data.plan == "pro" or ^["team"]', "MB172", 'write data.plan in ["pro", ["team"]]'),
        ('data.plan or ^"team"', "MB172", 'compare it with a field, or remove or "team"'),
        ('^"pro" and "x" in data.plans', "MB172", '"pro" in data.plans and "x" in data.plans'),
        ("data.x or ^true", "MB172", "remove or true"),
        ('data.x and (data.plan == "a" or ^"b")', "MB172", 'write data.plan in ["a", "b"]'),
        ('not (data.plan == "a" or ^"b")', "MB172", 'write data.plan in ["a", "b"]'),
        ('^"pro"', "MB172", "compare it with a field"),
        ('data.plan != "a" or ^data.plan != "b"', "MB172", 'write data.plan not in ["a", "b"]'),
        ("data.x and ^false", "MB171", "remove it, or the rule"),
        ("data.x and ^null", "MB171", "remove it"),
        ('data.plan == "a" and ^"b" == data.plan', "MB171", 'write data.plan in ["a", "b"]'),
        ('data.n == 1 and data.x and ^data.n == 2', "MB171", "write data.n in [1, 2]"),
        ('^data.plan in "pro"', "MB173", 'write data.plan in ["pro"]'),
        ('^data.plan not in ("pro")', "MB173", 'write data.plan not in ["pro"]'),
        ('any(^x in "pro" for x in data.plans)', "MB173", 'write x in ["pro"]'),
        ('len([x for x in data.items if x == 1 or ^"b"]) > 0', "MB172", "write x in [1, \"b\"]"),
    ],
)  # fmt: skip
def test_what_is_certain_is_told_with_what_to_write(text: str, code: str, hint: str) -> None:
    offset, text = text.index("^"), text.replace("^", "", 1)
    (found,) = conditions.of_condition(text)
    assert (found.code, found.offset) == (code, offset)
    assert hint in found.hint
    if found.hint.startswith("write ") and " in [" in found.hint and text.startswith("data."):
        compile_expression(found.hint.removeprefix("write "))


@pytest.mark.parametrize(
    "text",
    [
        'data.plan == "pro" or data.plan == "team"',
        '(data.plan or "free") == "free"',
        'default(data.plan, "free") != "internal"',
        '"@acme.com" in data.email',
        'data.code[0] in "abc"',
        '"a" in "abc"',
        'data.plan == "a" and data.other == "b"',
        'data.plan == 1 and data.plan == 1.0',
        'data.plan != "a" and data.plan != "b"',
        'data.plan == "a" or data.plan == "b"',
        f'data.{"x" * 90}1 == "a" and data.{"x" * 90}2 == "b"',
        'data.from == "a" and data.with == "b"',
        "true",
        "data.x and true",
        "data.x or false",
        'data.name == ("a" or data.x)',
    ],
)  # fmt: skip
def test_what_may_be_meant_is_not(text: str) -> None:
    assert conditions.of_condition(text) == []


@pytest.mark.parametrize(
    ("text", "offsets"),
    [
        ("""${'x' if data.plan == 'a' or ^'b' else 'y'}""", 1),
        ("""to ${data.x} ${1 if ^data.plan in 'pro' else 2}""", 1),
        ("""${data.name or 'there'}""", 0),
        ("""'a' or 'b'""", 0),
        ("""$${'x' if 'b' else 'y'}""", 0),
    ],
)
def test_conditions_within_a_text_are_looked_at_and_its_values_are_not(text: str, offsets: int) -> None:
    offset, text = text.find("^"), text.replace("^", "", 1)
    assert [each.offset for each in conditions.of_template(text)] == [offset] * offsets


def test_what_a_condition_needs_to_be_true() -> None:
    """Comparisons that `and` joins, either way round; an `or` needs none of its sides."""
    assert conditions.required('event.type == "a" and 1 == data.n') == {"event.type": "a", "data.n": 1}
    assert conditions.required('event.type == "a"') == {"event.type": "a"}
    assert conditions.required('event.type == "a" or data.x') == {}
    assert conditions.required('event.type != "a" and not (data.n == 1)') == {}


literals = st.sampled_from(['"a"', '"b"', '"ab"', "1", "true", "false", "null", "[1]"])
fields = st.sampled_from(["data.x", "data.y"])
atoms = st.one_of(
    fields,
    literals,
    st.builds("{} {} {}".format, fields, st.sampled_from(["==", "!=", "in", "not in"]), literals),
    st.builds("{} {} {}".format, literals, st.sampled_from(["==", "!="]), fields),
)
trees = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.builds("({} and {})".format, inner, inner),
        st.builds("({} or {})".format, inner, inner),
        st.builds("not ({})".format, inner),
    ),
    max_leaves=6,
)


@given(trees)
def test_a_whole_condition_that_is_told_to_be_decided_is_decided(text: str) -> None:
    """Where the finding is about the outermost and, or: no values of its fields make it anything else."""
    for found in conditions.of_condition(text):
        inner = text.removeprefix("(").removesuffix(")")
        if found.code == conditions.PART_OF_TEXT or "(" in inner or "adds nothing" in found.message:
            continue
        outcomes = {evaluated(text, {"x": x, "y": y}) for x in VALUES for y in VALUES} - {None}
        if not text.startswith("not "):
            assert outcomes <= {found.code == conditions.ALWAYS}, found
