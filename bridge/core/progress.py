"""What a commit carries beside its offset: the work beyond the frontier that is known already, as text.

The theory
    Kafka keeps one offset per partition and group, and some text with it. The offset is the frontier. The text tells
    the next owner what lies beyond it: which offsets finished, which actions of unfinished events were carried out,
    which triggers may have been sent and since when, how far intake had come. So a planned stop repeats nothing, a
    crash only what was not yet committed, and no email goes out twice.

The form
    `mb1:` + base85 of sections · CRC-32. A section is a tag (one byte), a length (varint) and as many bytes. Whoever
    reads passes over tags that it does not know, so an older and a newer instance can share a group: what the older
    one does not know it does not tell on, and the newer one does that part again or doubts it. A section is never
    given another meaning; a new one gets a new tag. The checksum covers the committed offset too, so text that got
    beside another offset is not believed.

    1, 2, 3  finished offsets, one of three forms, whichever is the shortest: one bit for each offset from the frontier
             rounded down to a multiple of eight; the same deflated; or the lengths of its runs, unfinished first
    4        started triggers: their offsets, each with digests and wall seconds
    5        delivered actions of unfinished events: their offsets, each with digests
    6        the same, of actions for which no place was claimed: they take what room is left
    7        `seen`, the offset after the highest taken in, and `since`, when the frontier's record was first read
    8        `unsure_below`: a former owner's progress up to there could not be read
    9        a hash of the topic's id: four bytes
    10       the quota's spend, as core/shares.py writes it
    11       the assignment id: eight bytes that no other assignment of the partition tells
    12-15    reserved; with tags 10 and 11 at most SPEND_BYTES, heads included

    Release 0.1.0 wrote another form under the same prefix (core/progress_first.py), with another checksum.

Rules that never break
    1. What is written never exceeds its limit, in bytes; the broker would refuse the whole commit.
    2. Text that is foreign, cut, damaged, or of another version decodes to None, and never raises. `ours` tells text
       that we wrote from text that somebody else did: ours may have told of triggers (runtime/marks.py).
    3. Whatever was let in fits (the bounds below): none of it may be forgotten.

The bounds
    Worst for the bitmap are alternating offsets: no compression, one bit per offset. A window of 20,000 needs 2,501
    bytes, of the 3,273 that base85 leaves of the broker's default 4,096 characters. Heads and checksum take 43, 160
    are kept for spend, a started trigger needs up to 12: `started_limit` of them (20) may be under way in one
    partition, and four more of the event at the frontier. That event also has room of its own for eight delivered
    actions. All the rest, `room_limit`, is shared by the bitmap and by places for delivered actions (core/offsets.py):
    with a full window some 240 bytes are left for them, which is 20 events with two delivered actions each; with a
    window of a thousand offsets it is 200.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from bridge.core import progress_first
from bridge.core.reader import BITMAP_BYTES_MAX, DISTANCE_MAX, Reader

PREFIX = "mb1:"
_OURS = re.compile(r"mb\d{1,4}:")

_STORED, _DEFLATED, _RUNS, _STARTED, _DELIVERED, _UNCLAIMED, _SEEN, _UNSURE, _TOPIC, _SPEND, _ASSIGNMENT = range(1, 12)

_CHECK_BYTES = 4
_DIGEST_BYTES = 4
"""Of an action id: among the few actions of one event a collision is out of reach."""
_WALL_BYTES = 4
"""Enough until 2106."""
_TOPIC_BYTES = 4
ASSIGNMENT_BYTES = 8
_HEADS_BYTES = _CHECK_BYTES + 4 * 4 + 9 + 5 + 8
"""The checksum, four sections' heads of four bytes, and all of `seen` (9), `unsure_below` (5) and the topic's hash."""
SPEND_BYTES = 160
"""Reserved for the quota's spend and an assignment id."""
_NO_BOUND = 1 << 62
_RUNS_MAX = 256
"""Beyond so many runs the other forms are about as short, and finding the runs costs a millisecond."""

DELIVERED = 0
"""In place of a start's time: the trigger was delivered, and its event has not finished yet."""

WINDOW_MAX = 20_000
_STARTED_SHARE = 0.083
_WINDOW_SHARE = 0.912
STARTED_BYTES = 12
"""Of one started trigger at most: three for the distance of its offset, one for a count, four and four."""
STARTED_EXTRA = 4
"""Started triggers beyond `started_limit` that still fit: for the event at the frontier (runtime/marks.py)."""
PLACE_HEAD_BYTES = 4
"""Of an offset with delivered actions: three for its distance, one for their count (two beyond 127)."""
PLACES_EXTRA = 8
"""Delivered actions of the event at the frontier that fit whatever holds the room."""
PLACES_EXTRA_BYTES = PLACE_HEAD_BYTES + PLACES_EXTRA * _DIGEST_BYTES


class DoesNotFit(AssertionError):
    """More was let in than what fits: a bug, or a limit that was lowered while a former owner's progress was larger."""


class Progress(NamedTuple):
    """What lies beyond a committed offset."""

    base: int
    """The offset of the bitmap's first bit, a multiple of eight."""
    bitmap: bytes = b""
    """Finished offsets: bit `n % 8` of byte `n // 8` is offset `base + n`."""
    delivered: Mapping[int, Collection[int]] = {}
    """Offset → digests of its delivered actions."""
    started: Mapping[int, Mapping[int, int]] = {}
    """Offset → digest of a started trigger → wall seconds of its first start; DELIVERED if it is known to be sent."""
    seen: int | None = None
    """The offset after the highest that was taken in, where that is beyond the committed one."""
    since_wall: int = 0
    """Whatever lies below `seen` was first read no earlier than this; 0 where nobody knows."""
    unsure_below: int | None = None
    """Below it a trigger may have been sent of which nothing is told."""
    topic: int | None = None
    """Four bytes of a hash of the topic's id."""
    spend: bytes | None = None
    """What of the quota's share of this partition is used (core/shares.py); None where nothing is told of it."""
    assignment: bytes | None = None
    """Whose commit this is (runtime/unchanged.py); None where nobody asks."""


def digest(action_id: str) -> int:
    """The short form of an action id that progress carries."""
    return int(action_id[: _DIGEST_BYTES * 2], 16)


def place_bytes(actions: int) -> int:
    """What an offset with so many delivered actions needs at most."""
    return PLACE_HEAD_BYTES + (actions > 127) + actions * _DIGEST_BYTES if actions else 0


def _raw_bytes(limit_bytes: int) -> int:
    """What base85 leaves of the limit: five characters carry four bytes."""
    return max(0, limit_bytes - len(PREFIX)) * 4 // 5


def _shared(limit_bytes: int) -> int:
    """Bytes to share out between window, delivered actions and started triggers."""
    fixed = _HEADS_BYTES + SPEND_BYTES + STARTED_EXTRA * STARTED_BYTES + PLACES_EXTRA_BYTES
    return _raw_bytes(limit_bytes) - fixed


def started_limit(limit_bytes: int) -> int:
    """How many started triggers of one partition always fit into metadata of this size."""
    return max(1, int(_shared(limit_bytes) * _STARTED_SHARE) // STARTED_BYTES)


def room_limit(limit_bytes: int) -> int:
    """Bytes that the bitmap and the delivered actions of one partition may need together at most."""
    return max(8, _shared(limit_bytes) - started_limit(limit_bytes) * STARTED_BYTES)


def window_limit(limit_bytes: int) -> int:
    """How many offsets may lie beyond the frontier so that they always fit into metadata of this size."""
    return max(8, min(WINDOW_MAX, (int(room_limit(limit_bytes) * _WINDOW_SHARE) - 1) * 8))


def encode(
    offset: int, progress: Progress, limit_bytes: int, unclaimed: Mapping[int, Collection[int]] | None = None
) -> str:
    """The text beside `offset`; empty where there is nothing to tell. ASCII, without NUL. Raises DoesNotFit.

    `unclaimed` are delivered actions that take what room is left, lowest offsets first: those left out are repeated.
    """
    body = bytearray()
    bitmap = progress.bitmap.rstrip(b"\0")
    if bitmap:
        assert progress.base == offset & ~7
        _section(body, *_shortest(bitmap))
    if progress.started:
        _section(body, _STARTED, _encode_started(offset, progress.started))
    if progress.delivered:
        _section(body, _DELIVERED, _encode_delivered(offset, progress.delivered, _NO_BOUND))
    if progress.seen is not None and progress.seen > offset:
        seen = bytearray()
        _put(seen, progress.seen - offset)
        _section(body, _SEEN, seen + progress.since_wall.to_bytes(_WALL_BYTES, "big"))
    if progress.unsure_below is not None and progress.unsure_below > offset:
        unsure = bytearray()
        _put(unsure, progress.unsure_below - offset)
        _section(body, _UNSURE, unsure)
    if progress.topic is not None:
        _section(body, _TOPIC, progress.topic.to_bytes(_TOPIC_BYTES, "big"))
    room = _raw_bytes(limit_bytes) - _CHECK_BYTES - SPEND_BYTES - len(body)
    if body and room < 0:
        raise DoesNotFit(f"more than what fits was let in: {-room} bytes too much for a limit of {limit_bytes}")
    if unclaimed:
        best = _encode_delivered(offset, unclaimed, room - 4)
        if best:
            _section(body, _UNCLAIMED, best)
    if progress.spend is not None:
        assert len(progress.spend) + 3 + (progress.assignment is not None) * (2 + ASSIGNMENT_BYTES) <= SPEND_BYTES
        _section(body, _SPEND, progress.spend)
    if progress.assignment is not None:
        assert len(progress.assignment) == ASSIGNMENT_BYTES
        _section(body, _ASSIGNMENT, progress.assignment)
    if not body:
        return ""
    return PREFIX + base64.b85encode(bytes(body) + _check(offset, body)).decode("ascii")


def ours(text: str) -> bool:
    """Whether this bridge wrote the text, of whatever version and in whatever state."""
    return _OURS.match(text) is not None


def decode(offset: int, text: str) -> Progress | None:
    """What `encode` wrote beside this offset; None for anything else."""
    if not text.startswith(PREFIX):
        return None
    try:
        raw = base64.b85decode(text[len(PREFIX) :])
        body, check = raw[:-_CHECK_BYTES], raw[-_CHECK_BYTES:]
        if check == progress_first.check(offset, body):
            return Progress(**progress_first.read(offset, Reader(body)))
        if len(raw) <= _CHECK_BYTES or check != _check(offset, body):
            return None
        return _read(offset, Reader(body))
    except (ValueError, IndexError, zlib.error, binascii.Error):
        return None


def finished_offsets(progress: Progress) -> Iterable[int]:
    """The finished offsets of a bitmap, ascending."""
    for place, byte in enumerate(progress.bitmap):
        if byte:
            first = progress.base + place * 8
            for bit in range(8):
                if byte >> bit & 1:
                    yield first + bit


def _read(offset: int, body: Reader) -> Progress:
    progress = Progress(offset & ~7)
    delivered: dict[int, frozenset[int]] = {}
    while body.left:
        tag = body.byte()
        reader = Reader(body.bytes(body.number()))
        if tag in (_STORED, _DEFLATED, _RUNS):
            progress = progress._replace(bitmap=_BITMAPS[tag](reader))
        elif tag == _STARTED:
            progress = progress._replace(started=_decode_started(offset, reader))
        elif tag in (_DELIVERED, _UNCLAIMED):
            for place, digests in _decode_delivered(offset, reader).items():
                delivered[place] = delivered.get(place, frozenset()) | digests
        elif tag == _SEEN:
            seen = offset + reader.distance()
            progress = progress._replace(seen=seen, since_wall=reader.fixed(_WALL_BYTES))
        elif tag == _UNSURE:
            progress = progress._replace(unsure_below=offset + reader.distance())
        elif tag == _TOPIC:
            progress = progress._replace(topic=reader.fixed(_TOPIC_BYTES))
        elif tag == _SPEND:
            progress = progress._replace(spend=reader.bytes(reader.left))
        elif tag == _ASSIGNMENT:
            progress = progress._replace(assignment=reader.bytes(ASSIGNMENT_BYTES))
    return progress._replace(delivered=delivered)


# Bitmaps


def _shortest(bitmap: bytes) -> tuple[int, bytes]:
    forms = [(_STORED, bitmap), (_DEFLATED, zlib.compress(bitmap, 1))]
    runs = _encode_runs(bitmap)
    if runs is not None:
        forms.append((_RUNS, runs))
    return min(forms, key=lambda form: len(form[1]))


def _encode_runs(bitmap: bytes) -> bytes | None:
    bits = int.from_bytes(bitmap, "little")
    edges = bits ^ bits << 1  # a bit wherever a run begins or ends
    if edges.bit_count() > _RUNS_MAX:
        return None
    runs = bytearray()
    before = 0
    while edges:
        lowest = edges & -edges
        edges ^= lowest
        place = lowest.bit_length() - 1
        _put(runs, place - before)
        before = place
    return bytes(runs)


def _decode_stored(reader: Reader) -> bytes:
    return reader.bytes(reader.left)


def _decode_deflated(reader: Reader) -> bytes:
    inflate = zlib.decompressobj()
    bitmap = inflate.decompress(reader.bytes(reader.left), BITMAP_BYTES_MAX)
    if not inflate.eof:
        raise ValueError("cut short, or larger than any window")
    return bitmap


def _decode_runs(reader: Reader) -> bytes:
    bits = place = 0
    finished = False
    while reader.left:
        length = reader.distance()
        if place + length > DISTANCE_MAX:
            raise ValueError("larger than any window")
        if finished:
            bits |= (1 << length) - 1 << place
        place += length
        finished = not finished
    return bits.to_bytes((place + 7) // 8, "little")


_BITMAPS = {_STORED: _decode_stored, _DEFLATED: _decode_deflated, _RUNS: _decode_runs}


# Actions


def _encode_started(offset: int, started: Mapping[int, Mapping[int, int]]) -> bytes:
    entries = bytearray()
    before = offset
    for place in sorted(started):
        _put(entries, place - before)
        _put(entries, len(started[place]))
        for each, wall in started[place].items():
            entries += each.to_bytes(_DIGEST_BYTES, "big") + wall.to_bytes(_WALL_BYTES, "big")
        before = place
    return bytes(entries)


def _decode_started(offset: int, reader: Reader) -> dict[int, dict[int, int]]:
    started: dict[int, dict[int, int]] = {}
    place = offset
    while reader.left:
        place += reader.distance()
        started[place] = {reader.fixed(_DIGEST_BYTES): reader.fixed(_WALL_BYTES) for _ in range(reader.count())}
    return started


def _encode_delivered(offset: int, delivered: Mapping[int, Collection[int]], room: int) -> bytes:
    entries = bytearray()
    before = offset
    for place in sorted(delivered):
        entry = bytearray()
        _put(entry, place - before)
        _put(entry, len(delivered[place]))
        for each in sorted(delivered[place]):
            entry += each.to_bytes(_DIGEST_BYTES, "big")
        if len(entries) + len(entry) > room:
            break
        entries += entry
        before = place
    return bytes(entries)


def _decode_delivered(offset: int, reader: Reader) -> dict[int, frozenset[int]]:
    delivered: dict[int, frozenset[int]] = {}
    place = offset
    while reader.left:
        place += reader.distance()
        delivered[place] = frozenset(reader.fixed(_DIGEST_BYTES) for _ in range(reader.count()))
    return delivered


# Bytes


def _check(offset: int, body: bytes | bytearray) -> bytes:
    return zlib.crc32(body, zlib.crc32(offset.to_bytes(8, "big"))).to_bytes(_CHECK_BYTES, "big")


def _section(body: bytearray, tag: int, payload: bytes | bytearray) -> None:
    body.append(tag)
    _put(body, len(payload))
    body += payload


def _put(target: bytearray, number: int) -> None:
    """A varint: seven bits a byte, the lowest first."""
    assert number >= 0
    while number > 0x7F:
        target.append(number & 0x7F | 0x80)
        number >>= 7
    target.append(number)
