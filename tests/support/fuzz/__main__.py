"""`python -m tests.support.fuzz`: bad records, requests, answers and files by a seed; what make fuzz runs."""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed

from tests.support.fuzz.case import Broken, Report
from tests.support.fuzz.pieces import KINDS, parts, run_part


def main() -> int:
    arguments = argparse.ArgumentParser(prog="python -m tests.support.fuzz", description=__doc__)
    arguments.add_argument("--seed", type=int, default=1, help="what the cases are made of (default 1)")
    arguments.add_argument("--kind", choices=sorted(KINDS), help="one kind only")
    arguments.add_argument("--count", type=int, help="how many of each kind; without it as in CI")
    arguments.add_argument("--first", type=int, default=0, help="the number of the first case")
    arguments.add_argument("--processes", type=int, default=2)
    given = arguments.parse_args()
    kinds = [given.kind] if given.kind else list(KINDS)
    began = time.monotonic()
    todo = [part for kind in kinds for part in parts(kind, given.count or KINDS[kind][1], given.first)]
    reports: dict[str, Report] = {}
    broken = 0
    with ProcessPoolExecutor(given.processes, max_tasks_per_child=1) as pool:
        for done in as_completed([pool.submit(run_part, given.seed, *part) for part in todo]):
            try:
                report = done.result()
            except Broken as error:
                broken += 1
                print(f"BROKEN: {error}\n", flush=True)
                continue
            whole = reports.setdefault(report.kind, Report(report.kind, given.seed))
            whole.add(report)
    for kind in kinds:
        if kind in reports:
            print(reports[kind])
    print(f"{sum(each.count for each in reports.values()):,} cases in {time.monotonic() - began:.0f} s")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
