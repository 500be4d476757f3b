"""A replayed dead letter goes on in its record's own trace."""

from __future__ import annotations

import asyncio

from bridge.model import LetterKind, Outcome, Record, Verdict
from bridge.runtime.traces import GIVEN_UP, Traces
from tests.support.engine import P0, TOPIC, record
from tests.support.fakes import DELIVERED, FakeMeisa
from tests.support.replays import Instance, MemoryLogs, refused, settled
from tests.support.tracing import PARENT, TRACEPARENT, FakeTracer
from tests.support.virtual import run


class Room:
    def __init__(self, meisa: FakeMeisa) -> None:
        self.logs = MemoryLogs()
        self.instance = Instance(self.logs, meisa)
        self.tracer = FakeTracer()
        self.traces = Traces(
            self.tracer,
            clock=self.instance.clock,
            group="group",
            letters_topic="letters",
            endpoint=lambda name: ("POST", f"/{name}/"),
            server={},
        )
        self.instance.replays.traces = self.instance.delivery.sending.watch = self.traces

    def ask(self) -> Record:
        """A request to replay a letter of a record whose producer traced it."""
        made = record(0, do=["track"])
        source = self.logs.append(TOPIC, 0, made.key, made.value, headers=(("traceparent", TRACEPARENT),))
        return self.logs.ask(self.logs.bury(refused(source, 0)))


def test_the_record_kept_its_header_so_the_replay_is_in_the_same_trace() -> None:
    """A span of its own, named so, with the call below it."""

    async def story() -> None:
        room = Room(FakeMeisa())
        request = room.ask()
        room.instance.start(P0)
        await settled(room.logs, request)
        await room.instance.stop()
        call, replay = room.tracer.spans
        assert (replay.name, replay.parent) == (f"replay {TOPIC}", PARENT)
        assert replay.attributes["messaging.operation.name"] == "replay"
        assert replay.attributes["messaging.operation.type"] == "process"
        assert replay.attributes["meisa_bridge.outcome"] == "replayed" and not replay.error
        assert replay.attributes["meisa_bridge.rules"] == ("rule",)
        assert (call.name, call.parent) == ("POST /track/", replay.context)

    run(story())


def test_a_replay_that_is_refused_again_is_an_error_with_its_letter() -> None:
    """As a live event's."""

    async def story() -> None:
        room = Room(FakeMeisa(lambda call: Outcome(Verdict.REFUSED, 400, "no")))
        request = room.ask()
        room.instance.start(P0)
        await settled(room.logs, request)
        await room.instance.stop()
        call, letter, replay = room.tracer.spans
        assert (call.error, letter.name, letter.parent) == ("refused", "send letters", replay.context)
        assert replay.error == f"dead-lettered: {LetterKind.REJECTED}"
        assert replay.attributes["meisa_bridge.outcome"] == "refused_again"

    run(story())


def test_a_replay_whose_partition_goes_is_given_up() -> None:
    """It goes on at the next owner, in a span of its own."""

    async def story() -> None:
        meisa = FakeMeisa(latency=30.0)
        room = Room(meisa)
        room.ask()
        room.instance.start(P0)
        while not meisa.calls:
            await asyncio.sleep(0.1)
        meisa.answer = lambda call: DELIVERED
        await room.instance.replays.hold()
        (replay,) = room.tracer.spans
        assert (replay.error, replay.attributes["meisa_bridge.outcome"]) == (GIVEN_UP, "abandoned")
        await room.instance.stop()

    run(story())
