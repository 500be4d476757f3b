"""What a seed draws: sizes, limits, how often small faults happen, and when the great ones do.

Every fault kind has its name here. `KNOWN_GAPS` lists what the engine does not promise yet; a check or a fault that
would only find such a gap again is off until its entry is removed.
"""

import random
from dataclasses import dataclass, field

KNOWN_GAPS: dict[str, str] = {
    "unsure_ahead": "after damaged progress, triggers of records produced later may be parked, too",
    "given_up": "an action that was given up comes again over newer values after a crash before its letter",
}
"""Name → why. Each is looked up by name where the check stands."""


@dataclass(frozen=True, slots=True)
class Window:
    """A fault that lasts."""

    kind: str
    start: float
    end: float
    scope: str = ""
    """An endpoint, or empty for all."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A fault that happens, see MOMENTS."""

    kind: str
    at: float
    member: int = 0
    partition: int = 0
    seconds: float = 0.0
    steps: int = 0


@dataclass(frozen=True, slots=True)
class Known:
    """What makes state known: the topic is keyed by contact, and events say what Meisa may have already."""

    store: str = "memory"
    """`memory`, `machine` (a file, found again by whoever runs there next), or `shared` (as Redis)."""
    unchanged_for: float = 86_400.0
    lazy_every: float = 0.0
    """Seconds; 0 where no field is lazy."""
    keyed_by_id: bool = False
    """The records' key is an id of the producer's, not the email."""
    keyless: bool = False
    """Records have no key, and a contact's may be in any partition."""
    weights: tuple[int, int, int, int] = (4, 4, 4, 1)
    """Other events, `state`, `login` and `visit` (states.py)."""
    store_faults: float = 0.0
    """Probability that the shared store is away for a while, at each way to it."""


@dataclass(slots=True)
class Scenario:
    seed: int
    shuffle: bool = False
    """Run what is ready in any order at all, which asyncio itself does not."""
    partitions: int = 1
    members: int = 1
    records: int = 60
    contacts: int = 6
    horizon: float = 60.0
    """Seconds of virtual time with faults; afterwards all heals."""
    backlog: float = 0.5
    """Share of the records that stand in the log at the start."""
    limits: list[tuple[int, float]] = field(default_factory=lambda: [(100_000, 60.0)])
    reserve: float = 0.0
    ahead_min: int = 3
    """In place of core/shares.AHEAD_MIN."""
    max_in_flight: int = 64
    window_max: int | None = None
    pending_max: int = 50_000
    metadata_bytes_max: int = 4096
    batch_max: int = 500
    untold_max: int = 500
    """In place of runtime/commits.UNTOLD_MAX."""
    revoke_seconds: float = 20.0
    session_seconds: float = 10.0
    timeout_seconds: float = 10.0
    attempts: int = 10
    max_age_seconds: float = 900.0
    scope_wait_seconds: float = 3600.0
    stop_at: tuple[float, int] = (0.2, 500)
    latency: float = 0.05
    gaps: float = 0.0
    bad_records: float = 0.0
    bad_upserts: float = 0.0
    """Upserts that Meisa refuses, alone or with others in one call; or answers with 500."""
    stray: float = 0.05
    """Records of a contact in another partition than its own."""
    only: str = ""
    """The one type of event that there is, if not all."""
    variety: bool = True
    """Whether there are preserved values and ids that come and go, so that not all upserts of a contact can merge."""
    bursts: bool = False
    """Mostly upserts."""
    poison: int = 0
    """Contacts that Meisa refuses (400)."""
    poison_5xx: int = 0
    """Contacts whose upserts make Meisa answer 500, for ever."""
    suppressed: int = 0
    calls: dict[str, float] = field(default_factory=dict)
    """Small faults of calls, each with its probability."""
    commits: dict[str, float] = field(default_factory=dict)
    letters: dict[str, float] = field(default_factory=dict)
    skew: float = 0.0
    """Seconds by which the members' wall clocks are at most ahead of Meisa's, or behind it."""
    metadata_damage: float = 0.0
    """Probability that a new owner reads damaged text beside its offset."""
    windows: list[Window] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)
    known: Known | None = None
    repeats: float = 0.0
    """Share of the records that have the id of an earlier one; otherwise they are their own."""
    dedupe: float = 0.0
    """Seconds; 0 where repeated events are not looked for."""


CALL_FAULTS = ("5xx", "5xx_done", "cut", "cut_done", "slow", "slow_done", "never_sent", "429")
COMMIT_FAULTS = ("refused", "late", "late_done")
LETTER_FAULTS = ("failed", "failed_done", "slow")
WINDOW_FAULTS = ("outage_5xx", "outage_silent", "outage_unreachable", "401", "403", "429", "429_guardrail")
MOMENTS = {
    "crash": 4,
    "restart": 3,
    "join": 2,
    "lost": 2,
    "cut_off": 2,  # one member has no way to the broker
    "broker_away": 2,  # nobody has
    "stopped": 2,  # SIGSTOP, later SIGCONT
    "suspended": 1,  # the same with the machine: its monotonic clock stands still, too
    "recreate": 1,
    "recreate_silently": 1,  # the group's offsets outlive the topic
    "truncate": 2,
}
"""Faults that happen at a moment, by how often."""


def draw(seed: int) -> Scenario:
    """The scenario of a seed. In some of them events say state again that Meisa may have already."""
    scenario = _draw(seed)
    dice = random.Random(f"known {seed}")
    if dice.random() < 0.35:
        know(scenario, dice)
    return scenario


def know(scenario: Scenario, dice: random.Random) -> None:
    """Makes the topic keyed by contact: a contact's records are all in one partition, or have no key at all."""
    scenario.known = Known(
        store=dice.choice(("memory", "machine", "machine", "shared")),
        unchanged_for=dice.choice((86_400.0, 86_400.0, 600.0, 30.0)),
        lazy_every=dice.choice((0.0, 20.0, 120.0, 900.0)),
        keyed_by_id=dice.random() < 0.7,
        weights=dice.choice(((4, 4, 4, 1), (1, 8, 1, 1), (1, 1, 8, 1), (0, 4, 4, 1))),
        store_faults=dice.choice((0.0, 0.0, 0.05)),
        keyless=dice.random() < 0.15,
    )
    scenario.stray = 0.5 if scenario.known.keyless else 0.0
    scenario.contacts = max(scenario.contacts, scenario.partitions)


def _draw(seed: int) -> Scenario:
    """A tenth of all seeds has no fault at all, a tenth more is a single undisturbed member."""
    dice = random.Random(f"scenario {seed}")
    mood = dice.random()
    scenario = Scenario(seed, shuffle=dice.random() < 0.3)
    scenario.partitions = dice.choice((1, 1, 2, 3, 4))
    scenario.records = dice.choice((12, 30, 60, 60, 100))
    scenario.contacts = dice.choice((1, 3, 6, 12, 20))
    scenario.horizon = dice.choice((5.0, 20.0, 60.0, 60.0, 300.0, 1_800.0, 7_200.0))
    scenario.backlog = dice.choice((0.0, 0.3, 0.7, 1.0))
    scenario.batch_max = dice.choice((1, 3, 10, 500))
    scenario.latency = dice.choice((0.005, 0.05, 0.05, 0.5))
    scenario.max_in_flight = dice.choice((1, 2, 5, 64))
    scenario.window_max = dice.choice((None, None, 1, 4, 16))
    scenario.pending_max = dice.choice((50_000, 50_000, 1, 5, 20))
    scenario.metadata_bytes_max = dice.choice((4096, 4096, 1024, 512))
    scenario.limits = dice.choice(
        (
            [(100_000, 60.0)],
            [(100_000, 60.0)],
            [(60, 60.0), (1000, 3600.0)],
            [(10, 60.0), (80, 3600.0)],
            [(max(3, scenario.partitions), 10.0)],  # a partition that owns no call would wait for ever
        )
    )
    scenario.reserve = dice.choice((0.0, 0.1, 0.5))
    scenario.ahead_min = 3 if seed % 3 else 30
    scenario.gaps = dice.choice((0.0, 0.1, 0.5))
    scenario.bad_records = dice.choice((0.0, 0.05, 0.2))
    scenario.stray = dice.choice((0.0, 0.05, 0.05, 0.5))
    scenario.variety = dice.random() < 0.5
    scenario.bursts = dice.random() < 0.4
    scenario.attempts, scenario.max_age_seconds = dice.choice(((10, 900.0), (3, 60.0), (1, 5.0)))
    scenario.untold_max = dice.choice((500, 20, 5))
    scenario.revoke_seconds = dice.choice((20.0, 20.0, 2.0))
    scenario.session_seconds = dice.choice((6.0, 10.0, 45.0))
    scenario.suppressed = dice.choice((0, 1))
    scenario.stop_at = dice.choice(((0.2, 500), (0.2, 500), (0.5, 10)))
    if mood < 0.1:
        return scenario
    scenario.poison = dice.choice((0, 0, 1, 2))
    scenario.poison_5xx = dice.choice((0, 0, 0, 1))
    scenario.bad_upserts = dice.choice((0.0, 0.0, 0.05, 0.3))
    strength = dice.choice((0.02, 0.1, 0.3))
    for kind in CALL_FAULTS:
        if dice.random() < 0.4:
            scenario.calls[kind] = strength * dice.random()
    for kind in LETTER_FAULTS:
        if dice.random() < 0.4:
            scenario.letters[kind] = dice.random() * 0.5
    for _ in range(dice.choice((0, 0, 1, 1, 2))):
        start = dice.random() * scenario.horizon
        end = start + dice.random() * (scenario.horizon - start)
        scope = dice.choice(("upsert", "track", "trigger", "enroll"))
        kind = dice.choice(WINDOW_FAULTS)
        scenario.windows.append(Window(kind, start, end, scope if kind in ("403",) or dice.random() < 0.3 else ""))
    if mood < 0.25:
        return scenario
    scenario.members = dice.choice((1, 1, 2, 3))
    for kind in COMMIT_FAULTS:
        if dice.random() < 0.4:
            scenario.commits[kind] = strength * dice.random()
    scenario.metadata_damage = dice.choice((0.0, 0.0, 0.3))
    scenario.skew = dice.choice((0.0, 0.0, 30.0, 1_200.0))
    if dice.random() < 0.3:
        # Progress piles up: one endpoint is away while the others work.
        start, end = sorted(dice.random() * scenario.horizon for _ in range(2))
        kind = dice.choice(("outage_5xx", "outage_unreachable", "429"))
        scenario.windows.append(Window(kind, start, end, dice.choice(("trigger", "trigger", "track", "enroll"))))
    for _ in range(dice.choice((1, 2, 3, 6))):
        scenario.moments.append(
            Moment(
                dice.choices(tuple(MOMENTS), tuple(MOMENTS.values()))[0],
                at=scenario.horizon * dice.random(),
                member=dice.randrange(3),
                partition=dice.randrange(scenario.partitions),
                seconds=dice.choice((0.1, 1.0, 5.0, 20.0)),
                steps=dice.randrange(1, 40),
            )
        )
    scenario.moments.sort(key=lambda moment: moment.at)
    return scenario
