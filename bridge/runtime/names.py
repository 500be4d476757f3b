"""Under which names actions go, and what waits for a name: the identity table as the delivery uses it.

An event says who the contact is; the table (core/identity.py) knows the email of an id, and the present one of a former
email. Actions enter their queues under the names that it knows then. One that lacks a name which Meisa needs asks again
now and then, until an event has told it or its time is over (core/retry.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from bridge.core.identity import Identities
from bridge.model import Action, TopicPartition, Waiting
from bridge.ports import Store
from bridge.runtime.items import Item, Part
from bridge.runtime.lookups import Lookups, Work


def _nothing() -> None:
    pass


class Names:
    """`asked_again` hears of an item that waited for a name and may have it now."""

    def __init__(self, identities: Identities | None, store: Store | None, asked_again: Callable[[Item], None]) -> None:
        self._identities = identities
        self._asked_again = asked_again
        self._lookups = Lookups(identities, store)
        self.at_hand = identities is None or store is None or store.local
        """Whether every name is known at once; else work that needs names waits for its turn (runtime/lookups.py)."""
        self._asking: dict[Item, asyncio.TimerHandle] = {}
        """Items that wait until their contact is known: what asks again. At most what is admitted."""

    def refresh(self) -> None:
        """Another process may have written to the store: what it said counts from now on."""
        if self._identities is not None:
            self._identities.refresh()

    def do(self, work: Work) -> None:
        """Does what needs names: now, or once they are at hand."""
        self._lookups.do(work)

    def resolved(self, actions: Sequence[Action], partition: TopicPartition, offset: int) -> Sequence[Action]:
        """The actions under the names that their contacts have now."""
        if self._identities is None:
            return actions
        return [self._identities.admit(action, partition, offset) for action in actions]

    def filled(self, action: Action) -> Action | None:
        """The action with the name that it lacked; None where nobody knows it, or the table forgets with us."""
        identities = self._identities
        return identities.resolve(action) if identities is not None and identities.lasting else None

    def refused(self, part: Part) -> None:
        """An upsert was dead-lettered: what its event says of the contact is uncertain."""
        identities = self._identities
        if identities is None:
            return

        def go() -> None:
            identities.refused(part.action.contact, part.partition, part.record.offset)

        self.do(Work(part.partition, go, go, _nothing))

    def ask_later(self, item: Item, seconds: float) -> None:
        """Asks for the item's contact after a while: an event that names it may come."""
        item.attempt = None
        if seconds > 0:
            self._asking[item] = asyncio.get_running_loop().call_later(seconds, self._ask, item)
        else:
            self._ask(item)

    def _ask(self, item: Item) -> None:
        self._asking.pop(item, None)
        if item.out:
            return
        part = item.part

        def go() -> None:
            if not item.out:
                part.action = self.filled(part.action) or part.action
                self._asked_again(item)

        self.do(Work(part.partition, lambda: self.filled(part.action), go, _nothing))

    def withdraw(self, partitions: Iterable[TopicPartition]) -> None:
        """Drops what waits of these partitions, and forgets that their records came from here."""
        leaving = set(partitions)
        self._lookups.withdraw(leaving)
        if self._identities is not None:
            for partition in leaving:
                self._identities.left(partition)

    def restarted(self, partition: TopicPartition, topic_hash: int | None) -> None:
        """The topic was perhaps created anew: then its offsets say nothing any more about what is older."""
        if self._identities is not None:
            self._identities.restarted(partition, topic_hash)

    async def close(self) -> None:
        for timer in self._asking.values():
            timer.cancel()
        await self._lookups.close()

    def waiting(self) -> list[Waiting]:
        """What waits for a name, for status."""
        unknown = [Waiting("unknown_contact", len(self._asking))] if self._asking else []
        return unknown + self._lookups.waiting()
