"""The five promises (shared as `delivery.md`), checked at every step against what was done in the imagined world.

The ledger knows what must come of every record (events.py) and hears of everything that happens outside the bridge:
calls sent, effects at Meisa, answers that reached a living member, letters, commits, changes of owners. It never looks
into the engine, except that it reads the text of a commit (claims.py): that is a statement to the next owner.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from bridge.core.progress import decode as decode_progress
from bridge.core.progress import digest
from bridge.model import Call, Ending, Kind, Letter, LetterKind, Outcome, Record, TopicPartition, Verdict, email_key
from tests.support.simulation.claims import Claims, Log, Tenure, claims
from tests.support.simulation.contacts import PRESERVED, Contacts, Parts, StepBack, wrong_with
from tests.support.simulation.events import Act, Entry
from tests.support.simulation.reasons import Reasons
from tests.support.simulation.scenario import KNOWN_GAPS
from tests.support.simulation.states import Said, States, keeps, paths
from tests.support.simulation.world import World

LOST = "1 nothing lost"
ORDER = "2 order per contact"
DUPLICATES = "3 few duplicates"
ALIVE = "5 always alive"
STATE = "30 what Meisa holds"
"""Of the hard cases: state that is not sent, and lazy fields."""

OURS = re.compile(r"mb\d+:")
"""How the bridge's text begins, of whatever version."""

COMMIT_SECONDS = 3.0
"""What was answered longer ago than this must stand in an acknowledged commit, unless commits met faults."""

NOTICE_SECONDS = 1.0
"""So late at most a member learns that a partition is its own no more."""


class Sent(NamedTuple):
    """A call that has left."""

    member: str
    call: Call
    acts: list[Act]
    tenures: dict[tuple[int, int], Tenure]
    """Under which assignments it left, by the logs of its records."""
    at: float
    number: int
    state_tenures: dict[TopicPartition, Tenure]
    """Those of the partitions of the contact's events, where an upsert may say something of its state."""


class Ledger:
    def __init__(self, world: World) -> None:
        self.world = world
        self.logs: dict[TopicPartition, Log] = defaultdict(Log)
        self.reasons = Reasons(world)
        self._parts = Parts()
        self._contacts = Contacts()
        self.states = States(world)
        self._entries: dict[tuple[TopicPartition, int, int], Entry] = {}
        self._owned: dict[str, dict[TopicPartition, int]] = defaultdict(dict)
        self._given_up: dict[tuple[str, TopicPartition], float] = {}
        self._trouble: dict[str, float] = {}
        self._unacknowledged: dict[str, float] = {}
        """Member → since when it has asked for commits and had no acknowledgement."""
        self._calls = 0
        self.emails = 0
        self.effects = 0
        self.repeats = 0
        """Actions carried out more than once; allowed where a call had no answer or an owner was killed."""
        self.letters = 0
        self.commits = 0
        self.merged = 0
        """Upserts that shared a call with others, beyond the first of each call."""
        self.skipped = 0
        """Records that were called duplicates."""
        self.steps_back = 0
        """Older values over newer ones; allowed where a crash left no other way."""

    def _broken(self, promise: str, text: str) -> None:
        self.world.break_promise(promise, text)

    # What is produced, and what disappears

    def produced(self, name: TopicPartition, entry: Entry) -> None:
        log = self.logs[name]
        log.entries[entry.record.offset] = entry
        self._entries[name, entry.record.offset, entry.record.timestamp_ms] = entry
        self.states.produced(name, entry)
        for act in entry.acts:
            if log.unsure:
                act.marked_wall, act.unsure = entry.record.timestamp_ms / 1000, True
            self._parts.add(act)
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
        log.position = None

    # Owners

    def assigned(
        self, member: str, name: TopicPartition, epoch: int, offset: int, committed: int, metadata: str
    ) -> None:
        """`metadata` is what the member was told beside `committed`, damaged or not; it reads on from `offset`."""
        log = self.logs[name]
        told = claims(committed, metadata)
        whole = (committed, metadata) == log.position or (log.position is None and not metadata)
        told.offset = max(told.offset, offset)
        log.owner = log.tenures[member, epoch] = Tenure(member, epoch, told, whole)
        if not whole:
            self._doubt(log, told, metadata)
            if OURS.match(metadata) and "unsure_ahead" in KNOWN_GAPS:
                log.unsure = True
        self._owned[member][name] = epoch

    def _doubt(self, log: Log, told: Claims, metadata: str) -> None:
        """The text is damaged. If it is still known as ours, what it told of triggers is in doubt, else forgotten."""
        ours = OURS.match(metadata) is not None
        for entry in log.entries.values():
            for act in entry.acts:
                if not told.cover(act):
                    act.forgotten = act.forgotten or not ours
                    act.unsure = act.unsure or ours
                    wall = entry.record.timestamp_ms / 1000
                    act.marked_wall = wall if act.marked_wall is None else min(act.marked_wall, wall)

    def read(self, member: str, name: TopicPartition, offset: int) -> None:
        entry = self.logs[name].entries.get(offset)
        tenure = self._tenure(member, name)
        # An earlier reading counts if a commit told of it.
        if entry is not None and (entry.read_at is None or tenure is None or offset >= tenure.told.seen):
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
        now = self.world.now
        tenure = self._tenure(member, name)
        self._owned[member].pop(name, None)
        self._given_up[member, name] = now
        if tenure is None:
            return
        committed = self.logs[name].committed
        untold = [each for each in tenure.answered if not each[1].entry.gone and not committed.cover(each[1])]
        scenario = self.world.scenario
        if len({number for _, _, number in untold}) > scenario.untold_max + scenario.max_in_flight:
            self._broken(DUPLICATES, f"{member} was {how}, and no commit tells of {len(untold)} actions of {name}")
        if how == "lost":
            return
        patience = 0.0 if how == "revoked" else COMMIT_SECONDS + self.world.scenario.latency
        if how == "killed" and now - self._trouble.get(member, -1e9) < 60.0:
            return
        for at, act, _ in untold:
            if now - at < patience:
                continue
            self._broken(
                DUPLICATES,
                f"{member} was {how} and will have {act.name} sent again, though it was answered "
                f"{now - at:.1f} s ago: no commit tells of it (committed: {committed.offset})",
            )

    def _tenure(self, member: str, name: TopicPartition) -> Tenure | None:
        return self.logs[name].tenures.get((member, self._owned[member].get(name, -1)))

    # Calls

    def sent(self, member: str, call: Call) -> Sent:
        """A call leaves."""
        now = self.world.now
        acts = self._parts.of(call)
        if acts is None:
            self._broken(LOST, f"a call that no record asked for: {call}")
            acts = []
        since = self._unacknowledged.get(member, now)
        if acts and now - since > self.world.scenario.session_seconds:  # the group may have another owner
            self._broken(
                ORDER, f"{member} sends {acts[0].name}, though Kafka has acknowledged nothing since {since:.0f}"
            )
        self.merged += max(0, len(acts) - 1)
        known = self.world.scenario.known
        wrong = wrong_with(call, acts, lazy=known is not None and known.lazy_every > 0)
        if wrong:
            self._broken(LOST, f"the call for {', '.join(act.name for act in acts)} is wrong: {wrong}: {call.body}")
        tenures = {}
        for act in acts:
            name = _name(act)
            tenure = self._tenure(member, name)
            if tenure is not None and not act.entry.gone:
                tenures[act.log] = tenure
                self._check_repeat(tenure, act)
                if act.ordered:
                    self._check_order(tenure, act, acts)
            elif tenure is None and now - self._given_up.get((member, name), now) > NOTICE_SECONDS:
                self._broken(ORDER, f"{member} sends {act.name}, though it has given {name} up")
            act.sends += 1
            act.sent_in = tenure
            if act.kind is Kind.TRIGGER and (call.body or {}).get("idempotency_key") != act.identity:
                self._broken(DUPLICATES, f"{act.name} was sent under another key than its own")
        self._calls += 1
        state_tenures = {}
        if call.endpoint == "upsert":
            for place in self.states.places(email_key((call.body or {})["email"])):
                tenure = self._tenure(member, place)
                if tenure is not None:
                    state_tenures[place] = tenure
        return Sent(member, call, acts, tenures, now, self._calls, state_tenures)

    def _check_order(self, tenure: Tenure, act: Act, together: list[Act]) -> None:
        """Whatever its partition has before it for that contact must have ended, for this owner, too."""
        for before in self.logs[_name(act)].by_contact[act.email]:
            if before.order >= act.order:
                return
            if before not in together and not self._over(tenure, before):
                self._broken(ORDER, f"{act.name} left before {before.name} had ended, both of {act.email}")

    def _over(self, tenure: Tenure, act: Act) -> bool:
        if act in tenure.ended or act.entry.gone or act.entry.skipped or act.letter_begun:
            return True
        return tenure.told.cover(act) or self._has_reason(act)

    def _has_reason(self, act: Act) -> bool:
        return self.reasons.any(act, len(self.logs[_name(act)].tenures))

    def _check_repeat(self, tenure: Tenure, act: Act) -> None:
        if act.answered_in is tenure:
            self._broken(DUPLICATES, f"{tenure.member} sends {act.name} again, though it was answered")
        if tenure.told.cover(act):
            self._broken(
                DUPLICATES, f"{tenure.member} sends {act.name} again, though the commit it began with told of it"
            )

    def effect(self, sent: Sent, *, email_sent: bool = False) -> None:
        """Meisa carries a call out."""
        now = self.world.now
        self.world.last_effect = now
        self.effects += 1
        for act in sent.acts:
            act.effects += 1
            if act.effects > 1:
                self.repeats += 1
            elif act.ordered and act.kind is not Kind.UPSERT and not act.entry.gone:
                self._check_barrier(sent, act)
            if email_sent:
                self.emails += 1
                if act.effects > 1 and not act.forgotten:
                    self._broken(DUPLICATES, f"{act.name} was emailed twice")
        if sent.call.endpoint == "upsert":
            self._state_written(sent)
        for step in self._contacts.upserted(sent.call, sent.acts, now):
            self._check_step_back(sent, step)

    def _state_written(self, sent: Sent) -> None:
        body = sent.call.body or {}
        email = email_key(body["email"])
        if self.states.places(email):
            given_up = self.world.now - sent.at > self.world.scenario.timeout_seconds
            owns = [tenure is self.logs[place].owner for place, tenure in sent.state_tenures.items()]
            self.states.written(email, body, late=given_up or not owns or not all(owns))

    def ended(self, member: str, record: Record, ending: Ending) -> None:
        """A member says that it is done with a record."""
        name = TopicPartition(record.topic, record.partition)
        log = self.logs[name]
        entry, owner = log.entries.get(record.offset), log.owner
        if entry is None or owner is None or (owner.member, owner.epoch) != (member, record.epoch):
            return  # nobody believes it
        if ending is Ending.DUPLICATE:
            entry.skipped = True
        said = entry.said
        if said is None or not said.alone or ending not in self.states.endings or not owner.whole:
            return
        wrong = self.states.believed(said, ending)
        if wrong:
            self._broken(STATE, f"{member}: {wrong}")

    def _check_barrier(self, sent: Sent, act: Act) -> None:
        """The contact is as its event found it: with all upserts before it, and none after."""
        if self.world.now - sent.at > self.world.scenario.timeout_seconds or act.letter_begun:
            return  # given up by its sender, or by an earlier owner
        for other in self.logs[_name(act)].by_contact[act.email]:
            if other.kind is not Kind.UPSERT:
                continue
            if other.order > act.order and other.effects:
                self._broken(ORDER, f"{act.name} has effect after {other.name}, both of {act.email}")
            done = other.effects or other.entry.gone or other.entry.skipped or other.letter_begun
            if other.order < act.order and not done and not self._has_reason(other):
                self._broken(ORDER, f"{act.name} has effect before {other.name}, both of {act.email}")

    def _check_step_back(self, sent: Sent, step: StepBack) -> None:
        """No flapping (hard case 22), unless the older one had to be repeated and could not wait for the newer."""
        self.steps_back += 1
        tenure = sent.tenures.get(step.older.log)
        log = self.logs[_name(step.older)]
        if sent.at < step.newer_at or tenure is None or tenure is not log.owner or step.older.entry.gone:
            self._contacts.excuse(step)  # it came late, or its sender learns only now that it owns nothing
            return
        if "given_up" in KNOWN_GAPS and (step.older.letter_begun or self._has_reason(step.older)):
            self._contacts.excuse(step)
            return
        if not tenure.whole or self._kept_apart(tenure, step):
            return
        self._broken(ORDER, f"{sent.member} sends {step.older.name} over {step.newer.name}: {step.path} goes back")

    def _kept_apart(self, tenure: Tenure, step: StepBack) -> bool:
        """Whether something else that has to be done again stands between the two: one call cannot say both then."""
        older, newer = step.older, step.newer
        if newer.sent_in is tenure and newer.answered_in is not tenure:
            return True  # they shared a call whose answers were lost or failed until it was taken apart
        if tenure.told.cover(newer):
            return False
        here = self.logs[_name(older)].by_contact[older.email]
        again = [act for act in here if not tenure.told.cover(act) and not act.entry.gone]
        between = [act for act in again if older.order <= act.order <= newer.order]
        if any(act.kind is not Kind.UPSERT or not act.coalesce for act in between):
            return True
        # What merges first decides what may join it.
        before = [act for act in again if act.kind is Kind.UPSERT and act.order <= newer.order]
        if any(act.bad for act in again) or len({act.external_id for act in before}) > 1:
            return True
        if len({act.writes[PRESERVED] for act in before if PRESERVED in act.writes}) > 1:
            return True
        elsewhere = (log.by_contact[older.email] for name, log in self.logs.items() if name != _name(older))
        return any(act.kind is not Kind.UPSERT or not act.coalesce for acts in elsewhere for act in acts)

    def answered(self, sent: Sent, outcome: Outcome) -> None:
        """An outcome reached a member that lives."""
        self.reasons.heard(sent.call, sent.acts, outcome)
        if sent.call.endpoint == "upsert" and paths(sent.call.body or {}):
            self.reasons.state_heard(sent.call, self.states.open(email_key((sent.call.body or {})["email"])), outcome)
        verdict = outcome.verdict
        if verdict is Verdict.DELIVERED or (verdict is Verdict.REFUSED and len(sent.acts) == 1):
            for act in sent.acts:
                tenure = self._tenure(sent.member, _name(act))
                if tenure is None or tenure is not sent.tenures.get(act.log) or act.entry.gone:
                    continue  # of an older assignment: its result counts no more
                tenure.ended.add(act)
                if verdict is Verdict.DELIVERED:
                    act.answered_in = tenure
                    tenure.answered.append((self.world.now, act, sent.number))

    # Letters

    def letter_begun(self, letter: Letter) -> None:
        said = self._letter_said(letter)
        if said is not None:
            said.letter_begun = True
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
        said = self._letter_said(letter)
        acts += [said.act] if said is not None else []
        if not acts:
            self._broken(LOST, f"a letter of {entry.place} names no action: {letter}")
        for act in acts:
            if not self.reasons.may_die(act, letter.kind, len(self.logs[_name(act)].tenures)):
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

    def _letter_said(self, letter: Letter) -> Said | None:
        entry = self._entry(letter)
        if entry is None or entry.said is None or letter.kind in (LetterKind.DECODE, LetterKind.RULE):
            return None
        return entry.said if entry.said.position in letter.undelivered else None

    # What counts as finished

    def _finished(self, act: Act) -> bool:
        """Whether the action needs nothing any more: carried out, deliberately not, or in the dead-letter topic."""
        if act.effects or act.suppressed or act.letter_written or act.entry.gone:
            return True
        if act.max_age is None or act.entry.read_at is None:
            return False
        # Too old already when first read: history. What had to wait here gets a letter.
        return act.entry.read_at + self.world.scenario.skew > act.entry.event_wall + act.max_age

    def _entry_finished(self, entry: Entry) -> bool:
        if entry.gone or entry.skipped:
            return True
        return self._done(entry)

    def _done(self, entry: Entry) -> bool:
        if entry.letter is not None and not entry.letter_written:
            return False
        return all(self._finished(act) for act in entry.acts)

    # Commits

    def committed(self, member: str, name: TopicPartition, offset: int, metadata: str) -> None:
        """The broker has applied a commit: everything that it says is done must be done."""
        log = self.logs[name]
        log.committed = told = claims(offset, metadata)
        log.position = (offset, metadata)
        self._note_marks(log, offset, metadata)
        self.commits += 1
        for place in sorted(log.entries.keys() & set(range(log.verified, offset))):
            entry = log.entries[place]
            if not self._entry_finished(entry):
                self._broken(LOST, f"{member} committed {offset} of {name}, but {self._missing([entry])}")
            self._check_state(member, entry)
            entry.verified = True
        log.verified = max(log.verified, offset)
        for place in told.finished:
            entry = log.entries.get(place)
            if entry is not None and not entry.verified:
                if not self._entry_finished(entry):
                    self._broken(LOST, f"{member} told of {place} in {name} as finished, but {self._missing([entry])}")
                self._check_state(member, entry)
                entry.verified = True
        for place, each in told.delivered:
            entry = log.entries.get(place)
            for act in entry.acts if entry is not None else ():
                if digest(act.identity) == each and not self._finished(act):
                    self._broken(LOST, f"{member} told of {act.name} as delivered, but it was not")

    def _check_state(self, member: str, entry: Entry) -> None:
        wrong = self.states.lost(entry.said) if entry.said is not None else ""
        if wrong:
            self._broken(LOST, f"{member}: {wrong}")

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
        return all(log.committed.offset > max(log.entries, default=-1) for log in self.logs.values())

    def check_contacts(self) -> None:
        """In the end each contact is as its upserts, in their order, have made it."""
        differs = self._contacts.final(self._all_acts())
        if differs:
            self._broken(ORDER, differs)

    def check_repeats(self) -> None:
        """Of the events with one id at least one was carried out, unless retention took one before it was."""
        groups: dict[str, list[Entry]] = defaultdict(list)
        for entry in self._entries.values():
            if entry.id:
                groups[entry.id].append(entry)
        for id, entries in groups.items():
            if all(entry.skipped and not self._done(entry) for entry in entries):
                self._broken(LOST, f"nothing was done of any event with the id {id}: {[e.place for e in entries]}")
        self.skipped = sum(entry.skipped for entry in self._entries.values())

    def state_differs(self) -> str:
        """Where what Meisa holds is not what the events say in the end."""
        known = self.world.scenario.known
        if known is None:
            return ""
        return self.states.final({name: keeps(known, log.tenures.values()) for name, log in self.logs.items()})

    def check_states(self) -> None:
        differs = self.state_differs()
        if differs:
            self._broken(STATE, differs)

    def _all_acts(self) -> Iterator[Act]:
        for log in self.logs.values():
            for entry in log.entries.values():
                yield from entry.acts

    def rest(self) -> str:
        """What is not done and committed."""
        parts = []
        for name, log in self.logs.items():
            last = max(log.entries, default=-1)
            if log.committed.offset <= last:
                open_ = [entry for entry in log.entries.values() if not self._entry_finished(entry)]
                parts.append(f"{name} is committed to {log.committed.offset} of {last + 1}; {self._missing(open_)}")
        return "; ".join(parts)


def _name(act: Act) -> TopicPartition:
    return TopicPartition(act.entry.record.topic, act.entry.record.partition)
