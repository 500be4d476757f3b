"""The sandbox's world as a Meisa in this process: real effects, real answers, no network and no quota of its own."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple

from bridge.model import Call
from bridge.ports import Clock
from bridge.preview.imagined import ImaginedMeisa
from bridge.sandbox.contacts import Answer


class Made(NamedTuple):
    """A call as the server saw it."""

    at: float
    """When it was sent (monotonic)."""
    call: Call
    status: int


class WorldMeisa(ImaginedMeisa):
    """The Meisa of previews, which here remembers what it was asked."""

    def __init__(self, clock: Clock, *, latency: float = 0.05, log_limit: int = 100_000, watched: str = "") -> None:
        super().__init__(clock, latency=latency, log_limit=log_limit)
        self.calls: list[Made] = []
        self.values: dict[str, list[Any]] = defaultdict(list)
        """The values that the custom field `watched` took, by contact's id, in order."""
        self._watched = watched

    def made(self, sent: float, call: Call, status: int) -> None:
        self.calls.append(Made(sent, call, status))

    def carry_out(self, call: Call, body: dict[str, Any]) -> Answer:
        answer = super().carry_out(call, body)
        if call.endpoint == "upsert":
            self._watch(answer)
        return answer

    def _watch(self, answer: Answer) -> None:
        contact = answer.contact
        if contact is not None and self._watched in contact.custom_fields:
            values, value = self.values[contact.id], contact.custom_fields[self._watched]
            if not values or values[-1] != value:
                values.append(value)

    # What a test compares

    def contacts(self) -> list[dict[str, Any]]:
        """What everybody would see of the contacts, without ids and times; in the order of emails."""
        seen = []
        for contact in self.world.contacts.by_id.values():
            view = self.world.contacts.view(contact)
            seen.append(
                {
                    **{name: view[name] for name in ("email", "external_id", "first_name", "last_name", "source")},
                    "custom_fields": dict(view["custom_fields"]),
                    "tags": sorted(contact.tags),
                    "emails": contact.emails_sent,
                }
            )
        return sorted(seen, key=lambda each: str(each["email"]))

    def transitions(self) -> dict[str, list[Any]]:
        """The values that the watched field took, by the contact's present email."""
        by_id = self.world.contacts.by_id
        return {by_id[name].email: values for name, values in self.values.items()}

    def moments(self) -> dict[str, list[Any]]:
        """Tracked events, enrollments, emails and removed tags of each contact, in the order in which they happened."""
        found: dict[str, list[tuple[float, Any]]] = defaultdict(list)
        for line in self.world.contacts.automations:
            if line.type in ("custom_event", "sequence_enrolled", "tag_removed"):
                found[line.contact_id].append((line.at, (line.type, line.detail)))
        for email in self.world.emails:
            found[email.contact_id].append((email.at, ("email", email.trigger_key, email.to_email, email.variables)))
        by_id = self.world.contacts.by_id
        return {
            by_id[name].email: [what for _, what in sorted(happened, key=lambda each: each[0])]
            for name, happened in found.items()
        }
