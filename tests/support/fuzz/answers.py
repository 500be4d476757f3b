"""Bad answers of Meisa and of a schema registry: each is judged, and what is kept of it is bounded and shows no key."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from random import Random
from typing import Any

import httpx
import orjson

from bridge.decode.avro import WireAvro
from bridge.errors import MeisaFailed, RegistryFailed, UnknownSchema
from bridge.kafka.letters import headers_of
from bridge.meisa.client import MeisaClient
from bridge.meisa.endpoints import ENDPOINTS
from bridge.meisa.retrying import Patience
from bridge.model import Call, Letter, LetterKind, Record, Verdict
from bridge.observe.masking import mask
from bridge.registry.client import RegistryClient
from bridge.sandbox.api import Request, Sandbox
from bridge.sandbox.options import TEST_KEY, SandboxOptions
from tests.support.fuzz import damage
from tests.support.fuzz.case import API_KEY, REGISTRY_AUTH, Broken, Report, dice_of, hold, no_secret
from tests.support.fuzz.corpus import registered

STATUSES = (200, 200, 200, 201, 202, 204, 206, 299, 301, 302, 304, 400, 400, 401, 403, 404, 404, 405, 409, 413, 418,
422,
            422, 429, 431, 451, 499, 500, 502, 503, 504, 599, 600, 999)  # fmt: skip
WORDS = ("Contact is already enrolled", "unsubscribed", "sequence not active", "rate limited", "invalid", "bounced")
MOMENTS = ("", "-1", "1e309", "nan", "inf", "9" * 400, "Sun, 99 Foo 2026 00:00:00 GMT", "Thu, 01 Jan 1970 00:00:00 GMT",
           "Fri, 31 Dec 9999 23:59:59 GMT", "Sun, 22 Nov 2026 22:00:00 +9999", "0", "3", "1_0", "\xa07",
           "0x10")  # fmt: skip
SUCCESS = {200: Verdict.DELIVERED, 201: Verdict.DELIVERED, 202: Verdict.DELIVERED}
BODIES: dict[str, dict[str, Any]] = {
    "upsert": {"email": "a@example.com"},
    "track": {"email": "a@example.com", "event_name": "e"},
    "enroll": {"email": "a@example.com", "sequence_slug": "onboarding"},
    "bulk_enroll": {"emails": ["a@example.com"], "sequence_slug": "onboarding"},
    "trigger": {"to_email": "a@example.com", "trigger_key": "welcome", "idempotency_key": "k"},
    "add_tag": {"tag_name": "t"},
    "remove_tag": {"tag_name": "t"},
}


def good_answers() -> dict[str, Any]:
    """What the sandbox answers to each call."""
    sandbox = Sandbox(SandboxOptions(seed=1, per_minute=0, per_hour=0))
    found: dict[str, Any] = {}
    contact = ""
    for name in ("upsert", "ping", "unsubscribed", "sequences", "enrollments", *BODIES):
        endpoint = ENDPOINTS[name]
        body = orjson.dumps(BODIES.get(name, {}))
        path = "/api/v1" + endpoint.path.replace("{id}", contact)
        query = "email=a%40example.com" if name == "enrollments" else ""
        found[name] = orjson.loads(
            sandbox.handle(Request(endpoint.method, path, query, {"x-api-key": TEST_KEY}, body), 1e9).body
        )
        contact = contact or found["upsert"]["id"]
    return found


def _body(dice: Random, good: Any) -> bytes:
    roll = dice.random()
    if roll < 0.3:
        return damage.written(damage.tree(good, dice), dice).encode("utf-8", "surrogatepass")
    if roll < 0.45:
        return damage.damaged(orjson.dumps(good), dice)
    if roll < 0.7:
        text = f"{dice.choice(damage.HOSTILE)} {dice.choice(WORDS)} {API_KEY} {dice.choice(damage.HOSTILE)}"
        shapes: tuple[Any, ...] = (
            text, {"error": {"message": text, "code": 1}}, {"detail": [text] * 30}, {text: text}, [text],
            {"error": text},
            {"message": {"message": {"message": text}}}, {"errors": {"email": [text, None, 7]}}, {"status": text,
            "reason": text},
            {"results": [{"email": text, "status": text, "reason": text}]}, {"emails": [text, None, 7]}, {"id": text},
        )  # fmt: skip
        return json.dumps(dice.choice(shapes), ensure_ascii=dice.random() < 0.5).encode()
    if roll < 0.8:
        return f"<html><title>{dice.choice(damage.HOSTILE)} {API_KEY}</title>{API_KEY}<p>".encode() * dice.choice(
            (1, 40)
        )
    if roll < 0.9:
        return dice.choice((b"", b"null", b"[]", b"{}", b"7", b'""', b"\xff\xfe", b"{" * 3_000, b"NaN", b"true"))
    return damage.written(damage.leaf(dice), dice).encode("utf-8", "surrogatepass")


async def _meisa(client: MeisaClient, answering: _Answering, seed: int, number: int, good: dict[str, Any]) -> str:
    dice = dice_of("answer", seed, number)
    name = dice.choice(tuple(good))
    headers = [("date", dice.choice(MOMENTS))] if dice.random() < 0.5 else []
    if dice.random() < 0.3:
        headers.append(("retry-after", dice.choice(MOMENTS)))
    encoding = dice.choice(("gzip", "deflate", "br", "x")) if dice.random() < 0.03 else ""
    status = dice.choice(STATUSES)
    answering.answer = (status, headers, _body(dice, good[name]), encoding)
    contact = "c-1" if "{id}" in ENDPOINTS[name].path else None
    outcome = await client.send(Call(name, BODIES.get(name), contact))
    what = f"{name}, {status}"
    hold("\n" not in outcome.message and len(outcome.message) <= 700, f"{what}: {outcome.message!r} is no line")
    hold(all(each not in outcome.message for each in "\x00\x1b\r\x9b"), f"{what}: {outcome.message!r} has controls")
    hold(outcome.retry_after_seconds is None or 0 <= outcome.retry_after_seconds < 1e6, f"{what}: {outcome!r}")
    no_secret(f"the outcome of {what}", repr(outcome))
    if status in SUCCESS and not encoding and not ENDPOINTS[name].reads:
        hold(outcome.verdict is SUCCESS[status], f"{what} was carried out, and is judged {outcome.verdict}")
    if 500 <= status < 600:
        hold(outcome.verdict in (Verdict.RETRY, Verdict.UNKNOWN), f"{what} is judged {outcome.verdict}")
    letter = Letter(
        Record("t", 0, 0, 0, None, b""),
        LetterKind.REJECTED,
        outcome.message,
        request=BODIES.get(name),
        response=outcome.data,
    )
    for header, value in headers_of(letter):
        no_secret(f"the letter's {header}", value or b"")
        hold(len(value or b"") <= 4_200, f"the letter's {header} is not bounded")
    mask(outcome.data)
    return f"meisa: {outcome.verdict}"


async def _typed(client: MeisaClient) -> None:
    """The methods for commands raise what they say they raise."""
    try:
        await client.unsubscribed()
        await client.ping()
        await client.sequences()
    except MeisaFailed as error:
        no_secret("an error of the client", str(error))


class _Answering(httpx.AsyncBaseTransport):
    def __init__(self) -> None:
        self.answer: tuple[int, list[tuple[str, str]], bytes, str] = (200, [], b"", "")

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        status, headers, body, encoding = self.answer
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
        if encoding:  # as the body is no such thing, reading it fails
            raw.append((b"content-encoding", encoding.encode()))
        return httpx.Response(status, headers=raw, stream=httpx.ByteStream(body))


class _AnsweringRegistry:
    """The client with another transport; one for all, since a client of its own takes long to make."""

    def __init__(self) -> None:
        self.answer: Callable[[httpx.Request], httpx.Response] = lambda request: httpx.Response(500)
        self.client = RegistryClient("https://registry.example", basic=lambda: REGISTRY_AUTH)
        self.client._client = httpx.AsyncClient(transport=httpx.MockTransport(lambda request: self.answer(request)))


async def _registry(registry: _AnsweringRegistry, seed: int, number: int) -> str:
    """A question, and what is made of its answer: a reader, or a reason in its place."""
    dice = dice_of("registry", seed, number)
    text, references = dice.choice(list(registered().values()))
    schema: Any = {"schema": text, "references": [{"name": "a", "subject": "s", "version": 1} for _ in references]}
    if dice.random() < 0.4:
        schema["schema"] = damage.written(damage.tree(json.loads(text), dice), dice)
    elif dice.random() < 0.3:
        schema["schema"] = damage.damaged(text.encode(), dice).decode("utf-8", "replace")

    def answer(request: httpx.Request) -> httpx.Response:
        status = dice.choice((200,) * 12 + (404, 401, 500, 301))
        made = damage.tree(schema, dice) if dice.random() < 0.4 else schema
        body = damage.written(made, dice).encode("utf-8", "surrogatepass")
        if dice.random() < 0.15:
            body = damage.damaged(body, dice)
        if dice.random() < 0.1:
            body = json.dumps(
                {"error_code": dice.choice((40401, 40403, 50001, "x", None)), "message": dict(request.headers)}
            ).encode()
        return httpx.Response(status, content=body)

    registry.answer = answer
    try:
        found = await registry.client.schema(dice.choice((1, 2**31, "a/../b", "\x00")))
    except (RegistryFailed, UnknownSchema) as error:
        no_secret("an error of the registry", str(error))
        hold("\n" not in str(error) and len(str(error)) < 1_000, f"{error!r} is no line")
        return f"registry: {type(error).__name__}"
    wire = WireAvro()
    reason = wire.learn(1, found.text, found.references)
    if reason is not None:
        hold("\n" not in reason and len(reason) < 2_000, f"{reason!r} is no line")
        return "registry: no schema to read by"
    return "registry: a schema"


def run_answers(seed: int, count: int, first: int = 0) -> Report:
    """One in ten is a registry's. Raises Broken with the number of the case that breaks an invariant."""
    report = Report("answers", seed, count)

    async def judged() -> None:
        good, answering, registry = good_answers(), _Answering(), _AnsweringRegistry()
        client = MeisaClient(
            "https://api.meisa.io/api/v1", {"default": lambda: API_KEY}, transport=answering,
            patience=Patience(attempts=1), sleep=lambda seconds: asyncio.sleep(0),
        )  # fmt: skip
        for number in range(first, first + count):
            try:
                if number % 10 == 9:
                    outcome = await _registry(registry, seed, number)
                else:
                    outcome = await _meisa(client, answering, seed, number, good)
                    if number % 50 == 0:
                        await _typed(client)
            except Exception as error:
                again = f"again: make fuzz KIND=answers SEED={seed} FIRST={number} COUNT=1"
                raise Broken(f"answer {number} of seed {seed}: {error!r}\n{again}") from error
            report.outcomes[outcome] += 1

    asyncio.run(judged())
    return report.ended()
