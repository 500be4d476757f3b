"""The ledger must catch an engine that tells too little in its commits, or believes too much or too little of them."""

from collections.abc import Callable
from typing import Any

import pytest

from bridge.core.arrivals import Arrivals
from bridge.core.offsets import PartitionOffsets
from bridge.core.retry import Attempt
from bridge.runtime import engine
from bridge.runtime.clock import MeisaClock
from bridge.runtime.commits import Commits
from bridge.runtime.delivery import Delivery
from bridge.runtime.engine import Engine
from bridge.runtime.marks import PartitionMarks
from tests.support.amount import some
from tests.support.simulation.mutations import caught
from tests.support.simulation.run import simulate
from tests.support.simulation.scenario import Moment, Scenario, Window

Patch = pytest.MonkeyPatch


def late() -> list[Scenario]:
    """Records come while no commit is acknowledged; then the process is killed."""
    return [
        Scenario(
            seed,
            records=60,
            contacts=2,
            horizon=40.0,
            backlog=0.3,
            limits=[(5, 5.0)],
            only="sync",
            variety=False,
            session_seconds=45.0,
            batch_max=1,
            commits={"late": 0.6},
            moments=[Moment("crash", at=20.0 + seed, steps=1)],
        )
        for seed in range(10)
    ]


def test_an_upsert_that_leaves_before_it_is_told_is_caught(monkeypatch: Patch) -> None:
    """The next owner does not know how far intake was, and sends older values over it (hard case 22)."""
    monkeypatch.setattr(PartitionMarks, "seen", lambda self, record: True)
    caught("2", late(), "goes back")


def replayed() -> list[Scenario]:
    """All was taken in and told; much was sent when commits stopped; then the process is killed."""
    return [
        Scenario(
            seed,
            records=60,
            contacts=1,
            horizon=60.0,
            backlog=1.0,
            limits=[(30, 30.0)],
            bad_upserts=0.0,
            only="sync",
            variety=False,
            session_seconds=45.0,
            batch_max=1,
            latency=0.5,
            moments=[Moment("broker_away", at=2.0 + seed / 4, seconds=3.0), Moment("crash", at=20.0, steps=1)],
        )
        for seed in range(20)
    ]


def test_a_recovery_that_does_not_wait_is_caught(monkeypatch: Patch) -> None:
    """What is read again leaves before intake is where it was (hard case 22)."""
    monkeypatch.setattr(PartitionMarks, "recovering", lambda self, record, again: False)
    caught("2", replayed(), "goes back")


def half_done() -> list[Scenario]:
    """Many events of which all but the email is done, little room in the text, and a planned restart."""
    return [
        Scenario(
            seed,
            records=100,
            contacts=60,
            horizon=60.0,
            backlog=1.0,
            only="welcome",
            metadata_bytes_max=512,
            windows=[Window("outage_unreachable", 0.0, 60.0, "trigger")],
            moments=[Moment("restart", at=20.0 + seed, seconds=1.0)],
        )
        for seed in range(5)
    ]


def test_half_done_events_without_a_place_in_progress_are_caught(monkeypatch: Patch) -> None:
    """What does not fit into the text is repeated by the next owner, on a planned restart, too."""

    def careless(self: PartitionOffsets, offset: int, digest: int) -> bool:
        return True

    monkeypatch.setattr(PartitionOffsets, "claim", careless)
    monkeypatch.setattr(PartitionOffsets, "_place", careless)
    monkeypatch.setattr(PartitionOffsets, "fits", lambda self, offset: True)
    caught("3", half_done(), "no commit tells")


def untold() -> list[Scenario]:
    """Answers come while no commit is acknowledged; then the process is killed."""
    return [
        Scenario(
            seed,
            records=100,
            contacts=60,
            horizon=60.0,
            backlog=1.0,
            only="sync",
            max_in_flight=2,
            untold_max=5,
            session_seconds=45.0,
            moments=[Moment("broker_away", at=2.0 + seed / 20, seconds=2.5), Moment("crash", at=15.0, steps=1)],
        )
        for seed in range(20)
    ]


def test_more_work_than_may_be_untold_is_caught(monkeypatch: Patch) -> None:
    """An instance that is cut off may do so much, and no more, for its successor to repeat."""
    monkeypatch.setattr(Commits, "_enough_told", lambda self: True)
    caught("3", untold(), "no commit tells of")


def doubtful(**more: Any) -> list[Scenario]:
    """Triggers whose answers are lost, a crash, and an hour and more until they can be repeated."""
    return [
        Scenario(
            seed,
            records=20,
            contacts=20,
            horizon=4_000.0,
            backlog=1.0,
            only="mail",
            calls={"slow_done": 0.3, "cut_done": 0.3},
            windows=[Window("outage_unreachable", 5.0, 3_700.0, "trigger")],
            moments=[Moment("crash", at=30.0, seconds=1.0, steps=1)],
            **more,
        )
        for seed in range(8)
    ]


def damaged() -> list[Scenario]:
    return doubtful(metadata_damage=1.0)


def test_damaged_progress_that_is_ignored_is_caught(monkeypatch: Patch) -> None:
    """It may have told of triggers: those are sent again, an hour later."""
    monkeypatch.setattr(engine, "ours", lambda text: False)
    caught("3", damaged(), "emailed twice")


def skewed() -> list[Scenario]:
    return doubtful(skew=1_200.0)


def test_clocks_that_differ_are_caught(monkeypatch: Patch) -> None:
    """The next owner's clock makes a mark look younger than it is, or even like one of the future."""
    monkeypatch.setattr(MeisaClock, "observe", lambda self, *walls: None)
    monkeypatch.setattr(Attempt, "too_late", lambda self, now, wall: wall > self.not_after_wall)
    caught("3", skewed(), "emailed twice")


def waiting() -> list[Scenario]:
    """Emails wait until they are too old, and the process is killed meanwhile."""
    return [
        Scenario(
            seed,
            records=60,
            horizon=900.0,
            backlog=1.0,
            only="mail.soon",
            windows=[Window("outage_unreachable", 0.0, 800.0, "trigger")],
            moments=[Moment("crash", at=300.0, seconds=5.0, steps=1)],
        )
        for seed in range(3)
    ]


def test_an_age_judged_by_the_second_reading_is_caught(monkeypatch: Patch) -> None:
    """What waited here until it was too old gets a letter, and no silent end."""
    monkeypatch.setattr(Arrivals, "of", lambda self, offset, wall: wall)
    caught("1", waiting())


def shortened() -> list[Scenario]:
    """Retention overtakes a slow reader: all is gone at once."""
    return [
        Scenario(
            seed,
            records=60,
            horizon=60.0,
            backlog=1.0,
            only="moment",
            limits=[(1, 5.0)],
            window_max=4,
            batch_max=1,
            moments=[Moment("truncate", at=10.0 + 5 * seed)],
        )
        for seed in range(5)
    ]


def test_removed_records_that_are_waited_for_are_caught(monkeypatch: Patch) -> None:
    """The frontier must pass what retention removed, though nothing comes after it."""
    monkeypatch.setattr(Engine, "removed", lambda self, name, start: None)
    caught("5", shortened())


def parked() -> list[Scenario]:
    """Triggers are given up in doubt while the dead-letter topic is away, and the process is killed."""
    return [
        Scenario(
            seed,
            records=10,
            contacts=20,
            horizon=5_000.0,
            backlog=1.0,
            only="mail",
            calls={"slow_done": 0.9},
            letters={"failed": 1.0},
            windows=[Window("outage_unreachable", 60.0, 3_800.0, "trigger")],
            moments=[Moment("crash", at=3_600.0 + 60 * seed, seconds=1.0, steps=1)],
        )
        for seed in range(5)
    ]


def test_a_doubt_that_is_forgotten_before_its_letter_is_caught(monkeypatch: Patch) -> None:
    """The next owner would send what nobody knows to be unsent."""
    end_part = Delivery._end_part
    monkeypatch.setattr(Delivery, "_end_part", lambda self, part, result, doubt: end_part(self, part, result, False))
    caught("3", parked(), "emailed twice")


FAMILIES = [late, replayed, half_done, untold, damaged, skewed, waiting, shortened, parked]


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_told_as_it_is_holds_in_these_scenarios(family: Callable[[], list[Scenario]]) -> None:
    """Else a mutation would be caught for another reason."""
    for scenario in some(family()):
        report = simulate(scenario)
        assert report.broken is None, f"{scenario}\n{report.story()}"
