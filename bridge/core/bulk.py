"""Which enrollments leave together: waiting ones that one bulk call can carry.

The theory
    Meisa takes up to `BULK_MAX` addresses in one call, for one sequence and one `override_unsubscribe`, and tells of
    each what became of it. It takes neither metadata nor a trigger_source, so only enrollments without them unite.
    Each stays first in its contact's queue until it is settled: a call carries contacts, never two steps of one.

    Those that could leave together lie on one *shelf*. The quota is the bottleneck: when a slot is given to one of
    them, whatever else lies on its shelf goes along, in the order in which it came there. What waits to be tried again
    lies there too, for it was with the same call that it failed. Whose turn comes waits a moment for others; the oldest
    work goes first, so in a backlog nearly each would go alone otherwise.

    A call that fails as a whole says nothing of its addresses, and one of them may be the reason. So its enrollments
    come *apart*: they share only smaller calls from then on, until each is asked for alone. An answer that never came
    is no danger: whoever is enrolled already is not enrolled twice.

Rules that never break
    1. Enrollments share a call only with those of the same key, sequence, override and size.
    2. After a failure as a whole the next call of each is smaller, and one that stands alone is a plain enrollment.
    3. `others` costs what it returns, however much waits.

The bound is the caller's: an item lies on at most one shelf, and admissions are bounded by the windows.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from itertools import islice
from typing import Any, Generic, NamedTuple, TypeVar

from bridge.model import Action, Kind

BULK_MAX = 500
"""Addresses that one call takes (documented)."""
LINGER_SECONDS = 1.0
"""An enrollment whose turn has come waits so long for others: nobody notices, and a burst of them is one call."""
LINGER_SHARE, LINGER_SECONDS_MAX = 0.1, 300.0
"""The same while the quota is short: a tenth of the time that its event is old already, and so much at most. Nothing is
lost by it, as others use its place meanwhile; and work that has waited for hours may wait for minutes."""
FAILED_PARTS, REFUSED_PARTS = 2, 8
"""Into how many calls a failed one, or a refused one, comes apart. A failure is mostly the server's, and passes. A
refusal is mostly the sequence's, and each will be refused: 500 cost 580 calls in eighths, and 1,000 in halves; where it
is one address's, some 25 calls find it."""

_FIELDS = frozenset({"email", "sequence_slug", "override_unsubscribe"})

T = TypeVar("T")


class Shelf(NamedTuple):
    """What those have in common that may share a call."""

    key: str
    """The API key's name."""
    sequence_slug: str
    override_unsubscribe: bool
    most: int
    """Addresses in a call."""

    def body(self, emails: Iterable[str]) -> dict[str, Any]:
        """The call's fields."""
        body: dict[str, Any] = {"sequence_slug": self.sequence_slug, "emails": list(emails)}
        if self.override_unsubscribe:
            body["override_unsubscribe"] = True
        return body


def bulkable(action: Action) -> bool:
    """Whether the action may share a bulk call at all."""
    return action.kind is Kind.ENROLL and action.body.keys() <= _FIELDS and "sequence_slug" in action.body


def shelf_of(action: Action, key: str, most: int) -> Shelf | None:
    """Where a `bulkable` action lies that shares a call with at most so many; None where it goes alone."""
    if most < 2 or action.contact.email is None:
        return None
    body = action.body
    return Shelf(key, body["sequence_slug"], bool(body.get("override_unsubscribe")), most)


def apart(size: int, *, refused: bool) -> int:
    """With how many in a call those go on whose call of this size failed, or was refused, as a whole."""
    return max(1, size // (REFUSED_PARTS if refused else FAILED_PARTS))


def linger_seconds(age_seconds: float, *, short: bool) -> float:
    """For how long an enrollment whose turn has come waits for others; `short`: work waits for the quota."""
    return min(LINGER_SECONDS_MAX, max(LINGER_SECONDS, age_seconds * LINGER_SHARE if short else 0.0))


class Shelves(Generic[T]):
    """What waits, by what it may share a call with."""

    def __init__(self) -> None:
        self._shelves: dict[Hashable, dict[int, T]] = {}
        self._lies_on: dict[int, Hashable] = {}

    def put(self, item: T, shelf: Hashable, sequence: int) -> None:
        """`sequence` is the item's number, unique among the items in here."""
        assert sequence not in self._lies_on, "an item is in here once"
        self._lies_on[sequence] = shelf
        self._shelves.setdefault(shelf, {})[sequence] = item

    def take(self, sequence: int) -> None:
        """The item goes, or waits no more; harmless for one that is not in here."""
        shelf = self._lies_on.pop(sequence, None)
        if shelf is not None:
            items = self._shelves[shelf]
            del items[sequence]
            if not items:
                del self._shelves[shelf]

    def others(self, shelf: Hashable, most: int) -> list[T]:
        """Up to so many of what lies there, in the order in which it came."""
        return list(islice(self._shelves.get(shelf, {}).values(), most))

    def __len__(self) -> int:
        return len(self._lies_on)
