"""`make simulate SEED=n` tells one seed's story; `make simulate SEEDS=n` runs many and names those that fail."""

import argparse
import time
from collections import Counter

from tests.support.simulation.run import simulate


def main() -> int:
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    parser.add_argument("--seed", type=int, help="one seed, with its story")
    parser.add_argument("--seeds", type=int, default=2000, help="this many seeds")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--lines", type=int, default=60, help="how much of a story is told")
    options = parser.parse_args()
    if options.seed is not None:
        report = simulate(options.seed)
        print(report.story(options.lines))
        return 1 if report.broken else 0
    begun = time.perf_counter()
    sums: Counter[str] = Counter()
    failed = []
    for seed in range(options.first, options.first + options.seeds):
        report = simulate(seed)
        for name in (
            "calls",
            "effects",
            "repeats",
            "merged",
            "steps_back",
            "letters",
            "emails",
            "commits",
            "unchanged",
            "lazy",
        ):
            sums[name] += getattr(report, name)
        sums["virtual hours"] += int(report.virtual_seconds)
        if report.broken:
            failed.append(seed)
            print(f"make simulate SEED={seed}    {str(report.broken)[:200]}")
    sums["virtual hours"] //= 3600
    seconds = time.perf_counter() - begun
    print(
        f"{options.seeds} seeds in {seconds:.0f} s ({1000 * seconds / options.seeds:.0f} ms each), {len(failed)} failed"
    )
    print(", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in sums.items()))
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
