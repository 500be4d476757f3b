"""Keeps the quota's shares with the partitions: who owns what, what commits tell of it, what they permit.

See core/shares.py for the theory. Here partitions come and go, topics grow, and commits are asked for when calls wait
for one that permits them. Everything runs on the event loop.

What may still go wrong: while a topic grows, an instance that has not heard of it yet holds on to its larger share (it
looks every LOOK_SECONDS of the engine, the source asks the brokers that often too), so for some twenty seconds all
together own more than the limit, by what the new partitions own. And where a topic is deleted, its offsets go with it:
if its owner dies before it has committed again, nobody knows what that had used.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import structlog

from bridge.core.progress import decode, ours
from bridge.core.shares import Before, Books, Shares, Told, read
from bridge.model import Assigned, TopicPartition
from bridge.ports import Clock
from bridge.runtime.clock import MeisaClock

log = structlog.get_logger(__name__)


class Spend:
    """See the module's text. `counts` tells how many partitions each topic has (ports.Source)."""

    def __init__(
        self,
        quotas: Mapping[str, Shares],
        limits: Sequence[tuple[int, float]],
        *,
        clock: Clock,
        meisa_clock: MeisaClock,
        counts: Callable[[], Mapping[str, int]],
        timeout_seconds: float = 10.0,
    ) -> None:
        """`limits` are those of a key, of the group as a whole; `timeout_seconds` is the longest that a call takes."""
        self._quotas = quotas
        self._limits = list(limits)
        self._clock = clock
        self._meisa_clock = meisa_clock
        self._ask_counts = counts
        self._counts: dict[str, int] = {}
        unanswered = max((quota.unanswered_seconds for quota in quotas.values()), default=0.0)
        self._unanswered_seconds = timeout_seconds + unanswered
        """What a former owner sent right before it died may reach the server so much later."""
        self._longest_seconds = max((seconds for _, seconds in limits), default=0.0)
        self._books: dict[TopicPartition, Books] = {}
        self._former: dict[TopicPartition, tuple[Books, float]] = {}
        """What went, and when, for as long as it may count: if its topic is created anew nothing else tells of it. At
        most the group's partitions."""
        self._closing: dict[TopicPartition, Books] = {}
        self._credited = False
        self.wake: Callable[[], None] = lambda: None
        """Hears that there may be room for calls now."""
        self.short = False
        """Calls wait for a commit that permits them."""

    # Partitions

    def assigned(self, partitions: Iterable[Assigned]) -> None:
        """Takes over the share of these partitions, less what former owners used of it."""
        now = self._clock.now()
        self._counts = dict(self._ask_counts())
        for new in partitions:
            name = new.partition
            books = Books(self._limits, self._quotas, now)
            books.resize(*self._place(name))
            told = self._told(new)
            former = self._former.pop(name, None)
            if told is Before.NOBODY and former is not None:
                books.inherit(former[0], now, self._unanswered_seconds)
            else:
                books.restore(told, now, self._unanswered_seconds)
            self._books[name] = books
        self._credited = False
        self.refresh(force=True)

    def _told(self, new: Assigned) -> Told | Before:
        committed, metadata = new.former or (new.offset if new.committed is None else new.committed, new.metadata)
        where = {"partition": str(new.partition), "offset": committed}
        if committed is None or (new.fresh and new.committed is None and new.former is None):
            return Before.NOBODY
        progress = decode(committed, metadata)
        if progress is not None and progress.spend is not None:
            told = read(progress.spend, len(self._limits))
            if told is not None:
                return told
        elif not ours(metadata):
            log.warning(
                "nothing tells what was used of this partition's share of the quota (another tool has set its offset?):"
                " it counts as if the limits had been used evenly until now",
                **where,
            )
            return Before.UNKNOWN
        elif progress is not None:
            return Before.UNKNOWN  # of an older version
        log.error(
            "what was used of this partition's share of the quota cannot be read (damaged, or of a newer version): it "
            "counts as used up now, so that its calls wait",
            seconds=round(self._longest_seconds),
            **where,
        )
        return Before.UNREADABLE

    def _place(self, name: TopicPartition) -> tuple[int, int]:
        """The partition's index among all of the group's, and how many these are; it owns nothing while that is not
        known."""
        counts = self._counts
        if name.partition >= counts.get(name.topic, 0):
            return 0, 0
        return sum(counts[topic] for topic in counts if topic < name.topic) + name.partition, sum(counts.values())

    def closing(self, partitions: Iterable[TopicPartition]) -> None:
        """Nothing more is charged to these; calls that are under way may still end."""
        for name in partitions:
            books = self._books.pop(name, None)
            if books is not None:
                books.close()
                self._closing[name] = books
        self.refresh(force=True)

    def gone(self, partitions: Sequence[TopicPartition]) -> None:
        """These are no longer ours."""
        self.closing(partitions)
        now = self._clock.now()
        for name in partitions:
            if name in self._closing:
                self._former[name] = (self._closing.pop(name), now)
        kept = self._longest_seconds + self._unanswered_seconds
        self._former = {name: each for name, each in self._former.items() if now - each[1] < kept}

    def refresh(self, *, force: bool = False) -> None:
        """Now and then: topics may have grown, and Meisa's time may be known now."""
        counts = dict(self._ask_counts())
        if counts != self._counts:
            log.info("the group's topics have other partitions now; the shares of the quota follow", partitions=counts)
            self._counts = counts
            for name, books in self._books.items():
                books.resize(*self._place(name))
            force = True
        if self._credit() or force:
            now = self._clock.now()
            for key, quota in self._quotas.items():
                quota.rebuild(now, self._books, key)
            self.wake()

    def _credit(self) -> bool:
        if self._credited or not self._meisa_clock.known:
            return False
        self._credited = True
        now, wall = self._clock.now(), self._meisa_clock.wall()
        return any([books.credit(now, wall) for books in self._books.values()])

    # Commits

    def plan(self, tellable: Callable[[TopicPartition], bool]) -> set[TopicPartition]:
        """Decides what the next commits permit; the partitions that need one. `tellable`: has an offset to commit."""
        if self._credit():
            self.refresh(force=True)
        for name, books in self._books.items():
            books.tellable = tellable(name)
        now = self._clock.now()
        due: set[TopicPartition] = set()
        for quota in self._quotas.values():
            due |= quota.plan(now)
        return due

    def tell(self, name: TopicPartition) -> bytes | None:
        """What a commit of this partition made now tells."""
        books = self._books.get(name) or self._closing.get(name)
        if books is None:
            return None
        return books.tell(self._clock.now(), int(self._meisa_clock.wall()) if self._meisa_clock.known else 0)

    def asked(self, name: TopicPartition, metadata: str) -> None:
        """The commit with what `tell` gave last is under way."""
        books = self._books.get(name) or self._closing.get(name)
        if books is not None:
            books.asked(metadata)

    def settled(self, name: TopicPartition, metadata: str, *, acknowledged: bool) -> None:
        books = self._books.get(name) or self._closing.get(name)
        if books is not None:
            books.settled(metadata, acknowledged=acknowledged)
