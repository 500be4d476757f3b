"""`make bench`: measures and prints. Short by default; docs/benchmarks.md says what is measured, and how.

    python -m benchmarks                         # all sections, short
    python -m benchmarks throughput --events 2000 --case bridge-uniform
    python -m benchmarks absorption              # events a second taken in while nothing can be sent
    python -m benchmarks expressions             # conditions and mappings a second
    python -m benchmarks savings [--long]        # calls beside one call per event, and beside the fewest possible
    python -m benchmarks day [--long] [--svg FILE]   # email delay, quota and backlog, hour by hour
    python -m benchmarks quota                   # the pace of the quota against every kind of server

`throughput` needs a broker, and real time; the others run on the virtual clock in this process.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import structlog

SECTIONS = ("throughput", "absorption", "expressions", "savings", "day", "quota")


def main(arguments: Sequence[str] | None = None) -> None:
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["throughput"] or (given and given[0] in ("--events", "--case")):
        from benchmarks import throughput

        throughput.main(given[1:] if given[0] == "throughput" else given)
        return
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("section", nargs="?", choices=SECTIONS, help="only this one")
    parser.add_argument("--long", action="store_true", help="savings and day: in full; some ten minutes")
    parser.add_argument("--svg", type=Path, help="day: writes a plot")
    options = parser.parse_args(given)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    if options.section in (None, "quota"):
        _quota()
    if options.section in (None, "absorption"):
        _absorption()
    if options.section in (None, "expressions"):
        _expressions()
    if options.section in (None, "savings"):
        _savings(long=options.long)
    if options.section in (None, "day"):
        _day(long=options.long, svg=options.svg)
    if options.section is None:
        from benchmarks import throughput

        print("\n## Throughput")
        throughput.main([])


def _absorption() -> None:
    from benchmarks import absorption

    print("\n## Absorption\n\n| | events | events per CPU second | events per second | contacts waiting |")
    print("|---|---:|---:|---:|---:|")
    for rate in absorption.measure():
        print(
            f"| {rate.mode} | {rate.events:,} | {rate.per_cpu_second:,.0f} | {rate.per_second:,.0f} "
            f"| {rate.contacts:,} |",
            flush=True,
        )


def _expressions() -> None:
    from benchmarks import expressions

    print("\n## Expressions\n")
    for line in expressions.table(expressions.measure()):
        print(line, flush=True)


def _quota() -> None:
    from benchmarks import quota

    print("\n## Quota\n")
    for line in quota.table(map(quota.measure, quota.CASES)):
        print(line, flush=True)


def _savings(*, long: bool) -> None:
    from benchmarks import savings

    print("\n## Savings\n")
    for line in savings.table(savings.measure(long=long)):
        print(line, flush=True)
    print()
    for line in savings.lazy_table(savings.measure_lazily(long=long)):
        print(line, flush=True)


def _day(*, long: bool, svg: Path | None) -> None:
    from benchmarks import day, plot

    days = []
    for made in (day.shared, day.beside, partial(day.beside, independent=True)):
        days.append(made(day.DAY_HOURS if long else day.SHORT_HOURS))
        print(f"\n## A day: {days[-1].name}\n")
        for line in day.table(days[-1]):
            print(line, flush=True)
    if svg is not None:
        svg.write_text(plot.days(days), encoding="utf-8")


if __name__ == "__main__":
    main()
