"""What code of earlier commits left behind, taken over by today's: tests/data/upgrade has the recordings."""

import base64
import json
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis

from bridge.sandbox.options import TEST_KEY
from tests.support.amount import some
from tests.support.chaos.cluster import DirectKafka
from tests.support.chaos.fleet import Fleet, Load
from tests.support.chaos.judge import Judge
from tests.support.contributions import tag
from tests.support.recorded import PARTITIONS, Recording, ageless, load, put_back, recordings, write_sqlite
from tests.support.redis import redis_server
from tests.support.service import wait_for

pytestmark = pytest.mark.slow

WINDOW = "  idempotency_window: 3s\n  timeout: 2s"
"""Emails that were on their way when a recording was made are in doubt, however soon after it is played."""


class Takeover(Fleet):
    """Today's bridge on what an older one left."""

    def __init__(self, kafka: DirectKafka, folder: Path, recording: Recording, more: str) -> None:
        super().__init__(kafka, folder, Load(partitions=PARTITIONS, latency_ms=0, jitter_ms=0), more, meisa=WINDOW)
        self.topic, self.letters_topic, self.group = recording.topic, recording.letters_topic, recording.group
        self.places, self.events = recording.places, len(recording.records)
        rules = (folder / "rules.yaml").read_text(encoding="utf-8")
        (folder / "rules.yaml").write_text(ageless(rules), encoding="utf-8")

    def configuration(self, bootstrap_servers: str, port: int) -> str:
        options = ", keyed_by: contact, dedupe: 1h"
        said = super().configuration(bootstrap_servers, port).replace("{format: json}", f"{{format: json{options}}}")
        # Where no spend is told, the limits count as used evenly until now: with a reserve what is not urgent would
        # wait until a tenth of the hour has passed.
        return said.replace("per_hour: 60000000}", "per_hour: 60000000, reserve: 0}")


def of_replays(recording: Recording) -> set[str]:
    """What the judge says of an upsert that was refused and replayed: its tag is there, and no event asks for it."""
    places = {(place.partition, place.offset): name for name, place in recording.places.items()}
    found = set()
    for request in recording.replays:
        _, _, partition, offset, _ = json.loads(request["key"])
        user, number = places[partition, offset]
        found.add(f"{user} ends with {{}} (is, should be), tags that differ: {{{tag(number)!r}}}")
    return found


@pytest.mark.parametrize("name", some(recordings()))
def test_a_group_goes_on_where_older_code_was_killed(name: str, tmp_path: Path) -> None:
    """Everything is delivered, in order; what the older code had told as done does not come again; exactly the emails
    that were on their way when it was killed are dead letters of kind unknown_outcome; and nothing that it wrote is
    called damaged."""
    recording = load(name)
    with ExitStack() as stack:
        kafka = DirectKafka()
        stack.callback(kafka.close)
        more = ""
        if recording.sqlite is not None:
            write_sqlite(tmp_path / "state.db", recording.sqlite)
            more = 'state: {url: "sqlite:///state.db"}'
        elif recording.redis is not None:
            server = stack.enter_context(redis_server())
            client = redis.Redis.from_url(server.url)
            for key, value in recording.redis.items():
                client.set(key, base64.b64decode(value))
            more = f'state: {{url: "{server.url}"}}'
        fleet = Takeover(kafka, tmp_path, recording, more)
        stack.callback(fleet.close)
        put_back(recording, kafka, fleet.sandbox.url, TEST_KEY)
        before, last = fleet.calls(), recording.ledger[-1]["number"]
        fleet.remember(crash=True)
        killed = fleet.moments[0]._replace(calls=last)
        member = fleet.spawn()
        wait_for(fleet.finished, "everything to be committed")
        fleet.terminate(member)
        ledger = [each | {"number": each["number"] - before + last} for each in fleet.ledger()[before:]]
        judge = Judge(fleet.group, fleet.topic, recording.produced, fleet.places)
        judgement = judge.judge(
            [*recording.ledger, *ledger], fleet.emails(), fleet.contacts(), fleet.letters(), [killed]
        )
    assert [line for line in judgement.broken if line not in of_replays(recording)] == []
    assert judgement.told_repeats == []
    assert judgement.unknown_outcome == recording.in_doubt
    assert fleet.broke == []
    serious = [line["event"] for line in member.lines() if line.get("level") == "error"]
    assert serious == []
