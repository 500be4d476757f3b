"""A tracer that only remembers, and a collector that takes OTLP over HTTP and decodes it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any

from bridge.model import TraceContext
from bridge.ports import Span

PARENT = TraceContext(0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7)
TRACEPARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class FakeTracer:
    """Implements ports.Tracer: samples everything but what `sampled` says no to."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.lost = 0
        self.sampled = True
        self.fails = False
        self._ids = count(1)

    def begin(self, parent: TraceContext | None, topic: str) -> TraceContext | None:
        if self.fails:
            raise RuntimeError("the tracer is broken")
        if not self.sampled or (parent is not None and not parent.sampled):
            return None
        return TraceContext(next(self._ids) if parent is None else parent.trace_id, next(self._ids))

    def within(self, parent: TraceContext) -> TraceContext:
        return parent._replace(span_id=next(self._ids))

    def ended(self, span: Span) -> None:
        self.spans.append(span)

    def dropped(self, count: int) -> None:
        self.lost += count

    async def close(self) -> None:
        pass

    def of(self, kind: str) -> list[Span]:
        return [span for span in self.spans if span.kind == kind]


class Collector:
    """Every span that came, as protobuf gives it; `attributes` makes plain data of one's attributes."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.resources: list[dict[str, Any]] = []
        self.heads: list[dict[str, str]] = []
        self.raw: list[bytes] = []
        self.status = 200
        self.url = ""

    def take(self, body: bytes, headers: dict[str, str]) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        self.heads.append(headers)
        self.raw.append(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resources.append(attributes(resource.resource))
            for scope in resource.scope_spans:
                self.spans += scope.spans

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]


def attributes(of: Any) -> dict[str, Any]:
    """Of a span, an event or a resource."""
    return {each.key: _plain(each.value) for each in of.attributes}


def _plain(value: Any) -> Any:
    which = value.WhichOneof("value")
    return [_plain(each) for each in value.array_value.values] if which == "array_value" else getattr(value, which)


@contextmanager
def collector() -> Iterator[Collector]:
    """A collector on a free port."""
    taken = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if taken.status == 200 and self.path == "/v1/traces":
                taken.take(body, {name.lower(): value for name, value in self.headers.items()})
            self.send_response(taken.status if self.path == "/v1/traces" else 404)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    taken.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield taken
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
