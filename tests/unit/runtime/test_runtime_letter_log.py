"""What the log says of dead letters: nobody needs to ask, and no topic of bad events fills it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from structlog.testing import capture_logs

from bridge.model import Letter, LetterKind, Outcome, Record, Verdict
from bridge.runtime.engine import LOOK_SECONDS
from bridge.runtime.letter_log import AGAIN_SECONDS, LetterLog
from tests.support.engine import P0, House
from tests.support.engine import record as event
from tests.support.fakes import FakeMeisa
from tests.support.virtual import run


def letter(offset: int, kind: LetterKind = LetterKind.REJECTED, rule: str = "sign up") -> Letter:
    record = Record("users", 3, offset, 1_767_323_045_000, None, b"{}")
    return Letter(record, kind, "400 from upsert: no address", rule=rule)


def told(logs: Sequence[Any]) -> list[Any]:
    return [line for line in logs if "dead letter" in line["event"] and "see" in line]


def lines(logs: Sequence[Any]) -> list[tuple[str, str, str]]:
    return [
        (line["log_level"], line.get("place") or f"{line['count']} to {line['last_place']}", line["see"])
        for line in logs
    ]


def test_the_first_is_told_at_once_with_what_follows_and_the_others_by_their_number() -> None:
    """With the command that shows them; a name of a rule with a blank is one argument of it."""
    story = LetterLog()
    with capture_logs() as logs:
        for offset in range(1000):
            story.wrote(letter(offset), now=100.0 + offset / 100)
        story.look(100.0 + AGAIN_SECONDS - 1)
        assert lines(logs) == [("warning", "users/3/0", "meisa-bridge dlq show users/3/0")]
        assert "was not delivered" in logs[0]["event"] and "replay" in logs[0]["event"]
        assert logs[0]["message"] == "400 from upsert: no address"
        story.look(100.0 + AGAIN_SECONDS)
        assert lines(logs)[1:] == [
            ("warning", "999 to users/3/999", "meisa-bridge dlq list --kind rejected --rule 'sign up'")
        ]
        assert logs[1]["within_seconds"] == 60


def test_after_a_quiet_minute_the_next_one_is_a_first_one_again() -> None:
    story = LetterLog()
    with capture_logs() as logs:
        story.wrote(letter(1), now=0.0)
        story.look(AGAIN_SECONDS)
        story.wrote(letter(2), now=AGAIN_SECONDS + 5)
    assert [line["place"] for line in logs] == ["users/3/1", "users/3/2"]


def test_another_kind_or_rule_is_told_by_itself() -> None:
    """A flood of one hides none of the others; a record that cannot be read has no rule."""
    story = LetterLog()
    with capture_logs() as logs:
        story.wrote(letter(1), now=0.0)
        story.wrote(letter(2, LetterKind.EXPIRED), now=0.0)
        story.wrote(letter(3, rule="other"), now=0.0)
        story.wrote(letter(4, LetterKind.DECODE, rule=""), now=0.0)
    assert [line["place"] for line in logs] == [f"users/3/{offset}" for offset in (1, 2, 3, 4)]


def test_what_was_only_counted_is_told_at_the_end() -> None:
    """A service that stops within the minute."""
    story = LetterLog()
    with capture_logs() as logs:
        story.wrote(letter(1), now=0.0)
        story.wrote(letter(2, rule=""), now=1.0)
        story.wrote(letter(3, rule=""), now=2.0)
        story.close(now=10.0)
        story.close(now=11.0)
    assert lines(logs)[2:] == [("warning", "1 to users/3/3", "meisa-bridge dlq list --kind rejected")]


def test_a_service_tells_its_letters_only_once_they_are_written() -> None:
    """A letter that no broker has acknowledged is not to be found by the command that the line names."""

    async def story() -> None:
        house = House(meisa=FakeMeisa(lambda call: Outcome(Verdict.REFUSED, 400, message="no address")))
        house.source.assign(P0)
        house.letters.refusals = 1_000
        house.source.feed([event(offset, f"{offset}@x", do=["track"]) for offset in range(5)])
        with capture_logs() as logs:
            await asyncio.sleep(3)
            assert not told(logs)
            house.letters.refusals = 0
            await asyncio.sleep(10)
            assert [line["log_level"] for line in told(logs)] == ["warning"]
            await asyncio.sleep(AGAIN_SECONDS + LOOK_SECONDS)
        assert told(logs)[1]["count"] == 4

    run(story())
