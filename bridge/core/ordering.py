"""Which waiting items may go, so that whatever is about one contact goes in the order in which it came.

The theory
    A contact has several names (external_id, email, aliases), its *ordering keys*. Every name has a queue, an item
    stands in the queue of each of its names, and it may go once it is first in all of them. Items are admitted one
    after the other and queues are first-in-first-out, so the oldest item is first in all its queues: something can
    always go, and no two items wait for each other.

    Names that came together in one item are *linked* from then on: a later item that knows only one of them waits in
    the queues of all. Linking joins queues; it never says that two contacts are one.

Rules that never break
    1. Two items that share a name, or names linked when the later one came, go in the order of their admission.
    2. An item that is held back holds back only items that share a name with it.
    3. Admission and release cost the number of the item's own names, however many contacts wait
       [astubbs/parallel-consumer#361].

The bounds
    A contact keeps at most `GROUP_MAX` names: an id whose email changes daily must not make every admission dearer.
    `links_max` bounds remembered names; the least recently used go first, but never one that has a queue. Forgetting a
    link costs only order between two names of one person that have not met for as many names.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")

GROUP_MAX = 8


class Ticket(Generic[T]):
    """An item's place in the queues of its names."""

    __slots__ = ("blockers", "item", "keys")

    def __init__(self, item: T, keys: tuple[str, ...]) -> None:
        self.item = item
        self.keys = keys
        self.blockers = 0
        """Queues in which something stands before it."""

    @property
    def ready(self) -> bool:
        return self.blockers == 0


class Ordering(Generic[T]):
    """The queues of all contacts."""

    def __init__(self, *, links_max: int = 200_000) -> None:
        self._queues: dict[str, deque[Ticket[T]]] = {}
        self._groups: OrderedDict[str, tuple[str, ...]] = OrderedDict()
        self._links_max = links_max
        self._admitted = 0

    def admit(self, item: T, keys: Sequence[str]) -> Ticket[T]:
        """Puts an item behind all that share a name with it. Without names it waits for nothing.

        The caller asks `ticket.ready`; a ticket that is not ready comes out of a later `release`.
        """
        return self.enter(item, self.joined(keys))

    def last(self, names: tuple[str, ...]) -> Ticket[T] | None:
        """The ticket behind which nothing stands in any queue of these names; None where there is no single one."""
        last: Ticket[T] | None = None
        for name in names:
            queue = self._queues.get(name)
            if queue is not None:
                if last is not None and queue[-1] is not last:
                    return None
                last = queue[-1]
        return last

    def extend(self, ticket: Ticket[T], names: tuple[str, ...]) -> None:
        """`ticket`, which is `last(names)`, stands in the queues of all these names from now on."""
        if names == ticket.keys:
            return  # nearly always
        new = tuple(name for name in names if name not in self._queues)
        for name in new:
            self._queues[name] = deque((ticket,))
        if new:
            ticket.keys += new

    def enter(self, item: T, names: tuple[str, ...]) -> Ticket[T]:
        """`admit` for names that `joined` gave."""
        ticket = Ticket(item, names)
        queues = self._queues
        for name in names:
            queue = queues.get(name)
            if queue is None:
                queues[name] = deque((ticket,))
            else:
                ticket.blockers += 1
                queue.append(ticket)
        if len(self._groups) > self._links_max:
            self._forget_oldest()  # only now: the item's own names must count as in use
        self._admitted += 1
        return ticket

    def ahead(self, ticket: Ticket[T], until: Callable[[T], bool]) -> list[T]:
        """What must go before the ticket, in no certain order.

        A queue is searched from the ticket up to an item of which `until` says that what stands before it is known
        already; so asking again and again costs no more than what is new. An item's other names may have queues of
        their own, and what stands before it there must go first too.
        """
        found: dict[int, Ticket[T]] = {}
        for name in ticket.keys:
            behind = True
            for other in reversed(self._queues[name]):
                if behind:  # nearly always the ticket is the last
                    behind = other is not ticket
                    continue
                if until(other.item):
                    break
                found[id(other)] = other
        search = list(found.values())
        while search:
            waiting = search.pop()
            for name in waiting.keys:
                if name in ticket.keys:
                    continue
                queue = self._queues[name]
                for other in islice(queue, queue.index(waiting)):
                    if id(other) not in found and not until(other.item):
                        found[id(other)] = other
                        search.append(other)
        return [other.item for other in found.values()]

    def release(self, ticket: Ticket[T]) -> list[Ticket[T]]:
        """Takes a ready ticket out; returns those that are ready because of it, oldest first per name."""
        assert ticket.blockers == 0, "released before its turn"
        freed: list[Ticket[T]] = []
        queues = self._queues
        for name in ticket.keys:
            queue = queues[name]
            first = queue.popleft()
            assert first is ticket, "released twice, or out of order"
            if not queue:
                del queues[name]
                continue
            follower = queue[0]
            follower.blockers -= 1
            if follower.blockers == 0:
                freed.append(follower)
        self._admitted -= 1
        return freed

    def waiting_behind(self, ticket: Ticket[T]) -> int:
        """How many items share the ticket's longest queue with it (for status pages)."""
        return max((len(self._queues[name]) - 1 for name in ticket.keys if name in self._queues), default=0)

    @property
    def size(self) -> int:
        """Items admitted and not released."""
        return self._admitted

    @property
    def contacts(self) -> int:
        """Names that have a queue."""
        return len(self._queues)

    def joined(self, keys: Sequence[str]) -> tuple[str, ...]:
        """All the names of a contact that has these, linked from now on; for `last` and `enter`."""
        groups = self._groups
        if len(keys) == 1:
            name = keys[0]
            group = groups.get(name)
            if group is None:
                return (name,)
            groups.move_to_end(name)
            return group
        if not keys:
            return ()
        known = groups.get(keys[0])
        if known is not None and all(name in known for name in keys):
            groups.move_to_end(keys[0])
            return known
        # Own names first, so that a bounded group drops the oldest names of the contact, not those in use.
        names = list(dict.fromkeys(keys))
        for name in keys:
            for other in groups.get(name, ()):
                if other not in names:
                    names.append(other)
        # The item itself waits behind all the names; what is remembered for later items is bounded. A name that
        # still has a queue is never dropped from what is remembered: order would break at once.
        group = tuple(names)
        if len(names) > GROUP_MAX:
            kept = [name for place, name in enumerate(names) if place < GROUP_MAX or name in self._queues]
            for name in names:
                if name not in kept:
                    groups.pop(name, None)
            remembered = tuple(kept)
        else:
            remembered = group
        for name in remembered:
            groups[name] = remembered
            groups.move_to_end(name)
        return group

    def _forget_oldest(self) -> None:
        groups = self._groups
        # Each round either drops a group or renews one that is in use, so two passes over the surplus are enough to
        # find the droppable ones; more would make one admission pay for a crowd.
        rounds = 2 * GROUP_MAX
        while len(groups) > self._links_max and rounds > 0:
            rounds -= 1
            name = next(iter(groups))
            group = groups[name]
            if any(member in self._queues for member in group):
                groups.move_to_end(name)
                continue
            for member in group:
                groups.pop(member, None)
