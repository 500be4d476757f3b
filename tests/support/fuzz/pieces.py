"""The work of a run in pieces, each for a process of its own: memory is then measured of one piece alone."""

from __future__ import annotations

from collections.abc import Callable

from tests.support.fuzz.answers import run_answers
from tests.support.fuzz.case import Broken, Report
from tests.support.fuzz.files import run_files
from tests.support.fuzz.records import run_records
from tests.support.fuzz.requests import run_requests

KINDS: dict[str, tuple[Callable[[int, int, int], Report], int, int]] = {
    "records": (run_records, 100_000, 25_000),
    "requests": (run_requests, 100_000, 50_000),
    "answers": (run_answers, 20_000, 20_000),
    "files": (run_files, 3_000, 1_000),
}
"""How each is run, how many there are, and how many go to one process at most."""


def parts(kind: str, count: int, first: int) -> list[tuple[str, int, int]]:
    """The work in pieces: the kind, how many, and from which number on."""
    size = KINDS[kind][2]
    return [(kind, min(size, first + count - start), start) for start in range(first, first + count, size)]


def run_part(seed: int, kind: str, count: int, first: int) -> Report:
    try:
        return KINDS[kind][0](seed, count, first)
    except BaseExceptionGroup as errors:  # of a task group; a pool could not hand it over
        raise Broken("\n".join(str(each) for each in errors.exceptions)) from None
