"""The five promises hold, whatever the seed makes happen."""

import os

import pytest

from tests.support.amount import THOROUGH
from tests.support.simulation.run import simulate

SEEDS = int(os.environ.get("MEISA_SIMULATION_SEEDS", "60" if THOROUGH else "20"))
"""CI runs 2,000; `make simulate SEEDS=…` runs any number outside pytest."""
CHUNK = 5


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_the_promises_hold_under_every_fault(first: int) -> None:
    """Crashes, rebalances, lost answers, 5xx, 429, 401, 403, slow calls, damaged progress, failing letters: nothing is
    lost, order is kept, repeats are explained, the quota holds, and all comes to an end once the faults have."""
    for seed in range(first, min(first + CHUNK, SEEDS)):
        report = simulate(seed)
        assert report.broken is None, f"\n{report.story()}"
