"""Whatever stands in a record's trace headers, nothing is raised, and OpenTelemetry's own parser finds the same."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from bridge.decode.trace_context import TEXT_MAX, parsed, trace_of
from bridge.model import Record
from tests.support.tracing import TRACEPARENT

NAMES = st.sampled_from(["traceparent", "tracestate", "ce_traceparent", "ce_tracestate", "Traceparent", "other"])
HEX = "0123456789abcdef"


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A right one with some bytes changed, left out or put in; or anything."""
    text = bytearray(TRACEPARENT)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(text)))
        text[at : at + draw(st.integers(0, 2))] = draw(
            st.binary(max_size=2) | st.text(HEX + "-", max_size=2).map(str.encode)
        )
    return bytes(text)


VALUES = st.none() | damaged() | st.binary(max_size=TEXT_MAX + 10)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=5))
def test_no_header_raises(headers: list[tuple[str, bytes | None]]) -> None:
    """And what is found has ids that a span may have."""
    for context in trace_of(Record("t", 0, 0, 0, None, b"", tuple(headers))):
        if context is not None:
            assert 0 < context.trace_id < 1 << 128 and 0 < context.span_id < 1 << 64
            assert len(context.state) <= TEXT_MAX


@given(damaged())
def test_it_finds_what_opentelemetry_finds(text: bytes) -> None:
    found = TraceContextTextMapPropagator().extract({"traceparent": text.decode("utf-8", "replace")})
    theirs = trace.get_current_span(found).get_span_context()
    ours = parsed(text)
    if ours is None:
        assert not theirs.is_valid
    else:
        assert ours[:3] == (theirs.trace_id, theirs.span_id, theirs.trace_flags.sampled)
