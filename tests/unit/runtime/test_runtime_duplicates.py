"""Repeated events through a whole engine: skipped where that is safe, and counted."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from bridge.core.progress import decode, finished_offsets
from bridge.model import Outcome, Plan, Record, Verdict
from bridge.ports import Store
from bridge.runtime.duplicates import PREFIX, Duplicates
from bridge.state import open_store
from tests.support.engine import P0, P1, TOPIC, House, plan, record
from tests.support.fakes import FakeMeisa
from tests.support.lazy import file, hand_over
from tests.support.virtual import run

REFUSED = Outcome(Verdict.REFUSED, 400, "bad field")


def event(offset: int, name: str, **more: Any) -> Record:
    """A record of the event with this id."""
    return record(offset, more.pop("email", "a@x"), event_id=name, **more)


def house(store: Store | None = None, **options: Any) -> House:
    return House(store=store, **{"dedupe": 600.0, **options})


def test_a_repetition_is_skipped_and_counted() -> None:
    """Within the window, from whatever partition; another event of the contact is not one."""

    async def story() -> None:
        made = house()
        made.source.assign(P0, P1)
        made.source.feed([event(0, "one"), event(1, "two")])
        await asyncio.sleep(1)
        made.source.feed([event(2, "one"), event(0, "two", partition=1)])
        await asyncio.sleep(600)
        made.source.feed([event(3, "one")])
        await asyncio.sleep(1)
        assert made.seqs() == [0, 1, 3]
        assert made.endings() == {"delivered": 3, "duplicate": 2}
        assert made.source.committed[P0] == 4 and made.source.committed[P1] == 1

    run(story())


def test_a_repetition_of_what_is_under_way_ends_at_once_and_the_first_holds_the_offset() -> None:
    """A producer that tries again does so within milliseconds: the first one waits for its call."""

    async def story() -> None:
        made = house()
        made.source.assign(P0)
        made.delivery.hold()
        made.source.feed([event(0, "one", coalesce=True), event(1, "one", coalesce=True)])
        assert made.endings() == {"duplicate": 1}
        await asyncio.sleep(1)
        assert made.source.committed.get(P0, 0) == 0, "only the first one is to be done"
        progress = decode(0, made.source.metadata[P0])
        assert progress is not None and list(finished_offsets(progress)) == [1]
        made.delivery.open()
        await asyncio.sleep(1)
        assert made.seqs() == [0] and made.source.committed[P0] == 2

    run(story())


def test_a_repetition_of_what_was_dead_lettered_is_skipped_too() -> None:
    """It has finished: whoever mends it replays the letter."""

    async def story() -> None:
        made = house(meisa=FakeMeisa(lambda call: REFUSED))
        made.source.assign(P0)
        made.source.feed([event(0, "one")])
        await asyncio.sleep(1)
        made.source.feed([event(1, "one")])
        await asyncio.sleep(1)
        assert made.endings() == {"dead_lettered": 1, "duplicate": 1} and len(made.letters.letters) == 1

    run(story())


def test_what_went_with_its_partition_is_read_again_and_is_done() -> None:
    """Nothing of the former assignment makes a record a duplicate of itself, nor its repetition the only one."""

    async def story() -> None:
        made = house()
        made.source.assign(P0, P1)
        made.delivery.hold()
        made.source.feed([event(0, "one"), event(0, "one", partition=1)])
        await made.source.revoke(P0, P1)
        assert made.source.committed.get(P0, 0) == 0 and made.source.committed[P1] == 1
        made.source.assign(P0, P1)
        made.source.feed([event(0, "one")])
        made.delivery.open()
        await asyncio.sleep(1)
        made.source.feed([event(1, "one")])
        await asyncio.sleep(1)
        assert made.seqs() == [0] and made.source.committed[P0] == 2

    run(story())


def test_what_others_have_under_way_is_no_reason_to_skip() -> None:
    """Its partition went: when it finishes there is nobody's business here, nor is it known for how long it was."""

    async def story() -> None:
        made = house()
        made.source.assign(P0, P1)
        made.delivery.hold()
        made.source.feed([event(0, "one")])
        await made.source.revoke(P0)
        made.delivery.open()
        made.source.feed([event(0, "one", partition=1)])
        await asyncio.sleep(1)
        assert made.endings() == {"delivered": 1}

    run(story())


def test_an_event_of_which_nothing_was_to_be_done_is_looked_at_again() -> None:
    """Rules may want it by then."""

    async def story() -> None:
        wanted = False
        made = house(plan=lambda each: plan(each) if wanted else Plan())
        made.source.assign(P0)
        made.source.feed([event(0, "one")])
        wanted = True
        made.source.feed([event(1, "one")])
        await asyncio.sleep(1)
        assert made.seqs() == [1] and made.endings() == {"filtered": 1, "delivered": 1}

    run(story())


def test_an_event_without_an_id_of_its_own_is_never_one() -> None:
    async def story() -> None:
        made = house()
        made.source.assign(P0)
        made.source.feed([record(0), record(1)])
        await asyncio.sleep(1)
        assert made.seqs() == [0, 1] and made.duplicates.remembered == 0

    run(story())


def test_a_file_knows_after_a_restart_and_memory_does_not(tmp_path: Path) -> None:
    """What a repetition repeats may have finished in the process before, at whoever owned its partition."""

    async def story() -> None:
        for store, delivered in ((file, [0, 3]), (memory, [0, 2, 3])):
            former, latter = house(store(tmp_path)), house(store(tmp_path))
            former.source.assign(P0, P1)
            former.source.feed([event(0, "one"), event(1, "two", do=[])])
            await asyncio.sleep(1)
            await former.engine.stop(1)
            await latter.duplicates.load()
            hand_over(former, latter)
            latter.source.feed([event(2, "one"), event(3, "three")])
            await asyncio.sleep(1)
            assert former.seqs() + latter.seqs() == delivered
            assert latter.source.committed[P0] == 4

    run(story())


def memory(folder: Path) -> Store:
    return open_store("memory", base_dir=folder, namespace="g", merge=lambda name, old, new: new)


def test_a_file_keeps_no_more_than_is_looked_at(tmp_path: Path) -> None:
    """What is too old goes, and what is damaged, or of a topic that is not deduplicated any more."""

    async def story() -> None:
        store = file(tmp_path)
        made = house(store)
        made.source.assign(P0)
        made.source.feed([event(0, "one")])
        await asyncio.sleep(1)

        async def kept() -> list[str]:
            await store.flush()
            return sorted([name.rpartition(":")[0] async for name, _ in store.scan(PREFIX)])

        assert await kept() == [f"{PREFIX}{TOPIC}"]
        store.put(f"{PREFIX}{TOPIC}:{'00' * 16}", b"damaged")
        store.put(f"{PREFIX}former:{'00' * 16}", b"")
        again = Duplicates({TOPIC: 600.0}, clock=made.clock, store=store)
        await again.load()
        assert await kept() == [f"{PREFIX}{TOPIC}"] and again.remembered == 1
        await asyncio.sleep(600)
        made.source.feed([event(1, "two")])
        await asyncio.sleep(1)
        assert len(await kept()) == 1 and made.duplicates.remembered == 1
        later = Duplicates({}, clock=made.clock, store=store)
        await later.load()
        assert await kept() == []

    run(story())
