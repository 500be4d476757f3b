"""The client of Meisa's API: `send` makes one call for the delivery, the typed methods are for commands and people."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import math
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import orjson

from bridge import __version__
from bridge.actions import ActionModel, AddTag, Enroll, RemoveTag, Track, Trigger, Upsert
from bridge.errors import MeisaRefused, MeisaUnanswered, UsageError
from bridge.meisa import models
from bridge.meisa.assumed import DEFAULT, Assumptions
from bridge.meisa.endpoints import ENDPOINTS, Endpoint
from bridge.meisa.judge import Judge, Reply
from bridge.meisa.retrying import Patience, repeat
from bridge.meisa.transport import MAX_IN_FLIGHT, TIMEOUT_SECONDS, AiohttpTransport, Whole
from bridge.model import Call, Outcome, Verdict
from bridge.ports import Clock

DEFAULT_KEY = "default"
_FINAL = frozenset({Verdict.REFUSED, Verdict.NEEDS_CONTACT, Verdict.KEY_REFUSED, Verdict.SCOPE_MISSING})
# A contact's id becomes a part of a path; an uuid by the documentation. Neither "/" nor ".." may get into it.
_CONTACT_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.~-]{0,199}")
_HEADER_VALUE = re.compile(r"[\x21-\x7e]+")

AnswerT = TypeVar("AnswerT", bound=models.Answer)
ActionT = TypeVar("ActionT", bound=ActionModel)


class SystemClock:
    def now(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()


class _BadCall(ValueError):
    """A call that cannot be made into a request."""


class _Prepared:
    """What all requests to one endpoint with one key share. Never shown: it holds the key."""

    __slots__ = ("headers", "method", "url")

    def __init__(self, method: str, url: httpx.URL, headers: list[tuple[bytes, bytes]]) -> None:
        self.method = method
        self.url = url
        self.headers = headers


class MeisaClient:
    """A `ports.Meisa`. The delivery uses `send` only, because it must hold order and quota itself while it waits.

    `keys` maps a key's name (`default`, or an action kind) to what reads it; each is read once here and again by
    `refresh_keys`, so that a rotated file is noticed. `timeout_seconds` bounds one whole call. `transport` is closed
    with the client; without one, the client makes its own with `max_in_flight` connections. `allow_http` permits
    `http://` to other hosts, where keys are of the test environment and the network is private.

    Raises UsageError for a base URL or a key that cannot work.
    """

    def __init__(
        self,
        base_url: str,
        keys: Mapping[str, Callable[[], str]],
        *,
        allow_http: bool = False,
        timeout_seconds: float = TIMEOUT_SECONDS,
        transport: httpx.AsyncBaseTransport | None = None,
        max_in_flight: int = MAX_IN_FLIGHT,
        assumptions: Assumptions = DEFAULT,
        clock: Clock | None = None,
        patience: Patience | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._base_url = _checked_base_url(base_url, allow_http)
        if DEFAULT_KEY not in keys:
            raise UsageError("meisa.api_key is missing")
        self._read_keys = dict(keys)
        self._clock: Clock = clock or SystemClock()
        self._judge = Judge(assumptions)
        self._patience = patience or Patience()
        self._sleep = sleep
        self._transport = transport or AiohttpTransport(max_in_flight=max_in_flight, timeout_seconds=timeout_seconds)
        self.may_write: Callable[[], bool] = lambda: True
        """Asked right before a call leaves; False ends it as withheld."""
        if isinstance(self._transport, AiohttpTransport):
            self._transport.may_write = lambda: self.may_write()
        self._extensions = {"timeout": dict.fromkeys(("connect", "read", "write", "pool"), timeout_seconds)}
        self._keys: dict[str, bytes] = {}
        self._secrets: tuple[bytes, ...] = ()
        self._prepared: dict[tuple[str, str], _Prepared] = {}
        self.refresh_keys()

    def __repr__(self) -> str:
        return f"<MeisaClient {self._base_url}>"

    def refresh_keys(self, wanted: str | None = None) -> bool:
        """Reads all keys again; True if one changed.

        One that is unusable keeps its present value and holds up no other. Raises UsageError for that of `wanted`, or
        without it for any; what could be refreshed is refreshed then.
        """
        read = dict(self._keys)
        unusable: dict[str, UsageError] = {}
        for name, read_key in self._read_keys.items():
            try:
                read[name] = _checked_key(name, read_key())
            except UsageError as error:
                unusable[name] = error
        changed = read != self._keys
        if changed:
            # A former key may still stand in an answer that is on its way.
            self._secrets = tuple({*read.values(), *self._keys.values()})
            self._keys = read
            self._prepared.clear()
        for name, problem in unusable.items():
            if wanted in (None, name):
                raise problem
        return changed

    def fingerprint(self, name: str) -> str:
        """Names the API key of that name as it is at present, to those who count its calls, without telling it."""
        key = self._keys.get(name) or self._keys[DEFAULT_KEY]
        return hashlib.sha256(b"meisa-bridge quota\0" + key).hexdigest()[:32]

    async def send(self, call: Call) -> Outcome:
        """Makes one call, once, and judges it. Never raises, but for being cancelled: then the outcome is unknown.

        The one method for the delivery: it repeats nothing, keeps no order and counts no quota.
        """
        try:
            endpoint, request = self._request(call)
        except _BadCall as error:
            return Outcome(Verdict.REFUSED, message=str(error), detail="bad_call")
        try:
            response = await self._transport.handle_async_request(request)
        except Exception as fault:
            return self._judge.fault(fault)
        body: bytes | None = None
        fault_words = ""
        stream = response.stream
        if isinstance(stream, Whole):
            body = stream.body
        else:
            try:
                body = await response.aread()
            except Exception as fault:
                fault_words = self._judge.fault(fault).message
            finally:
                await response.aclose()
        date, retry_after = _times(response.headers.raw)
        reply = Reply(response.status_code, body, retry_after, date, fault_words)
        return self._judge.answer(endpoint, reply, self._clock.wall(), self._secrets)

    def _request(self, call: Call) -> tuple[Endpoint, httpx.Request]:
        endpoint = ENDPOINTS.get(call.endpoint)
        if endpoint is None:
            raise _BadCall(f"Meisa has no endpoint {call.endpoint!r}")
        prepared = self._prepared.get((call.endpoint, call.key)) or self._prepare(endpoint, call.key)
        url, headers, content = prepared.url, prepared.headers, b""
        if call.contact_id is not None or "{" in endpoint.path:
            url = self._contact_url(endpoint, call.contact_id)
        if endpoint.reads:
            if call.body:
                url = url.copy_merge_params({name: str(value) for name, value in call.body.items()})
        else:
            try:
                content = orjson.dumps(call.body or {})
            except (TypeError, ValueError) as error:
                raise _BadCall(f"the request cannot be written as JSON: {error}") from None
            headers = [*headers, (b"Content-Length", b"%d" % len(content))]
        return endpoint, httpx.Request(
            prepared.method, url, headers=headers, stream=Whole(content), extensions=self._leaving(call.leave_by)
        )

    def _leaving(self, leave_by: float) -> dict[str, Any]:
        return self._extensions if leave_by == math.inf else {**self._extensions, "leave_by": leave_by}

    def _prepare(self, endpoint: Endpoint, key: str) -> _Prepared:
        url = httpx.URL(self._base_url + endpoint.path.replace("{id}", "_"))
        headers = [
            (b"Host", url.netloc),
            (b"X-API-Key", self._keys.get(key) or self._keys[DEFAULT_KEY]),
            (b"User-Agent", f"meisa-bridge/{__version__}".encode()),
            (b"Accept", b"application/json"),
            # The unsubscribed list is long; the others' answers are not worth unpacking.
            (b"Accept-Encoding", b"gzip, deflate" if endpoint.reads else b"identity"),
        ]
        if not endpoint.reads:
            headers.append((b"Content-Type", b"application/json"))
        prepared = self._prepared[endpoint.name, key] = _Prepared(endpoint.method, url, headers)
        return prepared

    def _contact_url(self, endpoint: Endpoint, contact_id: str | None) -> httpx.URL:
        if "{id}" not in endpoint.path:
            raise _BadCall(f"{endpoint.name} takes no contact id")
        if contact_id is None or not _CONTACT_ID.fullmatch(contact_id):
            raise _BadCall(f"{endpoint.name} needs the contact's id as Meisa gave it")
        return httpx.URL(self._base_url + endpoint.path.replace("{id}", contact_id))

    async def close(self) -> None:
        await self._transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    # The typed methods. They repeat where that is harmless (bridge/meisa/retrying.py), return the parsed answer, and
    # raise MeisaRefused, MeisaUnanswered, or ValueError (pydantic's too) for arguments that cannot be sent.

    async def ping(self, *, key: str = DEFAULT_KEY) -> models.Ping:
        """What the key may do, and its environment."""
        return await self._get(Call("ping", key=key), models.Ping)

    async def upsert(self, contact: Upsert | Mapping[str, Any]) -> models.ContactAnswer:
        body = _body(Upsert, contact, needs="email")
        return await self._get(Call("upsert", body), models.ContactAnswer)

    async def track(self, event: Track | Mapping[str, Any]) -> models.Tracked:
        """Raises MeisaRefused with verdict `needs_contact` where Meisa knows no such contact."""
        action = _action(Track, event)
        if action.email is None and action.external_id is None:
            raise ValueError("track needs email or external_id")
        return await self._get(Call("track", action.body()), models.Tracked)

    async def add_tag(
        self, contact_id: str, *, tag_name: str | None = None, tag_id: str | None = None
    ) -> models.TagChanged:
        """`contact_id` is the id that an upsert answered."""
        return await self._get(_tag_call(AddTag, contact_id, tag_name, tag_id), models.TagChanged)

    async def remove_tag(
        self, contact_id: str, *, tag_name: str | None = None, tag_id: str | None = None
    ) -> models.TagChanged:
        return await self._get(_tag_call(RemoveTag, contact_id, tag_name, tag_id), models.TagChanged)

    async def unsubscribed(self) -> models.Unsubscribed:
        """Every address that must not be written to."""
        return await self._get(Call("unsubscribed"), models.Unsubscribed)

    async def enroll(self, enrollment: Enroll | Mapping[str, Any]) -> models.Enrolled:
        """A contact that is in the sequence already is no error: `already_enrolled` tells."""
        call = Call("enroll", _body(Enroll, enrollment, needs="email"))
        outcome = await self._delivered(call)
        if outcome.detail == "already_enrolled":
            return models.Enrolled(already_enrolled=True)
        return _parsed(call, outcome, models.Enrolled)

    async def bulk_enroll(
        self, sequence_slug: str, emails: Iterable[str], *, override_unsubscribe: bool | None = None
    ) -> models.BulkEnrolled:
        """At most 500 emails."""
        request = models.BulkEnrollRequest(
            sequence_slug=sequence_slug, emails=list(emails), override_unsubscribe=override_unsubscribe
        )
        return await self._get(Call("bulk_enroll", request.body()), models.BulkEnrolled)

    async def sequences(self, *, status: str | None = None, search: str | None = None) -> models.Sequences:
        """Active sequences; with `status="all"`, all."""
        query = models.SequencesQuery(status=status, search=search)
        return await self._get(Call("sequences", query.body()), models.Sequences)

    async def enrollments(self, email: str) -> models.Enrollments:
        return await self._get(Call("enrollments", models.EnrollmentsQuery(email=email).body()), models.Enrollments)

    async def trigger(self, email: Trigger | Mapping[str, Any]) -> models.Triggered:
        """One transactional email. Without an `idempotency_key` it is tried once only."""
        return await self._get(Call("trigger", _body(Trigger, email, needs="to_email")), models.Triggered)

    async def _get(self, call: Call, model: type[AnswerT]) -> AnswerT:
        return _parsed(call, await self._delivered(call), model)

    async def _delivered(self, call: Call) -> Outcome:
        outcome = await repeat(
            self.send,
            ENDPOINTS[call.endpoint],
            call,
            patience=self._patience,
            clock=self._clock,
            sleep=self._sleep,
        )
        if outcome.verdict is Verdict.DELIVERED:
            return outcome
        if outcome.detail == "bad_call":
            raise ValueError(outcome.message)
        failed = MeisaRefused if outcome.verdict in _FINAL else MeisaUnanswered
        raise failed(call.endpoint, outcome.verdict.value, outcome.status, outcome.message, outcome.detail)


def _times(headers: list[tuple[bytes, bytes]]) -> tuple[str | None, str | None]:
    """The values of Date and Retry-After. httpx's own look-up decodes every header for each question."""
    date = retry_after = None
    for name, value in headers:
        length = len(name)
        if length == 4 and name.lower() == b"date":
            date = value.decode("latin-1")
        elif length == 11 and name.lower() == b"retry-after":
            retry_after = value.decode("latin-1")
    return date, retry_after


def _parsed(call: Call, outcome: Outcome, model: type[AnswerT]) -> AnswerT:
    try:
        return model.model_validate(outcome.data if outcome.data is not None else {})
    except ValueError:
        # It was carried out: the status says so. But there is nothing to return.
        raise MeisaUnanswered(
            call.endpoint,
            Verdict.DELIVERED.value,
            outcome.status,
            f"carried out, but {outcome.message or 'the answer cannot be read'}",
            "unreadable",
        ) from None


def _action(model: type[ActionT], given: ActionT | Mapping[str, Any]) -> ActionT:
    return given if isinstance(given, model) else model.model_validate(dict(given))


def _body(model: type[ActionModel], given: ActionModel | Mapping[str, Any], *, needs: str) -> dict[str, Any]:
    body = _action(model, given).body()
    if needs not in body:
        raise ValueError(f"{model.KIND.value} needs {needs}")
    return body


def _tag_call(model: type[AddTag | RemoveTag], contact_id: str, tag_name: str | None, tag_id: str | None) -> Call:
    if (tag_name is None) == (tag_id is None):
        raise ValueError("give either tag_name or tag_id")
    body = {"tag_name": tag_name} if tag_name is not None else {"tag_id": tag_id}
    return Call(model.KIND.value, body, contact_id=contact_id)


def _checked_key(name: str, key: str) -> bytes:
    key = key.strip()
    if not _HEADER_VALUE.fullmatch(key):
        what = "is empty" if not key else "holds characters that no key has"
        raise UsageError(f"the Meisa API key {name!r} {what}; expected meisa_live_… or meisa_test_…")
    return key.encode("ascii")


def _checked_base_url(text: str, allow_http: bool) -> str:
    """The base URL without a slash at its end."""
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, TypeError):
        raise UsageError("meisa.base_url is not an address; expected https://api.meisa.io/api/v1") from None
    if url.userinfo or url.query or url.fragment:  # first: what is wrong is shown below, and may not be a password
        raise UsageError("meisa.base_url must hold no user, query or fragment")
    if url.scheme not in ("http", "https") or not url.host:
        raise UsageError(f"meisa.base_url must be an address that begins with https://, not {text!r}")
    if url.scheme == "http" and not allow_http and not _loopback(url.host):
        raise UsageError(f"meisa.base_url sends the API key in clear over http to {url.host}: use https://")
    return str(url).rstrip("/")


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
