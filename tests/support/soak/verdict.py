"""Says whether what was measured is flat. Pure.

The first third of the cycles is warm-up (imports, pools, caches that fill).

Memory is what the kernel counts (RSS). What waits takes memory, and an allocator keeps what a peak took; on a busy
machine one cycle's peak is higher than another's. So the run is divided into *stretches* in which no more events waited
than ever before: whatever grows within these is growth that no peak explains, and the sum of that is judged. Beside
it stands the median of the slopes between all pairs of equal phases (Theil-Sen): in equal cycles it says the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

from tests.support.soak.phases import QUIET
from tests.support.soak.watch import Sample

SPARE_HANDLES = 3
"""More in a quiet phase than after the warm-up: a connection to Kafka that is just being exchanged, a scrape."""
SPARE_THREADS = 2
SPARE_TASKS = 5
STRETCH_SAMPLES = 12
"""Of shorter stretches, beginning and end say little."""


@dataclass(frozen=True, slots=True)
class Flatness:
    """Of one run."""

    cycles: int
    warm: int
    """So many of them are warm-up."""
    memory_mb: tuple[float, ...]
    """RSS, the median of each cycle."""
    slope_kb_per_cycle: float
    growth_kb: float
    """Within all stretches without a new peak together, after the warm-up."""
    growth: float
    """The same as a share of the memory after the warm-up."""
    quiet_handles: tuple[float, ...]
    """The median of each cycle's quiet phase."""
    quiet_threads: tuple[float, ...]
    peak_handles: int
    peak_threads: int
    waiting: tuple[int, ...]
    """The most events that waited in each cycle: memory follows it, and unequal cycles do not compare."""

    def wrong(self, growth_max: float, spare_handles: int = SPARE_HANDLES) -> list[str]:
        """What is not flat, in words."""
        found = []
        if self.growth > growth_max:
            found.append(
                f"memory has grown by {self.growth_kb:.0f} KB while no more waited, {self.growth:.1%} (at most "
                f"{growth_max:.0%}): {', '.join(f'{each:.1f}' for each in self.memory_mb)} MB"
                f" where at most {', '.join(f'{each:,}' for each in self.waiting)} events waited"
            )
        for what, series, spare in (
            ("file handles", self.quiet_handles, spare_handles),
            ("threads", self.quiet_threads, SPARE_THREADS),
        ):
            base = series[self.warm]
            if series[-1] > base + spare:
                found.append(f"{what} in quiet phases: {base:g} after the warm-up, {series[-1]:g} at the end")
        return found


def flatness(samples: Sequence[Sample]) -> Flatness:
    """Needs three cycles at least."""
    cycles = 1 + max(sample.cycle for sample in samples)
    assert cycles >= 3, "no warm-up and two cycles to compare"
    warm = max(1, cycles // 3)
    memory = list(_medians(samples, lambda sample: sample.held.rss_kb, cycles))
    growth = _growth(samples, warm)
    return Flatness(
        cycles,
        warm,
        tuple(round(each / 1024, 1) for each in memory),
        _slope(samples, warm),
        growth,
        growth / memory[warm],
        tuple(_medians(quiet(samples), lambda sample: sample.handles, cycles)),
        tuple(_medians(quiet(samples), lambda sample: sample.held.threads, cycles)),
        max(sample.handles for sample in samples),
        max(sample.held.threads for sample in samples),
        tuple(max(sample.pending for sample in samples if sample.cycle == cycle) for cycle in range(cycles)),
    )


def quiet(samples: Sequence[Sample]) -> list[Sample]:
    """The second half of each quiet phase: what was under way has ended."""
    by_cycle = defaultdict(list)
    for sample in samples:
        if sample.phase == QUIET:
            by_cycle[sample.cycle].append(sample)
    return [sample for each in by_cycle.values() for sample in each[len(each) // 2 :]]


def _medians(samples: Sequence[Sample], value: Callable[[Sample], float], cycles: int) -> Iterator[float]:
    for cycle in range(cycles):
        yield median(value(sample) for sample in samples if sample.cycle == cycle)


def _growth(samples: Sequence[Sample], warm: int) -> float:
    """KB of memory within stretches without a new peak of what waits."""
    peak, stretches = -1, [list[int]()]
    for sample in samples:
        if sample.pending > peak:
            peak = sample.pending
            stretches.append([])
        if sample.cycle >= warm:
            stretches[-1].append(sample.held.rss_kb)
    grown = 0.0
    for stretch in stretches:
        # What waits is told by a scrape some seconds old: a stretch's first tenth still belongs to its peak.
        stretch = stretch[len(stretch) // 10 :]
        if len(stretch) >= STRETCH_SAMPLES:
            part = max(3, len(stretch) // 10)
            grown += median(stretch[-part:]) - median(stretch[:part])
    return grown


def _slope(samples: Sequence[Sample], warm: int) -> float:
    """KB of memory in a cycle."""
    by_phase: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for sample in samples:
        if sample.cycle >= warm:
            by_phase[sample.phase][sample.cycle].append(sample.held.rss_kb)
    slopes = [
        (median(cycles[later]) - median(cycles[earlier])) / (later - earlier)
        for cycles in by_phase.values()
        for earlier, later in combinations(sorted(cycles), 2)
    ]
    return median(slopes)


def grown(before: Mapping[str, int], after: Mapping[str, int], least: int = 200) -> list[str]:
    """Types of objects of which there are more than before, the most first, in words."""
    more = {name: after[name] - before.get(name, 0) for name in after}
    found = sorted(((count, name) for name, count in more.items() if count >= least), reverse=True)
    return [f"{name} {before.get(name, 0):,} → {after[name]:,}" for _, name in found]
