"""Snapshots: what an operator, Prometheus and a probe are told is what is so at that moment."""

from __future__ import annotations

import asyncio
import dataclasses
import math

import pytest

from bridge import __version__
from bridge.model import Call, Kind, Outcome, TopicPartition, Verdict
from bridge.observe.history import History
from bridge.observe.snapshot import Snapshot
from bridge.runtime.status import Status
from bridge.web import page
from tests.support.engine import P0, P1, TOPIC, House, record
from tests.support.fakes import DELIVERED, FakeLetters, FakeMeisa
from tests.support.virtual import VirtualClock, run

START = VirtualClock.WALL_AT_START
REFUSED = Outcome(Verdict.KEY_REFUSED, 401, "Unknown API key.")
THROTTLED = Outcome(Verdict.THROTTLED, 429, "Too many requests.", retry_after_seconds=30.0)
UNAVAILABLE = Outcome(Verdict.RETRY, 503, "unavailable")


def status_of(house: House) -> Status:
    return Status(house.engine, house.delivery, house.clock, house.endings, dict)


def reasons(snapshot: Snapshot) -> dict[str, int]:
    return {wait.reason: wait.count for wait in snapshot.waiting_for}


def test_before_the_group_is_joined() -> None:
    """Not ready, with a reason for people; nothing is owned, nothing is claimed."""

    async def story() -> None:
        status = status_of(House())
        status.state = "joining"
        found = status.snapshot()
        assert found.unready() == "not in the consumer group yet (joining)"
        assert (found.partitions, found.in_flight, found.waiting_for, found.lag) == ((), 0, (), 0)
        assert (found.version, found.started_at_wall_seconds, found.taken_at_wall_seconds) == (
            __version__,
            START,
            START,
        )

    run(story())


def test_a_member_without_partitions_is_ready() -> None:
    async def story() -> None:
        house = House()
        house.source.assign()
        found = status_of(house).snapshot()
        assert (found.group_state, found.partitions, found.unready()) == ("member", (), None)

    run(story())


def test_a_bridge_that_drains_is_not_ready() -> None:
    """So that a load balancer or a deploy does not count on it."""

    async def story() -> None:
        house = House()
        house.source.assign(P0)
        status = status_of(house)
        status.state = "draining"
        assert status.snapshot().unready() == "not in the consumer group yet (draining)"

    run(story())


def test_partitions_show_frontier_window_and_lag() -> None:
    """In order of their names; a lag is told only where the log's end is known."""

    async def story() -> None:
        house = House(meisa=FakeMeisa(latency=5.0))
        house.source.log_ends = lambda: {P0: 12}  # type: ignore[method-assign]
        status = status_of(house)
        house.source.assign(P1, P0, offset=4)
        house.source.feed([record(offset, f"{offset}@x") for offset in (4, 5, 6)])
        house.source.feed([record(7, "4@x"), record(8, None, do=[])])
        await asyncio.sleep(6)  # 4, 5 and 6 are answered; 7 waited for its contact and is out
        found = {each.partition: each for each in status.snapshot().partitions}
        assert list(found) == [0, 1]
        assert (found[0].topic, found[0].frontier, found[0].window, found[0].lag) == (TOPIC, 7, 2, 5)
        assert (found[1].frontier, found[1].window, found[1].lag) == (4, 0, None)
        assert status.snapshot().lag is None, "the sum is not known either"
        assert not found[0].paused

    run(story())


def test_a_full_window_shows_as_paused() -> None:
    async def story() -> None:
        house = House(meisa=FakeMeisa(latency=50.0), window_max=10)
        house.source.assign(P0)
        house.source.feed([record(offset) for offset in range(20)])
        (partition,) = status_of(house).snapshot().partitions
        assert partition.paused
        assert partition.window <= 10

    run(story())


def test_quota_pending_and_in_flight() -> None:
    """Both windows with what counts in them; actions and contacts in their lanes; calls that are out."""

    async def story() -> None:
        house = House(meisa=FakeMeisa(latency=5.0), limits=[(100, 60.0), (1000, 3600.0)], max_in_flight=2)
        house.source.assign(P0)
        house.source.feed(
            [record(0, "a@x"), record(1, "a@x"), record(2, "b@x", lane="transactional"), record(3, "c@x")]
        )
        await asyncio.sleep(1)
        found = status_of(house).snapshot()
        windows = [(window.key, window.window, window.used, window.limit) for window in found.quota]
        assert windows == [("default", "minute", 2, 100), ("default", "hour", 2, 1000)]
        assert found.in_flight == 2
        lanes = {str(lane.lane): (lane.contacts, lane.events) for lane in found.pending}
        assert lanes == {"transactional": (1, 1), "sync": (2, 3), "bulk": (0, 0)}

    run(story())


def test_a_used_up_quota_is_the_reason_for_waiting() -> None:
    async def story() -> None:
        house = House(limits=[(2, 60.0)])
        house.source.assign(P0)
        house.source.feed([record(offset, f"{offset}@x") for offset in range(5)])
        await asyncio.sleep(1)
        assert reasons(status_of(house).snapshot()) == {"quota": 3}
        await asyncio.sleep(130)
        assert reasons(status_of(house).snapshot()) == {}

    run(story())


def test_a_quota_that_gives_way_says_why_less_than_its_limit_is_used() -> None:
    """After a 429 with room in the window: how many calls it has now, and who is suspected; nothing once it is over."""

    async def story() -> None:
        throttle = [Outcome(Verdict.THROTTLED, 429, retry_after_seconds=5.0)]
        house = House(meisa=FakeMeisa(lambda call: throttle.pop() if throttle else DELIVERED), limits=[(1000, 60.0)])
        house.source.assign(P0)
        house.source.feed([record(0, "a@x")])
        await asyncio.sleep(1)
        house.source.feed([record(offset, f"{offset}@x") for offset in range(1, 500)])
        await asyncio.sleep(5)
        (waiting,) = status_of(house).snapshot().waiting_for
        assert waiting.reason == "quota"
        assert waiting.detail.startswith("default: at most 250 of its calls in 60 s for now, for Meisa answered 429")
        await asyncio.sleep(300)
        assert house.source.committed == {P0: 500} and reasons(status_of(house).snapshot()) == {}

    run(story())


def test_a_429_shows_until_when_it_holds_the_key() -> None:
    async def story() -> None:
        answers = iter([THROTTLED])
        house = House(meisa=FakeMeisa(lambda call: next(answers, DELIVERED), latency=0.0))
        house.source.assign(P0)
        house.source.feed([record(0)])
        await asyncio.sleep(10)
        found = status_of(house).snapshot()
        assert [window.gated_until_wall_seconds for window in found.quota] == pytest.approx(
            [START + 30.0] * len(found.quota), abs=0.1
        )
        assert sum(reasons(found).values()) >= 1
        await asyncio.sleep(30)
        found = status_of(house).snapshot()
        assert {window.gated_until_wall_seconds for window in found.quota} == {None}
        assert reasons(found) == {}

    run(story())


def test_a_refused_key_is_named_and_makes_unready() -> None:
    async def story() -> None:
        house = House(meisa=FakeMeisa(lambda call: REFUSED, latency=0.0))
        house.source.assign(P0)
        house.source.feed([record(0), record(1, "b@x")])
        await asyncio.sleep(10)
        found = status_of(house).snapshot()
        assert found.refused_keys == ("default",)
        assert (found.unready() or "").startswith("Meisa refuses the API key: default")
        assert "key_refused" in reasons(found)

    run(story())


def test_work_that_is_to_be_repeated_shows_as_retry() -> None:
    async def story() -> None:
        house = House(meisa=FakeMeisa(lambda call: UNAVAILABLE, latency=0.0))
        house.source.assign(P0)
        house.source.feed([record(0)])
        await asyncio.sleep(0.02)
        assert reasons(status_of(house).snapshot()) == {"retry": 1}

    run(story())


def test_a_probe_under_way_has_no_time_for_the_next_one() -> None:
    """While an endpoint is probed nobody knows when it is tried again: the pages say so, and can be made."""

    async def story() -> None:
        meisa = FakeMeisa(lambda call: UNAVAILABLE, latency=0.0)
        house = House(meisa=meisa)
        house.source.assign(P0)
        house.source.feed([record(number, f"{number}@x") for number in range(12)])
        await asyncio.sleep(0.02)
        status = status_of(house)
        assert status.snapshot().breakers
        meisa.latency = 3600.0
        await asyncio.sleep(600)
        found = status.snapshot()
        assert meisa.active == 1, "no probe is under way"
        assert all(math.isfinite(wait.until_wall_seconds or 0.0) for wait in found.waiting_for)
        assert "not known" in page.as_html(page.parts(found, History()))

    run(story())


def test_work_that_waits_for_company_shows_as_lingering() -> None:
    """Nothing is wrong: it is not among what is to be repeated."""

    async def story() -> None:
        house = House(meisa=FakeMeisa(lambda call: UNAVAILABLE, latency=0.0))
        house.source.assign(P0)
        house.source.feed([record(0), record(1, "b@x", linger=30.0)])
        await asyncio.sleep(0.02)
        assert reasons(status_of(house).snapshot()) == {"retry": 1, "linger": 1}

    run(story())


def test_dead_letters_without_an_acknowledgement_show_with_the_brokers_reason() -> None:
    async def story() -> None:
        house = House(letters=FakeLetters(refusals=3))
        house.source.assign(P0)
        house.source.feed([record(0, fail=True)._replace(value=b"{")])
        await asyncio.sleep(0.3)
        (waiting,) = status_of(house).snapshot().waiting_for
        assert (waiting.reason, waiting.count, waiting.detail) == ("dead_letters", 1, "the broker is away")
        await asyncio.sleep(10)
        assert status_of(house).snapshot().waiting_for == ()

    run(story())


def test_trouble_with_kafka_shows_until_it_is_over() -> None:
    async def story() -> None:
        house = House()
        house.source.assign(P0)
        house.engine.failed("no Kafka broker of b:1 can be reached", fatal=False)
        (waiting,) = status_of(house).snapshot().waiting_for
        assert (waiting.reason, waiting.detail) == ("kafka", "no Kafka broker of b:1 can be reached")
        house.source.feed([record(0)])
        await asyncio.sleep(1)
        assert status_of(house).snapshot().waiting_for == ()

    run(story())


def test_totals_are_those_of_the_meter() -> None:
    async def story() -> None:
        house = House()
        house.source.assign(P0)
        house.source.feed([record(0), record(1, do=[]), record(2, fail=True, do=[])])
        await asyncio.sleep(1)
        status = Status(house.engine, house.delivery, house.clock, house.endings, lambda: {"rule": 1})
        found = status.snapshot()
        assert found.totals == {"delivered": 1, "filtered": 1, "dead_lettered": 1}
        assert found.dead_letters == {"rule": 1}
        house.source.feed([record(3)])
        await asyncio.sleep(1)
        assert found.totals["delivered"] == 1, "a snapshot does not change behind the reader's back"

    run(story())


def test_after_a_revocation_nothing_of_it_is_shown() -> None:
    """Still a member, and ready; the partition's figures belong to its new owner."""

    async def story() -> None:
        house = House(meisa=FakeMeisa(latency=1.0))
        house.source.assign(P0, P1)
        house.source.feed([record(offset, f"{offset}@x") for offset in range(5)])
        await asyncio.sleep(0.1)
        await house.source.revoke(P0)
        found = status_of(house).snapshot()
        assert [TopicPartition(each.topic, each.partition) for each in found.partitions] == [P1]
        assert found.unready() is None
        assert sum(lane.events for lane in found.pending) == 0

    run(story())


def test_a_snapshot_names_no_contact() -> None:
    """Status goes to pages and metrics: not even a reason for waiting may carry an address or a body."""

    async def story() -> None:
        def answer(call: Call) -> Outcome:
            return {Kind.UPSERT.value: UNAVAILABLE, Kind.TRACK.value: THROTTLED}.get(call.endpoint, REFUSED)

        house = House(meisa=FakeMeisa(answer, latency=0.0))
        house.source.assign(P0)
        kinds = ("upsert", "track", "trigger")
        house.source.feed([record(at, f"private{at}@x", do=[kind]) for at, kind in enumerate(kinds)])
        await asyncio.sleep(5)
        found = status_of(house).snapshot()
        assert found.waiting_for
        assert "private" not in repr(dataclasses.asdict(found))

    run(story())


def test_a_frontier_that_stands_still_and_what_it_waits_for_are_in_the_status_as_in_the_log() -> None:
    """With the reasons; and one that moves again is none any more."""

    async def story() -> None:
        house = House(meisa=FakeMeisa(lambda call: THROTTLED._replace(retry_after_seconds=100.0)))
        status = status_of(house)
        house.source.assign(P0)
        house.source.feed([record(7)])
        await asyncio.sleep(30)
        (partition,) = status.snapshot().partitions
        assert (partition.stalled_seconds, partition.stalled_because) == (None, ())
        await asyncio.sleep(60)
        snapshot = status.snapshot()
        (partition,) = snapshot.partitions
        assert partition.frontier == 7 and partition.stalled_seconds is not None
        assert partition.stalled_seconds > 60 and partition.stalled_because == ("throttled",)
        (waiting,) = snapshot.waiting_for
        assert waiting.until_wall_seconds is not None
        assert 0 < waiting.until_wall_seconds - snapshot.taken_at_wall_seconds <= 101

    run(story())
