"""What the identity table keeps of one name, how a store keeps it, and what stays of two writings.

A register remembers which records wrote it: per partition the highest offset, the last writer's last. By that it never
moves backwards, whoever writes late, twice, or beside somebody else.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from bridge.core import lazy_entries
from bridge.model import TopicPartition, email_key

PLACES_MAX = 4
FORGOTTEN = ""
"""Stands for the id of a person who was erased; no id is empty."""

Marks = tuple[tuple[TopicPartition, int], ...]
"""The highest offset of each partition that wrote a register; the last writer's stands last."""


class Present(NamedTuple):
    """What is known of an external_id."""

    email: str
    """The one that it has, as it was written."""
    uncertain: bool = False
    """Meisa may have refused to give it this email."""
    changed: bool = False
    """Its last upsert gave it another email than before."""
    marks: Marks = ()


class Claim(NamedTuple):
    """What is known of an email."""

    external_id: str
    """Who claimed it last."""
    rival: str | None = None
    """The last other id that had claimed it before."""
    marks: Marks = ()


class Alias(NamedTuple):
    """Whom an alias came with: an id, an email, or both."""

    email: str | None
    external_id: str | None
    marks: Marks = ()


class Generation(NamedTuple):
    """How often the partition's offsets began anew, and which topic it is of, where that is known."""

    number: int = 0
    topic_hash: int | None = None


Person = Present | Claim | Alias
Entry = Person | Generation


def id_name(external_id: str) -> str:
    return f"x:{external_id}"


def email_name(email: str) -> str:
    return f"e:{email_key(email)}"


def outdated(marks: Marks, place: TopicPartition, offset: int) -> bool:
    """Whether what a record says was said already, or something later of its partition was."""
    if marks and marks[-1][0] == place:
        return marks[-1][1] > offset  # a record may speak twice of one person
    # But where another partition has written since, it is read again.
    return any(each == place and highest >= offset for each, highest in marks)


def next_generation(before: Generation | None, topic_hash: int | None) -> Generation:
    if topic_hash is not None and (before is None or before.topic_hash in (None, topic_hash)):
        return Generation(before.number if before is not None else 0, topic_hash)
    return Generation(before.number + 1 if before is not None else 1, topic_hash)


# In a store

ENTRY_PREFIXES = ("x:", "e:", "a:")


def encoded(entry: Entry) -> bytes:
    """A register as a store keeps it: a JSON list, its marks last."""
    fields: list[Any] = list(entry)
    if not isinstance(entry, Generation):
        fields[-1] = [[topic, partition, offset] for (topic, partition), offset in entry.marks]
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def decoded(name: str, value: bytes) -> Entry | None:
    """What a store kept; None where it is not what the bridge writes, which then counts as never written."""
    try:
        fields = json.loads(value)
        if name.startswith("p:"):
            number, topic_hash = fields
            return Generation(int(number), topic_hash)
        *said, places = fields
        marks = tuple((TopicPartition(str(topic), int(number)), int(offset)) for topic, number, offset in places)
        if name.startswith("x:"):
            email, uncertain, changed = said
            return Present(str(email), bool(uncertain), bool(changed), marks)
        one, other = said
        return Claim(str(one), other, marks) if name.startswith("e:") else Alias(one, other, marks)
    except (ValueError, TypeError):
        return None


def merged(name: str, stored: bytes, mine: bytes) -> bytes:
    """What stays of a register that two have written: `ports.Merge`. It never moves backwards (rule 1).

    Values that are neither the table's nor of lazy fields are replaced.
    """
    if name.startswith(lazy_entries.PREFIX):
        return lazy_entries.merged(stored, mine)
    if not name.startswith(ENTRY_PREFIXES):
        return mine
    old, new = decoded(name, stored), decoded(name, mine)
    if old is None or new is None or isinstance(old, Generation) or isinstance(new, Generation):
        return mine
    if not new.marks:
        return stored if old.marks else mine
    if outdated(old.marks, *new.marks[-1]):
        return stored
    highest = dict(old.marks)
    for place, offset in new.marks:
        highest[place] = max(offset, highest.pop(place, offset))  # popped: the last writer's stands last
    marks = tuple(highest.items())[-PLACES_MAX:]
    if isinstance(old, Claim) and isinstance(new, Claim) and new.rival is None and old.external_id != new.external_id:
        new = new._replace(rival=old.external_id)
    return encoded(new._replace(marks=marks))
