"""Producers repeat ids, and the bridge skips repetitions: whatever happens, one event of each id is carried out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bridge.core.duplicates import FinishedIds, Place
from tests.support.amount import some
from tests.support.simulation.mutations import caught
from tests.support.simulation.run import simulate
from tests.support.simulation.scenario import Scenario, draw


def repeating(seed: int) -> Scenario:
    """A third of the records have the id of one of the last twelve, in any partition; ids are known for half a minute,
    so that some come again too late."""
    return replace(draw(seed), known=None, repeats=0.35, dedupe=30.0)


@pytest.mark.parametrize("first", some(range(0, 64, 4)))
def test_of_each_id_one_event_is_carried_out_under_every_fault(first: int) -> None:
    """All promises hold as ever, and records are skipped."""
    skipped = 0
    for seed in range(first, first + 4):
        report = simulate(repeating(seed))
        assert report.broken is None, f"\n{report.story()}"
        skipped += report.skipped
    assert skipped > 0


def test_an_id_that_is_remembered_before_its_event_has_finished_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a partition came back nothing would be left of what had not finished."""
    began: set[tuple[int, bytes]] = set()

    def begin(ids: FinishedIds, name: bytes, place: Place, wall: float) -> bool:
        known = (id(ids), name) in began
        began.add((id(ids), name))
        return known

    monkeypatch.setattr(FinishedIds, "begin", begin)
    monkeypatch.setattr(FinishedIds, "end", lambda ids, place, wall, *, remember: None)
    caught("1", [repeating(seed) for seed in range(40)], "with the id")
