"""`test --update`: what is written into a rules file, and what is left alone."""

from __future__ import annotations

from textwrap import dedent, indent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.decode import JsonDecoder
from bridge.rules.comparing import flow
from bridge.rules.loader import load_text
from bridge.rules.testing import Bench, Ending, Result, World
from bridge.rules.updating import updated

RULE = """\
# A rule.
x-shared: &shared   {email: a@x.io}

rules:
  - name:   one     # oddly   spaced
    match: user.signed_up
    do:
      - upsert:
          email: ${data.email}
          external_id: "${data.id}"
          custom_fields: {plan: "${data.plan}", at: "${event.time}"}
          tag_names: [a, b]
        aliases: {stripe: "${optional(data.stripe)}"}
      - trigger: {trigger_key: welcome, to_email: "${data.email}"}
    tests:
"""
EVENT = 'event: {type: user.signed_up, data: {email: a@x.io, id: "7", plan: pro}}'


def failed(text: str) -> list[Result]:
    book = load_text(text)
    bench = Bench(book, World(JsonDecoder().decode, lambda contacts: pytest.fail("nobody is known"), {}))
    return [result for result in map(bench.run, book.tests) if result.ending is Ending.FAILED]


def update(expect: str, *, rest: str = "", shift: int = 8) -> str:
    """What one test's `expect`, given in block style, becomes; all around it must stay."""
    test = f"      - name: t   # a test\n        {EVENT}\n{indent(dedent(expect), ' ' * shift)}{indent(rest, ' ' * 8)}"
    before = f"{RULE}{test}"
    after, reasons = updated(before, failed(before))
    assert reasons == [""], after
    assert failed(after) == []
    head = len(RULE) + test.index("expect:")
    assert after[:head] == before[:head]
    return dedent(" " * shift + after[head:])


def test_only_what_differs_is_written_and_comments_and_quotes_stay() -> None:
    before = """\
        expect:
          # what Meisa is told
          - upsert:
              email: 'b@x.io'     # the address
              # the plan
              custom_fields: {plan: free}   # flow
              tag_names:
                - a   # first
                - c   # gone
              first_name: x
          # sent at once
          - trigger: {trigger_key: welcome}   # stays
        """
    assert update(before, rest="# behind\n\n") == dedent(
        """\
        expect:
          # what Meisa is told
          - upsert:
              email: 'a@x.io'     # the address
              # the plan
              custom_fields: {plan: pro}    # flow
              tag_names:
                - a   # first
                - b
          # sent at once
          - trigger: {trigger_key: welcome}   # stays
        # behind

        """
    )


def test_actions_are_added_and_taken_away_where_they_stand() -> None:
    before = """\
        expect:
        - enroll: {sequence_slug: s}   # gone
        - upsert:   # kept
        - track:
            event_name: e
        """
    assert update(before) == dedent(
        """\
        expect:
        - upsert:   # kept
        - trigger: {trigger_key: welcome, to_email: a@x.io}
        """
    )


def test_an_empty_list_becomes_a_block() -> None:
    assert update("expect: []\n") == dedent(
        """\
        expect:
          - upsert:
              email: a@x.io
              external_id: "7"
              custom_fields: {plan: pro, at: "2026-01-01T00:00:00Z"}
              tag_names: [a, b]
          - trigger: {trigger_key: welcome, to_email: a@x.io}
        """
    )


def test_what_stands_in_one_line_stays_in_one_line() -> None:
    assert update("expect: [{upsert: {email: b}}, {trigger: {}, max_age: 2d}]   # why\n") == (
        "expect: [{upsert: {email: a@x.io}}, {trigger: {}, max_age: 1d}]   # why\n"
    )
    text = f"{RULE}      - {{name: t, {EVENT}, expect: []}}   # one line\n"
    after, reasons = updated(text, failed(text))
    assert reasons == [""] and failed(after) == []
    assert after.count("\n") == text.count("\n") and after.endswith("}]}   # one line\n")


def test_an_exact_test_gets_every_field() -> None:
    before = """\
        exact: true
        expect:
          - upsert: {email: a@x.io}
          - trigger: {trigger_key: welcome, to_email: a@x.io}
        """
    assert update(before).startswith(
        dedent(
            """\
            expect:
              - upsert:
                  email: a@x.io
                  external_id: "7"
                  custom_fields: {plan: pro, at: "2026-01-01T00:00:00Z"}
                  tag_names: [a, b]
              - trigger: {trigger_key"""
        )
    )


def test_a_null_that_is_there_after_all_and_one_that_is_not() -> None:
    before = """\
        expect:
          - upsert:
              email: null
              custom_fields:
                gone: 1
                plan:   # what
            aliases: {stripe: c}
          - trigger:
        """
    assert update(before) == dedent(
        """\
        expect:
          - upsert:
              email: a@x.io
              custom_fields:
                plan: pro # what
          - trigger:
        """
    )


@pytest.mark.parametrize(
    ("test", "reason"),
    [
        (f"{{{EVENT}, expect: [{{upsert: *shared}}]}}", "its expect has anchors"),
        (f"{{{EVENT}, expect: [{{upsert: &here {{email: b}}}}, {{trigger: }}]}}", "its expect has anchors"),
        (f"{{{EVENT}, expect: [{{upsert: {{<<: {{email: b}}}}}}, {{trigger: }}]}}", "its expect has anchors"),
        (f"{{<<: {{expect: []}}, {EVENT}}}", "its expect comes by a merge key"),
        (f"{{{EVENT}, expect_error: {{kind: rule}}}}", "it expects an error"),
        ("{event: {type: user.signed_up, data: {}}, expect: []}", "what differs is an error"),
        (f"&one {{{EVENT}, expect: []}}\n      - *one", "it stands in several places"),
        (f"{{{EVENT}, expect: [{{upsert: {{email: 2026-13-45}}}}, {{trigger: }}]}}", "YAML that cannot be kept"),
    ],
)
def test_what_would_reach_further_is_refused_with_the_reason(test: str, reason: str) -> None:
    text = f"{RULE}      - {test}\n"
    results = failed(text)
    after, reasons = updated(text, results)
    assert after == text
    assert len(reasons) == len(results) > 0
    assert all(reason in told for told in reasons), reasons


def test_each_test_is_updated_by_itself() -> None:
    """Several in one file, of which one cannot be; top-level tests too."""
    text = (
        f"{RULE}      - {{name: a, {EVENT}, expect: []}}\n"
        f"      - {{name: b, {EVENT}, expect_error: {{}}}}\n"
        f"      - name: c\n        {EVENT}\n        expect:\n          - upsert: {{email: b}}\n"
        f"tests:\n  - name: d\n    {EVENT}\n    expect: []\n"
    )
    after, reasons = updated(text, failed(text))
    assert [bool(reason) for reason in reasons] == [False, True, False, False]
    assert [result.case.name for result in failed(after)] == ["b"]


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.sampled_from(["", "x", "pro", "no", "7", "a: b", "- c", "#", "é\n", "'"]),
)
fields = st.fixed_dictionaries(
    {},
    optional={
        "email": st.sampled_from(["a@x.io", "b@x.io", "'q'"]),
        "external_id": st.sampled_from([7, "7", "8"]),
        "first_name": st.one_of(st.none(), st.text(max_size=3)),
        "custom_fields": st.dictionaries(st.sampled_from(["plan", "at", "x y", "no"]), scalars, max_size=3),
        "tag_names": st.lists(st.sampled_from(["a", "b", "c"]), max_size=3),
    },
)
actions = st.lists(
    st.one_of(
        st.fixed_dictionaries(
            {"upsert": fields}, optional={"aliases": st.just({"stripe": "c"}), "lane": st.just("bulk")}
        ),
        st.just({"trigger": {"trigger_key": "welcome"}}),
        st.just({"trigger": {"trigger_key": "other"}, "max_age": "3h"}),
        st.just({"track": {"event_name": "e", "email": "a"}}),
    ),
    max_size=4,
)


def block(value: object, level: int) -> str:
    """A value in block style, with a comment behind each scalar."""
    pad = "  " * level
    if isinstance(value, dict) and value:
        return "".join(f"\n{pad}{flow(name)}:{block(item, level + 1)}" for name, item in value.items())
    if isinstance(value, list) and value:
        return "".join(f"\n{pad}- {block(item, level + 1).lstrip()}" for item in value)
    return f" {flow(value)}   # {level}"


@given(expect=actions, in_block=st.booleans(), exact=st.booleans(), deeper=st.integers(0, 1))
def test_whatever_was_expected_the_update_holds_and_touches_nothing_else(
    expect: list[dict[str, object]], in_block: bool, exact: bool, deeper: int
) -> None:
    """Nothing is refused, and nothing before or behind the expectation changes."""
    shown = block(expect, 4 + deeper) if in_block and expect else f" {flow(expect)}"
    head = f"{RULE}      - name: t\n        exact: {flow(exact)}\n        "
    tail = f"\n        {EVENT}   # the event\n\n# the end\n"
    before = f"{head}expect:{shown}{tail}"
    results = failed(before)
    after, reasons = updated(before, results)
    assert reasons == [""] * len(results), after
    assert after.startswith(head) and after.endswith(tail)
    assert failed(after) == []
    assert updated(after, failed(after))[0] == after
