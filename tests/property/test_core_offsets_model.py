"""PartitionOffsets against a model that remembers everything."""

from hypothesis import given
from hypothesis import strategies as st

from bridge.core.offsets import PartitionOffsets


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
