"""Progress against what was put into it, and against bytes that nobody put into it."""

from hypothesis import example, given
from hypothesis import strategies as st

from bridge.core.offsets import PartitionOffsets
from bridge.core.progress import PREFIX, SPEND_BYTES, Progress, decode, encode, finished_offsets

WALLS = st.integers(0, 2**32 - 1)
DIGESTS = st.integers(0, 2**32 - 1)


@given(
    st.integers(0, 2**63 - 30_000),
    st.sets(st.integers(1, 3000), max_size=300),
    st.dictionaries(st.integers(0, 3000), st.frozensets(DIGESTS, min_size=1, max_size=4), max_size=20),
    st.dictionaries(st.integers(0, 3000), st.dictionaries(DIGESTS, WALLS, min_size=1, max_size=3), max_size=8),
    st.integers(0, 20_000),
    WALLS,
    st.none() | st.integers(1, 20_000),
    st.none() | WALLS,
)
def test_any_progress_survives(
    start: int,
    finished: set[int],
    delivered: dict[int, frozenset[int]],
    started: dict[int, dict[int, int]],
    seen: int,
    since: int,
    unsure: int | None,
    topic: int | None,
) -> None:
    """Whatever is told is read back exactly, in whatever form."""
    machine = PartitionOffsets(start=start)
    for offset in range(start, start + 3001):
        machine.take(offset)
    for offset in finished:
        machine.finish(start + offset)
    progress = Progress(
        *machine.finished_bitmap(),
        {start + offset: digests for offset, digests in delivered.items()},
        {start + offset: triggers for offset, triggers in started.items()},
        start + seen if seen else None,
        since if seen else 0,
        None if unsure is None else start + unsure,
        topic,
    )
    written = encode(start, progress, 4096)
    assert len(written) <= 4096 - SPEND_BYTES
    read = decode(start, written)
    if not (finished or delivered or started or seen or unsure is not None or topic is not None):
        assert read is None
        return
    assert read is not None
    assert set(finished_offsets(read)) == {start + offset for offset in finished}
    assert read._replace(bitmap=b"") == progress._replace(bitmap=b"")


@given(st.integers(0, 2**40), st.text(max_size=200))
@example(0, PREFIX)
def test_no_text_is_an_error(offset: int, text: str) -> None:
    """Foreign text is nothing, whatever it is."""
    assert decode(offset, text) is None
    assert decode(offset, PREFIX + text) is None


@given(st.integers(0, 200), st.integers(0, 255))
def test_any_damage_is_noticed(place: int, byte: int) -> None:
    """One wrong character anywhere: not believed, unless it is one that base85 reads as the same bytes."""
    written = encode(1000, Progress(1000, bytes(range(1, 120)), {1005: {77}}), 4096)
    damaged = written[: place % len(written)] + chr(byte) + written[place % len(written) + 1 :]
    assert decode(1000, damaged) in (None, decode(1000, written))


@given(st.binary(max_size=1200), st.integers(1, 60))
def test_any_bitmap_survives(bitmap: bytes, repeat: int) -> None:
    """Stored, deflated or as runs: the bits are the same."""
    bits = (bitmap * repeat)[:2400].rstrip(b"\0")
    read = decode(8, encode(8, Progress(8, bits, topic=1), 4096))
    assert read is not None and read.bitmap == bits


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
        metadata = encode(committed, machine.progress()[0], 4096)


def test_the_model_of_an_empty_progress() -> None:
    """No bits, no offsets."""
    assert list(finished_offsets(Progress(0))) == []
