"""What release 0.1.0 wrote beside a committed offset. It is read, so that an upgrade from there repeats nothing.

The form
    The same prefix as today's, then base85 of: form of the bitmap (0 as it is, 1 deflated) · distance of its first
    bit · its length · the bitmap · how many offsets have started triggers, and these · offsets with delivered actions ·
    CRC-32.
    The checksum begins with the offset itself, today's with the CRC of its bytes: neither takes the other's text.
"""

from __future__ import annotations

import zlib
from typing import Final, TypedDict

from bridge.core.reader import BITMAP_BYTES_MAX, Reader

_DIGEST_BYTES: Final = 4
_STORED, _DEFLATED = 0, 1


class First(TypedDict):
    """The fields of progress that it knew."""

    base: int
    bitmap: bytes
    started: dict[int, dict[int, int]]
    delivered: dict[int, frozenset[int]]


def check(offset: int, body: bytes) -> bytes:
    return zlib.crc32(body, offset & 0xFFFFFFFF).to_bytes(4, "big")


def read(offset: int, reader: Reader) -> First:
    """Raises IndexError, ValueError or zlib.error for what it did not write."""
    form = reader.byte()
    base = offset - reader.number()
    bitmap = reader.bytes(reader.number())
    if form not in (_STORED, _DEFLATED) or base != offset & ~7:
        raise ValueError("not a bitmap that it wrote")
    if form == _DEFLATED:
        inflate = zlib.decompressobj()
        bitmap = inflate.decompress(bitmap, BITMAP_BYTES_MAX)
        if not inflate.eof:
            raise ValueError("cut short, or larger than any window")
    started: dict[int, dict[int, int]] = {}
    place = offset
    for _ in range(reader.count()):
        place += reader.distance()
        started[place] = {reader.fixed(_DIGEST_BYTES): reader.number() for _ in range(reader.count())}
    delivered: dict[int, frozenset[int]] = {}
    place = offset
    while reader.left:
        place += reader.distance()
        delivered[place] = frozenset(reader.fixed(_DIGEST_BYTES) for _ in range(reader.count()))
    return First(base=base, bitmap=bitmap, started=started, delivered=delivered)
