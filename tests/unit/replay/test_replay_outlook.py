"""What a replay would send is told without sending, and is what the replay then does."""

from __future__ import annotations

from typing import Any

from bridge.model import LetterKind, Record
from bridge.replay.ledger import Mark, Request, write
from bridge.replay.outlook import Outlook, names, outlook
from bridge.replay.preparing import Preparing
from bridge.replay.telling import outlook_lines
from tests.support.engine import P0, TOPIC, decode, plan
from tests.support.engine import record as record_
from tests.support.fakes import FakeMeisa
from tests.support.replays import REPLAYS, Instance, MemoryLogs, identify, place_of, refused, settled
from tests.support.virtual import VirtualClock, run


class Room:
    def __init__(self) -> None:
        self.logs = MemoryLogs(latency=0.0)

    def record(self, **data: Any) -> Record:
        made = record_(len(self.logs.topics.get(P0, ())), "anna@x.org", **data)
        return self.logs.append(TOPIC, 0, made.key, made.value)

    def asked(self, record: Record, *positions: int, **options: bool) -> Request:
        return self.logs.ask(self.logs.bury(refused(record, *positions)), **options)

    async def look(self, *requests: Request, behind_max: int = 100) -> list[Outlook]:
        preparing = Preparing(
            self.logs,
            REPLAYS,
            decoders={TOPIC: decode},
            plan=plan,
            knows_rule=lambda name: True,
            identify=identify,
            clock=VirtualClock(),
        )
        found = await outlook(preparing, self.logs, requests, behind_max)
        return [found[request.key] for request in requests]


def test_fields_that_later_events_wrote_are_named_and_the_replay_leaves_just_these_out() -> None:
    """And with `overwrite` none."""

    async def story() -> None:
        room = Room()
        record = room.record(fields={"plan": "free", "country": "de"})
        room.record(fields={"plan": "pro"})
        request = room.asked(record, 0)
        overwriting = request._replace(overwrite=True)
        (look,) = await room.look(request)
        assert look.sends[0].left_out == ("custom_fields.plan",)
        assert look.sends[0].fields == ("email", "seq", "custom_fields.country")
        ((sends,),) = [each.sends for each in await room.look(overwriting)]
        assert sends.left_out == () and "custom_fields.plan" in sends.fields
        meisa = FakeMeisa()
        instance = Instance(room.logs, meisa)
        instance.start(P0)
        await settled(room.logs, request)
        await instance.stop()
        assert tuple(names(meisa.calls[0].body or {})) == look.sends[0].fields

    run(story())


def test_nothing_is_sent_and_nothing_written() -> None:
    async def story() -> None:
        room = Room()
        request = room.asked(room.record(do=["upsert", "trigger"]), 0, 1)
        before = {place: len(log) for place, log in room.logs.topics.items()}
        (look,) = await room.look(request)
        assert [each.kind for each in look.sends] == ["upsert", "trigger"]
        assert {place: len(log) for place, log in room.logs.topics.items()} == before

    run(story())


def test_only_what_was_not_delivered_is_told() -> None:
    """What earlier replays carried out counts as done, and what others were refused is not this letter's."""

    async def story() -> None:
        room = Room()
        record = room.record(do=["upsert", "track", "enroll"])
        request = room.asked(record, 1, 2)
        action = plan(decode(record)).actions[1]  # type: ignore[arg-type]
        room.logs.append(REPLAYS, 0, *write(Mark(place_of(record), identify(record, action), 1, done=True)))
        (look,) = await room.look(request)
        assert [each.kind for each in look.sends] == ["enroll"] and look.done == 1

    run(story())


def test_why_nothing_can_be_sent_is_what_the_replay_would_say() -> None:
    async def story() -> None:
        room = Room()
        letter = room.logs.bury(refused(room.record(do=["trigger"]), 0, kind=LetterKind.UNKNOWN_OUTCOME))
        (look,) = await room.look(room.logs.ask(letter))
        assert look.sends == () and "--send-again" in look.problem

    run(story())


def test_too_many_later_records_are_not_read_and_that_is_said() -> None:
    """Only where something could be left out: a track undoes nothing."""

    async def story() -> None:
        room = Room()
        requests = [room.asked(room.record(do=[kind]), 0) for kind in ("upsert", "track")]
        for _ in range(20):
            room.record()
        upsert, track = await room.look(*requests, behind_max=10)
        assert "22 records" in upsert.unknown and len(upsert.sends) == 1
        assert track.unknown == ""

    run(story())


def test_people_read_sentences_with_contacts_masked() -> None:
    async def story() -> None:
        room = Room()
        request = room.asked(room.record(fields={"plan": "free"}), 0)
        room.record(fields={"plan": "pro"})
        (look,) = await room.look(request)
        assert outlook_lines(look, show_contacts=False) == [
            "sends upsert for a***@x.org: email, seq",
            "leaves out what later events wrote: custom_fields.plan",
        ]
        assert "anna@x.org" in outlook_lines(look, show_contacts=True)[0]
        assert outlook_lines(Outlook(), show_contacts=False) == ["sends nothing: the rules plan nothing for it now"]

    run(story())


def test_the_fields_of_a_request_are_named_one_by_one() -> None:
    body = {
        "to_email": "a@x",
        "recipient": {"email": "a@x", "custom_fields": {"plan": 1}},
        "tag_names": ["a", "b"],
        "variables": {"x": 1},
        "metadata": "text",
    }
    assert list(names(body)) == [
        "to_email",
        "recipient.email",
        "recipient.custom_fields.plan",
        "tag_names.a",
        "tag_names.b",
        "variables.x",
        "metadata",
    ]
