"""What each event of the stream asks for, in the words of the demo's rules: its actions, and what its upsert says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from bridge.sandbox.audit import EXPECTED_CALLS
from bridge.sandbox.stream import SampleEvent

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

_SAYS: Final[Mapping[str, tuple[str, ...]]] = {
    "user.signed_up": ("plan", "subscription_status", "signup_date", "country", "utm_source", "utm_campaign"),
    "user.logged_in": ("last_active", "signin_count"),
    "onboarding.completed": (),
    "plan.changed": ("plan", "billing_cycle", "subscription_status", "mrr"),
    "invoice.paid": (),
    "invoice.payment_failed": (),
    "subscription.canceled": (),
}
_SAYS_ALWAYS: Final[Mapping[str, Mapping[str, Any]]] = {
    "onboarding.completed": {"onboarding_completed": True},
    "invoice.payment_failed": {"subscription_status": "past_due"},
    "subscription.canceled": {"plan": "churned", "subscription_status": "canceled", "mrr": 0},
}


def type_of(event: SampleEvent) -> str:
    """Of a good event."""
    return str(orjson.loads(event.value)["type"])


def says(event: SampleEvent) -> dict[str, Any]:
    """The custom fields of a good event's upsert."""
    value = orjson.loads(event.value)
    type, data = value["type"], value["data"]
    fields = {name: data[name] for name in _SAYS[type] if name in data}
    return {"seq": event.sequence, **fields, **_SAYS_ALWAYS.get(type, {})}


def runs(produced: Sequence[SampleEvent]) -> dict[tuple[str, int], int]:
    """User and number of each event with an upsert → which run of the user's upserts it is in.

    Upserts of a run have nothing else of the user between them, so they may merge, and no crash is a reason to set
    the contact back from one to another. A bad address ends a run as anything else does: its upsert stands by itself.
    """
    now: defaultdict[str, int] = defaultdict(int)
    found = {}
    for event in produced:
        if event.poison is not None:
            now[event.user] += event.poison == "refused_address"
            continue
        plan = PLANS[type_of(event)]
        if "upsert" in plan:
            found[event.user, event.sequence] = now[event.user]
        now[event.user] += plan != ("upsert",)
    return found
