"""What a turn costs does not depend on how many contacts wait [astubbs/parallel-consumer#361]."""

from __future__ import annotations

import sys
from collections.abc import Callable
from math import log2
from types import FrameType
from typing import Any

from bridge.core.dispatch import Dispatch
from bridge.core.ordering import Ordering

FEW, MANY = 8, 4_096


def instructions(work: Callable[[], object]) -> int:
    """Bytecode instructions that `work` runs: a measure that no busy machine distorts."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def a_turn(contacts: int) -> int:
    """What it costs to admit an item of a busy contact with two names, and to give its next one the turn."""
    ordering: Ordering[int] = Ordering()
    for number in range(contacts):
        ordering.admit(number, [f"x:{number}", f"e:{number}"])
    first = ordering.admit(-1, ["x:busy", "e:busy"])
    second = ordering.admit(-2, ["e:busy"])

    def turn() -> None:
        ordering.admit(-3, ["x:busy", "e:busy"])
        assert ordering.release(first) == [second]

    return instructions(turn)


def test_a_turn_costs_the_same_among_few_contacts_and_among_many() -> None:
    """Neither admission nor release looks at anybody else."""
    assert a_turn(MANY) == a_turn(FEW)


class Counted(int):
    """A sequence number that counts how often it is compared."""

    comparisons = 0

    def __lt__(self, other: int) -> bool:
        Counted.comparisons += 1
        return int(self) < int(other)

    def __eq__(self, other: object) -> bool:
        Counted.comparisons += 1
        return isinstance(other, int) and int(self) == int(other)

    __hash__ = int.__hash__


def test_the_choice_of_what_goes_next_is_no_scan_of_what_waits() -> None:
    """A heap's depth, also while others wait for their moment; and no more instructions among many than among few."""
    costs = {}
    for waiting in (FEW, MANY):
        dispatch: Dispatch[int] = Dispatch(["sync"])
        for number in range(waiting):
            dispatch.put(number, lane="sync", sequence=Counted(number), not_before=0.0, now=1.0)
            dispatch.put(-number - 1, lane="sync", sequence=Counted(waiting + number), not_before=9.0, now=1.0)
        Counted.comparisons = 0
        costs[waiting] = instructions(lambda: dispatch.next(1.0, lambda lane: True))  # noqa: B023
        assert Counted.comparisons <= 8 * log2(waiting)
    assert costs[MANY] <= costs[FEW] + 100 * log2(MANY / FEW), "the comparisons themselves are instructions too"
