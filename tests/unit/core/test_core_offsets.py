"""The frontier: what may be committed."""

import pytest

from bridge.core.offsets import PartitionOffsets
from bridge.core.progress import PLACES_EXTRA, STARTED_EXTRA, Progress


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


def test_the_window_alone_fits_into_its_room() -> None:
    """A byte tells of eight offsets: what is let in always has its bit, though nothing is claimed."""
    machine = PartitionOffsets(start=10, room_bytes=3)
    machine.take(10)
    assert machine.fits(31)  # bytes 1, 2 and 3
    assert not machine.fits(32)
    machine.take(31)
    machine.finish(31)
    assert machine.room_used == 1.0


def test_an_empty_window_takes_any_offset() -> None:
    """A long gap must not lock the partition out for ever."""
    machine = offsets(start=10, window_max=5)
    assert machine.fits(10_000)


def test_a_commit_is_due_once_the_frontier_moved_and_none_is_under_way() -> None:
    """One commit at a time, and none that says nothing new."""
    machine = offsets(start=10)
    assert machine.commit_due() is None
    assert machine.take(10) and machine.take(11)
    assert machine.commit_due() == 10, "how far intake has come is news"
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


# Room


def roomy(room_bytes: int, *taken: int, window_max: int = 1000) -> PartitionOffsets:
    machine = PartitionOffsets(start=taken[0], window_max=window_max, room_bytes=room_bytes, started_max=2)
    for offset in taken:
        assert machine.take(offset)
    return machine


def test_claims_and_the_window_share_one_budget() -> None:
    """Half-done events narrow the window; what is given back widens it again, byte by byte."""
    machine = roomy(20, 0, 1)
    assert machine.fits(8 * 20 - 1) and not machine.fits(8 * 20)
    assert machine.claim(1, 7)
    assert machine.fits(8 * 12 - 1) and not machine.fits(8 * 12), "a place with one action takes eight bytes"
    assert machine.claim(1, 8)
    assert machine.fits(8 * 8 - 1) and not machine.fits(8 * 8), "four for each further one"
    machine.unclaim(1, 8)
    assert machine.fits(8 * 12 - 1) and not machine.fits(8 * 12)
    machine.finish(1)
    assert machine.fits(8 * 20 - 1) and not machine.fits(8 * 20)


def test_a_claim_is_refused_where_it_would_not_fit() -> None:
    """Up to the last byte, and asking twice takes one place."""
    machine = roomy(1 + 8 + 8, 0, 1, 2, 3)
    assert machine.claims_free == 2
    assert machine.claim(1, 7) and machine.claim(1, 7)
    assert machine.claims_free == 1
    assert machine.claim(2, 7)
    assert machine.claims_free == 0
    assert not machine.claim(3, 7) and not machine.claim(1, 8)
    assert machine.room_used == 1.0
    machine.unclaim(2, 9)
    assert not machine.claim(3, 7), "nothing was given back"
    machine.unclaim(2, 7)
    machine.unclaim(2, 7)
    assert machine.claim(3, 7)


def test_a_delivered_action_keeps_its_place() -> None:
    """It must be told until its event finishes, whoever takes the claim back."""
    machine = roomy(1 + 8, 0, 1, 2)
    assert machine.claim(1, 7)
    machine.note_delivered(1, 7)
    machine.unclaim(1, 7)
    assert not machine.claim(2, 7)
    assert machine.progress()[0].delivered == {1: {7}}
    assert machine.claim(1, 7), "it is told already"


def test_the_event_at_the_frontier_has_room_of_its_own() -> None:
    """Eight of its actions fit whatever others hold; further ones go without a place, and are told as room allows."""
    machine = roomy(1 + 8, 0, 1, 2)
    assert machine.claim(1, 7)
    for name in range(PLACES_EXTRA):
        assert machine.claim(0, name)
        machine.note_delivered(0, name)
    assert machine.room_used == 1.0
    assert machine.claim(0, 99), "it is never refused, or nothing could go"
    machine.note_delivered(0, 99)
    progress, unclaimed = machine.progress()
    assert progress.delivered == {0: set(range(PLACES_EXTRA))} and unclaimed == {0: {99}}
    machine.finish(0)
    assert machine.frontier == 1 and machine.room_used < 1.0, "the next one's places move into the frontier's own"
    assert machine.claim(2, 7)


def test_what_is_claimed_for_a_finished_event_takes_no_place() -> None:
    """Nobody would ever give it back."""
    machine = roomy(1 + 8, 0, 1, 2, 5)
    machine.finish(1)
    for offset in (1, 3, 9):
        assert machine.claim(offset, 7)
        machine.unclaim(offset, 7)
    assert machine.claims_free == 1
    assert not roomy(9, 0).is_open(1) and not PartitionOffsets().is_open(0)
    assert PartitionOffsets().room_used == 0.0


def test_what_was_never_claimed_takes_a_place_if_there_is_one() -> None:
    """An action whose event could have finished with it, but for a letter."""
    machine = roomy(1 + 8, 0, 1, 2)
    machine.note_delivered(1, 7)
    machine.note_delivered(2, 7)
    progress, unclaimed = machine.progress()
    assert progress.delivered == {1: {7}} and unclaimed == {2: {7}}


def test_what_finished_before_a_restart_takes_room_up_to_its_end() -> None:
    """The bitmap reaches as far as that, however little was taken in since."""
    machine = PartitionOffsets(start=8, room_bytes=9)
    machine.restore(Progress(8, bytes([0] * 9 + [1])))
    machine.take(8)
    assert not machine.fits(9)
    machine.finish(8)
    machine.take(16)
    assert machine.fits(17), "the frontier has moved on by a byte"


def test_marks_have_a_share_and_the_frontier_four_more_and_then_the_common_room() -> None:
    """A trigger of another event waits; one of the frontier's goes as long as there is any room at all."""
    machine = roomy(1 + 24, 0, 1, 2)
    for name in range(2):
        assert machine.place_fits(1)
        machine.note_started(1, name, 1000)
    assert not machine.place_fits(1) and machine.place_fits(0)
    for name in range(STARTED_EXTRA + 2):
        assert machine.place_fits(0)
        machine.note_started(0, name, 1000)
    assert machine.room_used == 1.0
    assert not machine.place_fits(0) and not machine.claim(1, 7)
    machine.finish(0)
    assert machine.claim(2, 7)


def test_a_start_has_a_time_that_four_bytes_hold() -> None:
    """Zero stands for delivered, so no clock may give it."""
    machine = roomy(100, 0)
    machine.note_started(0, 1, -5)
    machine.note_started(0, 2, 2**40)
    assert machine.started == {0: {1: 1, 2: 2**32 - 1}}


def test_a_window_is_crowded_above_three_quarters() -> None:
    """Then its lowest offset goes before all others."""
    machine = roomy(100, 0, window_max=100)
    machine.take(74)
    assert not machine.crowded
    machine.take(75)
    assert machine.crowded


def test_a_window_is_crowded_where_little_more_could_be_told_of_it() -> None:
    """Places of started triggers, and the room of what was delivered, are as scarce as offsets."""
    machine = PartitionOffsets(start=0, started_max=4)
    for offset in range(5):
        machine.take(offset)
        machine.note_started(offset, 1, 1)
        assert machine.crowded == (offset >= 3)
    machine = roomy(20, 0, 1)
    assert machine.claim(1, 7)
    assert not machine.crowded, "nine of twenty bytes"
    assert machine.claim(1, 8) and machine.claim(1, 9)
    assert machine.crowded, "seventeen"


# How far intake has come


def commit(machine: PartitionOffsets) -> None:
    due = machine.commit_due()
    assert due is not None
    machine.commit_requested(due, "text")
    machine.commit_settled(due, "text", acknowledged=True)


def test_intake_is_told_by_acknowledged_commits_only() -> None:
    """What was taken in after the request is told by the next one."""
    machine = offsets(10, 11, start=10)
    assert machine.seen == 12 and not machine.seen_told(10)
    machine.commit_requested(10, "text")
    machine.take(12)
    assert not machine.seen_told(10)
    machine.commit_settled(10, "text", acknowledged=False)
    assert not machine.seen_told(10)
    machine.commit_requested(10, "text")
    machine.take(13)
    machine.commit_settled(10, "text", acknowledged=True)
    assert machine.seen_told(12) and not machine.seen_told(13)
    commit(machine)
    assert machine.seen_told(13)
    assert PartitionOffsets().seen is None


def test_a_former_owners_intake_is_told_and_told_on_until_it_is_reached() -> None:
    """A second crash on the way must not forget it."""
    machine = PartitionOffsets(start=10)
    machine.restore(Progress(8, seen=20, since_wall=1000))
    assert machine.catching_up and machine.seen_told(19) and not machine.seen_told(20)
    machine.take(10)
    assert machine.progress()[0].seen == 20
    machine.take(19)
    assert not machine.catching_up
    machine.take(20)
    assert machine.seen == 21
    assert not PartitionOffsets().catching_up


def test_since_is_the_first_reading_of_the_frontier_by_whomever() -> None:
    """The former owner's word counts for what it had taken in; then this owner's own readings."""
    machine = PartitionOffsets(start=10)
    machine.restore(Progress(8, seen=12, since_wall=1000))
    for offset, wall in ((10, 5000.0), (11, 5000.0), (12, 5010.0), (13, 5020.0)):
        machine.take(offset)
        machine.arrivals.note(offset, wall)
    assert machine.progress()[0].since_wall == 1000
    machine.finish(10)
    machine.finish(11)
    assert machine.progress()[0].since_wall == 5010
    machine.finish(12)
    assert machine.progress()[0].since_wall == 5020


def test_an_unsure_range_is_told_on() -> None:
    """Until the frontier has passed it, whoever owns the partition."""
    machine = PartitionOffsets(start=10)
    machine.restore(Progress(8, unsure_below=500))
    machine.take(10)
    assert machine.unsure_below == 500 and machine.progress()[0].unsure_below == 500


# Records that are gone


def test_an_empty_window_skips_to_the_logs_start() -> None:
    """Nothing of what lies between will come; a commit says so, and what was finished there is forgotten."""
    machine = PartitionOffsets(start=10)
    machine.restore(Progress(8, bytes([0, 0x90])))
    machine.skip_to(22)
    assert machine.frontier == 22 and machine.commit_due() == 22
    assert not machine.take(23), "finished before"
    with pytest.raises(AssertionError):
        machine.skip_to(23)


def test_what_was_told_of_records_that_are_gone_is_forgotten_once_they_are_passed() -> None:
    """Compaction took a record whose trigger had started: it can never finish, and must not stand in a commit."""
    machine = PartitionOffsets(start=10, room_bytes=100)
    machine.restore(Progress(8, delivered={11: frozenset({1}), 13: frozenset({1})}, started={12: {5: 7}, 13: {5: 7}}))
    machine.take(10)
    machine.take(13)
    machine.finish(10)
    progress, unclaimed = machine.progress()
    assert (progress.delivered, progress.started, unclaimed) == ({13: {1}}, {13: {5: 7}}, {})
    assert machine.room_used * 100 == 1, "the frontier's own place is beside the common room"
