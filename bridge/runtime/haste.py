"""What goes before its turn, and takes along what its own contact has before it: order stands above lanes.

pull    an urgent action, for the sake of whoever waits for it
lead    the oldest of a partition whose window is nearly full, for the sake of its intake
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from bridge.core.ordering import Ordering, Ticket
from bridge.model import Lane
from bridge.runtime.items import FIRST, PULLED, Item

PULLED_URGENT_MAX = 3
"""Calls that an urgent action pulls before it which may use the reserve."""

LEADING = (FIRST, Lane.TRANSACTIONAL)
"""Nothing goes before these; and only from the second the reserve may be used, so nothing of it moves to the first."""

Hurry = Callable[[Item, str], None]
"""Puts an item into a more urgent lane (runtime/sending.py)."""


def pull(ordering: Ordering[Item], ticket: Ticket[Item], hurry: Hurry) -> None:
    """What stands before an urgent action of the same contact goes at once, in order: it must go first anyhow.

    Only the first few may use the slots that are kept for urgent calls: a contact with a long queue must not use them
    up.
    """
    if ticket.ready:
        return
    ahead = ordering.ahead(ticket, lambda item: item.pulled or item.lane is Lane.TRANSACTIONAL)
    for place, item in enumerate(sorted(ahead, key=lambda item: item.sequence)):
        item.pulled = True
        hurry(item, Lane.TRANSACTIONAL if place < PULLED_URGENT_MAX else PULLED)


def lead(ordering: Ordering[Item], oldest: Iterable[Item], hurry: Hurry) -> None:
    """What holds back a window that is nearly full goes before all lanes, or intake would stop for its sake; and with
    it what stands before it of its contact, else nothing is gained."""
    for item in oldest:
        if item.at in LEADING:
            continue
        assert item.ticket is not None
        ahead = ordering.ahead(item.ticket, lambda other: other.at == FIRST)
        for each in (*ahead, item):
            if each.at not in LEADING:
                hurry(each, FIRST)
