"""The sandbox's windows against naive models that keep every call."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bridge.sandbox.quota import Quota

STEPS = st.lists(st.tuples(st.floats(0, 90), st.integers(1, 6)), max_size=60)


@given(STEPS, st.integers(1, 8), st.integers(1, 20))
def test_sliding_is_a_log_of_all_calls(steps: list[tuple[float, int]], per_minute: int, per_hour: int) -> None:
    """A call passes exactly when fewer than the limit passed in the last 60 s and in the last 3,600 s."""
    quota, now, passed = Quota(per_minute, per_hour, "sliding"), 1e9, list[float]()
    for wait, calls in steps:
        now += wait
        for _ in range(calls):
            minute = sum(1 for time in passed if time + 60 > now)
            hour = sum(1 for time in passed if time + 3600 > now)
            expected = minute < per_minute and hour < per_hour
            assert (quota.admit(now)[1] == "") is expected
            if expected:
                passed.append(now)
    assert quota.snapshot(now)["hour"]["used"] == sum(1 for time in passed if time + 3600 > now)


@given(STEPS, st.integers(1, 8), st.integers(1, 20))
def test_fixed_counts_per_clock_minute_and_hour(steps: list[tuple[float, int]], per_minute: int, per_hour: int) -> None:
    """A call passes exactly when its clock minute and its clock hour have room."""
    quota, now, passed = Quota(per_minute, per_hour, "fixed"), 1e9, list[float]()
    for wait, calls in steps:
        now += wait
        for _ in range(calls):
            minute = sum(1 for time in passed if time // 60 == now // 60)
            hour = sum(1 for time in passed if time // 3600 == now // 3600)
            expected = minute < per_minute and hour < per_hour
            assert (quota.admit(now)[1] == "") is expected
            if expected:
                passed.append(now)


@given(STEPS, st.integers(1, 8))
def test_a_bucket_never_passes_more_than_its_size_and_refill(steps: list[tuple[float, int]], limit: int) -> None:
    """Between any two moments at most limit + elapsed * limit / 60 calls pass."""
    quota, now, passed = Quota(limit, 0, "token_bucket"), 1e9, list[float]()
    for wait, calls in steps:
        now += wait
        passed += [now for _ in range(calls) if quota.admit(now)[1] == ""]
    for first in range(len(passed)):
        for last in range(first, len(passed)):
            most = limit + (passed[last] - passed[first]) * limit / 60 + 1e-3
            assert last - first + 1 <= most
