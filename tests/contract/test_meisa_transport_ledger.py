"""Many requests at a time against a server that fails by a seed: what is told, against what the server saw."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter

import httpx
import pytest

from bridge.meisa.client import MeisaClient
from bridge.meisa.transport import AiohttpTransport
from bridge.model import Call, Verdict
from tests.support import misbehaving as bad
from tests.support.misbehaving import MisbehavingServer, Peer

KEY = "meisa_test_0000"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n" + b'{"id":"c1"}'


class Ledger:
    """What the server read, by the request's own number; behaviours by a seed."""

    def __init__(self, seed: int) -> None:
        self.seen: Counter[bytes] = Counter()
        self._random = random.Random(seed)

    async def behave(self, peer: Peer) -> None:
        if self._random.random() < 0.1:
            peer.reset()
            return
        while True:
            self.seen[await peer.read_request()] += 1
            fates = ["answer"] * 5 + ["hang"] * 3 + ["close", "reset", "half", "garbage", "answer and close"]
            fate = self._random.choice(fates)
            if fate.startswith("answer"):
                if self._random.random() < 0.5:
                    await asyncio.sleep(0.005)
                await peer.send(ANSWER)
            elif fate == "half":
                await peer.send(ANSWER[: self._random.randrange(1, len(ANSWER))])
            elif fate == "garbage":
                await peer.send(b"\x00\x01\x02\r\n\r\n")
            elif fate == "hang":
                await asyncio.sleep(0.3)
            if fate == "reset":
                peer.reset()
                return
            if fate != "answer":
                peer.close()
                return


@pytest.mark.parametrize("seed", range(3))
async def test_what_is_told_is_what_happened(seed: int) -> None:
    """Answered: the server saw it. Never sent: it did not. And no request reaches it twice, whatever breaks."""
    ledger = Ledger(seed)
    async with MisbehavingServer(ledger.behave) as server:
        transport = AiohttpTransport(max_in_flight=4, timeout_seconds=0.15)
        base = server.url.removesuffix("/contacts/upsert/")
        async with MeisaClient(base, {"default": lambda: KEY}, transport=transport, timeout_seconds=0.15) as client:
            told = Counter[str]()

            async def one(number: int) -> None:
                outcome = await client.send(Call("upsert", {"n": number}))
                body = b'{"n":%d}' % number
                if outcome.verdict is Verdict.DELIVERED:
                    assert ledger.seen[body] == 1
                elif outcome.detail == "never_sent":
                    assert ledger.seen[body] == 0
                else:
                    assert outcome.verdict is Verdict.UNKNOWN, outcome
                told[outcome.detail or outcome.verdict.value] += 1

            for start in range(0, 160, 40):  # ten times as many as there are connections
                await asyncio.gather(*(one(number) for number in range(start, start + 40)))
    assert max(ledger.seen.values()) == 1
    # The seed has made all of it happen, or this test would prove little.
    assert told["delivered"] > 0
    assert told["never_sent"] > 0
    assert told["no_answer"] > 0
    assert told["timeout"] > 0
    assert told.total() == 160


async def test_the_client_tells_faults_apart_end_to_end() -> None:
    """MeisaClient with its own transport, over a socket: never sent, no answer, cut, refused, delivered."""
    cases = [
        (bad.after_request(end="close"), Verdict.UNKNOWN, "no_answer", None),
        (bad.after_request(), Verdict.UNKNOWN, "timeout", None),
        (bad.after_request(bad.OK[:-4], end="close"), Verdict.UNKNOWN, "cut", 200),
        (
            bad.after_request(b"HTTP/1.1 401 No\r\nContent-Length: 50\r\n\r\n{", end="close"),
            Verdict.KEY_REFUSED,
            "key_refused",
            401,
        ),
        (bad.keep_answering(), Verdict.DELIVERED, "", 200),
    ]
    for behaviour, verdict, detail, status in cases:
        async with MisbehavingServer(behaviour) as server:
            base = server.url.removesuffix("/contacts/upsert/")
            async with MeisaClient(base, {"default": lambda: KEY}, timeout_seconds=0.3) as client:
                outcome = await client.send(Call("upsert", {"email": "a@example.com"}))
                assert (outcome.verdict, outcome.detail, outcome.status) == (verdict, detail, status)
                assert server.requests == 1
        if verdict is Verdict.DELIVERED:
            assert outcome.contact_id == "c1"


async def test_the_client_works_over_any_httpx_transport() -> None:
    """httpx is the interface: plain httpx under the client gives the same outcome."""
    async with MisbehavingServer(bad.keep_answering()) as server:
        base = server.url.removesuffix("/contacts/upsert/")
        transport = httpx.AsyncHTTPTransport(trust_env=False)
        async with MeisaClient(base, {"default": lambda: KEY}, transport=transport) as client:
            for _ in range(2):
                outcome = await client.send(Call("upsert", {"email": "a@example.com"}))
                assert (outcome.verdict, outcome.contact_id) == (Verdict.DELIVERED, "c1")
            assert server.connections == 1


async def test_what_may_not_be_written_any_more_is_never_sent() -> None:
    """Asked right before the first byte: a loop that stood still between decision and writing sends nothing. Neither a
    fresh connection nor an idle one carries it, and the next call goes on as ever."""
    seen: list[bytes] = []

    async def behave(peer: Peer) -> None:
        while True:
            seen.append(await peer.read_request())
            await peer.send(ANSWER)

    async with MisbehavingServer(behave) as server:
        base = server.url.removesuffix("/contacts/upsert/")
        async with MeisaClient(base, {"default": lambda: KEY}, allow_http=True) as client:
            for number, allowed in enumerate((False, True, False, True)):
                client.may_write = lambda allowed=allowed: allowed  # type: ignore[misc]
                outcome = await client.send(Call("upsert", {"n": number}))
                expected = (Verdict.DELIVERED, True) if allowed else (Verdict.WITHHELD, False)
                assert (outcome.verdict, outcome.sent) == expected
    assert seen == [b'{"n":1}', b'{"n":3}']


async def test_what_comes_too_late_for_its_permit_is_never_sent() -> None:
    """`leave_by` is looked at right before the first byte; the next call goes on as ever."""
    async with MisbehavingServer(bad.keep_answering()) as server:
        base = server.url.removesuffix("/contacts/upsert/")
        async with MeisaClient(base, {"default": lambda: KEY}, allow_http=True) as client:
            now = time.monotonic()
            for leave_by, verdict in ((now - 0.001, Verdict.WITHHELD), (now + 60.0, Verdict.DELIVERED)):
                outcome = await client.send(Call("upsert", {"n": 1}, leave_by=leave_by))
                assert (outcome.verdict, outcome.sent) == (verdict, verdict is Verdict.DELIVERED)
            assert server.requests == 1
