"""What a cluster tells of topics beside their records: whether one is still the same, and how long it keeps records.

A topic that was deleted and created anew under its name has the same offsets with other records behind them. Only its
id tells the two apart: it is asked for whenever partitions are assigned, and every ten seconds, because with the
classic protocol a running consumer reads on in the new topic at its old offset and nobody else notices.

Belongs to the polling thread, and never blocks it but in `fresh`: questions go through a client of their own, whose
answers are looked for between two polls. A broker that does not answer such questions (the embedded one) is not asked.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import structlog
from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, ConfigResource  # type: ignore[attr-defined]

from bridge.kafka.properties import Silence, reason, shared

log = structlog.get_logger(__name__)

LOOK_SECONDS = 10.0
"""Between questions for ids: so long a topic created anew may be read on at an old offset before it is noticed."""
CONFIGS_SECONDS = 300.0
"""Between questions for retention, which people change now and then."""
ANSWER_SECONDS = 5.0
"""After which a question counts as unanswered; it is asked again at the next look."""
FORMER_MAX = 16
"""Former ids remembered per topic: a broker that lags behind may still tell one, and must not be believed."""


class Topics:
    """`names` are all topics that are read."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)
        self._client: AdminClient | None = None
        self._hashes: dict[str, int] = {}
        self._former: dict[str, list[int]] = {}
        self._anew: set[str] = set()
        self._ids_asked: dict[str, Future[Any]] = {}
        self._configs_asked: dict[Any, Future[Any]] = {}
        self._ask_ids_at = 0.0
        self._ask_configs_at = 0.0
        self._answers = True
        self.partitions: dict[str, int] = {}
        """How many partitions each topic has, as far as it was told. Replaced as a whole."""
        self.retention_seconds: dict[str, float] = {}
        """How long records are kept at least; absent where it is not known or without end. Replaced as a whole."""

    def connect(self, bootstrap_servers: str, properties: Mapping[str, Any]) -> None:
        """Asks from now on. Not called for a broker that does not answer."""
        if self._client is None:
            config = {**shared(bootstrap_servers, properties), "error_cb": lambda error: None}
            self._client = AdminClient(config, logger=Silence())  # what it would say the consumer says too
            self._ask_ids(time.monotonic())

    def note_partitions(self, counts: Mapping[str, int]) -> None:
        """What was learnt otherwise: of a broker that does not answer the questions here, or at the very beginning."""
        self.partitions = {**self.partitions, **{name: counts[name] for name in self._names if name in counts}}

    def close(self) -> None:
        self._client = None
        self._ids_asked, self._configs_asked = {}, {}

    def ask(self) -> None:
        """Puts the question whose answer `fresh` awaits; other questions may be put to Kafka meanwhile."""
        self._ask_ids(time.monotonic())

    def fresh(self, seconds: float) -> dict[str, int]:
        """The hashes that came as an answer to `ask`; waits for it, but only where the last one had an answer."""
        deadline = time.monotonic() + (seconds if self._answers else 0.0)
        answers = {}
        for name, asked in self._ids_asked.items():
            try:
                description = asked.result(max(0.0, deadline - time.monotonic()))
            except KafkaException:
                continue
            except TimeoutError:
                self._answers = False
                log.debug("the cluster does not tell the topics' ids in time", seconds=seconds)
                break
            self.note_partitions({name: len(description.partitions)})
            if (found := _hash(description.topic_id)) is not None and self._is_now(name, found):
                answers[name] = found
        return answers

    def look(self, now: float) -> None:
        """Takes in what was answered, and asks again when it is time. `now` is monotonic."""
        if self._client is None:
            return
        if self._ids_asked and all(asked.done() for asked in self._ids_asked.values()):
            self._answers = True
            self.fresh(0.0)
            self._ids_asked = {}
        if self._configs_asked and all(asked.done() for asked in self._configs_asked.values()):
            self._take_configs()
        if now >= self._ask_ids_at:
            self._client.poll(0)  # drops log lines, which would pile up
            self._ask_ids(now)
        if now >= self._ask_configs_at:
            self._ask_configs_at = now + CONFIGS_SECONDS
            resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in self._names]
            self._configs_asked = self._client.describe_configs(resources, request_timeout=ANSWER_SECONDS)

    def take_anew(self) -> set[str]:
        """Topics found to have been created anew since this was asked last."""
        anew, self._anew = self._anew, set()
        return anew

    def _ask_ids(self, now: float) -> None:
        self._ask_ids_at = now + LOOK_SECONDS
        if self._client is not None:
            topics = TopicCollection(self._names)
            self._ids_asked = self._client.describe_topics(topics, request_timeout=ANSWER_SECONDS)

    def _is_now(self, name: str, found: int) -> bool:
        """Notes an id; False for a former one, which a broker tells that has not heard the news."""
        known = self._hashes.get(name)
        if found == known:
            return True
        former = self._former.setdefault(name, [])
        if found in former:
            return False
        self._hashes[name] = found
        if known is not None:
            former[:] = [*former, known][-FORMER_MAX:]
            self._anew.add(name)
        return True

    def _take_configs(self) -> None:
        asked, self._configs_asked = self._configs_asked, {}
        kept = dict(self.retention_seconds)
        for resource, answer in asked.items():
            try:
                keeps = keeps_seconds(answer.result(0))
            except (KafkaException, TimeoutError, KeyError, TypeError, ValueError) as error:
                why = reason(error.args[0]) if isinstance(error, KafkaException) else repr(error)
                log.debug("a topic's retention is not told", topic=resource.name, error=why)
                continue
            kept.pop(resource.name, None)
            if keeps is not None:
                kept[resource.name] = keeps
        self.retention_seconds = kept


def keeps_seconds(settings: Mapping[str, Any]) -> float | None:
    """How long a topic with these settings keeps records at least; None: without end. Raises KeyError, ValueError and
    TypeError where they do not tell."""
    milliseconds = int(settings["retention.ms"].value)
    deletes = "delete" in settings["cleanup.policy"].value
    return milliseconds / 1000 if deletes and milliseconds >= 0 else None


def _hash(topic_id: Any) -> int | None:
    """Four bytes; None where the broker gave no id (older than 2.8)."""
    parts = (topic_id.get_most_significant_bits(), topic_id.get_least_significant_bits())
    if parts == (0, 0):
        return None
    return zlib.crc32(b"".join(part.to_bytes(8, "big", signed=True) for part in parts))
