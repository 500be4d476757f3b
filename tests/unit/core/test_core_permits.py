"""Permits of a ledger that all instances ask: what is in hand, what is wanted, what is told."""

import pytest

from bridge.core.permits import (
    AHEAD_MAX,
    KEEP_SECONDS,
    LOOK_SECONDS,
    RETRY_SECONDS,
    RETRY_SECONDS_MAX,
    RULES,
    TELL_SECONDS,
    USE_SECONDS,
    Permits,
)
from bridge.core.quota import NEVER
from bridge.ports import Ask, Brake, CountedWindow, EndOfCall, Granted

LIMITS = [(60, 60.0), (1000, 3600.0)]


def made(limits: list[tuple[int, float]] = LIMITS, reserve: float = 0.1) -> Permits:
    return Permits(limits, reserve=reserve, member="m")


def granted(urgent: int = 0, common: int = 0, **more: object) -> Granted:
    return Granted(urgent, common, 0.0, 0.0, (0, 0), (60, 1000), 0.0, 0.0)._replace(**more)  # type: ignore[arg-type]


def ask(permits: Permits, now: float, key: str = "k") -> Ask:
    return permits.ask(now, key, first_use=False)


def take(permits: Permits, now: float, *, urgent: bool = True) -> None:
    """Wants one, asks for it, gets it, and uses it."""
    if not permits.acquire(now, urgent=urgent):
        asked = ask(permits, now)
        permits.granted(now, granted(len(asked.urgent), len(asked.common)))
        assert permits.acquire(now, urgent=urgent)


def test_a_call_without_a_permit_waits_and_says_so() -> None:
    """The question names one; the answer lets one call leave, and not a second one."""
    permits = made()
    assert not permits.acquire(0.0, urgent=True)
    assert permits.take_untold() and not permits.take_untold()
    assert permits.earliest(0.0, urgent=True) == NEVER
    asked = ask(permits, 0.0)
    assert (len(asked.urgent), len(asked.common)) == (1, 0)
    permits.granted(0.5, granted(1))
    assert permits.earliest(0.5, urgent=True) == 0.5
    assert permits.acquire(0.5, urgent=True)
    assert permits.slot.leave_by == USE_SECONDS, "from when it was asked for, not from when the answer came"
    assert not permits.acquire(0.5, urgent=True)


def test_the_question_carries_what_the_windows_are() -> None:
    """With the reserve, and with the numbers by which calls are paced."""
    asked = ask(made(), 0.0)
    assert asked.windows[0] == CountedWindow(60, 60.0, 6)
    assert asked.hold_seconds == USE_SECONDS + 10.0 + 60.0
    assert asked.rules == RULES
    assert ask(made(reserve=0.0), 0.0).windows[0] == CountedWindow(60, 60.0, 0)


def test_who_is_urgent_may_use_anybodys_permit_and_nobody_may_use_theirs() -> None:
    """Their own first."""
    permits = made()
    permits.acquire(0.0, urgent=True)
    permits.acquire(0.0)
    asked = ask(permits, 0.0)
    assert asked.urgent[0].endswith("u") and asked.common[0].endswith("c")
    permits.granted(0.0, granted(1, 1))
    assert permits.acquire(0.0, urgent=True)
    assert permits.slot.urgent  # type: ignore[attr-defined]
    assert permits.acquire(0.0, urgent=True)
    permits.unsent(urgent=True, slot=permits.slot)
    assert permits.acquire(0.0)
    permits.acquire(0.0, urgent=True)
    ask(permits, 0.0)
    permits.granted(0.0, granted(1))
    assert not permits.acquire(0.0)


def test_a_permit_that_ran_out_lets_nothing_leave_and_is_given_back() -> None:
    """Also one that a call held meanwhile without leaving."""
    permits = made()
    take(permits, 0.0)
    permits.unsent(urgent=True, slot=permits.slot)
    assert permits.in_flight == 0
    assert not permits.acquire(USE_SECONDS, urgent=True)
    assert [each.ago_seconds for each in ask(permits, USE_SECONDS).ended] == [None]


def test_ends_are_told_with_their_age_until_it_is_known_that_they_were() -> None:
    """Answered, unanswered, and what a question asked for in vain."""
    permits = made([(10, 60.0)])
    take(permits, 0.0)
    one = permits.slot
    take(permits, 0.0)
    permits.answered(1.0, one)
    permits.unanswered(2.0, permits.slot)
    permits.acquire(3.0)
    asked = ask(permits, 3.0)
    assert asked.ended == (EndOfCall("m.0u", 2.0), EndOfCall("m.1u", 1.0 - 60.0))
    permits.failed(4.0, "no answer")
    again = ask(permits, 5.0)
    assert again.ended[:2] == (EndOfCall("m.0u", 4.0), EndOfCall("m.1u", 3.0 - 60.0))
    assert again.ended[2:] == (EndOfCall(asked.common[0], None),) and again.common != asked.common
    permits.granted(5.0, granted(0, 1, used=(2,), most=(10,)))
    assert ask(permits, 5.1).ended == ()


def test_what_counts_as_ended_anyhow_is_not_told_any_more() -> None:
    """So an outage of the ledger keeps a bounded list."""
    permits = made()
    take(permits, 0.0)
    permits.answered(0.0, permits.slot)
    assert ask(permits, 80.0).ended == ()


def test_unused_permits_go_back_soon() -> None:
    """Others may want them; the next question then asks for one only."""
    permits = made([(600, 60.0)])
    for _ in range(4):
        take(permits, 0.0)
    assert len(ask_wanted(permits, 0.0)) > 1
    permits.granted(0.0, granted(4, used=(0,), most=(600,)))
    assert permits.next_deadline() == KEEP_SECONDS
    assert [each.ago_seconds for each in ask(permits, KEEP_SECONDS).ended] == [None] * 4
    permits.granted(KEEP_SECONDS, granted(used=(0,), most=(600,)))
    assert len(ask_wanted(permits, KEEP_SECONDS)) == 1


def ask_wanted(permits: Permits, now: float) -> tuple[str, ...]:
    while permits.acquire(now, urgent=True):
        pass
    return ask(permits, now).urgent


@pytest.mark.parametrize(("limit", "most"), [(10, 1), (60, 2), (100_000, AHEAD_MAX)])
def test_more_is_asked_for_while_all_of_it_is_granted(limit: int, most: int) -> None:
    """1, 2, 4 … up to a fiftieth of the limit: who dies withholds no more."""
    permits = made([(limit, 60.0)])
    counts = []
    for _ in range(8):
        asked = ask_wanted(permits, 0.0)
        counts.append(len(asked))
        permits.granted(0.0, granted(len(asked), used=(0,), most=(limit,)))
    assert counts[:2] == [1, min(2, most)] and counts[-1] == most


def test_after_a_denial_it_is_asked_when_that_is_worth_it() -> None:
    """The moment is the ledger's; a kind that was not denied need not wait."""
    permits = made()
    permits.acquire(0.0)
    ask(permits, 0.0)
    permits.granted(0.0, granted(0, 0, wait_common_seconds=4.0))
    assert not permits.acquire(1.0)
    assert not permits.take_untold()
    assert permits.earliest(1.0) == 4.0
    assert permits.next_deadline() == 4.0
    assert ask(permits, 1.0).common == ()
    permits.granted(1.0, granted())
    assert not permits.acquire(1.0, urgent=True)
    assert permits.take_untold()
    assert permits.earliest(4.0) == NEVER
    assert len(ask(permits, 4.0).common) == 1


def test_while_an_answer_is_awaited_nothing_else_is_asked() -> None:
    """What is wanted meanwhile is asked for next."""
    permits = made()
    ask(permits, 0.0)
    assert permits.next_deadline() == NEVER
    assert not permits.acquire(0.0, urgent=True)
    assert not permits.take_untold()
    permits.granted(0.0, granted())
    assert permits.next_deadline() <= 0.0


def test_in_trouble_nothing_leaves_and_questions_become_rarer() -> None:
    """What was wanted stays wanted; an answer ends it."""
    permits = made()
    permits.acquire(0.0)
    permits.acquire(0.0, urgent=True)
    now, waits = 0.0, []
    for _ in range(8):
        asked = ask(permits, now)
        assert (len(asked.urgent), len(asked.common)) == (1, 1)
        permits.failed(now, "refused")
        assert permits.trouble == "refused"
        assert permits.earliest(now) == permits.next_deadline()
        waits.append(permits.next_deadline() - now)
        now = permits.next_deadline()
    assert waits[0] == pytest.approx(RETRY_SECONDS) and waits[-1] == pytest.approx(RETRY_SECONDS_MAX)
    ask(permits, now)
    permits.granted(now, granted(1, 1))
    assert not permits.trouble
    assert permits.acquire(now) and permits.acquire(now, urgent=True)
    ask(permits, now)
    permits.failed(now, "refused")
    assert permits.next_deadline() == pytest.approx(now + RETRY_SECONDS)


def test_news_is_gathered_and_an_idle_instance_looks_now_and_then() -> None:
    """Ends half a second, a look each ten."""
    permits = made()
    ask(permits, 0.0)
    permits.granted(0.0, granted())
    assert permits.next_deadline() == LOOK_SECONDS
    take(permits, 0.0)
    permits.answered(3.0, permits.slot)
    assert permits.next_deadline() == 3.0 + TELL_SECONDS


def test_a_brake_is_told_to_all_and_heard_from_all() -> None:
    """With the wait that the answer asked for, once in a burst of refusals."""
    permits = made()
    take(permits, 0.0)
    assert permits.throttled(1.0, 30.0) == 31.0
    assert permits.take_untold() and permits.next_deadline() <= 1.0
    assert not permits.acquire(2.0, urgent=True)
    assert permits.earliest(2.0, urgent=True) == 31.0
    assert ask(permits, 2.0).brake == Brake(29.0, 30.0)
    permits.throttled(2.0, 100.0)
    permits.granted(2.0, granted())
    assert ask(permits, 3.0).brake == Brake(99.0, None), "the first one explains the second"
    permits.granted(3.0, granted())
    assert ask(permits, 4.0).brake is None
    permits.granted(4.0, granted(brake_seconds=500.0))
    assert permits.braked_until(5.0) == 504.0


def test_whether_there_is_room_is_what_the_ledger_said_last() -> None:
    """For a 429 may be a guardrail's where there is; and status shows what all use."""
    permits = made()
    ask(permits, 0.0)
    permits.granted(0.0, granted(used=(60, 70)))
    assert not permits.has_room(0.0)
    permits.throttled(0.0, None)
    assert ask(permits, 0.0).brake == Brake(1.0, 0.0)
    permits.granted(0.0, granted(used=(59, 70), lost_seconds=5.0))
    assert permits.has_room(0.0) and permits.lost_seconds == 5.0
    assert [window.used for window in permits.snapshot(0.0)] == [59, 70]


def test_another_api_key_is_another_quota() -> None:
    """What was granted for the former one is void, and its ends are nobody's business any more."""
    permits = made()
    take(permits, 0.0)
    permits.answered(0.0, permits.slot)
    permits.acquire(0.0, urgent=True)
    ask(permits, 0.0)
    permits.granted(0.0, granted(1))
    assert ask(permits, 0.0, "another").ended == ()
    permits.granted(0.0, granted())
    assert not permits.acquire(0.0, urgent=True)


def test_who_ends_gives_back_what_is_in_hand() -> None:
    """And wants nothing any more."""
    permits = made()
    permits.acquire(0.0, urgent=True)
    ask(permits, 0.0)
    permits.granted(0.0, granted(1))
    permits.acquire(0.0)
    permits.leave(0.1)
    asked = ask(permits, 0.1)
    assert asked.ended == (EndOfCall("m.0u", None),) and asked.common == ()
