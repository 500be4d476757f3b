"""The outside as a preview imagines it: nothing fails, nothing is slow, nobody else is there.

Meisa is the sandbox's world in this process (bridge/sandbox/world.py): real effects and real answers, so that a track
of somebody whom Meisa does not know is answered with 404, a second enrollment as already done, and an upsert with the
whole contact. It begins empty, and every trigger and sequence is active. Unless it is a new account its emptiness shows
nowhere: tracks of people whom no upsert has named are taken, as if an older one had.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from bridge.meisa.endpoints import ENDPOINTS
from bridge.meisa.judge import Judge, Reply
from bridge.model import Assigned, Call, Letter, Outcome, Position, Record, TopicPartition
from bridge.ports import Clock, SourceListener
from bridge.sandbox.contacts import Answer, iso
from bridge.sandbox.fields import Refused
from bridge.sandbox.options import SCOPES
from bridge.sandbox.world import World, WorldOptions
from bridge.state.memory import MemoryStore

LATENCY_SECONDS = 0.05
"""Of a call, there and back."""
COMMIT_SECONDS = 0.008
"""Of a commit, as measured on a real broker."""
LETTER_SECONDS = 0.005
STORED_MAX = 10_000_000
"""Registers: a few for each contact of at most a million events; nothing may be forgotten that a disk keeps."""


class ImaginedMeisa:
    """ports.Meisa. Carries a call out half of `latency` after it was sent, and answers after the other half."""

    def __init__(
        self, clock: Clock, *, latency: float = LATENCY_SECONDS, log_limit: int = 1000, new_account: bool = True
    ) -> None:
        """`log_limit`: emails and automations that the world remembers."""
        self._new_account = new_account
        self.world = World(WorldOptions(log_limit=log_limit), random.Random(5))
        self._clock = clock
        self._latency = latency
        self._judge = Judge()

    async def send(self, call: Call) -> Outcome:
        sent = self._clock.now()
        await asyncio.sleep(self._latency / 2)
        status, body = self._serve(call)
        self.made(sent, call, status)
        await asyncio.sleep(self._latency / 2)
        self.answered(call)
        reply = Reply(status, orjson.dumps(body))
        return self._judge.answer(ENDPOINTS[call.endpoint], reply, self._clock.wall())

    async def close(self) -> None:
        pass

    def made(self, sent: float, call: Call, status: int) -> None:
        """Hears of each call as it is carried out."""

    def answered(self, call: Call) -> None:
        """Hears of each call once its answer is back."""

    def _serve(self, call: Call) -> tuple[int, Any]:
        try:
            # What is sent is JSON: an object that the bridge goes on changing must not change the world's.
            answer = self.carry_out(call, orjson.loads(orjson.dumps(call.body or {})))
        except Refused as refused:
            return refused.status, {"error": {"code": refused.code, "message": refused.message}}
        return answer.status, answer.body

    def carry_out(self, call: Call, body: dict[str, Any]) -> Answer:
        world, now = self.world, self._clock.wall()
        match call.endpoint:
            case "upsert":
                return world.contacts.upsert(body, now)
            case "track":
                return self._track(body, now)
            case "add_tag":
                return world.contacts.add_tag(call.contact_id or "", body, now)
            case "remove_tag":
                return world.contacts.remove_tag(call.contact_id or "", body, now)
            case "enroll":
                return world.enroll(body, now)
            case "bulk_enroll":
                return world.bulk_enroll(body, now)
            case "trigger":
                return world.trigger(body, now)
            case "unsubscribed":
                return world.contacts.suppressed(now)
            case "ping":
                return Answer(200, {"scopes": list(SCOPES), "environment": "test", "product": "imagined"})
        raise AssertionError(f"the engine makes no such call: {call.endpoint}")

    def _track(self, body: dict[str, Any], now: float) -> Answer:
        try:
            return self.world.contacts.track(body, now)
        except Refused as refused:
            if self._new_account or refused.status != 404:
                raise
            return Answer(200, {"status": "tracked", "event_name": body["event_name"], "timestamp": iso(now)})


class ImaginedKafka:
    """ports.Source: one member that owns everything, and whose commits are acknowledged and forgotten."""

    session_seconds = 45.0

    def __init__(self) -> None:
        self._listener: SourceListener | None = None
        self._owned: list[TopicPartition] = []
        self._counts: Counter[str] = Counter()
        self.paused: set[TopicPartition] = set()
        self.flowing = asyncio.Event()
        """Set where a partition goes on that was paused."""

    def start(self, listener: SourceListener) -> None:
        self._listener = listener

    def assign(self, partitions: Mapping[TopicPartition, int]) -> None:
        """Gives all partitions, each with the offset at which it begins."""
        assert self._listener is not None
        self._owned += partitions
        # A group that owns partition 7 of a topic knows of at least eight.
        for topic, number in partitions:
            self._counts[topic] = max(self._counts[topic], number + 1)
        self._listener.assigned([Assigned(name, 1, offset) for name, offset in partitions.items()])

    def feed(self, records: Sequence[Record]) -> None:
        assert self._listener is not None
        self._listener.records(records)

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        self.paused.update(partitions)

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        self.paused.difference_update(partitions)
        self.flowing.set()

    def commit(self, positions: Sequence[Position]) -> None:
        assert self._listener is not None
        asyncio.get_running_loop().call_later(COMMIT_SECONDS, self._listener.committed, positions, None)

    def standstill(self) -> float:
        return 0.0

    def log_ends(self) -> Mapping[TopicPartition, int]:
        return {}

    def partition_counts(self) -> Mapping[str, int]:
        return self._counts

    async def close(self) -> None:
        if self._owned and self._listener is not None:
            await self._listener.revoked(self._owned)
            self._owned = []


class ImaginedStore(MemoryStore):
    """ports.Store in place of one that outlives the process: as it is on its first day, and gone afterwards."""

    lasting = True

    def __init__(self) -> None:
        super().__init__(entries_max=STORED_MAX)


class ImaginedLetters:
    """ports.Letters: each is acknowledged, and handed to `wrote`."""

    async def write(self, letter: Letter) -> None:
        await asyncio.sleep(LETTER_SECONDS)
        self.wrote(letter)

    def wrote(self, letter: Letter) -> None:
        """Hears of each letter."""

    async def close(self) -> None:
        pass
