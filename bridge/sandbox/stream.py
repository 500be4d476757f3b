"""A believable stream of lifecycle events, for the demo, tests and benchmarks. Pure: the same seed, the same bytes.

A few hundred people sign up, log in (most of what happens), finish their onboarding, change plans, pay or fail to pay,
cancel and sometimes come back. Activity is Zipf-distributed: the busiest tenth makes most of the events, as in life,
and as order by contact must bear. Every user's first event is the sign-up, and everybody signs up where there are at
least as many good events as users.

Each event's data holds `user_id`, `email` and `seq`, which counts that user's events from 1: whoever receives them can
check order and completeness without knowing anything else. Bad events use up a number too, so a gap at the receiver
is explained by a bad event of that number or is a loss.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import accumulate, cycle
from pathlib import Path
from typing import Any, NamedTuple

import orjson

POISONS = ("broken_json", "missing_type", "missing_email", "refused_address", "invalid_utf8")
"""Kinds of bad events, in the order in which they take turns; the first, second and last cannot be decoded, the third
lacks a field that a rule needs, and the fourth is an address that Meisa refuses with 400."""

_FIRST, _LAST = map(
    str.split,
    (
        "Anna Ben Carla David Elena Felix Greta Hugo Ines Jonas Karla Leo Maria Noah Olga Paul Rosa Samir Tess Umut "
        "Vera Wim Yara Zoe",
        "Adler Baker Costa Dubois Eriksen Fischer Garcia Haddad Ito Jansen Keller Lopez Moreau Novak Okafor Petrov "
        "Rossi Sato Tanaka Usman Vogel Weber Yilmaz Zhang",
    ),
)
_DOMAINS = ("example.com", "example.org", "example.net")
_COUNTRIES = ("DE", "US", "FR", "NL", "BR", "JP", "GB", "ES")
_CAMPAIGNS = ("spring", "launch", "webinar", None, None)
_SOURCES = ("google", "newsletter", "friend", None)
_PRICES = {"free": 0, "standard": 29, "pro": 99}
_HEADERS = (("content-type", b"application/json"),)


class SampleEvent(NamedTuple):
    """One record to produce, and what a test needs to know about it."""

    key: bytes
    """The user's id: all events of a user share a partition."""
    value: bytes
    headers: tuple[tuple[str, bytes], ...]
    poison: str | None
    """The kind of bad event, of POISONS; None for a good one."""
    user: str
    sequence: int
    """Which of the user's events this is, from 1."""


@dataclass(slots=True)
class _User:
    """One person's state, as the application would know it."""

    user_id: str
    first_name: str
    last_name: str
    email: str
    country: str
    sequence: int = 0
    plan: str = "free"
    status: str = "trialing"
    billing_cycle: str = "monthly"
    onboarded: bool = False
    signins: int = 0
    invoices: int = 0

    @property
    def mrr(self) -> float:
        price = _PRICES.get(self.plan, 0)
        return round(price * 10 / 12, 2) if self.billing_cycle == "annual" else float(price)


def events(
    seed: int,
    count: int,
    users: int,
    zipf_s: float = 1.1,
    poison: int = 0,
    *,
    now_wall_seconds: float,
    span_seconds: float = 3600.0,
    times: Sequence[float] | None = None,
    milestones: float = 1.0,
) -> Iterator[SampleEvent]:
    """`count` events of `users` people, `poison` of them bad, over the `span_seconds` up to `now_wall_seconds`.

    Times never run backwards. The default span keeps every event younger than the bridge's `max_age` of a day; `times`
    gives each event its own (wall seconds, ascending) instead. `milestones` is the share that is left of all that is
    neither a sign-up nor a log-in: at 0.1 a user logs in more often. Needs memory for one integer per event and one
    state per user. Raises ValueError for numbers that make no stream.
    """
    if users < 1 or count < 0 or not 0 <= poison <= max(0, count - 1) or span_seconds < 0:
        raise ValueError("needs at least one user, and fewer bad events than events: the first is always good")
    if (times is not None and len(times) != count) or not 0 <= milestones <= 1:
        raise ValueError("needs a time for each event, and a share from 0 to 1")
    rng = random.Random(seed)
    people = [_user(rng, number) for number in range(users)]
    actors = iter(_actors(rng, count - poison, users, zipf_s))
    bad = set(rng.sample(range(1, count), poison))
    kinds = cycle(POISONS)
    signed_up: list[_User] = []
    for index in range(count):
        # A little uneven, but never beyond the next event's slot; the last ends just before now.
        ago = 0.0 if times is not None else span_seconds * (1 - (index + rng.random()) / count)
        time = _iso(now_wall_seconds - ago if times is None else times[index])
        kind = next(kinds) if index in bad else None
        user = people[next(actors)] if kind is None else rng.choice(signed_up)
        user.sequence += 1
        if kind is not None:
            value = _bad_value(rng, kind, user, time)
        elif user.sequence == 1:
            signed_up.append(user)
            value = _value(rng, "user.signed_up", time, user, _signed_up(rng, user, time))
        else:
            quiet = milestones < 1 and rng.random() >= milestones
            type, data = _logged_in(user, time) if quiet else _next(rng, user, time)
            value = _value(rng, type, time, user, data)
        yield SampleEvent(user.user_id.encode(), value, _HEADERS, kind, user.user_id, user.sequence)


def write_jsonl(path: Path, stream: Iterable[SampleEvent]) -> int:
    """Writes the values, one per line, and returns how many. Bad events are written as bad as they are."""
    written = 0
    with path.open("wb") as file:
        for event in stream:
            file.write(event.value + b"\n")
            written += 1
    return written


def _actors(rng: random.Random, count: int, users: int, zipf_s: float) -> list[int]:
    """Who acts, in order: everybody once as far as that goes, the rest by Zipf's law, user 0 the busiest."""
    everybody = list(range(users))[:count]
    weights = list(accumulate((rank + 1) ** -zipf_s for rank in range(users)))
    actors = everybody + rng.choices(range(users), cum_weights=weights, k=count - len(everybody))
    rng.shuffle(actors)
    return actors


def _user(rng: random.Random, number: int) -> _User:
    first, last = rng.choice(_FIRST), rng.choice(_LAST)
    email = f"{first}.{last}{number}@{rng.choice(_DOMAINS)}".lower()
    return _User(f"u_{number + 1:05d}", first, last, email, rng.choice(_COUNTRIES))


def _signed_up(rng: random.Random, user: _User, time: str) -> dict[str, Any]:
    data: dict[str, Any] = {
        "first_name": user.first_name,
        "last_name": user.last_name,
        "plan": user.plan,
        "subscription_status": user.status,
        "signup_date": time,
        "country": user.country,
    }
    campaign, source = rng.choice(_CAMPAIGNS), rng.choice(_SOURCES)
    if campaign:
        data["utm_campaign"] = campaign
    if source:
        data["utm_source"] = source
    return data


def _next(rng: random.Random, user: _User, time: str) -> tuple[str, dict[str, Any]]:
    """The type and data of what a signed-up user does next; changes the user's state accordingly."""
    dice = rng.random()
    if not user.onboarded and dice < 0.15:
        user.onboarded = True
        return "onboarding.completed", {"onboarding_completed": True, "completed_at": time}
    if user.status in ("trialing", "canceled") and dice > 0.85:
        return _plan_changed(rng, user)
    if user.status in ("active", "past_due"):
        if dice > 0.97:
            return _canceled(rng, user, time)
        if dice > 0.92:
            return _plan_changed(rng, user)
        if dice > 0.80:
            return _invoice(rng, user, time, paid=dice > 0.83)
    return _logged_in(user, time)


def _logged_in(user: _User, time: str) -> tuple[str, dict[str, Any]]:
    user.signins += 1
    return "user.logged_in", {"signin_count": user.signins, "last_active": time}


def _plan_changed(rng: random.Random, user: _User) -> tuple[str, dict[str, Any]]:
    previous = user.plan
    user.plan = rng.choice([plan for plan in ("standard", "pro") if plan != previous])
    user.billing_cycle = rng.choice(("monthly", "monthly", "annual"))
    user.status = "active"
    return "plan.changed", {
        "plan": user.plan,
        "previous_plan": previous,
        "billing_cycle": user.billing_cycle,
        "subscription_status": user.status,
        "mrr": user.mrr,
    }


def _invoice(rng: random.Random, user: _User, time: str, *, paid: bool) -> tuple[str, dict[str, Any]]:
    user.invoices += 1
    user.status = "active" if paid else "past_due"
    months = 10 if user.billing_cycle == "annual" else 1
    data: dict[str, Any] = {
        "invoice_id": f"in_{user.user_id[2:]}_{user.invoices:03d}",
        "amount": _PRICES[user.plan] * months,
        "currency": "EUR" if user.country in ("DE", "FR", "NL", "ES") else "USD",
        "customer": f"cus_{user.user_id[2:]}",
        "plan": user.plan,
        "subscription_status": user.status,
    }
    if paid:
        return "invoice.paid", {**data, "paid_at": time}
    return "invoice.payment_failed", {**data, "reason": rng.choice(("card_declined", "insufficient_funds", "expired"))}


def _canceled(rng: random.Random, user: _User, time: str) -> tuple[str, dict[str, Any]]:
    user.plan, user.status = "churned", "canceled"
    reason = rng.choice(("too_expensive", "missing_feature", "not_used", "other"))
    return "subscription.canceled", {
        "plan": user.plan,
        "subscription_status": user.status,
        "mrr": 0.0,
        "canceled_at": time,
        "reason": reason,
    }


def _envelope(rng: random.Random, type: str, time: str, user: _User, data: dict[str, Any]) -> dict[str, Any]:
    who = {"user_id": user.user_id, "email": user.email, "seq": user.sequence}
    return {
        "id": f"evt_{rng.getrandbits(64):016x}",
        "type": type,
        "time": time,
        "source": "app",
        "subject": user.user_id,
        "data": {**who, **data},
    }


def _value(rng: random.Random, type: str, time: str, user: _User, data: dict[str, Any]) -> bytes:
    return orjson.dumps(_envelope(rng, type, time, user, data))


def _bad_value(rng: random.Random, kind: str, user: _User, time: str) -> bytes:
    """A log-in gone wrong. It leaves the user's state as it was: nobody learns of it."""
    value = _envelope(rng, "user.logged_in", time, user, {"signin_count": user.signins, "last_active": time})
    if kind == "missing_type":
        del value["type"]
    elif kind == "missing_email":
        del value["data"]["email"]
    elif kind == "refused_address":
        value["data"]["email"] = user.email.replace("@", " at ")
    raw = orjson.dumps(value)
    if kind == "broken_json":
        return raw[: len(raw) * 2 // 3]  # as a producer that was cut off leaves it
    if kind == "invalid_utf8":
        return raw.replace(b'"app"', b'"caf\xe9"')  # Latin-1, the classic
    return raw


def _iso(wall_seconds: float) -> str:
    moment = datetime.fromtimestamp(wall_seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
