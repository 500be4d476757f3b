"""Whose turn it is: order per contact, merged upserts, the dialogue of each call, and what ends an action.

    deliver(event, actions)   each action stands in its contact's queue, or joins the upsert that waits there
      → its turn              its dialogue says what to call, and when (core/retry.py)
      → put                   it leaves when quota, lane, endpoint and marks allow (runtime/sending.py)
      → replied               goes back into the dialogue: a further attempt, or the result
      → result                of each action that the call stood for; a refused merged call is taken apart instead

Decisions are the machines'; this room only moves items between them. Everything runs on the event loop.
"""

from __future__ import annotations

import math
import random
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from bridge.core.identity import Identities
from bridge.core.ordering import Ordering, Ticket
from bridge.core.quota import Quota
from bridge.core.retry import Attempt, Policy, Reply, Wait, deliver
from bridge.core.suppression import Suppressions
from bridge.model import (
    Action,
    Call,
    Ending,
    Event,
    Kind,
    Lane,
    LetterKind,
    Outcome,
    Record,
    Result,
    TopicPartition,
    Verdict,
    Waiting,
)
from bridge.observe.snapshot import SlowContact
from bridge.ports import Clock, Meisa, Meter, Store
from bridge.runtime.clock import MeisaClock
from bridge.runtime.completion import Completion
from bridge.runtime.contact_ids import ContactIds
from bridge.runtime.facts import WorldFacts
from bridge.runtime.gates import GateState
from bridge.runtime.haste import lead, pull
from bridge.runtime.items import LANES, Batch, Item, Key, KeyState, Part
from bridge.runtime.lazy import ALONE, KEPT, LAZY, NOTHING_LEFT, LazyFields
from bridge.runtime.lookups import Work
from bridge.runtime.marks import Marks, NoMarks
from bridge.runtime.names import Names
from bridge.runtime.sending import PLACES, SPARED, Sending
from bridge.runtime.slowest import slowest
from bridge.runtime.unchanged import UNCHANGED, Unchanged

JOINING = (Kind.UPSERT, Kind.ADD_TAG)
"""Kinds that may join an upsert that waits (core/pending.py says which of them do)."""

BELIEVED = (Ending.UNCHANGED, Ending.LAZY)
"""Meisa was believed to have what an upsert said beside its lazy fields; a 404 shows that it has not."""

REFUSES_ALL = (401, 403)
"""Of the key, whatever a call says: to take a merged call apart would only ask again."""


class Delivery:
    """See the module's text. `identify` gives an action's id; `key_refused` hears of a 401, once per refusal."""

    def __init__(
        self,
        meisa: Meisa,
        quotas: Mapping[str, Quota],
        *,
        clock: Clock,
        meter: Meter,
        policy: Policy,
        identify: Callable[[Record, Action], str],
        max_in_flight: int = 64,
        key_refused: Callable[[str, Outcome], None] = lambda key, outcome: None,
        part_done: Callable[[Record, Action], None] = lambda record, action: None,
        dice: random.Random | None = None,
        identities: Identities | None = None,
        store: Store | None = None,
        meisa_clock: MeisaClock | None = None,
        bulk_after_seconds: float = math.inf,
        unchanged: Unchanged | None = None,
    ) -> None:
        self.unchanged = unchanged or Unchanged(clock=clock)
        self.suppressions = Suppressions()
        """Who is spared a call; stale until somebody fills it (runtime/suppression.py)."""
        self._names = Names(identities, store, self._asked_again)
        self._bulk_after_seconds = bulk_after_seconds
        self.meisa_clock = meisa_clock or MeisaClock(clock)
        """By which it is judged how old a started trigger is."""
        self._clock = clock
        self._meter = meter
        self._policy = policy
        self._identify = identify
        self.marks: Marks = NoMarks()
        self.left: Callable[[], None] = lambda: None
        """Hears of every action that is out, whether it ended or its partition went."""
        self.part_done = part_done
        """Hears of each action that was carried out of an event that goes on: progress must tell it."""
        self._tell: Callable[[Record, Action], None] = lambda record, action: self.part_done(record, action)
        dice = dice or random.Random()
        self.sending = Sending(
            meisa,
            quotas,
            clock=clock,
            meisa_clock=self.meisa_clock,
            meter=meter,
            max_in_flight=max_in_flight,
            scope_wait_seconds=policy.scope_wait_seconds,
            random=dice.random,
            replied=lambda item, reply: self._replied(item, reply),
            body=lambda item: self.lazy.body(item),
            spared=self._spared,
            lowest_first=self._lowest_first,
            unchanged=self.unchanged,
            key_refused=key_refused,
        )
        self.lazy = LazyFields(
            store=store if store is not None and store.lasting else None,
            clock=clock,
            meter=meter,
            send=lambda event, action: self.deliver(event, [action], marks=ALONE),
            concerns=self._concerns,
        )
        self._ordering: Ordering[Item] = Ordering()
        self._sequence = 0
        self._pending = 0
        self._items: dict[TopicPartition, OrderedDict[Item, None]] = {}
        """What has contributions of each partition, oldest first."""
        self._contact_ids = ContactIds()
        self._facts = WorldFacts(self._contact_ids, self._names, self.sending, dice.random)
        self._waiting_events = dict.fromkeys(Lane, 0)
        self._waiting_contacts = dict.fromkeys(Lane, 0)
        self._running: deque[Ticket[Item]] | None = None

    # The station on the path

    def deliver(
        self,
        event: Event,
        actions: Sequence[Action],
        *,
        alone: bool = True,
        marks: Marks | None = None,
        tell: Callable[[Record, Action], None] | None = None,
    ) -> Completion[Sequence[Result]]:
        """Enters an event's actions into the queues of their contacts, in this order, now.

        `alone` says that the event waits for nothing but these. `marks` and `tell` replace the engine's own for work
        that is not of the log's window (a replay).
        """
        batch = Batch(
            event,
            actions,
            read_at=self._clock.now(),
            alone=alone,
            old=self._clock.wall() - event.time_wall_seconds > self._bulk_after_seconds,
            marks=marks or self.marks,
            tell=tell or self._tell,
            beside=marks is not None,
        )
        self._waiting_events[batch.lane] += 1
        if self._names.at_hand:
            self._names.refresh()
            self._enter(batch, actions)
        else:
            self._pending += len(actions)
            self._names.do(
                Work(
                    batch.partition,
                    lambda: self._resolved(batch, actions),
                    lambda: self._found(batch, actions),
                    lambda: self._drop(batch, actions),
                )
            )
        return batch.completion

    def _found(self, batch: Batch, actions: Sequence[Action]) -> None:
        self._pending -= len(actions)  # each counts itself as it enters
        self._enter(batch, actions)

    def _drop(self, batch: Batch, actions: Sequence[Action]) -> None:
        self._pending -= len(actions)
        self._waiting_events[batch.lane] -= 1
        self.left()

    def _resolved(self, batch: Batch, actions: Sequence[Action]) -> Sequence[Action]:
        return self._names.resolved(actions, batch.partition, batch.event.record.offset)

    def _enter(self, batch: Batch, actions: Sequence[Action]) -> None:
        ready = []
        for action in self._resolved(batch, actions):
            ticket = self._admit(Part(batch, action))
            if ticket is not None and ticket.ready:
                ready.append(ticket)
        if not batch.missing:
            self.left()  # all of it finished at once
            batch.completion.complete([result for result in batch.results.values() if result is not None])
        self._begin(ready)

    def _admit(self, part: Part) -> Ticket[Item] | None:
        """Puts an action behind all of its contact; None where it joined what waits there."""
        action = part.action
        self._pending += 1
        self.unchanged.entered(part)
        names = self._ordering.joined(action.contact.ordering_keys()) if action.handling.ordered else ()
        if action.kind in JOINING:
            last = self._ordering.last(names)
            if last is not None and not last.item.leaving and last.item.pending.takes(action):
                self._join(last, part, names)
                return None
        if action.handling.lazy and part.batch.marks is self.marks and self.lazy.finishes(part):
            part.batch.results[action.position] = LAZY
            part.batch.missing -= 1
            self.sending.watch.ended(part, LAZY)
            self._out(part)
            return None
        self._sequence += 1
        item = Item(part, self._sequence)
        self.lazy.entered(item)
        self._items.setdefault(part.partition, OrderedDict())[item] = None
        if action.handling.linger_seconds and (action.kind is Kind.UPSERT or item.company > 1):
            item.linger_until = self._clock.now() + action.handling.linger_seconds
        item.ticket = self._ordering.enter(item, names)
        if item.lane is Lane.TRANSACTIONAL:
            pull(self._ordering, item.ticket, self.sending.hurry)
        return item.ticket

    def _join(self, ticket: Ticket[Item], part: Part, names: tuple[str, ...]) -> None:
        item = ticket.item
        item.pending.add(part)
        self._ordering.extend(ticket, names)
        self._concerns(item, part.partition)
        lane = part.lane
        if lane is not item.lane and LANES.index(lane) < LANES.index(item.lane):
            if item.begun:
                self._waiting_contacts[item.lane] -= 1
                self._waiting_contacts[lane] += 1
            item.lane = lane
            if PLACES.index(lane) < PLACES.index(item.at):
                self.sending.hurry(item, lane)
            if lane is Lane.TRANSACTIONAL:
                pull(self._ordering, ticket, self.sending.hurry)

    def _concerns(self, item: Item, partition: TopicPartition) -> None:
        """The item says something of that partition too: a revocation waits for its call."""
        if partition not in item.partitions:
            item.partitions += (partition,)
            self._items.setdefault(partition, OrderedDict())[item] = None

    def _lowest_first(self) -> None:
        oldest = (next(iter(items)) for name, items in self._items.items() if self.marks.crowded(name))
        lead(self._ordering, oldest, self.sending.hurry)

    # Life

    def open(self) -> None:
        """Lets calls leave; before, actions only queue up."""
        self.sending.held = False
        self.sending.wake()

    def hold(self) -> None:
        """Nothing new leaves; what is in flight goes on."""
        self.sending.held = True

    def wake(self) -> None:
        """Something changed from which calls may be able to leave."""
        self.sending.wake()

    @property
    def may_leave(self) -> Callable[[], bool]:
        """Asked right before calls leave: after a standstill of this process others may own its partitions."""
        return self.sending.may_leave

    @may_leave.setter
    def may_leave(self, asked: Callable[[], bool]) -> None:
        self.sending.may_leave = asked

    def withdraw(self, partitions: Iterable[TopicPartition]) -> None:
        """Drops what is unsent of these partitions; what is in flight may still end well."""
        leaving = set(partitions)
        self._names.withdraw(leaving)
        self.lazy.withdraw(leaving)
        touched = {item: None for partition in leaving for item in self._items.get(partition, ())}
        for item in touched:
            for part in item.pending:
                if part.partition in leaving:
                    part.gone = True
        for item in touched:
            if not item.in_flight:
                self._prune(item)
        for item in touched:
            # Leaving frees those behind it, and these leave then and there: some are out before their turn comes here.
            if item.ticket is not None and item.ticket.ready and not item.in_flight and not len(item.pending):
                self._leave(item)

    async def drained(self, partitions: Iterable[TopicPartition]) -> None:
        """Returns once no call of these partitions is in flight."""
        await self.sending.drained(self._in_flight_of, frozenset(partitions))

    def _in_flight_of(self, partitions: frozenset[TopicPartition]) -> bool:
        return any(item.in_flight for partition in partitions for item in self._items.get(partition, ()))

    async def close(self) -> None:
        """Cancels the calls that are still in flight: their outcome stays unknown."""
        await self._names.close()
        await self.lazy.close()
        await self.sending.close()

    async def ask(self, call: Call) -> Outcome | None:
        """Makes a call that belongs to no action (a ping), within its key's quota; None where that has no room now."""
        return await self.sending.asking.ask(call)

    async def ask_in_turn(self, call: Call) -> tuple[Outcome, float]:
        """Makes a call that belongs to no action and can wait (see runtime/asking.py)."""
        return await self.sending.asking.ask_in_turn(call)

    def key_works(self, name: str) -> None:
        """A refused key was accepted again."""
        self.keys[name].refused = False
        self.sending.wake()

    def offsets_restarted(self, partition: TopicPartition, topic_hash: int | None = None) -> None:
        """The topic was perhaps created anew: then its offsets say nothing any more about what is older."""
        self._names.restarted(partition, topic_hash)

    # Turns

    def _begin(self, tickets: Iterable[Ticket[Item]]) -> None:
        """Starts the items whose turn it is. One loop, however many end at once and free others."""
        if self._running is not None:
            self._running.extend(tickets)
            return
        self._running = running = deque(tickets)
        try:
            while running:
                item = running.popleft().item
                item.begun = True
                self._waiting_contacts[item.lane] += 1
                if len(item.pending):
                    self._start(item)
                else:
                    self._leave(item)  # revoked while it stood behind others
        finally:
            self._running = None

    def _start(self, item: Item) -> None:
        """Begins the dialogue of the item's next call."""
        for place, each in enumerate(item.pending.group):
            blocked = self._blocked_by(each)
            if blocked is not None:
                item.pending.cut(place or 1)  # it ends alone; what stands before it goes first
                if place == 0:
                    self._end(item, blocked)
                    return
                break
        part = item.part
        action, event = part.action, part.batch.event
        item.dialogue = deliver(
            action,
            self._identify(event.record, action) if item.trigger else "",
            event.time_wall_seconds,
            self._policy,
            self._facts,
            self.sending.key_of(action.kind),
            part.batch.marks.started_wall(event.record, action) if item.trigger else None,
            contact_key=self.sending.key_of(Kind.UPSERT),
            read_at=part.batch.read_at,
            unsure=item.trigger and part.batch.marks.unsure(event.record, action),
            spared_body=self._spared_body(part),
        )
        self._go_on(item, None)

    @staticmethod
    def _spared_body(part: Part) -> Mapping[str, Any] | None:
        """What the upsert that the action needs said, where it was not sent."""
        needs = part.action.needs
        result = None if needs is None else part.batch.results.get(needs)
        return result.request if result is not None and result.ending in BELIEVED else None

    @staticmethod
    def _blocked_by(part: Part) -> Result | None:
        """The result of an action whose upsert was refused: Meisa does not know the contact as this event has it."""
        needed = part.action.needs
        result = part.batch.results.get(needed) if needed is not None else None
        return result if result is not None and result.letter is not None else None

    def _replied(self, item: Item, reply: Reply) -> None:
        outcome = reply.outcome
        if outcome is not None and outcome.contact_id is not None:
            for part in item.pending.group:
                self._contact_ids.remember(part.action.contact, outcome.contact_id)
        if outcome is not None and outcome.verdict is Verdict.NEEDS_CONTACT:
            self.lazy.missing(item.part.action.contact)
        self._go_on(item, reply)

    def _go_on(self, item: Item, reply: Reply | None) -> None:
        """Hands a reply to the item's dialogue, and takes its next attempt or its result."""
        assert item.dialogue is not None
        try:
            attempt = next(item.dialogue) if reply is None else item.dialogue.send(reply)
        except StopIteration as end:
            self._end(item, end.value)
            return
        if not self._prune(item):
            self._leave(item)
            return
        if isinstance(attempt, Wait):
            self._names.ask_later(item, attempt.seconds)
            return
        item.attempt = attempt
        for part in item.pending.group:
            # Whatever held room to be told of this attempt gives it back until the next one leaves.
            if not item.trigger:
                self._unclaim(part)
            elif not attempt.in_doubt:
                part.batch.marks.clear(part.record, part.action)
        spared = self._spared(item, attempt)
        if spared is not None:
            self._go_on(item, Reply(spared, self._clock.now(), self._clock.wall()))
            return
        self.sending.put(item)

    def _spared(self, item: Item, attempt: Attempt) -> Outcome | None:
        """How a call would end that need not be made: Meisa has all of it, would refuse it as suppressed, or it says
        nothing any more.

        One in doubt is made: its answer tells more.
        """
        if attempt.in_doubt:
            return None
        if self.unchanged.spares(item):
            return UNCHANGED
        if self.lazy.finishes_late(item, self.unchanged.differing):
            return KEPT
        if len(item.pending) != 1:
            return None
        if self.lazy.needless(item):
            return NOTHING_LEFT
        return SPARED if self.suppressions.spares(item.part.action, self._clock.now()) else None

    def _asked_again(self, item: Item) -> None:
        """The item waited for its contact's name; perhaps it has it now."""
        self._go_on(item, Reply(None, self._clock.now(), self._clock.wall()))

    def _end(self, item: Item, result: Result) -> None:
        """A call has ended, and with it the actions that it stood for; or it is taken apart, to ask for each."""
        refused = result.letter is not None and result.status not in REFUSES_ALL
        aside = refused and self.lazy.put_aside(item)
        if aside or (refused and len(item.pending.group) > 1):
            for part in item.pending.group:
                self._unclaim(part)
            if self._prune(item):
                if not aside:
                    item.pending.halve()
                self._start(item)
            else:
                self._leave(item)
            return
        if result.ending in BELIEVED:
            result = result._replace(request=item.pending.body())
        parts = item.pending.next()
        self.lazy.ended(item, parts, result)
        if result.detail in (SPARED.detail, UNCHANGED.detail) and result.status is None:
            self._meter.saved(result.detail, 1)
        if result.letter is not None and item.kind is Kind.UPSERT and item.body is not None:
            result = result._replace(request=item.body)
        if len(parts) > 1 and result.letter is None and result.ending is not Ending.LAZY:
            self._meter.saved("merged", len(parts) - 1)
        merged = result._replace(ending=Ending.MERGED) if result.ending is Ending.DELIVERED else result
        doubt = result.letter is LetterKind.UNKNOWN_OUTCOME or (item.attempt is not None and item.attempt.in_doubt)
        done = [part.batch for part in parts if self._end_part(part, result if part is parts[-1] else merged, doubt)]
        for part in parts:
            self._out(part)
        if not self._prune(item):
            self._leave(item)
        else:
            self.left()
            self._start(item)
        for batch in done:
            batch.completion.complete([result for result in batch.results.values() if result is not None])

    def _end_part(self, part: Part, result: Result, doubt: bool) -> bool:
        """An action has ended; True with the last one of its event. `doubt`: a trigger may have been sent."""
        batch, action = part.batch, part.action
        batch.results[action.position] = result
        batch.missing -= 1
        self.sending.watch.ended(part, result)
        if result.letter is not None and action.kind is Kind.UPSERT:
            self._names.refused(part)
        if result.ending in (Ending.DELIVERED, Ending.MERGED):
            timestamp_ms = batch.event.record.timestamp_ms
            if timestamp_ms >= 0:
                self._meter.delayed(part.lane, max(0.0, self._clock.wall() - timestamp_ms / 1000))
        trigger = action.kind is Kind.TRIGGER
        if result.letter is None and (trigger or batch.shared):
            batch.tell(batch.event.record, action)
        elif trigger:
            # Until its letter is written, and its event finished, a restart has to know of the doubt.
            if not doubt:
                batch.marks.clear(batch.event.record, action)
        else:
            self._unclaim(part)
        return batch.missing == 0

    @staticmethod
    def _unclaim(part: Part) -> None:
        if part.batch.shared:
            part.batch.marks.unclaim(part.record, part.action)

    # Out

    def _prune(self, item: Item) -> bool:
        """Takes out the contributions whose partition went; False where nothing is left."""
        gone = [part for part in item.pending if part.gone]
        if gone:
            item.pending.remove(gone)
            for part in gone:
                self._out(part)
        return len(item.pending) > 0

    def _out(self, part: Part) -> None:
        """An action is in no queue any more."""
        self._pending -= 1
        batch = part.batch
        batch.inside -= 1
        if not batch.inside:
            self._waiting_events[batch.lane] -= 1
            if batch.missing:
                batch.completion.abandon()  # its partition went

    def _leave(self, item: Item) -> None:
        """The item is out: those behind it in its contact's queues may go."""
        for partition in item.partitions:
            items = self._items[partition]
            del items[item]
            if not items:
                del self._items[partition]
        item.out = True
        self.lazy.left(item)
        self._waiting_contacts[item.lane] -= 1
        assert item.ticket is not None
        freed = self._ordering.release(item.ticket)
        item.ticket = (
            None  # they hold each other, and the collector, which comes seldom, would keep the event till then
        )
        if freed:
            self._begin(freed)
        self.left()

    # What status shows

    @property
    def keys(self) -> Mapping[str, Key]:
        return self.sending.keys

    @property
    def pending(self) -> int:
        """Actions that have not ended."""
        return self._pending

    def pending_by_lane(self) -> list[tuple[Lane, int, int]]:
        """Lane, contacts whose next action is in it, and events whose most urgent action is in it."""
        return [(lane, self._waiting_contacts[lane], self._waiting_events[lane]) for lane in Lane]

    @property
    def in_flight(self) -> int:
        return self.sending.in_flight

    def key_states(self) -> list[KeyState]:
        return self.sending.key_states()

    def slowest(self) -> list[SlowContact]:
        """The contacts whose work has been here longest."""
        return slowest(self._items.values(), self._clock.now())

    def held_endpoints(self) -> list[GateState]:
        return self.sending.held_endpoints()

    def waiting(self) -> list[Waiting]:
        """Why work waits, each reason with its count of items."""
        return self.sending.waiting() + self._names.waiting()
