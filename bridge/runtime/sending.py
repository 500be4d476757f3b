"""When a call may leave, and what its answer means for everybody else: quota, lanes, endpoints, marks.

    put(item)                 it is the item's turn, and its dialogue has named an attempt
      → dispatch              lanes, lowest first (core/dispatch.py)
      → a slot of the quota   booked before the request leaves (core/quota.py)
      → its endpoint          takes calls, or this one as a probe (runtime/gates.py)
      → its marks             progress can tell, or has told, what it must before this leaves (runtime/marks.py)
      → send                  one asyncio task per call in flight, at most `max_in_flight`
      → replied(item, reply)  goes back to whose turn it was (runtime/delivery.py)

An item is in one place at a time: in the dispatch, parked at its endpoint, asleep until its marks call it again, or on
its way. Decisions are the machines'; this room only moves items between them. Everything runs on the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

import structlog

from bridge.core.dispatch import Dispatch
from bridge.core.quota import NEVER, Quota
from bridge.core.retry import Attempt, Reply
from bridge.model import Call, Kind, Lane, Outcome, TopicPartition, Verdict, Waiting
from bridge.ports import Clock, Meisa, Meter
from bridge.runtime.asking import Asking, count, in_time, status_label
from bridge.runtime.clock import MeisaClock
from bridge.runtime.gates import Gates, GateState
from bridge.runtime.items import FIRST, PULLED, Item, Key, KeyState, Part
from bridge.runtime.together import Company, Together, share
from bridge.runtime.unchanged import UNLASTING, Unchanged
from bridge.runtime.watching import Nobody, Watch

log = structlog.get_logger(__name__)

PLACES = (FIRST, Lane.TRANSACTIONAL, PULLED, Lane.SYNC, Lane.BULK)
"""The lanes in which items wait, the most urgent first."""

BULK_AFTER = 9
"""So many calls go before the bulk lane's next one while it has some: a tenth is its share whatever else there is."""

SPARED = Outcome(
    Verdict.SPARED, message="the address is on Meisa's suppression list; no call was made", detail="suppressed"
)
GUARDRAIL_SECONDS_MAX = 60.0
"""A contact's longest wait for a sending guardrail that names no time."""


class Sending:
    """See the module's text. `replied` hears of every attempt once; `lowest_first` hastens what holds back a window."""

    def __init__(
        self,
        meisa: Meisa,
        quotas: Mapping[str, Quota],
        *,
        clock: Clock,
        meisa_clock: MeisaClock,
        meter: Meter,
        max_in_flight: int,
        scope_wait_seconds: float,
        random: Callable[[], float],
        replied: Callable[[Item, Reply], None],
        body: Callable[[Item], Mapping[str, Any]],
        spared: Callable[[Item, Attempt], Outcome | None],
        lowest_first: Callable[[], None],
        unchanged: Unchanged,
        key_refused: Callable[[str, Outcome], None],
    ) -> None:
        self._meisa = meisa
        self._clock = clock
        self._meisa_clock = meisa_clock
        self._meter = meter
        self._max_in_flight = max_in_flight
        self._scope_wait_seconds = scope_wait_seconds
        self._replied = replied
        self._body = body
        self._spared = spared
        self._lowest_first = lowest_first
        self._unchanged = unchanged
        self.key_refused = key_refused
        self.watch: Watch = Nobody()
        self.may_leave: Callable[[], bool] = lambda: True
        self.short: Callable[[], None] = lambda: None
        """Hears that calls wait for a commit that permits them (runtime/spend.py), or an answer (permissions.py)."""
        self.keys = {name: Key(name, quota, Dispatch(PLACES, last_after=BULK_AFTER)) for name, quota in quotas.items()}
        self._key_order = sorted(self.keys)
        self._calls: set[asyncio.Task[None]] = set()
        self.asking = Asking(
            meisa,
            self.keys,
            clock=clock,
            meisa_clock=meisa_clock,
            meter=meter,
            wake=self.wake,
            untold=self._ask_permission,
        )
        self._waiters: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._last_success: dict[str, float] = {}
        self._gates: Gates[Item] = Gates(random)
        self._together = Together(self._gates, can_be_told=self._can_be_told, too_late=self._is_too_late)
        self._pump_due = False
        self._timer: asyncio.TimerHandle | None = None
        self.held = True

    def key_of(self, kind: Kind) -> str:
        """The name of the API key that calls of this kind are made with."""
        return kind.value if kind.value in self.keys else "default"

    # What may leave

    def put(self, item: Item) -> None:
        """The item's turn has come, and `item.attempt` says what to call and when."""
        assert item.attempt is not None
        self._together.gathers(self.keys[item.attempt.call.key], item, self._clock.now(), self._clock.wall())
        self._wait(item, max(item.attempt.not_before, item.hold_until, item.linger_until, item.gather_until or 0.0))
        self.wake()

    def _wait(self, item: Item, not_before: float) -> None:
        assert item.attempt is not None
        key = self.keys[item.attempt.call.key]
        key.dispatch.put(item, lane=item.at, sequence=item.sequence, not_before=not_before, now=self._clock.now())
        self._together.waits(key, item)

    def hurry(self, item: Item, at: str) -> None:
        """The item is more urgent now: it goes in another lane, and lingers no more."""
        item.at = at
        item.linger_until = item.gather_until = 0.0
        attempt = item.attempt
        if attempt is not None:
            dispatch = self.keys[attempt.call.key].dispatch
            dispatch.move(item, sequence=item.sequence, lane=at)
            if max(attempt.not_before, item.hold_until) <= self._clock.now():
                dispatch.hasten(item, sequence=item.sequence)
            self.wake()

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
        if self.held or not self.may_leave():
            return
        now = self._clock.now()
        self._probe_endpoints(now)
        self._lowest_first()
        wake_at = NEVER
        for name in self._key_order:
            key = self.keys[name]
            if key.refused:
                continue
            if self.asking.wants(name):
                at = key.quota.earliest(now)
                if at <= now:
                    self.asking.call(name)
                    self.wake()  # behind the one who was called, who takes the slot
                    continue
                wake_at = min(wake_at, at)
            while len(self._calls) < self._max_in_flight and self._send_next(key, now):
                pass
            if len(self._calls) >= self._max_in_flight:
                self._ask_permission()
                return  # an answer wakes the pump
            deadline = key.dispatch.next_deadline()
            if deadline is not None:
                wake_at = min(wake_at, deadline)
            for lane in key.dispatch.ready_lanes():
                wake_at = min(wake_at, key.quota.earliest(now, urgent=lane == Lane.TRANSACTIONAL))
        self._ask_permission()
        wake_at = min(wake_at, self._gates.next_deadline())  # only now: this very round may have parked something
        if wake_at != NEVER:
            # A millisecond late rather than early: a timer that fires early would spin until the moment has come.
            self._timer = asyncio.get_running_loop().call_later(max(0.0, wake_at - now) + 0.001, self.wake)

    def _ask_permission(self) -> None:
        if any([key.quota.take_untold() for key in self.keys.values()]):
            self.short()

    def _send_next(self, key: Key, now: float) -> bool:
        """Takes one item out of the dispatch and sees to it; False where none may go."""
        urgent = False

        def booked(lane: str) -> bool:
            nonlocal urgent
            urgent = lane == Lane.TRANSACTIONAL
            return key.quota.acquire(now, urgent=urgent)

        item = key.dispatch.next(now, booked)
        if item is None:
            return False
        item.urgent, item.slot = urgent, key.quota.slot
        self._together.taken(item)
        if item.out:
            key.quota.unsent(urgent=urgent, slot=item.slot)
            return True
        attempt = item.attempt
        assert attempt is not None
        if self._too_late(key, item, attempt):
            return True
        spared = self._spared(item, attempt)
        if spared is not None:
            self._unsent(key, item)
            self._replied(item, Reply(spared, now, self._clock.wall()))
            return True
        # What progress must be able to tell comes before all that others could use: a slot, or the turn to probe.
        if not self._can_be_told(item):
            key.quota.unsent(urgent=item.urgent, slot=item.slot)
            return True
        shared = self._together.company(key, item, now)
        if shared is not None:
            for each in shared[1].values():
                each.leaving = each.in_flight = True
            self._begin(self._send_together(key, item, *shared))
            return True
        if not self._admitted(key, item, attempt):
            self._untold(item, attempt)
            return True
        item.leaving = True
        if item.trigger or not all(part.batch.marks.seen(part.record) for part in self._upserts(item)):
            work = self._send_told(key, item, attempt)  # without its acknowledged mark it is unsent
        else:
            item.in_flight = True
            work = self._send(key, item, attempt)
        self._begin(work)
        return True

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        call = asyncio.get_running_loop().create_task(work)
        self._calls.add(call)
        call.add_done_callback(self._call_ended)

    def _call_ended(self, call: asyncio.Task[None]) -> None:
        self._calls.discard(call)
        if not self.held:
            self.wake()

    # What progress must tell (runtime/marks.py)

    @staticmethod
    def _upserts(item: Item) -> Iterable[Part]:
        return item.newest() if item.kind is Kind.UPSERT else ()

    def _can_be_told(self, item: Item) -> bool:
        """Whether there is room to tell that it started, or was done; else it sleeps until there may be.

        Of a merged call with many contributions only the first ones may find room: then it stands for those.
        """
        part = item.part
        marks = part.batch.marks
        # Asleep first: who is called again might be called at once.
        item.asleep = True

        def again() -> None:
            self._again(item)

        if item.trigger:
            if not marks.place(part.record, part.action, again):
                return False
        else:
            if any(each.batch.marks.recovering(each.record, again) for each in self._upserts(item)):
                return False
            if not self._claimed(item, again):
                return False
        item.asleep = False
        return True

    @staticmethod
    def _claimed(item: Item, again: Callable[[], None]) -> bool:
        group = item.pending.group
        for told, part in enumerate(group):
            if part.batch.shared and not part.batch.marks.claim(part.record, part.action, again):
                item.pending.cut(told)
                return told > 0
        return True

    def _untold(self, item: Item, attempt: Attempt) -> None:
        """The item stays here after all: nothing is to be told of it, unless an earlier attempt left a doubt."""
        for part in item.pending.group if len(item.pending) else ():
            if not item.trigger:
                if part.batch.shared:
                    part.batch.marks.unclaim(part.record, part.action)
            elif not attempt.in_doubt:
                part.batch.marks.clear(part.record, part.action)

    def _again(self, item: Item) -> None:
        if item.asleep and not item.out:
            item.asleep = False
            self._queue([item])

    # Sending

    def _admitted(self, key: Key, item: Item, attempt: Attempt) -> bool:
        """Whether the endpoint takes calls, or this one as a probe; else the item is parked and its slot given back."""
        endpoint = attempt.call.endpoint
        if self._gates.is_open(key.name, endpoint):
            return True
        if self._gates.probe(key.name, endpoint, self._clock.now()):
            item.probe = True
            return True
        key.quota.unsent(urgent=item.urgent, slot=item.slot)
        if item.held_since is None:
            item.held_since = self._clock.wall()
        self._gates.park(key.name, endpoint, item, item.held_since)
        return False

    def _too_late(self, key: Key, item: Item, attempt: Attempt) -> bool:
        if not self._is_too_late(attempt):
            return False
        self._unsent(key, item)
        self._replied(item, Reply(None, self._clock.now(), self._clock.wall()))
        return True

    def _is_too_late(self, attempt: Attempt) -> bool:
        return attempt.too_late(self._clock.now(), (self._meisa_clock if attempt.in_doubt else self._clock).wall())

    async def _send_told(self, key: Key, item: Item, attempt: Attempt) -> None:
        """Sends once a commit has told what it must; the slot of the quota is held meanwhile."""
        try:
            permitted = await self._told(item)
        except BaseException:
            self._unsent(key, item)
            raise
        if item.out or not len(item.pending):
            self._unsent(key, item)
            return
        if not permitted:
            self._unsent(key, item)
            self._untold(item, attempt)
            if not item.trigger:
                self._queue([item])  # what was not permitted has gone; the rest has not been asked for
            return
        if self.held or not self.may_leave() or not key.quota.leaves(item.slot) or self._has_run_out(item):
            self._unsent(key, item)
            self._untold(item, attempt)
            self._queue([item])
            return
        # Keeping the mark took time, perhaps an outage's: age and endpoint count at the moment of sending.
        if self._too_late(key, item, attempt):
            return
        if not (item.probe or self._admitted(key, item, attempt)):
            item.leaving = False
            self._untold(item, attempt)
            return
        item.in_flight = True
        await self._send(key, item, attempt)

    def _has_run_out(self, item: Item) -> bool:
        return self._clock.now() > item.slot.leave_by

    async def _told(self, item: Item) -> bool:
        if not len(item.pending):
            return False  # its partition went before this began
        if item.trigger:
            return await item.part.batch.marks.start(item.part.record, item.part.action)
        for part in tuple(item.newest()):
            await part.batch.marks.see(part.record)
        # Meanwhile a partition may have gone, and its contributions with it: what is left counts.
        return all(part.batch.marks.seen(part.record) for part in item.newest()) if len(item.pending) else False

    def _unsent(self, key: Key, item: Item) -> None:
        item.leaving = False
        key.quota.unsent(urgent=item.urgent, slot=item.slot)
        assert item.attempt is not None
        self._gates.unsent(key.name, item.attempt.call.endpoint, probe=item.probe)
        item.probe = False

    async def _send(self, key: Key, item: Item, attempt: Attempt) -> None:
        call = attempt.call
        if item.kind is Kind.UPSERT:
            # The attempt says what the contribution said for which it was planned; others joined, or that one went.
            call = call._replace(body=self._body(item))
        item.body = call.body
        departure = self._unchanged.departs(item, call)
        if departure is None or await self._unchanged.lasts(item):
            outcome, sent_wall = await self._call(key, item, call)
            self.watch.called((item,), call, outcome, sent_wall)
        else:
            outcome, sent_wall = UNLASTING, self._clock.wall()
            self._unsent(key, item)
        self._unchanged.ended(item, call, departure, outcome, sent_wall)
        item.in_flight = item.leaving = False
        self._replied(item, Reply(outcome, self._clock.now(), self._clock.wall(), self._meisa_clock.at(sent_wall)))
        self._wake_waiters()

    async def _send_together(self, key: Key, first: Item, call: Call, company: Company) -> None:
        """Makes one call in the first one's slot; each hears what became of it."""
        outcome, sent_wall = await self._call(key, first, call)
        self.watch.called(company.values(), call, outcome, sent_wall)
        if outcome.verdict is Verdict.DELIVERED:
            self._meter.saved("bulk", len(company) - 1)
        now, wall, sent_by_meisa = self._clock.now(), self._clock.wall(), self._meisa_clock.at(sent_wall)
        for item in company.values():
            item.in_flight = item.leaving = False
        for email, item in company.items():
            self._replied(item, Reply(share(item, email, outcome, len(company)), now, wall, sent_by_meisa))
        self._wake_waiters()

    async def _call(self, key: Key, item: Item, call: Call) -> tuple[Outcome, float]:
        """Makes a call in the item's slot and books it; returns what came of it, and when it left (wall)."""
        sent_now, sent_wall = self._clock.now(), self._clock.wall()
        try:
            outcome = await self._meisa.send(in_time(call, item.slot))
        except asyncio.CancelledError:
            key.quota.unanswered(self._clock.now(), item.slot)
            raise
        except Exception as error:
            # The port promises not to raise. If it does it is a bug, and the call may have been carried out.
            log.exception(
                "a call to Meisa failed in the bridge itself; it is treated as unanswered", call=call.endpoint
            )
            outcome = Outcome(Verdict.UNKNOWN, message=f"internal error: {type(error).__name__}")
        now = self._clock.now()
        self._book(key, call, item, outcome, now)
        self._meter.called(call.endpoint, status_label(outcome), now - sent_now)
        self._meisa_clock.observe(sent_wall, self._clock.wall(), outcome.date_wall_seconds)
        return outcome, sent_wall

    def _book(self, key: Key, call: Call, item: Item, outcome: Outcome, now: float) -> None:
        """What an answer means for its key and its endpoint."""
        quota = key.quota
        count(quota, outcome, now, urgent=item.urgent, slot=item.slot)
        verdict = outcome.verdict
        contact = item.ticket.keys[0] if item.ticket is not None and item.ticket.keys else str(item.sequence)
        probe, item.probe = item.probe, False
        if verdict is Verdict.THROTTLED and item.trigger and quota.has_room(now):
            # Our own count has room, so it is no quota but a sending guardrail: the contact's, or the endpoint's.
            seconds = outcome.retry_after_seconds
            if seconds is None:
                seconds = min(GUARDRAIL_SECONDS_MAX, 2.0**item.throttles)
            item.throttles = min(item.throttles + 1, 16)
            item.hold_until = now + seconds
            self._gates.guardrail(key.name, call.endpoint, contact, outcome, now, seconds, probe=probe)
            return
        wall = self._clock.wall()
        freed = self._gates.answered(key.name, call.endpoint, contact, outcome, now, wall, probe=probe)
        if verdict is Verdict.THROTTLED:
            until = quota.throttled(now, outcome.retry_after_seconds)
            log.info("Meisa throttles the key; its calls wait", key=key.name, seconds=round(until - now, 1))
        elif verdict is Verdict.KEY_REFUSED:
            if not key.refused:
                key.refused = True
                self.key_refused(key.name, outcome)
        elif verdict in (Verdict.DELIVERED, Verdict.REFUSED, Verdict.NEEDS_CONTACT):
            quota.accepted()
            item.throttles = 0
            item.held_since = None
            self._last_success[call.endpoint] = now
            self._queue(freed)
        elif verdict is Verdict.SCOPE_MISSING:
            if item.held_since is None:
                item.held_since = self._clock.wall()
            self._give_up_scope(key, call.endpoint, outcome, now)

    # Endpoints that are held (runtime/gates.py)

    def _queue(self, items: Iterable[Item]) -> None:
        """Parked or sleeping items are ready again: dispatch decides when they go."""
        for item in items:
            if not item.out and item.attempt is not None:
                self._wait(item, 0.0)
        self.wake()

    def _probe_endpoints(self, now: float) -> None:
        """Hands out the next probe of each held endpoint, and ends what has waited there for too long."""
        if self._gates.next_deadline() > now:
            return
        wall = self._clock.wall()
        for key, endpoint in self._gates.held():
            late = self._gates.unpark(
                key, endpoint, lambda item, _: item.attempt is not None and self._is_too_late(item.attempt)
            )
            for item in late:
                if not item.out:
                    self._replied(item, Reply(None, now, wall))
        self._queue(self._gates.due(now))

    def _give_up_scope(self, key: Key, endpoint: str, outcome: Outcome, now: float) -> None:
        """Lets those that have waited for the scope since `scope_wait` end with the answer that the probe got."""
        wall = self._clock.wall()
        missing_since = self._gates.scope_missing_since(key.name, endpoint)
        waited = self._gates.unpark(
            key.name, endpoint, lambda item, since: wall - max(since, missing_since) >= self._scope_wait_seconds
        )
        for item in waited:
            if not item.out:
                self._replied(item, Reply(outcome, now, wall, since_wall=wall - self._scope_wait_seconds))

    def succeeded_since(self, endpoint: str, now: float) -> bool:
        """Whether a call to the endpoint was answered well after that monotonic moment."""
        return self._last_success.get(endpoint, -1.0) > now

    # Life

    async def drained(
        self, in_flight: Callable[[frozenset[TopicPartition]], bool], of: frozenset[TopicPartition]
    ) -> None:
        """Returns once no call of these partitions is in flight."""
        if in_flight(of):
            future = asyncio.get_running_loop().create_future()
            self._waiters.append((lambda: in_flight(of), future))
            await future

    def _wake_waiters(self) -> None:
        if self._waiters:
            still = []
            for in_flight, future in self._waiters:
                if in_flight():
                    still.append((in_flight, future))
                elif not future.done():
                    future.set_result(None)
            self._waiters = still

    async def close(self) -> None:
        """Cancels the calls that are still in flight: their outcome stays unknown."""
        self.held = True
        if self._timer is not None:
            self._timer.cancel()
        calls = list(self._calls)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    # What status shows

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
        """Why work waits, each reason with its count of items."""
        now = self._clock.now()
        reasons = [
            Waiting(state.reason, state.parked, state.probe_at, f"{state.endpoint}: {state.message}")
            for state in self._gates.states()
        ]
        for key in self.keys.values():
            queued = len(key.dispatch) - key.dispatch.waiting
            braked = key.quota.braked_until(now)
            if key.quota.trouble:
                reasons.append(Waiting("shared_quota", queued, None, f"{key.name}: {key.quota.trouble}"))
            if key.dispatch.waiting:
                lingering = sum(item.lingers(now) for item in key.dispatch.not_yet())
                for reason, count_of in (("retry", key.dispatch.waiting - lingering), ("linger", lingering)):
                    if count_of:
                        reasons.append(Waiting(reason, count_of, key.dispatch.next_deadline(), key.name))
            if not queued:
                continue
            if key.refused:
                reasons.append(Waiting("key_refused", queued, None, key.name))
            elif key.quota.trouble:
                pass  # said
            elif braked is not None:
                reasons.append(Waiting("throttled", queued, braked, key.name))
            else:
                lanes = key.dispatch.ready_lanes()
                at = min(key.quota.earliest(now, urgent=lane == Lane.TRANSACTIONAL) for lane in lanes)
                if key.quota.none_owned:
                    reasons.append(Waiting("quota_share", queued, None, f"{key.name}: none of it is ours"))
                elif at > now:
                    reasons.append(Waiting("quota", queued, at, f"{key.name}{_given_way(key.quota, now)}"))
        return reasons


def _given_way(quota: Quota, now: float) -> str:
    """Why calls wait although the limit has room, for status."""
    less = quota.yields(now)
    if less is None:
        return ""
    return (
        f": at most {less.limit:,} of its calls in {less.seconds:g} s for now, for Meisa answered 429 "
        "while the quota had room; does somebody else use this key?"
    )
