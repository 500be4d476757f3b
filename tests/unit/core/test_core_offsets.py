"""The frontier: what may be committed."""

import pytest

from bridge.core.offsets import PartitionOffsets


def offsets(*taken: int, start: int | None = None, window_max: int = 100) -> PartitionOffsets:
    machine = PartitionOffsets(start=start, window_max=window_max)
    for offset in taken:
        assert machine.take(offset)
    return machine


def test_a_window_needs_room_for_one_offset() -> None:
    """A window of nothing could never take a record in."""
    with pytest.raises(ValueError, match="at least one"):
        PartitionOffsets(window_max=0)


def test_nothing_is_known_before_the_first_record_of_a_group_without_an_offset() -> None:
    """Without a committed offset and without a record there is nothing to commit."""
    machine = PartitionOffsets()
    assert machine.frontier is None
    assert machine.commit_due() is None
    assert machine.window == 0


def test_the_frontier_stays_below_the_lowest_unfinished_record() -> None:
    """Finishing higher offsets never moves the frontier past an open one [parallel-consumer#826]."""
    machine = offsets(10, 11, 12, start=10)
    machine.finish(12)
    machine.finish(11)
    assert machine.frontier == 10
    assert machine.open_count == 1
    machine.finish(10)
    assert machine.frontier == 13
    assert machine.open_count == 0


def test_gaps_count_as_finished() -> None:
    """Offsets that never came (compaction, transactions) do not hold the frontier back [parallel-consumer#329]."""
    machine = offsets(10, 15, 20, start=5)
    assert machine.frontier == 10
    machine.finish(10)
    assert machine.frontier == 15
    machine.finish(15)
    machine.finish(20)
    assert machine.frontier == 21


def test_a_record_that_came_before_is_not_taken_twice() -> None:
    """A record below the next offset was taken, or lies below the committed one."""
    machine = offsets(10, start=10)
    assert not machine.take(10)
    assert not machine.take(9)
    assert machine.take(11)


def test_only_what_is_open_can_finish() -> None:
    """A second finish, a finish of a gap's end or of something never taken changes nothing and says so."""
    machine = offsets(10, 11, 12, start=10)
    assert machine.finish(11)
    assert not machine.finish(11)
    assert not machine.finish(9)
    assert not machine.finish(13)
    assert machine.finish(10)
    assert not machine.finish(10)
    assert not PartitionOffsets().finish(0)


def test_the_window_is_bounded_by_offsets_not_by_records() -> None:
    """The window counts offsets from the frontier on, gaps included: progress is encoded over them."""
    machine = offsets(10, start=10, window_max=5)
    assert machine.fits(14)
    assert not machine.fits(15)
    machine.take(14)
    assert machine.window == 5
    machine.finish(10)
    assert machine.window == 1
    assert machine.fits(15)


def test_an_empty_window_takes_any_offset() -> None:
    """A long gap must not lock the partition out for ever."""
    machine = offsets(start=10, window_max=5)
    assert machine.fits(10_000)


def test_a_commit_is_due_once_the_frontier_moved_and_none_is_under_way() -> None:
    """One commit at a time, and none that says nothing new."""
    machine = offsets(10, 11, start=10)
    assert machine.commit_due() is None
    machine.finish(10)
    assert machine.commit_due() == 11
    machine.commit_requested(11)
    assert machine.commit_under_way
    machine.finish(11)
    assert machine.commit_due() is None
    machine.commit_settled(11, acknowledged=True)
    assert machine.committed == 11
    assert machine.commit_due() == 12


def test_a_refused_commit_is_due_again() -> None:
    """Only the broker's acknowledgement counts."""
    machine = offsets(10, start=10)
    machine.finish(10)
    machine.commit_requested(11)
    machine.commit_settled(11, acknowledged=False)
    assert machine.committed == 10
    assert machine.commit_due() == 11


def test_a_forgotten_commit_may_be_asked_for_anew_and_a_late_answer_does_no_harm() -> None:
    """At a revocation the answer of the commit under way may come after the last one's."""
    machine = offsets(10, 11, start=10)
    machine.finish(10)
    machine.commit_requested(11)
    machine.finish(11)
    machine.commit_forgotten()
    assert machine.commit_due() == 12
    machine.commit_requested(12)
    machine.commit_settled(12, acknowledged=True)
    machine.commit_settled(11, acknowledged=True)
    assert machine.committed == 12


def test_a_commit_beyond_the_frontier_is_a_bug() -> None:
    """It would lose records, so it is refused loudly."""
    machine = offsets(10, start=10)
    with pytest.raises(AssertionError, match="lose records"):
        machine.commit_requested(11)


def test_the_next_offset_tells_where_taking_goes_on() -> None:
    """One after the highest taken offset, whatever has finished."""
    machine = offsets(10, 12, start=10)
    assert machine.next_offset == 13


def test_a_chosen_start_is_news_for_a_commit() -> None:
    """Nothing was taken yet, and still the place must be committed: a crash must not choose again."""
    machine = PartitionOffsets(start=700)
    assert machine.commit_due() is None
    machine.note_start()
    assert machine.commit_due() == 700
