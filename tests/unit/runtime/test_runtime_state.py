"""The identity table in a store, through the whole engine: restarts, unknown contacts, stores that fail."""

import asyncio
from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from bridge.core.identity import Identities
from bridge.core.registers import merged
from bridge.core.retry import Policy
from bridge.model import LetterKind, Outcome, Verdict
from bridge.ports import Store
from bridge.state import open_store
from bridge.state.memory import MemoryStore
from tests.support.engine import P0, P1, House, record
from tests.support.fakes import FakeMeisa
from tests.support.far_store import FarStore
from tests.support.virtual import run


def house(store: Store, *, meisa: FakeMeisa | None = None, policy: Policy | None = None) -> House:
    return House(identities=Identities(store=store), store=store, meisa=meisa, policy=policy)


def sent(bridge: House) -> list[tuple[str, str | None]]:
    return [(call.endpoint, (call.body or {}).get("email")) for call in bridge.meisa.calls]


@pytest.fixture(params=["file", "far"])
def store_made(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    if request.param == "far":
        return FarStore
    return lambda: open_store("sqlite:///state.db", base_dir=tmp_path, namespace="g", merge=merged)


# Restarts


def test_a_rekey_survives_a_restart(tmp_path: Path) -> None:
    """Hard case 25: what a killed process had read, and committed, leads its successor to the present contact."""

    def opened() -> Store:
        return open_store("sqlite:///state.db", base_dir=tmp_path, namespace="g", merge=merged)

    async def before() -> int:
        bridge = house(opened())
        bridge.source.assign(P0)
        bridge.source.feed(
            [record(0, "old@x", id="7", aliases={"stripe": "cus_1"}), record(1, "new@x", id="7")],
        )
        await asyncio.sleep(5)
        return bridge.source.committed[P0]  # and no more: the process is killed, its store never closed

    async def after(committed: int) -> House:
        bridge = house(opened())
        bridge.source.committed[P0] = committed
        bridge.source.assign(P0, P1)
        bridge.source.feed(
            [
                record(2, "old@x"),
                record(3, None, do=["enroll"], aliases={"stripe": "cus_1"}),
                record(4, None, do=["enroll"], id="7"),
            ]
        )
        await asyncio.sleep(5)
        assert bridge.source.committed[P0] == 5
        return bridge

    committed = run(before())
    assert committed == 2
    bridge = run(after(committed))
    assert sent(bridge) == [("upsert", "new@x"), ("enroll", "new@x"), ("enroll", "new@x")]
    assert not bridge.letters.letters


def test_what_is_read_again_after_a_restart_moves_nothing_backwards(tmp_path: Path) -> None:
    """The log is read from its beginning by a group that lost its offsets: an old email is not the present one."""

    def opened() -> Store:
        return open_store("sqlite:///state.db", base_dir=tmp_path, namespace="g", merge=merged)

    async def before() -> None:
        bridge = house(opened())
        bridge.source.assign(P0)
        bridge.source.feed([record(0, "old@x", id="7"), record(1, "new@x", id="7")])
        await asyncio.sleep(5)

    async def after() -> House:
        bridge = house(opened())
        bridge.source.assign(P0, P1)
        bridge.source.feed([record(0, "old@x", id="7"), record(0, None, do=["enroll"], id="7", partition=1)])
        await asyncio.sleep(5)
        return bridge

    run(before())
    assert ("enroll", "new@x") in sent(run(after()))


def test_nothing_is_committed_before_what_it_taught_lasts() -> None:
    """A store that cannot be written holds commits back, says so, and lets them go on when it can."""

    async def main() -> None:
        store = FarStore()
        bridge = house(store)
        bridge.source.assign(P0)
        store.full = True
        bridge.source.feed([record(0, "a@x", id="7", do=["track", "upsert"])])
        await asyncio.sleep(8)
        assert sent(bridge) == [("track", "a@x")] and store.dirty
        assert P0 not in bridge.source.committed and P0 not in bridge.source.metadata
        assert ("state", "full") in [(each.reason, each.detail) for each in bridge.engine.waiting()]
        store.full = False
        await asyncio.sleep(8)
        assert sent(bridge) == [("track", "a@x"), ("upsert", "a@x")]
        assert bridge.source.committed[P0] == 1 and not bridge.engine.waiting()

    run(main())


def test_the_end_of_the_service_writes_what_is_left(store_made: Callable[[], Store]) -> None:
    async def main() -> None:
        store = store_made()
        bridge = house(store)
        bridge.source.assign(P0)
        bridge.source.feed([record(0, "a@x", id="7")])
        await asyncio.sleep(0.03)
        await bridge.engine.stop(10.0)
        assert not store.dirty
        await store.load(["x:7"])
        assert store.get("x:7") is not None
        await store.close()

    run(main())


def test_a_topic_that_was_created_anew_teaches_from_its_first_offset(store_made: Callable[[], Store]) -> None:
    """What the former topic's higher offsets taught is in the store; it must not outweigh the new topic's."""

    async def main() -> None:
        store = store_made()
        bridge = house(store)
        bridge.source.assign(P0)
        bridge.source.feed([record(100, "old@x", id="7")])
        await asyncio.sleep(5)
        again = house(store)
        again.source.fresh = True
        again.source.assign(P0)
        again.source.feed([record(0, "new@x", id="7"), record(1, "old@x", do=["track"])])
        await asyncio.sleep(5)
        assert sent(again) == [("upsert", "new@x"), ("track", "new@x")]

    run(main())


# Contacts that nobody knows yet


def test_an_unknown_contact_is_met_as_soon_as_an_event_names_it(store_made: Callable[[], Store]) -> None:
    """The enrollment waits, without a call; the other partition's upsert goes on, and tells the email."""

    async def main() -> None:
        bridge = house(store_made())
        bridge.source.assign(P0, P1)
        bridge.source.feed([record(0, None, do=["enroll"], id="7"), record(1, "z@x")])
        await asyncio.sleep(100)
        assert sent(bridge) == [("upsert", "z@x")]
        assert [(each.reason, each.count) for each in bridge.engine.waiting()] == [("unknown_contact", 1)]
        assert bridge.source.committed.get(P0, 0) == 0
        bridge.source.feed([record(0, "late@x", id="7", partition=1)])
        await asyncio.sleep(10)
        assert ("enroll", "late@x") in sent(bridge)
        assert bridge.source.committed[P0] == 2 and not bridge.letters.letters and not bridge.engine.waiting()

    run(main())


def test_an_upsert_by_alias_waits_and_says_the_email_it_found(store_made: Callable[[], Store]) -> None:
    async def main() -> None:
        bridge = house(store_made())
        bridge.source.assign(P0, P1)
        bridge.source.feed([record(0, None, aliases={"stripe": "cus_1"}, fields={"plan": "pro"})])
        await asyncio.sleep(20)
        bridge.source.feed([record(0, "late@x", id="7", aliases={"stripe": "cus_1"}, partition=1)])
        await asyncio.sleep(20)
        found = [call.body for call in bridge.meisa.calls if call.body and "custom_fields" in call.body]
        assert [(body["email"], body["external_id"]) for body in found] == [("late@x", "7")]
        assert not bridge.letters.letters

    run(main())


def test_a_contact_that_stays_unknown_is_dead_lettered_after_its_time(store_made: Callable[[], Store]) -> None:
    """Not a moment earlier; what stands behind it then goes on."""

    async def main() -> None:
        bridge = house(store_made(), policy=Policy(unknown_contact_seconds=600.0))
        bridge.source.assign(P0)
        bridge.source.feed([record(0, None, do=["enroll"], id="7")])
        await asyncio.sleep(598)
        assert not bridge.letters.letters
        await asyncio.sleep(5)
        assert [letter.kind for letter in bridge.letters.letters] == [LetterKind.UNKNOWN_CONTACT]
        assert bridge.source.committed[P0] == 1 and not bridge.meisa.calls

    run(main())


def test_in_memory_an_unknown_contact_waits_for_nobody() -> None:
    """The table forgets with every restart, so waiting would promise too much: as handlers have it so far."""

    async def main() -> None:
        bridge = House(identities=Identities(), store=MemoryStore())
        bridge.source.assign(P0)
        bridge.source.feed([record(0, None, do=["enroll"], id="7")])
        await asyncio.sleep(1)
        assert [letter.kind for letter in bridge.letters.letters] == [LetterKind.UNKNOWN_CONTACT]

    run(main())


def test_what_waits_for_its_contact_goes_with_its_partition(store_made: Callable[[], Store]) -> None:
    """The next owner asks anew; nothing of it is sent here any more, and nothing is left behind."""

    async def main() -> None:
        bridge = house(store_made())
        bridge.source.assign(P0, P1)
        bridge.source.feed([record(0, None, do=["enroll"], id="7")])
        await asyncio.sleep(20)
        await bridge.source.revoke(P0)
        bridge.source.feed([record(0, "late@x", id="7", partition=1)])
        await asyncio.sleep(20)
        assert sent(bridge) == [("upsert", "late@x")]
        assert bridge.delivery.pending == 0 and not bridge.engine.waiting()

    run(main())


# Stores behind a network


def test_events_that_wait_for_their_names_keep_their_order() -> None:
    """A thousand of a few contacts, fed while names are loaded; each contact's leave as they came."""

    async def main() -> None:
        store = FarStore()
        bridge = house(store)
        bridge.source.assign(P0)
        for begin in range(0, 1000, 100):
            bridge.source.feed([record(offset, f"{offset % 7}@x") for offset in range(begin, begin + 100)])
            await asyncio.sleep(0.003)
        await asyncio.sleep(60)
        assert bridge.source.committed[P0] == 1000
        for number in range(7):
            assert bridge.seqs(f"{number}@x") == list(range(number, 1000, 7))
        assert len(store.loads) < 100, "round trips are shared"

    run(main())


def test_while_the_store_is_away_nothing_goes_out_under_a_name_that_may_be_a_former_one() -> None:
    """Events wait, status says why, and intake knows that they are pending."""

    async def main() -> None:
        store = FarStore()
        bridge = house(store)
        bridge.source.assign(P0)
        bridge.source.feed([record(0, "old@x", id="7"), record(1, "new@x", id="7")])
        await asyncio.sleep(5)
        store.away = True
        bridge.source.feed([record(2, "old@x")])
        await asyncio.sleep(60)
        assert sent(bridge)[-1] == ("upsert", "new@x") and len(sent(bridge)) <= 2
        assert bridge.delivery.pending == 1
        assert ("state", 1, "away") in [(each.reason, each.count, each.detail) for each in bridge.engine.waiting()]
        calls = len(sent(bridge))
        store.away = False
        await asyncio.sleep(60)
        assert sent(bridge)[calls:] == [("upsert", "new@x")]
        assert bridge.source.committed[P0] == 3 and bridge.delivery.pending == 0

    run(main())


def test_what_waits_for_its_names_goes_with_its_partition() -> None:
    async def main() -> None:
        store = FarStore()
        bridge = house(store)
        bridge.source.assign(P0, P1)
        store.away = True
        bridge.source.feed([record(0, "a@x"), record(0, "b@x", partition=1)])
        await asyncio.sleep(1)
        bridge.source.lose(P0)
        assert bridge.delivery.pending == 1
        store.away = False
        await asyncio.sleep(30)
        assert sent(bridge) == [("upsert", "b@x")] and bridge.delivery.pending == 0
        assert [count for _, _, count in bridge.delivery.pending_by_lane()] == [0, 0, 0]
        await bridge.delivery.close()

    run(main())


def test_a_refused_rekey_is_remembered_as_uncertain_behind_a_network_too() -> None:
    """By the time of the answer the names are at hand no more."""

    async def main() -> None:
        store = FarStore()
        refusing = FakeMeisa(
            lambda call: (
                Outcome(Verdict.REFUSED, 400, "taken")
                if (call.body or {}).get("email") == "new@x"
                else Outcome(Verdict.DELIVERED, 200)
            )
        )
        bridge = house(store, meisa=refusing)
        bridge.source.assign(P0)
        bridge.source.feed([record(0, "old@x", id="7"), record(1, "new@x", id="7")])
        await asyncio.sleep(10)
        bridge.source.feed([record(2, "old@x", do=["track"])])
        await asyncio.sleep(10)
        assert sent(bridge)[-1] == ("track", "old@x")
        assert [letter.record.offset for letter in bridge.letters.letters] == [1]

    run(main())


def test_a_mistake_in_a_lookup_keeps_its_records_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is committed, and status says that something is wrong."""

    async def main() -> None:
        store = FarStore()

        async def broken(names: Collection[str]) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(store, "load", broken)
        bridge = house(store)
        bridge.source.assign(P0)
        bridge.source.feed([record(0, "a@x")])
        await asyncio.sleep(5)
        assert not sent(bridge) and bridge.source.committed.get(P0, 0) == 0
        assert [each.detail for each in bridge.engine.waiting()] == ["internal error: ZeroDivisionError"]

    run(main())
