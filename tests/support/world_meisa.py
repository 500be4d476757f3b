"""The sandbox's world as a Meisa in this process: real effects, real answers, no network and no quota of its own."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson

from bridge.meisa.endpoints import ENDPOINTS
from bridge.meisa.judge import Judge, Reply
from bridge.model import Call, Outcome
from bridge.ports import Clock
from bridge.sandbox.contacts import Answer
from bridge.sandbox.fields import Refused
from bridge.sandbox.world import World, WorldOptions


class Made(NamedTuple):
    """A call as the server saw it."""

    at: float
    """When it was sent (monotonic)."""
    call: Call
    status: int


class WorldMeisa:
    """ports.Meisa. Carries a call out half of `latency` after it was sent, and answers after the other half."""

    def __init__(self, clock: Clock, *, latency: float = 0.05, log_limit: int = 100_000, watched: str = "") -> None:
        self.world = World(WorldOptions(log_limit=log_limit), random.Random(5))
        self.calls: list[Made] = []
        self.answered: Callable[[Call], None] = lambda call: None
        """Hears of each call once its answer is back."""
        self.values: dict[str, list[Any]] = defaultdict(list)
        """The values that the custom field `watched` took, by contact's id, in order."""
        self._watched = watched
        self._clock = clock
        self._latency = latency
        self._judge = Judge()

    async def send(self, call: Call) -> Outcome:
        sent = self._clock.now()
        await asyncio.sleep(self._latency / 2)
        status, body = self._serve(call)
        self.calls.append(Made(sent, call, status))
        await asyncio.sleep(self._latency / 2)
        self.answered(call)
        reply = Reply(status, orjson.dumps(body))
        return self._judge.answer(ENDPOINTS[call.endpoint], reply, self._clock.wall())

    async def close(self) -> None:
        pass

    def _serve(self, call: Call) -> tuple[int, Any]:
        try:
            # What is sent is JSON: an object that the bridge goes on changing must not change the world's.
            answer = self._carry_out(call, orjson.loads(orjson.dumps(call.body or {})))
        except Refused as refused:
            return refused.status, {"error": {"code": refused.code, "message": refused.message}}
        return answer.status, answer.body

    def _carry_out(self, call: Call, body: dict[str, Any]) -> Answer:
        world, now = self.world, self._clock.wall()
        match call.endpoint:
            case "upsert":
                answer = world.contacts.upsert(body, now)
                self._watch(answer)
                return answer
            case "track":
                return world.contacts.track(body, now)
            case "add_tag":
                return world.contacts.add_tag(call.contact_id or "", body, now)
            case "remove_tag":
                return world.contacts.remove_tag(call.contact_id or "", body, now)
            case "enroll":
                return world.enroll(body, now)
            case "bulk_enroll":
                return world.bulk_enroll(body, now)
            case "trigger":
                return world.trigger(body, now)
            case "unsubscribed":
                return world.contacts.suppressed(now)
            case "ping":
                return Answer(200, {"scopes": [], "environment": "test", "product": "world"})
        raise AssertionError(f"no such endpoint here: {call.endpoint}")

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
