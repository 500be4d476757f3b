"""What surrounds the measured bridge: topics, browsers and a scraper, rules that change, letters that are replayed."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import httpx
import orjson
from confluent_kafka import Producer, TopicPartition

from bridge.sandbox.stream import SampleEvent
from tests.support.chaos.cluster import DirectKafka, ProxiedKafka
from tests.support.chaos.fleet import BRIDGE, Fleet, Load, Member
from tests.support.kafka import unique
from tests.support.soak.side import FORMATS, SCHEMA, Hit, Side, rules

MEMBER: Final = (sys.executable, "-m", "tests.support.soak.member")
SCRAPE_SECONDS: Final = 3.0
REPLAY_SECONDS_MAX: Final = 180.0


class World(Fleet):
    """A fleet that has topics of all formats, a state file, and one API key whose quota it shares."""

    def __init__(
        self, kafka: ProxiedKafka | DirectKafka, folder: Path, per_minute: int, latency_ms: float, seed: int
    ) -> None:
        load = Load(latency_ms=latency_ms, jitter_ms=latency_ms / 3, per_minute=per_minute, seed=seed)
        super().__init__(kafka, folder, load, shared="partitions")
        self.folder = folder
        self.side = Side({format: kafka.create_topic(unique(format), 1) for format in FORMATS})
        self.per_minute = per_minute
        self._producer = Producer(
            {
                "bootstrap.servers": kafka.bootstrap_servers,
                "linger.ms": 5,
                "enable.idempotence": True,
                "log_level": 0,
            }
        )
        self.rules_written = 0
        self._demo_rules = (folder / "rules.yaml").read_text(encoding="utf-8")
        (folder / "side.yaml").write_text(rules(self.side.topics), encoding="utf-8")
        (folder / "soak.avsc").write_bytes(orjson.dumps(SCHEMA))

    def configuration(self, bootstrap_servers: str, port: int) -> str:
        side = self.side.topics
        return f"""kafka: {{bootstrap_servers: "{bootstrap_servers}", group_id: {self.group}}}
topics:
  {self.topic}: {{format: json, keyed_by: contact, dedupe: 10m}}
  {side["cloudevents"]}: {{format: cloudevents}}
  {side["debezium"]}: {{format: debezium}}
  {side["avro"]}: {{format: avro, schema: soak.avsc}}
meisa:
  base_url: {self.sandbox.url}/api/v1
  environment: test
  api_key: {{env: MEISA_API_KEY}}
  quota: {{per_minute: {self.per_minute}, per_hour: {60 * self.per_minute}, reserve: 0.1}}
rules: [rules.yaml, side.yaml]
dead_letters: {{topic: {self.letters_topic}}}
state: {{url: "sqlite:///state.db"}}
admin: {{listen: "127.0.0.1:{port}"}}
"""

    def measured(self, bound: int) -> Member:
        """Starts the bridge that is measured."""
        return self.spawn(MEMBER, {"SOAK_BOUND": str(bound), "SOAK_OBJECTS": str(self.objects)})

    @property
    def objects(self) -> Path:
        """Where the measured bridge writes what objects it has."""
        return self.folder / "objects.json"

    def state_bytes(self) -> int:
        files = (self.folder / f"state.db{suffix}" for suffix in ("", "-wal"))
        return sum(file.stat().st_size for file in files if file.exists())

    # Events

    def feed(self, events: Sequence[SampleEvent]) -> None:
        """Writes events of the demo's stream."""
        if events:
            self._write(self._producer, events)
            self.events += len(events)

    def hit(self, hits: Sequence[Hit]) -> None:
        """Writes events of the other formats."""
        for hit in hits:
            self._producer.produce(hit.topic, **dict(hit.record), on_delivery=self._written)
            self._producer.poll(0)

    def _written(self, error: Any, _: Any) -> None:
        if error is not None:
            self._failed.append(error)

    def done(self) -> bool:
        """Everything that was produced is committed. Raises Stalled when nothing moves for too long."""
        self._producer.flush(60)
        if not self.finished():
            return False
        assert self._observer is not None
        asked = [TopicPartition(topic, 0) for topic in self.side.topics.values()]
        with contextlib.suppress(Exception):
            answers = self._observer.committed(asked, timeout=5)
            return sum(max(0, answer.offset) for answer in answers) >= sum(self.side.produced.values())
        return False

    # What people do

    def change_rules(self) -> None:
        """Exchanges the rules file for one that says the same a little differently: it is read again."""
        self.rules_written += 1
        age = "1d" if self.rules_written % 2 else "2d"
        text = self._demo_rules.replace(
            'seq: "${data.seq}"}\n\n  - name: login',
            f'seq: "${{data.seq}}"}}\n        max_age: {age}\n\n  - name: login',
        )
        assert text != self._demo_rules
        fresh = self.folder / "rules.new"
        fresh.write_text(f"# written {self.rules_written} times\n{text}", encoding="utf-8")
        fresh.rename(self.folder / "rules.yaml")

    def replay(self, member: Member, *options: str) -> str:
        """`dlq replay`; returns what it said. Raises AssertionError where it fails."""
        command = [*BRIDGE, "dlq", "replay", "-c", str(member.config), "--yes", *options]
        done = subprocess.run(
            command,
            env={**os.environ, "MEISA_API_KEY": "meisa_test_all"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=REPLAY_SECONDS_MAX,
            check=False,
        )
        assert done.returncode == 0, f"dlq replay failed: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def let(self, share: float) -> None:
        """The server grants this share of the quota from now on."""
        self._http.post("/keys", json={"key": "meisa_test_all", "per_minute": round(share * self.per_minute)})


class Visitors:
    """A scraper that comes every few seconds, and browsers with the dashboard open that come and go."""

    def __init__(self, url: str, seed: int) -> None:
        self._url = url
        self._dice = random.Random(seed)
        self._stop = threading.Event()
        self.viewers = 0
        """Browsers that should be there."""
        self.scraped = 0
        self.viewed = 0
        self.metrics: dict[str, float] = {}
        """As last scraped; samples of a family are added up."""
        self._threads = [threading.Thread(target=self._scrape, daemon=True)]
        self._threads += [threading.Thread(target=self._view, args=(number,), daemon=True) for number in range(4)]
        for thread in self._threads:
            thread.start()

    def _scrape(self) -> None:
        with httpx.Client(base_url=self._url, timeout=10) as client:
            while not self._stop.wait(SCRAPE_SECONDS):
                with contextlib.suppress(httpx.HTTPError):
                    found: dict[str, float] = {}
                    for line in client.get("/metrics").text.splitlines():
                        name, _, value = line.rpartition(" ")
                        if name and not line.startswith("#"):
                            family = name.partition("{")[0]
                            found[family] = found.get(family, 0.0) + float(value)
                    self.metrics = found
                    client.get("/readyz")
                    client.get("/api/status").raise_for_status()
                    self.scraped += 1

    def _view(self, number: int) -> None:
        while not self._stop.wait(self._dice.uniform(0.2, 2.0)):
            if number >= self.viewers:
                continue
            with contextlib.suppress(httpx.HTTPError), httpx.Client(base_url=self._url, timeout=10) as client:
                client.get("/")
                until = time.monotonic() + self._dice.uniform(1.0, 15.0)
                with client.stream("GET", "/api/live") as events:
                    self.viewed += 1
                    for _ in events.iter_raw():
                        if time.monotonic() > until or number >= self.viewers or self._stop.is_set():
                            break

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)
