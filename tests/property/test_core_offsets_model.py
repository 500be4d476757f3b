"""PartitionOffsets against a model that remembers everything."""

from hypothesis import given
from hypothesis import strategies as st

from bridge.core.offsets import PartitionOffsets
from bridge.core.progress import PLACES_EXTRA, decode, encode, room_limit, started_limit, window_limit


@given(
    st.integers(0, 50),
    st.lists(st.integers(1, 4), max_size=60),
    st.randoms(use_true_random=False),
)
def test_the_frontier_equals_the_models_after_every_step(start: int, steps: list[int], dice: object) -> None:
    """Whatever is taken (with gaps) and finished in whatever order: frontier, open count and window agree."""
    machine = PartitionOffsets(start=start, window_max=1000)
    taken: list[int] = []
    finished: set[int] = set()
    offset = start - 1
    for step in steps:
        offset += step
        assert machine.take(offset)
        taken.append(offset)
        for _ in range(dice.randint(0, 2)):  # type: ignore[attr-defined]
            chosen = dice.choice(taken)  # type: ignore[attr-defined]
            assert machine.finish(chosen) == (chosen not in finished)
            finished.add(chosen)
        open_ = [each for each in taken if each not in finished]
        assert machine.frontier == (min(open_) if open_ else taken[-1] + 1)
        assert machine.open_count == len(open_)
        assert machine.window == (taken[-1] + 1 - min(open_) if open_ else 0)


LIMIT = 512

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "take", "finish", "finish", "claim", "deliver", "unclaim", "mark", "restart"]),
        st.integers(0, 1200),
        st.integers(0, 12),
    ),
    max_size=150,
)


@given(st.integers(0, 2**63 - 2**21), STEPS)
def test_whatever_is_let_in_can_be_told_and_comes_back_whole(start: int, steps: list[tuple[str, int, int]]) -> None:
    """With a limit that is always short of room: nothing that was let in fails to fit, is forgotten, or leaks room."""

    def owner(offset: int) -> PartitionOffsets:
        return PartitionOffsets(
            start=offset,
            window_max=window_limit(LIMIT),
            room_bytes=room_limit(LIMIT),
            started_max=started_limit(LIMIT),
        )

    machine = owner(start)
    granted: set[tuple[int, int]] = set()
    placed: set[tuple[int, int]] = set()
    done: set[tuple[int, int]] = set()
    finished: set[int] = set()
    highest = start
    for what, which, name in steps:
        frontier, next_offset = machine.frontier or start, machine.next_offset or start
        offset = frontier + which % max(1, next_offset - frontier)
        open_ = machine.is_open(offset)
        if what == "take":
            offset = next_offset + (which % 40 if which > 1000 else 0)
            for each in range(offset, offset + 1 + which % 30):
                if machine.fits(each):
                    assert machine.take(each) == (each not in finished)
                    highest = max(highest, each + 1)
        elif what == "finish" and machine.finish(offset):
            finished.add(offset)
            granted = {each for each in granted if each[0] != offset}
            placed = {each for each in placed if each[0] != offset}
            done = {each for each in done if each[0] != offset}
        elif what == "claim" and open_:
            free = machine.claims_free
            if machine.claim(offset, name):
                granted.add((offset, name))
                if offset != frontier or sum(each[0] == offset for each in placed) < PLACES_EXTRA:
                    placed.add((offset, name))
            else:
                assert offset != frontier and (offset, name) not in granted
                assert free == 0 or any(each[0] == offset for each in granted)
        elif what == "deliver" and (offset, name) in granted:
            machine.note_delivered(offset, name)
            done.add((offset, name))
        elif what == "unclaim":
            machine.unclaim(offset, name)
            granted -= {(offset, name)} - done
            placed -= {(offset, name)} - done
        elif what == "mark" and open_ and machine.place_fits(offset):
            machine.note_started(offset, name, 2**32 - 1)
        progress, unclaimed = machine.progress()
        frontier = machine.frontier or start
        text = encode(frontier, progress, LIMIT, unclaimed)
        told = {(offset, name) for offset, names in progress.delivered.items() for name in names}
        spare = {(offset, name) for offset, names in unclaimed.items() for name in names}
        assert told | spare == done and not told & spare
        assert placed & done <= told, "what has a place is never left out"
        assert machine.seen == highest or machine.next_offset == start
        if what == "restart":
            machine = owner(frontier)
            read = decode(frontier, text)
            if read is not None:
                machine.restore(read)
            done = {each for each in done if machine.was_delivered(*each)}
            assert told <= done
            granted = set(done)
            placed = set(told)
            assert machine.started == progress.started
            assert machine.next_offset == frontier and (machine.seen or 0) == max(highest, frontier)
