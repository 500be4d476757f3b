"""What was not worth a call of its own: values of lazy fields, kept until a call of their contact takes them along.

The theory
    An upsert that changes nothing but lazy fields finishes at once. Its values are *kept*: the next call of the contact
    carries them, or, once `lazy_every` has passed since one last did, a call of their own. So each contact costs at
    most one call per period for all its log-ins.

    A kept value belongs to the partition whose event set it. An *entry* holds what one partition said of one contact:
    per path the newest value, its offset, and whether it is *due*, which means that no call has brought it to Meisa.
    What was sent stays in the entry for a period, not due any more: it tells what a record that is read again must not
    undo.

Rules that never break
    1. Within a partition the higher offset wins, whatever the order in which values are told, sent or read again. A
       call whose own value is older than the entry's takes the entry's. Between partitions the last to arrive wins.
    2. A value is due until a call that said it, or something newer, was delivered. A refused call settles nothing.
    3. Only what a commit has told, and what lasts as long as its offset does, may ride (the caller asks: `told`).
    4. Names, tags and `source` are never lazy, nor is a path in `preserve`: of that each value is sent. A contact that
       is not known to Meisa by exactly the names of the event gets an ordinary call.
    5. What is due rides on the last upsert of its contact that waits. Were one behind it that says something older,
       only this process would know what that must not undo.
    6. Kept values never cost another's call its life: after a refusal they stay aside (`suspect`) and go alone, path
       by path, until what is refused stands alone.

The bounds
    `entries_max` entries of some 1.4 KB with two paths, half of it names and indexes: 100,000 are 140 MB. A default
    quota has 24,000 calls a day, so it could not even send that many values once. Entries whose values were sent go
    first, the oldest of them; where all are due, an upsert is an ordinary one again: it costs a call, nothing is lost.
    Sent values are forgotten after a period, once everything before their records has finished.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from bridge.core.lazy_entries import Entry, Said, Value, decoded, encoded, joined, lazy_values, paths
from bridge.core.registers import email_name, id_name
from bridge.errors import StoreFailed
from bridge.model import Contact, TopicPartition, email_key
from bridge.ports import Store

ENTRIES_MAX = 100_000
FORGOTTEN_AT_ONCE = 8
"""Entries looked at for being forgotten whenever something is kept or sent, which adds one at most."""


class Ride(NamedTuple):
    """What a call takes along."""

    values: Mapping[str, Any]
    """By path: over what the call says itself."""
    settled: tuple[tuple[Entry, str, Value], ...]
    """No longer due once the call is delivered."""


class LazyValues:
    """The entries of all partitions that this process owns. `store` keeps them where that outlives the process."""

    def __init__(self, *, entries_max: int = ENTRIES_MAX, store: Store | None = None) -> None:
        if entries_max < 1:
            raise ValueError("room for at least one entry")
        self._entries_max = entries_max
        self._store = store
        self._by_name: dict[str, tuple[Entry, ...]] = {}
        self._by_place: dict[TopicPartition, dict[str, Entry]] = {}
        self._topics: dict[TopicPartition, int | None] = {}
        """The hash of the topic's id, of partitions that were assigned; None where it is not known."""
        self.passed: Callable[[TopicPartition, int], bool] = lambda place, offset: True
        """Whether everything up to that record has finished."""
        self._count = 0
        self._idle: OrderedDict[Entry, None] = OrderedDict()
        """Entries of which nothing is due, about in the order in which that came to be."""
        self._deadlines: list[tuple[float, int, Entry]] = []
        """A heap; an entry whose deadline is another one by now is stale in it."""
        self._pushes = 0

    def __len__(self) -> int:
        return self._count

    @property
    def waiting(self) -> int:
        """Entries of which something is due."""
        return self._count - len(self._idle)

    # Finishing at once

    def keep(self, said: Said, wall: float, coming: Contact | None = None) -> bool:
        """Keeps the values of an upsert that changes only lazy fields; False where it needs a call.

        `coming` is the contact of an upsert that waits for its turn and will take them along.
        """
        action, place, offset = said
        contact, every = action.contact, action.handling.lazy_every_seconds
        assert contact.email is not None
        self._forget_old(wall)
        entries = self._find(contact)
        carried = max((entry.at for entry in entries), default=0.0)
        if coming is None and (not carried or wall - carried >= every):
            return False
        if not any(_named_so(contact, entry.email, entry.external_id) for entry in entries) and not (
            coming is not None and coming.email is not None and _named_so(contact, coming.email, coming.external_id)
        ):
            return False
        entry = self._entry(entries, place, contact, every)
        if entry is None:
            return False
        news = False
        for path, value in lazy_values(action).items():
            known = entry.values.get(path)
            if known is not None and (known.offset > offset or (known.offset == offset and not known.due)):
                continue  # read again: something newer is known, or it was sent
            entry.values[path] = Value(offset, value, True)
            news = True
            for other in entries:
                if other is not entry and path in other.values:  # the last to arrive wins
                    other.values[path] = other.values[path]._replace(due=False)
        entry.at = max(entry.at, carried)
        entry.every = every
        if news:
            entry.events += 1
        for each in {entry: None, **dict.fromkeys(entries)}:
            self._changed(each, (each.at or wall) + each.every)
        return True

    # Riding

    def ride(
        self, group: Sequence[Said], told: Callable[[TopicPartition, int], bool], sole: bool, last: bool = True
    ) -> Ride | None:
        """What the call of these contributions takes along; `sole` says that it was made for that alone, `last` that no
        other upsert of the contact waits behind it."""
        if not self._count:
            return None
        entries = self._find(group[0].action.contact)
        if not entries:
            return None
        own: dict[str, Said] = {}
        for said in group:
            for path in paths(said.action):
                own[path] = said
        values: dict[str, Any] = {}
        settled: list[tuple[Entry, str, Value]] = []
        for entry in entries:
            for path, value in entry.values.items():
                mine = own.get(path)
                if mine is not None and not (mine.place == entry.place and value.offset > mine.offset):
                    if value.due:
                        settled.append((entry, path, value))  # the call says something newer
                elif (last if value.due else mine is not None) and told(entry.place, value.offset):
                    if entry.suspect and (not sole or values):
                        continue
                    values[path] = value.value
                    settled.append((entry, path, value))
        return Ride(values, tuple(settled)) if settled else None

    def delivered(self, group: Sequence[Said], ride: Ride | None, wall: float, *, called: bool = True) -> int:
        """The call was delivered: what it carried is not due any more. Returns how many calls kept values saved.

        Not `called`: it was not made, because Meisa has what it says.
        """
        contact = group[0].action.contact
        if contact.email is None:
            return 0
        entries = self._find(contact)
        carried = bool(ride is not None and ride.values)
        for entry, path, value in ride.settled if ride is not None else ():
            if entry.values.get(path) is value:
                entry.values[path] = value._replace(due=False)
            if entry not in entries:
                self._save(entry)  # its partition went while the call was under way: the next owner has to know
        every = 0.0
        for said in group:
            own = lazy_values(said.action)
            if not own:
                continue
            carried, every = carried or called, said.action.handling.lazy_every_seconds
            made = self._entry(entries, said.place, contact, every)
            if made is None:
                continue
            if made not in entries:
                entries.append(made)
            for path, it in own.items():
                known = made.values.get(path)
                if known is None or known.offset <= said.offset:
                    made.values[path] = Value(said.offset, it, False)
        saved = 0
        for entry in entries:
            entry.every = every or entry.every
            entry.at = wall if carried else entry.at
            if not entry.due:
                saved += entry.events
                entry.events, entry.suspect = 0, False
            if self._rename(entry, contact) or every or ride is not None or not entry.at:
                self._changed(entry, entry.at + entry.every if entry.at else wall)
        self._forget_old(wall)
        return saved

    def refused(self, ride: Ride) -> None:
        """A call with these was refused: from now on they go alone, so that nothing else is refused for them."""
        for entry, _, _ in ride.settled:
            entry.suspect = True

    def drop(self, ride: Ride, wall: float) -> int:
        """These were refused alone: they go, and what else of their contact is due follows. Returns how many went."""
        gone = 0
        for entry, path, value in ride.settled:
            if entry.values.get(path) is value:
                del entry.values[path]
                gone += 1
                if not entry.due:
                    entry.events, entry.suspect = 0, False
                self._changed(entry, wall)
        return gone

    def missing(self, contact: Contact, wall: float) -> None:
        """Meisa does not know the contact (any more): what is due goes soon, what was sent is gone."""
        for entry in self._find(contact):
            entry.at = 0.0
            entry.values = {path: value for path, value in entry.values.items() if value.due}
            self._changed(entry, wall)
            if not entry.values:
                self._remove(entry)

    # Going by themselves

    def next_deadline(self) -> float | None:
        """When (wall) the next entry must go by itself."""
        deadlines = self._deadlines
        while deadlines and deadlines[0][2].deadline != deadlines[0][0]:
            heapq.heappop(deadlines)
        return deadlines[0][0] if deadlines else None

    def take_due(self, wall: float) -> Entry | None:
        """The next entry whose deadline has passed; `put_back` ends that. None where there is none."""
        at = self.next_deadline()
        if at is None or at > wall:
            return None
        entry = heapq.heappop(self._deadlines)[2]
        entry.deadline, entry.queued = 0.0, True
        return entry

    def holds(self, entry: Entry) -> bool:
        """Whether the entry is still ours, and nobody has erased it from the store."""
        if not self._holds(entry):
            return False
        if self._forgotten(entry):
            self._unlink(entry)
            return False
        return True

    def put_back(self, entry: Entry, at: float) -> None:
        """Its call has ended. What is still due goes at `at` (wall) by itself."""
        entry.queued = False
        if self._holds(entry):
            self._changed(entry, at)

    def soon(self, contact: Contact, wall: float) -> None:
        """The call that was to take values along is gone without them: what no call ever carried goes by itself."""
        for entry in self._find(contact):
            if not entry.at:
                self._changed(entry, wall)

    # Partitions

    def assigned(self, place: TopicPartition, topic_hash: int | None = None) -> None:
        """The partition is ours from now on: of the topic with this hash, where that is known."""
        self._topics[place] = topic_hash

    def load(self, place: TopicPartition, name: str, value: bytes, wall: float, *, fresh: bool = False) -> bool:
        """Takes in what a store kept of a partition; False where there is no room for it.

        What was learned meanwhile wins where it is newer. Of a topic that was created anew every record is newer than
        this; `fresh` says that it may have been, where its hash does not tell.
        """
        kept = decoded(value)
        if kept is None:
            return True
        contact = Contact(kept.email, kept.external_id)
        entry = self._by_place.get(place, {}).get(name) or self._entry([], place, contact, kept.every, name=name)
        if entry is None:
            return False
        topic_hash = self._topics.get(place)
        anew = fresh if None in (topic_hash, kept.topic_hash) else topic_hash != kept.topic_hash
        entry.at, entry.every = max(entry.at, min(kept.at, wall)), kept.every
        entry.events += kept.events
        for path, old in kept.values.items():
            entry.values[path] = joined(entry.values.get(path), old._replace(offset=-1) if anew else old)
        self._changed(entry, (entry.at or wall) + entry.every, save=anew)
        return True

    def withdraw(self, places: Iterable[TopicPartition]) -> int:
        """The partitions went to other owners, and their values with them. Returns how many entries were due."""
        due = 0
        for place in places:
            for entry in list(self._by_place.get(place, {}).values()):
                due += entry.due
                self._unlink(entry)
            self._topics.pop(place, None)
        return due

    def of(self, place: TopicPartition) -> int:
        """Entries of a partition."""
        return len(self._by_place.get(place, ()))

    # Entries

    def _find(self, contact: Contact) -> list[Entry]:
        """The entries of a contact: with the same external_id, or the same email where an id is not known of both."""
        found: dict[Entry, None] = {}
        email, external_id = contact.email, contact.external_id
        if email is not None:
            for entry in self._by_name.get(email_name(email), ()):
                if external_id is None or entry.external_id is None or entry.external_id == external_id:
                    found[entry] = None
        if external_id is not None:
            found.update(dict.fromkeys(self._by_name.get(id_name(external_id), ())))
        if self._store is not None:
            for entry in [entry for entry in found if self._forgotten(entry)]:
                del found[entry]
                self._unlink(entry)
        return list(found)

    def _forgotten(self, entry: Entry) -> bool:
        """Whether somebody erased it from the store (`contact forget`), as far as that is at hand."""
        store = self._store
        try:
            return store is not None and store.at_hand(entry.name) and store.get(entry.name) is None
        except StoreFailed:
            return False  # it cannot be read now: nothing is committed either

    def _entry(
        self, entries: Sequence[Entry], place: TopicPartition, contact: Contact, every: float, *, name: str = ""
    ) -> Entry | None:
        """The contact's entry of a partition, made where there is none; None where there is no room for it."""
        for entry in entries:
            if entry.place == place:
                return entry
        if self._count >= self._entries_max:
            candidates = islice(self._idle, len(entries) + FORGOTTEN_AT_ONCE)
            oldest = next((each for each in candidates if each not in entries and self._is_passed(each)), None)
            if oldest is None:
                return None
            self._remove(oldest)
        assert contact.email is not None
        entry = Entry(place, contact.email, contact.external_id, every)
        entry.name = name or entry.name
        here = self._by_place.setdefault(place, {})
        while entry.name in here:
            entry.name += "'"  # somebody who has another email by now had this one before
        here[entry.name] = entry
        self._count += 1
        self._idle[entry] = None
        self._index(entry)
        return entry

    def _holds(self, entry: Entry) -> bool:
        return self._by_place.get(entry.place, {}).get(entry.name) is entry

    def _index(self, entry: Entry) -> None:
        for name in _names(entry):
            self._by_name[name] = (*self._by_name.get(name, ()), entry)

    def _unindex(self, entry: Entry) -> None:
        for name in _names(entry):
            left = tuple(each for each in self._by_name[name] if each is not entry)
            if left:
                self._by_name[name] = left
            else:
                del self._by_name[name]

    def _rename(self, entry: Entry, contact: Contact) -> bool:
        """The contact has these names at Meisa now; True where that is news."""
        assert contact.email is not None
        if _named_so(contact, entry.email, entry.external_id):
            return False
        self._unindex(entry)
        entry.email, entry.external_id = contact.email, contact.external_id or entry.external_id
        self._index(entry)
        return True

    def _unlink(self, entry: Entry) -> None:
        """Takes it out of this process; a store keeps what it has."""
        here = self._by_place[entry.place]
        del here[entry.name]
        if not here:
            del self._by_place[entry.place]
        self._unindex(entry)
        self._idle.pop(entry, None)
        self._count -= 1
        entry.deadline = 0.0

    def _remove(self, entry: Entry) -> None:
        self._unlink(entry)
        if self._store is not None:
            self._store.delete(entry.name)

    def _changed(self, entry: Entry, deadline: float, *, save: bool = True) -> None:
        """Its values have changed: keeps them, and sees to when they go by themselves."""
        if not entry.due:
            entry.deadline = 0.0
            self._idle[entry] = None
            self._idle.move_to_end(entry)
        else:
            self._idle.pop(entry, None)
            if not entry.queued and entry.deadline != deadline:
                entry.deadline = deadline
                self._pushes += 1
                heapq.heappush(self._deadlines, (deadline, self._pushes, entry))
                if len(self._deadlines) > 64 + 2 * self._count:
                    self._deadlines = [each for each in self._deadlines if each[2].deadline == each[0]]
                    heapq.heapify(self._deadlines)
        if save:
            self._save(entry)

    def _save(self, entry: Entry) -> None:
        if self._store is not None:
            self._store.put(entry.name, encoded(entry, self._topics.get(entry.place)))

    def _forget_old(self, wall: float) -> None:
        """What was sent more than a period ago says nothing any more: the next upsert of the contact is ordinary.

        Unless an older record has not finished yet: what it says must not be sent over it.
        """
        for _ in range(FORGOTTEN_AT_ONCE):
            entry = next(iter(self._idle), None)
            if entry is None or entry.at + entry.every > wall:
                return
            if self._is_passed(entry):
                self._remove(entry)
            else:
                self._idle.move_to_end(entry)

    def _is_passed(self, entry: Entry) -> bool:
        return all(self.passed(entry.place, value.offset) for value in entry.values.values())


def _named_so(contact: Contact, email: str, external_id: str | None) -> bool:
    """Whether somebody known by these names is known by all names of the contact."""
    assert contact.email is not None
    return email_key(contact.email) == email_key(email) and contact.external_id in (None, external_id)


def _names(entry: Entry) -> tuple[str, ...]:
    named = (email_name(entry.email),)
    return named if entry.external_id is None else (*named, id_name(entry.external_id))
