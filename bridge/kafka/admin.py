"""Questions to the cluster before and beside the work: is it there, which topics, which group protocol."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic  # type: ignore[attr-defined]

from bridge.errors import KafkaFault, KafkaRefused, StartFailed
from bridge.kafka.diagnosis import diagnosed, door, hidden, refuses
from bridge.kafka.properties import CLASSIC, reason, shared
from bridge.kafka.topics import keeps_seconds

log = structlog.get_logger(__name__)

REFUSED_SECONDS = 2.0
"""After which a probe gives up early where every broker has refused the connection, and is not merely away."""
SESSION_SECONDS = 45.0
"""Kafka's default for both group protocols."""

_HEARTBEAT = re.compile(r"ApiKey ConsumerGroupHeartbeat \(68\) Versions (\d+)\.\.(\d+)")
_HEARTBEAT_VERSION = 1
"""What librdkafka speaks; version 0 (Kafka 3.7 to 3.9) was an early access that it does not."""
_TROUBLES_MAX = 100
"""While a broker cannot be reached they repeat."""
_LINES_MAX = 2_000
"""A broker lists some 90 APIs and 140 features; a cluster's first few brokers fit, and more is not needed."""


class Cluster(NamedTuple):
    """What a probe found out."""

    brokers: int
    topics: Mapping[str, int]
    """Name → number of partitions, without Kafka's internal ones."""
    consumer_protocol: bool
    """Whether the brokers offer KIP-848 (`group.protocol=consumer`)."""
    describes: bool = False
    """Whether topics and settings can be asked for: the embedded broker would let such questions time out."""

    def missing(self, *names: str) -> list[str]:
        return [name for name in names if name not in self.topics]


class _Listening:
    """librdkafka's debug lines: the only place where it tells which APIs a broker offers."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.troubles: list[str] = []
        """What librdkafka itself calls an error, or a warning."""

    def log(self, level: int, text: str, *arguments: object) -> None:
        line = text % arguments if arguments else text
        if level >= logging.WARNING and len(self.troubles) < _TROUBLES_MAX:
            self.troubles.append(line.split("]: ", 1)[-1])
        if len(self.lines) < _LINES_MAX:
            self.lines.append(line)

    def describes_configs(self) -> bool:
        return any("ApiKey DescribeConfigs (32)" in line for line in self.lines)

    def consumer_protocol(self) -> bool:
        found = [match for line in self.lines if (match := _HEARTBEAT.search(line))]
        return bool(found) and all(int(m[1]) <= _HEARTBEAT_VERSION <= int(m[2]) for m in found)


def _unreachable(bootstrap_servers: str, properties: Mapping[str, Any], troubles: Sequence[str]) -> KafkaRefused:
    found = diagnosed(bootstrap_servers, properties, troubles)
    if found is not None:
        return found
    detail = f" ({hidden(troubles[0], properties)})" if troubles else ""
    return KafkaRefused(
        KafkaFault.UNREACHABLE,
        f"no Kafka broker answers at {bootstrap_servers}{detail}",
        "check kafka.bootstrap_servers, that the broker is up, and kafka.properties for security.protocol and "
        "credentials",
        ("bootstrap_servers",),
    )


def _hopeless(bootstrap_servers: str, properties: Mapping[str, Any], troubles: Sequence[str]) -> bool:
    """Whether every broker that is named has refused us, so that waiting helps nobody."""
    addresses = bootstrap_servers.split(",")
    refused = {door(bootstrap_servers, properties, line).address for line in troubles if refuses(line)}
    return len(refused) >= len(addresses)


def probe(bootstrap_servers: str, properties: Mapping[str, Any], timeout_seconds: float = 5.0) -> Cluster:
    """Connects once and asks; about 10 ms on a local broker. Blocking. Raises StartFailed in one clear line:
    KafkaRefused where it is the connection that fails."""
    listening = _Listening()
    errors: list[str] = []
    config = {
        **shared(bootstrap_servers, properties),
        "debug": "feature",
        "log_level": 7,
        "error_cb": lambda error: errors.append(reason(error)),
    }
    deadline = time.monotonic() + timeout_seconds
    try:
        client = AdminClient(config, logger=listening)
    except KafkaException as error:
        raise StartFailed(f"kafka.properties: {error.args[0].str()}") from None
    patience = min(REFUSED_SECONDS, timeout_seconds)
    while True:
        try:
            metadata = client.list_topics(timeout=patience)
            client.poll(0)  # delivers the log lines, which wait for a poll
            break
        except KafkaException:
            client.poll(0)
            troubles = listening.troubles or errors
            patience = deadline - time.monotonic()
            if patience <= 0.1 or _hopeless(bootstrap_servers, properties, listening.troubles):
                raise _unreachable(bootstrap_servers, properties, troubles) from None
    topics = {
        name: len(topic.partitions)
        for name, topic in metadata.topics.items()
        if topic.error is None and not name.startswith("__")
    }
    return Cluster(len(metadata.brokers), topics, listening.consumer_protocol(), listening.describes_configs())


def supports_consumer_protocol(
    bootstrap_servers: str, properties: Mapping[str, Any], timeout_seconds: float = 5.0
) -> bool:
    """Whether KIP-848 can be used. A broker may still refuse it by configuration; the source then falls back."""
    return probe(bootstrap_servers, properties, timeout_seconds).consumer_protocol


def is_member(
    bootstrap_servers: str, properties: Mapping[str, Any], group_id: str, member_id: str, timeout_seconds: float = 1.0
) -> bool:
    """Whether the group's coordinator counts this member; False too where it does not answer."""
    client = AdminClient(shared(bootstrap_servers, properties), logger=_Listening())
    try:
        asked = client.describe_consumer_groups([group_id], request_timeout=timeout_seconds)
        described = asked[group_id].result(timeout_seconds)
    except (KafkaException, TimeoutError):
        return False
    return any(member.member_id == member_id for member in described.members)


def session_seconds(
    bootstrap_servers: str, properties: Mapping[str, Any], group_id: str, protocol: str, timeout_seconds: float = 2.0
) -> float:
    """After how long without a heartbeat the group gives a member's partitions to others. Blocking; never raises.

    Classic members say it themselves. For KIP-848 it is the group's configuration, which may be asked for with the ACL
    DescribeConfigs on the group; without it, or without an answer, Kafka's default of 45 s is assumed.
    """
    own = properties.get("session.timeout.ms")
    if protocol == CLASSIC:
        return SESSION_SECONDS if own is None else float(own) / 1000
    listening = _Listening()
    config = {**shared(bootstrap_servers, properties), "debug": "feature", "log_level": 7}
    asked = ConfigResource(ConfigResource.Type.GROUP, group_id)
    try:
        client = AdminClient(config, logger=listening)
        client.list_topics(timeout=timeout_seconds)
        client.poll(0)
        if not listening.describes_configs():
            return SESSION_SECONDS  # the embedded broker: asked all the same, librdkafka would wait out the timeout
        (answer,) = client.describe_configs([asked], request_timeout=timeout_seconds).values()
        return float(answer.result(timeout_seconds)["consumer.session.timeout.ms"].value) / 1000
    except (KafkaException, TimeoutError, KeyError, TypeError, ValueError) as error:
        log.debug("the group's session timeout is not told; Kafka's default is assumed", error=repr(error))
        return SESSION_SECONDS


def retention_seconds(
    bootstrap_servers: str, properties: Mapping[str, Any], topics: Iterable[str], timeout_seconds: float = 5.0
) -> dict[str, float]:
    """How long topics keep records at least; without those that keep them for ever or do not tell. Blocking; never
    raises. Not to be asked of the embedded broker, which does not answer."""
    client = AdminClient(shared(bootstrap_servers, properties), logger=_Listening())
    asked = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in topics]
    found: dict[str, float] = {}
    for resource, answer in client.describe_configs(asked, request_timeout=timeout_seconds).items() if asked else ():
        try:
            keeps = keeps_seconds(answer.result(timeout_seconds))
        except (KafkaException, TimeoutError, KeyError, TypeError, ValueError) as error:
            log.debug("a topic's retention is not told", topic=resource.name, error=repr(error))
            continue
        if keeps is not None:
            found[resource.name] = keeps
    return found


COORDINATOR_BUSY = {
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
}
"""For a moment after a broker's start."""


def has_committed(
    bootstrap_servers: str, properties: Mapping[str, Any], group_id: str, timeout_seconds: float = 10.0
) -> bool:
    """Whether the group has an offset in any topic that can be seen: if not, it has finished nothing yet. Blocking.

    True as well where the brokers do not say. Raises StartFailed where none answers.
    """
    cluster = probe(bootstrap_servers, properties, timeout_seconds)
    asked = [TopicPartition(name, number) for name, count in cluster.topics.items() for number in range(count)]
    # Not by AdminClient.list_consumer_group_offsets: confluent-kafka 2.16 crashes on some of its answers.
    consumer = Consumer({**shared(bootstrap_servers, properties), "group.id": group_id}, logger=_Listening())
    deadline = time.monotonic() + timeout_seconds
    try:
        while True:
            try:
                answers = consumer.committed(asked, timeout=timeout_seconds) if asked else []
                return any(answer.offset >= 0 or answer.error is not None for answer in answers)
            except KafkaException as error:
                problem = error.args[0]
                if problem.code() not in COORDINATOR_BUSY or time.monotonic() >= deadline:
                    log.warning(
                        "Kafka does not tell whether the group has committed: it counts as if it had, and where the "
                        "shared quota's Redis knows of no calls, what may have been made counts as made",
                        error=reason(problem),
                    )
                    return True
                time.sleep(0.1)
    finally:
        consumer.close()


def create_topics(
    bootstrap_servers: str,
    properties: Mapping[str, Any],
    topics: Mapping[str, int],
    *,
    replication: int = -1,
    settings: Mapping[str, str] | None = None,
    timeout_seconds: float = 15.0,
) -> list[str]:
    """Creates those of `topics` (name → partitions, -1 the broker's default) that do not exist; returns their names.

    Raises StartFailed. The embedded broker does not answer this request: use its own `create_topic`.
    """
    client = AdminClient(shared(bootstrap_servers, properties), logger=_Listening())
    wanted = [
        NewTopic(name, num_partitions=partitions, replication_factor=replication, config=dict(settings or {}))
        for name, partitions in topics.items()
    ]
    if not wanted:
        return []
    created = []
    for name, future in client.create_topics(wanted, operation_timeout=timeout_seconds).items():
        try:
            future.result(timeout_seconds)
        except KafkaException as error:
            problem = error.args[0]
            if problem.code() == KafkaError.TOPIC_ALREADY_EXISTS:
                continue
            raise StartFailed(f"topic {name} could not be created: {reason(problem)}") from None
        except TimeoutError:
            raise StartFailed(
                f"topic {name} could not be created: {bootstrap_servers} did not answer within {timeout_seconds:g} s"
            ) from None
        created.append(name)
    return created
