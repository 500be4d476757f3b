"""How release 0.1.0 wrote progress, as its code stood there: what core/progress_first.py must read."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Collection, Mapping

PREFIX = "mb1:"
_STORED, _DEFLATED = 0, 1
_CHECK_BYTES = 4
_DIGEST_BYTES = 4


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
    room = (limit_bytes - len(PREFIX)) * 4 // 5 - _CHECK_BYTES - len(body)
    body += _encode_delivered(offset, delivered, room)
    return text_of(offset, body)


def text_of(offset: int, body: bytes | bytearray) -> str:
    return PREFIX + base64.b85encode(bytes(body) + _check(offset, body)).decode("ascii")


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


def _check(offset: int, body: bytes | bytearray) -> bytes:
    return zlib.crc32(body, offset & 0xFFFFFFFF).to_bytes(_CHECK_BYTES, "big")


def _put(target: bytearray, number: int) -> None:
    while number > 0x7F:
        target.append(number & 0x7F | 0x80)
        number >>= 7
    target.append(number)
