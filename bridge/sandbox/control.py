"""The control API under `/_sandbox/`: looks at everything, and changes what a dashboard, or fate, would change.

No key is asked for: whoever reaches the port may use it. Requests that a foreign web page makes in somebody's browser
are refused by their Origin header. `environment` is `test` or `live`; without it a GET shows both and a POST changes
both.

GET  state                                            keys, quotas, counts, faults, clock
GET  overview?environment=&search=                    what the page shows
GET  ledger?since=&limit=&endpoint=&contact=          calls in order of arrival
GET  contacts?search=&limit=, contacts?email=         contacts, last changed first; one with events and enrollments
GET  emails?since=&limit=, automations?since=&limit=
GET, POST, DELETE faults                              rates, and `rules` (added to those there); DELETE turns all off
POST keys         {key, scopes, per_minute, per_hour, algorithm, revoked}
POST triggers     {trigger_key, active, sender, delay_seconds, conditions}
POST sequences    {sequence_slug, status, name}
POST enrollments  {email, sequence_slug, status}
POST suppress     {email, reason}, allow {email}
POST clock        {advance_seconds}                   an hour passes at once: idempotency, quota windows
POST reset        {}                                  as after the start

With `sandbox --kafka`, `kafka` is an embedded broker's: see playground.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, fields
from itertools import islice
from typing import Any

import orjson

from bridge.sandbox import fields as checks
from bridge.sandbox.api import ENVIRONMENTS, Clock, Reply, Request, Sandbox, parse_query
from bridge.sandbox.contacts import SUPPRESSIONS, Contact, iso
from bridge.sandbox.faults import Rates, Rule
from bridge.sandbox.fields import Refused
from bridge.sandbox.options import SCOPES, ApiKey, check_scopes, environment_of, parse_trigger
from bridge.sandbox.world import World

PREFIX = "/_sandbox/"
PAGE_ENTRIES_MAX = 10_000
"""Entries of one answer: some megabytes; `next` says where to go on."""
SHOWN = 50

Query = dict[str, str]
Body = dict[str, Any]


class Control:
    def __init__(self, sandbox: Sandbox, clock: Clock) -> None:
        self._sandbox = sandbox
        self._clock = clock
        self._gets: dict[str, Callable[[Query], Any]] = {
            "state": lambda query: self.state(),
            "overview": self._overview,
            "ledger": self._ledger,
            "contacts": self._contacts,
            "emails": self._emails,
            "automations": self._automations,
            "faults": lambda query: self._fault_view(),
        }
        self._posts: dict[str, Callable[[Body], Any]] = {
            "faults": self._set_faults,
            "keys": self._set_key,
            "triggers": self._set_trigger,
            "sequences": self._set_sequence,
            "enrollments": self._set_enrollment,
            "suppress": self._suppress,
            "allow": self._allow,
            "clock": self._advance,
            "reset": self._reset,
        }

    def handle(self, request: Request) -> Reply:
        name = request.path.removeprefix(PREFIX).rstrip("/")
        try:
            status, body = 200, self._answer(name, request)
        except Refused as refused:
            status, body = refused.status, {"error": {"code": refused.code, "message": refused.message}}
        except ValueError as error:
            status, body = 400, {"error": {"code": "invalid", "message": f"{error}"}}
        return Reply(status, orjson.dumps(body), (("cache-control", "no-store"), ("x-content-type-options", "nosniff")))

    def _answer(self, name: str, request: Request) -> Any:
        if request.too_large:
            raise Refused(413, "too_large", "The body is too long.")
        if request.method == "GET" and name in self._gets:
            return self._gets[name](parse_query(request.query))
        if name not in self._gets and name not in self._posts:
            known = ", ".join(sorted(self._gets.keys() | self._posts.keys()))
            raise Refused(404, "not_found", f"The control API has no {name[:100]!r}; there are: {known}")
        # A page from elsewhere can send a POST from somebody's browser, but cannot hide where it comes from.
        origin = request.headers.get("origin")
        if origin is not None and origin.partition("://")[2] != request.headers.get("host"):
            raise Refused(403, "foreign_origin", "Requests from other web pages are refused.")
        if request.method == "DELETE" and name == "faults":
            self._sandbox.faults.clear()
            return self._fault_view()
        if request.method != "POST" or name not in self._posts:
            raise Refused(405, "method_not_allowed", f"{request.method} is not possible here.")
        return self._posts[name](checks.parse_object(request.body or b"{}"))

    def _worlds(self, environment: Any) -> Iterable[tuple[str, World]]:
        if environment in (None, ""):
            return self._sandbox.worlds.items()
        if environment not in ENVIRONMENTS:
            raise ValueError("environment must be test or live")
        return [(environment, self._sandbox.worlds[environment])]

    # -- looking

    def state(self) -> Body:
        sandbox, now = self._sandbox, self._clock.now()
        ledger = sandbox.ledger
        return {
            "now": iso(now),
            "options": {
                spec.name: getattr(sandbox.options, spec.name)
                for spec in fields(sandbox.options)
                if spec.name not in ("triggers", "sequences", "keys")
            },
            "keys": [self._key_view(key, now) for key in sandbox.keys.values()],
            "counts": dict(ledger.counts),
            "calls": ledger.by_status(),
            "ledger": {"total": ledger.entries.total, "dropped": ledger.entries.dropped},
            "faults": self._fault_view(),
            "environments": {
                name: {
                    "contacts": len(world.contacts.by_id),
                    "emails": world.emails.total,
                    "suppressed": world.contacts.suppressed(now).body["count"],
                    "automations": dict(world.contacts.fired),
                    "counts": dict(world.counts),
                    "triggers": {key: asdict(trigger) for key, trigger in world.triggers.items()},
                    "sequences": {slug: sequence.status for slug, sequence in world.sequences.items()},
                }
                for name, world in sandbox.worlds.items()
            },
        }

    def _key_view(self, key: ApiKey, now: float) -> Body:
        return {
            "name": key.name,
            "environment": key.environment,
            "scopes": sorted(key.scopes),
            "revoked": key.revoked,
            "quota": key.quota.snapshot(now),
        }

    def _fault_view(self) -> Body:
        faults = self._sandbox.faults
        return {**asdict(faults.rates), "rules": [rule.view() for rule in faults.rules]}

    def _overview(self, query: Query) -> Body:
        """Small whatever the sandbox holds: the page asks for it every second."""
        now, search = self._clock.now(), query.get("search", "")
        shown: Body = {"state": self.state(), "contacts": [], "emails": [], "automations": []}
        for name, world in self._worlds(query.get("environment")):
            mark = {"environment": name}
            contacts = world.contacts
            shown["contacts"] += [mark | contacts.view(contact) for contact in contacts.newest(SHOWN, search)]
            shown["emails"] += [mark | email.view(now) for email in world.emails.newest(SHOWN)]
            shown["automations"] += [mark | line.view() for line in contacts.automations.newest(SHOWN)]
        shown["contacts"].sort(key=lambda contact: contact["updated_at"], reverse=True)
        for name in ("emails", "automations"):
            shown[name].sort(key=lambda entry: entry["at"], reverse=True)
        shown["ledger"] = [entry.view() for entry in self._sandbox.ledger.entries.newest(SHOWN)]
        return shown

    def _ledger(self, query: Query) -> Body:
        entries = self._sandbox.ledger.entries
        since, limit = _number(query, "since", 0), _number(query, "limit", 1000, PAGE_ENTRIES_MAX)
        wanted = {name: query[name] for name in ("endpoint", "environment", "key") if name in query}
        contact = query.get("contact", "").strip().casefold()
        found: list[Body] = []
        upto = entries.total
        for entry in entries.since(since, len(entries)):
            if len(found) == limit:
                upto = found[-1]["number"]
                break
            if contact and entry.contact.casefold() != contact:
                continue
            if all(getattr(entry, name) == value for name, value in wanted.items()):
                found.append(entry.view())
        return {"entries": found, "next": upto, "total": entries.total, "dropped": entries.dropped}

    def _contacts(self, query: Query) -> Body:
        limit = _number(query, "limit", 100, PAGE_ENTRIES_MAX)
        found: list[Body] = []
        for name, world in self._worlds(query.get("environment")):
            if "email" in query or "external_id" in query:
                contact = world.contacts.find(query.get("email"), query.get("external_id"))
                found += [self._story(name, world, contact)] if contact else []
            else:
                contacts = world.contacts.newest(limit, query.get("search", ""))
                found += [{"environment": name, **world.contacts.view(contact)} for contact in contacts]
        return {"contacts": found}

    def _story(self, environment: str, world: World, contact: Contact) -> Body:
        events = [{**event, "at": iso(event["at"])} for event in contact.events]
        enrollments = world.list_enrollments(contact.email).body["enrollments"]
        view = world.contacts.view(contact)
        return {"environment": environment, **view, "events": events, "enrollments": enrollments}

    def _emails(self, query: Query) -> Body:
        now = self._clock.now()
        worlds = self._worlds(query.get("environment"))
        return _pages(query, ((name, world.emails, lambda email: email.view(now)) for name, world in worlds))

    def _automations(self, query: Query) -> Body:
        worlds = self._worlds(query.get("environment"))
        return _pages(query, ((name, world.contacts.automations, lambda line: line.view()) for name, world in worlds))

    # -- changing

    def _set_faults(self, body: Body) -> Body:
        faults = self._sandbox.faults
        names = {spec.name for spec in fields(Rates)}
        for name in body:
            if name not in names and name != "rules":
                raise ValueError(f"there is no fault {name}; known are {', '.join(sorted(names))}, rules")
        rules = body.get("rules", [])
        if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
            raise ValueError("rules must be a list of objects")
        parsed = [Rule.parse(rule) for rule in rules]
        rates = Rates(**{**asdict(faults.rates), **{name: body[name] for name in body if name != "rules"}})
        rates.check()
        faults.add(parsed)
        faults.rates = rates
        faults.changed()
        return self._fault_view()

    def _set_key(self, body: Body) -> Body:
        sandbox = self._sandbox
        checks.only(body, frozenset({"key", "name", "scopes", "per_minute", "per_hour", "algorithm", "revoked"}))
        text = checks.needed(body, "key")
        environment_of(text)
        held = sandbox.keys.get(text)
        scopes = check_scopes(body["scopes"]) if "scopes" in body else held.scopes if held else frozenset(SCOPES)
        quota = held.quota if held else sandbox.options.new_quota()
        if body.keys() & {"per_minute", "per_hour", "algorithm"}:
            limits = [body.get(name, getattr(quota, name)) for name in ("per_minute", "per_hour")]
            if not all(isinstance(limit, int) and not isinstance(limit, bool) for limit in limits):
                raise ValueError("per_minute and per_hour must be whole numbers")
            quota = sandbox.options.new_quota(limits[0], limits[1], checks.text(body, "algorithm") or quota.algorithm)
        name = checks.text(body, "name") or (held.name if held else text)
        revoked = checks.flag(body, "revoked") if "revoked" in body else held is not None and held.revoked
        key = sandbox.keys[text] = ApiKey(text, scopes, quota, name, revoked)
        return self._key_view(key, self._clock.now())

    def _set_trigger(self, body: Body) -> Body:
        environment, key = body.pop("environment", None), checks.needed(body, "trigger_key")
        config = parse_trigger({name: value for name, value in body.items() if name != "trigger_key"})
        for _, world in self._worlds(environment):
            world.set_trigger(key, config)
        return {"trigger_key": key, **asdict(config)}

    def _set_sequence(self, body: Body) -> Body:
        checks.only(body, frozenset({"environment", "sequence_slug", "status", "name"}))
        slug, status = checks.needed(body, "sequence_slug"), body.get("status", "active")
        if status not in ("active", "inactive"):
            raise ValueError("status must be active or inactive")
        name = checks.text(body, "name") or ""
        for _, world in self._worlds(body.get("environment")):
            world.set_sequence(slug, status=status, name=name)
        return {"sequence_slug": slug, "status": status}

    def _set_enrollment(self, body: Body) -> Body:
        checks.only(body, frozenset({"environment", "email", "sequence_slug", "status"}))
        email, slug, status = checks.needed_email(body), checks.needed(body, "sequence_slug"), body.get("status")
        if status not in ("active", "paused", "completed", "canceled"):
            raise ValueError("status must be active, paused, completed or canceled")
        changed = [world.set_enrollment(email, slug, status) for _, world in self._worlds(body.get("environment"))]
        if not any(changed):
            raise Refused(404, "not_found", "This contact was never enrolled in this sequence.")
        return {"email": email, "sequence_slug": slug, "status": status}

    def _suppress(self, body: Body) -> Body:
        checks.only(body, frozenset({"environment", "email", "reason"}))
        email, reason = checks.needed_email(body), body.get("reason", SUPPRESSIONS[0])
        if reason not in SUPPRESSIONS:
            raise ValueError(f"reason must be one of {', '.join(SUPPRESSIONS)}")
        for _, world in self._worlds(body.get("environment")):
            world.contacts.suppress(email, reason)
        return {"email": email, "reason": reason}

    def _allow(self, body: Body) -> Body:
        checks.only(body, frozenset({"environment", "email"}))
        email = checks.needed_email(body)
        found = [world.contacts.allow(email) for _, world in self._worlds(body.get("environment"))]
        return {"email": email, "was_suppressed": any(found)}

    def _advance(self, body: Body) -> Body:
        checks.only(body, frozenset({"advance_seconds"}))
        seconds = body.get("advance_seconds")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise ValueError("advance_seconds must be a number")
        self._clock.advance(seconds)
        return {"now": iso(self._clock.now())}

    def _reset(self, body: Body) -> Body:
        checks.only(body, frozenset())
        self._sandbox.reset()
        return {"status": "reset"}


def _number(query: Query, name: str, default: int, most: int = 2**53) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal()) or int(text) > most:
        raise ValueError(f"{name} must be a whole number of at most {most}")
    return int(text)


def _pages(query: Query, logs: Iterable[tuple[str, Any, Callable[[Any], Body]]]) -> Body:
    """Entries of one or both environments in order of time; numbers and `next` are per environment."""
    since, limit = _number(query, "since", 0), _number(query, "limit", 1000, PAGE_ENTRIES_MAX)
    entries: list[Body] = []
    ends: dict[str, int] = {}
    totals: dict[str, int] = {}
    for name, log, view in logs:
        found = log.since(since, limit)
        entries += [{"environment": name, **view(entry)} for entry in found]
        ends[name] = found[-1].number if found else since
        totals[name] = log.total
    entries.sort(key=lambda entry: entry["at"])
    return {"entries": list(islice(entries, 2 * limit)), "next": ends, "totals": totals}
