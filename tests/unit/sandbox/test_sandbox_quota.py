"""The quota windows of a key, by each algorithm, with time passed in."""

from __future__ import annotations

import pytest

from bridge.sandbox.options import SandboxOptions
from bridge.sandbox.quota import ALGORITHMS, Quota

START = 1_800_000_000.0  # divisible by 3,600: the start of a clock hour


def admitted(quota: Quota, now: float, calls: int) -> int:
    return sum(quota.admit(now)[1] == "" for _ in range(calls))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_minute_limit_holds_and_opens_again_a_minute_later(algorithm: str) -> None:
    """Exactly `per_minute` calls pass at once, and as many again after a whole minute."""
    quota = Quota(60, 1000, algorithm)
    assert admitted(quota, START, 100) == 60
    assert quota.admit(START)[1] == "minute"
    assert admitted(quota, START + 60, 100) == 60


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_hour_limit_holds_although_each_minute_has_room(algorithm: str) -> None:
    """With 10 a minute and 25 an hour, the third minute lets five pass (a bucket's refill: one or two more)."""
    quota = Quota(10, 25, algorithm)
    passed = [admitted(quota, START + 60 * minute, 10) for minute in range(3)]
    assert passed[:2] == [10, 10]
    assert passed[2] == 5
    assert quota.admit(START + 120)[1] == "hour"


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_waiting_as_told_is_enough_and_not_a_second_more_than_needed(algorithm: str) -> None:
    """A call is refused until the wait that was named is over, and passes then."""
    quota = Quota(3, 0, algorithm)
    admitted(quota, START + 7.25, 3)
    wait_seconds, window = quota.admit(START + 8)
    assert window == "minute"
    assert wait_seconds > 0
    assert quota.admit(START + 8 + wait_seconds - 0.01)[1] == "minute"
    assert quota.admit(START + 8 + wait_seconds)[1] == ""


def test_a_sliding_window_knows_no_edge() -> None:
    """60 calls late in one clock minute leave no room early in the next, where a fixed window has it all."""
    sliding, fixed = Quota(60, 0, "sliding"), Quota(60, 0, "fixed")
    for quota in (sliding, fixed):
        assert admitted(quota, START + 59, 60) == 60
    assert admitted(sliding, START + 61, 60) == 0
    assert admitted(fixed, START + 61, 60) == 60


def test_a_token_bucket_refills_evenly() -> None:
    """Half a minute after it was emptied, half the limit passes."""
    quota = Quota(60, 0, "token_bucket")
    assert admitted(quota, START, 100) == 60
    assert admitted(quota, START + 30, 100) == 30


def test_refused_calls_do_not_count_unless_asked_for() -> None:
    """Hammering costs nothing by default; with count_refused it keeps the key shut."""
    free, strict = Quota(2, 0), Quota(2, 0, count_refused=True)
    for quota in (free, strict):
        for second in range(60):
            quota.admit(START + second)
    assert free.admit(START + 61)[1] == ""
    assert strict.admit(START + 61)[1] == "minute"


def test_a_call_refused_by_the_hour_does_not_use_up_the_minute() -> None:
    """Both windows or none: a refusal takes nothing from the window that had room."""
    quota = Quota(10, 2)
    assert admitted(quota, START, 5) == 2
    assert quota.snapshot(START)["minute"]["used"] == 2


def test_zero_is_no_limit() -> None:
    quota = Quota(0, 0)
    assert admitted(quota, START, 5000) == 5000


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_snapshot_tells_what_is_used(algorithm: str) -> None:
    quota = Quota(60, 1000, algorithm)
    admitted(quota, START + 1, 7)
    shown = quota.snapshot(START + 1)
    assert (shown["minute"], shown["hour"]) == ({"limit": 60, "used": 7}, {"limit": 1000, "used": 7})
    assert quota.snapshot(START + 4000)["hour"]["used"] == 0


def test_an_unknown_algorithm_and_a_negative_limit_are_refused() -> None:
    with pytest.raises(ValueError, match="leaky"):
        Quota(60, 0, "leaky")
    with pytest.raises(ValueError, match="0"):
        Quota(-1, 0)


def test_a_small_bucket_refuses_bursts_and_gives_as_much_in_the_long_run() -> None:
    """Ten at once, then one a second; the hour's bucket is as large as its limit."""
    quota = Quota(60, 1000, "token_bucket", burst=10)
    assert admitted(quota, START, 100) == 10
    assert quota.admit(START) == (pytest.approx(1.0), "minute")
    assert sum(admitted(quota, START + second, 5) for second in range(1, 61)) == 60
    assert quota.snapshot(START + 60)["burst"] == 10


def test_only_a_bucket_has_a_burst() -> None:
    """A flag that would do nothing is a mistake; a key with an algorithm of its own has its own bursts."""
    with pytest.raises(ValueError, match="only a token_bucket"):
        Quota(60, 1000, "sliding", burst=10)
    options = SandboxOptions(algorithm="token_bucket", burst=10)
    assert options.new_quota().burst == 10
    assert options.new_quota(algorithm="sliding").burst == 0
