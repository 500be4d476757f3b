"""Compares what was produced with what the sandbox received: nothing lost, nothing out of order, what came twice.

It knows the events and the sandbox's ledger, and nothing of the bridge: what must have arrived follows from the table
below, which says in words what the demo's rules should do. That is the point of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

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
    letters: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Dead letters, by kind and by what was wrong with the event."""
    lost: list[str] = field(default_factory=list)
    out_of_order: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    emails_twice: list[str] = field(default_factory=list)
    wrong_letters: list[str] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """Repeated calls are allowed after a crash; lost, disordered or doubled email never."""
        return not (self.lost or self.out_of_order or self.emails_twice or self.wrong_letters)


def audit(produced: Sequence[SampleEvent], ledger: Iterable[Mapping[str, Any]], letters: Sequence[DeadLetter]) -> Audit:
    """`ledger` holds the sandbox's entries in order of arrival."""
    found = Audit(events=len(produced))
    expected, owed_tags, users = _expected(produced)
    arrived: Counter[tuple[str, str, int]] = Counter()
    tags: Counter[str] = Counter()
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
        if number is None:
            if endpoint in ("add_tag", "remove_tag"):
                tags[endpoint] += 1
            elif endpoint == "upsert" and body.get("tag_names"):
                tags["add_tag"] += 1  # a tag that rode on an upsert
            continue
        if user is None:
            continue
        if number < newest.get(user, 0):
            found.out_of_order.append(f"{user}: {endpoint} of event {number} came after event {newest[user]}")
        newest[user] = max(number, newest.get(user, 0))
        if entry.get("repeated"):
            continue  # Meisa knew its idempotency key: no second email
        arrived[endpoint, user, number] += 1
        if arrived[endpoint, user, number] > 1:
            words = f"{user}: {endpoint} of event {number}"
            found.repeated.append(words)
            if endpoint == "trigger":
                found.emails_twice.append(words)
    missing = [call for call in expected if not arrived[call]]
    merged = _merged(expected, missing)
    found.merged = len(merged)
    for call in missing:
        if call not in merged:
            found.lost.append(f"{call[1]}: {call[0]} of event {call[2]} never came")
    for endpoint, count in owed_tags.items():
        if tags[endpoint] < count:
            found.lost.append(f"{count - tags[endpoint]} of {count} {endpoint} calls never came")
    _audit_letters(found, produced, letters)
    return found


def _expected(
    produced: Sequence[SampleEvent],
) -> tuple[list[tuple[str, str, int]], Counter[str], dict[str, str]]:
    expected: list[tuple[str, str, int]] = []
    tags: Counter[str] = Counter()
    users: dict[str, str] = {}
    for event in produced:
        if event.poison is not None:
            continue
        value = orjson.loads(event.value)
        users[value["data"]["email"]] = users[event.user] = event.user
        expected += [(endpoint, event.user, event.sequence) for endpoint in EXPECTED_CALLS[value["type"]]]
        if value["type"] in EXPECTED_TAGS:
            tags[EXPECTED_TAGS[value["type"]]] += 1
    return expected, tags, users


def _merged(
    expected: Sequence[tuple[str, str, int]], missing: Sequence[tuple[str, str, int]]
) -> set[tuple[str, str, int]]:
    """Missing upserts that the user's next upsert carried: nothing else of the user was due between the two.

    A track, an email or an enrollment must meet the state that its event found, so it ends what may merge.
    """
    absent = set(missing)
    carried: set[tuple[str, str, int]] = set()
    waiting: dict[str, list[tuple[str, str, int]]] = {}
    for call in expected:  # a user's stand in their order
        endpoint, user, _ = call
        if endpoint != "upsert":
            waiting.pop(user, None)
        elif call in absent:
            waiting.setdefault(user, []).append(call)
        else:
            carried.update(waiting.pop(user, ()))
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
