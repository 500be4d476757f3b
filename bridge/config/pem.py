"""As much of certificates as their dates need: Python's ssl tells those of a connection's other side only."""

from __future__ import annotations

import calendar
import re
import ssl
import time
from pathlib import Path
from typing import Final

BYTES_MAX: Final = 8_388_608
"""A system's bundle of authorities has a quarter of a megabyte."""
_BLOCK: Final = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_SEQUENCE, _VERSION, _UTC_TIME, _GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18


class BadPem(ValueError):
    """`str()` says what is wrong, without the subject."""


def certificates(source: Path | str) -> list[bytes]:
    """The certificates (DER) of a PEM file, or of a text. Raises BadPem where there is none."""
    text = source
    if isinstance(source, Path):
        try:
            with source.open("rb") as file:
                text = file.read(BYTES_MAX).decode("utf-8", "replace")
        except OSError as error:
            raise BadPem(f"cannot be read: {error.strerror}") from None
    blocks = _BLOCK.findall(str(text))
    if not blocks:
        raise BadPem("holds no certificate in PEM form")
    try:
        return [ssl.PEM_cert_to_DER_cert(block) for block in blocks]
    except ValueError:
        raise BadPem("holds a certificate that cannot be read") from None


def validity(certificate: bytes) -> tuple[float, float]:
    """From when until when a certificate (DER) is valid, in wall seconds. Raises BadPem."""
    try:
        begin, end = _validity(certificate)
        return _wall(*begin), _wall(*end)
    except (IndexError, ValueError, OverflowError):
        raise BadPem("holds a certificate that cannot be read") from None


def _validity(certificate: bytes) -> list[tuple[int, bytes]]:
    """Certificate > tbsCertificate > [version], serialNumber, signature, issuer, validity > notBefore, notAfter."""
    (_, whole), *_ = _parts(certificate)
    (_, signed), *_ = _parts(whole)
    parts = [part for part in _parts(signed) if part[0] != _VERSION]
    kind, dates = parts[3]
    found = _parts(dates)
    if kind != _SEQUENCE or len(found) != 2:
        raise ValueError("no dates")
    return found


def _parts(data: bytes) -> list[tuple[int, bytes]]:
    """Tag and content of each element of a DER sequence."""
    found, at = [], 0
    while at < len(data):
        tag, length = data[at], data[at + 1]
        at += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(data[at : at + size], "big")
            at += size
        if at + length > len(data):
            raise ValueError("cut off")
        found.append((tag, data[at : at + length]))
        at += length
    return found


def _wall(tag: int, text: bytes) -> float:
    """X.509 has whole seconds, in UTC; years of two digits are 1950 to 2049."""
    digits = text.decode("ascii").removesuffix("Z")
    if tag == _UTC_TIME:
        digits = ("19" if digits[:2] >= "50" else "20") + digits
    elif tag != _GENERALIZED_TIME:
        raise ValueError("no time")
    return float(calendar.timegm(time.strptime(digits, "%Y%m%d%H%M%S")))
