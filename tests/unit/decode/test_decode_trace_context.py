"""Which trace a record belongs to, by its headers."""

from __future__ import annotations

import json

import pytest

from bridge.decode.cloudevents import CloudEventsDecoder
from bridge.decode.trace_context import NOTHING, TEXT_MAX, Found, parsed, trace_of
from bridge.model import Record, TraceContext
from tests.support.tracing import PARENT, TRACEPARENT

OTHER = b"00-11111111111111111111111111111111-2222222222222222-00"
OTHER_CONTEXT = TraceContext(int("1" * 32, 16), int("2" * 16, 16), sampled=False)


def record(*headers: tuple[str, bytes | None], value: bytes = b"{}") -> Record:
    return Record("users", 0, 7, 0, None, value, headers)


def test_the_producers_header_is_the_parent_with_its_decision_and_state() -> None:
    """Sampled or not, and with the tracestate as it came."""
    assert trace_of(record()) == NOTHING
    assert trace_of(record(("traceparent", TRACEPARENT))) == Found(PARENT)
    assert trace_of(record(("traceparent", OTHER))) == Found(OTHER_CONTEXT)
    found = trace_of(record(("traceparent", TRACEPARENT), ("tracestate", b"vendor=1,b=2")))
    assert found.parent == PARENT._replace(state="vendor=1,b=2")


def test_the_last_of_a_repeated_header_counts() -> None:
    """As for every other header: whoever forwarded the record last added its own."""
    assert trace_of(record(("traceparent", OTHER), ("traceparent", TRACEPARENT))) == Found(PARENT)


def test_where_the_event_came_from_is_a_link_or_the_parent() -> None:
    """CloudEvents' extension tells the event's origin; a hop between has a header of its own."""
    assert trace_of(record(("ce_traceparent", TRACEPARENT))) == Found(PARENT)
    assert trace_of(record(("traceparent", TRACEPARENT), ("ce_traceparent", OTHER))) == Found(PARENT, OTHER_CONTEXT)
    assert trace_of(record(("traceparent", TRACEPARENT), ("ce_traceparent", TRACEPARENT))) == Found(PARENT)
    assert trace_of(record(("traceparent", b"damaged"), ("ce_traceparent", TRACEPARENT))) == Found(PARENT)


@pytest.mark.parametrize("damaged", [None, 7, [], "", "damaged"])
def test_a_structured_cloud_event_carries_it_in_its_value(damaged: object) -> None:
    """A text there counts; anything else is as if it were not there."""
    event = {"specversion": "1.0", "id": "1", "type": "t", "source": "s"}

    def found(traceparent: object) -> Found:
        value = json.dumps({**event, "traceparent": traceparent, "tracestate": "a=1"}).encode()
        made = record(value=value)
        return trace_of(made, CloudEventsDecoder().decode(made))

    assert found(TRACEPARENT.decode()) == Found(PARENT._replace(state="a=1"))
    assert found(damaged) == NOTHING


@pytest.mark.parametrize(
    "damaged",
    [
        None,
        b"",
        b"\xff\xfe",
        TRACEPARENT[:-1],
        TRACEPARENT.upper(),
        TRACEPARENT + b"-more",
        b"ff" + TRACEPARENT[2:],
        b"00-" + b"0" * 32 + TRACEPARENT[35:],
        TRACEPARENT[:36] + b"0" * 16 + b"-01",
        TRACEPARENT.replace(b"-", b"_"),
        b"01" + TRACEPARENT[2:] + b"-" + b"x" * TEXT_MAX,
    ],
)
def test_what_is_not_a_trace_context_is_nothing(damaged: bytes | None) -> None:
    assert parsed(damaged) is None


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    """The specification asks for that."""
    assert parsed(b"01" + TRACEPARENT[2:] + b"-more") == PARENT


def test_a_state_that_is_too_long_is_left_out() -> None:
    assert parsed(TRACEPARENT, b"a=" + b"x" * TEXT_MAX) == PARENT
