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

For a store that outlives the process
    All state is in `_entries`, whose values are plain tuples; all reading goes through `_get`, all writing through
    `_put`. A store goes behind these two: the present map becomes its cache, `_put` also queues the register for
    writing, `_get` asks the store on a miss. Rule 1 makes writing late, twice, or by two owners harmless, if the
    store merges registers by the same comparison of places.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import Any, NamedTuple, cast

from bridge.model import Action, Contact, Kind, TopicPartition, email_key

ENTRIES_MAX = 200_000
PLACES_MAX = 4
FORGOTTEN = ""
"""Stands for the id of a person who was erased; no id is empty."""

Marks = tuple[tuple[TopicPartition, int], ...]
"""The highest offset of each partition that wrote a register; the last writer's stands last."""


class Present(NamedTuple):
    """What is known of an external_id."""

    email: str
    """The one that it has, as it was written."""
    uncertain: bool = False
    """Meisa may have refused to give it this email."""
    changed: bool = False
    """Its last upsert gave it another email than before."""
    marks: Marks = ()


class Claim(NamedTuple):
    """What is known of an email."""

    external_id: str
    """Who claimed it last."""
    rival: str | None = None
    """The last other id that had claimed it before."""
    marks: Marks = ()


class Alias(NamedTuple):
    """Whom an alias came with: an id, an email, or both."""

    email: str | None
    external_id: str | None
    marks: Marks = ()


def _id_name(external_id: str) -> str:
    return f"x:{external_id}"


def _email_name(email: str) -> str:
    return f"e:{email_key(email)}"


class Identities:
    """The table of one process. Call `admit` for every action, in log order."""

    def __init__(self, *, entries_max: int = ENTRIES_MAX) -> None:
        if entries_max < 1:
            raise ValueError("a table of at least one entry")
        self._entries_max = entries_max
        self._entries: OrderedDict[str, Present | Claim | Alias] = OrderedDict()
        self._places: dict[TopicPartition, TopicPartition] = {}
        """One object per partition, for the marks of all entries; as many as there are partitions."""

    def __len__(self) -> int:
        """Registers kept."""
        return len(self._entries)

    def admit(self, action: Action, partition: TopicPartition, offset: int) -> Action:
        """Resolves an action as its turn in the log comes, and learns from it if it is an upsert."""
        contact = action.contact
        if action.kind is not Kind.UPSERT:
            return self.resolve(action)
        if contact.email is None or contact.external_id is None:
            resolved = self.resolve(action)
            self._learn_aliases(resolved.contact, partition, offset)
            return resolved
        before = self._present(contact.external_id)
        self.learn(contact, partition, offset)
        named = _email_name(contact.email)
        if before is None or _email_name(before.email) == named:
            return action
        later = self._rekeyed(contact.external_id, contact.email)
        if later is not None:
            # Read again, or replayed: the id has another email since. Unless somebody else had that one before, and
            # may not have left it yet, the upsert goes there: the contact must not be re-keyed back for a moment.
            claim = self._claim(later)
            if claim is not None and claim.rival is None:
                return _under(action, contact._replace(email=later, also=(named,)))
        # What knows the id by its former email alone, and was admitted before, goes before the re-key.
        return replace(action, contact=contact._replace(also=(_email_name(before.email),)))

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
        if present is not None and present.changed and present.marks[-1:] == ((partition, offset),):
            self._put(_id_name(contact.external_id), present._replace(uncertain=True))

    def restarted(self, partition: TopicPartition) -> None:
        """The partition's offsets began anew (its topic was recreated): the former ones compare with nothing."""
        for name, entry in self._entries.items():
            if any(place == partition for place, _ in entry.marks):
                marks = tuple(mark for mark in entry.marks if mark[0] != partition)
                self._entries[name] = entry._replace(marks=marks)
        self._places.pop(partition, None)

    def forget(self, email: str) -> int:
        """Erases a person, with all former emails and aliases; returns how many registers that were.

        An email that somebody else has claimed since is theirs, and stays.
        """
        named = _email_name(email)
        claim = self._claim(email)
        external_id = claim.external_id if claim is not None else None
        mine = {named}
        if external_id is not None:
            mine.add(_id_name(external_id))
            mine.update(
                name
                for name, entry in self._entries.items()
                if isinstance(entry, Claim | Alias) and entry.external_id == external_id
            )
        for name, entry in self._entries.items():
            # Whoever else was last said to have this email, or came with it.
            if isinstance(entry, Present | Alias) and entry.email is not None and _email_name(entry.email) == named:
                mine.add(name)
        erased = [name for name in mine if self._entries.pop(name, None) is not None]
        for name, entry in self._entries.items():
            if isinstance(entry, Claim) and entry.rival is not None and entry.rival == external_id:
                self._entries[name] = entry._replace(rival=FORGOTTEN)
        return len(erased)

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
            others = (_id_name(claim.external_id), _email_name(email))
            return replace(action, contact=contact._replace(also=others))
        former = (_email_name(contact.email),)
        return _under(action, contact._replace(email=email, external_id=claim.external_id, also=former))

    def _rekeyed(self, external_id: str, former: str) -> str | None:
        """The id's present email, if it is certain and another one than `former`."""
        present = self._present(external_id)
        if present is None or present.uncertain or _email_name(present.email) == _email_name(former):
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

    def _learn_pair(self, external_id: str, email: str, partition: TopicPartition, offset: int) -> None:
        """An upsert gives the id this email."""
        own, name = _id_name(external_id), _email_name(email)
        present, claim = cast(Present | None, self._get(own)), cast(Claim | None, self._get(name))
        changed = present is None or _email_name(present.email) != name
        if present is not None and not changed and present.marks[-1:] == ((partition, offset),):
            return  # read again: what became uncertain since stays so
        rival = None
        if claim is not None:
            rival = claim.rival if claim.external_id == external_id else claim.external_id
        marks = self._marked(claim, partition, offset)
        if marks is not None:
            self._put(name, Claim(external_id, rival, marks))
        held = self._present(rival) if rival is not None else None
        uncertain = held is not None and _email_name(held.email) == name
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

    def _marked(self, old: Present | Claim | Alias | None, partition: TopicPartition, offset: int) -> Marks | None:
        """The marks of a register that this record writes; None where something later of its partition wrote it."""
        marks = old.marks if old is not None else ()
        if marks and marks[-1][0] == partition:
            place, highest = marks[-1]
            return None if highest > offset else (*marks[:-1], (place, offset))
        for place, highest in marks:
            # A record may speak twice of one person; but where another partition has written since, it is read again.
            if highest >= offset and place == partition:
                return None
        others = tuple(each for each in marks if each[0] != partition)
        return (*others[1 - PLACES_MAX :], (self._places.setdefault(partition, partition), offset))

    def _present(self, external_id: str) -> Present | None:
        return cast(Present | None, self._get(_id_name(external_id)))

    def _claim(self, email: str) -> Claim | None:
        return cast(Claim | None, self._get(_email_name(email)))

    def _get(self, name: str) -> Present | Claim | Alias | None:
        entry = self._entries.get(name)
        if entry is not None:
            self._entries.move_to_end(name)
        return entry

    def _put(self, name: str, entry: Present | Claim | Alias) -> None:
        entries = self._entries
        entries[name] = entry
        entries.move_to_end(name)
        if len(entries) > self._entries_max:
            entries.popitem(last=False)


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
