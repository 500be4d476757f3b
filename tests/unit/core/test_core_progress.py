"""The text beside a committed offset: always fits, and is believed only when it is whole and ours."""

import base64
import random
import zlib

import pytest

from bridge.core.offsets import PartitionOffsets
from bridge.core.progress import (
    BITMAP_BYTES_MAX,
    DELIVERED,
    PLACES_EXTRA,
    PREFIX,
    SPEND_BYTES,
    STARTED_EXTRA,
    WINDOW_MAX,
    DoesNotFit,
    Progress,
    _check,
    decode,
    digest,
    encode,
    finished_offsets,
    ours,
    place_bytes,
    room_limit,
    started_limit,
    window_limit,
)
from bridge.core.shares import TOLD_BYTES


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
    assert encode(100, Progress(96, b"\0\0", seen=100, unsure_below=100), 4096) == ""


def test_what_is_written_is_read() -> None:
    """All parts together, in ASCII without NUL."""
    progress = Progress(
        96,
        bits(96, 103, 200),
        {101: frozenset({7, 2**32 - 1}), 150: frozenset({1})},
        {101: {9: 1_780_000_000}, 102: {3: DELIVERED, 4: 2**32 - 1}},
        seen=250,
        since_wall=1_780_000_001,
        unsure_below=20_101,
        topic=2**32 - 1,
    )
    written = encode(101, progress, 4096)
    assert written.isascii() and "\0" not in written
    assert decode(101, written) == progress
    assert ours(written)


@pytest.mark.parametrize(
    ("bitmap", "form"),
    [
        (random.Random(1).randbytes(200), 1),
        (b"\x55" * 200, 2),
        (b"\xfe" + b"\xff" * 200 + b"\x01", 3),
    ],
    ids=["stored", "deflated", "runs"],
)
def test_the_shortest_form_of_a_bitmap_is_taken(bitmap: bytes, form: int) -> None:
    """Random bits as they are, a pattern deflated, one long run as two numbers; each is read back."""
    written = encode(8, Progress(8, bitmap), 4096)
    assert base64.b85decode(written[len(PREFIX) :])[0] == form
    read = decode(8, written)
    assert read is not None and read.bitmap == bitmap


def test_one_stuck_offset_needs_few_bytes() -> None:
    """The commonest case: the frontier waits, and all behind it has finished."""
    assert len(encode(8, Progress(8, b"\xfe" + b"\xff" * 2499), 4096)) <= 20


LIMITS = [512, 1024, 4096, 65536]


def full(limit: int, start: int, dice: random.Random) -> PartitionOffsets:
    """The worst that can be let in: alternating offsets, every mark, every place, all numbers as long as they get."""
    machine = PartitionOffsets(
        start=start,
        window_max=window_limit(limit),
        room_bytes=room_limit(limit),
        started_max=started_limit(limit),
    )
    offset = start
    while machine.fits(offset):
        machine.take(offset)
        offset += 1
    machine.unsure_below = offset + WINDOW_MAX
    taken = range(start, offset)
    # Half of the offsets finish, so that the bits cannot be compressed; the head, and what is half done, do not.
    open_ = {start, *range(offset - 1, start, -2)}
    spread = sorted(open_ - {start}, reverse=True)
    for each in spread[: started_limit(limit)]:
        assert machine.place_fits(each)
        machine.note_started(each, dice.getrandbits(32), 2**40)
    assert not machine.place_fits(spread[-1]), "no mark beyond the share"
    for _ in range(STARTED_EXTRA):
        assert machine.place_fits(start)
        machine.note_started(start, dice.getrandbits(32), 2**40)
    for each in range(PLACES_EXTRA):
        assert machine.claim(start, each)
        machine.note_delivered(start, each)
    for each in spread:
        name = dice.getrandbits(32)
        if not machine.claim(each, name):
            break
        machine.note_delivered(each, name)
    for each in taken:
        if each not in open_ and dice.random() < 0.5:
            machine.finish(each)
    return machine


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("start", [7, 2**63 - 100_000])
def test_the_worst_that_is_let_in_fits_its_limit_and_is_read_whole(limit: int, start: int) -> None:
    """Nothing of it is left out, and the bytes that are kept for the quota's spend stay free."""
    machine = full(limit, start, random.Random(limit))
    assert machine.frontier == start and machine.window > machine.window_max * 0.8
    progress, unclaimed = machine.progress(topic=2**32 - 1)
    assert unclaimed == {}
    written = encode(start, progress, limit, unclaimed)
    assert len(written.encode()) <= limit - SPEND_BYTES
    read = decode(start, written)
    assert read is not None
    assert set(finished_offsets(read)) == set(finished_offsets(progress))
    assert read.started == progress.started and sum(map(len, read.started.values())) == started_limit(limit) + 4
    assert read.delivered == progress.delivered and len(read.delivered[start]) == PLACES_EXTRA
    assert (read.seen, read.unsure_below, read.topic) == (progress.seen, progress.unsure_below, 2**32 - 1)


@pytest.mark.parametrize("limit", LIMITS)
def test_the_shares_of_any_limit_add_up(limit: int) -> None:
    """Counted byte by byte, for the worst text of each share: the room is used, and never exceeded."""
    for each in range(limit - 12, limit + 12):
        window, marks, room = window_limit(each), started_limit(each), room_limit(each)
        start = 1_000_007
        bitmap = random.Random(each).randbytes(room - 1) + b"\x80"
        wall = 2**32 - 1
        started = {start + 2**20 - n * 20_000: {n: wall} for n in range(min(marks, 50))}
        started[start + 2**20] = {n: wall for n in range(max(1, marks - 49))}
        started[start] = {n: wall for n in range(STARTED_EXTRA)}
        delivered = {start: frozenset(range(PLACES_EXTRA))}
        progress = Progress(start & ~7, bitmap, delivered, started, start + 20_000, wall, start + 20_000, wall)
        assert len(encode(start, progress, each)) <= each - SPEND_BYTES
        assert window // 8 + 1 <= room
        with pytest.raises(DoesNotFit):
            encode(start, progress._replace(bitmap=bitmap + random.Random(-each).randbytes(2000)), each)


def test_the_default_limit_gives_the_documented_shares() -> None:
    """4,096 bytes hold 20,000 offsets and 20 half-done events of two actions, as the module says; small limits work."""
    assert window_limit(4096) == WINDOW_MAX == 20_000
    assert window_limit(1_000_000) == WINDOW_MAX
    assert window_limit(0) >= 8
    assert started_limit(4096) == 20
    assert (room_limit(4096) - 2501) // place_bytes(2) == 20
    assert (place_bytes(0), place_bytes(1), place_bytes(127), place_bytes(128)) == (0, 8, 512, 517)


def test_every_byte_of_room_is_respected_by_what_has_no_place() -> None:
    """Around the boundary: as the limit falls byte by byte, such actions are left out, never the limit passed."""
    bitmap = bits(96, *range(97, 500, 2))
    unclaimed = {100 + n: {n} for n in range(50)}
    progress = Progress(96, bitmap, {99: frozenset({1})})
    whole = len(encode(96, progress, 4096, unclaimed)) + 200
    least = len(encode(96, progress, 4096)) + 202
    kept = []
    for limit in range(whole + 5, least - 1, -1):
        written = encode(96, progress, limit, unclaimed)
        assert len(written) <= limit - SPEND_BYTES
        read = decode(96, written)
        assert read is not None and read.bitmap == bitmap and read.delivered[99] == {1}
        kept.append(len(read.delivered) - 1)
    assert kept[0] == 50 and kept[-1] < 2
    assert kept == sorted(kept, reverse=True)


def test_a_place_may_be_told_in_two_parts() -> None:
    """An event of many actions: those with a place, and those that took what room was left."""
    written = encode(96, Progress(96, delivered={96: {1}}), 4096, {96: {2}, 97: {3}})
    read = decode(96, written)
    assert read is not None and read.delivered == {96: {1, 2}, 97: {3}}


def test_a_window_that_cannot_fit_is_a_bug() -> None:
    """Bounded before, so that it never happens; if it does, loudly, not with a refused commit."""
    with pytest.raises(DoesNotFit, match="more than what fits"):
        encode(0, Progress(0, random.Random(1).randbytes(4000)), 1000)


GOOD = b"\x01\x01\xff"


@pytest.mark.parametrize(
    "written",
    [
        "",
        "NULL",
        "mb2:" + encode(8, Progress(8, b"\xff"), 4096)[4:],
        PREFIX,
        PREFIX + "~",
        PREFIX + '"not base85"',
        text(b""),
        text(b"\x01"),
        text(b"\x01\xff" + b"\xff" * 20),
        text(b"\x01\x05ab"),
        text(b"\x02\x03abc"),
        text(b"\x03\x04\x80\x80\x80\x7f"),
        text(b"\x03\x06\x80\x80\x40\x80\x80\x40"),
        text(GOOD + b"\x04\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"),
        text(GOOD + b"\x04\x01\x01"),
        text(GOOD + b"\x04\x06\x01\x01abcd"),
        text(GOOD + b"\x05\x02\x01\x09"),
        text(GOOD + b"\x05\x05\x01\x01abc"),
        text(GOOD + b"\x07\x01\x01"),
        text(GOOD + b"\x08\x00"),
        text(GOOD + b"\x09\x03abc"),
    ],
    ids=str,
)
def test_what_is_not_ours_is_nothing(written: str) -> None:
    """Foreign, of another version, cut or damaged, even with a right checksum: ignored, never an error."""
    assert decode(8, written) is None


@pytest.mark.parametrize(
    ("written", "mine"),
    [
        (PREFIX + "damaged", True),
        ("mb2:newer", True),
        ("mb1", False),
        ("mb:", False),
        ("", False),
        ("offset 7, mb1:", False),
    ],
)
def test_ours_is_told_from_foreign_text_even_where_it_cannot_be_read(written: str, mine: bool) -> None:
    """What we wrote may have told of triggers, in whatever state it is now."""
    assert ours(written) is mine


def test_an_older_instance_passes_over_what_it_does_not_know() -> None:
    """A section with a tag of the future, in between: all else is read."""
    later = b"\x3f\x04spnd"
    assert decode(8, text(later + GOOD + later)) == Progress(8, b"\xff")


def test_a_bomb_is_not_unpacked() -> None:
    """A deflated bitmap larger than any window is not ours."""
    bomb = zlib.compress(bytes(BITMAP_BYTES_MAX * 10))
    size = bytearray()
    number = len(bomb)
    while number > 127:
        size.append(number & 127 | 128)
        number >>= 7
    size.append(number)
    assert decode(8, text(b"\x02" + bytes(size) + bomb)) is None


def test_text_beside_another_offset_is_not_believed() -> None:
    """A tool that moved the group and kept the text must not make it skip anything, however far it moved it."""
    written = encode(8, Progress(8, b"\xff"), 4096)
    assert decode(8, written) is not None
    assert decode(16, written) is None
    assert decode(8 + 2**32, written) is None


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
    machine.commit_requested(10)
    machine.commit_settled(10, acknowledged=True)
    assert machine.commit_due() is None
    machine.note_delivered(10, 5)
    assert machine.commit_due() == 10
    machine.commit_requested(10)
    machine.commit_settled(10, acknowledged=True)
    machine.note_delivered(10, 5)
    assert machine.commit_due() is None, "told already"
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
    read = decode(10, encode(10, *machine.progress()[:1], 4096))
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
    """The next owner knows since when, unless its event finished or lies before where reading starts."""
    machine = PartitionOffsets(start=10, window_max=16)
    gone = {9: frozenset({1}), 12: frozenset({1})}
    machine.restore(Progress(8, bits(8, 12), gone, started={9: {5: 5}, 11: {7: 1000}, 12: {1: 1}, 30: {2: 2}}))
    assert machine.delivered == {}
    assert machine.started == {11: {7: 1000}, 30: {2: 2}}


def test_progress_beyond_the_window_is_kept_and_lets_nothing_in_before_it_has_shrunk() -> None:
    """A smaller limit than the former owner's: forgetting a finished trigger could be a second email."""
    machine = PartitionOffsets(start=10, window_max=1000, room_bytes=10)
    machine.restore(Progress(8, bits(8, 11, 100), {12: frozenset({1}), 90: frozenset({1})}))
    assert list(finished_offsets(Progress(*machine.finished_bitmap()))) == [11, 100]
    assert machine.delivered == {12: {1}, 90: {1}}
    assert machine.fits(10), "something can always go"
    machine.take(10)
    assert not machine.fits(12)
    machine.finish(10)
    assert machine.fits(12)


def test_restoring_is_for_the_beginning() -> None:
    """Later it would contradict what was taken."""
    machine = PartitionOffsets(start=0)
    machine.take(0)
    with pytest.raises(AssertionError, match="too late"):
        machine.restore(Progress(0))


def test_the_quotas_spend_is_told_as_it_is_beside_whatever_else_there_is() -> None:
    """Also where nothing else is to be told, and where all other room is taken; None where nobody told any."""
    spend = bytes(range(SPEND_BYTES - 3))
    alone = decode(8, encode(8, Progress(8, spend=spend), 512))
    assert alone is not None and alone.spend == spend
    crowd = {9 + place: {1, 2} for place in range(400)}
    told = encode(8, Progress(8, seen=9_000, spend=spend), 4096, crowd)
    found = decode(8, told)
    assert len(told) <= 4096 and found is not None and found.spend == spend and found.seen == 9_000
    assert decode(8, encode(8, Progress(8, seen=9), 512)) == Progress(8, seen=9)


def test_whose_commit_it_is_is_told_beside_the_spend() -> None:
    """The largest that core/shares.py tells fits with it; without the rest it is told too."""
    told = Progress(8, spend=bytes(TOLD_BYTES), assignment=b"whose-it")
    assert decode(8, encode(8, told, 512)) == told
    alone = Progress(8, assignment=b"whose-it")
    assert decode(8, encode(8, alone, 512)) == alone
    with pytest.raises(AssertionError):
        encode(8, told._replace(spend=bytes(SPEND_BYTES - 12)), 512)
