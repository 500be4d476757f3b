"""What librdkafka is told: our defaults with their reasons, the user's own properties, and the few that are refused.

A user may set any librdkafka property under `kafka.properties`, except those on which the promises rest: who commits,
what, and where reading starts.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer

from bridge.errors import UsageError

log = structlog.get_logger(__name__)

CLASSIC = "classic"
CONSUMER = "consumer"
"""The KIP-848 group protocol: the broker assigns, members are not stopped by a rebalance of others."""

REFUSED: dict[str, str] = {
    "bootstrap.servers": "set kafka.bootstrap_servers instead",
    "metadata.broker.list": "set kafka.bootstrap_servers instead",
    "group.id": "set kafka.group_id instead",
    "enable.auto.commit": "offsets are committed only after delivery; remove it",
    "auto.commit.interval.ms": "offsets are committed only after delivery; remove it",
    "enable.auto.offset.store": "offsets are committed only after delivery; remove it",
    "enable.partition.eof": "lag is reckoned with it; remove it",
    "auto.offset.reset": "set topics.<name>.start instead",
    "enable.idempotence": "dead letters are always written idempotently; remove it",
    "acks": "a dead letter counts only when all replicas have it; remove it",
    "request.required.acks": "a dead letter counts only when all replicas have it; remove it",
    "transactional.id": "the bridge writes no transactions; remove it",
    "test.mock.num.brokers": "use `meisa-bridge demo` for the embedded broker; remove it",
}
"""Properties that would break a promise, and what to write instead."""

_CONSUMER_ONLY = frozenset(
    {
        "allow.auto.create.topics",
        "auto.commit.enable",
        "check.crcs",
        "client.rack",
        "coordinator.query.interval.ms",
        "fetch.error.backoff.ms",
        "fetch.max.bytes",
        "fetch.message.max.bytes",
        "fetch.min.bytes",
        "fetch.queue.backoff.ms",
        "fetch.wait.max.ms",
        "group.instance.id",
        "group.protocol",
        "group.protocol.type",
        "group.remote.assignor",
        "heartbeat.interval.ms",
        "isolation.level",
        "max.partition.fetch.bytes",
        "max.poll.interval.ms",
        "partition.assignment.strategy",
        "queued.max.messages.kbytes",
        "queued.min.messages",
        "session.timeout.ms",
    }
)
_PRODUCER_ONLY = frozenset(
    {
        "batch.num.messages",
        "batch.size",
        "compression.codec",
        "compression.level",
        "compression.type",
        "delivery.timeout.ms",
        "linger.ms",
        "max.in.flight",
        "max.in.flight.requests.per.connection",
        "message.send.max.retries",
        "message.timeout.ms",
        "partitioner",
        "queue.buffering.max.kbytes",
        "queue.buffering.max.messages",
        "queue.buffering.max.ms",
        "request.timeout.ms",
        "retries",
        "sticky.partitioning.linger.ms",
    }
)
_CLASSIC_ONLY = frozenset(
    {"session.timeout.ms", "heartbeat.interval.ms", "partition.assignment.strategy", "group.protocol.type"}
)
"""librdkafka refuses these with group.protocol=consumer: there they are the broker's settings."""
_CONSUMER_PROTOCOL_ONLY = frozenset({"group.remote.assignor"})

_SHARED: dict[str, Any] = {
    "client.id": "meisa-bridge",
    # Back within two seconds of a broker's return, where librdkafka would sleep for up to ten.
    "reconnect.backoff.max.ms": 2_000,
    "socket.keepalive.enable": True,
    # Brokers close idle connections as a matter of course: not worth a line each.
    "log.connection.close": False,
}

READS: dict[str, Any] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    # An offset that the log does not have is an error for us to decide (delivery.md, 7), never a silent jump.
    "auto.offset.reset": "error",
    "isolation.level": "read_committed",
    # Tells when nothing is left to read: a log may end in transaction markers, which would show as lag for ever.
    "enable.partition.eof": True,
    # A mistyped topic must be reported, not created.
    "allow.auto.create.topics": False,
}
"""What holds for whatever reads, in the group and beside it."""

_SOURCE: dict[str, Any] = {
    **READS,
    # Prefetch: 10,000 records hide a broker's round trip of some 30 ms at 265,000 records/s. 16 MiB bounds what that
    # costs in memory when records are large (librdkafka's own bound is 64 MiB); one fetch may exceed it by its size.
    "queued.min.messages": 10_000,
    "queued.max.messages.kbytes": 16_384,
    "fetch.max.bytes": 8 * 1024 * 1024,
    # A fetch that waits for records blocks other questions to the same broker (positions, log ends): ten empty
    # answers a second cost a broker nothing, half a second of waiting costs us promptness.
    "fetch.wait.max.ms": 100,
    # Once the prefetch bound was reached librdkafka looks again after this long; its own 1,000 ms stalls a fast reader.
    "fetch.queue.backoff.ms": 20,
    # How soon a topic that did not exist at the start is found with the classic protocol.
    "topic.metadata.refresh.interval.ms": 30_000,
}

_LETTERS: dict[str, Any] = {
    "enable.idempotence": True,
    "acks": "all",
    # The offset waits for the acknowledgement, so a letter leaves at once; a burst still shares requests.
    "linger.ms": 1,
    # After this a letter counts as not written; the writer of it decides, and will try again.
    "delivery.timeout.ms": 30_000,
    # Dead letters are few or something is very wrong; the application's own bound is lower still.
    "queue.buffering.max.messages": 10_000,
    "queue.buffering.max.kbytes": 65_536,
    "compression.type": "lz4",
    # Whether a letter is too large is for the topic to say: the client's own limit of 1 MB would refuse what the
    # source topic took.
    "message.max.bytes": 67_108_864,
}


def checked(properties: Mapping[str, Any]) -> dict[str, Any]:
    """The user's properties, if none is refused. Raises UsageError that names the property and what to write."""
    for name, value in properties.items():
        if name in REFUSED:
            raise UsageError(f"kafka.properties: {name} cannot be set: {REFUSED[name]}")
        if name.endswith("_cb") or name == "logger":
            raise UsageError(f"kafka.properties: {name} is not a librdkafka property; remove it")
        if name == "group.protocol" and str(value).lower() not in (CLASSIC, CONSUMER):
            raise UsageError(f"kafka.properties: group.protocol is {value!r}; write classic or consumer")
        if name == "partition.assignment.strategy" and str(value) != "cooperative-sticky":
            raise UsageError(
                f"kafka.properties: partition.assignment.strategy is {value!r}; only cooperative-sticky moves "
                "partitions without stopping the whole group: write that, or remove it"
            )
    return dict(properties)


def shared(bootstrap_servers: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    """For clients that neither consume in the group nor write letters: connection, security, and no role's own."""
    roles = _CONSUMER_ONLY | _PRODUCER_ONLY
    own = {name: value for name, value in properties.items() if name not in roles}
    return {**_SHARED, **own, "bootstrap.servers": bootstrap_servers}


def for_source(bootstrap_servers: str, group_id: str, properties: Mapping[str, Any], protocol: str) -> dict[str, Any]:
    """The consumer's configuration under one group protocol; properties of the other protocol are left out."""
    other = _CLASSIC_ONLY if protocol == CONSUMER else _CONSUMER_PROTOCOL_ONLY
    left_out = _PRODUCER_ONLY | other
    own = {name: value for name, value in properties.items() if name not in left_out}
    config = {**_SHARED, **_SOURCE, **own}
    if protocol == CLASSIC:
        config["partition.assignment.strategy"] = "cooperative-sticky"
    return {**config, "group.protocol": protocol, "bootstrap.servers": bootstrap_servers, "group.id": group_id}


def for_letters(bootstrap_servers: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    """The dead-letter producer's configuration."""
    own = {name: value for name, value in properties.items() if name not in _CONSUMER_ONLY}
    return {**_SHARED, **_LETTERS, **own, "bootstrap.servers": bootstrap_servers}


def validate(bootstrap_servers: str, properties: Mapping[str, Any]) -> None:
    """Lets librdkafka itself judge names and values, without connecting. Raises UsageError with its words."""
    own = checked(properties)
    protocol = str(own.get("group.protocol", CLASSIC)).lower()
    try:
        Consumer(for_source(bootstrap_servers, "check", own, protocol), logger=Silence()).close()
        Producer(for_letters(bootstrap_servers, own), logger=Silence())
    except KafkaException as error:
        raise UsageError(f"kafka.properties: {error.args[0].str()}") from None
    except (TypeError, ValueError) as error:
        raise UsageError(f"kafka.properties: {error}") from None


def reason(error: KafkaError) -> str:
    """`ILLEGAL_GENERATION: Broker: Specified group generation id is not valid`: a stable name, then words."""
    return f"{error.name()}: {error.str()}"


class Silence:
    def log(self, level: int, *parts: object) -> None:
        """librdkafka's remarks on a client that lives for a millisecond."""


class LibrdkafkaLog:
    """Takes librdkafka's own log lines (a `logger` for confluent-kafka; only its `log` is ever called).

    Every attempt to connect that fails is a line there, ten a second: the listener is told of such trouble once, in
    words. So only warnings of another kind are passed on as warnings.
    """

    def log(self, level: int, text: str, *arguments: object) -> None:
        line = text % arguments if arguments else text
        if level >= logging.WARNING and not line.startswith(("FAIL ", "ERROR ")):
            log.warning("librdkafka: %s", line)
        else:
            log.debug("librdkafka: %s", line)
