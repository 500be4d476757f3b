"""State that may be unchanged, and lazy fields: what events say of contacts, and what Meisa must hold for it.

Other upserts set a field of their own, so none of them can be unchanged (events.py). These say few values again and
again, so a call does not tell whose values it carries. They are judged by what Meisa holds instead:

    finished as unchanged   Meisa holds all that the event says, or what a later event of the contact said
    finished as lazy        the same, but for lazy fields
    told by a commit        Meisa has held it since it was produced, or what a later one said (lazy fields: kept)
    in the end              each field is as its last event says; a lazy one after its period

A contact's events are all in one partition: that is what `keyed_by: contact` promises. Where records have no key they
may be in several; between these there is no order.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from bridge.model import Ending, TopicPartition, email_key
from tests.support.simulation.scenario import Known
from tests.support.simulation.world import World

if TYPE_CHECKING:
    from tests.support.simulation.claims import Tenure
    from tests.support.simulation.events import Act, Entry

LAZY_PATH = "custom_fields.last_active"
PLAIN = frozenset({"custom_fields.plan", "custom_fields.seats"})
PATHS = PLAIN | {LAZY_PATH}

TODAY = "today"
"""A value that many events say."""
PLANS = ("free", "standard", "pro")

_RULES = """
  - {name: state, match: state, do: [upsert: &state {
      email: "${data.email}", external_id: "${optional(data.id)}", custom_fields: "${data.fields}"}]}
  - {name: visit, match: visit, do: [{upsert: *state}, {track: *track}]}
  - {name: login, match: login, %s do: [upsert: *state]}
"""


def rules_of(known: Known) -> str:
    """Further rules, behind those of all scenarios."""
    lazy = f"lazy: [{LAZY_PATH}], lazy_every: {known.lazy_every:.0f}s," if known.lazy_every else ""
    return _RULES % lazy


def type_of(known: Known, dice: random.Random) -> str:
    """The type of the next event; empty for one that is no event of state."""
    return dice.choices(("", "state", "login", "visit"), known.weights)[0]


def fields(type_: str, dice: random.Random, place: str, who: int) -> dict[str, Any]:
    """Mostly what was said before of this contact: else hardly anything would be unchanged."""
    said: dict[str, Any] = {}
    if type_ == "login":
        said["last_active"] = place if dice.random() < 0.8 else TODAY
    if type_ != "login" or dice.random() < 0.4:
        said["plan"] = PLANS[who % 3] if dice.random() < 0.6 else dice.choice(PLANS)
    if dice.random() < 0.3:
        said["seats"] = 1 if dice.random() < 0.6 else dice.randrange(3)
    return said


@dataclass(eq=False, slots=True)
class Said:
    """What one event says of its contact's state."""

    entry: Entry
    email: str
    writes: Mapping[str, Any]
    lazy: bool
    """Its rule says what is lazy."""
    alone: bool
    """Nothing else comes of the event."""
    since: float
    act: Act
    """In the place of its upsert; in no list of acts, because no call can be told to be its own."""
    position: int = 0
    letter_begun: bool = False

    @property
    def log(self) -> int:
        return self.entry.record.partition

    @property
    def order(self) -> tuple[int, int]:
        return self.entry.generation, self.entry.record.offset


class Held(NamedTuple):
    """A value at Meisa."""

    value: Any
    since: float
    late: bool
    """It was brought by a call that its sender had given up, or who was the owner no more."""


class States:
    def __init__(self, world: World) -> None:
        self._world = world
        self._said: dict[str, list[Said]] = defaultdict(list)
        self._places: dict[str, list[TopicPartition]] = defaultdict(list)
        self._held: dict[tuple[str, str], list[Held]] = defaultdict(list)
        self.refused: frozenset[str] = frozenset()
        """Contacts of whom Meisa refuses everything: a kept value of one is dropped, with a warning."""
        self.endings = dict.fromkeys((Ending.UNCHANGED, Ending.LAZY), 0)

    def produced(self, name: TopicPartition, entry: Entry) -> None:
        if entry.said is not None:
            self._said[entry.said.email].append(entry.said)
            if name not in self._places[entry.said.email]:
                self._places[entry.said.email].append(name)

    def places(self, email: str) -> list[TopicPartition]:
        """The partitions of a contact's events."""
        return self._places.get(email, [])

    def written(self, email: str, body: Mapping[str, Any], *, late: bool) -> None:
        """An upsert has effect."""
        for path, value in paths(body).items():
            held = self._held[email, path]
            if not held or held[-1].value != value or (held[-1].late and not late):
                held.append(Held(value, self._world.now, late))

    def open(self, email: str) -> list[Act]:
        """Upserts of a contact's state that were read, and are not told to be done yet."""
        entries = (said.entry for said in self._said.get(email, ()))
        return [each.said.act for each in entries if each.said and each.read_at is not None and not each.verified]

    def _now(self, email: str, path: str) -> Any:
        held = self._held.get((email, path))
        return held[-1].value if held else None

    def _later(self, said: Said, path: str) -> Iterable[Said]:
        """Later events of the contact that were read, and those of other partitions."""
        for other in self._said[said.email]:
            if (
                (other.log != said.log or other.order > said.order)
                and path in other.writes
                and other.entry.read_at is not None
            ):
                yield other

    # Checks: each returns what is wrong, empty where nothing is

    def believed(self, said: Said, ending: Ending) -> str:
        """The event is finished without a call of its own."""
        self.endings[ending] += 1
        for path, value in said.writes.items():
            if ending is Ending.LAZY and path == LAZY_PATH:
                continue
            now = self._now(said.email, path)
            if now != value and all(other.writes[path] != now for other in self._later(said, path)):
                return (
                    f"{said.entry.place} ({said.entry.type}) ended as {ending}, but {path} of {said.email} is {now} "
                    f"at Meisa and not {value}"
                )
        return ""

    def lost(self, said: Said) -> str:
        """A commit tells that the event is done with."""
        if said.letter_begun or said.entry.gone:
            return ""
        for path, value in said.writes.items():
            if said.lazy and path == LAZY_PATH:
                continue
            wanted = [value, *(other.writes[path] for other in self._later(said, path))]
            held = self._held.get((said.email, path), [])
            untils = [each.since for each in held[1:]] + [self._world.now]
            if not any(each.value in wanted and until >= said.since for each, until in zip(held, untils, strict=True)):
                return f"{said.entry.place} is told to be done, but Meisa never held {path} = {value} of {said.email}"
        return ""

    def final(self, keeps: Mapping[TopicPartition, bool]) -> str:
        """Where a contact is not as its events say; `keeps`: whether kept values of a partition's contacts last."""
        for email, said in self._said.items():
            for path in sorted(PATHS):
                held = self._held.get((email, path))
                if held and held[-1].late:
                    continue
                if path == LAZY_PATH and email in self.refused:
                    continue
                if path == LAZY_PATH and not all(keeps[place] for place in self._places[email]):
                    if held and self._went_back(said, held):
                        return f"{path} of {email} went back to {held[-1].value}"
                    continue
                now = held[-1].value if held else None
                allowed = self._allowed(said, path)
                if now not in allowed:
                    return f"{path} of {email} is {now} in the end, and not {' or '.join(map(str, allowed))}"
        return ""

    @staticmethod
    def _went_back(said: Iterable[Said], held: list[Held]) -> bool:
        """A kept value may be lost, but it must not come over a newer one."""
        order = {each.writes[LAZY_PATH]: (each.log, each.order) for each in said if LAZY_PATH in each.writes}
        given_up = {each.writes[LAZY_PATH] for each in said if LAZY_PATH in each.writes and each.letter_begun}
        last = held[-1].value
        if last == TODAY or last in given_up or last not in order:
            return False
        log, place = order[last]
        values = (order[each.value] for each in held if each.value != TODAY and each.value in order)
        return any(its_log == log and its_place > place for its_log, its_place in values)

    def _allowed(self, said: list[Said], path: str) -> list[Any]:
        """Between partitions the last to arrive wins."""
        logs = {each.log: None for each in said if path in each.writes}
        parts = [self._allowed_by([each for each in said if each.log == log], path) for log in logs]
        return [value for part in parts for value in part] or [None]

    @staticmethod
    def _allowed_by(said: Iterable[Said], path: str) -> list[Any]:
        writers = [each for each in sorted(said, key=lambda each: each.order) if path in each.writes]
        # What was given up may have been carried out, or comes again after a crash before its letter.
        allowed: list[Any] = [each.writes[path] for each in writers if each.letter_begun]
        for each in reversed(writers):
            allowed.append(each.writes[path])
            if not (each.letter_begun or each.entry.gone):
                return allowed
        return [*allowed, None]


def paths(body: Mapping[str, Any]) -> dict[str, Any]:
    """What an upsert says of these fields."""
    said = {f"custom_fields.{name}": value for name, value in (body.get("custom_fields") or {}).items()}
    return {path: value for path, value in said.items() if path in PATHS}


def made(entry: Entry, act: Act, data: Mapping[str, Any], known: Known, now: float) -> Said:
    """What an event of state says; `act` is the upsert of its rule."""
    writes = {f"custom_fields.{name}": value for name, value in data["fields"].items()}
    lazy = entry.type == "login" and known.lazy_every > 0
    return Said(entry, email_key(data["email"]), writes, lazy, entry.type != "visit", now, act)


def keeps(known: Known, tenures: Iterable[Tenure]) -> bool:
    """Whether kept values of lazy fields outlive what has happened to their partition."""
    owners = list(tenures)
    if known.store == "shared" or len(owners) < 2:
        return True
    # A file of its own tells that nobody came between; damaged text beside a commit says otherwise.
    machines = {owner.member.partition(".")[0] for owner in owners}
    return known.store == "machine" and len(machines) == 1 and all(owner.whole for owner in owners)
