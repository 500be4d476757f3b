"""Contacts, tags, tracked events and suppressed addresses of one environment, and the automations they fire.

A pure state machine: time comes in as `now` (wall seconds), ids come from a seeded generator, nothing is fetched or
written. Rules that never break:

- Every contact has an id and an email; no two contacts share an email (case-folded) or an external_id.
- An upsert that changes nothing fires nothing and leaves `updated_at` alone.
- What is refused changes nothing.

Where the documentation is silent (assumed):

- An upsert with an external_id that finds its contact under another email re-keys it. When the new email belongs to
  another contact, the upsert is refused with 400 `email_taken`: merging two people is not this API's business.
- An upsert whose external_id is unknown but whose email is known takes that contact over: its external_id becomes the
  one sent, also where it had another.
- An email that differs only in case or outer spaces is the same; the first spelling stays.
- Adding a tag fires tag_added, not contact_updated; a contact created with tags fires contact_created first.
- Suppression belongs to an address. When a contact is re-keyed, `unsubscribed` and `complained` go with the person to
  the new address; `bounced` stays with the old one.
- remove_tag with a name that nobody has is 200 and changes nothing; an unknown tag_id is 404.
"""

from __future__ import annotations

import random
import uuid
from collections import Counter, OrderedDict, deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from bridge.model import email_key
from bridge.sandbox import fields
from bridge.sandbox.fields import JsonObject, Refused
from bridge.sandbox.log import Log

SUPPRESSIONS = ("unsubscribed", "bounced", "complained")
EVENTS_KEPT = 50
"""Tracked events that a contact shows; the automations log and the ledger hold the rest."""
NAMES = ("first_name", "last_name", "display_name")

_UPSERT = frozenset({"email", "external_id", *NAMES, "source", "custom_fields", "tag_names"})
_TRACK = frozenset({"event_name", "email", "external_id", "properties"})
_TAG = frozenset({"tag_name", "tag_id"})


def iso(now: float) -> str:
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class Contact:
    __slots__ = (
        "created_at",
        "custom_fields",
        "email",
        "emails_sent",
        "events",
        "external_id",
        "id",
        "names",
        "source",
        "tags",
        "updated_at",
    )

    def __init__(self, id: str, email: str, external_id: str | None, source: str, now: float) -> None:
        self.id = id
        self.email = email
        self.external_id = external_id
        self.source = source
        self.names: dict[str, str] = {}
        self.custom_fields: JsonObject = {}
        self.tags: dict[str, str] = {}
        """Tag names and their ids, in the order in which they were added."""
        self.events: deque[JsonObject] = deque(maxlen=EVENTS_KEPT)
        self.emails_sent = 0
        self.created_at = now
        self.updated_at = now


class Answer(NamedTuple):
    """What an endpoint answers, and what the ledger wants to know about it."""

    status: int
    body: JsonObject
    contact: Contact | None = None
    repeated: bool = False
    """An identical send within the hour: answered again, not carried out again."""


class Automation(NamedTuple):
    """One line of the automations log."""

    number: int
    at: float
    type: str
    """contact_created, contact_updated, tag_added, tag_removed, custom_event or sequence_enrolled."""
    contact_id: str
    email: str
    detail: JsonObject

    def view(self) -> JsonObject:
        return {**self._asdict(), "at": iso(self.at)}


class Contacts:
    def __init__(self, rng: random.Random, log_limit: int) -> None:
        self._rng = rng
        self.by_id: OrderedDict[str, Contact] = OrderedDict()
        """Least recently changed first."""
        self._by_email: dict[str, Contact] = {}
        self._by_external_id: dict[str, Contact] = {}
        self._tag_ids: dict[str, str] = {}
        self._tag_names: dict[str, str] = {}
        self._suppressed: dict[str, tuple[str, str]] = {}
        self.automations: Log[Automation] = Log(log_limit)
        self.fired: Counter[str] = Counter()

    def new_id(self) -> str:
        return str(uuid.UUID(int=self._rng.getrandbits(128), version=4))

    # -- finding

    def find(self, email: str | None = None, external_id: str | None = None) -> Contact | None:
        """By external_id first, then by email."""
        contact = self._by_external_id.get(external_id) if external_id is not None else None
        if contact is None and email is not None:
            contact = self._by_email.get(email_key(email))
        return contact

    def newest(self, limit: int, search: str = "") -> list[Contact]:
        """At most `limit` contacts, the last changed first; `search` is part of an email or external_id."""
        found: list[Contact] = []
        wanted = search.casefold()
        for contact in reversed(self.by_id.values()):
            if len(found) >= limit:
                break
            if wanted in contact.email.casefold() or (contact.external_id and wanted in contact.external_id.casefold()):
                found.append(contact)
        return found

    def view(self, contact: Contact) -> JsonObject:
        """The whole contact, as upsert answers it. The engagement counters' names are (assumed)."""
        names = contact.names
        return {
            "id": contact.id,
            "email": contact.email,
            "external_id": contact.external_id,
            "first_name": names.get("first_name", ""),
            "last_name": names.get("last_name", ""),
            "display_name": names.get("display_name", ""),
            "source": contact.source,
            "status": self.suppression(contact.email) or "active",
            "custom_fields": contact.custom_fields,
            "tags": [{"id": tag_id, "name": name} for name, tag_id in contact.tags.items()],
            "emails_sent": contact.emails_sent,
            "emails_opened": 0,
            "emails_clicked": 0,
            "created_at": iso(contact.created_at),
            "updated_at": iso(contact.updated_at),
        }

    # -- suppression

    def suppress(self, email: str, reason: str = "unsubscribed") -> None:
        """Puts an address on the list, whether or not it has a contact."""
        self._suppressed[email_key(email)] = (email.strip(), reason)

    def allow(self, email: str) -> bool:
        """Takes an address off the list; whether it was on it."""
        return self._suppressed.pop(email_key(email), None) is not None

    def suppression(self, email: str) -> str | None:
        """Why nothing may be sent to this address; None when it may."""
        found = self._suppressed.get(email_key(email)) if self._suppressed else None
        return found[1] if found else None

    def suppressed(self, now: float) -> Answer:
        emails = [email for email, _ in self._suppressed.values()]
        return Answer(200, {"as_of": iso(now), "count": len(emails), "emails": emails})

    # -- upsert

    def upsert(self, body: Mapping[str, Any], now: float) -> Answer:
        fields.only(body, _UPSERT)
        email = fields.needed_email(body)
        contact, created = self.apply(email, body, now)
        return Answer(201 if created else 200, self.view(contact), contact)

    def apply(self, email: str, body: Mapping[str, Any], now: float, where: str = "") -> tuple[Contact, bool]:
        """Creates or changes the contact that email and body name; whether it was created. Checks before it changes."""
        external_id = fields.text(body, "external_id", where=where)
        names = {name: value for name in NAMES if (value := fields.person_name(body, name, where)) is not None}
        source = fields.source(body, where=where)
        custom_fields = fields.json_object(body, "custom_fields", where)
        tag_names = fields.texts(body, "tag_names", where)

        contact = self.find(email, external_id)
        if contact is None:
            contact = Contact(self.new_id(), email, external_id, source or "api", now)
            contact.names.update(names)
            contact.custom_fields.update(custom_fields)
            self.by_id[contact.id] = contact
            self._by_email[email_key(email)] = contact
            if external_id is not None:
                self._by_external_id[external_id] = contact
            self.fire("contact_created", contact, now, {"source": contact.source})
            self._add_tags(contact, tag_names, now)
            return contact, True

        rekeyed = email_key(contact.email) != email_key(email)
        if rekeyed and email_key(email) in self._by_email:
            raise Refused(400, "email_taken", "This email belongs to another contact.", f"{where}email")
        changes: JsonObject = {}
        if rekeyed:
            changes["email"] = {"old": contact.email, "new": email}
            self._rekey(contact, email)
        if external_id is not None and external_id != contact.external_id:
            changes["external_id"] = {"old": contact.external_id, "new": external_id}
            if contact.external_id is not None:
                del self._by_external_id[contact.external_id]
            contact.external_id = external_id
            self._by_external_id[external_id] = contact
        for name, value in names.items():
            if contact.names.get(name, "") != value:
                changes[name] = {"old": contact.names.get(name, ""), "new": value}
                contact.names[name] = value
        for name, value in custom_fields.items():
            held = contact.custom_fields
            if name not in held or not fields.same_json(held[name], value):
                changes[f"custom_fields.{name}"] = {"old": held.get(name), "new": value}
                held[name] = value
        if changes:
            self._touch(contact, now)
            self.fire("contact_updated", contact, now, {"changes": changes})
        self._add_tags(contact, tag_names, now)
        return contact, False

    def _rekey(self, contact: Contact, email: str) -> None:
        reason = self.suppression(contact.email)
        if reason in ("unsubscribed", "complained") and self.suppression(email) is None:
            self.suppress(email, reason)
        del self._by_email[email_key(contact.email)]
        contact.email = email
        self._by_email[email_key(email)] = contact

    def _touch(self, contact: Contact, now: float) -> None:
        contact.updated_at = now
        self.by_id.move_to_end(contact.id)

    def fire(self, type: str, contact: Contact, now: float, detail: JsonObject) -> None:
        """Writes a line of the automations log."""
        self.fired[type] += 1
        log = self.automations
        log.append(Automation(log.total + 1, now, type, contact.id, contact.email, detail))

    # -- events

    def track(self, body: Mapping[str, Any], now: float) -> Answer:
        fields.only(body, _TRACK)
        event_name = fields.needed(body, "event_name")
        email = fields.email(body, required=False)
        external_id = fields.text(body, "external_id")
        properties = fields.json_object(body, "properties")
        if email is None and external_id is None:
            raise fields.invalid("email", "email or external_id is required.")
        contact = self.find(email, external_id)
        if contact is None:
            raise Refused(404, "contact_not_found", "No contact matches this external_id or email; upsert it first.")
        contact.events.append({"event_name": event_name, "at": now, "properties": properties})
        self.by_id.move_to_end(contact.id)
        self.fire("custom_event", contact, now, {"event_name": event_name, "properties": properties})
        answer = {"status": "tracked", "contact_id": contact.id, "event_name": event_name, "timestamp": iso(now)}
        return Answer(200, answer, contact)

    # -- tags

    def _add_tags(self, contact: Contact, names: list[str], now: float) -> None:
        for name in names:
            if name not in contact.tags:
                contact.tags[name] = self._tag_id(name)
                self._touch(contact, now)
                self.fire("tag_added", contact, now, {"tag": name})

    def _tag_id(self, name: str) -> str:
        tag_id = self._tag_ids.get(name)
        if tag_id is None:
            tag_id = self._tag_ids[name] = self.new_id()
            self._tag_names[tag_id] = name
        return tag_id

    def _tag_call(self, contact_id: str, body: Mapping[str, Any]) -> tuple[Contact, str]:
        fields.only(body, _TAG)
        tag_name = fields.text(body, "tag_name")
        tag_id = fields.text(body, "tag_id")
        if (tag_name is None) == (tag_id is None):
            raise fields.invalid("tag_name", "Give either tag_name or tag_id.")
        contact = self.by_id.get(contact_id)
        if contact is None:
            raise Refused(404, "contact_not_found", "No contact has this id.")
        if tag_name is None:
            tag_name = self._tag_names.get(tag_id or "")
            if tag_name is None:
                raise Refused(404, "tag_not_found", "No tag has this id.")
        return contact, tag_name

    def add_tag(self, contact_id: str, body: Mapping[str, Any], now: float) -> Answer:
        contact, name = self._tag_call(contact_id, body)
        self._add_tags(contact, [name], now)
        return Answer(200, self.view(contact), contact)

    def remove_tag(self, contact_id: str, body: Mapping[str, Any], now: float) -> Answer:
        contact, name = self._tag_call(contact_id, body)
        if contact.tags.pop(name, None) is not None:
            self._touch(contact, now)
            self.fire("tag_removed", contact, now, {"tag": name})
        return Answer(200, self.view(contact), contact)
