"""Permits of one ledger against a server that counts: instances crash and sleep, answers and a Redis get lost."""

from dataclasses import dataclass, field
from itertools import count
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.core.permits import Permit, Permits
from bridge.core.quota import Slot
from tests.support.amount import examples
from tests.support.ledger import MemoryLedger

LIMITS = [(5, 10.0), (12, 60.0)]
TIMEOUT, UNANSWERED = 2.0, 6.0


@dataclass
class Member:
    permits: Permits
    under_way: list[tuple[float, Slot]] = field(default_factory=list)
    booked: list[Slot] = field(default_factory=list)
    """Have a permit, and have not left yet."""


class Fleet:
    """The server counts a call when it leaves, when it is answered, or as late as an unanswered one may come."""

    def __init__(self, reserve: float = 0.0) -> None:
        self.now = 1_000.0
        self.reserve = reserve
        self.ledger = MemoryLedger(lambda: self.now)
        self.numbers = count()
        self.members = [self._born() for _ in range(3)]
        self.served: list[float] = []
        self.new = True

    def _born(self) -> Member:
        name = f"m{next(self.numbers)}"
        return Member(
            Permits(
                LIMITS,
                reserve=self.reserve,
                unanswered_seconds=UNANSWERED,
                timeout_seconds=TIMEOUT,
                member=name,
            )
        )

    def ask(self, member: int, how: str, seconds: float = 0.0) -> None:
        permits = self.members[member].permits
        asked = permits.ask(self.now, "k", first_use=self.new)
        self.wait(seconds / 2)
        if how == "lost before":
            return permits.failed(self.now, "no answer")
        answer = self.ledger.answer("k", asked)
        self.new = False
        self.wait(seconds / 2)
        if how == "lost after":
            return permits.failed(self.now, "no answer")
        return permits.granted(self.now, answer)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        for member in self.members:
            for each in [each for each in member.under_way if each[0] + TIMEOUT <= self.now]:
                member.under_way.remove(each)
                member.permits.unanswered(each[0] + TIMEOUT, each[1])
                self.served.append(each[0] + TIMEOUT + UNANSWERED - 0.001)

    def book(self, member: int, urgent: bool) -> bool:
        each = self.members[member]
        if not each.permits.acquire(self.now, urgent=urgent):
            return False
        slot = each.permits.slot
        assert isinstance(slot, Permit) and (urgent or not slot.urgent)
        each.booked.append(slot)
        return True

    def leave(self, member: int, late: bool) -> None:
        """What is booked leaves, where its permit has not run out meanwhile."""
        each = self.members[member]
        for slot in each.booked:
            if self.now > slot.leave_by:
                each.permits.unsent(slot=slot)
            elif late:
                each.under_way.append((self.now, slot))
            else:
                self.served.append(self.now)
                each.permits.answered(self.now, slot)
        each.booked = []

    def answer(self, member: int) -> None:
        each = self.members[member]
        if each.under_way:
            _, slot = each.under_way.pop(0)
            self.served.append(self.now)
            each.permits.answered(self.now, slot)

    def crash(self, member: int) -> None:
        self.served += [sent + TIMEOUT + UNANSWERED - 0.001 for sent, _ in self.members[member].under_way]
        self.members[member] = self._born()

    def never_over_quota(self) -> None:
        times = sorted(self.served)
        for limit, seconds in LIMITS:
            for first, last in zip(times, times[limit:], strict=False):
                assert last - first >= seconds, f"more than {limit} calls within {seconds:g} s"


@settings(max_examples=examples(60), deadline=None)
@given(st.integers(0, 2**32))
def test_no_window_on_the_server_is_ever_exceeded(seed: int) -> None:
    """Whatever happens, and though all members make every call that they may; Redis may be emptied or start anew."""
    dice = Random(seed)
    fleet = Fleet(reserve=dice.choice([0.0, 0.3]))
    slow, disasters = dice.random() < 0.5, dice.random() < 0.3
    for _ in range(300):
        what = dice.random()
        member = dice.randrange(3)
        if what < 0.2:
            fleet.wait(dice.choice([0.1, 0.9, 2.0, 5.0, 9.9, 31.0]))
        elif what < 0.5:
            for _ in range(dice.randrange(1, 6)):
                fleet.book(member, dice.random() < 0.8)
            how = dice.choice(["ok"] * 8 + ["lost before", "lost after"])
            fleet.ask(member, how, dice.choice([0.0, 0.1, 3.0, 12.0]) if slow else 0.0)
        elif what < 0.8:
            while fleet.book(member, urgent=True):
                pass
            fleet.leave(member, late=dice.random() < 0.5)
        elif what < 0.92:
            fleet.answer(member)
        elif what < 0.96:
            fleet.crash(member)
        elif what < 0.98 and disasters:
            fleet.ledger.restarted()
        elif what > 0.995 and disasters:
            fleet.ledger.emptied()
    fleet.never_over_quota()


@settings(max_examples=examples(3), deadline=None)
@given(st.integers(0, 2**32))
def test_undisturbed_members_use_the_whole_limit_and_ask_no_more_than_it_takes(seed: int) -> None:
    """All calls of every window, whoever makes them; and after a denial nobody asks before it is worth it."""
    dice, fleet = Random(seed), Fleet()
    begun = fleet.now
    for member in range(3):
        fleet.ask(member, "ok")
    fleet.ledger.asked = asked = 0
    while fleet.now < begun + 120.0:
        for member in dice.sample(range(3), 3):
            permits = fleet.members[member].permits
            while fleet.book(member, urgent=True):
                fleet.leave(member, late=False)
            if permits.take_untold() or permits.next_deadline() <= fleet.now:
                fleet.ask(member, "ok")
                asked += 1
        fleet.wait(0.1)
    fleet.never_over_quota()
    assert len(fleet.served) == 24
    assert asked < 200
