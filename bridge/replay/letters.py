"""A dead letter read back: which record it was, and what of it was not delivered by today's rules. Pure.

The record is rebuilt at its *source* place, with its own timestamp, key, value and headers, because action ids (and so
idempotency keys) are made of these. Rules may have been edited since: that is usually why somebody replays. An action
is found again by its id; a letter of kind `decode` or `rule` names none, there all that the record (or the rule) plans
now is what was not delivered.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

from bridge.model import Action, Event, LetterKind, Plan, Record
from bridge.replay.ledger import Place, Request, digest

PREFIX = "meisa-bridge."


class NotALetter(ValueError):
    """A record in the dead-letter topic that this bridge did not write; `str()` says what is missing."""


class DeadLetter(NamedTuple):
    """What the headers `meisa-bridge.*` of a dead letter say."""

    place: Place
    source: Place
    kind: str
    """Of LetterKind, unless a later version wrote it."""
    rule: str
    action: str
    message: str
    status: str
    attempts: str
    failed_at: str
    ids: tuple[str, ...]
    """Ids of the actions that were not delivered; none for kinds `decode` and `rule`."""
    replays: int
    """How often it had been replayed when it was written."""
    whole: bool
    """Key, value and headers are the record's; else the letter was too large for its topic, and lacks some."""
    request: str
    response: str
    source_timestamp_ms: int

    @property
    def name(self) -> str:
        """Tells the letters of one record apart. A letter that was written twice has one name; the timestamp keeps
        those of a topic that was created anew apart from those of its predecessor."""
        what = self.ids or (self.kind, self.rule)
        return digest(str(self.source_timestamp_ms), str(self.replays), *sorted(what))


def parse(letter: Record) -> DeadLetter:
    """Raises NotALetter."""
    texts = {
        name.removeprefix(PREFIX): value.decode("utf-8", "replace")
        for name, value in letter.headers
        if value is not None and name.startswith(PREFIX)
    }
    try:
        source = Place(texts["source.topic"], int(texts["source.partition"]), int(texts["source.offset"]))
        ids = json.loads(texts.get("undelivered_ids", "[]"))
        replays = texts.get("replays", "0")
        return DeadLetter(
            place=Place(letter.topic, letter.partition, letter.offset),
            source=source,
            kind=texts["kind"],
            rule=texts.get("rule", ""),
            action=texts.get("action", ""),
            message=texts.get("message", ""),
            status=texts.get("status", ""),
            attempts=texts.get("attempts", ""),
            failed_at=texts.get("failed_at", ""),
            ids=tuple(str(each) for each in ids),
            replays=int(replays) if replays.isdecimal() else 0,
            whole="value_omitted" not in texts,
            request=texts.get("request", ""),
            response=texts.get("response", ""),
            source_timestamp_ms=int(texts["source.timestamp"]),
        )
    except KeyError as missing:
        raise NotALetter(f"it lacks the header {PREFIX}{missing.args[0]}") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise NotALetter(f"its headers {PREFIX}* cannot be read: {error}") from None


def original(letter: Record, parsed: DeadLetter) -> Record:
    """The record as it was at its source, from a letter that is whole."""
    headers = tuple(header for header in letter.headers if not header[0].startswith(PREFIX))
    source = parsed.source
    return Record(*source, parsed.source_timestamp_ms, letter.key, letter.value, headers)


def with_replays(record: Record, replays: int) -> Record:
    """The record with the count from which a fresh letter's own follows (one more)."""
    return record._replace(headers=(*record.headers, (PREFIX + "replays", str(replays).encode())))


class Wanted(NamedTuple):
    """What a letter asks for by today's rules."""

    actions: tuple[Action, ...] = ()
    failed_rules: tuple[str, ...] = ()
    """Rules that fail (again) for the event, of those that the letter is about."""
    problem: str = ""
    """Why nothing can be sent; else empty."""


def wanted(
    letter: DeadLetter,
    request: Request,
    plan: Plan,
    identify: Callable[[Action], str],
    knows_rule: Callable[[str], bool],
) -> Wanted:
    """Which actions of the record's plan were not delivered, as far as this letter tells."""
    if letter.kind == LetterKind.DECODE:
        return Wanted(plan.actions, tuple(failure.rule for failure in plan.failures))
    if letter.kind == LetterKind.RULE:
        failure = next((each for each in plan.failures if each.rule == letter.rule), None)
        if failure is not None:
            return Wanted(problem=f"rule {letter.rule} still fails: {failure.message}")
        if not knows_rule(letter.rule):
            return Wanted(problem=f"there is no rule {letter.rule} any more, so what it would send is not known")
        return Wanted(tuple(action for action in plan.actions if action.rule == letter.rule))
    if not letter.ids:
        return Wanted(problem="the letter does not say which actions were not delivered")
    if letter.kind == LetterKind.UNKNOWN_OUTCOME and not request.send_again:
        return Wanted(problem="it may have been sent already; replay it with --send-again to send it all the same")
    by_id = {identify(action): action for action in plan.actions}
    lost = [each for each in letter.ids if each not in by_id]
    if lost:
        return Wanted(problem=_lost(letter, plan, len(lost), knows_rule))
    return Wanted(tuple(action for each, action in by_id.items() if each in letter.ids))


def _lost(letter: DeadLetter, plan: Plan, count: int, knows_rule: Callable[[str], bool]) -> str:
    failure = next((each for each in plan.failures if each.rule == letter.rule), None)
    if failure is not None:
        return f"rule {letter.rule} fails now: {failure.message}"
    gone = "" if knows_rule(letter.rule) else f" (there is no rule {letter.rule})"
    return f"the rules do not plan {count} of its {len(letter.ids)} undelivered actions any more{gone}"


def ageless(action: Action) -> Action:
    """The action without its `max_age`: it was old when somebody asked for it."""
    if action.handling.max_age_seconds is None:
        return action
    return replace(action, handling=replace(action.handling, max_age_seconds=None))


Decode = Callable[[Record], Event | None]
Decoders = Mapping[str, Decode]
