"""One record's path. Read this first.

    record → decode → event → rules → actions → delivery → results → finish → the frontier moves → commit

Commit is a consequence, never a step: only `line.finish` lets an offset move, and a record reaches it only when every
action that its event planned has been delivered, was deliberately finished, or stands in the dead-letter topic with the
broker's acknowledgement. An exception, or a path that ends early, leaves the offset open: the record comes again after
a restart. Safety does not depend on every branch below being right.

Two waits stand on the path: the delivery, and the dead letter's acknowledgement. Nothing waits before the delivery, so
actions enter the ordering queues in log order. `carry` runs at once up to its first wait, without a task of its own
(see runtime/completion.py): most records of a busy topic never wait, and must not pay for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Protocol

from bridge.errors import DecodeError
from bridge.model import (
    Action,
    Ending,
    Event,
    Letter,
    LetterKind,
    Plan,
    Record,
    Result,
)


class Names(Protocol):
    """Knows actions by the id that they have for ever."""

    def identify(self, record: Record, action: Action) -> str:
        """The action id."""


class Line(Names, Protocol):
    """The stations along the path."""

    def decode(self, record: Record) -> Event | None:
        """None for a record that says nothing (a tombstone). Raises DecodeError."""

    def repeated(self, event: Event) -> bool:
        """Whether an event with the same id has finished lately, or is under way: then nothing rests on this one."""

    def plan(self, event: Event) -> Plan:
        """Never raises: a rule that fails is in the plan."""

    def too_old(self, action: Action, event: Event) -> bool:
        """Whether the event is history to this action already when it is first read."""

    def done_before(self, record: Record, action: Action) -> bool:
        """Whether an earlier owner of the partition delivered the action already, and told so in its commit."""

    def deliver(self, event: Event, actions: Sequence[Action], *, alone: bool) -> Awaitable[Sequence[Result]]:
        """Enters the actions into their contacts' queues now; awaits how each of them ended.

        What is carried out while its event goes on, a restart must know: `alone` says that the event waits for nothing
        but these actions.
        """

    def bury(self, letter: Letter) -> Awaitable[None]:
        """Awaits the broker's acknowledgement of a dead letter, however long that takes."""

    def finish(self, record: Record, ending: Ending) -> None:
        """The record is done with: counts it, and lets its offset move. Ignored from an older assignment epoch."""


async def carry(record: Record, line: Line) -> None:
    """Carries one record from its bytes to its end."""
    try:
        event = line.decode(record)
    except DecodeError as error:
        await line.bury(Letter(record, LetterKind.DECODE, error.message))
        return line.finish(record, Ending.DEAD_LETTERED)
    if event is None:
        return line.finish(record, Ending.FILTERED)

    if line.repeated(event):
        return line.finish(record, Ending.DUPLICATE)
    plan = line.plan(event)
    if not plan.actions and not plan.failures:
        return line.finish(record, Ending.FILTERED)

    before = [_ended_before(event, action, line) for action in plan.actions]
    fresh = [action for action, ended in zip(plan.actions, before, strict=True) if ended is None]
    delivered = iter(await line.deliver(event, fresh, alone=not plan.failures) if fresh else ())
    results = [next(delivered) if ended is None else ended for ended in before]

    letters = [
        Letter(record, LetterKind.RULE, failure.message, rule=failure.rule) for failure in plan.failures
    ] + undelivered_letters(record, plan.actions, results, line)
    for letter in letters:
        await line.bury(letter)
    return line.finish(record, Ending.DEAD_LETTERED if letters else worst(results))


def _ended_before(event: Event, action: Action, line: Line) -> Result | None:
    """How an action has ended already when its record is read; None where it is to be delivered."""
    if line.done_before(event.record, action):
        return DONE_BEFORE
    return EXPIRED if line.too_old(action, event) else None


EXPIRED = Result(Ending.EXPIRED)
DONE_BEFORE = Result(Ending.DELIVERED, detail="before a restart")

_GRAVITY = (
    Ending.DELIVERED,
    Ending.MERGED,
    Ending.LAZY,
    Ending.UNCHANGED,
    Ending.SUPPRESSED,
    Ending.EXPIRED,
    Ending.DUPLICATE,
    Ending.FILTERED,
)


def worst(results: Sequence[Result]) -> Ending:
    """An event's one outcome: that something of it was delivered outweighs what was deliberately not."""
    endings = {result.ending for result in results}
    return next((ending for ending in _GRAVITY if ending in endings), Ending.FILTERED)


def undelivered_letters(
    record: Record, actions: Sequence[Action], results: Sequence[Result], names: Names
) -> list[Letter]:
    """One letter for each action that was refused, naming with it the actions that could not go without it."""
    dead = {
        action.position: (action, result)
        for action, result in zip(actions, results, strict=True)
        if result.letter is not None
    }
    causes: dict[int, list[Action]] = {}
    for position, (action, _) in dead.items():
        cause = position
        while (needed := dead[cause][0].needs) is not None and needed in dead:
            cause = needed
        causes.setdefault(cause, []).append(action)

    letters = []
    for cause, victims in causes.items():
        action, result = dead[cause]
        assert result.letter is not None
        letters.append(
            Letter(
                record,
                result.letter,
                result.message,
                rule=action.rule,
                action=action.kind.value,
                status=result.status,
                request=result.request,
                response=result.response,
                attempts=result.attempts,
                undelivered=tuple(victim.position for victim in victims),
                undelivered_ids=tuple(names.identify(record, victim) for victim in victims),
            )
        )
    return letters
