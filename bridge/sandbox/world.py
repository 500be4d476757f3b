"""One environment of the imitated Meisa: contacts, sequences and email. Pure; time comes in as `now` (wall seconds).

Where the documentation is silent (assumed):

- Triggers and sequences that nobody configured count as active, so that a bridge runs against an empty sandbox; such a
  sequence is listed to whoever searches for its slug. With a catalogue (`triggers`, `sequences`; empty ones in
  `--strict`) only those named exist. Unknown or inactive is 400 for both.
- A contact already active or paused in a sequence is refused with 409 `already_enrolled` (`already_enrolled_status`).
- A suppressed contact is refused with 422 by enroll, unless `override_unsubscribe`.
- Bulk enrollment creates absent contacts too; a repeated address in one call is already enrolled the second time.
- A trigger's `recipient` is an upsert of `to_email`; without it the contact is created with the address alone. It is
  carried out before `conditions` are looked at, and not at all when the send is refused.
- "Identical sends" have the same idempotency_key, trigger_key and address. For one hour from the first of them the
  first answer is given again, also when the address has been unsubscribed since; repeats do not prolong the hour.
  Skipped and refused ones are not remembered.
- Order of a trigger's checks: fields, trigger, sender, repeated send, suppression, guardrail, recipient, conditions.
"""

from __future__ import annotations

import random
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from bridge.model import email_key
from bridge.sandbox import fields
from bridge.sandbox.contacts import Answer, Contact, Contacts, iso
from bridge.sandbox.fields import JsonObject, Refused
from bridge.sandbox.log import Log
from bridge.sandbox.quota import SlidingWindow

IDEMPOTENCY_SECONDS = 3600.0
IDEMPOTENCY_KEYS_MAX = 1_000_000
"""Remembered sends: an hour at 277 keyed emails a second. Beyond it the oldest are forgotten, and counted."""
BULK_EMAILS_MAX = 500

_ENROLL = frozenset({"email", "sequence_slug", "metadata", "trigger_source", "override_unsubscribe"})
_BULK = frozenset({"sequence_slug", "emails", "override_unsubscribe"})
_TRIGGER = frozenset({"trigger_key", "to_email", "variables", "recipient", "idempotency_key"})
_RECIPIENT = frozenset(
    {"email", "external_id", "first_name", "last_name", "display_name", "source", "custom_fields", "tag_names"}
)


@dataclass(frozen=True, slots=True)
class TriggerConfig:
    """A transactional email, as the dashboard would configure it."""

    active: bool = True
    sender: bool = True
    """False: nobody set a sender, so every send is refused with 422."""
    delay_seconds: float = 0.0
    """Above 0 a send is answered 202 `scheduled`."""
    conditions: Mapping[str, Any] = field(default_factory=dict)
    """Custom fields that the contact must have with these values; else the send is `skipped`."""


@dataclass(slots=True)
class Sequence:
    id: str
    slug: str
    name: str
    status: str = "active"
    """active | inactive"""


@dataclass(slots=True)
class Enrollment:
    id: str
    slug: str
    contact: Contact
    status: str
    """active | paused | completed | canceled"""
    metadata: JsonObject
    trigger_source: str
    enrolled_at: float

    def view(self) -> JsonObject:
        return {
            "id": self.id,
            "sequence_slug": self.slug,
            "status": self.status,
            "metadata": self.metadata,
            "trigger_source": self.trigger_source,
            "enrolled_at": iso(self.enrolled_at),
        }


@dataclass(slots=True)
class Email:
    """One email that left (or will, when its delay is over)."""

    number: int
    at: float
    email_send_id: str
    trigger_key: str
    to_email: str
    contact_id: str
    variables: JsonObject
    idempotency_key: str | None
    send_at: float

    def view(self, now: float) -> JsonObject:
        return {
            "number": self.number,
            "at": iso(self.at),
            "email_send_id": self.email_send_id,
            "trigger_key": self.trigger_key,
            "to_email": self.to_email,
            "contact_id": self.contact_id,
            "variables": self.variables,
            "idempotency_key": self.idempotency_key,
            "send_at": iso(self.send_at),
            "status": "sent" if self.send_at <= now else "scheduled",
        }


@dataclass(slots=True)
class WorldOptions:
    triggers: dict[str, TriggerConfig] | None = None
    """None: every trigger key is active."""
    sequences: dict[str, str] | None = None
    """Slugs and their status; None: every slug is active."""
    already_enrolled_status: int = 409
    guardrail_per_hour: int = 0
    """Emails that one contact may get in an hour before triggers are answered 429; 0 turns this guardrail off."""
    log_limit: int = 100_000
    """Emails and automations that are kept, each."""


class World:
    def __init__(self, options: WorldOptions, rng: random.Random) -> None:
        self.options = options
        self.contacts = Contacts(rng, options.log_limit)
        self.triggers = dict(options.triggers) if options.triggers is not None else {}
        self.any_trigger = options.triggers is None
        self.any_sequence = options.sequences is None
        self.sequences: dict[str, Sequence] = {}
        for slug, status in (options.sequences or {}).items():
            self.set_sequence(slug, status=status)
        self._enrollments: dict[tuple[str, str], Enrollment] = {}
        self._enrollments_of: dict[str, list[Enrollment]] = {}
        self.emails: Log[Email] = Log(options.log_limit)
        self.counts: Counter[str] = Counter()
        """sent, scheduled, skipped, repeated, enrolled, idempotency_forgotten"""
        self._answered: OrderedDict[tuple[str, str, str], tuple[float, Answer]] = OrderedDict()
        self._guardrails: dict[str, SlidingWindow] = {}

    # -- what a dashboard would configure

    def set_trigger(self, key: str, config: TriggerConfig) -> None:
        self.triggers[key] = config

    def set_sequence(self, slug: str, *, status: str = "active", name: str = "") -> Sequence:
        sequence = self.sequences.get(slug)
        if sequence is None:
            sequence = self.sequences[slug] = Sequence(
                self.contacts.new_id(), slug, slug.replace("-", " ").capitalize()
            )
        sequence.status = status
        sequence.name = name or sequence.name
        return sequence

    def set_enrollment(self, email: str, slug: str, status: str) -> Enrollment | None:
        """Pauses, completes or cancels an enrollment; None when there is none."""
        contact = self.contacts.find(email)
        enrollment = self._enrollments.get((contact.id, slug)) if contact else None
        if enrollment is not None:
            enrollment.status = status
        return enrollment

    # -- sequences

    def list_sequences(self, status: str, search: str) -> Answer:
        if status not in ("", "active", "inactive", "all"):
            raise fields.invalid("status", "status must be active, inactive or all.")
        wanted = search.casefold()
        found = [
            {"id": sequence.id, "slug": sequence.slug, "name": sequence.name, "status": sequence.status}
            for sequence in self.sequences.values()
            if status == "all" or sequence.status == (status or "active")
            if wanted in sequence.slug.casefold() or wanted in sequence.name.casefold()
        ]
        if self.any_sequence and search and search not in self.sequences and status != "inactive":
            # One that nobody configured counts as active: whoever asks for it by its slug is told so.
            name = search.replace("-", " ").capitalize()
            found.append({"id": str(uuid5(NAMESPACE_URL, search)), "slug": search, "name": name, "status": "active"})
        return Answer(200, {"count": len(found), "results": found})

    def _active_sequence(self, slug: str) -> Sequence | None:
        """The sequence to enroll in, or None for one not seen yet where any counts as active. Changes nothing."""
        sequence = self.sequences.get(slug)
        if sequence is None and self.any_sequence:
            return None
        if sequence is None:
            raise Refused(400, "unknown_sequence", f"There is no sequence {slug}.", "sequence_slug")
        if sequence.status != "active":
            raise Refused(400, "inactive_sequence", f"The sequence {slug} is not active.", "sequence_slug")
        return sequence

    def _refusal(self, email: str, slug: str, override: bool) -> str:
        """Why this address may not be enrolled; empty when it may."""
        contact = self.contacts.find(email)
        enrollment = self._enrollments.get((contact.id, slug)) if contact else None
        if enrollment is not None and enrollment.status in ("active", "paused"):
            return "already_enrolled"
        return "" if override or self.contacts.suppression(email) is None else "suppressed"

    def _enroll(
        self, email: str, slug: str, metadata: JsonObject, trigger_source: str, now: float
    ) -> tuple[Enrollment, bool]:
        if slug not in self.sequences:
            self.set_sequence(slug)
        contact, created = self.contacts.apply(email, {}, now)
        enrollment = Enrollment(self.contacts.new_id(), slug, contact, "active", metadata, trigger_source, now)
        self._enrollments[contact.id, slug] = enrollment
        self._enrollments_of.setdefault(contact.id, []).append(enrollment)
        self.counts["enrolled"] += 1
        self.contacts.fire("sequence_enrolled", contact, now, {"sequence_slug": slug, "trigger_source": trigger_source})
        return enrollment, created

    def enroll(self, body: Mapping[str, Any], now: float) -> Answer:
        fields.only(body, _ENROLL)
        email = fields.needed_email(body)
        slug = fields.needed(body, "sequence_slug")
        metadata = fields.json_object(body, "metadata")
        trigger_source = fields.text(body, "trigger_source") or "api"
        override = fields.flag(body, "override_unsubscribe")
        self._active_sequence(slug)
        refusal = self._refusal(email, slug, override)
        if refusal == "already_enrolled":
            status = self.options.already_enrolled_status
            raise Refused(status, refusal, "The contact is already active or paused in this sequence.")
        if refusal:
            raise Refused(422, "unsubscribed", "The contact is unsubscribed; override_unsubscribe was not set.")
        enrollment, created = self._enroll(email, slug, metadata, trigger_source, now)
        contact = enrollment.contact
        answer = {
            "status": "enrolled",
            "enrollment_id": enrollment.id,
            "contact_id": contact.id,
            "contact_created": created,
            "sequence_slug": slug,
        }
        return Answer(201, answer, contact)

    def bulk_enroll(self, body: Mapping[str, Any], now: float) -> Answer:
        fields.only(body, _BULK)
        slug = fields.needed(body, "sequence_slug")
        override = fields.flag(body, "override_unsubscribe")
        emails = body.get("emails")
        if not isinstance(emails, list) or not emails:
            raise fields.invalid("emails", "emails must be a list with at least one address.")
        if len(emails) > BULK_EMAILS_MAX:
            raise fields.invalid("emails", f"At most {BULK_EMAILS_MAX} emails in one call; these are {len(emails)}.")
        self._active_sequence(slug)
        results: list[JsonObject] = []
        tally: Counter[str] = Counter()
        for email in emails:
            if not fields.is_email(email):
                outcome: JsonObject = {"email": email, "status": "invalid", "message": "Not a valid email address."}
            elif refusal := self._refusal(email, slug, override):
                outcome = {"email": email, "status": refusal}
            else:
                enrollment, created = self._enroll(email.strip(), slug, {}, "api", now)
                outcome = {
                    "email": email,
                    "status": "enrolled",
                    "enrollment_id": enrollment.id,
                    "contact_id": enrollment.contact.id,
                    "contact_created": created,
                }
            tally[outcome["status"]] += 1
            results.append(outcome)
        skipped = len(results) - tally["enrolled"]
        summary = {"sequence_slug": slug, "enrolled": tally["enrolled"], "skipped": skipped, "results": results}
        return Answer(200, summary)

    def list_enrollments(self, email: str) -> Answer:
        if not fields.is_email(email):
            raise fields.invalid("email", "Give ?email= with a valid address.")
        contact = self.contacts.find(email)
        if contact is None:
            raise Refused(404, "contact_not_found", "No contact has this email.")
        held = [enrollment.view() for enrollment in self._enrollments_of.get(contact.id, ())]
        return Answer(200, {"email": contact.email, "contact_id": contact.id, "enrollments": held}, contact)

    # -- email

    def _trigger(self, key: str) -> TriggerConfig:
        config = self.triggers.get(key)
        if config is None and self.any_trigger:
            return TriggerConfig()
        if config is None:
            raise Refused(400, "unknown_trigger", f"There is no trigger {key}.", "trigger_key")
        if not config.active:
            raise Refused(400, "inactive_trigger", f"The trigger {key} is not active.", "trigger_key")
        if not config.sender:
            raise Refused(422, "no_sender", f"The trigger {key} has no sender.")
        return config

    def trigger(self, body: Mapping[str, Any], now: float) -> Answer:
        fields.only(body, _TRIGGER)
        key = fields.needed(body, "trigger_key")
        to_email = fields.needed_email(body, "to_email")
        variables = fields.json_object(body, "variables")
        recipient = fields.json_object(body, "recipient")
        fields.only(recipient, _RECIPIENT, "recipient.")
        idempotency_key = fields.text(body, "idempotency_key")
        named = recipient.get("email")
        if named is not None and (not isinstance(named, str) or email_key(named) != email_key(to_email)):
            raise fields.invalid("recipient.email", "recipient.email must be to_email, or be left out.")
        config = self._trigger(key)
        identity = (idempotency_key or "", key, email_key(to_email))
        if idempotency_key is not None and (earlier := self._sent_before(identity, now)) is not None:
            self.counts["repeated"] += 1
            return earlier._replace(repeated=True)
        reason = self.contacts.suppression(to_email)
        if reason is not None:
            raise Refused(422, "unsubscribed", f"The recipient is {reason}.")
        self._guard(to_email, now)

        contact, created = self.contacts.apply(to_email, recipient, now, "recipient.")
        held = contact.custom_fields
        if not all(name in held and fields.same_json(held[name], value) for name, value in config.conditions.items()):
            self.counts["skipped"] += 1
            return Answer(200, {"status": "skipped", "reason": "conditions_not_met", "contact_id": contact.id}, contact)
        send_at = now + config.delay_seconds
        email = Email(
            self.emails.total + 1,
            now,
            self.contacts.new_id(),
            key,
            to_email,
            contact.id,
            variables,
            idempotency_key,
            send_at,
        )
        self.emails.append(email)
        contact.emails_sent += 1
        if self.options.guardrail_per_hour:
            self._guardrail(to_email).take(now)
        what: JsonObject = {"email_send_id": email.email_send_id, "contact_id": contact.id, "contact_created": created}
        if config.delay_seconds > 0:
            self.counts["scheduled"] += 1
            answer = Answer(202, {"status": "scheduled", "scheduled_for": iso(send_at), **what}, contact)
        else:
            self.counts["sent"] += 1
            answer = Answer(200, {"status": "sent", **what}, contact)
        if idempotency_key is not None:
            self._remember(identity, answer, now)
        return answer

    def _sent_before(self, identity: tuple[str, str, str], now: float) -> Answer | None:
        found = self._answered.get(identity)
        if found is None or now - found[0] >= IDEMPOTENCY_SECONDS:
            return None
        return found[1]

    def _remember(self, identity: tuple[str, str, str], answer: Answer, now: float) -> None:
        answered = self._answered
        answered.pop(identity, None)  # an expired one: the new hour starts at the end of the line
        answered[identity] = (now, answer)
        while answered:
            first_at, _ = next(iter(answered.values()))
            if now - first_at < IDEMPOTENCY_SECONDS:
                if len(answered) <= IDEMPOTENCY_KEYS_MAX:
                    break
                self.counts["idempotency_forgotten"] += 1
            answered.popitem(last=False)

    def _guardrail(self, email: str) -> SlidingWindow:
        key = email_key(email)
        if key not in self._guardrails:
            self._guardrails[key] = SlidingWindow(self.options.guardrail_per_hour, 3600.0)
        return self._guardrails[key]

    def _guard(self, email: str, now: float) -> None:
        if self.options.guardrail_per_hour and self._guardrail(email).wait(now) > 0:
            raise Refused(429, "sending_guardrail", "This contact has had too many emails within an hour.")
