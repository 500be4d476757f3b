"""Dead letters in memory behind the pages of an admin server."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import httpx

from bridge.model import Letter, LetterKind, Record
from bridge.observe.metrics import Metrics
from bridge.observe.snapshot import Snapshot
from bridge.replay.desk import TAIL, Desk
from bridge.replay.ledger import Answer, Request, State, write
from bridge.replay.letters import parse
from bridge.replay.preparing import Preparing
from bridge.replay.shelf import Tail
from bridge.runtime.clock import SystemClock
from bridge.web import AdminServer
from tests.support.engine import TOPIC, decode, plan
from tests.support.engine import record as record_
from tests.support.replays import LETTERS, REPLAYS, MemoryLogs, identify, refused

SNAPSHOT = Snapshot("0.1.0", 1.0, 2.0, in_group=True, group_state="member")
HOST = "127.0.0.1:8080"
FAILED_AT = 1_780_000_000.0


class LetterDesk:
    """An admin server over letters that a test writes; what it asks for stands in the logs."""

    def __init__(
        self, token: str | None = None, *, show_contacts: bool = False, listen: str = HOST, tail: Tail = TAIL
    ) -> None:
        self.away = False
        self.logs = MemoryLogs(lambda: self.away, latency=0.0)
        self.desk = Desk(
            lambda: self.logs,
            lambda logs: Preparing(
                logs,
                REPLAYS,
                decoders={TOPIC: decode},
                plan=plan,
                knows_rule=lambda name: True,
                identify=identify,
                clock=SystemClock(),
            ),
            topic=LETTERS,
            replays_topic=REPLAYS,
            topics=[TOPIC],
            clock=SystemClock(),
            tail=tail,
        )
        self.admin = AdminServer(
            listen, Metrics(), lambda: SNAPSHOT, token, show_contacts=show_contacts, letters=self.desk
        )

    # What happened

    def letter(self, email: str = "anna@example.com", *positions: int, **more: Any) -> Record:
        """A dead letter of a record that says what to do (tests.support.engine); `kind`, `message`, `request` … are
        the letter's, all else the record's."""
        own = {name: more.pop(name) for name in ("message", "rule", "request", "response", "status") if name in more}
        kind = more.pop("kind", LetterKind.REJECTED)
        source = self.logs.topics.get((TOPIC, 0), ())  # type: ignore[call-overload]
        made = record_(len(source), email, **more)
        record = self.logs.append(TOPIC, 0, made.key, made.value)
        letter: Letter = refused(record, *(positions or (0,)), kind=kind)
        letter = replace(letter, **own, failed_at_wall_seconds=FAILED_AT + record.offset)
        return self.logs.bury(letter)

    def answer(self, request: Request, state: State, message: str = "") -> None:
        """As the owner of the partition does when it has ended."""
        self.logs.append(REPLAYS, 0, *write(Answer(request.source, request.name, request.at, state, message)))

    def requests(self) -> list[Request]:
        """All that was ever asked for, in order."""
        from bridge.replay.ledger import read

        log = self.logs.topics.get((REPLAYS, 0), ())  # type: ignore[call-overload]
        facts = [read((record.key or b"", record.value)) for record in log if record is not None]
        return [fact for fact in facts if isinstance(fact, Request)]

    # What a browser or a program does

    async def send(self, method: str, path: str, **more: Any) -> httpx.Response:
        transport = httpx.ASGITransport(app=self.admin._app())
        headers = {"host": HOST, **more.pop("headers", {})}
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{HOST}") as client:
            return await client.request(method, path, headers=headers, **more)

    async def get(self, path: str, **headers: str) -> httpx.Response:
        return await self.send("GET", path, headers=headers)

    async def press(self, page: httpx.Response, *boxes: str, **headers: str) -> httpx.Response:
        """Sends the page's form as a browser would, with these boxes ticked."""
        action, inside = re.findall(r'<form class="decide" method="post" action="([^"]+)">(.*?)</form>', page.text)[0]
        fields = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)">', inside)
        data: dict[str, list[str]] = {}
        for name, value in [*fields, *((box, "yes") for box in boxes)]:
            data.setdefault(name, []).append(value)
        given = {"origin": f"http://{HOST}", "accept": "text/html", **headers}
        return await self.send("POST", action, data=data, headers=given)


def path_of(letter: Record) -> str:
    return f"/dead-letters/{parse(letter).place}"
