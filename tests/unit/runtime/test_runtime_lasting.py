"""Commits that wait for the state store, when their partition goes meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from bridge.model import Position
from bridge.runtime.lasting import Lasting
from bridge.state.memory import MemoryStore
from tests.support.engine import P0, P1
from tests.support.virtual import run


class SlowStore(MemoryStore):
    """Has something to write, which takes a second."""

    dirty = True

    async def flush(self) -> None:
        await asyncio.sleep(1)


def test_what_waits_for_the_store_is_not_committed_once_its_partition_went() -> None:
    """Also not when it has come back: another owner may have gone on, and the offset would go back (seed 3128)."""
    sent: list[Sequence[Position]] = []

    async def story() -> None:
        lasting = Lasting(SlowStore(), sent.append)
        lasting.commit([Position(P0, 2)])
        lasting.commit([Position(P0, 3), Position(P1, 7)])
        await asyncio.sleep(0.5)
        lasting.withdraw([P0])
        lasting.commit([Position(P0, 50)])
        await asyncio.sleep(5)

    run(story())
    assert sent == [[Position(P1, 7)], [Position(P0, 50)]]
