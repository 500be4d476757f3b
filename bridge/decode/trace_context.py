"""W3C Trace Context in a record: which trace it belongs to. Pure, and total: whatever stands there, nothing is raised.

| input | answer |
|---|---|
| header `traceparent` | the parent: who wrote the record |
| header `ce_traceparent`, or `traceparent` in a structured CloudEvent | where the event came from: a link, or the |
| | parent where there is no header `traceparent` |
| the same header twice | the last one counts, as everywhere in the bridge |
| no UTF-8, too long, ids of zeros, version `ff`, anything else | as if there were none |
| a version that is not known yet | what version `00` has of it |

`tracestate` goes with the `traceparent` that it stands beside, and is passed on as it is where it is not longer than
the 512 characters that everybody has to take.
"""

from __future__ import annotations

import re
from typing import Any, Final, NamedTuple

from bridge.decode.cloudevents import StructuredEvent
from bridge.model import Event, Record, TraceContext

TEXT_MAX: Final = 512
"""Characters of either header: version 00 has 55, and a tracestate of 512 must be passed on by everybody."""

_PARENT: Final = re.compile(r"[ \t]*([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?[ \t]*", re.ASCII)
_NAMES: Final = frozenset({"traceparent", "tracestate", "ce_traceparent", "ce_tracestate"})


class Found(NamedTuple):
    parent: TraceContext | None = None
    origin: TraceContext | None = None
    """Where the event came from, if that is another span than the parent."""


NOTHING: Final = Found()


def trace_of(record: Record, event: Event | None = None) -> Found:
    """What a record, and the event in it where it could be read, say of their trace."""
    headers = {name: value for name, value in record.headers if name in _NAMES}
    structured = isinstance(event, StructuredEvent) and "traceparent" in event.value
    if not headers and not structured:
        return NOTHING
    parent = parsed(headers.get("traceparent"), headers.get("tracestate"))
    origin = parsed(headers.get("ce_traceparent"), headers.get("ce_tracestate"))
    if origin is None and event is not None and structured:
        origin = parsed(event.value["traceparent"], event.value.get("tracestate"))
    if parent is None:
        return Found(origin)
    return Found(parent, origin if origin is not None and origin[:2] != parent[:2] else None)


def parsed(traceparent: Any, tracestate: Any = None) -> TraceContext | None:
    """A `traceparent` with the `tracestate` beside it, as bytes or text; None where it is not one."""
    found = _PARENT.fullmatch(_text(traceparent))
    if found is None:
        return None
    version, trace_id, span_id, flags, more = found.groups()
    if version == "ff" or (version == "00" and more):
        return None
    context = TraceContext(int(trace_id, 16), int(span_id, 16), bool(int(flags, 16) & 1), _text(tracestate))
    return context if context.trace_id and context.span_id else None


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace") if len(value) <= TEXT_MAX else ""
    return value if isinstance(value, str) and len(value) <= TEXT_MAX else ""
