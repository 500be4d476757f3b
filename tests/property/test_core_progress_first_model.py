"""Whatever release 0.1.0 can have written, today's code reads."""

from hypothesis import given
from hypothesis import strategies as st

from bridge.core.progress import Progress, decode
from tests.support import first_release

WALLS = st.integers(0, 2**32 - 1)
DIGESTS = st.integers(0, 2**32 - 1)


@given(
    st.integers(0, 2**40),
    st.binary(max_size=400),
    st.dictionaries(st.integers(0, 3000), st.frozensets(DIGESTS, min_size=1, max_size=4), max_size=10),
    st.dictionaries(st.integers(0, 3000), st.dictionaries(DIGESTS, WALLS, min_size=1, max_size=3), max_size=8),
)
def test_any_progress_of_the_first_release_is_read(
    offset: int, bitmap: bytes, delivered: dict[int, frozenset[int]], started: dict[int, dict[int, int]]
) -> None:
    """As far as it was told: delivered actions took what room was left."""
    delivered = {offset + place: digests for place, digests in delivered.items()}
    started = {offset + place: triggers for place, triggers in started.items()}
    base = offset & ~7
    text = first_release.encode(offset, base, bitmap, delivered, 4096, started)
    bitmap = bitmap.rstrip(b"\0")
    if not (bitmap or delivered or started):
        assert text == ""
        return
    assert decode(offset, text) == Progress(base, bitmap, delivered, started)
