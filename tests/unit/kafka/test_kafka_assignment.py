"""Which commits may still reach the broker."""

from bridge.kafka.assignment import Assignment
from bridge.kafka.faults import Notices
from bridge.model import Position, TopicPartition


def test_a_commit_of_an_older_assignment_is_not_ours() -> None:
    """The partition went and came back: another owner's commits, or another log, lie in between."""
    here, elsewhere = TopicPartition("t", 0), TopicPartition("t", 1)
    assignment = Assignment(
        {},
        Notices(lambda message, fatal: None),
        tell_assigned=lambda assigned: None,
        tell_lost=lambda lost: None,
        tell_removed=lambda partition, start: None,
        count_lost=lambda topic, count: None,
        stale=lambda offset, metadata, topic_hash: False,
    )
    assignment.epochs[here] = 7
    assert assignment.owns(Position(here, 5, "", 7))
    assert assignment.owns(Position(here, 5)), "without an epoch the present one is meant"
    assert not assignment.owns(Position(here, 5, "", 6))
    assert not assignment.owns(Position(elsewhere, 5, "", 7))
