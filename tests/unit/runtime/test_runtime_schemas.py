"""A record waits for the schema that it was written with: in its place, alone, and for as long as that takes."""

import asyncio
from typing import Any

import pytest

from bridge.decode.avro import AvroDecoder, WireAvro
from bridge.errors import RegistryFailed, UnknownSchema
from bridge.model import LetterKind, Record, SchemaId
from bridge.runtime.schemas import AGAIN_SECONDS, FORGET_SECONDS, MISSING_SECONDS, REPLAY_SECONDS, Schemas
from tests.support.avro import avro, framed
from tests.support.engine import P0, P1, TOPIC, House
from tests.support.registries import FakeRegistry
from tests.support.virtual import run

EVENT = {
    "type": "record",
    "name": "Changed",
    "fields": [{"name": "email", "type": "string"}, {"name": "seq", "type": "long"}],
}
PATIENCE_SECONDS = sum(MISSING_SECONDS) + 0.1
"""After it a schema that does not exist is believed."""


def written(offset: int, id: SchemaId, email: str = "a@x", *, partition: int = 0, topic: str = TOPIC) -> Record:
    body = avro(EVENT, {"email": email, "seq": offset})
    return Record(topic, partition, offset, 1_780_000_000_000, None, framed(id, body))


class Place:
    """A house whose records are Avro, and the registry that it asks."""

    def __init__(self, **options: Any) -> None:
        self.registry = FakeRegistry()
        self.wire = WireAvro()
        self.schemas = Schemas({TOPIC: self.wire}, {TOPIC: self.registry})
        self.fetches: list[str] = []
        self.schemas.fetched = self.fetches.append
        self.house = House(decode=AvroDecoder(self.wire).decode, schemas=self.schemas, **options)
        self.source = self.house.source

    def known(self, *ids: SchemaId) -> None:
        for id in ids:
            self.registry.add(id, EVENT)

    def waiting(self) -> list[tuple[int, str]]:
        return [(each.count, each.detail) for each in self.house.engine.waiting() if each.reason == "schema"]


def test_an_unknown_schema_holds_its_partition_in_order_and_no_other() -> None:
    """One question; what stands behind the record goes on after it, and the other partition at once."""

    async def story() -> None:
        at = Place()
        at.known(1, 2)
        at.source.assign(P0, P1)
        at.source.feed([written(0, 1)])
        await asyncio.sleep(1)
        at.registry.delay_seconds = 10.0
        at.source.feed([written(1, 1), written(2, 2), written(3, 1), written(4, 2)])
        at.source.feed([written(offset, 1, "b@x", partition=1) for offset in range(3)])
        await asyncio.sleep(1)
        assert at.house.seqs("a@x") == [0, 1] and at.house.seqs("b@x") == [0, 1, 2]
        assert at.source.paused == {P0} and at.source.committed == {P0: 2, P1: 3}
        assert at.waiting() == [(1, f"schema 2 of {TOPIC}")]
        await asyncio.sleep(10)
        assert at.house.seqs("a@x") == [0, 1, 2, 3, 4]
        assert at.registry.asked == [1, 2] and at.fetches == ["fetched", "fetched"]
        assert not at.source.paused and at.source.committed[P0] == 5 and not at.waiting()
        assert not at.house.letters.letters

    run(story())


def test_a_registry_that_is_away_is_waited_for_and_nothing_is_given_up() -> None:
    """An hour without it: every record is delivered after it, in order, and meanwhile the status says why."""

    async def story() -> None:
        at = Place()
        at.known(1)
        at.registry.down = True
        at.source.assign(P0)
        at.source.feed([written(offset, 1) for offset in range(5)])
        await asyncio.sleep(3600)
        assert not at.house.meisa.calls and not at.house.letters.letters
        assert at.waiting() == [(1, f"schema 1 of {TOPIC}: the fake registry is down")]
        assert 3600 / AGAIN_SECONDS[-1] - 5 < len(at.registry.asked) < 3600 / AGAIN_SECONDS[-1] + 10
        at.registry.down = False
        await asyncio.sleep(AGAIN_SECONDS[-1] + 5)
        assert at.house.seqs() == [0, 1, 2, 3, 4] and at.source.committed == {P0: 5}

    run(story())


def test_a_schema_that_does_not_exist_ends_in_dead_letters_after_a_few_questions() -> None:
    """A follower may lag, so it is asked again; then its records are told, and all others go on."""

    async def story() -> None:
        at = Place()
        at.known(1)
        at.source.assign(P0)
        at.source.feed([written(0, 1), written(1, 9), written(2, 1), written(3, 9)])
        await asyncio.sleep(PATIENCE_SECONDS + 1)
        assert at.house.seqs() == [0, 2]
        assert [letter.record.offset for letter in at.house.letters.letters] == [1, 3]
        letter = at.house.letters.letters[0]
        assert (letter.kind, letter.message) == (LetterKind.DECODE, "the fake registry knows no schema 9")
        assert at.registry.asked.count(9) == len(MISSING_SECONDS) + 1
        assert at.source.committed == {P0: 4}
        at.source.feed([written(4, 9)])
        await asyncio.sleep(1)
        assert len(at.house.letters.letters) == 3, "for a while the answer stands"
        await asyncio.sleep(FORGET_SECONDS)
        at.known(9)
        at.source.feed([written(5, 9)])
        await asyncio.sleep(1)
        assert at.house.seqs() == [0, 2, 5], "then it is asked for anew"

    run(story())


def test_a_schema_that_comes_late_is_still_in_time() -> None:
    """Between two questions it was registered, or a follower caught up."""

    async def story() -> None:
        at = Place()
        at.known(1)
        at.registry.trouble = [UnknownSchema("no"), RegistryFailed("away"), UnknownSchema("no"), None]
        at.source.assign(P0)
        at.source.feed([written(0, 1)])
        await asyncio.sleep(5)
        assert at.house.seqs() == [0] and not at.house.letters.letters

    run(story())


@pytest.mark.parametrize(
    ("kind", "schema", "says"),
    [
        ("PROTOBUF", "syntax", "of kind PROTOBUF"),
        ("A\r\nB" * 90, "syntax", r"of kind 'A\r\nB"),
        ("AVRO", {"type": "array", "items": "null"}, "take no bytes"),
        ("AVRO", {"type": "what"}, "not an Avro schema"),
    ],
)
def test_a_schema_that_cannot_be_used_is_the_records_fault(kind: str, schema: Any, says: str) -> None:
    async def story() -> None:
        at = Place()
        at.known(2)
        at.registry.add(1, schema, kind=kind)
        at.source.assign(P0)
        at.source.feed([written(0, 1), written(1, 2)])
        await asyncio.sleep(1)
        (letter,) = at.house.letters.letters
        assert says in letter.message and at.house.seqs() == [1]
        assert at.source.committed == {P0: 2}

    run(story())


def test_a_partition_that_goes_meanwhile_belongs_to_its_next_owner() -> None:
    """Revoked or lost while it waits: nothing of it is delivered here, and the question ends; assigned again, once."""

    async def story(lost: bool) -> None:
        at = Place()
        at.registry.down = True
        at.source.assign(P0)
        at.source.feed([written(0, 1), written(1, 1)])
        await asyncio.sleep(1)
        if lost:
            at.source.lose(P0)
        else:
            await at.source.revoke(P0)
        await asyncio.sleep(60)
        asked = len(at.registry.asked)
        assert not at.waiting()
        at.registry.down = False
        at.known(1)
        await asyncio.sleep(60)
        assert not at.house.meisa.calls and len(at.registry.asked) == asked
        at.source.assign(P0)
        at.source.feed([written(0, 1), written(1, 1)])
        await asyncio.sleep(1)
        assert at.house.seqs() == [0, 1] and at.source.committed == {P0: 2}

    run(story(lost=False))
    run(story(lost=True))


def test_a_schema_that_comes_after_a_reassignment_serves_the_new_owner() -> None:
    """The question goes on over the change of hands: the old records are forgotten, the new ones are let in."""

    async def story() -> None:
        at = Place()
        at.known(1)
        at.registry.delay_seconds = 5.0
        at.source.assign(P0)
        at.source.feed([written(0, 1)])
        await asyncio.sleep(1)
        await at.source.revoke(P0)
        at.source.assign(P0)
        at.source.feed([written(0, 1), written(1, 1)])
        await asyncio.sleep(10)
        assert at.house.seqs() == [0, 1] and at.registry.asked == [1] and not at.source.paused

    run(story())


def test_no_older_state_leaves_while_the_rest_of_the_log_waits_for_a_schema() -> None:
    """After a crash upserts wait until all that was taken in before is read again (22); a schema may be in the way."""

    async def story() -> None:
        at = Place()
        at.known(1, 2)
        at.house.meisa.latency = 3600
        at.source.assign(P0)
        at.source.feed([written(0, 1, "b@x"), written(1, 1), written(2, 2)])
        await asyncio.sleep(30)
        again = Place()
        again.known(1, 2)
        again.registry.trouble = [None]
        again.source.committed, again.source.metadata = dict(at.source.committed), dict(at.source.metadata)
        assert again.source.metadata, "the first owner told how far intake had come"
        again.source.assign(P0)
        again.source.feed([written(0, 1, "b@x")])
        await asyncio.sleep(0.1)
        again.registry.down = True
        again.source.feed([written(1, 1), written(2, 2)])
        await asyncio.sleep(600)
        assert not again.house.meisa.calls, "what was read may be older than what was sent"
        assert "recovery" in [each.reason for each in again.house.engine.waiting()]
        again.registry.down = False
        await asyncio.sleep(60)
        assert sorted(again.house.seqs()) == [0, 1, 2]

    run(story())


def test_nothing_is_asked_for_what_must_wait_anyhow() -> None:
    """A full window comes first: its schema is asked for once there is room."""

    async def story() -> None:
        at = Place(window_max=2)
        at.known(1, 2)
        at.house.meisa.latency = 5.0
        at.source.assign(P0)
        at.source.feed([written(0, 1)])
        await asyncio.sleep(1)
        at.source.feed([written(1, 1, "b@x"), written(2, 2), written(3, 2)])
        await asyncio.sleep(1)
        assert at.registry.asked == [1]
        await asyncio.sleep(60)
        assert at.registry.asked == [1, 2] and at.source.committed == {P0: 4}

    run(story())


def test_a_stop_ends_the_questions() -> None:
    """Within its budget, and what waited comes again to the next owner."""

    async def story() -> None:
        at = Place()
        at.registry.down = True
        at.source.assign(P0)
        at.source.feed([written(0, 1)])
        await asyncio.sleep(1)
        await at.house.engine.stop(5.0)
        asked = len(at.registry.asked)
        await asyncio.sleep(300)
        assert len(at.registry.asked) == asked and at.source.committed.get(P0, 0) == 0
        with pytest.raises(RegistryFailed):
            await at.schemas.ready(written(0, 1))

    run(story())


def test_a_record_decoded_without_its_schema_is_a_bug_and_no_dead_letter() -> None:
    """Its offset stays open, so that it comes again after a restart."""

    async def story() -> None:
        wire = WireAvro()
        house = House(decode=AvroDecoder(wire).decode)
        house.source.assign(P0)
        house.source.feed([written(0, 1)])
        await asyncio.sleep(1)
        assert not house.letters.letters and house.source.committed.get(P0, 0) == 0
        assert "broken" in [each.reason for each in house.engine.waiting()]

    run(story())


def test_a_replay_asks_anew_for_a_schema_that_did_not_exist() -> None:
    """Somebody has registered it, and wants the dead letters delivered; many letters do not ask each."""

    async def story() -> None:
        registry, wire = FakeRegistry(), WireAvro()
        schemas = Schemas({TOPIC: wire}, {TOPIC: registry})
        await schemas.ready(written(0, 1))
        asked = len(registry.asked)
        registry.add(1, EVENT)
        await schemas.ready(written(0, 1), anew=True)
        assert len(registry.asked) == asked, "it was asked a moment ago"
        await asyncio.sleep(REPLAY_SECONDS)
        await schemas.ready(written(0, 1))
        assert len(registry.asked) == asked, "live records believe what was answered"
        await schemas.ready(written(0, 1), anew=True)
        assert wire.read(written(0, 1)) is not None
        await schemas.ready(written(0, 1, topic="json"), anew=True)
        await asyncio.sleep(FORGET_SECONDS)
        assert wire.read(written(0, 1)) is not None, "what was learnt since is not forgotten"

    run(story())


def test_replays_and_commands_have_a_records_schema_fetched_too() -> None:
    """A replay waits like intake; a command asks once and tells its user."""

    async def story() -> None:
        registry, wire = FakeRegistry(), WireAvro()
        registry.add(1, EVENT)
        schemas = Schemas({TOPIC: wire}, {TOPIC: registry})
        registry.down = True
        both = [asyncio.create_task(schemas.ready(written(0, 1))) for _ in range(2)]
        with pytest.raises(RegistryFailed):
            await schemas.ready_now(written(0, 1))
        await asyncio.sleep(100)
        assert not any(task.done() for task in both)
        registry.down = False
        await asyncio.gather(*both)
        assert wire.lacks(written(0, 1)) is None
        await schemas.ready(written(0, 1, topic="json"))
        await schemas.ready_now(written(0, 9))
        assert wire.lacks(written(0, 9)) is None, "it has its answer"
        registry.add(2, EVENT)
        await schemas.ready_now(written(0, 2))
        await schemas.ready_now(written(0, 2))
        assert registry.asked.count(2) == 1
        alone = asyncio.create_task(schemas.ready(written(0, 3)))
        await asyncio.sleep(0)
        alone.cancel()
        await asyncio.sleep(60)
        assert registry.asked.count(3) == 1, "nobody waits for it any more"
        await schemas.close()

    run(story())


def test_a_registrys_answer_that_breaks_its_client_is_an_outage() -> None:
    """Were the question lost with the exception, the partition would wait for ever, for no reason that anybody sees."""

    async def story() -> None:
        at = Place()
        at.known(2)
        at.registry.trouble = [TypeError("'float' object is not iterable"), UnicodeError(), None]
        at.source.assign(P0)
        at.source.feed([written(0, 2)])
        await asyncio.sleep(0.1)
        assert at.waiting() == [(1, f"schema 2 of {TOPIC}: the fake registry cannot be asked (TypeError)")]
        await asyncio.sleep(5)
        assert at.source.committed == {P0: 1} and len(at.registry.asked) == 3

    run(story())
