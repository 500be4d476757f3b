"""A trigger whose outcome is unknown stays known as such until its letter is written."""

import asyncio

from bridge.model import LetterKind, Outcome, Verdict
from tests.support.engine import P0, House, record
from tests.support.fakes import FakeLetters, FakeMeisa
from tests.support.virtual import run

UNANSWERED = Outcome(Verdict.UNKNOWN, None, "timeout")


def test_a_crash_while_the_letter_of_a_parked_trigger_waits_sends_no_second_email() -> None:
    """The dead-letter topic is away when the trigger is parked; the next owner parks it again instead of sending."""

    async def story() -> None:
        house = House(meisa=FakeMeisa(lambda call: UNANSWERED), letters=FakeLetters(refusals=1_000_000))
        one = record(0, do=["trigger"])
        house.source.assign(P0)
        house.source.feed([one])
        await asyncio.sleep(2 * 3600)
        assert house.source.committed == {P0: 0} and house.letters.letters == []
        again = House()
        again.source.committed, again.source.metadata = dict(house.source.committed), dict(house.source.metadata)
        again.source.assign(P0)
        again.source.feed([one])
        await asyncio.sleep(1)
        assert again.meisa.calls == []
        assert [letter.kind for letter in again.letters.letters] == [LetterKind.UNKNOWN_OUTCOME]

    run(story())
