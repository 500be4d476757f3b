"""What a chaos run consists of: the sandbox, topics with events in them, and bridges that come and go."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from bridge.core.progress import decode, finished_offsets
from bridge.sandbox.children import free_port, read_ledger
from bridge.sandbox.stream import SampleEvent
from tests.support.chaos.cluster import DOORS, DirectKafka, ProxiedKafka
from tests.support.contributions import counted
from tests.support.kafka import unique
from tests.support.service import Sandbox

START_SECONDS_MAX = 40.0
STOP_SECONDS_MAX = 45.0
"""Above the bridge's own `shutdown_timeout`."""
STALLED_SECONDS_MAX = 120.0
"""No commit moves for so long: the run has failed. More than the bridge's longest backoff, a minute and a half."""


BRIDGE = (sys.executable, "-m", "bridge")
"""The command of this checkout."""


class Place(NamedTuple):
    """Where an event was written."""

    partition: int
    offset: int
    timestamp_ms: int


class Told(NamedTuple):
    """What one partition's commit told at a moment."""

    offset: int
    finished: frozenset[int]
    """Offsets beyond it."""
    delivered: Mapping[int, frozenset[int]]
    """Offset → digests of its delivered actions."""


class Moment(NamedTuple):
    """A point of the run at which the commits were read."""

    calls: int
    """Calls that the ledger held then, just after the commits were read."""
    told: Mapping[int, Told]
    crash: bool
    """Whoever ended here had no time to commit: what is not told may come again."""


class Stalled(AssertionError):
    """The work does not go on."""


class Member:
    """One bridge in a process of its own. Its API key is its own too: the ledger tells whose call it was."""

    def __init__(
        self,
        number: int,
        door: int,
        config: Path,
        key: str,
        folder: Path,
        admin_url: str,
        command: Sequence[str] = BRIDGE,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.door = door
        """Which of the ways to Kafka it takes."""
        self.name = f"m{number}"
        self.admin_url = admin_url
        self.config = config
        self.log = folder / f"{self.name}.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [*command, "run", "-c", str(config)],
                env={**os.environ, "MEISA_API_KEY": key, **(environ or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        return self._process.pid

    def crash(self) -> None:
        self._process.kill()
        self._process.wait()

    def terminate(self) -> int:
        """SIGTERM; returns the exit status."""
        self._process.terminate()
        try:
            return self._process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            raise Stalled(f"{self.name} does not stop\n{self.tail()}") from None

    def freeze(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        if self.running:
            self.crash()

    def status(self) -> dict[str, Any]:
        """What it says of itself; empty where it does not answer."""
        try:
            return dict(httpx.get(f"{self.admin_url}/api/status", timeout=5).json())
        except (httpx.HTTPError, ValueError):
            return {}

    def lines(self) -> list[dict[str, Any]]:
        """Its log so far."""
        found = []
        for line in self.log.read_text(errors="replace").splitlines():
            try:
                found.append(dict(json.loads(line)))
            except ValueError:
                found.append({"event": line})
        return found

    def tail(self, count: int = 12) -> str:
        return "".join(
            f"  {self.name} | {line}\n" for line in self.log.read_text(errors="replace").splitlines()[-count:]
        )


@dataclass(frozen=True, slots=True)
class Load:
    """How much work there is, and how the API is."""

    partitions: int = 6
    latency_ms: float = 30.0
    jitter_ms: float = 10.0
    backlog: float = 0.3
    """This share of the events is there from the start: bridges catch up, and upserts that wait merge."""
    events_per_second: float = 100.0
    """The others come in bursts, at this rate on average: less than bridges can do, so that many an upsert is alone."""
    burst: tuple[int, int] = (5, 150)
    """Events in a burst."""
    per_minute: int = 0
    """The API's quota for each key; 0: none."""
    seed: int = 1


class Fleet:
    """`members` are those that should run now; `gone` those that ended as they should."""

    def __init__(
        self,
        kafka: ProxiedKafka | DirectKafka,
        folder: Path,
        load: Load,
        more: str = "",
        meisa: str = "",
        shared: str = "",
    ) -> None:
        """`shared`: all bridges use one API key, whose quota they share in this way."""
        self.kafka = kafka
        self.load = load
        self._folder = folder
        self._more = more
        self._meisa = meisa
        self._shared = shared
        self.sandbox = Sandbox(
            *("--per-minute", str(load.per_minute), "--per-hour", "0", "--algorithm", "sliding"),
            *("--log-limit", "1000000", "--seed", str(load.seed)),
            *("--latency-ms", str(load.latency_ms), "--jitter-ms", str(load.jitter_ms)),
        )
        self._http = httpx.Client(base_url=f"{self.sandbox.url}/_sandbox", timeout=60)
        self.topic = kafka.create_topic(unique("events"), load.partitions)
        self.letters_topic = kafka.create_topic(unique("letters"), 1)
        self.group = unique("group")
        self.members: list[Member] = []
        self.gone: list[Member] = []
        self.broke: list[str] = []
        """Bridges that ended by themselves, and their last words."""
        self.places: dict[tuple[str, int], Place] = {}
        self.moments: list[Moment] = []
        self.events = 0
        self._numbers = 0
        self._feeder: threading.Thread | None = None
        self._fed = threading.Event()
        self._failed: list[Any] = []
        """What went wrong with producing."""
        self._observer: Consumer | None = None
        self._last_progress: tuple[int, float] = (-1, time.monotonic())
        (folder / "rules.yaml").write_text(counted(), encoding="utf-8")

    # Bridges

    def spawn(self, command: Sequence[str] = BRIDGE, environ: Mapping[str, str] | None = None) -> Member:
        """Starts one more bridge; it is among `members` at once. `command`: another one than this checkout's."""
        self._numbers += 1
        name = f"m{self._numbers}"
        key = "meisa_test_all" if self._shared else f"meisa_test_{name}"
        self._http.post("/keys", json={"key": key, "name": name}).raise_for_status()
        port = free_port()
        taken = [member.door for member in self.members]
        door = min(range(DOORS), key=taken.count)
        config = self._folder / f"{name}.yaml"
        config.write_text(self.configuration(self.kafka.door(door), port), encoding="utf-8")
        url = f"http://127.0.0.1:{port}"
        member = Member(self._numbers, door, config, key, self._folder, url, command, environ)
        self.members.append(member)
        return member

    def configuration(self, bootstrap_servers: str, port: int) -> str:
        """A bridge's, as YAML."""
        quota = f"{{per_minute: {self.load.per_minute or 1_000_000}, per_hour: 60000000, shared: '{self._shared}'}}"
        return f"""kafka: {{bootstrap_servers: "{bootstrap_servers}", group_id: {self.group}}}
topics: {{{self.topic}: {{format: json}}}}
meisa:
  base_url: {self.sandbox.url}/api/v1
  environment: test
  api_key: {{env: MEISA_API_KEY}}
  quota: {quota if self._shared else "{per_minute: 1000000, per_hour: 60000000}"}
{self._meisa}
rules: [rules.yaml]
dead_letters: {{topic: {self.letters_topic}}}
admin: {{listen: "127.0.0.1:{port}"}}
{self._more}
"""

    def crash(self, member: Member) -> None:
        """kill -9. What its commits told is kept as a moment."""
        member.crash()
        self._leave(member)
        self.remember(crash=True)

    def terminate(self, member: Member) -> None:
        """SIGTERM, and waits; an exit status other than 0 is noted."""
        status = member.terminate()
        self._leave(member)
        if status and not (status == -signal.SIGTERM and not member.log.stat().st_size):  # not even begun to start
            self.broke.append(f"{member.name} ended with status {status} on SIGTERM\n{member.tail()}")
        self.remember(crash=False)

    def _leave(self, member: Member) -> None:
        self.members.remove(member)
        self.gone.append(member)

    def look_after(self) -> None:
        """As a supervisor would: starts a bridge in place of one that has ended by itself, and notes it."""
        for member in list(self.members):
            if not member.running:
                self.broke.append(f"{member.name} ended by itself\n{member.tail()}")
                self._leave(member)
                self.remember(crash=True)
                self.spawn()

    # Events

    def produce(self, events: Sequence[SampleEvent]) -> None:
        """Writes the backlog, and the others meanwhile from a thread; `places` tells where each one went."""
        # Idempotent, because the broker may be restarted meanwhile, and the order is what is to be shown.
        producer = Producer(
            {
                "bootstrap.servers": self.kafka.bootstrap_servers,
                "linger.ms": 5,
                "enable.idempotence": True,
                "log_level": 0,
            }
        )
        self.events = len(events)
        there = int(len(events) * self.load.backlog)
        self._write(producer, events[:there])
        self._feeder = threading.Thread(target=self._feed, args=(producer, events[there:]), daemon=True)
        self._feeder.start()

    def _feed(self, producer: Producer, events: Sequence[SampleEvent]) -> None:
        dice = random.Random(self.load.seed)
        sent = 0
        while sent < len(events) and not self._failed:
            count = dice.randint(*self.load.burst)
            if self._fed.wait(count / self.load.events_per_second):
                return  # the run was given up
            self._write(producer, events[sent : sent + count])
            sent += count

    def _write(self, producer: Producer, events: Sequence[SampleEvent]) -> None:
        def keep(event: SampleEvent) -> Callable[[Any, Any], None]:
            def kept(error: Any, message: Any) -> None:
                if error is not None:
                    self._failed.append(error)
                    return
                place = Place(message.partition(), message.offset(), message.timestamp()[1])
                self.places[event.user, event.sequence] = place

            return kept

        for event in events:
            producer.produce(self.topic, event.value, event.key, headers=list(event.headers), on_delivery=keep(event))
            producer.poll(0)
        left = producer.flush(60)
        if left:
            self._failed.append(f"{left} events were not written")

    # What the group has committed

    def _committed(self) -> list[Any]:
        """Committed offsets with their text; empty where the broker does not answer."""
        if self._observer is None:
            self._observer = Consumer(
                {"bootstrap.servers": self.kafka.bootstrap_servers, "group.id": self.group, "log_level": 0}
            )
        asked = [TopicPartition(self.topic, number) for number in range(self.load.partitions)]
        try:
            return list(self._observer.committed(asked, timeout=5))
        except KafkaException:
            return []

    def committed(self) -> int:
        """The sum of committed offsets: every partition begins at 0. -1 where the broker does not answer."""
        answers = self._committed()
        return sum(max(0, answer.offset) for answer in answers) if answers else -1

    def remember(self, *, crash: bool) -> None:
        """Keeps what is told by commits now: calls that it tells must not come again."""
        for _ in range(20):
            if answers := self._committed():
                break
        else:
            raise Stalled("the broker does not tell what is committed")
        told = {}
        for answer in answers:
            progress = decode(answer.offset, answer.metadata or "")
            finished = frozenset(finished_offsets(progress)) if progress is not None else frozenset()
            told[answer.partition] = Told(answer.offset, finished, progress.delivered if progress is not None else {})
        self.moments.append(Moment(self.calls(), told, crash))

    def finished(self) -> bool:
        """All events are committed. Raises Stalled when nothing moves for too long, or events cannot be written."""
        if self._failed:
            raise Stalled(f"producing failed: {self._failed[:3]}")
        committed, now = self.committed(), time.monotonic()
        if committed > self._last_progress[0]:
            self._last_progress = (committed, now)
        elif now - self._last_progress[1] > STALLED_SECONDS_MAX:
            raise Stalled(self.story(f"{committed} of {self.events} events committed, and nothing moves"))
        return committed >= self.events

    def story(self, what: str) -> str:
        """For a run that fails: what everybody says."""
        told = [f"{what}\n"]
        for member in self.members:
            status = member.status()
            short = {name: status.get(name) for name in ("group_state", "waiting_for", "in_flight", "partitions")}
            told.append(f"{member.name} says {json.dumps(short, default=str)}\n{member.tail()}")
        return "".join(told)

    # What the sandbox holds

    def calls(self) -> int:
        """Calls in the ledger."""
        return int(self._http.get("/ledger", params={"since": str(2**52), "limit": "1"}).json()["total"])

    def work_is_done(self, since: int) -> bool:
        """Whether calls other than a start's came after the ledger's entry `since`."""
        page = self._http.get("/ledger", params={"since": str(since), "limit": "50"}).json()
        return any(entry["endpoint"] != "ping" for entry in page["entries"])

    def ledger(self) -> list[dict[str, Any]]:
        return list(read_ledger(self.sandbox.url))

    def emails(self) -> list[dict[str, Any]]:
        return self._all("/emails")

    def contacts(self) -> list[dict[str, Any]]:
        answer = self._http.get("/contacts", params={"environment": "test", "limit": "10000"})
        return list(answer.json()["contacts"])

    def _all(self, path: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        since = 0
        while True:
            query = {"environment": "test", "since": str(since), "limit": "5000"}
            page = self._http.get(path, params=query).json()
            found += page["entries"]
            if not page["entries"]:
                return found
            since = page["next"]["test"]

    def faults(self, **faults: Any) -> None:
        self.sandbox.post("faults", **faults)

    def clear_faults(self) -> None:
        """All faults end; the latency stays."""
        self._http.delete("/faults")
        self.faults(latency_ms=self.load.latency_ms, jitter_ms=self.load.jitter_ms)

    def letters(self) -> list[Any]:
        """All dead letters."""
        return self.kafka.read(self.letters_topic, self.kafka.end(self.letters_topic))

    def close(self) -> None:
        self._fed.set()
        if self._feeder is not None:
            self._feeder.join(70)  # longer than a flush may take
        for member in self.members:
            member.thaw()
            member.close()
        if self._observer is not None:
            self._observer.close()
        self._http.close()
        self.sandbox.child.close()
