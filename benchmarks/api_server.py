"""A very light imitation of Meisa's calls, for benchmarks: what it costs must not be what is measured.

    python benchmarks/api_server.py --port 8901 --latency-ms 50
    python benchmarks/api_server.py --port 0            # prints {"url": "http://127.0.0.1:…", "pid": …} when it listens

It answers every call `latency` later with what Meisa would say to a call that succeeds: no quota, no scopes, nothing
stored (the faithful imitation is `meisa-bridge sandbox`). Meanwhile it keeps a ledger by contact, from the `seq` that
the sample events carry (`custom_fields.seq`, `properties.seq`, `variables.seq` or `metadata.seq`):

    GET  /report     counts so far, as JSON: see Ledger
    POST /reset      forgets all counts; ?latency_ms=0 also changes the latency

One process, one core, asyncio with httptools' parser. Measured with a bare client on the same two shared cores: 21,000
calls a second without latency, 8,800 at 50 ms with 600 in flight (12,000 is what 600 could do at most), 35 to 70 µs of
CPU a call. SIGTERM or Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import signal
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs
from uuid import NAMESPACE_URL, uuid5

import httptools
import orjson

PREFIX = "/api/v1"
SEQ_FIELDS = ("custom_fields", "properties", "variables", "metadata")


@dataclass(slots=True)
class Ledger:
    """What the calls so far say about their client. Order is that of arrival here, call by call."""

    calls: int = 0
    by_path: dict[str, int] = field(default_factory=dict)
    without_seq: int = 0
    out_of_order: int = 0
    """Calls whose seq is lower than one that this contact had before."""
    overlapping: int = 0
    """Calls that came while another of the same contact was unanswered: in order by luck at best."""
    duplicates: int = 0
    """Calls that repeat a contact's path, event name and seq."""
    in_flight: int = 0
    in_flight_max: int = 0
    first_call_wall_seconds: float | None = None
    last_answer_wall_seconds: float | None = None
    highest: dict[str, int] = field(default_factory=dict)
    """By contact. Where seqs count a contact's events from 1, their sum is the events that upserts stand for: those
    that merge leave as one call with the last one's seq."""
    seen: set[tuple[str, str, int]] = field(default_factory=set)
    open: dict[str, int] = field(default_factory=dict)

    def arrived(self, path: str, contact: str, name: str, seq: int | None) -> None:
        if self.first_call_wall_seconds is None:
            self.first_call_wall_seconds = time.time()
        self.calls += 1
        self.in_flight += 1
        self.in_flight_max = max(self.in_flight_max, self.in_flight)
        self.by_path[path] = self.by_path.get(path, 0) + 1
        already = self.open.get(contact, 0)
        self.overlapping += already > 0
        self.open[contact] = already + 1
        if seq is None:
            self.without_seq += 1
            return
        call = (contact, f"{path} {name}", seq)
        if call in self.seen:
            self.duplicates += 1
        else:
            self.seen.add(call)
        highest = self.highest.get(contact, seq)
        if seq < highest:
            self.out_of_order += 1
        else:
            self.highest[contact] = seq

    def answered(self, contact: str) -> None:
        self.in_flight -= 1
        self.last_answer_wall_seconds = time.time()
        left = self.open.get(contact, 0) - 1
        if left > 0:
            self.open[contact] = left
        else:
            self.open.pop(contact, None)

    def report(self) -> dict[str, Any]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        seconds = 0.0
        if self.first_call_wall_seconds is not None and self.last_answer_wall_seconds is not None:
            seconds = self.last_answer_wall_seconds - self.first_call_wall_seconds
        return {
            "calls": self.calls,
            "by_path": self.by_path,
            "contacts": len(self.highest),
            "covered": sum(self.highest.values()),
            "distinct_seqs": len({(contact, seq) for contact, _, seq in self.seen}),
            "without_seq": self.without_seq,
            "out_of_order": self.out_of_order,
            "overlapping": self.overlapping,
            "duplicates": self.duplicates,
            "in_flight": self.in_flight,
            "in_flight_max": self.in_flight_max,
            "first_call_wall_seconds": self.first_call_wall_seconds,
            "last_answer_wall_seconds": self.last_answer_wall_seconds,
            "seconds": seconds,
            "calls_per_second": self.calls / seconds if seconds else 0.0,
            "server_cpu_seconds": usage.ru_utime + usage.ru_stime,
        }


class Api:
    """What is shared by all connections."""

    def __init__(self, latency_seconds: float) -> None:
        self.latency_seconds = latency_seconds
        self.ledger = Ledger()

    def post(self, path: str, raw: bytes) -> tuple[str, Any]:
        """Counts one call; returns its contact and the answer's body. Raises ValueError for what is no object."""
        body = orjson.loads(raw or b"{}")
        if not isinstance(body, dict):
            raise ValueError("the body must be an object")
        contact = str(body.get("email") or body.get("to_email") or body.get("external_id") or path.split("/")[-3])
        contact = contact.strip().casefold()
        seq = next((seq for place in SEQ_FIELDS if isinstance(seq := (body.get(place) or {}).get("seq"), int)), None)
        name = (
            body.get("event_name") or body.get("trigger_key") or body.get("sequence_slug") or body.get("tag_name") or ""
        )
        label = "/contacts/{id}/" + path.split("/")[-2] + "/" if path.endswith("_tag/") else path
        self.ledger.arrived(label, contact, str(name), seq)
        return contact, self.answer(path, contact, body)

    @staticmethod
    def answer(path: str, contact: str, body: dict[str, Any]) -> Any:
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        contact_id = str(uuid5(NAMESPACE_URL, contact))
        if path == "/events/track/":
            return {
                "status": "tracked",
                "contact_id": contact_id,
                "event_name": body.get("event_name"),
                "timestamp": now,
            }
        if path == "/emails/trigger/":
            return {"status": "sent", "email_send_id": contact_id, "contact_id": contact_id, "contact_created": False}
        if path == "/sequences/enroll/":
            return {"status": "enrolled", "contact_id": contact_id, "sequence_slug": body.get("sequence_slug")}
        if path == "/sequences/api/bulk-enroll/":
            return {"results": [{"email": email, "status": "enrolled"} for email in body.get("emails", [])]}
        return {
            "id": contact_id,
            "email": body.get("email", ""),
            "external_id": body.get("external_id"),
            "first_name": body.get("first_name", ""),
            "last_name": body.get("last_name", ""),
            "display_name": body.get("display_name", ""),
            "source": body.get("source", "api"),
            "custom_fields": body.get("custom_fields", {}),
            "tags": [{"id": tag, "name": tag} for tag in body.get("tag_names", [])],
            "status": "subscribed",
            "created_at": now,
            "updated_at": now,
        }

    def get(self, path: str, key: str) -> Any:
        """What the client asks at its start; None where Meisa has no such resource."""
        if path == "/ping/":
            scopes = "contacts:read contacts:write events:track sequences:read sequences:enroll emails:trigger".split()  # noqa: SIM905
            environment = "test" if key.startswith("meisa_test_") else "live"
            return {"scopes": scopes, "environment": environment, "product": "benchmark"}
        if path == "/contacts/api/unsubscribed-emails/":
            return {"as_of": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "count": 0, "emails": []}
        if path in ("/sequences/api/list/", "/sequences/api/contact-enrollments/"):
            return {"results": []}
        return None


class Connection(asyncio.Protocol):
    """One client connection. Answers leave in the order of their requests: all wait equally long."""

    def __init__(self, api: Api, loop: asyncio.AbstractEventLoop) -> None:
        self.api = api
        self.loop = loop
        self.transport: asyncio.Transport | None = None
        self.parser = httptools.HttpRequestParser(self)
        self.start_request()

    def start_request(self) -> None:
        self.url = b""
        self.body = b""
        self.key = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            if self.transport is not None:
                self.transport.close()

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"x-api-key":
            self.key = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        path, _, query = self.url.decode("latin-1").partition("?")
        method, body, key = self.parser.get_method(), self.body, self.key
        self.start_request()
        if method == b"GET" and path == "/report":
            self.write(200, self.api.ledger.report())
        elif method == b"POST" and path == "/reset":
            for text in parse_qs(query).get("latency_ms", []):
                self.api.latency_seconds = float(text) / 1000
            self.api.ledger = Ledger()
            self.write(200, {"reset": True, "latency_ms": self.api.latency_seconds * 1000})
        elif method == b"POST" and path.startswith(PREFIX):
            try:
                contact, answer = self.api.post(path.removeprefix(PREFIX), body)
            except ValueError as error:
                self.write(400, {"detail": str(error)})
                return
            self.loop.call_later(self.api.latency_seconds, self.answer, self.api.ledger, contact, answer)
        else:
            found = self.api.get(path.removeprefix(PREFIX), key) if method == b"GET" else None
            self.write(
                200 if found is not None else 404, found if found is not None else {"detail": "no such resource"}
            )

    def answer(self, ledger: Ledger, contact: str, answer: Any) -> None:
        ledger.answered(contact)
        self.write(200, answer)

    def write(self, status: int, answer: Any) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        body = orjson.dumps(answer)
        head = b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
        self.transport.write(head % (status, b"OK" if status == 200 else b"Refused", len(body)) + body)


async def serve(host: str, port: int, latency_seconds: float) -> None:
    """Serves until SIGTERM or SIGINT; prints its address as one line of JSON first."""
    loop = asyncio.get_running_loop()
    api = Api(latency_seconds)
    server = await loop.create_server(lambda: Connection(api, loop), host, port, backlog=1024)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    port = server.sockets[0].getsockname()[1]
    print(
        json.dumps({"url": f"http://{host}:{port}", "base_url": f"http://{host}:{port}{PREFIX}", "pid": os.getpid()}),
        flush=True,
    )
    await ended.wait()
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="A light imitation of the Meisa API for benchmarks.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8901, help="0: any free one, printed at the start")
    parser.add_argument("--latency-ms", type=float, default=50.0)
    options = parser.parse_args()
    asyncio.run(serve(options.host, options.port, options.latency_ms / 1000))


if __name__ == "__main__":
    main()
