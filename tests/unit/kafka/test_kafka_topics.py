"""Is a topic still the same, and how long does it keep its records: asked beside the polling, believed with care."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from bridge.kafka.topics import CONFIGS_SECONDS, LOOK_SECONDS, Topics

DAY = 86_400


class Admin:
    """Stands in for an AdminClient: answers at once, later by hand, or with an error."""

    def __init__(self) -> None:
        self.ids: dict[str, int] = {"t": 1}
        self.settings: dict[str, dict[str, str]] = {"t": {"retention.ms": str(DAY * 1000), "cleanup.policy": "delete"}}
        self.silent = False
        self.asked = 0

    def describe_topics(self, topics: Any, request_timeout: float) -> dict[str, Future[Any]]:
        self.asked += 1
        return {name: self._answer(self._topic, name) for name in topics.topic_names}

    def describe_configs(self, resources: Sequence[Any], request_timeout: float) -> dict[Any, Future[Any]]:
        return {each: self._answer(self._settings, each.name) for each in resources}

    def poll(self, seconds: float) -> int:
        return 0

    def _answer(self, make: Any, name: str) -> Future[Any]:
        future: Future[Any] = Future()
        if not self.silent:
            try:
                future.set_result(make(name))
            except KafkaException as error:
                future.set_exception(error)
        return future

    def _topic(self, name: str) -> Any:
        if name not in self.ids:
            raise KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART))
        high = self.ids[name]
        topic_id = SimpleNamespace(
            get_most_significant_bits=lambda: high, get_least_significant_bits=lambda: -high if high else 0
        )
        return SimpleNamespace(topic_id=topic_id, partitions=[None] * 3)

    def _settings(self, name: str) -> Any:
        if name not in self.settings:
            raise KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED))
        return {key: SimpleNamespace(value=value) for key, value in self.settings[name].items()}


def made(*names: str) -> tuple[Topics, Any]:
    topics, admin = Topics(names or ["t"]), Admin()
    topics._client = admin  # type: ignore[assignment]
    return topics, admin


def hash_of(topics: Topics) -> int:
    topics.ask()
    return topics.fresh(1.0)["t"]


def test_a_topic_created_anew_has_another_hash_of_four_bytes_and_is_told_once() -> None:
    topics, admin = made()
    before = hash_of(topics)
    assert topics.take_anew() == set()
    admin.ids["t"] = -7
    after = hash_of(topics)
    assert before != after and all(0 <= each < 1 << 32 for each in (before, after))
    assert topics.take_anew() == {"t"}
    assert topics.take_anew() == set()


def test_while_it_does_not_exist_nothing_is_told_and_what_it_was_is_remembered() -> None:
    topics, admin = made()
    hash_of(topics)
    admin.ids.clear()
    topics.ask()
    assert topics.fresh(1.0) == {}
    admin.ids["t"] = 2
    hash_of(topics)
    assert topics.take_anew() == {"t"}


def test_a_broker_that_lags_behind_is_not_believed() -> None:
    """It still tells the former id: were that news, the topic would be read from its beginning again and again."""
    topics, admin = made()
    hash_of(topics)
    admin.ids["t"] = 2
    hash_of(topics)
    topics.take_anew()
    admin.ids["t"] = 1
    topics.ask()
    assert topics.fresh(1.0) == {}
    admin.ids["t"] = 2
    assert hash_of(topics)
    assert topics.take_anew() == set()


def test_partitions_are_counted_for_the_shares_of_the_quota() -> None:
    """Of what is told by this question, and of what was learnt otherwise; of no topic that is not read."""
    topics = Topics(["t", "u"])
    topics.note_partitions({"t": 4, "other": 1})
    assert topics.partitions == {"t": 4}
    topics.note_partitions({"u": 2, "t": 5})
    assert topics.partitions == {"t": 5, "u": 2}


def test_a_broker_without_ids_tells_nothing() -> None:
    """Older than 2.8: all its ids are zero."""
    topics, admin = made()
    admin.ids["t"] = 0
    topics.ask()
    assert topics.fresh(1.0) == {}


def test_a_cluster_that_does_not_answer_is_waited_for_once_only() -> None:
    """A rebalance must not last a second longer each time; answers that come later are still taken in."""
    topics, admin = made("t", "u")
    admin.silent = True
    topics.ask()
    assert topics.fresh(0.01) == {}
    topics.ask()
    assert topics.fresh(1_000_000.0) == {}, "not waited for"
    admin.silent = False
    topics.look(LOOK_SECONDS * 1e9)
    topics.look(LOOK_SECONDS * 1e9)
    topics.ask()
    assert set(topics.fresh(1.0)) == {"t"}, "u does not exist"


def test_a_running_reader_finds_out_by_looking_now_and_then() -> None:
    topics, admin = made()
    topics.look(1e9)
    topics.look(1e9 + 1)
    admin.ids["t"] = 2
    asked = admin.asked
    topics.look(1e9 + LOOK_SECONDS - 1)
    assert admin.asked == asked
    topics.look(1e9 + LOOK_SECONDS)
    topics.look(1e9 + LOOK_SECONDS + 0.1)
    assert topics.take_anew() == {"t"}


def test_retention_is_what_the_topic_says_and_follows_its_changes() -> None:
    topics, admin = made("t", "u", "v", "w")
    admin.settings |= {
        "u": {"retention.ms": "-1", "cleanup.policy": "delete"},
        "v": {"retention.ms": "5000", "cleanup.policy": "compact"},
    }
    topics.look(1e9)
    topics.look(1e9)
    assert topics.retention_seconds == {"t": DAY}, "u keeps for ever, v deletes nothing by age, w may not be asked for"
    admin.settings["t"]["retention.ms"] = "60000"
    admin.settings["v"]["cleanup.policy"] = "compact,delete"
    topics.look(1e9 + CONFIGS_SECONDS)
    topics.look(1e9 + CONFIGS_SECONDS)
    assert topics.retention_seconds == {"t": 60, "v": 5}
    admin.settings["t"]["retention.ms"] = "-1"
    del admin.settings["v"]
    topics.look(1e9 + 2 * CONFIGS_SECONDS)
    topics.look(1e9 + 2 * CONFIGS_SECONDS)
    assert topics.retention_seconds == {"v": 5}, "an answer that does not come changes nothing"


def test_a_broker_that_is_not_asked_tells_nothing() -> None:
    topics = Topics(["t"])
    topics.ask()
    topics.look(1e9)
    assert topics.fresh(1.0) == {} and topics.take_anew() == set() and topics.retention_seconds == {}
