"""The outside, as the inside sees it. Each port has a real adapter and a fake, proved by one contract suite."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

from bridge.model import Assigned, Call, Letter, Outcome, Position, Record, SchemaId, TopicPartition, TraceContext


class Clock(Protocol):
    def now(self) -> float:
        """Monotonic seconds."""

    def wall(self) -> float:
        """Unix seconds."""


class Meisa(Protocol):
    """The API, one call at a time. Retries, order and quota are not its business but the delivery's."""

    async def send(self, call: Call) -> Outcome:
        """Makes one call and judges it. Never raises for what the network or the server did.

        A cancelled send may have been carried out: whoever cancels treats it as `Verdict.UNKNOWN`.
        """

    async def close(self) -> None: ...


class SourceListener(Protocol):
    """What a source tells; every method is called on the event loop, in the order in which things happened."""

    def assigned(self, partitions: Sequence[Assigned]) -> None: ...

    def records(self, batch: Sequence[Record]) -> None:
        """Records of one partition come in offset order. Returning lets the source fetch more."""

    async def revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """The partitions go to another owner once this returns: drain, commit, release within the budget.

        The polling thread waits for this and carries out commits meanwhile.
        """

    def lost(self, partitions: Sequence[TopicPartition]) -> None:
        """The partitions are gone already: nothing of them may be committed."""

    def removed(self, partition: TopicPartition, start: int) -> None:
        """Retention or truncation removed everything below `start`, and nothing of it will come any more."""

    def committed(self, positions: Sequence[Position], error: str | None) -> None:
        """The broker acknowledged these positions, or refused them with `error`."""

    def failed(self, message: str, *, fatal: bool) -> None:
        """Something is wrong with the connection. Unless fatal the source goes on trying."""


class Source(Protocol):
    """A consumer group member. It polls for as long as it lives, whatever the listener does."""

    session_seconds: float
    """So long the group waits for a member that is not heard of, before it gives its partitions to others."""

    def start(self, listener: SourceListener) -> None: ...

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """No new records of these. Records already on their way still come."""

    def resume(self, partitions: Sequence[TopicPartition]) -> None: ...

    def commit(self, positions: Sequence[Position]) -> None:
        """Asks for a commit; `listener.committed` tells how it went."""

    def log_ends(self) -> Mapping[TopicPartition, int]:
        """The offset after the last record of owned partitions, as the broker last told; for lag."""

    def partition_counts(self) -> Mapping[str, int]:
        """How many partitions each topic has that the group reads, as the brokers last told.

        Known of every topic when the first partition is assigned; until then, and where a topic does not exist, absent.
        """

    def standstill(self) -> float:
        """The longest time in seconds without a poll since this was asked last; by either clock.

        A process that was suspended learns late that its partitions went to others; this tells it at once.
        """

    async def close(self) -> None:
        """Revokes what is owned (the listener drains and commits), then leaves the group."""


class Letters(Protocol):
    """The dead-letter topic."""

    async def write(self, letter: Letter) -> None:
        """Returns once the broker has acknowledged the letter.

        Raises LetterNotWritten; the letter may have been written all the same (at least once).
        """

    async def close(self) -> None: ...


class Logs(Protocol):
    """Topics read from one offset to another beside the group, and one that is written: for replays."""

    async def bounds(self, topic: str, partition: int) -> tuple[int, int] | None:
        """The lowest offset, and the one after the last; None where there is no such partition. Raises LogFailed."""

    def read(self, topic: str, partition: int, start: int, end: int) -> AsyncGenerator[Sequence[Record], None]:
        """The records from `start` up to but without `end`, in order. Raises LogFailed, also where retention was
        quicker."""

    async def write(self, topic: str, entries: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Returns once the broker has acknowledged keys and values, in this order, in partition 0.

        Raises LogFailed; some may have been written all the same.
        """

    async def close(self) -> None: ...


class LetterLogs(Logs, Protocol):
    """The same for people who look at dead letters, and ask for replays where nobody has before."""

    async def partitions(self, topic: str) -> int:
        """How many the topic has; 0 where there is no such topic. Raises LogFailed."""

    async def create(self, topic: str) -> bool:
        """Makes a compacted topic of one partition if it is missing; True where it did. Raises LogFailed."""


class SchemaText(NamedTuple):
    """A schema as a registry gives it."""

    kind: str
    """AVRO, JSON or PROTOBUF."""
    text: str
    references: tuple[str, ...] = ()
    """The texts of all schemas that it refers to, the innermost first."""


class Registry(Protocol):
    """Knows the schemas that records were written with."""

    where: str
    """For messages."""

    async def schema(self, id: SchemaId) -> SchemaText:
        """Raises UnknownSchema where there is none, and RegistryFailed where that is not known."""

    async def close(self) -> None: ...


Merge = Callable[[str, bytes, bytes], bytes]
"""Name, what is stored, what is to be written: what is kept where somebody else may have written meanwhile."""


class Store(Protocol):
    """Registers: small values by name. What lasts, and who else writes there, is each adapter's business.

    Names begin with what they are: `x:` `e:` `a:` `p:` are the identity table's (core/identity.py). Nothing here waits
    but what is awaited: a value is read at once, once it is *at hand*, and what is put is read back at once, but lasts
    only after `flush`.
    """

    lasting: bool
    """Whether anything outlives this process."""

    local: bool
    """Whether every name is at hand: nothing has to be loaded."""

    def refresh(self) -> bool:
        """True where others may have written since this was asked last: whoever keeps values must read them again."""

    def at_hand(self, name: str) -> bool: ...

    async def load(self, names: Collection[str]) -> None:
        """Brings names to hand; they stay until `refresh` says True. Raises StoreFailed."""

    def get(self, name: str) -> bytes | None:
        """The value; None where there is none. Raises KeyError for a name that is not at hand, and StoreFailed."""

    def put(self, name: str, value: bytes) -> None: ...

    def delete(self, name: str) -> None: ...

    @property
    def dirty(self) -> bool:
        """Whether anything was put that does not last yet."""

    async def flush(self) -> None:
        """Returns once all that was put before lasts: all of it, or nothing where this raises StoreFailed.

        What was not written stays dirty, and is written by the next flush.
        """

    def scan(self, prefix: str) -> AsyncGenerator[tuple[str, bytes], None]:
        """All registers whose names begin so, in no order; may take long, and blocks. Raises StoreFailed."""

    async def close(self) -> None:
        """What is dirty is lost."""


class CountedWindow(NamedTuple):
    """A window of a key's quota, as a ledger counts it."""

    limit: int
    seconds: float
    spare: int
    """Of the limit, for urgent calls only; all others are paced where there is a reserve."""


class PaceRules(NamedTuple):
    """Numbers of core/window.py and core/quota.py, which say what they mean, for a ledger that does the same."""

    parts: int
    gaps: int
    catch_up_share: float
    give_way: float
    recovery_share: float
    full_share: float
    ahead_telling: float


class EndOfCall(NamedTuple):
    """What became of a call that was permitted."""

    permit: str
    ago_seconds: float | None
    """It ended so long ago; negative where the server may count it later still; None where it never left."""


class Brake(NamedTuple):
    """The server's own brake: it answered 429."""

    seconds: float
    """From now."""
    wait_seconds: float | None
    """What the answer asked for (0: nothing), by which the ledger learns why; None where it has learnt already."""


class Ask(NamedTuple):
    """A question to a ledger, and news for it. Permits are named by who asks; a name that ends in `c` is a call's that
    is not urgent and keeps to the pace."""

    windows: tuple[CountedWindow, ...]
    rules: PaceRules
    urgent: tuple[str, ...]
    common: tuple[str, ...]
    ended: tuple[EndOfCall, ...]
    brake: Brake | None
    hold_seconds: float
    """A permit counts as a call that ends so long after it was given, until its end is told."""
    first_use: bool
    """Whoever asks knows that nobody has made a call before, whatever the ledger says."""


class Granted(NamedTuple):
    """A ledger's answer."""

    urgent: int
    """So many of those that were asked for, from the first one on."""
    common: int
    wait_urgent_seconds: float
    """After which it is worth asking again where not all were granted."""
    wait_common_seconds: float
    used: tuple[int, ...]
    most: tuple[int, ...]
    """Each window's limit, or less where somebody else uses the key."""
    brake_seconds: float
    """For which the server's brake is on."""
    lost_seconds: float
    """Above 0 where calls are denied because the ledger had lost what was used: until those count no more."""


class Ledger(Protocol):
    """Counts the calls of a key for all instances of a group, in all windows at once."""

    where: str
    """For messages."""

    async def ask(self, key: str, ask: Ask) -> Granted:
        """Takes note of what has ended, then decides, in one step. `key` names an API key, and is none.

        Raises LedgerFailed; then everything may have been done or nothing.
        """

    async def probe(self) -> None:
        """Raises LedgerFailed where it could not be used. Changes nothing."""

    async def close(self) -> None: ...


Attribute = str | int | float | bool | tuple[str, ...]
"""A value that a span may carry."""
Attributes = Mapping[str, Attribute]
SpanKind = Literal["consumer", "producer", "client"]


class SpanEvent(NamedTuple):
    """Something that happened during a span."""

    name: str
    wall: float
    attributes: Attributes


class Span(NamedTuple):
    """What is told of a piece of work once it has ended."""

    name: str
    kind: SpanKind
    context: TraceContext
    parent: TraceContext | None
    start_wall: float
    end_wall: float
    attributes: Attributes
    error: str = ""
    """Why it failed; empty where it did not."""
    links: Sequence[TraceContext] = ()
    events: Sequence[SpanEvent] = ()


class Tracer(Protocol):
    """Takes ended spans to a collector. Nothing here waits, and nothing raises: what cannot be kept is dropped."""

    def begin(self, parent: TraceContext | None, topic: str) -> TraceContext | None:
        """The identity of a span for a record; None where its trace is not sampled."""

    def within(self, parent: TraceContext) -> TraceContext:
        """The identity of a further span of the same trace."""

    def ended(self, span: Span) -> None: ...

    def dropped(self, count: int) -> None:
        """Spans that were sampled and never begun, because too many are open."""

    async def close(self) -> None:
        """Exports what is still here, within a short time."""


class Meter(Protocol):
    """What is counted. bridge/observe holds the catalogue; labels are the interface's."""

    def consumed(self, topic: str, count: int) -> None: ...

    def finished(self, topic: str, outcome: str) -> None: ...

    def called(self, endpoint: str, status: str, seconds: float) -> None: ...

    def saved(self, cause: str, count: int) -> None:
        """Calls that were not needed: merged, bulk, suppressed …"""

    def delayed(self, lane: str, seconds: float) -> None: ...

    def dead_letter(self, kind: str, rule: str) -> None: ...

    def committed(self, result: str) -> None: ...

    def rebalanced(self, kind: str) -> None: ...

    def reloaded(self, result: str) -> None:
        """The rules were read again: loaded, or refused."""

    def letter_tried(self, result: str) -> None:
        """A dead letter was written, or was not: ok, error."""

    def replayed(self, state: str) -> None:
        """A replay of a dead letter ended."""

    def lost(self, topic: str, count: int) -> None:
        """Offsets that were removed from the topic before they were read."""
