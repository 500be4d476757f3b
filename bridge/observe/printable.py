"""Text of others on a terminal: what would move its cursor, hide or reorder text, or begin a line is escaped."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str, keep: str = "") -> str:
    """The text with control characters as escapes (`\\x1b`), but for those in `keep`; half surrogate pairs too, which
    no terminal can be sent."""
    if text.isprintable():  # nearly always
        return text
    return _UNSAFE.sub(lambda found: found[0] if found[0] in keep else _escaped(found[0]), text)


def printable_in(value: Any) -> Any:
    """The same for every text in plain JSON types, names of mappings too."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, Mapping):
        return {printable(name) if isinstance(name, str) else name: printable_in(each) for name, each in value.items()}
    return [printable_in(each) for each in value] if isinstance(value, list | tuple) else value


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
