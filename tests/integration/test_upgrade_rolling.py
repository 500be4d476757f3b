"""An older and a newer instance in one group: a rolling upgrade, and the way back, while events flow."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import pytest

from bridge.sandbox.stream import events
from tests.support.amount import THOROUGH
from tests.support.chaos.cluster import DirectKafka, ProxiedKafka
from tests.support.chaos.fleet import BRIDGE, Fleet, Load, Member
from tests.support.chaos.judge import Judge
from tests.support.kafka import kafka_libs
from tests.support.newer import VERSION, newer
from tests.support.service import wait_for
from tests.support.soak.run import most_in

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not THOROUGH, reason="seven processes start one after the other: with THOROUGH=1, and in CI"),
]

PER_MINUTE = 1_200
LOAD = Load(partitions=4, backlog=0.3, events_per_second=15.0, burst=(3, 20), latency_ms=20, per_minute=PER_MINUTE)


@pytest.fixture(params=["embedded", pytest.param("real", marks=pytest.mark.kafka)])
def kafka(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DirectKafka | ProxiedKafka]:
    made = DirectKafka() if request.param == "embedded" else ProxiedKafka(kafka_libs(), tmp_path)
    yield made
    made.close()


def foreign_replays(fleet: Fleet) -> None:
    """What a later version may have written into the topic of replays: another kind of record, another version."""
    replays = fleet.kafka.create_topic(f"{fleet.letters_topic}.replays", 1)
    later = {"v": 2, "at": 1, "wish": "replay", "letter": [fleet.letters_topic, 0, 0]}
    fleet.kafka.produce(
        replays,
        {"key": json.dumps(["later", fleet.topic, 0, 0, "x"]).encode(), "value": b'{"v":1,"at":1}'},
        {"key": json.dumps(["request", fleet.topic, 0, 0, "x"]).encode(), "value": json.dumps(later).encode()},
        {"key": b"\xff", "value": b"\x00"},
    )


def test_rolling_forward_and_back(kafka: DirectKafka | ProxiedKafka, tmp_path: Path) -> None:
    """Two instances are exchanged one by one for a version that tells more, and then back, with a shared quota and a
    state file: nothing is lost, repeated or out of order, no email goes out twice, and the quota holds."""
    produced = list(events(3, 500, 80, 0.7, 0, now_wall_seconds=time.time()))
    with ExitStack() as stack:
        state = 'state: {url: "sqlite:///state.db"}'
        fleet = Fleet(kafka, tmp_path, LOAD, state, shared="partitions")
        stack.callback(fleet.close)
        foreign_replays(fleet)

        def works(member: Member) -> None:
            """It is in the group, and calls go on."""
            wait_for(lambda: member.status().get("ready"), f"{member.name} to be ready")
            calls = fleet.calls()
            wait_for(lambda: fleet.calls() > calls + 5 or fleet.finished(), f"calls with {member.name}")

        def roll(command: Sequence[str], environ: Mapping[str, str]) -> None:
            for _ in range(2):
                fleet.terminate(fleet.members[0])
                works(fleet.spawn(command, environ))

        works(fleet.spawn())
        fleet.produce(produced)
        works(fleet.spawn())
        roll(*newer(tmp_path))
        assert [str(member.status()["version"]).startswith(VERSION) for member in fleet.members] == [True, True]
        roll(BRIDGE, {})
        assert [str(member.status()["version"]).startswith(VERSION) for member in fleet.members] == [False, False]
        wait_for(fleet.finished, "everything to be committed")
        everybody = [*fleet.gone, *fleet.members]
        for member in list(fleet.members):
            fleet.terminate(member)
        ledger = fleet.ledger()
        judge = Judge(fleet.group, fleet.topic, produced, fleet.places)
        judgement = judge.judge(ledger, fleet.emails(), fleet.contacts(), fleet.letters(), fleet.moments)
    assert judgement.broken == []
    assert judgement.repeats == judgement.partly == []
    assert [entry["number"] for entry in ledger if entry["status"] == 429] == []
    times = sorted(datetime.fromisoformat(entry["received_at"]).timestamp() for entry in ledger)
    assert most_in(times, 60.0) <= PER_MINUTE
    assert fleet.broke == []
    assert [line["event"] for member in everybody for line in member.lines() if line.get("level") == "error"] == []
