"""Running `carry` without a task: a coroutine that goes on where it is told to.

An asyncio task per record would cost more than decoding it, and would start it only in the loop's next round: records
could then overtake each other on their way into the ordering queues. So a carry is driven by hand: `start` runs it at
once up to its first wait on a Completion, and whoever completes that runs it further, in the same breath.

The trap: a carry may await Completions only. Awaiting an asyncio future in it is an error, and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")
C = TypeVar("C")


class Completion(Generic[T]):
    """A value that comes later, for one waiting coroutine."""

    __slots__ = ("_abandoned", "_done", "_resume", "_value")

    def __init__(self) -> None:
        self._abandoned = False
        self._done = False
        self._value: T | None = None
        self._resume: Callable[[], None] | None = None

    @property
    def done(self) -> bool:
        return self._done

    def complete(self, value: T) -> None:
        """Hands over the value; the waiting coroutine runs on before this returns."""
        assert not self._done, "completed twice"
        self._done = True
        self._value = value
        resume, self._resume = self._resume, None
        if resume is not None:
            resume()

    def then(self, resume: Callable[[], None]) -> None:
        assert self._resume is None and not self._done, "one coroutine waits for a completion"
        if not self._abandoned:
            self._resume = resume

    def abandon(self) -> None:
        """Nobody will complete it: lets go of who waits. The two hold each other, and only the collector, which comes
        seldom, would free them: a rebalance drops thousands of records at once."""
        self._abandoned = True
        self._resume = None

    def __await__(self) -> Generator[Completion[T], None, T]:
        if not self._done:
            yield self
        return self._value  # type: ignore[return-value]


def start(coroutine: Coroutine[Any, None, None], failed: Callable[[C, BaseException], None], context: C) -> None:
    """Runs a coroutine up to its first wait, and on whenever what it waits for completes.

    `failed` receives `context` and an exception that the coroutine lets out. Completing never raises into the
    completer: one record's bug must not stop another's delivery.
    """
    waited = _step(coroutine, failed, context)
    if waited is not None:  # only now: of a busy topic most never wait, and should not pay for what goes on
        waited.then(_Waiting(coroutine, failed, context).resume)


class _Waiting(Generic[C]):
    """A coroutine that waits. No function that names itself: such a one is a cycle, and would keep the record, value
    and all, until the collector comes, which is seldom."""

    __slots__ = ("_context", "_coroutine", "_failed")

    def __init__(
        self, coroutine: Coroutine[Any, None, None], failed: Callable[[C, BaseException], None], context: C
    ) -> None:
        self._coroutine = coroutine
        self._failed = failed
        self._context = context

    def resume(self) -> None:
        waits = _step(self._coroutine, self._failed, self._context)
        if waits is not None:
            waits.then(self.resume)


def _step(
    coroutine: Coroutine[Any, None, None], failed: Callable[[C, BaseException], None], context: C
) -> Completion[Any] | None:
    """Runs it up to its next wait; None where it has ended."""
    try:
        while True:
            waited = coroutine.send(None)
            if not isinstance(waited, Completion):
                coroutine.close()
                raise TypeError(f"a carry may await completions only, not {type(waited).__name__}")
            if not waited.done:
                return waited
    except StopIteration:
        return None
    except Exception as error:
        failed(context, error)
        return None
