"""What is stored of contacts: when the next process believes it, and what the store must have forgotten before."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from bridge.core.known import DOUBT_SECONDS
from bridge.core.progress import Progress, decode, encode
from bridge.kafka.groups import Committed
from bridge.kafka.sample import Slice
from bridge.model import Action, Call, Contact, Event, Kind, Outcome, Plan, Record
from bridge.positions import Move, Standing
from bridge.runtime.unchanged import Unchanged
from bridge.state.memory import MemoryStore
from tests.support.disk import Disk
from tests.support.engine import P0, TOPIC, House
from tests.support.fakes import DELIVERED, FakeMeisa, FakeSource
from tests.support.virtual import run

BODY = {"email": "a@x.io", "custom_fields": {"plan": "free"}}


class Echo(FakeMeisa):
    """Answers an upsert with what it said."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.at_calls: Callable[[Call], None] = lambda call: None

    def _answer(self, call: Call) -> Outcome:
        return DELIVERED._replace(data={"id": "m1", "tags": [], **(call.body or {})}, contact_id="m1")

    async def send(self, call: Call) -> Outcome:
        self.at_calls(call)
        return await super().send(call)


def plan(event: Event) -> Plan:
    return Plan((Action(Kind.UPSERT, "rule", 0, event.data, Contact(event.data["email"])),))


def record(offset: int) -> Record:
    return Record(TOPIC, 0, offset, 1_780_000_000_000, b"person", json.dumps(BODY).encode())


class Machine:
    """Where processes come and go: a disk, Kafka's commits, and a Meisa."""

    def __init__(self, store: Callable[[dict[str, bytes]], Any] = Disk) -> None:
        self.disk: dict[str, bytes] = {}
        self.kafka = FakeSource()
        self.meisa = Echo()
        self.make_store = store
        self.rules = b"rules"

    async def life(self, story: Callable[[House], Coroutine[Any, Any, None]]) -> House:
        store = self.make_store(self.disk)
        house = House(
            meisa=self.meisa,
            plan=plan,
            store=store,
            unchanged=lambda clock: Unchanged(clock=clock, topics=[TOPIC], store=store, rules=self.rules),
        )
        house.source.committed, house.source.metadata = self.kafka.committed, self.kafka.metadata
        house.source.assign(P0)
        await story(house)
        await house.engine.stop(5.0)
        await house.delivery.close()
        return house

    def kept(self) -> list[str]:
        """Registers with what was learned; others only lead there."""
        return [name for name, value in self.disk.items() if name.startswith("k:") and value[0] == 1]


def upsert(offset: int) -> Callable[[House], Coroutine[Any, Any, None]]:
    async def story(house: House) -> None:
        house.source.feed([record(offset)])
        await asyncio.sleep(2.0)

    return story


def test_a_restart_goes_on_with_what_was_stored() -> None:
    async def main() -> None:
        machine = Machine()
        await machine.life(upsert(0))
        assert (await machine.life(upsert(1))).endings() == {"unchanged": 1}
        assert len(machine.meisa.calls) == 1

    run(main())


@pytest.mark.parametrize(
    "what", ["damaged", "foreign", "empty", "nobody's", "another offset", "another's", "later", "reset"]
)
def test_a_commit_that_is_not_the_last_one_of_whoever_stored_is_not_believed(what: str) -> None:
    """Another tool's or owner's, a damaged one, none, or a later one of the same: the store has lost its tail."""

    async def main() -> None:
        machine = Machine()
        await machine.life(upsert(0))
        text = machine.kafka.metadata[P0]
        told = decode(1, text)
        assert told is not None and told.assignment is not None
        machine.kafka.metadata[P0] = {
            "damaged": text[:-1],
            "foreign": "hello",
            "empty": "",
            "nobody's": encode(1, told._replace(assignment=None, since_wall=1, topic=7), 4096),
            "another offset": encode(2, told, 4096),
            "later": encode(1, told._replace(topic=7), 4096),
            "reset": Move(Standing.of(Slice(P0, 0, 1), Committed(1, text)), 1).text(0.0, None, 4096),
            "another's": encode(1, told._replace(assignment=b"somebody"), 4096),
        }[what]
        if what == "another offset":
            machine.kafka.committed[P0] = 2
        assert (await machine.life(upsert(2))).endings() == {"delivered": 1}

    run(main())


def test_other_rules_believe_nothing_of_before() -> None:
    """What several topics write may differ now."""

    async def main() -> None:
        machine = Machine()
        await machine.life(upsert(0))
        machine.rules = b"others"
        assert (await machine.life(upsert(1))).endings() == {"delivered": 1}

    run(main())


def test_a_record_that_a_former_owner_may_have_sent_is_sent_and_leaves_doubt() -> None:
    """It told that it had read so far: its call may have been carried out, or still be."""

    async def main() -> None:
        machine = Machine()
        await machine.life(upsert(0))
        text = machine.kafka.metadata[P0]
        told = decode(1, text) or Progress(0)
        seen = encode(1, told._replace(seen=2, since_wall=1), 4096)
        unchanged = Unchanged(clock=House().clock, topics=[TOPIC], store=Disk(machine.disk), rules=machine.rules)
        machine.disk[f"o:{P0}"] = unchanged._digest(1, seen)  # as if that had been its last commit
        machine.kafka.metadata[P0] = seen

        async def story(house: House) -> None:
            for offset in range(1, 5):
                house.source.feed([record(offset)])
                await asyncio.sleep(10.0 if offset != 2 else DOUBT_SECONDS)

        house = await machine.life(story)
        assert house.endings() == {"delivered": 3, "unchanged": 1}

    run(main())


def test_after_a_former_owner_nothing_is_learned_while_its_calls_may_come() -> None:
    """Of one without an answer, whose event has finished since by a further call, nobody here knows."""

    async def main() -> None:
        machine = Machine(lambda disk: MemoryStore())
        await machine.life(upsert(0))

        async def story(house: House) -> None:
            await upsert(1)(house)
            await upsert(2)(house)
            assert house.endings() == {"delivered": 2}
            await asyncio.sleep(DOUBT_SECONDS)
            await upsert(3)(house)
            await upsert(4)(house)

        assert (await machine.life(story)).endings() == {"delivered": 3, "unchanged": 1}

    run(main())


async def replayed(house: House) -> None:
    """A replay of the first record."""
    again = Event(id="r", type="t", time="", time_wall_seconds=0.0, data=BODY, record=record(0)._replace(epoch=1))
    house.delivery.deliver(again, plan(again).actions, marks=house.delivery.marks, tell=lambda *done: None)


def test_before_a_replay_leaves_the_store_has_forgotten_its_contact() -> None:
    """Nobody reads its record again after a crash."""

    async def main() -> None:
        machine = Machine()
        kept: list[int] = []

        async def story(house: House) -> None:
            await upsert(0)(house)
            assert len(machine.kept()) == 1
            machine.meisa.at_calls = lambda call: kept.append(len(machine.kept()))
            await replayed(house)
            await asyncio.sleep(2.0)

        await machine.life(story)
        assert kept == [0]

    run(main())


def test_a_replay_waits_for_a_store_that_cannot_be_written() -> None:
    async def main() -> None:
        machine = Machine()

        async def story(house: House) -> None:
            await upsert(0)(house)
            store = house.delivery.unchanged._store
            assert isinstance(store, Disk)
            store.broken = True
            await replayed(house)
            await asyncio.sleep(60.0)
            assert len(machine.meisa.calls) == 1
            store.broken = False
            await asyncio.sleep(60.0)
            assert len(machine.meisa.calls) == 2

        await machine.life(story)

    run(main())


def test_a_store_behind_a_network_keeps_nothing_of_this() -> None:
    """Its names are not at hand when an upsert's turn comes."""

    class Remote(Disk):
        local = False

    async def main() -> None:
        machine = Machine(Remote)
        house = await machine.life(upsert(0))
        assert house.delivery.unchanged.assignment(P0) is None and not machine.disk
        assert (await machine.life(upsert(1))).endings() == {"delivered": 1}

    run(main())
