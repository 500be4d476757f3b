"""Setting the group's offsets: what stays beside them, and what the reset is said to do."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.core.offsets import PartitionOffsets
from bridge.core.progress import DELIVERED, Progress, decode, encode, window_limit
from bridge.errors import DecodeError
from bridge.kafka.groups import Committed
from bridge.kafka.sample import Slice
from bridge.model import Action, Contact, Event, Handling, Kind, Plan, Record, TopicPartition
from bridge.positions import DISTANCE_MAX, Consequence, Move, Standing, chunks, consequence

P0 = TopicPartition("users", 0)
LIMIT = 4096
WALL = 1_780_000_000.0
SPEND = bytes(range(20))
OLD = Progress(
    96,
    b"\xf0",
    {101: {5}},
    {100: {7: 1_779_999_000}, 101: {8: DELIVERED}},
    seen=110,
    since_wall=3,
    topic=9,
    spend=SPEND,
)
"""Beside offset 100: 100 to 103 have finished, which is nonsense that a reset does not mind."""


def standing(
    committed: int | None = 100, progress: Progress | None = OLD, *, end: int = 200, start: int = 0
) -> Standing:
    text = "" if committed is None or progress is None else encode(committed, progress, LIMIT)
    log = Slice(P0, start, end)
    return Standing.of(log, None if committed is None else Committed(committed, text))


def moved(target: int, made: Standing | None = None, topic: int | None = None) -> Progress:
    found = decode(target, Move(made or standing(), target).text(WALL, topic, LIMIT))
    assert found is not None
    return found


@pytest.mark.parametrize("target", [0, 50, 100, 101, 150, 200])
def test_what_was_used_of_the_quota_stays_and_what_was_done_does_not(target: int) -> None:
    """Wherever the offset goes."""
    found = moved(target)
    assert found.spend == SPEND
    assert (found.bitmap, found.delivered) == (b"", {})


def test_a_trigger_that_may_have_been_sent_keeps_the_time_of_its_first_start() -> None:
    """Where its event is read again; one that is known to be sent is sent again: that is what was asked for."""
    assert moved(50).started == {100: {7: 1_779_999_000}}
    assert moved(101).started == {}
    far = standing(DISTANCE_MAX + 50, Progress(0, started={DISTANCE_MAX + 60: {7: 1}}), end=DISTANCE_MAX * 2)
    assert moved(10, far).started == {}


def test_upserts_wait_until_intake_is_where_it_was() -> None:
    """So that an older state is not sent over a newer one; a rewind farther than a window cannot wait for that."""
    found = moved(50)
    assert (found.seen, found.since_wall) == (110, int(WALL))
    assert moved(105).seen == 110 and moved(110).seen is None and moved(150).seen is None
    plain = standing(30_000, Progress(0, topic=9), end=50_000)
    near = 30_000 - window_limit(LIMIT)
    assert moved(near, plain).seen == 30_000 and moved(near - 1, plain).seen is None


def test_what_is_read_again_is_history_by_the_moment_of_the_reset() -> None:
    """Else each old trigger would become a dead letter: it would count as one that grew too old here."""
    offsets = PartitionOffsets(start=50)
    offsets.restore(moved(50))
    assert offsets.arrivals.of(60, WALL + 500) == int(WALL)


def test_the_offset_is_of_the_topic_that_is_there_now() -> None:
    assert moved(50, topic=4).topic == 4 and moved(50).topic == 9


def test_nobody_has_written_this_text_before() -> None:
    """Also where nothing changes: what an instance keeps by its commits must not be believed behind a reset."""
    one, other = (Move(standing(), 100).text(WALL, None, LIMIT) for _ in range(2))
    assert len({one, other, standing().metadata}) == 3


def test_text_that_cannot_be_read_is_not_taken_away() -> None:
    """Of triggers and quota it told something; so nobody sends what it may have told of."""
    damaged = standing()._replace(metadata="mb1:damaged", progress=None)
    assert damaged.unreadable and Move(damaged, 10).text(WALL, 4, LIMIT) == "mb1:damaged"
    foreign = standing()._replace(metadata="somebody's", progress=None)
    assert not foreign.unreadable and decode(10, Move(foreign, 10).text(WALL, 4, LIMIT)) is not None


def test_a_group_without_an_offset_does_nothing_again() -> None:
    fresh = Move(standing(None), 0)
    assert fresh.again.length <= 0 and fresh.skipped.length <= 0
    assert decode(0, fresh.text(WALL, None, LIMIT)) is not None


@pytest.mark.parametrize(
    ("target", "again", "skipped"),
    [(0, (0, 104), 0), (20, (20, 104), 0), (102, (102, 104), 2), (150, None, 50), (200, None, 100)],
)
def test_what_a_move_is_about(target: int, again: Any, skipped: int) -> None:
    """Backward: all up to the last that has finished, also beyond the offset. Forward: all that is passed over."""
    move = Move(standing(), target)
    assert ((move.again.start, move.again.end) if move.again.length > 0 else None) == again
    assert max(0, move.skipped.length) == skipped


def test_what_retention_has_removed_is_not_counted() -> None:
    move = Move(standing(start=90, end=95), 90)
    assert (move.again.start, move.again.end) == (90, 95)


# What records plan

TRIGGER, ENDLESS = Handling(max_age_seconds=86_400.0), Handling(max_age_seconds=None)


def decoded(record: Record) -> Event | None:
    if record.offset == 3:
        raise DecodeError("no")
    wall = WALL - (100_000 if record.offset < 6 else 10)
    return (
        None if record.offset == 4 else Event(id="i", type="t", time="", time_wall_seconds=wall, data={}, record=record)
    )


def planned(event: Event) -> Plan:
    made = [(Kind.UPSERT, {}, ENDLESS), (Kind.TRIGGER, {"trigger_key": "welcome"}, TRIGGER), (Kind.TRACK, {}, TRIGGER)]
    contact = Contact("a@example.com")
    return Plan(tuple(Action(kind, "r", at, body, contact, how) for at, (kind, body, how) in enumerate(made)))


def told(most: int = 100) -> tuple[Consequence, list[Slice]]:
    asked: list[Slice] = []

    def read(slices: Any) -> list[Record]:
        asked.extend(slices)
        return [
            Record(*each.partition, offset, 0, None, b"") for each in slices for offset in range(each.start, each.end)
        ]

    made = consequence(
        {P0: Slice(P0, 0, 10)},
        lambda record: record.offset != 9,
        read=read,
        decoders={"users": decoded},
        plan=planned,
        wall=WALL,
        most=most,
    )
    return made, asked


def test_triggers_are_told_by_key_and_those_that_max_age_stops_apart() -> None:
    found, _ = told()
    assert found.complete and (found.events, found.undecodable) == (7, 1)
    assert (dict(found.triggers), dict(found.stopped)) == ({"welcome": 3}, {"welcome": 4})
    assert dict(found.calls) == {"upsert": 7, "track": 3}


def test_of_too_many_records_the_youngest_are_read() -> None:
    """And it is said that there are more."""
    found, asked = told(most=4)
    assert not found.complete and (found.length, found.looked_at) == (10, 4)
    assert asked == [Slice(P0, 6, 10)]


def test_records_are_read_in_pieces_that_fit_into_memory() -> None:
    long, short = Slice(P0, 0, 12_000), Slice(TopicPartition("users", 1), 0, 10)
    found = chunks([long, short], 11_010)
    assert found == [short, Slice(P0, 7_000, 12_000), Slice(P0, 2_000, 7_000), Slice(P0, 1_000, 2_000)]
