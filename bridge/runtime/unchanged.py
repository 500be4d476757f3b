"""State that Meisa has already is not sent: what calls teach of contacts, and which upserts need not be made.

core/known.py decides what may be believed. Here its facts come from calls: every call that may change a contact makes
it unknown as it leaves, and an upsert's answer makes it known again. An upsert is spared only where all that it sets is
known to be so, and where each record that it comes from is of a topic that is `keyed_by: contact`: only then whoever
else writes this contact's state goes through this process too.

A replayed upsert is always sent: somebody asked for it. So are kept values of lazy fields (runtime/lazy.py).

With a store that outlives the process and is at hand (SQLite), what was learned is kept there, and the next assignment
of the partition, here or by another process with the same store, goes on with it where none was in between:
    commits tell       an assignment id that no other assignment tells (core/progress.py)
    the store tells    for each partition the last commits that were handed to Kafka, written before they were handed
    believed           only where what Kafka has committed, offset and text, is one of these
What needs the whole group (all partitions of all topics are ours) is believed where that holds of each partition, and
all were then those of one time in which this was so.
So a commit of anybody else, a reset by a tool, and a store that lost its tail (a power failure) or is of another
machine all show. What remains is what a crash left undone: a call that was carried out, and whose answer was never
stored. Its record is read again, and lies below the offset that its partition had told as `seen` before the call left
(delivery.md, 22): whoever reads it again first forgets its contact, and learns nothing of it while that call may still
come. A call without an answer may also be of a record that has finished since, by a further call, and is not read
again: so for as long after a partition has come from a former owner no call teaches anything. Calls of no record in the
log's window (a replay, kept values) are not read again: before they leave, the store has forgotten their contact.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Any

from bridge.core.known import DOUBT_SECONDS, Departure, Known, name_of, names_in
from bridge.core.progress import ASSIGNMENT_BYTES, Progress
from bridge.errors import StoreFailed
from bridge.model import Assigned, Call, Contact, Kind, Outcome, Position, TopicPartition, Verdict, email_key
from bridge.ports import Clock, Store
from bridge.runtime.items import Item, Part

UNCHANGED = Outcome(
    Verdict.SPARED, message="Meisa has all of it already, by its own answer; no call was made", detail="unchanged"
)

UNLASTING = Outcome(
    Verdict.RETRY, message="the state store cannot be written; the call waits for it", detail="never_sent"
)

PREFIX = "o:"
"""Of the registers that tell of partitions' commits."""
HANDED_MAX = 4
"""Commits remembered of a partition: one under way, one acknowledged, and those of a revocation."""
DIGEST_BYTES = 8
WHOLE = f"{PREFIX}*"
"""The register of the last time in which we were the whole group: a digest of the assignments, and its id."""

WRITE_CALLS = frozenset({"upsert", "add_tag", "remove_tag"})


class Unchanged:
    """`topics` are those keyed by contact; without any, nothing is remembered."""

    def __init__(
        self,
        *,
        clock: Clock,
        topics: Collection[str] = (),
        believed_seconds: float = 86_400.0,
        others: Callable[[str], bool] = lambda path: False,
        rekeyers: Collection[str] = (),
        counts: Callable[[], Mapping[str, int]] = dict,
        store: Store | None = None,
        rules: bytes = b"",
        new_id: Callable[[], bytes] = lambda: secrets.token_bytes(ASSIGNMENT_BYTES),
    ) -> None:
        """`others(path)`: whether several topics may write the path; `rekeyers` are the topics that may re-key.

        `counts` tells how many partitions each topic has that the group reads (ports.Source). `rules` stands for all
        that `others` and `rekeyers` say: where that changed, nothing stored is believed.
        """
        self._store = store if store is not None and store.lasting and store.local and topics else None
        self._rules = rules
        self._new_id = new_id
        self._assignments: dict[TopicPartition, bytes] = {}
        """The ids of those of which the store tells."""
        self._before: dict[TopicPartition, bytes] = {}
        """The ids of the assignments before, where there was none in between."""
        self._handed: dict[TopicPartition, list[bytes]] = {}
        """Digests of each one's last commits that were handed over."""
        self._clock = clock
        self._topics = frozenset(topics)
        self._rekeyers = frozenset(rekeyers)
        self._counts = counts
        self._partitions: set[TopicPartition] = set()
        self._learns_from = 0.0
        """From when on (monotonic) no call of any partition's former owner can come any more."""
        self._others = others
        self.known = Known(believed_seconds, others=lambda path: self._others(path), store=self._store)

    def rules_changed(self, others: Callable[[str], bool], rekeyers: Collection[str], rules: bytes) -> None:
        """Others may write other fields from now on; what they say has to hold for all that still leaves, too."""
        self._others, self._rekeyers, self._rules = others, frozenset(rekeyers), rules

    # Partitions

    def assigned(self, new: Assigned, progress: Progress | None) -> None:
        """A partition is ours; `progress` is what a former owner told beside its commit, as far as it can be read."""
        partition, mine, before = new.partition, b"", b""
        if self._store is not None:
            mine = self._assignments[partition] = self._new_id()
            self._handed[partition] = []
            if progress is not None and progress.assignment is not None and self._told_of(new):
                before = self._before[partition] = progress.assignment
        self._partitions.add(partition)
        committed = new.offset if new.committed is None and not new.fresh else new.committed
        if committed or new.metadata or new.former is not None:  # without a commit nobody has made an upsert
            self._learns_from = self._clock.now() + DOUBT_SECONDS
        self.known.assigned(partition, mine, before)
        self.known.not_whole()  # somebody else had it

    def _told_of(self, new: Assigned) -> bool:
        """Whether what Kafka has committed is what was handed over last by whoever wrote what is stored."""
        committed = new.offset if new.committed is None else new.committed
        if new.fresh or committed is None:
            return False
        handed = self._stored(f"{PREFIX}{new.partition}")
        digests = [handed[place : place + DIGEST_BYTES] for place in range(0, len(handed), DIGEST_BYTES)]
        return self._digest(committed, new.metadata) in digests

    def _stored(self, name: str) -> bytes:
        try:
            return (self._store.get(name) if self._store is not None else None) or b""
        except StoreFailed:
            return b""

    def gone(self, partition: TopicPartition) -> None:
        self._partitions.discard(partition)
        self._assignments.pop(partition, None)
        self._handed.pop(partition, None)
        self._before.pop(partition, None)
        self.known.gone(partition)
        self.known.not_whole()

    def _look_whether_whole(self) -> None:
        """All partitions of all topics may be ours by now, or a topic may have more of them."""
        counts = self._counts()
        if not counts or len(self._partitions) != sum(counts.values()):
            self.known.not_whole()
        elif self.known.is_whole:
            return
        elif self._store is None:
            self.known.whole()
        else:
            stored, mine = self._stored(WHOLE), self._new_id()
            of, before = stored[:-ASSIGNMENT_BYTES], stored[-ASSIGNMENT_BYTES:]
            self.known.whole(mine, before if of and of == _all_of(self._before, self._partitions) else b"")
            self._store.put(WHOLE, _all_of(self._assignments, self._partitions) + mine)

    # Commits

    def assignment(self, partition: TopicPartition) -> bytes | None:
        """What commits of the partition tell of who makes them; None where nobody asks."""
        return self._assignments.get(partition)

    def handed(self, positions: Iterable[Position]) -> None:
        """These are handed to Kafka as soon as the store has written what it was told until now."""
        for position in positions:
            handed = self._handed.get(position.partition)
            if handed is not None and self._store is not None:
                handed.append(self._digest(position.offset, position.metadata))
                del handed[:-HANDED_MAX]
                self._store.put(f"{PREFIX}{position.partition}", b"".join(handed))

    def _digest(self, offset: int, metadata: str) -> bytes:
        text = f"{offset} {metadata}".encode("utf-8", "surrogatepass")
        return blake2b(text, digest_size=DIGEST_BYTES, key=self._rules).digest()

    def entered(self, part: Part) -> None:
        """An action is read, perhaps again: if a call of it may have been made, nothing counts that is stored of its
        contact, and that call may still come."""
        if not self._topics or part.batch.beside:
            return
        marks, action = part.batch.marks, part.action
        started = action.kind is Kind.TRIGGER and marks.started_wall(part.record, action) is not None
        if started or marks.repeats(part.record):
            self.known.forget([*_named(action.contact), *names_in(action.body)], self._clock.now(), doubt=True)

    async def lasts(self, item: Item) -> bool:
        """Whether a call that departs may leave: the store has forgotten its contact, or its record is read again."""
        if self._store is None or not any(part.batch.beside for part in item.pending.group):
            return True
        try:
            await self._store.flush()
        except StoreFailed:
            return False
        return True

    # Asking

    def spares(self, item: Item) -> bool:
        """Whether the item's next call is an upsert that would change nothing."""
        if not self._topics or item.kind is not Kind.UPSERT or not len(item.pending):
            return False
        return self.differing(item) == frozenset()

    def differing(self, item: Item) -> frozenset[str] | None:
        """In which paths the item's upsert differs from what Meisa is known to hold; None where nothing is known."""
        parts = item.pending.group
        topics = {part.record.topic for part in parts}
        if not topics <= self._topics or any(part.batch.beside for part in parts):
            return None
        others_write = bool(self._rekeyers) and (len(topics) > 1 or not self._rekeyers <= topics)
        # Records without a key go to any partition.
        others_write = others_write or any(part.record.key is None for part in parts)
        # Where the email is the record's key, records of the contact under another email are in another partition.
        rekeys_elsewhere = any(_is_in(part.action.contact.email, part.record.key) for part in parts)
        if others_write or rekeys_elsewhere:
            self._look_whether_whole()
        return self.known.differing(
            item.pending.body(),
            {part.partition for part in parts},
            self._clock.wall(),
            others_write=others_write,
            rekeys_elsewhere=rekeys_elsewhere,
        )

    # Calls

    def departs(self, item: Item, call: Call) -> Departure | None:
        """The item's call leaves. None where it cannot change a contact."""
        if not self._topics:
            return None
        self._look_whether_whole()
        recipient = call.body.get("recipient") if call.endpoint == "trigger" and call.body else None
        if call.endpoint not in WRITE_CALLS and not recipient:
            return None
        return self.known.departs(_names(item, call, recipient), self._clock.now())

    def ended(self, item: Item, call: Call, departure: Departure | None, outcome: Outcome, sent_wall: float) -> None:
        """The call has ended so; it had left at `sent_wall`."""
        if departure is None:
            if self._topics and outcome.status == 404:  # Meisa does not know whom we know
                self.known.forget(_names(item, call, None), self._clock.now())
            return
        known = self.known
        known.ended(departure)
        answer = outcome.data if isinstance(outcome.data, Mapping) and outcome.verdict is Verdict.DELIVERED else {}
        if answer and call.endpoint == "upsert" and item.kind is Kind.UPSERT:
            if departure.now < self._learns_from:
                known.forget((*departure.names, *names_in(answer)), self._clock.now())
                return
            partition = item.part.partition if len(item.pending) else None
            known.learn(departure, call.body or {}, answer, sent_wall, partition)
            return
        doubt = outcome.verdict is Verdict.UNKNOWN or (outcome.verdict is Verdict.RETRY and outcome.sent)
        known.forget((*departure.names, *names_in(answer)), self._clock.now(), doubt=doubt)


def _names(item: Item, call: Call, recipient: Any) -> Iterator[bytes]:
    """By which names the contact of a call may be known."""
    for contact in {part.action.contact: None for part in item.pending.group}:
        yield from _named(contact)
    yield from names_in(call.body or {})
    if call.contact_id is not None:
        yield name_of(f"i:{call.contact_id}")
    if isinstance(recipient, Mapping):
        yield from names_in({field: recipient.get(field) for field in ("email", "external_id")})


def _all_of(ids: Mapping[TopicPartition, bytes], partitions: Collection[TopicPartition]) -> bytes:
    """A digest of the assignments of all these; empty where some are not known."""
    if not all(partition in ids for partition in partitions):
        return b""
    told = b"".join(f"{partition} ".encode() + ids[partition] for partition in sorted(partitions))
    return blake2b(told, digest_size=DIGEST_BYTES).digest()


def _named(contact: Contact) -> Iterator[bytes]:
    return (name_of(key) for key in contact.ordering_keys() if not key.startswith("a:"))


def _is_in(email: str | None, key: bytes | None) -> bool:
    return email is not None and key is not None and email_key(email) in email_key(key.decode("utf-8", "replace"))
