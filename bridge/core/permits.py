"""One API key's quota, counted by a ledger that all instances of a group ask: what is in hand here, what is told back.

The theory
    A ledger (ports.Ledger: Redis) knows all calls of the key, and grants permits in one step with counting them. So no
    window is exceeded, however many instances ask. A permit counts like a call that is under way: until its end is
    told, or `hold_seconds` after it was given and a window more, whatever becomes of its owner. That is long enough
    because a call leaves at most USE_SECONDS after its permit was *asked for* (`Slot.leave_by`, looked at again right
    before the first byte), takes at most the timeout, and without an answer may be under way `unanswered_seconds` more.

    Asking takes time, and whoever wants to send is asked here at once: so a call that finds no permit says that it
    wants one (`untold`), the driver (runtime/permissions.py) asks the ledger, and its answer wakes the dispatch.
    What stands in hand unused goes back after KEEP_SECONDS.

Rules that never break
    1. A call leaves only with a permit, each permit lets one call leave, and none leaves after `leave_by`.
    2. A permit for a call that is not urgent may be used by an urgent one, never the other way round.
    3. What may have been granted by an answer that did not come is told as never sent; what was not told is told again.
    4. After a denial the ledger is not asked before the moment that it named; in trouble, RETRY_SECONDS apart.

The bounds
    At most `AHEAD_SHARE` of the smallest limit is asked for at once, AHEAD_MAX at most: it doubles from 1 while all of
    it is granted, and one who dies or idles withholds little. What is not told is forgotten once its permit counts as
    ended anyhow: so at most a limit's worth of ends, and what was asked for in vain in that time, one each time.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from bridge.core.quota import AHEAD_TELLING, FULL_SHARE, NEVER, Quota, Slot, WindowUse
from bridge.core.window import CATCH_UP_SHARE, GAPS, GIVE_WAY, PARTS, RECOVERY_SHARE
from bridge.ports import Ask, Brake, CountedWindow, EndOfCall, Granted, PaceRules

USE_SECONDS = 10.0
"""A call may wait so long with its permit: for the commit that a trigger needs, for instance."""
KEEP_SECONDS = 1.0
TELL_SECONDS = 0.5
"""For which ends are gathered: each carries its own age, so others lose nothing by it."""
LOOK_SECONDS = 5.0
"""Between questions where nothing else is to be asked: status shows what others use, and trouble shows early."""
AGAIN_SECONDS = 0.02
"""After a denial at least: ledgers and clocks round."""
RETRY_SECONDS, RETRY_SECONDS_MAX = 0.1, 5.0
AHEAD_SHARE = 0.02
AHEAD_MAX = 32
COMMON, URGENT = False, True
LOST = "the ledger had lost what was used"


RULES = PaceRules(PARTS, GAPS, CATCH_UP_SHARE, GIVE_WAY, RECOVERY_SHARE, FULL_SHARE, AHEAD_TELLING)


class Permit(Slot):
    __slots__ = ("given_at", "leave_by", "name", "urgent")

    def __init__(self, name: str, *, urgent: bool, given_at: float, leave_by: float) -> None:
        self.name = name
        self.urgent = urgent
        self.given_at = given_at
        self.leave_by = leave_by


class Permits(Quota):
    """The quota of one API key as this instance knows it. `member` is a name that no other instance ever has."""

    def __init__(
        self,
        limits: Sequence[tuple[int, float]],
        *,
        reserve: float = 0.0,
        unanswered_seconds: float = 60.0,
        timeout_seconds: float = 10.0,
        member: str,
    ) -> None:
        super().__init__(limits, reserve=reserve, unanswered_seconds=unanswered_seconds)
        self._counted = tuple(CountedWindow(window.limit, window.seconds, window.spare) for window in self._windows)
        self._hold_seconds = USE_SECONDS + timeout_seconds + unanswered_seconds
        self._member = member
        self._numbers = 0
        self._ledger_key = ""
        self._hand: dict[bool, deque[Permit]] = {COMMON: deque(), URGENT: deque()}
        self._ended_calls: deque[tuple[str, float, float | None]] = deque()
        """Permit, when this was noted, and when the call counts as ended: None where it never left."""
        self._brake: tuple[float, float | None] | None = None
        """Until when, and the wait that was asked for: what the ledger does not know yet."""
        self._brake_asked: tuple[float, float | None] | None = None
        self._wanted = {COMMON: False, URGENT: False}
        self._worth_at = {COMMON: -math.inf, URGENT: -math.inf}
        self._ahead = {COMMON: 1, URGENT: 1}
        self._ahead_max = min(AHEAD_MAX, max(1, math.ceil(min(limit for limit, _ in limits) * AHEAD_SHARE)))
        self._asked_at = -math.inf
        self._asked: Ask | None = None
        self._retry_seconds = RETRY_SECONDS
        self._retry_at = -math.inf
        self._failing = False
        self._used = tuple(0 for _ in limits)
        self._most = tuple(limit for limit, _ in limits)
        self.lost_seconds = 0.0
        """Above 0 where calls wait because the ledger had lost what was used."""

    # Calls

    def acquire(self, now: float, *, urgent: bool = False) -> bool:
        """Takes a permit for a call that leaves now; False where there is none: then it is wanted."""
        if now < self._braked_until:
            return False
        permit = self._first(now, urgent)
        if permit is None:
            self._want(now, urgent)
            return False
        self._hand[permit.urgent].popleft()
        self.in_flight += 1
        self.slot = permit
        return True

    def _first(self, now: float, urgent: bool) -> Permit | None:
        # An urgent call's own permit first: nobody else may use that one.
        for kind in (URGENT, COMMON) if urgent else (COMMON,):
            hand = self._hand[kind]
            while hand and hand[0].leave_by <= now:
                self._ended_calls.append((hand.popleft().name, now, None))
            if hand:
                return hand[0]
        return None

    def _want(self, now: float, urgent: bool) -> None:
        self._wanted[urgent] = True
        if self._asked is None and now >= self._worth_at[urgent]:
            self.untold = True

    def has_room(self, now: float) -> bool:
        """As in Quota, by what the ledger said last."""
        return all(used < most for used, most in zip(self._used, self._most, strict=True))

    def unsent(self, *, urgent: bool = False, slot: Slot | None = None) -> None:
        assert isinstance(slot, Permit)
        self.in_flight -= 1
        self._hand[slot.urgent].appendleft(slot)

    def answered(self, now: float, slot: Slot | None = None) -> None:
        self._ends(now, now, slot)

    def unanswered(self, now: float, slot: Slot | None = None) -> None:
        self._ends(now, now + self.unanswered_seconds, slot)

    def _ends(self, now: float, at: float, slot: Slot | None) -> None:
        assert isinstance(slot, Permit)
        self.in_flight -= 1
        self._ended_calls.append((slot.name, now, at))

    def throttled(self, now: float, retry_after_seconds: float | None) -> float:
        """As in Quota; all other instances hear of it."""
        first = now >= self._braked_until
        until = super().throttled(now, retry_after_seconds)
        self._brake = (until, (retry_after_seconds or 0.0) if first else None)
        self.untold = True
        return until

    def _give_way(self, now: float, wait_seconds: float) -> None:
        """The ledger does it, which knows what all have used."""

    def earliest(self, now: float, *, urgent: bool = False) -> float:
        """As in Quota; NEVER where only an answer of the ledger is missing, which wakes whoever waits."""
        if self._first(now, urgent) is not None:
            return max(now, self._braked_until)
        at = max(self._braked_until, self._worth_at[urgent])
        if at > now:
            return at
        self._want(now, urgent)
        return NEVER

    def snapshot(self, now: float) -> tuple[WindowUse, ...]:
        """What all instances together use, as the ledger said last."""
        return tuple(
            WindowUse(window.seconds, window.limit, used)
            for window, used in zip(self._counted, self._used, strict=True)
        )

    # The ledger

    def next_deadline(self) -> float:
        """When it is to be asked next; NEVER while its answer is awaited."""
        if self._asked is not None:
            return NEVER
        if self._failing:
            return self._retry_at
        wanted = [self._worth_at[kind] for kind in (COMMON, URGENT) if self._wanted[kind]]
        unused = [hand[0].given_at + KEEP_SECONDS for hand in self._hand.values() if hand]
        told = [self._ended_calls[0][1] + TELL_SECONDS] if self._ended_calls else []
        brake = [self._asked_at] if self._brake is not None else []
        return min([*wanted, *unused, *told, *brake, self._asked_at + LOOK_SECONDS])

    def ask(self, now: float, ledger_key: str, *, first_use: bool) -> Ask:
        """The question. `ledger_key` is another one once the API key is: what was granted for the former is void."""
        assert self._asked is None, "one question at a time"
        self.untold = False
        if ledger_key != self._ledger_key:
            self._ledger_key = ledger_key
            self._ended_calls.clear()
            for hand in self._hand.values():
                hand.clear()
        self._give_back(now)
        while self._ended_calls and self._ended_calls[0][1] + self._hold_seconds <= now:
            self._ended_calls.popleft()
        brake = None
        if self._brake is not None:
            until, wait = self._brake
            brake = Brake(max(0.0, until - now), wait)
        self._brake_asked = self._brake
        self._asked_at = now
        self._asked = Ask(
            self._counted,
            RULES,
            self._names(URGENT, now),
            self._names(COMMON, now),
            tuple(EndOfCall(name, None if at is None else now - at) for name, _, at in self._ended_calls),
            brake,
            self._hold_seconds,
            first_use,
        )
        return self._asked

    def _give_back(self, now: float) -> None:
        for kind, hand in self._hand.items():
            while hand and hand[0].given_at + KEEP_SECONDS <= now:
                self._ended_calls.append((hand.popleft().name, now, None))
                self._ahead[kind] = 1

    def _names(self, urgent: bool, now: float) -> tuple[str, ...]:
        if not self._wanted[urgent] or now < self._worth_at[urgent]:
            return ()
        self._wanted[urgent] = False
        first = self._numbers
        self._numbers += self._ahead[urgent]
        return tuple(f"{self._member}.{number}{'u' if urgent else 'c'}" for number in range(first, self._numbers))

    def granted(self, now: float, answer: Granted) -> None:
        """The answer to the last question."""
        asked, self._asked = self._asked, None
        assert asked is not None
        self.trouble = LOST if answer.lost_seconds > 0 else ""
        self._failing = False
        self._retry_seconds = RETRY_SECONDS
        for _ in asked.ended:
            self._ended_calls.popleft()
        if self._brake is self._brake_asked:
            self._brake = None
        if answer.brake_seconds > 0:
            self._braked_until = max(self._braked_until, now + answer.brake_seconds)
        self._used, self._most = answer.used, answer.most
        self.lost_seconds = answer.lost_seconds
        for kind, names, count, wait in (
            (URGENT, asked.urgent, answer.urgent, answer.wait_urgent_seconds),
            (COMMON, asked.common, answer.common, answer.wait_common_seconds),
        ):
            for name in names[:count]:
                self._hand[kind].append(Permit(name, urgent=kind, given_at=now, leave_by=self._asked_at + USE_SECONDS))
            if count < len(names):
                self._ahead[kind] = 1
                self._worth_at[kind] = now + max(AGAIN_SECONDS, wait)
            elif names:
                self._ahead[kind] = min(self._ahead_max, 2 * self._ahead[kind])

    def failed(self, now: float, trouble: str) -> None:
        """The last question was not answered."""
        asked, self._asked = self._asked, None
        assert asked is not None
        self.trouble = trouble
        self._failing = True
        self._ended_calls.extend((name, now, None) for name in asked.urgent + asked.common)
        self._retry_at = now + self._retry_seconds
        for kind in (COMMON, URGENT):
            self._ahead[kind] = 1
            self._worth_at[kind] = self._retry_at
            self._wanted[kind] = self._wanted[kind] or bool(asked.urgent if kind else asked.common)
        self._retry_seconds = min(self._retry_seconds * 2, RETRY_SECONDS_MAX)

    def leave(self, now: float) -> None:
        """The instance ends: everything in hand is to go back."""
        for hand in self._hand.values():
            self._ended_calls.extend((permit.name, now, None) for permit in hand)
            hand.clear()
        self._wanted = {COMMON: False, URGENT: False}
