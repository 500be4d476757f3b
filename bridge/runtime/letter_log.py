"""What the log says of dead letters: the first of a kind and rule at once, the others by their number.

A topic of bad events would fill the log with one line each; `dlq list` has them all. What came since is told by
`look`, which the engine calls now and then, so this needs no timer of its own.
"""

from __future__ import annotations

import shlex
from typing import Final

import structlog

from bridge.model import Letter, LetterKind

log = structlog.get_logger(__name__)

AGAIN_SECONDS: Final = 60.0
"""Between two lines of one kind and rule."""


class LetterLog:
    """Of each kind and rule of which a letter was told: when, how many came since, and the last one's place.

    Bounded by the rules in force times the kinds: a quiet minute ends an entry.
    """

    def __init__(self) -> None:
        self._told: dict[tuple[LetterKind, str], tuple[float, int, str]] = {}

    def wrote(self, letter: Letter, now: float) -> None:
        key = letter.kind, letter.rule
        told = self._told.get(key)
        if told is not None:
            self._told[key] = told[0], told[1] + 1, letter.record.place
            return
        self._told[key] = now, 0, letter.record.place
        log.warning(
            "a dead letter was written: what it names was not delivered, all else goes on. Mend the cause, replay it",
            kind=letter.kind,
            rule=letter.rule or None,
            message=letter.message,
            place=letter.record.place,
            see=f"meisa-bridge dlq show {letter.record.place}",
        )

    def look(self, now: float) -> None:
        """Tells what has come since."""
        for key, (since, count, place) in list(self._told.items()):
            if now - since >= AGAIN_SECONDS:
                self._tell(key, count, place, now - since)
                if count:
                    self._told[key] = now, 0, place
                else:
                    del self._told[key]

    def close(self, now: float) -> None:
        for key, (since, count, place) in self._told.items():
            self._tell(key, count, place, now - since)
        self._told.clear()

    def _tell(self, key: tuple[LetterKind, str], count: int, place: str, seconds: float) -> None:
        if count:
            kind, rule = key
            log.warning(
                "more dead letters of a kind and rule told before: what they name was not delivered, all else goes on",
                count=count,
                kind=kind,
                rule=rule or None,
                within_seconds=round(seconds),
                last_place=place,
                see=f"meisa-bridge dlq list --kind {kind}" + (f" --rule {shlex.quote(rule)}" if rule else ""),
            )
