"""Where something is written, and what was probably meant: what every room needs that tells people of mistakes."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import NamedTuple

from bridge.errors import Problem


class Place(NamedTuple):
    """Where something is written; line and column count from 1, 0 means the whole."""

    file: str
    line: int = 0
    column: int = 0

    def problem(self, code: str, message: str, hint: str = "", severity: str = "error") -> Problem:
        return Problem(code, message, self.file, self.line, self.column, hint, severity)


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that a misspelt one is probably meant to be, whatever its case, or an empty text."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.6)
    return by_lower[found[0]] if found else ""


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """The hint that names the nearest known name; `otherwise` where none is near."""
    close = nearest(name, known)
    return f"did you mean {close}?" if close else otherwise
