"""The stream of sections: what changed and nothing else, and an end when the server stops."""

from __future__ import annotations

import asyncio

import orjson

from bridge.web.live import ALIVE, STREAMS_MAX, Live, event
from tests.support.virtual import run


def sections(message: bytes) -> dict[str, str]:
    """What a browser makes of one event."""
    name, data, *rest = message.split(b"\n")
    assert (name, rest) == (b"event: sections", [b"", b""])
    found: dict[str, str] = orjson.loads(data.removeprefix(b"data: "))
    return found


class State:
    def __init__(self) -> None:
        self.sections = {"verdict": "Ready", "flow": "1"}
        self.reads = 0
        self.live = Live(self.read)

    def read(self) -> dict[str, str]:
        self.reads += 1
        return dict(self.sections)


def test_all_at_first_then_what_changed_then_a_sign_of_life() -> None:
    async def story() -> None:
        state = State()
        stream = state.live.stream()
        assert (await anext(stream)).startswith(b"retry: ")
        assert sections(await anext(stream)) == {"verdict": "Ready", "flow": "1"}
        state.sections["flow"] = "2"
        assert sections(await anext(stream)) == {"flow": "2"}
        assert await anext(stream) == ALIVE

    run(story())


def test_a_stop_ends_every_stream_at_once() -> None:
    """Those that wait, and those that begin later: a stop must not wait for a browser."""

    async def story() -> None:
        state = State()
        before = asyncio.get_running_loop().time()

        async def read_all() -> int:
            return len([message async for message in state.live.stream()])

        readers = [asyncio.create_task(read_all()) for _ in range(3)]
        await asyncio.sleep(0.5)
        state.live.stop()
        assert await asyncio.gather(*readers) == [2, 2, 2]
        assert asyncio.get_running_loop().time() - before < 1
        assert await read_all() == 1, "no section any more"

    run(story())


def test_streams_share_one_reading_of_the_state() -> None:
    """Sixteen pages cost what one costs; each has all of it nevertheless."""

    async def story() -> None:
        state = State()
        streams = [state.live.stream() for _ in range(STREAMS_MAX)]
        for stream in streams:
            await anext(stream)
            assert sections(await anext(stream)) == state.sections
        assert state.reads == 1

    run(story())


def test_no_text_can_end_an_event_or_begin_another() -> None:
    evil = {"rules": "a\n\nevent: other\rdata: x\u2028\x00"}
    assert sections(event(evil)) == evil
    assert b"\r" not in event(evil)
