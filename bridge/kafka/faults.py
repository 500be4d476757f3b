"""What librdkafka's errors mean to an operator: in words, with the consequence, and not a line too many."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import structlog
from confluent_kafka import KafkaError

from bridge.kafka.diagnosis import hidden
from bridge.kafka.properties import CLASSIC, reason
from bridge.model import TopicPartition

log = structlog.get_logger(__name__)

REPEAT_SECONDS = 60.0
"""A trouble that lasts is told again after this long; a changed one at once."""
REMEMBERED_MAX = 1_000
"""Different troubles remembered; partitions are named in most, so this grows with their number only."""


class Verdict(NamedTuple):
    """What follows from an error."""

    key: str
    """Which trouble it is: told once per change."""
    message: str = ""
    fatal: bool = False
    ends_membership: bool = False
    """The client cannot be used further; a new one may."""
    protocol: str = ""
    """The group protocol that the next one uses."""
    wait_seconds: float = 0.0


def judge(
    error: KafkaError, bootstrap_servers: str, topic: str | None, properties: Mapping[str, Any]
) -> Verdict | None:
    """None for what librdkafka gets over by itself and nobody need know."""
    code = error.code()
    text = hidden(error.str(), properties)
    if error.fatal() or code in (KafkaError._FATAL, KafkaError.GROUP_AUTHORIZATION_FAILED):
        return _fatal(error, properties)
    if code in (KafkaError._ALL_BROKERS_DOWN, KafkaError._RESOLVE):
        return Verdict(
            "unreachable",
            f"no Kafka broker of {bootstrap_servers} can be reached ({text}); nothing is read or committed, and "
            "connecting is tried again for as long as it takes",
        )
    if code in (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._SSL):
        return Verdict(
            "credentials",
            f"Kafka refuses the connection ({text}); nothing is read until the credentials in kafka.properties are "
            "right, and connecting is tried again",
        )
    if code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION):
        return Verdict(*no_such_topic(topic or "?"))
    if code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        return Verdict(*not_permitted(topic))
    if code == KafkaError._MAX_POLL_EXCEEDED:
        return Verdict(
            "poll",
            "the group took this consumer for dead because the machine or process stood still (max.poll.interval.ms); "
            "it joins again, and what was not committed is repeated",
        )
    if code in (KafkaError._TRANSPORT, KafkaError._TIMED_OUT):
        return None  # one broker's connection: librdkafka reconnects, and says so when all are down
    return Verdict(f"code {code}", f"Kafka reports: {reason(error)}; reading goes on as far as it can")


_UNRELEASED_INSTANCE_ID = 111
"""Kafka's error code; confluent-kafka has no name for it."""

_FATAL_CODES = (
    KafkaError.UNSUPPORTED_VERSION,
    KafkaError._UNSUPPORTED_FEATURE,
    _UNRELEASED_INSTANCE_ID,
    KafkaError.GROUP_ID_NOT_FOUND,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.FENCED_INSTANCE_ID,
    KafkaError.GROUP_MAX_SIZE_REACHED,
)


def _cause(error: KafkaError) -> int:
    """What is behind a fatal error: confluent-kafka gives `_FATAL` as its code and tells the cause in words only."""
    if error.code() == KafkaError._FATAL:
        for code in _FATAL_CODES:
            if error.str().startswith(f"Fatal error: {KafkaError(code).str()}:"):
                return code
    return error.code()


def _fatal(error: KafkaError, properties: Mapping[str, Any]) -> Verdict:
    code = _cause(error)
    if code in (KafkaError.UNSUPPORTED_VERSION, KafkaError._UNSUPPORTED_FEATURE):
        log.info("the brokers do not offer KIP-848 groups; the classic protocol is used")
        return Verdict("protocol", ends_membership=True, protocol=CLASSIC)
    if code == _UNRELEASED_INSTANCE_ID:
        name = properties.get("group.instance.id")
        return Verdict(
            "group",
            f"the group still holds a place for group.instance.id {name}: its former process ended without leaving, or "
            "another uses the same name. Joining is tried again until the session timeout has freed it",
            ends_membership=True,
            wait_seconds=2.0,
        )
    if code in (KafkaError.GROUP_ID_NOT_FOUND, KafkaError.UNKNOWN_MEMBER_ID):
        return Verdict(
            "group",
            f"the group is not known to its coordinator any more ({error.str()}); joining again",
            ends_membership=True,
            wait_seconds=1.0,
        )
    return final(error)


def final(error: KafkaError) -> Verdict:
    """An error that no waiting gets over."""
    code = _cause(error)
    what = f"Kafka ended this consumer: {reason(error)}"
    if code == KafkaError.GROUP_AUTHORIZATION_FAILED:
        what = (
            "Kafka does not permit using this group: grant READ on kafka.group_id to the principal in kafka.properties"
        )
    elif code == KafkaError.FENCED_INSTANCE_ID:
        what = "another process uses the same group.instance.id and has taken this one's place: give each its own"
    elif code == KafkaError.GROUP_MAX_SIZE_REACHED:
        what = "the group has as many members as the broker permits (group.consumer.max.size): run fewer instances"
    return Verdict("fatal", what, fatal=True, ends_membership=True)


def no_such_topic(topic: str) -> tuple[str, str]:
    """The notice's key and words."""
    return (
        f"topic {topic}",
        f"topic {topic} does not exist; the others are read, and it will be as soon as it is created (check its name "
        "under topics, or create it)",
    )


def not_permitted(topic: str | None) -> tuple[str, str]:
    """The notice's key and words. With KIP-848 brokers refuse all topics for the sake of one, and do not name it."""
    if topic is None:
        return (
            "topics",
            "Kafka does not permit reading one of the topics; with its group protocol `consumer` nothing is read until "
            "the user of kafka.properties may READ all of them (`meisa-bridge check` names those that it may not)",
        )
    return (
        f"topic {topic}",
        f"Kafka does not permit reading topic {topic}; its events wait until the user of kafka.properties may READ it",
    )


class Notices:
    """Tells a trouble once, and again only after a minute or after it had gone."""

    def __init__(self, tell: Callable[[str, bool], None], now: Callable[[], float] = time.monotonic) -> None:
        self._tell = tell
        self._now = now
        self._told: dict[str, tuple[str, float]] = {}

    def say(self, key: str, message: str) -> None:
        now = self._now()
        before = self._told.get(key)
        if before is not None and now - before[1] < REPEAT_SECONDS:
            return
        if len(self._told) >= REMEMBERED_MAX:
            self._told.clear()
        self._told[key] = (message, now)
        log.warning(message)
        self._tell(message, False)

    def clear(self, key: str | None = None) -> None:
        """Things work again: `key`, or whatever kept the brokers from being reached."""
        for gone in (key,) if key else ("unreachable", "credentials", "poll", "group", "topics"):
            if self._told.pop(gone, None) is not None:
                log.info("Kafka is reached again; reading goes on", trouble=gone)


def names(partitions: Iterable[TopicPartition]) -> str:
    """`orders/0, orders/1 and 14 more`"""
    listed = [str(tp) for tp in partitions]
    shown = ", ".join(listed[:6])
    return f"{shown} and {len(listed) - 6} more" if len(listed) > 6 else shown
