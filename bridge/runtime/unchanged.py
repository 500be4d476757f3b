"""State that Meisa has already is not sent: what calls teach of contacts, and which upserts need not be made.

core/known.py decides what may be believed. Here its facts come from calls: every call that may change a contact makes
it unknown as it leaves, and an upsert's answer makes it known again. An upsert is spared only where all that it sets is
known to be so, and where each record that it comes from is of a topic that is `keyed_by: contact`: only then whoever
else writes this contact's state goes through this process too.

A replayed upsert is always sent: somebody asked for it. So are kept values of lazy fields (runtime/lazy.py).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from bridge.core.known import Departure, Known, name_of, names_in
from bridge.model import Call, Kind, Outcome, TopicPartition, Verdict, email_key
from bridge.ports import Clock
from bridge.runtime.items import Item

UNCHANGED = Outcome(
    Verdict.SPARED, message="Meisa has all of it already, by its own answer; no call was made", detail="unchanged"
)

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
    ) -> None:
        """`others(path)`: whether several topics may write the path; `rekeyers` are the topics that may re-key.

        `counts` tells how many partitions each topic has that the group reads (ports.Source).
        """
        self._clock = clock
        self._topics = frozenset(topics)
        self._rekeyers = frozenset(rekeyers)
        self._counts = counts
        self._partitions: set[TopicPartition] = set()
        self.known = Known(believed_seconds, others=others)

    # Partitions

    def assigned(self, partition: TopicPartition) -> None:
        self._partitions.add(partition)
        self.known.assigned(partition)
        self.known.whole(False)  # somebody else had it

    def gone(self, partition: TopicPartition) -> None:
        self._partitions.discard(partition)
        self.known.gone(partition)
        self.known.whole(False)

    def _look_whether_whole(self) -> None:
        counts = self._counts()
        self.known.whole(bool(counts) and len(self._partitions) == sum(counts.values()))

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
        others_rekey = bool(self._rekeyers) and (len(topics) > 1 or not self._rekeyers <= topics)
        # Where the email is the record's key, records of the contact under another email are in another partition.
        rekeys_elsewhere = any(_is_in(part.action.contact.email, part.record.key) for part in parts)
        if others_rekey or rekeys_elsewhere:
            self._look_whether_whole()
        return self.known.differing(
            item.pending.body(),
            {part.partition for part in parts},
            self._clock.wall(),
            others_rekey=others_rekey,
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
            known.learn(departure, call.body or {}, answer, sent_wall)
            return
        doubt = outcome.verdict is Verdict.UNKNOWN or (outcome.verdict is Verdict.RETRY and outcome.sent)
        known.forget((*departure.names, *names_in(answer)), self._clock.now(), doubt=doubt)


def _names(item: Item, call: Call, recipient: Any) -> Iterator[bytes]:
    """By which names the contact of a call may be known."""
    for contact in {part.action.contact: None for part in item.pending.group}:
        yield from (name_of(key) for key in contact.ordering_keys() if not key.startswith("a:"))
    yield from names_in(call.body or {})
    if call.contact_id is not None:
        yield name_of(f"i:{call.contact_id}")
    if isinstance(recipient, Mapping):
        yield from names_in({field: recipient.get(field) for field in ("email", "external_id")})


def _is_in(email: str | None, key: bytes | None) -> bool:
    return email is not None and key is not None and email_key(email) in email_key(key.decode("utf-8", "replace"))
