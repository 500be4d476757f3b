"""Dead letters for the pages of a running bridge: the newest, read beside its work, seldom and within bounds.

    somebody looks   → a shelf is read anew unless that was done in the last seconds; who looks waits a moment for it,
                       and else sees what was read before, with its time, and what is wrong
    somebody asks    → the letters are read anew, what can be asked for is, and it is written and acknowledged
    nobody looks     → after some minutes the connection is closed and all of it is forgotten

It has clients of its own, never the group's consumer, in threads of their own, and parses in short stretches: so
deliveries go on beside it, and a broker that is away makes a page say so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import structlog

from bridge.errors import BridgeError, LogFailed
from bridge.model import Record
from bridge.ports import Clock, LetterLogs
from bridge.replay.ledger import Request
from bridge.replay.outlook import Key, Outlook, outlook
from bridge.replay.preparing import Preparing
from bridge.replay.shelf import Found, Shelf, Tail
from bridge.replay.wishes import Wishes

log = structlog.get_logger(__name__)

TAIL = Tail(letters=5_000, bytes=64_000_000, facts=100_000)
"""A hundred pages of letters, 10 MB of memory as a rule; a first reading of all this takes some seconds."""
FRESH_SECONDS = 2.0
"""For so long what was read serves everybody who looks."""
WAIT_SECONDS = 2.0
"""A page waits so long for a reading."""
READ_SECONDS_MAX = 60.0
IDLE_SECONDS = 300.0
"""After the last look: a page that is open looks every few seconds."""
OUTLOOKS_MAX = 20
"""Letters of which a page tells what would be sent."""
OUTLOOK_SECONDS = 10.0
BEHIND_MAX = 20_000
"""Records behind a letter's that are read for that: a second or two of the processor, in slices."""


class View(NamedTuple):
    """What is known of the letters."""

    letters: Sequence[Found]
    """The oldest first."""
    read_at_wall_seconds: float | None
    """None where nothing was read yet."""
    reading: bool
    """A reading goes on that who looked did not wait for."""
    problem: str
    """Why the last reading failed; else empty."""
    left_out: int = 0
    """Older records of the topic that were not looked at."""
    forgotten: int = 0
    """Older requests and results that were not looked at: states may be missing."""


class Desk:
    """`preparing` reads and plans like replays, over the logs that `connect` makes."""

    def __init__(
        self,
        connect: Callable[[], LetterLogs],
        preparing: Callable[[LetterLogs], Preparing],
        *,
        topic: str,
        replays_topic: str,
        topics: Iterable[str],
        clock: Clock,
        tail: Tail = TAIL,
    ) -> None:
        self._connect = connect
        self._preparing = preparing
        self.topic = topic
        self.replays_topic = replays_topic
        self.topics = frozenset(topics)
        self._clock = clock
        self._tail = tail
        self._logs: LetterLogs | None = None
        self._shelf: Shelf | None = None
        self._reading: asyncio.Task[None] | None = None
        self._letters: Sequence[Found] = ()
        self._read_at: float | None = None
        self._tried_at = float("-inf")
        self._problem = ""
        self._asking = asyncio.Lock()
        self._idle: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._closed = False

    # Looking

    async def look(self, *, anew: bool = False, wait_seconds: float = WAIT_SECONDS) -> View:
        """What is known, read again if that is some seconds old; `anew`: if it began before now."""
        if self._closed:
            return View((), None, False, "the bridge stops")
        self._stay()
        if anew and self._reading is not None:
            await asyncio.wait({self._reading}, timeout=wait_seconds)
        now = self._clock.now()
        if self._reading is None and (anew or now - self._tried_at >= FRESH_SECONDS):
            self._tried_at = now
            self._reading = asyncio.get_running_loop().create_task(self._read(), name="dead letters for pages")
        if self._reading is not None:
            await asyncio.wait({self._reading}, timeout=wait_seconds)
        shelf = self._shelf
        return View(
            self._letters,
            self._read_at,
            self._reading is not None,
            self._problem,
            shelf.dropped if shelf is not None else 0,
            shelf.forgotten if shelf is not None else 0,
        )

    async def _read(self) -> None:
        try:
            shelf = self._open()
            began = self._clock.wall()
            async with asyncio.timeout(READ_SECONDS_MAX):
                await shelf.read()
            if shelf is self._shelf:
                self._letters, self._read_at, self._problem = shelf.all(), began, ""
        except TimeoutError:
            self._fail(f"the dead letters were not read within {READ_SECONDS_MAX:g} s")
        except BridgeError as error:
            self._fail(str(error))
        except Exception as error:
            log.exception("dead letters could not be read for the page: it says so, and nothing else is touched")
            self._fail(f"the bridge broke while it read them: {type(error).__name__}")
        finally:
            self._reading = None

    def _fail(self, problem: str) -> None:
        """What a reading that was broken off has put on the shelf is not whole: the next one begins anew."""
        self._problem = problem
        self._shelf = None

    def _open(self) -> Shelf:
        if self._closed:
            raise LogFailed("the bridge stops")
        if self._logs is None:
            self._logs = self._connect()
        if self._shelf is None:
            self._shelf = Shelf(
                self._logs, topic=self.topic, replays_topic=self.replays_topic, topics=self.topics, tail=self._tail
            )
        return self._shelf

    async def record(self, found: Found) -> Record | None:
        """The letter as it stands in its topic; None where it is gone. Raises LogFailed."""
        self._stay()
        try:
            async with asyncio.timeout(OUTLOOK_SECONDS):
                return await self._open().record(found)
        except TimeoutError:
            raise LogFailed(f"Kafka did not give the letter within {OUTLOOK_SECONDS:g} s") from None

    async def foresee(self, requests: Sequence[Request]) -> tuple[Mapping[Key, Outlook], str]:
        """What the first letters would send, and what there is to say about it. Sends and writes nothing."""
        self._stay()
        try:
            self._open()
            assert self._logs is not None
            async with asyncio.timeout(OUTLOOK_SECONDS):
                looks = await outlook(
                    self._preparing(self._logs), self._logs, requests[:OUTLOOKS_MAX], behind_max=BEHIND_MAX
                )
        except TimeoutError:
            return {}, f"what would be sent was not found out within {OUTLOOK_SECONDS:g} s"
        except BridgeError as error:
            return {}, f"what would be sent is not known: {error}"
        except Exception as error:
            log.exception("what replays would send could not be found out: the page says so, and nothing was sent")
            return {}, f"what would be sent is not known: the bridge broke over it: {type(error).__name__}"
        many = len(requests) - OUTLOOKS_MAX
        return looks, f"What the other {many:,} would send was not looked at." if many > 0 else ""

    # Asking

    async def ask(self, choose: Callable[[Sequence[Found]], Wishes]) -> Wishes:
        """Writes what `choose` asks for of the letters as they are now; returns once that is acknowledged.

        Raises LogFailed; some may have been written all the same, and is seen as requested then.
        """
        async with self._asking:  # else two who press at once would ask twice
            view = await self.look(anew=True, wait_seconds=OUTLOOK_SECONDS)
            if view.problem or view.reading:
                raise LogFailed(view.problem or "the dead letters could not be read in time")
            wishes = choose(view.letters)
            if wishes.requests:
                shelf = self._open()
                await shelf.make_topic()
                await shelf.ask(wishes.requests)
                log.info(
                    "replays were asked for over HTTP" if wishes.replaying else "dead letters were discarded over HTTP",
                    letters=len(wishes.requests),
                    first=str(wishes.requests[0].letter),
                    overwrite=wishes.requests[0].overwrite,
                    send_again=wishes.requests[0].send_again,
                )
                await self.look(anew=True)
            return wishes

    # Life

    def _stay(self) -> None:
        if self._closed:
            return
        loop = asyncio.get_running_loop()
        if self._idle is not None:
            self._idle.cancel()
        self._idle = loop.call_later(IDLE_SECONDS, self._leave)

    def _leave(self) -> None:
        """Nobody has looked for a while."""
        if self._reading is not None or self._asking.locked():
            self._stay()
            return
        logs, self._logs, self._shelf = self._logs, None, None
        self._letters, self._read_at, self._tried_at = (), None, float("-inf")
        self._idle = None
        if logs is not None:
            task = asyncio.get_running_loop().create_task(logs.close(), name="dead letters are not looked at")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        self._closed = True
        if self._idle is not None:
            self._idle.cancel()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading})
        if self._closing:
            await asyncio.wait(self._closing)
        logs, self._logs = self._logs, None
        if logs is not None:
            await logs.close()
