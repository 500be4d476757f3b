"""Tags that ride on upserts, through the whole engine and against the sandbox's own world."""

import asyncio
import json
import random
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any

import pytest

from bridge.model import Action, Call, Contact, Event, Handling, Kind, LetterKind, Outcome, Plan, Record, Verdict
from bridge.sandbox.contacts import Answer
from bridge.sandbox.fields import Refused
from bridge.sandbox.world import World, WorldOptions
from tests.support.engine import P0, TOPIC, House
from tests.support.fakes import FakeMeisa
from tests.support.virtual import run


class WorldMeisa(FakeMeisa):
    """Answers as the sandbox does; refuses tags named in `bad`."""

    def __init__(self, *bad: str) -> None:
        super().__init__(self._answer)
        self.world = World(WorldOptions(), random.Random(1))
        self.bad = set(bad)

    def _answer(self, call: Call) -> Outcome:
        contacts, body = self.world.contacts, dict(call.body or {})
        doors: dict[str, Callable[[Mapping[str, Any], float], Answer]] = {
            "upsert": contacts.upsert,
            "track": contacts.track,
            "add_tag": lambda body, now: contacts.add_tag(call.contact_id or "", body, now),
            "remove_tag": lambda body, now: contacts.remove_tag(call.contact_id or "", body, now),
        }
        if self.bad & {*body.get("tag_names", ()), body.get("tag_name")}:
            return Outcome(Verdict.REFUSED, 400, "no such tag")
        try:
            answer = doors[call.endpoint](body, 0.0)
        except Refused as refused:
            return Outcome(Verdict.REFUSED, refused.status, refused.message)
        assert answer.contact is not None
        return Outcome(Verdict.DELIVERED, answer.status, contact_id=answer.contact.id)

    def tags(self, email: str = "a@x.io") -> list[str]:
        contact = self.world.contacts.find(email)
        assert contact is not None
        return sorted(contact.tags)

    def endpoints(self) -> list[str]:
        return [call.endpoint for call in self.calls]


def record(offset: int, *actions: dict[str, Any], email: str = "a@x.io") -> Record:
    value = json.dumps({"email": email, "actions": actions}).encode()
    return Record(TOPIC, 0, offset, 1_780_000_000_000, None, value)


def tag(name: str, **more: Any) -> dict[str, Any]:
    return {"do": "add_tag", "tag_name": name, **more}


def untag(name: str) -> dict[str, Any]:
    return {"do": "remove_tag", "tag_name": name}


def upsert(**more: Any) -> dict[str, Any]:
    return {"do": "upsert", **more}


def plan(event: Event) -> Plan:
    """One action for each of the event's; a tag needs the upsert before it."""
    planned: list[Action] = []
    needs = None
    for position, named in enumerate(event.data["actions"]):
        kind = Kind(named.pop("do"))
        email = event.data["email"]
        handling = Handling(coalesce=named.pop("coalesce", True))
        needed = named.pop("needs", needs)
        body = {**named, "email": email} if kind in (Kind.UPSERT, Kind.TRACK) else named
        action = Action(kind, "rule", position, body, Contact(email), handling, needs=needed)
        if kind is Kind.UPSERT:
            action = replace(action, needs=None)
            needs = position
        planned.append(action)
    return Plan(tuple(planned))


def told(story: Callable[[House, WorldMeisa], Coroutine[Any, Any, None]], *bad: str, **options: Any) -> None:
    async def main() -> None:
        meisa = WorldMeisa(*bad)
        house = House(meisa=meisa, plan=plan, **options)
        house.source.assign(P0)
        await story(house, meisa)
        assert house.delivery.pending == 0

    run(main())


def test_tags_and_upserts_that_wait_together_are_one_call() -> None:
    """Whatever comes first; each event ends, and the contact has every tag."""

    async def story(house: House, meisa: WorldMeisa) -> None:
        house.source.feed([record(0, tag("first")), record(1, upsert(custom_fields={"n": 1}), tag("second"))])
        house.source.feed([record(2, tag("third")), record(3, upsert(custom_fields={"n": 2}, tag_names=["fourth"]))])
        await asyncio.sleep(5)
        assert meisa.endpoints() == ["upsert"]
        assert meisa.tags() == ["first", "fourth", "second", "third"]
        contact = meisa.world.contacts.find("a@x.io")
        assert contact is not None and contact.custom_fields == {"n": 2}
        assert house.source.committed[P0] == 4

    told(story)


def test_a_removed_tag_stays_where_it_was_in_the_story() -> None:
    """Added, removed, added: three calls, and the contact has it; added and removed: it has not."""

    async def story(house: House, meisa: WorldMeisa) -> None:
        house.source.feed([record(0, tag("t")), record(1, untag("t")), record(2, tag("t"))])
        house.source.feed([record(3, tag("u")), record(4, untag("u")), record(5, upsert(first_name="A"))])
        await asyncio.sleep(5)
        assert meisa.endpoints() == ["upsert", "remove_tag", "upsert", "remove_tag", "upsert"]
        assert meisa.tags() == ["t"]

    told(story)


def test_a_tag_is_removed_without_a_further_upsert_where_one_was_answered() -> None:
    """The answer told Meisa's id of the contact."""

    async def story(house: House, meisa: WorldMeisa) -> None:
        house.source.feed([record(0, upsert(tag_names=["t", "u"]))])
        await asyncio.sleep(1)
        house.source.feed([record(1, untag("t"))])
        await asyncio.sleep(1)
        house.source.feed([record(2, tag("w"))])
        await asyncio.sleep(1)
        house.source.feed([record(3, untag("w"))])
        await asyncio.sleep(1)
        assert meisa.endpoints() == ["upsert", "remove_tag", "upsert", "remove_tag"]
        assert meisa.tags() == ["u"]

    told(story)


def test_a_tag_by_its_id_has_a_call_of_its_own() -> None:
    """An upsert knows tags by name only."""

    async def story(house: House, meisa: WorldMeisa) -> None:
        house.source.feed([record(0, upsert(tag_names=["t"])), record(1, {"do": "add_tag", "tag_id": "?"})])
        await asyncio.sleep(5)
        assert meisa.endpoints() == ["upsert", "add_tag"]
        assert [letter.record.offset for letter in house.letters.letters] == [1], "nobody has such a tag"

    told(story)


def test_coalesce_false_keeps_a_tag_apart() -> None:
    """The rule says so."""

    async def story(house: House, meisa: WorldMeisa) -> None:
        house.source.feed([record(0, upsert(first_name="A")), record(1, tag("t", coalesce=False)), record(2, tag("u"))])
        await asyncio.sleep(5)
        assert meisa.endpoints() == ["upsert", "add_tag", "upsert"]
        assert meisa.tags() == ["t", "u"]

    told(story)


def test_only_the_refused_tag_of_a_merged_call_is_dead_lettered() -> None:
    """The call comes apart, and the other seven contributions arrive."""

    async def story(house: House, meisa: WorldMeisa) -> None:
        house.source.feed([record(0, upsert(first_name="A"), tag("good")), record(1, tag("bad"))])
        house.source.feed([record(offset, tag(f"t{offset}")) for offset in range(2, 7)])
        await asyncio.sleep(30)
        assert [(letter.record.offset, letter.kind) for letter in house.letters.letters] == [(1, LetterKind.REJECTED)]
        assert house.letters.letters[0].request == {"email": "a@x.io", "tag_names": ["bad"]}
        assert meisa.tags() == ["good", "t2", "t3", "t4", "t5", "t6"]
        assert house.source.committed[P0] == 7

    told(story, "bad")


@pytest.mark.parametrize("before", [0, 1, 2, 3])
def test_a_tag_does_not_go_without_the_upsert_that_its_event_needs(before: int) -> None:
    """The upsert is refused: the tag is in its letter, wherever both stood in the merged call; others' tags arrive."""

    async def story(house: House, meisa: WorldMeisa) -> None:
        for offset in range(before):
            house.source.feed([record(offset, tag(f"t{offset}"))])
        house.source.feed([record(before, upsert(tag_names=["bad"]), tag("lost")), record(before + 1, tag("last"))])
        await asyncio.sleep(30)
        (letter,) = house.letters.letters
        assert (letter.record.offset, letter.undelivered) == (before, (0, 1))
        assert meisa.tags() == ["last", *(f"t{offset}" for offset in range(before))]

    told(story, "bad")


def test_what_is_blocked_in_the_middle_of_a_call_is_taken_out_of_it() -> None:
    """[bad, A, B, lost] comes apart into [bad, A] and [B, lost]: B arrives without the tag that needed the first."""

    async def story(house: House, meisa: WorldMeisa) -> None:
        upserts = [upsert(tag_names=["bad"]), upsert(first_name="A"), upsert(last_name="B")]
        house.source.feed([record(0, *upserts, tag("lost", needs=0))])
        await asyncio.sleep(30)
        (letter,) = house.letters.letters
        assert letter.undelivered == (0, 3)
        contact = meisa.world.contacts.find("a@x.io")
        assert contact is not None
        assert (contact.names, meisa.tags()) == ({"first_name": "A", "last_name": "B"}, [])

    told(story, "bad")
