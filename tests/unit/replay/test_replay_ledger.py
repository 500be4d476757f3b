"""The topic of replays: what is written is read again, and what is open follows from all of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.replay.ledger import (
    Answer,
    Done,
    Fact,
    Mark,
    OpenRequests,
    Place,
    Request,
    State,
    States,
    Wish,
    read,
    write,
)

SOURCE, LETTER = Place("users", 3, 42), Place("letters", 0, 7)
places = st.builds(Place, st.text(), st.integers(0, 2**31), st.integers(0, 2**63))
ats = st.integers(0, 2**53)
facts = st.one_of(
    st.builds(Request, places, st.text(), ats, st.sampled_from(Wish), places, st.booleans(), st.booleans()),
    st.builds(Mark, places, st.text(), ats, st.booleans(), st.floats(0, 1e10)),
    st.builds(Answer, places, st.text(), ats, st.sampled_from(State), st.text(), st.floats(0, 1e10)),
)


def asked(at: int = 1, wish: Wish = Wish.REPLAY, source: Place = SOURCE, *, send_again: bool = False) -> Request:
    return Request(source, "n", at, wish, LETTER, send_again=send_again)


def answered(at: int = 1, source: Place = SOURCE, state: State = State.REPLAYED) -> Answer:
    return Answer(source, "n", at, state, "why")


@given(facts.filter(lambda fact: all(ord(c) < 0xD800 or ord(c) > 0xDFFF for c in str(fact))))
def test_what_is_written_is_read(fact: Fact) -> None:
    assert read(write(fact)) == fact


@given(st.binary(), st.none() | st.binary())
def test_whatever_stands_there_is_no_error(key: bytes, value: bytes | None) -> None:
    read((key, value))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b'["request","t",0,1,"n"]', b'{"v":2,"at":1,"wish":"replay","letter":["l",0,1]}'),
        (b'["request","t",0,1,"n"]', b'{"v":1,"at":1,"wish":"explode","letter":["l",0,1]}'),
        (b'["request","t",0,1]', b'{"v":1,"at":1,"wish":"replay","letter":["l",0,1]}'),
        (b'["later","t",0,1,"n"]', b'{"v":1,"at":1}'),
        (b'["mark","t",0,1,"n"]', None),
        (b"[" * 5000, b"{}"),
    ],
)
def test_what_another_version_wrote_is_skipped(key: bytes, value: bytes | None) -> None:
    assert read((key, value)) is None


def test_a_writer_never_takes_anothers_record_back() -> None:
    """Keys differ, so compaction keeps a request, its marks and its result beside each other."""
    keys = [write(fact)[0] for fact in (asked(), answered(), Mark(SOURCE, "n", 1, True))]
    assert len(set(keys)) == 3


# What is open


def open_after(*told: Fact, open_max: int = 10) -> list[Request]:
    found = OpenRequests([("users", 3)], open_max)
    for fact in told:
        found.tell(fact)
    return found.first(10)


def test_a_request_is_open_until_its_own_answer() -> None:
    assert open_after(asked(1)) == [asked(1)]
    assert open_after(asked(1), answered(1)) == []
    assert open_after(asked(1), answered(1), asked(2)) == [asked(2)]
    assert open_after(asked(1), asked(2), answered(1)) == [asked(2)], (
        "an answer to an earlier request is not this one's"
    )


def test_who_discards_takes_the_request_back() -> None:
    assert open_after(asked(1), asked(2, Wish.DISCARD)) == []


def test_requests_of_other_partitions_are_others_business() -> None:
    assert open_after(asked(source=Place("users", 2, 42)), asked(source=Place("other", 3, 42))) == []


def test_the_lowest_come_first_and_those_of_one_record_together() -> None:
    found = OpenRequests([("users", 3)])
    for offset, name in ((9, "a"), (5, "b"), (5, "a"), (7, "a")):
        found.tell(Request(Place("users", 3, offset), name, 1, Wish.REPLAY, LETTER))
    assert [(each.source.offset, each.name) for each in found.first(1)] == [(5, "a"), (5, "b")]
    assert [each.source.offset for each in found.first(3)] == [5, 5, 7]


def test_what_is_held_is_bounded_and_the_rest_is_found_later() -> None:
    """Those beyond the bound stay in the topic: once the others are answered, reading it again finds them."""
    requests = [asked(source=Place("users", 3, offset)) for offset in range(5)]
    assert len(open_after(*requests, open_max=3)) == 3
    answers = [answered(source=request.source) for request in requests[:3]]
    assert open_after(*requests, *answers, open_max=5) == requests[3:]


# Marks


def test_a_done_mark_ends_an_action_for_every_request_but_one_that_means_it() -> None:
    done = Done()
    done.tell(Mark(SOURCE, "id", 1, done=True))
    assert done.was_done("id", asked(1)) and done.was_done("id", asked(2))
    assert not done.was_done("id", asked(2, send_again=True))
    assert done.was_done("id", asked(1, send_again=True)), "interrupted, it goes on where it was"
    assert not done.was_done("other", asked(1))


def test_a_started_mark_is_a_doubt_until_it_is_cleared() -> None:
    done = Done()
    done.tell(Mark(SOURCE, "id", 1, done=False, wall=5.0))
    assert done.started_wall("id", asked(1)) == 5.0
    assert done.started_wall("id", asked(2)) == 5.0
    assert done.started_wall("id", asked(2, send_again=True)) is None
    done.tell(Mark(SOURCE, "id", 2, done=False))
    assert done.started_wall("id", asked(3)) is None


# States for people


@pytest.mark.parametrize(
    ("told", "state"),
    [
        ([], State.OPEN),
        ([asked(1)], State.REQUESTED),
        ([asked(1), answered(1)], State.REPLAYED),
        ([asked(1), answered(1), asked(2)], State.REQUESTED),
        ([asked(1), answered(1, state=State.FAILED)], State.FAILED),
        ([asked(1), asked(2, Wish.DISCARD), answered(1)], State.DISCARDED),
        ([answered(1)], State.OPEN),
    ],
)
def test_what_became_of_a_letter(told: list[Fact], state: State) -> None:
    states = States()
    for fact in told:
        states.tell(fact)
    assert states.of(SOURCE, "n")[0] is state
