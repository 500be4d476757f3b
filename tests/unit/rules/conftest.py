"""Events for rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bridge.model import Event, Record

EventMaker = Callable[..., Event]


@pytest.fixture
def make_event() -> EventMaker:
    def make(type: str = "user.signed_up", topic: str = "user-events", **data: Any) -> Event:
        record = Record(topic, 3, 41, 1_767_323_045_000, b"k1", b"{}", (("tenant", b"acme"),))
        time = "2026-01-02T03:04:05Z"
        return Event(
            id="e1", type=type, time=time, time_wall_seconds=1_767_323_045.0, data=data, record=record, source="app"
        )

    return make
