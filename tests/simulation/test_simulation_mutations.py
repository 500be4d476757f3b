"""The ledger must catch an engine that is broken on purpose: one mutation per way to break a promise.

A simulation that finds nothing proves something only if it would have found this.
"""

import random
from collections.abc import Callable
from typing import Any

import pytest

from bridge.core import shares
from bridge.core.offsets import PartitionOffsets
from bridge.core.ordering import Ordering
from bridge.core.quota import Quota
from bridge.core.shares import Cell
from bridge.model import LetterKind
from bridge.runtime.commits import Commits
from bridge.runtime.completion import Completion
from bridge.runtime.delivery import Delivery
from bridge.runtime.engine import Engine
from bridge.runtime.facts import WorldFacts
from bridge.runtime.intake import Intake
from bridge.runtime.sending import Sending
from tests.support.amount import some
from tests.support.simulation import member
from tests.support.simulation.mutations import caught, everyday
from tests.support.simulation.run import simulate
from tests.support.simulation.scenario import Moment, Scenario, Window

Patch = pytest.MonkeyPatch


# 1 nothing lost


def test_a_commit_beyond_the_frontier_is_caught(monkeypatch: Patch) -> None:
    """Committing what was taken in, not what is finished."""
    monkeypatch.setattr(PartitionOffsets, "frontier", property(lambda self: self.next_offset))
    caught("1", everyday())


def test_a_finish_before_the_letters_acknowledgement_is_caught(monkeypatch: Patch) -> None:
    """A letter is written, but nobody waits for it."""
    bury = Engine.bury

    def careless(self: Engine, letter: Any) -> Completion[None]:
        bury(self, letter)
        done: Completion[None] = Completion()
        done.complete(None)
        return done

    monkeypatch.setattr(Engine, "bury", careless)
    caught("1", everyday())


def test_a_letter_that_is_forgotten_is_caught(monkeypatch: Patch) -> None:
    """A refused action counts as finished."""

    def forgetful(self: Engine, letter: Any) -> Completion[None]:
        done: Completion[None] = Completion()
        done.complete(None)
        return done

    monkeypatch.setattr(Engine, "bury", forgetful)
    caught("1", everyday())


def test_dead_letters_in_an_outage_are_caught(monkeypatch: Patch) -> None:
    """Attempts and age alone are taken for poison."""
    monkeypatch.setattr(WorldFacts, "succeeded_since", lambda self, endpoint, now: True)
    outage = [
        Scenario(
            seed, horizon=600.0, contacts=2, attempts=3, max_age_seconds=60.0, windows=[Window("outage_5xx", 0, 600)]
        )
        for seed in range(10)
    ]
    caught("1", outage)


def test_a_result_from_an_older_epoch_is_caught(monkeypatch: Patch) -> None:
    """The topic was recreated meanwhile: the late answer is about another record at the same offset."""

    def careless(self: Engine, record: Any) -> Any:
        return self.partitions.get((record.topic, record.partition))  # type: ignore[call-overload]

    monkeypatch.setattr(Engine, "_owned", careless)
    caught("1", recreated())


def recreated() -> list[Scenario]:
    """Slow calls are under way when the topic is made anew, and its new records come at once."""
    return [
        Scenario(
            seed,
            records=120,
            contacts=20,
            horizon=8.0,
            latency=4.0,
            moments=[Moment("recreate", at=4.5 + seed / 10), Moment("lost", at=6.5 + seed / 10)],
        )
        for seed in range(20)
    ]


# 2 order


def test_a_contact_without_a_queue_is_caught(monkeypatch: Patch) -> None:
    """Everything leaves at once."""
    monkeypatch.setattr(Ordering, "joined", lambda self, keys: ())
    caught("2", everyday())


def test_a_turn_given_early_is_caught(monkeypatch: Patch) -> None:
    """The next action goes while the one before it waits for its retry."""
    go_on = Delivery._go_on

    def early(self: Any, item: Any, reply: Any) -> None:
        before = item.ticket
        go_on(self, item, reply)
        if reply is not None and before is not None and item.ticket is before and not item.out:
            freed = self._ordering.release(before)
            item.ticket = self._ordering.enter(item, ())
            self._begin(freed)

    monkeypatch.setattr(Delivery, "_go_on", early)
    caught("2", everyday())


def test_a_member_that_sends_although_nothing_is_acknowledged_is_caught(monkeypatch: Patch) -> None:
    """Somebody else may own its partitions long since."""
    monkeypatch.setattr(Delivery, "hold", lambda self: None)
    monkeypatch.setattr(Delivery, "may_leave", property(lambda self: None, lambda self, asked: None))
    monkeypatch.setattr(Engine, "still_ours", lambda self: True)
    monkeypatch.setattr(Cell, "permitted", property(lambda self: 1))  # the quota would stop it, too
    caught("2", unacknowledged())


def unacknowledged() -> list[Scenario]:
    cut = Moment("cut_off", at=5.0, seconds=20.0)
    return [
        Scenario(seed, records=60, horizon=200.0, limits=[(2, 10.0)], session_seconds=45.0, moments=[cut])
        for seed in range(5)
    ]


# 3 duplicates


def test_forgotten_progress_is_caught(monkeypatch: Patch) -> None:
    """The next owner reads the offset only."""
    monkeypatch.setattr(PartitionOffsets, "restore", lambda self, progress: None)
    caught("3", everyday())


def test_a_planned_stop_without_its_last_commit_is_caught(monkeypatch: Patch) -> None:
    """What was answered since the last commit is done again by the next owner."""

    async def nothing(self: Commits, leaving: Any) -> None:
        pass

    monkeypatch.setattr(Commits, "last", nothing)
    caught("3", [Scenario(seed, horizon=20.0, moments=[Moment("restart", at=3.0 + seed)]) for seed in range(10)])


def test_a_refused_commit_taken_for_an_acknowledged_one_is_caught(monkeypatch: Patch) -> None:
    """The broker refused, and the engine thinks that it is told."""
    settled = PartitionOffsets.commit_settled
    monkeypatch.setattr(
        PartitionOffsets,
        "commit_settled",
        lambda self, *position, **_: settled(self, *position, acknowledged=True),
    )
    caught("3", refusing())


def refusing() -> list[Scenario]:
    return [
        Scenario(seed, records=30, horizon=20.0, commits={"refused": 0.5}, moments=[Moment("restart", at=10.0 + seed)])
        for seed in range(15)
    ]


def test_a_trigger_under_a_new_key_is_caught(monkeypatch: Patch) -> None:
    """Each attempt with a key of its own: Meisa cannot tell that it is the same email."""
    dice = random.Random(1)
    init = Delivery.__init__

    def careless(self: Delivery, *arguments: Any, **options: Any) -> None:
        init(self, *arguments, **{**options, "identify": lambda record, action: f"{dice.random()}"})

    monkeypatch.setattr(Delivery, "__init__", careless)
    caught("3", everyday())


@pytest.mark.slow
def test_a_trigger_repeated_after_its_window_is_caught(monkeypatch: Patch) -> None:
    """More than an hour later Meisa remembers nothing, and sends a second email."""
    policy = member.Policy
    monkeypatch.setattr(member, "Policy", lambda **options: policy(**options, idempotency_window_seconds=1e9))
    caught("3", doubtful())


def doubtful() -> list[Scenario]:
    return [
        Scenario(
            seed,
            records=30,
            horizon=9_000.0,
            backlog=0.7,
            calls={"slow_done": 0.3, "cut_done": 0.3},
            windows=[Window("outage_unreachable", 5.0, 8_000.0, "trigger")],
        )
        for seed in range(10)
    ]


@pytest.mark.slow
def test_forgotten_starts_are_caught(monkeypatch: Patch) -> None:
    """The next owner does not know that a trigger may have been sent an hour ago."""
    restore = PartitionOffsets.restore

    def forgetful(self: PartitionOffsets, progress: Any) -> None:
        restore(self, progress._replace(started={}))

    monkeypatch.setattr(PartitionOffsets, "restore", forgetful)
    scenarios = doubtful()
    for scenario in scenarios:
        scenario.moments.append(Moment("crash", at=30.0, seconds=1.0, steps=1))
    caught("3", scenarios)


# 4 quota


def quota() -> list[Scenario]:
    faults: list[dict[str, float]] = [{}, {"slow_done": 0.3, "cut_done": 0.1}]
    return [
        Scenario(
            seed, records=60, contacts=20, limits=[(10, 60.0), (80, 3600.0)], calls=faults[seed % 2], horizon=300.0
        )
        for seed in range(10)
    ]


def test_a_quota_that_forgets_unanswered_calls_is_caught(monkeypatch: Patch) -> None:
    """A call without an answer may be counted by Meisa all the same."""
    monkeypatch.setattr(Quota, "unanswered", lambda self, now, slot=None: self.unsent(slot=slot))
    caught("4", quota())


def test_a_quota_that_is_one_too_wide_is_caught(monkeypatch: Patch) -> None:
    """Eleven calls where ten are allowed."""
    share_of = shares.share_of
    monkeypatch.setattr(shares, "share_of", lambda limit, index, count: share_of(limit + 1, index, count))
    caught("4", quota())


def test_a_window_that_begins_when_the_call_leaves_is_caught(monkeypatch: Patch) -> None:
    """Meisa counts later than that: its window reaches further."""
    answered = Quota.answered
    monkeypatch.setattr(Quota, "answered", lambda self, now, slot=None: answered(self, now - 1.0, slot))
    scenarios = quota()
    for scenario in scenarios:
        scenario.latency = 1.0
    caught("4", scenarios)


# 5 alive


def stalling() -> list[Scenario]:
    return [Scenario(seed, records=60, window_max=4, batch_max=10, horizon=20.0) for seed in range(5)]


def test_a_pump_that_sleeps_is_caught(monkeypatch: Patch) -> None:
    """After the hundredth look nothing wakes the delivery any more."""
    looks = 0
    pump = Sending._pump

    def tired(self: Sending) -> None:
        nonlocal looks
        looks += 1
        if looks < 100:
            pump(self)

    monkeypatch.setattr(Sending, "_pump", tired)
    caught("5", stalling())


def test_a_partition_that_stays_paused_is_caught(monkeypatch: Patch) -> None:
    """The window was full once, and nobody lets anything in."""
    monkeypatch.setattr(Intake, "let_in", lambda self, partition: None)
    caught("5", stalling())


def test_a_silent_status_is_caught(monkeypatch: Patch) -> None:
    """Lag, nothing moves, and no reason."""
    monkeypatch.setattr(Engine, "waiting", lambda self: [])
    caught("5", [Scenario(seed, horizon=1200.0, windows=[Window("401", 0.0, 1200.0)]) for seed in range(3)])


def test_a_listener_that_raises_is_caught(monkeypatch: Patch) -> None:
    """Records that cannot be taken in stop the source."""
    take = PartitionOffsets.take

    def broken(self: PartitionOffsets, offset: int) -> bool:
        if offset == 7:
            raise RuntimeError("a bug")
        return take(self, offset)

    monkeypatch.setattr(PartitionOffsets, "take", broken)
    caught("", stalling())


# And the other way round


@pytest.mark.parametrize(
    "family", [recreated, unacknowledged, refusing, pytest.param(doubtful, marks=pytest.mark.slow), quota, stalling]
)
def test_the_engine_as_it_is_holds_in_these_scenarios(family: Callable[[], list[Scenario]]) -> None:
    """Else a mutation would be caught for another reason."""
    for scenario in some(family()):
        report = simulate(scenario)
        assert report.broken is None, f"{scenario}\n{report.story()}"


def test_letters_have_a_reason_for_every_kind() -> None:
    """The ledger knows all kinds: a new one must be judged, too."""
    assert {str(kind) for kind in LetterKind} == {
        *("decode", "rule", "rejected", "exhausted", "expired", "unknown_contact", "unknown_outcome"),
    }
