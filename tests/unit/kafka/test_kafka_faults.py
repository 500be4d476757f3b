"""What errors of librdkafka lead to, and how often an operator hears of them."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from bridge.kafka.faults import REPEAT_SECONDS, Notices, judge, names
from bridge.model import TopicPartition


def _fatal(code: int) -> KafkaError:
    """As confluent-kafka gives a fatal error: `_FATAL`, with the cause in words."""
    cause = KafkaError(code).str()
    return KafkaError(KafkaError._FATAL, f"Fatal error: {cause}: ConsumerGroupHeartbeat fatal error: {cause}")


def test_a_refused_group_protocol_leads_to_the_classic_one() -> None:
    """Not fatal, not told: the next membership simply uses the other protocol."""
    verdict = judge(_fatal(KafkaError.UNSUPPORTED_VERSION), "b:1", None, {})
    assert verdict is not None
    assert (verdict.ends_membership, verdict.protocol, verdict.fatal, verdict.message) == (True, "classic", False, "")


def test_a_static_members_place_that_is_still_taken_is_waited_for() -> None:
    """After a crash the group holds the place until the session timeout: joining is tried again."""
    verdict = judge(_fatal(111), "b:1", None, {"group.instance.id": "pod-3"})
    assert verdict is not None
    assert verdict.ends_membership and not verdict.fatal and verdict.wait_seconds > 0
    assert "pod-3" in verdict.message


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (_fatal(KafkaError.FENCED_INSTANCE_ID), "group.instance.id"),
        (_fatal(KafkaError.GROUP_MAX_SIZE_REACHED), "fewer instances"),
        (KafkaError(KafkaError.GROUP_AUTHORIZATION_FAILED), "READ"),
        (_fatal(KafkaError.INVALID_REQUEST), "ended this consumer"),
    ],
)
def test_what_no_waiting_gets_over_is_fatal_and_says_what_to_do(error: KafkaError, words: str) -> None:
    """The service ends instead of waiting for what only a person can change."""
    verdict = judge(error, "b:1", None, {})
    assert verdict is not None and verdict.fatal and words in verdict.message


@pytest.mark.parametrize(
    ("code", "topic", "words"),
    [
        (KafkaError._ALL_BROKERS_DOWN, None, "b:1"),
        (KafkaError._AUTHENTICATION, None, "kafka.properties"),
        (KafkaError.UNKNOWN_TOPIC_OR_PART, "orders", "orders does not exist"),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "orders", "topic orders; its events wait"),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, None, "nothing is read until"),
        (KafkaError._MAX_POLL_EXCEEDED, None, "repeated"),
    ],
)
def test_troubles_that_pass_are_told_in_words_and_end_nothing(code: int, topic: str | None, words: str) -> None:
    """What is wrong, what follows, and that it is tried again."""
    verdict = judge(KafkaError(code), "b:1", topic, {})
    assert verdict is not None and not verdict.fatal and not verdict.ends_membership
    assert words in verdict.message


def test_a_password_that_a_broker_repeats_is_not_told() -> None:
    """Neither in logs nor in the status, which show these words."""
    error = KafkaError(KafkaError._AUTHENTICATION, "no such password: hunter2")
    verdict = judge(error, "b:1", None, {"sasl.password": "hunter2"})
    assert verdict is not None and "***" in verdict.message and "hunter2" not in verdict.message


def test_one_broken_connection_is_nobodys_business() -> None:
    """librdkafka reconnects; only all brokers together are news."""
    assert judge(KafkaError(KafkaError._TRANSPORT), "b:1", None, {}) is None


def test_a_lasting_trouble_is_told_once_a_minute_and_again_after_it_had_gone() -> None:
    """Neither a flood nor silence."""
    now = 0.0
    told: list[str] = []
    notices = Notices(lambda message, fatal: told.append(message), lambda: now)
    for now in (0.0, 1.0, REPEAT_SECONDS - 1):  # noqa: B007 - the clock reads it
        notices.say("unreachable", "down")
    assert told == ["down"]
    now = REPEAT_SECONDS + 1
    notices.say("unreachable", "down")
    notices.say("credentials", "refused")
    assert told == ["down", "down", "refused"]
    notices.clear()
    notices.say("unreachable", "down")
    assert told[3:] == ["down"]


def test_many_partitions_are_named_in_short() -> None:
    """A line stays a line."""
    partitions = [TopicPartition("t", n) for n in range(9)]
    assert names(partitions) == "t/0, t/1, t/2, t/3, t/4, t/5 and 3 more"
    assert names(partitions[:2]) == "t/0, t/1"
