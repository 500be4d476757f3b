"""The five promises (shared as `delivery.md`), checked at every step against what was done in the imagined world.

The ledger knows what must come of every record (events.py) and hears of everything that happens outside the bridge:
calls sent, effects at Meisa, answers that reached a living member, letters, commits, changes of owners. It never looks
into the engine, except that it reads the text of a commit (`claims`), since that text is a statement to the next owner.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from bridge.core.progress import DELIVERED, digest, finished_offsets
from bridge.core.progress import decode as decode_progress
from bridge.model import Call, Kind, Letter, LetterKind, Outcome, TopicPartition, Verdict, email_key
from tests.support.simulation.events import Act, Entry
from tests.support.simulation.scenario import KNOWN_GAPS
from tests.support.simulation.world import World

LOST = "1 nothing lost"
ORDER = "2 order per contact"
DUPLICATES = "3 few duplicates"
ALIVE = "5 always alive"

ACKNOWLEDGEMENT_SECONDS = 60.0
"""A member whose commits are not acknowledged for a session timeout (45 s, noticed 10 s later) must not send."""

COMMIT_SECONDS = 3.0
"""What was answered longer ago than this must stand in an acknowledged commit, unless commits met faults."""


@dataclass(slots=True)
class Claims:
    """What a commit says is done: everything below `offset`, `finished` beyond it, and single actions."""

    offset: int = 0
    finished: frozenset[int] = frozenset()
    delivered: frozenset[tuple[int, int]] = frozenset()

    def cover(self, act: Act) -> bool:
        offset = act.entry.record.offset
        return offset < self.offset or offset in self.finished or (offset, digest(act.identity)) in self.delivered


def claims(offset: int, metadata: str) -> Claims:
    """Reads a commit as the next owner will."""
    progress = decode_progress(offset, metadata) if metadata else None
    if progress is None:
        return Claims(offset)
    finished = frozenset(each for each in finished_offsets(progress) if each >= offset)
    delivered = {(place, each) for place, digests in progress.delivered.items() for each in digests}
    for place, triggers in progress.started.items():
        delivered.update((place, each) for each, wall in triggers.items() if wall == DELIVERED)
    return Claims(offset, finished, frozenset(delivered))


@dataclass(slots=True)
class Tenure:
    """One assignment of a partition to a member."""

    member: str
    epoch: int
    told: Claims
    """What the owner was told by the commit before it."""
    whole: bool
    """Whether that is all that the commit said: not where its text was damaged, or retention moved the offset."""
    answered: list[tuple[float, Act]] = field(default_factory=list)


@dataclass(slots=True)
class Log:
    """A partition as the ledger sees it."""

    entries: dict[int, Entry] = field(default_factory=dict)
    verified: int = 0
    """Everything below was verified to be finished."""
    committed: Claims = field(default_factory=Claims)
    by_contact: dict[str, list[Act]] = field(default_factory=lambda: defaultdict(list))
    tenures: dict[tuple[str, int], Tenure] = field(default_factory=dict)


class Ledger:
    def __init__(self, world: World) -> None:
        self.world = world
        self.logs: dict[TopicPartition, Log] = defaultdict(Log)
        self._acts: dict[tuple[str, Kind, str], Act] = {}
        self._entries: dict[tuple[TopicPartition, int, int], Entry] = {}
        self._owned: dict[str, dict[TopicPartition, int]] = defaultdict(dict)
        self._helpers: dict[str, Act] = {}
        self._trouble: dict[str, float] = {}
        self._unacknowledged: dict[str, float] = {}
        """Member → since when it has asked for commits and had no acknowledgement."""
        self._last_success: dict[str, float] = {}
        self._scope_missing: dict[str, float] = {}
        """Endpoint → since when nothing but 403 came from it."""
        self.emails = 0
        self.effects = 0
        self.repeats = 0
        """Actions carried out more than once; allowed where a call had no answer or an owner was killed."""
        self.letters = 0
        self.commits = 0

    def _broken(self, promise: str, text: str) -> None:
        self.world.break_promise(promise, text)

    # What is produced, and what disappears

    def produced(self, name: TopicPartition, entry: Entry) -> None:
        log = self.logs[name]
        log.entries[entry.record.offset] = entry
        self._entries[name, entry.record.offset, entry.record.timestamp_ms] = entry
        for act in entry.acts:
            self._acts[entry.place, act.kind, act.trigger_key] = act
            if act.ordered:
                log.by_contact[act.email].append(act)

    def removed(self, name: TopicPartition, entry: Entry) -> None:
        entry.gone = True

    def recreated(self, name: TopicPartition) -> None:
        """The topic is another one now, under the same name."""
        log = self.logs[name]
        for entry in log.entries.values():
            entry.gone = True
        log.entries = {}
        log.by_contact = defaultdict(list)
        log.verified = 0
        log.committed = Claims()

    # Owners

    def assigned(self, member: str, name: TopicPartition, epoch: int, offset: int, metadata: str) -> None:
        """`metadata` is what the member was told, damaged or not."""
        log = self.logs[name]
        told = claims(offset, metadata)
        log.tenures[member, epoch] = Tenure(member, epoch, told, whole=told == log.committed)
        if told != log.committed:
            for entry in log.entries.values():
                for act in entry.acts:
                    act.forgotten = act.forgotten or not told.cover(act)
        self._owned[member][name] = epoch

    def read(self, member: str, name: TopicPartition, offset: int) -> None:
        entry = self.logs[name].entries.get(offset)
        if entry is not None and entry.read_at is None:
            entry.read_at = self.world.wall

    def commit_troubled(self, member: str) -> None:
        """A commit meets a fault; those behind it wait with it, of other partitions too."""
        self._trouble[member] = self.world.now

    def commit_asked(self, member: str) -> None:
        self._unacknowledged.setdefault(member, self.world.now)

    def commit_acknowledged(self, member: str) -> None:
        """So is a new assignment: the group's word that the member belongs to it."""
        self._unacknowledged.pop(member, None)

    def given_up(self, member: str, name: TopicPartition, how: str) -> None:
        """The member owns the partition no more: `revoked`, `lost`, or `killed`.

        Lost is also what it gave up without a chance to commit.
        """
        tenure = self._tenure(member, name)
        self._owned[member].pop(name, None)
        if tenure is None or how == "lost":
            return
        now = self.world.now
        patience = 0.0 if how == "revoked" else COMMIT_SECONDS + self.world.scenario.latency
        if how == "killed" and now - self._trouble.get(member, -1e9) < 60.0:
            return
        committed = self.logs[name].committed
        room = self.world.scenario.metadata_bytes_max >= 1024
        for at, act in tenure.answered:
            if act.entry.gone or now - at < patience or committed.cover(act):
                continue
            if room or len(act.entry.acts) == 1:
                self._broken(
                    DUPLICATES,
                    f"{member} was {how} and will have {act.name} sent again, though it was answered "
                    f"{now - at:.1f} s ago: no commit tells of it (committed: {committed.offset})",
                )

    def _tenure(self, member: str, name: TopicPartition) -> Tenure | None:
        return self.logs[name].tenures.get((member, self._owned[member].get(name, -1)))

    # Calls

    def acts(self, call: Call) -> list[Act]:
        """The actions that a call carries out; none for a helper call (the upsert before a track)."""
        body = call.body or {}
        found: list[Act | None] = []
        match call.endpoint:
            case "upsert":
                for place in body.get("custom_fields") or ():
                    if place != "last":
                        found.append(self._acts.get((place, Kind.UPSERT, "")))
                for place in body.get("tag_names") or ():
                    found.append(self._acts.get((place, Kind.ADD_TAG, "")))
            case "track":
                found.append(self._acts.get((body["properties"]["place"], Kind.TRACK, "")))
            case "trigger":
                found.append(self._acts.get((body["variables"]["place"], Kind.TRIGGER, body["trigger_key"])))
            case "enroll":
                found.append(self._acts.get((body["metadata"]["place"], Kind.ENROLL, "")))
            case "add_tag" | "remove_tag":
                found.append(self._acts.get((body["tag_name"], Kind(call.endpoint), "")))
        if None in found:
            self._broken(LOST, f"a call that no record asked for: {call}")
        return [act for act in found if act is not None]

    def sent(self, member: str, call: Call) -> dict[str, int]:
        """Returns under which assignment epochs the call was sent, by the places of its records."""
        acts = self.acts(call)
        epochs = {}
        since = self._unacknowledged.get(member, self.world.now)
        if acts and self.world.now - since > ACKNOWLEDGEMENT_SECONDS:
            self._broken(
                ORDER, f"{member} sends {acts[0].name}, though Kafka has acknowledged nothing since {since:.0f}"
            )
        for act in acts:
            if act.sends == 0:
                act.first_sent = self.world.now
                if act.ordered and not act.entry.gone:
                    self._check_order(act, acts)
            self._check_repeat(member, act)
            tenure = self._tenure(member, _name(act))
            if tenure is not None:
                epochs[act.entry.place] = tenure.epoch
            act.sends += 1
            if act.kind is Kind.TRIGGER and (call.body or {}).get("idempotency_key") != act.identity:
                self._broken(DUPLICATES, f"{act.name} was sent under another key than its own")
        return epochs

    def _check_order(self, act: Act, together: list[Act]) -> None:
        line = self.logs[_name(act)].by_contact[act.email]
        while line and self._settled(line[0]):
            del line[0]
        place = act.entry.record.offset, act.position
        for before in line:
            if (before.entry.record.offset, before.position) >= place:
                return
            if not self._settled(before) and before not in together:
                self._broken(ORDER, f"{act.name} left before {before.name} had ended, both of {act.email}")
                return

    def _check_repeat(self, member: str, act: Act) -> None:
        tenure = self._tenure(member, _name(act))
        if tenure is None or act.entry.gone:
            return
        if act.answered_in == (member, tenure.epoch):
            self._broken(DUPLICATES, f"{member} sends {act.name} again, though it was answered")
        if tenure.told.cover(act):
            self._broken(DUPLICATES, f"{member} sends {act.name} again, though the commit it began with told of it")
        if act.kind is Kind.UPSERT and "flapping" not in KNOWN_GAPS and act.effects and tenure.whole:
            newer = [a for a in self.logs[_name(act)].by_contact[act.email] if a.kind is Kind.UPSERT and a.effects]
            if any(a.entry.record.offset > act.entry.record.offset for a in newer):
                self._broken(ORDER, f"{act.name} is sent again over a newer upsert of {act.email}")

    def effect(self, call: Call, *, email_sent: bool = False) -> None:
        """Meisa carries a call out."""
        self.world.last_effect = self.world.now
        self.effects += 1
        for act in self.acts(call):
            act.effects += 1
            if act.effects > 1:
                self.repeats += 1
            if email_sent:
                self.emails += 1
                if act.effects > 1 and not act.forgotten:
                    self._broken(DUPLICATES, f"{act.name} was emailed twice")

    def answered(self, member: str, call: Call, outcome: Outcome, epochs: dict[str, int]) -> None:
        """An outcome reached a member that lives."""
        now, verdict = self.world.now, outcome.verdict
        acts = self.acts(call)
        if not acts and call.endpoint == "upsert":
            email = email_key((call.body or {})["email"])
            acts = [self._helpers.setdefault(email, Act(None, 0, "", Kind.UPSERT, "", email))]  # type: ignore[arg-type]
        if verdict in (Verdict.DELIVERED, Verdict.REFUSED, Verdict.NEEDS_CONTACT):
            self._scope_missing.pop(call.endpoint, None)
            self._last_success[call.endpoint] = now
        if verdict is Verdict.SCOPE_MISSING:
            self._scope_missing.setdefault(call.endpoint, now)
        for act in acts:
            if verdict is Verdict.DELIVERED:
                if act.entry is not None:
                    self._delivered(member, act, epochs.get(act.entry.place))
            elif outcome.detail == "suppressed":
                act.suppressed = True
            elif verdict is Verdict.REFUSED:
                act.refused = outcome.message
            elif verdict is Verdict.NEEDS_CONTACT:
                act.contact_missing_since = act.contact_missing_since if act.contact_missing_since is not None else now
            elif verdict in (Verdict.RETRY, Verdict.UNKNOWN):
                act.failures += 1
                act.failed_at = call.endpoint
                act.first_failure = now if act.first_failure is None else act.first_failure
                if outcome.sent:
                    act.doubts += 1
                    sent_at = now - self.world.scenario.timeout_seconds
                    act.first_doubt = sent_at if act.first_doubt is None else act.first_doubt

    def _delivered(self, member: str, act: Act, epoch: int | None) -> None:
        tenure = self._tenure(member, _name(act))
        if tenure is None or tenure.epoch != epoch or act.entry.gone:
            return  # of an older assignment: its result counts no more
        act.answered_in = (member, tenure.epoch)
        tenure.answered.append((self.world.now, act))

    # Letters

    def letter_begun(self, letter: Letter) -> None:
        for act in self._letter_acts(letter):
            act.letter_begun = True

    def letter_written(self, member: str, letter: Letter, acknowledged: bool) -> None:
        self.world.last_effect = self.world.now
        entry = self._entry(letter)
        if entry is None:
            return
        self.letters += 1
        if letter.kind in (LetterKind.DECODE, LetterKind.RULE):
            if entry.letter is not letter.kind:
                self._broken(LOST, f"{entry.place} ({entry.type}) was buried as {letter.kind}: {letter.message}")
            entry.letter_written = True
            return
        acts = self._letter_acts(letter)
        if not acts:
            self._broken(LOST, f"a letter of {entry.place} names no action: {letter}")
        for act in acts:
            if not self._may_die(act, letter.kind):
                self._broken(LOST, f"{act.name} was buried as {letter.kind} without a reason: {letter.message}")
            act.letter_written = True

    def _entry(self, letter: Letter) -> Entry | None:
        record = letter.record
        return self._entries.get((TopicPartition(record.topic, record.partition), record.offset, record.timestamp_ms))

    def _letter_acts(self, letter: Letter) -> list[Act]:
        entry = self._entry(letter)
        if entry is None or letter.kind in (LetterKind.DECODE, LetterKind.RULE):
            return []
        return [act for act in entry.acts if act.position in letter.undelivered]

    # What counts as ended

    def _settled(self, act: Act) -> bool:
        """Whether the contact's next action may leave."""
        if act.effects or act.refused or act.suppressed or act.letter_begun or act.entry.gone:
            return True
        return any(self._may_die(act, kind) for kind in LetterKind)

    def _finished(self, act: Act) -> bool:
        """Whether the action needs nothing any more: carried out, deliberately not, or in the dead-letter topic."""
        if act.effects or act.suppressed or act.letter_written or act.entry.gone:
            return True
        if act.max_age is None or act.entry.read_at is None:
            return False
        # Too old already when first read: history. What had to wait here gets a letter.
        read_at = self.world.wall if "expired_silently" in KNOWN_GAPS else act.entry.read_at
        return read_at > act.entry.event_wall + act.max_age

    def _entry_finished(self, entry: Entry) -> bool:
        if entry.gone:
            return True
        if entry.letter is not None and not entry.letter_written:
            return False
        return all(self._finished(act) for act in entry.acts)

    def _may_die(self, act: Act, kind: LetterKind) -> bool:
        """Whether there is a reason for such a letter."""
        now = self.world.now
        if act.needs is not None and self._may_die(act.needs, kind):
            return True
        tries = [act]
        if act.kind in (Kind.TRACK, Kind.ADD_TAG, Kind.REMOVE_TAG) and act.email in self._helpers:
            tries.append(self._helpers[act.email])
        match kind:
            case LetterKind.REJECTED:
                return any(each.refused for each in tries) or self._scope_waited(act)
            case LetterKind.EXHAUSTED:
                return any(self._exhausted(each) for each in tries)
            case LetterKind.EXPIRED:
                return act.max_age is not None and self.world.wall > act.entry.event_wall + act.max_age
            case LetterKind.UNKNOWN_CONTACT:
                since = act.contact_missing_since
                patience = 0.0 if act.on_missing == "dead_letter" else 600.0
                return since is not None and now - since >= patience
            case LetterKind.UNKNOWN_OUTCOME:
                if act.kind is not Kind.TRIGGER:
                    return False
                marked = self.world.wall if act.marked_wall is None else act.marked_wall
                if len(self.logs[_name(act)].tenures) > 1 and self.world.wall - marked >= 3300.0:
                    return True  # whoever marked it may have been killed before or after it left
                if act.first_doubt is None:
                    return False
                return now - act.first_doubt >= 3300.0 or self._exhausted(act)
        return False

    def _scope_waited(self, act: Act) -> bool:
        """Whether the scope of an endpoint that it needs has been missing for the whole wait."""
        endpoints = (
            [act.kind.value] if act.kind in (Kind.UPSERT, Kind.TRIGGER, Kind.ENROLL) else [act.kind.value, "upsert"]
        )
        since = [self._scope_missing[endpoint] for endpoint in endpoints if endpoint in self._scope_missing]
        return bool(since) and self.world.now - min(since) >= self.world.scenario.scope_wait_seconds

    def _exhausted(self, act: Act) -> bool:
        scenario = self.world.scenario
        if act.first_failure is None or act.failures < scenario.attempts:
            return False
        if self.world.now - act.first_failure < scenario.max_age_seconds:
            return False
        return self._last_success.get(act.failed_at, -1.0) > act.first_failure

    # Commits

    def committed(self, member: str, name: TopicPartition, offset: int, metadata: str) -> None:
        """The broker has applied a commit: everything that it says is done must be done."""
        log = self.logs[name]
        log.committed = told = claims(offset, metadata)
        self._note_marks(log, offset, metadata)
        self.commits += 1
        for place in sorted(log.entries.keys() & set(range(log.verified, offset))):
            entry = log.entries[place]
            if not self._entry_finished(entry):
                self._broken(LOST, f"{member} committed {offset} of {name}, but {self._missing([entry])}")
            entry.verified = True
        log.verified = max(log.verified, offset)
        for place in told.finished:
            entry = log.entries.get(place)
            if entry is not None and not entry.verified:
                if not self._entry_finished(entry):
                    self._broken(LOST, f"{member} told of {place} in {name} as finished, but {self._missing([entry])}")
                entry.verified = True
        for place, each in told.delivered:
            entry = log.entries.get(place)
            for act in entry.acts if entry is not None else ():
                if digest(act.identity) == each and not self._finished(act):
                    self._broken(LOST, f"{member} told of {act.name} as delivered, but it was not")

    def _note_marks(self, log: Log, offset: int, metadata: str) -> None:
        progress = decode_progress(offset, metadata) if metadata else None
        for place, triggers in progress.started.items() if progress is not None else ():
            entry = log.entries.get(place)
            for act in entry.acts if entry is not None else ():
                wall = triggers.get(digest(act.identity))
                if wall and act.marked_wall is None:
                    act.marked_wall = wall

    def _missing(self, entries: Iterable[Entry]) -> str:
        parts = []
        for entry in entries:
            acts = [act for act in entry.acts if not self._finished(act)]
            parts += [f"{act.name} was not carried out (sent {act.sends} times)" for act in acts]
            if entry.letter is not None and not entry.letter_written:
                parts.append(f"the {entry.letter} letter of {entry.place} is not written")
        return "; ".join(parts[:5])

    # The end

    def all_done(self) -> bool:
        return all(log.committed.offset > self._last(log) for log in self.logs.values())

    def _last(self, log: Log) -> int:
        entries = log.entries
        if "retention" in KNOWN_GAPS:
            return max((offset for offset, entry in entries.items() if not entry.gone), default=-1)
        return max(entries, default=-1)

    def rest(self) -> str:
        """What is not done and committed."""
        parts = []
        for name, log in self.logs.items():
            last = self._last(log)
            if log.committed.offset <= last:
                open_ = [entry for entry in log.entries.values() if not self._entry_finished(entry)]
                parts.append(f"{name} is committed to {log.committed.offset} of {last + 1}; {self._missing(open_)}")
        return "; ".join(parts)


def _name(act: Act) -> TopicPartition:
    return TopicPartition(act.entry.record.topic, act.entry.record.partition)
