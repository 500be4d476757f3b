"""What the dialogues of calls (core/retry.py) ask of the world around them."""

from __future__ import annotations

from collections.abc import Callable

from bridge.model import Action, Contact
from bridge.runtime.contact_ids import ContactIds
from bridge.runtime.names import Names
from bridge.runtime.sending import Sending


class WorldFacts:
    """`retry.Facts` from the rooms that know: ids that Meisa told, names, and how calls have fared."""

    def __init__(self, contact_ids: ContactIds, names: Names, sending: Sending, dice: Callable[[], float]) -> None:
        self._contact_ids = contact_ids
        self._names = names
        self._sending = sending
        self._dice = dice

    def contact_id(self, contact: Contact) -> str | None:
        return self._contact_ids.get(contact)

    def forget_contact_id(self, contact: Contact) -> None:
        self._contact_ids.forget(contact)

    def filled(self, action: Action) -> Action | None:
        return self._names.filled(action)

    def succeeded_since(self, endpoint: str, now: float) -> bool:
        return self._sending.succeeded_since(endpoint, now)

    def random(self) -> float:
        return self._dice()
