"""A process that stood still is told so, once, whoever looks first."""

import time

import pytest

from bridge.kafka.pulse import Pulse


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Monotonic and wall seconds, set by the test."""
    both = [100.0, 1_000.0]
    monkeypatch.setattr(time, "monotonic", lambda: both[0])
    monkeypatch.setattr(time, "time", lambda: both[1])
    return both


def pass_time(clocks: list[float], seconds: float) -> None:
    clocks[0] += seconds
    clocks[1] += seconds


def test_beats_in_time_are_no_standstill(clocks: list[float]) -> None:
    """Hours of half seconds."""
    pulse = Pulse()
    for _ in range(10_000):
        pass_time(clocks, 0.5)
        pulse.beat()
    assert pulse.longest_gap() == 0.5


@pytest.mark.parametrize("beat_first", [True, False])
def test_a_gap_is_told_once_whether_the_thread_or_the_asker_wakes_first(clocks: list[float], beat_first: bool) -> None:
    """Both threads wake together, in any order."""
    pulse = Pulse()
    pass_time(clocks, 30.0)
    if beat_first:
        pulse.beat()
    assert pulse.longest_gap() == 30.0
    pulse.beat()
    assert pulse.longest_gap() == 0.0


def test_a_suspended_machine_may_stop_its_monotonic_clock(clocks: list[float]) -> None:
    """The wall clock tells then."""
    pulse = Pulse()
    clocks[1] += 3600.0
    assert pulse.longest_gap() == 3600.0


def test_silence_is_counted_from_the_threads_own_beat(clocks: list[float]) -> None:
    """The asker's look does not pass for a beat: it would hide a thread that hangs for ever."""
    pulse = Pulse()
    pulse.beat()
    for _ in range(10):
        pass_time(clocks, 60.0)
        pulse.longest_gap()
    assert pulse.silent_seconds() == 600.0
    pulse.beat()
    assert pulse.silent_seconds() == 0.0
