"""Bytes → Event. One decoder per topic, by the topic's `format`; pure: no clock, no I/O, nothing fetched.

A decoder answers each record in one of three ways: an Event; None for a tombstone (a null value: compaction's way to
say "deleted"), which is counted as filtered; or DecodeError, which makes the record a dead letter of kind `decode`.
No message of a DecodeError contains what the record holds, only where and what is wrong with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

from bridge.decode.cloudevents import CloudEventsDecoder
from bridge.decode.debezium import DebeziumDecoder
from bridge.decode.envelope import DEFAULT_ENVELOPE, Envelope, Field
from bridge.decode.json import JsonDecoder
from bridge.decode.schema import NO_SCHEMAS, Schema, SchemaError, TopicSchemas
from bridge.errors import StartFailed
from bridge.model import Event, Record

if TYPE_CHECKING:
    from bridge.decode.avro import Values

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
    "values_in_avro",
]

FORMATS: tuple[str, ...] = ("json", "avro", "cloudevents", "debezium")
"""What `decoder_for` can make."""


def values_in_avro(schemas: TopicSchemas, *, registry: bool) -> Values:
    """Reads values that are Avro, for every format in which they can be. Raises SchemaError.

    `registry` says that records name their writer's schema; `schemas` holds the reader's then.
    """
    from bridge.decode.avro import LocalAvro, WireAvro  # here, since fastavro takes a while to import

    if registry:
        return WireAvro(schemas)
    if schemas.whole is None:
        raise SchemaError("Avro needs a schema or a registry")
    return LocalAvro(schemas.whole)


class Decoder(Protocol):
    def decode(self, record: Record) -> Event | None:
        """The record's event; None for a tombstone. Raises DecodeError."""


def decoder_for(
    format: str,
    *,
    encoding: str | None = None,
    envelope: Envelope | None = None,
    schemas: TopicSchemas = NO_SCHEMAS,
    values: Values | None = None,
) -> Decoder:
    """The decoder for a topic's settings.

    `values` reads values that are Avro (`values_in_avro`), as those of format avro always are; `schemas` are compared
    with values that are JSON.
    Raises StartFailed where this version knows no such format, and SchemaError where a schema can't be used for it.
    """
    if format == "json":
        return _checked(JsonDecoder(envelope), "value", schemas)
    if format == "cloudevents":
        return _checked(CloudEventsDecoder(), "data", schemas)
    if format == "debezium" and encoding != "avro":
        return _checked(DebeziumDecoder(), "data", schemas)
    if format == "debezium" and values is not None:
        return DebeziumDecoder(values.fields)
    if format == "avro" and values is not None:
        from bridge.decode.avro import AvroDecoder

        return AvroDecoder(values, envelope)
    raise StartFailed(f"format {format!r} is not supported by this version; write one of: {', '.join(FORMATS)}")


def _checked(decoder: Decoder, part: Literal["value", "data"], schemas: TopicSchemas) -> Decoder:
    """The decoder, with its events compared with JSON Schemas where the topic has some. Raises SchemaError."""
    if not schemas:
        return decoder
    from bridge.decode.json_schema import Check, CheckedDecoder, SchemaFault

    def check(schema: Schema) -> Check:
        try:
            return Check(schema.document, schema.path.absolute().as_uri(), schema.others)
        except SchemaFault as error:
            fault = error.message
        raise SchemaError(fault)

    whole = None if schemas.whole is None else check(schemas.whole)
    return CheckedDecoder(decoder, part, whole, {type: check(schema) for type, schema in schemas.by_type.items()})
