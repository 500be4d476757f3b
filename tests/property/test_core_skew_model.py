"""The correction against the true offset of imagined clocks."""

from hypothesis import given
from hypothesis import strategies as st

from bridge.core.skew import BELIEVED_MAX_SECONDS, HEADER_LATE_SECONDS, Skew

OFFSETS = st.floats(-80_000, 80_000)
CALLS = st.lists(
    st.tuples(st.floats(0, 10), st.floats(0, 10), st.floats(0, HEADER_LATE_SECONDS), st.floats(0, 100)),
    min_size=1,
    max_size=40,
)
"""Of each call: seconds until Meisa looks at its clock, from then until the answer, how old the header is, pause."""


@given(OFFSETS, CALLS)
def test_the_correction_never_exceeds_the_truth_and_is_as_near_as_the_best_call(
    offset: float, calls: list[tuple[float, float, float, float]]
) -> None:
    """It lies between 0 and the true offset, and misses that by at most two seconds and the quickest call's time."""
    skew = Skew()
    wall = 1_780_000_000.0
    for there, back, late, pause in calls:
        looked = wall + there
        skew.observe(wall, looked + back, float(int(looked + offset - late)))
        wall = looked + back + pause
    miss = 1e-3  # of adding floats of this size
    best = min(there + back for there, back, _, _ in calls[-10:])
    assert min(0.0, offset) - miss <= skew.correction_seconds <= max(0.0, offset) + miss
    assert abs(skew.correction_seconds - offset) <= best + 1 + HEADER_LATE_SECONDS + miss


@given(st.lists(st.tuples(st.floats(0, 1e10), st.floats(-10, 1e5), st.floats(allow_nan=True)), max_size=60))
def test_no_header_whatever_corrects_beyond_belief(calls: list[tuple[float, float, float]]) -> None:
    """Any dates at any times: the correction is a number within its limit."""
    skew = Skew()
    for sent, seconds, date in calls:
        skew.observe(sent, sent + seconds, date)
        assert abs(skew.correction_seconds) <= BELIEVED_MAX_SECONDS


@given(OFFSETS, OFFSETS, CALLS)
def test_two_machines_agree_on_meisas_time(
    one: float, other: float, calls: list[tuple[float, float, float, float]]
) -> None:
    """Whatever their own clocks say, both corrected ones show the same to within both calls' times and some seconds."""
    shown = []
    for offset in (one, other):
        skew = Skew()
        true = 1_780_000_000.0
        for there, back, late, pause in calls:
            ours = true - offset
            skew.observe(ours, ours + there + back, float(int(true + there - late)))
            true += there + back + pause
        shown.append(true - offset + skew.correction_seconds)
    best = min(there + back for there, back, _, _ in calls[-10:])
    assert abs(shown[0] - shown[1]) <= 2 * (best + 1 + HEADER_LATE_SECONDS) + 1e-3
