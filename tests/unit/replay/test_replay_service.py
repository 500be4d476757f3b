"""Replays beside live events: real replays and real delivery on a virtual clock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from bridge.core.retry import Policy
from bridge.model import Call, LetterKind, Outcome, Record, Verdict
from bridge.replay import service
from bridge.replay.ledger import Mark, State, write
from tests.support.engine import P0, P1, TOPIC
from tests.support.engine import record as record_
from tests.support.fakes import DELIVERED, FakeMeisa
from tests.support.replays import LETTERS, REPLAYS, Instance, MemoryLogs, identify, place_of, plan_, refused, settled
from tests.support.virtual import run

REFUSED = Outcome(Verdict.REFUSED, 400, "no")


class Room:
    def __init__(self, answer: Callable[[Call], Outcome] = lambda call: DELIVERED, **more: Any) -> None:
        self.logs = MemoryLogs()
        self.meisa = FakeMeisa(answer)
        self.instance = Instance(self.logs, self.meisa, **more)

    def record(self, email: str = "a@x", *, partition: int = 0, **data: Any) -> Record:
        """A record of the source topic; see tests.support.engine for what `data` does."""
        offset = len(self.logs.topics.get((TOPIC, partition), ()))  # type: ignore[call-overload]
        made = record_(offset, email, partition=partition, **data)
        return self.logs.append(TOPIC, partition, made.key, made.value)

    def sent(self) -> list[tuple[str, int]]:
        return [(call.endpoint, (call.body or {}).get("seq", -1)) for call in self.meisa.calls]


def story(tell: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    def test() -> None:
        run(tell())

    test.__doc__ = tell.__doc__
    test.__name__ = tell.__name__
    return test


@story
async def test_only_what_was_not_delivered_is_sent_in_the_order_of_the_source() -> None:
    """Whatever the order in which it was asked for, and although the events are too old by now."""
    room = Room()
    records = [room.record(do=["upsert", "trigger"], max_age=1, wall=5.0) for _ in range(4)]
    letters = [room.logs.bury(refused(record, 1)) for record in records]
    requests = [room.logs.ask(letter) for letter in reversed(letters)]
    room.instance.start(P0)
    await settled(room.logs, *requests)
    await room.instance.stop()
    assert room.sent() == [("trigger", 0), ("trigger", 1), ("trigger", 2), ("trigger", 3)]
    assert [room.logs.state(request)[0] for request in requests] == [State.REPLAYED] * 4
    assert room.instance.meter.counts["replayed", "replayed"] == 4


@story
async def test_a_trigger_keeps_the_key_that_it_always_had() -> None:
    """Made of the record at its source, not of the letter."""
    room = Room()
    record = room.record(do=["trigger"])
    request = room.logs.ask(room.logs.bury(refused(record, 0)))
    room.instance.start(P0)
    await settled(room.logs, request)
    await room.instance.stop()
    event_action = plan_(_event(record)).actions[0]
    assert [(call.body or {})["idempotency_key"] for call in room.meisa.calls] == [identify(record, event_action)]


def _event(record: Record) -> Any:
    from tests.support.engine import decode

    return decode(record)


@story
async def test_an_action_that_two_letters_name_is_sent_once() -> None:
    """A crash between acknowledgement and commit may cut an event's letters differently the second time."""
    room = Room()
    record = room.record(do=["upsert", "track"])
    requests = [room.logs.ask(room.logs.bury(refused(record, *which))) for which in ((0, 1), (0,), (1,))]
    room.instance.start(P0)
    await settled(room.logs, *requests)
    await room.instance.stop()
    assert room.sent() == [("upsert", 0), ("track", 0)]


@story
async def test_only_the_owner_of_the_source_partition_carries_it_out_and_its_successor_goes_on() -> None:
    """Another instance leaves it alone; when the partition comes to it, it does what is left."""
    room = Room()
    stuck = asyncio.Event()
    room.meisa.answer = lambda call: Outcome(Verdict.KEY_REFUSED, 401) if not stuck.is_set() else DELIVERED
    records = [room.record(email, do=["track"]) for email in ("a@x", "b@x")]
    requests = [room.logs.ask(room.logs.bury(refused(record, 0))) for record in records]
    other = Instance(room.logs, FakeMeisa())
    room.instance.start(P0)
    other.start(P1)
    await asyncio.sleep(60)
    await room.instance.revoke(P0)
    stuck.set()
    other.partitions[P0] = 2
    await settled(room.logs, *requests)
    await room.instance.stop()
    await other.stop()
    assert [room.logs.state(request)[0] for request in requests] == [State.REPLAYED] * 2


@story
async def test_what_an_interrupted_replay_did_is_not_done_again() -> None:
    """The marks of its actions stand in the topic; so does that of a trigger that had started long ago."""
    room = Room()
    record = room.record(do=["track", "enroll", "trigger"])
    request = room.logs.ask(room.logs.bury(refused(record, 0, 1, 2)))
    ids = [identify(record, action) for action in plan_(_event(record)).actions]
    wall = room.instance.clock.wall()
    room.logs.append(REPLAYS, 0, *write(Mark(place_of(record), ids[0], request.at, done=True)))
    room.logs.append(REPLAYS, 0, *write(Mark(place_of(record), ids[2], request.at, done=False, wall=wall - 4000)))
    room.instance.start(P0)
    await settled(room.logs, request)
    assert room.sent() == [("enroll", 0)]
    assert room.logs.state(request)[0] is State.REFUSED
    fresh = room.logs.letters()[-1]
    assert (fresh.kind, fresh.ids, fresh.replays) == (LetterKind.UNKNOWN_OUTCOME, (ids[2],), 1)
    # Only who means it sends it: the doubt of the former request does not count for this one.
    again = room.logs.ask(room.logs.topics[LETTERS, 0][-1], at=2)  # type: ignore[index,arg-type]
    await settled(room.logs, again)
    assert room.logs.state(again)[0] is State.FAILED and "--send-again" in room.logs.state(again)[1]
    meant = room.logs.ask(room.logs.topics[LETTERS, 0][-1], at=3, send_again=True)  # type: ignore[index,arg-type]
    await settled(room.logs, meant)
    await room.instance.stop()
    assert room.sent() == [("enroll", 0), ("trigger", 0)]


@story
async def test_a_trigger_leaves_only_after_its_mark_was_acknowledged() -> None:
    """As long as the topic cannot be written no email goes out; then it does."""
    room = Room()
    record = room.record(do=["trigger"])
    request = room.logs.ask(room.logs.bury(refused(record, 0)))
    written = room.logs.write
    away = True

    async def write_(topic: str, entries: Any) -> None:
        if away:
            from bridge.errors import LogFailed

            raise LogFailed("away")
        await written(topic, entries)

    room.logs.write = write_  # type: ignore[method-assign]
    room.instance.start(P0)
    await asyncio.sleep(300)
    assert room.sent() == []
    away = False
    await settled(room.logs, request)
    await room.instance.stop()
    assert room.sent() == [("trigger", 0)]
    marks = [each for each in room.logs.topics[REPLAYS, 0] if each and b'"mark"' in (each.key or b"")]  # type: ignore[index]
    assert marks


@story
async def test_a_refused_replay_leaves_no_doubt_behind() -> None:
    """Hours later the fresh letter of a trigger that was refused is replayed as any other."""
    room = Room(lambda call: REFUSED)
    record = room.record(do=["trigger"])
    request = room.logs.ask(room.logs.bury(refused(record, 0)))
    room.instance.start(P0)
    await settled(room.logs, request)
    assert room.logs.letters()[-1].kind == LetterKind.REJECTED
    await asyncio.sleep(10_000)
    room.meisa.answer = lambda call: DELIVERED
    again = room.logs.ask(room.logs.topics[LETTERS, 0][-1], at=2)  # type: ignore[index,arg-type]
    await settled(room.logs, again)
    await room.instance.stop()
    assert room.logs.state(again)[0] is State.REPLAYED


@story
async def test_live_events_that_come_during_a_replay_are_not_undone() -> None:
    """They pass the scan and stand in front in the contact's queue: what they write is left out all the same."""
    room = Room(plan=_state)
    record = room.record(plan="free", country="DE")
    request = room.logs.ask(room.logs.bury(refused(record, 0)))
    reading = room.instance.replays._preparing.scan

    async def scan(*arguments: Any) -> Any:
        found = await reading(*arguments)
        room.instance.live(room.record(plan="pro"))
        return found

    room.instance.replays._preparing.scan = scan  # type: ignore[method-assign]
    room.instance.start(P0)
    await settled(room.logs, request)
    await room.instance.stop()
    state: dict[str, str] = {}
    for call in room.meisa.done:
        state.update((call.body or {}).get("custom_fields", {}))
    assert state == {"plan": "pro", "country": "DE"}


def _state(event: Any) -> Any:
    from bridge.model import Action, Contact, Kind, Plan

    custom = {name: event.data[name] for name in ("plan", "country") if name in event.data}
    body = {"email": event.data["email"], "custom_fields": custom}
    return Plan((Action(Kind.UPSERT, "rule", 0, body, Contact(event.data["email"])),))


@pytest.mark.parametrize("topics", [(), (TOPIC,)])
def test_a_repetition_that_was_skipped_wrote_nothing(topics: tuple[str, ...]) -> None:
    """Where repeated events are skipped, one behind the letter's record must not stand in for what it says."""

    async def tell() -> None:
        room = Room(deduplicated=topics)
        record = room.record(fields={"plan": "pro"}, event_id="one")
        request = room.logs.ask(room.logs.bury(refused(record, 0)))
        room.record(fields={"plan": "pro"}, event_id="one")
        room.instance.start(P0)
        await settled(room.logs, request)
        await room.instance.stop()
        assert ["custom_fields" in (call.body or {}) for call in room.meisa.calls] == [bool(topics)]

    run(tell())


@story
async def test_where_retention_has_been_only_what_cannot_undo_anything_is_sent() -> None:
    """The track of one letter goes; the upsert of another waits for somebody who says --overwrite."""
    room = Room()
    upsert, track = room.record(do=["upsert"]), room.record("b@x", do=["track"])
    for _ in range(3):
        room.record("c@x")
    requests = [room.logs.ask(room.logs.bury(refused(record, 0))) for record in (upsert, track)]
    room.logs.topics[P0][:4] = [None] * 4
    room.instance.start(P0)
    await settled(room.logs, *requests)
    assert [room.logs.state(request)[0] for request in requests] == [State.FAILED, State.REPLAYED]
    assert "--overwrite" in room.logs.state(requests[0])[1]
    meant = room.logs.ask(room.logs.topics[LETTERS, 0][0], at=2, overwrite=True)  # type: ignore[index,arg-type]
    await settled(room.logs, meant)
    await room.instance.stop()
    assert room.sent() == [("track", 1), ("upsert", 0)]


@story
async def test_a_source_that_was_created_anew_is_noticed() -> None:
    """At the letter's place stands another record, or none yet: later events of it are not known."""
    room = Room()
    first, second = room.record(), room.record()
    requests = [room.logs.ask(room.logs.bury(refused(record, 0))) for record in (first, second)]
    room.logs.topics[P0] = []
    other = room.record()
    room.logs.topics[P0][0] = other._replace(timestamp_ms=other.timestamp_ms + 1)
    room.instance.start(P0)
    await settled(room.logs, *requests)
    await room.instance.stop()
    assert [room.logs.state(request)[0] for request in requests] == [State.FAILED] * 2
    assert all("anew" in room.logs.state(request)[1] for request in requests)
    assert room.sent() == []


@story
async def test_rules_that_were_edited_send_what_they_say_now_or_nothing() -> None:
    """An action that the rules do not plan any more cannot be sent: the letter stays, and says so."""
    room = Room(rules=lambda name: name != "gone")
    record = room.record(do=["upsert"])
    letter = refused(record, 0)
    lost = type(letter)(**{**{name: getattr(letter, name) for name in letter.__slots__}, "undelivered_ids": ("x",)})
    gone = type(letter)(record, LetterKind.RULE, "no", rule="gone")
    requests = [room.logs.ask(room.logs.bury(each)) for each in (lost, gone)]
    room.instance.start(P0)
    await settled(room.logs, *requests)
    await room.instance.stop()
    assert [room.logs.state(request)[0] for request in requests] == [State.FAILED] * 2
    assert "do not plan 1 of its 1" in room.logs.state(requests[0])[1]
    assert "no rule gone" in room.logs.state(requests[1])[1]
    assert room.sent() == []


@story
async def test_a_letter_without_its_value_is_read_from_its_source() -> None:
    """It was too large for the dead-letter topic. Where the source has lost it too, nothing can be sent."""
    room = Room()
    records = [room.record(f"{n}@x", do=["track"]) for n in range(2)]
    requests = []
    for record in records:
        letter = room.logs.bury(refused(record, 0))
        bare = letter._replace(value=None, headers=(*letter.headers, ("meisa-bridge.value_omitted", b"9 bytes")))
        room.logs.topics[LETTERS, 0][-1] = bare  # type: ignore[index]
        requests.append(room.logs.ask(bare))
    room.logs.topics[P0][0] = None
    room.instance.start(P0)
    await settled(room.logs, *requests)
    await room.instance.stop()
    assert [room.logs.state(request)[0] for request in requests] == [State.FAILED, State.REPLAYED]
    assert room.sent() == [("track", 1)]


@story
async def test_replays_leave_room_for_live_events() -> None:
    """However many were asked for, only a window of them stands in the queues."""
    room = Room(policy=Policy())
    room.meisa.latency = 1.0
    records = [room.record(f"{n}@x", do=["track"]) for n in range(service.WINDOW * 3)]
    requests = [room.logs.ask(room.logs.bury(refused(record, 0))) for record in records]
    room.instance.start(P0)
    most = 0
    while len(room.meisa.done) < len(records):
        await asyncio.sleep(0.1)
        most = max(most, room.instance.delivery.pending)
    await settled(room.logs, *requests)
    await room.instance.stop()
    assert 1 < most <= service.WINDOW


@story
async def test_records_that_are_no_letters_and_letters_that_are_gone_are_said_so() -> None:
    room = Room()
    record = room.record(do=["track"])
    letter = room.logs.bury(refused(record, 0))
    gone = room.logs.ask(letter)
    room.logs.topics[LETTERS, 0][0] = None  # type: ignore[index]
    room.instance.start(P0)
    await settled(room.logs, gone)
    await room.instance.stop()
    assert room.logs.state(gone)[0] is State.FAILED and "not there any more" in room.logs.state(gone)[1]


@pytest.mark.parametrize("kind", [LetterKind.DECODE, LetterKind.RULE])
def test_a_letter_that_names_no_actions_stands_for_all_that_is_planned_now(kind: LetterKind) -> None:
    """The record could not be read, or the rule failed, so nothing of it was sent; and what fails is a fresh letter."""

    async def tell() -> None:
        room = Room()
        record = room.record(do=["upsert", "trigger"], fail=kind is LetterKind.DECODE)
        letter = refused(record, kind=kind)
        request = room.logs.ask(room.logs.bury(letter))
        room.instance.start(P0)
        await settled(room.logs, request)
        await room.instance.stop()
        assert room.sent() == [("upsert", 0), ("trigger", 0)]
        fresh = [(each.kind, each.rule) for each in room.logs.letters() if each.replays]
        assert fresh == ([("rule", "broken")] if kind is LetterKind.DECODE else [])

    run(tell())


@story
async def test_a_partition_that_went_and_came_back_goes_on() -> None:
    """What stood in the queues was withdrawn with it; the worker of the new assignment begins where things stand."""
    room = Room()
    room.meisa.answer = lambda call: Outcome(Verdict.KEY_REFUSED, 401)
    records = [room.record(f"{n}@x", do=["track"]) for n in range(3)]
    requests = [room.logs.ask(room.logs.bury(refused(record, 0))) for record in records]
    room.instance.start(P0)
    await asyncio.sleep(30)
    await room.instance.revoke(P0)
    room.meisa.answer = lambda call: DELIVERED
    room.instance.delivery.key_works("default")
    room.meisa.calls.clear()
    await asyncio.sleep(30)
    assert room.sent() == [], "the partition is another's"
    room.instance.partitions[P0] = 2
    await settled(room.logs, *requests)
    await room.instance.stop()
    assert sorted(room.sent()) == [("track", 0), ("track", 1), ("track", 2)]


@story
async def test_nothing_enters_the_queues_once_the_partition_has_gone() -> None:
    """Even where it goes while the replay is being prepared: the engine has withdrawn all, and would not again."""
    room = Room()
    record = room.record(do=["track"])
    request = room.logs.ask(room.logs.bury(refused(record, 0)))
    reading = room.instance.replays._preparing.scan

    async def scan(*arguments: Any) -> Any:
        found = await reading(*arguments)
        if room.instance.partitions.get(P0) == 1:
            await room.instance.revoke(P0)
        return found

    room.instance.replays._preparing.scan = scan  # type: ignore[method-assign]
    room.instance.start(P0)
    await asyncio.sleep(60)
    assert room.sent() == [] and room.instance.delivery.pending == 0
    assert room.logs.state(request)[0] is State.REQUESTED
    room.instance.partitions[P0] = 2
    await settled(room.logs, request)
    await room.instance.stop()
    assert room.sent() == [("track", 0)]


@story
async def test_a_repeat_that_is_refused_says_nothing_of_the_attempt_before_it() -> None:
    """The first one's answer was lost: the email may be out. An hour later only --send-again sends it."""
    answers = [Outcome(Verdict.UNKNOWN), REFUSED]
    room = Room(lambda call: answers.pop(0) if answers else DELIVERED)
    record = room.record(do=["trigger"])
    request = room.logs.ask(room.logs.bury(refused(record, 0)))
    room.instance.start(P0)
    await settled(room.logs, request)
    assert room.logs.state(request)[0] is State.REFUSED and len(room.meisa.calls) == 2
    await asyncio.sleep(4_000)
    again = room.logs.ask(room.logs.topics[LETTERS, 0][-1], at=2)  # type: ignore[index,arg-type]
    await settled(room.logs, again)
    assert len(room.meisa.calls) == 2
    assert room.logs.letters()[-1].kind == LetterKind.UNKNOWN_OUTCOME
    meant = room.logs.ask(room.logs.topics[LETTERS, 0][-1], at=3, send_again=True)  # type: ignore[index,arg-type]
    await settled(room.logs, meant)
    await room.instance.stop()
    assert room.logs.state(meant)[0] is State.REPLAYED


@story
async def test_a_long_absence_of_the_broker_loses_nothing() -> None:
    """Reading and writing fail for minutes: replays wait, and then they are carried out once."""
    room = Room()
    records = [room.record(f"{n}@x", do=["track"]) for n in range(3)]
    requests = [room.logs.ask(room.logs.bury(refused(record, 0))) for record in records]
    room.instance.start(P0)
    await asyncio.sleep(2.0)
    room.logs.fails = lambda: True
    await asyncio.sleep(600.0)
    room.logs.fails = lambda: False
    await settled(room.logs, *requests)
    await room.instance.stop()
    assert sorted(room.sent()) == [("track", 0), ("track", 1), ("track", 2)]
