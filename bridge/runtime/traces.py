"""What the bridge tells of each record's path as OpenTelemetry spans, named by the messaging and HTTP conventions.

    process user-events            CONSUMER   parent: the record's own traceparent; ends when the event has finished
      ├─ POST /contacts/upsert/    CLIENT     one for each call, repeats included
      └─ send meisa-bridge.dead…   PRODUCER   one for each dead letter, until the broker has acknowledged it

A call that stands for several events is a child of one of them and links to the others, and each of those links to it.

Where tracing is off nothing of this exists: the engine's line is the engine itself. Where it is on, `TracedLine` stands
between the path of a record (pipeline.py) and the engine, and `Traces` is what the delivery tells its calls to.

The rules
    1. No person is in a span: no email, id, key, value, header, id of an event, nor Meisa's or a rule's message.
    2. A span is made once it has ended: a record that waits for hours holds ids and a few names, some 0.7 KB.
    3. Nothing here stops a record: what goes wrong is logged once, and the record goes on without its span.

The bounds
    `OPEN_MAX` records; of each `EVENTS_MAX` ended actions, `LINKS_MAX` links and `NAMES_MAX` rules.
"""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import structlog

from bridge.decode.trace_context import trace_of
from bridge.model import (
    Action,
    Call,
    Ending,
    Event,
    Letter,
    Outcome,
    Plan,
    Record,
    Result,
    TopicPartition,
    TraceContext,
    Verdict,
)
from bridge.observe.masking import mask
from bridge.ports import Attribute, Attributes, Clock, Span, SpanEvent, SpanKind, Tracer
from bridge.runtime.asking import status_label
from bridge.runtime.items import Item, Part
from bridge.runtime.open_traces import LINKS_MAX, OpenTraces, Trace

log = structlog.get_logger(__name__)

OPEN_MAX: Final = 70_000
"""Sampled records under way: what may be pending over all partitions (intake's 50,000 actions) and one window of 20,000
beyond it, so some 50 MB. Only dead letters that a stopped topic holds back can be more; those go without a span."""
EVENTS_MAX: Final = 32
NAMES_MAX: Final = 16
TYPE_CHARACTERS_MAX: Final = 128
"""An event's type is the producer's text."""

GIVEN_UP: Final = "given up: the partition went, and its next owner reads the record again"
BROKE: Final = "its path broke in the bridge itself: the record comes again after a restart"

_PLACE: Final = re.compile(r"([^/]+)/(\d{1,10})/(\d{1,19})", re.ASCII)
"""A record's place, as log lines have it."""

P = ParamSpec("P")
S = TypeVar("S", bound="Traces")


def _quietly(method: Callable[Concatenate[S, P], None]) -> Callable[Concatenate[S, P], None]:
    """What is told here is told by who delivers events: nothing may come back to them."""

    def told(self: S, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            self.broken(error)

    functools.update_wrapper(told, method)
    return told


class Traces:
    """Implements runtime/watching.py's Watch. `endpoint` gives an endpoint's method and path; `server` says of every
    call where it goes."""

    def __init__(
        self,
        tracer: Tracer,
        *,
        clock: Clock,
        group: str,
        letters_topic: str,
        endpoint: Callable[[str], tuple[str, str]],
        server: Attributes,
    ) -> None:
        self._tracer = tracer
        self._clock = clock
        self._group = group
        self._letters_topic = letters_topic
        self._endpoint = endpoint
        self._server = server
        self._live = OpenTraces()
        self._replays = OpenTraces()
        self._told_broken = False
        self._thread = threading.get_ident()
        self.current: Trace | None = None
        """Whose event the rules are looking at: what a handler logs belongs to it."""

    def broken(self, error: Exception) -> None:
        if not self._told_broken:
            self._told_broken = True
            log.error(
                "tracing broke in the bridge itself: spans are missing, and events go on without them; told once",
                error=repr(error),
                exc_info=error,
            )

    # A record's path

    @_quietly
    def begin(self, record: Record, event: Event | None, start_wall: float, *, replay: bool = False) -> None:
        """A record was decoded, or could not be (`event` is None)."""
        parent, origin = trace_of(record, event)
        context = self._tracer.begin(parent, record.topic)
        if context is None:
            return
        table = self._replays if replay else self._live
        if self._live.count + self._replays.count >= OPEN_MAX:
            self._tracer.dropped(1)
            return
        trace = Trace(record, context, parent, start_wall)
        if event is not None:
            trace.type = mask(event.type[:TYPE_CHARACTERS_MAX])
        if origin is not None:
            trace.link(origin)
        if replay:
            trace.operation = "replay"
        table.put(trace)

    @_quietly
    def planned(self, record: Record, plan: Plan) -> None:
        trace = self._live.get(record)
        if trace is not None:
            self._note_plan(trace, plan.actions, [failure.rule for failure in plan.failures])

    @staticmethod
    def _note_plan(trace: Trace, actions: Sequence[Action], failed: Iterable[str] = ()) -> None:
        trace.planned = len(actions)
        trace.rules = tuple(dict.fromkeys([*(action.rule for action in actions), *failed]))[:NAMES_MAX]

    @_quietly
    def buried(self, letter: Letter, start_wall: float, *, replay: bool = False) -> None:
        """The broker has acknowledged a dead letter that was on its way since `start_wall`."""
        trace = (self._replays if replay else self._live).get(letter.record)
        if trace is None:
            return
        if trace.letters is None:
            trace.letters = []
        if letter.kind.value not in trace.letters:
            trace.letters.append(letter.kind.value)
        attributes: dict[str, Attribute] = {
            "messaging.system": "kafka",
            "messaging.operation.type": "send",
            "messaging.operation.name": "send",
            "messaging.destination.name": self._letters_topic,
            "meisa_bridge.dead_letter.kind": letter.kind.value,
        }
        if letter.rule:
            attributes["meisa_bridge.rule"] = letter.rule
        if letter.action:
            attributes["meisa_bridge.action"] = letter.action
        name = f"send {self._letters_topic}"
        self._child(name, "producer", trace, start_wall, attributes)

    @_quietly
    def finished(self, record: Record, ending: Ending) -> None:
        trace = self._live.pop(record)
        if trace is not None:
            self._end(trace, ending.value)

    @_quietly
    def broke(self, record: Record, error: BaseException) -> None:
        """A record's path ended in a bug; its offset stays open."""
        trace = self._live.pop(record)
        if trace is not None:
            self._end(trace, "broken", BROKE, type(error).__name__)

    @_quietly
    def gone(self, partitions: Collection[TopicPartition]) -> None:
        """These partitions went to other owners: what of them has not ended never will here."""
        for partition in partitions:
            for table in (self._live, self._replays):
                for trace in table.gone(partition):
                    self._end(trace, "abandoned", GIVEN_UP, "abandoned")

    # Replays of dead letters

    @_quietly
    def replaying(self, event: Event, actions: Sequence[Action]) -> None:
        """A dead letter goes into the queues again: in its record's own trace, whose headers it kept."""
        self._abandon(event.record)
        self.begin(event.record, event, self._clock.wall(), replay=True)
        trace = self._replays.get(event.record)
        if trace is not None:
            self._note_plan(trace, actions)

    @_quietly
    def replayed(self, record: Record, states: Collection[str]) -> None:
        """All that was asked for a record has been answered."""
        trace = self._replays.pop(record)
        if trace is not None:
            self._end(trace, ", ".join(sorted(states)))

    @_quietly
    def abandoned(self, record: Record) -> None:
        """A replay was interrupted; it goes on later, here or elsewhere."""
        self._abandon(record)

    def _abandon(self, record: Record) -> None:
        trace = self._replays.pop(record)
        if trace is not None:
            self._end(trace, "abandoned", GIVEN_UP, "abandoned")

    # Calls (runtime/watching.py)

    @_quietly
    def called(self, items: Collection[Item], call: Call, outcome: Outcome, sent_wall: float) -> None:
        """A call was answered that stands for the present groups of these items."""
        found: dict[int, tuple[Trace, Part]] = {}
        stands_for = 0
        for item in items:
            for part in item.pending.group:
                stands_for += 1
                trace = (self._replays if part.batch.beside else self._live).get(part.record)
                if trace is not None:
                    found.setdefault(id(trace), (trace, part))
        if not found:
            return
        (first, part), *others = found.values()
        calls = first.calls = first.calls or {}
        before = calls.get((part.action.position, call.endpoint), 0)
        calls[part.action.position, call.endpoint] = before + 1
        method, path = self._endpoint(call.endpoint)
        attributes: dict[str, Attribute] = {
            "http.request.method": method,
            "url.template": path,
            **self._server,
            "meisa_bridge.endpoint": call.endpoint,
            "meisa_bridge.verdict": outcome.verdict.value,
        }
        if before:
            attributes["http.request.resend_count"] = before
        if outcome.status is not None:
            attributes["http.response.status_code"] = outcome.status
        if stands_for > 1:
            attributes["meisa_bridge.contributions"] = stands_for
        error = ""
        if outcome.verdict is not Verdict.DELIVERED:
            attributes["error.type"] = status_label(outcome)
            error = outcome.verdict.value
        links = [trace.context for trace, _ in others[:LINKS_MAX]]
        context = self._child(f"{method} {path}", "client", first, sent_wall, attributes, error, links)
        for trace, _ in others:
            trace.link(context)

    @_quietly
    def ended(self, part: Part, result: Result) -> None:
        """An action has ended, with a call or without."""
        trace = (self._replays if part.batch.beside else self._live).get(part.record)
        if trace is None:
            return
        if trace.events is None:
            trace.events = []
        if len(trace.events) < EVENTS_MAX:
            attributes: dict[str, Attribute] = {
                "meisa_bridge.action": part.action.kind.value,
                "meisa_bridge.rule": part.action.rule,
                "meisa_bridge.outcome": result.ending.value,
            }
            if result.attempts:
                attributes["meisa_bridge.attempts"] = result.attempts
            trace.events.append(SpanEvent("action ended", self._clock.wall(), attributes))

    # Spans

    def _child(
        self,
        name: str,
        kind: SpanKind,
        of: Trace,
        start_wall: float,
        attributes: Attributes,
        error: str = "",
        links: Sequence[TraceContext] = (),
    ) -> TraceContext:
        context = self._tracer.within(of.context)
        end_wall = max(start_wall, self._clock.wall())  # the wall clock may be set back meanwhile
        self._tracer.ended(Span(name, kind, context, of.context, start_wall, end_wall, attributes, error, links))
        return context

    def _end(self, trace: Trace, outcome: str, error: str = "", error_type: str = "") -> None:
        record = trace.record
        attributes: dict[str, Attribute] = {
            "messaging.system": "kafka",
            "messaging.operation.type": "process",
            "messaging.operation.name": trace.operation,
            "messaging.destination.name": record.topic,
            "messaging.destination.partition.id": str(record.partition),
            "messaging.kafka.offset": record.offset,
            "messaging.consumer.group.name": self._group,
            "meisa_bridge.outcome": outcome,
        }
        if record.value is None:
            attributes["messaging.kafka.message.tombstone"] = True
        if trace.type:
            attributes["meisa_bridge.event.type"] = trace.type
        if trace.rules:
            attributes["meisa_bridge.rules"] = trace.rules
        if trace.planned:
            attributes["meisa_bridge.actions"] = trace.planned
        if trace.linked > LINKS_MAX:
            attributes["meisa_bridge.links_without_bound"] = trace.linked
        if trace.letters:
            attributes["meisa_bridge.dead_letter.kinds"] = tuple(trace.letters)
            if not error:
                error, error_type = f"dead-lettered: {', '.join(trace.letters)}", trace.letters[0]
        if error_type:
            attributes["error.type"] = error_type
        self._tracer.ended(
            Span(
                f"{trace.operation} {record.topic}",
                "consumer",
                trace.context,
                trace.parent,
                trace.start_wall,
                max(trace.start_wall, self._clock.wall()),
                attributes,
                error,
                trace.links or (),
                trace.events or (),
            )
        )

    # Logs

    def of(self, record: Record) -> Trace | None:
        """A live record's trace; None where it is not sampled, or has ended."""
        return self._live.get(record)

    def of_line(self, fields: Mapping[str, Any]) -> TraceContext | None:
        """The span that a log line belongs to: its `place` names a record, or a handler wrote it about its event."""
        place = fields.get("place") or fields.get("source")
        # What the current event is, only its own thread may say.
        if place is None and self.current is not None and threading.get_ident() == self._thread:
            return self.current.context
        found = _PLACE.fullmatch(place) if isinstance(place, str) else None
        if found is None:
            return None
        at = found[1], int(found[2]), int(found[3])
        trace = self._live.at(*at) or self._replays.at(*at)
        return None if trace is None else trace.context
