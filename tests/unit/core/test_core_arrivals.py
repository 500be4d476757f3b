"""When records were first read."""

from bridge.core.arrivals import NOTES_MAX, Arrivals


def test_the_oldest_reading_is_the_frontiers() -> None:
    """Coarse by a second, and never later than it was."""
    arrivals = Arrivals()
    assert arrivals.oldest(5) == 0.0, "nobody knows"
    for offset, wall in ((10, 100.0), (11, 100.5), (12, 101.2), (20, 150.0)):
        arrivals.note(offset, wall)
    assert arrivals.oldest(10) == 100.0
    assert arrivals.oldest(11) == 100.0
    assert arrivals.oldest(12) == 101.2
    assert arrivals.oldest(19) == 101.2
    assert arrivals.oldest(99) == 150.0


def test_what_a_former_owner_took_in_counts_from_its_word() -> None:
    """Even where this owner's clock says earlier."""
    arrivals = Arrivals(seen=12, since=50.0)
    arrivals.note(10, 100.0)
    assert arrivals.of(11, 100.0) == 50.0 and arrivals.of(11, 40.0) == 40.0
    assert arrivals.of(12, 100.0) == 100.0
    assert arrivals.oldest(10) == 50.0 and arrivals.oldest(12) == 100.0


def test_a_clock_that_was_set_back_makes_earlier_readings_earlier() -> None:
    """The bound is for all that lies beyond the frontier, so it must not be later than any of them."""
    arrivals = Arrivals()
    arrivals.note(10, 100.0)
    arrivals.note(11, 200.0)
    arrivals.note(12, 90.0)
    assert arrivals.oldest(10) == 90.0
    assert arrivals.oldest(12) == 90.0


def test_a_long_wait_is_kept_coarsely_and_evenly() -> None:
    """However many readings: a bounded number of notes, each no later than the truth and not much earlier."""
    arrivals = Arrivals()
    for n in range(10_000):
        arrivals.note(n, n * 2.0)
        assert len(arrivals._notes) <= NOTES_MAX
    apart = 10_000 * 2.0 / NOTES_MAX * 2
    for frontier in (0, 100, 5_000, 9_999):
        assert frontier * 2.0 - apart < arrivals.oldest(frontier) <= frontier * 2.0
    arrivals.note(10_000, 30_000.0)
    assert arrivals.oldest(10_000) == 30_000.0
    arrivals.note(10_001, 30_001.0)
    assert arrivals.oldest(10_001) == 30_001.0, "fine again"
