"""Says what came of a run: what was produced, against what the sandbox received. It knows nothing of the bridge but how
a commit is read.

`bridge/sandbox/audit.py` says what must have arrived; this says more of how, because after a crash calls come again:

- an *effect* is a call that Meisa carried out (or knew already: an enrollment, or a trigger by its key);
- the *first* effects of a contact's events must be in the order of the events, whatever is repeated in between;
- a *repeat* is an effect that was there before. It may be only what the commits at a crash did not tell.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from bridge.core.progress import digest
from bridge.model import Action, Contact, Kind, Record, action_id
from bridge.sandbox.audit import ALREADY_ENROLLED, EXPECTED_CALLS, EXPECTED_LETTERS
from bridge.sandbox.stream import SampleEvent
from tests.support.chaos.fleet import Moment, Place

RULES: Final[Mapping[str, str]] = {
    "user.signed_up": "signup",
    "user.logged_in": "login",
    "onboarding.completed": "onboarded",
    "plan.changed": "plan-changed",
    "invoice.paid": "invoice-paid",
    "invoice.payment_failed": "payment-failed",
    "subscription.canceled": "canceled",
}
"""Event type → the rule of the sandbox's demo_files/rules.yaml that matches it."""

PLANS: Final[Mapping[str, tuple[str, ...]]] = {
    **EXPECTED_CALLS,
    "plan.changed": ("upsert", "track", "add_tag"),
    "subscription.canceled": ("upsert", "remove_tag", "enroll"),
}
"""Event type → its actions, tags included, in order."""

TRIGGER_KEYS: Final[Mapping[str, str]] = {"user.signed_up": "welcome", "invoice.payment_failed": "payment_failed"}
TAG: Final = "paying"
UNKNOWN: Final = "unknown_outcome"

CallName = tuple[str, str, int]
"""Endpoint, user, number of the user's event."""


@dataclass(slots=True)
class Judgement:
    """Lists hold what is wrong, in words; counters what is to be published."""

    events: int = 0
    effects: int = 0
    lost: list[str] = field(default_factory=list)
    disorder: list[str] = field(default_factory=list)
    """First effects of a contact that came after a later event's."""
    wrong_state: list[str] = field(default_factory=list)
    """Contacts that do not end as their last events have them."""
    emails_twice: list[str] = field(default_factory=list)
    wrong_letters: list[str] = field(default_factory=list)
    repeats: list[str] = field(default_factory=list)
    told_repeats: list[str] = field(default_factory=list)
    """Of those, calls that a commit had told as done before."""
    told_by_member: Counter[str] = field(default_factory=Counter)
    unanswered_repeats: int = 0
    """Of those, calls whose earlier answer the bridge did not get, because the API lost it."""
    recognised: int = 0
    """Of those, triggers that Meisa knew by their key: no second email."""
    set_back: int = 0
    """Of those, upserts that set a contact back to an earlier event's state for a moment."""
    repeats_by_member: Counter[str] = field(default_factory=Counter)
    at_risk: int = 0
    """Calls carried out but not told by commits when a bridge crashed, over all crashes: repeats can be only these."""
    unknown_outcome: int = 0
    letters: Counter[str] = field(default_factory=Counter)
    letters_again: int = 0
    refused: Counter[str] = field(default_factory=Counter)

    @property
    def broken(self) -> list[str]:
        """What never may be, whatever the fault."""
        return [*self.lost, *self.disorder, *self.wrong_state, *self.emails_twice, *self.wrong_letters]


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
        self._users: dict[str, str] = {}
        self._tag_owed: dict[tuple[str, str], list[int]] = defaultdict(list)
        """Endpoint and user → numbers of the events that ask for this tag call: the calls themselves cannot say."""
        for event in produced:
            if event.poison is None:
                value = orjson.loads(event.value)
                self._types[event.user, event.sequence] = value["type"]
                self._users[value["data"]["email"]] = self._users[event.user] = event.user
                for endpoint in PLANS[value["type"]]:
                    if endpoint in ("add_tag", "remove_tag"):
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
        """The first effect of every call, as its entry's number in the ledger; repeats are judged on the way."""
        firsts: dict[CallName, int] = {}
        newest: dict[str, tuple[int, int]] = {}
        tags: Counter[tuple[str, str]] = Counter()
        doubtful: Counter[CallName] = Counter()
        for entry in ledger:
            endpoint = str(entry["endpoint"])
            if endpoint == "ping":
                continue
            known = entry["repeated"] or (endpoint == "enroll" and entry["status"] == ALREADY_ENROLLED)
            if not entry["carried_out"] and not known:
                found.refused[f"{endpoint} {entry['status'] or 'unanswered'}"] += 1
                continue
            call = self._call(entry, tags)
            if call is None:
                continue
            found.effects += 1
            endpoint, user, number = call
            if call in firsts:
                in_doubt = doubtful[self._doubt(call)] > 0
                doubtful[self._doubt(call)] -= in_doubt
                self._repeat(found, entry, call, in_doubt, newest, moments)
            else:
                firsts[call] = int(entry["number"])
                if endpoint not in ("add_tag", "remove_tag"):  # which event a tag is of is a guess
                    step = PLANS[self._types[user, number]].index(endpoint)
                    if (number, step) < newest.get(user, (0, 0)):
                        found.disorder.append(
                            f"{user}: {endpoint} of event {number} came first after event {newest[user][0]}"
                        )
                    newest[user] = max(newest.get(user, (0, 0)), (number, step))
            # The bridge learns of an effect by a whole answer below 500 only.
            if entry["status"] >= 500 or not entry["answered"] or entry["fault"].startswith(("cut", "hang")):
                doubtful[self._doubt(call)] += 1
        return firsts

    @staticmethod
    def _doubt(call: CallName) -> CallName:
        """Whose doubt a lost answer is: the call's, or for tags, which cannot tell their event, the contact's."""
        endpoint, user, _ = call
        return (endpoint, user, 0) if endpoint in ("add_tag", "remove_tag") else call

    def _call(self, entry: Mapping[str, Any], tags: Counter[tuple[str, str]]) -> CallName | None:
        endpoint, body = str(entry["endpoint"]), entry.get("body") or {}
        named = body.get("email") or body.get("to_email") or body.get("external_id") or entry["contact"]
        user = self._users.get(str(named))
        if user is None:
            return None
        if endpoint == "upsert" and TAG in (body.get("tag_names") or ()):
            endpoint = "add_tag"  # it rode on an upsert that was needed for the contact's id
        if endpoint in ("add_tag", "remove_tag"):
            owed = self._tag_owed[endpoint, user]
            tags[endpoint, user] += 1
            # More calls than owed are repeats, of the last one as far as anybody can tell.
            return (endpoint, user, owed[min(tags[endpoint, user], len(owed)) - 1]) if owed else None
        number = _number(body)
        return (endpoint, user, number) if number is not None and (user, number) in self._types else None

    def _repeat(
        self,
        found: Judgement,
        entry: Mapping[str, Any],
        call: CallName,
        doubtful: bool,
        newest: Mapping[str, tuple[int, int]],
        moments: Sequence[Moment],
    ) -> None:
        endpoint, user, number = call
        words = f"{user}: {endpoint} of event {number} (entry {entry['number']}, by {entry['key']})"
        found.repeats.append(words)
        found.repeats_by_member[str(entry["key"])] += 1
        if doubtful:
            found.unanswered_repeats += 1
        if entry.get("repeated"):
            found.recognised += 1
        if endpoint == "upsert" and number < newest.get(user, (0, 0))[0]:
            found.set_back += 1
        if endpoint in ("add_tag", "remove_tag"):
            return  # which event it repeats is a guess
        before = [moment for moment in moments if moment.calls < int(entry["number"])]
        if before and self._is_told(call, before[-1]):
            found.told_repeats.append(words)
            found.told_by_member[str(entry["key"])] += 1

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
        """Every contact ends with the state of its last events."""
        wanted: dict[str, dict[str, Any]] = defaultdict(dict)
        for event in self._produced:
            type = self._types.get((event.user, event.sequence))
            if type is None:
                continue
            state, data = wanted[event.user], orjson.loads(event.value)["data"]
            if "upsert" in PLANS[type]:
                state["seq"] = event.sequence
                if type in ("user.signed_up", "plan.changed", "subscription.canceled"):
                    state["plan"] = data["plan"]
            if "add_tag" in PLANS[type] or "remove_tag" in PLANS[type]:
                state[TAG] = "add_tag" in PLANS[type]
        held = {str(contact["external_id"]): contact for contact in contacts}
        for user, state in wanted.items():
            contact = held.get(user)
            if contact is None:
                found.wrong_state.append(f"{user} is no contact")
                continue
            fields = contact["custom_fields"]
            tags = {tag["name"] for tag in contact["tags"]}
            has = {"seq": fields.get("seq"), "plan": fields.get("plan"), TAG: TAG in tags}
            wrong = {name: (has[name], value) for name, value in state.items() if has[name] != value}
            if wrong:
                found.wrong_state.append(f"{user} ends with {wrong} (is, should be)")


def _number(body: Mapping[str, Any]) -> int | None:
    for part in ("custom_fields", "properties", "variables", "metadata"):
        number = (body.get(part) or {}).get("seq")
        if isinstance(number, int):
            return number
    return None
