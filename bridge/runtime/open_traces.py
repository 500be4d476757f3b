"""Records under way whose traces are sampled, and what is noted of each until its span can be made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from bridge.model import Record, TopicPartition, TraceContext
from bridge.ports import SpanEvent

LINKS_MAX: Final = 32
"""Of one span. A bulk call has up to 500 addresses; a backend shows a handful, and the count is told beside."""


class Trace:
    """One record under way."""

    __slots__ = (
        "calls",
        "context",
        "events",
        "letters",
        "linked",
        "links",
        "operation",
        "parent",
        "planned",
        "record",
        "rules",
        "start_wall",
        "type",
    )

    def __init__(self, record: Record, context: TraceContext, parent: TraceContext | None, start_wall: float) -> None:
        self.record = record
        self.context = context
        self.parent = parent
        self.start_wall = start_wall
        self.operation = "process"
        self.type = ""
        self.rules: tuple[str, ...] = ()
        self.planned = 0
        """Actions of its plan."""
        self.calls: dict[tuple[int, str], int] | None = None
        """How often each action, by its position, called each endpoint."""
        self.events: list[SpanEvent] | None = None
        self.links: list[TraceContext] | None = None
        self.linked = 0
        """Links that there would be without the bound."""
        self.letters: list[str] | None = None
        """Kinds of its dead letters."""

    def link(self, other: TraceContext) -> None:
        self.linked += 1
        if self.links is None:
            self.links = []
        if len(self.links) < LINKS_MAX:
            self.links.append(other)


class OpenTraces:
    """Records under way, by their places."""

    def __init__(self) -> None:
        self._by_partition: dict[tuple[str, int], dict[int, Trace]] = {}
        self.count = 0

    def put(self, trace: Trace) -> None:
        record = trace.record
        offsets = self._by_partition.setdefault((record.topic, record.partition), {})
        self.count += record.offset not in offsets
        offsets[record.offset] = trace

    def get(self, record: Record) -> Trace | None:
        """Not where the record was read under another assignment: a late result must not end the present one's span."""
        trace = self.at(record.topic, record.partition, record.offset)
        return trace if trace is not None and trace.record.epoch == record.epoch else None

    def at(self, topic: str, partition: int, offset: int) -> Trace | None:
        offsets = self._by_partition.get((topic, partition))
        return None if offsets is None else offsets.get(offset)

    def pop(self, record: Record) -> Trace | None:
        trace = self.get(record)
        if trace is not None:
            offsets = self._by_partition[record.topic, record.partition]
            del offsets[record.offset]
            self.count -= 1
            if not offsets:
                del self._by_partition[record.topic, record.partition]
        return trace

    def gone(self, partition: TopicPartition) -> Iterable[Trace]:
        traces = self._by_partition.pop((partition.topic, partition.partition), {})
        self.count -= len(traces)
        return traces.values()
