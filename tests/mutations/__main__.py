"""`make mutations CASES="1 12"` breaks the code of hard cases 1 and 12 in a copy, and names what no test notices.

Without cases all of them. A test that was skipped or that hung has noticed nothing. Ends with 0 if every mutation was
noticed by each of its tests, and 1 otherwise.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from tests.mutations.copies import Copy
from tests.mutations.table import Mutation, load

RUN_SECONDS_MAX = 180.0
"""For the tests of one mutation, a broker's start included; those of a healthy bridge take a few seconds."""
WHOLE_SECONDS_MAX = 900.0
"""For all tests of the table, unbroken."""
JOBS = 3
"""Copies broken at a time: on two processors, because some tests wait for brokers."""


class Copies:
    """As many copies as jobs; each use takes one, and waits until one is free."""

    def __init__(self, folder: Path, count: int) -> None:
        self._free: SimpleQueue[Copy] = SimpleQueue()
        for number in range(count):
            self._free.put(Copy(folder / str(number)))

    def whole(self, tests: list[str]) -> dict[str, str]:
        copy = self._free.get()
        try:
            return _outcomes(copy, tests, WHOLE_SECONDS_MAX)
        finally:
            self._free.put(copy)

    def tried(self, mutation: Mutation) -> tuple[dict[str, str], float]:
        """What became of its tests, and the seconds that took."""
        copy = self._free.get()
        begun = time.monotonic()
        try:
            with copy.broken(mutation):
                return _outcomes(copy, mutation.tests, RUN_SECONDS_MAX), time.monotonic() - begun
        except ValueError as error:
            return {str(error): "not broken"}, 0.0
        finally:
            self._free.put(copy)


def _outcomes(copy: Copy, tests: Sequence[str], seconds_max: float) -> dict[str, str]:
    outcomes = copy.outcomes(tests, seconds_max)
    errors = [test for test, what in outcomes.items() if what == "error"]
    # Brokers that start side by side may want the same port: a test that could not begin gets a second chance.
    return {**outcomes, **copy.outcomes(errors, seconds_max)} if errors else outcomes


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutations", description=__doc__)
    parser.add_argument("cases", nargs="*", type=int, metavar="CASE", help="numbers of hard cases; all without")
    parser.add_argument("--jobs", type=int, default=JOBS, help="copies broken at a time")
    options = parser.parse_args()
    mutations = [each for each in load() if not options.cases or each.case in options.cases]
    if not mutations:
        parser.error("no mutation is of these cases")
    begun = time.monotonic()
    tests = sorted({test for each in mutations for test in each.tests})
    jobs = max(1, min(options.jobs, len(mutations)))
    survivors = 0
    with tempfile.TemporaryDirectory(prefix="mutations-") as scratch, ThreadPoolExecutor(jobs) as pool:
        copies = Copies(Path(scratch), jobs)
        healthy = pool.submit(copies.whole, tests)
        for mutation, (outcomes, seconds) in zip(mutations, pool.map(copies.tried, mutations), strict=True):
            missed = {test: what for test, what in outcomes.items() if what != "failed"}
            survivors += bool(missed)
            verdict = "SURVIVED" if missed else "noticed "
            print(f"case {mutation.case:>2}  {verdict} {seconds:4.0f} s  {mutation.breaks}", flush=True)
            for test, what in missed.items():
                print(f"                          {what}: {test}", flush=True)
        ill = {test: what for test, what in healthy.result().items() if what != "passed"}
    for test, what in ill.items():
        print(f"unbroken, this test has not passed, so its failure proves nothing: {what}: {test}")
    cases = len({each.case for each in mutations})
    print(
        f"{len(mutations)} mutations of {cases} cases, {survivors} survived; "
        f"{len(tests)} tests, {time.monotonic() - begun:.0f} s"
    )
    return 1 if survivors or ill else 0


if __name__ == "__main__":
    raise SystemExit(main())
