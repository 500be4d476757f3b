"""Dead letters as plain JSON types, for the pages and the JSON beside them: contacts masked, long texts cut.

A letter holds what people sent. Of its record and of what was asked and answered only the beginnings are told, with
email addresses masked, and with the other names of its contact (external_id, the record's key) masked wherever they
stand in these texts; `admin.show_contacts` shows both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from bridge.model import LetterKind, Record
from bridge.observe.masking import mask, mask_contact, mask_names
from bridge.replay.desk import View
from bridge.replay.ledger import State
from bridge.replay.letters import PREFIX, parse
from bridge.replay.shelf import WAITING, Found, matching, names_in
from bridge.replay.telling import plain
from bridge.web.html import time_of

TEXT_MAX = 4_000
"""Characters of a value, a request, a response that are told."""
HEADERS_MAX = 50
ROWS = 50
"""Letters of one page."""
ROWS_MAX = 500
KINDS = tuple(kind.value for kind in LetterKind)
STATES = tuple(state.value for state in State)
_MARGIN = 1_000
"""Characters behind the cut that are masked too, so that the cut takes no address apart."""

Facts = dict[str, Any]


class Filter(NamedTuple):
    """Which letters somebody wants to see."""

    kinds: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    """None: those that still need somebody; `all` is every state."""

    def choose(self, letters: Sequence[Found]) -> list[Found]:
        found = matching(letters, kinds=self.kinds, rules=self.rules)
        if "all" in self.states:
            return found
        wanted = frozenset(self.states) or WAITING
        return [each for each in found if each.state.value in wanted]

    def problem(self) -> str:
        """What is wrong with it; empty where nothing is."""
        for name, values, known in (("kind", self.kinds, KINDS), ("state", self.states, (*STATES, "all"))):
            for value in values:
                if value not in known:
                    return f"there is no {name} of that name: {', '.join(known)}"
        return ""


def find(letters: Sequence[Found], topic: str, partition: int, offset: int) -> list[Found]:
    """The letter at this place of the dead-letter topic, or those about the record at this place."""
    place = (topic, partition, offset)
    return [each for each in letters if place in (each.letter.place, each.letter.source)]


def row(found: Found, now: float, *, show_contacts: bool) -> Facts:
    """A letter in a list."""
    facts = plain(found, show_contacts=show_contacts)
    names = [] if show_contacts else [found.contact]
    for name in ("message", "state_message"):
        facts[name] = _cut(mask_names(facts[name], names)) if facts[name] else facts[name]
    facts["contact"] = (found.contact if show_contacts else mask_contact(found.contact)) or None
    facts["age_seconds"] = _age(found.letter.failed_at, now)
    return facts


def whole(found: Found, record: Record, now: float, *, show_contacts: bool) -> Facts:
    """Everything of a letter."""
    size = len(record.value or b"")
    own = [header for header in record.headers if header[0].startswith(PREFIX)]
    others = [header for header in record.headers if not header[0].startswith(PREFIX)]
    short = record._replace(
        key=_bytes(record.key),
        value=_bytes(record.value),
        headers=(*own, *((name, _bytes(value)) for name, value in others[:HEADERS_MAX])),
    )
    letter = parse(record)
    facts = plain(found, short, show_contacts=show_contacts)
    key = facts["key"]
    names = [] if show_contacts else [*names_in(letter.request), found.contact, *([key] if _is_name(key) else [])]
    for name in ("message", "state_message", "request", "response", "value"):
        if facts[name]:
            facts[name] = _cut(mask_names(facts[name], names))
    facts["headers"] = [[name, value and _cut(mask_names(value, names))] for name, value in facts["headers"]]
    if key and not show_contacts:
        facts["key"] = mask_contact(key) if _is_name(key) else mask_names(key, names)
    return {
        **facts,
        "contact": (found.contact if show_contacts else mask_contact(found.contact)) or None,
        "age_seconds": _age(letter.failed_at, now),
        "value_bytes": size if record.value is not None else None,
        "headers_left_out": max(0, len(others) - HEADERS_MAX),
    }


def listed(view: View, chosen: Sequence[Found], page: int, limit: int, now: float, *, show_contacts: bool) -> Facts:
    """A page of a list, the newest first, and what is known of how whole it is."""
    newest = list(reversed(chosen))
    shown = newest[page * limit : (page + 1) * limit]
    return {
        "letters": [row(each, now, show_contacts=show_contacts) for each in shown],
        "matching": len(chosen),
        "page": page,
        "pages": max(1, -(-len(chosen) // limit)),
        "looked_at": len(view.letters),
        "left_out": view.left_out,
        "states_left_out": view.forgotten,
        "as_of": time_of(view.read_at_wall_seconds) if view.read_at_wall_seconds is not None else None,
        "reading": view.reading,
        "problem": mask(view.problem, show_contacts=show_contacts) or None,
        "states": _counts(view.letters),
    }


def _counts(letters: Sequence[Found]) -> Mapping[str, int]:
    counts: dict[str, int] = {}
    for each in letters:
        counts[each.state.value] = counts.get(each.state.value, 0) + 1
    return dict(sorted(counts.items()))


def _age(failed_at: str, now: float) -> float | None:
    try:
        return round(max(0.0, now - datetime.fromisoformat(failed_at).timestamp()), 3)
    except (ValueError, OverflowError, OSError):  # another program's letter
        return None


def _is_name(key: str | None) -> bool:
    """A key that is an object is no name, though it may hold some."""
    return bool(key) and not str(key).lstrip().startswith(("{", "["))


def _bytes(value: bytes | None) -> bytes | None:
    return None if value is None else value[: (TEXT_MAX + _MARGIN) * 4]


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_MAX else text[:TEXT_MAX] + "…"
