"""A frontier that does not move is reported."""

from bridge.core.stall import StallWatch


def test_a_standing_frontier_is_told_once_and_again_when_twice_as_long() -> None:
    """After a minute, two, four …: a log that is read, not flooded."""
    watch = StallWatch(after_seconds=60.0)
    told = [second for second in range(0, 1000, 10) if watch.look(float(second), 7, 1)]
    assert told == [60, 120, 240, 480, 960]
    assert watch.stalled
    assert watch.seconds(1000.0) == 1000.0


def test_a_moving_frontier_is_not_stalled() -> None:
    """However slowly it moves, within the minute."""
    watch = StallWatch(after_seconds=60.0)
    assert not any(watch.look(float(second), second // 50, 1) for second in range(0, 1000, 10))
    assert not watch.stalled


def test_a_partition_without_open_records_never_stalls() -> None:
    """Nothing to do is not standing still."""
    watch = StallWatch(after_seconds=60.0)
    assert not any(watch.look(float(second), 7, 0) for second in range(0, 1000, 10))


def test_moving_on_ends_a_stall() -> None:
    """The next one is told anew after a minute."""
    watch = StallWatch(after_seconds=60.0)
    watch.look(0.0, 7, 1)
    assert watch.look(60.0, 7, 1) and watch.stalled
    assert not watch.look(70.0, 8, 1)
    assert not watch.stalled
    assert not watch.look(120.0, 8, 1)
    assert watch.look(130.0, 8, 1)


def test_nothing_has_stood_before_the_first_look() -> None:
    """`now` is monotonic: counted from zero it would be how long the machine has been up."""
    watch = StallWatch(after_seconds=60.0)
    assert watch.seconds(50_000.0) == 0.0
    assert not watch.look(50_000.0, None, 1), "the first look begins the count, even where no frontier is known"
    assert watch.seconds(50_010.0) == 10.0
