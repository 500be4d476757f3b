"""What a commit carries beside its offset: the work beyond the frontier that is done already, as text.

The theory
    Kafka keeps one offset per partition and group, and some text with it. The offset is the frontier. The text tells
    the next owner what lies beyond it and need not be done again: offsets that finished, and delivered actions of
    events that did not finish. So a planned stop repeats nothing, and a crash only what was not yet committed.

The form
    `mb1:` + base85 of: form · bitmap · started triggers · delivered actions · CRC-32. The bitmap has a bit for each
    offset from the frontier rounded down to a multiple of eight, stored as it is or deflated, whichever is shorter. The
    checksum covers the committed offset too, so text that got beside another offset is not believed.

Rules that never break
    1. What is written never exceeds its limit, in bytes; the broker would refuse the whole commit.
    2. Text that is foreign, cut, damaged, or of another version decodes to None: everything beyond the offset is then
       done again. It never raises, and never names an offset below the committed one.
    3. Finished offsets and triggers, started or delivered, always fit (the bounds below): none may be forgotten. Other
       delivered actions take what room is left, lowest offsets first: those left out are repeated.

The bounds
    Worst are alternating offsets: no compression, one bit per offset. A window of 20,000 needs 2,501 bytes, 3,127
    characters of base85, of the broker's default 4,096. A started trigger needs up to 16 bytes; `started_limit` of them
    (23) may be under way in one partition, and four more of the event at the frontier. Head and checksum take 20, and
    the rest, some 300 bytes, holds about 40 delivered actions in the worst case, and hundreds in any ordinary one,
    where the bitmap deflates to nothing.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

PREFIX = "mb1:"
_STORED, _DEFLATED = 0, 1
_CHECK_BYTES = 4
_DIGEST_BYTES = 4
"""Of an action id: among the few actions of one event a collision is out of reach."""
_OVERHEAD_BYTES = 16
"""Flags, two lengths and the checksum, with room to spare."""
BITMAP_BYTES_MAX = 1 << 17
"""Of a decoded bitmap: a million offsets. What claims more is not ours."""

DELIVERED = 0
"""In place of a start's time: the trigger was delivered, and its event has not finished yet."""

WINDOW_MAX = 20_000
_WINDOW_SHARE = 0.79
_STARTED_SHARE = 0.12
_STARTED_BYTES = 16
"""Of one started trigger at most: five for the distance of its offset, one for a count, four and five for the rest."""
STARTED_EXTRA = 4
"""Started triggers beyond `started_limit` that still fit: for the event at the frontier (runtime/marks.py)."""


class Progress(NamedTuple):
    """What lies beyond a committed offset."""

    base: int
    """The offset of the bitmap's first bit, a multiple of eight."""
    bitmap: bytes = b""
    """Finished offsets: bit `n % 8` of byte `n // 8` is offset `base + n`."""
    delivered: Mapping[int, frozenset[int]] = {}
    """Offset → digests of its delivered actions."""
    started: Mapping[int, Mapping[int, int]] = {}
    """Offset → digest of a started trigger → wall seconds of its first start; DELIVERED if it is known to be sent."""


def digest(action_id: str) -> int:
    """The short form of an action id that progress carries."""
    return int(action_id[: _DIGEST_BYTES * 2], 16)


def _room(limit_bytes: int) -> int:
    """Bytes to share out: what base85 leaves, without head, checksum and the extra triggers."""
    return (limit_bytes - len(PREFIX)) * 4 // 5 - _OVERHEAD_BYTES - _CHECK_BYTES - STARTED_EXTRA * _STARTED_BYTES


def window_limit(limit_bytes: int) -> int:
    """How many offsets may lie beyond the frontier so that they always fit into metadata of this size."""
    return max(8, min(WINDOW_MAX, (int(_room(limit_bytes) * _WINDOW_SHARE) - 1) * 8))


def started_limit(limit_bytes: int) -> int:
    """How many started triggers of one partition always fit into metadata of this size."""
    return max(1, int(_room(limit_bytes) * _STARTED_SHARE) // _STARTED_BYTES)


def encode(
    offset: int,
    base: int,
    bitmap: bytes,
    delivered: Mapping[int, Collection[int]],
    limit_bytes: int,
    started: Mapping[int, Mapping[int, int]] | None = None,
) -> str:
    """The text beside `offset`; empty where there is nothing to tell. ASCII, without NUL."""
    bitmap = bitmap.rstrip(b"\0")
    if not bitmap and not delivered and not started:
        return ""
    deflated = zlib.compress(bitmap, 1)
    form, stored = (_DEFLATED, deflated) if len(deflated) < len(bitmap) else (_STORED, bitmap)
    body = bytearray((form,))
    _put(body, offset - base)
    _put(body, len(stored))
    body += stored
    body += _encode_started(offset, started or {})
    assert len(body) <= (limit_bytes - len(PREFIX)) * 4 // 5 - _CHECK_BYTES, "more than what fits was let in"
    room = (limit_bytes - len(PREFIX)) * 4 // 5 - _CHECK_BYTES - len(body)
    body += _encode_delivered(offset, delivered, room)
    text = PREFIX + base64.b85encode(bytes(body) + _check(offset, body)).decode("ascii")
    assert len(text) <= limit_bytes
    return text


def decode(offset: int, text: str) -> Progress | None:
    """What `encode` wrote beside this offset; None for anything else."""
    if not text.startswith(PREFIX):
        return None
    try:
        raw = base64.b85decode(text[len(PREFIX) :])
        body, check = raw[:-_CHECK_BYTES], raw[-_CHECK_BYTES:]
        if len(raw) <= _CHECK_BYTES or check != _check(offset, body):
            return None
        reader = _Reader(body)
        form = reader.byte()
        base = offset - reader.number()
        stored = reader.bytes(reader.number())
        if form == _DEFLATED:
            inflate = zlib.decompressobj()
            stored = inflate.decompress(stored, BITMAP_BYTES_MAX)
            if not inflate.eof:
                return None
        elif form != _STORED:
            return None
        if base % 8 or not offset - 8 < base <= offset or base < 0:
            return None
        started = _decode_started(offset, reader)
        return Progress(base, stored, _decode_delivered(offset, reader), started)
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


def _encode_started(offset: int, started: Mapping[int, Mapping[int, int]]) -> bytes:
    entries = bytearray()
    _put(entries, len(started))
    before = offset
    for place in sorted(started):
        _put(entries, place - before)
        _put(entries, len(started[place]))
        for each, wall in started[place].items():
            entries += each.to_bytes(_DIGEST_BYTES, "big")
            _put(entries, wall)
        before = place
    return bytes(entries)


def _decode_started(offset: int, reader: _Reader) -> dict[int, dict[int, int]]:
    started: dict[int, dict[int, int]] = {}
    place = offset
    for _ in range(reader.count()):
        place += reader.number()
        triggers = started[place] = {}
        for _ in range(reader.count()):
            each = int.from_bytes(reader.bytes(_DIGEST_BYTES), "big")
            triggers[each] = reader.number()
    return started


def _encode_delivered(offset: int, delivered: Mapping[int, Collection[int]], room: int) -> bytes:
    entries = bytearray()
    before = offset
    for place in sorted(delivered):
        entry = bytearray()
        _put(entry, place - before)
        _put(entry, len(delivered[place]))
        for each in delivered[place]:
            entry += each.to_bytes(_DIGEST_BYTES, "big")
        if len(entries) + len(entry) > room:
            break
        entries += entry
        before = place
    return bytes(entries)


def _decode_delivered(offset: int, reader: _Reader) -> dict[int, frozenset[int]]:
    delivered: dict[int, frozenset[int]] = {}
    place = offset
    while reader.left:
        place += reader.number()
        count = reader.count()
        delivered[place] = frozenset(int.from_bytes(reader.bytes(_DIGEST_BYTES), "big") for _ in range(count))
    return delivered


def _check(offset: int, body: bytes | bytearray) -> bytes:
    return zlib.crc32(body, offset & 0xFFFFFFFF).to_bytes(_CHECK_BYTES, "big")


def _put(target: bytearray, number: int) -> None:
    """A varint: seven bits a byte, the lowest first."""
    assert number >= 0
    while number > 0x7F:
        target.append(number & 0x7F | 0x80)
        number >>= 7
    target.append(number)


class _Reader:
    """Reads what is there; raises IndexError where it ends too early."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._place = 0

    @property
    def left(self) -> int:
        return len(self._raw) - self._place

    def byte(self) -> int:
        self._place += 1
        return self._raw[self._place - 1]

    def number(self) -> int:
        number = shift = 0
        while True:
            byte = self.byte()
            number |= (byte & 0x7F) << shift
            if byte < 0x80:
                return number
            shift += 7
            if shift > 63:
                raise ValueError("no number is that long")

    def count(self) -> int:
        """How many things follow, each of at least a byte: what is cut short, or a bomb, ends here."""
        count = self.number()
        if count > self.left:
            raise IndexError("cut short")
        return count

    def bytes(self, count: int) -> bytes:
        if count > self.left:
            raise IndexError("cut short")
        self._place += count
        return self._raw[self._place - count : self._place]
