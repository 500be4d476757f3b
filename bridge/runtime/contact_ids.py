"""Meisa's own ids of contacts, as upserts told them: the tag endpoints want these."""

from __future__ import annotations

from collections import OrderedDict

from bridge.model import Contact

CONTACT_IDS_MAX = 100_000
"""Names remembered: about 20 MB. A forgotten one costs one upsert more."""


class ContactIds:
    """The least recently told are forgotten first."""

    def __init__(self, most: int = CONTACT_IDS_MAX) -> None:
        self._ids: OrderedDict[str, str] = OrderedDict()
        self._most = most

    def get(self, contact: Contact) -> str | None:
        for name in contact.names():
            found = self._ids.get(name)
            if found is not None:
                return found
        return None

    def forget(self, contact: Contact) -> None:
        for name in contact.names():
            self._ids.pop(name, None)

    def remember(self, contact: Contact, contact_id: str) -> None:
        ids = self._ids
        for name in contact.names():
            ids[name] = contact_id
            ids.move_to_end(name)
        while len(ids) > self._most:
            ids.popitem(last=False)
