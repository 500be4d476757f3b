"""Tests in rules files, whatever people write into them: problems with places, or a result; never anything else."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bridge.cli.test import Known
from bridge.decode import JsonDecoder
from bridge.errors import ProblemsFound
from bridge.rules.cases import ERROR_KEYS, EVENT_KEYS, TEST_KEYS
from bridge.rules.coverage import Coverage
from bridge.rules.loader import load_text
from bridge.rules.testing import Bench, Ending, World

RULES = """\
rules:
  - name: one
    match: a
    when: data.n > 0
    do:
      - upsert: {email: "${data.email}", custom_fields: {n: "${data.n}", x: "${'y' if data.x else 'z'}"}}
      - track: {event_name: e}
        contact: {stripe: "${data.stripe}"}
"""


def some(**fields: Any) -> Any:
    """An object of some of these fields."""
    return st.fixed_dictionaries({}, optional=fields)


word = st.text("ab é\"'#:-{[", min_size=1, max_size=3).filter(str.strip)
anything = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=5)
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
data = some(email=st.just("a@x.io"), n=st.integers(-1, 2), x=st.booleans(), stripe=st.just("c"))
event = st.one_of(
    some(
        time=st.sampled_from(["2026-01-02T03:04:05Z", "2026-01-01"]),
        id=word,
        source=word,
        subject=word,
        key=word,
        headers=some(tenant=word),
        topic=st.just("t"),
        partition=st.integers(0, 3),
        offset=st.integers(0, 2**40),
        timestamp=st.integers(0, 10**12),
    ).flatmap(lambda others: st.builds(lambda data: {"type": "a", "data": data, **others}, data)),
    st.builds(lambda value: {"value": value}, some(type=st.just("a"), data=data)),
)
upsert = some(
    email=st.just("a@x.io"),
    custom_fields=some(n=st.integers(0, 2), x=st.just("y"), y=anything),
    tag_names=st.lists(word, max_size=2),
)
action = st.one_of(
    st.fixed_dictionaries(
        {"upsert": upsert}, optional={"exact": st.booleans(), "lane": st.just("sync"), "aliases": some(stripe=word)}
    ),
    st.fixed_dictionaries(
        {"track": some(event_name=st.just("e"))}, optional={"max_age": st.just("1d"), "contact": some(stripe=word)}
    ),
)
identity = st.sampled_from([{"email": "a@x.io", "stripe": "c"}, {"external_id": "u", "aliases": {"stripe": "c"}}])
test = st.builds(
    lambda happening, expectation, others: {**happening, **expectation, **others},
    st.one_of(st.fixed_dictionaries({"event": event}), st.fixed_dictionaries({"events": st.lists(event, max_size=2)})),
    st.one_of(
        st.fixed_dictionaries({"expect": st.lists(action, max_size=3)}),
        st.fixed_dictionaries(
            {"expect_error": some(**{name: st.sampled_from(["rule", "decode"]) for name in ERROR_KEYS})},
            optional={"expect": st.lists(action, max_size=3)},
        ),
    ),
    some(
        name=word,
        given=some(identities=st.lists(identity, max_size=2)),
        now=st.just("2026-01-03T03:04:05Z"),
        exact=st.booleans(),
    ),
)


def text_with(tests: list[Any], *, beside: bool) -> str:
    """A rules file. JSON is YAML, but for half a surrogate pair."""
    written = json.dumps(tests).replace("\\ud", "\\u0d")
    return RULES + ("    tests: " if beside else "tests: ") + written + "\n"


def run_all(text: str) -> None:
    book = load_text(text, "r.yaml", watched=True)
    coverage = Coverage(book)
    bench = Bench(coverage.book, World(JsonDecoder().decode, Known, {}))
    for case in book.tests:
        result = bench.run(case)
        assert (result.ending is Ending.FAILED) == bool(result.difference)
        assert all(line.text for line in result.difference)
    report = coverage.report()
    assert report.rules.total == 1 and report.branches.total == 4 and report.actions.total == 2


@given(tests=st.lists(test, max_size=3), beside=st.booleans())
def test_what_is_well_formed_has_a_result(tests: list[Any], beside: bool) -> None:
    run_all(text_with(tests, beside=beside))


@given(test=test, spoilt=st.data(), wrong=anything)
def test_whatever_stands_in_a_test_it_is_a_problem_or_has_a_result(
    test: Any, spoilt: st.DataObject, wrong: Any
) -> None:
    """Anything in place of any part of it: a problem names its line, and what the loader takes can be run."""
    tests = [test]
    at: Any = tests
    while True:
        key = spoilt.draw(st.sampled_from([*range(len(at))] if isinstance(at, list) else sorted(at)))
        if not (isinstance(at[key], dict | list) and at[key]) or spoilt.draw(st.booleans()):
            break
        at = at[key]
    at[key] = wrong
    try:
        run_all(text_with(tests, beside=True))
    except ProblemsFound as error:
        assert all(problem.line and problem.code for problem in error.problems), error


def test_what_people_may_write_is_drawn_here() -> None:
    """So that a further key is drawn as well."""
    assert set(TEST_KEYS) == {"name", "event", "events", "given", "now", "expect", "expect_error", "exact"}
    assert set(EVENT_KEYS) == {
        "id", "type", "source", "subject", "time", "data",
        "key", "headers", "topic", "partition", "offset", "timestamp", "value",
    }  # fmt: skip
