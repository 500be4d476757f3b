"""Lazy fields while the bridge runs: what finishes at once, what rides along, and what goes by itself in the end.

    finishes(part)   as an upsert enters: nothing but lazy fields, and its contact had a call not long ago → kept
    finishes_late    as its turn comes: the same, since Meisa is known to have all else that it says
    body(item)       right before a call leaves: what it takes along
    put_aside(item)  it was refused with that: it goes again without
    ended(item)      what it carried is not due any more
    (a timer)        what nothing took along within the period goes by itself, in the bulk lane

core/lazy.py decides; this room moves values between it, calls, the clock and the state store. With a store that
outlives the process values are kept there. They last before the offsets of their records are committed
(runtime/lasting.py), and the partition's next owner finds them if it has the same store. Without one they go with their
partition.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any

import structlog

from bridge.core.lazy import LazyValues
from bridge.core.lazy_entries import Entry, Said, is_lazy, only_lazy, with_values
from bridge.core.pending import mergeable
from bridge.errors import StoreFailed
from bridge.model import (
    Action,
    Assigned,
    Contact,
    Ending,
    Event,
    Handling,
    Kind,
    Lane,
    LetterKind,
    Outcome,
    Position,
    Record,
    Result,
    TopicPartition,
    Verdict,
    email_key,
)
from bridge.ports import Clock, Meter, Store
from bridge.runtime.items import Item, Part
from bridge.runtime.lazy_store import KeptInStore
from bridge.runtime.marks import NoMarks

log = structlog.get_logger(__name__)

LAZY = Result(Ending.LAZY)
KEPT = Outcome(
    Verdict.SPARED,
    message="nothing but lazy fields would change; their values are kept, and no call was made",
    detail="lazy",
)
NOTHING_LEFT = Outcome(Verdict.DELIVERED, message="another call took the values along; no call was made", detail="rode")

ALONE = NoMarks()
"""The marks of calls for kept values: their records are committed already. By this they are told apart, too."""

ALONE_MAX = 64
"""Calls for kept values that stand in the queues at once: behind thousands of them, what comes would wait for long."""
AGAIN_SECONDS = 1.0
"""Before a value goes that could not go, or whose neighbour was refused."""


class LazyFields:
    """`send` delivers an action that no record asks for now; `concerns` hears whose partition an item speaks for."""

    def __init__(
        self,
        *,
        store: Store | None,
        clock: Clock,
        meter: Meter,
        send: Callable[[Event, Action], object],
        concerns: Callable[[Item, TopicPartition], None],
    ) -> None:
        self.values = LazyValues(store=store)
        """What is kept, and what was sent lately."""
        self._store = store
        self._clock = clock
        self._meter = meter
        self._send = send
        self._concerns = concerns
        self.told: Callable[[TopicPartition, int], bool] = lambda partition, offset: True
        """Whether a commit told that intake went beyond the record, and everything up to there was read again."""
        self._coming: dict[str, tuple[Item, Contact]] = {}
        """The last upsert of each contact that waits or is under way, by email; at most what is admitted."""
        self._email_of: dict[Item, str] = {}
        self._alone: dict[Record, Entry] = {}
        """Whose call of its own is in the queues, by the record that stands for it."""
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._kept = KeptInStore(store, self.values, clock, self._arm, self._task) if store is not None else None
        self._topics: dict[TopicPartition, int | None] = {}
        """The hashes of the topics' ids by which partitions were assigned last."""
        self._anew: dict[TopicPartition, int] = {}
        """From which assignment (epoch) on a partition is of a topic that was created anew."""
        self._serial = 0
        self._dropped = 0

    @property
    def contacts(self) -> int:
        """Contacts with kept values, once for each partition that has some."""
        return self.values.waiting

    # An upsert enters

    def finishes(self, part: Part) -> bool:
        """Whether an upsert that could not join another one is finished by this, its values kept."""
        action, batch = part.action, part.batch
        if not (action.kind is Kind.UPSERT and mergeable(action) and only_lazy(action)):
            return False
        assert action.contact.email is not None
        if batch.shared and not batch.marks.claim(part.record, action, _nothing):
            return False  # a restart could not know that it ended
        _, coming = self._coming.get(email_key(action.contact.email), (None, None))
        if not self.values.keep(_said(part), self._clock.wall(), coming):
            if batch.shared:
                batch.marks.unclaim(part.record, action)
            return False
        if batch.shared:
            batch.tell(part.record, action)
        self._arm()
        return True

    def finishes_late(self, item: Item, differing: Callable[[Item], frozenset[str] | None]) -> bool:
        """Whether the upsert whose turn it is finishes by this: Meisa has all that it says but its lazy fields."""
        group = item.pending.group if item.kind is Kind.UPSERT else ()
        if not group or not all(part.action.handling.lazy and part.action.kind is Kind.UPSERT for part in group):
            return False
        changed = differing(item)
        handlings = {id(part.action.handling): part.action.handling for part in group}.values()
        if changed is None or not all(is_lazy(path, handling) for path in changed for handling in handlings):
            return False
        wall = self._clock.wall()
        for part in group:
            if part.batch.shared and not part.batch.marks.claim(part.record, part.action, _nothing):
                return False
            if not self.values.keep(_said(part), wall):
                return False
        self._arm()
        return True

    def entered(self, item: Item) -> None:
        """An item stands in its contact's queue."""
        action = item.part.action
        if item.kind is Kind.UPSERT and action.handling.lazy and mergeable(action):
            assert action.contact.email is not None
            email = email_key(action.contact.email)
            self._coming[email] = item, action.contact
            self._email_of[item] = email

    def left(self, item: Item) -> None:
        """It stands there no more. What was to ride on it, and never had a call, does not wait for a whole period."""
        email = self._email_of.pop(item, None)
        if email is not None and self._is_coming(email, item):
            _, contact = self._coming.pop(email)
            self.values.soon(contact, self._clock.wall())
            self._arm()

    def _is_coming(self, email: str, item: Item) -> bool:
        """Whether it is the contact's last upsert that waits; of none is that known once a later one left before it."""
        coming = self._coming.get(email)
        return coming is not None and coming[0] is item

    # A call

    def body(self, item: Item) -> Mapping[str, Any]:
        """What the item's call says, with what it takes along."""
        group = item.pending.group
        body = item.pending.body()
        # Once it has left with them, another attempt takes them too: the first may have been carried out.
        last = item.ride is not None or _sole(group) or self._is_last(item)
        item.ride = None
        if not self.values or not mergeable(group[0].action):
            return body
        told = self.told if not item.bare else _untold
        ride = self.values.ride(_all_said(group), told, _sole(group), last)
        item.ride = ride
        if ride is None:
            return body
        for entry, _, _ in ride.settled:
            self._concerns(item, entry.place)
        return with_values(body, ride.values) if ride.values else body

    def _is_last(self, item: Item) -> bool:
        """Whether no other upsert of the contact waits behind it, as far as is known."""
        email = self._email_of.get(item)
        return email is None or email not in self._coming or self._is_coming(email, item)

    def needless(self, item: Item) -> bool:
        """Whether the item is there for kept values, and none is left: another call has taken them along."""
        group = item.pending.group
        if not _sole(group):
            return False
        item.ride = None
        return self.values.ride(_all_said(group), self.told, True) is None

    def put_aside(self, item: Item) -> bool:
        """The item's call was refused: whether that may be for what it took along. Then it takes nothing any more."""
        ride = item.ride
        if ride is None or not ride.values or _sole(item.pending.group):
            return False
        self.values.refused(ride)
        item.ride, item.bare = None, True
        return True

    def ended(self, item: Item, parts: Sequence[Part], result: Result) -> None:
        """The item's call has ended for these: delivered, refused, or not needed."""
        if item.kind is not Kind.UPSERT or not (self.values or any(part.action.handling.lazy for part in parts)):
            return
        wall = self._clock.wall()
        sole = _sole(parts)
        again = AGAIN_SECONDS
        # The offsets of a former topic say nothing in the one of that name now: taken in, they would hide its values.
        said = _all_said([part for part in parts if sole or part.record.epoch >= self._anew.get(part.partition, 0)])
        if result.ending is Ending.DELIVERED:
            if said and result.detail != NOTHING_LEFT.detail:
                saved = self.values.delivered(said, item.ride, wall)
                if saved > sole:
                    self._meter.saved("lazy", saved - sole)
        elif said and result.ending is Ending.UNCHANGED:
            self.values.delivered(said, None, wall, called=False)
        elif sole and result.letter is LetterKind.REJECTED and result.status not in (401, 403) and item.ride:
            self._dropped += self.values.drop(item.ride, wall)
            log.warning(
                "Meisa refuses a kept value of a lazy field, which is dropped; the contact's next event brings another",
                fields=sorted(item.ride.values),
                status=result.status,
                message=result.message,
                dropped_since_start=self._dropped,
            )
        else:
            again = 0.0
        item.ride = None
        for part in parts:
            entry = self._alone.pop(part.record, None) if part.batch.marks is ALONE else None
            if entry is not None:
                self.values.put_back(entry, wall + (again or entry.every))
        self._arm()

    def missing(self, contact: Contact) -> None:
        """Meisa knows no such contact."""
        self.values.missing(contact, self._clock.wall())
        self._arm()

    # Calls of their own

    def _arm(self) -> None:
        """Sees to it that what is due goes in time."""
        at = self.values.next_deadline()
        if at is None or len(self._alone) >= ALONE_MAX:
            return
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        # A millisecond late rather than early: a timer that fires early would spin until the moment has come.
        wait = max(0.0, at - self._clock.wall()) + 0.001
        self._timer = asyncio.get_running_loop().call_later(wait, self._go)

    def _go(self) -> None:
        self._timer = None
        wall = self._clock.wall()
        taken = []
        while len(self._alone) < ALONE_MAX:
            entry = self.values.take_due(wall)
            if entry is None:
                break
            self._serial += 1
            offset = max(value.offset for value in entry.values.values() if value.due)
            if not self.told(entry.place, offset):
                self.values.put_back(entry, wall + AGAIN_SECONDS)
                continue
            record = Record(*entry.place, offset, -1, None, b"lazy %d" % self._serial)
            self._alone[record] = entry
            taken.append(record)
        if taken and self._store is not None and not self._store.local:
            self._task(self._look_and_go(self._store, taken))
        else:
            for record in taken:
                self._send_alone(record)
        self._arm()

    async def _look_and_go(self, store: Store, taken: Sequence[Record]) -> None:
        """Somebody may have erased a person from a store that is not at hand."""
        with contextlib.suppress(StoreFailed):  # then there are no commits either, and without them soon no calls
            await store.load([self._alone[record].name for record in taken if record in self._alone])
        for record in taken:
            self._send_alone(record)

    def _send_alone(self, record: Record) -> None:
        entry = self._alone.get(record)
        if entry is None or not self.values.holds(entry):
            self._alone.pop(record, None)  # its partition went
            return
        contact = Contact(entry.email, entry.external_id)
        body = {"email": entry.email}
        if entry.external_id is not None:
            body["external_id"] = entry.external_id
        wall = self._clock.wall()
        event = Event(id=record.place, type="lazy", time="", time_wall_seconds=wall, data=None, record=record)
        self._send(event, Action(Kind.UPSERT, "", 0, body, contact, Handling(lane=Lane.BULK)))

    # Partitions

    def assigned(self, new: Assigned) -> None:
        """The partition is ours: what a store keeps of it is taken in."""
        before = self._topics.get(new.partition)
        if new.fresh if None in (before, new.topic_hash) else before != new.topic_hash:
            self._anew[new.partition] = new.epoch
        self._topics[new.partition] = new.topic_hash
        self.values.assigned(new.partition, new.topic_hash)
        if self._kept is not None:
            self._kept.read(new)

    def committing(self, positions: Sequence[Position]) -> None:
        """A commit is asked for."""
        if self._kept is not None:
            self._kept.committing(positions)

    def withdraw(self, partitions: Iterable[TopicPartition]) -> None:
        """The partitions go to other owners, and kept values with them."""
        leaving = set(partitions)
        if self._kept is not None:
            self._kept.withdraw(leaving)
        for record in [each for each in self._alone if (each.topic, each.partition) in leaving]:
            del self._alone[record]
        due = self.values.withdraw(leaving)
        if due and self._store is None:
            log.info(
                "values of lazy fields that no call had carried go with their partitions; the contacts' next events "
                "bring others, and a state store that outlives the process would have kept these",
                contacts=due,
            )

    def _task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _said(part: Part) -> Said:
    return Said(part.action, part.partition, part.record.offset)


def _all_said(parts: Sequence[Part]) -> list[Said]:
    return [_said(part) for part in parts]


def _sole(parts: Sequence[Part]) -> bool:
    """Whether a call stands for kept values alone."""
    return len(parts) == 1 and parts[0].batch.marks is ALONE


def _nothing() -> None:
    pass


def _untold(partition: TopicPartition, offset: int) -> bool:
    return False
