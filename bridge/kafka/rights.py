"""What the brokers permit the user of `kafka.properties` (ACLs), asked before it is needed.

Kafka hides a topic that a user may not DESCRIBE: it looks as if it did not exist. Asked for by its name it is refused,
whether it exists or not; so the two can be told apart. Each other right implies DESCRIBE. Without an authorizer
everything is permitted. The embedded broker answers no such question and must not be asked.

All of it blocks.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from bridge.errors import LogFailed
from bridge.kafka.admin import COORDINATOR_BUSY
from bridge.kafka.properties import Silence, reason, shared

ASK_SECONDS = 10.0
AGAIN_SECONDS = 0.1
READ, WRITE, CREATE = "READ", "WRITE", "CREATE"


class Rights(NamedTuple):
    """What a user may do; a name that the brokers told nothing of is left out."""

    topics: Mapping[str, frozenset[str]]
    """Nothing at all also for topics that may not be seen. Those that do not exist are left out."""
    group: frozenset[str] | None
    """None where the brokers do not tell."""


def rights(bootstrap_servers: str, properties: Mapping[str, Any], topics: Iterable[str], group_id: str) -> Rights:
    """Raises LogFailed where the brokers do not answer."""
    client = AdminClient(shared(bootstrap_servers, properties), logger=Silence())
    found = {}
    asked = client.describe_topics(
        TopicCollection(list(topics)), include_authorized_operations=True, request_timeout=ASK_SECONDS
    )
    for name, answer in asked.items():
        told = _told(answer.result, KafkaError.TOPIC_AUTHORIZATION_FAILED)
        if told is not None:
            found[name] = told

    def described(timeout: float) -> Any:
        return client.describe_consumer_groups(
            [group_id], include_authorized_operations=True, request_timeout=ASK_SECONDS
        )[group_id].result(timeout)

    return Rights(found, _told(described, KafkaError.GROUP_AUTHORIZATION_FAILED))


def refused(bootstrap_servers: str, properties: Mapping[str, Any], topics: Iterable[str]) -> set[str]:
    """Those of the topics that may not be seen, and so look as if they did not exist. Raises nothing."""
    names = list(topics)
    if not names:
        return set()
    client = AdminClient(shared(bootstrap_servers, properties), logger=Silence())
    asked = client.describe_topics(TopicCollection(names), request_timeout=ASK_SECONDS)
    found = set()
    for name, answer in asked.items():
        try:
            answer.result(ASK_SECONDS)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
                found.add(name)
        except TimeoutError:
            break
    return found


def _told(answer: Callable[[float], Any], refusal: int) -> frozenset[str] | None:
    deadline = time.monotonic() + ASK_SECONDS
    while True:
        try:
            operations = answer(ASK_SECONDS).authorized_operations
        except KafkaException as error:
            code = error.args[0].code()
            if code == refusal:
                return frozenset()
            if code in COORDINATOR_BUSY and time.monotonic() < deadline:
                time.sleep(AGAIN_SECONDS)
                continue
            if code in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.GROUP_ID_NOT_FOUND):
                return None
            raise LogFailed(reason(error.args[0])) from None
        except TimeoutError:
            raise LogFailed(f"no answer within {ASK_SECONDS:g} s") from None
        return None if operations is None else frozenset(each.name for each in operations)
