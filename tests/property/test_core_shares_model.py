"""Shares of the quota against a server that counts: owners that exchange partitions, crash, and lose commits."""

from dataclasses import dataclass, field
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.core.quota import Slot
from bridge.core.shares import Before, Books, Shares, read
from bridge.model import TopicPartition
from tests.support.amount import examples

LIMITS = [(5, 10.0), (12, 60.0)]
TIMEOUT, UNANSWERED = 2.0, 6.0
PARTITIONS = [TopicPartition("t", number) for number in range(3)]


@dataclass
class Owner:
    shares: Shares
    books: dict[TopicPartition, Books] = field(default_factory=dict)
    under_way: list[tuple[float, Slot]] = field(default_factory=list)


class Fleet:
    """The server counts a call when it leaves, when it is answered, or as late as an unanswered one may come."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.members = [self._born() for _ in range(2)]
        self.applied: dict[TopicPartition, str | None] = dict.fromkeys(PARTITIONS)
        self.texts: dict[str, bytes] = {}
        self.served: list[float] = []
        for name in PARTITIONS:
            self._give(name, self.members[0])

    @staticmethod
    def _born() -> Owner:
        return Owner(Shares(LIMITS, unanswered_seconds=UNANSWERED))

    def _rebuild(self, owner: Owner) -> None:
        owner.shares.rebuild(self.now, owner.books, "default")

    def _give(self, name: TopicPartition, owner: Owner) -> None:
        books = Books(LIMITS, ["default"], self.now)
        books.resize(name.partition, len(PARTITIONS))
        text = self.applied[name]
        told = Before.NOBODY if text is None else read(self.texts[text], len(LIMITS))
        assert told is not None
        books.restore(told, self.now, TIMEOUT + UNANSWERED)
        owner.books[name] = books
        self._rebuild(owner)

    def _tell(self, name: TopicPartition, books: Books) -> str:
        text = f"{len(self.texts)}"
        self.texts[text] = books.tell(self.now, 0)
        books.asked(text)
        return text

    def wait(self, seconds: float) -> None:
        self.now += seconds
        for owner in self.members:
            for sent, slot in [each for each in owner.under_way if each[0] + TIMEOUT <= self.now]:
                owner.under_way.remove((sent, slot))
                owner.shares.unanswered(sent + TIMEOUT, slot)
                self.served.append(sent + TIMEOUT + UNANSWERED - 0.001)

    def call(self, member: int, count: int, late: bool) -> None:
        owner = self.members[member]
        for _ in range(count):
            if owner.shares.acquire(self.now, urgent=True):
                if late:
                    owner.under_way.append((self.now, owner.shares.slot))
                else:
                    self.served.append(self.now)
                    owner.shares.answered(self.now, owner.shares.slot)

    def answer(self, member: int, sent: bool) -> None:
        owner = self.members[member]
        if owner.under_way:
            _, slot = owner.under_way.pop(0)
            if sent:
                self.served.append(self.now)
                owner.shares.answered(self.now, slot)
            else:
                owner.shares.unsent(urgent=True, slot=slot)

    def commit(self, member: int, how: str) -> None:
        owner = self.members[member]
        owner.shares.plan(self.now)
        for name, books in owner.books.items():
            text = self._tell(name, books)
            if how != "refused":
                self.applied[name] = text
            books.settled(text, acknowledged=how == "ok")

    def hand_over(self, name: TopicPartition, told: bool) -> None:
        """In order, or lost without a last commit."""
        one, two = self.members if name in self.members[0].books else self.members[::-1]
        books = one.books.pop(name)
        books.close()
        self._rebuild(one)
        # What was booked and has not left may not leave any more: all else is on its way for `TIMEOUT` at most.
        if told:
            self.applied[name] = self._tell(name, books)
        self._give(name, two)

    def crash(self, member: int, stays: bool) -> None:
        owner = self.members[member]
        self.served += [self.now + TIMEOUT + UNANSWERED - 0.001 for _ in owner.under_way]
        self.members[member] = heir = self._born()
        for name in owner.books:
            self._give(name, heir if stays else self.members[1 - member])

    def never_over_quota(self) -> None:
        times = sorted(self.served)
        for limit, seconds in LIMITS:
            for first, last in zip(times, times[limit:], strict=False):
                assert last - first >= seconds, f"more than {limit} calls within {seconds:g} s"


@settings(max_examples=examples(30), deadline=None)
@given(st.integers(0, 2**32))
def test_no_window_on_the_server_is_ever_exceeded(seed: int) -> None:
    """Whatever happens, and though both owners make every call that they may."""
    dice, fleet = Random(seed), Fleet()
    for _ in range(250):
        what = dice.random()
        member = dice.randrange(2)
        if what < 0.35:
            fleet.wait(dice.choice([0.1, 0.9, 2.0, 5.0, 9.9, 10.0, 31.0]))
        elif what < 0.7:
            fleet.commit(member, dice.choice(["ok", "ok", "ok", "ok", "refused", "applied"]))
            fleet.call(member, dice.randrange(1, 8), late=dice.random() < 0.5)
        elif what < 0.8:
            fleet.answer(member, sent=dice.random() < 0.7)
        elif what < 0.9:
            fleet.hand_over(dice.choice(PARTITIONS), told=dice.random() < 0.7)
        else:
            fleet.crash(member, stays=dice.random() < 0.7)
    fleet.never_over_quota()


@settings(max_examples=examples(5, everyday=2), deadline=None)
@given(st.integers(0, 2**32))
def test_undisturbed_owners_use_the_whole_limit(seed: int) -> None:
    """With commits that are acknowledged, and answers that come at once: all calls of every hour and minute."""
    dice, fleet = Random(seed), Fleet()
    if dice.random() < 0.5:
        fleet.hand_over(PARTITIONS[1], told=True)
    begun = fleet.now
    while fleet.now < begun + 180.0:
        for member in (0, 1):
            for _ in range(6):
                fleet.commit(member, "ok")
                fleet.call(member, 2, late=False)
        fleet.wait(0.5)
    fleet.never_over_quota()
    assert sum(1 for at in fleet.served) == 36
