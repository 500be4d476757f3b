"""Drives the machines of delivery: order per contact, lanes, quota, retries, calls in flight.

    deliver(event, actions)   each action stands in its contact's queue
      → its turn              its dialogue says what to call, and when (core/retry.py)
      → dispatch              lanes, lowest first (core/dispatch.py)
      → a slot of the quota   booked before the request leaves (core/quota.py)
      → send                  one asyncio task per call in flight, at most `max_in_flight`
      → the answer            goes back into the dialogue: a further attempt, or the action's result

Decisions are the machines'; this room only moves items between them. Everything runs on the event loop.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence

import structlog

from bridge.core.dispatch import Dispatch
from bridge.core.ordering import Ordering, Ticket
from bridge.core.quota import NEVER, Quota
from bridge.core.retry import Attempt, Policy, Reply, deliver
from bridge.model import (
    Action,
    Call,
    Contact,
    Ending,
    Event,
    Kind,
    Lane,
    Outcome,
    Record,
    Result,
    TopicPartition,
    Verdict,
    Waiting,
)
from bridge.ports import Clock, Meisa, Meter
from bridge.runtime.completion import Completion
from bridge.runtime.contact_ids import ContactIds
from bridge.runtime.gates import Gates, GateState
from bridge.runtime.items import Batch, Item, Key, KeyState
from bridge.runtime.marks import Marks, NoMarks

log = structlog.get_logger(__name__)

GUARDRAIL_SECONDS_MAX = 60.0
"""A contact's longest wait for a sending guardrail that names no time."""


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
    ) -> None:
        self._meisa = meisa
        self._clock = clock
        self._meter = meter
        self._policy = policy
        self._identify = identify
        self._max_in_flight = max_in_flight
        self._key_refused = key_refused
        self.marks: Marks = NoMarks()
        self.may_leave: Callable[[], bool] = lambda: True
        """Asked right before calls leave: after a standstill of this process others may own its partitions."""
        self.left: Callable[[], None] = lambda: None
        """Hears of every action that is out, whether it ended or its partition went."""
        self.part_done = part_done
        """Hears of each action that was carried out of an event that has several: progress must tell it."""
        self._dice = dice or random.Random()
        self.keys = {name: Key(name, quota, Dispatch([*Lane])) for name, quota in quotas.items()}
        self._key_order = sorted(self.keys)
        self._ordering: Ordering[Item] = Ordering()
        self._sequence = 0
        self._items: dict[TopicPartition, set[Item]] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self._waiters: list[tuple[frozenset[TopicPartition], asyncio.Future[None]]] = []
        self._last_success: dict[str, float] = {}
        self._gates: Gates[Item] = Gates(self._dice.random)
        self._contact_ids = ContactIds()
        self._waiting_events = dict.fromkeys(Lane, 0)
        self._waiting_contacts = dict.fromkeys(Lane, 0)
        self._pump_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._held = True
        self._running: deque[Ticket[Item]] | None = None

    # The station on the path

    def deliver(self, event: Event, actions: Sequence[Action]) -> Completion[Sequence[Result]]:
        """Enters an event's actions into the queues of their contacts, in this order, now."""
        batch = Batch(event, actions)
        self._waiting_events[batch.lane] += 1
        ready = []
        for action in actions:
            self._sequence += 1
            item = Item(batch, action, self._sequence)
            keys = action.contact.ordering_keys() if action.handling.ordered else ()
            item.ticket = self._ordering.admit(item, keys)
            self._items.setdefault(item.partition, set()).add(item)
            if item.ticket.ready:
                ready.append(item.ticket)
        self._begin(ready)
        self.wake()
        return batch.completion

    # Life

    def open(self) -> None:
        """Lets calls leave; before, actions only queue up."""
        self._held = False
        self.wake()

    def hold(self) -> None:
        """Nothing new leaves; what is in flight goes on."""
        self._held = True

    def withdraw(self, partitions: Iterable[TopicPartition]) -> None:
        """Drops what is unsent of these partitions; what is in flight may still end well."""
        leaving = [item for partition in partitions for item in self._items.get(partition, ())]
        for item in leaving:
            item.gone = True
        for item in leaving:
            # Leaving frees those behind it, and these leave then and there: some are out before their turn comes here.
            assert item.ticket is not None
            if item.ticket.ready and not item.in_flight and item in self._items.get(item.partition, ()):
                self._leave(item)

    async def drained(self, partitions: Iterable[TopicPartition]) -> None:
        """Returns once no call of these partitions is in flight."""
        wanted = frozenset(partitions)
        if self._in_flight_of(wanted):
            future = asyncio.get_running_loop().create_future()
            self._waiters.append((wanted, future))
            await future

    def _in_flight_of(self, partitions: frozenset[TopicPartition]) -> bool:
        return any(item.in_flight for partition in partitions for item in self._items.get(partition, ()))

    async def close(self) -> None:
        """Cancels the calls that are still in flight: their outcome stays unknown."""
        self._held = True
        if self._timer is not None:
            self._timer.cancel()
        calls = list(self._calls)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    async def ask(self, call: Call) -> Outcome | None:
        """Makes a call that belongs to no action (a ping), within its key's quota; None where that has no room now."""
        quota = self.keys[call.key].quota
        if not quota.acquire(self._clock.now(), urgent=True):
            return None
        sent_now = self._clock.now()
        try:
            outcome = await self._meisa.send(call)
        except BaseException:
            quota.unanswered(self._clock.now())
            raise
        now = self._clock.now()
        self._count(quota, outcome, now)
        self._meter.called(call.endpoint, _status_label(outcome), now - sent_now)
        if outcome.verdict is Verdict.THROTTLED:
            quota.throttled(now, outcome.retry_after_seconds)
        return outcome

    @staticmethod
    def _count(quota: Quota, outcome: Outcome, now: float) -> None:
        if outcome.status is not None:
            quota.answered(now)
        elif outcome.sent:
            quota.unanswered(now)
        else:
            quota.unsent()

    def key_works(self, name: str) -> None:
        """A refused key was accepted again."""
        self.keys[name].refused = False
        self.wake()

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
                self._waiting_contacts[item.lane] += 1
                if item.gone:
                    self._leave(item)
                    continue
                blocked = self._blocked_by(item)
                if blocked is not None:
                    self._end(item, blocked)
                    continue
                event = item.batch.event
                trigger = item.action.kind is Kind.TRIGGER
                item.dialogue = deliver(
                    item.action,
                    self._identify(event.record, item.action) if trigger else "",
                    event.time_wall_seconds,
                    self._policy,
                    self,
                    self._key_of(item.action.kind),
                    self.marks.started_wall(event.record, item.action) if trigger else None,
                )
                self._go_on(item, None)
        finally:
            self._running = None

    def _blocked_by(self, item: Item) -> Result | None:
        """The result of an item whose upsert was refused: Meisa does not know the contact as this event has it."""
        needed = item.action.needs
        result = item.batch.results.get(needed) if needed is not None else None
        return result if result is not None and result.letter is not None else None

    def _key_of(self, kind: Kind) -> str:
        return kind.value if kind.value in self.keys else "default"

    def _go_on(self, item: Item, reply: Reply | None) -> None:
        """Hands a reply to the item's dialogue, and takes its next attempt or its result."""
        assert item.dialogue is not None
        try:
            attempt = next(item.dialogue) if reply is None else item.dialogue.send(reply)
        except StopIteration as end:
            self._end(item, end.value)
            return
        if item.gone:
            self._leave(item)
            return
        if item.action.kind is Kind.TRIGGER and not attempt.in_doubt:
            self.marks.clear(item.batch.event.record, item.action)
        item.attempt = attempt
        self.keys[attempt.call.key].dispatch.put(
            item,
            lane=item.lane,
            sequence=item.sequence,
            not_before=max(attempt.not_before, item.hold_until),
            now=self._clock.now(),
        )

    def _end(self, item: Item, result: Result) -> None:
        """An action has ended: its contact's next one may go, and with the last of its event the event goes on."""
        batch = item.batch
        batch.results[item.action.position] = result
        batch.missing -= 1
        if result.ending is Ending.DELIVERED:
            timestamp_ms = batch.event.record.timestamp_ms
            if timestamp_ms >= 0:
                self._meter.delayed(item.lane, max(0.0, self._clock.wall() - timestamp_ms / 1000))
        trigger = item.action.kind is Kind.TRIGGER
        if result.letter is None and (trigger or len(batch.results) > 1):
            self.part_done(batch.event.record, item.action)
        elif trigger:
            self.marks.clear(batch.event.record, item.action)
        self._leave(item)
        if batch.missing == 0:
            batch.completion.complete([result for result in batch.results.values() if result is not None])

    def _leave(self, item: Item) -> None:
        items = self._items[item.partition]
        items.discard(item)
        if not items:
            del self._items[item.partition]
        item.gone = True
        item.batch.inside -= 1
        if not item.batch.inside:
            self._waiting_events[item.batch.lane] -= 1
        self._waiting_contacts[item.lane] -= 1
        assert item.ticket is not None
        freed = self._ordering.release(item.ticket)
        if freed:
            self._begin(freed)
        self.left()

    # Calls

    def wake(self) -> None:
        """Something changed: looks, once in this round of the loop, whether something may leave."""
        if not self._pump_due:
            self._pump_due = True
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_due = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._held or not self.may_leave():
            return
        now = self._clock.now()
        self._probe_endpoints(now)
        wake_at = NEVER
        for name in self._key_order:
            key = self.keys[name]
            if key.refused:
                continue
            while len(self._calls) < self._max_in_flight and self._send_next(key, now):
                pass
            if len(self._calls) >= self._max_in_flight:
                return  # an answer wakes the pump
            deadline = key.dispatch.next_deadline()
            if deadline is not None:
                wake_at = min(wake_at, deadline)
            for lane in key.dispatch.ready_lanes():
                wake_at = min(wake_at, key.quota.earliest(now, urgent=lane == Lane.TRANSACTIONAL))
        wake_at = min(wake_at, self._gates.next_deadline())  # only now: this very round may have parked something
        if wake_at != NEVER:
            # A millisecond late rather than early: a timer that fires early would spin until the moment has come.
            self._timer = asyncio.get_running_loop().call_later(max(0.0, wake_at - now) + 0.001, self.wake)

    def _send_next(self, key: Key, now: float) -> bool:
        item = key.dispatch.next(now, lambda lane: key.quota.acquire(now, urgent=lane == Lane.TRANSACTIONAL))
        if item is None:
            return False
        if item.gone:
            key.quota.unsent()
            return True
        attempt = item.attempt
        assert attempt is not None
        if self._too_late(key, item, attempt):
            return True
        trigger = item.action.kind is Kind.TRIGGER
        # A place for its mark comes before everything that others could use: a slot, or the turn to probe.
        if trigger and not self.marks.place(item.batch.event.record, item.action, lambda: self._queue([item])):
            key.quota.unsent()
            return True
        if not self._admitted(key, item, attempt):
            self._unmark(item, attempt)
            return True
        item.in_flight = not trigger  # without an acknowledged mark a trigger is unsent
        task = self._send_marked(key, item, attempt) if trigger else self._send(key, item, attempt.call)
        call = asyncio.get_running_loop().create_task(task)
        self._calls.add(call)
        call.add_done_callback(self._call_ended)
        return True

    def _call_ended(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        if not self._held:
            self.wake()

    def _unmark(self, item: Item, attempt: Attempt) -> None:
        """The trigger stays here after all: without an earlier doubt there is none now."""
        if item.action.kind is Kind.TRIGGER and not attempt.in_doubt:
            self.marks.clear(item.batch.event.record, item.action)

    def _admitted(self, key: Key, item: Item, attempt: Attempt) -> bool:
        """Whether the endpoint takes calls, or this one as a probe; else the item is parked and its slot given back."""
        endpoint = attempt.call.endpoint
        if self._gates.is_open(key.name, endpoint):
            return True
        if self._gates.probe(key.name, endpoint, self._clock.now()):
            item.probe = True
            return True
        key.quota.unsent()
        if item.held_since is None:
            item.held_since = self._clock.wall()
        self._gates.park(key.name, endpoint, item, item.held_since)
        return False

    def _too_late(self, key: Key, item: Item, attempt: Attempt) -> bool:
        wall = self._clock.wall()
        if wall <= attempt.not_after_wall:
            return False
        self._unsent(key, item)
        self._go_on(item, Reply(None, self._clock.now(), wall))
        return True

    async def _send_marked(self, key: Key, item: Item, attempt: Attempt) -> None:
        """Sends a trigger once its mark is kept; its slot of the quota is held meanwhile."""
        try:
            permitted = await self.marks.start(item.batch.event.record, item.action)
        except BaseException:
            self._unsent(key, item)
            raise
        if not permitted or item.gone:
            self._unsent(key, item)
            self._unmark(item, attempt)
            return
        if self._held or not self.may_leave():
            self._unsent(key, item)
            self._unmark(item, attempt)
            self._queue([item])
            return
        # Keeping the mark took time, perhaps an outage's: age and endpoint count at the moment of sending.
        if self._too_late(key, item, attempt):
            return
        if not (item.probe or self._admitted(key, item, attempt)):
            self._unmark(item, attempt)
            return
        item.in_flight = True
        await self._send(key, item, attempt.call)

    def _unsent(self, key: Key, item: Item) -> None:
        key.quota.unsent()
        assert item.attempt is not None
        self._gates.unsent(key.name, item.attempt.call.endpoint, probe=item.probe)
        item.probe = False

    async def _send(self, key: Key, item: Item, call: Call) -> None:
        sent_now, sent_wall = self._clock.now(), self._clock.wall()
        try:
            outcome = await self._meisa.send(call)
        except asyncio.CancelledError:
            key.quota.unanswered(self._clock.now())
            raise
        except Exception as error:
            # The port promises not to raise. If it does it is a bug, and the call may have been carried out.
            log.exception(
                "a call to Meisa failed in the bridge itself; it is treated as unanswered", call=call.endpoint
            )
            outcome = Outcome(Verdict.UNKNOWN, message=f"internal error: {type(error).__name__}")
        now = self._clock.now()
        self._book(key, call, item, outcome, now)
        self._meter.called(call.endpoint, _status_label(outcome), now - sent_now)
        item.in_flight = False
        self._go_on(item, Reply(outcome, now, self._clock.wall(), sent_wall))
        self._wake_waiters()

    def _book(self, key: Key, call: Call, item: Item, outcome: Outcome, now: float) -> None:
        """What an answer means for its key, its endpoint and what is known of its contact."""
        quota = key.quota
        self._count(quota, outcome, now)
        verdict = outcome.verdict
        contact = item.ticket.keys[0] if item.ticket is not None and item.ticket.keys else str(item.sequence)
        probe, item.probe = item.probe, False
        if verdict is Verdict.THROTTLED and item.action.kind is Kind.TRIGGER and quota.has_room(now):
            # Our own count has room, so it is no quota but a sending guardrail: the contact's, or the endpoint's.
            seconds = outcome.retry_after_seconds
            if seconds is None:
                seconds = min(GUARDRAIL_SECONDS_MAX, 2.0**item.throttles)
            item.throttles = min(item.throttles + 1, 16)
            item.hold_until = now + seconds
            self._gates.guardrail(key.name, call.endpoint, contact, outcome, now, seconds, probe=probe)
            return
        freed = self._gates.answered(key.name, call.endpoint, contact, outcome, now, probe=probe)
        if verdict is Verdict.THROTTLED:
            until = quota.throttled(now, outcome.retry_after_seconds)
            log.info("Meisa throttles the key; its calls wait", key=key.name, seconds=round(until - now, 1))
        elif verdict is Verdict.KEY_REFUSED:
            if not key.refused:
                key.refused = True
                self._key_refused(key.name, outcome)
        elif verdict in (Verdict.DELIVERED, Verdict.REFUSED, Verdict.NEEDS_CONTACT):
            quota.accepted()
            item.throttles = 0
            item.held_since = None
            self._last_success[call.endpoint] = now
            if outcome.contact_id is not None:
                self._contact_ids.remember(item.action.contact, outcome.contact_id)
            self._queue(freed)
        elif verdict is Verdict.SCOPE_MISSING:
            if item.held_since is None:
                item.held_since = self._clock.wall()
            self._give_up_scope(key, call.endpoint, outcome, now)

    # Endpoints that are held (runtime/gates.py)

    def _queue(self, items: Iterable[Item]) -> None:
        """Parked items are ready again: dispatch decides when they go."""
        now = self._clock.now()
        for item in items:
            if not item.gone and item.attempt is not None:
                self.keys[item.attempt.call.key].dispatch.put(
                    item, lane=item.lane, sequence=item.sequence, not_before=0.0, now=now
                )
        self.wake()

    def _probe_endpoints(self, now: float) -> None:
        """Hands out the next probe of each held endpoint, and ends what has waited there for too long."""
        if self._gates.next_deadline() > now:
            return
        wall = self._clock.wall()
        for key, endpoint in self._gates.held():
            late = self._gates.unpark(
                key, endpoint, lambda item, _: item.attempt is not None and wall > item.attempt.not_after_wall
            )
            for item in late:
                if not item.gone:
                    self._go_on(item, Reply(None, now, wall))
        self._queue(self._gates.due(now))

    def _give_up_scope(self, key: Key, endpoint: str, outcome: Outcome, now: float) -> None:
        """Lets those that have waited for the scope since `scope_wait` end with the answer that the probe got."""
        wall = self._clock.wall()
        waited = self._gates.unpark(
            key.name, endpoint, lambda item, since: wall - since >= self._policy.scope_wait_seconds
        )
        for item in waited:
            if not item.gone:
                self._go_on(item, Reply(outcome, now, wall, since_wall=wall - self._policy.scope_wait_seconds))

    def _wake_waiters(self) -> None:
        if self._waiters:
            still = []
            for wanted, future in self._waiters:
                if self._in_flight_of(wanted):
                    still.append((wanted, future))
                elif not future.done():
                    future.set_result(None)
            self._waiters = still

    # Facts for the dialogues (core/retry.py)

    def contact_id(self, contact: Contact) -> str | None:
        return self._contact_ids.get(contact)

    def forget_contact_id(self, contact: Contact) -> None:
        self._contact_ids.forget(contact)

    def succeeded_since(self, endpoint: str, now: float) -> bool:
        return self._last_success.get(endpoint, -1.0) > now

    def random(self) -> float:
        return self._dice.random()

    # What status shows

    @property
    def pending(self) -> int:
        """Actions that have not ended."""
        return self._ordering.size

    def pending_by_lane(self) -> list[tuple[Lane, int, int]]:
        """Lane, contacts whose next action is in it, and events whose most urgent action is in it."""
        return [(lane, self._waiting_contacts[lane], self._waiting_events[lane]) for lane in Lane]

    @property
    def in_flight(self) -> int:
        return len(self._calls)

    def key_states(self) -> list[KeyState]:
        now = self._clock.now()
        return [
            KeyState(key.name, key.quota.snapshot(now), key.quota.braked_until(now), key.refused)
            for key in self.keys.values()
        ]

    def held_endpoints(self) -> list[GateState]:
        return self._gates.states()

    def waiting(self) -> list[Waiting]:
        """Why work waits, each reason with its count of actions."""
        now = self._clock.now()
        reasons = [
            Waiting(state.reason, state.parked, state.probe_at, f"{state.endpoint}: {state.message}")
            for state in self._gates.states()
        ]
        for key in self.keys.values():
            queued = len(key.dispatch) - key.dispatch.waiting
            braked = key.quota.braked_until(now)
            if key.dispatch.waiting:
                reasons.append(Waiting("retry", key.dispatch.waiting, key.dispatch.next_deadline(), key.name))
            if not queued:
                continue
            if key.refused:
                reasons.append(Waiting("key_refused", queued, None, key.name))
            elif braked is not None:
                reasons.append(Waiting("throttled", queued, braked, key.name))
            else:
                lanes = key.dispatch.ready_lanes()
                at = min(key.quota.earliest(now, urgent=lane == Lane.TRANSACTIONAL) for lane in lanes)
                if at > now:
                    reasons.append(Waiting("quota", queued, at, key.name))
        return reasons


def _status_label(outcome: Outcome) -> str:
    if outcome.status is not None:
        return str(outcome.status)
    return "never_sent" if not outcome.sent else "unanswered"
