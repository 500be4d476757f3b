"""The text beside a committed offset: always fits, and is believed only when it is whole and ours."""

import base64
import random
import zlib

import pytest

from bridge.core.offsets import PartitionOffsets
from bridge.core.progress import (
    BITMAP_BYTES_MAX,
    DELIVERED,
    PREFIX,
    WINDOW_MAX,
    Progress,
    _check,
    decode,
    digest,
    encode,
    finished_offsets,
    started_limit,
    window_limit,
)


def bits(base: int, *offsets: int) -> bytes:
    bitmap = bytearray((max(offsets) - base) // 8 + 1) if offsets else bytearray()
    for offset in offsets:
        bitmap[(offset - base) // 8] |= 1 << (offset - base) % 8
    return bytes(bitmap)


def text(body: bytes, offset: int = 8) -> str:
    """A text with a right checksum, whatever the body."""
    return PREFIX + base64.b85encode(body + _check(offset, body)).decode()


def test_nothing_to_tell_is_no_text() -> None:
    """A group whose work is all finished keeps plain offsets, readable for any tool."""
    assert encode(100, 96, b"\0\0", {}, 4096) == ""


def test_what_is_written_is_read() -> None:
    """Finished offsets and delivered actions, in ASCII without NUL."""
    started = {101: {9: 1_780_000_000}, 102: {3: 0, 4: 2**33}}
    written = encode(101, 96, bits(96, 103, 200), {101: {7, 2**32 - 1}, 150: {1}}, 4096, started)
    assert written.isascii() and "\0" not in written
    read = decode(101, written)
    assert read is not None
    assert read.started == started
    assert list(finished_offsets(read)) == [103, 200]
    assert read.delivered == {101: {7, 2**32 - 1}, 150: {1}}


@pytest.mark.parametrize("limit", [512, 1000, 4096, 10_000])
def test_the_worst_case_of_a_window_fits_its_limit(limit: int) -> None:
    """Random bits cannot be compressed; with a full window and more delivered actions than fit, the text still fits."""
    dice = random.Random(limit)
    window = window_limit(limit)
    start = 8_000_000_000_007
    offsets = [start + n for n in range(1, window - 1) if dice.random() < 0.5] + [start + window - 1]
    base = start & ~7
    delivered = {start + n * 3: {dice.getrandbits(32) for _ in range(3)} for n in range(window // 3)}
    wall = 4_000_000_000
    # Four more than the limit: the event at the frontier may pass it (runtime/marks.py).
    started = {start + window - 1 - n * 7: {dice.getrandbits(32): wall} for n in range(started_limit(limit) + 4)}
    written = encode(start, base, bits(base, *offsets), delivered, limit, started)
    assert len(written.encode()) <= limit
    read = decode(start, written)
    assert read is not None
    assert read.started == started
    assert list(finished_offsets(read)) == offsets
    assert read.delivered and read.delivered.items() <= {k: frozenset(v) for k, v in delivered.items()}.items()


def test_every_byte_of_room_is_respected() -> None:
    """Around the boundary: as the limit falls byte by byte, actions are left out, never the limit passed."""
    bitmap = bits(96, *range(97, 500, 2))
    delivered = {100 + n: {n} for n in range(50)}
    whole = len(encode(96, 96, bitmap, delivered, 4096))
    least = len(encode(96, 96, bitmap, {}, 4096))
    kept = []
    for limit in range(whole, least - 1, -1):
        written = encode(96, 96, bitmap, delivered, limit)
        assert len(written) <= limit
        read = decode(96, written)
        assert read is not None and read.bitmap == bitmap
        kept.append(len(read.delivered))
    assert kept[0] == 50 and kept[-1] < 5
    assert kept == sorted(kept, reverse=True)


def test_the_default_limit_gives_the_documented_window() -> None:
    """4,096 bytes hold 20,000 offsets; larger limits do not make it larger, small ones keep it usable."""
    assert window_limit(4096) == WINDOW_MAX == 20_000
    assert window_limit(1_000_000) == WINDOW_MAX
    assert window_limit(0) == 8


def test_a_window_that_cannot_fit_is_a_bug() -> None:
    """Bounded before, so that it never happens; if it does, loudly, not with a refused commit."""
    with pytest.raises(AssertionError, match="more than what fits"):
        encode(0, 0, random.Random(1).randbytes(4000), {}, 1000)


@pytest.mark.parametrize(
    "written",
    [
        "",
        "NULL",
        "mb2:" + encode(8, 8, b"\xff", {}, 4096)[4:],
        PREFIX,
        PREFIX + "~",
        PREFIX + '"not base85"',
        text(b""),
        text(b"\x00"),
        text(b"\x00\x00\xff" + b"\xff" * 20),
        text(b"\x00\x00\x05ab"),
        text(b"\x02\x00\x01\xff"),
        text(b"\x01\x00\x03abc"),
        text(b"\x00\x01\x01\xff"),
        text(b"\x00\x10\x01\xff"),
        text(b"\x00\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01\x01\xff"),
        text(b"\x00\x00\x01\xff"),
        text(b"\x00\x00\x01\xff\x01"),
        text(b"\x00\x00\x01\xff\x01\x01\x02abcd\x01"),
        text(b"\x00\x00\x01\xff\x00\x01"),
        text(b"\x00\x00\x01\xff\x00\x01\x02abcd"),
    ],
    ids=str,
)
def test_what_is_not_ours_is_nothing(written: str) -> None:
    """Foreign, of another version, cut or damaged, even with a right checksum: ignored, never an error."""
    assert decode(8, written) is None


def test_a_bomb_is_not_unpacked() -> None:
    """A deflated bitmap larger than any window is not ours."""
    bomb = zlib.compress(bytes(BITMAP_BYTES_MAX * 10))
    size = bytearray()
    number = len(bomb)
    while number > 127:
        size.append(number & 127 | 128)
        number >>= 7
    size.append(number)
    assert decode(8, text(b"\x01\x00" + bytes(size) + bomb)) is None


def test_text_beside_another_offset_is_not_believed() -> None:
    """A tool that moved the group and kept the text must not make it skip anything."""
    written = encode(8, 8, b"\xff", {}, 4096)
    assert decode(8, written) is not None
    assert decode(16, written) is None


def test_a_digest_is_the_ids_first_part() -> None:
    """Stable for ever: it is compared across versions."""
    assert digest("00000007aaaaaaaa") == 7


# Together with the offsets


def restored(start: int, *finished: int, window_max: int = 1000, **delivered: int) -> PartitionOffsets:
    machine = PartitionOffsets(start=start, window_max=window_max)
    base = start & ~7
    machine.restore(Progress(base, bits(base, *finished), {int(k[1:]): frozenset({v}) for k, v in delivered.items()}))
    return machine


def test_what_was_finished_before_is_not_taken_again() -> None:
    """It needs nothing, and does not hold the frontier back."""
    machine = restored(10, 11, 13)
    assert [offset for offset in range(10, 15) if machine.take(offset)] == [10, 12, 14]
    machine.finish(10)
    assert machine.frontier == 12
    machine.finish(12)
    assert machine.frontier == 14


def test_the_frontier_passes_what_was_finished_before_with_nothing_else_open() -> None:
    """And that is news for a commit."""
    machine = restored(10, 10, 11)
    assert machine.commit_due() is None
    assert not machine.take(10) and not machine.take(11)
    assert machine.frontier == 12
    assert machine.commit_due() == 12


def test_a_second_restart_knows_what_the_first_one_knew() -> None:
    """Restored offsets that were not read again yet stay in the bitmap."""
    machine = restored(10, 11, 500)
    machine.take(10)
    machine.take(12)
    machine.finish(12)
    base, bitmap = machine.finished_bitmap()
    assert base == 8
    assert list(finished_offsets(Progress(base, bitmap))) == [11, 12, 500]


def test_the_bitmap_begins_near_the_frontier() -> None:
    """What the frontier has passed is dropped from the text and from memory."""
    machine = PartitionOffsets(start=0)
    for offset in range(100):
        machine.take(offset)
    machine.finish(90)
    for offset in range(50):
        machine.finish(offset)
    base, bitmap = machine.finished_bitmap()
    assert base == 48
    assert list(finished_offsets(Progress(base, bitmap))) == [90]


def test_a_group_without_an_offset_has_a_bitmap_from_its_first_record_on() -> None:
    """A log whose start was deleted begins anywhere."""
    machine = PartitionOffsets()
    assert machine.finished_bitmap() == (0, b"")
    machine.take(1_000_003)
    machine.take(1_000_004)
    machine.finish(1_000_004)
    base, bitmap = machine.finished_bitmap()
    assert (base, list(finished_offsets(Progress(base, bitmap)))) == (1_000_000, [1_000_004])


def test_delivered_actions_are_kept_until_their_event_finishes() -> None:
    """Noted, told, and dropped."""
    machine = restored(10, d11=7)
    machine.take(10)
    machine.take(11)
    assert machine.delivered == {11: {7}}
    before = machine.commit_due()
    machine.note_delivered(10, 5)
    assert before is None and machine.commit_due() == 10
    machine.finish(11)
    assert machine.delivered == {10: {5}}


def test_a_started_trigger_is_told_until_it_is_cleared_or_its_event_finishes() -> None:
    """Its first time stays, whatever repeats; a commit that tells it is what permits sending."""
    machine = PartitionOffsets(start=10)
    machine.take(10)
    machine.take(11)
    machine.note_started(10, 7, 1000)
    assert not machine.start_told(10, 7)
    assert machine.commit_due() == 10
    machine.commit_requested(10)
    machine.commit_settled(10, acknowledged=True)
    assert machine.start_told(10, 7)
    machine.note_started(10, 7, 2000)
    machine.note_delivered(11, 1)
    assert machine.start_told(10, 7), "other news does not make it untold"
    assert machine.started == {10: {7: 1000}}
    assert machine.started_count == 1
    machine.note_started(10, 8, 3000)
    machine.clear_started(10, 7)
    machine.clear_started(10, 7)
    machine.clear_started(99, 7)
    assert machine.started == {10: {8: 3000}}
    machine.clear_started(10, 8)
    assert machine.started == {}
    machine.note_started(11, 8, 3000)
    machine.finish(11)
    assert machine.started == {}


def test_a_delivered_trigger_keeps_its_place_until_its_event_finishes() -> None:
    """It must never be forgotten: a repeat an hour later would be a second email."""
    machine = PartitionOffsets(start=10)
    machine.take(10)
    machine.take(11)
    machine.note_started(11, 7, 1000)
    machine.note_trigger_delivered(11, 7)
    assert machine.was_delivered(11, 7) and not machine.was_delivered(11, 8) and not machine.was_delivered(10, 7)
    assert machine.started == {11: {7: DELIVERED}} and machine.started_count == 1
    machine.commit_requested(10)
    machine.commit_settled(10, acknowledged=True)
    machine.note_trigger_delivered(11, 7)
    assert machine.commit_due() is None, "told already"
    machine.drop_untold_starts()
    base, bitmap = machine.finished_bitmap()
    read = decode(10, encode(10, base, bitmap, machine.delivered, 4096, machine.started))
    assert read is not None
    again = PartitionOffsets(start=10)
    again.restore(read)
    assert again.was_delivered(11, 7)
    machine.note_delivered(11, 9)
    assert machine.was_delivered(11, 9)
    machine.finish(11)
    assert machine.started == {}


def test_an_untold_start_is_forgotten_when_the_partition_goes() -> None:
    """It has not left: the last commit must not raise a doubt."""
    machine = restored(10)
    machine.restore(Progress(8, started={11: {1: 1000}}))
    machine.take(10)
    machine.note_started(10, 7, 2000)
    machine.drop_untold_starts()
    assert machine.started == {11: {1: 1000}}
    assert machine.start_told(11, 1), "told by an earlier owner"


def test_a_started_trigger_survives_a_restart() -> None:
    """Within the window; the next owner knows since when."""
    machine = PartitionOffsets(start=10, window_max=16)
    machine.restore(Progress(8, bits(8, 12), started={11: {7: 1000}, 12: {1: 1}, 30: {2: 2}}))
    assert machine.started == {11: {7: 1000}}


def test_progress_beyond_the_window_is_forgotten() -> None:
    """A smaller limit than the former owner's: its commits could not hold it, so it is repeated."""
    machine = restored(10, 11, 29, window_max=16, d12=1, d30=1)
    assert list(finished_offsets(Progress(*machine.finished_bitmap()))) == [11]
    assert machine.delivered == {12: {1}}


def test_restoring_is_for_the_beginning() -> None:
    """Later it would contradict what was taken."""
    machine = PartitionOffsets(start=0)
    machine.take(0)
    with pytest.raises(AssertionError, match="too late"):
        machine.restore(Progress(0))
