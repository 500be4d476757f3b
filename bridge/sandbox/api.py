"""The gate in front of the two worlds: one request in, one reply out. Pure; time comes in as `now` (wall seconds).

What a call passes, in this order (assumed, where Meisa does not say):
path (404) → method (405) → size (413) → key (401) → quota (429) → scope (403) → JSON (400) → faults → endpoint.
So every call with a valid key counts in the quota whatever its answer, except one that the quota itself refuses; faults
that hit after the quota count too. This is the strictest reading, so a client that fits it fits the others.
"""

from __future__ import annotations

import math
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote

import orjson

from bridge.sandbox.contacts import Answer
from bridge.sandbox.faults import Fault, Faults
from bridge.sandbox.fields import Refused, parse_object
from bridge.sandbox.ledger import Entry, Ledger
from bridge.sandbox.options import ApiKey, SandboxOptions
from bridge.sandbox.world import World, WorldOptions

BASE_PATH = "/api/v1"
ENVIRONMENTS = ("test", "live")
PATH_CHARS_KEPT = 300
"""The ledger cuts longer paths: a stranger's URL must not fill it."""


@dataclass(slots=True)
class Request:
    method: str
    path: str
    """As sent, still percent-encoded."""
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    """Lower-case names; only those that anybody asks for."""
    body: bytes = b""
    too_large: bool = False


@dataclass(slots=True)
class Reply:
    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = "application/json"
    delay_seconds: float = 0.0
    cut: str = ""
    """before, after, half: close the connection instead of answering, or half way through the answer."""
    reset: bool = False
    hang_seconds: float = 0.0
    """Above 0: hold the connection this long, then close it without an answer."""
    entry: Entry | None = None
    ledger: Ledger | None = None
    """Where the entry is kept: a reset begins a new ledger while answers to the old one are under way."""


class Endpoint(NamedTuple):
    name: str
    method: str
    scope: str | None
    """None: any key."""


class Call(NamedTuple):
    """What an endpoint is given."""

    world: World
    key: ApiKey
    body: dict[str, Any]
    query: dict[str, str]
    contact_id: str
    now: float


ENDPOINTS: dict[str, Endpoint] = {
    "/ping/": Endpoint("ping", "GET", None),
    "/contacts/upsert/": Endpoint("upsert", "POST", "contacts:write"),
    "/events/track/": Endpoint("track", "POST", "events:track"),
    "/contacts/{id}/add_tag/": Endpoint("add_tag", "POST", "contacts:write"),
    "/contacts/{id}/remove_tag/": Endpoint("remove_tag", "POST", "contacts:write"),
    "/contacts/api/unsubscribed-emails/": Endpoint("unsubscribed", "GET", "contacts:read"),
    "/sequences/enroll/": Endpoint("enroll", "POST", "sequences:enroll"),
    "/sequences/api/bulk-enroll/": Endpoint("bulk_enroll", "POST", "sequences:enroll"),
    "/sequences/api/list/": Endpoint("sequences", "GET", "sequences:read"),
    "/sequences/api/contact-enrollments/": Endpoint("enrollments", "GET", "sequences:read"),
    "/emails/trigger/": Endpoint("trigger", "POST", "emails:trigger"),
}
_STATIC = {BASE_PATH + path: endpoint for path, endpoint in ENDPOINTS.items() if "{" not in path}
_TAG_PATH = re.compile(re.escape(BASE_PATH) + r"/contacts/([^/]+)/(add_tag|remove_tag)/")
_TAGS = {name: ENDPOINTS[f"/contacts/{{id}}/{name}/"] for name in ("add_tag", "remove_tag")}


def _ping(call: Call) -> Answer:
    body = {
        "status": "ok",
        "scopes": sorted(call.key.scopes),
        "environment": call.key.environment,
        "product": "Meisa sandbox",
    }
    return Answer(200, body)


_CARRY_OUT: dict[str, Callable[[Call], Answer]] = {
    "ping": _ping,
    "upsert": lambda call: call.world.contacts.upsert(call.body, call.now),
    "track": lambda call: call.world.contacts.track(call.body, call.now),
    "add_tag": lambda call: call.world.contacts.add_tag(call.contact_id, call.body, call.now),
    "remove_tag": lambda call: call.world.contacts.remove_tag(call.contact_id, call.body, call.now),
    "unsubscribed": lambda call: call.world.contacts.suppressed(call.now),
    "enroll": lambda call: call.world.enroll(call.body, call.now),
    "bulk_enroll": lambda call: call.world.bulk_enroll(call.body, call.now),
    "sequences": lambda call: call.world.list_sequences(call.query.get("status", ""), call.query.get("search", "")),
    "enrollments": lambda call: call.world.list_enrollments(call.query.get("email", "")),
    "trigger": lambda call: call.world.trigger(call.body, call.now),
}


class Sandbox:
    """Keys, quotas, faults, the ledger and one world per environment."""

    def __init__(self, options: SandboxOptions) -> None:
        options.check()
        self.options = options
        self.reset()

    def reset(self) -> None:
        """Back to how it was started."""
        options = self.options
        seed = random.Random(options.seed)
        world_options = WorldOptions(
            options.triggers,
            options.sequences,
            options.already_enrolled_status,
            options.guardrail_per_hour,
            options.log_limit,
        )
        self.faults = Faults(options.rates(), random.Random(seed.getrandbits(64)))
        self.worlds = {name: World(world_options, random.Random(seed.getrandbits(64))) for name in ENVIRONMENTS}
        self.ledger = Ledger(options.log_limit)
        self.keys: dict[str, ApiKey] = {key.key: key for key in options.all_keys()}

    # -- one call

    def handle(self, request: Request, now: float) -> Reply:
        """Carries a call out, or refuses it, at once; the reply says how and when to answer."""
        entry = self.ledger.open(now, request.method, request.path[:PATH_CHARS_KEPT], request.body)
        headers: list[tuple[str, str]] = []
        fault: Fault | None = None
        try:
            endpoint, contact_id = self._route(request, headers)
            entry.endpoint = endpoint.name
            if request.too_large:
                limit = self.options.body_bytes_max
                raise Refused(413, "too_large", f"The body is longer than {limit} bytes.")
            key = self._key(request)
            entry.key, entry.environment = key.name, key.environment
            self._admit(key, now, headers)
            if endpoint.scope is not None and endpoint.scope not in key.scopes:
                raise Refused(403, "missing_scope", f"This API key lacks the scope {endpoint.scope}.")
            call = Call(self.worlds[key.environment], key, _parse(request), parse_query(request.query), contact_id, now)
            fault = self._fault(entry, endpoint, call)
            status, body = self._carry_out(entry, endpoint, call, fault, headers)
        except Refused as refused:
            status, body = refused.status, self._error(refused)
            entry.message = refused.message
        entry.status = status
        self.ledger.decided(entry)
        reply = Reply(status, orjson.dumps(body), tuple(headers), entry=entry, ledger=self.ledger)
        reply.delay_seconds = self.faults.latency_seconds()
        if fault is not None:
            reply.delay_seconds += fault.latency_ms / 1000
            reply.cut, reply.reset = fault.cut, fault.reset
            reply.hang_seconds = self.faults.rates.hang_seconds if fault.hang else 0.0
        return reply

    def _route(self, request: Request, headers: list[tuple[str, str]]) -> tuple[Endpoint, str]:
        endpoint, contact_id = _STATIC.get(request.path), ""
        if endpoint is None and (match := _TAG_PATH.fullmatch(request.path)):
            endpoint, contact_id = _TAGS[match[2]], unquote(match[1])
        if endpoint is None:
            with_slash = request.path + "/"
            if with_slash in _STATIC or _TAG_PATH.fullmatch(with_slash):
                raise Refused(404, "not_found", f"There is no such path; every path ends in a slash: {with_slash}")
            raise Refused(404, "not_found", "There is no such path.")
        if request.method != endpoint.method:
            headers.append(("allow", endpoint.method))
            raise Refused(405, "method_not_allowed", f"Use {endpoint.method} here.")
        return endpoint, contact_id

    def _key(self, request: Request) -> ApiKey:
        text = request.headers.get("x-api-key", "")
        if not text:
            raise Refused(401, "missing_key", "The X-API-Key header is missing.")
        key = self.keys.get(text)
        if key is None or key.revoked:
            raise Refused(401, "invalid_key", "This API key is not valid.")
        return key

    def _admit(self, key: ApiKey, now: float, headers: list[tuple[str, str]]) -> None:
        wait_seconds, window = key.quota.admit(now)
        if not window:
            return
        whole = max(1, math.ceil(wait_seconds))
        if self.options.retry_after == "seconds":
            headers.append(("retry-after", str(whole)))
        elif self.options.retry_after == "date":
            headers.append(("retry-after", formatdate(math.ceil(now + wait_seconds), usegmt=True)))
        limit = key.quota.per_minute if window == "minute" else key.quota.per_hour
        raise Refused(429, "rate_limited", f"Over the limit of {limit} calls per {window}. Try again in {whole} s.")

    def _fault(self, entry: Entry, endpoint: Endpoint, call: Call) -> Fault | None:
        """What goes wrong with this call, by the names of the contact that it gives or finds."""
        names = [
            value for name in ("email", "to_email", "external_id") if isinstance(value := call.body.get(name), str)
        ]
        if call.contact_id:
            contact = call.world.contacts.by_id.get(call.contact_id)
            names.append(contact.email if contact else call.contact_id)
        elif self.faults.rules and isinstance(external_id := call.body.get("external_id"), str):
            contact = call.world.contacts.find(None, external_id)
            if contact is not None:
                names.append(contact.email)
        if "email" in call.query:
            names.append(call.query["email"])
        entry.contact = names[0][:PATH_CHARS_KEPT] if names else ""
        return self.faults.decide(endpoint.name, tuple(names), call.key.name)

    def _carry_out(
        self, entry: Entry, endpoint: Endpoint, call: Call, fault: Fault | None, headers: list[tuple[str, str]]
    ) -> tuple[int, Any]:
        """The status and body to answer. Raises Refused where the endpoint, or the fault, refuses."""
        if fault is not None and not fault.only_slow:
            entry.fault = fault.name
        if fault is None or fault.works:
            answer = _CARRY_OUT[endpoint.name](call)
            entry.carried_out = not answer.repeated
            entry.repeated = answer.repeated
            if answer.contact is not None:
                entry.contact = answer.contact.email
            status, body = answer.status, answer.body
        else:
            status, body = 0, None
        if fault is not None and fault.status:
            if fault.retry_after is not None:
                headers.append(("retry-after", fault.retry_after))
            raise Refused(fault.status, fault.name, fault.message)
        return status, body

    def _error(self, refused: Refused) -> dict[str, Any]:
        """Error bodies (assumed shape): `{"error": {"code", "message"}}`, or `{"detail": message}` by option."""
        if self.options.error_shape == "detail":
            return {"detail": refused.message}
        error = {"code": refused.code, "message": refused.message}
        if refused.field:
            error["field"] = refused.field
        return {"error": error}


def _parse(request: Request) -> dict[str, Any]:
    """The body as an object; GETs have none. Its Content-Type is not looked at (assumed)."""
    if request.method == "GET":
        return {}
    try:
        return parse_object(request.body)
    except ValueError as error:
        raise Refused(400, "invalid_json", f"The body must be a JSON object: {error}.") from None


def parse_query(text: str) -> dict[str, str]:
    """Query parameters; of a repeated one the last counts."""
    if not text:
        return {}
    try:
        return {name: values[-1] for name, values in parse_qs(text, max_num_fields=50).items()}
    except ValueError:
        raise Refused(400, "invalid_query", "The query string has too many parameters.") from None


class Clock:
    """Wall seconds that never go back, whatever is done to the machine's clock; can be moved forward for tests."""

    def __init__(self) -> None:
        self._start = time.time() - time.monotonic()

    def now(self) -> float:
        return self._start + time.monotonic()

    def advance(self, seconds: float) -> None:
        """Raises ValueError for a step back: no window of the quota could be trusted after it."""
        if not 0 <= seconds <= 366 * 86_400:
            raise ValueError("the clock goes forward only, by at most a year")
        self._start += seconds
