"""Records what the bridge of an earlier commit leaves behind when it is killed: see the README beside.

git worktree add --detach OLD COMMIT
PYTHONPATH=. python tests/data/upgrade/make.py NAME OLD [--state sqlite|redis] [--dedupe]
"""

import argparse
import base64
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import redis

from bridge.sandbox.stream import SampleEvent, events
from tests.support.chaos.cluster import DirectKafka
from tests.support.chaos.fleet import Fleet, Load
from tests.support.recorded import PARTITIONS, Recording, ageless, save, sqlite_of, told
from tests.support.redis import redis_server

EVENTS, PEOPLE = 120, 24
HELD = 2
"""Triggers and tracks each that get no answer until the bridge is killed."""


class Old(Fleet):
    """Names that say whose they are; ages do not count, because a recording is played long after."""

    dedupe = False

    def name(self, name: str) -> None:
        self.topic = self.kafka.create_topic(f"events-{name}", PARTITIONS)
        self.letters_topic = self.kafka.create_topic(f"letters-{name}", 1)
        self.group = f"bridge-{name}"

    def configuration(self, bootstrap_servers: str, port: int) -> str:
        options = ", keyed_by: contact" + (", dedupe: 1h" if self.dedupe else "")
        return super().configuration(bootstrap_servers, port).replace("{format: json}", f"{{format: json{options}}}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("old", type=Path)
    parser.add_argument("--state", choices=("sqlite", "redis"))
    parser.add_argument("--dedupe", action="store_true")
    options = parser.parse_args()
    commit = subprocess.run(
        ["git", "-C", options.old, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    produced = list(events(5, EVENTS, PEOPLE, 0.6, 5, now_wall_seconds=time.time()))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="old-")))
        kafka = DirectKafka()
        stack.callback(kafka.close)
        more, server = "", None
        if options.state == "sqlite":
            more = 'state: {url: "sqlite:///state.db"}'
        elif options.state == "redis":
            server = stack.enter_context(redis_server())
            more = f'state: {{url: "{server.url}"}}'
        fleet = Old(kafka, folder, Load(partitions=PARTITIONS, backlog=0.5, latency_ms=10, jitter_ms=5), more)
        stack.callback(fleet.close)
        fleet.name(options.name)
        fleet.dedupe = options.dedupe
        rules = (folder / "rules.yaml").read_text(encoding="utf-8")
        (folder / "rules.yaml").write_text(ageless(rules), encoding="utf-8")
        recording = record(fleet, options.old, produced, has_replays=(options.old / "bridge/replay").exists())
        recording = recording._replace(commit=commit)
        if options.state == "sqlite":
            recording = recording._replace(sqlite=sqlite_of(folder / "state.db"))
        elif server is not None:
            client = redis.Redis.from_url(server.url)
            found = {key: client.get(key) for key in sorted(client.scan_iter())}
            encoded = {key.decode(): base64.b64encode(value or b"").decode() for key, value in found.items()}
            recording = recording._replace(redis=encoded)
    save(options.name, recording)
    texts = [(partition, offset, len(text)) for partition, offset, text in recording.commits]
    print(f"{options.name}: {len(recording.ledger)} calls, commits {texts}, {len(recording.letters)} letters")


def record(fleet: Old, old: Path, produced: list[SampleEvent], *, has_replays: bool) -> Recording:
    late = produced[EVENTS // 3 :]
    held = {
        "trigger": people(late, ("user.signed_up", "invoice.payment_failed")),
        "track": people(late, ("plan.changed",)),
    }
    for endpoint, moment in (("trigger", "after"), ("track", "before")):
        for email in held[endpoint][-HELD:]:
            fleet.faults(rules=[{"endpoint": endpoint, "contact": email, "hang": moment, "latency_ms": 0}])
    fleet.faults(hang_seconds=600)
    command = (sys.executable, "-P", "-m", "bridge")
    environ = {"PYTHONPATH": str(old)}
    member = fleet.spawn(command, environ)
    fleet.produce(produced)
    before, still = -1, 0
    while still < 6:
        time.sleep(0.5)
        fleet.look_after()
        committed = fleet.committed()
        still = still + 1 if committed == before and committed > 0 else 0
        before = committed
        if has_replays and still == 5:
            has_replays, still = False, -64  # a first replay is noticed within 30 s
            done = subprocess.run(
                [*command, "dlq", "replay", "-c", str(member.config), "--kind", "rejected", "--yes"],
                env={**os.environ, "MEISA_API_KEY": "meisa_test_m1", **environ},
                capture_output=True,
                text=True,
                check=False,
            )
            print(done.stdout + done.stderr)
    fleet.crash(member)
    places = {(place.partition, place.offset): name for name, place in fleet.places.items()}
    poisons = {(event.user, event.sequence): event.poison for event in produced}
    records = []
    for partition in range(PARTITIONS):
        for each in fleet.kafka.read(fleet.topic, fleet.kafka.end(fleet.topic, partition), partition):
            user, sequence = places[partition, each.offset()]
            where = {"partition": partition, "offset": each.offset(), "timestamp_ms": each.timestamp()[1]}
            who = {"user": user, "sequence": sequence, "poison": poisons[user, sequence]}
            records.append({**where, **who, **told(each.key(), each.value(), each.headers() or ())})
    ledger = fleet.ledger()
    in_doubt = {each["contact"] for each in ledger if each["endpoint"] == "trigger" and each["fault"] == "hang_after"}
    return Recording(
        commit="",
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        group=fleet.group,
        topic=fleet.topic,
        letters_topic=fleet.letters_topic,
        records=records,
        commits=[(each.partition, each.offset, each.metadata or "") for each in fleet._committed()],
        letters=[told(each.key(), each.value(), each.headers() or ()) for each in fleet.letters()],
        replays=messages(fleet, f"{fleet.letters_topic}.replays"),
        ledger=[kept(entry) for entry in ledger if entry["endpoint"] != "ping"],
        in_doubt=len(in_doubt),
    )


def people(produced: list[SampleEvent], types: tuple[str, ...]) -> list[str]:
    """Emails of people who do such a thing, without repetition."""
    found = {}
    for event in produced:
        if event.poison is None and (said := orjson.loads(event.value))["type"] in types:
            found[said["data"]["email"]] = None
    return list(found)


def messages(fleet: Old, topic: str) -> list[dict[str, Any]]:
    try:
        return [told(each.key(), each.value()) for each in fleet.kafka.read(topic, fleet.kafka.end(topic))]
    except Exception:
        return []  # no replay was ever asked for: there is no such topic


LEDGER = (
    "number",
    "method",
    "path",
    "endpoint",
    "body",
    "contact",
    "status",
    "carried_out",
    "repeated",
    "answered",
    "fault",
)


def kept(entry: dict[str, Any]) -> dict[str, Any]:
    return {"key": entry["key"], **{name: entry[name] for name in LEDGER}}


if __name__ == "__main__":
    main()
