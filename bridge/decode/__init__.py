"""Bytes → Event. One decoder per topic, by the topic's `format`; pure: no clock, no I/O, nothing fetched.

A decoder answers each record in one of three ways: an Event; None for a tombstone (a null value: compaction's way to
say "deleted"), which is counted as filtered; or DecodeError, which makes the record a dead letter of kind `decode`.
No message of a DecodeError contains what the record holds, only where and what is wrong with it.
"""

from __future__ import annotations

from typing import Protocol

from bridge.decode.cloudevents import CloudEventsDecoder
from bridge.decode.debezium import DebeziumDecoder
from bridge.decode.envelope import DEFAULT_ENVELOPE, Envelope, Field
from bridge.decode.json import JsonDecoder
from bridge.decode.schema import NO_SCHEMAS, Schema, SchemaError, TopicSchemas
from bridge.errors import StartFailed
from bridge.model import Event, Record

__all__ = [
    "DEFAULT_ENVELOPE",
    "FORMATS",
    "NO_SCHEMAS",
    "Decoder",
    "Envelope",
    "Field",
    "JsonDecoder",
    "Schema",
    "SchemaError",
    "TopicSchemas",
    "decoder_for",
]

FORMATS: tuple[str, ...] = ("json", "cloudevents", "debezium")
"""What `decoder_for` can make."""


class Decoder(Protocol):
    def decode(self, record: Record) -> Event | None:
        """The record's event; None for a tombstone. Raises DecodeError."""


def decoder_for(
    format: str,
    *,
    encoding: str | None = None,
    envelope: Envelope | None = None,
    schemas: TopicSchemas = NO_SCHEMAS,
    registry: bool = False,
) -> Decoder:
    """The decoder for a topic's settings.

    `registry` says that records name their writer's schema, and `schemas` holds the reader's then.
    Raises StartFailed where this version knows no such format, and SchemaError where a schema can't be used for it.
    """
    if format == "json":
        return JsonDecoder(envelope)
    if format == "cloudevents":
        return CloudEventsDecoder()
    if format == "debezium" and encoding != "avro":
        return DebeziumDecoder()
    raise StartFailed(f"format {format!r} is not supported by this version; write one of: {', '.join(FORMATS)}")
