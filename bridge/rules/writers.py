"""Which topics may write which field of a contact, as far as rules tell without an event.

A field that several topics write has its value from whichever event arrives last, and whoever reads one topic cannot
know what events of another have written since: state that sets such a field is always sent (delivery.md, 30). What a
Python handler yields nobody knows before, so it may write anything.

Paths are `first_name`, `custom_fields.plan`, `tag_names.trial`; one that ends with `*` stands for all that begin so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from bridge.model import Kind

ANYTHING = "*"
NAMING = frozenset({"email", "external_id", "contact", "aliases", "source"})
"""Names the contact (`rekeys` tells of that), or is never changed."""


class Writes(NamedTuple):
    """What an action may write, or all of a topic's."""

    sets: frozenset[str] = frozenset()
    removes: frozenset[str] = frozenset()
    """Tags."""
    rekeys: bool = False
    """It may give a contact that has an external_id another email, or an email to another external_id."""

    def joined(self, other: Writes) -> Writes:
        return Writes(self.sets | other.sets, self.removes | other.removes, self.rekeys or other.rekeys)


NOTHING = Writes()
PATHS_MAX = 10_000
"""Of a topic, over all rules that a process has had; beyond it counts as any."""
EVERYTHING = Writes(frozenset({ANYTHING}), frozenset({"tag_names.*"}), True)
"""Of a handler."""


def writes_of(kind: Kind, fields: Mapping[str, Any]) -> Writes:
    """What an action of a rule may write; `fields` are its plain values, where `${` stands for what only events tell,
    with `contact` and `aliases`.

    An action that names its contact otherwise than by email alone may bring an email and an external_id together: in
    its own words, or by the identity table.
    """
    by_email_alone = bool(fields.get("email")) and not any(map(fields.get, ("external_id", "contact", "aliases")))
    match kind:
        case Kind.UPSERT:
            return Writes(_sets(fields), rekeys=not by_email_alone)
        case Kind.ADD_TAG:
            return Writes(_tag(fields), rekeys=not by_email_alone)
        case Kind.REMOVE_TAG:
            return Writes(removes=_tag(fields), rekeys=not by_email_alone)
        case Kind.TRIGGER if fields.get("recipient"):
            recipient = fields["recipient"]
            if not isinstance(recipient, Mapping):
                return Writes(frozenset({ANYTHING}), rekeys=True)
            return Writes(_sets(recipient), rekeys=bool(recipient.keys() & {"email", "external_id"}))
        case _:
            return NOTHING


def _sets(fields: Mapping[str, Any]) -> frozenset[str]:
    paths: set[str] = set()
    for name, value in fields.items():
        if name == "custom_fields":
            paths.update(f"{name}.{key}" for key in value) if isinstance(value, Mapping) else paths.add(f"{name}.*")
        elif name == "tag_names":
            paths.update(map(_tag_path, value) if isinstance(value, list) else [f"{name}.*"])
        elif name not in NAMING:
            paths.add(name)
    return frozenset(paths)


def _tag(fields: Mapping[str, Any]) -> frozenset[str]:
    """The tag of an action; one by its id may be any."""
    return frozenset({_tag_path(fields.get("tag_name"))})


def _tag_path(name: Any) -> str:
    literal = isinstance(name, str) and "${" not in name
    return f"tag_names.{name}" if literal else "tag_names.*"


class Writers:
    """What each topic may write."""

    def __init__(self, by_topic: Mapping[str, Writes]) -> None:
        self._by_topic = dict(by_topic)

    def __repr__(self) -> str:
        """All of it, the same in every process: whoever keeps what it follows from this compares it."""
        told = {topic: (sorted(each.sets), sorted(each.removes), each.rekeys) for topic, each in self._by_topic.items()}
        return f"Writers({dict(sorted(told.items()))})"

    def joined(self, other: Writers) -> Writers:
        """What either may write: where rules change, actions planned by the former ones still leave, here or from
        other instances, and nobody knows until when."""
        found = {}
        for topic in self._by_topic.keys() | other._by_topic.keys():
            both = self._by_topic.get(topic, NOTHING).joined(other._by_topic.get(topic, NOTHING))
            found[topic] = both if len(both.sets | both.removes) <= PATHS_MAX else EVERYTHING
        return Writers(found)

    @property
    def rekeyers(self) -> frozenset[str]:
        """The topics whose actions may re-key a contact."""
        return frozenset(topic for topic, writes in self._by_topic.items() if writes.rekeys)

    def others(self, path: str) -> bool:
        """Whether more than one topic may write this path, so that no topic tells alone what it holds.

        Tags are only ever added by those that set them: they are written where somebody removes them.
        """
        if len(self._by_topic) < 2:
            return False
        setters = {topic for topic, writes in self._by_topic.items() if _covers(writes.sets, path)}
        if not path.startswith("tag_names."):
            return len(setters) > 1
        removers = {topic for topic, writes in self._by_topic.items() if _covers(writes.removes, path)}
        return bool(removers) and len(setters | removers) > 1

    def shared(self, topic: str) -> list[str]:
        """The paths that this topic may write, and others too; sorted."""
        writes = self._by_topic.get(topic, NOTHING)
        return sorted(path for path in writes.sets | writes.removes if self._meets(topic, path))

    def _meets(self, topic: str, path: str) -> bool:
        mine = self._by_topic[topic]
        for other, writes in self._by_topic.items():
            if other == topic:
                continue
            if not path.startswith("tag_names."):
                if _meet(writes.sets, path):
                    return True
            elif _meet(writes.removes, path) or (_covers(mine.removes, path) and _meet(writes.sets, path)):
                return True
        return False


def _covers(paths: Iterable[str], path: str) -> bool:
    """Whether one of the paths, some of which end with `*`, is or may be this one."""
    return any(each == path or (each.endswith("*") and path.startswith(each[:-1])) for each in paths)


def _meet(paths: Iterable[str], path: str) -> bool:
    """Whether one of the paths and this one, both of which may end with `*`, may be the same."""
    return _covers(paths, path) or any(_covers([path], each) for each in paths)
