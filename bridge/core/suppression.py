"""Who must not be written to, as Meisa last told: calls that it would refuse need not be made.

The theory
    Meisa keeps a list of addresses that unsubscribed, bounced or complained, and refuses triggers and enrollments to
    them. Whoever has the list knows the answer without the call. But the list ages: a person may subscribe again, and
    until the next list the bridge would not know.

Rules that never break
    1. A list is believed for `fresh_seconds` from the moment at which it was asked for, and no longer.
    2. Only a trigger or an enrollment is spared, and no enrollment with `override_unsubscribe`.
    3. A trigger that may have been sent before is never spared: Meisa's answer to its repeat tells more (the caller
       keeps to that).
    4. Addresses compare trimmed and case-folded, whole: nobody is taken for somebody else.

The bound
    `ADDRESSES_MAX` addresses, some 120 MB. A longer list is not kept at all: half a list would be as right, but whoever
    watches the numbers would take it for the whole.
"""

from __future__ import annotations

from collections.abc import Collection

from bridge.model import Action, Kind, email_key

FRESH_SECONDS = 600.0
ADDRESSES_MAX = 1_000_000


class Suppressions:
    """The list; empty and stale until it is `learned`."""

    def __init__(self, *, fresh_seconds: float = FRESH_SECONDS, addresses_max: int = ADDRESSES_MAX) -> None:
        self._fresh_seconds = fresh_seconds
        self._addresses_max = addresses_max
        self._addresses: frozenset[str] = frozenset()
        self.asked_at: float | None = None
        """When the present list was asked for (monotonic)."""

    def learn(self, emails: Collection[str], asked_at: float) -> bool:
        """Takes a new list in place of the present one; False, and no list at all, where it is too long."""
        if len(emails) > self._addresses_max:
            self._addresses, self.asked_at = frozenset(), None
            return False
        self._addresses = frozenset(map(email_key, emails))
        self.asked_at = asked_at
        return True

    def fresh(self, now: float) -> bool:
        return self.asked_at is not None and now - self.asked_at < self._fresh_seconds

    def spares(self, action: Action, now: float) -> bool:
        """Whether Meisa would refuse the action, as far as a fresh list tells."""
        if action.kind is Kind.ENROLL:
            if action.body.get("override_unsubscribe"):
                return False
        elif action.kind is not Kind.TRIGGER:
            return False
        email = action.contact.email
        return email is not None and email_key(email) in self._addresses and self.fresh(now)

    def __len__(self) -> int:
        """Addresses on the list."""
        return len(self._addresses)
