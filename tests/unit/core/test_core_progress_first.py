"""What release 0.1.0 wrote is read as it was meant, and nothing else is taken for it."""

import zlib

import pytest

from bridge.core.progress import DELIVERED, Progress, decode, encode, finished_offsets
from tests.support import first_release

BOMB = zlib.compress(b"\0" * 300_000)


def test_all_of_it_is_read() -> None:
    """Finished offsets, delivered actions, started triggers with their times; what it did not know is not known."""
    text = first_release.encode(
        1003, 1000, bytes(range(1, 60)), {1005: {7, 8}, 1090: {9}}, 4096, {1004: {5: 1_700, 6: DELIVERED}}
    )
    found = decode(1003, text)
    assert found is not None
    assert (found.delivered, found.started) == ({1005: {7, 8}, 1090: {9}}, {1004: {5: 1_700, 6: DELIVERED}})
    assert (found.base, found.bitmap) == (1000, bytes(range(1, 60)))
    assert found[4:] == Progress(0)[4:]


def test_a_deflated_bitmap_is_read() -> None:
    text = first_release.encode(8, 8, b"\xff" * 2_000, {}, 4096)
    found = decode(8, text)
    assert found is not None
    assert len(list(finished_offsets(found))) == 16_000


@pytest.mark.parametrize(
    "body",
    [
        b"",
        bytes([2, 0, 1, 255, 0]),  # a form that there is not
        bytes([0, 1, 1, 255, 0]),  # a bitmap that begins elsewhere
        bytes([0, 0, 9, 255, 0]),  # cut
        bytes([0, 0, 1, 255, 1, 0, 1, 1, 2]),  # cut in a digest
        bytes([1, 0, 3, 1, 2, 3, 0]),  # not deflated
        bytes([1, 0, len(BOMB) & 0x7F | 0x80, len(BOMB) >> 7]) + BOMB + b"\0",
    ],
)
def test_what_it_never_wrote_is_nothing(body: bytes) -> None:
    """With the right checksum too."""
    assert decode(16, first_release.text_of(16, body)) is None


def test_neither_takes_the_others_text() -> None:
    """At another offset, or with today's checksum, its text is foreign."""
    text = first_release.encode(8, 8, b"\x01", {}, 4096)
    assert decode(8, text) is not None
    assert decode(16, text) is None
    today = encode(8, Progress(8, b"\x01", seen=11), 4096)
    assert decode(8, today) == Progress(8, b"\x01", seen=11)
