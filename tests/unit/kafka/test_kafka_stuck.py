"""Whether the polling thread is hung for good, or only has nobody to talk to."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bridge.errors import StartFailed
from bridge.kafka import consumer, pulse
from bridge.kafka.consumer import KafkaSource
from bridge.ports import SourceListener

PATIENCE_AND_CLOSING = 300 + 45


class Hours:
    """A clock for the pulse alone: the loop and the thread keep the real one."""

    def __init__(self) -> None:
        self.now = 1_000.0


@pytest.fixture
def hours(monkeypatch: pytest.MonkeyPatch) -> Hours:
    clock = Hours()
    monkeypatch.setattr(pulse, "time", SimpleNamespace(monotonic=lambda: clock.now, time=lambda: clock.now))
    monkeypatch.setattr(consumer, "PROBE_AGAIN_SECONDS", 0.001)
    return clock


@pytest.fixture
def blocked(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """While it is cleared, asking the brokers never ends; else none is in reach."""
    free = threading.Event()

    def probe(*given: Any) -> None:
        free.wait(60)
        raise StartFailed("nobody is there")

    monkeypatch.setattr(consumer, "probe", probe)
    yield free
    free.set()


class Deaf:
    def failed(self, message: str, *, fatal: bool) -> None:
        pass


async def test_a_thread_that_never_comes_back_is_told_and_an_outage_is_not(
    hours: Hours, blocked: threading.Event
) -> None:
    """Only the first is mended by a new process; a broker that is out of reach for hours is waited for."""
    source = KafkaSource("127.0.0.1:1", "g", {"t": "earliest"})
    source.start(cast("SourceListener", Deaf()))
    try:
        hours.now += PATIENCE_AND_CLOSING - 1
        assert source.stuck() is None
        hours.now += 2
        assert source.stuck() == "the thread that polls Kafka has been hung for 346 s"
        blocked.set()
        for _ in range(10):
            hours.now += 3600
            for _ in range(1000):
                if source.stuck() is None:
                    break
                await asyncio.sleep(0.005)
            assert source.stuck() is None
    finally:
        blocked.set()
        await source.close()
