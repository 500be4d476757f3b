"""Says what came of a run: what was produced, against what the sandbox received. It knows nothing of the bridge but how
a commit is read.

`bridge/sandbox/audit.py` says what must have arrived; this says more of how, because after a crash calls come again:

- an *effect* is a call that Meisa carried out (or knew already: an enrollment, or a trigger by its key). It stands for
  one action, or for several upserts of a contact that were merged; it says which (contributions.py);
- the *first* effects of a contact's actions must be in the order of the events, whatever is repeated in between, and an
  upsert says what its events say, the last word on each field;
- an action comes *again* with every further effect that stands for it. It may be only what the commits at a crash did
  not tell. An effect that stands for nothing new is a repeated call; one that stands for something new besides was
  needed, and is counted by itself;
- an upsert sets a contact *back* where a later event's upsert had come before. That may be only where something else
  than an upsert was due between the two: it is repeated too, and must meet the state that its event found.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from bridge.core.progress import digest
from bridge.model import Action, Contact, Kind, Record, action_id
from bridge.sandbox.audit import ALREADY_ENROLLED, EXPECTED_LETTERS
from bridge.sandbox.stream import SampleEvent
from tests.support.chaos.fleet import Moment, Place
from tests.support.chaos.plans import PLANS, RULES, TAG, TRIGGER_KEYS, runs, says
from tests.support.contributions import contributions, tag

UNKNOWN: Final = "unknown_outcome"

TAGS: Final = ("add_tag", "remove_tag")

CallName = tuple[str, str, int]
"""Endpoint, user, number of the user's event."""


@dataclass(slots=True)
class Judgement:
    """Lists hold what is wrong, in words; counters what is to be published."""

    events: int = 0
    actions: int = 0
    """That had an effect."""
    effects: int = 0
    merged: int = 0
    """Actions that had no call of their own when they first came: they rode in a later one's."""
    lost: list[str] = field(default_factory=list)
    disorder: list[str] = field(default_factory=list)
    """First effects of a contact that came after a later event's."""
    wrong_calls: list[str] = field(default_factory=list)
    """Upserts that do not say what their events say."""
    wrong_state: list[str] = field(default_factory=list)
    """Contacts that do not end as their last events have them."""
    emails_twice: list[str] = field(default_factory=list)
    wrong_letters: list[str] = field(default_factory=list)
    repeats: list[str] = field(default_factory=list)
    """Calls that stand for nothing new."""
    partly: list[str] = field(default_factory=list)
    """Calls that stand for something new, and for something that had come before."""
    again: int = 0
    """Actions that came again, in either kind of call."""
    told_repeats: list[str] = field(default_factory=list)
    """Of both, calls with an action that a commit had told as done before."""
    told_by_member: Counter[str] = field(default_factory=Counter)
    sudden_repeats: list[str] = field(default_factory=list)
    """Of both, calls with an action whose last effect nobody doubts, and since which no bridge had come or gone."""
    unanswered_repeats: int = 0
    """Of both, calls whose earlier answer the bridge did not get, because the API lost it."""
    recognised: int = 0
    """Of both, triggers that Meisa knew by their key: no second email."""
    set_back: list[str] = field(default_factory=list)
    """Upserts that set a contact back to an earlier event's state for a moment, for no reason."""
    set_back_by_member: Counter[str] = field(default_factory=Counter)
    set_back_across: int = 0
    """Upserts that did so because something else than an upsert was due before the later event's."""
    repeats_by_member: Counter[str] = field(default_factory=Counter)
    at_risk: int = 0
    """Actions carried out, not told by commits when a bridge crashed, over all crashes: only these may come again."""
    unknown_outcome: int = 0
    letters: Counter[str] = field(default_factory=Counter)
    letters_again: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    @property
    def broken(self) -> list[str]:
        """What never may be, whatever the fault."""
        wrong = (self.lost, self.disorder, self.wrong_calls, self.wrong_state, self.emails_twice, self.wrong_letters)
        return [line for lines in wrong for line in lines]


class Judge:
    """One run's events and places; `judge` compares them with what arrived."""

    def __init__(
        self, group: str, topic: str, produced: Sequence[SampleEvent], places: Mapping[tuple[str, int], Place]
    ) -> None:
        self._group = group
        self._topic = topic
        self._produced = produced
        self._places = places
        self._events = {(event.user, event.sequence): event for event in produced}
        self._at = {(place.partition, place.offset): name for name, place in places.items()}
        self._types: dict[tuple[str, int], str] = {}
        self._runs = runs(produced)
        self._users: dict[str, str] = {}
        self._tag_owed: dict[tuple[str, str], list[int]] = defaultdict(list)
        """Endpoint and user → numbers of the events that ask for this tag call: the calls themselves cannot say."""
        for event in produced:
            if event.poison is None:
                value = orjson.loads(event.value)
                self._types[event.user, event.sequence] = value["type"]
                self._users[value["data"]["email"]] = self._users[event.user] = event.user
                for endpoint in PLANS[value["type"]]:
                    if endpoint in TAGS:
                        self._tag_owed[endpoint, event.user].append(event.sequence)

    def judge(
        self,
        ledger: Iterable[Mapping[str, Any]],
        emails: Iterable[Mapping[str, Any]],
        contacts: Iterable[Mapping[str, Any]],
        letters: Iterable[Any],
        moments: Sequence[Moment],
    ) -> Judgement:
        found = Judgement(events=len(self._produced))
        firsts = self._effects(found, list(ledger), moments)
        excused = self._letters(found, letters)
        self._completeness(found, firsts, excused)
        self._emails(found, emails)
        self._contacts(found, contacts)
        found.at_risk = self._at_risk(firsts, moments)
        return found

    # Calls

    def _effects(
        self, found: Judgement, ledger: Sequence[Mapping[str, Any]], moments: Sequence[Moment]
    ) -> dict[CallName, int]:
        """The first effect of every action, as its entry's number in the ledger; repeats are judged on the way."""
        firsts: dict[CallName, int] = {}
        newest: dict[str, tuple[int, int]] = {}
        newest_upsert: dict[str, int] = {}
        tags: Counter[tuple[str, str]] = Counter()
        doubtful: Counter[CallName] = Counter()
        latest: dict[CallName, int] = {}
        for entry in ledger:
            endpoint = str(entry["endpoint"])
            if endpoint == "ping":
                continue
            known = entry["repeated"] or (endpoint == "enroll" and entry["status"] == ALREADY_ENROLLED)
            if not entry["carried_out"] and not known:
                found.refused[f"{endpoint} {entry['status'] or 'unanswered'}"] += 1
                continue
            calls = self._calls(entry, tags)
            if not calls:
                continue
            found.effects += 1
            if calls[-1][0] == "upsert":
                self._upsert(found, entry, calls, newest_upsert)
            again = [call for call in calls if call in firsts]
            if again:
                self._again(found, entry, calls, {call: latest[call] for call in again}, doubtful, moments)
            else:
                found.merged += len(calls) - 1
            for call in calls:
                latest[call] = int(entry["number"])
                if call not in firsts:
                    firsts[call] = latest[call]
                    self._first(found, call, newest)
                # The bridge learns of an effect by a whole answer below 500 only.
                if entry["status"] >= 500 or not entry["answered"] or entry["fault"].startswith(("cut", "hang")):
                    doubtful[self._doubt(call)] += 1
        found.actions = len(firsts)
        return firsts

    def _first(self, found: Judgement, call: CallName, newest: dict[str, tuple[int, int]]) -> None:
        """An action has its first effect: everything before it, of the same user, must have had its own."""
        endpoint, user, number = call
        if endpoint in TAGS:
            return  # which event a tag is of is a guess
        step = PLANS[self._types[user, number]].index(endpoint)
        before = newest.get(user, (0, 0))
        if (number, step) < before:
            found.disorder.append(f"{user}: {endpoint} of event {number} came first after event {before[0]}")
        newest[user] = max(before, (number, step))

    def _upsert(
        self, found: Judgement, entry: Mapping[str, Any], calls: Sequence[CallName], newest: dict[str, int]
    ) -> None:
        """An upsert says what its events say, and does not take a contact back."""
        _, user, number = calls[-1]
        words = f"{user}: upsert of event {_numbers(calls)} (entry {entry['number']}, by {entry['key']})"
        due: dict[str, Any] = {}
        for endpoint, _, each in calls:
            if endpoint == "upsert":
                due |= says(self._events[user, each])
        said = entry["body"]["custom_fields"]
        if said != due:
            wrong = {name: (said.get(name), due.get(name)) for name in {*said, *due} if said.get(name) != due.get(name)}
            found.wrong_calls.append(f"{words} says {wrong} (is, should be)")
        before = newest.get(user, number)
        if number < before:
            if self._runs[user, number] == self._runs[user, before]:
                found.set_back.append(f"{words} came after that of event {before}")
                found.set_back_by_member[str(entry["key"])] += 1
            else:
                found.set_back_across += 1
        newest[user] = max(before, number)

    @staticmethod
    def _doubt(call: CallName) -> CallName:
        """Whose doubt a lost answer is: the call's, or for tags, which cannot tell their event, the contact's."""
        endpoint, user, _ = call
        return (endpoint, user, 0) if endpoint in TAGS else call

    def _calls(self, entry: Mapping[str, Any], tags: Counter[tuple[str, str]]) -> list[CallName]:
        """The actions that an effect stands for, in the order of their events; none where nobody asked for it."""
        endpoint, body = str(entry["endpoint"]), entry.get("body") or {}
        named = body.get("email") or body.get("to_email") or body.get("external_id") or entry["contact"]
        user = self._users.get(str(named))
        if user is None:
            return []
        if endpoint in TAGS:
            return self._tag(endpoint, user, tags)
        # A tag rides on an upsert: first, or alone, for a track stands between any upsert of its event and it.
        rode = endpoint == "upsert" and TAG in (body.get("tag_names") or ())
        calls = self._tag("add_tag", user, tags) if rode else []
        numbers = contributions(body) if endpoint == "upsert" else [_number(body) or 0]
        return calls + [(endpoint, user, number) for number in numbers if endpoint in self._plan(user, number)]

    def _tag(self, endpoint: str, user: str, tags: Counter[tuple[str, str]]) -> list[CallName]:
        owed = self._tag_owed[endpoint, user]
        tags[endpoint, user] += 1
        # More calls than owed are repeats, of the last one as far as anybody can tell.
        return [(endpoint, user, owed[min(tags[endpoint, user], len(owed)) - 1])] if owed else []

    def _plan(self, user: str, number: int) -> tuple[str, ...]:
        type = self._types.get((user, number))
        return PLANS[type] if type is not None else ()

    def _again(
        self,
        found: Judgement,
        entry: Mapping[str, Any],
        calls: Sequence[CallName],
        again: Mapping[CallName, int],
        doubtful: Counter[CallName],
        moments: Sequence[Moment],
    ) -> None:
        """An effect stands for actions that had one before; `again` tells with which entry they last had one."""
        member, (endpoint, user, _) = str(entry["key"]), calls[-1]
        words = f"{user}: {endpoint} of event {_numbers([*again])} (entry {entry['number']}, by {member})"
        (found.repeats if len(again) == len(calls) else found.partly).append(words)
        found.repeats_by_member[member] += 1
        found.again += len(again)
        before = [moment for moment in moments if moment.calls < int(entry["number"])]
        undoubted = [call for call in again if not doubtful[self._doubt(call)]]
        found.unanswered_repeats += not undoubted
        for call in again:
            doubtful[self._doubt(call)] = max(0, doubtful[self._doubt(call)] - 1)
        found.recognised += bool(entry.get("repeated"))
        sure = [call for call in again if call[0] not in TAGS]  # which event a tag repeats is a guess
        if any(not before or again[call] > before[-1].calls for call in undoubted if call in sure):
            found.sudden_repeats.append(words)
        told = [call for call in sure if before and self._is_told(call, before[-1])]
        if told:
            found.told_repeats.append(f"{words}: {_numbers(told)}")
            found.told_by_member[member] += 1

    def _is_told(self, call: CallName, moment: Moment) -> bool:
        _, user, number = call
        place = self._places[user, number]
        told = moment.told.get(place.partition)
        if told is None:
            return False
        if place.offset < told.offset or place.offset in told.finished:
            return True
        delivered = told.delivered.get(place.offset)
        return delivered is not None and digest(self._action_id(call, place)) in delivered

    def _action_id(self, call: CallName, place: Place) -> str:
        endpoint, user, number = call
        event, type = self._events[user, number], self._types[user, number]
        record = Record(self._topic, place.partition, place.offset, place.timestamp_ms, event.key, event.value)
        body = {"trigger_key": TRIGGER_KEYS[type]} if endpoint == "trigger" else {}
        return action_id(self._group, record, Action(Kind(endpoint), RULES[type], 0, body, Contact()))

    def _at_risk(self, firsts: Mapping[CallName, int], moments: Sequence[Moment]) -> int:
        """Effects that no commit told at a crash, over all crashes."""
        return sum(
            entry <= moment.calls and not self._is_told(call, moment)
            for moment in moments
            if moment.crash
            for call, entry in firsts.items()
        )

    # The rest

    def _letters(self, found: Judgement, letters: Iterable[Any]) -> set[CallName]:
        """Counts dead letters; returns the calls whose outcome nobody knows, and that need not have arrived."""
        excused: set[CallName] = set()
        seen: set[tuple[int, int, str]] = set()
        told: set[tuple[str, int]] = set()
        for letter in letters:
            headers = {name: (value or b"").decode() for name, value in letter.headers()}
            kind = headers["meisa-bridge.kind"]
            place = int(headers["meisa-bridge.source.partition"]), int(headers["meisa-bridge.source.offset"])
            found.letters[kind] += 1
            if (*place, kind) in seen:
                found.letters_again += 1
                continue
            seen.add((*place, kind))
            name = self._at[place]
            event = self._events[name]
            told.add(name)
            if event.poison is not None:
                if kind != EXPECTED_LETTERS[event.poison]:
                    found.wrong_letters.append(f"{event.poison} is a dead letter of kind {kind}")
            elif kind == UNKNOWN:
                found.unknown_outcome += 1
                plan = PLANS[self._types[name]]
                positions = orjson.loads(headers.get("meisa-bridge.undelivered", "[]"))
                excused |= {(plan[position], *name) for position in positions}
            else:
                message = headers.get("meisa-bridge.message", "")
                found.wrong_letters.append(f"a good event of {name[0]} is a dead letter: {kind}: {message}")
        for event in self._produced:
            if event.poison is not None and (event.user, event.sequence) not in told:
                found.lost.append(f"{event.user}: bad event {event.sequence} is no dead letter")
        return excused

    def _completeness(self, found: Judgement, firsts: Mapping[CallName, int], excused: set[CallName]) -> None:
        for (user, number), type in self._types.items():
            for endpoint in PLANS[type]:
                call = (endpoint, user, number)
                if call not in firsts and call not in excused:
                    found.lost.append(f"{user}: {endpoint} of event {number} never came")

    def _emails(self, found: Judgement, emails: Iterable[Mapping[str, Any]]) -> None:
        sent: Counter[tuple[str, str, int]] = Counter()
        for email in emails:
            name = str(email["to_email"]), str(email["trigger_key"]), int(email["variables"]["seq"])
            sent[name] += 1
            if sent[name] == 2:
                found.emails_twice.append(f"{name[0]} got {name[1]} of event {name[2]} twice")

    def _contacts(self, found: Judgement, contacts: Iterable[Mapping[str, Any]]) -> None:
        """Every contact ends with the state of its last events, and has the tags of all its upserts."""
        wanted: dict[str, dict[str, Any]] = defaultdict(dict)
        tags: dict[str, set[str]] = defaultdict(set)
        for event in self._produced:
            plan = self._plan(event.user, event.sequence)
            if "upsert" in plan:
                wanted[event.user] |= says(event)
                tags[event.user].add(tag(event.sequence))
            if "add_tag" in plan:
                tags[event.user].add(TAG)
            elif "remove_tag" in plan:
                tags[event.user].discard(TAG)
        held = {str(contact["external_id"]): contact for contact in contacts}
        for user, state in wanted.items():
            contact = held.get(user)
            if contact is None:
                found.wrong_state.append(f"{user} is no contact")
                continue
            fields = contact["custom_fields"]
            wrong = {name: (fields.get(name), value) for name, value in state.items() if fields.get(name) != value}
            differing = tags[user] ^ {each["name"] for each in contact["tags"]} - {"trial"}
            if wrong or differing:
                found.wrong_state.append(f"{user} ends with {wrong} (is, should be), tags that differ: {differing}")


def _numbers(calls: Sequence[CallName]) -> str:
    return "+".join(str(number) for _, _, number in calls)


def _number(body: Mapping[str, Any]) -> int | None:
    for part in ("properties", "variables", "metadata"):
        number = (body.get(part) or {}).get("seq")
        if isinstance(number, int):
            return number
    return None
