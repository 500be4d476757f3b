"""How each topic's records become events, as the settings say: envelopes, schemas, registries."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, cast

from bridge import rules
from bridge.config import codes
from bridge.decode import Envelope, SchemaError, TopicSchemas, decoder_for, values_in_avro
from bridge.errors import DecodeError, Problem, ProblemsFound, RegistryFailed, StartFailed
from bridge.model import UNREADABLE_HEADERS, Event, Record
from bridge.schema_files import load_schemas

if TYPE_CHECKING:
    from bridge.config import Settings, Topic
    from bridge.decode.avro import Values, WireAvro
    from bridge.registry.client import RegistryClient

Decode = Callable[[Record], Event | None]


class Decoders(dict[str, Decode]):
    """How each topic's records become events."""

    def __init__(self) -> None:
        self.wires: dict[str, WireAvro] = {}
        """The topics whose records name their schemas, which must be fetched before they are decoded."""


def decoders(settings: Settings, *, also_json: bool = False) -> Decoders:
    """A decoder per topic. Raises ProblemsFound for an envelope's bad expression, or a schema that is none.

    `also_json`: values that are JSON objects pass for decoded Avro, as in a file of events that people wrote.
    """
    schemas, problems = load_schemas(settings.topics, settings.base_dir, settings.place)
    made = Decoders()
    for name, topic in settings.topics.items():
        if topic.schemas is not None and not schemas[name]:
            continue  # told already
        try:
            envelope = _envelope(settings, name, topic, problems)
            values = values_in_avro(schemas[name], registry=topic.registry is not None) if topic.is_avro else None
            made[name] = decoder_for(
                topic.format,
                encoding=topic.encoding,
                envelope=envelope,
                schemas=schemas[name],
                values=_also_json(values, schemas[name]) if also_json and values is not None else values,
            ).decode
            made[name] = _with_headers(made[name])
            if topic.registry is not None:
                made.wires[name] = cast("WireAvro", values)
        except SchemaError as error:
            problems.append(settings.place("topics", name, "schema").problem(codes.NOT_A_SCHEMA, error.message))
    if problems:
        raise ProblemsFound(problems)
    return made


def _with_headers(decode: Decode) -> Decode:
    """What a record's headers say may decide what becomes of it, so that it is not guessed without them."""

    def decoded(record: Record) -> Event | None:
        if record.headers is UNREADABLE_HEADERS:
            raise DecodeError("the headers cannot be read, and are not in this letter: a header's name is not UTF-8")
        return decode(record)

    return decoded


def _also_json(values: Values, schemas: TopicSchemas) -> Values:
    from bridge.decode.avro import AlsoJson  # here, since fastavro takes a while to import

    return AlsoJson(values, schemas)


def fetching_decoders(settings: Settings, *, also_json: bool = False) -> Decoders:
    """For commands, which may wait: decoders that fetch what a record was written with, and raise RegistryFailed where
    that cannot be had; a registry that failed is not asked again. The service itself never fetches so."""
    made = decoders(settings, also_json=also_json)
    for topic, wire in made.wires.items():
        made[topic] = _fetching(settings, topic, wire, made[topic])
    return made


def _fetching(settings: Settings, topic: str, wire: WireAvro, decode: Decode) -> Decode:
    failed: list[str] = []

    async def fetch(record: Record) -> None:
        from bridge.runtime.schemas import Schemas

        client = registries(settings)[topic]
        try:
            await Schemas({topic: wire}, {topic: client}).ready_now(record)
        finally:
            await client.close()

    def fetched(record: Record) -> Event | None:
        if wire.lacks(record) is not None:
            if failed:
                raise RegistryFailed(failed[0])
            try:
                # In a thread of its own: the caller's may run a loop, perhaps one with a clock of its own.
                with ThreadPoolExecutor(1) as aside:
                    aside.submit(asyncio.run, fetch(record)).result()
            except RegistryFailed as error:
                failed.append(str(error))
                raise
        return decode(record)

    return fetched


def registries(settings: Settings) -> dict[str, RegistryClient]:
    """The schema registry of each topic that has one; nothing is asked yet. Raises StartFailed for a bad `ca_file`."""
    made: dict[str, RegistryClient] = {}
    for name, topic in settings.topics.items():
        registry = topic.registry
        if registry is None:
            continue
        from bridge.registry.client import RegistryClient  # here, since HTTP takes a while to import

        try:
            made[name] = RegistryClient(
                registry.url,
                basic=registry.basic_auth.read if registry.basic_auth is not None else None,
                bearer=registry.bearer.read if registry.bearer is not None else None,
                timeout_seconds=registry.timeout,
                ca_file=settings.base_dir / registry.ca_file if registry.ca_file is not None else None,
            )
        except StartFailed as error:
            raise StartFailed(f"topics.{name}.{error}") from None
    return made


def _envelope(settings: Settings, name: str, topic: Topic, problems: list[Problem]) -> Envelope | None:
    if topic.envelope is None:
        return None
    parts = {}
    for part in ("id", "type", "time", "data"):
        text = getattr(topic.envelope, part)
        if part not in topic.envelope.model_fields_set:
            continue  # the decoder's own default is the same, and faster
        try:
            parts[part] = rules.compile_envelope_field(text)
        except rules.ExpressionError as error:
            place = settings.place("topics", name, "envelope", part)
            problems.append(Problem(error.code, str(error), place.file, place.line, place.column, error.hint))
    return Envelope(**parts)
