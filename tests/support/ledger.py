"""A ledger of the shared quota that lives in memory: what Redis does in a script, done naively."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from bridge.errors import LedgerFailed
from bridge.ports import Ask, CountedWindow, Granted
from bridge.state.ledger import GIVE_WAY, RECOVERY_SHARE

MINUTE_AND_HOUR = (CountedWindow(60, 60.0, 0, 1.0, 0.0), CountedWindow(1000, 3600.0, 0, 1.0, 0.0))
HOLD = 80.0


def question(
    windows: tuple[CountedWindow, ...] = MINUTE_AND_HOUR,
    *,
    urgent: tuple[str, ...] = (),
    common: tuple[str, ...] = (),
    **more: object,
) -> Ask:
    """An ask of a group that is not new."""
    return Ask(windows, urgent, common, (), None, HOLD, False)._replace(**more)  # type: ignore[arg-type]


@dataclass
class _Key:
    ends: dict[str, float] = field(default_factory=dict)
    tokens: list[float] = field(default_factory=list)
    filled: float = 0.0
    ceilings: dict[int, tuple[float, float]] = field(default_factory=dict)
    brake: float = 0.0
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
        each = self._keys.setdefault(key, _Key(filled=now))
        each.tokens = each.tokens or [window.burst for window in windows]
        each.tokens = [
            min(window.burst, tokens + max(0.0, now - each.filled) * window.rate)
            for window, tokens in zip(windows, each.tokens, strict=True)
        ]
        each.filled = max(now, each.filled)
        for end in ask.ended:
            if end.permit not in each.ends:
                continue
            if end.ago_seconds is not None:
                each.ends[end.permit] = min(each.ends[end.permit], now - end.ago_seconds)
                continue
            del each.ends[end.permit]
            if end.permit.endswith("c"):
                each.tokens = [
                    min(window.burst, tokens + 1) for window, tokens in zip(windows, each.tokens, strict=True)
                ]
        view = _View(self, each, windows, now)
        if ask.brake is not None:
            if (
                ask.brake.window is not None
                and now >= each.brake
                and all(view.used(i) < view.most(i) for i in range(len(windows)))
            ):
                i = ask.brake.window
                each.ceilings[i] = (min(view.most(i), max(1.0, view.used(i) * GIVE_WAY)), now)
            each.brake = max(each.brake, now + ask.brake.seconds)
        urgent, wait_urgent = view.grant(ask.urgent, ask.hold_seconds, urgent=True)
        common, wait_common = view.grant(ask.common, ask.hold_seconds, urgent=False)
        each.last = self._last = now
        return Granted(
            urgent,
            common,
            wait_urgent,
            wait_common,
            tuple(view.used(i) for i in range(len(windows))),
            tuple(view.most(i) for i in range(len(windows))),
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

    def lost_seconds(self) -> float:
        full = [i for i in range(len(self.windows)) if self.lost(i) and self.used(i) >= self.most(i)]
        return max([self.ledger._lost_end + self.windows[i].seconds - self.now for i in full], default=0.0)

    def counting(self, i: int) -> list[float]:
        return sorted(end for end in self.key.ends.values() if end > self.now - self.windows[i].seconds)

    def lost(self, i: int) -> int:
        return self.ledger.lost(self.now, self.windows[i], self.windows)

    def used(self, i: int) -> int:
        return len(self.counting(i)) + self.lost(i)

    def most(self, i: int) -> int:
        limit = self.windows[i].limit
        if i not in self.key.ceilings:
            return limit
        ceiling, since = self.key.ceilings[i]
        risen = ceiling + limit * RECOVERY_SHARE * (self.now - since) / self.windows[i].seconds
        return limit if risen >= limit else max(1, int(risen))

    def kept(self, i: int, urgent: bool) -> int:
        return 0 if urgent else max(0, min(self.windows[i].spare, self.most(i) - 1))

    def fits(self, urgent: bool) -> bool:
        if self.now < self.key.brake:
            return False
        for i, window in enumerate(self.windows):
            if self.used(i) >= self.most(i) - self.kept(i, urgent):
                return False
            if not urgent and window.burst > 0 and self.key.tokens[i] < 1 - 1e-6:
                return False
        return True

    def grant(self, names: tuple[str, ...], hold_seconds: float, *, urgent: bool) -> tuple[int, float]:
        for number, name in enumerate(names):
            if not self.fits(urgent):
                return number, self.wait(urgent)
            self.key.ends[name] = self.now + hold_seconds
            if not urgent:
                self.key.tokens = [tokens - 1 for tokens in self.key.tokens]
        return len(names), 0.0

    def wait(self, urgent: bool) -> float:
        at = max(self.now, self.key.brake)
        for i, window in enumerate(self.windows):
            over = self.used(i) + 1 - self.most(i) + self.kept(i, urgent)
            if over > 0:
                frees = [min(end, self.now) + window.seconds for end in self.counting(i)[over - 1 : over]]
                if self.lost(i):
                    frees.append(self.ledger._lost_end + window.seconds)
                if self.most(i) < window.limit:
                    ceiling, since = self.key.ceilings[i]
                    rate = window.limit * RECOVERY_SHARE / window.seconds
                    frees.append(since + (self.most(i) + 1 - ceiling) / rate)
                at = max(at, min(frees))
            if not urgent and window.burst > 0 and self.key.tokens[i] < 1:
                at = max(at, self.now + (1 - self.key.tokens[i]) / window.rate)
        return at - self.now
