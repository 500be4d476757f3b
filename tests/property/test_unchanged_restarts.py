"""Over crashes, restarts and other owners: what is believed to be unchanged is so, and Meisa ends in the same state.

The whole engine with a state store that outlives it, killed at any moment and started again, now and then on another
machine with a store of its own. Whatever it believes of what was stored, the contacts must end as if each event had
been sent by itself. Kafka keeps what was committed, a store what was flushed, and Meisa carries out what has left.
"""

from __future__ import annotations

import asyncio
import random
from contextvars import copy_context
from typing import Any, NamedTuple

import orjson
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bridge import rules
from bridge.core.quota import Quota
from bridge.core.retry import Policy
from bridge.decode import decoder_for
from bridge.model import Call, Outcome, Record, TopicPartition, action_id
from bridge.runtime.delivery import Delivery
from bridge.runtime.engine import Engine
from bridge.runtime.unchanged import Unchanged
from tests.support.amount import examples
from tests.support.disk import Disk
from tests.support.fakes import CountingMeter, FakeLetters, FakeSource
from tests.support.virtual import PROCESS, Process, VirtualClock, run
from tests.support.world_meisa import WorldMeisa

TOPIC = "events"
NAMES = [TopicPartition(TOPIC, number) for number in range(2)]

BOOK = rules.load_text("""
rules:
  - name: plan
    match: plan
    do:
      - upsert: {email: "${data.email}", custom_fields: {plan: "${data.value}"}}
  - name: mixed
    match: mixed
    do:
      - upsert: {email: "${data.email}", first_name: "${data.value}", tag_names: ["${data.value}"]}
      - track: {event_name: seen, email: "${data.email}", properties: {n: 1}}
  - name: untagged
    match: untagged
    do:
      - remove_tag: {email: "${data.email}", tag_name: "${data.value}"}
  - name: greeted
    match: greeted
    do:
      - trigger: {trigger_key: hello, to_email: "${data.email}", recipient: {first_name: "${data.value}"}}
""")


class Happens(NamedTuple):
    """An event; or, with a type in capitals, what becomes of the process.

    KILL and STOP end it, POWER takes the last of the disk with it. `user` is then the machine on which it goes on, and
    the length of `value` how many events come before that.
    """

    type: str
    user: int = 0
    value: str = "a"
    gap: float = 0.3
    """Seconds since what was before."""


GAPS = st.sampled_from([0.0, 0.01, 0.03, 0.06, 0.12, 0.3, 2.0])
EVENTS = st.builds(
    Happens,
    st.sampled_from(["plan", "plan", "plan", "mixed", "mixed", "untagged", "greeted"]),
    st.integers(0, 1),
    st.sampled_from("ab"),
    GAPS,
)
TURNS = st.builds(
    Happens,
    st.sampled_from(["KILL", "KILL", "STOP", "POWER"]),
    st.sampled_from([0, 0, 1]),
    st.sampled_from(["", "x", "xx"]),
    GAPS,
)
STORIES = st.lists(st.one_of(EVENTS, EVENTS, EVENTS, TURNS), max_size=25)


class Outside(WorldMeisa):
    """Carries out what has left, whoever was killed meanwhile."""

    def __init__(self) -> None:
        super().__init__(VirtualClock())
        self.under_way: set[asyncio.Task[None]] = set()

    async def send(self, call: Call) -> Outcome:
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[Outcome] = loop.create_future()
        context = copy_context()
        context.run(PROCESS.set, None)

        async def carry_out() -> None:
            outcome = await super(Outside, self).send(call)
            if not answered.done():
                answered.set_result(outcome)

        self.under_way.add(loop.create_task(carry_out(), context=context))
        return await answered


class Life:
    """One process with all partitions."""

    def __init__(self, meisa: Outside, log: list[list[Record]], kafka: FakeSource, disk: dict[str, bytes]) -> None:
        self.process = Process("bridge")
        self._context = copy_context()
        self._context.run(PROCESS.set, self.process)
        self._context.run(self._begin, meisa, log, kafka, disk)

    def _begin(self, meisa: Outside, log: list[list[Record]], kafka: FakeSource, disk: dict[str, bytes]) -> None:
        clock, store = VirtualClock(), Disk(disk)
        self.source, self.meter = FakeSource(), CountingMeter()
        self.source.committed, self.source.metadata = kafka.committed, kafka.metadata
        self.source.counts = {TOPIC: len(NAMES)}
        self.delivery = Delivery(
            meisa,
            {"default": Quota([(100_000, 60.0)], reserve=0.0)},
            clock=clock,
            meter=self.meter,
            policy=Policy(),
            identify=lambda record, action: action_id("group", record, action),
            dice=random.Random(1),
            store=store,
            unchanged=Unchanged(clock=clock, topics=[TOPIC], store=store, counts=self.source.partition_counts),
        )
        self.engine = Engine(
            group="group",
            decoders={TOPIC: decoder_for("json", envelope=None).decode},
            plan=BOOK.plan,
            source=self.source,
            letters=FakeLetters(),
            clock=clock,
            meter=self.meter,
            delivery=self.delivery,
            store=store,
        )
        self.source.start(self.engine)
        self.source.assign(*NAMES)
        self.delivery.open()
        for name, records in zip(NAMES, log, strict=True):
            self.feed(records[kafka.committed.get(name, 0) :])

    def feed(self, records: list[Record]) -> None:
        self._context.copy().run(self.source.feed, records)

    async def stop(self) -> None:
        task = asyncio.get_running_loop().create_task(self._stop(), context=self._context.copy())
        await task
        self.process.killed = True

    async def _stop(self) -> None:
        await self.engine.stop(5.0)
        await self.delivery.close()


async def live(story: list[Happens], key: bytes | None = b"7") -> tuple[WorldMeisa, int]:
    """Runs a story; returns what Meisa has, and how many events were unchanged. Without a key records are anywhere."""
    meisa = Outside()
    kafka = FakeSource()
    disks: list[dict[str, bytes]] = [{}, {}]
    log: list[list[Record]] = [[] for _ in NAMES]

    async def begin(machine: int) -> Life:
        await asyncio.sleep(1.0)  # what was under way has come
        return Life(meisa, log, kafka, disks[machine])

    life = await begin(0)
    unchanged, machine, down = 0, 0, 0
    before: dict[str, bytes] = {}
    for number, each in enumerate(story):
        await asyncio.sleep(each.gap)
        if each.type.isupper():
            if each.type == "STOP" and not life.process.killed:
                await life.stop()
            life.process.killed = True
            unchanged += life.meter.counts["finished", "unchanged"]
            life.meter.counts.clear()
            if each.type == "POWER":
                disks[machine].clear()
                disks[machine].update(before)
            machine, down = each.user, len(each.value)
            if not down:
                life = await begin(machine)
            continue
        if number % 2:
            before = dict(disks[machine])
        records = log[each.user]
        data = {"email": f"u{each.user}@example.com", "value": each.value}
        value = {"id": f"e{number}", "type": each.type, "time": VirtualClock.WALL_AT_START, "data": data}
        records.append(Record(TOPIC, each.user, len(records), 1_780_000_000_000, key, orjson.dumps(value)))
        if not life.process.killed:
            life.feed(records[-1:])
        elif down > 1:
            down -= 1
        else:
            life = await begin(machine)
    if life.process.killed:
        life = await begin(machine)
    await asyncio.sleep(60.0)
    assert not life.delivery.pending
    unchanged += life.meter.counts["finished", "unchanged"]
    await life.stop()
    return meisa, unchanged


def one_by_one(story: list[Happens]) -> list[dict[str, Any]]:
    """The contacts after one call for each event, and no faults."""
    expected: dict[str, dict[str, Any]] = {}
    for each in story:
        if each.type.isupper():
            continue
        contact = expected.setdefault(f"u{each.user}@example.com", {"first_name": "", "plan": None, "tags": set()})
        match each.type:
            case "plan":
                contact["plan"] = each.value
            case "mixed":
                contact["first_name"] = each.value
                contact["tags"].add(each.value)
            case "untagged":
                contact["tags"].discard(each.value)
            case "greeted":
                contact["first_name"] = each.value
    return [{"email": email, **contact, "tags": sorted(contact["tags"])} for email, contact in sorted(expected.items())]


def told(meisa: WorldMeisa) -> list[dict[str, Any]]:
    return [
        {
            "email": each["email"],
            "first_name": each["first_name"],
            "plan": each["custom_fields"].get("plan"),
            "tags": each["tags"],
        }
        for each in meisa.contacts()
    ]


PLAN = Happens("plan", 0, "a", 2.0)
A, B = Happens("plan", 0, "a"), Happens("plan", 0, "b")


@settings(deadline=None, max_examples=examples(150))
@given(STORIES, st.sampled_from([b"7", None]))
@example([PLAN, B, Happens("KILL", 0, "x", 0.055), A], b"7")
@example([PLAN, B, Happens("KILL", 0, "x", 0.09), A], b"7")
@example([PLAN, B._replace(gap=2.0), Happens("POWER", 0, "", 2.0), A], b"7")
def test_whatever_becomes_of_the_process_meisa_ends_as_if_each_event_had_been_sent(
    story: list[Happens], key: bytes | None
) -> None:
    meisa, _ = run(live(story, key))
    assert told(meisa) == one_by_one(story)


def test_what_was_learned_is_believed_by_the_next_process_with_the_same_store() -> None:
    """After a planned stop and after a crash; not on another machine, nor after somebody else was the owner, nor by the
    one after the next."""
    stop, kill = Happens("STOP", 0, "", 2.0), Happens("KILL", 0, "", 2.0)
    elsewhere = Happens("STOP", 1, "", 2.0)
    for story, unchanged in (
        ([PLAN, stop, PLAN], 1),
        ([PLAN, kill, PLAN], 1),
        ([PLAN, elsewhere, PLAN], 0),
        ([PLAN, elsewhere, PLAN, stop, PLAN], 0),
        ([PLAN, elsewhere, Happens("plan", 1), stop, PLAN], 0),
        ([PLAN, stop, stop, PLAN], 0),
        ([PLAN, stop, Happens("plan", 0, "b"), stop, PLAN], 0),
    ):
        assert run(live(story))[1] == unchanged, story


def test_where_records_are_anywhere_all_partitions_must_have_been_ours() -> None:
    """A partition without records too; one that somebody else had in between is enough."""
    other, stop = Happens("plan", 1), Happens("STOP", 0, "", 2.0)
    for story, unchanged in (
        ([PLAN, PLAN], 1),
        ([PLAN, other, stop, PLAN], 1),
        ([PLAN, stop, PLAN], 1),
        ([PLAN, other, Happens("STOP", 1, "", 2.0), other, stop, PLAN], 0),
    ):
        assert run(live(story, key=None))[1] == unchanged, story
