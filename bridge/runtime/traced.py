"""The engine's stations with a trace of what passes them; the engine puts it in its own place where traces are on."""

from __future__ import annotations

from collections.abc import Awaitable

from bridge.model import Ending, Event, Letter, Plan, Record
from bridge.pipeline import Line
from bridge.ports import Clock
from bridge.runtime.traces import Traces


class TracedLine:
    """The stations of the path, with a span around all of them."""

    def __init__(self, line: Line, traces: Traces, clock: Clock) -> None:
        self._line = line
        self._traces = traces
        self._wall = clock.wall
        self.repeated = line.repeated
        self.too_old = line.too_old
        self.done_before = line.done_before
        self.deliver = line.deliver
        self.identify = line.identify

    def decode(self, record: Record) -> Event | None:
        start_wall = self._wall()
        event = None
        try:
            event = self._line.decode(record)
        finally:
            self._traces.begin(record, event, start_wall)
        return event

    def plan(self, event: Event) -> Plan:
        traces = self._traces
        before, traces.current = traces.current, traces.of(event.record)
        try:
            plan = self._line.plan(event)
        finally:
            traces.current = before
        traces.planned(event.record, plan)
        return plan

    def bury(self, letter: Letter) -> Awaitable[None]:
        return self._buried(letter, self._wall())

    async def _buried(self, letter: Letter, start_wall: float) -> None:
        await self._line.bury(letter)
        self._traces.buried(letter, start_wall)

    def finish(self, record: Record, ending: Ending) -> None:
        self._line.finish(record, ending)
        self._traces.finished(record, ending)
