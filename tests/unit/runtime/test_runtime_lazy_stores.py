"""Kept values of lazy fields over restarts, crashes and owners: what is sent later, and what no more."""

import asyncio
import shutil
from pathlib import Path

from bridge.model import Call, Ending, Outcome, Verdict
from tests.support.engine import P0
from tests.support.fakes import DELIVERED, FakeMeisa
from tests.support.far_store import FarStore
from tests.support.lazy import (
    DAY,
    SLOW,
    bridge,
    file,
    hand_over,
    login,
    record,
    said,
    settled,
)
from tests.support.virtual import run


def test_kept_values_survive_a_kill_and_ride_or_go_later(tmp_path: Path) -> None:
    """What was finished as lazy and committed by a killed process is sent by its successor when the period ends."""

    async def before() -> tuple[int, str]:
        house = bridge(file(tmp_path))
        house.source.assign(P0)
        house.source.feed([login(0), login(0, "b@x")._replace(offset=1)])
        await settled(house)
        house.source.feed([login(2), login(3, "b@x"), login(4)])
        await settled(house)
        assert said(house) == [{"seen": 0}, {"seen": 0}]
        return house.source.committed[P0], house.source.metadata[P0]

    async def after(committed: tuple[int, str]) -> None:
        house = bridge(file(tmp_path))
        house.source.committed[P0], house.source.metadata[P0] = committed
        house.source.assign(P0)
        assert house.delivery.lazy.contacts == 2
        house.source.feed([record(5, "b@x", fields={"plan": "pro"})])
        await settled(house)
        assert said(house) == [{"plan": "pro", "seen": 3}]
        await settled(house, DAY)
        assert said(house) == [{"plan": "pro", "seen": 3}, {"seen": 4}]

    committed = run(before())
    assert committed[0] == 5
    run(after(committed))


def test_an_offset_is_committed_only_when_its_kept_value_lasts() -> None:
    """A process that dies right after a commit leaves every value of the offsets below it in the store."""

    async def story() -> None:
        store = FarStore()
        house = bridge(store)
        house.source.assign(P0)
        house.source.feed([login(0)])
        await settled(house)
        store.full = True
        house.source.feed([login(1)])
        await settled(house)
        assert house.endings() == {Ending.DELIVERED: 1, Ending.LAZY: 1}
        assert house.source.committed == {P0: 1}
        store.full = False
        await asyncio.sleep(10)
        assert house.source.committed == {P0: 2}

    run(story())


def test_an_older_value_that_is_read_again_is_not_kept_over_one_that_was_sent(tmp_path: Path) -> None:
    """Offset 1 is read again after offset 2's value reached Meisa, because its track had not ended: nothing is due."""

    async def before() -> tuple[int, str]:
        house = bridge(file(tmp_path), meisa=FakeMeisa(unreachable_track))
        house.source.assign(P0)
        house.source.feed([login(0)])
        await settled(house)
        house.source.feed([login(1, do=["upsert", "track"]), record(2, fields={"plan": "pro", "seen": 2})])
        await asyncio.sleep(5)
        return house.source.committed[P0], house.source.metadata[P0]

    def unreachable_track(call: Call) -> Outcome:
        return Outcome(Verdict.RETRY, 503, "unavailable") if call.endpoint == "track" else DELIVERED

    async def after(committed: tuple[int, str]) -> None:
        house = bridge(file(tmp_path))
        house.source.committed[P0], house.source.metadata[P0] = committed
        house.source.assign(P0)
        house.source.feed([login(1, do=["upsert", "track"]), record(2, fields={"plan": "pro", "seen": 2})])
        await settled(house, 10)
        assert {"seen": 1} not in said(house)
        await settled(house, 3 * DAY)
        assert all(call.get("seen", 2) == 2 for call in said(house))

    committed = run(before())
    assert committed[0] == 1
    run(after(committed))


def test_an_upsert_that_finished_as_lazy_is_not_repeated_while_its_event_goes_on() -> None:
    """Its track had not ended when the process died, and memory forgot the value; sent now it would undo offset 2's."""

    def unreachable_track(call: Call) -> Outcome:
        return Outcome(Verdict.RETRY, 503, "unavailable") if call.endpoint == "track" else DELIVERED

    events = [login(1, do=["upsert", "track"]), record(2, fields={"plan": "pro", "seen": 2}, id="8")]

    async def before() -> tuple[int, str]:
        house = bridge(meisa=FakeMeisa(unreachable_track))
        house.source.assign(P0)
        house.source.feed([login(0)])
        await settled(house)
        house.source.feed([events[0]])
        await asyncio.sleep(5)
        assert said(house)[:2] == [{"seen": 0}, {"track": "track1"}]
        return house.source.committed[P0], house.source.metadata[P0]

    async def after(committed: tuple[int, str]) -> None:
        house = bridge()
        house.source.committed[P0], house.source.metadata[P0] = committed
        house.source.assign(P0)
        house.source.feed(events)
        await settled(house, 10)
        assert said(house) == [{"track": "track1"}, {"plan": "pro", "seen": 2}]

    committed = run(before())
    assert committed[0] == 1
    run(after(committed))


def test_a_person_erased_from_the_store_is_not_written_to(tmp_path: Path) -> None:
    """`contact forget` runs beside the bridge: a kept value of the person does not go out a day later."""

    async def story() -> None:
        house = bridge(file(tmp_path))
        house.source.assign(P0)
        house.source.feed([login(0), login(1, "b@x")])
        await settled(house)
        house.source.feed([login(2), login(3, "b@x")])
        await settled(house)
        other = file(tmp_path)
        async for name, value in other.scan("l:"):
            if b"a@x" in value:
                other.delete(name)
        await other.flush()
        await other.close()
        await settled(house, 2 * DAY)
        assert said(house)[2:] == [{"seen": 3}]

    run(story())


def test_the_next_owner_with_the_same_store_goes_on(tmp_path: Path) -> None:
    """Two instances, one store that both reach: a partition that moves takes its kept values along."""

    async def story() -> None:
        first, second = bridge(file(tmp_path)), bridge(file(tmp_path))
        first.source.assign(P0)
        first.source.feed([login(0)])
        await settled(first)
        first.source.feed([login(1)])
        await settled(first)
        await first.source.revoke(P0)
        second.source.committed.update(first.source.committed)
        second.source.metadata.update(first.source.metadata)
        second.source.assign(P0)
        await settled(second, 2 * DAY)
        assert said(first) == [{"seen": 0}]
        assert said(second) == [{"seen": 1}]

    run(story())


def test_a_value_rides_only_once_a_commit_told_of_its_record() -> None:
    """Else a crash would send the older value of the upsert again, and whoever reads on knows nothing of the newer."""

    async def story() -> None:
        house = bridge(limits=SLOW)
        house.source.assign(P0)
        house.source.feed([record(0, "other@x", fields={"n": 1})])
        await asyncio.sleep(1)
        house.source.feed([login(1, do=["upsert", "track"])])
        await asyncio.sleep(58)
        house.source.answer_commits = False
        house.source.feed([login(2)])
        await asyncio.sleep(5)
        assert said(house)[1:] == [{"seen": 1}]
        house.source.answer_commits = True
        for positions in house.source.unanswered:
            house.source.commit(positions)
        await settled(house, 300)
        assert {"seen": 2} not in said(house), "it waits for the period: seen=1 was sent a moment ago"
        assert house.delivery.lazy.contacts == 1

    run(story())


def test_no_kept_value_leaves_while_newer_records_are_to_be_read_again(tmp_path: Path) -> None:
    """Offset 2 had reached Meisa and was not committed; offset 1's value, due by now, must not be sent over it.

    The store is as it was when the call was under way: the process died before it was written again.
    """

    async def before() -> tuple[int, str]:
        house = bridge(file(tmp_path / "before"))
        house.source.assign(P0)
        house.source.feed([login(0)])
        await settled(house)
        house.source.feed([login(1)])
        await settled(house)
        house.source.feed([record(2, fields={"seen": 2, "plan": "pro"})])
        while not house.meisa.active:
            await asyncio.sleep(0.001)
        shutil.copytree(tmp_path / "before", tmp_path / "after")
        house.source.answer_commits = False
        await asyncio.sleep(1)
        assert said(house) == [{"seen": 0}, {"seen": 2, "plan": "pro"}]
        return house.source.committed[P0], house.source.metadata[P0]

    async def after(committed: tuple[int, str]) -> None:
        house = bridge(file(tmp_path / "after"))
        house.clock.wall_offset = 2 * DAY
        house.source.committed[P0], house.source.metadata[P0] = committed
        house.source.assign(P0)
        assert house.delivery.lazy.contacts == 1
        await asyncio.sleep(3)
        assert said(house) == []
        house.source.feed([record(2, fields={"seen": 2, "plan": "pro"})])
        await settled(house, 3 * DAY)
        assert said(house) == [{"seen": 2, "plan": "pro"}]

    (tmp_path / "before").mkdir()
    committed = run(before())
    assert committed[0] == 2
    run(after(committed))


def test_a_file_of_its_own_is_not_believed_after_another_owner(tmp_path: Path) -> None:
    """Instance one keeps a value, instance two sends a newer one: when the partition comes back it is dropped."""

    async def story() -> None:
        (tmp_path / "one").mkdir()
        (tmp_path / "two").mkdir()
        one, two = bridge(file(tmp_path / "one")), bridge(file(tmp_path / "two"))
        one.source.assign(P0)
        one.source.feed([login(0)])
        await settled(one)
        one.source.feed([login(1)])
        await settled(one)
        await one.source.revoke(P0)
        hand_over(one, two)
        two.source.feed([record(2, fields={"seen": 2, "plan": "pro"})])
        await settled(two)
        await two.source.revoke(P0)
        hand_over(two, one)
        await settled(one, 3 * DAY)
        assert said(one) == [{"seen": 0}]
        one.source.feed([record(3, "b@x", fields={"plan": "pro"})])
        await settled(one)
        assert [name async for name, _ in file(tmp_path / "one").scan("l:")] == []

    run(story())


def test_a_partition_that_left_and_came_straight_back_brings_its_values(tmp_path: Path) -> None:
    """Nobody had it in between, or nobody did anything: what is committed is what we asked for."""

    async def story() -> None:
        house = bridge(file(tmp_path))
        house.source.assign(P0)
        house.source.feed([login(0)])
        await settled(house)
        house.source.feed([login(1)])
        await settled(house)
        for _ in range(3):
            await house.source.revoke(P0)
            house.source.assign(P0)
        assert house.delivery.lazy.contacts == 1
        await settled(house, 2 * DAY)
        assert said(house) == [{"seen": 0}, {"seen": 1}]

    run(story())


# A store behind a network


def test_values_are_found_in_a_store_behind_a_network() -> None:
    """The next owner reads them while events come already; while the store is away it asks again."""

    async def story() -> None:
        store = FarStore()
        house = bridge(store)
        house.source.assign(P0)
        house.source.feed([login(0)])
        await settled(house)
        house.source.feed([login(1)])
        await settled(house)
        await house.source.revoke(P0)
        store.scanned_away = True
        house.source.assign(P0)
        await asyncio.sleep(2)
        assert house.delivery.lazy.contacts == 0
        store.scanned_away = False
        await asyncio.sleep(10)
        assert house.delivery.lazy.contacts == 1
        await settled(house, DAY)
        assert said(house) == [{"seen": 0}, {"seen": 1}]

    run(story())


def test_who_was_erased_from_a_store_behind_a_network_is_not_written_to() -> None:
    """Before a kept value goes by itself its register is looked up."""

    async def story() -> None:
        store = FarStore()
        house = bridge(store)
        house.source.assign(P0)
        house.source.feed([login(0)])
        await settled(house)
        house.source.feed([login(1)])
        await settled(house)
        for name in [name async for name, _ in store.scan("l:")]:
            store.delete(name)
        store.refresh()
        await settled(house, 2 * DAY)
        assert said(house) == [{"seen": 0}]

    run(story())


def test_a_partition_that_goes_while_its_store_is_read_brings_nothing() -> None:
    """What was being read belongs to the next owner."""

    async def story() -> None:
        store = FarStore()
        house = bridge(store)
        house.source.assign(P0)
        house.source.feed([login(0)])
        await settled(house)
        house.source.feed([login(1)])
        await settled(house)
        await house.source.revoke(P0)
        store.scanned_away = True
        house.source.assign(P0)
        house.source.lose(P0)
        store.scanned_away = False
        await settled(house, 2 * DAY)
        assert said(house) == [{"seen": 0}]
        await house.delivery.close()

    run(story())
