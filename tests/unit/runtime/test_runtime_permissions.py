"""A quota that all instances share by a ledger, through the whole engine: two instances, trouble, and the end."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from bridge.core.permits import LOOK_SECONDS, RETRY_SECONDS_MAX, USE_SECONDS, Permits
from bridge.model import Call, Outcome, TopicPartition, Verdict
from bridge.ports import Ask, Granted
from bridge.runtime.permissions import Permissions
from tests.support.engine import P0, P1, House, record
from tests.support.fakes import DELIVERED, FakeMeisa
from tests.support.ledger import MemoryLedger
from tests.support.virtual import run

MINUTE = [(6, 60.0)]


class Ledger(MemoryLedger):
    """Answers a millisecond later; hangs, breaks or is away as a test likes."""

    def __init__(self) -> None:
        super().__init__(lambda: 1e9 + asyncio.get_running_loop().time())
        self.bug = self.hangs = False

    async def ask(self, key: str, ask: Ask) -> Granted:
        await asyncio.sleep(1e6 if self.hangs else 0.001)
        if self.bug:
            raise RuntimeError("a bug")
        return await super().ask(key, ask)


class Instance:
    def __init__(self, ledger: MemoryLedger, name: str, *, first_use: bool = True, **more: Any) -> None:
        self.permits = Permits(MINUTE, member=name)
        self.house = House(quota=self.permits, **more)
        self.permissions = Permissions(
            {"default": self.permits}, ledger, clock=self.house.clock, fingerprint=lambda key: "k"
        )
        self.house.delivery.sending.short = self.permissions.short
        self.permissions.wake = self.house.delivery.wake
        self.permissions.start(first_use=first_use)

    def feed(self, partition: TopicPartition, count: int, **data: Any) -> None:
        self.house.source.assign(partition)
        self.house.source.feed(
            [record(each, f"{each}@x", partition=partition.partition, **data) for each in range(count)]
        )

    @property
    def calls(self) -> int:
        return len(self.house.meisa.calls)


def virtually(story: Coroutine[Any, Any, None]) -> None:
    run(story)


def test_two_instances_together_use_the_limit_and_no_more() -> None:
    """Whoever has work uses what is there: nothing is stranded where there is none."""

    async def story() -> None:
        ledger = Ledger()
        one, two = Instance(ledger, "a"), Instance(ledger, "b")
        one.feed(P0, 10)
        await asyncio.sleep(30)
        assert (one.calls, two.calls) == (6, 0)
        two.feed(P1, 10)
        await asyncio.sleep(29)
        assert one.calls + two.calls == 6
        await asyncio.sleep(2)
        assert one.calls + two.calls == 12 and two.calls > 0
        assert [each.reason for each in two.house.engine.waiting()] == ["quota"]
        assert two.house.delivery.key_states()[0].windows[0].used == 6

    virtually(story())


def test_nobody_asks_again_before_it_is_worth_it() -> None:
    """A minute with work and without room costs a handful of questions."""

    async def story() -> None:
        ledger = Ledger()
        one = Instance(ledger, "a")
        one.feed(P0, 10)
        await asyncio.sleep(1)
        before = ledger.asked
        await asyncio.sleep(58)
        assert one.calls == 6
        assert ledger.asked - before <= 58 / LOOK_SECONDS + 2

    virtually(story())


def test_while_the_ledger_is_away_nothing_leaves_and_then_it_goes_on() -> None:
    """The status says why."""

    async def story() -> None:
        ledger = Ledger()
        ledger.trouble = "Redis at h:1: refused"
        one = Instance(ledger, "a")
        one.feed(P0, 3)
        await asyncio.sleep(30)
        assert one.calls == 0
        assert [(each.reason, each.detail) for each in one.house.engine.waiting()] == [
            ("shared_quota", "default: Redis at h:1: refused")
        ]
        ledger.trouble = ""
        await asyncio.sleep(RETRY_SECONDS_MAX + 0.1)
        assert one.calls == 3
        assert one.house.engine.waiting() == []

    virtually(story())


def test_a_bug_in_the_ledger_stops_calls_and_no_more() -> None:
    """It is asked again, as in an outage."""

    async def story() -> None:
        ledger = Ledger()
        ledger.bug = True
        one = Instance(ledger, "a")
        one.feed(P0, 1)
        await asyncio.sleep(3)
        assert (one.calls, one.permits.trouble) == (0, "internal error: RuntimeError")
        ledger.bug = False
        await asyncio.sleep(RETRY_SECONDS_MAX + 0.1)
        assert one.calls == 1

    virtually(story())


def test_a_ledger_that_lost_everything_lets_nothing_leave_until_that_counts_no_more() -> None:
    """A group that has committed something does not begin anew, and says what it waits for."""

    async def story() -> None:
        one = Instance(Ledger(), "a", first_use=False)
        one.feed(P0, 1)
        await asyncio.sleep(80 + 59)
        assert one.calls == 0
        assert one.permits.lost_seconds > 0
        assert [each.detail for each in one.house.engine.waiting()] == ["default: the ledger had lost what was used"]
        await asyncio.sleep(2)
        assert one.calls == 1

    virtually(story())


def test_a_trigger_whose_mark_took_too_long_leaves_with_another_permit() -> None:
    """The commit that it needed came after its permit had run out; nothing is counted twice."""

    async def story() -> None:
        one = Instance(Ledger(), "a")
        one.house.source.answer_commits = False
        one.feed(P0, 1, do=["trigger"])
        await asyncio.sleep(USE_SECONDS + 5)
        assert one.calls == 0
        one.house.source.answer_commits = True
        for positions in one.house.source.unanswered:
            one.house.source._settle(positions)
        await asyncio.sleep(3)
        (call,) = one.house.meisa.calls
        assert call.leave_by > USE_SECONDS + 5
        await asyncio.sleep(LOOK_SECONDS)
        assert one.permits.snapshot(0.0)[0].used == 1

    virtually(story())


def test_a_call_that_is_kept_back_at_the_last_moment_takes_a_new_permit() -> None:
    """A process that stood still between its decision and the first byte."""

    async def story() -> None:
        answers = iter([Outcome(Verdict.WITHHELD, detail="never_sent")])
        one = Instance(Ledger(), "a", meisa=FakeMeisa(lambda call: next(answers, DELIVERED), latency=USE_SECONDS + 1))
        one.feed(P0, 1)
        await asyncio.sleep(2 * USE_SECONDS + 12)
        first, second = one.house.meisa.calls
        assert second.leave_by >= first.leave_by + USE_SECONDS

    virtually(story())


def test_a_brake_that_one_meets_holds_the_other() -> None:
    """A 429 with a Retry-After is the key's, not the instance's."""

    async def story() -> None:
        ledger = Ledger()
        throttled = Outcome(Verdict.THROTTLED, 429, retry_after_seconds=40.0)
        answers = iter([throttled])
        one = Instance(ledger, "a", meisa=FakeMeisa(lambda call: next(answers, DELIVERED)))
        two = Instance(ledger, "b")
        one.feed(P0, 1)
        await asyncio.sleep(2)
        two.feed(P1, 1)
        await asyncio.sleep(30)
        assert two.calls == 0
        assert [each.reason for each in two.house.engine.waiting()] == ["throttled"]
        assert one.calls == 1
        await asyncio.sleep(90)
        assert (one.calls, two.calls) == (2, 1)

    virtually(story())


def test_who_leaves_gives_back_what_is_in_hand_and_tells_its_ends() -> None:
    """A rolling deploy does not withhold permits for minutes; where the ledger is away it does not wait long."""

    async def story() -> None:
        ledger = Ledger()
        one = Instance(ledger, "a")
        one.feed(P0, 1)
        assert await one.house.delivery.ask(Call("ping")) is None
        await asyncio.sleep(0.2)
        await one.house.source.close()
        await one.permissions.close()
        two = Instance(ledger, "b", first_use=False)
        await asyncio.sleep(59.7)
        two.feed(P1, 6)
        await asyncio.sleep(0.6)
        assert two.calls == 6
        ledger.hangs = True
        begun = two.house.clock.now()
        await two.permissions.close()
        assert two.house.clock.now() - begun < 3

    virtually(story())


def test_a_call_of_no_action_gets_its_permit_in_turn() -> None:
    """A ping finds none at first; what can wait waits for it."""

    async def story() -> None:
        one = Instance(Ledger(), "a")
        assert await one.house.delivery.ask(Call("ping")) is None
        await asyncio.sleep(0.1)
        assert await one.house.delivery.ask(Call("ping")) == DELIVERED
        outcome, _ = await one.house.delivery.ask_in_turn(Call("unsubscribed"))
        assert outcome == DELIVERED
        assert all(call.leave_by <= USE_SECONDS + 1 for call in one.house.meisa.calls)

    virtually(story())


def test_before_it_is_started_nothing_is_asked() -> None:
    """Whether the group is new must be known first, or a new one would count as emptied."""

    async def story() -> None:
        ledger = Ledger()
        permits = Permits(MINUTE, member="a")
        house = House(quota=permits)
        permissions = Permissions({"default": permits}, ledger, clock=house.clock, fingerprint=lambda key: "k")
        house.delivery.sending.short = permissions.short
        house.source.assign(P0)
        house.source.feed([record(0)])
        await asyncio.sleep(20)
        assert ledger.asked == 0
        await permissions.close()

    virtually(story())
