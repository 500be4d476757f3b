"""Which topics may write which field: what is missed here is believed to be unchanged, and is not."""

from typing import Any

import pytest

from bridge.model import Kind
from bridge.rules import RuleBook, load_text
from bridge.rules.handlers import Handler
from bridge.rules.writers import EVERYTHING, NOTHING, PATHS_MAX, Writers, Writes, writes_of

EMAIL = "${data.email}"


@pytest.mark.parametrize(
    ("kind", "fields", "sets", "removes", "rekeys"),
    [
        ("upsert", {"email": EMAIL, "first_name": "x", "source": "api"}, {"first_name"}, (), False),
        ("upsert", {"email": EMAIL, "external_id": "${data.id}"}, (), (), True),
        ("upsert", {"external_id": "${data.id}", "last_name": "x"}, {"last_name"}, (), True),
        ("upsert", {"email": EMAIL, "aliases": {"stripe": "x"}}, (), (), True),
        ("upsert", {"email": EMAIL, "custom_fields": {"a": 1, "b": 2}}, {"custom_fields.a", "custom_fields.b"}, (), 0),
        ("upsert", {"email": EMAIL, "custom_fields": "${data}"}, {"custom_fields.*"}, (), False),
        ("upsert", {"email": EMAIL, "tag_names": ["a", "${data.b}"]}, {"tag_names.a", "tag_names.*"}, (), False),
        ("upsert", {"email": EMAIL, "tag_names": "${data.tags}"}, {"tag_names.*"}, (), False),
        ("add_tag", {"email": EMAIL, "tag_name": "a"}, {"tag_names.a"}, (), False),
        ("add_tag", {"external_id": "7", "tag_id": "a"}, {"tag_names.*"}, (), True),
        ("remove_tag", {"email": EMAIL, "tag_name": "${data.tag}"}, (), {"tag_names.*"}, False),
        ("remove_tag", {"contact": {"stripe": "x"}, "tag_name": "a"}, (), {"tag_names.a"}, True),
        ("trigger", {"to_email": EMAIL, "trigger_key": "x"}, (), (), False),
        ("trigger", {"recipient": {"x": "", "custom_fields": {"a": 1}}}, {"x", "custom_fields.a"}, (), False),
        ("trigger", {"recipient": {"external_id": "7"}}, (), (), True),
        ("trigger", {"recipient": "${data}"}, {"*"}, (), True),
        ("track", {"email": EMAIL, "external_id": "7"}, (), (), False),
        ("enroll", {"email": EMAIL}, (), (), False),
    ],
)  # fmt: skip
def test_what_an_action_may_write(kind: str, fields: dict[str, Any], sets: Any, removes: Any, rekeys: bool) -> None:
    assert writes_of(Kind(kind), fields) == Writes(frozenset(sets), frozenset(removes), bool(rekeys))


def writers(**topics: Writes) -> Writers:
    return Writers(topics)


def sets(*paths: str) -> Writes:
    return Writes(frozenset(paths))


def removes(*paths: str) -> Writes:
    return Writes(removes=frozenset(paths))


def test_a_field_is_shared_where_two_topics_may_set_it() -> None:
    found = writers(
        a=sets("first_name", "custom_fields.plan", "tag_names.x"), b=sets("custom_fields.*", "tag_names.x"), c=NOTHING
    )
    paths = ("first_name", "custom_fields.plan", "custom_fields.mrr", "tag_names.x", "last_name")
    assert [path for path in paths if found.others(path)] == ["custom_fields.plan"]
    assert [found.shared(topic) for topic in "abcd"] == [["custom_fields.plan"], ["custom_fields.*"], [], []]


def test_a_tag_is_shared_where_another_topic_removes_it() -> None:
    """Whoever only adds it takes nothing away."""
    found = writers(
        a=sets("tag_names.x", "tag_names.y", "tag_names.z"), b=removes("tag_names.x"), c=sets("tag_names.y")
    )
    assert [name for name in "xyz" if found.others(f"tag_names.{name}")] == ["x"]
    assert [found.shared(topic) for topic in "abc"] == [["tag_names.x"], ["tag_names.x"], []]
    both = writers(a=sets("tag_names.x").joined(removes("tag_names.x")), b=NOTHING)
    assert not both.others("tag_names.x") and both.shared("a") == []
    dynamic = writers(a=sets("tag_names.x"), b=removes("tag_names.*"))
    assert dynamic.others("tag_names.x") and dynamic.shared("a") == ["tag_names.x"]


def test_one_topic_alone_shares_nothing() -> None:
    found = writers(a=EVERYTHING)
    assert not found.others("first_name") and not found.others("tag_names.x")
    assert found.shared("a") == [] and found.rekeyers == {"a"}


def test_who_may_write_anything_shares_everything() -> None:
    found = writers(a=EVERYTHING, b=sets("first_name", "tag_names.x"), c=NOTHING)
    assert found.others("first_name") and found.others("tag_names.x") and not found.others("last_name")
    assert found.shared("b") == ["first_name", "tag_names.x"]
    assert found.rekeyers == {"a"}


RULES = """
rules:
  - name: one
    match: "user.*"
    topic: users
    do:
      - upsert: {email: "${data.email}", external_id: "${data.id}", custom_fields: {plan: "${data.plan}"}}
  - name: two
    match: "invoice.*"
    topic: billing
    do:
      - upsert: {email: "${data.email}", custom_fields: {mrr: "${data.mrr}"}}
  - name: off
    match: "invoice.*"
    topic: billing
    enabled: false
    do:
      - upsert: {email: "${data.email}", custom_fields: {plan: free}}
"""


def test_rules_write_on_the_topics_that_they_are_restricted_to() -> None:
    found = load_text(RULES).writers(["users", "billing"])
    assert not found.others("custom_fields.plan") and not found.others("custom_fields.mrr")
    assert found.rekeyers == {"users"}


def test_a_rule_without_a_topic_writes_on_all() -> None:
    found = load_text(RULES.replace("    topic: users\n", "")).writers(["users", "billing"])
    assert found.others("custom_fields.plan") and not found.others("custom_fields.mrr")
    assert found.rekeyers == {"users", "billing"}


def test_a_topic_that_is_not_read_writes_nothing() -> None:
    found = load_text(RULES.replace("topic: billing", "topic: users")).writers(["users"])
    assert not found.others("custom_fields.plan")


@pytest.mark.parametrize(("topics", "shared"), [((), True), (("billing",), True), (("other",), False)])
def test_a_handler_may_write_anything_on_its_topics(topics: tuple[str, ...], shared: bool) -> None:
    book = load_text(RULES)
    handler = Handler("h", lambda event: None, ("x",), topics)
    found = RuleBook(book.rules, [handler]).writers(["users", "billing"])
    assert found.others("custom_fields.plan") is shared


def test_two_sets_of_rules_may_write_what_either_may() -> None:
    """While rules change both do: a field that one topic wrote before, and another writes now, belongs to neither."""
    before = writers(a=sets("first_name"), b=NOTHING)
    after = writers(a=NOTHING, b=sets("first_name", "last_name"))
    both = before.joined(after)
    assert not before.others("first_name") and not after.others("first_name")
    assert both.others("first_name") and not both.others("last_name")
    assert repr(after.joined(before)) == repr(both) != repr(after)
    assert repr(after.joined(writers(b=sets("last_name")))) == repr(after)
    assert before.joined(writers(b=Writes(rekeys=True))).rekeyers == {"b"}


def test_rules_that_change_for_ever_need_no_memory_for_ever() -> None:
    """A topic of which too many paths are known counts as one that may write any."""
    found = writers(a=NOTHING, b=sets("first_name"))
    for number in range(4):
        found = found.joined(writers(a=sets(*(f"custom_fields.{number}_{each}" for each in range(PATHS_MAX // 2 + 1)))))
    assert found.others("first_name") and len(repr(found)) < 1_000
