"""What one action says to Meisa, as a dialogue: it yields the attempt to make, and receives what became of it.

    dialogue = deliver(action, identity, policy, facts)
    attempt = next(dialogue)                  # the call, when it may leave, and when it would be too late
    attempt = dialogue.send(reply)            # 429 → 503 → 200 is a test of five lines, without a clock
    # StopIteration carries the Result

The theory
    Whoever drives the dialogue keeps the contact's order and the key's quota, sends, and reports. The dialogue knows
    nothing of either: it decides what an answer means for this action, and what to say next.

Rules that never break
    1. A 429, a refused key and a missing scope are never attempts; a 4xx is final at once.
    2. `exhausted` needs three things: the attempts used up, the age too, and somebody else's call to the same endpoint
       succeeding meanwhile. Otherwise it is an outage, and an outage dead-letters nothing.
    3. A trigger that may have been sent is repeated under its own key only while Meisa still remembers that key.
       After that it is `unknown_outcome`: a person decides, nobody guesses. An attempt known to be unsent, or answered
       with a 429, raises no doubt of its own; but neither takes back the doubt of an attempt before it: a throttle
       that answers first may hide that the email went out an hour ago.
    4. `max_age` is checked when a call is about to leave, not when it was planned.
    5. A track's 404 upserts the contact and tracks again, once.
    6. An action whose contact has no email that is known asks for it until `unknown_contact_seconds` have passed, where
       an event that tells it may still come; it makes no call meanwhile.

Ages are wall seconds, because they outlive this process; waits are monotonic seconds. What concerns a doubt (when a
trigger first left, and until when it may be repeated) is wall seconds of Meisa's clock: instances compare it with each
other. A first mark that lies in the future says nothing of its age, so it is treated as too old.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from bridge.core.pending import mergeable, upsert_body
from bridge.model import Action, Call, Contact, Ending, Kind, LetterKind, Outcome, Result, Verdict

FOREVER = math.inf


@dataclass(frozen=True, slots=True)
class Policy:
    """The limits of the dialogue; their defaults are the interface's."""

    attempts: int = 10
    max_age_seconds: float = 900.0
    idempotency_window_seconds: float = 3300.0
    scope_wait_seconds: float = 3600.0
    unknown_contact_seconds: float = 600.0
    backoff_seconds: float = 0.5
    backoff_seconds_max: float = 60.0
    scope_retry_seconds: float = 30.0
    contact_retry_seconds: float = 5.0
    doubt_ahead_seconds: float = 300.0
    """How far in the future a trigger's first mark may seem to lie: what Meisa's hour leaves over the window."""


class Attempt(NamedTuple):
    """A call to make. The driver replies without an outcome instead of sending when it is `too_late`."""

    call: Call
    not_before: float
    not_after_wall: float = FOREVER
    in_doubt: bool = False
    """Whether an earlier attempt may have sent it: the mark that says since when must stay."""
    not_before_wall: float = -FOREVER
    """In doubt: an earlier time shows that clocks differ by too much to tell the mark's age."""
    not_after: float = FOREVER
    """In doubt: the mark is at least as old as what this process has known of it (monotonic), whatever clocks say."""

    def too_late(self, now: float, wall: float) -> bool:
        """`wall` is Meisa's clock for an attempt in doubt, else this machine's."""
        return now > self.not_after or not self.not_before_wall <= wall <= self.not_after_wall


class Wait(NamedTuple):
    """No call can be made: the contact's email is not known. The driver replies, without an outcome, after a while.

    Before it replies it sees to it that `Facts.filled` can be asked.
    """

    seconds: float


class Reply(NamedTuple):
    """What became of an attempt; `outcome` is None where it was too late to send it, and after a Wait."""

    outcome: Outcome | None
    now: float
    wall: float
    sent_wall: float = 0.0
    """By Meisa's clock."""
    since_wall: float | None = None
    """The outcome has held for the whole endpoint since then, while this action waited its turn."""


class Facts(Protocol):
    """What the driver knows beyond this action."""

    def contact_id(self, contact: Contact) -> str | None:
        """Meisa's id of the contact, if an upsert told it."""

    def forget_contact_id(self, contact: Contact) -> None: ...

    def filled(self, action: Action) -> Action | None:
        """The action under the names that are known of its contact now; None where no further ones can come to be."""

    def succeeded_since(self, endpoint: str, now: float) -> bool:
        """Whether a call to the endpoint was answered well after that monotonic moment."""

    def random(self) -> float:
        """From 0 to below 1."""


NOTHING_TO_SAY = {"unchanged": Ending.UNCHANGED, "lazy": Ending.LAZY}
"""How an upsert ends that was spared, by why."""
SENT_LONG_AGO = "it may have been sent, and Meisa no longer remembers its idempotency key"
PERHAPS_SENT = "a former owner may have sent it: what that one told cannot be read, and the event is old"

Dialogue = Generator[Attempt | Wait, Reply, Result]


def deliver(
    action: Action,
    identity: str,
    event_wall: float,
    policy: Policy,
    facts: Facts,
    key: str = "default",
    started_wall: float | None = None,
    *,
    contact_key: str = "default",
    read_at: float = 0.0,
    unsure: bool = False,
    spared_body: Mapping[str, Any] | None = None,
) -> Dialogue:
    """The dialogue of one action. `identity` is its action id, `event_wall` its event's time.

    `started_wall` is when, by Meisa's clock, a trigger first left before a restart of this process: it may have been
    sent then, and in any case before this process read it (`read_at`, monotonic). `unsure` says that nobody knows
    whether it left at all; then its `max_age` holds too. `spared_body` is what its event's upsert said that was not
    sent, because Meisa was believed to have it. `contact_key` is the API key for a contact that has to be made first,
    which the action's own may not do.
    """
    delivery = _Delivery(action, identity, event_wall, policy, facts, key, started_wall, read_at, unsure, spared_body)
    delivery.contact_key = contact_key
    return delivery.run()


def dead(kind: LetterKind, outcome: Outcome | None, call: Call | None, attempts: int, message: str = "") -> Result:
    """A Result that ends as a dead letter."""
    return Result(
        Ending.DEAD_LETTERED,
        letter=kind,
        status=outcome.status if outcome else None,
        message=message or (outcome.message if outcome else ""),
        attempts=attempts,
        request=call.body if call else None,
        response=outcome.data if outcome else None,
        detail=outcome.detail if outcome else "",
    )


class _Delivery:
    def __init__(
        self,
        action: Action,
        identity: str,
        event_wall: float,
        policy: Policy,
        facts: Facts,
        key: str,
        started_wall: float | None,
        read_at: float,
        unsure: bool,
        spared_body: Mapping[str, Any] | None,
    ) -> None:
        self.spared_body = spared_body
        self.action = action
        self.identity = identity
        self.policy = policy
        self.facts = facts
        self.key = self.contact_key = key
        self.attempts = 0
        self.expires_wall = FOREVER
        if action.handling.max_age_seconds is not None:
            self.expires_wall = event_wall + action.handling.max_age_seconds
        self.unsure = unsure
        self.doubt_wall = started_wall
        """When a trigger first left that may have been sent."""
        self.doubt_at = read_at
        """A moment (monotonic) that was later."""

    def run(self) -> Dialogue:
        kind = self.action.kind
        if self._unnamed() and not (yield from self._named()):
            return self._unknown_contact(Call(kind.value, dict(self.action.body), key=self.key))
        if kind is Kind.TRACK:
            return (yield from self._track())
        if kind in (Kind.ADD_TAG, Kind.REMOVE_TAG):
            return (yield from self._tag())
        body = dict(self.action.body)
        if kind is Kind.TRIGGER:
            body.setdefault("idempotency_key", self.identity)
        return (yield from self._plain(Call(kind.value, body, key=self.key)))

    # Whom it is about

    def _unnamed(self) -> bool:
        """Whether the endpoint needs a name that the action lacks."""
        contact = self.action.contact
        if contact.email is not None:
            return False
        kind = self.action.kind
        if kind is Kind.TRACK:
            return contact.external_id is None
        return kind not in (Kind.ADD_TAG, Kind.REMOVE_TAG) or self.facts.contact_id(contact) is None

    def _named(self) -> Generator[Wait, Reply, bool]:
        """Waits until somebody has told the name; False where nobody did in time."""
        policy = self.policy
        seconds = 0.0
        since_wall: float | None = None
        while True:
            reply = yield Wait(seconds)
            filled = self.facts.filled(self.action)
            if filled is None:
                return False
            self.action = filled
            if not self._unnamed():
                return True
            if since_wall is None:
                since_wall = reply.wall
            left = policy.unknown_contact_seconds - (reply.wall - since_wall)
            if left <= 0:
                return False
            seconds = min(policy.contact_retry_seconds, left)

    # Each endpoint's dialogue

    def _plain(self, call: Call) -> Dialogue:
        ended = yield from self._settle(call)
        if isinstance(ended, Result):
            return ended
        return self._refused(ended, call) if ended.verdict is not Verdict.DELIVERED else self._done(ended)

    def _track(self) -> Dialogue:
        action = self.action
        contact = action.contact
        call = Call("track", action.body, key=self.key)
        first_missing_wall: float | None = None
        not_before = 0.0
        upserted = False
        while True:
            ended = yield from self._settle(call, not_before)
            if isinstance(ended, Result):
                return ended
            if ended.verdict is Verdict.DELIVERED:
                return self._done(ended)
            if ended.verdict is not Verdict.NEEDS_CONTACT:
                return self._refused(ended, call)
            on_missing = action.handling.on_missing
            if on_missing == "upsert" and contact.email is not None:
                if upserted:
                    return self._refused(ended, call)
                upserted = True
                made_call = self._make_contact()
                if self.spared_body is not None:
                    made_call = made_call._replace(body=self.spared_body)  # what was believed was not so
                made = yield from self._settle(made_call)
                if isinstance(made, Result):
                    return made
                if made.verdict is not Verdict.DELIVERED:
                    return self._refused(made, call)
            elif on_missing == "dead_letter":
                return dead(LetterKind.UNKNOWN_CONTACT, ended, call, self.attempts)
            else:
                if first_missing_wall is None:
                    first_missing_wall = self.wall
                if self.wall - first_missing_wall >= self.policy.unknown_contact_seconds:
                    return dead(LetterKind.UNKNOWN_CONTACT, ended, call, self.attempts)
                not_before = self.now + self.policy.contact_retry_seconds

    def _tag(self) -> Dialogue:
        action = self.action
        contact = action.contact
        if mergeable(action):
            # It rides on an upsert, or is one: others may have joined its call by the time it leaves.
            return (yield from self._plain(Call(Kind.UPSERT.value, upsert_body(action), key=self.key)))
        tag_body = dict(action.body)
        again = False
        while True:
            contact_id = self.facts.contact_id(contact)
            if contact_id is None:
                if contact.email is None:
                    return self._unknown_contact(Call(action.kind.value, tag_body))
                rides = action.kind is Kind.ADD_TAG and "tag_name" in tag_body
                made_call = self._make_contact([tag_body["tag_name"]] if rides else None)
                made = yield from self._settle(made_call)
                if isinstance(made, Result):
                    return made
                if made.verdict is not Verdict.DELIVERED:
                    return self._refused(made, made_call)
                if rides:
                    return self._done(made)
                contact_id = made.contact_id
                if contact_id is None:
                    return dead(
                        LetterKind.REJECTED,
                        made,
                        made_call,
                        self.attempts,
                        "Meisa's upsert answer lacks the contact's id",
                    )
            call = Call(action.kind.value, tag_body, contact_id=contact_id, key=self.key)
            ended = yield from self._settle(call)
            if isinstance(ended, Result):
                return ended
            if ended.verdict is Verdict.DELIVERED:
                return self._done(ended)
            if ended.detail != "no_contact" or again:
                return self._refused(ended, call)
            self.facts.forget_contact_id(contact)  # the id we knew is gone: learn it anew, once
            again = True

    def _make_contact(self, tag_names: list[str] | None = None) -> Call:
        body: dict[str, Any] = {"email": self.action.contact.email}
        if self.action.contact.external_id is not None:
            body["external_id"] = self.action.contact.external_id
        if tag_names:
            body["tag_names"] = tag_names
        return Call(Kind.UPSERT.value, body, key=self.contact_key)

    # One call until its answer is final

    def _settle(self, call: Call, not_before: float = 0.0) -> Generator[Attempt, Reply, Outcome | Result]:
        """Repeats a call until it is delivered, refused or needs a contact, or until repeating must end."""
        policy, facts = self.policy, self.facts
        trigger = self.action.kind is Kind.TRIGGER
        failing_since: tuple[float, float] | None = None  # now, wall
        failures = 0
        scope_missing_wall: float | None = None
        last: Outcome | None = None
        while True:
            limit, earliest, not_after = self.expires_wall, -FOREVER, FOREVER
            if self.doubt_wall is not None:
                # While in doubt only the idempotency window counts: an expired trigger that may have been sent is
                # not known to be unsent.
                limit = self.doubt_wall + policy.idempotency_window_seconds
                not_after = self.doubt_at + policy.idempotency_window_seconds
                if self.unsure:
                    # Perhaps it never left: then its event must not be older than it may be either.
                    limit = min(limit, self.expires_wall)
                earliest = self.doubt_wall - policy.doubt_ahead_seconds
            reply = yield Attempt(call, not_before, limit, self.doubt_wall is not None, earliest, not_after)
            self.now, self.wall = reply.now, reply.wall
            outcome = reply.outcome
            if outcome is None:
                if self.doubt_wall is not None:
                    return dead(
                        LetterKind.UNKNOWN_OUTCOME,
                        last,
                        call,
                        self.attempts,
                        PERHAPS_SENT if self.unsure else SENT_LONG_AGO,
                    )
                return dead(LetterKind.EXPIRED, last, call, self.attempts, "too old: it waited longer than its max_age")
            last = outcome
            verdict = outcome.verdict
            if trigger and self.doubt_wall is None and outcome.sent and verdict in (Verdict.RETRY, Verdict.UNKNOWN):
                self.doubt_wall, self.doubt_at = reply.sent_wall, reply.now
            if verdict in (Verdict.THROTTLED, Verdict.KEY_REFUSED, Verdict.WITHHELD):
                not_before = 0.0  # the driver holds it back
                continue
            if verdict is Verdict.SCOPE_MISSING:
                if scope_missing_wall is None or reply.since_wall is not None:
                    scope_missing_wall = reply.wall if reply.since_wall is None else reply.since_wall
                if reply.wall - scope_missing_wall >= policy.scope_wait_seconds:
                    return dead(LetterKind.REJECTED, outcome, call, self.attempts)
                not_before = reply.now + policy.scope_retry_seconds
                continue
            if verdict is Verdict.SPARED:
                return outcome
            self.attempts += 1
            if verdict in (Verdict.DELIVERED, Verdict.REFUSED, Verdict.NEEDS_CONTACT):
                return outcome
            failures += 1
            if failing_since is None:
                failing_since = (reply.now, reply.wall)
            if (
                failures >= policy.attempts
                and reply.wall - failing_since[1] >= policy.max_age_seconds
                and facts.succeeded_since(call.endpoint, failing_since[0])
            ):
                kind = LetterKind.UNKNOWN_OUTCOME if self.doubt_wall is not None else LetterKind.EXHAUSTED
                return dead(kind, outcome, call, self.attempts)
            not_before = reply.now + backoff(failures, policy, facts.random)

    def _done(self, outcome: Outcome) -> Result:
        return Result(Ending.DELIVERED, status=outcome.status, attempts=self.attempts, detail=outcome.detail)

    def _refused(self, outcome: Outcome, call: Call) -> Result:
        if outcome.verdict is Verdict.SPARED and outcome.detail in NOTHING_TO_SAY:
            return Result(NOTHING_TO_SAY[outcome.detail], attempts=self.attempts, detail=outcome.detail)
        if outcome.detail == "suppressed" and self.action.handling.on_suppressed == "finish":
            return Result(
                Ending.SUPPRESSED,
                status=outcome.status,
                message=outcome.message,
                attempts=self.attempts,
                detail=outcome.detail,
            )
        return dead(LetterKind.REJECTED, outcome, call, self.attempts)

    def _unknown_contact(self, call: Call) -> Result:
        return dead(
            LetterKind.UNKNOWN_CONTACT,
            None,
            call,
            self.attempts,
            "no email is known for the contact that this action names",
        )


def backoff(failures: int, policy: Policy, random: Callable[[], float]) -> float:
    """Seconds to wait after the n-th failure: doubling from half a second to a minute, give or take half."""
    # The exponent is bounded because 2.0**1100 is an error, and an outage can be that long.
    ceiling = min(policy.backoff_seconds_max, policy.backoff_seconds * 2.0 ** min(failures - 1, 32))
    return ceiling * (0.5 + random())
