"""The soak's verdict: growth is seen through the noise of phases, and noise is not taken for growth."""

from __future__ import annotations

import random
from collections.abc import Callable

from tests.support.soak.phases import CYCLE, QUIET, at
from tests.support.soak.side import FORMATS, Side
from tests.support.soak.verdict import Flatness, flatness, grown
from tests.support.soak.watch import Held, Sample

CYCLES, SECONDS = 6, 300.0


def run(
    memory: Callable[[float], float],
    handles: Callable[[int], int] = lambda cycle: 40,
    waiting: Callable[[int], int] = lambda cycle: 1_000,
) -> Flatness:
    """A run in which memory in KB is what `memory(seconds)` says; handles, and what waits in a burst, by the cycle."""
    dice = random.Random(1)
    samples = []
    for step in range(int(CYCLES * SECONDS / 5)):
        cycle, phase = at(step * 5.0, SECONDS)
        kinds = {"socket": handles(cycle) + (0 if phase.name == QUIET else dice.randint(0, 60))}
        held = Held(0, int(memory(step * 5.0) + dice.gauss(0, 200)), kinds, 20)
        samples.append(
            Sample(step * 5.0, cycle, phase.name, held, 0, 0, waiting(cycle) if phase.name == "burst" else 0)
        )
    return flatness(samples)


def test_equal_cycles_are_flat() -> None:
    """Warm-up and noise are no growth."""
    found = run(lambda seconds: 60_000 + min(seconds, 500.0) * 30)
    assert found.wrong(0.05) == []
    assert abs(found.growth) < 0.01
    assert found.warm == 2


def test_a_slow_leak_is_seen() -> None:
    """Two MB a cycle at 70 MB."""
    found = run(lambda seconds: 70_000 + seconds / SECONDS * 2_000)
    assert 1_900 < found.slope_kb_per_cycle < 2_100
    assert 6_000 < found.growth_kb < 8_000
    assert ["memory has grown" in line for line in found.wrong(0.05)] == [True]


def test_what_a_new_peak_took_is_no_leak() -> None:
    """More waits in each cycle, and memory keeps what that took; but a leak beside it is still seen."""

    def peaks(seconds: float) -> float:
        cycle, _ = at(seconds, SECONDS)
        burst = 0.21 * SECONDS  # where it begins
        return 70_000 + 5_000 * (cycle + (seconds % SECONDS >= burst))

    found = run(peaks, waiting=lambda cycle: 1_000 + 500 * cycle)
    assert found.wrong(0.05) == []
    assert found.slope_kb_per_cycle > 4_900
    assert found.waiting == (1_000, 1_500, 2_000, 2_500, 3_000, 3_500)
    leaking = run(lambda seconds: peaks(seconds) + seconds / SECONDS * 3_000, waiting=lambda cycle: 1_000 + 500 * cycle)
    assert leaking.wrong(0.05) != []


def test_handles_that_stay_behind_are_seen() -> None:
    """Two in each cycle; busy phases with many more do not hide them."""
    found = run(lambda seconds: 60_000, lambda cycle: 40 + 2 * cycle)
    assert found.wrong(0.05) == ["file handles in quiet phases: 44 after the warm-up, 50 at the end"]
    assert found.peak_handles > 90


def test_phases_fill_a_cycle_and_repeat() -> None:
    assert [at(SECONDS * 2 + second, SECONDS)[0] for second in (0.0, 299.9)] == [2, 2]
    assert [at(second, SECONDS)[1].name for second in (0.0, 299.9)] == [CYCLE[0].name, QUIET]
    assert at(SECONDS, SECONDS) == (1, CYCLE[0])


def test_types_that_have_grown_are_named() -> None:
    assert grown({"Item": 10, "dict": 900}, {"Item": 510, "dict": 901, "new": 300}) == ["Item 10 → 510", "new 0 → 300"]


def test_the_side_topics_notice_what_is_wrong() -> None:
    """A track that is missing, doubled or late, and an email too many."""
    side = Side({format: format for format in FORMATS})
    hits = list(side.hot(20))
    assert [hit.number for hit in hits] == list(range(1, 21))

    def entry(number: int, **more: object) -> dict[str, object]:
        body = {"event_name": "soak_hit", "email": "side-hot@example.com", "properties": {"n": number}}
        whole = {"endpoint": "track", "body": body, "carried_out": True, "status": 200, "answered": True, "fault": ""}
        return whole | more

    ledger = [entry(number) for number in range(1, 21)]
    email = {"to_email": "side-hot@example.com", "variables": {"n": 20}}
    assert side.judge(ledger, [email], set()) == []
    assert side.judge(ledger[:-1], [email], set()) == ["side-hot@example.com: event 20 was never tracked"]
    assert side.judge(ledger, [email, email], set()) == ["side-hot@example.com: event 20 sent 2 emails"]
    assert side.judge([*ledger, entry(3)], [email], set()) == [
        "side-hot@example.com: event 3 was tracked again, though its answer was whole"
    ]
    lost = [entry(1, fault="cut_after", answered=False), *ledger]
    assert side.judge(lost, [email], set()) == [], "its answer was lost"
    late = [*ledger[1:], ledger[0]]
    assert side.judge(late, [email], set()) == ["side-hot@example.com: event 1 was tracked after event 20"]
    assert side.judge(late, [email], {("side-hot@example.com", 1)}) == [], "it was a dead letter first"
