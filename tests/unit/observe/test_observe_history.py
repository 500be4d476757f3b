"""The dashboard's memory: an hour of moments, and no more."""

from __future__ import annotations

from dataclasses import replace

from bridge.observe.history import EVERY_SECONDS, KEPT, SPAN_SECONDS, History, moment_of, per_minute
from bridge.observe.snapshot import LaneDelay, QuotaState, Snapshot, Traffic

AT = 1_795_341_317.0
SNAPSHOT = Snapshot(
    "0.1.0",
    AT,
    AT,
    quota=(QuotaState("default", "minute", used=12, limit=60),),
    totals={"delivered": 7},
    calls_saved={"merged": 2},
    traffic=Traffic(consumed=9, calls={"200": 4, "503": 1}, delays=(LaneDelay("sync", 3, 6.0, ((1.0, 2),)),)),
)


def at(seconds: float, consumed: int = 0) -> Snapshot:
    return replace(SNAPSHOT, taken_at_wall_seconds=AT + seconds, traffic=Traffic(consumed=consumed))


def test_a_moment_holds_what_plots_need() -> None:
    moment = moment_of(SNAPSHOT)
    assert (moment.at_wall_seconds, moment.consumed, moment.calls) == (AT, 9, 5)
    assert moment.quota == {("default", "minute"): (12, 60)}
    assert moment.delays == {"sync": (3, 6.0)}
    assert (moment.finished, moment.saved) == ({"delivered": 7}, {"merged": 2})


def test_it_holds_an_hour_however_long_it_runs() -> None:
    """A day of moments leaves as many as an hour has, the newest."""
    history = History()
    for step in range(24 * 360):
        history.take(at(step * EVERY_SECONDS))
    assert len(history) == KEPT
    now = moment_of(at(24 * 3600))
    kept = history.until(now)
    assert kept[0].at_wall_seconds == now.at_wall_seconds - SPAN_SECONDS
    assert kept[-1] == now


def test_what_is_older_than_an_hour_is_not_drawn() -> None:
    """As after a laptop slept: the moments are few, and old."""
    history = History()
    history.take(at(0))
    history.take(at(10))
    now = moment_of(at(SPAN_SECONDS + 5))
    assert [each.at_wall_seconds - AT for each in history.until(now)] == [10, SPAN_SECONDS + 5]


def test_a_clock_that_was_set_back_leaves_no_line_that_runs_backwards() -> None:
    history = History()
    for seconds in (0, 10, 20, 5):
        history.take(at(seconds))
    assert [each.at_wall_seconds - AT for each in history.until(moment_of(at(6)))] == [0, 5, 6]
    assert [each.at_wall_seconds - AT for each in history.until(moment_of(at(3)))] == [0, 3]


def test_what_happened_lately_is_told_per_minute() -> None:
    moments = [moment_of(at(seconds, consumed)) for seconds, consumed in ((0, 0), (100, 50), (130, 60), (160, 110))]
    found = per_minute(moments)
    assert found is not None
    before, now, minutes = found
    assert (before.consumed, now.consumed, minutes) == (50, 110, 1.0)
    assert per_minute(moments[:1]) is None, "no rate of one moment"
