"""core/duplicates.py against the one promise that counts: of records with one id, one is always carried out."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.core.duplicates import FinishedIds
from tests.support.amount import examples

WINDOW = 10.0

Step = tuple[str, int, int, float]
steps = st.lists(
    st.tuples(
        st.sampled_from(["read", "finish", "finish", "filter", "move", "restart"]),
        st.integers(0, 1),
        st.integers(0, 5),
        st.floats(0, 4),
    ),
    max_size=60,
)


@settings(max_examples=examples(400))
@given(st.lists(st.integers(0, 2), min_size=12, max_size=12), steps)
def test_whatever_happens_of_each_id_one_record_has_finished_or_is_open(ids: list[int], script: list[Step]) -> None:
    """Two partitions of six records, read in any order, again after a partition moved or a process ended, each with
    one of three ids. A record that is called a duplicate counts as committed at once: the worst case. At every moment
    each id that was read has a record that was carried out, or one whose offset is open."""
    machine = FinishedIds(WINDOW, entries_max=2)
    wall = 1_000.0
    open_here: dict[tuple[int, int], int] = {}
    carried_out: set[int] = set()
    never_read_again: set[tuple[int, int]] = set()
    waits: set[tuple[int, int]] = set()  # was open here, and is open in the log
    finished_at: dict[int, float] = {}
    for what, partition, offset, later in script:
        place, name = (partition, offset), ids[partition * 6 + offset]
        wall += later
        if what == "read" and place not in open_here and place not in never_read_again:
            if machine.begin(bytes([name]), place, wall):
                never_read_again.add(place)
                others = [other for other in (*open_here, *waits) if ids[other[0] * 6 + other[1]] == name]
                assert others or wall - finished_at.get(name, -WINDOW) < WINDOW
            else:
                open_here[place] = name
                waits.discard(place)
        elif what in ("finish", "filter") and place in open_here:
            del open_here[place]
            if what == "finish":
                carried_out.add(name)
                finished_at[name] = wall
            never_read_again.add(place)
            machine.end(place, wall, remember=what == "finish")
            list(machine.old(wall))
            if what == "filter":
                carried_out.add(name)  # had nothing to be done: neither have the others
        elif what == "move":
            waits |= {each for each in open_here if each[0] == partition}
            open_here = {each: name for each, name in open_here.items() if each[0] != partition}
            machine.drop(partition)
        elif what == "restart":
            waits |= open_here.keys()
            open_here, machine = {}, FinishedIds(WINDOW, entries_max=2)
        assert len(machine) <= 2
        for each in never_read_again:
            its = ids[each[0] * 6 + each[1]]
            assert (
                its in carried_out
                or its in open_here.values()
                or any(ids[other[0] * 6 + other[1]] == its for other in waits)
            )
