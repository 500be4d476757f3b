"""Fetches the schemas that records were written with, before their records begin.

The theory
    To decode never waits (pipeline.py: actions enter the queues in log order). So a record whose schema is not at hand
    is held by intake, its partition paused, and fed again when the schema is there: order within the partition holds,
    all others go on. What the registry answers decides what becomes of the record:

    a schema             it is decoded
    no such schema       asked again a few times, since a follower may lag behind its leader; then its records are dead
                         letters, and after a while it is asked for anew
    no answer, refused   asked again for as long as it takes; nothing is given up because a registry is away

The bounds
    One question at a time per topic and schema, and only for schemas that a partition (or a replay) waits for: one per
    partition. What was learnt is bounded by bridge/decode/avro.py.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import Protocol

import structlog

from bridge.errors import RegistryFailed, UnknownSchema
from bridge.model import Record, SchemaId, Waiting
from bridge.ports import Registry

log = structlog.get_logger(__name__)

AGAIN_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Waits between questions to a registry that is away; then always the last."""
MISSING_SECONDS = (0.5, 1.0, 2.0)
"""Waits between questions for a schema that is said not to exist; then it is believed. A follower lags by milliseconds;
each foreign id costs its partition so long."""
FORGET_SECONDS = 300.0
"""For so long a schema that does not exist is not asked for again."""
REPLAY_SECONDS = 5.0
"""But for a replay: whoever asks for one has registered it meanwhile. Ten thousand letters ask once in so long."""


class Wire(Protocol):
    """A topic's values, which name their schemas (bridge/decode/avro.py)."""

    def lacks(self, record: Record) -> SchemaId | None: ...

    def named(self, record: Record) -> SchemaId | None: ...

    def learn(self, id: SchemaId, text: str, references: tuple[str, ...]) -> str | None: ...

    def refuse(self, id: SchemaId, reason: str) -> None: ...

    def forget(self, id: SchemaId) -> None: ...


Key = tuple[str, SchemaId]
"""A topic and a schema that it lacks."""


class Schemas:
    """`wires` and `registries` by topic. `learned` hears of each schema that records of a topic need not wait for."""

    def __init__(self, wires: Mapping[str, Wire], registries: Mapping[str, Registry]) -> None:
        self._wires = wires
        self._registries = registries
        self._fetches: dict[Key, asyncio.Task[None]] = {}
        self._troubles: dict[Key, str] = {}
        self._awaited: dict[Key, int] = {}
        """By how many `ready` calls."""
        self._unknown: dict[Key, float] = {}
        """Schemas that do not exist, and since when that is believed (the loop's time); forgotten after a while."""
        self._closed = False
        self.learned: Callable[[str, SchemaId], None] = lambda topic, id: None
        self.wanted: Callable[[str, SchemaId], bool] = lambda topic, id: False
        """Whether a partition still waits for it."""
        self.fetched: Callable[[str], None] = lambda result: None
        """Hears how each question ended: fetched, unknown, unusable, failed."""

    def lacks(self, record: Record) -> SchemaId | None:
        """The schema that a record has to wait for; it is being fetched from now on."""
        wire = self._wires.get(record.topic)
        if wire is None:
            return None
        id = wire.lacks(record)
        if id is not None:
            self._fetch(record.topic, id)
        return id

    async def ready(self, record: Record, *, anew: bool = False) -> None:
        """Returns once the record can be decoded, or has its answer; as long as that takes.

        `anew`: a schema that did not exist is asked for once more.
        """
        if anew:
            self._believe_no_more(record)
        while (id := self.lacks(record)) is not None:
            key = (record.topic, id)
            if self._closed:
                raise RegistryFailed("the bridge stops")
            self._awaited[key] = self._awaited.get(key, 0) + 1
            try:
                await asyncio.wait([self._fetches[key]])
            finally:
                self._awaited[key] -= 1
                if not self._awaited[key]:
                    del self._awaited[key]

    def _believe_no_more(self, record: Record) -> None:
        wire = self._wires.get(record.topic)
        id = wire.named(record) if wire is not None else None
        if id is None:
            return
        key = (record.topic, id)
        if asyncio.get_running_loop().time() - self._unknown.get(key, math.inf) >= REPLAY_SECONDS:
            self._forget(key)

    def _forget(self, key: Key) -> None:
        if self._unknown.pop(key, None) is not None:
            self._wires[key[0]].forget(key[1])

    async def ready_now(self, record: Record) -> None:
        """The same, but asks once: for commands, which tell a person. Raises RegistryFailed."""
        wire = self._wires.get(record.topic)
        id = wire.lacks(record) if wire is not None else None
        if wire is None or id is None:
            return
        try:
            await self._ask(wire, self._registries[record.topic], id)
        except UnknownSchema:
            self._refuse(wire, id, self._registries[record.topic])

    def waiting(self) -> list[Waiting]:
        """What is being fetched, for status and metrics."""
        if not self._fetches:
            return []
        topic, id = next((key for key in self._fetches if key in self._troubles), next(iter(self._fetches)))
        trouble = self._troubles.get((topic, id))
        detail = f"schema {id} of {topic}" + (f": {trouble}" if trouble else "")
        return [Waiting("schema", len(self._fetches), detail=detail)]

    async def close(self) -> None:
        """Nothing is fetched any more; what waits goes on waiting."""
        self._closed = True
        fetches = list(self._fetches.values())
        for fetch in fetches:
            fetch.cancel()
        await asyncio.gather(*fetches, return_exceptions=True)

    def _fetch(self, topic: str, id: SchemaId) -> None:
        key = (topic, id)
        if key not in self._fetches and not self._closed:
            task = asyncio.get_running_loop().create_task(self._carry(topic, id), name=f"schema {id} of {topic}")
            self._fetches[key] = task
            task.add_done_callback(lambda done: self._done(key, done))

    def _done(self, key: Key, task: asyncio.Task[None]) -> None:
        del self._fetches[key]
        self._troubles.pop(key, None)
        if not task.cancelled():
            task.result()
            self.learned(*key)

    async def _carry(self, topic: str, id: SchemaId) -> None:
        """Asks until there is an answer, or nobody waits for it any more."""
        wire, registry = self._wires[topic], self._registries[topic]
        key = (topic, id)
        missing = away = 0
        while True:
            try:
                await self._ask(wire, registry, id)
                if away:
                    log.info("the schema registry answers again; the topic's events go on", topic=topic, schema=id)
                return
            except UnknownSchema:
                if missing == len(MISSING_SECONDS):
                    self._refuse(wire, id, registry)
                    log.warning(
                        "the schema registry knows no such schema: records that name it are dead letters",
                        topic=topic,
                        schema=id,
                        registry=registry.where,
                        asked_again_after_seconds=FORGET_SECONDS,
                    )
                    loop = asyncio.get_running_loop()
                    self._unknown[key] = loop.time()
                    loop.call_later(FORGET_SECONDS, self._forget, key)
                    return
                pause = MISSING_SECONDS[missing]
                missing += 1
            except RegistryFailed as error:
                if self._troubles.get(key) != str(error):
                    self._troubles[key] = str(error)
                    log.warning(
                        "a schema cannot be fetched: partitions that need it wait, and it is asked for again and again",
                        topic=topic,
                        schema=id,
                        error=str(error),
                    )
                pause = AGAIN_SECONDS[min(away, len(AGAIN_SECONDS) - 1)]
                away += 1
            await asyncio.sleep(pause)
            if key not in self._awaited and not self.wanted(topic, id):
                return

    async def _ask(self, wire: Wire, registry: Registry, id: SchemaId) -> None:
        try:
            found = await registry.schema(id)
        except UnknownSchema:
            self.fetched("unknown")
            raise
        except RegistryFailed:
            self.fetched("failed")
            raise
        except Exception as error:  # a bug of the adapter's: the partition would wait for ever, and nobody would know
            self.fetched("failed")
            raise RegistryFailed(f"{registry.where} cannot be asked ({type(error).__name__})") from error
        if found.kind != "AVRO":
            kind = found.kind if found.kind.isalnum() else repr(found.kind[:40])  # it goes into letters, on one line
            reason: str | None = f"the schema {id} is of kind {kind[:42]}, and the topic's records are read as Avro"
            wire.refuse(id, str(reason))
        else:
            reason = wire.learn(id, found.text, found.references)
        self.fetched("fetched" if reason is None else "unusable")
        if reason is not None:
            log.warning(
                "a schema cannot be used: its records are dead letters; replay them once they can be read",
                schema=id,
                reason=reason,
            )

    @staticmethod
    def _refuse(wire: Wire, id: SchemaId, registry: Registry) -> None:
        wire.refuse(id, f"{registry.where} knows no schema {id}")
