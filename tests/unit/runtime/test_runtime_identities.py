"""Hard case 25 through the whole engine, against the sandbox's own world: a re-keyed contact stays one contact."""

import asyncio
import json
import random
from collections.abc import Callable, Mapping
from typing import Any

from bridge.core.identity import Identities
from bridge.model import Action, Call, Contact, Event, Kind, LetterKind, Outcome, Plan, Record, Verdict
from bridge.sandbox.fields import Refused
from bridge.sandbox.world import Answer, World, WorldOptions
from tests.support.engine import P0, TOPIC, House
from tests.support.fakes import FakeMeisa
from tests.support.virtual import run

VERDICTS = {404: Verdict.NEEDS_CONTACT}
FIELDS = {
    Kind.UPSERT: ("email", "external_id", "custom_fields", "tag_names"),
    Kind.TRACK: ("email", "external_id", "event_name"),
    Kind.TRIGGER: ("to_email", "trigger_key"),
    Kind.ENROLL: ("email", "sequence_slug"),
    Kind.ADD_TAG: ("tag_name",),
    Kind.REMOVE_TAG: ("tag_name",),
}


class WorldMeisa(FakeMeisa):
    """Answers as the sandbox does; the world behind can be looked at."""

    def __init__(self) -> None:
        super().__init__(self._answer)
        self.world = World(WorldOptions(), random.Random(1))

    def _answer(self, call: Call) -> Outcome:
        contacts, body, now = self.world.contacts, call.body or {}, 0.0
        doors: dict[str, Callable[[Mapping[str, Any], float], Answer]] = {
            "upsert": contacts.upsert,
            "track": contacts.track,
            "enroll": self.world.enroll,
            "trigger": self.world.trigger,
            "add_tag": lambda body, now: contacts.add_tag(call.contact_id or "", body, now),
            "remove_tag": lambda body, now: contacts.remove_tag(call.contact_id or "", body, now),
        }
        try:
            answer = doors[call.endpoint](body, now)
        except Refused as refused:
            return Outcome(VERDICTS.get(refused.status, Verdict.REFUSED), refused.status, refused.message)
        return Outcome(
            Verdict.DELIVERED, answer.status, contact_id=answer.contact.id if answer.contact is not None else None
        )

    def contact(self, email: str) -> Any:
        return self.world.contacts.find(email)

    def emails(self) -> list[str]:
        """Of all contacts."""
        return sorted(contact.email for contact in self.world.contacts.by_id.values())


def record(offset: int, *actions: dict[str, Any]) -> Record:
    return Record(TOPIC, 0, offset, 1_780_000_000_000, None, json.dumps({"actions": actions}).encode())


def plan(event: Event) -> Plan:
    """One action for each of the event's, whose `do` names the kind."""
    planned = []
    for position, named in enumerate(event.data["actions"]):
        kind = Kind(named["do"])
        body = {name: named[name] for name in FIELDS[kind] if name in named}
        email = named.get("to_email") if kind is Kind.TRIGGER else named.get("email")
        aliases = tuple(sorted(named.get("aliases", {}).items()))
        planned.append(Action(kind, "rule", position, body, Contact(email, named.get("external_id"), aliases)))
    return Plan(tuple(planned))


def house(identities: Identities | None) -> tuple[House, WorldMeisa]:
    meisa = WorldMeisa()
    made = House(meisa=meisa, plan=plan, identities=identities)
    made.source.assign(P0)
    return made, meisa


def upsert(email: str | None = None, external_id: str | None = None, **more: Any) -> dict[str, Any]:
    named = {"do": "upsert", "email": email, "external_id": external_id, **more}
    return {name: value for name, value in named.items() if value is not None}


async def live_through(identities: Identities | None) -> WorldMeisa:
    """Contact 7 changes its email; then other systems, which know the former one only, go on speaking of it."""
    bridge, meisa = house(identities)
    bridge.source.feed(
        [
            record(0, upsert("old@x.io", "7", custom_fields={"plan": "free"})),
            record(1, upsert("new@x.io", "7")),
            record(2, {"do": "track", "email": "Old@x.io ", "event_name": "paid"}),
            record(3, upsert("old@x.io", custom_fields={"plan": "pro"})),
            record(4, {"do": "enroll", "email": "old@x.io", "sequence_slug": "welcome"}),
            record(5, {"do": "add_tag", "email": "old@x.io", "tag_name": "vip"}),
            record(6, {"do": "trigger", "to_email": "old@x.io", "trigger_key": "receipt"}),
        ]
    )
    await asyncio.sleep(120)
    assert bridge.source.committed[P0] == 7 and not bridge.letters.letters
    return meisa


def test_a_former_email_leads_to_the_present_contact() -> None:
    """Track, upsert, enroll and tag meet contact 7; the mail alone goes to the address that its event named."""
    meisa = run(live_through(Identities()))
    contact = meisa.contact("new@x.io")
    assert contact.external_id == "7"
    assert contact.custom_fields == {"plan": "pro"} and list(contact.tags) == ["vip"]
    assert [each["event_name"] for each in contact.events] == ["paid"]
    assert [each.contact.email for each in meisa.world._enrollments.values()] == ["new@x.io"]
    assert [email.to_email for email in meisa.world.emails] == ["old@x.io"]
    # The trigger's own recipient is a contact of Meisa's making: to_email is never resolved.
    assert meisa.emails() == ["new@x.io", "old@x.io"]
    upserts = [call.body["email"] for call in meisa.calls if call.endpoint in ("upsert", "enroll") and call.body]
    assert "old@x.io" not in upserts[upserts.index("new@x.io") :]


def test_without_the_table_the_same_events_make_a_second_contact() -> None:
    """What the case is about: the test above fails without the code for it."""
    meisa = run(live_through(None))
    assert meisa.contact("old@x.io").custom_fields == {"plan": "pro"}
    assert meisa.contact("new@x.io").custom_fields == {"plan": "free"}


def test_another_id_that_claims_the_former_email_is_itself() -> None:
    async def main() -> None:
        bridge, meisa = house(Identities())
        bridge.source.feed(
            [
                record(0, upsert("old@x.io", "7")),
                record(1, upsert("new@x.io", "7")),
                record(2, upsert("old@x.io", "8")),
                record(3, upsert("old@x.io", custom_fields={"who": "8"})),
                record(4, {"do": "track", "email": "new@x.io", "event_name": "7s"}),
            ]
        )
        await asyncio.sleep(60)
        assert bridge.source.committed[P0] == 5 and not bridge.letters.letters
        assert meisa.contact("old@x.io").external_id == "8"
        assert meisa.contact("old@x.io").custom_fields == {"who": "8"}
        assert [each["event_name"] for each in meisa.contact("new@x.io").events] == ["7s"]

    run(main())


def test_what_was_admitted_before_the_rekey_goes_before_it() -> None:
    """The bridge started anew and its ordering knows no links; the table does (a store kept it): order holds."""

    async def main() -> None:
        table = Identities()
        table.learn(Contact("old@x.io", "7"), P0, 0)
        bridge, meisa = house(table)
        bridge.source.feed(
            [
                record(1, upsert("old@x.io", custom_fields={"seq": 1})),
                record(2, upsert("new@x.io", "7", custom_fields={"seq": 2})),
                record(3, upsert("old@x.io", custom_fields={"seq": 3})),
            ]
        )
        await asyncio.sleep(60)
        assert meisa.active_max == 1
        sent = [(call.body["email"], call.body["custom_fields"]["seq"]) for call in meisa.calls if call.body]
        assert sent == [("old@x.io", 1), ("new@x.io", 3)]

    run(main())


def test_a_refused_rekey_leads_nobody_astray() -> None:
    """8 has the email that 7 asks for: Meisa refuses, and events of 7's old email still meet 7, never 8."""

    async def main() -> None:
        bridge, meisa = house(Identities())
        bridge.source.feed([record(0, upsert("old@x.io", "7")), record(1, upsert("new@x.io"))])
        await asyncio.sleep(10)
        bridge.source.feed([record(2, upsert("new@x.io", "7"))])
        await asyncio.sleep(10)
        bridge.source.feed(
            [
                record(3, upsert("old@x.io", custom_fields={"plan": "pro"})),
                record(4, {"do": "enroll", "email": "old@x.io", "sequence_slug": "welcome"}),
            ]
        )
        await asyncio.sleep(60)
        assert [letter.kind for letter in bridge.letters.letters] == [LetterKind.REJECTED]
        assert bridge.letters.letters[0].undelivered == (0,) and bridge.letters.letters[0].record.offset == 2
        assert meisa.emails() == ["new@x.io", "old@x.io"]
        assert meisa.contact("old@x.io").custom_fields == {"plan": "pro"}
        assert [each.contact.email for each in meisa.world._enrollments.values()] == ["old@x.io"]

    run(main())


def test_a_letter_of_a_resolved_action_names_what_its_event_planned() -> None:
    """Position and action id are those of the action as the rules made it; the request shows what was sent."""

    async def main() -> None:
        bridge, meisa = house(Identities())
        meisa.world.set_sequence("closed", status="inactive")
        rekeyed = record(
            2,
            {"do": "track", "email": "old@x.io", "event_name": "seen"},
            {"do": "enroll", "email": "old@x.io", "sequence_slug": "closed"},
        )
        bridge.source.feed([record(0, upsert("old@x.io", "7")), record(1, upsert("new@x.io", "7")), rekeyed])
        await asyncio.sleep(60)
        (letter,) = bridge.letters.letters
        event = bridge.engine.decode(rekeyed)
        assert event is not None
        assert letter.undelivered == (1,)
        assert letter.undelivered_ids == (bridge.engine.identify(rekeyed, plan(event).actions[1]),)
        assert letter.request is not None and letter.request["email"] == "new@x.io"

    run(main())


def test_an_id_finds_the_email_that_it_was_last_given() -> None:
    """An enrollment by external_id, and one by alias, go to the present email."""

    async def main() -> None:
        bridge, meisa = house(Identities())
        bridge.source.feed(
            [
                record(0, upsert("old@x.io", "7", aliases={"stripe": "cus_1"})),
                record(1, upsert("new@x.io", "7")),
                record(2, {"do": "enroll", "external_id": "7", "sequence_slug": "by-id"}),
                record(3, {"do": "enroll", "aliases": {"stripe": "cus_1"}, "sequence_slug": "by-alias"}),
            ]
        )
        await asyncio.sleep(60)
        assert not bridge.letters.letters
        found = {(each.slug, each.contact.email) for each in meisa.world._enrollments.values()}
        assert found == {("by-id", "new@x.io"), ("by-alias", "new@x.io")}

    run(main())


def test_a_topic_that_was_created_anew_teaches_from_its_first_offset() -> None:
    """Its offsets begin at zero again: what the former topic's higher ones taught must not outweigh them."""

    async def story() -> None:
        bridge, meisa = house(Identities())
        bridge.source.feed([record(100, upsert("old@x.io", "7"))])
        await asyncio.sleep(5)
        bridge.source.lose(P0)
        bridge.source.committed.clear()
        bridge.source.metadata.clear()
        bridge.source.fresh = True
        bridge.source.assign(P0)
        bridge.source.feed(
            [
                record(0, upsert("new@x.io", "7")),
                record(1, {"do": "track", "email": "old@x.io", "event_name": "paid"}),
            ]
        )
        await asyncio.sleep(5)
        assert meisa.emails() == ["new@x.io"]
        assert [each["event_name"] for each in meisa.contact("new@x.io").events] == ["paid"]

    run(story())
