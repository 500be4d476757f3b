"""The records that are produced, the rules that read them, and what each record must lead to.

What must come of a record is written down here by hand, not asked of the rules: the simulation would not notice
otherwise that they plan too little. Every call carries the *place* of its record (partition.generation:offset), so the
ledger knows what each effect at Meisa stands for.
"""

import functools
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import orjson

from bridge import rules
from bridge.model import Action, Contact, Kind, LetterKind, Record, TopicPartition, action_id, email_key
from bridge.rules import RuleBook
from tests.support.simulation.scenario import Scenario
from tests.support.virtual import VirtualClock

TOPIC = "events"
GROUP = "simulated"
MAIL_MAX_AGE = 86_400.0
SHORT_MAX_AGE = 1_800.0

RULES = Path(__file__).with_name("rules.yaml")

_PLANS: dict[str, list[tuple[str, Kind, str]]] = {
    "sync": [("sync", Kind.UPSERT, "")],
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
_WEIGHTS = (30, 8, 3, 2, 12, 12, 4, 4, 4, 6, 4, 3, 3, 2, 3)


@functools.cache
def rule_book() -> RuleBook:
    return rules.load_text(RULES.read_text(), RULES.name)


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
    on_missing: str = "upsert"
    sends: int = 0
    first_sent: float | None = None
    effects: int = 0
    answered_in: tuple[str, int] | None = None
    """The member and assignment epoch in which an answer said that it is done."""
    doubts: int = 0
    """Attempts that may have been carried out, or were answered with 5xx."""
    first_doubt: float | None = None
    first_failure: float | None = None
    failures: int = 0
    refused: str = ""
    suppressed: bool = False
    failed_at: str = ""
    """The endpoint that failed last for it."""
    contact_missing_since: float | None = None
    marked_wall: float | None = None
    """When a commit first told that the trigger starts."""
    forgotten: bool = False
    """A new owner read damaged text: what was told of it is lost, and the email may be repeated."""
    letter_begun: bool = False
    letter_written: bool = False

    @property
    def name(self) -> str:
        key = f" {self.trigger_key}" if self.trigger_key else ""
        return f"{self.kind.value}{key} of {self.entry.place}"


@dataclass(eq=False, slots=True)
class Entry:
    """One record, and what must come of it."""

    record: Record
    place: str
    type: str
    event_wall: float
    acts: list[Act] = field(default_factory=list)
    letter: LetterKind | None = None
    """A letter that it must have besides: decode or rule."""
    letter_written: bool = False
    gone: bool = False
    """Removed by retention, or by recreating the topic, before it was finished: nobody can ask for it any more."""
    read_at: float | None = None
    """When it was first handed to a member."""
    verified: bool = False


def make(scenario: Scenario, dice: random.Random, partition: int, generation: int, offsets: list[int]) -> list[Entry]:
    """Records for these offsets of one partition."""
    emails = [f"{chr(97 + number % 26)}{number}@x" for number in range(scenario.contacts)]
    # Zipf: with all keys distinct, order by key costs nothing and proves nothing.
    weights = [1.0 / (rank + 1) for rank in range(len(emails))]
    # A contact lives in one partition, as with keyed topics; a few events come without a key, and stray.
    here = [place for place in range(len(emails)) if place % scenario.partitions == partition] or [0]
    entries = []
    for offset in offsets:
        stray = dice.random() < 0.05
        who = (
            dice.choices(range(len(emails)), weights)[0] if stray else dice.choices(here, [weights[i] for i in here])[0]
        )
        email = emails[who]
        place = f"{partition}.{generation}:{offset}"
        kind = dice.choices(_TYPES, _WEIGHTS)[0]
        age = dice.choice((0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1_700.0, 100_000.0))
        wall = VirtualClock.WALL_AT_START - age
        data = {
            "email": email if dice.random() < 0.9 else f" {email.upper()}",
            "place": place,
            "seq": offset,
            "fields": {"last": place, place: offset},
        }
        if who % 3 == 0:
            data["id"] = f"id-{who}"
        value: bytes | None = orjson.dumps({"type": kind, "time": _iso(wall), "data": data})
        entry = Entry(None, place, kind, wall)  # type: ignore[arg-type]
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
        timestamp_ms = int(wall * 1000) + generation
        key = None if stray else email.encode()
        entry.record = Record(TOPIC, partition, offset, timestamp_ms, key, value)
        if value is not None and entry.letter is None:
            _expect(entry, email)
        entries.append(entry)
    return entries


def _iso(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).isoformat()


def _expect(entry: Entry, email: str) -> None:
    if entry.type == "partly":
        entry.letter = LetterKind.RULE
    upsert: Act | None = None
    for position, (rule, kind, trigger_key) in enumerate(_PLANS[entry.type]):
        act = Act(entry, position, rule, kind, trigger_key, email_key(email))
        if kind is Kind.TRIGGER:
            act.ordered = rule != "mail-free"
        if kind in (Kind.TRIGGER, Kind.TRACK, Kind.ENROLL):
            act.max_age = SHORT_MAX_AGE if rule == "mail-soon" else MAIL_MAX_AGE
        if kind is Kind.TRACK:
            act.needs = upsert
            act.on_missing = {"moment-waits": "wait", "moment-dead": "dead_letter"}.get(rule, "upsert")
        if kind is Kind.UPSERT:
            upsert = act
        body = {"trigger_key": trigger_key} if trigger_key else {}
        act.identity = action_id(GROUP, entry.record, Action(kind, rule, position, body, Contact()))
        entry.acts.append(act)


def partition_name(partition: int) -> TopicPartition:
    return TopicPartition(TOPIC, partition)
