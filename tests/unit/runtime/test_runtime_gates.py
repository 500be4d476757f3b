"""Work that waits for a held endpoint: whose turn it is to probe."""

from bridge.model import Outcome, Verdict
from bridge.runtime.gates import Gates

FAILED = Outcome(Verdict.RETRY, 503)


def held(*items: str) -> Gates[str]:
    """An outage of the endpoint, with these parked."""
    gates: Gates[str] = Gates(lambda: 0.5)
    for number in range(5):
        gates.answered("key", "upsert", number, FAILED, 0.0, 0.0, probe=False)
    assert not gates.is_open("key", "upsert")
    for item in items:
        gates.park("key", "upsert", item, 0.0)
    return gates


def test_probes_rotate_over_what_waits() -> None:
    """Who failed as a probe stands behind all others: one poison event must not be the probe for ever."""
    gates = held("a", "b", "c")
    probes = []
    now = 0.0
    for _ in range(6):
        now += 100.0
        (item,) = gates.due(now)
        assert gates.probe("key", "upsert", now)
        gates.answered("key", "upsert", item, FAILED, now, now, probe=True)
        gates.park("key", "upsert", item, now)
        probes.append(item)
    assert probes == ["a", "b", "c", "a", "b", "c"]


def test_only_one_goes_out_until_it_is_answered() -> None:
    """Whoever else is ready waits for the probe's answer; a good one frees all."""
    gates = held("a", "b", "c")
    assert gates.due(100.0) == ["a"]
    assert gates.probe("key", "upsert", 100.0)
    assert gates.due(200.0) == [] and not gates.probe("key", "upsert", 200.0)
    assert gates.answered("key", "upsert", "a", Outcome(Verdict.DELIVERED, 200), 200.0, 200.0, probe=True) == ["b", "c"]
    assert gates.is_open("key", "upsert")
