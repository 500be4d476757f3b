"""Shares of the quota: who owns what, what a commit tells of it, and what the next owner makes of that."""

import pytest

from bridge.core.progress import SPEND_BYTES
from bridge.core.quota import NEVER
from bridge.core.shares import CLOCK_SECONDS, KEYS, TOLD_BYTES, Before, Books, Cell, Shares, Told, read, share_of
from bridge.model import TopicPartition

LIMITS = [(60, 60.0), (1000, 3600.0)]
A, B = TopicPartition("t", 0), TopicPartition("t", 1)
UNANSWERED = 70.0
"""Timeout and the time after it for which a call may be under way."""


class Owner:
    """One instance: its books, its pool, and the broker's word for its commits."""

    def __init__(self, limits: list[tuple[int, float]] = LIMITS, *, of: int = 1, reserve: float = 0.0) -> None:
        self.limits = limits
        self.of = of
        self.shares = Shares(limits, reserve=reserve)
        self.books: dict[TopicPartition, Books] = {}
        self.told: dict[TopicPartition, bytes] = {}

    def take(self, name: TopicPartition, now: float, told: bytes | Before = Before.NOBODY) -> Books:
        books = Books(self.limits, ["default"], now)
        books.resize(name.partition, self.of)
        before = told if isinstance(told, Before) else read(told, len(self.limits))
        assert before is not None
        books.restore(before, now, UNANSWERED)
        self.books[name] = books
        self.shares.rebuild(now, self.books, "default")
        return books

    def commit(self, now: float, *, acknowledged: bool = True) -> None:
        self.shares.plan(now)
        for name, books in self.books.items():
            self.told[name] = books.tell(now, 0)
            books.asked(str(now))
            books.settled(str(now), acknowledged=acknowledged)

    def burst(self, now: float) -> int:
        """As many calls as may leave at once, each answered at once; commits follow as they are needed."""
        made = 0
        while True:
            if self.shares.acquire(now, urgent=True):
                self.shares.answered(now, self.shares.slot)
                made += 1
            elif self.shares.take_untold() and self.shares.plan(now):
                self.commit(now)
            else:
                return made

    def leave(self, name: TopicPartition, now: float) -> bytes:
        books = self.books.pop(name)
        books.close()
        self.shares.rebuild(now, self.books, "default")
        return books.tell(now, 0)


def test_shares_are_whole_numbers_and_their_sum_is_the_limit() -> None:
    """Of 60 calls 7 partitions own 9, 9, 9, 9, 8, 8, 8; of a partition whose place is not known nobody owns any."""
    assert [share_of(60, index, 7) for index in range(7)] == [9, 9, 9, 9, 8, 8, 8]
    assert all(
        sum(share_of(limit, i, n) for i in range(n)) == limit for limit in (1, 60, 1000) for n in (1, 7, 61, 900)
    )
    assert share_of(60, 0, 0) == share_of(60, 7, 7) == 0


def test_a_call_leaves_only_on_what_an_acknowledged_commit_told() -> None:
    """Before the first commit none; after a refused one none; after an acknowledged one what it told ahead."""
    owner = Owner()
    owner.take(A, 0.0)
    assert not owner.shares.acquire(0.0, urgent=True)
    assert owner.shares.earliest(0.0, urgent=True) == NEVER
    assert owner.shares.take_untold()
    assert not owner.shares.take_untold()
    owner.commit(0.0, acknowledged=False)
    assert not owner.shares.acquire(0.0, urgent=True)
    owner.commit(0.0)
    assert sum(owner.shares.acquire(0.0, urgent=True) for _ in range(60)) == 3


def test_a_commit_under_way_that_takes_back_permits_no_more_than_it_says() -> None:
    """The broker may have applied it already, whatever becomes of its answer."""
    owner = Owner()
    books = owner.take(A, 0.0)
    owner.commit(0.0)
    books.close()
    books.tell(0.0, 0)
    books.asked("exact")
    assert not owner.shares.acquire(0.0, urgent=True)
    books.settled("another", acknowledged=True)
    assert not owner.shares.acquire(0.0, urgent=True)
    books.settled("exact", acknowledged=False)
    assert not owner.shares.acquire(0.0, urgent=True)
    books.asked("first")
    books.asked("second")  # nobody will tell what became of the first
    assert not owner.shares.acquire(0.0, urgent=True)


def test_who_owns_everything_reaches_the_limit_of_both_windows() -> None:
    """60 at once, and 1,000 in the hour, whatever is told ahead; also with more partitions than calls of a minute."""
    for partitions in (1, 12, 70):
        owner = Owner(of=partitions)
        for number in range(partitions):
            owner.take(TopicPartition("t", number), 0.0)
        assert owner.burst(0.0) == 60
        assert 60 + sum(owner.burst(60.0 * minute) for minute in range(1, 60)) == 1000


def test_two_owners_have_the_limit_together_and_a_partition_takes_its_share_along() -> None:
    """30 each; with B's partition, unused, A's owner has 30 more; and what is used comes along, too."""
    one, two = Owner(of=2), Owner(of=2)
    one.take(A, 0.0)
    two.take(B, 0.0)
    assert one.burst(0.0) == 30
    one.take(B, 1.0, two.leave(B, 1.0))
    assert one.burst(1.0) == 30
    two.take(A, 2.0, one.leave(A, 2.0))
    assert two.burst(2.0) == 0
    assert two.burst(65.0) == 30


def test_a_planned_stop_tells_the_spend_as_it_is_and_a_crash_what_was_permitted() -> None:
    """57 calls: after a stop 3 are left; after a crash the ones that were told ahead count as made until 70 s later."""
    owner = Owner()
    owner.take(A, 0.0)
    owner.commit(0.0)
    for _ in range(19):
        for _ in range(3):
            assert owner.shares.acquire(0.0, urgent=True)
            owner.shares.answered(0.0, owner.shares.slot)
        owner.commit(0.0)
    crashed, stopped = Owner(), Owner()
    crashed.take(A, 0.0, owner.told[A])
    assert crashed.burst(0.0) == 0
    assert crashed.burst(59.9) == 0
    assert crashed.burst(65.1) == 57
    assert crashed.burst(131.0) == 60
    stopped.take(A, 0.0, owner.leave(A, 0.0))
    assert stopped.burst(0.0) == 3


def test_ages_never_shrink_by_changing_hands_often() -> None:
    """A call of minute 7 counts as ended at its bucket's end, in minute 10, once: after a hundred owners, each of whom
    has made a call too, it leaves the window no later than that, and a second for each of them."""
    owner = Owner([(60, 60.0), (1000, 3600.0)])
    owner.take(A, 0.0)
    now = 420.0
    for _ in range(100):
        owner.commit(now)
        assert owner.shares.acquire(now, urgent=True)
        owner.shares.answered(now, owner.shares.slot)
        now += 20.0
        told = owner.leave(A, now)
        owner = Owner()
        owner.take(A, now, told)
    (hour,) = [cells[1] for cells in owner.books[A].cells.values()]
    assert hour.used(now) == 100
    assert hour.used(420.0 + 3600.0) == 100, "never earlier than an hour after it ended"
    assert hour.used(600.0 + 3600.0 + 100.0) <= 91, "the nine calls of its bucket have left"


def test_the_time_between_is_credited_once_meisas_clock_is_known() -> None:
    """Stopped for two hours with everything used: without Meisa's time all of it counts; with it nothing."""
    owner = Owner()
    books = owner.take(A, 0.0)
    assert owner.burst(0.0) == 60
    told = books.tell(0.0, 1_000_000)
    late = Owner()
    late_books = late.take(A, 50.0, told)
    assert not late_books.credit(50.0, 1_000_000 + CLOCK_SECONDS), "within the clocks' error there is nothing to credit"
    late_books = late.take(A, 50.0, told)
    assert late.burst(50.0) == 0
    assert late_books.credit(51.0, 1_000_000 + 7_200.0)
    assert not late_books.credit(51.0, 1_000_000 + 9_999.0), "once"
    late.shares.rebuild(51.0, late.books, "default")
    assert late.burst(51.0) == 57, "what was told ahead counts on: nobody knows when it was used"


def test_what_cannot_be_read_counts_as_used_up() -> None:
    """Damaged: nothing for a minute and the time of an unanswered call, and as long for the hour."""
    owner = Owner()
    owner.take(A, 0.0, Before.UNREADABLE)
    assert owner.burst(0.0) == 0
    assert owner.burst(3_600.0 + UNANSWERED - 0.1) == 0
    assert owner.burst(3_600.0 + UNANSWERED) == 60


def test_an_offset_without_text_counts_as_if_the_limits_had_been_used_evenly() -> None:
    """So work goes on at once, at the pace of the hour: about 16 calls in the first minute."""
    owner = Owner()
    owner.take(A, 0.0, Before.UNKNOWN)
    assert owner.burst(0.0) == 0
    assert sum(owner.burst(float(second)) for second in range(1, 61)) in (16, 17)


def test_what_one_partition_has_too_much_of_does_not_stop_the_others() -> None:
    """A's spend cannot be read; B has its own share all the same."""
    owner = Owner(of=2)
    owner.take(A, 0.0, Before.UNREADABLE)
    owner.take(B, 0.0)
    assert owner.burst(0.0) == 30


def test_a_cell_counts_no_more_than_its_share_and_the_youngest_first() -> None:
    """What others left too much of it is not taken from the cells beside it."""
    cell = Cell(10, 60.0)
    cell.share = 2
    for at in (1.0, 2.0, 3.0):
        cell.remember(at, 1)
    assert list(cell.counting()) == [(3.0, 1), (2.0, 1)]


def test_a_topic_that_grows_shrinks_the_shares() -> None:
    """Of a second partition half is somebody else's at once, and what was used counts on."""
    owner = Owner()
    books = owner.take(A, 0.0)
    assert owner.burst(0.0) == 60
    books.resize(0, 2)
    owner.shares.rebuild(1.0, owner.books, "default")
    assert owner.burst(59.9) == 0
    assert owner.burst(60.0) == 30


def test_a_slot_of_a_partition_that_went_may_not_leave() -> None:
    """Another owner counts it as unused, or soon will."""
    owner = Owner(of=2)
    owner.take(A, 0.0)
    owner.commit(0.0)
    assert owner.shares.acquire(0.0)
    slot = owner.shares.slot
    assert owner.shares.leaves(slot)
    owner.leave(A, 0.0)
    assert not owner.shares.leaves(slot)
    owner.shares.unsent(slot=slot)
    owner.take(A, 1.0, owner.told[A])
    assert not owner.shares.leaves(slot), "the same partition, under another assignment"


def test_an_owner_of_no_call_says_so() -> None:
    """61 partitions share 60 calls: the last one owns none."""
    owner = Owner(of=61)
    owner.take(TopicPartition("t", 60), 0.0)
    owner.commit(0.0)
    assert owner.shares.none_owned
    assert owner.burst(0.0) == 0
    assert owner.shares.earliest(0.0) == NEVER
    owner.take(A, 0.0)
    assert not owner.shares.none_owned
    assert owner.burst(0.0) == 1


def test_without_an_offset_nothing_can_be_told_and_so_nothing_leaves() -> None:
    """The plan leaves such a partition out, so that others are asked for instead."""
    owner = Owner(of=2)
    owner.take(A, 0.0).tellable = False
    owner.take(B, 0.0)
    assert owner.shares.plan(0.0) == {B}
    assert owner.burst(0.0) == 30


def test_large_limits_are_told_too() -> None:
    """Ends are rounded up there, and what is told ahead grows with the limit."""
    owner = Owner([(100_000, 60.0)])
    owner.take(A, 0.0)
    owner.commit(0.0)
    assert sum(owner.shares.acquire(0.0) for _ in range(5_000)) == 2_000
    owner.shares.unanswered(1.0, owner.shares.slot)
    successor = Owner([(100_000, 60.0)])
    successor.take(A, 2.0, owner.leave(A, 2.0))
    assert successor.shares.snapshot(2.0)[0].used == 2_000
    assert Owner([(100_000, 60.0)]).take(A, 0.0, Before.UNKNOWN).cells["default"][0].used(0.0) == 100_000


def test_an_assignment_of_its_own_is_remembered_where_nothing_else_tells() -> None:
    """Its topic was created anew, and the offsets went with it."""
    owner = Owner()
    former = owner.take(A, 0.0)
    assert owner.burst(0.0) == 60
    anew = Books(LIMITS, ["default"], 1.0)
    anew.resize(0, 1)
    anew.inherit(former, 1.0, UNANSWERED)
    owner.books[A] = anew
    owner.shares.rebuild(1.0, owner.books, "default")
    assert owner.burst(59.0) == 0
    assert owner.burst(60.0) == 60


@pytest.mark.parametrize("keys", [1, 2, 4, 7])
def test_the_text_always_fits_whatever_was_used(keys: int) -> None:
    """The more keys, the coarser; never more than what progress keeps for it, heads and an assignment id included."""
    assert TOLD_BYTES + 3 + 12 <= SPEND_BYTES
    for limit in (60, 1_000, 100_000_000):
        books = Books([(limit, 60.0), (limit, 3600.0)], KEYS[:keys], 0.0)
        books.resize(0, 1)
        for cells in books.cells.values():
            for cell in cells:
                for number in range(60):
                    cell.remember(3630.0 - cell.seconds * number / 60, limit)
                cell.in_flight = limit
        told = books.tell(3630.0, 2**32 - 1)
        assert len(told) <= TOLD_BYTES
        found = read(told, 2)
        assert found is not None and set(found.keys) == set(KEYS[:keys])
        after = Books([(limit, 60.0), (limit, 3600.0)], KEYS[:keys], 3630.0)
        after.resize(0, 1)
        after.restore(found, 3630.0, UNANSWERED)
        assert all(cells[1].used(3630.0) >= limit for cells in after.cells.values()), "coarser never means less"


@pytest.mark.parametrize(
    "text",
    [b"", b"\x2c", b"\x1c\0\0\0\0\0\0", b"\x2b\0\0\0\0\0\0", b"\x2c\0\0\0\0\xff\xff\x7f\0", b"\x2c\0\0\0\0\0\0\x7f"],
)
def test_what_is_no_spend_is_none(text: bytes) -> None:
    """Cut, of another number of windows, of unknown buckets, with numbers that nobody wrote, of an unknown key."""
    assert read(text, 2) is None


def test_a_key_that_is_new_has_used_nothing_and_one_that_went_is_passed_over() -> None:
    """Keys are told by name."""
    books = Books(LIMITS, ["default", "trigger"], 0.0)
    books.resize(0, 1)
    for cells in books.cells.values():
        for cell in cells:
            cell.remember(0.0, 5)
    told = read(books.tell(1.0, 0), 2)
    assert isinstance(told, Told)
    after = Books(LIMITS, ["trigger", "track"], 1.0)
    after.restore(told, 1.0, UNANSWERED)
    assert [cells[1].used(1.0) for cells in after.cells.values()] == [5, 0]


def test_the_pace_follows_from_what_counts_whoever_used_it() -> None:
    """What is not urgent: a fresh owner begins with a few calls at once; one with a used share with a single one."""

    def burst(owner: Owner, now: float) -> int:
        made = 0
        while True:
            if owner.shares.acquire(now):
                owner.shares.answered(now, owner.shares.slot)
                made += 1
            elif owner.shares.take_untold() and owner.shares.plan(now):
                owner.commit(now)
            else:
                return made

    owner = Owner(reserve=0.1)
    owner.take(A, 0.0)
    few = burst(owner, 0.0)
    assert 2 <= few < 10
    assert owner.burst(0.0) == 60 - few
    after = Owner(reserve=0.1)
    after.take(A, 60.0, owner.leave(A, 60.0))
    assert burst(after, 60.0) == few, "of the minute nothing counts any more, and of the hour 60"
    busy = Owner([(60, 60.0), (100, 3600.0)], reserve=0.1)
    busy.take(A, 0.0)
    assert busy.burst(0.0) == 60
    heir = Owner([(60, 60.0), (100, 3600.0)], reserve=0.1)
    heir.take(A, 60.0, busy.leave(A, 60.0))
    assert burst(heir, 60.0) == 1
    assert burst(heir, 61.0) == 0, "30 are left for almost an hour"
    assert burst(heir, 60.0 + 3600.0 / 30) == 1
