"""The client, over httpx's mock transport: what it sends, what it tells, what it never shows, what it repeats."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from uuid import uuid4

import httpx
import orjson
import pytest

from bridge.actions import Enroll, Track, Trigger, Upsert
from bridge.errors import MeisaRefused, MeisaUnanswered, UsageError
from bridge.meisa.client import MeisaClient
from bridge.meisa.retrying import Patience
from bridge.model import Call, Outcome, Verdict

BASE = "https://api.meisa.io/api/v1"
KEY = "meisa_test_" + "k" * 24
CONTACT = {"id": "c1", "email": "a@example.com"}
SENT = {"status": "sent", "email_send_id": "s1"}

Answer = httpx.Response | Exception


def answer(status: int = 200, body: Any = None, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, content=orjson.dumps(CONTACT if body is None else body), headers=named)


class Meisa(httpx.AsyncBaseTransport):
    """Answers from a list, the last one for ever, and keeps what was asked."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers) or [answer()]
        self.requests: list[httpx.Request] = []
        self.closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        self.requests.append(request)
        given = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(given, Exception):
            raise given
        return httpx.Response(given.status_code, headers=given.headers, content=given.content)

    async def aclose(self) -> None:
        self.closed = True

    @property
    def last(self) -> httpx.Request:
        return self.requests[-1]


class Time:
    """A clock that only `sleep` moves."""

    def __init__(self) -> None:
        self.at = 1_000.0
        self.slept: list[float] = []
        self.suspended_seconds = 0.0

    def now(self) -> float:
        return self.at

    def wall(self) -> float:
        return 1_800_000_000.0 + self.at + self.suspended_seconds

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.at += seconds


def client(meisa: httpx.AsyncBaseTransport, time: Time | None = None, **options: Any) -> MeisaClient:
    time = time or Time()
    keys = options.pop("keys", {"default": lambda: KEY})
    return MeisaClient(BASE, keys, transport=meisa, clock=time, sleep=time.sleep, **options)


# What is sent.


@pytest.mark.parametrize(
    ("call", "method", "target"),
    [
        (Call("ping"), "GET", "/api/v1/ping/"),
        (Call("upsert", {"email": "a@example.com"}), "POST", "/api/v1/contacts/upsert/"),
        (Call("track", {"event_name": "x"}), "POST", "/api/v1/events/track/"),
        (Call("add_tag", {"tag_name": "x"}, contact_id="c-1"), "POST", "/api/v1/contacts/c-1/add_tag/"),
        (Call("remove_tag", {"tag_name": "x"}, contact_id="c-1"), "POST", "/api/v1/contacts/c-1/remove_tag/"),
        (Call("unsubscribed"), "GET", "/api/v1/contacts/api/unsubscribed-emails/"),
        (Call("enroll", {"email": "a@example.com"}), "POST", "/api/v1/sequences/enroll/"),
        (Call("bulk_enroll", {"emails": []}), "POST", "/api/v1/sequences/api/bulk-enroll/"),
        (Call("sequences", {"status": "all"}), "GET", "/api/v1/sequences/api/list/?status=all"),
        (
            Call("enrollments", {"email": "a+b@example.com"}),
            "GET",
            "/api/v1/sequences/api/contact-enrollments/?email=a%2Bb%40example.com",
        ),
        (Call("trigger", {"trigger_key": "x"}), "POST", "/api/v1/emails/trigger/"),
    ],
)
async def test_a_call_becomes_its_request(call: Call, method: str, target: str) -> None:
    """Method, path, query, body and headers of every endpoint."""
    meisa = Meisa()
    await client(meisa).send(call)
    assert (meisa.last.method, meisa.last.url.raw_path.decode()) == (method, target)
    assert meisa.last.url.host == meisa.last.headers["host"] == "api.meisa.io"
    assert meisa.last.headers["x-api-key"] == KEY
    if method == "POST":
        assert orjson.loads(meisa.last.content) == call.body
        assert meisa.last.headers["content-type"] == "application/json"
        assert meisa.last.headers["content-length"] == str(len(meisa.last.content))
    else:
        assert meisa.last.content == b""
        assert "content-type" not in meisa.last.headers


@pytest.mark.parametrize(
    "base", [BASE, BASE + "/", "http://localhost:8900", "http://127.0.0.1:8900/", "http://[::1]:1/x"]
)
async def test_base_urls(base: str) -> None:
    """With or without a slash at the end; http for this machine only."""
    meisa = Meisa()
    await MeisaClient(base, {"default": lambda: KEY}, transport=meisa).send(Call("ping"))
    assert str(meisa.last.url) == base.rstrip("/") + "/ping/"


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("http://api.meisa.io/api/v1", "https://"),
        ("http://10.0.0.1/", "https://"),
        ("http://127.0.0.1.evil.example/", "https://"),
        ("http://localhost.evil.example/", "https://"),
        ("ftp://api.meisa.io", "https://"),
        ("api.meisa.io", "https://"),
        ("", "https://"),
        ("https://user:secret@api.meisa.io", "no user"),
        ("https://api.meisa.io/?a=b", "query"),
        ("https://host:port", "not an address"),
        ("ftp://user:secret@api.meisa.io", "no user"),
    ],
)
def test_a_base_url_that_cannot_work_is_refused(base: str, said: str) -> None:
    """A key must not travel in clear; the message says what to write."""
    with pytest.raises(UsageError, match=said):
        MeisaClient(base, {"default": lambda: KEY}, transport=Meisa())


async def test_a_key_of_its_own_per_kind() -> None:
    """`Call.key` picks the key; one that has none of its own uses the default."""
    meisa = Meisa()
    one = client(meisa, keys={"default": lambda: KEY, "trigger": lambda: "meisa_test_other"})
    for key in ("default", "trigger", "upsert"):
        await one.send(Call("ping", key=key))
    assert [request.headers["x-api-key"] for request in meisa.requests] == [KEY, "meisa_test_other", KEY]


async def test_a_rotated_key_is_used_after_a_refresh() -> None:
    """Keys are read again on request, and only a change is a change."""
    present = [KEY]
    meisa = Meisa()
    one = client(meisa, keys={"default": lambda: present[0]})
    await one.send(Call("ping"))
    assert one.refresh_keys() is False
    present[0] = "meisa_test_new\n"
    assert one.refresh_keys() is True
    await one.send(Call("ping"))
    assert [request.headers["x-api-key"] for request in meisa.requests] == [KEY, "meisa_test_new"]


async def test_an_unusable_key_keeps_the_present_one() -> None:
    """A file that is empty for a moment does not take the working key away."""
    present = [KEY]
    meisa = Meisa()
    one = client(meisa, keys={"default": lambda: present[0]})
    present[0] = "  \n"
    with pytest.raises(UsageError, match="empty"):
        one.refresh_keys()
    await one.send(Call("ping"))
    assert meisa.last.headers["x-api-key"] == KEY


async def test_an_unusable_key_holds_up_no_other() -> None:
    """A broken file of one kind's key must not keep the rotated default key from being used; who asks for the broken
    one is told."""
    files = {"default": KEY, "trigger": "meisa_test_trigger"}
    meisa = Meisa()
    one = client(meisa, keys={"trigger": lambda: files["trigger"], "default": lambda: files["default"]})
    files.update(default="meisa_test_new", trigger="")
    assert one.refresh_keys("default") is True
    await one.send(Call("ping"))
    await one.send(Call("ping", key="trigger"))
    assert [request.headers["x-api-key"] for request in meisa.requests] == ["meisa_test_new", "meisa_test_trigger"]
    with pytest.raises(UsageError, match="'trigger'"):
        one.refresh_keys("trigger")
    files["default"] = "meisa_test_newer"
    with pytest.raises(UsageError, match="'trigger'"):
        one.refresh_keys()
    await one.send(Call("ping"))
    assert meisa.last.headers["x-api-key"] == "meisa_test_newer"


@pytest.mark.parametrize("key", ["", "  ", "a b", "a\r\nX-Evil: 1", "schlüssel", "a\x00b"])
def test_a_key_that_no_header_can_carry_is_refused_unseen(key: str) -> None:
    """One line that names which key, and never shows it."""
    with pytest.raises(UsageError) as caught:
        client(Meisa(), keys={"default": lambda: key})
    assert "'default'" in str(caught.value)
    if key.strip():
        assert key not in str(caught.value)


def test_a_default_key_there_must_be() -> None:
    with pytest.raises(UsageError, match="api_key"):
        client(Meisa(), keys={"trigger": lambda: KEY})


@pytest.mark.parametrize(
    "call",
    [
        Call("no_such_endpoint"),
        Call("add_tag", {"tag_name": "x"}),
        Call("add_tag", {"tag_name": "x"}, contact_id=""),
        Call("add_tag", {"tag_name": "x"}, contact_id=".."),
        Call("add_tag", {"tag_name": "x"}, contact_id="../../emails/trigger"),
        Call("add_tag", {"tag_name": "x"}, contact_id="a?b"),
        Call("add_tag", {"tag_name": "x"}, contact_id="a%2fb"),
        Call("upsert", {"email": "a@example.com"}, contact_id="c1"),
        Call("upsert", {"custom_fields": {"n": 1 << 70}}),
        Call("upsert", {"custom_fields": {"o": object()}}),
        Call("upsert", {"email": "\ud800"}),
    ],
)
async def test_a_call_that_cannot_be_made_is_refused_and_not_sent(call: Call) -> None:
    """One bad record must end as a refusal, never as an exception in the delivery."""
    meisa = Meisa()
    outcome = await client(meisa).send(call)
    assert (outcome.verdict, outcome.detail, outcome.status) == (Verdict.REFUSED, "bad_call", None)
    assert outcome.message
    assert meisa.requests == []


# What is told.


async def test_an_answer_is_judged() -> None:
    """Status, headers and body all reach the judge."""
    headers = {"date": "Fri, 15 Jan 2027 08:00:00 GMT", "Retry_After": "Fri, 15 Jan 2027 08:00:09 GMT"}
    outcome = await client(Meisa(answer(429, {"detail": "slow down"}, **headers))).send(Call("ping"))
    assert outcome == Outcome(
        Verdict.THROTTLED,
        429,
        "slow down",
        "throttled",
        retry_after_seconds=9.0,
        data={"detail": "slow down"},
        date_wall_seconds=1_800_000_000.0,
    )


async def test_a_fault_is_judged() -> None:
    """Nothing that a transport raises gets out of `send`."""
    faults = [httpx.ConnectError("no"), httpx.ReadError("no"), OSError("no"), RuntimeError("no")]
    outcomes = [await client(Meisa(fault)).send(Call("upsert", {})) for fault in faults]
    assert [outcome.verdict for outcome in outcomes] == [Verdict.RETRY, *[Verdict.UNKNOWN] * 3]


class _Breaking(httpx.AsyncByteStream):
    def __init__(self) -> None:
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b'{"id":'
        raise httpx.ReadError("reset")

    async def aclose(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    ("status", "verdict"), [(200, Verdict.UNKNOWN), (401, Verdict.KEY_REFUSED), (503, Verdict.RETRY)]
)
async def test_a_broken_body_leaves_the_status(status: int, verdict: Verdict) -> None:
    """A body that breaks off makes a 2xx unknown; other statuses have said what they had to. The stream is closed."""
    stream = _Breaking()
    meisa = httpx.MockTransport(lambda request: httpx.Response(status, stream=stream))
    outcome = await client(meisa).send(Call("upsert", {}))
    assert (outcome.verdict, outcome.status) == (verdict, status)
    assert stream.closed


async def test_a_cancelled_send_stays_cancelled() -> None:
    """Cancelling is the caller's business, not a fault to be judged."""

    async def forever(request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    task = asyncio.create_task(client(httpx.MockTransport(forever)).send(Call("ping")))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_transport_is_closed_with_the_client() -> None:
    meisa = Meisa()
    async with client(meisa):
        assert not meisa.closed
    assert meisa.closed


async def test_a_closed_client_never_sends() -> None:
    """A call after the end is known not to have left."""
    one = MeisaClient("http://127.0.0.1:1", {"default": lambda: KEY})
    await one.close()
    assert (await one.send(Call("ping"))).detail == "never_sent"


def test_nothing_shows_a_key() -> None:
    """No repr of the client or of what it holds."""
    one = client(Meisa())
    assert KEY not in repr(one)
    assert KEY not in str(one)
    assert KEY not in repr(list(one._prepared.values()))


async def test_an_answer_that_repeats_the_key_is_masked() -> None:
    """Some gateways echo headers in their error pages."""
    for key in (KEY, "another-shape-of-key"):
        meisa = Meisa(answer(400, {"detail": f"bad header X-API-Key: {key}"}))
        one = client(meisa, keys={"default": lambda key=key: key})
        assert key not in repr(await one.send(Call("upsert", {})))
        with pytest.raises(MeisaRefused) as caught:
            await one.upsert({"email": "a@example.com"})
        assert key not in str(caught.value)
        assert key not in repr(caught.value)


# The typed methods.

TypedCall = Callable[[MeisaClient], Any]

TYPED: dict[str, tuple[TypedCall, Any, Any]] = {
    # name: (the call, Meisa's answer, the body that must be sent)
    "ping": (lambda c: c.ping(), {"scopes": ["a:b"], "environment": "test"}, None),
    "upsert": (
        lambda c: c.upsert(Upsert(email="a@example.com", external_id="7", aliases={"stripe": "cus_1"}, lane="bulk")),
        CONTACT,
        {"email": "a@example.com", "external_id": "7"},
    ),
    "upsert dict": (lambda c: c.upsert({"email": "a@example.com"}), CONTACT, {"email": "a@example.com"}),
    "track": (
        lambda c: c.track(Track(event_name="x", external_id="7")),
        {"status": "tracked", "contact_id": "c1"},
        {"event_name": "x", "external_id": "7"},
    ),
    "add_tag": (lambda c: c.add_tag("c1", tag_name="x"), {}, {"tag_name": "x"}),
    "remove_tag": (lambda c: c.remove_tag("c1", tag_id="5"), {}, {"tag_id": "5"}),
    "unsubscribed": (lambda c: c.unsubscribed(), {"as_of": "x", "count": 1, "emails": ["b@x.io"]}, None),
    "enroll": (
        lambda c: c.enroll(Enroll(email="a@example.com", sequence_slug="s")),
        {"status": "enrolled"},
        {"email": "a@example.com", "sequence_slug": "s"},
    ),
    "bulk_enroll": (
        lambda c: c.bulk_enroll("s", ["a@x.io", "b@x.io"], override_unsubscribe=False),
        {"results": [{"email": "a@x.io", "status": "enrolled"}]},
        {"sequence_slug": "s", "emails": ["a@x.io", "b@x.io"], "override_unsubscribe": False},
    ),
    "sequences": (lambda c: c.sequences(status="all"), {"results": [{"slug": "s"}]}, None),
    "enrollments": (lambda c: c.enrollments("a@example.com"), [{"sequence_slug": "s"}], None),
    "trigger": (
        lambda c: c.trigger(Trigger(trigger_key="welcome", to_email="a@example.com", idempotency_key="i1")),
        SENT,
        {"trigger_key": "welcome", "to_email": "a@example.com", "idempotency_key": "i1"},
    ),
}


@pytest.mark.parametrize("name", TYPED)
async def test_a_typed_call_sends_and_parses(name: str) -> None:
    """Each method sends the endpoint's own fields only, and returns the answer as a model."""
    call, said, body = TYPED[name]
    meisa = Meisa(answer(200, said))
    got = await call(client(meisa))
    assert len(meisa.requests) == 1
    if body is not None:
        assert orjson.loads(meisa.last.content) == body
    if name.startswith("upsert"):
        assert got.id == "c1"
    elif name == "ping":
        assert (got.scopes, got.environment) == (["a:b"], "test")
    elif name == "unsubscribed":
        assert got.emails == ["b@x.io"]
    elif name == "track":
        assert got.contact_id == "c1"
    elif name == "enroll":
        assert not got.already_enrolled
    elif name == "trigger":
        assert (got.status, got.email_send_id) == ("sent", "s1")
    elif name == "bulk_enroll":
        assert [(result.email, result.status) for result in got.results] == [("a@x.io", "enrolled")]
    elif name == "sequences":
        assert [item.slug for item in got.items] == ["s"]
    elif name == "enrollments":
        assert [item.sequence_slug for item in got.items] == ["s"]


async def test_already_enrolled_is_no_error() -> None:
    got = await client(Meisa(answer(409, {"error": "already enrolled"}))).enroll(
        {"email": "a@example.com", "sequence_slug": "s"}
    )
    assert got.already_enrolled


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.upsert(Upsert(external_id="7")),
        lambda c: c.upsert({"email": "a@example.com", "emial": "x"}),
        lambda c: c.track(Track(event_name="x", contact={"stripe": "cus_1"})),
        lambda c: c.enroll(Enroll(sequence_slug="s", external_id="7")),
        lambda c: c.trigger(Trigger(trigger_key="x", external_id="7")),
        lambda c: c.add_tag("c1"),
        lambda c: c.add_tag("c1", tag_name="x", tag_id="5"),
        lambda c: c.add_tag("../x", tag_name="x"),
        lambda c: c.bulk_enroll("s", ["a@x.io"] * 501),
        lambda c: c.bulk_enroll("s", []),
        lambda c: c.enrollments(""),
    ],
)
async def test_arguments_that_cannot_be_sent(call: TypedCall) -> None:
    """A ValueError, and no request."""
    meisa = Meisa()
    with pytest.raises(ValueError, match=r"."):
        await call(client(meisa))
    assert meisa.requests == []


@pytest.mark.parametrize(
    ("status", "verdict"), [(400, "refused"), (401, "key_refused"), (403, "scope_missing"), (404, "needs_contact")]
)
async def test_a_final_answer_is_raised_at_once(status: int, verdict: str) -> None:
    """The same request fails again: it is not repeated."""
    meisa = Meisa(answer(status, {"detail": "no"}))
    with pytest.raises(MeisaRefused) as caught:
        await client(meisa).track({"event_name": "x", "email": "a@example.com"})
    error = caught.value
    assert (error.endpoint, error.verdict, error.status) == ("track", verdict, status)
    assert len(meisa.requests) == 1


async def test_carried_out_but_unreadable_is_not_repeated() -> None:
    """An upsert whose answer is no contact was carried out; there is nothing to return."""
    meisa = Meisa(answer(200, {"ok": True}))
    with pytest.raises(MeisaUnanswered, match="carried out") as caught:
        await client(meisa).upsert({"email": "a@example.com"})
    assert caught.value.verdict == "delivered"
    assert len(meisa.requests) == 1


# Repeating.

REQUEST = httpx.Request("POST", BASE)
NEVER_LEFT = httpx.ConnectError("refused", request=REQUEST)
UNKNOWN = httpx.ReadTimeout("late", request=REQUEST)
BUSY = answer(503, {"detail": "busy"})
SLOW_DOWN = answer(429, {"detail": "slow down"})

FREELY = sorted(set(TYPED) - {"track", "trigger", "upsert dict"})


def _typed(name: str) -> tuple[TypedCall, httpx.Response]:
    call, said, _ = TYPED[name]
    return call, answer(200, said)


@pytest.mark.parametrize("name", FREELY)
@pytest.mark.parametrize("fault", [NEVER_LEFT, UNKNOWN, BUSY, SLOW_DOWN], ids=["never", "unknown", "503", "429"])
async def test_what_is_harmless_is_repeated(name: str, fault: Answer) -> None:
    """Reads, upserts, tags and enrolls: after anything that is not final."""
    call, good = _typed(name)
    meisa, time = Meisa(fault, fault, good), Time()
    await call(client(meisa, time))
    assert len(meisa.requests) == 3
    assert len(time.slept) == 2


@pytest.mark.parametrize("fault", [NEVER_LEFT, BUSY, SLOW_DOWN], ids=["never", "503", "429"])
async def test_a_track_is_repeated_where_it_was_not_done(fault: Answer) -> None:
    call, good = _typed("track")
    meisa = Meisa(fault, good)
    await call(client(meisa))
    assert len(meisa.requests) == 2


async def test_a_track_of_unknown_outcome_is_not_repeated() -> None:
    """Meisa has no key to know it by: it could be tracked twice, and automations would fire twice."""
    meisa = Meisa(UNKNOWN)
    with pytest.raises(MeisaUnanswered) as caught:
        await client(meisa).track({"event_name": "x", "email": "a@example.com"})
    assert caught.value.verdict == "unknown"
    assert len(meisa.requests) == 1


@pytest.mark.parametrize("fault", [NEVER_LEFT, UNKNOWN, BUSY, SLOW_DOWN], ids=["never", "unknown", "503", "429"])
async def test_a_trigger_with_a_key_is_repeated(fault: Answer) -> None:
    """Meisa knows the send by its idempotency key: every attempt carries the same one."""
    call, good = _typed("trigger")
    meisa = Meisa(fault, good)
    await call(client(meisa))
    assert [orjson.loads(request.content)["idempotency_key"] for request in meisa.requests] == ["i1", "i1"]


@pytest.mark.parametrize("fault", [NEVER_LEFT, UNKNOWN, BUSY, SLOW_DOWN], ids=["never", "unknown", "503", "429"])
async def test_a_trigger_without_a_key_is_tried_once(fault: Answer) -> None:
    meisa = Meisa(fault)
    with pytest.raises(MeisaUnanswered):
        await client(meisa).trigger({"trigger_key": "welcome", "to_email": "a@example.com"})
    assert len(meisa.requests) == 1


PATIENT = Patience(attempts=1000, total_seconds=1e9)


async def test_a_trigger_is_not_repeated_beyond_the_idempotency_window() -> None:
    """Later than an hour the same key would send a second email."""
    meisa, time = Meisa(answer(429, {}, retry_after="600")), Time()
    start = time.now()
    with pytest.raises(MeisaUnanswered):
        await TYPED["trigger"][0](client(meisa, time, patience=PATIENT))
    assert len(meisa.requests) == 6  # at 0, 10, … 50 minutes, and not at 60
    assert time.now() - start < 55 * 60


async def test_a_suspended_machine_counts_towards_the_window() -> None:
    """The wait took an hour of wall time although the monotonic clock stood still: the trigger stays unsent."""
    meisa, time = Meisa(UNKNOWN), Time()

    async def suspended(seconds: float) -> None:
        time.suspended_seconds += 3_600

    one = MeisaClient(BASE, {"default": lambda: KEY}, transport=meisa, clock=time, sleep=suspended)
    with pytest.raises(MeisaUnanswered) as caught:
        await TYPED["trigger"][0](one)
    assert caught.value.verdict == "unknown"
    assert len(meisa.requests) == 1


async def test_retry_after_is_honoured() -> None:
    """The wait is what Meisa asks for, also where it is longer than any of our own."""
    meisa, time = Meisa(answer(429, {}, retry_after="42"), answer(200, TYPED["ping"][1])), Time()
    await client(meisa, time).ping()
    assert time.slept == [42.0]


async def test_a_wait_beyond_patience_is_not_begun() -> None:
    """Who calls gets to know at once that Meisa asks for an hour."""
    meisa, time = Meisa(answer(429, {}, retry_after="3600")), Time()
    with pytest.raises(MeisaUnanswered):
        await client(meisa, time).ping()
    assert time.slept == []


async def test_waits_grow_and_are_bounded() -> None:
    """Doubling from half a second, each between half of it and all of it; the attempts are counted."""
    meisa, time = Meisa(BUSY), Time()
    patience = Patience(attempts=9, wait_seconds_max=4.0, total_seconds=1e9)
    with pytest.raises(MeisaUnanswered) as caught:
        await client(meisa, time, patience=patience).ping()
    assert caught.value.status == 503
    assert len(meisa.requests) == 9
    for seconds, most in zip(time.slept, [0.5, 1, 2, 4, 4, 4, 4, 4], strict=True):
        assert most / 2 <= seconds <= most


async def test_waits_differ() -> None:
    """Many clients that failed together do not come back together."""
    firsts = set()
    for _ in range(5):
        meisa, time = Meisa(BUSY, answer(200, TYPED["ping"][1])), Time()
        await client(meisa, time).ping()
        firsts.add(time.slept[0])
    assert len(firsts) > 1


async def test_send_repeats_nothing() -> None:
    """The delivery holds order and quota itself: one call of `send` is one request."""
    for fault in (NEVER_LEFT, UNKNOWN, BUSY, SLOW_DOWN):
        meisa = Meisa(fault)
        await client(meisa).send(Call("upsert", {"email": "a@example.com"}))
        assert len(meisa.requests) == 1


@pytest.fixture(autouse=True)
def _no_key_in_any_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever a test of this file does, no log line of any library holds the key."""
    caplog.set_level("DEBUG")
    yield
    assert KEY not in caplog.text


def test_ids_as_meisa_gives_them() -> None:
    """A uuid is a contact id."""
    from bridge.meisa.client import _CONTACT_ID

    assert _CONTACT_ID.fullmatch(str(uuid4()))


def test_a_fingerprint_names_a_key_without_telling_it() -> None:
    """The same for the same key whatever it is called; another one once the key is another."""
    now = {"default": "meisa_test_one", "trigger": "meisa_test_two", "track": "meisa_test_one"}
    client = MeisaClient("http://127.0.0.1:1/api/v1", {name: lambda name=name: now[name] for name in now})  # type: ignore[misc]
    one, two, again = (client.fingerprint(name) for name in now)
    assert one == again != two
    assert len(one) == 32 and "meisa_test" not in one
    now["default"] = "meisa_test_two"
    client.refresh_keys()
    assert client.fingerprint("default") == two
