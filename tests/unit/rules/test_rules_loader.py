"""Loading rules: what is accepted, and every mistake with its code, place and hint."""

# ruff: noqa: E501  # tables read better with one case per line

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import Problem, ProblemsFound, UsageError
from bridge.model import Kind, Lane
from bridge.rules import load, load_text
from bridge.rules.codes import CODES

HEAD = """\
rules:
  - name: one
    match: user.x
    do:
"""


def problems(text: str) -> list[Problem]:
    with pytest.raises(ProblemsFound) as caught:
        load_text(textwrap.dedent(text), "r.yaml")
    for problem in caught.value.problems:
        assert problem.code in CODES, problem
        assert "\n" not in str(problem)
    return caught.value.problems


def only(text: str) -> Problem:
    found = problems(text)
    assert len(found) == 1, "\n".join(map(str, found))
    return found[0]


def in_action(action: str) -> str:
    return HEAD + textwrap.indent(textwrap.dedent(action).strip(), " " * 6) + "\n"


def placed(text: str) -> tuple[str, tuple[int, int]]:
    """The text without its mark ^, and the line and column that it marks."""
    before, after = text.split("^")
    return before + after, (before.count("\n") + 1, len(before.rsplit("\n", 1)[-1]) + 1)


@pytest.mark.parametrize(
    ("text", "code", "part"),
    [
        (HEAD + "      - ^trak: {email: a}\n", "MB120", "track"),
        (HEAD + "      - ^when: a\n", "MB121", "known are upsert"),
        (HEAD + "      - ^upsert: {email: a}\n        track: {event_name: a, email: a}\n", "MB121", "dash of its own"),
        (HEAD + "      - upsert: {email: a, ^plan: b}\n", "MB122", "known are email"),
        (HEAD + "      - upsert: {email: a, ^custom_field: {}}\n", "MB122", "custom_fields"),
        (HEAD + "      - upsert: {email: a, source: ^sinup}\n", "MB123", "'signup'"),
        (HEAD + "      - upsert: {email: a, tag_names: [b, ^'']}\n", "MB123", "must not be empty"),
        (HEAD + "      - upsert: {email: a, tag_names: ^trial}\n", "MB123", "must be a list"),
        (HEAD + "      - upsert: {email: a, custom_fields: ^trial}\n", "MB123", "must be an object"),
        (HEAD + "      - upsert: {email: a, custom_fields: ^'x ${data.y}'}\n", "MB123", "must be an object"),
        (HEAD + "      - upsert: {email: ^{a: '${data.x}'}}\n", "MB123", "must be a text"),
        (HEAD + "      - upsert: {email: ^true}\n", "MB123", "must be a text"),
        (HEAD + "      - enroll: {email: a, sequence_slug: b, override_unsubscribe: ^maybe}\n", "MB123", "true or false"),
        (HEAD + "      - ^trigger: {to_email: a}\n", "MB124", "needs trigger_key"),
        (HEAD + "      - ^add_tag: {email: a}\n", "MB124", "either tag_name or tag_id"),
        (HEAD + "      - ^track: {event_name: a}\n", "MB125", "email, external_id"),
        (HEAD + "      - ^trigger: {trigger_key: a}\n", "MB125", "to_email, external_id"),
        (HEAD + "      - track: {event_name: a, email: b, ^when: c}\n", "MB126", "not under it"),
        (HEAD + "      - upsert: {email: a}\n        ^on_missing: wait\n", "MB127", "track has it"),
        (HEAD + "      - upsert: {email: a}\n        ^custom_fields: {}\n", "MB127", "indent it"),
        (HEAD + "      - upsert: {email: a}\n        ^max_agee: 1d\n", "MB103", "max_age"),
        (HEAD + "      - upsert: {email: a}\n        max_age: ^1 day\n", "MB107", "or none"),
        (HEAD + "      - upsert: {email: a}\n        lane: ^fast\n", "MB107", "transactional or sync or bulk"),
        (HEAD + "      - upsert: {email: a}\n        missing: ^skip\n", "MB107", "omit"),
        (HEAD + "      - track: {event_name: a, email: b}\n        on_missing: ^drop\n", "MB107", "upsert or wait"),
        (HEAD + "      - upsert: {email: '${^dta.email}'}\n", "MB131", "upsert.email: unknown name dta"),
        (HEAD + "      - upsert: {email: \"\\u00e9 '${^dta.email}\"}\n", "MB131", "data"),
        (HEAD + "      - upsert: {email: 'it''s ${^dta.email}'}\n", "MB131", "data"),
        (HEAD + "      - upsert:\n          email: >-\n            ${default(data.x,\n            ^dta.email)}\n", "MB131", "data"),
        (HEAD + "      - upsert:\n          email: |-\n            a\n            ${^dta.email}\n", "MB131", "data"),
        (HEAD + "      - upsert: {email: a, custom_fields: {x: ['${^dta}']}}\n", "MB131", "upsert.custom_fields.x[0]"),
        (HEAD + "      - upsert: {email: a, custom_fields: {^'${data.x}': 1}}\n", "MB104", "keys are literal"),
        (HEAD + "      - upsert: {email: '^${data.x', external_id: a}\n", "MB136", "closing }"),
        (HEAD + "      - ^upsert\n", "MB104", "mapping"),
        (HEAD + "      - upsert: ^x\n", "MB104", "mapping"),
        (HEAD + "      ^upsert: {email: a}\n", "MB104", "dash"),
        (HEAD + "      - upsert: {email: a}\n    ^machs: a\n", "MB103", "match"),
        (HEAD + "      - upsert: {email: a}\n    enabled: ^yes\n", "MB107", "true or false"),
        (HEAD + "      - upsert: {email: a}\n    linger: ^30\n", "MB107", "30s"),
        (HEAD + "      - upsert: {email: a}\n    preserve: ^[plan]\n", "MB107", "custom_fields.plan"),
        (HEAD + "      - upsert: {email: a}\n    lane: ^urgent\n", "MB107", "transactional"),
        (HEAD + "      - upsert: {email: a}\n    when: ^${data.plan}\n", "MB137", "without ${ }"),
        (HEAD + "      - upsert: {email: a}\n    when: data.plan == ^'a # b'\n", "MB181", "begins a comment"),
        (HEAD + "      - upsert: {email: a}\n    when: ^7\n", "MB104", "expression"),
        (HEAD + "      - upsert: {email: a}\n    when: ^!data.x\n", "MB112", "write when: not data.x"),
        (HEAD + "      - upsert: {email: a}\n    when: \"pro\" ^in data.plans\n", "MB113", "'\"pro\" in data.plans'"),
        (HEAD + "      - upsert: {email: ^${data.x}}\n", "MB111", '"${data.x}"'),
        (HEAD + "      - upsert: {email: a, tag_names: [^${data.x}]}\n", "MB111", '"${data.x}"'),
        ("rules:\n  - name: a\n    match: ^*.deleted\n    do: []\n", "MB110", '"*.deleted"'),
        ("rules:\n  - name: a\n    match: [a, ^*.deleted]\n    do: []\n", "MB110", '"*.deleted"'),
        (HEAD + "      - upsert: {email: a}\n    ^name: b\n", "MB102", "line 2"),
        (HEAD + "      - upsert: {email: a, ^email: b}\n", "MB102", "twice"),
        (HEAD + "      - upsert: {email: a}\n  - name: ^one\n    match: b\n    do: [{upsert: {email: a}}]\n", "MB106", "r.yaml:2"),
        (HEAD + "      - upsert: {email: a}\n  - ^match: b\n    do: [{upsert: {email: a}}]\n", "MB105", "no name"),
        ("rules:\n  - ^name: a\n    match: b\n", "MB105", "no do"),
        ("rules:\n  - name: a\n    match: ^[]\n    do: [{upsert: {email: a}}]\n", "MB104", "empty list"),
        ("rules:\n  - name: ^\n    match: b\n    do: [{upsert: {email: a}}]\n", "MB104", "nothing"),
        ("rules:\n  - name: a\n    match: b\n    do: ^[]\n", "MB104", "known are upsert"),
        ("rules: ^{}\n", "MB104", "list"),
        ("^rule: []\nrules: []\n", "MB103", "rules"),
        ("^x-a: []\n", "MB105", "no rules"),
        ("^- a\n", "MB104", "mapping"),
        ("a: ^@b\n", "MB100", "cannot start"),
        ("a:\n^\tb: 1\n", "MB100", "spaces, not tabs"),
        (HEAD + "      - upsert: {email: a}\n    tests:\n      - event: {^tpe: b}\n        expect: []\n", "MB190", "type"),
        (HEAD + "      - upsert: {email: a}\n    tests:\n      - ^expect: []\n", "MB190", "event or events"),
        (HEAD + "      - upsert: {email: a}\n    tests:\n      - ^event: {type: b}\n", "MB190", "expect"),
        (HEAD + "      - upsert: {email: a}\n    tests: [{event: {type: b}, expect: [^{trak: 1}]}]\n", "MB190", "one action"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_code_and_place(text: str, code: str, part: str) -> None:
    text, place = placed(text)
    problem = only(text)
    assert (problem.code, problem.line, problem.column) == (code, *place), str(problem)
    assert part in str(problem)


def test_the_place_is_right_after_a_comment_that_ends_an_expression() -> None:
    """` #` silently shortens a plain YAML scalar: the hint must say so."""
    problem = only(HEAD + "      - upsert: {email: a}\n    when: data.plan == 'a # b'\n")
    assert problem.line == 6 and "comment" in problem.hint


def test_all_mistakes_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(HEAD + "      - upsert: {emial: a}\n      - trak: {}\n")
    (tmp_path / "b.yaml").write_text("rules: [\n")
    (tmp_path / "c.yaml").write_text(HEAD.replace("one", "two") + "      - upsert: {email: a}\n")
    with pytest.raises(ProblemsFound) as caught:
        load(["*.yaml", "nothing/*.yaml"], tmp_path)
    codes = [problem.code for problem in caught.value.problems]
    assert codes == ["MB101", "MB125", "MB122", "MB120", "MB100"]


def test_names_are_unique_over_all_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(HEAD + "      - upsert: {email: a}\n")
    with pytest.raises(ProblemsFound) as caught:
        load(["*.yaml"], tmp_path)
    (problem,) = caught.value.problems
    assert problem.code == "MB106" and problem.file.endswith("b.yaml") and "a.yaml:2" in problem.hint


def test_files_come_sorted_by_path_and_each_once(tmp_path: Path) -> None:
    for folder, name in (("z", "a"), ("a", "z"), ("a", "b")):
        (tmp_path / folder).mkdir(exist_ok=True)
        text = HEAD.replace("one", f"{folder}-{name}") + "      - upsert: {email: a}\n"
        (tmp_path / folder / f"{name}.yaml").write_text(text)
    book = load(["*/*.yaml", "a/b.yaml"], tmp_path)
    assert [rule.name for rule in book.rules] == ["a-b", "a-z", "z-a"]


def test_a_pattern_that_names_a_folder_says_what_to_write(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    with pytest.raises(ProblemsFound, match=r"rules/\*\.yaml"):
        load(["rules"], tmp_path)


def test_an_unreadable_file_is_a_usage_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.yaml").write_text("")

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UsageError, match=r"cannot read the rules in .*a\.yaml: Permission denied"):
        load(["a.yaml"], tmp_path)


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "MB105"),
        (b"# nothing\n", "MB105"),
        (b"rules: \xff\n", "MB100"),
        (b"rules: \x00\n", "MB100"),
        (b"a: &a [*a]\n", "MB108"),
        (b"[" * 90 + b"]" * 90, "MB108"),
        (b"[" * 400, "MB108"),
        (b"a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
         + b"".join(b"a%d: &a%d [%s]\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 10)) for n in range(1, 9)), "MB108"),
        (b"rules: []\n---\nrules: []\n", "MB100"),
        (b"x" * 1_000_001, "MB108"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_rules_file_is_told_in_one_line(tmp_path: Path, raw: bytes, code: str) -> None:
    (tmp_path / "a.yaml").write_bytes(raw)
    with pytest.raises(ProblemsFound) as caught:
        load(["a.yaml"], tmp_path)
    assert [problem.code for problem in caught.value.problems] == [code]


def test_a_byte_order_mark_and_windows_line_ends_are_taken(tmp_path: Path) -> None:
    text = HEAD + "      - upsert: {email: a}\n"
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert load(["a.yaml"], tmp_path).rules[0].name == "one"


def test_yaml_is_1_2(make_event: Any) -> None:
    """`no` is a text, dates stay texts, 010 is ten, merge keys work."""
    book = load_text(
        in_action("""
        - upsert:
            email: a
            custom_fields: {a: no, b: 2026-01-01, c: 010, d: 0x1f, e: ~, f: 1.5, g: 1_000, h: "7", i: off}
        """)
    )
    body = book.plan(make_event("user.x")).actions[0].body
    assert body["custom_fields"] == {
        "a": "no", "b": "2026-01-01", "c": 10, "d": 31, "e": None, "f": 1.5, "g": "1_000", "h": "7", "i": "off",
    }  # fmt: skip


def test_defaults_of_age_and_lane() -> None:
    book = load_text(
        in_action("""
        - upsert: {email: a}
        - track: {event_name: x, email: a}
        - trigger: {trigger_key: x, to_email: a}
        - enroll: {sequence_slug: x, email: a}
        - add_tag: {tag_name: x, email: a}
        - remove_tag: {tag_name: x, email: a}
        """)
    )
    found = {action.kind: action.handling for action in book.rules[0].actions}
    day = 86_400.0
    assert {kind: handling.max_age_seconds for kind, handling in found.items()} == {
        Kind.UPSERT: None, Kind.TRACK: day, Kind.TRIGGER: day, Kind.ENROLL: day, Kind.ADD_TAG: None,
        Kind.REMOVE_TAG: None,
    }  # fmt: skip
    assert {kind for kind, handling in found.items() if handling.lane is Lane.TRANSACTIONAL} == {Kind.TRIGGER}
    assert all(handling.lane in (Lane.SYNC, Lane.TRANSACTIONAL) for handling in found.values())


def test_options_of_rule_and_action_become_the_handling() -> None:
    book = load_text(
        """
rules:
  - name: a
    match: [x, "*.y"]
    topic: t
    lane: bulk
    coalesce: false
    linger: 30s
    preserve: custom_fields.plan
    do:
      - upsert: {email: a}
        on_suppressed: dead_letter
        max_age: 2h
      - trigger: {trigger_key: x, to_email: a}
        lane: sync
        max_age: none
        order: independent
      - track: {event_name: x, external_id: "7"}
        on_missing: dead_letter
  - name: b
    match: x
    lazy: [custom_fields.last_active]
    lazy_every: 6h
    enabled: false
    do: [{upsert: {email: a}}]
  - name: c
    match: x
    lazy: [custom_fields.seen]
    lazy_every: 12h
    do: [{track: {event_name: x, external_id: "7"}}, {track: {event_name: x, email: a}}]
"""
    )
    first, disabled, third = book.rules
    upsert, trigger, track = (action.handling for action in first.actions)
    assert (upsert.lane, upsert.coalesce, upsert.linger_seconds) == (Lane.BULK, False, 30.0)
    assert (upsert.on_suppressed, upsert.max_age_seconds) == ("dead_letter", 7_200.0)
    assert (trigger.lane, trigger.max_age_seconds, trigger.ordered) == (Lane.SYNC, None, False)
    assert (track.lane, track.on_missing, track.ordered) == (Lane.BULK, "dead_letter", True)
    assert (first.match, first.topics, book.topics) == (("x", "*.y"), ("t",), {"t"})
    assert not disabled.enabled
    for handling in (upsert, third.actions[0].handling):  # what any enabled rule names holds for all
        assert handling.preserve == ("custom_fields.plan",)
        assert handling.lazy == ("custom_fields.seen",)
        assert handling.lazy_every_seconds == 43_200.0


def test_names_and_tags_are_never_lazy() -> None:
    """They are refused with their place: such a rule would wait for something that never happens."""
    with pytest.raises(ProblemsFound) as found:
        load_text(
            """
rules:
  - name: a
    match: x
    lazy: [custom_fields.seen, tag_names, email]
    do: [{upsert: {email: a}}]
"""
        )
    assert [(problem.code, problem.line) for problem in found.value.problems] == [("MB107", 5), ("MB107", 5)]
    assert "tag_names is never lazy" in found.value.problems[0].message


def test_a_notice_tells_which_enabled_rules_have_lazy_fields() -> None:
    """Each with its place, for those whose state does not outlive the process."""
    book = load_text(
        """
rules:
  - {name: a, match: x, lazy: [custom_fields.seen], do: [{upsert: {email: a}}]}
  - {name: b, match: x, enabled: false, lazy: [custom_fields.seen], do: [{upsert: {email: a}}]}
  - {name: c, match: x, do: [{upsert: {email: a}}]}
"""
    )
    assert [(notice.code, notice.line, notice.severity) for notice in book.forgets_lazy_values()] == [
        ("MB152", 3, "notice")
    ]


def test_needs_identities_names_actions_that_know_no_email() -> None:
    book = load_text(
        """
rules:
  - name: a
    match: x
    do:
      - upsert: {external_id: "1"}
      - upsert: {email: a}
      - track: {event_name: x, external_id: "1"}
      - track: {event_name: x}
        contact: {stripe: a}
      - trigger: {trigger_key: x, external_id: "1"}
      - enroll: {sequence_slug: x}
        contact: {stripe: a}
      - add_tag: {tag_name: x, external_id: "1"}
      - remove_tag: {tag_name: x, email: a}
  - name: off
    match: x
    enabled: false
    do: [{upsert: {external_id: "1"}}]
"""
    )
    found = book.needs_identities()
    assert [(problem.code, problem.line) for problem in found] == [("MB150", line) for line in (6, 9, 11, 12, 14)]
    assert "track has no email or external_id" in found[1].message


def test_references_of_a_rule_stand_at_their_place() -> None:
    book = load_text(
        in_action("""
        - upsert:
            email: ${data.email}
            custom_fields: {plan: "${optional(data.plan)}"}
          when: data.x > 1
        """),
    )
    found = [(ref.path, ref.guarded, ref.where, ref.line, ref.column) for ref in book.rules[0].references]
    assert sorted(found) == sorted(
        [
            ("data.x", False, "upsert.when", 8, 15),
            ("data.email", False, "upsert.email", 6, 20),
            ("data.plan", True, "upsert.custom_fields.plan", 7, 45),
        ]
    )


def test_kinds_are_those_of_enabled_rules() -> None:
    text = (
        HEAD
        + "      - upsert: {email: a}\n  - name: b\n    match: x\n    enabled: false\n    do: [{trigger: {trigger_key: a, to_email: b}}]\n"
    )
    assert load_text(text).kinds() == {Kind.UPSERT}


def test_tests_beside_rules_and_at_the_top_are_kept() -> None:
    """In a file with rules, and in one that holds nothing else."""
    book = load_text(
        HEAD
        + "      - upsert: {email: a}\n"
        + "    tests:\n      - {name: t, events: [{type: user.x, data: {a: 1}}], given: {identities: []}, now: 5,"
        + " expect: [{upsert: {email: a}, exact: true}]}\n"
        + "tests: [{event: {type: user.x}, expect: []}]\n"
    )
    (test,) = book.rules[0].tests
    assert test.events == ({"type": "user.x", "data": {"a": 1}},)
    assert test.expect is not None and test.expect[0].exact and test.now_wall_seconds == 5.0
    assert [case.of for case in book.tests] == ["rule", "book"]
    assert [case.name for case in load_text("tests: [{name: a, event: {type: x}, expect: []}]\n").tests] == ["a"]
