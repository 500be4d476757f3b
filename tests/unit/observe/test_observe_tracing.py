"""The tracer of OpenTelemetry: what it samples, exports, drops and counts."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import SpanKind, StatusCode
from structlog.testing import capture_logs

from bridge.errors import StartFailed
from bridge.model import TraceContext
from bridge.observe import tracing
from bridge.observe.tracing import OtlpTracer, open_tracer, resource_of, traces_url
from bridge.ports import Span, SpanEvent
from tests.support.tracing import PARENT

ROOT = Path(__file__).parents[3]
CHILD = PARENT._replace(span_id=7, state="vendor=1")


class Memory(SpanExporter):
    """Keeps what it gets; `gate` closed, it does not answer; `refuses` until told otherwise."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []
        self.gate = threading.Event()
        self.gate.set()
        self.asked = threading.Event()
        self.refuses = False
        self.batches: list[int] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.asked.set()
        self.gate.wait(10)
        if self.refuses:
            logging.getLogger("opentelemetry.exporter.otlp.proto.http").error("no route to the collector")
            return SpanExportResult.FAILURE
        self.batches.append(len(spans))
        self.spans += spans
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self.gate.set()


def tracer_to(exporter: SpanExporter, **more: Any) -> OtlpTracer:
    return OtlpTracer(exporter, ALWAYS_ON, Resource({"service.name": "s"}), **more)


def span(number: int = 0, **more: Any) -> Span:
    return Span(f"span {number}", "client", CHILD, PARENT, 1.5, 2.0, {"n": number}, **more)


async def test_a_span_is_exported_as_it_was_told() -> None:
    """Ids, parent, kind, times in nanoseconds, attributes, status, events, links, state."""
    memory = Memory()
    tracer = tracer_to(memory)
    event = SpanEvent("action ended", 1.75, {"a": "b"})
    tracer.ended(span(error="retry", links=[PARENT], events=[event]))
    tracer.ended(span(1)._replace(kind="consumer"))
    await tracer.close()
    first, second = memory.spans
    assert first.context is not None and first.parent is not None
    assert (first.context.trace_id, first.context.span_id) == CHILD[:2]
    assert first.context.trace_flags.sampled and first.context.trace_state.to_header() == "vendor=1"
    assert first.parent.span_id == PARENT.span_id and not first.parent.is_remote
    assert second.parent is not None and second.parent.is_remote, "it is another service's"
    assert (first.kind, second.kind) == (SpanKind.CLIENT, SpanKind.CONSUMER)
    assert (first.start_time, first.end_time) == (1_500_000_000, 2_000_000_000)
    assert dict(first.attributes or {}) == {"n": 0}
    assert (first.status.status_code, first.status.description) == (StatusCode.ERROR, "retry")
    assert second.status.status_code is StatusCode.UNSET
    assert [(each.name, each.timestamp) for each in first.events] == [("action ended", 1_750_000_000)]
    assert [link.context.span_id for link in first.links] == [PARENT.span_id]
    assert first.resource.attributes["service.name"] == "s"


async def test_a_collector_that_hangs_costs_spans_only() -> None:
    """Nobody waits for it: the queue fills, what comes then is dropped and counted, the rest goes later."""
    memory = Memory()
    memory.gate.clear()
    tracer = tracer_to(memory, queue_max=4, batch_max=2)
    tracer.ended(span())
    tracer.ended(span())
    assert await asyncio.to_thread(memory.asked.wait, 10)
    for number in range(10):
        tracer.ended(span(number))
    tracer.dropped(1)
    assert tracer.lost == 6 + 1
    memory.gate.set()
    await tracer.close()
    assert (tracer.exported, tracer.failed, memory.batches) == (6, 0, [2, 2, 2])


async def test_an_outage_is_told_once_with_its_consequence_and_so_is_its_end() -> None:
    """The exporter's own lines, one for each try, are not in the log."""
    memory = Memory()
    memory.refuses = True
    with capture_logs() as lines:
        tracer = tracer_to(memory, batch_max=1, delay_seconds=0.001)
        for number in range(3):
            tracer.ended(span(number))
            await _until(lambda number=number: tracer.failed == number + 1)
        memory.refuses = False
        tracer.ended(span(3))
        await _until(lambda: tracer.exported == 1)
        await tracer.close()
    down, up = lines
    assert down["log_level"] == "warning" and "Events are delivered as before" in down["event"]
    assert down["error"] == "no route to the collector"
    assert up["event"] == "the collector takes traces again" and up["lost"] == 3


async def _until(true: Any) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.001)


async def test_its_end_does_not_wait_for_a_collector_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service's end is for delivery. What was not taken is told."""
    monkeypatch.setattr(tracing, "CLOSE_SECONDS", 0.05)
    memory = Memory()
    memory.gate.clear()
    tracer = tracer_to(memory, batch_max=1)
    for number in range(3):
        tracer.ended(span(number))
    assert await asyncio.to_thread(memory.asked.wait, 10)
    with capture_logs() as lines:
        async with asyncio.timeout(5):
            await tracer.close()
    assert [line["spans"] for line in lines if "last spans" in line["event"]] == [2]


async def test_the_producers_decision_holds_and_the_share_is_of_those_that_begin_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Parent based, by the setting or by the standard variable."""
    for variable, sample in (("traceidratio", 0.0), ("always_off", None)):
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", f"parentbased_{variable}")
        tracer = open_tracer(endpoint="http://127.0.0.1:1", sample=sample)
        try:
            assert tracer.begin(None, "users") is None
            found = tracer.begin(CHILD, "users")
            assert found is not None and (found.trace_id, found.state) == (CHILD.trace_id, "vendor=1")
            assert found.span_id not in (0, CHILD.span_id)
            assert tracer.begin(CHILD._replace(sampled=False), "users") is None
        finally:
            await tracer.close()


async def test_all_are_sampled_by_default() -> None:
    tracer = open_tracer()
    try:
        found = [tracer.begin(None, "users") for _ in range(20)]
        assert all(isinstance(each, TraceContext) for each in found) and len(set(found)) == 20
    finally:
        await tracer.close()


async def test_no_complaint_shows_a_header(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Neither of a variable that cannot be read, nor of a value that cannot be sent."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "no header of 5up3r53cr3t,authorization=Bearer%0A5up3r53cr3t")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    with capture_logs() as lines:
        tracer = open_tracer(endpoint="http://127.0.0.1:1")
        tracer.ended(span())
        while not tracer.failed:  # the end alone gives up after two seconds, which a busy machine may need to begin
            await asyncio.sleep(0.01)
        await tracer.close()
    assert "Header format invalid" in caplog.text and "(not shown)" in caplog.text
    (told,) = [line for line in lines if "does not take" in line["event"]]
    assert told["error"].startswith("a header cannot be sent")
    assert "5up3r" not in caplog.text + repr(lines)


def test_the_collectors_address_is_its_base_or_the_whole() -> None:
    for endpoint in ("http://c:4318", "http://c:4318/", "http://c:4318/v1/traces"):
        assert traces_url(endpoint) == "http://c:4318/v1/traces"
    assert traces_url("https://c/otlp") == "https://c/otlp/v1/traces"


def test_the_services_name_is_the_setting_then_the_standard_variables_then_the_bridges(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"):
        monkeypatch.delenv(name, raising=False)
    assert resource_of(None).attributes["service.name"] == "meisa-bridge"
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=attributes,deployment.environment.name=live")
    assert resource_of(None).attributes["service.name"] == "attributes"
    assert resource_of(None).attributes["deployment.environment.name"] == "live"
    monkeypatch.setenv("OTEL_SERVICE_NAME", "variable")
    assert resource_of(None).attributes["service.name"] == "variable"
    assert resource_of("setting").attributes["service.name"] == "setting"


def test_a_variable_that_is_no_number_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "many")
    with pytest.raises(
        StartFailed, match=r"^tracing: the environment variable OTEL_BSP_MAX_QUEUE_SIZE should be a number"
    ):
        open_tracer(endpoint="http://127.0.0.1:1")


def test_a_bridge_without_traces_imports_nothing_of_them() -> None:
    """Neither its start nor an event pays for what is off."""
    code = "import bridge.app, sys; print([name for name in sys.modules if name.startswith('opentelemetry')])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
