"""Whether calls may leave: only while the partitions are known to be ours."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from structlog.testing import capture_logs

from tests.support.engine import P0, House, record
from tests.support.virtual import run


def virtually(story: Coroutine[Any, Any, None]) -> None:
    run(story)


def test_after_an_idle_time_nothing_leaves_before_kafka_has_said_that_the_partitions_are_ours() -> None:
    """A fetch brings records also to a member that was expelled while it was idle: its successor has delivered them.

    Nothing was under way, so no answer is missing; only a new question can tell.
    """

    async def story() -> None:
        house = House()
        house.source.assign(P0)
        house.source.feed([record(0, do=["track"])])
        await asyncio.sleep(60)
        assert house.seqs() == [0]
        house.source.answer_commits = False
        house.source.feed([record(1, do=["track"])])
        await asyncio.sleep(300)
        assert house.seqs() == [0], "nobody has said that partition 0 is still ours"
        house.source.answer_commits = True
        for positions in house.source.unanswered:
            house.source._settle(positions)
        await asyncio.sleep(1)
        assert house.seqs() == [0, 1]

    virtually(story())


def test_an_idle_time_costs_one_commit_and_no_word() -> None:
    """The question is answered within milliseconds: nothing to tell an operator."""

    async def story() -> None:
        house = House()
        house.source.assign(P0)
        house.source.feed([record(0, do=["track"])])
        with capture_logs() as logs:
            await asyncio.sleep(3600)
            house.source.feed([record(1, do=["track"])])
            await asyncio.sleep(0.5)
        assert house.seqs() == [0, 1]
        assert not [line for line in logs if line["log_level"] in ("warning", "error")]

    virtually(story())


def test_an_answer_to_an_old_question_proves_nothing() -> None:
    """The commit was asked for before the way to Kafka was cut; that it was carried out is no news of now."""

    async def story() -> None:
        house = House()
        house.source.assign(P0)
        house.source.answer_commits = False
        house.source.feed([record(0, do=["track"])])
        await asyncio.sleep(0.3)
        assert house.seqs() == [0]
        await asyncio.sleep(60)
        house.source.feed([record(1, do=["track"])])
        await asyncio.sleep(5)
        house.source._settle(house.source.unanswered[0])
        await asyncio.sleep(0.05)
        assert house.seqs() == [0]

    virtually(story())
