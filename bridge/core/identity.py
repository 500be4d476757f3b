"""Who is who: which email an external id has now, which it had, and whose an alias is (delivery.md, 25).

The theory
    Meisa matches a contact by external_id first, then by email, and an upsert that names both gives the id that email:
    it *re-keys* the contact. From then on the former email names nobody at Meisa, while events that know only it go on
    arriving; sent as they are, they would create the same person a second time. So whatever names a former email is
    resolved to the present one.

    The table is a set of registers, one per name, each written by upserts in log order:

        x:<external_id>   the email that the id was last given
        e:<email>         the id that claimed the email last, and whose it was before that
        a:<alias>:<value> the id or email that the alias came with

    An email is *former* where the id that claimed it last has another one by now. Thus a further id that claims it ends
    the resolving at once, an email that wanders through a dozen addresses is resolved in one step, and nothing has to
    be taken back.

Rules that never break
    1. A register never moves backwards: it keeps, per partition, the highest offset that wrote it, and a record that
       is read again (after a rebalance, or by a replay) undoes nothing. Between partitions the last to arrive wins,
       as everywhere.
    2. Only an upsert that names both external_id and email says which email an id has. It is sent as it stands, unless
       a later record is known to have said otherwise.
    3. Linking joins queues and never merges contacts: an email is resolved only within one external_id. An alias is
       the bridge's own name, of which Meisa knows nothing; it finds an email, and re-keys nobody.
    4. Where it is uncertain whose an email is, every name stays as it came. An id that is given the email of another id
       is uncertain (Meisa refuses that, or takes it away from the other), so is a re-key that was dead-lettered.
    5. A trigger's to_email is never changed: the mail goes where the event said.
    6. A resolved action keeps its old names among its ordering keys, so it stays behind what went out under them.

    A resolved track or upsert carries the external_id too, which Meisa matches first: were the re-key itself refused
    (it is dead-lettered, somebody mends it later), the event would still meet the right contact, where the new email
    alone would create another one.

The bounds
    `entries_max` registers of about 400 bytes: 200,000 are 80 MB, for some 80,000 contacts with an id, an email and an
    alias here and there. The least recently used go first; an email whose register is gone counts as nobody's.
    A register remembers its last `PLACES_MAX` partitions: a person's records come from a topic or two, in one
    partition of each.

Left over
    What was admitted before its re-key turned out to be refused has been resolved already. An alias that came with an
    email alone is given up once that email passed from one id to another, because whose it is cannot be told.
    Of two processes that share a store and say different things of one person within a second, the one that repeats
    what it said before does not write, and so gives way to the one with the news, whoever comes last.

A store that outlives the process
    All reading goes through `_get`, all writing through `_put`; with a store the registers are kept there too, and
    `_entries` holds those that were used last. Whoever shares the store may have written meanwhile: `refresh` drops
    what was kept, and core/registers.py decides what of two writings stays, by rule 1. Where names have to be loaded
    first, `lacking` tells which, by rehearsing what is to be done without doing it.

    A topic that was created anew begins its offsets anew. Its partitions get a further generation, which stands behind
    the topic's name in marks, so that the former ones compare with nothing; a register `p:` keeps it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any, NamedTuple, cast

from bridge.core import lazy_entries
from bridge.core.registers import (
    ENTRY_PREFIXES,
    FORGOTTEN,
    PLACES_MAX,
    Alias,
    Claim,
    Entry,
    Generation,
    Marks,
    Person,
    Present,
    decoded,
    email_name,
    encoded,
    id_name,
    next_generation,
    outdated,
)
from bridge.model import Action, Contact, Kind, TopicPartition
from bridge.ports import Store

ENTRIES_MAX = 200_000


class Forgotten(NamedTuple):
    """A person who was erased."""

    names: frozenset[str]
    """By which they were known: `x:`, `e:`, `a:`."""
    registers: frozenset[str]
    """What was erased; further registers may stand for the same names elsewhere (core/known.py)."""


class Identities:
    """The table of one process. Call `admit` for every action, in log order."""

    def __init__(self, *, entries_max: int = ENTRIES_MAX, store: Store | None = None) -> None:
        if entries_max < 1:
            raise ValueError("a table of at least one entry")
        self._entries_max = entries_max
        self._entries: OrderedDict[str, Person] = OrderedDict()
        self._store = store
        self._places: dict[TopicPartition, TopicPartition] = {}
        """Under what a partition stands in marks; one object for all entries, and as many as there are partitions."""
        self._generations: dict[TopicPartition, Generation] = {}
        """Of all partitions, where there is no store."""
        self._restarts: dict[TopicPartition, int | None] = {}
        """Partitions whose offsets may have begun anew, with the topic's hash."""
        self._lacks: set[str] | None = None
        """While rehearsing: what is not at hand."""
        self._rehearsed: dict[str, Entry] = {}
        """What was written while rehearsing."""

    def __len__(self) -> int:
        """Registers kept in this process."""
        return len(self._entries)

    @property
    def lasting(self) -> bool:
        """Whether others than this process's own events may ever tell more than is known now."""
        return self._store is not None and self._store.lasting

    def refresh(self) -> None:
        """Reads again what others may have changed."""
        if self._store is not None and self._store.refresh():
            self._entries.clear()

    def lacking(self, work: Callable[[], object]) -> set[str]:
        """The names that must be at hand before `work` (calls of this table's methods) can be done.

        Further names may be found missing once these are there: ask again until there are none.
        """
        lacks: set[str] = set()
        self._lacks = lacks
        try:
            work()
        finally:
            self._lacks = None
            self._rehearsed.clear()
        return lacks

    def admit(self, action: Action, partition: TopicPartition, offset: int) -> Action:
        """Resolves an action as its turn in the log comes, and learns from it if it is an upsert."""
        contact = action.contact
        if action.kind is not Kind.UPSERT:
            return self.resolve(action)
        if contact.email is None or contact.external_id is None:
            resolved = self.resolve(action)
            self._learn_aliases(resolved.contact, partition, offset)
            return resolved
        if self._repeats(contact.external_id, contact.email, partition, offset):
            self._learn_aliases(contact, partition, offset)
            return action
        before = self._present(contact.external_id)
        self.learn(contact, partition, offset)
        named = email_name(contact.email)
        if before is None or email_name(before.email) == named:
            return action
        later = self._rekeyed(contact.external_id, contact.email)
        if later is not None:
            # Read again, or replayed: the id has another email since. Unless somebody else had that one before, and
            # may not have left it yet, the upsert goes there: the contact must not be re-keyed back for a moment.
            claim = self._claim(later)
            if claim is not None and claim.rival is None:
                return _under(action, contact._replace(email=later, also=(named,)))
        # What knows the id by its former email alone, and was admitted before, goes before the re-key.
        return replace(action, contact=contact._replace(also=(email_name(before.email),)))

    # Learning

    def learn(self, contact: Contact, partition: TopicPartition, offset: int) -> None:
        """Takes in what an upsert says of a person."""
        if contact.email is not None and contact.external_id is not None:
            self._learn_pair(contact.external_id, contact.email, partition, offset)
        self._learn_aliases(contact, partition, offset)

    def refused(self, contact: Contact, partition: TopicPartition, offset: int) -> None:
        """The upsert of this record was dead-lettered: whether Meisa re-keyed its contact is uncertain.

        Harmless for any other upsert: only the last word on an id's email counts, and only if it changed it.
        """
        if contact.email is None or contact.external_id is None:
            return
        present = self._present(contact.external_id)
        if present is not None and present.changed and present.marks[-1:] == ((self._place(partition), offset),):
            self._put(id_name(contact.external_id), present._replace(uncertain=True))

    def restarted(self, partition: TopicPartition, topic_hash: int | None = None) -> None:
        """The partition's offsets may have begun anew (its topic was recreated): former ones compare with nothing.

        Unless the topic's hash says that it is the same topic still.
        """
        self._restarts[partition] = topic_hash
        self._places.pop(partition, None)

    def left(self, partition: TopicPartition) -> None:
        """The partition went to another owner, who may see its topic created anew."""
        self._places.pop(partition, None)

    def seed(self, contact: Contact) -> bool:
        """Takes in what somebody says of a person beside the log; False where it adds nothing.

        What events have taught stays, whatever they are going to teach replaces this.
        """
        added = False
        if contact.email is not None and contact.external_id is not None:
            added |= self._seed(email_name(contact.email), Claim(contact.external_id))
            added |= self._seed(id_name(contact.external_id), Present(contact.email))
        for alias, value in contact.aliases:
            added |= self._seed(f"a:{alias}:{value}", Alias(contact.email, contact.external_id))
        return added

    def _seed(self, name: str, entry: Person) -> bool:
        old = self._get(name)
        if old == entry or (old is not None and old.marks):
            return False
        self._put(name, entry)
        return True

    async def forget(self, email: str) -> Forgotten:
        """Erases a person, with all former emails, aliases and kept values.

        An email that somebody else has claimed since is theirs, and stays. Looks through the whole store; with one,
        `flush` it then. Raises StoreFailed.
        """
        named = email_name(email)
        entries = {name: entry async for name, entry in self._all() if _concerns(entry, named) or name == named}
        claim = cast(Claim | None, entries.get(named))
        external_id = claim.external_id if claim is not None else None
        mine = set(entries)
        if external_id is not None:
            mine.add(id_name(external_id))
        altered: dict[str, Claim] = {}
        if external_id is not None:
            async for name, entry in self._all():
                if isinstance(entry, Claim | Alias) and entry.external_id == external_id:
                    mine.add(name)
                elif isinstance(entry, Claim) and entry.rival is not None and entry.rival == external_id:
                    altered[name] = entry._replace(rival=FORGOTTEN)
            if self._store is not None:
                await self._store.load([id_name(external_id)])
        erased = set()
        for name in mine:
            if name in entries or self._get(name) is not None:
                erased.add(name)
            self._entries.pop(name, None)
            if self._store is not None:
                self._store.delete(name)
        for name, entry in altered.items():
            self._put(name, entry)
        if self._store is not None:
            erased.update(await lazy_entries.erase(self._store, mine | {named}))
        return Forgotten(frozenset(mine | {named}), frozenset(erased))

    async def _all(self) -> AsyncIterator[tuple[str, Person]]:
        if self._store is None:
            for name, entry in list(self._entries.items()):
                yield name, entry
            return
        for prefix in ENTRY_PREFIXES:
            async for name, value in self._store.scan(prefix):
                kept = decoded(name, value)
                if kept is not None and not isinstance(kept, Generation):
                    yield name, kept

    # Resolving

    def resolve(self, action: Action) -> Action:
        """The action under its contact's present names; the same object where nothing is to be changed.

        A former email gives way to the present one, and a missing one is filled in where the table knows it.
        """
        contact = action.contact
        if contact.email is None:
            return self._filled(action)
        if action.kind is Kind.UPSERT and contact.external_id is not None:
            return action
        claim = self._claim(contact.email)
        if claim is None or contact.external_id not in (None, claim.external_id):
            return action
        email = self._rekeyed(claim.external_id, contact.email)
        if email is None:
            return action
        if action.kind is Kind.TRIGGER:
            others = (id_name(claim.external_id), email_name(email))
            return replace(action, contact=contact._replace(also=others))
        former = (email_name(contact.email),)
        return _under(action, contact._replace(email=email, external_id=claim.external_id, also=former))

    def _rekeyed(self, external_id: str, former: str) -> str | None:
        """The id's present email, if it is certain and another one than `former`."""
        present = self._present(external_id)
        if present is None or present.uncertain or email_name(present.email) == email_name(former):
            return None
        claim = self._claim(present.email)
        return present.email if claim is not None and claim.external_id == external_id else None

    def _filled(self, action: Action) -> Action:
        contact = action.contact
        if contact.external_id is not None:
            present = self._present(contact.external_id)
            if present is not None:
                return _under(action, contact._replace(email=present.email))
        for alias, value in contact.aliases:
            email, external_id = self._of_alias(alias, value)
            if email is not None and contact.external_id in (None, external_id):
                return _under(action, contact._replace(email=email, external_id=external_id))
        return action

    def _of_alias(self, alias: str, value: str) -> tuple[str | None, str | None]:
        """Email and external_id of the person with this alias, as far as they are known."""
        known = cast(Alias | None, self._get(f"a:{alias}:{value}"))
        if known is None:
            return None, None
        external_id = known.external_id
        if external_id is None and known.email is not None:
            claim = self._claim(known.email)
            if claim is not None:
                if claim.rival is not None:
                    return None, None  # it passed from one id to another: whose the alias is cannot be told
                external_id = claim.external_id
        present = self._present(external_id) if external_id is not None else None
        return (present.email if present is not None else known.email), external_id

    # Registers

    def _repeats(self, external_id: str, email: str, partition: TopicPartition, offset: int) -> bool:
        """Whether an upsert says what an earlier one of its partition said last of both names; nearly all do.

        Then only the marks move, and the store is spared. Its marks may so be older than the truth, but whatever of
        this partition stands between says the same, or it would be the register's last word.
        """
        own, name = id_name(external_id), email_name(email)
        present, claim = cast(Present | None, self._get(own)), cast(Claim | None, self._get(name))
        if present is None or claim is None or present.email != email or present.changed or present.uncertain:
            return False
        if claim.external_id != external_id or claim.rival is not None:
            return False
        marks, others = present.marks, claim.marks
        if not marks or not others or marks[-1] != others[-1]:
            return False
        place, highest = marks[-1]
        if highest >= offset or place != self._place(partition):
            return False
        if self._lacks is None:
            mark = (place, offset)
            # `_get` has made them the last used already.
            self._entries[own] = Present(email, False, False, (*marks[:-1], mark) if len(marks) > 1 else (mark,))
            self._entries[name] = Claim(external_id, None, (*others[:-1], mark) if len(others) > 1 else (mark,))
        return True

    def _learn_pair(self, external_id: str, email: str, partition: TopicPartition, offset: int) -> None:
        """An upsert gives the id this email."""
        own, name = id_name(external_id), email_name(email)
        present, claim = cast(Present | None, self._get(own)), cast(Claim | None, self._get(name))
        changed = present is None or email_name(present.email) != name
        if present is not None and not changed and present.marks[-1:] == ((self._place(partition), offset),):
            return  # read again: what became uncertain since stays so
        rival = None
        if claim is not None:
            rival = claim.rival if claim.external_id == external_id else claim.external_id
        marks = self._marked(claim, partition, offset)
        if marks is not None:
            self._put(name, Claim(external_id, rival, marks))
        held = self._present(rival) if rival is not None else None
        uncertain = held is not None and email_name(held.email) == name
        marks = self._marked(present, partition, offset)
        if marks is not None:
            self._put(own, Present(email, uncertain, changed, marks))

    def _learn_aliases(self, contact: Contact, partition: TopicPartition, offset: int) -> None:
        if not contact.aliases:
            return
        external_id = contact.external_id
        if external_id is None and contact.email is not None:
            claim = self._claim(contact.email)
            external_id = claim.external_id if claim is not None else None
        if external_id is None and contact.email is None:
            return
        for alias, value in contact.aliases:
            name = f"a:{alias}:{value}"
            marks = self._marked(self._get(name), partition, offset)
            if marks is not None:
                self._put(name, Alias(contact.email, external_id, marks))

    def _marked(self, old: Person | None, partition: TopicPartition, offset: int) -> Marks | None:
        """The marks of a register that this record writes; None where something later of its partition wrote it."""
        place = self._place(partition)
        marks = old.marks if old is not None else ()
        if outdated(marks, place, offset):
            return None
        others = tuple(each for each in marks if each[0] != place)
        return (*others[1 - PLACES_MAX :], (place, offset))

    def _place(self, partition: TopicPartition) -> TopicPartition:
        """Under what the partition stands in marks."""
        place = self._places.get(partition)
        if place is not None:
            return place
        name = f"p:{partition}"
        if self._store is None:
            generation = self._generations.get(partition)
        else:
            generation = cast(Generation | None, self._fetched(name))
        if partition in self._restarts:
            before = generation
            generation = next_generation(before, self._restarts[partition])
            if generation != before:
                if self._store is None:
                    self._generations[partition] = generation
                else:
                    self._keep(name, generation)
            if self._lacks is None:
                del self._restarts[partition]
        number = generation.number if generation is not None else 0
        place = TopicPartition(f"{partition.topic}#{number}", partition.partition) if number else partition
        if self._lacks is None:
            self._places[partition] = place
        return place

    def _present(self, external_id: str) -> Present | None:
        return cast(Present | None, self._get(id_name(external_id)))

    def _claim(self, email: str) -> Claim | None:
        return cast(Claim | None, self._get(email_name(email)))

    def _get(self, name: str) -> Person | None:
        if self._lacks is not None and name in self._rehearsed:
            return cast(Person, self._rehearsed[name])
        entry = self._entries.get(name)
        if entry is not None:
            self._entries.move_to_end(name)
        elif self._store is not None:
            entry = cast(Person | None, self._fetched(name))
            if entry is not None:
                self._remember(name, entry)
        return entry

    def _put(self, name: str, entry: Person) -> None:
        if self._lacks is None:
            self._remember(name, entry)
        if self._store is not None:
            self._keep(name, entry)

    def _remember(self, name: str, entry: Person) -> None:
        entries = self._entries
        entries[name] = entry
        entries.move_to_end(name)
        if len(entries) > self._entries_max:
            entries.popitem(last=False)

    def _fetched(self, name: str) -> Entry | None:
        assert self._store is not None
        if self._lacks is not None:
            if name in self._rehearsed:
                return self._rehearsed[name]
            if not self._store.at_hand(name):
                self._lacks.add(name)
                return None
        value = self._store.get(name)
        return None if value is None else decoded(name, value)

    def _keep(self, name: str, entry: Entry) -> None:
        assert self._store is not None
        if self._lacks is not None:
            self._rehearsed[name] = entry
        else:
            self._store.put(name, encoded(entry))


def _concerns(entry: Person, named: str) -> bool:
    """Whether it says of somebody that this is their email."""
    return isinstance(entry, Present | Alias) and entry.email is not None and email_name(entry.email) == named


def _under(action: Action, contact: Contact) -> Action:
    """The action about the contact under these names, in its request too, as far as the endpoint has a field for them.

    Position, rule and kind stay, and with them the action id and what a dead letter says.
    """
    kind = action.kind
    names: dict[str, Any] = {}
    if kind is Kind.TRIGGER:
        names["to_email"] = contact.email
    elif kind in (Kind.UPSERT, Kind.ENROLL) or (
        kind is Kind.TRACK and ("email" in action.body or "external_id" not in action.body)
    ):
        names["email"] = contact.email
    if kind in (Kind.UPSERT, Kind.TRACK) and contact.external_id is not None:
        names["external_id"] = contact.external_id
    return replace(action, body={**action.body, **names}, contact=contact)
