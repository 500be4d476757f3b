"""What people see of dead letters: which there are, what became of each, and how much is read for that."""

from __future__ import annotations

import json

import pytest

from bridge.errors import UserError
from bridge.model import Letter, LetterKind, Record, TopicPartition
from bridge.replay import shelf as shelf_
from bridge.replay.ledger import Answer, Mark, Place, State, write
from bridge.replay.letters import parse
from bridge.replay.shelf import Shelf, Tail, contact_of, matching, names_in
from tests.support.replays import LETTERS, REPLAYS, MemoryLogs
from tests.support.virtual import run

SMALL = Tail(letters=10, bytes=1_000_000, facts=1_000)


def letter(offset: int, kind: LetterKind = LetterKind.REJECTED, **more: object) -> Letter:
    record = Record("users", 0, offset, 1_780_000_000_000, None, b"{}")
    named = {"rule": "signup", "undelivered_ids": (f"id{offset}",), "failed_at_wall_seconds": 1.78e9 + offset, **more}
    return Letter(record, kind, "no", **named)  # type: ignore[arg-type]


class Counting(MemoryLogs):
    """Knows how many records were asked for."""

    def __init__(self) -> None:
        super().__init__(latency=0.0)
        self.asked: list[tuple[str, int, int]] = []

    async def read(self, topic: str, partition: int, start: int, end: int):  # type: ignore[no-untyped-def]
        self.asked.append((topic, start, end))
        async for batch in super().read(topic, partition, start, end):
            yield batch

    def amount(self, topic: str) -> int:
        return sum(max(0, end - start) for each, start, end in self.asked if each == topic)


def made(logs: MemoryLogs, tail: Tail | None = None) -> Shelf:
    return Shelf(logs, topic=LETTERS, replays_topic=REPLAYS, topics=["users"], tail=tail)


def offsets(shelf: Shelf) -> list[int]:
    return [each.letter.source.offset for each in shelf.all()]


def test_every_letter_is_there_once_with_what_became_of_it() -> None:
    """The oldest first; of one that was written twice the newest copy; what is foreign is counted."""

    async def story() -> None:
        logs = MemoryLogs(latency=0.0)
        first = logs.bury(letter(1))
        logs.bury(letter(0))
        logs.append(LETTERS, 0, None, b"not a letter")
        copy = logs.bury(letter(1))
        request = logs.ask(first)
        logs.append(REPLAYS, 0, *write(Mark(request.source, "id1", 1, done=True)))
        logs.append(REPLAYS, 0, *write(Answer(request.source, request.name, 1, State.FAILED, "gone")))
        shelf = made(logs)
        await shelf.read()
        assert offsets(shelf) == [0, 1]
        opened, failed = shelf.all()
        assert (opened.state, failed.state, failed.message) == (State.OPEN, State.FAILED, "gone")
        assert (failed.copies, failed.letter.place.offset) == (2, copy.offset)
        assert shelf.foreign == 1

    run(story())


def test_a_second_reading_reads_only_what_is_new() -> None:
    """Letters and facts; and tells the states of letters that were read before."""

    async def story() -> None:
        logs = Counting()
        buried = logs.bury(letter(0))
        shelf = made(logs, SMALL)
        await shelf.read()
        before = len(logs.asked)
        await shelf.read()
        assert [span for span in logs.asked[before:] if span[1] < span[2]] == []
        logs.ask(buried)
        logs.bury(letter(1))
        await shelf.read()
        assert logs.amount(LETTERS) == 2 and logs.amount(REPLAYS) == 1
        assert [each.state for each in shelf.all()] == [State.REQUESTED, State.OPEN]

    run(story())


def test_a_tail_reads_and_holds_the_newest_letters_however_many_there_are() -> None:
    """Of hundreds, and while more come; the rest is counted."""

    async def story() -> None:
        logs = Counting()
        for number in range(500):
            logs.bury(letter(number))
        shelf = made(logs, SMALL)
        await shelf.read()
        assert offsets(shelf) == list(range(490, 500))
        assert logs.amount(LETTERS) == 10 and shelf.dropped == 490
        for number in range(500, 507):
            logs.bury(letter(number))
        await shelf.read()
        assert offsets(shelf) == list(range(497, 507)) and shelf.dropped == 497

    run(story())


def test_a_tail_ends_where_letters_are_large() -> None:
    """Letters hold whole records, up to a megabyte each."""

    async def story() -> None:
        logs = Counting()
        for number in range(100):
            large = letter(number)
            logs.bury(Letter(large.record._replace(value=b"x" * 1_000), large.kind, "no", undelivered_ids=("a",)))
        shelf = made(logs, Tail(letters=100, bytes=20_000, facts=10))
        monkey = pytest.MonkeyPatch()
        monkey.setattr(shelf_, "STEP", 5)
        await shelf.read()
        monkey.undo()
        assert len(shelf.all()) == 20 and shelf.dropped == 80

    run(story())


def test_of_too_many_facts_the_newest_are_read_and_that_is_told() -> None:
    async def story() -> None:
        logs = Counting()
        buried = [logs.bury(letter(number)) for number in range(4)]
        for each in buried:
            logs.ask(each)
        shelf = made(logs, SMALL._replace(facts=2))
        await shelf.read()
        assert [each.state for each in shelf.all()] == [State.OPEN] * 2 + [State.REQUESTED] * 2
        assert shelf.forgotten == 2

    run(story())


def test_a_topic_that_was_created_anew_is_read_anew() -> None:
    """Nothing of before is shown; the same for the topic of replays."""

    async def story() -> None:
        logs = MemoryLogs(latency=0.0)
        for number in range(3):
            logs.ask(logs.bury(letter(number)))
        shelf = made(logs, SMALL)
        await shelf.read()
        logs.topics[TopicPartition(LETTERS, 0)].clear()
        logs.topics[TopicPartition(REPLAYS, 0)].clear()
        logs.bury(letter(7))
        await shelf.read()
        assert offsets(shelf) == [7] and shelf.all()[0].state is State.OPEN

    run(story())


def test_what_retention_removed_is_shown_no_more() -> None:
    async def story() -> None:
        logs = MemoryLogs(latency=0.0)
        for number in range(3):
            logs.bury(letter(number))
        shelf = made(logs, SMALL)
        await shelf.read()
        logs.topics[TopicPartition(LETTERS, 0)][0] = None
        await shelf.read()
        assert offsets(shelf) == [1, 2]

    run(story())


def test_a_topic_that_is_not_there_is_said_so() -> None:
    async def story() -> None:
        with pytest.raises(UserError, match=r"dead_letters\.topic"):
            await made(MemoryLogs(latency=0.0)).read()

    run(story())


def test_letters_are_chosen_by_all_filters_at_once() -> None:
    async def story() -> None:
        logs = MemoryLogs(latency=0.0)
        for number, (kind, rule) in enumerate(
            [(LetterKind.REJECTED, "a"), (LetterKind.RULE, "a"), (LetterKind.REJECTED, "b"), (LetterKind.RULE, "b")]
        ):
            logs.bury(letter(number, kind, rule=rule))
        shelf = made(logs)
        await shelf.read()
        every = shelf.all()
        assert [each.letter.source.offset for each in matching(every, kinds=["rule"], rules=["b"])] == [3]
        second = every[1].letter.failed_at
        assert [each.letter.source.offset for each in matching(every, since=second)] == [1, 2, 3]
        assert [each.letter.source.offset for each in matching(every, until=second)] == [0]

    run(story())


@pytest.mark.parametrize(
    ("request_", "value", "contact"),
    [
        ({"email": "ann@x.org", "external_id": "7"}, b"", "ann@x.org"),
        ({"external_id": "7"}, b"", "7"),
        ({"trigger_key": "k", "to_email": "ann@x.org"}, b"", "ann@x.org"),
        (None, b'{"data": {"id": 1, "email": "ann@x.org"}}', "ann@x.org"),
        (None, b"\xff\x00", ""),
        (None, None, ""),
        (["no", "object"], b"", ""),
    ],
)
def test_whom_a_letter_is_about_is_told_by_its_request_or_its_record(
    request_: object, value: bytes | None, contact: str
) -> None:
    record = MemoryLogs().bury(letter(0, request=request_))
    assert contact_of(record._replace(value=value), parse(record)) == contact


def test_a_request_that_was_cut_still_names_its_contact() -> None:
    """A letter's headers hold four kilobytes of it."""
    cut = json.dumps({"email": "ann@x.org", "custom_fields": {"a": "x" * 50}})[:40] + "…"
    assert names_in(cut) == ["ann@x.org"]


def test_forgotten_letters_leave_no_state_behind() -> None:
    """A page is open for weeks: what it holds is bounded by what it shows."""

    async def story() -> None:
        logs = MemoryLogs(latency=0.0)
        shelf = made(logs, SMALL)
        for number in range(60):
            logs.ask(logs.bury(letter(number)))
            await shelf.read()
        assert len(shelf._states._requests) == len(shelf.all()) == 10
        assert shelf._states.of(Place("users", 0, 0), "x") == (State.OPEN, "")

    run(story())
