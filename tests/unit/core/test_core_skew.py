"""Meisa's clock against ours, from truncated dates in slow answers."""

import pytest

from bridge.core.skew import AGREEING, RECENT, News, Skew

START = 1_780_000_000.25


def answers(skew: Skew, offset: float, *, count: int = 1, at: float = START, seconds: float = 0.2) -> list[News | None]:
    """Answers of a Meisa whose clock is `offset` ahead, one second apart, `seconds` under way; made halfway."""
    told = []
    for number in range(count):
        sent = at + number
        told.append(skew.observe(sent, sent + seconds, float(int(sent + seconds / 2 + offset))))
    return told


def test_clocks_that_agree_are_left_alone() -> None:
    """Whole seconds and slow answers make no difference of their own; nothing is told of less than some seconds."""
    for offset in (0.0, 0.99, -0.99):
        skew = Skew()
        assert answers(skew, offset, count=30) == [None] * 30
        assert abs(skew.correction_seconds) <= abs(offset) and skew.known


def test_nothing_is_corrected_before_an_answer() -> None:
    assert (Skew().correction_seconds, Skew().known) == (0.0, False)


@pytest.mark.parametrize("offset", [600.0, -600.0, 7.5, -40_000.0])
def test_one_answer_tells_how_far_the_clocks_differ(offset: float) -> None:
    """To about two seconds, never beyond what is true, and it is told."""
    skew = Skew()
    assert answers(skew, offset) == [News.CORRECTED]
    assert abs(skew.correction_seconds - offset) <= 2.2
    assert abs(skew.correction_seconds) <= abs(offset)


def test_quick_answers_narrow_what_a_slow_one_leaves_open() -> None:
    """A call of a minute says little; what the next ones say lies within it."""
    skew = Skew()
    answers(skew, 100.0, seconds=60.0)
    assert 60.0 < skew.correction_seconds < 75.0
    assert answers(skew, 100.0, count=5) == [News.CORRECTED, None, None, None, None]
    assert abs(skew.correction_seconds - 100.0) <= 2.2


def test_a_late_header_is_no_contradiction() -> None:
    """A server that makes the header once a second: it is up to a second old."""
    skew = Skew()
    for number in range(40):
        sent = START + number * 0.3
        late = float(int(sent + 0.01)) - (number % 2)
        skew.observe(sent, sent + 0.02, late)
    assert skew.correction_seconds == 0.0


def test_a_single_contradiction_changes_nothing() -> None:
    """One server behind a balancer whose clock is off, now and then."""
    skew = Skew()
    answers(skew, 0.0, count=3)
    for _ in range(10):
        assert answers(skew, 1800.0, count=AGREEING - 1) == [None] * (AGREEING - 1)
        assert answers(skew, 0.0) == [None]
    assert skew.correction_seconds == 0.0


def test_contradictions_that_agree_are_a_clock_that_was_set() -> None:
    skew = Skew()
    answers(skew, 0.0, count=3)
    assert answers(skew, -300.0, count=AGREEING) == [None] * (AGREEING - 1) + [News.CORRECTED]
    assert abs(skew.correction_seconds + 300.0) <= 2.2


def test_contradictions_that_disagree_are_none() -> None:
    """Each says something else: nothing is known but that it was well before."""
    skew = Skew()
    answers(skew, 0.0)
    for number in range(1, 20):
        assert answers(skew, 100.0 * number) == [None]
    assert skew.correction_seconds == 0.0


def test_a_clock_that_drifts_is_followed() -> None:
    """Old intervals are dropped: seconds of drift over many answers come through, without a contradiction."""
    skew = Skew()
    for number in range(40 * RECENT):
        answers(skew, 0.05 * number, at=START + number)
    assert abs(skew.correction_seconds - 0.05 * 40 * RECENT) <= 3.0


@pytest.mark.parametrize("date", [0.0, START + 90_000.0, START - 90_000.0, float("inf")])
def test_a_date_beyond_belief_is_ignored_and_told_once(date: float) -> None:
    """What was known stays; one server that says it now and then does not fill the log."""
    skew = Skew()
    answers(skew, 600.0)
    before = skew.correction_seconds
    assert [skew.observe(START, START + 0.1, date) for _ in range(5)] == [News.UNBELIEVABLE, None, None, None, None]
    assert skew.correction_seconds == before
    assert answers(skew, 600.0) == [None]
    assert skew.observe(START, START + 0.1, date) is None
    assert answers(skew, 600.0, count=RECENT) == [None] * RECENT
    assert skew.observe(START, START + 0.1, date) is News.UNBELIEVABLE


def test_what_makes_no_sense_says_nothing() -> None:
    """Our own clock was set back while the call was under way; or the date is no number."""
    skew = Skew()
    assert skew.observe(START, START - 600.0, START) is None
    assert skew.observe(START, START + 1, float("nan")) is None
    assert not skew.known


def test_a_clock_set_forward_during_a_call_widens_what_it_says() -> None:
    """The answer seems to have taken ten minutes: anything in between may be, so nothing is corrected."""
    skew = Skew()
    assert skew.observe(START, START + 600.0, START + 0.1) is None
    assert skew.correction_seconds == 0.0


def test_a_limit_of_nothing_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="above 0"):
        Skew(believed_max_seconds=0)
