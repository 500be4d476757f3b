"""What is told of a record's path as spans."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import pytest

from bridge.model import Action, Call, Contact, Event, Kind, Outcome, Plan, Record, Verdict
from bridge.ports import Span
from bridge.runtime import traces as traces_module
from bridge.runtime.open_traces import LINKS_MAX
from bridge.runtime.traces import Traces
from tests.support.engine import P0, House, plan, record
from tests.support.fakes import DELIVERED, FakeMeisa
from tests.support.tracing import PARENT, TRACEPARENT, FakeTracer
from tests.support.virtual import run

SERVER = {"server.address": "api.example.com", "server.port": 443}


def endpoint(name: str) -> tuple[str, str]:
    return "POST", f"/{name}/"


class Traced(House):
    def __init__(self, answer: Callable[[Call], Outcome] = lambda call: DELIVERED, **more: Any) -> None:
        super().__init__(meisa=FakeMeisa(answer), **more)
        self.tracer = FakeTracer()
        self.traces = Traces(
            self.tracer, clock=self.clock, group="group", letters_topic="letters", endpoint=endpoint, server=SERVER
        )
        self.engine.trace(self.traces)
        self.source.assign(P0)

    async def fed(self, *records: Record, seconds: float = 1.0) -> list[Span]:
        self.source.feed(records)
        await asyncio.sleep(seconds)
        return self.tracer.spans


def story(tell: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def test() -> None:
        run(tell())

    test.__doc__ = tell.__doc__
    test.__name__ = tell.__name__
    return test


def sent_by(each: Record, traceparent: bytes = TRACEPARENT) -> Record:
    return each._replace(headers=(("traceparent", traceparent),))


def common(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if not name.startswith("meisa_bridge.")}


@story
async def test_one_trace_from_the_producers_header_to_the_call() -> None:
    """By the messaging and HTTP conventions, with the times of both."""
    house = Traced()
    began = house.clock.wall()
    call, process = await house.fed(sent_by(record(7)))
    assert (process.name, process.kind, process.parent) == ("process events", "consumer", PARENT)
    assert (call.name, call.kind, call.parent) == ("POST /upsert/", "client", process.context)
    assert {call.context.trace_id, process.context.trace_id} == {PARENT.trace_id}
    assert len({call.context.span_id, process.context.span_id, PARENT.span_id}) == 3
    assert began == process.start_wall <= call.start_wall
    assert process.end_wall == call.end_wall == pytest.approx(call.start_wall + 0.05)
    assert common(process.attributes) == {
        "messaging.system": "kafka",
        "messaging.operation.type": "process",
        "messaging.operation.name": "process",
        "messaging.destination.name": "events",
        "messaging.destination.partition.id": "0",
        "messaging.kafka.offset": 7,
        "messaging.consumer.group.name": "group",
    }
    assert process.attributes["meisa_bridge.event.type"] == "t"
    assert process.attributes["meisa_bridge.rules"] == ("rule",)
    assert process.attributes["meisa_bridge.actions"] == 1
    assert process.attributes["meisa_bridge.outcome"] == "delivered"
    assert common(call.attributes) == {
        "http.request.method": "POST",
        "url.template": "/upsert/",
        "http.response.status_code": 200,
        **SERVER,
    }
    assert not process.error and not call.error


@story
async def test_a_record_without_a_header_begins_a_trace() -> None:
    house = Traced()
    call, process = await house.fed(record(0))
    assert process.parent is None and call.parent == process.context


@story
async def test_what_is_not_sampled_is_not_told() -> None:
    """The producer's decision holds for all that follows."""
    house = Traced()
    assert await house.fed(sent_by(record(0), TRACEPARENT[:-1] + b"0")) == []
    assert house.endings() == {"delivered": 1}


@story
async def test_each_attempt_is_a_span_of_its_own_with_its_number_and_error() -> None:
    """503, no answer, 200: two errors and a success, and the event itself is no error."""
    answers = iter([Outcome(Verdict.RETRY, 503), Outcome(Verdict.UNKNOWN, None, "x", "timeout"), DELIVERED])
    house = Traced(lambda call: next(answers))
    *calls, process = await house.fed(record(0), seconds=60)
    assert [call.attributes.get("http.request.resend_count") for call in calls] == [None, 1, 2]
    assert [call.attributes.get("error.type") for call in calls] == ["503", "unanswered", None]
    assert [call.error for call in calls] == ["retry", "unknown", ""]
    assert {call.parent for call in calls} == {process.context}
    assert not process.error
    assert process.events[0].attributes["meisa_bridge.attempts"] == 3


@story
async def test_a_merged_call_is_one_events_child_and_links_all() -> None:
    """The call links to the others' spans, and each of those to the call: it is found from any of them."""
    house = Traced()
    house.delivery.hold()
    house.source.feed([record(offset, coalesce=True) for offset in range(3)])
    house.delivery.open()
    await asyncio.sleep(1)
    (call,) = house.tracer.of("client")
    first, *others = house.tracer.of("consumer")
    assert call.parent == first.context and not first.links
    assert list(call.links) == [other.context for other in others]
    assert [list(other.links) for other in others] == [[call.context]] * 2
    assert call.attributes["meisa_bridge.contributions"] == 3
    outcomes = [span.attributes["meisa_bridge.outcome"] for span in (first, *others)]
    assert outcomes == ["merged", "merged", "delivered"]


@story
async def test_a_bulk_call_links_the_events_of_all_its_addresses() -> None:
    """Enrollments of three contacts leave together; one of them is the parent."""

    def enrolling(event: Event) -> Plan:
        email = event.data["email"]
        return Plan((Action(Kind.ENROLL, "rule", 0, {"email": email, "sequence_slug": "s"}, Contact(email)),))

    each = {f"{number}@x": DELIVERED for number in range(3)}
    house = Traced(lambda call: DELIVERED._replace(each=each), plan=enrolling)
    await house.fed(*[record(number, f"{number}@x") for number in range(3)], seconds=60)
    (call,) = house.tracer.of("client")
    assert call.name == "POST /bulk_enroll/"
    first, *others = house.tracer.of("consumer")
    assert call.parent == first.context and list(call.links) == [other.context for other in others]
    assert call.attributes["meisa_bridge.contributions"] == 3
    assert [list(other.links) for other in others] == [[call.context]] * 2


@story
async def test_links_are_bounded_and_the_count_is_told() -> None:
    """A hundred events in one call."""
    house = Traced()
    house.delivery.hold()
    house.source.feed([record(offset, coalesce=True) for offset in range(100)])
    house.delivery.open()
    await asyncio.sleep(1)
    (call,) = house.tracer.of("client")
    assert len(call.links) == LINKS_MAX
    assert call.attributes["meisa_bridge.contributions"] == 100


@story
async def test_a_dead_letter_is_a_producer_span_and_its_event_an_error() -> None:
    """Both of a refused call and of a rule that fails."""
    house = Traced(lambda call: Outcome(Verdict.REFUSED, 400, "no such a@x"))
    spans = await house.fed(record(0, fail=True))
    (process,) = house.tracer.of("consumer")
    letters = house.tracer.of("producer")
    assert [(letter.name, letter.parent) for letter in letters] == [("send letters", process.context)] * 2
    assert common(letters[0].attributes) == {
        "messaging.system": "kafka",
        "messaging.operation.type": "send",
        "messaging.operation.name": "send",
        "messaging.destination.name": "letters",
    }
    kinds = [letter.attributes["meisa_bridge.dead_letter.kind"] for letter in letters]
    assert kinds == ["rule", "rejected"]
    assert process.error == "dead-lettered: rule, rejected"
    assert process.attributes["error.type"] == "rule"
    assert process.attributes["meisa_bridge.dead_letter.kinds"] == ("rule", "rejected")
    assert process.attributes["meisa_bridge.rules"] == ("rule", "broken")
    assert "a@x" not in repr(spans)


@story
async def test_what_cannot_be_read_is_told_too() -> None:
    """No event, no rules, but its place and its letter; a tombstone says that it is one."""
    house = Traced()
    tombstone, letter, unread = await house.fed(sent_by(record(0)._replace(value=b"{")), record(1)._replace(value=None))
    assert unread.parent == PARENT and unread.error == "dead-lettered: decode"
    assert letter.parent == unread.context
    assert tombstone.attributes["messaging.kafka.message.tombstone"] is True
    assert tombstone.attributes["meisa_bridge.outcome"] == "filtered"


@story
async def test_how_each_action_ended_is_an_event_of_the_span() -> None:
    """Also of one that needed no call."""
    house = Traced()
    await house.fed(record(0, do=["upsert", "track"]))
    (process,) = house.tracer.of("consumer")
    ended = [
        (event.attributes["meisa_bridge.action"], event.attributes["meisa_bridge.outcome"]) for event in process.events
    ]
    assert ended == [("upsert", "delivered"), ("track", "delivered")]


@story
async def test_a_partition_that_goes_ends_its_spans_and_says_so() -> None:
    """Revoked or lost; a late result of the old assignment ends nothing of the new one."""
    house = Traced()
    house.meisa.latency = 30.0
    house.source.feed([record(0)])
    await asyncio.sleep(1)
    house.source.lose(P0)
    (given_up,) = house.tracer.spans
    assert given_up.error == traces_module.GIVEN_UP
    assert given_up.attributes["error.type"] == given_up.attributes["meisa_bridge.outcome"] == "abandoned"
    house.meisa.latency = 60.0  # still out when the first one's answer comes
    house.source.assign(P0)
    house.source.feed([record(0, email="b@x")])
    await asyncio.sleep(100)
    _, second = house.tracer.of("consumer")
    (call,) = house.tracer.of("client")
    assert second.attributes["meisa_bridge.outcome"] == "delivered"
    assert call.parent == second.context and call.start_wall >= given_up.end_wall
    assert second.end_wall == call.end_wall


@story
async def test_a_bug_on_the_path_ends_the_span() -> None:
    """The record's offset stays open, and the span says so."""

    def broken(event: Event) -> Plan:
        raise ZeroDivisionError

    house = Traced(plan=broken)
    (process,) = await house.fed(record(0))
    assert (process.error, process.attributes["error.type"]) == (traces_module.BROKE, "ZeroDivisionError")


@story
async def test_a_tracer_that_breaks_stops_nothing() -> None:
    house = Traced()
    house.tracer.fails = True
    assert await house.fed(*[record(offset) for offset in range(3)]) == []
    assert house.endings() == {"delivered": 3}


@story
async def test_records_beyond_the_bound_go_without_a_span_and_are_counted() -> None:
    """And those that come once there is room again are told."""
    house = Traced()
    before, traces_module.OPEN_MAX = traces_module.OPEN_MAX, 2  # type: ignore[misc]
    try:
        await house.fed(*[record(offset, email=f"{offset}@x") for offset in range(5)])
        assert (len(house.tracer.of("consumer")), house.tracer.lost) == (2, 3)
        await house.fed(record(5))
        assert (len(house.tracer.of("consumer")), house.tracer.lost) == (3, 3)
    finally:
        traces_module.OPEN_MAX = before  # type: ignore[misc]


@story
async def test_the_types_of_events_are_masked_and_bounded() -> None:
    """They are the producer's text."""

    def named(each: Record) -> Event:
        kind = "signed_up by ada@example.com" + "x" * 1000
        return Event(id="1", type=kind, time="", time_wall_seconds=0.0, data={}, record=each)

    house = Traced(decode=named, plan=lambda event: Plan())
    (process,) = await house.fed(record(0))
    shown = process.attributes["meisa_bridge.event.type"]
    assert isinstance(shown, str) and shown.startswith("signed_up by a***@example.com") and len(shown) <= 130


@story
async def test_log_lines_find_their_span() -> None:
    """By the record that they name, or by the event that the rules are looking at; else by none."""
    found = []

    def looking(event: Event) -> Plan:
        found.append(house.traces.of_line({"event": "a handler's word"}))
        return plan(event)

    house = Traced(plan=looking)
    house.meisa.latency = 5.0
    house.source.feed([record(3)])
    named = house.traces.of_line({"place": "events/0/3"})
    assert house.traces.of_line({"event": "of nobody"}) is None
    assert house.traces.of_line({"place": "events/0/4"}) is None
    assert house.traces.of_line({"place": "elsewhere"}) is None
    await asyncio.sleep(10)
    assert found == [named] == [house.tracer.of("consumer")[0].context]
    assert house.traces.of_line({"place": "events/0/3"}) is None, "it has ended"


@story
async def test_without_traces_the_line_is_the_engine_itself() -> None:
    """Off costs nothing: nobody stands between a record's path and its stations."""
    house = House()
    assert house.engine._line is house.engine
