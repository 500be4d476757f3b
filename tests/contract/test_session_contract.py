"""How long a group waits for a silent member: the broker tells, because a bridge must have stopped sending by then."""

from __future__ import annotations

from bridge.kafka.admin import SESSION_SECONDS, session_seconds
from bridge.kafka.consumer import KafkaSource
from tests.support.kafka import Cluster, EmbeddedKafka, RealKafka, unique
from tests.support.listening import Listening


def test_a_broker_tells_its_session_timeout(real_kafka: RealKafka) -> None:
    """The fixture's broker has six seconds; a group need not exist to be asked about."""
    assert session_seconds(real_kafka.bootstrap_servers, {}, unique("group"), "consumer") == 6.0


def test_a_broker_that_does_not_tell_is_taken_to_have_the_default(embedded_kafka: EmbeddedKafka) -> None:
    assert session_seconds(embedded_kafka.bootstrap_servers, {}, unique("group"), "consumer") == SESSION_SECONDS


def test_a_classic_member_sets_its_own() -> None:
    """Nobody is asked: nothing listens there."""
    assert session_seconds("127.0.0.1:1", {"session.timeout.ms": "9000"}, "group", "classic") == 9.0
    assert session_seconds("127.0.0.1:1", {}, "group", "classic") == SESSION_SECONDS


async def test_a_member_knows_it(real_kafka: Cluster) -> None:
    """Before it is given a partition: from then on it may send."""
    listener = Listening()
    topic = real_kafka.create_topic(unique("session"))
    source = KafkaSource(real_kafka.bootstrap_servers, unique("group"), {topic: "earliest"})
    source.start(listener)
    try:
        await listener.until_owned(1)
        assert source.session_seconds == 6.0
    finally:
        await source.close()
