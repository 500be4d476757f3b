"""What Meisa is known to hold for a contact, by its own answers: state that would change nothing need not be sent.

The theory
    Meisa answers an upsert with the whole contact. Whoever remembers the answer knows what a further upsert would
    change, as long as nobody else has written since: no other owner of the contact's partition, no other topic, no call
    whose answer never came. What was merely sent says nothing: Meisa may have stored it otherwise.

    An answer is remembered as *facts*: one digest for each path and its value. The register of the email holds them;
    the contact's other names (its external_id, Meisa's own id) have registers that lead there. Facts are believed only
    while all of these do, so forgetting any one name of a contact forgets the contact, and a re-key (the external_id
    leads to another email now) does so by itself.

    Time is counted in *turns*, one for each thing that happens here. A call *departs* in a turn, and from then on
    nothing is known of whom it is about. Its answer tells of the contact as it was after that turn, and is believed
    only where no other call about the same person was under way meanwhile: which of two calls Meisa carried out last
    nobody can tell.

Rules that never break
    1. Only answers teach; a call that may change a contact makes it unknown before it leaves.
    2. Facts are believed for a partition only if they were learned from a call that left since it was assigned; or by
       the assignment before, where it is known that there was none in between.
    3. Facts are believed for less than `believed_seconds` (wall), and not if they are of the future.
    4. After a call that may still be carried out (no answer, or a failing server's), nothing is learned of the contact
       for DOUBT_SECONDS: that call may come after the one that was answered. (Of a former owner's calls nobody knows:
       for so long after a partition has come, the caller teaches nothing.)
    5. A path that others may write (`others`) is never known.
    6. Where others may write of the contact, its facts are believed only if all partitions of all topics were ours
       since: while this process, or the one before with nobody in between, was the *whole* group.

    What differs only in how it is written (1 and 1.0, an order that Meisa changed) counts as different: it is sent, as
    it would have been anyhow. `source` never differs: an update keeps the original.

A store that outlives the process
    Registers are kept there too, by digests of names; an entry with the id of the assignment that learned it. Whether
    that was the last one, runtime/unchanged.py finds out. What is stored may be older than Meisa by what was not
    flushed in time: whoever reads a record again whose call a former owner may have made, has to `forget` its contact
    first. Of assignments further back nothing is believed: a process that was suspended may still write for them.

The bounds
    REGISTERS_MAX registers of some 250 bytes, 50 MB: 66,000 contacts with three names. A key of the default quota makes
    24,000 calls a day, and after a day nothing is believed. FACTS_MAX facts of a contact, what was sent first. The
    least recently used go first; what is gone is unknown, and is sent.

Left over
    Who writes fields without any event (a person in Meisa's dashboard, an automation, another program) is not seen
    here: `believed_seconds` bounds for how long that goes unnoticed. So it does for a contact whose events go to
    another partition of their topic than before, because partitions were added.
"""

from __future__ import annotations

import json
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import blake2b
from struct import Struct
from typing import Any, NamedTuple

from bridge.errors import StoreFailed
from bridge.model import TopicPartition, email_key
from bridge.ports import Store

REGISTERS_MAX = 200_000
FACTS_MAX = 128
DOUBT_SECONDS = 70.0
"""A call's longest time, and the minute in which an unanswered one may still be carried out (core/quota.py)."""

NAME_BYTES = 16
FACT_BYTES = 8
"""Digests: that an upsert of a hundred paths meets a wrong fact by accident happens once in 10^15."""

PREFIX = "k:"
"""Of the registers' names in a store; behind it stands the digest of a contact's name."""
ASSIGNMENT_BYTES = 8

PLAIN_PATHS = ("first_name", "last_name", "display_name")


class Entry(NamedTuple):
    """The facts of an answer; stands in the register of the email."""

    departed: int
    """The turn in which its call left; 0 where that was in another process."""
    learned: int
    told_wall: float
    others: tuple[bytes, ...]
    """The contact's other names."""
    identified: bool
    """Whether it has an external_id, by which it could be re-keyed."""
    facts: bytes
    assignment: bytes = b""
    """Of the partition whose call it was; empty where nothing is stored."""
    whole: bytes = b""
    """The id of the time in which we were the whole group, if we were."""


class Link(NamedTuple):
    """Leads from another name to the register of the email."""

    learned: int
    email: bytes


class Unknown(NamedTuple):
    """Nothing is known, and answers to calls that departed before teach nothing."""

    since: int
    until: float
    """Nor do those to calls that depart before this moment (monotonic)."""


class Assignment(NamedTuple):
    """Of a partition that is ours."""

    since: int
    """The turn in which it came."""
    mine: bytes
    before: bytes

    def believes(self, entry: Entry) -> bool:
        if entry.departed > self.since:
            return True
        # Of this very assignment it is where it was read from the store again.
        return entry.assignment != b"" and entry.assignment in (self.mine, self.before)


class Departure(NamedTuple):
    """A call that is under way and may change a contact."""

    turn: int
    now: float
    names: tuple[bytes, ...]


class Known:
    """See the module's text. `others(path)` tells whether more than one topic may write that path."""

    def __init__(
        self,
        believed_seconds: float,
        *,
        others: Callable[[str], bool] = lambda path: False,
        registers_max: int = REGISTERS_MAX,
        store: Store | None = None,
    ) -> None:
        """`store` outlives the process, and has every name at hand."""
        assert store is None or store.local
        if registers_max < 3:
            raise ValueError("room for a contact with three names at least")
        self._believed_seconds = believed_seconds
        self._others = others
        self._registers_max = registers_max
        self._store = store
        self._registers: OrderedDict[bytes, Entry | Link | Unknown] = OrderedDict()
        self._turn = 0
        self._under_way: Counter[bytes] = Counter()
        """Calls that departed and have not ended, by the names of their contacts; at most what may be in flight."""
        self._assigned: dict[TopicPartition, Assignment] = {}
        self._whole_since: int | None = None
        self._whole_ids = b"", b""
        """Of the present time in which we are the whole group, and of the one before."""

    def __len__(self) -> int:
        """Registers in use."""
        return len(self._registers)

    # Partitions

    def assigned(self, partition: TopicPartition, mine: bytes = b"", before: bytes = b"") -> None:
        """The partition is ours from now on; `mine` is the assignment's id, if what it teaches is to be stored.

        `before` is the id of the one before, where there was none in between.
        """
        self._assigned[partition] = Assignment(self._next_turn(), mine, before)

    def gone(self, partition: TopicPartition) -> None:
        self._assigned.pop(partition, None)

    def whole(self, mine: bytes = b"", before: bytes = b"") -> None:
        """All partitions of all topics are ours from now on, so that nobody else can write.

        `mine` is the id of this time, if what is learned is to be stored; `before` that of the one before, where none
        of these partitions had another owner in between.
        """
        self._whole_since = self._next_turn()
        self._whole_ids = mine, before

    def not_whole(self) -> None:
        self._whole_since, self._whole_ids = None, (b"", b"")

    @property
    def is_whole(self) -> bool:
        return self._whole_since is not None

    # Asking

    def differing(
        self,
        body: Mapping[str, Any],
        partitions: Iterable[TopicPartition],
        wall: float,
        *,
        others_write: bool = False,
        rekeys_elsewhere: bool = False,
    ) -> frozenset[str] | None:
        """The paths that an upsert sets and that Meisa is not known to hold as it says; None where nothing is known.

        Paths are `email`, `external_id`, `first_name`, `custom_fields.plan`, `tag_names.trial` and so on. `partitions`
        are those of the records that it comes from. `others_write`: records in other partitions may be of the contact,
        or give it another email; `rekeys_elsewhere`: so they may where it has an external_id.
        """
        email = body.get("email")
        entry = self._believed(name_of(f"e:{email_key(email)}"), wall) if isinstance(email, str) else None
        if entry is None:
            return None
        whole = self._was_whole(entry)
        for partition in partitions:
            assignment = self._assigned.get(partition)
            if assignment is None or not (whole or assignment.believes(entry)):
                return None
        if (others_write or (rekeys_elsewhere and entry.identified)) and not whole:
            return None
        facts = {entry.facts[place : place + FACT_BYTES] for place in range(0, len(entry.facts), FACT_BYTES)}
        return frozenset(path for path, value in _said(body) if self._others(path) or _fact(path, value) not in facts)

    def _was_whole(self, entry: Entry) -> bool:
        if self._whole_since is None:
            return False
        return entry.departed >= self._whole_since or (entry.whole != b"" and entry.whole in self._whole_ids)

    def _believed(self, name: bytes, wall: float) -> Entry | None:
        registers = self._registers
        entry = self._register(name)
        if not isinstance(entry, Entry) or not 0.0 <= wall - entry.told_wall < self._believed_seconds:
            return None
        for other in entry.others:
            link = self._register(other)
            if not isinstance(link, Link) or link.email != name:
                return None
        for each in (name, *entry.others):
            if each in registers:
                registers.move_to_end(each)
        return entry

    # Calls

    def departs(self, names: Iterable[bytes], now: float) -> Departure:
        """A call that may change the contact with these names leaves: from now on nothing is known of it."""
        names = tuple(dict.fromkeys(names))
        self._under_way.update(names)
        self.forget(names, now)
        return Departure(self._turn, now, names)

    def ended(self, departure: Departure) -> None:
        """The call has ended, however it did: once for each departure, before anything is learned from it."""
        for name in departure.names:
            self._under_way[name] -= 1
            if not self._under_way[name]:
                del self._under_way[name]

    def learn(
        self,
        departure: Departure,
        body: Mapping[str, Any],
        answer: Mapping[str, Any],
        wall: float,
        partition: TopicPartition | None = None,
    ) -> bool:
        """Takes in what Meisa answered to an upsert that said `body`; False where that teaches nothing.

        `partition` is one from which the upsert came.
        """
        email = answer.get("email")
        if not isinstance(email, str):
            return False
        names = names_in(answer)
        if any(self._overlaps(name, departure) for name in (*departure.names, *names)):
            self.forget((*departure.names, *names), departure.now)
            return False
        first, others = names[0], names[1:]
        sent = {path for path, _ in _said(body)}
        told = sorted(_told(answer), key=lambda fact: fact[0] not in sent)[:FACTS_MAX]
        facts = b"".join(_fact(path, value) for path, value in told)
        turn = self._next_turn()
        identified = answer.get("external_id") is not None
        assignment = self._assigned.get(partition) if partition is not None else None
        mine = assignment.mine if assignment is not None and assignment.since < departure.turn else b""
        whole = b""
        if self._whole_since is not None and self._whole_since < departure.turn:
            whole = self._whole_ids[0]
        entry = Entry(departure.turn, turn, wall, others, identified, facts, mine, whole)
        registers: dict[bytes, Entry | Link] = {other: Link(turn, first) for other in others}
        registers[first] = entry
        for name, register in registers.items():
            self._put(name, register)
            if self._store is not None and mine:
                self._store.put(f"{PREFIX}{name.hex()}", _encoded(register))
        return True

    def _overlaps(self, name: bytes, departure: Departure) -> bool:
        """Whether another call about this person was under way since this one departed, or still is."""
        if name in self._under_way:
            return True
        register = self._registers.get(name)
        if isinstance(register, Unknown):
            return register.since > departure.turn or register.until > departure.now
        return register is not None and register.learned > departure.turn

    def forget(self, names: Iterable[bytes], now: float, *, doubt: bool = False) -> None:
        """Nothing is known of the contact with one of these names; in doubt nothing is learned for DOUBT_SECONDS."""
        turn = self._next_turn()
        for name in names:
            until = now + DOUBT_SECONDS if doubt else now
            before = self._registers.get(name)
            if isinstance(before, Unknown):
                until = max(until, before.until)
            self._put(name, Unknown(turn, until))
            if self._store is not None:
                self._store.delete(f"{PREFIX}{name.hex()}")

    def _next_turn(self) -> int:
        self._turn += 1
        return self._turn

    def _register(self, name: bytes) -> Entry | Link | Unknown | None:
        """What is known under this name, here or in the store."""
        register = self._registers.get(name)
        if register is not None or self._store is None:
            return register
        try:
            value = self._store.get(f"{PREFIX}{name.hex()}")
        except StoreFailed:
            return None
        stored = None if value is None else _decoded(value)
        if stored is not None:
            self._put(name, stored)
        return stored

    def _put(self, name: bytes, register: Entry | Link | Unknown) -> None:
        registers = self._registers
        registers[name] = register
        registers.move_to_end(name)
        if len(registers) > self._registers_max:
            registers.popitem(last=False)


# In a store

_HEAD = Struct(f">B{ASSIGNMENT_BYTES}s{ASSIGNMENT_BYTES}sd?B")
_ENTRY, _LINK = 1, 2
"""The first byte of a value, and so its form: a further form takes a further number."""


def _encoded(register: Entry | Link) -> bytes:
    if isinstance(register, Link):
        return bytes([_LINK]) + register.email
    ids = register.assignment, register.whole
    head = _HEAD.pack(_ENTRY, *ids, register.told_wall, register.identified, len(register.others))
    return head + b"".join(register.others) + register.facts


def _decoded(value: bytes) -> Entry | Link | None:
    """What a store kept; None where it is not what the bridge writes."""
    if value[:1] == bytes([_LINK]) and len(value) == 1 + NAME_BYTES:
        return Link(0, value[1:])
    if value[:1] != bytes([_ENTRY]) or len(value) < _HEAD.size:
        return None
    _, assignment, whole, told_wall, identified, count = _HEAD.unpack_from(value)
    names = value[_HEAD.size : _HEAD.size + count * NAME_BYTES]
    facts = value[_HEAD.size + count * NAME_BYTES :]
    others = tuple(names[place : place + NAME_BYTES] for place in range(0, len(names), NAME_BYTES))
    if len(names) != count * NAME_BYTES or len(facts) % FACT_BYTES:
        return None
    return Entry(0, 0, told_wall, others, identified, facts, assignment, whole if any(whole) else b"")


async def erase(store: Store, keys: Iterable[str]) -> list[str]:
    """Deletes what is stored of the contact with these names (`e:`, `x:`); which registers. Raises StoreFailed.

    Whatever is linked with them goes too. That is always safe: a call more is made.
    """
    found: dict[str, None] = {}
    names = {name_of(key) for key in keys}
    await _gather(store, names, found)
    # A link that was left behind when its contact's other names were forgotten is found by whom it leads to.
    async for register, value in store.scan(PREFIX):
        stored = _decoded(value)
        if stored is not None and not names.isdisjoint(_linked(stored)):
            found[register] = None
    for register in found:
        store.delete(register)
    return list(found)


async def _gather(store: Store, names: set[bytes], found: dict[str, None]) -> None:
    """Adds the names that stored registers link with these, and finds their registers."""
    waiting = list(names)
    while waiting:
        register = f"{PREFIX}{waiting.pop().hex()}"
        await store.load([register])
        value = store.get(register)
        if value is None:
            continue
        found[register] = None
        stored = _decoded(value)
        further = set(_linked(stored)) - names if stored is not None else set()
        names |= further
        waiting += further


def _linked(register: Entry | Link) -> tuple[bytes, ...]:
    return (register.email,) if isinstance(register, Link) else register.others


# Names


def name_of(key: str) -> bytes:
    """Of a contact, by one of its ordering keys (`e:`, `x:`), or by Meisa's own id (`i:`)."""
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=NAME_BYTES).digest()


def names_in(contact: Mapping[str, Any]) -> tuple[bytes, ...]:
    """The names by which a body or an answer tells whom it is about; the email's first."""
    email, external_id, at_meisa = (contact.get(field) for field in ("email", "external_id", "id"))
    keys = []
    if isinstance(email, str):
        keys.append(f"e:{email_key(email)}")
    if isinstance(external_id, str):
        keys.append(f"x:{external_id}")
    if isinstance(at_meisa, str):
        keys.append(f"i:{at_meisa}")
    return tuple(map(name_of, keys))


# Facts


def _said(body: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What an upsert sets, path by path. Whatever an answer does not tell under the same path counts as different."""
    for field, value in body.items():
        if field == "email":
            yield field, email_key(value) if isinstance(value, str) else value
        elif field == "custom_fields" and isinstance(value, Mapping):
            yield from ((f"{field}.{key}", each) for key, each in value.items())
        elif field == "tag_names" and isinstance(value, list | tuple):
            yield from ((f"{field}.{name}", True) for name in value)
        elif field != "source":
            yield field, value


def _told(answer: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """What an answer says of what an upsert could set."""
    yield "email", email_key(answer["email"])
    yield from ((path, answer[path]) for path in ("external_id", *PLAIN_PATHS) if path in answer)
    custom_fields = answer.get("custom_fields")
    if isinstance(custom_fields, Mapping):
        yield from ((f"custom_fields.{key}", each) for key, each in custom_fields.items())
    tags = answer.get("tags")
    if isinstance(tags, list):
        yield from ((f"tag_names.{tag['name']}", True) for tag in tags if isinstance(tag, Mapping) and "name" in tag)


# Made once: json.dumps would make one for each fact. What JSON cannot say equals nothing that an answer says.
_text = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=repr).encode


def _fact(path: str, value: Any) -> bytes:
    return blake2b(_text([path, value]).encode(), digest_size=FACT_BYTES).digest()
