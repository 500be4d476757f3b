"""What a replay does only where somebody has asked for just that, and who does it: else it could do damage."""

from __future__ import annotations

import asyncio
from typing import Any

from bridge.model import LetterKind, Record
from bridge.replay.ledger import Request, State
from tests.support.engine import P0, P1, TOPIC
from tests.support.engine import record as record_
from tests.support.fakes import FakeMeisa
from tests.support.replays import Instance, MemoryLogs, refused, settled
from tests.support.virtual import run


class Room:
    def __init__(self) -> None:
        self.logs = MemoryLogs()
        self.meisa = FakeMeisa()
        self.instance = Instance(self.logs, self.meisa)

    def record(self, **data: Any) -> Record:
        offset = len(self.logs.topics.get(P0, ()))
        made = record_(offset, "a@x", **data)
        return self.logs.append(TOPIC, 0, made.key, made.value)

    async def carried_out(self, *requests: Request) -> list[State]:
        self.instance.start(P0)
        async with asyncio.timeout(3600):
            await settled(self.logs, *requests)
        await self.instance.stop()
        return [self.logs.state(request)[0] for request in requests]


def test_what_may_have_been_sent_is_sent_again_only_on_demand() -> None:
    """The owner of the partition itself sees to it, whoever wrote the request; the letter stays, and says why."""

    async def story(send_again: bool) -> tuple[list[State], list[str]]:
        room = Room()
        letter = room.logs.bury(refused(room.record(do=["trigger"]), 0, kind=LetterKind.UNKNOWN_OUTCOME))
        states = await room.carried_out(room.logs.ask(letter, send_again=send_again))
        return states, [call.endpoint for call in room.meisa.calls]

    assert run(story(send_again=False)) == ([State.FAILED], [])
    assert run(story(send_again=True)) == ([State.REPLAYED], ["trigger"])


def test_what_later_events_wrote_is_overwritten_only_on_demand() -> None:
    """The later event of the contact wrote its plan: the replay says the rest, or with `overwrite` all of it."""

    async def story(overwrite: bool) -> list[Any]:
        room = Room()
        letter = room.logs.bury(refused(room.record(fields={"plan": "free", "country": "de"}), 0))
        room.record(fields={"plan": "pro"})
        await room.carried_out(room.logs.ask(letter, overwrite=overwrite))
        return [call.body["custom_fields"] for call in room.meisa.calls if call.body]

    assert run(story(overwrite=False)) == [{"country": "de"}]
    assert run(story(overwrite=True)) == [{"plan": "free", "country": "de"}]


def test_who_does_not_own_the_source_partition_leaves_the_request_alone() -> None:
    """Only its owner can keep the order with live events: whoever else reads the request waits, and so does it."""

    async def story() -> None:
        room = Room()
        request = room.logs.ask(room.logs.bury(refused(room.record(), 0)))
        room.instance.start(P1)
        await asyncio.sleep(600)
        assert room.logs.state(request)[0] is State.REQUESTED
        assert room.meisa.calls == []
        await room.instance.stop()

    run(story())
