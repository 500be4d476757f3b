"""Repeated events: what counts as one, and for how long."""

from __future__ import annotations

import pytest

from bridge.core.duplicates import Finished, FinishedIds

X, Y, Z = (name * 16 for name in (b"x", b"y", b"z"))
WINDOW = 600.0


def ids(**options: int) -> FinishedIds:
    return FinishedIds(WINDOW, **options)


def done(made: FinishedIds, name: bytes, place: tuple[int, int], wall: float, *, remember: bool = True) -> None:
    assert not made.begin(name, place, wall)
    made.end(place, wall, remember=remember)


def test_what_finished_within_the_window_is_a_duplicate() -> None:
    """From its end on; another id, and the same after the window, are not."""
    made = ids()
    done(made, X, (0, 1), 100.0)
    assert made.begin(X, (0, 2), 100.0 + WINDOW - 1) and made.begin(X, (1, 0), 101.0)
    assert not made.begin(Y, (0, 3), 101.0)
    assert not made.begin(X, (0, 4), 100.0 + WINDOW)


def test_what_is_under_way_is_a_duplicate_too() -> None:
    """However long it takes; once it is dropped it is read again by others, and nothing rests on it here."""
    made = ids()
    assert not made.begin(X, (0, 1), 0.0)
    assert made.begin(X, (1, 7), WINDOW * 9)
    made.drop(1)
    assert made.begin(X, (1, 7), 0.0)
    made.drop(0)
    assert not made.begin(X, (1, 7), 0.0)


def test_a_record_is_no_duplicate_of_itself() -> None:
    """Read again after a crash, or because somebody set the offset back; its repetition is one then as well."""
    made = ids()
    done(made, X, (0, 1), 0.0)
    assert not made.begin(X, (0, 1), 1.0)
    assert not made.begin(X, (0, 1), 2.0)
    assert made.begin(X, (0, 2), 3.0)
    assert made.end((0, 1), 4.0, remember=True) == (X, Finished(4.0, (0, 1)))
    assert made.begin(X, (0, 2), 4.0)


def test_an_event_of_which_nothing_was_to_be_done_is_not_remembered() -> None:
    made = ids()
    done(made, X, (0, 1), 0.0, remember=False)
    assert len(made) == 0 and not made.begin(X, (0, 2), 0.0)


def test_the_end_of_a_duplicate_says_nothing() -> None:
    made = ids()
    assert not made.begin(X, (0, 1), 0.0) and made.begin(X, (0, 2), 0.0)
    assert made.end((0, 2), 0.0, remember=True) is None
    assert made.begin(X, (0, 3), 0.0), "the first is still under way"


def test_the_oldest_are_forgotten_by_age_and_for_room() -> None:
    made = ids(entries_max=2)
    for place, name in enumerate((X, Y, Z)):
        done(made, name, (0, place), float(place))
    assert list(made.old(3.0)) == [X] and len(made) == 2
    assert list(made.old(WINDOW + 1.0)) == [Y]
    done(made, X, (0, 5), WINDOW)
    assert list(made.old(WINDOW + 3)) == [Z] and len(made) == 1


def test_a_clock_that_was_set_back_keeps_nothing_for_ever() -> None:
    made = ids()
    done(made, X, (0, 1), WINDOW * 5)
    assert not made.begin(X, (0, 2), 0.0)
    assert list(made.old(0.0)) == [X]


def test_what_was_kept_is_known_in_whatever_order_it_comes() -> None:
    made = ids()
    made.load([(X, Finished(5.0, (0, 1))), (Y, Finished(1.0, (0, 2)))])
    assert made.begin(X, (0, 3), 6.0) and made.begin(Y, (0, 4), 6.0)
    assert list(made.old(WINDOW + 1.0)) == [Y]


@pytest.mark.parametrize(("window", "room"), [(0.0, 1), (-1.0, 1), (1.0, 0)])
def test_bounds_must_make_sense(window: float, room: int) -> None:
    with pytest.raises(ValueError, match="a window"):
        FinishedIds(window, entries_max=room)
