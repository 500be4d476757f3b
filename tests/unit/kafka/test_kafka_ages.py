"""How far retention is from the frontier: by the frontier's own timestamp, and said in time."""

from __future__ import annotations

from structlog.testing import capture_logs

from bridge.kafka.ages import SAMPLES_MAX, STEP_MS, WARN_AGAIN_SECONDS, Ages
from bridge.model import Position, Record, TopicPartition

HERE = TopicPartition("t", 0)
HOUR = 3_600
BORN = 1_700_000_000


def record(offset: int, seconds: float, topic: str = "t") -> Record:
    return Record(topic, 0, offset, int((BORN + seconds) * 1000), None, b"v")


def reading(*records: Record, keeps: float | None = 24 * HOUR, start: int = 0) -> Ages:
    ages = Ages(lambda: {} if keeps is None else {"t": keeps})
    ages.begin(HERE, start)
    ages.read(records)
    return ages


def test_the_frontiers_own_record_counts_not_the_newest() -> None:
    """What was read a day's work ago and still waits is what retention reaches first."""
    ages = reading(*(record(n, n * HOUR) for n in range(10)))
    assert ages.seconds_left(HERE, 0, BORN + HOUR) == 23 * HOUR
    assert ages.seconds_left(HERE, 4, BORN + HOUR) == 27 * HOUR
    ages.passed([Position(HERE, 4)])
    assert ages.seconds_left(HERE, 4, BORN + HOUR) == 27 * HOUR, "a commit forgets only what lies before it"


def test_a_frontier_between_two_minutes_is_known_within_one_and_never_too_late() -> None:
    ages = reading(*(record(n, n) for n in range(600)))
    for frontier in (1, 59, 60, 61, 599):
        left = ages.seconds_left(HERE, frontier, BORN)
        assert left is not None
        assert 24 * HOUR + frontier - STEP_MS / 1000 < left <= 24 * HOUR + frontier


def test_nothing_is_told_where_nothing_waits_or_nothing_is_deleted_by_age() -> None:
    """No sample rather than a claim: all is finished; retention is unlimited or not told; not ours; no timestamp."""
    assert reading(record(0, 0)).seconds_left(HERE, 1, BORN) is None
    assert reading(record(0, 0), keeps=None).seconds_left(HERE, 0, BORN) is None
    assert reading(record(0, 0)).seconds_left(TopicPartition("t", 1), 0, BORN) is None
    assert reading(record(0, 0)._replace(timestamp_ms=-1)).seconds_left(HERE, 0, BORN) is None
    gone = reading(record(0, 0))
    gone.forget([HERE])
    gone.read([record(1, 0)])
    assert gone.seconds_left(HERE, 0, BORN) is None


def test_what_is_overdue_is_zero() -> None:
    """The broker deletes whole segments, so a record may outlive its time."""
    assert reading(record(0, 0)).seconds_left(HERE, 0, BORN + 48 * HOUR) == 0.0


def test_samples_are_bounded_and_err_on_the_early_side() -> None:
    ages = reading(*(record(n, n * 100) for n in range(20_000)))
    assert len(ages._samples[HERE]) <= SAMPLES_MAX
    for frontier in (0, 1, 777, 19_998, 19_999):
        left = ages.seconds_left(HERE, frontier, BORN)
        assert left is not None and left <= 24 * HOUR + frontier * 100
    # Of the newest part nothing was forgotten yet.
    assert ages.seconds_left(HERE, 19_999, BORN) == 24 * HOUR + 1_999_900


def test_less_than_an_hour_is_said_once_an_hour_with_the_place() -> None:
    ages = reading(record(7, 0), record(8, 0), start=7)
    with capture_logs() as logs:
        ages.warn(0.0, BORN + 22 * HOUR)
        assert logs == []
        ages.warn(10.0, BORN + 23.5 * HOUR)
        ages.warn(20.0, BORN + 23.6 * HOUR)
        ages.warn(10.0 + WARN_AGAIN_SECONDS, BORN + 24.5 * HOUR)
    assert [(line["log_level"], line["partition"], line["offset"], line["seconds_left"]) for line in logs] == [
        ("warning", "t/0", 7, 1800),
        ("warning", "t/0", 7, 0),
    ]


def test_a_commit_that_leaves_nothing_open_ends_the_warning() -> None:
    ages = reading(record(7, 0), start=7)
    ages.passed([Position(HERE, 8)])
    with capture_logs() as logs:
        ages.warn(0.0, BORN + 24 * HOUR)
    assert logs == []
