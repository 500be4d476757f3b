"""The imagined dead-letter topic."""

import asyncio

from bridge.errors import LetterNotWritten
from bridge.model import Letter
from tests.support.simulation.ledger import Ledger
from tests.support.simulation.world import World


class SimLetters:
    """ports.Letters of one member."""

    def __init__(self, world: World, ledger: Ledger, member: str) -> None:
        self._world = world
        self._ledger = ledger
        self._member = member
        self._dice = world.dice(f"letters of {member}")

    async def write(self, letter: Letter) -> None:
        world = self._world
        fault = ""
        if world.faults_on:
            drawn = self._dice.random()
            for kind, share in sorted(world.scenario.letters.items()):
                drawn -= share
                if drawn < 0:
                    fault = kind
                    break
        self._ledger.letter_begun(letter)
        world.say(self._member, f"buries {letter.record.place} {letter.kind} {letter.undelivered} {fault}")
        wait = 0.005 if fault != "slow" else 20.0 * self._dice.random()
        if fault != "failed":
            world.later(wait / 2, self._ledger.letter_written, self._member, letter, not fault)
        await asyncio.sleep(wait)
        if fault.startswith("failed"):
            raise LetterNotWritten("the broker is away")

    async def close(self) -> None:
        pass
