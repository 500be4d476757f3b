"""The benchmarks measure what they say: a trace repeats, figures are computed right, every section runs."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import orjson
import pytest

from benchmarks import absorption, day, expressions, plot, quota, savings
from benchmarks.__main__ import main
from benchmarks.day import Day, Hour, percentile
from benchmarks.house import Email
from benchmarks.trace import Traffic, times, trace
from tests.support.virtual import run

TRAFFIC = Traffic(2_000, 100, span_seconds=86_400.0, shape="day", unwanted=0.5, newcomers=0.5)


def test_a_trace_is_the_same_for_the_same_numbers_and_in_the_order_of_its_times() -> None:
    first = list(trace(TRAFFIC, 0.0))
    assert first == list(trace(TRAFFIC, 0.0))
    assert first != list(trace(replace(TRAFFIC, seed=8), 0.0))
    assert [arrival.at for arrival in first] == sorted(arrival.at for arrival in first) == times(TRAFFIC)
    assert len(first) == 2_000


def test_a_day_is_busy_in_office_hours_and_quiet_at_night() -> None:
    at = [arrival.at / 3600 for arrival in trace(TRAFFIC, 0.0)]
    assert sum(9 <= hour < 12 for hour in at) > 4 * sum(0 <= hour < 3 for hour in at)


def test_nobody_wants_what_is_said_to_be_unwanted_and_known_people_do_not_sign_up() -> None:
    types = [orjson.loads(arrival.value)["type"] for arrival in trace(TRAFFIC, 0.0)]
    wanted = [arrival.wanted for arrival in trace(TRAFFIC, 0.0)]
    assert [each != "page.viewed" for each in types] == wanted
    assert 800 < sum(wanted) < 1_050
    assert 30 < types.count("user.signed_up") < 70


def test_percentiles_are_the_smallest_value_that_covers_the_share() -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.0
    assert percentile([1.0, 2.0, 3.0, 4.0], 0.99) == 4.0
    assert math.isnan(percentile([], 0.5))


def test_emails_that_still_wait_count_with_what_they_have_waited() -> None:
    made = Day("d", 1000, [Hour(1, 10, 0, [Email(0.0, 5.0, 6.0)], 0.0)], [Email(0.0, 100.0, 3600.0)])
    assert day.delays(made.emails) == [1.0, 3500.0]
    assert "2 emails, 1 of them still waiting: p50 1.00 s, p99 3500.00 s" in list(day.table(made))[-1]


def test_emails_of_events_that_were_history_when_they_were_read_are_told_apart() -> None:
    """They count as bulk: that they wait with it says nothing of what is urgent."""
    made = Day("d", 1000, [Hour(9, 10, 0, [Email(0.0, 3601.0, 9000.0), Email(0.0, 3599.0, 3600.0)], 0.0)])
    assert day.delays(made.emails) == [1.0]
    assert "1 late" in list(day.table(made))[-1]


def test_a_plot_is_an_image_with_a_panel_for_each_figure() -> None:
    """Hours without an email have no delay: the line leaves them out."""
    made = Day("<day>", 1000, [Hour(1, 900, 5, [Email(0.0, 5.0, 6.0)], 60.0), Hour(2, 100, 5, [], 60.0)])
    image = ElementTree.fromstring(plot.days([made, made]))
    kinds = [each.tag.rpartition("}")[2] for each in image.iter()]
    assert kinds.count("polyline") == 4
    assert kinds.count("rect") == 1 + 2 * 2


def test_an_independent_email_waits_for_nothing_of_its_contact(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small day in full: a backlog, a topic of its own for email, and every figure of the hour."""
    monkeypatch.setattr(day, "EVENTS", 24 * 1_000)
    made = day.beside(1, independent=True)
    waited = day.delays(made.emails)
    assert len(waited) > 5
    assert max(waited) < day.P99_SECONDS_WANTED
    assert made.hours[0].calls > len(waited)
    assert made.hours[0].behind == 0
    assert len(list(day.table(made))) == 5


@pytest.mark.parametrize("mode", absorption.MODES)
def test_absorption_takes_every_event_in(mode: str) -> None:
    """Asserted inside: what is only held back must not count."""
    rate = run(absorption.absorb(mode, 600))
    assert rate.events == 600
    assert (rate.contacts > 0) == (mode == "merged")


def test_a_backlog_of_state_needs_no_call_more_than_the_optimum() -> None:
    """No scheduler could merge more where everything is known before the first call; enrollments apart."""
    found = savings.backlog(400, 60)
    assert found.made["upsert"] == found.fewest.upserts
    assert found.fewest.calls <= found.calls < found.actions


@pytest.mark.slow
def test_live_traffic_never_beats_its_bound() -> None:
    found = savings.live(3.0, 0.2)
    assert found.fewest.calls <= found.calls <= found.actions


@pytest.mark.slow
def test_lazy_log_ins_need_fewer_calls() -> None:
    """Of traffic that is mostly log-ins, each until its last value has been sent."""
    found = savings.lazily(1.0, 0.2)
    assert found.calls_lazily < found.calls / 2
    assert list(savings.lazy_table([found]))[-1].startswith("| live, 1 events per call, 0.2 hours | ")


def test_the_quota_section_tells_what_a_run_found() -> None:
    """Use, refusals, gaps and waits, of what came after the first hour."""
    found = quota.Found(quota.CASES[0], 2)
    found.accepted = [3599.0, *(3600.0 + 4 * number for number in range(900))]
    found.refused = [10.0, 4000.0]
    found.waits = [(20.0, 9.0), (4000.0, 2.0), (5000.0, 0.5)]
    assert list(quota.table([found]))[-1] == "| sliding windows | 100.0% | 1 | 1.0 | 4.0 | 0.50 | 2.00 | 2.00 |"


def test_expressions_are_evaluated_and_rated() -> None:
    """Each condition holds for the event, so its whole text counts; the rate is one of this machine."""
    lines = list(expressions.table(expressions.measure(count=50)))
    assert len(lines) == 2 + len(expressions.CONDITIONS) + 2
    assert all(re.fullmatch(r"\| .+ \| [\d,]+ \|", line) for line in lines[2:])


def test_an_unknown_section_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["nights"])
    assert ended.value.code == 2
    assert "invalid choice" in capsys.readouterr().err
