"""Bad requests to the admin server over raw sockets: each gets an answer or an end, and nobody gets what is not theirs.

Three servers are asked: one with a token, one without, which knows its visitors by the Host header, and one with a
token at which dead letters are asked for by those alone who may not: nothing may be asked for there. The paths are
those of the application's own table of routes.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import io
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import NamedTuple
from unittest.mock import patch
from zlib import crc32

from starlette.routing import Route

from bridge.model import LetterKind
from bridge.observe.metrics import Metrics
from bridge.observe.snapshot import PartitionState, SlowContact, Snapshot, WaitState
from bridge.web import AdminServer, serving
from bridge.web.headers import HEADERS
from tests.support.engine import TOPIC
from tests.support.fuzz import damage
from tests.support.fuzz.case import ADMIN_TOKEN, Broken, Report, batches, dice_of, hold, no_secret
from tests.support.fuzz.records import logging_to, look_at_log
from tests.support.letters import LetterDesk
from tests.support.replays import LETTERS

BATCH = 5_000
AT_ONCE = 60
ANSWER_SECONDS_MAX = 20.0
"""A busy machine; the server itself ends what is not complete after a quarter of a second here."""

PROTECTED = "pr0t3ct3d"
"""Stands in what only some may see."""

SNAPSHOT = Snapshot(
    "0.1.0",
    1.0,
    2.0,
    in_group=True,
    partitions=(PartitionState("users", 0, epoch=1, frontier=1, lag=1, window=1),),
    waiting_for=(WaitState("retry", 1, f"{PROTECTED} <script>alert(1)</script>"),),
)
SLOWEST = [SlowContact(f"{PROTECTED}@example.com", 75.0, "upsert", "next", "users", 0, 7)]

METHODS = (b"GET", b"GET", b"GET", b"POST", b"POST", b"HEAD", b"OPTIONS", b"TRACE", b"CONNECT", b"PUT", b"DELETE",
           b"PATCH", b"PROPFIND", b"get", b"G\x00T", b"A" * 300, b"\xff\xfe", b"")  # fmt: skip
VERSIONS = (b"HTTP/1.1",) * 12 + (
    b"HTTP/1.0",
    b"HTTP/0.9",
    b"HTTP/2.0",
    b"HTTP/9.9",
    b"HTTP/1.1 x",
    b"ICY",
    b"",
    b"HTTP/1.",
)
FORMS = (b"letter=letters/0/3&send_again=yes", b"kind=rejected&count=9&newest=", b"overwrite=yes&count=x",
         b"letter=letters/0/1&letter=letters/0/2", b"letter=..%2f..&count=" + b"9" * 20, b"a=b&" * 1_500)  # fmt: skip
BUSY = (b"too many pages are open", b"cannot be read", b"not be read in time")
KNOWN, TOKENLESS, STRANGERS = range(3)
POLITE_METHODS = (b"GET", b"POST", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE")
FOREIGN_HOSTS = (b"evil.example", b"127.0.0.1.evil.example", b"evil.example:8080", b"localhost.evil.example",
                 b"[::1", b"", b"a" * 5_000, b"localhost@evil.example", b"evil.example/localhost",
                 b"\xff\xff")  # fmt: skip
NEAR = (ADMIN_TOKEN[:-1], f"{ADMIN_TOKEN}x", ADMIN_TOKEN.swapcase(), ADMIN_TOKEN[::-1], "", "x" * 20_000)


def _desk() -> LetterDesk:
    """Dead letters whose every part is hostile, and one that is none."""
    desk = LetterDesk()
    for number, text in enumerate(damage.HOSTILE):
        said = {"message": f"{PROTECTED} {text}", "response": {"said": text}, "request": {text: text}, "rule": text}
        desk.letter(f"{PROTECTED}@example.com", kind=list(LetterKind)[number % len(LetterKind)], name=text, **said)
    desk.logs.append(LETTERS, 0, b"\xff", b"\xff", headers=(("meisa-bridge.kind", b"\xff"), ("<img src=x>", None)))
    return desk


class Case(NamedTuple):
    data: bytes
    server: int
    """Which of the servers is asked."""
    may_see: bool
    may_act: bool


def _basic(text: bytes) -> bytes:
    return b"Basic " + base64.b64encode(text)


def _authorization(dice: Random) -> bytes:
    """Never one that opens."""
    near = dice.choice(NEAR).encode()
    return dice.choice(
        (
            b"Bearer " + near,
            b"Bearer",
            b"Bearer  \t" + near,
            _basic(b"x:" + near),
            _basic(near + b":"),
            _basic(ADMIN_TOKEN.encode() + b":"),
            b"Basic " + ADMIN_TOKEN.encode()[:-1],
            b"Basic !!!\xff",
            b"Basic " + b"A" * 30_001,
            _basic(b"\xff\xfe:\x00" + near),
            b"Digest " + near,
            b"\xff\xfe" * 40,
            damage.damaged(b"Negotiate " + near, dice).replace(b"\r", b"").replace(b"\n", b""),
        )
    )


def _path(template: str, dice: Random, topic: str) -> bytes:
    values = (
        topic,
        "users",
        "letters",
        "0",
        "0",
        "7",
        "..",
        "%2e%2e%2f",
        "%00",
        "-1",
        "9" * 40,
        "%ff",
        "a%0d%0aX-Forged:%201",
    )

    there = dice.random() < 0.6
    """Whether a letter is named that is there."""

    def filled(match: re.Match[str]) -> str:
        if there and "dead-letters" in template:
            return {"topic": TOPIC, "partition": "0"}.get(match[1]) or str(dice.randrange(len(damage.HOSTILE)))
        return topic if match[1].startswith("topic") and dice.random() < 0.7 else dice.choice(values)

    path = re.sub(r"\{(\w+)[^}]*\}", filled, template).encode()
    roll = dice.randrange(24)
    hostile = dice.choice(damage.HOSTILE).encode()
    if roll == 0:
        return b"/" + path
    if roll == 1:
        return path + b"/"
    if roll == 2:
        return b"/x/.." + path
    if roll == 3:
        return path + b"?" + hostile
    if roll == 4:
        return path.replace(b"/", b"%2f")
    if roll == 5:
        return b"http://evil.example" + path
    if roll == 6:
        return path + b"%" + dice.choice((b"", b"z", b"zz", b"\xff", b"2"))
    if roll == 7:
        return b"/" + dice.choice((b"a", b"/", b"%41", b"../")) * dice.choice((100, 5_000, 40_000))
    if roll == 8:
        return dice.choice(
            (b"*", b"", b"evil.example:443", b"\\", b"/\\..\\", b"?", b"#", b"/%s%n", b"file:///etc/passwd")
        )
    if roll == 9:
        return path + b"#" + hostile.replace(b"\n", b"")
    if roll == 10:
        query = b"&".join(dice.choice((b"limit", b"kind", b"rule", b"page", b"state", b"x")) + b"=" +
                          dice.choice((b"-1", b"1e9", b"9" * 30, b"%00", b"%ff", hostile.hex().encode(),
                          b"")) for _ in range(4))  # fmt: skip
        return path + b"?" + query
    if roll == 11:
        return b"/dashboard.css/../../../etc/passwd"
    return path


def _body(dice: Random) -> tuple[list[bytes], bytes]:
    """Headers and what they promise, or do not."""
    form = b"csrf=" + dice.choice((b"", b"x" * 43, b"%ff", b"%")) + b"&action=replay&all=on&send_again=on&overwrite=1"
    body = dice.choice((b"", b"a", form, b'{"all": true}', b"[" * 3_000, b"\xff" * 30, b"a" * 70_000, form * 20))
    kinds = (b"application/x-www-form-urlencoded", b"application/json", b"multipart/form-data; boundary=x",
             b"multipart/form-data", b"text/plain", b"\xff/\xff")  # fmt: skip
    headers = [b"Content-Type: " + dice.choice(kinds)]
    roll = dice.randrange(10)
    if roll < 4:
        headers.append(b"Content-Length: %d" % len(body))
    elif roll == 4:
        wrong = (
            b"-1",
            b"9" * 30,
            b"1, 1",
            b"0x10",
            b"",
            b"%d" % (len(body) + 10),
            b"%d" % max(0, len(body) - 1),
            b"+1",
        )
        headers.append(b"Content-Length: " + dice.choice(wrong))
    elif roll == 5:
        headers += [b"Content-Length: %d" % len(body), b"Content-Length: 0"]
    elif roll == 6:
        headers.append(b"Transfer-Encoding: chunked")
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
    elif roll == 7:
        headers += [
            b"Transfer-Encoding: "
            + dice.choice((b"chunked", b"gzip, chunked", b"identity", b"xchunked", b"chunked, x"))
        ]
        body = dice.choice((b"zz\r\n", b"-5\r\nabc", b"ffffffffffffffffff\r\n",
        b"1;" + b"a" * 9_000 + b"\r\nb\r\n0\r\n\r\n",
                            b"1\r\nab\r\n", b"0\r\nX-Forged: 1\r\n\r\n", b"\xff\r\n"))  # fmt: skip
    elif roll == 8:
        headers += [b"Content-Length: %d" % len(body), b"Transfer-Encoding: chunked"]
    return headers, body


def _headers(dice: Random) -> list[bytes]:
    hostile = dice.choice(damage.HOSTILE).encode("utf-8", "replace")
    return dice.choice(
        (
            [],
            [],
            [b"Accept: text/html"],
            [b"Expect: 100-continue"],
            [b"Connection: upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: YQ==", b"Sec-WebSocket-Version: 13"],
            [b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk"],
            [b"X-Forwarded-For: 127.0.0.1", b"X-Forwarded-Host: localhost", b"X-Original-URL: /api/status"],
            [b"X-HTTP-Method-Override: POST"],
            [b"Cookie: " + b"a=b; " * 900],
            [b"Range: bytes=0-1,2-3,-9999"],
            [b"h%d: x" % n for n in range(dice.choice((50, 300, 3_000)))],
            [b"X: " + b"y" * dice.choice((7_000, 60_000, 80_000))],
            [b"X: " + hostile],
            [hostile + b": x"],
            [b"no colon"],
            [b"X: folded", b" over lines"],
            [b"X : space"],
            [b": empty"],
            [b"X: a\x00b"],
            [b"Connection: close, keep-alive, close"],
            [b"Last-Event-ID: " + b"9" * 99],
        )
    )


def case(seed: int, number: int, routes: Sequence[str], csrf: str = "") -> Case:
    """The case of that seed and number; `csrf` is the word that the pages' forms hold."""
    dice = dice_of("request", seed, number)
    template = dice.choice((*routes, "/api/topics/{topic}/resume"))
    letters = "dead-letters" in template
    tokenless = dice.random() < 0.3
    # Whether the visitor is known: by the token, or by the Host header where there is none.
    named = dice.random() < 0.5 and not (letters and tokenless)
    server = TOKENLESS if tokenless else STRANGERS if letters and not named else KNOWN
    topic = f"t{number}x{crc32(str(number).encode()):x}"
    headers = []
    if tokenless:
        headers.append(b"Host: " + (b"127.0.0.1:8080" if named else dice.choice(FOREIGN_HOSTS)))
    else:
        headers.append(b"Host: " + dice.choice((b"localhost", b"bridge.internal:8080", *FOREIGN_HOSTS)))
        if named:
            token = ADMIN_TOKEN.encode()
            headers.append(b"Authorization: " + dice.choice((b"Bearer " + token, _basic(b"x:" + token))))
        elif dice.random() < 0.9:
            headers.append(b"Authorization: " + _authorization(dice))
    foreign = dice.random() < 0.5
    if foreign:
        headers.append(
            b"Origin: " + dice.choice((b"null", b"http://evil.example", b"https://evil.example:8080", b"\xff", b""))
        )
        headers.append(b"Sec-Fetch-Site: " + dice.choice((b"cross-site", b"same-site")))
    # Half of them speak HTTP as one should, and get as far as the application: what is bad is what they want.
    polite = dice.random() < 0.55
    if polite:
        form = b"csrf=%b&%b" % (dice.choice((csrf.encode(), b"x", b"%ff")), dice.choice(FORMS))
        body = dice.choice((b"", b"", form, form, b'{"send_again": true}', b'{"dry_run": true}', b'{"overwrite": 1}'))
        more = [b"Content-Length: %d" % len(body), b"Content-Type: application/x-www-form-urlencoded"] if body else []
        more += dice.choice(([], [b"Accept: text/html"], [b"Connection: close"], [b"X-Forwarded-Host: localhost"]))
    else:
        more, body = _body(dice) if dice.random() < 0.5 else ([], b"")
        more += _headers(dice)
    headers += more
    if dice.random() < 0.1:
        dice.shuffle(headers)
    acting = "resume" in template or template.endswith(("replay", "discard"))
    method = b"POST" if acting and dice.random() < 0.6 else dice.choice(METHODS)
    if polite:
        method = method if method in POLITE_METHODS else b"GET"
    version = b"HTTP/1.1" if polite else dice.choice(VERSIONS)
    line = b" ".join((method, _path(template, dice, topic).replace(b" ", b"+"), version))
    end = b"\n" if dice.random() < 0.03 else b"\r\n"
    data = end.join([line, *headers, b"", b""]) + body
    roll = 1.0 if polite else dice.random()
    if roll < 0.25:
        data = damage.damaged(data, dice)
    elif roll < 0.29:
        data = data[: dice.randrange(len(data))]
    elif roll < 0.35:
        data *= dice.choice((2, 3, 40))
    elif roll < 0.39:
        data = dice.choice((dice.randbytes(60), b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + dice.randbytes(90),
                            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + dice.randbytes(20), b"\r\n" * 40_000, b"\x00" * 900,
                            b"GET /\r\n", b"SSH-2.0-x\r\n"))  # fmt: skip
    return Case(data, server, named, named and not foreign)


class Admin:
    """The servers, and what was done to them."""

    def __init__(self) -> None:
        self.resumed: list[str] = []

        def resume(topic: str) -> bool:
            self.resumed.append(topic)
            return True

        def made(token: str | None, desk: LetterDesk) -> AdminServer:
            return AdminServer(
                "127.0.0.1:0", Metrics(lambda: SNAPSHOT), lambda: SNAPSHOT, token,
                show_contacts=True, resume=resume, slowest=lambda: SLOWEST, letters=desk.desk,
            )  # fmt: skip

        self.desks = tuple(_desk() for _ in range(3))
        self.servers = tuple(map(made, (ADMIN_TOKEN, None, ADMIN_TOKEN), self.desks))
        self.routes = sorted({route.path for route in self.servers[0]._app().routes if isinstance(route, Route)})
        self.csrf = self.servers[KNOWN]._access.csrf

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        # What is not complete, and who says nothing, is let go soon: a hundred thousand must not wait ten seconds each.
        with patch.object(serving, "REQUEST_SECONDS_MAX", 0.25), patch.object(serving, "KEEP_ALIVE_SECONDS", 0.02):
            for server in self.servers:
                await server.start()
            try:
                yield
            finally:
                for server in self.servers:
                    await server.stop()
                for desk in self.desks:
                    await desk.desk.close()

    async def ask(self, each: Case) -> bytes:
        """All that comes back until the server ends the connection, or a stream has begun."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.servers[each.server].port)
        got = b""
        try:
            writer.write(each.data)
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                while piece := await reader.read(65_536):
                    got += piece
                    if b"text/event-stream" in got and b"event: sections" in got:
                        break
        except ConnectionError:
            pass  # the server does not read to the end what it refuses
        except TimeoutError:
            raise Broken(f"neither an answer nor an end: {each.data[:600]!r} {got[:300]!r}") from None
        finally:
            writer.transport.abort()
        return got


_ANSWER = re.compile(rb"HTTP/1\.1 (\d{3})[^\r\n]*\r\n((?:[^\r\n]+\r\n)*)\r\n")
_STRICT = [f"{name}: {value}".encode() for name, value in HEADERS.items()]


def look(each: Case, got: bytes) -> str:
    """Raises Broken; what came, for the report."""
    answers = [found for found in _ANSWER.finditer(got) if found[1] != b"100"]
    if not answers:
        hold(got in (b"", b"HTTP/1.1 100 Continue\r\n\r\n"), f"no answer of HTTP's: {got[:300]!r}")
        return "closed"
    for found in answers:
        lines = found[2].split(b"\r\n")
        for line in _STRICT:
            hold(lines.count(line) == 1, f"{line!r} is not there once: {found[0][:900]!r}")
        hold(b"x-forged" not in found[2].lower(), f"a header was forged: {found[0][:900]!r}")
        busy = found[1] == b"503" and any(each in got for each in BUSY)
        hold(found[1] < b"500" or busy, f"{found[1]!r}: {got[:600]!r}")
        hold(b"evil.example" not in found[2], f"the Host header came back: {found[0]!r}")
    hold(each.may_see or PROTECTED.encode() not in got, f"told to somebody unknown: {got[:900]!r}")
    if any(b"content-type: text/html" in found[2] for found in answers):
        hold(b"<script>alert" not in got and b"<img src=x" not in got, f"hostile text is markup: {got[:900]!r}")
    no_secret("an answer", got)
    return f"{answers[0][1].decode()}"


def run_requests(seed: int, count: int, first: int = 0) -> Report:
    """Raises Broken with the number of the case that breaks an invariant."""
    report = Report("requests", seed, count)
    stream = io.StringIO()
    with logging_to(stream, as_json=True):
        asyncio.run(_asked(seed, count, first, report))
    text = stream.getvalue()
    look_at_log(text, as_json=True)
    lines = [line for line in text.splitlines() if "over HTTP" not in line]  # these tell what somebody did who may
    hold(len(lines) < 100, f"{len(lines)} lines in the log: anybody could fill it: {lines[:5]}")
    return report.ended()


async def _asked(seed: int, count: int, first: int, report: Report) -> None:
    admin = Admin()
    async with admin.running():
        await _round(admin, Report("", seed), seed, range(first, first + min(count, 50)))  # what is made once, is made
        files, tasks = await _rest(admin)
        for numbers in batches(first, count, BATCH):
            await _round(admin, report, seed, numbers)
            for server in admin.servers:
                assert server._server is not None
                held = len(server._server.server_state.connections)
                hold(held <= serving.CONNECTIONS_MAX, f"{held} connections are held")
            good = Case(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", KNOWN, False, False)
            hold((await admin.ask(good)).endswith(b"\r\n\r\nok"), "a good request is not answered")
        now_files, now_tasks = await _rest(admin)
        hold(now_files <= files + 3, f"{now_files} open files, {files} before")
        names = sorted(each.get_name() for each in asyncio.all_tasks())
        # Each of three desks may be reading its letters just now; a leak would be of thousands.
        hold(now_tasks <= tasks + 6, f"{now_tasks} tasks, {tasks} before: {names}")
    for topic in admin.resumed:
        found = re.fullmatch(r"t(\d+)x([0-9a-f]+)", topic)
        if found is None or f"{crc32(found[1].encode()):x}" != found[2]:
            continue  # a damaged name: not to be attributed
        asked = case(seed, int(found[1]), admin.routes, admin.csrf)
        hold(asked.may_act, f"request {found[1]} of seed {seed} changed something: {asked.data[:600]!r}")
    report.outcomes["topics resumed by who may"] = len(admin.resumed)
    asked_for = [len(desk.requests()) for desk in admin.desks]
    hold(asked_for[1:] == [0, 0], f"letters were asked for by who may not: {asked_for}")
    report.outcomes["letters asked for by who may"] = asked_for[KNOWN]


async def _rest(admin: Admin) -> tuple[int, int]:
    """Open files and tasks, once all connections are gone, and the answers to those who did not wait for them."""
    for _ in range(400):
        await asyncio.sleep(0.05)
        states = [each._server.server_state for each in admin.servers if each._server is not None]
        if not any(each.connections or each.tasks for each in states):
            break
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir())), len(asyncio.all_tasks())


async def _round(admin: Admin, report: Report, seed: int, numbers: range) -> None:
    waiting = iter(numbers)

    async def visitor() -> None:
        for number in waiting:
            each = case(seed, number, admin.routes, admin.csrf)
            try:
                report.outcomes[look(each, await admin.ask(each))] += 1
            except Broken as broken:
                again = f"again: make fuzz KIND=requests SEED={seed} FIRST={number} COUNT=1"
                raise Broken(f"request {number} of seed {seed}: {each.data[:900]!r}\n{broken}\n{again}") from None

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(visitor())
