"""Quota against a server that counts each call at an unknown moment between its sending and its answer."""

from hypothesis import given
from hypothesis import strategies as st

from bridge.core.quota import NEVER, Quota

LIMITS = [(3, 10.0), (7, 60.0)]


@given(
    st.lists(
        st.tuples(st.floats(0.0, 4.0), st.floats(0.0, 6.0), st.floats(0.0, 1.0), st.sampled_from("aaaau")),
        max_size=80,
    )
)
def test_no_window_on_the_server_is_ever_exceeded(steps: list[tuple[float, float, float, str]]) -> None:
    """Wherever within a call the server counts it, and however answers overtake each other, both limits hold.

    Unanswered calls may be counted up to `unanswered_seconds` after they were given up.
    """
    quota = Quota(LIMITS, unanswered_seconds=5.0)
    now = 0.0
    counted: list[float] = []
    pending: list[tuple[float, str]] = []
    for pause, duration, share, end in steps:
        now += pause
        for answer, how in sorted(pending):
            if answer <= now:
                (quota.answered if how == "a" else quota.unanswered)(answer)
        pending = [each for each in pending if each[0] > now]
        if quota.acquire(now):
            answer = now + duration
            pending.append((answer, end))
            counted.append(now + share * (duration if end == "a" else duration + 5.0))
    counted.sort()
    for limit, seconds in LIMITS:
        for first, beyond in zip(counted, counted[limit:], strict=False):
            assert beyond - first >= seconds - 1e-9


@given(st.lists(st.floats(0.0, 30.0), max_size=60), st.floats(0.0, 0.6))
def test_earliest_is_the_moment_from_which_acquire_succeeds(pauses: list[float], reserve: float) -> None:
    """Just before it a call is refused, at it a call is taken: no slot is wasted and none is taken early."""
    quota = Quota(LIMITS, reserve=reserve)
    now = 0.0
    for number, pause in enumerate(pauses):
        now += pause
        urgent = number % 3 == 0
        at = quota.earliest(now, urgent=urgent)
        assert at != NEVER
        if at > now:
            assert not quota.acquire(now, urgent=urgent)
            now = at
        assert quota.acquire(now, urgent=urgent)
        quota.answered(now)
