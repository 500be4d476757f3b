"""What tests had of the rules: rules, both outcomes of each condition, actions."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from bridge.actions import Upsert
from bridge.decode import JsonDecoder
from bridge.model import Event
from bridge.rules.coverage import Coverage, Report, Share
from bridge.rules.handlers import Handler
from bridge.rules.loader import load_text
from bridge.rules.testing import Bench, Ending, World

RULES = """\
rules:
  - name: one
    match: a
    when: data.n > 0
    do:
      - upsert: {email: a@x.io, first_name: "${'x' if data.x else 'y'}",
                 tag_names: ["${'t' if data.t else optional(null)}"]}
      - track: {event_name: e, email: a@x.io}
        when: data.n > 1
  - name: two
    match: b
    when: true
    do: [{track: {event_name: e, email: a@x.io}}]
  - {name: off, match: a, enabled: false, do: [{track: {event_name: e, email: a@x.io}}]}
tests:
"""


def report(*data: str, handlers: Iterable[Handler] = (), names: set[str] | None = None) -> Report:
    """After one test for each of these events of type a."""
    tests = "".join(f"  - {{event: {{type: a, data: {each}}}, expect: []}}\n" for each in data)
    coverage = Coverage(load_text(RULES + (tests or "  []\n"), "r.yaml", handlers=list(handlers), watched=True))
    bench = Bench(coverage.book, World(JsonDecoder().decode, lambda contacts: pytest.fail("nobody is known"), {}))
    for case in coverage.book.tests:
        bench.run(case)
    return coverage.report(names)


def told(made: Report) -> list[str]:
    return [f"{gap.place.line}:{gap.place.column} {gap.rule}: {gap.what}" for gap in made.gaps]


def test_without_tests_everything_is_a_gap_and_each_rule_is_told_once() -> None:
    """Rules that are not enabled do not count, nor do conditions that are constant."""
    made = report()
    assert (made.rules, made.branches, made.actions) == (Share(0, 2), Share(0, 8), Share(0, 3))
    assert told(made) == ["2:11 one: the rule never ran", "10:11 two: the rule never ran"]


def test_each_condition_has_two_outcomes() -> None:
    """Those of `when`, of a rule and of an action, and of each `a if c else b`."""
    made = report("{n: 2, x: true, t: false}", "{n: 1, x: true, t: true}")
    assert (made.rules, made.branches, made.actions) == (Share(1, 2), Share(6, 8), Share(2, 3))
    assert told(made) == [
        "4:11 one: when: never false",
        "6:55 one: upsert.first_name: if data.x: never false",
        "10:11 two: the rule never ran",
    ]


def test_a_missing_field_makes_a_condition_false_and_a_fault_neither() -> None:
    assert "when: never true" in told(report("{}"))[0]
    assert told(report("{n: text}")) == ["2:11 one: the rule never ran", "10:11 two: the rule never ran"]


def test_an_action_that_fails_was_not_made() -> None:
    made = report("{n: 2, x: 1}")
    assert made.actions == Share(0, 3)
    assert "6:0 one: upsert: never made" in told(made)


def test_handlers_count_like_rules_and_keep_their_name_and_module() -> None:
    def upsert(event: Event) -> Upsert:
        return Upsert(email="a@x.io")

    handlers = [Handler("h1", upsert, ("a",)), Handler("h2", upsert, ("b",))]
    made = report("{n: 0}", handlers=handlers)
    assert made.rules == Share(2, 4)
    assert [line.partition(" ")[2] for line in told(made)][-1] == "h2: the handler never ran"
    coverage = Coverage(load_text(RULES + "  []\n", handlers=handlers))
    assert [handler.module for handler in coverage.book.handlers] == [__name__] * 2


def test_only_named_rules_are_reported() -> None:
    assert report("{n: 0}", names={"two"}).rules == Share(0, 1)


@pytest.mark.parametrize("watch", [True, False])
def test_watching_changes_nothing_that_is_made(watch: bool) -> None:
    """The same events come to the same plans and the same failures, told in the same words."""
    datas = ("{n: 2, x: 1, t: 0}", "{n: 2}", "{n: text}", "{}", "{n: 0}", "{n: 1, x: 0, t: 1}")
    tests = "".join(f"  - {{event: {{type: a, data: {each}}}, expect: []}}\n" for each in datas)
    plain = load_text(RULES + tests)
    book = Coverage(load_text(RULES + tests, watched=watch)).book
    world = World(JsonDecoder().decode, lambda contacts: pytest.fail("nobody is known"), {})
    run: Callable[[Bench], list[object]] = lambda bench: [  # noqa: E731
        (result.ending, result.made, result.failures, result.notes) for result in map(bench.run, plain.tests)
    ]
    expected = run(Bench(plain, world))
    assert run(Bench(book, world)) == expected
    assert [ending for ending, *_ in expected].count(Ending.PASSED) == 2  # type: ignore[misc]


def test_a_share_is_told_in_whole_percent_never_rounded_up() -> None:
    assert str(Share(199, 200)) == "199 of 200 (99 %)"
    assert str(Share(0, 0)) == "none"
