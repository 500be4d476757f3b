"""A consumer group from outside: who is in it, what it has committed, and a commit for a group that nobody is in.

All of it blocks. The brokers themselves refuse such a commit while the group has a member, so nobody can come between
the question and the commit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient

from bridge.errors import LogFailed, UserError
from bridge.kafka.properties import READS, LibrdkafkaLog, checked, reason, shared
from bridge.kafka.topics import Topics
from bridge.model import Position, TopicPartition

ASK_SECONDS = 10.0
AGAIN_SECONDS = 0.1
_BUSY = (
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
)
"""For a moment after a broker's start."""
_INHABITED = (
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.STALE_MEMBER_EPOCH,
)


class Member(NamedTuple):
    client_id: str
    host: str
    instance_id: str
    """Of a static member, which stays in the group for its session timeout; else empty."""

    def __str__(self) -> str:
        static = f" (group.instance.id {self.instance_id})" if self.instance_id else ""
        return f"{self.client_id} at {self.host.lstrip('/')}{static}"


class Committed(NamedTuple):
    offset: int
    metadata: str


class GroupHasMembers(UserError):
    """Nothing can be committed for the group while somebody is in it."""


T = TypeVar("T")


def _patiently(question: Callable[[], T]) -> T:
    """Asks again for as long as the group's coordinator finds itself."""
    deadline = time.monotonic() + ASK_SECONDS
    while True:
        try:
            return question()
        except KafkaException as error:
            if error.args[0].code() not in _BUSY or time.monotonic() >= deadline:
                raise
        time.sleep(AGAIN_SECONDS)


def members(bootstrap_servers: str, properties: Mapping[str, Any], group_id: str) -> list[Member] | None:
    """Who is in the group; None where the brokers do not offer to tell (the embedded one). Raises LogFailed."""
    client = AdminClient(shared(bootstrap_servers, checked(properties)), logger=LibrdkafkaLog())

    def ask() -> Any:
        return client.describe_consumer_groups([group_id], request_timeout=ASK_SECONDS)[group_id].result(ASK_SECONDS)

    try:
        described = _patiently(ask)
    except KafkaException as error:
        code = error.args[0].code()
        if code == KafkaError._UNSUPPORTED_FEATURE:
            return None
        if code == KafkaError.GROUP_ID_NOT_FOUND:
            return []
        raise LogFailed(reason(error.args[0])) from None
    except TimeoutError:
        raise LogFailed(f"{bootstrap_servers} did not answer within {ASK_SECONDS:g} s") from None
    return [
        Member(str(each.client_id), str(each.host), str(each.group_instance_id or "")) for each in described.members
    ]


def topic_hashes(bootstrap_servers: str, properties: Mapping[str, Any], names: Sequence[str]) -> dict[str, int]:
    """What progress tells topics apart by; without those of which the brokers do not tell."""
    topics = Topics(names)
    topics.connect(bootstrap_servers, checked(properties))
    try:
        return topics.fresh(ASK_SECONDS)
    finally:
        topics.close()


class Offsets:
    """What a group has committed; a context manager. Every call raises LogFailed."""

    def __init__(self, bootstrap_servers: str, properties: Mapping[str, Any], group_id: str) -> None:
        own = shared(bootstrap_servers, checked(properties))
        self._group = group_id
        try:
            self._consumer = Consumer({**READS, **own, "group.id": group_id}, logger=LibrdkafkaLog())
        except KafkaException as error:
            raise LogFailed(reason(error.args[0])) from None

    def __enter__(self) -> Offsets:
        return self

    def __exit__(self, *error: object) -> None:
        self._consumer.close()

    def committed(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Committed]:
        """Without partitions in which the group has no offset."""
        asked = [KafkaPartition(*each) for each in partitions]
        try:
            # Not by AdminClient.list_consumer_group_offsets: confluent-kafka 2.16 crashes on some of its answers.
            answers = _patiently(lambda: self._consumer.committed(asked, timeout=ASK_SECONDS)) if asked else []
        except KafkaException as error:
            raise LogFailed(reason(error.args[0])) from None
        for answer in answers:
            if answer.error is not None:
                raise LogFailed(f"{answer.topic}/{answer.partition}: {reason(answer.error)}")
        return {
            TopicPartition(answer.topic, answer.partition): Committed(answer.offset, answer.metadata or "")
            for answer in answers
            if answer.offset >= 0
        }

    def commit(self, positions: Sequence[Position]) -> None:
        """Returns once the brokers have acknowledged all of them. Raises GroupHasMembers too."""
        asked = [KafkaPartition(*each.partition, each.offset, each.metadata) for each in positions]
        try:
            answers = _patiently(lambda: self._consumer.commit(offsets=asked, asynchronous=False)) or []
        except KafkaException as error:
            raise self._refused(error.args[0]) from None
        for answer in answers:
            if answer.error is not None:
                raise self._refused(answer.error)

    def _refused(self, error: KafkaError) -> LogFailed | GroupHasMembers:
        if error.code() in _INHABITED:
            return GroupHasMembers(
                f"group {self._group} has members: the brokers refuse to set its offsets; stop all instances first"
            )
        return LogFailed(reason(error))
