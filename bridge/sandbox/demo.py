"""`meisa-bridge demo`: the whole thing on this machine, with nothing else installed, and a proof at the end.

An embedded broker, the sandbox, a real `meisa-bridge run`, and a stream of sample events: three processes beside this
one, on loopback, in a temporary folder that goes away. At the end the sandbox's ledger and the dead-letter topic are
compared with what was produced (audit.py); the exit status is 0 only if they agree.
"""

from __future__ import annotations

import contextlib
import re
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
from confluent_kafka import Consumer, Producer, TopicPartition

from bridge.errors import StartFailed, UsageError
from bridge.sandbox.audit import Audit, DeadLetter, audit
from bridge.sandbox.broker import EmbeddedBroker
from bridge.sandbox.children import Child, free_port, read_ledger
from bridge.sandbox.options import TEST_KEY, option
from bridge.sandbox.stream import SampleEvent, events

TOPIC = "user-events"
LETTERS = "meisa-bridge.dead-letters"
PARTITIONS = 6
AHEAD_MAX = 10_000
"""Events produced and not yet finished: about 4 MB, below the 5 MiB per partition that the embedded broker keeps."""
STALLED_SECONDS_MAX = 60.0
"""Without any progress for so long the demo gives up and says where it stands."""
LATENCY_MS_MAX = 10_000
"""The bridge gives up a call after `timeout`, 10 s: beyond that nothing would ever be delivered."""
ENOUGH = 1_000_000
"""Calls a minute: the demo shows the path, not the waiting for a quota of 60."""
SHOWN = 5


@dataclass(slots=True)
class DemoOptions:
    """Each field with a `help` is a flag of `meisa-bridge demo`."""

    events: int = option(10_000, "how many events")
    users: int = option(500, "how many users; their activity is Zipf-distributed")
    bad: int = option(25, "how many of the events are bad")
    latency_ms: float = option(3.0, "how long the sandbox takes to answer")
    seed: int = option(7, "the same seed makes the same events")

    def check(self) -> None:
        """Raises UsageError."""
        if self.users < 1 or self.events < 1:
            raise UsageError("demo: needs at least one user and one event")
        if not 0 <= self.bad < self.events:
            raise UsageError("demo: --bad must be less than --events: the first event is always good")
        if not 0 <= self.latency_ms <= LATENCY_MS_MAX:  # nor NaN
            raise UsageError(f"demo: --latency-ms must be between 0 and {LATENCY_MS_MAX:,}")


def run(options: DemoOptions) -> int:
    """Runs the demo and prints its summary on standard output. Raises StartFailed where a part does not start."""
    options.check()
    # A demo that is told to end, or whose terminal is closed, must still end its children and leave nothing behind.
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, lambda number, frame: sys.exit(128 + number))
    show = _Progress(options.events)
    try:
        folder = tempfile.TemporaryDirectory(prefix="meisa-bridge-demo-")
    except OSError as error:
        raise StartFailed(f"demo: no temporary folder can be made ({error.strerror}); set TMPDIR to one") from None
    with folder as name:
        demo = Demo(options, Path(name), show)
        try:
            demo.run()
        finally:
            demo.close()
    assert demo.result is not None
    show.line(summary(demo.result, demo.seconds, options))
    return 0 if demo.result.agrees else 1


class Demo:
    """One demo from start to end."""

    def __init__(self, options: DemoOptions, folder: Path, show: _Progress) -> None:
        self._options = options
        self._folder = folder
        self._show = show
        self._broker = EmbeddedBroker()
        self._children: list[Child] = []
        self.result: Audit | None = None
        self.seconds = 0.0

    def run(self) -> None:
        options, show = self._options, self._show
        show.line("starting an embedded Kafka broker, the Meisa sandbox and the bridge …")
        self._broker.start()
        for topic, partitions in ((TOPIC, PARTITIONS), (LETTERS, 1)):
            self._broker.create_topic(topic, partitions)
        sandbox_url = self._start_sandbox()
        admin_url, bridge = self._start_bridge(sandbox_url)
        show.line(f"  sandbox    {sandbox_url}/   contacts, events, email, and every call\n  dashboard  {admin_url}/")
        produced = list(
            events(options.seed, options.events, options.users, poison=options.bad, now_wall_seconds=time.time())
        )
        begun = time.monotonic()
        self._produce(produced, lambda: _finished(admin_url))
        self.seconds = time.monotonic() - begun
        bridge.end()
        lost = self._uncommitted()
        self.result = audit(produced, read_ledger(sandbox_url), self._letters())
        if lost:
            self.result.lost.append(f"{lost} events were never committed")

    def close(self) -> None:
        for child in reversed(self._children):
            child.close()
        self._broker.stop()

    def _start_sandbox(self) -> str:
        command = ["sandbox", "--port", "0", "--latency-ms", str(self._options.latency_ms)]
        command += ["--per-minute", "0", "--per-hour", "0", "--log-limit", str(self._options.events * 4 + 1000)]
        child = self._start("the sandbox", command)
        return child.wait_for(re.compile(r"page (http://\S+?)/?$")).group(1)

    def _start_bridge(self, sandbox_url: str) -> tuple[str, Child]:
        port = free_port()
        config = self._folder / "bridge.yaml"
        config.write_text(
            f"""kafka:
  bootstrap_servers: {self._broker.bootstrap_servers}
  group_id: meisa-bridge-demo
topics:
  {TOPIC}: {{format: json, keyed_by: contact}}
meisa:
  base_url: {sandbox_url}/api/v1
  environment: test
  api_key: {{env: MEISA_API_KEY}}
  quota: {{per_minute: {ENOUGH}, per_hour: {ENOUGH * 60}}}
rules: [rules.yaml]
dead_letters: {{topic: {LETTERS}}}
admin: {{listen: "127.0.0.1:{port}"}}
""",
            encoding="utf-8",
        )
        rules = files("bridge.sandbox").joinpath("demo_files", "rules.yaml").read_text(encoding="utf-8")
        (self._folder / "rules.yaml").write_text(rules, encoding="utf-8")
        child = self._start("the bridge", ["run", "-c", str(config)], MEISA_API_KEY=TEST_KEY)
        child.wait_for(re.compile(r"started: events are taken in"))
        return f"http://127.0.0.1:{port}", child

    def _start(self, name: str, arguments: list[str], **environ: str) -> Child:
        child = Child(name, arguments, environ)
        self._children.append(child)
        return child

    def _produce(self, produced: list[SampleEvent], finished: Callable[[], int]) -> None:
        """Produces at the pace of the bridge, and waits until it has finished everything."""
        # Idempotent, because a repeated request may otherwise overtake another, and the order is what is to be shown.
        producer = Producer(
            {
                "bootstrap.servers": self._broker.bootstrap_servers,
                "linger.ms": 20,
                "enable.idempotence": True,
                "log_level": 3,
            }
        )
        sent = done = 0
        changed = time.monotonic()
        while done < len(produced):
            for event in produced[sent : done + AHEAD_MAX]:
                producer.produce(TOPIC, event.value, event.key, headers=list(event.headers))
                sent += 1
            producer.flush(10)
            time.sleep(0.2)
            self._alive()
            before, done = done, finished()
            self._show.update(done)
            if done != before:
                changed = time.monotonic()
            elif time.monotonic() - changed > STALLED_SECONDS_MAX:
                raise StartFailed(
                    f"demo: no progress for {STALLED_SECONDS_MAX:g} s at {done} of {len(produced)} events"
                )

    def _alive(self) -> None:
        for child in self._children:
            child.check()

    def _consumer(self) -> Consumer:
        return Consumer(
            {
                "bootstrap.servers": self._broker.bootstrap_servers,
                "group.id": "meisa-bridge-demo",
                "enable.auto.commit": False,
                "enable.partition.eof": False,
                "log_level": 3,
            }
        )

    def _uncommitted(self) -> int:
        """Events beyond what the group committed."""
        consumer = self._consumer()
        try:
            partitions = [TopicPartition(TOPIC, number) for number in range(PARTITIONS)]
            missing = 0
            for committed in consumer.committed(partitions, timeout=10):
                _, end = consumer.get_watermark_offsets(committed, timeout=10)
                missing += end - max(committed.offset, 0)
            return missing
        finally:
            consumer.close()

    def _letters(self) -> list[DeadLetter]:
        consumer = self._consumer()
        try:
            topic = TopicPartition(LETTERS, 0)
            _, end = consumer.get_watermark_offsets(topic, timeout=10)
            topic.offset = 0
            consumer.assign([topic])
            letters: list[DeadLetter] = []
            deadline = time.monotonic() + 10
            while len(letters) < end and time.monotonic() < deadline:
                for message in consumer.consume(1000, 0.5):
                    headers: dict[str, Any] = dict(message.headers() or [])
                    kind = headers.get("meisa-bridge.kind", b"").decode()
                    text = headers.get("meisa-bridge.message", b"").decode()
                    letters.append(DeadLetter(message.value(), kind, text))
            return letters
        finally:
            consumer.close()


def _finished(admin_url: str) -> int:
    """Events that the bridge has finished, by its own status."""
    with contextlib.suppress(httpx.HTTPError):
        totals = httpx.get(f"{admin_url}/api/status", timeout=10).json().get("totals", {})
        return sum(totals.values())
    return 0


def summary(found: Audit, seconds: float, options: DemoOptions) -> str:
    """The demo's last words."""
    calls = sum(count for endpoint, count in found.calls.items() if endpoint != "ping")
    rows = [
        ("events", f"{found.events:,} of {options.users:,} users in {seconds:.1f} s = {found.events / seconds:,.0f}/s"),
        (
            "calls",
            f"{calls:,}: " + ", ".join(f"{name} {n:,}" for name, n in found.calls.most_common() if name != "ping"),
        ),
        ("merged", f"{found.merged:,} upserts that the same user's next one carried"),
        ("unchanged", f"{found.unchanged:,} tags that their user had already"),
        ("dead letters", f"{sum(found.letters.values())} of {options.bad} bad events"),
        *(
            ("", f"{kind:<9} {count:>3}  {poison.replace('_', ' ')}")
            for (kind, poison), count in sorted(found.letters.items())
        ),
        ("order violations", str(len(found.out_of_order))),
        ("lost", str(len(found.lost))),
        ("calls repeated", str(len(found.repeated))),
        ("emails twice", str(len(found.emails_twice))),
    ]
    lines = [f"  {name:<17} {text}" for name, text in rows]
    wrong = found.lost + found.out_of_order + found.emails_twice + found.wrong_letters
    lines += [f"  ! {text}" for text in wrong[:SHOWN]]
    if len(wrong) > SHOWN:
        lines.append(f"  ! … and {len(wrong) - SHOWN} more")
    verdict = "The ledger agrees." if found.agrees else "THE LEDGER DISAGREES."
    return "\n".join(["", *lines, "", verdict])


class _Progress:
    """A bar on a terminal, a line every few seconds elsewhere."""

    LINE_SECONDS = 3.0

    def __init__(self, total: int) -> None:
        self._total = total
        self._terminal = sys.stdout.isatty()
        self._begun = time.monotonic()
        self._said = 0.0
        self._bar_shown = False

    def update(self, done: int) -> None:
        now = time.monotonic()
        share = done / self._total
        text = f"{done:>{len(f'{self._total:,}')},} of {self._total:,} events finished"
        if self._terminal:
            filled = int(share * 40)
            self._write(f"\r  [{'█' * filled}{'·' * (40 - filled)}] {text} ")
            self._bar_shown = True
        elif done == self._total or now - self._said >= self.LINE_SECONDS:
            self._said = now
            self._write(f"  {text}\n")

    def line(self, text: str) -> None:
        if self._bar_shown:
            self._write("\n")
            self._bar_shown = False
        self._write(text + "\n")

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
