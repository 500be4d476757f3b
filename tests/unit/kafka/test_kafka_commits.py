"""Commits: one in flight, each position answered once, whatever the broker says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from bridge.kafka.commits import WAITING_MAX, Commits
from bridge.model import Position, TopicPartition

HERE, THERE = TopicPartition("t", 0), TopicPartition("t", 1)
NEVER = float("inf")


class Broker:
    """Stands in for a Consumer: remembers commits, answers synchronous ones with `error`."""

    def __init__(self) -> None:
        self.sent: list[tuple[list[KafkaPartition], bool]] = []
        self.error: int | None = None

    def commit(self, *, offsets: list[KafkaPartition], asynchronous: bool) -> list[KafkaPartition] | None:
        self.sent.append((offsets, asynchronous))
        if self.error is not None:
            raise KafkaException(KafkaError(self.error))
        return None if asynchronous else offsets

    def offsets(self) -> list[int]:
        return [offset.offset for offsets, _ in self.sent for offset in offsets]


class Desk:
    """Commits with their answers."""

    def __init__(self) -> None:
        self.owned = {HERE, THERE}
        self.answers: list[tuple[list[Position], str | None]] = []
        self.broker: Any = Broker()
        self.commits = Commits(lambda position: position.partition in self.owned, self._report)

    def _report(self, positions: Sequence[Position], error: str | None) -> None:
        self.answers.append((list(positions), error))


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_second_commit_waits_for_the_first_ones_answer(desk: Desk) -> None:
    """librdkafka may repeat an older commit after a newer one: so there is never a newer one yet."""
    desk.commits.submit([Position(HERE, 1)])
    desk.commits.submit([Position(HERE, 2)])
    desk.commits.send_next(desk.broker)
    desk.commits.send_next(desk.broker)
    assert desk.broker.offsets() == [1]
    desk.commits.answered(None, desk.broker.sent[0][0])
    desk.commits.send_next(desk.broker)
    assert desk.broker.offsets() == [1, 2]
    assert desk.answers == [([Position(HERE, 1)], None)]


def test_settling_repeats_the_one_in_flight_and_ignores_its_late_answer(desk: Desk) -> None:
    """Within a rebalance no poll brings answers: all are carried out at once, and each is answered once."""
    desk.commits.submit([Position(HERE, 1, "a")])
    desk.commits.submit([Position(HERE, 2, "b")])
    desk.commits.send_next(desk.broker)
    desk.commits.settle(desk.broker, NEVER)
    assert desk.broker.offsets() == [1, 1, 2]
    desk.commits.answered(None, desk.broker.sent[0][0])
    assert desk.answers == [([Position(HERE, 1, "a")], None), ([Position(HERE, 2, "b")], None)]
    assert desk.commits.idle


def test_nothing_is_begun_after_the_deadline(desk: Desk) -> None:
    """A rebalance is not held up: what is left is refused."""
    desk.commits.submit([Position(HERE, 1)])
    desk.commits.settle(desk.broker, 0.0)
    assert desk.broker.sent == []
    assert "no time" in str(desk.answers[0][1])


@pytest.mark.parametrize("code", [KafkaError.ILLEGAL_GENERATION, KafkaError.REBALANCE_IN_PROGRESS])
def test_a_refusal_is_told_by_its_name(desk: Desk, code: int) -> None:
    """Synchronous or not, the broker's refusal is an answer, never an exception."""
    name = KafkaError(code).name()
    desk.commits.submit([Position(HERE, 1)])
    desk.commits.send_next(desk.broker)
    desk.commits.answered(KafkaError(code), desk.broker.sent[0][0])
    desk.broker.error = code
    desk.commits.submit([Position(HERE, 2)])
    desk.commits.settle(desk.broker, NEVER)
    desk.commits.submit([Position(HERE, 3)])
    desk.commits.send_next(desk.broker)
    assert [positions[0].offset for positions, _ in desk.answers] == [1, 2, 3]
    assert all(str(error).startswith(f"{name}: ") for _, error in desk.answers)


def test_positions_that_are_not_ours_are_refused_and_the_others_sent(desk: Desk) -> None:
    """The broker takes any member's commit for any partition, so a former owner's must be stopped here."""
    desk.owned.discard(THERE)
    desk.commits.submit([Position(THERE, 9)])
    desk.commits.submit([Position(HERE, 1), Position(THERE, 9)])
    desk.commits.send_next(desk.broker)
    assert desk.broker.offsets() == [1]
    assert [(positions[0].partition, "not assigned" in str(error)) for positions, error in desk.answers] == [
        (THERE, True),
        (THERE, True),
    ]


def test_closing_answers_everything_that_waits_or_comes_later(desk: Desk) -> None:
    """Nobody waits for ever for an answer."""
    for offset in (1, 2):
        desk.commits.submit([Position(HERE, offset)])
    desk.commits.send_next(desk.broker)
    desk.commits.close("closed")
    desk.commits.submit([Position(HERE, 3)])
    assert [(positions[0].offset, error) for positions, error in desk.answers] == [
        (1, "closed"),
        (2, "closed"),
        (3, "closed"),
    ]


def test_the_queue_is_bounded(desk: Desk) -> None:
    """A caller that does not wait for answers is refused, not remembered."""
    for offset in range(WAITING_MAX + 1):
        desk.commits.submit([Position(HERE, offset)])
    assert [positions[0].offset for positions, _ in desk.answers] == [WAITING_MAX]
