"""What the bridge delivers where the quota is no limit, beside a hand-written consumer, measured in the same run.

    python -m benchmarks throughput                        # all cases
    python -m benchmarks throughput --events 2000 --case bridge-uniform

Every case has a fresh topic of 6 partitions on a real Apache Kafka (with Java 17 and Maven; else on the embedded
broker, and the table says so), 1,000 contacts, and the API server of api_server.py, which answers after 50 ms and
checks the order per contact. Figures of this kind of machine are noisy: trust the ratios of one run.

| column | meaning |
|---|---|
| events/s | events ÷ (first call's arrival to last answer) |
| calls/s | calls ÷ the same: fewer where upserts of one contact that wait merge into one call, which tracks never do |
| disorder | calls of a contact that came in the wrong order, or while another of the same contact was unanswered |
| CPU s/1,000 | user and system time of the whole process, its start included, per 1,000 events |
| peak MB | largest resident memory of the process |
| first call s | from starting the process to the first call's arrival: interpreter, imports, joining the group |
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from benchmarks.broker import Broker, broker

PARTITIONS = 6
CONTACTS = 1000
HERE = Path(__file__).parent

CONFIG = """\
kafka: {{bootstrap_servers: "{bootstrap}", group_id: "{topic}"}}
topics: {{{topic}: {{format: json}}}}
meisa:
  base_url: {url}
  environment: test
  api_key: {{env: MEISA_API_KEY}}
  quota: {{per_minute: 1000000, per_hour: 60000000}}
  max_in_flight: {in_flight}
rules: [rules.yaml]
admin: {{listen: "127.0.0.1:0"}}
"""
RULES = """\
rules:
  - name: login
    match: user.logged_in
    do:
"""
TRACK = """\
      - track:
          event_name: logged_in
          email: ${data.email}
          external_id: ${data.user_id}
          properties: {seq: "${data.seq}"}
"""
UPSERT = """\
      - upsert:
          email: ${data.email}
          external_id: ${data.user_id}
          custom_fields: {seq: "${data.seq}"}
"""


@dataclass(frozen=True)
class Case:
    name: str
    words: str
    zipf: bool = False
    upserts: bool = False
    """Each event is an upsert, as with the baseline; else a track, which costs a call whatever else waits."""
    baseline: bool = False
    share: float = 1.0
    """Of --events: the baseline is so slow that it gets fewer."""


CASES = (
    Case("bridge-uniform", "Meisa bridge, tracks, uniform contacts"),
    Case("bridge-zipf", "Meisa bridge, tracks, Zipf contacts (s = 1.1)", zipf=True, share=0.3),
    Case("bridge-uniform-upserts", "Meisa bridge, upserts, uniform contacts", upserts=True),
    Case("bridge-zipf-upserts", "Meisa bridge, upserts, Zipf contacts (s = 1.1)", zipf=True, upserts=True),
    Case("baseline", "hand-written consumer", upserts=True, baseline=True, share=0.05),
)


@dataclass
class Row:
    case: Case
    events: int
    report: dict[str, Any]
    cpu_seconds: float
    peak_mb: float
    first_call_seconds: float
    busiest: int

    @property
    def rate(self) -> float:
        """Events a second."""
        return float(self.events / max(1e-9, self.report["seconds"]))

    @property
    def calls_rate(self) -> float:
        return float(self.report["calls"] / max(1e-9, self.report["seconds"]))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks throughput", description="Throughput, CPU, memory, start."
    )
    parser.add_argument("--events", type=int, default=10_000)
    parser.add_argument("--latency-ms", type=float, default=50.0)
    parser.add_argument("--in-flight", type=int, default=256, help="meisa.max_in_flight of the bridge")
    parser.add_argument("--case", action="append", choices=[case.name for case in CASES])
    parser.add_argument("--embedded", action="store_true", help="the embedded broker, even where Java is there")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    chosen = [case for case in CASES if not options.case or case.name in options.case]
    rows = []
    with broker(embedded=options.embedded) as kafka, _api_server(options.latency_ms) as url:
        for case in chosen:
            rows.append(_measure(case, options, kafka, url))
            row = rows[-1]
            words = f"{row.rate:,.0f} events/s, {row.calls_rate:,.0f} calls/s"
            print(f"  {case.words}: {words}", file=sys.stderr, flush=True)
        _print(rows, options, kafka)


def _measure(case: Case, options: argparse.Namespace, kafka: Broker, url: str) -> Row:
    topic = f"bench-{case.name}-{os.getpid()}"
    kafka.create_topic(topic, PARTITIONS)
    count = max(1, int(options.events * case.share))
    busiest = _produce(kafka.bootstrap_servers, topic, count, case.zipf, options.seed)
    _call(f"{url}/reset", b"")
    with tempfile.TemporaryDirectory() as folder:
        if case.baseline:
            command = [sys.executable, str(HERE / "baseline.py"), "--bootstrap", kafka.bootstrap_servers]
            command += ["--topic", topic, "--group", topic, "--url", f"{url}/api/v1", "--count", str(count)]
        else:
            config = Path(folder, "bridge.yaml")
            config.write_text(
                CONFIG.format(
                    bootstrap=kafka.bootstrap_servers, topic=topic, url=f"{url}/api/v1", in_flight=options.in_flight
                )
            )
            Path(folder, "rules.yaml").write_text(RULES + (UPSERT if case.upserts else TRACK))
            command = [sys.executable, "-m", "bridge", "run", "-c", str(config)]
        log = Path(folder, "log")
        with log.open("wb") as output:
            started = time.time()
            process = subprocess.Popen(
                command,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "MEISA_API_KEY": "meisa_test_bench"},
            )
            report = _wait(url, count, "covered" if case.upserts else "distinct_seqs", process, log)
            if not case.baseline:
                process.send_signal(signal.SIGTERM)
            _, _, usage = os.wait4(process.pid, 0)
            process.returncode = 0  # reaped above, for its usage
        _show_warnings(case, log)
    return Row(
        case,
        count,
        report,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        peak_mb=usage.ru_maxrss / 1024,
        first_call_seconds=report["first_call_wall_seconds"] - started,
        busiest=busiest,
    )


def _show_warnings(case: Case, log: Path) -> None:
    """A measurement with a warning in its log is not what it seems."""
    for line in log.read_text(errors="replace").splitlines():
        if '"level":"warning"' in line or '"level":"error"' in line or "Traceback" in line:
            print(f"  {case.name}: {line}", file=sys.stderr)


def _produce(bootstrap: str, topic: str, count: int, zipf: bool, seed: int) -> int:
    """Fills the topic; returns how many events the busiest contact has."""
    dice = random.Random(seed)
    weights = [(rank + 1) ** -1.1 if zipf else 1.0 for rank in range(CONTACTS)]
    # Without idempotence a request that is repeated to a topic just made may overtake another: disorder in the log.
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 20, "enable.idempotence": True})
    seqs = [0] * CONTACTS
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    for number, contact in enumerate(dice.choices(range(CONTACTS), weights, k=count)):
        seqs[contact] += 1
        data = {"user_id": f"u{contact}", "email": f"user{contact}@example.com", "seq": seqs[contact]}
        event = {"id": f"e{number}", "type": "user.logged_in", "time": stamp, "data": data}
        producer.produce(topic, json.dumps(event).encode(), f"u{contact}".encode())
        producer.poll(0)
    producer.flush(30)
    return max(seqs)


def _wait(url: str, count: int, what: str, process: subprocess.Popen[bytes], log: Path) -> dict[str, Any]:
    """Polls the API server's report, seldom enough not to disturb, until its `what` says that no event is missing, and
    all calls were answered."""
    changed, last = time.monotonic(), -1
    while True:
        time.sleep(0.5)
        report: dict[str, Any] = json.loads(_call(f"{url}/report"))
        if report[what] >= count and not report["in_flight"]:
            return report
        if report["calls"] != last:
            changed, last = time.monotonic(), report["calls"]
        ended = process.poll() is not None
        if time.monotonic() - changed > 60 or ended:
            tail = log.read_text(errors="replace")[-2000:]
            sys.exit(f"stuck at {report[what]} of {count} events{' (the process ended)' if ended else ''}:\n{tail}")


def _call(url: str, body: bytes | None = None) -> bytes:
    with urllib.request.urlopen(url, body, timeout=30) as answer:
        content: bytes = answer.read()
        return content


@contextmanager
def _api_server(latency_ms: float) -> Iterator[str]:
    command = [sys.executable, str(HERE / "api_server.py"), "--port", "0", "--latency-ms", str(latency_ms)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None
        yield json.loads(server.stdout.readline())["url"]
    finally:
        server.terminate()
        server.wait()


def _print(rows: list[Row], options: argparse.Namespace, kafka: Broker) -> None:
    if options.json:
        rates = [{"case": row.case.name, "rate": row.rate, "calls_rate": row.calls_rate} for row in rows]
        print(json.dumps([{**vars(row), **more} for row, more in zip(rows, rates, strict=True)], indent=2))
        return
    print(f"\n{options.latency_ms:g} ms API latency, {CONTACTS:,} contacts, {PARTITIONS} partitions, {kafka.words}, ")
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}\n")
    print("| case | events | events/s | calls | calls/s | disorder | CPU s/1,000 | peak MB | first call s |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        disorder = row.report["out_of_order"] + row.report["overlapping"]
        print(
            f"| {row.case.words} | {row.events:,} | {row.rate:,.0f} | {row.report['calls']:,} | {row.calls_rate:,.0f} "
            f"| {disorder} | {row.cpu_seconds * 1000 / row.events:.2f} | {row.peak_mb:.0f} "
            f"| {row.first_call_seconds:.2f} |"
        )
    by_name = {row.case.name: row for row in rows}
    if {"bridge-uniform", "baseline"} <= by_name.keys():
        # Calls, not events: what merging saves is no speed.
        times = by_name["bridge-uniform"].calls_rate / by_name["baseline"].calls_rate
        print(f"\nThe bridge makes {times:.0f} times the baseline's calls in the same time, and none is a merged one.")
    for row in rows:
        if row.case.upserts and not row.case.baseline:
            saved = 1 - row.report["calls"] / row.events
            print(f"{row.case.words}: merged, since all events were there from the start; {saved:.0%} of calls saved.")
        elif not row.case.baseline:
            limit = row.events / (row.busiest * options.latency_ms / 1000)
            print(
                f"{row.case.words}: the busiest contact has {row.busiest:,} of {row.events:,} events, one call at a "
                f"time; no bridge that keeps its order can exceed {limit:,.0f} events/s."
            )
