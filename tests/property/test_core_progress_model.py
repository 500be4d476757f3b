"""Progress against what was put into it, and against bytes that nobody put into it."""

from hypothesis import example, given
from hypothesis import strategies as st

from bridge.core.offsets import PartitionOffsets
from bridge.core.progress import PREFIX, Progress, decode, encode, finished_offsets


@given(
    st.integers(0, 2**40),
    st.sets(st.integers(1, 3000), max_size=300),
    st.dictionaries(st.integers(0, 3000), st.sets(st.integers(0, 2**32 - 1), max_size=4), max_size=20),
)
def test_any_progress_survives(start: int, finished: set[int], delivered: dict[int, set[int]]) -> None:
    """Whatever was finished and delivered is read back exactly where there is room for all."""
    machine = PartitionOffsets(start=start, window_max=20_000)
    for offset in range(start, start + 3001):
        machine.take(offset)
    for offset in finished:
        machine.finish(start + offset)
    placed = {start + offset: digests for offset, digests in delivered.items()}
    base, bitmap = machine.finished_bitmap()
    read = decode(start, encode(start, base, bitmap, placed, 4096))
    if not finished and not delivered:
        assert read is None
        return
    assert read is not None
    assert set(finished_offsets(read)) == {start + offset for offset in finished}
    assert read.delivered == {offset: frozenset(digests) for offset, digests in placed.items()}


@given(st.integers(0, 2**40), st.text(max_size=200))
@example(0, PREFIX)
def test_no_text_is_an_error(offset: int, text: str) -> None:
    """Foreign text is nothing, whatever it is."""
    assert decode(offset, text) is None
    assert decode(offset, PREFIX + text) is None


@given(st.integers(0, 200), st.integers(0, 255))
def test_any_damage_is_noticed(place: int, byte: int) -> None:
    """One wrong character anywhere: not believed."""
    written = encode(1000, 1000, bytes(range(1, 120)), {1005: {77}}, 4096)
    damaged = written[: place % len(written)] + chr(byte) + written[place % len(written) + 1 :]
    assert damaged == written or decode(1000, damaged) is None


@given(st.randoms(use_true_random=False), st.integers(1, 4))
def test_restarts_repeat_nothing_and_skip_nothing(dice: object, restarts: int) -> None:
    """Finishing in random order over several owners: every offset is taken by owners until it has finished, once."""
    metadata, committed = "", 0
    finished: set[int] = set()
    for _ in range(restarts):
        machine = PartitionOffsets(start=committed, window_max=1000)
        progress = decode(committed, metadata)
        if progress is not None:
            machine.restore(progress)
        taken = [offset for offset in range(committed, 60) if machine.take(offset)]
        assert set(taken) == set(range(60)) - finished
        for offset in dice.sample(taken, k=len(taken) // 2):  # type: ignore[attr-defined]
            machine.finish(offset)
            finished.add(offset)
        committed = machine.frontier or 0
        metadata = encode(committed, *machine.finished_bitmap(), machine.delivered, 4096)


def test_the_model_of_an_empty_progress() -> None:
    """No bits, no offsets."""
    assert list(finished_offsets(Progress(0))) == []
