"""Refused keys: their work stands still, the key is read and asked anew, ever more rarely, and then work goes on."""

from __future__ import annotations

import asyncio

from structlog.testing import capture_logs

from bridge.errors import UsageError
from bridge.model import Call, Outcome, Verdict
from bridge.runtime.keys import ASK_SECONDS_MAX, RefusedKeys
from tests.support.engine import P0, House, record
from tests.support.fakes import DELIVERED, FakeMeisa
from tests.support.virtual import run

REFUSED = Outcome(Verdict.KEY_REFUSED, 401, "Unknown API key.")


class Lock:
    """A Meisa that accepts one key only, and the files that keys are read from."""

    def __init__(self) -> None:
        self.right = "right"
        self.file = "right"
        self.readable = True
        self.used = self.file
        self.pings: list[float] = []
        self.reads = 0

    def answer(self, call: Call) -> Outcome:
        if call.endpoint == "ping":
            self.pings.append(asyncio.get_running_loop().time())
        return DELIVERED if self.used == self.right else REFUSED

    def refresh(self, key: str) -> bool:
        self.reads += 1
        if not self.readable:
            raise UsageError("the file /run/secrets/meisa does not exist")
        changed, self.used = self.used != self.file, self.file
        return changed


def watched(lock: Lock) -> tuple[House, RefusedKeys]:
    house = House(meisa=FakeMeisa(lock.answer, latency=0.0))
    keys = RefusedKeys(house.meisa, house.delivery, lock.refresh)
    house.delivery.sending.key_refused = keys.refused
    return house, keys


def test_a_rotated_key_is_read_again_and_work_goes_on() -> None:
    """Events wait while the key is refused; nothing is sent with it but a ping now and then; after the file holds the
    new key everything is delivered, in order, and nothing was dead-lettered."""

    async def scenario() -> None:
        lock = Lock()
        house, keys = watched(lock)
        lock.right = "rotated"
        house.source.assign(P0)
        house.source.feed([record(offset) for offset in range(3)])
        await asyncio.sleep(100)
        upserts = [call for call in house.meisa.calls if call.endpoint == "upsert"]
        assert len(upserts) == 1, "the refused one; the others wait"
        assert house.source.committed.get(P0, 0) == 0
        assert [key.name for key in house.delivery.key_states() if key.refused] == ["default"]
        lock.file = "rotated"
        await asyncio.sleep(ASK_SECONDS_MAX + 1)
        assert house.seqs() == [0, 0, 1, 2]
        assert house.endings() == {"delivered": 3}
        assert house.letters.letters == []
        assert not any(key.refused for key in house.delivery.key_states())
        await keys.close()

    run(scenario())


def test_pings_become_rarer_but_never_rarer_than_a_minute() -> None:
    """They cost quota; a minute after a repair is soon enough."""

    async def scenario() -> None:
        lock = Lock()
        house, keys = watched(lock)
        lock.right = "nobody's"
        house.source.assign(P0)
        house.source.feed([record(0)])
        await asyncio.sleep(3600)
        waits = [later - earlier for earlier, later in zip([0.0, *lock.pings], lock.pings, strict=False)]
        assert [round(wait) for wait in waits[:6]] == [1, 2, 4, 8, 16, 32]
        assert {round(wait) for wait in waits[6:]} == {60}
        assert len(lock.pings) == lock.reads
        await keys.close()

    run(scenario())


def test_a_key_that_cannot_be_read_is_told_and_waited_for() -> None:
    """Between the removal of the old file and the writing of the new one there may be none: no crash, no ping with the
    old key, and work goes on once it is there."""

    async def scenario() -> None:
        lock = Lock()
        house, keys = watched(lock)
        lock.right, lock.file, lock.readable = "rotated", "rotated", False
        house.source.assign(P0)
        with capture_logs() as logs:
            house.source.feed([record(0)])
            await asyncio.sleep(20)
        assert lock.pings == []
        unread = [line for line in logs if line["event"].startswith("the API key cannot be read")]
        assert unread and {line["log_level"] for line in unread} == {"warning"}
        assert "/run/secrets/meisa" in unread[0]["error"]
        lock.readable = True
        await asyncio.sleep(60)
        assert house.endings() == {"delivered": 1}
        await keys.close()

    run(scenario())


def test_one_refusal_is_told_once_and_watched_once() -> None:
    """Many calls are refused together where many were in flight: one line, one watch."""

    async def scenario() -> None:
        lock = Lock()
        house, keys = watched(lock)
        lock.right = "rotated"
        house.source.assign(P0)
        with capture_logs() as logs:
            house.source.feed([record(number, f"user{number}@x") for number in range(20)])
            await asyncio.sleep(10)
        assert len([line for line in logs if line["event"].startswith("Meisa refuses the API key")]) == 1
        assert [round(at) for at in lock.pings] == [1, 3, 7]
        await keys.close()

    run(scenario())


def test_a_key_may_be_refused_again_after_it_worked() -> None:
    async def scenario() -> None:
        lock = Lock()
        house, keys = watched(lock)
        house.source.assign(P0)
        for offset, number in enumerate(("second", "third")):
            lock.right = number
            house.source.feed([record(offset)])
            await asyncio.sleep(2)
            assert house.endings().get("delivered", 0) == offset
            lock.file = number
            await asyncio.sleep(120)
            assert house.endings() == {"delivered": offset + 1}
        await keys.close()

    run(scenario())


def test_a_bridge_that_ends_asks_no_more() -> None:
    async def scenario() -> None:
        lock = Lock()
        house, keys = watched(lock)
        lock.right = "nobody's"
        house.source.assign(P0)
        house.source.feed([record(0)])
        await asyncio.sleep(10)
        assert lock.pings
        await keys.close()
        asked = len(lock.pings)
        await asyncio.sleep(600)
        assert len(lock.pings) == asked

    run(scenario())


def test_pings_are_within_the_quota() -> None:
    """A key that is refused has a quota all the same: with no room left it is asked later, not over it."""

    async def scenario() -> None:
        lock = Lock()
        house = House(meisa=FakeMeisa(lock.answer, latency=0.0), limits=[(2, 600.0)])
        keys = RefusedKeys(house.meisa, house.delivery, lock.refresh)
        house.delivery.sending.key_refused = keys.refused
        lock.right = "nobody's"
        house.source.assign(P0)
        house.source.feed([record(0)])
        await asyncio.sleep(500)
        assert len(house.meisa.calls) == 2, "the refused call, and one ping"
        await keys.close()

    run(scenario())


def test_any_2xx_shows_the_key_accepted() -> None:
    """A ping that answers in a shape we do not know still let the key in."""

    async def scenario() -> None:
        lock = Lock()
        house, keys = watched(lock)
        lock.right = "other"
        house.source.assign(P0)
        house.source.feed([record(0)])
        await asyncio.sleep(5)
        odd = Outcome(Verdict.RETRY, 200, "not JSON", "unreadable")
        house.meisa.answer = lambda call: odd if call.endpoint == "ping" else DELIVERED
        await asyncio.sleep(60)
        assert house.source.committed == {P0: 1}
        await keys.close()

    run(scenario())


def test_a_ping_that_breaks_in_the_bridge_itself_is_asked_again() -> None:
    """A bug in the adapter must not leave the key refused for ever: the next ping finds that it works."""

    async def scenario() -> None:
        lock = Lock()
        house, keys = watched(lock)
        lock.right = "rotated"
        house.source.assign(P0)
        house.source.feed([record(0)])
        await asyncio.sleep(0.5)
        lock.file = "rotated"
        broken = iter([True])
        send = house.meisa.send

        async def breaking(call: Call) -> Outcome:
            if call.endpoint == "ping" and next(broken, False):
                raise RuntimeError("a bug")
            return await send(call)

        house.meisa.send = breaking  # type: ignore[method-assign]
        with capture_logs() as logs:
            await asyncio.sleep(10)
        assert house.seqs() == [0, 0]
        assert any("asked again" in each["event"] for each in logs)
        await keys.close()

    run(scenario())
