"""Whatever a bridge tells of itself, `meisa-bridge status` shows: within the width, without steering the terminal."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.cli.panel import drain_of, lines
from bridge.observe.snapshot import (
    BreakerState,
    LaneState,
    PartitionState,
    QuotaState,
    RulesState,
    Snapshot,
    WaitState,
)
from bridge.web import page
from tests.support.amount import examples

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=200)
TOPIC = st.from_regex(r"[a-zA-Z0-9._-]{1,249}", fullmatch=True)
COUNT = st.integers(0, 10**15)
SECONDS = st.floats(0, 1e9)
WALL = st.floats(1.7e9, 1.9e9)


def maybe(values: st.SearchStrategy[float]) -> st.SearchStrategy[float | None]:
    return st.none() | values


SNAPSHOTS = st.builds(
    Snapshot,
    version=TEXT,
    started_at_wall_seconds=WALL,
    taken_at_wall_seconds=WALL,
    in_group=st.booleans(),
    group_state=TEXT,
    refused_keys=st.lists(TEXT, max_size=2).map(tuple),
    partitions=st.lists(
        st.builds(
            PartitionState,
            topic=TOPIC,
            partition=st.integers(0, 99_999),
            epoch=COUNT,
            frontier=st.integers(-1, 10**15),
            lag=st.none() | COUNT,
            window=st.integers(0, 100_000),
            paused=st.booleans(),
            oldest_wait_seconds=maybe(SECONDS),
            retention_seconds=maybe(SECONDS),
            stalled_seconds=maybe(SECONDS),
            stalled_because=st.lists(TEXT, max_size=2).map(tuple),
        ),
        max_size=25,
    ).map(tuple),
    quota=st.lists(
        st.builds(QuotaState, TEXT, st.sampled_from(["minute", "hour", "7s"]), COUNT, COUNT, maybe(WALL)), max_size=3
    ).map(tuple),
    pending=st.lists(st.builds(LaneState, TEXT, COUNT, COUNT), max_size=3).map(tuple),
    in_flight=COUNT,
    waiting_for=st.lists(st.builds(WaitState, TEXT, COUNT, TEXT, maybe(WALL), maybe(WALL)), max_size=3).map(tuple),
    breakers=st.lists(st.builds(BreakerState, TEXT, st.booleans(), maybe(WALL), TEXT), max_size=2).map(tuple),
    stopped_topics=st.lists(TOPIC, max_size=2).map(tuple),
    totals=st.dictionaries(TEXT, COUNT, max_size=3),
    dead_letters=st.dictionaries(TEXT, COUNT, max_size=3),
    rules=st.none() | st.builds(RulesState, TEXT, COUNT, COUNT, WALL, TEXT, maybe(WALL)),
)
CALLS = st.dictionaries(st.sampled_from(["upsert", "bulk_enroll", "later"]), st.floats(0, 1e12), max_size=3)


@given(SNAPSHOTS, CALLS, st.sampled_from([40, 80, 120]))
@settings(max_examples=examples(200, everyday=8), deadline=None)
def test_every_status_can_be_shown(snapshot: Snapshot, calls: dict[str, float], width: int) -> None:
    facts = json.loads(page.as_json(page.facts(snapshot)))
    drain = drain_of(facts, calls)
    shown = lines(facts, drain, width)
    assert shown[0].text.startswith("READY" if snapshot.unready() is None else "NOT READY")
    for line in shown:
        assert len(line.text) <= width and line.text.isprintable()
    assert drain is None or drain.seconds >= 0
