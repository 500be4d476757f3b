"""Traces only look: under faults, rebalances and kills every promise is kept at the same moments as without them."""

from __future__ import annotations

from collections import Counter

import pytest

from bridge.runtime.traces import Traces
from tests.support.amount import some
from tests.support.simulation.member import Member
from tests.support.simulation.run import simulate
from tests.support.tracing import FakeTracer

SEEDS = tuple(range(100, 116))


def test_a_run_with_traces_is_the_run_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Call by call. Every span of a record ends once, and only those of killed members never do."""
    seeds = some(SEEDS)
    without = {seed: simulate(seed).trace_hash for seed in seeds}
    wire = Member._wire
    members: list[tuple[Member, FakeTracer, Traces]] = []

    def traced(self: Member, *arguments: object) -> None:
        wire(self, *arguments)  # type: ignore[arg-type]
        tracer = FakeTracer()
        traces = Traces(
            tracer,
            clock=self.world.clock,
            group="group",
            letters_topic="letters",
            endpoint=lambda name: ("POST", name),
            server={},
        )
        self.engine.trace(traces)
        members.append((self, tracer, traces))

    def killed(self: Member) -> None:
        ended_by_force.add(self)
        kill(self)

    kill = Member.kill
    ended_by_force: set[Member] = set()
    monkeypatch.setattr(Member, "_wire", traced)
    monkeypatch.setattr(Member, "kill", killed)
    told = 0
    for seed in seeds:
        members.clear()
        report = simulate(seed)
        assert report.broken is None
        assert report.trace_hash == without[seed], seed
        for member, tracer, traces in members:
            assert not traces._told_broken
            ends = Counter(span.context for span in tracer.spans)
            assert not ends or max(ends.values()) == 1
            if member in ended_by_force:
                continue
            assert traces._live.count == 0, "what has not finished was given up"
            told += len(tracer.of("consumer"))
            of_records = {span.context for span in tracer.of("consumer")}
            assert {span.parent for span in (*tracer.of("client"), *tracer.of("producer"))} <= of_records
    assert told > 20
