"""The values that all rooms share: record → event → action → call → outcome, and what ends them.

Nothing here does anything; nothing here imports another room. Times of the world are wall seconds (Unix) where a name
says `wall` and monotonic seconds where it says `now`; durations end in `_seconds`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Any, NamedTuple


class TopicPartition(NamedTuple):
    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}"


class Record(NamedTuple):
    """One Kafka record, bytes as they came. A NamedTuple: intake makes hundreds of thousands of these a second."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    """Milliseconds since 1970, as the broker gives it; -1 where the record has none."""
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    epoch: int = 0
    """The assignment epoch under which the record was read; a finish from an older one is ignored."""

    @property
    def place(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


UNREADABLE_HEADERS: tuple[tuple[str, bytes | None], ...] = (("meisa-bridge.unreadable", None),)
"""Stands for headers that the Kafka client cannot give, because the name of one is not UTF-8; told by identity."""

SchemaId = int | str
"""How a registry names a schema: a number, or a GUID as text."""


class FromRecord:
    """Shows the parts of its record under the names that expressions and handlers use."""

    __slots__ = ()
    record: Record

    @property
    def topic(self) -> str:
        return self.record.topic

    @property
    def partition(self) -> int:
        return self.record.partition

    @property
    def offset(self) -> int:
        return self.record.offset

    @property
    def timestamp(self) -> int:
        """The record's timestamp in milliseconds since 1970; -1 where it has none."""
        return self.record.timestamp_ms

    @property
    def key(self) -> str | None:
        """The record's key as text; undecodable bytes are replaced (order is kept by contact, never by this)."""
        key = self.record.key
        return None if key is None else key.decode("utf-8", "replace")

    @property
    def headers(self) -> dict[str, str]:
        """The record's headers as text, the last of a repeated name winning; a null header is left out."""
        return {name: value.decode("utf-8", "replace") for name, value in self.record.headers if value is not None}


class Event(FromRecord):
    """A decoded domain event, and what `@handles` functions receive.

    `time` is ISO 8601 text; `time_wall_seconds` the same as Unix seconds, for ages. `data` is what the producer sent,
    usually a dict. `value` is the whole decoded value around it.
    """

    __slots__ = ("data", "id", "record", "source", "subject", "time", "time_wall_seconds", "type", "value")

    def __init__(
        self,
        *,
        id: str,
        type: str,
        time: str,
        time_wall_seconds: float,
        data: Any,
        record: Record,
        value: Any = None,
        source: str | None = None,
        subject: str | None = None,
    ) -> None:
        self.id = id
        self.type = type
        self.time = time
        self.time_wall_seconds = time_wall_seconds
        self.data = data
        self.record = record
        self.value = value
        self.source = source
        self.subject = subject

    def __repr__(self) -> str:
        return f"<Event {self.type} {self.record.place}>"  # never its data: that names people


class Kind(StrEnum):
    """What an action does at Meisa; also the names of actions in YAML."""

    UPSERT = "upsert"
    TRACK = "track"
    TRIGGER = "trigger"
    ENROLL = "enroll"
    ADD_TAG = "add_tag"
    REMOVE_TAG = "remove_tag"


class Lane(StrEnum):
    """Priority classes that share the quota, most urgent first."""

    TRANSACTIONAL = "transactional"
    SYNC = "sync"
    BULK = "bulk"


@lru_cache(maxsize=32_768)  # asked several times for each action; the addresses of some minutes fit, in 5 MB
def email_key(email: str) -> str:
    """Emails compare trimmed and case-folded (delivery.md, 25)."""
    return email.strip().casefold()


class Contact(NamedTuple):
    """Whom an action is about, by any of the names a person has."""

    email: str | None = None
    external_id: str | None = None
    aliases: tuple[tuple[str, str], ...] = ()
    also: tuple[str, ...] = ()
    """Further ordering keys: names that the person had, or has beside these (core/identity.py)."""

    def ordering_keys(self) -> tuple[str, ...]:
        """The names that order is kept by."""
        names = self.names()
        return (*names, *(name for name in self.also if name not in names)) if self.also else names

    def names(self) -> tuple[str, ...]:
        """The names that the contact has now; the prefix keeps an id `7` and an alias `7` apart."""
        keys = []
        if self.external_id is not None:
            keys.append(f"x:{self.external_id}")
        if self.email is not None:
            keys.append(f"e:{email_key(self.email)}")
        for alias, value in self.aliases:
            keys.append(f"a:{alias}:{value}")
        return tuple(keys)


@dataclass(frozen=True, slots=True)
class Handling:
    """How actions of one rule are delivered; made once when rules are loaded, shared by all their actions."""

    lane: Lane = Lane.SYNC
    max_age_seconds: float | None = None
    """Counted from the event's time; None turns it off."""
    on_missing: str = "upsert"
    """What a track does when Meisa knows no such contact: upsert | wait | dead_letter."""
    on_suppressed: str = "finish"
    """finish | dead_letter"""
    ordered: bool = True
    """False only for a trigger with `order: independent`."""
    coalesce: bool = True
    preserve: tuple[str, ...] = ()
    linger_seconds: float = 0.0
    lazy: tuple[str, ...] = ()
    lazy_every_seconds: float = 86_400.0


DEFAULT_HANDLING = Handling()


@dataclass(frozen=True, slots=True)
class Action:
    """One planned Meisa operation of one event."""

    kind: Kind
    rule: str
    position: int
    """Its place in the event's plan, from 0; dead letters name undelivered actions by it."""
    body: Mapping[str, Any]
    """The API's own fields, validated; absent ones are left out."""
    contact: Contact
    handling: Handling = DEFAULT_HANDLING
    occurrence: int = 0
    """How many actions of the same rule, kind and trigger_key stand before it in the plan."""
    needs: int | None = None
    """The position of the upsert of the same event without which it makes no sense (track and tags)."""


class RuleFailure(NamedTuple):
    """A rule that could not be applied to an event; that rule alone fails."""

    rule: str
    message: str
    path: str = ""


class Plan(NamedTuple):
    """What the rules make of one event."""

    actions: tuple[Action, ...] = ()
    failures: tuple[RuleFailure, ...] = ()
    unmet: int = 0
    """Rules that matched by type, but whose `when` was false."""
    missing: int = 0
    """Of those, rules whose `when` was false because it named a field that the event lacks."""


EMPTY_PLAN = Plan()


def action_id(group: str, record: Record, action: Action) -> str:
    """Identifies one action for ever; also a trigger's idempotency key.

    A hash of group, topic, partition, offset, record timestamp, key and value, rule name, action kind, trigger_key and
    occurrence. Never of a position in a file or of rendered values: rules may be edited between a crash and a replay,
    and the same email must still carry the same key.
    """
    digest = hashlib.blake2b(digest_size=16)
    trigger_key = str(action.body.get("trigger_key", ""))
    head = (group, record.topic, str(record.partition), str(record.offset), str(record.timestamp_ms))
    tail = (action.rule, action.kind.value, trigger_key, str(action.occurrence))
    for part in (*(text.encode() for text in head), record.key, record.value, *(text.encode() for text in tail)):
        # The length goes in front, and None differs from empty: no two lists of parts run together.
        digest.update(b"-" if part is None else b"%d:" % len(part))
        digest.update(part or b"")
    return digest.hexdigest()


class Call(NamedTuple):
    """One HTTP request to Meisa, by the name of its endpoint in the catalogue."""

    endpoint: str
    body: Mapping[str, Any] | None = None
    contact_id: str | None = None
    """Goes into the path of the two tag endpoints."""
    key: str = "default"
    """Which API key, and so which quota: an action kind or `default`."""
    leave_by: float = math.inf
    """Later (monotonic) not one byte of it may leave: its permit has run out."""


class Verdict(StrEnum):
    """How an answer, or the lack of one, is judged. One table does that: bridge/meisa/judge.py."""

    DELIVERED = "delivered"
    RETRY = "retry"
    """5xx, or known never to have been sent."""
    REFUSED = "refused"
    """Final: the same request fails again."""
    NEEDS_CONTACT = "needs_contact"
    KEY_REFUSED = "key_refused"
    SCOPE_MISSING = "scope_missing"
    THROTTLED = "throttled"
    """Never an attempt."""
    WITHHELD = "withheld"
    """Kept back by the bridge itself right before the first byte; never an attempt, and known not to have been sent."""
    SPARED = "spared"
    """Not made, and never to be: how it would end is known. Never an attempt."""
    UNKNOWN = "unknown"
    """Sent, and no whole answer came: it may have been carried out."""


class Outcome(NamedTuple):
    """What became of one call."""

    verdict: Verdict
    status: int | None = None
    """The HTTP status; None where no whole answer came."""
    message: str = ""
    """Meisa's human-readable reason, or the fault's; never a key."""
    detail: str = ""
    """Finer than the verdict: sent, scheduled, skipped, already_enrolled, suppressed, never_sent …"""
    retry_after_seconds: float | None = None
    contact_id: str | None = None
    data: Any = None
    """The parsed answer, or its text."""
    date_wall_seconds: float | None = None
    """Meisa's own clock, from the answer's Date header (assumed)."""
    each: Mapping[str, Outcome] | None = None
    """Of a bulk call that was carried out: what became of each address that it tells of, by `email_key`."""

    @property
    def sent(self) -> bool:
        return self.detail != "never_sent"


class Ending(StrEnum):
    """What ended an action, and by the most serious of its actions an event; a label of the metrics."""

    DELIVERED = "delivered"
    MERGED = "merged"
    UNCHANGED = "unchanged"
    LAZY = "lazy"
    FILTERED = "filtered"
    EXPIRED = "expired"
    SUPPRESSED = "suppressed"
    DUPLICATE = "duplicate"
    DEAD_LETTERED = "dead_lettered"


class LetterKind(StrEnum):
    """Why a record is a dead letter."""

    DECODE = "decode"
    RULE = "rule"
    REJECTED = "rejected"
    EXHAUSTED = "exhausted"
    EXPIRED = "expired"
    UNKNOWN_CONTACT = "unknown_contact"
    UNKNOWN_OUTCOME = "unknown_outcome"


class Result(NamedTuple):
    """How one action ended. `letter` is set exactly where `ending` is DEAD_LETTERED."""

    ending: Ending
    letter: LetterKind | None = None
    status: int | None = None
    message: str = ""
    attempts: int = 0
    request: Mapping[str, Any] | None = None
    response: Any = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Letter:
    """A record that goes to the dead-letter topic, and why."""

    record: Record
    kind: LetterKind
    message: str
    rule: str = ""
    action: str = ""
    status: int | None = None
    request: Mapping[str, Any] | None = None
    response: Any = None
    attempts: int = 0
    failed_at_wall_seconds: float = 0.0
    undelivered: tuple[int, ...] = ()
    undelivered_ids: tuple[str, ...] = ()


class TraceContext(NamedTuple):
    """Which span of which trace, as W3C Trace Context carries it in headers."""

    trace_id: int
    span_id: int
    sampled: bool = True
    state: str = ""
    """`tracestate`, as it came."""


class Position(NamedTuple):
    """What is committed for one partition: the frontier, and the progress beyond it as text."""

    partition: TopicPartition
    offset: int
    metadata: str = ""
    epoch: int = 0
    """The assignment that asks: a commit of an older one must not reach the broker."""
    serial: int = 0
    """Which request asks; tells an answer to a later one from an answer that was long under way."""


@dataclass(frozen=True, slots=True)
class Assigned:
    """A partition that this instance owns from now on."""

    partition: TopicPartition
    epoch: int
    offset: int | None = None
    """Where reading starts if that is known: the committed offset, or what `start` resolves to."""
    metadata: str = ""
    """What was committed beside the offset. Untrusted."""
    fresh: bool = False
    """`offset` is not what is committed: the group had none here, or retention has passed it."""
    committed: int | None = None
    """The committed offset that `metadata` belongs to, where reading starts at another one."""
    topic_hash: int | None = None
    """Four bytes of a hash of the topic's id, which a topic created anew does not keep; None where it is not known."""
    former: tuple[int, str] | None = None
    """What was committed for a former topic of this name, with its text: only the quota's spend still counts."""


@dataclass(slots=True)
class Waiting:
    """One reason why work waits, for status and metrics."""

    reason: str
    """Short and stable: quota, retry, key_refused, scope_missing, throttled, dead_letters, kafka …"""
    count: int = 0
    until_now_seconds: float | None = None
    detail: str = field(default="")
