"""What load a cycle consists of. Cycles are equal, so that what was measured in one compares with the next ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of a cycle."""

    name: str
    share: float
    """Of the cycle's time."""
    load: float = 0.0
    """Events a second of the demo's stream, as a multiple of the run's rate."""
    side: float = 1.0
    """The same for the topics of other formats, as a multiple of theirs."""
    hot: float = 0.0
    """Further events a second of one contact, as a multiple of the run's rate."""
    faults: Mapping[str, Any] = field(default_factory=dict)
    """Of the sandbox, as its control API takes them."""
    quota: float = 1.0
    """What the server grants for this long, as a share of what it grants else and the bridge is told."""
    members: int = 1
    viewers: int = 2
    """Browsers that have the dashboard open, come and go."""


QUIET: Final = "quiet"
"""In which everything else must be as before: there handles and threads are compared."""

CYCLE: Final[Sequence[Phase]] = (
    Phase("steady", 0.17, load=1.0),
    Phase("less quota", 0.04, load=0.4, quota=0.5),
    Phase("burst", 0.07, load=4.0, viewers=4),
    Phase("hot contact", 0.12, load=0.5, hot=0.5),
    Phase(
        "bad answers",
        0.13,
        load=0.7,
        faults={
            "latency_ms": 120,
            "jitter_ms": 80,
            "error_rate": 0.03,
            "error_after_rate": 0.01,
            "throttle_rate": 0.002,
            "cut_rate": 0.01,
            "cut_before_rate": 0.01,
            "hang_rate": 0.002,
            "hang_seconds": 4.0,
        },
    ),
    Phase("outage", 0.04, load=0.7, faults={"rules": [{"status": 503}]}),
    Phase("two members", 0.18, load=0.8, members=2, viewers=4),
    Phase(QUIET, 0.25, side=0.0, viewers=0),
)
assert abs(sum(phase.share for phase in CYCLE) - 1) < 1e-9

EVENTS_PER_CYCLE: Final = sum(phase.share * phase.load for phase in CYCLE)
"""Of the demo's stream, for each second of a cycle at a rate of 1."""


def at(seconds: float, cycle_seconds: float) -> tuple[int, Phase]:
    """The cycle, from 0, and its phase at so many seconds."""
    number, within = divmod(seconds, cycle_seconds)
    for phase in CYCLE:
        within -= phase.share * cycle_seconds
        if within < 0:
            return int(number), phase
    return int(number), CYCLE[-1]
