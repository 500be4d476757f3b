"""A carry runs at once, and on where it is told to."""

import asyncio

import pytest

from bridge.runtime.completion import Completion, start


def unexpected(record: str, error: BaseException) -> None:
    raise AssertionError(error)


def test_it_runs_up_to_its_first_wait_at_once_and_on_when_completed() -> None:
    """No loop is needed, and no round of one lies between."""
    said: list[object] = []
    first: Completion[str] = Completion()
    second: Completion[str] = Completion()

    async def carry() -> None:
        said.append("begun")
        said.append(await first)
        said.append(await second)

    start(carry(), unexpected, "a record")
    assert said == ["begun"]
    first.complete("one")
    assert said == ["begun", "one"]
    second.complete("two")
    assert said == ["begun", "one", "two"]


def test_what_is_complete_already_is_not_waited_for() -> None:
    """A dead letter may be acknowledged before anybody waits."""
    done: Completion[int] = Completion()
    done.complete(7)
    assert done.done
    said: list[int] = []

    async def carry() -> None:
        said.append(await done)

    start(carry(), unexpected, "a record")
    assert said == [7]


def test_an_exception_goes_to_failed_and_not_to_the_completer() -> None:
    """One record's bug must not stop another's delivery."""
    wait: Completion[None] = Completion()
    failures: list[tuple[str, BaseException]] = []

    async def carry() -> None:
        await wait
        raise ValueError("bug")

    start(carry(), lambda *failed: failures.append(failed), "a record")
    wait.complete(None)
    assert repr(failures) == "[('a record', ValueError('bug'))]"


def test_awaiting_anything_else_is_refused_loudly() -> None:
    """An asyncio future would never resume a carry."""
    failures: list[tuple[str, BaseException]] = []

    async def carry() -> None:
        await asyncio.get_running_loop().create_future()

    async def main() -> None:
        start(carry(), lambda *failed: failures.append(failed), "a record")

    asyncio.run(main())
    assert "completions only" in str(failures[0][1])


def test_completing_twice_is_a_bug() -> None:
    """The second value would be lost."""
    wait: Completion[None] = Completion()
    wait.complete(None)
    with pytest.raises(AssertionError, match="twice"):
        wait.complete(None)


def test_who_waits_for_what_nobody_completes_is_let_go() -> None:
    """Before it waits or while it does: the coroutine ends at once, and no collector is needed for that."""
    ended: list[str] = []

    async def carry(wait: Completion[None], name: str) -> None:
        try:
            await wait
        finally:
            ended.append(name)

    wait: Completion[None] = Completion()
    start(carry(wait, "while"), unexpected, "a record")
    assert ended == []
    wait.abandon()
    assert ended == ["while"]
    start(carry(wait, "before"), unexpected, "a record")
    assert ended == ["while", "before"]
