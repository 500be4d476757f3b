"""`make chaos`: each kind of fault, a run each, on a real Kafka; prints the table. Exits 1 if a promise was broken."""

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.chaos.cluster import SESSION_SECONDS, ProxiedKafka
from tests.support.chaos.fleet import Stalled
from tests.support.chaos.kinds import KINDS
from tests.support.chaos.run import Report, Size, run, table
from tests.support.kafka import kafka_libs


def main() -> int:
    default = Size()
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--events", type=int, default=default.events, help="events per run")
    parser.add_argument("--users", type=int, default=default.users, help="contacts, Zipf-distributed")
    parser.add_argument("--work-seconds", type=float, default=sum(default.work_seconds) / 2, help="between two faults")
    parser.add_argument("--seed", type=int, default=1, help="of events and faults; processes keep their own timing")
    parser.add_argument("--kinds", nargs="*", choices=[*KINDS], default=[*KINDS], metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--folder", type=Path, help="where logs go; kept afterwards")
    options = parser.parse_args()
    try:
        libs = kafka_libs()
    except (pytest.skip.Exception, pytest.fail.Exception) as missing:
        print(f"chaos: {missing}", file=sys.stderr)
        return 2
    work = options.work_seconds
    size = replace(default, events=options.events, users=options.users, work_seconds=(0.6 * work, 1.4 * work))
    size = replace(size, bad=max(1, size.events // 1000))
    with tempfile.TemporaryDirectory(prefix="chaos-") as scratch:
        folder = options.folder or Path(scratch)
        kafka = ProxiedKafka(libs, Path(scratch), session_seconds=SESSION_SECONDS)
        reports: list[Report] = []
        failed = 0
        try:
            for kind in options.kinds:
                begun = time.monotonic()
                try:
                    report = run(kafka, folder / kind, kind, size, options.seed)
                except Stalled as stalled:
                    failed += 1
                    print(f"{kind}: STALLED after {time.monotonic() - begun:.0f} s: {stalled}", flush=True)
                    continue
                reports.append(report)
                wrong = report.wrong
                failed += bool(wrong)
                print(f"{report.row()}\n{kind}: {len(wrong)} wrong; {report.details()}", flush=True)
                for line in wrong[:20]:
                    print(f"    {line}", flush=True)
        finally:
            kafka.close()
    print(table(reports))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
