"""Compares what was produced with what the sandbox received: nothing lost, nothing out of order, what came twice.

It knows the events and the sandbox's ledger, and nothing of the bridge: what must have arrived follows from the table
below, which says in words what the demo's rules should do. That is the point of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import orjson

from bridge.sandbox.stream import SampleEvent

EXPECTED_CALLS: Final[Mapping[str, tuple[str, ...]]] = {
    "user.signed_up": ("upsert", "trigger"),
    "user.logged_in": ("upsert",),
    "onboarding.completed": ("upsert",),
    "plan.changed": ("upsert", "track"),
    "invoice.paid": ("track",),
    "invoice.payment_failed": ("upsert", "trigger"),
    "subscription.canceled": ("upsert", "enroll"),
}
"""Calls that carry the event's number; tags cannot carry it and are counted below."""

CARRIED_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "user.logged_in": ("last_active", "signin_count"),
    "onboarding.completed": ("onboarding_completed",),
}
"""Events that ask for an upsert only, so that the user's next one may carry theirs; and what it then must say."""

ADDED_TAG: Final = "paying"
"""The tag that the demo's rules add and remove."""
EXPECTED_TAGS: Final[Mapping[str, str]] = {"plan.changed": "add_tag", "subscription.canceled": "remove_tag"}

EXPECTED_LETTERS: Final[Mapping[str, str]] = {
    "broken_json": "decode",
    "invalid_utf8": "decode",
    "missing_type": "decode",
    "missing_email": "rule",
    "refused_address": "rejected",
}

ALREADY_ENROLLED: Final = 409
"""The sandbox's answer to an enrollment of somebody who is in the sequence."""


NOBODY: Final = ""

CallName = tuple[str, str, int]
"""Endpoint, user, number of the user's event."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What the audit needs of a dead letter."""

    value: bytes | None
    kind: str
    message: str


@dataclass(slots=True)
class Audit:
    """The ledger's answer."""

    events: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    """Carried out, by endpoint."""
    refused: Counter[str] = field(default_factory=Counter)
    """Answered with an error, by endpoint and status."""
    merged: int = 0
    """Upserts that needed no call of their own: a later one of the same user carried them."""
    unchanged: int = 0
    """Tags that their user had already: no call was needed, and none was made."""
    letters: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Dead letters, by kind and by what was wrong with the event."""
    lost: list[str] = field(default_factory=list)
    out_of_order: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    """Calls that came again, or that a merged one had carried before."""
    emails_twice: list[str] = field(default_factory=list)
    wrong_letters: list[str] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """Repeated calls are allowed after a crash; lost, disordered or doubled email never."""
        return not (self.lost or self.out_of_order or self.emails_twice or self.wrong_letters)


def audit(produced: Sequence[SampleEvent], ledger: Iterable[Mapping[str, Any]], letters: Sequence[DeadLetter]) -> Audit:
    """`ledger` holds the sandbox's entries in order of arrival."""
    found = Audit(events=len(produced))
    expected, users = _expected(produced)
    tags = _tags(produced)
    runs = _runs(expected)
    earlier = {call: run[:place] for run in runs for place, call in enumerate(run)}
    arrived: Counter[CallName] = Counter()
    carried: set[CallName] = set()
    said: dict[CallName, list[Mapping[str, Any]]] = {}
    added: Counter[str] = Counter()
    removed = 0
    newest: dict[str, int] = {}
    for entry in ledger:
        endpoint, body = str(entry["endpoint"]), entry.get("body") or {}
        # A second enrollment in the same sequence is refused because the first one is running: nothing is missing.
        already = endpoint == "enroll" and entry["status"] == ALREADY_ENROLLED
        if not entry["carried_out"] and not already:
            if endpoint != "ping":
                found.refused[f"{endpoint} {entry['status'] or 'unanswered'}"] += 1
            continue
        found.calls[endpoint] += 1
        user = users.get(_named(body))
        number = _number(body)
        if endpoint == "upsert" and ADDED_TAG in (body.get("tag_names") or ()):
            added[user or NOBODY] += 1  # it rode; a track stands between any two of them, so never more than one does
        if number is None:
            if endpoint == "add_tag":
                added[user or NOBODY] += 1
            removed += endpoint == "remove_tag"
            continue
        if user is None:
            continue
        if number < newest.get(user, 0):
            found.out_of_order.append(f"{user}: {endpoint} of event {number} came after event {newest[user]}")
        newest[user] = max(number, newest.get(user, 0))
        if entry.get("repeated"):
            continue  # Meisa knew its idempotency key: no second email
        call = (endpoint, user, number)
        arrived[call] += 1
        if arrived[call] > 1 or call in carried:
            words = f"{user}: {endpoint} of event {number}"
            found.repeated.append(words)
            if endpoint == "trigger":
                found.emails_twice.append(words)
        if endpoint == "upsert":
            said.setdefault(call, []).append(body.get("custom_fields") or {})
            carried.update(each for each in earlier.get(call, ()) if not arrived[each])
    missing = [call for call in expected if not arrived[call]]
    merged = _merged(runs, said, _due_fields(produced))
    found.merged = len(merged)
    for call in missing:
        if call not in merged:
            found.lost.append(f"{call[1]}: {call[0]} of event {call[2]} never came")
    # Whose an `add_tag` of its own was the ledger does not tell: it counts for anybody.
    lacking = sum(max(0, owed - added[user]) for user, owed in tags.needed.items()) - added[NOBODY]
    if lacking > 0:
        found.lost.append(f"{lacking} of {tags.needed.total()} add_tag calls never came")
    if removed < tags.removed:
        found.lost.append(f"{tags.removed - removed} of {tags.removed} remove_tag calls never came")
    found.unchanged = max(0, tags.asked - added.total())
    _audit_letters(found, produced, letters)
    return found


def _expected(produced: Sequence[SampleEvent]) -> tuple[list[CallName], dict[str, str]]:
    expected: list[CallName] = []
    users: dict[str, str] = {}
    for event in produced:
        if event.poison is not None:
            continue
        value = orjson.loads(event.value)
        users[value["data"]["email"]] = users[event.user] = event.user
        expected += [(endpoint, event.user, event.sequence) for endpoint in EXPECTED_CALLS[value["type"]]]
    return expected, users


class Tags(NamedTuple):
    """What the events ask for of the tag."""

    asked: int
    """Times that it is to be added, whether its user has it or not."""
    needed: Counter[str]
    """By user: times that it is to be added where the events before have not added it, or have removed it since."""
    removed: int


def _tags(produced: Sequence[SampleEvent]) -> Tags:
    asked = removed = 0
    needed: Counter[str] = Counter()
    tagged: set[str] = set()
    for event in produced:
        endpoint = EXPECTED_TAGS.get(orjson.loads(event.value)["type"]) if event.poison is None else None
        if endpoint == "add_tag":
            asked += 1
            needed[event.user] += event.user not in tagged
            tagged.add(event.user)
        elif endpoint == "remove_tag":
            removed += 1
            tagged.discard(event.user)
    return Tags(asked, needed, removed)


def _runs(expected: Sequence[CallName]) -> list[list[CallName]]:
    """Upserts of one user, in their order, between which nothing else of the user is due.

    Those of a run may leave as one call. A track, an email or an enrollment must meet the state that its event found,
    so it ends the run.
    """
    runs: list[list[CallName]] = []
    open_runs: dict[str, list[CallName]] = {}
    for call in expected:
        endpoint, user, _ = call
        if endpoint != "upsert":
            open_runs.pop(user, None)
            continue
        if user not in open_runs:
            open_runs[user] = []
            runs.append(open_runs[user])
        open_runs[user].append(call)
    return runs


def _due_fields(produced: Sequence[SampleEvent]) -> dict[CallName, dict[str, Any]]:
    """What an upsert must say even where a later one carries it."""
    due: dict[CallName, dict[str, Any]] = {}
    for event in produced:
        if event.poison is None:
            value = orjson.loads(event.value)
            names = CARRIED_FIELDS.get(value["type"], ())
            due["upsert", event.user, event.sequence] = {name: value["data"][name] for name in names}
    return due


def _merged(
    runs: Sequence[Sequence[CallName]],
    said: Mapping[CallName, Sequence[Mapping[str, Any]]],
    due_fields: Mapping[CallName, Mapping[str, Any]],
) -> set[CallName]:
    """Upserts that never came, and that the next one of their run carried: it says what they had to say."""
    carried: set[CallName] = set()
    for run in runs:
        waiting: list[CallName] = []
        due: dict[str, Any] = {}
        for call in run:
            due |= due_fields[call]  # each field has the last one's value
            if call not in said:
                waiting.append(call)
                continue
            if any(all(fields.get(name) == value for name, value in due.items()) for fields in said[call]):
                carried.update(waiting)
            waiting, due = [], {}
    return carried


def _audit_letters(found: Audit, produced: Sequence[SampleEvent], letters: Sequence[DeadLetter]) -> None:
    bad = {event.value: event for event in produced if event.poison is not None}
    seen: set[bytes] = set()
    for letter in letters:
        event = bad.get(letter.value or b"")
        if event is None or event.poison is None:
            found.wrong_letters.append(f"a good event is a dead letter: {letter.kind}: {letter.message}")
            continue
        found.letters[letter.kind, event.poison] += 1
        if letter.kind != EXPECTED_LETTERS[event.poison]:
            found.wrong_letters.append(f"{event.poison} is a dead letter of kind {letter.kind}: {letter.message}")
        seen.add(event.value)
    found.lost += [
        f"{event.user}: bad event {event.sequence} is no dead letter"
        for value, event in bad.items()
        if value not in seen
    ]


def _named(body: Mapping[str, Any]) -> str:
    return str(body.get("email") or body.get("to_email") or body.get("external_id") or "")


def _number(body: Mapping[str, Any]) -> int | None:
    for part in ("custom_fields", "properties", "variables", "metadata"):
        number = (body.get(part) or {}).get("seq")
        if isinstance(number, int):
            return number
    return None
