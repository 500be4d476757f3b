"""`make soak`: half an hour of changing load on one bridge. Exits 1 if something is not as it must be.

The bridge that is measured is a process of its own, on a real Kafka where there is one. Around it: events in four
formats, quiet and far beyond the quota; a hot contact; people who are new all the time; an API that is slow, throttles,
fails and cuts answers; a second member that comes and goes; one restart of the broker; rules that change each minute;
dead letters and their replays; a scraper, and browsers on the dashboard.
"""

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.chaos.cluster import DirectKafka, ProxiedKafka
from tests.support.chaos.fleet import Stalled
from tests.support.kafka import kafka_libs
from tests.support.soak.plot import svg
from tests.support.soak.run import Plan, Soak, objects_grown, told

SHOWN = 20


def main() -> int:
    default = Plan()
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=default.seconds / 60)
    parser.add_argument("--cycles", type=int, default=default.cycles, help="equal cycles in this time")
    parser.add_argument("--rate", type=float, default=default.rate, help="events a second in a steady phase")
    parser.add_argument("--per-minute", type=int, default=default.per_minute, help="the quota")
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--embedded", action="store_true", help="the embedded broker, also where a real one is at hand")
    parser.add_argument("--folder", type=Path, help="where logs go; kept afterwards")
    parser.add_argument("--svg", type=Path, help="writes the plot")
    options = parser.parse_args()
    seconds = options.minutes * 60
    plan = replace(
        default,
        seconds=seconds,
        cycle_seconds=seconds / options.cycles,
        rate=options.rate,
        per_minute=options.per_minute,
        reload_seconds=min(60.0, seconds / options.cycles / 2),
        seed=options.seed,
    )
    libs = None
    if not options.embedded:
        try:
            libs = kafka_libs()
        except (pytest.skip.Exception, pytest.fail.Exception) as missing:
            print(f"soak: on the embedded broker, because {missing}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="soak-") as scratch:
        kafka = ProxiedKafka(libs, Path(scratch)) if libs is not None else DirectKafka()
        soak = None
        try:
            soak = Soak(kafka, options.folder or Path(scratch) / "soak", plan, lambda line: print(line, flush=True))
            report = soak.run()
        except Stalled as stalled:
            print(f"soak: STALLED: {stalled}", file=sys.stderr)
            return 1
        finally:
            if soak is not None:
                soak.close()
            kafka.close()
    print(told(report))
    for line in objects_grown(report)[:SHOWN]:
        print(f"more objects: {line}")
    for text, count in sorted(report.log_lines.items(), key=lambda each: -each[1]):
        print(f"logged {count} times: {text}")
    if options.svg is not None:
        options.svg.write_text(svg(report), encoding="utf-8")
    wrong = report.wrong
    for line in wrong[:SHOWN]:
        print(f"WRONG: {line}")
    print(f"{len(wrong)} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
