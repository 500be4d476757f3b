"""What users may set, and what librdkafka is told."""

from __future__ import annotations

import pytest

from bridge.errors import UsageError
from bridge.kafka.consumer import KafkaSource
from bridge.kafka.properties import CLASSIC, CONSUMER, REFUSED, checked, for_letters, for_source, validate
from bridge.kafka.starting import EARLIEST, LATEST, parse_start


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_property_that_breaks_a_promise_is_refused_by_name(name: str) -> None:
    """The message names the property and what to do instead."""
    with pytest.raises(UsageError, match=rf"kafka\.properties: {name} cannot be set: .+"):
        checked({name: "x"})


@pytest.mark.parametrize(
    ("properties", "words"),
    [
        ({"no.such.property": "1"}, "no.such.property"),
        ({"max.poll.interval.ms": "soon"}, "max.poll.interval.ms"),
        ({"group.protocol": "modern"}, "classic or consumer"),
        ({"partition.assignment.strategy": "range"}, "cooperative-sticky"),
        ({"error_cb": "x"}, "error_cb"),
    ],
)
def test_a_mistyped_property_is_one_clear_line(properties: dict[str, str], words: str) -> None:
    """librdkafka's own judgement reaches the user as a UsageError, before anything connects."""
    with pytest.raises(UsageError, match=words) as error:
        validate("127.0.0.1:1", properties)
    assert "\n" not in str(error.value)


def test_the_user_overrides_our_defaults_but_not_the_promises() -> None:
    """isolation.level may be changed; committing stays ours."""
    config = for_source("b:1", "g", {"isolation.level": "read_uncommitted", "client.id": "mine"}, CONSUMER)
    assert (config["isolation.level"], config["client.id"]) == ("read_uncommitted", "mine")
    assert config["enable.auto.commit"] is False and config["enable.auto.offset.store"] is False
    assert config["auto.offset.reset"] == "error"
    assert for_source("b:1", "g", {}, CONSUMER)["isolation.level"] == "read_committed"


@pytest.mark.parametrize("protocol", [CLASSIC, CONSUMER])
def test_what_is_prefetched_is_bounded_in_records_and_bytes(protocol: str) -> None:
    """librdkafka's own bounds are 100,000 records and 64 MiB: of a backlog it would hold as much beside our own."""
    config = for_source("b:1", "g", {}, protocol)
    assert config["queued.min.messages"] <= 10_000
    assert config["queued.max.messages.kbytes"] <= 16 * 1024
    assert config["fetch.max.bytes"] <= config["queued.max.messages.kbytes"] * 1024, "else one fetch would exceed it"


def test_draining_ends_before_the_group_loses_its_patience() -> None:
    """A drain takes place within a poll: max.poll.interval.ms bounds it, however long the budget is."""
    source = KafkaSource("127.0.0.1:1", "g", {"t": "latest"}, {"max.poll.interval.ms": "50000"}, revoke_seconds=60.0)
    assert source._revoke_seconds == 40.0
    assert KafkaSource("127.0.0.1:1", "g", {"t": "latest"}, revoke_seconds=60.0)._revoke_seconds == 60.0


def test_properties_of_the_other_group_protocol_are_left_out() -> None:
    """librdkafka refuses session.timeout.ms with KIP-848: one configuration serves both kinds of brokers."""
    properties = {"session.timeout.ms": "6000", "group.remote.assignor": "uniform"}
    modern = for_source("b:1", "g", properties, CONSUMER)
    classic = for_source("b:1", "g", properties, CLASSIC)
    assert "session.timeout.ms" not in modern and modern["group.remote.assignor"] == "uniform"
    assert classic["session.timeout.ms"] == "6000" and "group.remote.assignor" not in classic
    assert classic["partition.assignment.strategy"] == "cooperative-sticky"


def test_the_dead_letter_producer_gets_no_consumer_properties() -> None:
    """They would be warned about at every start; the connection's own do pass."""
    config = for_letters("b:1", {"group.instance.id": "a", "security.protocol": "ssl", "linger.ms": "5"})
    assert "group.instance.id" not in config
    assert (config["security.protocol"], config["linger.ms"], config["acks"]) == ("ssl", "5", "all")


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("earliest", EARLIEST),
        ("latest", LATEST),
        ("2026-01-31T08:00:00Z", 1_769_846_400_000),
        ("2026-01-31T09:00:00+01:00", 1_769_846_400_000),
        ("2026-01-31T08:00:00", 1_769_846_400_000),
    ],
)
def test_starts_are_understood(text: str, start: int) -> None:
    """A time without a zone is UTC."""
    assert parse_start("t", text) == start


def test_a_start_that_means_nothing_names_its_topic() -> None:
    """One line with what may be written."""
    with pytest.raises(UsageError, match=r"topics\.orders\.start is 'yesterday'; write earliest, latest"):
        KafkaSource("127.0.0.1:1", "g", {"orders": "yesterday"})
