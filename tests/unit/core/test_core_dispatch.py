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
    assert list(machine.not_yet()) == ["retry"]
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


def test_an_item_that_goes_with_another_is_taken_out_before_its_turn_or_moment() -> None:
    """What it leaves behind is nothing, and put again it goes once more, once."""
    machine = dispatch(("a", "normal", 1, 0), ("b", "normal", 2, 0), ("c", "normal", 3, 5.0), ("d", "urgent", 4, 0))
    assert machine.take_out(2) and machine.take_out(3) and machine.take_out(4)
    assert not machine.take_out(2)
    assert (len(machine), machine.waiting, machine.ready_lanes(), machine.next_deadline()) == (1, 0, ["normal"], None)
    assert take_all(machine, 9.0) == ["a"]
    machine.put("b", lane="normal", sequence=2, not_before=0, now=9.0)
    assert take_all(machine, 9.0) == ["b"]


def test_a_hastened_item_goes_at_once_and_once() -> None:
    """Its former moment passes without it; put again with the same moment it waits for that."""
    machine = dispatch(("a", "normal", 1, 5.0))
    machine.hasten("a", sequence=1)
    machine.hasten("a", sequence=1)
    assert machine.next_deadline() is None
    assert take_all(machine, 0.0) == ["a"]
    assert take_all(machine, 5.0) == []
    machine = dispatch(("a", "normal", 1, 5.0))
    machine.hasten("a", sequence=1)
    assert take_all(machine, 5.0) == ["a"]
    machine.put("a", lane="normal", sequence=1, not_before=9.0, now=5.0)
    assert take_all(machine, 5.0) == []
    assert machine.next_deadline() == 9.0
    assert take_all(machine, 9.0) == ["a"]


def test_the_last_lane_gets_its_share_while_it_has_some() -> None:
    """Two before it, then one of it; it saves nothing up, and a lane that may not go is not waited for."""
    machine: Dispatch[str] = Dispatch(["urgent", "last"], last_after=2)
    for number in range(6):
        machine.put(f"u{number}", lane="urgent", sequence=number, not_before=0, now=0.0)
    assert machine.next(0.0, lambda lane: True) == "u0"
    for number in range(6, 8):
        machine.put(f"l{number}", lane="last", sequence=number, not_before=0, now=0.0)
    taken = [machine.next(0.0, lambda lane: True) for _ in range(3)]
    assert taken == ["u1", "u2", "l6"]
    assert [machine.next(0.0, lambda lane: lane == "urgent") for _ in range(3)] == ["u3", "u4", "u5"]
    assert machine.next(0.0, lambda lane: lane == "urgent") is None
    assert machine.next(0.0, lambda lane: True) == "l7"
