"""Reads numbers and bytes of a text that may be cut, damaged or a bomb: core/progress.py writes it."""

from __future__ import annotations

BITMAP_BYTES_MAX = 1 << 17
"""Of a decoded bitmap: a million offsets. What claims more is not ours."""
DISTANCE_MAX = BITMAP_BYTES_MAX * 8
"""From the frontier; fits into three bytes of a varint."""


class Reader:
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

    def distance(self) -> int:
        distance = self.number()
        if distance > DISTANCE_MAX:
            raise ValueError("farther than any window")
        return distance

    def count(self) -> int:
        """How many things follow, each of at least a byte: what is cut short, or a bomb, ends here."""
        count = self.number()
        if count > self.left:
            raise IndexError("cut short")
        return count

    def fixed(self, count: int) -> int:
        return int.from_bytes(self.bytes(count), "big")

    def bytes(self, count: int) -> bytes:
        if count > self.left:
            raise IndexError("cut short")
        self._place += count
        return self._raw[self._place - count : self._place]
