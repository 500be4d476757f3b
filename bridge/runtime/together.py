"""Enrollments that leave in one bulk call: whom an item takes along, and what the call's outcome means for each.

core/bulk.py says which may share a call. Bulk calls have a gate of their own: where they fail and single ones do not,
enrollments go one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bridge.core.bulk import Shelf, Shelves, apart, linger_seconds, shelf_of
from bridge.core.retry import Attempt
from bridge.model import Call, Lane, Outcome, Verdict, email_key
from bridge.runtime.gates import Gates
from bridge.runtime.items import Item, Key

BULK = "bulk_enroll"
"""The endpoint."""

Company = Mapping[str, Item]
"""Those that share a call, by their `email_key`."""


class Together:
    """Knows what of the dispatches could share a call. `can_be_told` and `too_late` are asked as for any call."""

    def __init__(
        self, gates: Gates[Item], *, can_be_told: Callable[[Item], bool], too_late: Callable[[Attempt], bool]
    ) -> None:
        self._gates = gates
        self._can_be_told = can_be_told
        self._too_late = too_late
        self._shelves: Shelves[Item] = Shelves()

    def waits(self, key: Key, item: Item) -> None:
        """The item has been put into the key's dispatch."""
        shelf = self._shelf(key, item)
        if shelf is not None:
            self._shelves.put(item, shelf, item.sequence)

    @staticmethod
    def gathers(key: Key, item: Item, now: float, wall: float) -> None:
        """The item's turn has come: if its call can be shared it waits a moment for others, once."""
        if item.gather_until is not None:
            return
        item.gather_until = 0.0
        if item.company > 1:
            short = item.at != Lane.TRANSACTIONAL and bool(key.dispatch.ready_lanes()) and key.quota.earliest(now) > now
            item.gather_until = now + linger_seconds(wall - item.part.batch.event.time_wall_seconds, short=short)

    def taken(self, item: Item) -> None:
        """The item has been taken out of its dispatch."""
        self._shelves.take(item.sequence)

    @staticmethod
    def _shelf(key: Key, item: Item) -> Shelf | None:
        if item.company < 2 or not len(item.pending):
            return None
        return shelf_of(item.part.action, key.name, item.company)

    def company(self, key: Key, first: Item, now: float) -> tuple[Call, Company] | None:
        """The call that `first`, which has a slot, leaves in with others; None where it goes alone."""
        shelf = self._shelf(key, first)
        if shelf is None:
            return None
        others = self._shelves.others(shelf, shelf.most - 1)
        if not others or not self._admitted(key, first, now):
            return None
        emails: dict[str, str] = {}
        company: dict[str, Item] = {}
        for item in (first, *others):
            attempt = item.attempt
            assert attempt is not None and attempt.call.body is not None
            email = attempt.call.body["email"]
            # One that is too late, or gone, learns of it when its turn comes.
            if email_key(email) in company or item.out or self._too_late(attempt):
                continue
            if item is not first:
                self._shelves.take(item.sequence)
                key.dispatch.take_out(item.sequence)
                if not self._can_be_told(item):
                    continue  # it sleeps until there is room
            emails[email_key(email)] = email
            company[email_key(email)] = item
        if len(company) == 1:
            self._gates.unsent(key.name, BULK, probe=first.probe)
            first.probe = False
            return None
        return Call(BULK, shelf.body(emails.values()), key=key.name), company

    def _admitted(self, key: Key, first: Item, now: float) -> bool:
        if self._gates.is_open(key.name, BULK):
            return True
        first.probe = self._gates.probe(key.name, BULK, now)
        return first.probe


def share(item: Item, email: str, outcome: Outcome, size: int) -> Outcome:
    """What the outcome of a call with so many addresses means for one of them; it may go on in smaller company."""
    verdict = outcome.verdict
    if verdict is Verdict.DELIVERED:
        told = (outcome.each or {}).get(email)
        if told is not None:
            return told
        item.company = 1  # its own answer will tell, and a repeat never enrolls twice
        message = "the answer to a bulk enrollment does not tell what became of this address"
        return Outcome(Verdict.UNKNOWN, outcome.status, message, "untold")
    if verdict in (Verdict.RETRY, Verdict.UNKNOWN):
        item.company = apart(size, refused=False)
    elif verdict in (Verdict.REFUSED, Verdict.NEEDS_CONTACT):
        # Perhaps because of another address: nothing was carried out, and it is asked for again.
        item.company = apart(size, refused=True)
        return outcome._replace(verdict=Verdict.WITHHELD)
    return outcome
