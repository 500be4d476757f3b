"""Dead letters cannot swallow a topic."""

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.cap import LetterCap


@pytest.mark.parametrize(("share", "of"), [(0.0, 10), (1.1, 10), (0.5, 0)])
def test_a_cap_needs_a_share_and_events(share: float, of: int) -> None:
    """Anything else would stop everything or nothing."""
    with pytest.raises(ValueError, match="share"):
        LetterCap(share, of)


def test_it_stops_at_the_share_of_the_last_events() -> None:
    """100 of the last 500 by default; told once."""
    cap = LetterCap(0.2, 500)
    assert not any(cap.finished(dead_lettered=True) for _ in range(99))
    assert not cap.stopped
    assert cap.finished(dead_lettered=True)
    assert cap.stopped and cap.dead == 100
    assert not cap.finished(dead_lettered=True), "it is stopped already"


def test_bad_events_that_lie_long_ago_do_not_count() -> None:
    """Ninety-nine bad ones now and then over a long time are nobody's deployment."""
    cap = LetterCap(0.2, 500)
    for _ in range(50):
        for number in range(500):
            assert not cap.finished(dead_lettered=number < 99)


def test_resuming_forgets() -> None:
    """Else the first event after it would stop it again."""
    cap = LetterCap(0.2, 10)
    for _ in range(2):
        cap.finished(dead_lettered=True)
    assert cap.stopped
    cap.resume()
    assert not cap.stopped and cap.dead == 0
    assert not cap.finished(dead_lettered=True)
    assert cap.finished(dead_lettered=True)


@given(st.lists(st.booleans(), max_size=200), st.integers(1, 30), st.floats(0.05, 1.0))
def test_it_counts_as_a_naive_window_does(events: list[bool], of: int, share: float) -> None:
    """Event by event, until it stops."""
    cap = LetterCap(share, of)
    window: deque[bool] = deque(maxlen=of)
    for dead in events:
        window.append(dead)
        assert cap.finished(dead_lettered=dead) == (sum(window) >= max(1, round(share * of)))
        assert cap.dead == sum(window)
        if cap.stopped:
            cap.resume()
            window.clear()
