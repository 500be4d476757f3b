"""Calls that belong to no action and wait for their turn."""

import asyncio

from bridge.model import Call
from tests.support.engine import House
from tests.support.virtual import run


def test_a_turn_is_not_given_to_one_who_has_gone() -> None:
    """Cancelled in the very round in which a slot came free: the next who waits has it, and the pump goes on."""

    async def scenario() -> None:
        house = House(limits=[(1, 60.0)])
        asking = house.delivery.sending.asking
        assert await asking.ask(Call("ping")) is not None  # the minute's only slot
        gone = asyncio.ensure_future(asking.ask_in_turn(Call("unsubscribed")))
        waits = asyncio.ensure_future(asking.ask_in_turn(Call("sequences")))
        await asyncio.sleep(1.0)
        gone.cancel()  # its turn is cancelled at once, and leaves the queue only when it runs again
        asking.call("default")
        await asyncio.sleep(120.0)
        assert waits.done()
        assert [call.endpoint for call in house.meisa.calls] == ["ping", "sequences"]
        assert not asking.wants("default")

    run(scenario())
