"""Cycles are freed by the clock: the young within a minute, all within an hour."""

from __future__ import annotations

import asyncio
import gc
import weakref

from bridge.runtime.garbage import EVERY_SECONDS, WHOLE_EVERY, collect_by_the_clock
from tests.support.virtual import run


class Page:
    """Refers to itself, as a closed connection's traceback does."""

    def __init__(self) -> None:
        self.itself = self


def test_what_refers_to_itself_is_freed_by_the_clock() -> None:
    """Without any collection that allocations bring about: young garbage within a minute; what has survived such a run
    within the hour."""

    async def story() -> None:
        collecting = asyncio.get_running_loop().create_task(collect_by_the_clock())
        kept = Page()
        young, old = weakref.ref(Page()), weakref.ref(kept)
        await asyncio.sleep(EVERY_SECONDS + 1)
        assert (young() is None, old() is None) == (True, False)
        del kept
        await asyncio.sleep(EVERY_SECONDS)
        assert old() is not None, "it was young, so this test says nothing of old garbage"
        await asyncio.sleep(EVERY_SECONDS * WHOLE_EVERY)
        assert old() is None
        collecting.cancel()

    gc.collect()
    gc.disable()
    try:
        run(story())
    finally:
        gc.enable()
