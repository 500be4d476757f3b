"""The quota's shares through the engine: told by commits before calls leave, taken along, and kept over restarts."""

import asyncio

from bridge.core.progress import Progress, decode, encode
from bridge.model import Assigned, Call, Outcome, Verdict
from tests.support.engine import P0, P1, TOPIC, House, record
from tests.support.fakes import FakeMeisa
from tests.support.virtual import VirtualClock, run

MINUTE = [(6, 60.0)]


def house(partitions: int = 1, limits: list[tuple[int, float]] | None = None, **more: object) -> House:
    made = House(limits=limits or MINUTE, shared=True, **more)  # type: ignore[arg-type]
    made.source.counts = {TOPIC: partitions}
    made.source.fresh = True
    return made


def heir(former: House, **more: object) -> House:
    """Another instance, which reads what the broker holds."""
    made = house(**more)  # type: ignore[arg-type]
    made.source.committed, made.source.metadata = former.source.committed, former.source.metadata
    made.source.fresh = False
    return made


def test_no_call_leaves_before_a_commit_has_told_of_it() -> None:
    """While the broker answers no commit nothing leaves, and the status says that it waits for the quota."""

    async def story() -> None:
        at = house()
        at.source.answer_commits = False
        at.source.assign(P0)
        at.source.feed([record(0)])
        await asyncio.sleep(5)
        assert at.meisa.calls == []
        assert [each.reason for each in at.engine.waiting()] == ["quota"]
        at.source.answer_commits = True
        for positions in at.source.unanswered:
            at.source._settle(positions)
        await asyncio.sleep(1)
        assert at.source.committed == {P0: 1}

    run(story())


def test_all_of_the_limit_is_used_and_no_more() -> None:
    """Six a minute, for whoever owns all partitions; what is told ahead costs nothing while it lives."""

    async def story() -> None:
        at = house(2)
        at.source.assign(P0, P1)
        at.source.feed([record(offset, f"{offset}@x") for offset in range(20)])
        await asyncio.sleep(50)
        assert len(at.meisa.calls) == 6
        await asyncio.sleep(60)
        assert len(at.meisa.calls) == 12

    run(story())


def test_a_restart_after_a_planned_stop_has_what_was_left() -> None:
    """Four were used: the next process has two in the same minute."""

    async def story() -> None:
        at = house()
        at.source.assign(P0)
        at.source.feed([record(offset, f"{offset}@x") for offset in range(4)])
        await asyncio.sleep(2)
        await at.engine.stop(20.0)
        after = heir(at)
        after.source.assign(P0)
        after.source.feed([record(offset, f"{offset}@x") for offset in range(4, 10)])
        await asyncio.sleep(50)
        assert len(after.meisa.calls) == 2
        await asyncio.sleep(20)
        assert len(after.meisa.calls) == 6

    run(story())


def test_a_restart_after_a_crash_counts_what_was_permitted() -> None:
    """What its last commit permitted may have been used in the last moment: so long these calls are not made again."""

    async def story() -> None:
        at = house()
        at.source.assign(P0)
        at.source.feed([record(0)])
        await asyncio.sleep(2)
        at.source.answer_commits = False  # it is dead: nothing more reaches the broker
        after = heir(at)
        after.source.assign(P0)
        after.source.feed([record(offset, f"{offset}@x") for offset in range(1, 10)])
        await asyncio.sleep(20)
        assert len(after.meisa.calls) == 2, "one was made, three were permitted beyond it"
        await asyncio.sleep(125)
        assert len(after.meisa.calls) > 5

    run(story())


def test_a_partition_that_goes_takes_its_share_along() -> None:
    """Three of the six are another instance's then, and come back with the partition."""

    async def story() -> None:
        at = house(2)
        at.source.assign(P0, P1)
        await asyncio.sleep(1)
        await at.source.revoke(P1)
        at.source.feed([record(offset, f"{offset}@x") for offset in range(10)])
        await asyncio.sleep(20)
        assert len(at.meisa.calls) == 3
        at.source.fresh = False
        at.source.epoch -= 1
        at.source.assign(P1)
        await asyncio.sleep(20)
        assert len(at.meisa.calls) == 6

    run(story())


def test_a_topic_that_is_created_anew_does_not_give_back_what_was_used() -> None:
    """Its offsets went with it; but who owned it knows."""

    async def story() -> None:
        at = house()
        at.source.assign(P0)
        at.source.feed([record(offset, f"{offset}@x") for offset in range(6)])
        await asyncio.sleep(10)
        assert len(at.meisa.calls) == 6
        at.source.lose(P0)
        at.source.committed, at.source.metadata = {}, {}
        at.source.assign(P0)
        at.source.feed([record(offset, f"{offset}@x") for offset in range(6)])
        await asyncio.sleep(45)
        assert len(at.meisa.calls) == 6
        await asyncio.sleep(10)
        assert len(at.meisa.calls) == 12

    run(story())


def test_what_was_committed_for_a_former_topic_still_tells_the_spend() -> None:
    """Another instance finds the topic created anew: its offset means nothing, but calls were made."""

    async def story() -> None:
        at = house()
        at.source.assign(P0)
        at.source.feed([record(offset, f"{offset}@x") for offset in range(5)])
        await asyncio.sleep(2)
        await at.engine.stop(20.0)
        after = house()
        former = (at.source.committed[P0], at.source.metadata[P0])
        after.engine.assigned([Assigned(P0, 0, 0, fresh=True, former=former)])
        after.source.feed([record(offset, f"{offset}@x") for offset in range(5)])
        await asyncio.sleep(20)
        assert len(after.meisa.calls) == 1

    run(story())


def test_damaged_progress_fails_closed_and_foreign_text_goes_on_at_the_pace() -> None:
    """Ours, but not readable: no call for the whole window. Somebody else's: as if the limit had been used evenly."""

    async def calls_within(seconds: float, metadata: str) -> int:
        at = house()
        at.source.committed, at.source.metadata = {P0: 3}, {P0: metadata}
        at.source.fresh = False
        at.source.assign(P0)
        at.source.feed([record(offset, f"{offset}@x") for offset in range(3, 30)])
        await asyncio.sleep(seconds)
        return len(at.meisa.calls)

    async def story() -> None:
        assert await calls_within(60.0 + 70.0 - 1.0, "mb1:damaged") == 0
        assert await calls_within(60.0 + 70.0 + 1.0, "mb1:damaged") > 0
        unknown = encode(3, Progress(0, spend=b"of a newer version"), 4096)
        assert await calls_within(60.0, unknown) == 0
        for metadata in ("", "another tool's", encode(3, Progress(0, seen=7), 4096)):
            assert await calls_within(31.0, metadata) == 3

    run(story())


def test_the_time_of_a_long_stop_counts_once_meisa_has_told_the_time() -> None:
    """All was used before two hours of standing still. The first call waits for its share; then nothing counts."""

    async def story() -> None:
        def answer(call: Call) -> Outcome:
            return Outcome(
                Verdict.DELIVERED, 200, data={"id": "c"}, date_wall_seconds=float(int(VirtualClock().wall()))
            )

        limits = [(60, 60.0), (10, 3600.0)]
        at = house(limits=limits, meisa=FakeMeisa(answer))
        at.source.assign(P0)
        at.source.feed([record(offset, f"{offset}@x") for offset in range(9)])
        await asyncio.sleep(20)
        assert len(at.meisa.calls) == 9
        await at.engine.stop(20.0)
        await asyncio.sleep(7200)
        after = heir(at, limits=limits, meisa=FakeMeisa(answer))
        after.source.assign(P0)
        after.source.feed([record(offset, f"{offset}@x") for offset in range(9, 30)])
        await asyncio.sleep(20)
        assert len(after.meisa.calls) == 10

    run(story())


def test_an_instance_that_owns_no_call_says_so() -> None:
    """Seven partitions share six calls; this instance has the last one only."""

    async def story() -> None:
        last = P0._replace(partition=6)
        at = house(7)
        at.source.assign(last)
        at.source.feed([record(0, partition=6)])
        await asyncio.sleep(10)
        assert at.meisa.calls == []
        assert [each.reason for each in at.engine.waiting()] == ["quota_share"]

    run(story())


def test_shares_follow_a_topic_that_grows() -> None:
    """At the next look half of the calls are another partition's."""

    async def story() -> None:
        at = house()
        at.source.assign(P0)
        await asyncio.sleep(1)
        at.source.counts = {TOPIC: 2}
        await asyncio.sleep(15)
        at.source.feed([record(offset, f"{offset}@x") for offset in range(10)])
        await asyncio.sleep(20)
        assert len(at.meisa.calls) == 3
        assert at.delivery.key_states()[0].windows[0].limit == 3

    run(story())


def test_a_booked_trigger_whose_slots_partition_went_is_sent_on_another() -> None:
    """It waits for its mark while the partition that it was charged to goes: there it must not count any more."""

    async def story() -> None:
        at = house(2)
        at.source.assign(P0, P1)
        await asyncio.sleep(1)
        at.source.answer_commits = False
        at.source.feed([record(0, do=["trigger"], partition=1)])
        await asyncio.sleep(0.5)
        assert at.meisa.calls == []
        at.source.lose(P0)
        at.source.answer_commits = True
        for positions in at.source.unanswered:
            at.source._settle(positions)
        await asyncio.sleep(1)
        assert len(at.meisa.calls) == 1
        await at.engine.stop(20.0)
        progress = decode(at.source.committed[P1], at.source.metadata[P1])
        assert progress is not None and progress.spend is not None
        assert at.source.committed[P1] == 1

    run(story())
