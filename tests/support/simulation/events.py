"""The records that are produced, the rules that read them, and what each record must lead to.

What must come of a record is written down here by hand, not asked of the rules: the simulation would not notice
otherwise that they plan too little. Every call carries the *place* of its record (partition.generation:offset), so the
ledger knows what each effect at Meisa stands for. An upsert sets a custom field of its own, `@place`: however many
upserts share a call, that tells which. Its other fields overlap with those of others, and each value is its own.
"""

import functools
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from bridge import rules
from bridge.model import Action, Contact, Kind, LetterKind, Record, TopicPartition, action_id, email_key
from bridge.rules import RuleBook
from tests.support.simulation import states
from tests.support.simulation.scenario import Known, Scenario
from tests.support.virtual import VirtualClock

TOPIC = "events"
GROUP = "simulated"
MAIL_MAX_AGE = 86_400.0
SHORT_MAX_AGE = 1_800.0

RULES = Path(__file__).with_name("rules.yaml")

_PLANS: dict[str, list[tuple[str, Kind, str]]] = {
    "sync": [("sync", Kind.UPSERT, "")],
    "sync.each": [("sync-each", Kind.UPSERT, "")],
    "team": [("team", Kind.UPSERT, ""), ("team", Kind.UPSERT, "")],
    "moment": [("moment", Kind.TRACK, "")],
    "moment.waits": [("moment-waits", Kind.TRACK, "")],
    "moment.dead": [("moment-dead", Kind.TRACK, "")],
    "welcome": [("welcome", Kind.UPSERT, ""), ("welcome", Kind.TRACK, ""), ("welcome", Kind.TRIGGER, "welcome")],
    "mail": [("mail", Kind.TRIGGER, "welcome")],
    "mail.soon": [("mail-soon", Kind.TRIGGER, "welcome")],
    "mail.free": [("mail-free", Kind.TRIGGER, "welcome")],
    "mails": [("mails", Kind.TRIGGER, "welcome"), ("mails", Kind.TRIGGER, "second")],
    "course": [("course", Kind.UPSERT, ""), ("course", Kind.ENROLL, "")],
    "tag": [("tag", Kind.ADD_TAG, "")],
    "untag": [("untag", Kind.REMOVE_TAG, "")],
    "partly": [("partly", Kind.UPSERT, "")],
    "seldom": [],
    "unheard.of": [],
}
_TYPES = tuple(_PLANS)
_STATE_PLANS: dict[str, list[tuple[str, Kind, str]]] = {
    "state": [],
    "login": [],
    "visit": [("visit", Kind.TRACK, "")],
}
"""What comes of events of state beside it (states.py)."""
_WEIGHTS = (30, 3, 6, 8, 3, 2, 12, 12, 4, 4, 4, 6, 4, 3, 3, 2, 3)
_BURST_WEIGHTS = (80, 2, 10, 2, 1, 0, 2, 1, 1, 0, 1, 2, 1, 1, 1, 1, 1)
"""Mostly upserts, which merge."""

OWN = "@"
"""Begins the name of the custom field that only one upsert sets."""
TAG = "u:"
"""Begins the name of a tag that an upsert gives; the other tags are named by their record's place."""
SHARED_FIELDS = 4
REPEATED_OF = 12
"""One of so many last ids is repeated."""


@functools.cache
def rule_book(known: Known | None = None) -> RuleBook:
    further = "" if known is None else states.rules_of(known)
    return rules.load_text(RULES.read_text() + further, RULES.name)


@dataclass(eq=False, slots=True)
class Act:
    """One action that must be carried out, and what has become of it so far."""

    entry: "Entry"
    position: int
    rule: str
    kind: Kind
    trigger_key: str
    email: str
    ordered: bool = True
    max_age: float | None = None
    needs: "Act | None" = None
    identity: str = ""
    writes: Mapping[str, Any] = field(default_factory=dict)
    """What an upsert sets, by path: `first_name`, `custom_fields.f1`."""
    tags: tuple[str, ...] = ()
    external_id: str | None = None
    coalesce: bool = True
    bad: str = ""
    """`bad`: Meisa refuses any call that carries it; `sick`: answers it with 500 while there are faults."""
    on_missing: str = "upsert"
    sends: int = 0
    effects: int = 0
    sent_in: object = None
    """The tenure (claims.py) in which it was sent last."""
    answered_in: object = None
    """The tenure in which an answer said that it is done."""
    doubts: int = 0
    """Attempts that may have been carried out, or were answered with 5xx."""
    first_doubt: float | None = None
    first_failure: float | None = None
    failures: int = 0
    failed_alone: bool = False
    """Not only in a call that it shared: then the others may be the cause."""
    refused: str = ""
    suppressed: bool = False
    failed_at: str = ""
    """The endpoint that failed last for it."""
    contact_missing_since: float | None = None
    marked_wall: float | None = None
    """When a commit first told that the trigger starts."""
    unsure: bool = False
    """An owner could not read whether it had started: it may have been sent, and may not be sent when it is too old."""
    forgotten: bool = False
    """A new owner read damaged text: what was told of it is lost, and the email may be repeated."""
    letter_begun: bool = False
    letter_written: bool = False

    own: str = ""
    """Tells it apart from all others of its kind: the place of its record, with a mark on a second one."""

    @property
    def order(self) -> tuple[int, int]:
        """Its place among those of its log."""
        return self.entry.record.offset, self.position

    @property
    def log(self) -> tuple[int, int]:
        """Partition and generation: between two logs there is no order."""
        return self.entry.record.partition, self.entry.generation

    @property
    def name(self) -> str:
        key = f" {self.trigger_key}" if self.trigger_key else ""
        return f"{self.kind.value}{key} of {self.own}"


@dataclass(eq=False, slots=True)
class Entry:
    """One record, and what must come of it."""

    record: Record
    place: str
    type: str
    event_wall: float
    generation: int = 0
    """How often its topic had been recreated."""
    acts: list[Act] = field(default_factory=list)
    said: states.Said | None = None
    """What it says of its contact's state."""
    letter: LetterKind | None = None
    """A letter that it must have besides: decode or rule."""
    letter_written: bool = False
    id: str = ""
    """The event's, where others may have the same."""
    skipped: bool = False
    """Its owner said that it is a duplicate."""
    gone: bool = False
    """Removed by retention, or by recreating the topic, before it was finished: nobody can ask for it any more."""
    read_at: float | None = None
    """When (wall) it was first handed to a member, as far as commits told of it."""
    verified: bool = False


def make(
    scenario: Scenario,
    dice: random.Random,
    now: float,
    partition: int,
    generation: int,
    offsets: list[int],
    ids: list[str],
) -> list[Entry]:
    """Records for these offsets of one partition, produced now. `ids` are those of earlier ones, and grow."""
    emails = [f"{chr(97 + number % 26)}{number}@x" for number in range(scenario.contacts)]
    # Zipf: with all keys distinct, order by key costs nothing and proves nothing.
    weights = [1.0 / (rank + 1) for rank in range(len(emails))]
    # A contact lives in one partition, as with keyed topics; a few events come without a key, and stray.
    here = [place for place in range(len(emails)) if place % scenario.partitions == partition] or [0]
    entries = []
    for offset in offsets:
        stray = dice.random() < scenario.stray
        who, other = (
            dice.choices(range(len(emails)), weights)[0] if stray else dice.choices(here, [weights[i] for i in here])[0]
            for _ in range(2)
        )
        place = f"{partition}.{generation}:{offset}"
        kind = scenario.only or dice.choices(_TYPES, _BURST_WEIGHTS if scenario.bursts else _WEIGHTS)[0]
        if scenario.known is not None:
            kind = states.type_of(scenario.known, dice) or kind
        age = dice.choice((0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1_700.0, 100_000.0))
        wall = VirtualClock.WALL_AT_START - age
        data = _person(scenario, dice, who, emails[who], place)
        data |= {"place": place, "seq": offset}
        if kind in _STATE_PLANS:
            data["fields"] = states.fields(kind, dice, place, who)
        if kind == "team":
            data["other"] = _person(scenario, dice, other, emails[other], f"{place}'")
        entry = Entry(None, place, kind, wall, generation)  # type: ignore[arg-type]
        envelope = {"type": kind, "time": _iso(wall), "data": data}
        if scenario.repeats:
            entry.id = dice.choice(ids[-REPEATED_OF:]) if ids and dice.random() < scenario.repeats else place
            ids.append(entry.id)
            envelope["id"] = entry.id
        value: bytes | None = orjson.dumps(envelope)
        if dice.random() < scenario.bad_records:
            value, entry.type, entry.letter = dice.choice(
                (
                    (None, "tombstone", None),
                    (b"", "empty", LetterKind.DECODE),
                    (b'{"type": ', "cut", LetterKind.DECODE),
                    (b"\xff\xfe", "bytes", LetterKind.DECODE),
                    (b'{"no": "type"}', "untyped", LetterKind.DECODE),
                )
            )
        timestamp_ms = int((VirtualClock.WALL_AT_START + now) * 1000) + generation
        key = None if stray else emails[who].encode()
        if scenario.known is not None and scenario.known.keyed_by_id:
            key = b"c%d" % who
        if scenario.known is not None and scenario.known.keyless:
            key = None
        entry.record = Record(TOPIC, partition, offset, timestamp_ms, key, value)
        if value is not None and entry.letter is None:
            if scenario.known is not None and kind in _STATE_PLANS:
                act = Act(entry, 0, kind, Kind.UPSERT, "", email_key(data["email"]), own=place)
                entry.said = states.made(entry, act, data, scenario.known, now)
            _expect(entry, data)
        entries.append(entry)
    return entries


def _person(scenario: Scenario, dice: random.Random, who: int, email: str, place: str) -> dict[str, Any]:
    """One person as an event knows them, and what it says of them."""
    fields: dict[str, Any] = {"last": place, f"{OWN}{place}": 1}
    for number in dice.sample(range(SHARED_FIELDS), dice.randrange(SHARED_FIELDS)):
        fields[f"f{number}"] = place
    if dice.random() < 0.15 and scenario.variety:
        fields["stage"] = dice.choice(("trial", "paying"))  # preserved
    if dice.random() < scenario.bad_upserts:
        fields[dice.choice(("bad", "sick"))] = place
    person: dict[str, Any] = {"email": email if dice.random() < 0.9 else f" {email.upper()}", "fields": fields}
    if who % 3 == 0 and (dice.random() < 0.9 or not scenario.variety or scenario.known is not None):
        person["id"] = f"id-{who}"
    if dice.random() < 0.3:
        person["first"] = place
    if dice.random() < 0.3:
        person["tags"] = [f"{TAG}{place}"]
    if dice.random() < 0.2:
        person["source"] = dice.choice(("signup", "import"))
    return person


def _iso(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).isoformat()


def _expect(entry: Entry, data: Mapping[str, Any]) -> None:
    if entry.type == "partly":
        entry.letter = LetterKind.RULE
    upsert = entry.said.act if entry.said is not None else None
    state = entry.type in _STATE_PLANS
    plan = _STATE_PLANS[entry.type] if state else _PLANS[entry.type]
    for position, (rule, kind, trigger_key) in enumerate(plan, start=int(state)):
        second = entry.type == "team" and position == 1
        person = data["other"] if second else data
        act = Act(entry, position, rule, kind, trigger_key, email_key(person["email"]))
        act.own = f"{entry.place}'" if second else entry.place
        if kind is Kind.TRIGGER:
            act.ordered = rule != "mail-free"
        if kind in (Kind.TRIGGER, Kind.TRACK, Kind.ENROLL):
            act.max_age = SHORT_MAX_AGE if rule == "mail-soon" else MAIL_MAX_AGE
        if kind is Kind.TRACK:
            act.needs = upsert
            act.on_missing = {"moment-waits": "wait", "moment-dead": "dead_letter"}.get(rule, "upsert")
        if kind is Kind.UPSERT:
            upsert = act
            _write(act, person)
        body = {"trigger_key": trigger_key} if trigger_key else {}
        action = Action(kind, rule, position, body, Contact(), occurrence=int(second))
        act.identity = action_id(GROUP, entry.record, action)
        entry.acts.append(act)


def _write(act: Act, person: Mapping[str, Any]) -> None:
    writes = {f"custom_fields.{name}": value for name, value in person["fields"].items()}
    if "first" in person:
        writes["first_name"] = person["first"]
    if "source" in person:
        writes["source"] = person["source"]
    act.writes = writes
    act.tags = tuple(person.get("tags", ()))
    act.external_id = person.get("id")
    act.coalesce = act.rule != "sync-each"
    act.bad = next((name for name in ("bad", "sick") if name in person["fields"]), "")


def partition_name(partition: int) -> TopicPartition:
    return TopicPartition(TOPIC, partition)
