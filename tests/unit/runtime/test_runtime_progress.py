"""What the engine tells beside its offsets, and what the next owner makes of it: crashes, damage, lack of room."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from bridge.core.offsets import ROOM_BYTES
from bridge.core.progress import Progress, decode, encode, place_bytes
from bridge.model import Action, Assigned, Contact, Kind, LetterKind, Outcome, Record, Verdict
from bridge.runtime.commits import UNTOLD_MAX
from bridge.runtime.intake import RECOVERY_SECONDS
from bridge.runtime.marks import PartitionMarks
from tests.support.engine import P0, P1, House, record
from tests.support.fakes import DELIVERED, FakeLetters, FakeMeisa
from tests.support.virtual import run

UNAVAILABLE = Outcome(Verdict.RETRY, 503, "no")


def virtually(coroutine: Coroutine[Any, Any, None]) -> None:
    run(coroutine)


def told(house: House) -> Progress:
    """What the last acknowledged commit of P0 says beside its offset."""
    return decode(house.source.committed[P0], house.source.metadata[P0]) or Progress(0)


def after_a_crash(house: House, *, hours: float = 0.0, again: House | None = None) -> House:
    """The next process on what the first one's commits told, so much later."""
    again = again or House()
    again.source.committed, again.source.metadata = dict(house.source.committed), dict(house.source.metadata)
    again.clock.wall_offset = house.clock.wall() - again.clock.wall() + hours * 3600
    again.source.assign(P0)
    return again


def marks(house: House) -> PartitionMarks:
    return house.engine._marks


def reasons(house: House) -> set[str]:
    return {waiting.reason for waiting in house.engine.waiting()}


# No flapping (delivery.md, 22)


def test_an_upsert_leaves_only_after_a_commit_told_how_far_intake_had_come() -> None:
    """While Kafka acknowledges nothing nobody could know after a crash which upserts had left."""

    async def story() -> None:
        house = House()
        house.source.answer_commits = False
        house.source.assign(P0)
        house.source.feed([record(0), record(1, "b@x", do=["track"])])
        await asyncio.sleep(10)
        assert house.seqs() == [1]
        house.source.answer_commits = True
        house.engine.committed(house.source.unanswered[-1], "no answer in time")
        await asyncio.sleep(2)
        assert house.seqs() == [1, 0]
        assert house.source.committed == {P0: 2}

    virtually(story())


def test_an_older_upsert_waits_after_a_crash_until_intake_is_where_it_was() -> None:
    """Both were sent, neither was committed: the older one must not go out over the newer one."""

    async def story() -> None:
        house = House(meisa=FakeMeisa(latency=60.0))
        house.source.assign(P0)
        house.source.feed([record(10, seen=1, coalesce=True), record(20, coalesce=True)])
        await asyncio.sleep(1)
        assert told(house).seen == 21
        again = after_a_crash(house)
        again.source.feed([record(10, coalesce=True), record(11, "b@x", do=["track"])])
        await asyncio.sleep(RECOVERY_SECONDS - 1)
        assert again.seqs() == [11], "only upserts wait"
        assert "recovery" in reasons(again)
        again.source.feed([record(20, coalesce=True)])
        await asyncio.sleep(1)
        assert again.seqs("a@x")[-1] == 20 and len(again.seqs("a@x")) == 1, "merged: the newer state, once"
        assert again.source.committed == {P0: 21}
        assert "recovery" not in reasons(again)

    virtually(story())


def test_a_second_crash_while_a_partition_recovers_forgets_nothing() -> None:
    """How far the first owner had come is told on."""

    async def story() -> None:
        house = House(meisa=FakeMeisa(latency=60.0))
        house.source.assign(P0)
        house.source.feed([record(10), record(20)])
        await asyncio.sleep(1)
        second = after_a_crash(house)
        second.source.feed([record(10)])
        await asyncio.sleep(1)
        third = after_a_crash(second)
        third.source.feed([record(10)])
        await asyncio.sleep(1)
        assert told(second).seen == 21
        assert third.seqs() == []

    virtually(story())


def test_recovery_ends_when_the_records_do_not_come(capsys: pytest.CaptureFixture[str]) -> None:
    """Truncated or compacted away: after five seconds without any the upserts go, and the log says what that means."""

    async def story() -> None:
        house = House(meisa=FakeMeisa(latency=60.0))
        house.source.assign(P0)
        house.source.feed([record(10), record(20)])
        await asyncio.sleep(1)
        again = after_a_crash(house)
        await asyncio.sleep(RECOVERY_SECONDS / 2)
        again.source.feed([record(10)])
        await asyncio.sleep(RECOVERY_SECONDS - 0.5)
        assert again.seqs() == []
        await asyncio.sleep(1)
        assert again.seqs() == [10]
        assert again.source.committed == {P0: 11}

    virtually(story())
    said = capsys.readouterr().out
    assert "may go out again over a newer one" in said and "former_owner_came_to=21" in said


@pytest.mark.parametrize(("pending_max", "latency"), [(30, 0.05), (60, 0.05), (30, RECOVERY_SECONDS + 1)])
def test_recovering_partitions_exceed_the_total_one_after_the_other(
    pending_max: int, latency: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """What waits for its recovery holds the total; each gets in what it needs in its turn, and none waits for ever."""

    async def story() -> None:
        names = [P0, P1]
        records = {
            name: [record(offset, f"{offset}@{name}", partition=name.partition) for offset in range(40)]
            for name in names
        }
        house = House(meisa=FakeMeisa(latency=60.0), window_max=48)
        house.source.assign(*names)
        for name in names:
            house.source.feed(records[name])
        await asyncio.sleep(1)
        again = House(pending_max=pending_max, window_max=48, meisa=FakeMeisa(latency=latency))
        again.source.committed, again.source.metadata = dict(house.source.committed), dict(house.source.metadata)
        again.source.assign(*names)
        most = 0
        for place in range(40):
            for name in names:
                again.source.feed([records[name][place]])
                most = max(most, again.delivery.pending)
        await asyncio.sleep(0)
        assert most <= pending_max + 40, "the total and one window"
        await asyncio.sleep(30)
        assert again.source.committed == {P0: 40, P1: 40}
        assert again.source.paused == set()
        assert sorted(again.seqs()) == sorted([*range(40)] * 2)

    virtually(story())
    assert "do not come" not in capsys.readouterr().out, "whoever waits for its turn does not run out of time"


def test_a_stopped_topic_does_not_keep_a_partition_recovering() -> None:
    """Nothing of it is taken in until somebody looks: what is in goes on."""

    async def story() -> None:
        house = House(meisa=FakeMeisa(latency=60.0))
        house.source.assign(P0)
        house.source.feed([record(offset, f"{offset}@x") for offset in range(10)])
        await asyncio.sleep(1)
        again = House(stop_at=(0.5, 2))
        after_a_crash(house, again=again)
        again.source.feed([record(0, "0@x")])
        again.source.feed([record(1)._replace(value=b"{")])
        again.source.feed([record(offset, f"{offset}@x") for offset in range(2, 10)])
        await asyncio.sleep(RECOVERY_SECONDS + 1)
        assert again.seqs() == [0]

    virtually(story())


def test_nothing_waits_for_a_partition_that_went() -> None:
    """Whoever waits hears that it may not leave, and whoever asks later too."""

    async def story() -> None:
        house = House()
        house.source.answer_commits = False
        house.source.assign(P0)
        one = record(0)._replace(epoch=house.source.epoch)
        house.source.feed([one])
        assert not marks(house).seen(one)
        waiting = asyncio.ensure_future(marks(house).see(one))
        await asyncio.sleep(0.01)
        house.source.lose(P0)
        assert not await waiting
        assert not marks(house).seen(one) and not await marks(house).see(one)
        assert not marks(house).recovering(one, lambda: None)

    virtually(story())


# Room (delivery.md, 3)


def half_done(count: int) -> list[Record]:
    return [record(offset, f"{offset}@x", do=["track", "track", "enroll"]) for offset in range(count)]


def test_a_planned_stop_repeats_nothing_however_many_events_are_half_done() -> None:
    """More than there are places: those beyond wait with their first action, and nothing that was done is forgotten."""

    async def story() -> None:
        house = House(meisa=FakeMeisa(lambda c: UNAVAILABLE if c.endpoint == "enroll" else DELIVERED))
        records = half_done(600)
        house.source.assign(P0)
        house.source.feed(records)
        await asyncio.sleep(60)
        done = [call.body["seq"] for call in house.meisa.done if call.endpoint == "track" and call.body]
        assert len(set(done)) * place_bytes(2) > ROOM_BYTES * 0.8, "there is no room for further ones"
        assert len(set(done)) < 600 and "progress" in reasons(house)
        await house.source.revoke(P0)
        again = after_a_crash(house)
        again.source.feed(records)
        await asyncio.sleep(300)
        more = [call.body["seq"] for call in again.meisa.calls if call.endpoint == "track" and call.body]
        assert sorted(done + more) == sorted([*range(600)] * 2), "each of the two tracks went out once"
        assert again.source.committed == {P0: 600}
        assert again.engine.waiting() == []

    virtually(story())


def test_an_event_of_fifty_actions_gets_through_whatever_holds_the_room() -> None:
    """At the frontier none of its actions is refused."""

    async def story() -> None:
        house = House(meisa=FakeMeisa(lambda c: UNAVAILABLE if c.endpoint == "enroll" else DELIVERED))
        house.source.assign(P0)
        big = record(0, "big@x", do=["track"] * 50)
        house.source.feed([record(offset, f"{offset}@x", do=["track", "track", "enroll"]) for offset in range(1, 500)])
        house.source.lose(P0)
        house.source.assign(P0)
        house.source.feed([big, *half_done(500)[1:]])
        await asyncio.sleep(120)
        assert sum(call.body == {"email": "big@x", "seq": 0} for call in house.meisa.done) == 50
        assert house.source.committed == {P0: 1}

    virtually(story())


def test_those_without_a_place_are_called_again_lowest_first() -> None:
    """When one is given back; those of the event at the frontier never wait."""

    async def story() -> None:
        house = House(meisa=FakeMeisa(latency=1e6), max_in_flight=1)
        house.source.assign(P0)
        house.source.feed([record(offset, f"{offset}@x") for offset in range(400)])
        kept, called = marks(house), []

        def claim(offset: int) -> bool:
            one = record(offset)._replace(epoch=house.source.epoch)
            return kept.claim(one, Action(Kind.TRACK, "rule", 0, {}, Contact("a@x")), lambda: called.append(offset))

        holders = [offset for offset in range(1, 350) if claim(offset)]
        assert holders == [*range(1, holders[-1] + 1)] and called == []
        assert not claim(380) and not claim(370) and claim(0)
        trigger = Action(Kind.TRIGGER, "rule", 0, {}, Contact("a@x"))
        one = record(1)._replace(epoch=house.source.epoch)
        assert kept.claim(one, trigger, lambda: None), "its mark is its place"
        called.clear()
        kept.unclaim(one, trigger)
        assert called == []
        kept.unclaim(one, Action(Kind.TRACK, "rule", 0, {}, Contact("a@x")))
        assert called == [holders[-1] + 1], "the lowest of those that were refused"

    virtually(story())


def test_a_crowded_window_is_told() -> None:
    """Of the partition that has it, as long as it is here."""

    async def story() -> None:
        house = House(meisa=FakeMeisa(latency=1e6), window_max=8)
        house.source.assign(P0)
        house.source.feed([record(offset, f"{offset}@x") for offset in range(6)])
        assert not marks(house).crowded(P0)
        house.source.feed([record(6, "6@x")])
        assert marks(house).crowded(P0)
        assert not marks(house).crowded(P1)

    virtually(story())


def test_a_limit_that_was_lowered_beneath_what_is_told_ends_the_service_with_advice() -> None:
    """Forgetting could be a second email, and a commit that the broker refuses would never end."""

    async def story() -> None:
        house = House()
        started = {offset: {offset: 1_780_000_000} for offset in range(400)}
        house.source.committed = {P0: 0}
        house.source.metadata = {P0: encode(0, Progress(0, started=started), 65_536)}
        house.source.assign(P0)
        house.source.feed([record(0, do=["track"])])
        await asyncio.sleep(1)
        assert "kafka.offset_metadata_max_bytes" in house.failures[0]
        assert house.source.committed == {P0: 0}

    virtually(story())


# Age


def test_what_had_to_wait_before_a_restart_is_no_history_after_it() -> None:
    """It was young when it was first read: too old after two crashes it is a dead letter, never a silent end."""

    async def story() -> None:
        house = House(meisa=FakeMeisa(lambda c: UNAVAILABLE))
        house.source.assign(P0)
        records = [record(0, do=["track"], max_age=600), record(1, "b@x", do=["track"], max_age=600)]
        house.source.feed(records)
        await asyncio.sleep(60)
        second = after_a_crash(house, again=House(meisa=FakeMeisa(lambda c: UNAVAILABLE)))
        second.source.feed(records[:1])
        await asyncio.sleep(60)
        third = after_a_crash(second, hours=2)
        late = record(2, "c@x", do=["track"], max_age=600)
        third.source.feed([*records, late])
        await asyncio.sleep(1)
        assert [letter.kind for letter in third.letters.letters] == [LetterKind.EXPIRED] * 2
        assert third.endings() == {"dead_lettered": 2, "expired": 1}, "the third was never read before: history"
        assert third.source.committed == {P0: 3}

    virtually(story())


# Damage


def test_damaged_progress_of_ours_sends_no_email_twice(capsys: pytest.CaptureFixture[str]) -> None:
    """Of what it told nothing is known: older triggers are parked for a person, younger ones go under their key."""

    async def story() -> None:
        house = House()
        house.source.committed, house.source.metadata = {P0: 0}, {P0: "mb1:damaged"}
        minutes = 1_780_000_000_000 - int(house.clock.wall() * 1000)
        house.source.assign(P0)

        def trigger(offset: int, age_seconds: float) -> Record:
            stamp = int((house.clock.wall() - age_seconds) * 1000)
            return record(offset, f"{offset}@x", do=["trigger"], max_age=60)._replace(timestamp_ms=stamp)

        assert minutes == 0
        records = [trigger(0, 7200), trigger(1, 60), trigger(2, 7200)._replace(timestamp_ms=-1), trigger(20_000, 7200)]
        house.source.feed(records[:1])
        await asyncio.sleep(1)
        assert [letter.kind for letter in house.letters.letters] == [LetterKind.UNKNOWN_OUTCOME]
        again = after_a_crash(house)
        again.source.feed(records[1:])
        await asyncio.sleep(1)
        assert again.seqs() == [1, 20_000], "the last one lies beyond what can have been told"
        assert [letter.record.offset for letter in again.letters.letters] == [2]
        assert again.source.committed == {P0: 20_001}

    virtually(story())
    said = capsys.readouterr().out
    assert "damaged, or of a newer version" in said and "up_to=20000" in said


def test_a_young_trigger_in_a_damaged_range_is_repeated_only_within_its_records_hour() -> None:
    """Its first sending, if there was one, came after its record: that is what its age counts from."""

    async def story() -> None:
        house = House(meisa=FakeMeisa(lambda c: Outcome(Verdict.UNKNOWN, None, "no answer")))
        house.source.committed, house.source.metadata = {P0: 0}, {P0: "mb1:damaged"}
        house.source.assign(P0)
        stamp = int((house.clock.wall() - 1800) * 1000)
        house.source.feed([record(0, do=["trigger"])._replace(timestamp_ms=stamp)])
        await asyncio.sleep(1)
        assert told(house).started[0].popitem()[1] == stamp // 1000  # type: ignore[attr-defined]
        await asyncio.sleep(1450)
        assert house.letters.letters == [], "within 55 minutes"
        await asyncio.sleep(120)
        assert [letter.kind for letter in house.letters.letters] == [LetterKind.UNKNOWN_OUTCOME]

    virtually(story())


def test_an_expired_trigger_in_a_damaged_range_is_parked_and_not_sent() -> None:
    """Its event is older than its max_age, its record young: the former owner may have sent it, or ended it as history.
    Nobody sends it now; a person decides."""

    async def story() -> None:
        house = House()
        house.source.committed, house.source.metadata = {P0: 0}, {P0: "mb1:damaged"}
        house.source.assign(P0)
        stamp = int((house.clock.wall() - 60) * 1000)
        old, young = house.clock.wall() - 90_000, house.clock.wall() - 60
        for offset, wall in enumerate((old, young)):
            event = record(offset, f"{offset}@x", do=["trigger"], max_age=86_400, wall=wall)
            house.source.feed([event._replace(timestamp_ms=stamp)])
        await asyncio.sleep(1)
        assert house.seqs() == [1]
        letter = house.letters.letters[0]
        assert (letter.record.offset, letter.kind) == (0, LetterKind.UNKNOWN_OUTCOME)
        assert "cannot be read" in letter.message
        assert house.source.committed == {P0: 2}

    virtually(story())


def test_foreign_text_raises_no_doubt() -> None:
    """We never wrote it, so it told of no trigger."""

    async def story() -> None:
        house = House()
        house.source.committed, house.source.metadata = {P0: 0}, {P0: "somebody's note"}
        house.source.assign(P0)
        house.source.feed([record(0, do=["trigger"])._replace(timestamp_ms=1_000_000_000_000)])
        await asyncio.sleep(1)
        assert house.seqs() == [0]

    virtually(story())


def test_progress_of_a_former_topic_is_dropped(capsys: pytest.CaptureFixture[str]) -> None:
    """Same name, other records: what finished there says nothing of these."""

    async def story() -> None:
        house = House(meisa=FakeMeisa(lambda c: UNAVAILABLE if c.body["seq"] == 0 else DELIVERED))  # type: ignore[index]
        house.engine.assigned([Assigned(P0, 1, 0, topic_hash=7)])
        house.source.epoch = 1
        records = [record(offset, f"{offset}@x", do=["track"]) for offset in range(3)]
        house.source.feed(records)
        await asyncio.sleep(1)
        assert told(house).topic == 7
        for known, sent in ((7, [0]), (None, [0]), (8, [0, 1, 2])):
            again = House()
            again.engine.assigned([Assigned(P0, 1, 0, house.source.metadata[P0], topic_hash=known)])
            again.source.epoch = 1
            again.source.feed(records)
            await asyncio.sleep(1)
            assert again.seqs() == sent

    virtually(story())
    assert capsys.readouterr().out.count("created anew") == 1


# Retention


def test_records_that_retention_removed_do_not_hold_the_frontier_back() -> None:
    """Nothing is open: the frontier goes to the log's start at once, and a commit says so."""

    async def story() -> None:
        house = House()
        house.source.assign(P0)
        house.source.feed([record(0, do=["track"])])
        await asyncio.sleep(1)
        house.engine.removed(P0, 50)
        house.engine.removed(P1, 50)
        await asyncio.sleep(1)
        assert house.source.committed == {P0: 50}

    virtually(story())


def test_what_is_open_finishes_before_the_frontier_goes_to_the_logs_start() -> None:
    """It has been read: it is done as any other. What is held too."""

    async def story() -> None:
        house = House(window_max=2)
        house.source.assign(P0)
        house.source.feed([record(offset, f"{offset}@x", do=["track"]) for offset in range(4)])
        house.engine.removed(P0, 50)
        house.engine.removed(P0, 40)
        await asyncio.sleep(1)
        assert house.seqs() == [0, 1, 2, 3]
        assert house.source.committed == {P0: 50}
        house.source.feed([record(60, do=["track"])])
        house.engine.removed(P0, 55)
        await asyncio.sleep(1)
        assert house.source.committed == {P0: 61}
        house.source.feed([record(70, do=["track"])])
        house.engine.removed(P0, 80)
        await asyncio.sleep(1)
        assert house.seqs()[-1] == 70
        assert house.source.committed == {P0: 80}

    virtually(story())


# Untold work


def test_an_instance_whose_commits_are_not_answered_does_only_so_much() -> None:
    """What it did its successor repeats: bounded; and the first acknowledgement lets it go on."""

    async def story() -> None:
        house = House(max_in_flight=10, meisa=FakeMeisa(latency=0.01))
        house.source.assign(P0)
        house.source.answer_commits = False
        house.source.feed([record(offset, f"{offset}@x", do=["track"]) for offset in range(2000)])
        await asyncio.sleep(10)
        assert UNTOLD_MAX <= len(house.meisa.done) <= UNTOLD_MAX + 10
        assert "commits" in reasons(house)
        house.source.answer_commits = True
        for positions in house.source.unanswered:
            house.engine.committed(positions, None)
        await asyncio.sleep(30)
        assert house.source.committed == {P0: 2000}
        assert house.engine.waiting() == []

    virtually(story())


def test_fast_work_is_not_held_up_while_commits_are_answered() -> None:
    """Ten thousand calls a second: the commits come as often as that needs."""

    async def story() -> None:
        house = House(max_in_flight=64, meisa=FakeMeisa(latency=0.0064))
        house.source.assign(P0)
        house.source.feed([record(offset, f"{offset}@x", do=["track"]) for offset in range(5000)])
        await asyncio.sleep(0.6)
        assert len(house.meisa.done) == 5000

    virtually(story())


def test_endings_that_are_news_of_no_partition_are_told_too() -> None:
    """A thousand refused calls whose letters wait: nothing is to be committed, and still the others go on."""

    async def story() -> None:
        refused = Outcome(Verdict.REFUSED, 400, "no")
        house = House(meisa=FakeMeisa(lambda c: refused), letters=FakeLetters(refusals=100_000), stop_at=(1.0, 100_000))
        house.source.assign(P0)
        house.source.feed([record(offset, f"{offset}@x", do=["track"]) for offset in range(1500)])
        await asyncio.sleep(20)
        assert len(house.meisa.done) == 1500

    virtually(story())


def test_many_that_wait_for_a_commit_do_not_put_it_off() -> None:
    """Each asks for it soon; the first one's moment stays."""

    async def story() -> None:
        house = House(max_in_flight=200, meisa=FakeMeisa(latency=0.0))
        house.source.assign(P0)
        for offset in range(50):
            house.source.feed([record(offset, f"{offset}@x")])
            await asyncio.sleep(0.002)
        assert len(house.meisa.done) > 10

    virtually(story())
