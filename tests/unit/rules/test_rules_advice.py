"""Rules that can be carried out and are hardly meant: each warning with its place, and none where all may be meant."""

# ruff: noqa: E501  # tables read better with one case per line

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest

from bridge.errors import Problem
from bridge.model import Kind
from bridge.rules import advise, load, load_text
from bridge.rules.advice import LIFECYCLE
from bridge.rules.codes import CODES
from bridge.rules.handlers import Handler
from bridge.rules.planner import RuleBook
from bridge.rules.row_changes import changes_of

TOPICS = {"user-events": "json", "billing": "json"}


def told(rules: str, topics: Mapping[str, str] = TOPICS) -> list[Problem]:
    book = load_text("rules:\n" + textwrap.indent(textwrap.dedent(rules).strip("\n"), "  ") + "\n", "r.yaml")
    found = advise(book, topics)
    for problem in found:
        assert problem.code in CODES and "\n" not in str(problem) and problem.severity != "error"
    return found


def places(rules: str, topics: Mapping[str, str] = TOPICS) -> list[tuple[str, int, int]]:
    """Code and place of each problem; a column counts within the rules as written here."""
    return [(problem.code, problem.line - 1, problem.column - 2) for problem in told(rules, topics)]


UPSERT = "do: [{upsert: {email: a}}]"
TRIGGER = "do: [{trigger: {trigger_key: k, to_email: a}, max_age: 1d}]"


# Rules that no event reaches


def test_a_topic_that_is_not_read() -> None:
    rules = f"""
    - {{name: a, match: x, topic: user-event, {UPSERT}}}
    - {{name: b, match: x, topic: [billing, user-*], {UPSERT}}}
    - {{name: c, match: x, topic: user-events, {UPSERT}}}
    - {{name: d, match: x, enabled: false, topic: nowhere, {UPSERT}}}
    """
    first, second, third = told(rules)
    assert str(first) == (
        "r.yaml:2:32: warning MB170: rule a: topic user-event is not read (did you mean user-events?)"
    )
    assert (second.code, second.line, second.column) == ("MB170", 3, 42)
    assert second.hint == "write topic: [user-events]" and "without patterns" in second.message
    assert (third.code, third.severity, third.line) == ("MB174", "notice", 5)


def test_a_handler_of_a_topic_that_is_not_read() -> None:
    handler = Handler("invoice", test_a_handler_of_a_topic_that_is_not_read, ("x",), ("bilings",))
    (problem,) = advise(RuleBook([], [handler]), TOPICS)
    assert problem.message.startswith("handlers: invoice in ") and "did you mean billing?" in problem.hint


@pytest.mark.parametrize(
    ("match", "more", "says"),
    [
        ("user.*", 'when: event.type == "account.x" and data.y', "event.type is never 'account.x'"),
        ("[a, b]", "when: data.x and 'c' == event.type", "event.type is never 'c', for the rule matches a, b"),
        ("a", 'when: topic == "billing", topic: user-events', "topic is never 'billing', for the rule is given events of user-events"),
        ("a", 'when: topic == "nowhere"', "topic is never 'nowhere', for the rule is given events of user-events, billing"),
        ("a", "when: false", "it is false for every event"),
        ("a", "when: 1 > 2", "it is false for every event"),
        ("a", "when: data.x == 1 and data.x == 2", "data.x cannot be 1 and 2"),
    ],
)  # fmt: skip
def test_a_condition_that_no_event_meets(match: str, more: str, says: str) -> None:
    """Of the rule, and of an action: told where the condition stands."""
    (problem,) = told(f"- {{name: a, match: {match}, {more}, {UPSERT}}}")
    assert (problem.code, problem.line) == ("MB171", 2) and says in problem.message
    when = more.split(", topic")[0]
    topic = ", topic: user-events" if "topic:" in more else ""
    (problem,) = told(f"- {{name: a, match: {match}{topic}, do: [{{upsert: {{email: a}}, {when}}}]}}")
    assert problem.code == "MB171" and f"upsert.when: {says}" in problem.message


@pytest.mark.parametrize(
    ("match", "when"),
    [
        ("user.*", 'event.type == "user.x"'),
        ('["user.*", b]', 'event.type == "b"'),
        ("a", 'event.type == "b" or data.x'),
        ("a", 'topic == "billing"'),
        ("a", "data.x / 0 == 1"),
        ("a", "true"),
    ],
)
def test_a_condition_that_events_may_meet(match: str, when: str) -> None:
    assert told(f"- {{name: a, match: {match}, when: '{when}', {UPSERT}}}") == []


# The same twice


def test_an_email_that_two_rules_send_for_one_event() -> None:
    rules = """
    - {name: all, match: "user.*", do: [{trigger: {trigger_key: k, to_email: "${data.email}"}, max_age: 1d}]}
    - name: one
      match: [account.x, user.x]
      topic: billing
      do:
        - trigger: {trigger_key: k, to_email: "${data.email}"}
          max_age: 2d
    """
    (problem,) = told(rules)
    assert (problem.code, problem.line, problem.column) == ("MB175", 7, 9)
    assert "rule one: send the email k a second time: rule all does it for the same event" in problem.message
    assert problem.hint.startswith("the first is at r.yaml:2;")


@pytest.mark.parametrize(
    "change",
    [
        ("user.*", "account.*"),
        ("trigger_key: k", "trigger_key: other"),
        ("trigger_key: k", 'trigger_key: "${data.key}"'),
        ("${data.email}", "${data.other}"),
        ("max_age: 1d", "max_age: 1d, when: data.x"),
        ('match: "user.*"', 'match: "user.*", topic: user-events'),
        ('match: "user.*"', 'match: "user.*", when: data.x'),
        ('match: "user.*"', 'match: "user.*", enabled: false'),
    ],
)
def test_emails_that_may_be_for_different_events(change: tuple[str, str]) -> None:
    """Another type, topic, condition, recipient or email, or one that the event decides."""
    first = (
        '- {name: all, match: "user.*", do: [{trigger: {trigger_key: k, to_email: "${data.email}"}, max_age: 1d}]}\n'
    )
    second = first.replace("all", "one").replace('"user.*"', "user.x, topic: billing")
    assert [problem.code for problem in told(first + second)] == ["MB175"]
    changed = told(first.replace(*change) + second)
    assert [problem.code for problem in changed if problem.code != "MB174"] == []


def test_a_track_that_one_rule_says_twice() -> None:
    """In one rule too; saying state twice, or enrolling twice, changes nothing."""
    rules = """
    - name: a
      match: x
      do:
        - track: {event_name: k, email: a}
        - track: {event_name: k, email: a, properties: {x: 1}}
        - upsert: {email: a}
        - upsert: {email: a}
        - enroll: {sequence_slug: k, email: a}
        - enroll: {sequence_slug: k, email: a}
    """
    assert places(rules) == [("MB175", 5, 7)]


# Ages and lanes


def test_triggers_without_an_age() -> None:
    """`none` is a warning, silence a notice of urgent ones; other actions keep their defaults."""
    rules = """
    - name: a
      match: x
      do:
        - trigger: {trigger_key: a, to_email: a}
          max_age: none
        - trigger: {trigger_key: b, to_email: a}
        - trigger: {trigger_key: c, to_email: a}
          max_age: 5m
        - trigger: {trigger_key: d, to_email: a}
          lane: sync
        - track: {event_name: e, email: a}
          max_age: none
    """
    assert places(rules) == [("MB177", 5, 16), ("MB178", 6, 7)]
    assert [problem.severity for problem in told(rules)] == ["warning", "notice"]


def test_bulk_work_before_urgent_work() -> None:
    """Told of the bulk rule, for it is what should move; not where their topics differ."""
    rules = f"""
    - name: import
      match: x
      lane: bulk
      TOPIC
      {UPSERT}
    - {{name: reset, match: y, topic: user-events, {TRIGGER}}}
    """
    (problem,) = told(rules.replace("TOPIC", "topic: [billing, user-events]"))
    assert (problem.code, problem.line, problem.column) == ("MB179", 4, 11)
    assert "(reset)" in problem.message and "topic of their own" in problem.hint
    assert [problem.code for problem in told(rules.replace("TOPIC", "topic: user-events"))] == ["MB179"]
    assert told(rules.replace("TOPIC", "topic: billing")) == []
    assert told(rules.replace("TOPIC", "").replace("lane: bulk", "lane: sync")) == []
    alone = "- {name: a, match: x, do: [{upsert: {email: a}, lane: bulk}, {track: {event_name: a, email: b}}]}"
    assert told(alone) == []


# Values that merging loses


def test_a_lifecycle_field_that_may_be_merged_away() -> None:
    rules = """
    - name: one
      match: x
      do:
        - upsert: {email: a, custom_fields: {plan: "${data.plan}", country: "${data.country}"}}
    - name: two
      match: y
      do:
        - upsert:
            email: a
            custom_fields:
              plan: churned
              status: gone
    """
    (problem,) = told(rules)
    assert (problem.code, problem.line, problem.column) == ("MB180", 5, 50)
    assert "rule one sets custom_fields.plan (as does two)" in problem.message
    assert "write preserve: [custom_fields.plan]" in problem.hint


@pytest.mark.parametrize(
    "more",
    [
        "preserve: [custom_fields.plan]",
        "lazy: [custom_fields.plan]",
        "coalesce: false",
    ],
)
def test_a_lifecycle_field_whose_fate_is_decided(more: str) -> None:
    rule = '- {name: a, match: x, MORE, do: [{upsert: {email: a, custom_fields: {plan: "${data.plan}"}}}]}'
    assert [problem.code for problem in told(rule.replace("MORE, ", ""))] == ["MB180"]
    assert told(rule.replace("MORE", more)) == []


def test_a_lifecycle_field_that_only_ever_gets_one_value() -> None:
    """There is no change that could be lost; a second value makes one."""
    rule = "- {name: NAME, match: x, do: [{upsert: {email: a, custom_fields: {stage: VALUE}}}]}\n"
    same = rule.replace("NAME", "a").replace("VALUE", "lead") + rule.replace("NAME", "b").replace("VALUE", "lead")
    assert told(same) == []
    assert [problem.code for problem in told(same + rule.replace("NAME", "c").replace("VALUE", "won"))] == ["MB180"]


def test_the_fields_are_those_that_meisa_speaks_of() -> None:
    assert {"plan", "subscription_status", "status", "stage"} <= set(LIFECYCLE)


# Several topics

TWO = """
- {name: one, match: x, topic: user-events, do: [{upsert: {email: a, first_name: b, custom_fields: {mrr: 1}}}]}
- {name: two, match: y, topic: billing, do: [{upsert: {email: a, first_name: c, tag_names: [t], custom_fields: {mrr: 2}}}]}
"""


def test_fields_that_rules_of_different_topics_set() -> None:
    """One warning for two rules, at the second's topic; names and tags are no such fields."""
    (problem,) = told(TWO)
    assert (problem.code, problem.line, problem.column) == ("MB186", 3, 34)
    assert problem.message.startswith(
        "rule two sets custom_fields.mrr, first_name from billing, as rule one does from user-events: whichever"
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("topic: billing", "topic: user-events"),
        ("topic: billing, ", ""),
        ("topic: billing", "topic: [billing, user-events]"),
        ("first_name: c, tag_names: [t], custom_fields: {mrr: 2}", "last_name: c, custom_fields: {seats: 2}"),
        ("match: y", "match: y, enabled: false"),
        ("topic: billing", "topic: nowhere"),
    ],
)
def test_fields_that_one_topic_sets(old: str, new: str) -> None:
    """The same topic, other fields; or nobody knows, because a rule takes events of any topic."""
    assert {problem.code for problem in told(TWO.replace(old, new))} <= {"MB170", "MB174"}


def test_fields_of_a_topic_keyed_by_contact_are_told_elsewhere() -> None:
    book = load_text("rules:" + TWO)
    assert advise(book, TOPICS, ["billing"]) == []


# Changed rows

ROWS = {"users-cdc": "debezium"}


@pytest.mark.parametrize(
    ("pattern", "changes"),
    [
        ("users.created", {"created"}),
        ("users.*", {"created", "updated", "deleted", "read", "truncated"}),
        ("*", {"created", "updated", "deleted", "read", "truncated"}),
        ("users.*ed", {"created", "updated", "deleted", "truncated"}),
        ("message", {"message"}),
        ("*.[cu]*", {"created", "updated"}),
        ("users.insert", set()),
        ("created", set()),
        ("users.x*", set()),
    ],
)
def test_kinds_of_change_that_a_pattern_matches(pattern: str, changes: set[str]) -> None:
    assert changes_of(pattern) == changes


def row(match: str, field: str, when: str = "") -> str:
    condition = f"when: '{when}', " if when else ""
    return f"- {{name: a, match: '{match}', {condition}do: [{{upsert: {{email: '${{{field}}}'}}}}]}}"


@pytest.mark.parametrize(
    ("rule", "code", "hint"),
    [
        (row("users.insert", "data.after.email"), "MB185", "write users.created"),
        (row("users", "data.after.email"), "MB185", "kinds of change are created, updated, deleted, read, truncated"),
        (row("users.updated", "data.email"), "MB184", "write data.after.email"),
        (row("users.deleted", 'data["first name"]'), "MB184", 'write data.before["first name"]'),
        (row("users.*", "data.after.email"), "MB183", "match those that have it: created, read, updated"),
        (row("users.*", "data.after.name").replace("{email:", "{email: a, first_name:"), "MB183", "match those that have it: created, read, updated; or write optional(data.after.name)"),
        (row("users.created", "data.before.email"), "MB183", "write data.after.email"),
        (row("users.deleted", "data.after.email"), "MB183", "write data.before.email"),
        (row("users.created", "data.after.email", 'data.before.plan != "a"'), "MB183", "write data.after.plan"),
    ],
)  # fmt: skip
def test_what_a_changed_row_does_not_have(rule: str, code: str, hint: str) -> None:
    (problem,) = told(rule, ROWS)
    assert (problem.code, problem.severity, problem.line, problem.hint) == (code, "warning", 2, hint)


@pytest.mark.parametrize(
    "rule",
    [
        row("users.updated", "data.before.email"),
        row("users.*", "optional(data.after.email)"),
        row("users.*", "data.after.email", 'event.type != "users.deleted"'),
        row("users.*", "data.after.email", 'data.op != "d"'),
        row("users.*", "data.source.table"),
        row("message", "data.message.prefix"),
        row("[users.created, users.updated]", "data.after.email", "data.before.plan != data.after.plan"),
    ],
)
def test_what_a_changed_row_may_have(rule: str) -> None:
    """A guard, a condition that asks for the kind of change, or a condition that is false for some kinds."""
    assert told(rule.replace("'[", "[").replace("]',", "],"), ROWS) == []


def test_only_rules_that_are_given_changed_rows_and_nothing_else_are_looked_at() -> None:
    rule = row("users.insert", "data.email")
    assert [problem.code for problem in told(rule, ROWS)] == ["MB185", "MB184"]
    assert told(rule, {**ROWS, "user-events": "json"}) == []
    assert told(rule, {"users-cdc": ""}) == [], "an envelope or a schema tells more"


# All together


def test_the_samples_are_free_of_warnings() -> None:
    """`check --strict` passes; notices may be told."""
    book = load(["rules/*.yaml"], Path(__file__).parents[3] / "config")
    assert [problem for problem in advise(book, TOPICS) if problem.severity == "warning"] == []
    assert Kind.TRIGGER in book.kinds()
