"""What a sample of records says of the rules: counted, and told without any value of an event."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bridge import traffic
from bridge.decode import decoder_for
from bridge.errors import BridgeError, Problem
from bridge.model import Event, Kind, Record
from bridge.places import Place
from bridge.rules import RuleBook, load_text
from bridge.traffic import a_day_by_times, seen_in

PLACE = Place("bridge.yaml", 3, 3)
DECODE = decoder_for("json").decode


def records(*events: Any, topic: str = "t") -> list[Record]:
    return [
        Record(topic, 0, offset, offset * 1_000, None, each if isinstance(each, bytes) else json.dumps(each).encode())
        for offset, each in enumerate(events)
    ]


def book(text: str) -> RuleBook:
    return load_text("rules:\n" + text, "r.yaml")


def about_rules(text: str, *events: Any, rows: bool = False) -> list[Problem]:
    rules = book(text)
    return list(traffic._about_rules("t", seen_in([records(*events)], DECODE, rules), rules, rows=rows))


RULE = '  - {name: a, match: x, do: [{upsert: {email: "${data.email}"}}]}\n'


def test_calls_are_counted_over_records_of_any_kind() -> None:
    """Unwanted events, tombstones and broken records are records too: they cost nothing."""
    seen = seen_in(
        [
            records(
                {"type": "x", "data": {"email": "a@example.com"}},
                {"type": "y", "data": {}},
                b"{",
                {"type": "x", "data": {"email": "b@example.com"}},
            )
        ],
        DECODE,
        book(RULE),
    )
    assert (seen.planned.records, seen.planned.merged) == (4, {Kind.UPSERT: 2})
    assert seen.types == {"x": 2, "y": 1} and seen.unwanted == {"y"}
    assert seen.undecoded.total() == 1


def test_a_rule_that_fails_is_told_with_how_often_and_what_is_missing() -> None:
    good, bad = {"type": "x", "data": {"email": "secret@example.com"}}, {"type": "x", "data": {"mail": "secret@x"}}
    (problem,) = about_rules(RULE, good, bad, bad)
    assert (problem.code, problem.severity, problem.line) == ("MB224", "warning", 2)
    assert problem.message == "rule a fails for 2 of 3 sampled events of t: upsert.email: data.email is missing"
    assert "secret" not in str(problem)
    (problem,) = about_rules(RULE, bad, bad)
    assert "for all 2 sampled" in problem.message
    assert about_rules(RULE, good) == []


WHEN = RULE.replace("do:", "when: data.paln == 'pro', do:")


def test_a_condition_that_misses_its_field_in_every_event() -> None:
    """A few events say nothing, and one that has it says that it may be there."""
    without = {"type": "x", "data": {"email": "a", "plan": "pro"}}
    (problem,) = about_rules(WHEN, *[without] * 5)
    assert (problem.code, problem.severity, problem.line, problem.column) == ("MB225", "notice", 2, 31)
    assert "when is false for all 5 sampled events of t: data.paln is missing" in problem.message
    assert about_rules(WHEN, *[without] * 4) == []
    assert about_rules(WHEN, *[without] * 5, {"type": "x", "data": {"email": "a", "paln": "free"}}) == []


def test_rows_without_their_former_values() -> None:
    """A table that does not write them makes every rule on them idle, which nobody would notice."""
    rule = RULE.replace("do:", "when: data.before.plan != data.after.plan, do:")
    update = {"type": "x", "data": {"before": None, "after": {"plan": "pro"}}}
    (problem,) = about_rules(rule, *[update] * 5, rows=True)
    assert (problem.code, problem.severity) == ("MB225", "warning")
    assert "REPLICA IDENTITY FULL" in problem.hint


def test_a_type_that_is_almost_that_of_events_which_nobody_wants() -> None:
    rule = RULE.replace("match: x", "match: user.signedup")
    events = [{"type": "user.signed_up", "data": {"email": "a"}}] * 5
    (problem,) = about_rules(rule, *events)
    assert (problem.code, problem.severity, problem.line, problem.column) == ("MB227", "warning", 2, 22)
    assert "did you mean user.signed_up?" in problem.hint
    assert about_rules(rule, *events[:4]) == []
    wanted = RULE.replace("name: a", "name: b").replace("match: x", "match: user.signed_up")
    assert about_rules(rule + wanted, *events) == [], "another rule takes them"
    assert about_rules(RULE.replace("match: x", "match: user.signed_off"), *events) == [], "a word of its own"
    assert about_rules(rule.replace("do:", "topic: u, do:"), *events) == [], "another topic's"


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("user.signedUp", "user.signed_up", True),
        ("user.sined_up", "user.signed_up", True),
        ("user.signed_upp", "user.signed_up", True),
        ("user.signed_ip", "user.signed_up", True),
        ("plan.changed", "plan.charged", True),
        ("user.created", "user.updated", False),
        ("a", "abc", False),
    ],
)
def test_how_alike_names_are(one: str, other: str, alike: bool) -> None:
    assert traffic._alike(one, other) is traffic._alike(other, one) is alike


def test_records_that_are_no_events_are_told_by_their_commonest_mistake() -> None:
    seen = seen_in([records(b"{", b"{", b"[1]", {"type": "x", "data": {"email": "a"}})], DECODE, book(RULE))
    (problem,) = traffic._about_records("t", seen, PLACE)
    assert (problem.code, problem.severity, problem.line) == ("MB226", "warning", 3)
    assert problem.message.startswith("3 of 4 sampled records of t are no events: ")
    assert problem.message.endswith(", and 1 other mistakes")


def test_records_whose_schemas_are_not_at_hand_are_left_out() -> None:
    """Nothing is said of rules where nothing was decoded."""

    def decode(record: Record) -> Event | None:
        raise BridgeError("their schemas are in a registry")

    seen = seen_in([records({"type": "x"})], decode, book(RULE))
    (problem,) = traffic._about_records("t", seen, PLACE)
    assert (problem.code, problem.severity) == ("MB228", "notice")
    assert seen.planned.records == 0 and list(traffic._about_rules("t", seen, book(RULE), rows=False)) == []


def stamped(*ages: float, wall: float = 1_000_000.0) -> list[Record]:
    return [Record("t", 0, n, int((wall - age) * 1_000), None, b"") for n, age in enumerate(ages)]


def test_a_days_records_by_their_times_where_a_broker_knows_none() -> None:
    """All of the day's where the sample holds them; scaled where it is only the end of the day."""
    wall, hour = 1_000_000.0, 3_600.0
    assert a_day_by_times(stamped(30 * hour, 20 * hour, hour), 9, wall) == 2.0
    assert a_day_by_times(stamped(20 * hour, hour), 2, wall) == 2.0
    assert a_day_by_times(stamped(6 * hour, 4 * hour, hour), 100, wall) == pytest.approx(12.0)
    assert a_day_by_times([], 0, wall) == 0.0
    assert a_day_by_times([Record("t", 0, 0, -1, None, b"")], 1, wall) == 0.0
