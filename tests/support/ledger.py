"""A ledger of the shared quota that lives in memory: what Redis does in a script, done naively, and by the core's own
window where that says how calls are paced and what a neighbour is given.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from bridge.core.permits import RULES
from bridge.core.quota import yielding
from bridge.core.window import Window
from bridge.errors import LedgerFailed
from bridge.ports import Ask, CountedWindow, Granted

MINUTE_AND_HOUR = (CountedWindow(60, 60.0, 0), CountedWindow(1000, 3600.0, 0))
HOLD = 80.0


def question(
    windows: tuple[CountedWindow, ...] = MINUTE_AND_HOUR,
    *,
    urgent: tuple[str, ...] = (),
    common: tuple[str, ...] = (),
    **more: object,
) -> Ask:
    """An ask of a group that is not new."""
    return Ask(windows, RULES, urgent, common, (), None, HOLD, False)._replace(**more)  # type: ignore[arg-type]


@dataclass
class _Pace:
    next_at: float = 0.0
    gap: float = 0.0
    gap_until: float = 0.0
    paced: int = 0


@dataclass
class _Key:
    ends: dict[str, float] = field(default_factory=dict)
    pace: dict[int, _Pace] = field(default_factory=lambda: defaultdict(_Pace))
    ceilings: dict[int, tuple[float, float]] = field(default_factory=dict)
    brake: float = 0.0
    ahead: float = 0.0
    burst: float = math.inf
    last: float = 0.0


class MemoryLedger:
    """See `ports.Ledger`. `emptied`, `restarted` and `evicted` are the misfortunes of a Redis."""

    where = "memory"

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._keys: dict[str, _Key] = {}
        self._begun = False
        self._restarted = False
        self._last = 0.0
        self._gap, self._gaps = 0.0, 0
        self._lost_end = -math.inf
        self.trouble = ""
        self.asked = 0

    def emptied(self) -> None:
        self.__init__(self._now)  # type: ignore[misc]

    def restarted(self) -> None:
        self._restarted = True

    def evicted(self, key: str) -> None:
        self._keys[key].ends.clear()
        self._keys[key].last = math.inf  # known, and nothing of it is there

    async def probe(self) -> None:
        if self.trouble:
            raise LedgerFailed(self.trouble)

    async def close(self) -> None:
        pass

    async def ask(self, key: str, ask: Ask) -> Granted:
        self.asked += 1
        if self.trouble:
            raise LedgerFailed(self.trouble)
        return self.answer(key, ask)

    def answer(self, key: str, ask: Ask) -> Granted:
        now = self._now()
        windows = ask.windows
        longest = max(window.seconds for window in windows)
        self._notice(now, key, ask, longest)
        each = self._keys.setdefault(key, _Key(last=now))
        view = _View(self, each, windows, now)
        each.ahead = max(0.0, each.ahead - (now - each.last) * view.even)
        for end in ask.ended:
            if end.permit not in each.ends:
                continue
            if end.ago_seconds is not None:
                each.ends[end.permit] = min(each.ends[end.permit], now - end.ago_seconds)
                continue
            del each.ends[end.permit]
            each.ahead = max(0.0, each.ahead - 1)
            if end.permit.endswith("c"):
                for i in range(len(windows)):
                    each.pace[i].next_at -= each.pace[i].gap
        if ask.brake is not None:
            if ask.brake.wait_seconds is not None and now >= each.brake:
                view.learn(ask.brake.wait_seconds)
            each.brake = max(each.brake, now + ask.brake.seconds)
        urgent, wait_urgent = view.grant(ask.urgent, ask.hold_seconds, urgent=True)
        common, wait_common = view.grant(ask.common, ask.hold_seconds, urgent=False)
        each.last = self._last = now
        return Granted(
            urgent,
            common,
            wait_urgent,
            wait_common,
            tuple(window.used(now) for window in view.core()),
            tuple(window.most(now) for window in view.core()),
            max(0.0, each.brake - now),
            view.lost_seconds(),
        )

    def _notice(self, now: float, key: str, ask: Ask, longest: float) -> None:
        gap = None
        known = self._keys.get(key)
        if not self._begun:
            gap = None if ask.first_use else 1e15
        elif self._restarted:
            gap = max(0.0, now - self._last)
        if self._begun and known is not None and known.last == math.inf:
            gap = 1e15
        if gap is not None:
            if now >= self._lost_end + longest:
                self._gap, self._gaps = 0.0, 0
            self._gap, self._gaps = self._gap + gap, self._gaps + 1
            self._lost_end = now + ask.hold_seconds
        self._begun, self._restarted = True, False

    def lost(self, now: float, window: CountedWindow, windows: tuple[CountedWindow, ...]) -> int:
        if now >= self._lost_end + window.seconds:
            return 0
        return min([window.limit, *(each.limit * (int(self._gap // each.seconds) + self._gaps) for each in windows)])


class _View:
    """One key's windows at one moment."""

    def __init__(self, ledger: MemoryLedger, key: _Key, windows: tuple[CountedWindow, ...], now: float) -> None:
        self.ledger, self.key, self.windows, self.now = ledger, key, windows, now
        shortest = min(windows, key=lambda window: window.seconds)
        self.even = shortest.limit / shortest.seconds

    def core(self) -> list[Window]:
        """The core's windows with what counts now."""
        made = []
        for i, each in enumerate(self.windows):
            window = Window(each.limit, each.seconds, 0.0)
            window.spare = each.spare
            if i in self.key.ceilings:
                window._ceiling, window._ceiling_at = self.key.ceilings[i]
            for end in self.key.ends.values():
                if end + each.seconds > self.now:
                    window.remember(end, 1)
            if self.lost(i):
                window.remember(self.ledger._lost_end, self.lost(i))
            made.append(window)
        return made

    def lost(self, i: int) -> int:
        return self.ledger.lost(self.now, self.windows[i], self.windows)

    def lost_seconds(self) -> float:
        full = [i for i, each in enumerate(self.core()) if self.lost(i) and each.used(self.now) >= each.most(self.now)]
        return max([self.ledger._lost_end + self.windows[i].seconds - self.now for i in full], default=0.0)

    def learn(self, wait_seconds: float) -> None:
        key = self.key
        if key.ahead >= RULES.ahead_telling and wait_seconds <= math.ceil(1 / self.even):
            key.ahead -= 1
            key.burst = max(1.0, min(key.burst, key.ahead / 2))
            return
        core = self.core()
        yields = yielding(core, self.now, wait_seconds)
        yields.give_way(self.now)
        key.ceilings[core.index(yields)] = (yields._ceiling, yields._ceiling_at)

    def fits(self, urgent: bool) -> bool:
        if self.now < self.key.brake or self.key.ahead + 1 - self.key.burst > 1e-9:
            return False
        paced = urgent or all(self.key.pace[i].next_at <= self.now for i in range(len(self.windows)))
        return paced and all(window.room(self.now, urgent) for window in self.core())

    def grant(self, names: tuple[str, ...], hold_seconds: float, *, urgent: bool) -> tuple[int, float]:
        for number, name in enumerate(names):
            if not self.fits(urgent):
                return number, self.wait(urgent)
            self.key.ends[name] = self.now + hold_seconds
            self.key.ahead += 1
            if not urgent:
                self.keep_pace()
        return len(names), 0.0

    def keep_pace(self) -> None:
        for i, window in enumerate(self.core()):
            if window.spare:
                pace = self.key.pace[i]
                pace.paced += 1
                if pace.paced * RULES.gaps >= window.limit or self.now >= pace.gap_until:
                    pace.gap, pace.paced = window._gap_after(self.now), 0
                    pace.gap_until = self.now + window.seconds / RULES.gaps
                pace.next_at = max(pace.next_at, self.now - window.seconds * RULES.catch_up_share) + pace.gap

    def wait(self, urgent: bool) -> float:
        now = self.now
        at = max(now, self.key.brake)
        if self.key.burst < math.inf:
            at = max(at, now + (self.key.ahead + 1 - self.key.burst) / self.even)
        for i, window in enumerate(self.core()):
            most = window.most(now)
            kept = 0 if urgent else window.kept(most)
            over = window.used(now) + 1 - most + kept
            if over > 0:
                ends = sorted(end for end in self.key.ends.values() if end + window.seconds > now)
                frees = [min(end, now) + window.seconds for end in ends[over - 1 : over]]
                if self.lost(i):
                    frees.append(self.ledger._lost_end + window.seconds)
                if most < window.limit:
                    ceiling, since = self.key.ceilings[i]
                    lengths = math.cbrt((most + 1 - ceiling) / (window.limit * RULES.recovery_share))
                    frees.append(since + lengths * window.seconds)
                at = max(at, min(frees))
            if not urgent:
                at = max(at, self.key.pace[i].next_at)
        return at - now
