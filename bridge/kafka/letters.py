"""KafkaLetters: the dead-letter topic. A letter counts only once all replicas have it.

A letter is the record as it came (key, value, headers in their order) with headers `meisa-bridge.*` that say why it is
here, what was asked of Meisa and what was not delivered. A record that was a letter before (replayed, and failed again)
gets fresh ones in place of the old.

A letter that the broker finds too large is written without its value; should even that be too large (a huge key, huge
headers), with the bridge's own short headers alone. Each says what was left out: the record itself can be read at
`meisa-bridge.source.*` for as long as its topic keeps it.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from bridge.errors import LetterNotWritten
from bridge.kafka.properties import LibrdkafkaLog, checked, for_letters, reason
from bridge.model import Letter

log = structlog.get_logger(__name__)

PREFIX = "meisa-bridge."
TEXT_BYTES_MAX = 4_096
"""For each of message, request and response: enough to see what was wrong, and three of them fit any broker's limit."""
POLL_SECONDS = 0.1
"""An acknowledgement ends a poll at once; this is only how soon `close` is noticed."""
CLOSE_SECONDS = 10.0

Headers = list[tuple[str, bytes | None]]

_KEYS = re.compile(r"meisa_(live|test)_\w+")


class KafkaLetters:
    """Implements ports.Letters. Connects when the first letter is written: most runs write none."""

    def __init__(self, bootstrap_servers: str, topic: str, properties: Mapping[str, Any] | None = None) -> None:
        self._config = for_letters(bootstrap_servers, checked(properties or {}))
        self._topic = topic
        self._producer: Producer | None = None
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._waiting: set[asyncio.Future[KafkaError | None]] = set()

    async def write(self, letter: Letter) -> None:
        record = letter.record
        own = headers_of(letter)
        kept: Headers = [header for header in record.headers if not header[0].startswith(PREFIX)]
        size = 0 if record.value is None else len(record.value)
        without_value = _text("value_omitted", f"{size} bytes")
        error = await self._send(record.key, record.value, [*kept, *own])
        if _too_large(error):
            log.warning(
                "a dead letter is too large for its topic; it is written without its value, and can be replayed for as "
                "long as the source topic keeps the record",
                place=record.place,
            )
            error = await self._send(record.key, None, [*kept, *own, without_value])
        if _too_large(error):
            short = [header for header in own if header[0] not in _LONG]
            bare = [*short, without_value, _text("key_omitted", "true"), _text("headers_omitted", str(len(kept)))]
            error = await self._send(None, None, bare)
        if error is not None:
            raise LetterNotWritten(f"the dead letter of {record.place} is not in {self._topic}: {reason(error)}")

    async def close(self) -> None:
        """Waits for what is under way, at most 10 s; what has no acknowledgement by then counts as not written."""
        if self._waiting:
            await asyncio.wait(set(self._waiting), timeout=CLOSE_SECONDS)
        self._stopping.set()
        for future in list(self._waiting):
            if not future.done():
                future.set_result(KafkaError(KafkaError._DESTROY))
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.to_thread(thread.join, CLOSE_SECONDS)
        self._producer = None

    async def _send(self, key: bytes | None, value: bytes | None, headers: Headers) -> KafkaError | None:
        """One message; returns the broker's objection, or None once all replicas have it."""
        if self._stopping.is_set():
            raise LetterNotWritten("dead letters are closed already")
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[KafkaError | None] = loop.create_future()

        def acknowledge(error: KafkaError | None, _: Message) -> None:
            def on_loop() -> None:
                if not answered.done():  # else the writer was cancelled, or we are closing
                    answered.set_result(error)

            try:
                loop.call_soon_threadsafe(on_loop)
            except RuntimeError:  # the loop is closed: nobody waits
                return

        try:
            self._connected().produce(self._topic, value=value, key=key, headers=list(headers), on_delivery=acknowledge)
        except BufferError:
            raise LetterNotWritten(
                f"too many dead letters wait for {self._topic} to acknowledge them; is it reachable?"
            ) from None
        except KafkaException as refused:
            return self._objection(refused.args[0])
        self._waiting.add(answered)
        try:
            error = await answered
        finally:
            self._waiting.discard(answered)
        return error if error is None else self._objection(error)

    def _objection(self, error: KafkaError) -> KafkaError:
        """After a fatal error the idempotent producer takes nothing more: the next letter gets a new one."""
        if error.fatal() or error.code() == KafkaError._FATAL:
            log.warning(
                "the dead-letter producer broke; a new one is made, and what was not acknowledged is written again",
                error=reason(error),
            )
            self._producer = None
        return error

    def _connected(self) -> Producer:
        if self._producer is None:
            self._producer = Producer(self._config, logger=LibrdkafkaLog())
        if self._thread is None:
            self._thread = threading.Thread(target=self._poll, name="kafka-letters", daemon=True)
            self._thread.start()
        return self._producer

    def _poll(self) -> None:
        while not self._stopping.is_set():
            producer = self._producer
            if producer is None:
                self._stopping.wait(POLL_SECONDS)
            else:
                producer.poll(POLL_SECONDS)


def headers_of(letter: Letter) -> Headers:
    """The headers `meisa-bridge.*` of a letter; those that would be empty are left out."""
    record = letter.record
    failed_at = datetime.fromtimestamp(letter.failed_at_wall_seconds or time.time(), UTC)
    texts: dict[str, str | None] = {
        "kind": letter.kind.value,
        "rule": letter.rule or None,
        "action": letter.action or None,
        "status": None if letter.status is None else str(letter.status),
        "message": _bounded(letter.message),
        "request": None if letter.request is None else _bounded(_json(letter.request)),
        "response": None if letter.response is None else _bounded(_json(letter.response)),
        "attempts": str(letter.attempts),
        "failed_at": failed_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "source.topic": record.topic,
        "source.partition": str(record.partition),
        "source.offset": str(record.offset),
        "source.timestamp": str(record.timestamp_ms),
        "undelivered": _json(letter.undelivered) if letter.undelivered else None,
        "undelivered_ids": _json(letter.undelivered_ids) if letter.undelivered_ids else None,
        "replays": _replays(record.headers),
    }
    return [_text(name, text) for name, text in texts.items() if text is not None]


_LONG = frozenset(PREFIX + name for name in ("message", "request", "response"))


def _text(name: str, text: str) -> tuple[str, bytes | None]:
    return PREFIX + name, text.encode("utf-8", "replace")


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


def _bounded(text: str) -> str:
    """At most 4 KiB of UTF-8, never with an API key in it."""
    text = _KEYS.sub(r"meisa_\1_***", text)
    data = text.encode("utf-8", "replace")
    if len(data) <= TEXT_BYTES_MAX:
        return text
    return data[: TEXT_BYTES_MAX - 3].decode("utf-8", "ignore") + "…"


def _replays(headers: tuple[tuple[str, bytes | None], ...]) -> str:
    """How often the record was replayed, this failure included."""
    before = dict(headers).get(PREFIX + "replays")
    if before is None:
        return "0"
    # Anybody can write this header: thousands of digits are no number to Python, and a record must end all the same.
    return str(int(before) + 1) if len(before) <= 18 and before.isdigit() else "1"


def _too_large(error: KafkaError | None) -> bool:
    return error is not None and error.code() == KafkaError.MSG_SIZE_TOO_LARGE
