"""Whose work has been here longest, for people who ask why one person's email does not come."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import islice

from bridge.model import Contact
from bridge.observe.snapshot import SlowContact
from bridge.runtime.items import Item, Part

SHOWN = 10
LOOKED_AT = 3 * SHOWN
"""Of each partition, in the order in which they came: enough to find `SHOWN` contacts where some have several items,
and cheap with a thousand partitions."""


def slowest(items: Collection[Iterable[Item]], now: float) -> list[SlowContact]:
    """The contacts that have waited longest, longest first; `items` are each partition's, oldest first."""
    found: dict[str, tuple[float, Item, Part]] = {}
    for of_partition in items:
        for item in islice(of_partition, LOOKED_AT):
            for part in islice(item.pending, 1):
                name = _name(part.action.contact)
                if name not in found or part.batch.read_at < found[name][0]:
                    found[name] = (part.batch.read_at, item, part)
    oldest = sorted(found.items(), key=lambda each: each[1][0])[:SHOWN]
    return [
        SlowContact(
            contact=name,
            waited_seconds=max(0.0, now - read_at),
            action=part.action.kind.value,
            state=_state(item),
            topic=part.partition.topic,
            partition=part.partition.partition,
            offset=part.record.offset,
        )
        for name, (read_at, item, part) in oldest
    ]


def _state(item: Item) -> str:
    if item.in_flight:
        return "in flight"
    return "next" if item.begun else "behind others of the contact"


def _name(contact: Contact) -> str:
    if contact.email is not None:
        return contact.email
    if contact.external_id is not None:
        return contact.external_id
    return contact.aliases[0][1] if contact.aliases else ""
