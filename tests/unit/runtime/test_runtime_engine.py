"""The engine over fakes on a virtual clock: order, back-pressure, commits, dead letters, drains."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from structlog.testing import capture_logs

from bridge.core.progress import STARTED_EXTRA, Progress, decode, started_limit
from bridge.core.retry import Policy
from bridge.model import Assigned, Call, LetterKind, Outcome, Position, TopicPartition, Verdict
from tests.support.engine import P0, P1, House, record
from tests.support.fakes import DELIVERED, FakeLetters, FakeMeisa
from tests.support.virtual import run

UNAVAILABLE = Outcome(Verdict.RETRY, 503, "unavailable")
REFUSED = Outcome(Verdict.REFUSED, 400, "bad email")


def virtually(coroutine: Coroutine[Any, Any, None]) -> None:
    run(coroutine)


def test_events_of_a_contact_go_one_after_the_other_and_contacts_in_parallel() -> None:
    """Ten contacts with ten events each at 50 ms: ten rounds, ten calls at a time, each contact in order."""

    async def story() -> None:
        house = House()
        house.source.assign(P0)
        house.source.feed([record(offset, f"{offset % 10}@x") for offset in range(100)])
        await asyncio.sleep(0.05 * 10 + 0.2)
        assert len(house.meisa.done) == 100
        assert house.meisa.active_max == 10
        assert house.meisa.overlaps == 0
        for contact in range(10):
            seqs = house.seqs(f"{contact}@x")
            assert seqs == sorted(seqs) and len(seqs) == 10
        assert house.source.committed == {P0: 100}

    virtually(story())


def test_a_contact_in_two_partitions_is_still_one_at_a_time() -> None:
    """Partitions are no lanes: the same contact never has two calls in flight."""

    async def story() -> None:
        house = House()
        house.source.assign(P0, P1)
        for offset in range(20):
            house.source.feed([record(offset, partition=0), record(offset, partition=1)])
        await asyncio.sleep(3)
        assert len(house.meisa.done) == 40
        assert house.meisa.overlaps == 0

    virtually(story())


def test_calls_in_flight_are_bounded() -> None:
    """However many contacts are ready, only `max_in_flight` calls are out."""

    async def story() -> None:
        house = House(max_in_flight=7)
        house.source.assign(P0)
        house.source.feed([record(offset, f"{offset}@x") for offset in range(100)])
        await asyncio.sleep(2)
        assert len(house.meisa.done) == 100
        assert house.meisa.active_max == 7

    virtually(story())


def test_one_stuck_contact_holds_back_the_frontier_and_nobody_else() -> None:
    """Commits stay below the event that is retried; the rest is delivered."""

    async def story() -> None:
        stuck = {"is": True}
        house = House(meisa=FakeMeisa(lambda c: UNAVAILABLE if stuck["is"] and c.body["email"] == "3@x" else DELIVERED))  # type: ignore[index]
        house.source.assign(P0)
        house.source.feed([record(offset, f"{offset % 10}@x") for offset in range(100)])
        await asyncio.sleep(60)
        assert len({tuple(c.body.items()) for c in house.meisa.calls if c.body}) == 91  # 90 others, one of 3@x
        assert house.source.committed == {P0: 3}
        stuck["is"] = False
        await asyncio.sleep(120)
        assert house.source.committed == {P0: 100}
        assert sorted(set(house.seqs("3@x"))) == list(range(3, 100, 10))

    virtually(story())


def test_a_full_window_pauses_its_partition_and_half_of_it_resumes() -> None:
    """Records beyond the window are held in order, and the source is paused meanwhile: bounded, nothing lost."""

    async def story() -> None:
        house = House(window_max=10)
        house.source.assign(P0, P1)
        house.source.feed([record(offset) for offset in range(30)])
        house.source.feed([record(0, "b@x", partition=1)])
        await asyncio.sleep(0.01)
        assert house.source.paused == {P0}
        assert house.engine.partitions[P0].offsets.window == 10
        assert len(house.engine.partitions[P0].held) == 20
        await asyncio.sleep(10)
        assert house.seqs("a@x") == list(range(30))
        assert house.source.paused == set()
        assert house.source.committed == {P0: 30, P1: 1}
        assert house.source.pauses < 5, "pausing drops the prefetch: it needs hysteresis"

    virtually(story())


def test_a_backlog_of_filtered_events_passes_a_full_window_without_recursion() -> None:
    """Thousands of held records that finish at once must not nest."""

    async def story() -> None:
        house = House(window_max=10)
        house.source.assign(P0)
        house.source.feed([record(offset) for offset in range(11)])
        house.source.feed([record(offset, do=[]) for offset in range(11, 20_000)])
        await asyncio.sleep(5)
        assert house.source.committed == {P0: 20_000}
        assert house.endings() == {"delivered": 11, "filtered": 19_989}

    virtually(story())


def test_the_number_of_waiting_actions_is_bounded_over_all_partitions() -> None:
    """Where the total is reached every partition waits, and goes on together."""

    async def story() -> None:
        house = House(pending_max=20)
        house.source.assign(P0, P1)
        for partition in (0, 1):
            house.source.feed([record(offset, f"{partition}@x", partition=partition) for offset in range(50)])
        await asyncio.sleep(0.01)
        assert house.delivery.pending == 20
        assert house.source.paused == {P0, P1}
        await asyncio.sleep(10)
        assert house.source.committed == {P0: 50, P1: 50}
        assert house.source.paused == set()

    virtually(story())


def test_partitions_paused_by_the_total_go_on_when_others_are_taken_away() -> None:
    """No finish says that there is room again: the revocation itself must."""

    async def story() -> None:
        house = House(pending_max=20, meisa=FakeMeisa(latency=0.05))
        house.source.assign(P0, P1)
        house.source.feed([record(offset, "a@x", partition=1) for offset in range(20)])
        house.source.feed([record(offset, f"{offset}@x") for offset in range(5)])
        assert house.source.paused == {P0}
        await house.source.revoke(P1)
        await asyncio.sleep(1)
        assert house.source.committed[P0] == 5
        assert house.source.paused == set()

    virtually(story())


def test_partitions_paused_by_the_total_go_on_when_late_calls_of_lost_ones_end() -> None:
    """Calls of a lost partition count until they are answered; their end makes room, and no finish tells of it."""

    async def story() -> None:
        house = House(pending_max=5, meisa=FakeMeisa(latency=5.0))
        house.source.assign(P0)
        house.source.feed([record(offset, f"{offset}@x") for offset in range(5)])
        await asyncio.sleep(1)
        house.source.lose(P0)
        house.source.assign(P0)
        house.source.feed([record(offset, f"{offset}@x") for offset in range(5)])
        await asyncio.sleep(30)
        assert house.source.committed == {P0: 5}

    virtually(story())


def test_a_record_that_comes_twice_is_carried_once() -> None:
    """A source that repeats itself within an assignment causes no second call."""

    async def story() -> None:
        house = House()
        house.source.assign(P0)
        house.source.feed([record(0), record(1)])
        house.source.feed([record(1), record(2)])
        await asyncio.sleep(1)
        assert house.seqs() == [0, 1, 2]

    virtually(story())


# Dead letters


def test_bad_records_become_dead_letters_and_nothing_stops() -> None:
    """A record that cannot be decoded, a failed rule and a refused call: each with its kind; good ones go on."""

    async def story() -> None:
        house = House(meisa=FakeMeisa(lambda c: REFUSED if c.body["email"] == "bad" else DELIVERED))  # type: ignore[index]
        house.source.assign(P0)
        broken = record(0)._replace(value=b"{")
        tombstone = record(1)._replace(value=None)
        house.source.feed([broken, tombstone, record(2, fail=True), record(3, "bad"), record(4)])
        await asyncio.sleep(1)
        letters = {letter.record.offset: letter for letter in house.letters.letters}
        assert {offset: letter.kind for offset, letter in letters.items()} == {
            0: LetterKind.DECODE,
            2: LetterKind.RULE,
            3: LetterKind.REJECTED,
        }
        assert letters[2].rule == "broken" and letters[2].undelivered == ()
        assert letters[3].status == 400 and letters[3].undelivered == (0,)
        assert letters[3].failed_at_wall_seconds > 0
        assert house.seqs() == [2, 3, 4], "the other rule of the failed event was carried out"
        assert house.endings() == {"dead_lettered": 3, "filtered": 1, "delivered": 1}
        assert house.source.committed == {P0: 5}

    virtually(story())


def test_an_offset_waits_for_its_dead_letters_acknowledgement() -> None:
    """While the dead-letter topic refuses, the frontier stays; the letter is written again and again."""

    async def story() -> None:
        house = House(letters=FakeLetters(refusals=5))
        house.source.assign(P0)
        house.source.feed([record(0)._replace(value=b"{"), record(1)])
        await asyncio.sleep(3)
        assert house.letters.letters == []
        assert house.source.committed.get(P0, 0) == 0
        assert [waiting.reason for waiting in house.engine.waiting()] == ["dead_letters"]
        await asyncio.sleep(60)
        assert len(house.letters.letters) == 1
        assert house.source.committed == {P0: 2}
        assert house.engine.waiting() == []
        assert [house.meter.counts["letter_tried", result] for result in ("error", "ok")] == [5, 1]

    virtually(story())


def test_an_upsert_refused_takes_its_track_with_it_and_leaves_the_trigger() -> None:
    """The letter names both undelivered actions by position and id; the third action went out."""

    async def story() -> None:
        house = House(meisa=FakeMeisa(lambda c: REFUSED if c.endpoint == "upsert" else DELIVERED))
        house.source.assign(P0)
        house.source.feed([record(0, do=["upsert", "track", "trigger"])])
        await asyncio.sleep(1)
        (letter,) = house.letters.letters
        assert (letter.action, letter.undelivered) == ("upsert", (0, 1))
        assert len(set(letter.undelivered_ids)) == 2
        assert [call.endpoint for call in house.meisa.calls] == ["upsert", "trigger"]

    virtually(story())


def test_two_refused_actions_are_two_letters() -> None:
    """Each cause has its own status and message."""

    async def story() -> None:
        house = House(meisa=FakeMeisa(lambda c: REFUSED))
        house.source.assign(P0)
        house.source.feed([record(0, do=["upsert", "trigger"])])
        await asyncio.sleep(1)
        assert [(letter.action, letter.undelivered) for letter in house.letters.letters] == [
            ("upsert", (0,)),
            ("trigger", (1,)),
        ]
        assert house.source.committed == {P0: 1}

    virtually(story())


def test_history_is_finished_as_expired_and_not_sent() -> None:
    """Too old when first read: no call and no letter; the event's other actions are carried out."""

    async def story() -> None:
        house = House()
        house.source.assign(P0)
        house.source.feed([record(0, max_age=60, wall=1_700_000_000), record(1, max_age=60)])
        await asyncio.sleep(1)
        assert house.seqs() == [1]
        assert house.endings() == {"expired": 1, "delivered": 1}
        assert house.letters.letters == []

    virtually(story())


def test_what_became_too_old_while_the_window_was_full_is_a_dead_letter() -> None:
    """It was fresh when it came, and waited here: that is no history."""

    async def story() -> None:
        house = House(limits=[(1, 60.0)], window_max=2)
        house.source.assign(P0)
        house.source.feed([record(offset, max_age=90) for offset in range(6)])
        await asyncio.sleep(400)
        assert len(house.letters.letters) == 6 - len(house.meisa.done)
        assert {letter.kind for letter in house.letters.letters} == {LetterKind.EXPIRED}
        assert house.endings().get("expired") is None

    virtually(story())


def test_too_old_by_waiting_for_the_quota_is_a_dead_letter() -> None:
    """It was fresh when it was read: somebody must know that it never went out."""

    async def story() -> None:
        house = House(limits=[(1, 60.0)])
        house.source.assign(P0)
        house.source.feed([record(0), record(1, max_age=30)])
        await asyncio.sleep(200)
        assert house.seqs() == [0]
        assert [letter.kind for letter in house.letters.letters] == [LetterKind.EXPIRED]
        assert house.source.committed == {P0: 2}

    virtually(story())


# Quota and keys


def test_no_minute_has_more_calls_than_the_quota_however_many_wait() -> None:
    """Ten a minute: after 150 s thirty calls went out, in three rounds, and the rest waits visibly."""

    async def story() -> None:
        house = House(limits=[(10, 60.0)])
        house.source.assign(P0)
        house.source.feed([record(offset, f"{offset}@x") for offset in range(100)])
        await asyncio.sleep(150)
        assert len(house.meisa.done) == 30
        assert [waiting.reason for waiting in house.engine.waiting()] == ["quota"]

    virtually(story())


def test_retry_after_holds_all_calls_of_the_key() -> None:
    """One 429 stops everybody until its moment; no attempt is counted, nothing is lost."""

    async def story() -> None:
        throttle = [Outcome(Verdict.THROTTLED, 429, retry_after_seconds=30.0)]
        house = House(meisa=FakeMeisa(lambda c: throttle.pop() if throttle else DELIVERED))
        house.source.assign(P0)
        house.source.feed([record(0, "a@x")])
        await asyncio.sleep(1)
        house.source.feed([record(offset, f"{offset}@x") for offset in range(1, 10)])
        await asyncio.sleep(28)
        assert house.seqs() == [0]
        assert [waiting.reason for waiting in house.engine.waiting()] == ["throttled"]
        await asyncio.sleep(3)
        assert len(house.meisa.done) == 11
        assert house.source.committed == {P0: 10}

    virtually(story())


def test_a_refused_key_stops_all_and_loses_nothing() -> None:
    """401: no further call, no commit beyond, no letter; everything goes out once the key works."""

    async def story() -> None:
        key = {"works": False}
        meisa = FakeMeisa(lambda c: DELIVERED if key["works"] else Outcome(Verdict.KEY_REFUSED, 401))
        house = House(meisa=meisa, max_in_flight=4)
        house.source.assign(P0)
        house.source.feed([record(offset, f"{offset}@x") for offset in range(20)])
        await asyncio.sleep(3600)
        assert len(house.meisa.calls) == 4
        assert house.refused_keys == ["default"], "told once"
        assert house.source.committed.get(P0, 0) == 0 and house.letters.letters == []
        assert [waiting.reason for waiting in house.engine.waiting()] == ["key_refused"]
        key["works"] = True
        house.delivery.key_works("default")
        await asyncio.sleep(5)
        assert house.source.committed == {P0: 20}

    virtually(story())


def test_urgent_calls_go_before_others_that_wait() -> None:
    """With one call a minute the transactional one goes next, though it came last."""

    async def story() -> None:
        house = House(limits=[(1, 60.0)])
        house.source.assign(P0)
        house.source.feed([record(0, "a@x"), record(1, "b@x"), record(2, "c@x", lane="transactional")])
        await asyncio.sleep(150)
        assert house.seqs() == [2, 0, 1]

    virtually(story())


def test_independent_actions_do_not_wait_for_their_contact() -> None:
    """`order: independent` leaves at once, beside the contact's other calls."""

    async def story() -> None:
        house = House()
        house.source.assign(P0)
        house.source.feed([record(0), record(1), record(2, independent=True)])
        await asyncio.sleep(0.02)
        assert house.seqs() == [0, 2]

    virtually(story())


# Commits and progress


def test_what_was_done_beyond_the_frontier_is_not_done_again_after_a_restart() -> None:
    """A stuck contact holds the frontier; what others finished meanwhile is told in the commit, and skipped later."""

    async def story() -> None:
        house = House(meisa=FakeMeisa(lambda c: UNAVAILABLE if c.body["email"] == "0@x" else DELIVERED))  # type: ignore[index]
        records = [record(offset, f"{offset % 10}@x") for offset in range(50)]
        house.source.assign(P0)
        house.source.feed(records)
        await asyncio.sleep(2)
        await house.source.revoke(P0)
        assert house.source.committed == {P0: 0}
        again = House()
        again.source.committed, again.source.metadata = house.source.committed, house.source.metadata
        again.source.assign(P0)
        again.source.feed(records)
        await asyncio.sleep(3)
        assert again.seqs() == list(range(0, 50, 10))
        assert again.source.committed == {P0: 50}
        assert again.source.metadata == {P0: ""}

    virtually(story())


def test_a_crash_repeats_only_what_was_not_committed_yet() -> None:
    """Nothing is drained and nothing committed at the end: the commits on the way are enough."""

    async def story() -> None:
        house = House(max_in_flight=5)
        records = [record(offset, f"{offset}@x") for offset in range(100)]
        house.source.assign(P0)
        house.source.feed(records)
        await asyncio.sleep(0.62)
        assert 50 <= len(house.meisa.done) < 100
        again = House()
        again.source.committed, again.source.metadata = dict(house.source.committed), dict(house.source.metadata)
        done = {call.body["seq"] for call in house.meisa.done if call.body}
        again.source.assign(P0)
        again.source.feed(records)
        await asyncio.sleep(3)
        repeated = done & set(again.seqs())
        assert done | set(again.seqs()) == set(range(100)), "nothing is lost"
        assert len(repeated) <= 15, "0.1 s until a commit, 8 ms on its way: at most three rounds of five calls"

    virtually(story())


def test_delivered_actions_of_an_unfinished_event_are_not_sent_again() -> None:
    """Its upsert and track went out while its trigger waits: after the restart only the trigger does."""

    async def story() -> None:
        house = House(meisa=FakeMeisa(lambda c: UNAVAILABLE if c.endpoint == "trigger" else DELIVERED))
        one = record(0, do=["upsert", "track", "trigger"])
        house.source.assign(P0)
        house.source.feed([one])
        await asyncio.sleep(2)
        await house.source.revoke(P0)
        again = House()
        again.source.committed, again.source.metadata = house.source.committed, house.source.metadata
        again.source.assign(P0)
        again.source.feed([one])
        await asyncio.sleep(1)
        assert [call.endpoint for call in again.meisa.calls] == ["trigger"]
        assert again.endings() == {"delivered": 1}
        assert again.source.committed == {P0: 1}

    virtually(story())


# Triggers: no email twice


TRIGGER_IN_DOUBT = Outcome(Verdict.UNKNOWN, None, "no answer")


def test_a_trigger_in_doubt_that_waits_for_its_retry_stops_nobody() -> None:
    """Doubtful triggers hold all places for marks; others wait for one without holding a slot, a probe or the quota."""

    async def story() -> None:
        doubt = {"on": True}
        house = House(
            meisa=FakeMeisa(lambda c: TRIGGER_IN_DOUBT if c.endpoint == "trigger" and doubt["on"] else DELIVERED),
            max_in_flight=8,
        )
        house.source.assign(P0)
        house.source.feed([record(offset, f"{offset}@x", do=["trigger"]) for offset in range(100)])
        house.source.feed([record(offset, f"{offset}@x") for offset in range(100, 120)])
        await asyncio.sleep(300)
        assert sum(call.endpoint == "upsert" for call in house.meisa.done) == 20
        assert house.engine.partitions[P0].offsets.started_count <= started_limit(4096) + STARTED_EXTRA
        doubt["on"] = False
        await asyncio.sleep(200)
        assert house.source.committed == {P0: 120}
        assert house.letters.letters == []

    virtually(story())


def test_a_delivered_trigger_is_never_forgotten_however_many_events_are_half_done() -> None:
    """Two hundred events whose first actions are delivered while their last one waits: after a restart two hours later
    no trigger that went out goes out again."""

    async def story() -> None:
        house = House(meisa=FakeMeisa(lambda c: UNAVAILABLE if c.endpoint == "enroll" else DELIVERED))
        records = [record(offset, f"{offset}@x", do=["track", "trigger", "enroll"]) for offset in range(200)]
        house.source.assign(P0)
        house.source.feed(records)
        await asyncio.sleep(600)
        assert len(house.source.metadata[P0]) <= 4096
        sent = {call.body["seq"] for call in house.meisa.calls if call.endpoint == "trigger" and call.body}
        assert sent
        again = after_a_crash(house, hours=2)
        again.source.feed(records)
        await asyncio.sleep(600)
        repeated = {call.body["seq"] for call in again.meisa.calls if call.endpoint == "trigger" and call.body}
        assert sent.isdisjoint(repeated)
        assert sent | repeated == set(range(200))
        assert again.source.committed == {P0: 200}

    virtually(story())


def test_many_events_with_two_triggers_do_not_hold_each_other_up() -> None:
    """Each holds a place for its first trigger and waits for one for its second: the frontier's always finds one."""

    async def story() -> None:
        house = House()
        house.source.assign(P0)
        house.source.feed([record(offset, f"{offset}@x", do=["trigger", "trigger"]) for offset in range(100)])
        await asyncio.sleep(60)
        assert house.source.committed == {P0: 100}
        assert house.engine.waiting() == []

    virtually(story())


def test_a_trigger_leaves_only_after_a_commit_told_that_it_starts() -> None:
    """Whatever else leaves at once; while Kafka acknowledges nothing, no email goes out."""

    async def story() -> None:
        house = House()
        house.source.answer_commits = False
        house.source.assign(P0)
        house.source.feed([record(0, "a@x", do=["trigger"]), record(1, "b@x", do=["track"])])
        await asyncio.sleep(30)
        assert [call.endpoint for call in house.meisa.calls] == ["track"]
        house.source.answer_commits = True
        house.engine.committed(house.source.unanswered[-1], "no answer in time")
        await asyncio.sleep(2)
        assert [call.endpoint for call in house.meisa.calls] == ["track", "trigger"]
        assert house.source.committed == {P0: 2}
        assert house.source.metadata == {P0: ""}, "a mark is cleared with its action"

    virtually(story())


def told(house: House) -> Progress:
    """What the last acknowledged commit of P0 says beside its offset."""
    return decode(house.source.committed[P0], house.source.metadata[P0]) or Progress(0)


def after_a_crash(house: House, hours: float) -> House:
    """The next process on what the first one's commits told, so much later."""
    again = House()
    again.source.committed, again.source.metadata = dict(house.source.committed), dict(house.source.metadata)
    again.clock.wall_offset = house.clock.wall() - again.clock.wall() + hours * 3600
    again.source.assign(P0)
    return again


def test_a_crash_while_a_trigger_is_under_way_repeats_it_under_its_key_within_the_hour() -> None:
    """It may have been sent: the same key makes the repeat harmless."""

    async def story() -> None:
        house = House(meisa=FakeMeisa(latency=60.0))
        one = record(0, do=["trigger"])
        house.source.assign(P0)
        house.source.feed([one])
        await asyncio.sleep(1)
        assert len(house.meisa.calls) == 1
        again = after_a_crash(house, hours=0.5)
        again.source.feed([one])
        await asyncio.sleep(1)
        assert [call.body["idempotency_key"] for call in again.meisa.calls if call.body] == [
            call.body["idempotency_key"] for call in house.meisa.calls if call.body
        ]

    virtually(story())


def test_a_crash_while_a_trigger_is_under_way_parks_it_after_the_hour() -> None:
    """Meisa has forgotten its key: a repeat could be a second email, so a person decides."""

    async def story() -> None:
        house = House(meisa=FakeMeisa(latency=60.0))
        one = record(0, do=["trigger"], max_age=60)
        house.source.assign(P0)
        house.source.feed([one])
        await asyncio.sleep(1)
        again = after_a_crash(house, hours=1)
        again.source.feed([one])
        await asyncio.sleep(1)
        assert again.meisa.calls == []
        assert [letter.kind for letter in again.letters.letters] == [LetterKind.UNKNOWN_OUTCOME]
        assert again.source.committed == {P0: 1}

    virtually(story())


def test_a_trigger_that_was_only_marked_is_sent_after_a_restart() -> None:
    """A planned stop between mark and sending leaves no doubt behind."""

    async def story() -> None:
        house = House()
        house.source.assign(P0)
        house.source.feed([record(0, do=["trigger"])])
        await asyncio.sleep(0.001)
        await house.source.revoke(P0)
        assert house.meisa.calls == []
        again = after_a_crash(house, hours=2)
        again.source.feed([record(0, do=["trigger"])])
        await asyncio.sleep(1)
        assert len(again.meisa.calls) == 1

    virtually(story())


def test_the_first_mark_is_never_renewed() -> None:
    """An outage of hours: repeats go on within the window of the first send; then it is parked: nothing answered."""

    async def story() -> None:
        house = House(meisa=FakeMeisa(lambda call: TRIGGER_IN_DOUBT))
        house.source.assign(P0)
        house.source.feed([record(0, do=["trigger"])])
        await asyncio.sleep(3 * 3600)
        sent_after = len(house.meisa.calls)
        assert sent_after > 50
        assert [letter.kind for letter in house.letters.letters] == [LetterKind.UNKNOWN_OUTCOME]
        assert house.source.committed == {P0: 1}

    virtually(story())


def test_an_attempt_known_to_be_unsent_leaves_no_mark() -> None:
    """A refused connection or a 429 is no doubt: a later crash finds a trigger that never started."""

    async def story() -> None:
        never = Outcome(Verdict.RETRY, None, "refused", "never_sent")
        house = House(meisa=FakeMeisa(lambda call: never))
        house.source.assign(P0)
        house.source.feed([record(0, do=["trigger"])])
        await asyncio.sleep(20)
        while told(house).started:  # an attempt under way at the very moment of the crash is a doubt
            await asyncio.sleep(0.05)
        again = after_a_crash(house, hours=5)
        again.source.feed([record(0, do=["trigger"])])
        await asyncio.sleep(1)
        assert len(again.meisa.calls) == 1

    virtually(story())


def test_marks_are_bounded_and_the_rest_of_the_triggers_waits_its_turn() -> None:
    """A hundred triggers of one partition with room for two dozen marks: all are sent, none without a mark."""

    async def story() -> None:
        house = House(max_in_flight=200, meisa=FakeMeisa(latency=1.0))
        house.source.assign(P0)
        house.source.feed([record(offset, f"{offset}@x", do=["trigger"]) for offset in range(100)])
        await asyncio.sleep(0.5)
        assert 0 < house.meisa.active <= started_limit(4096) + STARTED_EXTRA
        assert len(house.source.metadata[P0]) <= 4096
        await asyncio.sleep(20)
        assert len(house.meisa.done) == 100
        assert house.meisa.active_max <= started_limit(4096) + STARTED_EXTRA
        assert house.source.committed == {P0: 100}

    virtually(story())


def test_a_revocation_releases_triggers_that_wait_for_marks() -> None:
    """They are unsent: dropped at once, their quota given back, and the drain does not wait for them."""

    async def story() -> None:
        house = House(limits=[(40, 60.0)], max_in_flight=100)
        house.source.answer_commits = False
        house.source.assign(P0, P1)
        house.source.feed([record(offset, f"{offset}@x", do=["trigger"]) for offset in range(40)])
        await asyncio.sleep(1)
        house.source.lose(P0)
        house.source.answer_commits = True
        await asyncio.sleep(0.01)
        assert house.delivery.in_flight == 0
        house.source.feed([record(offset, f"{offset}@x", partition=1) for offset in range(40)])
        await asyncio.sleep(0.2)
        assert len(house.meisa.done) == 40, "the quota was given back"

    virtually(story())


def test_progress_survives_retention_that_passed_the_committed_offset() -> None:
    """Reading starts at the log's start; the text belongs to the offset that was committed, and still counts."""

    async def story() -> None:
        house = House(meisa=FakeMeisa(lambda c: UNAVAILABLE if c.body["email"] == "0@x" else DELIVERED))  # type: ignore[index]
        records = [record(offset, f"{offset % 10}@x") for offset in range(50)]
        house.source.assign(P0)
        house.source.feed(records)
        await asyncio.sleep(2)
        await house.source.revoke(P0)
        again = House()
        again.engine.assigned([Assigned(P0, 1, 15, house.source.metadata[P0], fresh=True, committed=0)])
        again.source.epoch = 1
        again.source.feed(records[15:])
        await asyncio.sleep(3)
        assert again.seqs() == [20, 30, 40]
        assert again.source.committed == {P0: 50}

    virtually(story())


def test_a_delivered_action_is_told_while_its_events_letter_waits() -> None:
    """An hour of a broken dead-letter topic, then a crash: what was delivered is not sent again."""

    async def story() -> None:
        house = House(letters=FakeLetters(refusals=1000))
        one = record(0, fail=True)
        house.source.assign(P0)
        house.source.feed([one])
        await asyncio.sleep(60)
        assert len(house.meisa.calls) == 1
        again = after_a_crash(house, hours=0)
        again.source.feed([one])
        await asyncio.sleep(5)
        assert again.meisa.calls == []
        assert len(again.letters.letters) == 1
        assert again.source.committed == {P0: 1}

    virtually(story())


def test_foreign_text_beside_the_offset_is_ignored() -> None:
    """Whatever stands there, work goes on from the offset; nothing is skipped because of it."""

    async def story() -> None:
        house = House()
        house.source.committed, house.source.metadata = {P0: 3}, {P0: "mb1:somebody else's"}
        house.source.assign(P0)
        house.source.feed([record(offset) for offset in range(3, 6)])
        await asyncio.sleep(1)
        assert house.seqs() == [3, 4, 5]

    virtually(story())


def test_a_start_that_was_chosen_is_committed_before_anything_is_read() -> None:
    """With `start: latest` a crash before the first commit would else jump over what came meanwhile."""

    async def story() -> None:
        house = House()
        house.source.fresh = True
        house.source.assign(P0, offset=700)
        await asyncio.sleep(1)
        assert house.source.committed == {P0: 700}

    virtually(story())


def test_an_idle_bridge_commits_nothing() -> None:
    """No commit without news: an idle group's offsets must be able to expire, and brokers have other work."""

    async def story() -> None:
        house = House()
        house.source.assign(P0)
        house.source.feed([record(0)])
        await asyncio.sleep(3600)
        assert house.meter.counts["committed", "ok"] == 2, "how far intake came, and that it finished"

    virtually(story())


def test_a_refused_commit_is_tried_again() -> None:
    """Only an acknowledged commit counts; a refusal loses nothing and stops nothing."""

    async def story() -> None:
        house = House()
        house.source.commit_error = "REBALANCE_IN_PROGRESS"
        house.source.assign(P0)
        house.source.feed([record(0)])
        await asyncio.sleep(5)
        assert house.source.committed == {}
        house.source.commit_error = None
        await asyncio.sleep(5)
        assert house.source.committed == {P0: 1}
        assert house.meter.counts["committed", "error"] > 1

    virtually(story())


def test_a_planned_revocation_repeats_nothing() -> None:
    """Calls in flight are awaited and committed, what was not sent is dropped: the next owner sends the rest once."""

    async def story() -> None:
        house = House(max_in_flight=5)
        house.source.assign(P0, P1)
        house.source.feed([record(offset, f"{offset}@x") for offset in range(40)])
        house.source.feed([record(offset, f"p{offset}@x", partition=1) for offset in range(40)])
        await asyncio.sleep(0.12)
        await house.source.revoke(P0)
        assert set(house.engine.partitions) == {P1}
        committed = house.source.committed[P0]
        sent = [
            call.body["email"] for call in house.meisa.calls if call.body and not call.body["email"].startswith("p")
        ]
        assert len(sent) == committed, "every call that left is committed"
        await asyncio.sleep(3)
        assert house.source.committed[P1] == 40
        house.source.assign(P0)
        house.source.feed([record(offset, f"{offset}@x") for offset in range(committed, 40)])
        await asyncio.sleep(3)
        assert house.source.committed[P0] == 40
        assert len(house.meisa.calls) == 80, "nothing twice"

    virtually(story())


def test_the_last_commit_does_not_wait_for_one_that_nobody_answers() -> None:
    """A commit under way when the revocation begins may never be answered: a new one is asked for."""

    async def story() -> None:
        house = House()
        house.source.assign(P0)
        house.source.answer_commits = False
        house.source.feed([record(0, do=["track"])])
        await asyncio.sleep(1)
        house.source.answer_commits = True
        await house.source.revoke(P0)
        assert house.source.committed == {P0: 1}

    virtually(story())


def test_a_rebalance_that_refuses_commits_does_not_block_the_revocation() -> None:
    """The partition is given up all the same; its next owner repeats."""

    async def story() -> None:
        house = House(revoke_seconds=100.0)
        house.source.assign(P0)
        house.source.feed([record(0)])
        await asyncio.sleep(0.06)
        house.source.commit_error = "ILLEGAL_GENERATION"
        begun = house.clock.now()
        await house.source.revoke(P0)
        assert house.clock.now() - begun < 5
        assert house.engine.partitions == {}

    virtually(story())


def test_a_drain_ends_with_its_budget() -> None:
    """A call that hangs longer than the budget is given up; its late answer touches nothing."""

    async def story() -> None:
        house = House(meisa=FakeMeisa(latency=60.0), revoke_seconds=5.0)
        house.source.assign(P0)
        house.source.feed([record(0)])
        await asyncio.sleep(1)
        begun = house.clock.now()
        await house.source.revoke(P0)
        assert house.clock.now() - begun == pytest.approx(3.75, abs=0.1), "a quarter is kept for the commit"
        assert house.source.committed.get(P0, 0) == 0
        house.source.assign(P0)
        await asyncio.sleep(120)
        assert house.source.committed.get(P0, 0) == 0, (
            "a result of the older assignment finished an offset of the new one"
        )

    virtually(story())


def test_a_call_that_hangs_does_not_make_the_others_repeat() -> None:
    """The last commit has its part of the budget, whatever uses up the rest."""

    async def story() -> None:
        house = House(revoke_seconds=10.0)
        slow, quick = house.meisa.send, FakeMeisa(latency=0.01).send
        house.meisa.latency = 600.0
        house.meisa.send = lambda call: (slow if call.body["seq"] == 0 else quick)(call)  # type: ignore[index,method-assign]
        house.source.answer_commits = False
        house.source.assign(P0)
        house.source.feed([record(offset, f"{offset}@x", do=["track"]) for offset in range(10)])
        await asyncio.sleep(1)
        house.source.answer_commits = True
        await house.source.revoke(P0)
        again = after_a_crash(house, hours=0)
        again.source.feed([record(offset, f"{offset}@x", do=["track"]) for offset in range(10)])
        await asyncio.sleep(1)
        assert again.seqs() == [0]

    virtually(story())


def test_a_revocation_waits_for_dead_letters_too() -> None:
    """A letter on its way is acknowledged and its offset committed before the partition goes."""

    async def story() -> None:
        house = House(letters=FakeLetters(refusals=2))
        house.source.assign(P0)
        house.source.feed([record(0)._replace(value=b"{")])
        await house.source.revoke(P0)
        assert len(house.letters.letters) == 1
        assert house.source.committed == {P0: 1}

    virtually(story())


def test_lost_partitions_commit_nothing() -> None:
    """Somebody else owns them already; calls in flight may end, and count nowhere."""

    async def story() -> None:
        house = House(meisa=FakeMeisa(latency=1.0))
        house.source.assign(P0)
        house.source.feed([record(offset, f"{offset}@x") for offset in range(3)])
        await asyncio.sleep(0.5)
        house.source.lose(P0)
        await asyncio.sleep(5)
        assert house.source.committed == {P0: 0}, "only how far intake had come, before"
        assert house.delivery.pending == 0
        assert house.meter.counts["rebalanced", "lost"] == 1

    virtually(story())


def test_records_of_an_older_assignment_are_ignored() -> None:
    """A batch that was on its way when the partition went and came back is read again anyway."""

    async def story() -> None:
        house = House()
        house.source.assign(P0)
        await house.source.revoke(P0)
        house.source.assign(P0)
        assert house.source.listener is not None
        house.source.listener.records([record(0)._replace(epoch=1)])
        await asyncio.sleep(1)
        assert house.meisa.calls == []

    virtually(story())


def test_stop_drains_and_commits() -> None:
    """SIGTERM: what is in flight ends, the rest stays for the next start."""

    async def story() -> None:
        house = House(max_in_flight=5)
        house.source.assign(P0)
        house.source.feed([record(offset, f"{offset}@x") for offset in range(40)])
        await asyncio.sleep(0.07)
        await house.engine.stop(25.0)
        assert house.source.closed
        assert house.source.committed == {P0: len(house.meisa.calls)}
        assert 0 < len(house.meisa.calls) < 40
        await house.delivery.close()

    virtually(story())


def test_a_retry_that_waits_does_not_hold_up_a_drain() -> None:
    """An action between two attempts is not in flight: its partition goes at once."""

    async def story() -> None:
        house = House(meisa=FakeMeisa(lambda c: UNAVAILABLE), policy=Policy(backoff_seconds=50.0))
        house.source.assign(P0)
        house.source.feed([record(0), record(1)])
        await asyncio.sleep(1)
        begun = house.clock.now()
        await house.source.revoke(P0)
        assert house.clock.now() - begun < 1
        assert house.delivery.pending == 0

    virtually(story())


def test_a_bug_in_one_records_path_stops_only_its_offset() -> None:
    """It is reported with its place; everything else goes on; nothing of it is committed."""

    def plan_with_a_bug(event: Any) -> Any:
        if event.data.get("bug"):
            raise RuntimeError("a bug")
        from tests.support.engine import plan

        return plan(event)

    async def story() -> None:
        house = House(plan=plan_with_a_bug)
        house.source.assign(P0)
        house.source.feed([record(0), record(1, bug=True), record(2)])
        await asyncio.sleep(1)
        assert house.seqs() == [0, 2]
        assert house.source.committed == {P0: 1}
        assert [(waiting.reason, waiting.detail) for waiting in house.engine.waiting()] == [("broken", "events/0/1")]

    virtually(story())


def test_a_client_that_raises_is_an_unanswered_call() -> None:
    """The port promises not to raise; if it does, the call may have been carried out and is repeated."""

    async def story() -> None:
        bugs = [RuntimeError("a bug")]

        def answer(call: Call) -> Outcome:
            if bugs:
                raise bugs.pop()
            return DELIVERED

        house = House(meisa=FakeMeisa(answer))
        house.source.assign(P0)
        house.source.feed([record(0)])
        await asyncio.sleep(5)
        assert house.source.committed == {P0: 1}
        assert house.meter.counts["called", "upsert", "unanswered"] == 1

    virtually(story())


def test_trouble_with_kafka_is_shown_until_records_come_again() -> None:
    """A broker that is away is no reason to end; a fatal error is."""

    async def story() -> None:
        house = House()
        house.source.assign(P0)
        house.engine.failed("all brokers are down", fatal=False)
        assert [(waiting.reason, waiting.detail) for waiting in house.engine.waiting()] == [
            ("kafka", "all brokers are down")
        ]
        house.source.feed([record(0)])
        assert house.failures == []
        house.engine.failed("fenced", fatal=True)
        assert house.failures == ["fenced"]
        await asyncio.sleep(1)

    virtually(story())


def test_an_answer_to_a_commit_of_a_partition_that_went_is_ignored() -> None:
    """It says nothing about the present assignment."""

    async def story() -> None:
        house = House()
        house.engine.committed([Position(P1, 7)], None)
        assert house.engine.partitions == {}

    virtually(story())


# Outage, poison, scopes, guardrails


def test_an_outage_costs_few_calls_and_dead_letters_nothing() -> None:
    """Six hours without Meisa: the breaker opens, probes go out now and then, and afterwards everything is delivered in
    order, with nothing dead-lettered."""

    async def story() -> None:
        outage = {"on": True}
        house = House(meisa=FakeMeisa(lambda call: UNAVAILABLE if outage["on"] else DELIVERED))
        house.source.assign(P0)
        house.source.feed([record(offset, f"{offset % 20}@x") for offset in range(200)])
        await asyncio.sleep(6 * 3600)
        assert len(house.meisa.calls) < 20 + 6 * 3600 / 45 + 20, "about a probe a minute, not 20 contacts' retries"
        assert [
            (waiting.reason, waiting.detail) for waiting in house.engine.waiting() if waiting.reason == "outage"
        ] == [("outage", "upsert: unavailable")]
        assert house.letters.letters == []
        outage["on"] = False
        await asyncio.sleep(180)
        assert house.source.committed == {P0: 200}
        for contact in range(20):
            seqs = list(dict.fromkeys(house.seqs(f"{contact}@x")))
            assert seqs == sorted(seqs)

    virtually(story())


def test_a_poison_event_cannot_keep_a_breaker_open() -> None:
    """After an outage one contact's calls fail for ever: probes rotate, another's succeeds, the rest goes on, and
    the poison ends as exhausted once its attempts and its age are used up."""

    async def story() -> None:
        outage = {"on": True}

        def answer(call: Call) -> Outcome:
            return UNAVAILABLE if outage["on"] or call.body["email"] == "0@x" else DELIVERED  # type: ignore[index]

        house = House(meisa=FakeMeisa(answer))
        house.source.assign(P0)
        house.source.feed([record(offset, f"{offset % 10}@x") for offset in range(100)])
        await asyncio.sleep(600)
        outage["on"] = False
        await asyncio.sleep(300)
        assert {seq for seq in range(100) if seq % 10} <= set(house.seqs())
        assert house.engine.partitions[P0].offsets.open_count == 10
        # Others go on succeeding, so the poison is found out.
        for offset in range(100, 1100):
            house.source.feed([record(offset, "1@x")])
            await asyncio.sleep(10)
        assert {letter.kind for letter in house.letters.letters} == {LetterKind.EXHAUSTED}
        assert {letter.record.offset % 10 for letter in house.letters.letters} == {0}

    virtually(story())


def test_an_outage_of_one_endpoint_stops_only_that_endpoint() -> None:
    """Triggers fail, upserts go on."""

    async def story() -> None:
        house = House(meisa=FakeMeisa(lambda call: UNAVAILABLE if call.endpoint == "trigger" else DELIVERED))
        house.source.assign(P0)
        house.source.feed([record(offset, f"t{offset}@x", do=["trigger"]) for offset in range(20)])
        await asyncio.sleep(60)
        house.source.feed([record(offset, f"{offset}@x") for offset in range(20, 40)])
        await asyncio.sleep(1)
        assert sum(call.endpoint == "upsert" for call in house.meisa.done) == 20
        assert [state.endpoint for state in house.delivery.held_endpoints()] == ["trigger"]

    virtually(story())


def test_a_trigger_in_doubt_is_parked_in_the_middle_of_an_outage() -> None:
    """Its hour ends while the endpoint is held: a person learns of it then, not after the outage."""

    async def story() -> None:
        house = House(meisa=FakeMeisa(lambda call: TRIGGER_IN_DOUBT))
        house.source.assign(P0)
        house.source.feed([record(offset, f"{offset}@x", do=["trigger"]) for offset in range(10)])
        await asyncio.sleep(2 * 3600)
        assert {letter.kind for letter in house.letters.letters} == {LetterKind.UNKNOWN_OUTCOME}
        assert len(house.letters.letters) >= 5

    virtually(story())


def test_a_missing_scope_holds_its_contacts_for_an_hour_then_rejects_them() -> None:
    """A probe every half minute, not a call per contact; the rest goes on; then each is a dead letter with the 403."""

    async def story() -> None:
        missing = Outcome(Verdict.SCOPE_MISSING, 403, "lacks emails:trigger")
        house = House(meisa=FakeMeisa(lambda call: missing if call.endpoint == "trigger" else DELIVERED))
        house.source.assign(P0)
        house.source.feed([record(offset, f"t{offset}@x", do=["trigger"]) for offset in range(50)])
        house.source.feed([record(offset, f"{offset}@x") for offset in range(50, 60)])
        await asyncio.sleep(3000)
        triggers = sum(call.endpoint == "trigger" for call in house.meisa.calls)
        assert triggers <= 50 + 3000 / 30 + 1, "the first round was under way together; then one probe at a time"
        assert sum(call.endpoint == "upsert" for call in house.meisa.done) == 10
        assert house.letters.letters == []
        assert "scope_missing" in [waiting.reason for waiting in house.engine.waiting()]
        await asyncio.sleep(1200)
        assert len(house.letters.letters) == 50
        assert {(letter.kind, letter.status) for letter in house.letters.letters} == {(LetterKind.REJECTED, 403)}
        assert house.source.committed == {P0: 60}

    virtually(story())


def test_a_403_behind_a_long_outage_begins_its_own_wait() -> None:
    """What waited for two hours of server errors has not waited for a scope yet: a single 403 ends nothing of it."""

    async def story() -> None:
        missing = Outcome(Verdict.SCOPE_MISSING, 403, "lacks it")
        says = {"outcome": UNAVAILABLE}
        house = House(meisa=FakeMeisa(lambda call: says["outcome"]))
        house.source.assign(P0)
        house.source.feed([record(offset, f"{offset}@x") for offset in range(50)])
        await asyncio.sleep(7200)
        says["outcome"] = missing
        await asyncio.sleep(3000)
        assert house.letters.letters == []
        says["outcome"] = DELIVERED
        await asyncio.sleep(60)
        assert house.letters.letters == []
        assert house.source.committed == {P0: 50}

    virtually(story())


def test_a_granted_scope_lets_everything_go_at_once() -> None:
    """The next probe finds it granted."""

    async def story() -> None:
        scope = {"granted": False}
        missing = Outcome(Verdict.SCOPE_MISSING, 403, "lacks it")
        house = House(meisa=FakeMeisa(lambda call: DELIVERED if scope["granted"] else missing))
        house.source.assign(P0)
        house.source.feed([record(offset, f"{offset}@x") for offset in range(50)])
        await asyncio.sleep(600)
        scope["granted"] = True
        await asyncio.sleep(35)
        assert house.source.committed == {P0: 50}
        assert house.letters.letters == []

    virtually(story())


def test_a_guardrail_holds_its_contact_and_never_the_key() -> None:
    """A 429 on a trigger while our own windows have room: that contact waits for Retry-After, all others go on."""

    async def story() -> None:
        guardrail = Outcome(Verdict.THROTTLED, 429, "too many emails", retry_after_seconds=100.0)

        def answer(call: Call) -> Outcome:
            return guardrail if call.body["email"] == "a@x" and house.clock.now() < 90 else DELIVERED  # type: ignore[index]

        house = House(meisa=FakeMeisa(answer))
        house.source.assign(P0)
        house.source.feed([record(0, "a@x", do=["trigger"])])
        house.source.feed([record(offset, f"{offset}@x", do=["trigger", "upsert"]) for offset in range(1, 6)])
        await asyncio.sleep(50)
        assert len(house.meisa.calls) == 11
        assert house.delivery.key_states()[0].braked_until is None
        await asyncio.sleep(60)
        assert house.source.committed == {P0: 6}

    virtually(story())


def test_a_guardrail_of_three_contacts_holds_the_endpoint() -> None:
    """Then it is not about one contact: triggers wait, upserts go on, and one probe finds out when it is over."""

    async def story() -> None:
        guardrail = Outcome(Verdict.THROTTLED, 429, "too many emails", retry_after_seconds=300.0)
        house = House(
            meisa=FakeMeisa(lambda c: guardrail if c.endpoint == "trigger" and house.clock.now() < 250 else DELIVERED),
            max_in_flight=4,
        )
        house.source.assign(P0)
        house.source.feed([record(offset, f"{offset}@x", do=["trigger"]) for offset in range(50)])
        house.source.feed([record(offset, f"{offset}@x") for offset in range(50, 60)])
        await asyncio.sleep(200)
        assert sum(call.endpoint == "trigger" for call in house.meisa.calls) <= 8
        assert sum(call.endpoint == "upsert" for call in house.meisa.done) == 10
        await asyncio.sleep(400)
        assert house.source.committed == {P0: 60}

    virtually(story())


def test_a_429_on_anything_else_is_the_keys() -> None:
    """Somebody else uses the key too: everything waits."""

    async def story() -> None:
        throttled = [Outcome(Verdict.THROTTLED, 429)]
        house = House(meisa=FakeMeisa(lambda call: throttled.pop() if throttled else DELIVERED))
        house.source.assign(P0)
        house.source.feed([record(0)])
        await asyncio.sleep(0.1)
        assert house.delivery.key_states()[0].braked_until is not None

    virtually(story())


# Dead letters cannot swallow a topic


def test_too_many_dead_letters_stop_their_topic_until_it_is_resumed() -> None:
    """A bad deployment: after 5 of 20 no more are written, nothing more is taken in, and status says why; what was good
    meanwhile is committed behind the frontier. Resumed, everything ends."""

    async def story() -> None:
        house = House(stop_at=(0.25, 20), window_max=50)
        house.source.assign(P0)
        bad = {offset: record(offset)._replace(value=b"{") for offset in range(0, 100, 2)}
        house.source.feed([bad.get(offset) or record(offset, f"{offset}@x") for offset in range(100)])
        await asyncio.sleep(3600)
        assert len(house.letters.letters) == 4, "the fifth stops the topic, and waits itself"
        assert house.source.paused == {P0}
        (waiting,) = [each for each in house.engine.waiting() if each.reason == "dead_letter_cap"]
        assert waiting.detail == "events" and waiting.count >= 1
        taken = house.engine.partitions[P0].offsets.next_offset
        assert taken is not None and taken < 50
        for _ in range(20):
            house.engine.resume_topic("events")
            await asyncio.sleep(5)
        assert len(house.letters.letters) == 50
        assert house.source.committed == {P0: 100}
        assert house.source.paused == set()

    virtually(story())


def test_letters_that_say_nothing_of_the_rules_stop_no_topic() -> None:
    """Events that expired while the quota was used up are many, and nobody's mistake."""

    async def story() -> None:
        house = House(stop_at=(0.25, 20), limits=[(1, 60.0)])
        house.source.assign(P0)
        house.source.feed([record(offset, f"{offset}@x", max_age=30) for offset in range(50)])
        await asyncio.sleep(300)
        assert len(house.letters.letters) >= 45
        assert house.source.committed == {P0: 50}

    virtually(story())


def test_an_event_with_two_dead_letters_counts_once() -> None:
    """The cap is a share of events."""

    async def story() -> None:
        house = House(meisa=FakeMeisa(lambda call: REFUSED), stop_at=(0.25, 20))
        house.source.assign(P0)
        house.source.feed([record(offset, f"{offset}@x", do=["upsert", "trigger"]) for offset in range(4)])
        await asyncio.sleep(5)
        assert len(house.letters.letters) == 8
        assert house.source.committed == {P0: 4}

    virtually(story())


def test_a_stopped_topic_does_not_hold_up_a_revocation() -> None:
    """Its letters are unwritten; the next owner decides anew."""

    async def story() -> None:
        house = House(stop_at=(0.25, 4))
        house.source.assign(P0)
        house.source.feed([record(offset)._replace(value=b"{") for offset in range(10)])
        await asyncio.sleep(5)
        begun = house.clock.now()
        await house.source.revoke(P0)
        assert house.clock.now() - begun < 1
        assert house.letters.letters == []
        assert house.source.committed.get(P0, 0) == 0

    virtually(story())


# Kafka away, and standing still


def test_without_acknowledged_commits_for_a_session_timeout_nothing_leaves() -> None:
    """Another member may own the partitions by then; calls go on once a commit is acknowledged."""

    async def story() -> None:
        house = House(meisa=FakeMeisa(latency=1.0))
        house.source.commit_error = "coordinator not available"
        house.source.assign(P0)
        house.source.feed([record(offset) for offset in range(300)])
        await asyncio.sleep(70)
        sent = len(house.meisa.calls)
        assert sent < 60
        await asyncio.sleep(300)
        assert len(house.meisa.calls) == sent
        assert "commits" in [waiting.reason for waiting in house.engine.waiting()]
        house.source.commit_error = None
        await asyncio.sleep(400)
        assert house.source.committed == {P0: 300}
        assert house.seqs() == list(range(300))

    virtually(story())


def test_a_partition_that_comes_back_with_nothing_to_tell_ends_the_hold() -> None:
    """The commit went unanswered and the partition was lost: the new assignment is the group's word that it is ours."""

    async def story() -> None:
        house = House(meisa=FakeMeisa(latency=1.0))
        house.source.answer_commits = False
        house.source.assign(P0, P1)
        house.source.feed([record(0)])
        await asyncio.sleep(100)
        house.source.lose(P0)
        house.source.answer_commits = True
        house.source.assign(P0)
        house.source.feed([record(0), record(1)])
        await asyncio.sleep(100)
        assert house.source.committed[P0] == 2
        assert house.engine.waiting() == []

    virtually(story())


def test_after_a_standstill_nothing_leaves_until_kafka_has_answered_anew() -> None:
    """Suspended beyond the session timeout, others own the partitions: answers in the sockets must not set off further
    calls, and the acknowledgement of an older commit proves nothing."""

    async def story() -> None:
        house = House(meisa=FakeMeisa(latency=0.05))
        house.source.assign(P0)
        house.source.feed([record(offset) for offset in range(50)])
        await asyncio.sleep(0.5)
        house.source.answer_commits = False
        await asyncio.sleep(0.3)
        sent = len(house.meisa.calls)
        house.source.stood = 30.0  # by a clock that goes on while the machine sleeps; the loop's may not
        await asyncio.sleep(5)
        assert len(house.meisa.calls) <= sent + 1
        house.source._settle(house.source.unanswered[0])
        await asyncio.sleep(5)
        assert len(house.meisa.calls) <= sent + 1
        assert "commits" in [waiting.reason for waiting in house.engine.waiting()]
        house.source.lose(P0)
        house.source.answer_commits = True
        house.source.assign(P0)
        house.source.feed([record(offset) for offset in range(50)])
        await asyncio.sleep(5)
        assert house.source.committed == {P0: 50}

    virtually(story())


def test_a_false_alarm_of_a_standstill_costs_one_commit() -> None:
    """Starved of the processor for a moment: the commit is acknowledged, and work goes on."""

    async def story() -> None:
        house = House()
        house.source.assign(P0)
        house.source.feed([record(offset) for offset in range(20)])
        await asyncio.sleep(0.2)
        house.source.stood = 3.0
        await asyncio.sleep(3)
        assert house.source.committed == {P0: 20}
        assert house.seqs() == list(range(20))

    virtually(story())


def test_records_of_a_partition_that_is_being_lost_are_not_let_in() -> None:
    """Losing it makes room, but not for what it held back itself."""

    async def story() -> None:
        house = House(pending_max=5, meisa=FakeMeisa(latency=5.0))
        house.source.assign(P0)
        house.source.feed([record(offset, f"{offset % 2}@x") for offset in range(30)])
        await asyncio.sleep(1)
        sent = len(house.meisa.calls)
        house.source.lose(P0)
        await asyncio.sleep(60)
        assert len(house.meisa.calls) == sent
        assert house.delivery.pending == 0

    virtually(story())


def test_an_older_commits_acknowledgement_does_not_settle_the_last_one() -> None:
    """Both name the same offset at a revocation; the last one was refused, and is tried again."""

    async def story() -> None:
        house = House(meisa=FakeMeisa(lambda c: UNAVAILABLE if c.body["email"] == "0@x" else DELIVERED))  # type: ignore[index]
        house.source.assign(P0)
        house.source.feed([record(offset, f"{offset}@x") for offset in range(3)])
        await asyncio.sleep(0.06)
        offsets = house.engine.partitions[P0].offsets
        offsets.note_start()
        offsets.commit_requested(0, "older")
        offsets.commit_forgotten()
        offsets.commit_requested(0, "newer")
        offsets.commit_settled(0, "older", acknowledged=True)
        assert offsets.commit_under_way
        offsets.commit_settled(0, "newer", acknowledged=False)
        assert offsets.commit_due() == 0

    virtually(story())


def test_work_that_waits_for_its_quota_asks_kafka_meanwhile() -> None:
    """The way to Kafka was cut while nothing was to be committed: no call leaves when the quota has room again."""

    async def story() -> None:
        house = House(limits=[(1, 60.0)])
        house.source.assign(P0)
        house.source.feed([record(offset) for offset in range(10)])
        await asyncio.sleep(30)
        house.source.answer_commits = False
        await asyncio.sleep(600)
        assert len(house.meisa.calls) <= 2

    virtually(story())


def test_an_idle_bridge_needs_no_acknowledgement() -> None:
    """Nothing was to be committed, so nothing is missing."""

    async def story() -> None:
        house = House()
        house.source.assign(P0)
        house.source.feed([record(0)])
        await asyncio.sleep(7200)
        house.source.feed([record(1)])
        await asyncio.sleep(1)
        assert house.seqs() == [0, 1]

    virtually(story())


def test_a_frontier_that_stands_still_is_reported_with_offset_and_reason(capsys: pytest.CaptureFixture[str]) -> None:
    """On call at night: what waits, where, and for what."""

    async def story() -> None:
        house = House(meisa=FakeMeisa(lambda call: Outcome(Verdict.KEY_REFUSED, 401)))
        house.source.assign(P0)
        house.source.feed([record(7)])
        await asyncio.sleep(90)
        assert house.engine.partitions[P0].stall.stalled

    virtually(story())
    said = capsys.readouterr().out
    assert "stands still" in said and "offset=7" in said and "key_refused" in said


def test_pending_events_are_counted_once_whatever_their_actions() -> None:
    """By their most urgent lane; none is left when all ended or their partition went."""

    async def story() -> None:
        house = House(meisa=FakeMeisa(latency=10.0))
        house.source.assign(P0, P1)
        house.source.feed([record(offset, f"{offset}@x", do=["upsert", "track", "upsert"]) for offset in range(4)])
        house.source.feed([record(0, "u@x", partition=1, lane="transactional")])
        assert house.delivery.pending_by_lane() == [("transactional", 1, 1), ("sync", 4, 4), ("bulk", 0, 0)]
        assert house.delivery.pending == 13
        house.source.lose(P0)
        await asyncio.sleep(60)
        assert house.delivery.pending_by_lane() == [("transactional", 0, 0), ("sync", 0, 0), ("bulk", 0, 0)]

    virtually(story())


def stalls(logs: list[Any], name: TopicPartition) -> list[Any]:
    return [line for line in logs if "stands still" in line["event"] and line["partition"] == str(name)]


def test_a_partition_whose_records_are_held_back_by_others_is_reported() -> None:
    """Partition 0's work fills the total; partition 1's only record was read and is held, for an hour."""

    async def story() -> None:
        refused = Outcome(Verdict.KEY_REFUSED, 401)
        house = House(pending_max=1, meisa=FakeMeisa(lambda call: refused))
        house.source.assign(P0, P1)
        house.source.feed([record(0)])
        house.source.feed([record(0, "b@x", partition=1)])
        with capture_logs() as logs:
            await asyncio.sleep(3600)
        assert len(house.engine.partitions[P1].held) == 1
        assert stalls(logs, P0)
        told = stalls(logs, P1)
        assert told[0]["offset"] == 0
        assert "room for its records" in told[0]["waiting_for"]

    virtually(story())


def test_a_partition_that_brings_nothing_although_its_log_goes_on_is_reported() -> None:
    """The log ends at 10, and no record comes for an hour; one without lag is not reported, however quiet it is."""

    async def story() -> None:
        house = House()
        house.source.log_ends = lambda: {P0: 10, P1: 0}  # type: ignore[method-assign]
        house.source.assign(P0, P1)
        with capture_logs() as logs:
            await asyncio.sleep(3600)
        assert stalls(logs, P0)[0]["waiting_for"] == ["records that do not come"]
        assert not stalls(logs, P1)

    virtually(story())
