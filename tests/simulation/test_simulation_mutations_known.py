"""The ledger must catch an engine that believes wrongly what Meisa holds, or loses lazy fields: one mutation each."""

from typing import Any

import pytest

from bridge.core import known
from bridge.core.known import Assignment
from bridge.core.lazy import LazyValues
from bridge.runtime import unchanged
from bridge.runtime.lasting import Lasting
from bridge.runtime.lazy import LazyFields
from bridge.runtime.lazy_store import KeptInStore
from bridge.runtime.marks import PartitionMarks
from bridge.runtime.unchanged import Unchanged
from tests.support.amount import THOROUGH
from tests.support.simulation.mutations import caught, knowing
from tests.support.simulation.run import simulate

Patch = pytest.MonkeyPatch


def test_belief_across_assignments_is_caught(monkeypatch: Patch) -> None:
    """The partition was another member's meanwhile: what was learned before says nothing."""
    monkeypatch.setattr(Assignment, "believes", lambda self, entry: True)
    caught("30", knowing("memory", "lost", "cut_off", "stopped"), "ended as unchanged")


@pytest.mark.slow
def test_a_store_of_a_former_time_is_caught(monkeypatch: Patch) -> None:
    """A machine's file is believed, though another machine had the partition since."""
    monkeypatch.setattr(Unchanged, "_told_of", lambda self, new: True)
    monkeypatch.setattr(Assignment, "believes", lambda self, entry: True)
    caught("30", knowing("machine", "crash", "restart"), "ended as unchanged")


@pytest.mark.slow
def test_a_call_that_a_crash_left_undone_is_caught(monkeypatch: Patch) -> None:
    """Its record is read again: that it was sent before must be noticed, since the store may not know of it."""
    monkeypatch.setattr(PartitionMarks, "repeats", lambda self, record: False)
    caught("30", knowing("machine", "crash", partitions=1, members=1), "ended as unchanged")


def test_a_commit_before_its_state_lasts_is_caught(monkeypatch: Patch) -> None:
    """Offsets may be committed only after the store has kept what their records taught."""

    def careless(self: Lasting, positions: Any) -> None:
        self._asked(positions)
        self._commit(positions)

    monkeypatch.setattr(Lasting, "commit", careless)
    caught("30", knowing("shared", "crash", lazy_every=60.0), "in the end")


def test_a_call_that_may_still_come_is_caught(monkeypatch: Patch) -> None:
    """Without an answer it may be carried out a minute later, over what was learned since."""
    monkeypatch.setattr(known, "DOUBT_SECONDS", 0.0)
    caught("30", knowing("memory", calls={"slow_done": 0.3}, members=1), "ended as unchanged")


@pytest.mark.slow
def test_a_former_owners_call_that_may_still_come_is_caught(monkeypatch: Patch) -> None:
    """Its event has finished, so it is not read again; nothing is learned until such a call cannot come any more."""
    monkeypatch.setattr(unchanged, "DOUBT_SECONDS", 0.0)
    calls = {"slow_done": 0.3, "5xx": 0.2}
    caught("30", knowing("memory", "cut_off", "restart", calls=calls, partitions=1), "ended as unchanged")


@pytest.mark.slow
def test_a_kept_value_that_a_refusal_takes_along_is_caught(monkeypatch: Patch) -> None:
    """Another's upsert was refused with it: it goes later by itself."""
    put_aside = LazyFields.put_aside

    def careless(self: LazyFields, item: Any) -> bool:
        ride = item.ride
        aside = put_aside(self, item)
        if aside:
            self.values.drop(ride, self._clock.wall())
        return aside

    monkeypatch.setattr(LazyFields, "put_aside", careless)
    caught("30", knowing("memory", lazy_every=60.0, bad_upserts=0.5, partitions=1, members=1), "in the end")


def test_a_kept_value_that_never_goes_by_itself_is_caught(monkeypatch: Patch) -> None:
    """After its period it goes, even if nothing else of its contact comes."""
    monkeypatch.setattr(LazyValues, "next_deadline", lambda self: None)
    caught("30", knowing("memory", lazy_every=60.0, members=1, partitions=1), "in the end")


@pytest.mark.slow
def test_an_older_kept_value_that_wins_is_caught(monkeypatch: Patch) -> None:
    """A call of the contact says a newer one."""
    delivered = LazyValues.delivered

    def careless(self: LazyValues, group: Any, ride: Any, wall: float, **how: Any) -> int:
        before = {
            (entry, path): value
            for entry in self._find(group[0].action.contact)
            for path, value in entry.values.items()
            if value.due
        }
        saved = delivered(self, group, ride, wall, **how)
        for (entry, path), value in before.items():
            entry.values[path] = value
            self._changed(entry, wall + entry.every)
        return saved

    monkeypatch.setattr(LazyValues, "delivered", careless)
    caught("30", knowing("memory", lazy_every=60.0, members=1, partitions=1), "in the end")


@pytest.mark.slow
def test_kept_values_of_a_former_time_are_caught(monkeypatch: Patch) -> None:
    """Another machine had the partition since, and sent newer ones."""
    monkeypatch.setattr(KeptInStore, "_nobody_between", lambda self, new: True)
    caught("30", knowing("machine", "crash", "restart", lazy_every=60.0), "went back")


def test_state_that_is_told_and_never_sent_is_caught(monkeypatch: Patch) -> None:
    """Whoever is believed without an answer loses events."""
    monkeypatch.setattr(Unchanged, "differing", lambda self, item: frozenset())
    caught("30", knowing("memory", members=1), "ended as unchanged")


@pytest.mark.parametrize("store", ["memory", "machine", "shared"])
@pytest.mark.parametrize("lazy_every", [0.0, 60.0])
def test_the_unbroken_engine_holds_and_spares_calls(store: str, lazy_every: float) -> None:
    """Else the mutations above would prove nothing: nothing is broken, and much is unchanged or lazy."""
    count = 4 if THOROUGH else 1
    reports = [
        simulate(each) for each in knowing(store, "crash", "lost", "suspended", count=count, lazy_every=lazy_every)
    ]
    assert [report.broken for report in reports if report.broken] == []
    assert sum(report.lazy if lazy_every else report.unchanged for report in reports) > 5 * count
