"""The tracer of OpenTelemetry: samples, keeps ended spans in a bounded queue, exports them by OTLP over HTTP.

Needs the extra `tracing`; nothing else imports this module, so a bridge without it pays nothing.

Of the SDK this takes what its environment variables set up (sampler, resource, exporter). Its tracer and its batch
processor it does not use: a span of theirs is held from its beginning, with locks and 4 KB, and what the processor
drops it only logs. Here a span is made when it has ended, in the exporting thread, and every span that does not reach
the collector is counted.

A collector that is down costs nothing but the spans: the queue holds `OTEL_BSP_MAX_QUEUE_SIZE` (2,048: some 3 MB), what
comes when it is full is dropped, and the thread that waits for the collector is its own.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

import structlog
from opentelemetry import trace as api
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.environment_variables import (
    OTEL_BSP_MAX_EXPORT_BATCH_SIZE,
    OTEL_BSP_MAX_QUEUE_SIZE,
    OTEL_BSP_SCHEDULE_DELAY,
)
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace.status import Status, StatusCode

import bridge
from bridge.errors import StartFailed
from bridge.model import TraceContext
from bridge.ports import Span

log = structlog.get_logger(__name__)

QUEUE_MAX = 2_048
BATCH_MAX = 512
DELAY_MS = 5_000
"""Defaults of the three variables, the specification's own."""
CLOSE_SECONDS = 2.0
"""For the last spans when the service ends: the end's budget is for delivery, and the group waits for it."""
LOGGERS = "opentelemetry.exporter.otlp"
"""What the exporter says of each failure; one line of ours says it once."""

_KINDS = {"consumer": api.SpanKind.CONSUMER, "producer": api.SpanKind.PRODUCER, "client": api.SpanKind.CLIENT}


def open_tracer(
    *,
    endpoint: str | None = None,
    headers: Mapping[str, str] | None = None,
    sample: float | None = None,
    service_name: str | None = None,
) -> OtlpTracer:
    """The tracer by settings, and where they say nothing by the standard `OTEL_*` variables. Raises StartFailed."""
    chosen = None if sample is None else ParentBased(TraceIdRatioBased(sample))
    try:
        # The provider is only asked for the sampler that the variables name; it never makes a span.
        sampler = TracerProvider(sampler=chosen, shutdown_on_exit=False).sampler
        exporter = OTLPSpanExporter(
            endpoint=None if endpoint is None else traces_url(endpoint), headers=dict(headers or {}) or None
        )
        return OtlpTracer(
            exporter,
            sampler,
            resource_of(service_name),
            queue_max=_number(OTEL_BSP_MAX_QUEUE_SIZE, QUEUE_MAX),
            batch_max=_number(OTEL_BSP_MAX_EXPORT_BATCH_SIZE, BATCH_MAX),
            delay_seconds=_number(OTEL_BSP_SCHEDULE_DELAY, DELAY_MS) / 1000,
        )
    except ValueError as error:
        raise StartFailed(f"tracing: {error}") from None


def traces_url(endpoint: str) -> str:
    """Where spans go; `endpoint` is the collector's base, as in OTEL_EXPORTER_OTLP_ENDPOINT, or the whole address."""
    base = endpoint.rstrip("/")
    return base if base.endswith("/v1/traces") else f"{base}/v1/traces"


def resource_of(service_name: str | None) -> Resource:
    """Who traces: by OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME; the setting counts more."""
    resource = Resource.create({SERVICE_VERSION: bridge.__version__})
    unnamed = str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service")
    name = service_name or ("meisa-bridge" if unnamed else None)
    return resource if name is None else resource.merge(Resource({SERVICE_NAME: name}))


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable, "").strip()
    if not text:
        return default
    if not text.isdecimal() or not 0 < int(text) <= 1_000_000:
        raise ValueError(f"the environment variable {variable} should be a number from 1 to 1,000,000")
    return int(text)


class OtlpTracer:
    """Implements ports.Tracer. `exported`, `failed` and `lost` count spans; `close` ends the thread."""

    def __init__(
        self,
        exporter: SpanExporter,
        sampler: Sampler,
        resource: Resource,
        *,
        queue_max: int = QUEUE_MAX,
        batch_max: int = BATCH_MAX,
        delay_seconds: float = DELAY_MS / 1000,
    ) -> None:
        self._exporter = exporter
        self._sampler = sampler
        self._resource = resource
        self._scope = InstrumentationScope("meisa-bridge", bridge.__version__)
        self._queue_max = queue_max
        self._batch_max = min(batch_max, queue_max)
        self._delay_seconds = delay_seconds
        self._ids = RandomIdGenerator()
        self._queue: deque[Span] = deque()
        self._ready = threading.Event()
        self._closing = False
        self._ends = math.inf
        """No batch begins after that (monotonic)."""
        self.exported = 0
        self.failed = 0
        """The collector did not take them."""
        self.lost = 0
        """Dropped here: the queue was full, or too many records were under way."""
        self._down = False
        self._words = _LastWords()
        self._words.listen()
        self._thread = threading.Thread(target=self._work, name="traces", daemon=True)
        self._thread.start()

    # Called on the event loop

    def begin(self, parent: TraceContext | None, topic: str) -> TraceContext | None:
        trace_id = self._ids.generate_trace_id() if parent is None else parent.trace_id
        result = self._sampler.should_sample(
            None if parent is None else api.set_span_in_context(api.NonRecordingSpan(_context(parent, remote=True))),
            trace_id,
            f"process {topic}",
            api.SpanKind.CONSUMER,
            {"messaging.system": "kafka", "messaging.destination.name": topic},
        )
        if result.decision is not Decision.RECORD_AND_SAMPLE:
            return None
        return TraceContext(trace_id, self._ids.generate_span_id(), True, "" if parent is None else parent.state)

    def within(self, parent: TraceContext) -> TraceContext:
        return parent._replace(span_id=self._ids.generate_span_id())

    def ended(self, span: Span) -> None:
        if len(self._queue) >= self._queue_max:
            self.lost += 1
            return
        self._queue.append(span)
        if len(self._queue) >= self._batch_max:
            self._ready.set()

    def dropped(self, count: int) -> None:
        self.lost += count

    async def close(self) -> None:
        self._ends = time.monotonic() + CLOSE_SECONDS
        self._closing = True
        self._ready.set()
        await asyncio.to_thread(self._thread.join, CLOSE_SECONDS)
        # Ends a wait for the collector, if the thread is in one; it is a daemon, and holds nobody up any further.
        await asyncio.to_thread(self._exporter.shutdown)
        if not self._thread.is_alive():
            self._words.leave()
        if self._queue:
            log.warning("the collector did not take the last spans in time; they are lost", spans=len(self._queue))

    # The exporting thread

    def _work(self) -> None:
        while True:
            closing = self._closing
            if not closing:
                self._ready.wait(self._delay_seconds)
                self._ready.clear()
            while self._queue and time.monotonic() < self._ends:
                self._export([self._queue.popleft() for _ in range(min(self._batch_max, len(self._queue)))])
            if closing:
                return

    def _export(self, spans: list[Span]) -> None:
        try:
            result = self._exporter.export([self._readable(span) for span in spans])
        except Exception as error:
            self._words.last = _shown(f"{type(error).__name__}: {error}")
            result = SpanExportResult.FAILURE
        if result is SpanExportResult.SUCCESS:
            self.exported += len(spans)
            if self._down:
                self._down = False
                log.info("the collector takes traces again", lost=self.failed + self.lost)
            return
        self.failed += len(spans)
        if not self._down:
            self._down = True
            log.warning(
                "the collector does not take traces: spans are dropped until it does, and counted in "
                "meisa_bridge_trace_spans_total. Events are delivered as before",
                error=self._words.last,
            )

    def _readable(self, span: Span) -> ReadableSpan:
        """The SDK's span. It asks users not to make any themselves, since that is a tracer's work; this is one."""
        remote = span.kind == "consumer"
        return ReadableSpan(
            span.name,
            context=_context(span.context),
            parent=None if span.parent is None else _context(span.parent, remote=remote),
            resource=self._resource,
            attributes=dict(span.attributes),
            events=[Event(event.name, dict(event.attributes), _nanoseconds(event.wall)) for event in span.events],
            links=[api.Link(_context(link)) for link in span.links],
            kind=_KINDS[span.kind],
            status=Status(StatusCode.ERROR, span.error) if span.error else Status(StatusCode.UNSET),
            start_time=_nanoseconds(span.start_wall),
            end_time=_nanoseconds(span.end_wall),
            instrumentation_scope=self._scope,
        )


def _context(context: TraceContext, *, remote: bool = False) -> api.SpanContext:
    return api.SpanContext(
        context.trace_id,
        context.span_id,
        remote,
        api.TraceFlags(api.TraceFlags.SAMPLED if context.sampled else api.TraceFlags.DEFAULT),
        api.TraceState.from_header([context.state]) if context.state else None,
    )


def _nanoseconds(wall: float) -> int:
    return int(wall * 1e9)


class _LastWords(logging.Handler):
    """Keeps the exporter's last complaint, which its result does not tell, and keeps the rest out of the log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last = ""
        self._logger = logging.getLogger(LOGGERS)

    def listen(self) -> None:
        self._logger.addHandler(self)
        self._logger.propagate = False

    def leave(self) -> None:
        self._logger.removeHandler(self)
        self._logger.propagate = True

    def emit(self, record: logging.LogRecord) -> Any:
        self.last = _shown(record.getMessage())


def _shown(complaint: str) -> str:
    """Complaints about a header quote its value, which is a secret."""
    if "header" in complaint.lower():
        return "a header cannot be sent: see tracing.headers and OTEL_EXPORTER_OTLP_HEADERS"
    return complaint[:300]


class _Unquoted(logging.Filter):
    """Takes the header out of what the SDK says of a header variable that it cannot read."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.args = ("(not shown)",) if record.args else record.args
        return True


logging.getLogger("opentelemetry.util.re").addFilter(_Unquoted())
