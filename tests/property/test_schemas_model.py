"""Schemas that come late, never, or after an outage, while partitions change hands: nothing lost, order kept."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.decode.avro import AvroDecoder, WireAvro
from bridge.model import Record, TopicPartition
from bridge.runtime.schemas import Schemas
from tests.support.amount import examples
from tests.support.avro import avro, framed
from tests.support.engine import P0, P1, TOPIC, House
from tests.support.registries import FakeRegistry
from tests.support.virtual import VirtualLoop, run

EVENT = {
    "type": "record",
    "name": "Changed",
    "fields": [{"name": "email", "type": "string"}, {"name": "seq", "type": "long"}],
}
KNOWN, UNKNOWN, PROTOBUF = (1, 2, 3), 8, 9
COUNT = 12


def log(dice: random.Random, name: TopicPartition) -> list[Record]:
    """A partition's records; most were written with schemas that exist."""
    records = []
    for offset in range(COUNT):
        id = dice.choice([*KNOWN, *KNOWN, UNKNOWN, PROTOBUF])
        body = avro(EVENT, {"email": f"{name.partition}@x", "seq": offset})
        records.append(Record(TOPIC, name.partition, offset, 1_780_000_000_000, None, framed(id, body)))
    return records


def goes_bad(record: Record) -> bool:
    return (record.value or b"")[4] in (UNKNOWN, PROTOBUF)


async def story(seed: int) -> None:
    dice = random.Random(seed)
    registry, wire = FakeRegistry(), WireAvro()
    for id in KNOWN:
        registry.add(id, EVENT)
    registry.add(PROTOBUF, "syntax", kind="PROTOBUF")
    house = House(decode=AvroDecoder(wire).decode, schemas=Schemas({TOPIC: wire}, {TOPIC: registry}), window_max=6)
    source = house.source
    logs = {name: log(dice, name) for name in (P0, P1)}
    at: dict[TopicPartition, int] = {}
    """Where the consumer goes on reading what is assigned."""

    def assign() -> None:
        """Both at once, since the fake has one epoch; what is assigned is read from what was committed."""
        source.assign(P0, P1)
        for name in (P0, P1):
            at[name] = source.committed.get(name, 0)

    def fetch() -> None:
        """A few records of each partition that is not paused, as polls bring them."""
        for name, position in list(at.items()):
            if name not in source.paused and position < COUNT:
                batch = logs[name][position : position + dice.randint(1, 4)]
                at[name] = position + len(batch)
                source.feed(batch)

    assign()
    for _ in range(60):
        registry.down = dice.random() < 0.3
        registry.delay_seconds = dice.choice([0.0, 0.01, 2.0])
        fetch()
        await asyncio.sleep(dice.choice([0.0, 0.05, 1.0, 7.0]))
        if dice.random() < 0.15:
            source.paused.clear()
            at.clear()
            if dice.random() < 0.5:
                await source.revoke(P0, P1)
            else:
                source.lose(P0, P1)
            assign()
    registry.down, registry.delay_seconds = False, 0.0
    for _ in range(200):
        fetch()
        await asyncio.sleep(1.0)

    assert source.committed == {P0: COUNT, P1: COUNT}, "nothing waits for ever"
    assert not source.paused and not house.engine.waiting()
    letters = {(letter.record.partition, letter.record.offset) for letter in house.letters.letters}
    assert letters == {(each.partition, each.offset) for records in logs.values() for each in records if goes_bad(each)}
    first: dict[str, list[int]] = defaultdict(list)
    for call in house.meisa.calls:
        if call.body and "seq" in call.body and call.body["seq"] not in first[call.body["email"]]:
            first[call.body["email"]].append(call.body["seq"])
    for name, records in logs.items():
        assert first[f"{name.partition}@x"] == [each.offset for each in records if not goes_bad(each)], "in log order"
    await house.engine.stop(5.0)


@given(st.integers(0, 2**32))
@settings(max_examples=examples(120), deadline=None)
def test_every_record_has_its_end_in_order_whatever_the_registry_does(seed: int) -> None:
    """Delivered where its schema exists, dead-lettered where it does not; first effects of a contact in log order."""
    run(story(seed), VirtualLoop(seed))
