"""Avro records: by a local schema, or by their writer's, which a schema registry knows by an id.

Where a record's bytes begin:

| framing | where | what follows |
|---|---|---|
| header `__value_schema_id`: 0 and a 4-byte id, or 1 and a 16-byte GUID | the header | the value is the body alone |
| a zero byte and a 4-byte id, or a byte 1 and a 16-byte GUID | the value's start | the body |
| none, with `schema` and no `registry` | | the value is the body alone |

The header counts where both are there, as in Confluent's own clients (`DualSchemaIdDeserializer`).

Which parts of the value are the event's: without `envelope` those of json (`id`, `type`, `time`, `data`) where the
record has them, else the record's name as type, and the whole record as data. The name is the one its schema writes,
without its namespace. Everything else, such as a missing id or an odd time, means what it means in JSON
(bridge/decode/json.py). What a value looks like to rules: bridge/decode/avro_values.py; what damaged bytes give:
bridge/decode/avro_reader.py.

Nothing here fetches. A record whose schema is not at hand is noticed before it begins: `lacks` names the schema,
runtime/schemas.py pauses the partition and has it fetched, `learn` takes it, and the record is fed again.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from typing import Any, Protocol

from bridge.decode.avro_reader import AvroReader, Named
from bridge.decode.envelope import CUSTOM_PATHS, DEFAULT_ENVELOPE, DEFAULT_PATHS, Envelope, event_of, kind_of, part
from bridge.decode.json import parse_object
from bridge.decode.schema import NO_SCHEMAS, Schema, SchemaError, TopicSchemas, parse_json
from bridge.errors import BridgeError, DecodeError
from bridge.model import Event, Record, SchemaId

SCHEMAS_MAX = 1000
"""Writers' schemas at hand for one topic, some 50 KB each at most as a rule. A topic has tens of them; should there be
more, the oldest is forgotten and fetched again."""

ID_HEADER = "__value_schema_id"

REASON_CHARACTERS_MAX = 500
"""Of why a schema cannot be used."""
_NO_LINE = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")


class SchemaNotAtHand(BridgeError):
    """A bug: a record was decoded before its schema was fetched. It must not become a dead letter."""


class Values(Protocol):
    """Reads the values of a topic's records."""

    def read(self, record: Record) -> Named | None:
        """The value by the name of its record; None for a tombstone. Raises DecodeError."""

    def fields(self, record: Record) -> dict[str, Any]:
        """The fields of a record whose value is not null. Raises DecodeError."""


class _Fields:
    """For formats whose value is an object with fields of its own."""

    def read(self, record: Record) -> Named | None:
        raise NotImplementedError

    def fields(self, record: Record) -> dict[str, Any]:
        """The fields of a record whose value is not null. Raises DecodeError."""
        named = self.read(record)
        value = named and named.value
        if value.__class__ is not dict:
            raise DecodeError(f"the value is {kind_of(value)}; it must be a record")
        return value


class LocalAvro(_Fields):
    """Values that are written with one schema, which stands in a file. Raises SchemaError."""

    def __init__(self, schema: Schema) -> None:
        self._reader = AvroReader(schema.document, schema.others.values())

    def read(self, record: Record) -> Named | None:
        body = record.value
        if body is None:
            return None
        try:
            return self._reader.read(body)
        except DecodeError as error:
            message = error.message + _foreign(body)
        raise DecodeError(message)


class WireAvro(_Fields):
    """Values that name their writer's schema. Raises SchemaError.

    `schemas` holds the reader's schema: one for all records, or one for each record type that is read by one; records
    of other types are read as they were written.
    """

    def __init__(self, schemas: TopicSchemas = NO_SCHEMAS) -> None:
        self._whole = schemas.whole
        self._readers: dict[str, Schema] = {}
        for schema in (schemas.whole, *schemas.by_type.values()):
            if schema is not None:
                AvroReader(schema.document, schema.others.values())  # is it good
        for schema in schemas.by_type.values():
            self._readers[_full_name(schema.document)] = schema
        self._known: dict[SchemaId, AvroReader | str] = {}

    def lacks(self, record: Record) -> SchemaId | None:
        """The schema without which this record cannot be read; None where it can, or never could."""
        id = self.named(record)
        return None if id in self._known else id

    def named(self, record: Record) -> SchemaId | None:
        """The schema that a record names; None where it names none."""
        if record.value is None:
            return None
        try:
            return schema_id(record, record.value)[0]
        except DecodeError:
            return None

    def learn(self, id: SchemaId, text: str, references: Iterable[str] = ()) -> str | None:
        """Takes a schema as the registry gave it, with the texts of those that it refers to, the innermost first.

        Returns why it can't be used, where it can't: then its records have that answer.
        """
        try:
            document = parse_json(text)
            others = [parse_json(other) for other in references]
            made: AvroReader | str = AvroReader(
                document, others, self._whole or self._readers.get(_full_name(document))
            )
        except SchemaError as error:
            # It may repeat names of the schema, which hold what anybody liked; a letter's message is one line.
            said = _NO_LINE.sub(" ", error.message)[:REASON_CHARACTERS_MAX]
            made = f"the schema {id} of the registry can't be used: {said}"
        except (
            Exception
        ) as error:  # whatever a library makes of a text from outside: the partition must not wait for ever
            made = f"the schema {id} of the registry can't be used ({type(error).__name__})"
        self._put(id, made)
        return made if isinstance(made, str) else None

    def refuse(self, id: SchemaId, reason: str) -> None:
        """Records of this schema are dead letters, for this reason."""
        self._put(id, reason)

    def forget(self, id: SchemaId) -> None:
        """Whether there is such a schema is to be asked again."""
        self._known.pop(id, None)

    def _put(self, id: SchemaId, made: AvroReader | str) -> None:
        if len(self._known) >= SCHEMAS_MAX:
            del self._known[next(iter(self._known))]
        self._known[id] = made

    def read(self, record: Record) -> Named | None:
        body = record.value
        if body is None:
            return None
        id, start = schema_id(record, body)
        reader = self._known.get(id)
        if isinstance(reader, AvroReader):
            return reader.read(body, start)
        if reader is None:
            raise SchemaNotAtHand(f"the schema {id} of {record.place} was not fetched before")
        raise DecodeError(reader)


class AlsoJson(_Fields):
    """Values of a file that people wrote: JSON objects are the values as rules see them, all else is Avro."""

    def __init__(self, values: Values, schemas: TopicSchemas) -> None:
        self._values = values
        written = schemas.whole.document if schemas.whole is not None else None
        self._name = str(written.get("name", "")) if isinstance(written, dict) else ""

    def read(self, record: Record) -> Named | None:
        body = record.value
        if body is not None and body[:1] == b"{":
            with contextlib.suppress(DecodeError):
                return Named(self._name, parse_object(body))
        return self._values.read(record)


def schema_id(record: Record, body: bytes) -> tuple[SchemaId, int]:
    """The id, or the GUID, of the schema that a record was written with, and where its body starts.

    Raises DecodeError.
    """
    if not record.headers and body[:1] == b"\x00" and len(body) >= 5:
        return int.from_bytes(body[1:5], "big"), 5  # nearly every record
    for name, content in record.headers:
        if name == ID_HEADER:
            id, end = _id_in(content or b"")
            if id is None or end != len(content or b""):
                raise DecodeError(f"the header {ID_HEADER} is neither 0 and a 4-byte id nor 1 and a 16-byte GUID")
            return id, 0
    id, start = _id_in(body)
    if id is None:
        raise DecodeError(
            "the value has no schema registry's framing (a zero byte, then the schema's id)" + _foreign(body)
        )
    return id, start


def _id_in(content: bytes) -> tuple[SchemaId | None, int]:
    if content[:1] == b"\x00" and len(content) >= 5:
        return int.from_bytes(content[1:5], "big"), 5
    if content[:1] == b"\x01" and len(content) >= 17:
        digits = content[1:17].hex()
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}", 17
    return None, 0


def _foreign(body: bytes) -> str:
    """What bytes look like that are not what was expected, for a person who has to find out."""
    if not body:
        return ": it is empty (a tombstone would be null)"
    if body[:1] == b"\x00" and len(body) > 5:
        return f"; it may have a schema registry's framing (schema id {int.from_bytes(body[1:5], 'big')}): set registry"
    if body[:2] == b"\xc3\x01":
        return "; it begins like Avro's single-object encoding, which is not supported"
    if body[:4] == b"Obj\x01":
        return "; it begins like an Avro file, not a record"
    if body.lstrip()[:1] in (b"{", b"["):
        return "; it looks like JSON"
    return ""


def _full_name(document: Any) -> str:
    if not isinstance(document, dict):
        return ""
    name, space = str(document.get("name", "")), document.get("namespace")
    return f"{space}.{name}" if space and "." not in name else name


class AvroDecoder:
    """Decodes the records of one topic; `values` reads their bytes."""

    def __init__(self, values: Values, envelope: Envelope | None = None) -> None:
        self.values = values
        self._envelope = None if envelope == DEFAULT_ENVELOPE else envelope

    def decode(self, record: Record) -> Event | None:
        """The record's event; None for a tombstone. Raises DecodeError."""
        named = self.values.read(record)
        if named is None:
            return None
        name, value = named
        if value.__class__ is not dict:
            raise DecodeError(f"the value is {kind_of(value)}; it must be a record")
        envelope = self._envelope
        if envelope is None:
            get = value.get
            type = get("type")
            data = get("data") if "data" in value else value
            return event_of(record, value, get("id"), name if type is None else type, get("time"), data, DEFAULT_PATHS)
        type = part(envelope.type, value, record, "type")
        if type is None and envelope.type is None:
            type = name
        data = part(envelope.data, value, record, "data")
        if envelope.data is None and "data" not in value:
            data = value
        id = part(envelope.id, value, record, "id")
        time = part(envelope.time, value, record, "time")
        return event_of(record, value, id, type, time, data, CUSTOM_PATHS)
