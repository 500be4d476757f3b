"""Where progress stops fitting into its limit, to the byte."""

from __future__ import annotations

import random

import pytest

from bridge.core.offsets import PartitionOffsets
from bridge.core.progress import (
    SPEND_BYTES,
    DoesNotFit,
    Progress,
    encode,
    room_limit,
    started_limit,
    window_limit,
)

SPEND_CHARACTERS = SPEND_BYTES * 5 // 4
"""Base85: five characters carry four bytes."""


def fits(progress: Progress, limit_bytes: int) -> bool:
    try:
        encode(0, progress, limit_bytes)
    except DoesNotFit:
        return False
    return True


@pytest.mark.parametrize("size", range(1, 41))
def test_a_text_fits_with_its_reserve_and_not_with_a_byte_less(size: int) -> None:
    """Whatever the length of its last group of base85: the limit is used up to the last byte, and never passed."""
    progress = Progress(0, random.Random(size).randbytes(size - 1) + b"\xff")
    needed = len(encode(0, progress, 4096).encode()) + SPEND_CHARACTERS
    limits = range(needed - 20, needed + 20)
    assert [limit for limit in limits if fits(progress, limit)] == [limit for limit in limits if limit >= needed]


@pytest.mark.parametrize("limit", [1024, 2048, 4096])
def test_bits_that_nothing_compresses_fit_with_all_that_is_half_done(limit: int) -> None:
    """Each offset has finished or not as a coin fell: of all windows these need the most room. Nothing is left out."""
    dice = random.Random(limit)
    machine = PartitionOffsets(
        start=7, window_max=window_limit(limit), room_bytes=room_limit(limit), started_max=started_limit(limit)
    )
    taken = []
    while machine.fits(7 + len(taken)):
        machine.take(7 + len(taken))
        taken.append(7 + len(taken))
    done = {offset for offset in taken[1:] if dice.random() < 0.5}
    for offset in taken:
        name = dice.getrandbits(32)
        if offset not in done and machine.claim(offset, name):
            machine.note_delivered(offset, name)
    for offset in done:
        machine.finish(offset)
    progress, unclaimed = machine.progress()
    assert unclaimed == {} and len(progress.delivered) > 1
    assert len(encode(7, progress, limit).encode()) <= limit - SPEND_CHARACTERS
