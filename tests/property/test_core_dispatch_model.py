"""The dispatch against a plain list that is sorted anew each time."""

from hypothesis import given
from hypothesis import strategies as st

from bridge.core.dispatch import Dispatch

LANES = ("first", "urgent", "normal")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 9), st.sampled_from(LANES[1:]), st.integers(0, 5)),
        st.tuples(st.just("move"), st.integers(0, 9), st.sampled_from(LANES), st.just(0)),
        st.tuples(st.just("hasten"), st.integers(0, 9), st.just(""), st.just(0)),
        st.tuples(st.just("take_out"), st.integers(0, 9), st.just(""), st.just(0)),
        st.tuples(st.just("next"), st.integers(0, 7), st.just(""), st.just(0)),
        st.tuples(st.just("later"), st.just(0), st.just(""), st.integers(1, 3)),
    ),
    max_size=60,
)


@given(STEPS)
def test_next_is_the_lowest_of_the_most_urgent_lane_that_may_go(steps: list[tuple[str, int, str, int]]) -> None:
    """Whatever is put, moved and put again after it was taken: the same item as a scan of everything would find."""
    machine: Dispatch[object] = Dispatch(LANES)
    items = [object() for _ in range(10)]  # objects do not compare: the heaps must never try
    inside: dict[int, tuple[str, float]] = {}
    now = 0.0
    for what, number, lane, seconds in steps:
        if what == "later":
            now += seconds
        elif what == "put" and number not in inside:
            machine.put(items[number], lane=lane, sequence=number, not_before=now + seconds, now=now)
            inside[number] = (lane, now + seconds)
        elif what == "move":
            changed = number in inside and inside[number][0] != lane
            assert machine.move(items[number], sequence=number, lane=lane) == changed
            if changed:
                inside[number] = (lane, inside[number][1])
        elif what == "hasten":
            machine.hasten(items[number], sequence=number)
            if number in inside:
                inside[number] = (inside[number][0], min(now, inside[number][1]))
        elif what == "take_out":
            assert machine.take_out(number) == (inside.pop(number, None) is not None)
        elif what == "next":
            allowed = {name for bit, name in enumerate(LANES) if number >> bit & 1}
            ready = [(LANES.index(where), each) for each, (where, at) in inside.items() if at <= now]
            ready = [pair for pair in ready if LANES[pair[0]] in allowed]
            taken = machine.next(now, allowed.__contains__)
            assert taken is (items[min(ready)[1]] if ready else None)
            if ready:
                del inside[min(ready)[1]]
        assert len(machine) == len(inside)
        due = [each for each in inside.values() if each[1] <= now]
        deadline = machine.next_deadline()
        assert deadline == min((at for _, at in inside.values() if at > now or deadline == at), default=None)
        if what == "next":
            assert machine.ready_lanes() == [name for name in LANES if any(where == name for where, _ in due)]
            assert machine.waiting == len(inside) - len(due)
    while inside:
        now += 10.0
        taken = machine.next(now, lambda name: True)
        assert taken is not None
        del inside[items.index(taken)]
    assert machine.next(now, lambda name: True) is None
