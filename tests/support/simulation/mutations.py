"""For engines that are broken on purpose: whether the ledger catches them, and where they are most likely to fail."""

import random
from collections.abc import Iterable
from typing import Any

import pytest

from tests.support.simulation.run import simulate
from tests.support.simulation.scenario import Known, Moment, Scenario, draw


def caught(promise: str, scenarios: Iterable[Scenario], saying: str = "") -> None:
    """Fails unless one of the scenarios breaks this promise; the unbroken engine holds in all of them."""
    others = []
    for scenario in scenarios:
        report = simulate(scenario)
        if report.broken is not None:
            if report.broken.promise.startswith(promise) and saying in str(report.broken):
                return
            others.append(str(report.broken)[:200])
    pytest.fail(f"nobody noticed; other promises broken: {others}")


def everyday(count: int = 60) -> list[Scenario]:
    return [draw(seed) for seed in range(count)]


def merging() -> list[Scenario]:
    """Few calls for many upserts of a few contacts, with all that keeps them apart in between."""
    return [
        Scenario(
            seed,
            records=60,
            partitions=1 + seed % 2,
            contacts=3,
            horizon=120.0,
            backlog=0.7,
            limits=[(3, 10.0)],
            bursts=seed % 3 > 0,
            bad_upserts=0.1,
            stray=0.5,
        )
        for seed in range(10)
    ]


def sharing() -> list[Scenario]:
    """Contacts in two partitions, whose owners change while much waits."""
    return [
        Scenario(
            seed,
            records=60,
            partitions=2,
            contacts=3,
            horizon=120.0,
            backlog=0.9,
            limits=[(2, 10.0)],
            bursts=True,
            stray=0.5,
            moments=[Moment("join", at=10.0 + 3 * seed)],
        )
        for seed in range(10)
    ]


def knowing(
    store: str,
    *kinds: str,
    count: int = 40,
    lazy_every: float = 0.0,
    calls: dict[str, float] | None = None,
    **also: Any,
) -> list[Scenario]:
    """Events that say again what Meisa may have, while these faults happen at moments of their own."""
    made = []
    for seed in range(count):
        dice = random.Random(f"knowing {seed}")
        moments = [
            Moment(
                dice.choice(kinds),
                at=20.0 + 260.0 * dice.random(),
                member=dice.randrange(2),
                seconds=dice.choice((0.1, 1.0, 5.0)),
                steps=dice.randrange(1, 40),
            )
            for _ in range(8 if kinds else 0)
        ]
        weights = (1, 2, 8, 0) if lazy_every else (0, 8, 0, 0)
        known = Known(store=store, lazy_every=lazy_every, keyed_by_id=True, weights=weights)
        options: dict[str, Any] = {"partitions": 2, "members": 2, "session_seconds": 6.0} | also
        made.append(
            Scenario(
                seed,
                records=100,
                contacts=3,
                horizon=300.0,
                backlog=0.1,
                stray=0.0,
                calls=calls or {},
                moments=sorted(moments, key=lambda moment: moment.at),
                known=known,
                **options,
            )
        )
    return made
