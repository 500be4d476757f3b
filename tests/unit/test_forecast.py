"""The arithmetic of `check`: calls a day, and how long a backlog takes. Checked against numbers worked out by hand."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest

from bridge.forecast import DAY_SECONDS, Limits, Sample, Traffic, about, outlook, period
from bridge.model import Action, Contact, Handling, Kind

LIMITS = Limits(60, 1000)


def action(kind: Kind = Kind.UPSERT, email: str = "a", lazy: tuple[str, ...] = (), **body: Any) -> Action:
    return Action(kind, "rule", 0, body, Contact(email), Handling(lazy=lazy))


def sampled(*runs: list[tuple[float, list[Action]]]) -> Sample:
    sample = Sample()
    for run in runs:
        sample.add(run)
    return sample


def test_what_can_share_a_call_counts_once() -> None:
    """Upserts and tags by name of one contact in one minute; others, later ones and other kinds by themselves."""
    sample = sampled(
        [
            (0.0, [action(), action(Kind.TRACK)]),
            (10.0, [action(), action(email="b")]),
            (20.0, [action(Kind.ADD_TAG, tag_name="x")]),
            (30.0, [action(Kind.ADD_TAG, tag_id="7"), action(Kind.TRACK)]),
            (70.0, [action()]),
        ]
    )
    assert sample.records == 5
    assert sample.unmerged == {Kind.UPSERT: 4, Kind.TRACK: 2, Kind.ADD_TAG: 2}
    assert sample.merged == {Kind.UPSERT: 3, Kind.TRACK: 2, Kind.ADD_TAG: 1}


def test_a_change_of_lazy_fields_alone_counts_once_for_a_contact() -> None:
    lazy = ("custom_fields.seen",)
    seen = [action(lazy=lazy, custom_fields={"seen": n}) for n in range(3)]
    other = action(lazy=lazy, custom_fields={"seen": 1, "plan": "pro"})
    sample = sampled([(60.0 * n, [each]) for n, each in enumerate([*seen, other])])
    assert sample.merged == {Kind.UPSERT: 2}


def test_enrollments_that_may_share_a_call_do() -> None:
    plain = [action(Kind.ENROLL, email=name, sequence_slug="s") for name in "abc"]
    told = action(Kind.ENROLL, sequence_slug="s", metadata={"a": 1})
    assert sampled([(0.0, [*plain, told])]).merged == {Kind.ENROLL: 2}


def test_records_apart_in_the_log_share_nothing() -> None:
    """Two runs are two places of the day, or two partitions: what lies between them nobody knows."""
    assert sampled([(0.0, [action()])], [(1.0, [action()])]).merged == {Kind.UPSERT: 2}


def test_a_days_calls_are_the_samples_share_of_the_days_records() -> None:
    sample = Sample(100, Counter({Kind.UPSERT: 80, Kind.TRIGGER: 5}), Counter({Kind.UPSERT: 40, Kind.TRIGGER: 5}))
    (key,) = outlook([Traffic("t", sample, a_day=50_000.0)], lambda kind: "default", LIMITS)
    assert key.by_kind == {Kind.UPSERT: 20_000, Kind.TRIGGER: 2_500}
    assert (key.calls, key.unmerged) == (22_500, 42_500)


def test_each_key_has_its_own_calls_and_its_own_quota() -> None:
    sample = Sample(10, Counter(), Counter({Kind.UPSERT: 10, Kind.TRIGGER: 1}))
    topics = [Traffic("t", sample, 1_000.0), Traffic("u", sample, 500.0)]
    keys = outlook(topics, lambda kind: "trigger" if kind is Kind.TRIGGER else "default", LIMITS)
    assert [(key.key, key.calls) for key in keys] == [("default", 1_500), ("trigger", 150)]


@pytest.mark.parametrize(
    ("limits", "a_day", "told"),
    [
        (LIMITS, 24_000, "1,000 an hour"),
        (Limits(10, 1_000), 14_400, "10 a minute"),
        (Limits(100, 6_000), 144_000, "6,000 an hour"),
    ],
)
def test_the_smaller_window_decides(limits: Limits, a_day: int, told: str) -> None:
    assert (limits.a_day, str(limits)) == (a_day, told)


def test_a_backlog_drains_with_what_the_day_leaves() -> None:
    """24,000 a day, of which 12,000 are taken: 36,000 upserts take three days."""
    sample = Sample(10, Counter(), Counter({Kind.UPSERT: 10}))
    (key,) = outlook([Traffic("t", sample, 12_000.0, backlog=36_000)], lambda kind: "default", LIMITS)
    assert key.drain_seconds == pytest.approx(3 * DAY_SECONDS)
    (idle,) = outlook([Traffic("t", sample, 12_000.0)], lambda kind: "default", LIMITS)
    assert idle.drain_seconds == 0.0
    (full,) = outlook([Traffic("t", sample, 24_000.0, backlog=1)], lambda kind: "default", LIMITS)
    assert full.drain_seconds == math.inf


def test_of_what_is_older_than_a_day_only_state_is_sent() -> None:
    """A million records of which 1,000 are of the last day: their tracks are sent, those of the others have expired."""
    sample = Sample(10, Counter(), Counter({Kind.UPSERT: 5, Kind.TRACK: 10}))
    (key,) = outlook([Traffic("t", sample, 1_000.0, backlog=1_000_000)], lambda kind: "default", LIMITS)
    assert key.backlog_calls == 500_000 + 1_000


def test_nothing_sampled_is_nothing_planned() -> None:
    assert outlook([Traffic("t", Sample(), 1_000.0, backlog=5)], lambda kind: "default", LIMITS) == []
    assert outlook([], lambda kind: "default", LIMITS) == []


@pytest.mark.parametrize(
    ("number", "told"),
    [(0, "0"), (7.4, "7"), (99, "99"), (123, "120"), (31_234, "31,000"), (999_999, "1,000,000")],
)
def test_estimates_have_two_figures(number: float, told: str) -> None:
    assert about(number) == told


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(45, "45 seconds"), (150, "2 minutes"), (7_200, "2 hours"), (90_000, "25 hours"), (37.2 * DAY_SECONDS, "37 days")],
)
def test_periods_in_the_unit_that_fits(seconds: float, told: str) -> None:
    assert period(seconds) == told
