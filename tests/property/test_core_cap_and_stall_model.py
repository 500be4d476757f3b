"""The dead-letter cap and the stall watch against plain lists."""

from hypothesis import given
from hypothesis import strategies as st

from bridge.core.cap import LetterCap
from bridge.core.stall import StallWatch


@given(
    st.sampled_from([0.1, 0.2, 0.5, 1.0]),
    st.integers(1, 12),
    st.lists(st.one_of(st.booleans(), st.none()), max_size=60),
)
def test_a_topic_stops_with_the_event_that_reaches_its_share(share: float, of: int, events: list[bool | None]) -> None:
    """True is a dead letter, False another end, None somebody who resumes: as a list of the last events would say."""
    cap = LetterCap(share, of)
    limit = max(1, round(share * of))
    last: list[bool] = []
    stopped = False
    for event in events:
        if event is None:
            cap.resume()
            last, stopped = [], False
        else:
            last = [*last, event][-of:]
            reached = sum(last) >= limit
            assert cap.finished(dead_lettered=event) == (reached and not stopped)
            stopped = stopped or reached
        assert cap.stopped == stopped
        assert cap.dead == sum(last)


@given(st.lists(st.tuples(st.sampled_from([1.0, 10.0, 70.0]), st.integers(0, 2), st.booleans()), max_size=60))
def test_a_stall_is_told_at_each_doubling_and_never_of_what_moves(looks: list[tuple[float, int, bool]]) -> None:
    """Told only while something is open and the frontier is what it was; from a minute on, each time twice as late."""
    watch = StallWatch(after_seconds=60.0)
    now = since = 0.0
    frontier = None
    told: list[float] = []
    for seconds, step, is_open in looks:
        now += seconds
        here = (frontier or 0) + step
        if here != frontier or not is_open:
            frontier, since, told = here, now, []
            expected = False
        else:
            expected = now - since >= (2 * told[-1] if told else 60.0)
            if expected:
                told.append(now - since)
        assert watch.look(now, here, is_open) == expected
        assert watch.stalled == bool(told)
        assert watch.seconds(now) == now - since
