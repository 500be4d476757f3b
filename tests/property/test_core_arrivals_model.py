"""Arrivals against a model that remembers every reading, over several owners."""

from hypothesis import example, given
from hypothesis import strategies as st

from bridge.core.arrivals import NOTES_MAX, Arrivals

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("read"), st.integers(1, 400), st.floats(-5.0, 400.0)),
        st.tuples(st.just("finish"), st.integers(1, 300), st.just(0.0)),
        st.tuples(st.just("restart"), st.integers(0, 0), st.floats(0.0, 5000.0)),
    ),
    max_size=60,
)


@given(STEPS)
@example([("read", 1, 0.0), ("restart", 0, 0.0), ("read", 2, -1.0)])
def test_the_bound_is_never_later_than_the_first_reading(steps: list[tuple[str, int, float]]) -> None:
    """Of any offset from the frontier on, by any owner, however the clocks go; and a repeated reading is judged so."""
    arrivals, wall, taken, frontier = Arrivals(), 10_000.0, 0, 0
    first: dict[int, float] = {}
    for what, count, seconds in steps:
        if what == "read":
            for _ in range(count):
                arrivals.note(taken, wall)
                assert arrivals.of(taken, wall) <= first.setdefault(taken, wall)
                taken += 1
                wall += seconds / count
        elif what == "finish":
            frontier = min(frontier + count, taken)
        else:
            told = int(arrivals.oldest(frontier))
            arrivals = Arrivals(max(taken, arrivals.seen), float(told))
            taken = frontier
            wall += seconds
        if frontier < max(taken, arrivals.seen):
            oldest = arrivals.oldest(frontier)
            assert oldest <= min(wall for offset, wall in first.items() if offset >= frontier)
        assert len(arrivals._notes) <= NOTES_MAX
