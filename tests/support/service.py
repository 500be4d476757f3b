"""A whole service as users run it: `meisa-bridge run` and `meisa-bridge sandbox` in processes of their own."""

import contextlib
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from confluent_kafka import Consumer, KafkaException, TopicPartition

from bridge.core.progress import decode, finished_offsets
from bridge.sandbox.audit import Audit, DeadLetter, audit
from bridge.sandbox.children import Child, free_port, read_ledger
from bridge.sandbox.options import TEST_KEY
from bridge.sandbox.stream import SampleEvent
from tests.support.contributions import contributions, counted
from tests.support.kafka import Cluster, unique

PARTITIONS = 4
WAIT_SECONDS_MAX = 90.0


def wait_for(true: Callable[[], Any], what: str, seconds: float = WAIT_SECONDS_MAX) -> None:
    """Polls until `true()`; fails with `what` it waited for."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"waited in vain for: {what}"
        time.sleep(0.1)


class Sandbox:
    """A sandbox in a process of its own, and its control API."""

    def __init__(self, *flags: str) -> None:
        self.child = Child("the sandbox", ["sandbox", "--port", "0", *flags])
        self.url = self.child.wait_for(re.compile(r"page (http://\S+?)/?$")).group(1)

    def post(self, name: str, /, **body: Any) -> Any:
        answer = httpx.post(f"{self.url}/_sandbox/{name}", json=body, timeout=10)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def ledger(self) -> list[dict[str, Any]]:
        return list(read_ledger(self.url))

    def received(self) -> int:
        """Calls other than pings that came so far."""
        state = httpx.get(f"{self.url}/_sandbox/state", timeout=10).json()
        return sum(sum(by.values()) for endpoint, by in state["calls"].items() if endpoint != "ping")


class Service:
    """The bridge with its topics on a broker, and a sandbox; started and crashed as a test likes."""

    def __init__(self, cluster: Cluster, sandbox: Sandbox, folder: Path) -> None:
        self.cluster = cluster
        self.sandbox = sandbox
        self.topic = cluster.create_topic(unique("events"), PARTITIONS)
        self.letters_topic = cluster.create_topic(unique("letters"), 1)
        self.group = unique("group")
        self.folder = folder
        self.bridges: list[Child] = []
        self.quota = "{per_minute: 1000000, per_hour: 60000000}"
        self._observer: Consumer | None = None
        (folder / "rules.yaml").write_text(counted(), encoding="utf-8")

    def start(self, *, key: str = TEST_KEY, more: str = "") -> Child:
        """Starts a bridge and waits until it says that it runs."""
        bridge = self.spawn(key=key, more=more)
        bridge.wait_for(re.compile("started: events are taken in"))
        return bridge

    def spawn(self, *, key: str = TEST_KEY, more: str = "") -> Child:
        """Starts a bridge; its `admin_url` is where it serves."""
        port = free_port()
        config = self.folder / f"bridge-{len(self.bridges)}.yaml"
        config.write_text(
            f"""kafka: {{bootstrap_servers: "{self.cluster.bootstrap_servers}", group_id: {self.group}}}
topics: {{{self.topic}: {{format: json}}}}
meisa:
  base_url: {self.sandbox.url}/api/v1
  environment: test
  api_key: {{env: MEISA_API_KEY}}
  quota: {self.quota}
rules: [rules.yaml]
dead_letters: {{topic: {self.letters_topic}}}
admin: {{listen: "127.0.0.1:{port}"}}
{more}
""",
            encoding="utf-8",
        )
        bridge = Child("the bridge", ["run", "-c", str(config)], {"MEISA_API_KEY": key})
        self.admin_url = f"http://127.0.0.1:{port}"
        self.bridges.append(bridge)
        return bridge

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = httpx.get(f"{self.admin_url}/api/status", timeout=10).json()
        return status

    def produce(self, events: Sequence[SampleEvent]) -> None:
        self.cluster.produce(
            self.topic, *({"value": e.value, "key": e.key, "headers": list(e.headers)} for e in events)
        )

    def committed(self) -> int:
        """The sum of committed offsets; every topic here begins at 0."""
        if self._observer is None:
            self._observer = Consumer(
                {"bootstrap.servers": self.cluster.bootstrap_servers, "group.id": self.group, "log_level": 3}
            )
        partitions = [TopicPartition(self.topic, number) for number in range(PARTITIONS)]
        try:
            answers = self._observer.committed(partitions, timeout=10)
        except KafkaException:
            return -1  # the coordinator is still finding itself; whoever waits asks again
        return sum(max(0, answer.offset) for answer in answers)

    def finished_by_commits(self) -> set[tuple[str, int]]:
        """Email and number of every good event that the group's commits call finished, progress included."""
        finished = set()
        for number in range(PARTITIONS):
            offset, metadata = self.cluster.committed(self.group, self.topic, number)
            progress = decode(offset, metadata)
            done = set(finished_offsets(progress)) if progress is not None else set()
            for message in self.cluster.read(self.topic, self.cluster.end(self.topic, number), number):
                if message.offset() < offset or message.offset() in done:
                    with contextlib.suppress(ValueError, KeyError):  # a bad event
                        data = json.loads(message.value())["data"]
                        finished.add((data["email"], data["seq"]))
        return finished

    def came_again(self) -> set[tuple[str, int]]:
        """Email and number of every event of which an action came more than once, alone or within a merged upsert."""
        came: Counter[tuple[str, str, int]] = Counter()
        for entry in self.sandbox.ledger():
            endpoint, body = entry["endpoint"], entry.get("body") or {}
            parts = (body.get(name) or {} for name in ("properties", "variables", "metadata"))
            numbers = contributions(body) or [part["seq"] for part in parts if "seq" in part]
            if entry["carried_out"]:  # tags do not tell their event
                came.update((endpoint, entry["contact"], number) for number in numbers)
        return {(contact, number) for (_, contact, number), times in came.items() if times > 1}

    def letters(self) -> list[Any]:
        """All dead letters written so far."""
        return self.cluster.read(self.letters_topic, self.cluster.end(self.letters_topic))

    def audit(self, produced: Sequence[SampleEvent]) -> Audit:
        """Compares what was produced with the sandbox's ledger and the dead letters."""
        letters = []
        for message in self.letters():
            headers = dict(message.headers())
            kind, text = headers["meisa-bridge.kind"].decode(), headers["meisa-bridge.message"].decode()
            letters.append(DeadLetter(message.value(), kind, text))
        return audit(produced, self.sandbox.ledger(), letters)

    def close(self) -> None:
        if self._observer is not None:
            self._observer.close()
        for bridge in self.bridges:
            bridge.crash()  # nobody looks any more: a graceful end takes a second, and is what `Child.end` proves


@contextmanager
def sandbox() -> Iterator[Sandbox]:
    """A sandbox without a quota."""
    made = Sandbox("--per-minute", "0", "--per-hour", "0", "--log-limit", "100000")
    try:
        yield made
    finally:
        made.child.close()


@contextmanager
def service(cluster: Cluster, folder: Path, sandbox: Sandbox, *, latency_ms: float) -> Iterator[Service]:
    """A service whose bridge is not started yet. The sandbox, which tests may share, is as if it had just started."""
    sandbox.post("reset")
    sandbox.post("faults", latency_ms=latency_ms)
    made = Service(cluster, sandbox, folder)
    try:
        yield made
    finally:
        made.close()
