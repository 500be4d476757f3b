"""Waits, lanes, and the lowest first."""

from bridge.core.dispatch import Dispatch


def dispatch(*items: tuple[str, str, int, float]) -> Dispatch[str]:
    machine: Dispatch[str] = Dispatch(["urgent", "normal"])
    for item, lane, sequence, not_before in items:
        machine.put(item, lane=lane, sequence=sequence, not_before=not_before, now=0.0)
    return machine


def take_all(machine: Dispatch[str], now: float) -> list[str]:
    taken = []
    while (item := machine.next(now, lambda lane: True)) is not None:
        taken.append(item)
    return taken


def test_the_lowest_goes_first_within_a_lane_and_urgent_lanes_go_first() -> None:
    """Order of admission within a lane, order of urgency between lanes."""
    machine = dispatch(("b", "normal", 2, 0), ("a", "normal", 1, 0), ("d", "urgent", 4, 0), ("c", "urgent", 3, 0))
    assert len(machine) == 4
    assert take_all(machine, 0.0) == ["c", "d", "a", "b"]
    assert len(machine) == 0


def test_nothing_goes_before_its_moment() -> None:
    """A retry waits, others pass it; at its moment it goes first, because it is lower."""
    machine = dispatch(("retry", "normal", 1, 5.0), ("other", "normal", 2, 0))
    assert machine.next_deadline() == 5.0
    assert machine.waiting == 1
    assert take_all(machine, 4.9) == ["other"]
    machine.put("later", lane="normal", sequence=3, not_before=0, now=5.0)
    assert take_all(machine, 5.0) == ["retry", "later"]
    assert machine.next_deadline() is None


def test_a_lane_that_may_not_go_does_not_stop_the_others() -> None:
    """The quota may have room for urgent calls only."""
    machine = dispatch(("n", "normal", 1, 0), ("u", "urgent", 2, 0))
    assert machine.ready_lanes() == ["urgent", "normal"]
    assert machine.next(0.0, lambda lane: lane == "normal") == "n"
    assert machine.next(0.0, lambda lane: lane == "normal") is None
    assert machine.ready_lanes() == ["urgent"]


def test_a_slot_is_booked_only_for_a_lane_that_has_an_item() -> None:
    """Asking books; an idle lane must not use quota up."""
    asked: list[str] = []

    def may_go(lane: str) -> bool:
        asked.append(lane)
        return True

    machine = dispatch(("n", "normal", 1, 0))
    assert machine.next(0.0, may_go) == "n"
    assert machine.next(0.0, may_go) is None
    assert asked == ["normal"]


def test_an_item_that_is_moved_goes_in_its_new_lane_once() -> None:
    """Also while it waits for its moment; what it leaves behind in the old lane is nothing."""
    machine = dispatch(("a", "normal", 1, 0), ("b", "normal", 2, 0), ("c", "normal", 3, 5.0))
    assert machine.move("b", sequence=2, lane="urgent")
    assert machine.move("c", sequence=3, lane="urgent")
    assert not machine.move("b", sequence=2, lane="urgent")
    assert not machine.move("x", sequence=9, lane="urgent")
    assert take_all(machine, 0.0) == ["b", "a"]
    assert take_all(machine, 5.0) == ["c"]
    machine = dispatch(("a", "normal", 1, 0), ("b", "normal", 2, 0))
    machine.move("a", sequence=1, lane="urgent")
    assert take_all(machine, 0.0) == ["a", "b"]
