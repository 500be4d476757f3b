"""What goes wrong. Each kind is a cycle that is repeated until all events are committed: work a while, then a fault."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from tests.support.chaos.fleet import START_SECONDS_MAX, Fleet, Member, Stalled
from tests.support.chaos.proxy import Proxy


class Done(Exception):
    """All events are committed."""


class Trouble:
    """Injects faults into a fleet and counts them. Everything random comes from the seed."""

    def __init__(self, fleet: Fleet, dice: random.Random, work_seconds: tuple[float, float]) -> None:
        self.fleet = fleet
        self.dice = dice
        self._work_seconds = work_seconds
        self.count: Counter[str] = Counter()
        self.frozen: list[tuple[str, int, int]] = []
        """A frozen bridge's name, and the calls of all when it was frozen and when it woke."""
        self.timeline: list[tuple[int, str]] = []
        """The calls in the ledger, and what was done then."""

    def did(self, fault: str, times: int = 1) -> None:
        self.count[fault] += times
        self.timeline.append((self.fleet.calls(), fault))

    # Time

    def work(self) -> None:
        """Lets calls be made, then some seconds more. Raises Done when the work is done."""
        since = self.fleet.calls()
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self.fleet.work_is_done(since):
            self.look()
            if time.monotonic() > deadline:
                raise Stalled(self.fleet.story(f"no call was made for {START_SECONDS_MAX:g} s after a fault"))
            time.sleep(0.05)
        self.wait(self.dice.uniform(*self._work_seconds))

    def wait(self, seconds: float) -> None:
        """Raises Done when the work is done."""
        end = time.monotonic() + seconds
        while True:
            self.look()
            left = end - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(0.2, left))

    def look(self) -> None:
        self.fleet.look_after()
        if self.fleet.finished():
            raise Done

    def _some(self) -> Member:
        return self.dice.choice(self.fleet.members)

    # Faults

    def kill(self) -> None:
        """kill -9, restarted at once."""
        self.fleet.crash(self._some())
        self.fleet.spawn()
        self.did("kill -9")

    def restart(self) -> None:
        """SIGTERM, and the next one when it has ended."""
        self.fleet.terminate(self._some())
        self.fleet.spawn()
        self.did("SIGTERM")

    def kill_and_forget(self) -> None:
        """kill -9; Meisa forgets all idempotency keys before the next one starts, and the bridge's window is over."""
        self.fleet.crash(self._some())
        time.sleep(FORGETFUL_WINDOW_SECONDS + 1.0)
        self.fleet.sandbox.post("clock", advance_seconds=3601)
        self.fleet.spawn()
        self.did("kill -9, keys forgotten")

    def join_or_leave(self) -> None:
        """A further member, of at most three, or one fewer, of at least one."""
        running = len(self.fleet.members)
        if running == 1 or (running == 2 and self.dice.random() < 0.5):
            self.fleet.spawn()
            self.did("join")
        else:
            self.fleet.terminate(self._some())
            self.did("leave")

    def freeze(self) -> None:
        """SIGSTOP for longer than the session timeout, then SIGCONT."""
        victim = self._some()
        victim.freeze()
        self.fleet.remember(crash=True)
        frozen_at = self.fleet.calls()
        try:
            self.wait(self.fleet.kafka.session_seconds + self.dice.uniform(1.5, 2.5))
        finally:
            self.fleet.remember(crash=False)
            woke_at = self.fleet.calls()
            victim.thaw()
            self.frozen.append((victim.name, frozen_at, woke_at))
            self.did("SIGSTOP")

    def restart_broker(self, kill: bool | None = None) -> None:
        kill = self.dice.random() < 0.5 if kill is None else kill
        self.fleet.kafka.stop(kill=kill)
        self.did("broker SIGKILL" if kill else "broker SIGTERM")
        time.sleep(self.dice.uniform(0.0, 2.0))
        self.fleet.kafka.start()

    def _ways(self) -> list[Proxy]:
        """Half of the time all bridges' ways to Kafka, else one bridge's."""
        proxies = self.fleet.kafka.proxies
        return proxies if self.dice.random() < 0.5 else [proxies[self._some().door]]

    def cut(self) -> None:
        """Connections to Kafka are reset, some times in a row."""
        ways = self._ways()
        for _ in range(self.dice.randint(1, 3)):
            self.did("connections cut", sum(way.cut() for way in ways))
            time.sleep(self.dice.uniform(0.05, 0.4))

    def stall(self) -> None:
        """Connections stay, nothing gets through; half of the time for longer than the session timeout."""
        session = self.fleet.kafka.session_seconds
        seconds = self.dice.choice((session * self.dice.uniform(0.2, 0.6), session + self.dice.uniform(1.5, 3.0)))
        ways = self._ways()
        for way in ways:
            way.stall()
        self.did("stall")
        try:
            self.wait(seconds)
        finally:
            self.fleet.remember(crash=True)
            drop = self.dice.random() < 0.5
            for way in ways:
                if drop:
                    way.cut()  # what was held back is lost
                way.flow()

    def cut_off(self) -> None:
        """One bridge is alone on its side for longer than the session timeout; another takes its partitions over."""
        way = self.fleet.kafka.proxies[self._some().door]
        way.stall()
        self.did("cut off")
        try:
            self.wait(self.fleet.kafka.session_seconds + self.dice.uniform(2.0, 4.0))
        finally:
            self.fleet.remember(crash=True)
            way.flow()

    def refuse(self) -> None:
        """No way to Kafka for some seconds."""
        ways = self._ways()
        for way in ways:
            way.refuse()
        self.did("refusal")
        try:
            self.wait(self.dice.uniform(1.0, self.fleet.kafka.session_seconds + 2.0))
        finally:
            self.fleet.remember(crash=True)
            for way in ways:
                way.accept()

    def network(self) -> None:
        self.dice.choice((self.cut, self.stall, self.refuse))()

    def bad_answers(self) -> None:
        """Shares of calls go wrong in each way from here on."""
        if not self.count["rates"]:
            self.fleet.faults(
                error_rate=0.02,
                error_after_rate=0.01,
                cut_rate=0.01,
                cut_before_rate=0.01,
                throttle_rate=0.0005,
                hang_rate=0.001,
                hang_seconds=5.0,
            )
        self.count["rates"] = 1

    def outage(self) -> None:
        """For seconds no call is carried out, or each one is and says nothing, or all are slow."""
        self.bad_answers()
        rule: Mapping[str, object] = self.dice.choice(
            (
                {"status": 503},
                {"cut": "before"},
                {"cut": "after"},
                {"status": 500, "carry_out": True},
                {"latency_ms": 700},
            )
        )
        self.fleet.clear_faults()
        self.fleet.faults(rules=[dict(rule)])
        self.did("outage")
        try:
            self.wait(self.dice.uniform(1.0, 3.0))
        finally:
            self.fleet.clear_faults()
            self.count["rates"] = 0
            self.bad_answers()

    def anything(self) -> None:
        faults: list[Callable[[], None]] = [self.kill, self.restart, self.freeze, self.restart_broker]
        faults += [self.network, self.network, self.join_or_leave, self.join_or_leave, self.outage]
        self.dice.choice(faults)()


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault, how many bridges run, and what it may bring about."""

    title: str
    cycle: Callable[[Trouble], None]
    members: int = 1
    repeats: str = "untold"
    """Which calls may come again: none | unanswered (the API lost the answer) | untold (no commit told of them)."""
    meisa: str = ""
    """More lines for the configuration's `meisa`."""
    crashes: bool = False
    """Its faults are moments, at which it is known what no commit had told."""
    rates: bool = False
    """The API misbehaves all the time."""


FORGETFUL_WINDOW_SECONDS: Final = 3.0

KINDS: Final[Mapping[str, Kind]] = {
    "kill": Kind("`kill -9`, restarted at once", Trouble.kill, crashes=True),
    "restart": Kind("planned restarts (SIGTERM)", Trouble.restart, repeats="none"),
    "members": Kind("members join and leave (1 to 3)", Trouble.join_or_leave, repeats="none"),
    "freeze": Kind("SIGSTOP beyond the session timeout (2 members)", Trouble.freeze, members=2, crashes=True),
    "broker": Kind("broker restarts (SIGTERM, SIGKILL)", Trouble.restart_broker, members=2),
    "network": Kind("connections to Kafka cut, stalled, refused", Trouble.network, members=2),
    "cutoff": Kind("one of two cut off beyond the session timeout", Trouble.cut_off, members=2),
    "meisa": Kind("Meisa: cut answers, 5xx, 429, hangs, outages", Trouble.outage, repeats="unanswered", rates=True),
    "forget": Kind(
        "`kill -9`, and Meisa forgets its idempotency keys",
        Trouble.kill_and_forget,
        crashes=True,
        meisa=f"  idempotency_window: {FORGETFUL_WINDOW_SECONDS:g}s\n  timeout: 2s",
    ),
    "mixed": Kind("all of these, mixed (1 to 3 members)", Trouble.anything, members=2, rates=True),
}
