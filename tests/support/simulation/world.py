"""What everything imagined shares: the clock, the dice, the trace, and the first promise that was broken."""

import asyncio
import hashlib
import random
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any

from tests.support.simulation.scenario import Scenario
from tests.support.virtual import PROCESS, Process, VirtualClock, VirtualLoop

TRACE_MAX = 400
"""The last events of a run, for whoever reads a failure."""


class PromiseBroken(AssertionError):
    """A promise of the delivery, by its number, and how it was broken."""

    def __init__(self, promise: str, text: str) -> None:
        self.promise = promise
        super().__init__(f"{promise}: {text}")


class World:
    def __init__(self, scenario: Scenario, loop: VirtualLoop) -> None:
        self.scenario = scenario
        self.loop = loop
        self.clock = VirtualClock()
        self.faults_on = True
        self.over = False
        self.broken: PromiseBroken | None = None
        self.failed: asyncio.Future[None] = loop.create_future()
        self.steps = 0
        self.last_effect = 0.0
        """When something was last achieved anywhere, for liveness."""
        self.trace: deque[tuple[float, str, str]] = deque(maxlen=TRACE_MAX)
        self.spend_unknown_until = 0.0
        """Nobody can know what was used of the quota: its text is gone, with the topic's offsets or by another tool."""
        self._digest = hashlib.blake2b(digest_size=16)
        self._context = copy_context()  # of no process: what the outside does survives every crash

    @property
    def now(self) -> float:
        return self.loop.seconds

    @property
    def wall(self) -> float:
        return VirtualClock.WALL_AT_START + self.loop.seconds

    def dice(self, name: str) -> random.Random:
        """Dice of their own for each purpose: a draw more here changes nothing there."""
        return random.Random(f"{self.scenario.seed} {name}")

    def say(self, who: str, what: str) -> None:
        """One line of the trace."""
        if self.over:
            return
        self.steps += 1
        self.trace.append((self.loop.seconds, who, what))
        self._digest.update(f"{self.loop.seconds!r} {who} {what}\n".encode())

    @property
    def trace_hash(self) -> str:
        return self._digest.hexdigest()

    def break_promise(self, promise: str, text: str) -> None:
        """The first one ends the run."""
        if self.broken is None and not self.over:
            self.say("LEDGER", f"{promise}: {text}")
            self.broken = PromiseBroken(promise, text)
            if not self.failed.done():
                self.failed.set_result(None)

    def forget_spend(self) -> None:
        """For as long as what was used may count, and calls given up may still come."""
        longest = max(seconds for _, seconds in self.scenario.limits)
        self.spend_unknown_until = max(self.spend_unknown_until, self.now + longest + 100.0)

    def later(self, seconds: float, what: Callable[..., Any], *arguments: Any) -> None:
        """The outside does something later, whoever was killed meanwhile."""
        self.loop.call_later(seconds, what, *arguments, context=self._context)

    def at(self, seconds: float, what: Callable[..., Any], *arguments: Any) -> None:
        self.loop.call_at(max(seconds, self.loop.seconds), what, *arguments, context=self._context)

    def process(self, name: str) -> tuple[Process, Context]:
        """A process that can be killed, and the context in which it lives."""
        process = Process(name)
        context = copy_context()
        context.run(PROCESS.set, process)
        return process, context
