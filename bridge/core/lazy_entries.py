"""What an upsert says of lazy fields, and an entry of what was said: its values, and how a store keeps them.

An entry never moves backwards: each value has the offset of the record that said it, and what was sent stays sent
whoever writes late, twice, or beside somebody else (`joined`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Set
from functools import lru_cache
from typing import Any, NamedTuple

from bridge.model import Action, Contact, Handling, Kind, TopicPartition
from bridge.ports import Store

NAMING = frozenset({"email", "external_id"})
NEVER_LAZY = NAMING | {"source", "tag_names"}
PREFIX = "l:"
"""Of registers in a store."""


class Said(NamedTuple):
    """A contribution to a call: whose action, and where it stands in the log."""

    action: Action
    place: TopicPartition
    offset: int


class Value(NamedTuple):
    offset: int
    value: Any
    due: bool
    """No call has brought it to Meisa yet."""


class Entry:
    """What one partition said of one contact's lazy fields."""

    __slots__ = ("at", "deadline", "email", "events", "every", "external_id", "name", "place", "queued", "suspect",
                 "values")  # fmt: skip

    def __init__(self, place: TopicPartition, email: str, external_id: str | None, every: float) -> None:
        self.place = place
        self.email = email
        self.external_id = external_id
        self.every = every
        """The period in seconds."""
        self.name = register_name(place, Contact(email, external_id))
        self.at = 0.0
        """When (wall) a call of the contact last carried a lazy field; 0 if none did."""
        self.values: dict[str, Value] = {}
        self.events = 0
        """Finished events whose values no call has carried."""
        self.deadline = 0.0
        """When (wall) what is due must go by itself; 0 where nothing is, or where it is on its way."""
        self.queued = False
        """A call of its own waits or is under way."""
        self.suspect = False
        """A call that carried its values was refused: they go alone."""

    @property
    def due(self) -> bool:
        return any(value.due for value in self.values.values())


# What an upsert says


class LazyPaths(NamedTuple):
    """Which paths are lazy for an action; `custom_fields` stands for all of them."""

    named: frozenset[str]
    preserved: frozenset[str]

    def hold(self, path: str) -> bool:
        if path in self.named:
            return True
        return "custom_fields" in self.named and path.startswith("custom_fields.") and path not in self.preserved


@lru_cache(maxsize=64)
def _lazy(lazy: tuple[str, ...], preserve: tuple[str, ...]) -> LazyPaths:
    return LazyPaths(frozenset(lazy) - frozenset(preserve) - NEVER_LAZY, frozenset(preserve))


def paths(action: Action) -> Mapping[str, Any]:
    """What an upsert says beside whom it is about: `first_name`, `custom_fields.plan` and so on."""
    if action.kind is not Kind.UPSERT:
        return {}
    said: dict[str, Any] = {}
    for name, value in action.body.items():
        if name == "custom_fields":
            said.update((f"custom_fields.{key}", each) for key, each in value.items())
        elif name not in NAMING:
            said[name] = value
    return said


def lazy_values(action: Action) -> Mapping[str, Any]:
    """The lazy fields that an upsert sets, by path."""
    handling = action.handling
    if not handling.lazy:
        return {}
    lazy = _lazy(handling.lazy, handling.preserve)
    return {path: value for path, value in paths(action).items() if lazy.hold(path)}


def is_lazy(path: str, handling: Handling) -> bool:
    return bool(handling.lazy) and _lazy(handling.lazy, handling.preserve).hold(path)


def only_lazy(action: Action) -> bool:
    """Whether an upsert changes lazy fields, and nothing else. `source` never changes a contact that there is."""
    handling = action.handling
    if not handling.lazy:
        return False
    lazy = _lazy(handling.lazy, handling.preserve)
    any_lazy = False
    for path, value in paths(action).items():
        if lazy.hold(path):
            any_lazy = True
        elif not (path == "source" or (path == "tag_names" and not value)):
            return False
    return any_lazy


def with_values(body: Mapping[str, Any], values: Mapping[str, Any]) -> Mapping[str, Any]:
    """An upsert's body with these values by path over what it says itself."""
    made = dict(body)
    for path, value in values.items():
        head, dot, key = path.partition(".")
        made[head] = {**made.get(head, {}), key: value} if dot else value
    return made


# In a store


def register_name(place: TopicPartition, contact: Contact) -> str:
    """Of the entry of a contact in a partition; topics have no colon in their names."""
    return f"{partition_prefix(place)}{contact.names()[0]}"


def partition_prefix(place: TopicPartition) -> str:
    return f"{PREFIX}{place}:"


class Kept(NamedTuple):
    """An entry as a store keeps it: a JSON list."""

    email: str
    external_id: str | None
    at: float
    every: float
    values: Mapping[str, Value]
    events: int
    topic_hash: int | None


async def erase(store: Store, names: Set[str]) -> list[str]:
    """Deletes the entries of whoever has one of these names (`e:`, `x:`); which ones. Raises StoreFailed."""
    found = [name async for name, value in store.scan(PREFIX) if not names.isdisjoint(_names(decoded(value)))]
    for name in found:
        store.delete(name)
    return found


def _names(kept: Kept | None) -> tuple[str, ...]:
    return () if kept is None else Contact(kept.email, kept.external_id).names()


def encoded(entry: Entry | Kept, topic_hash: int | None) -> bytes:
    values = {path: list(value) for path, value in entry.values.items()}
    fields = [entry.email, entry.external_id, entry.at, entry.every, values, entry.events, topic_hash]
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def decoded(value: bytes) -> Kept | None:
    """What a store kept; None where it is not what the bridge writes, which then counts as never written."""
    try:
        email, external_id, at, every, values, events, topic_hash = json.loads(value)
        made = {str(path): Value(int(offset), it, bool(due)) for path, (offset, it, due) in values.items()}
        return Kept(str(email), external_id, float(at), float(every), made, int(events), topic_hash)
    except (ValueError, TypeError, AttributeError):
        return None


def joined(one: Value | None, other: Value) -> Value:
    """What stays of two writings of a path (rule 1); once sent it is sent."""
    if one is None or one.offset < other.offset:
        return other
    return one if one.offset > other.offset else one._replace(due=one.due and other.due)


def merged(stored: bytes, mine: bytes) -> bytes:
    """What stays of an entry's register that two have written: see `ports.Merge`."""
    old, new = decoded(stored), decoded(mine)
    if (
        old is None
        or new is None
        or (None not in (old.topic_hash, new.topic_hash) and old.topic_hash != new.topic_hash)
    ):
        return mine
    values = dict(old.values)
    for path, value in new.values.items():
        values[path] = joined(values.get(path), value)
    return encoded(new._replace(at=max(old.at, new.at), values=values), new.topic_hash)
