"""Rules are read again while the service runs: on SIGHUP, and when their files have changed.

    look (every LOOK_SECONDS)   have the files changed, and kept still since the last look?   or SIGHUP
      → read and check          in a thread, exactly as at a start; were the files still the same afterwards?
      → swap                    on the event loop, between two events
    or one log line with every mistake and its place, and the rules of before stay in force

A file counts as changed by where its path leads and what the file system says of it: a new file under the old name (as
editors write), and a ConfigMap's exchanged symlink show as well. Half-written files are the trap: rules of which the
last ones are missing are good rules. So a change is read only once two looks in a row found the same; whoever sends
SIGHUP says that the files are complete.

What was planned before goes on as it was planned, here and in the dead-letter topic; an action's id depends on no place
in a file (delivery.md, terms). Only rules are read again. Settings, schemas and Python handlers are those of the start:
running code cannot be taken back to what it was before a failed import.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import structlog

from bridge.errors import ProblemsFound, UserError
from bridge.observe.snapshot import RulesState
from bridge.ports import Clock, Meter
from bridge.rules import RuleBook

log = structlog.get_logger(__name__)

LOOK_SECONDS = 2.0
"""Between looks at the files: a stat of each. A change is in force after two to four seconds."""
TOLD_MAX = 50
"""Names, or mistakes, in one log line."""

Signature = tuple[tuple[str, ...], ...]


def signature(paths: Iterable[Path]) -> Signature:
    """What differs as soon as one of the files does; blocks. Symbolic links are followed."""
    return tuple(_signature(path) for path in paths)


def _signature(path: Path) -> tuple[str, ...]:
    try:
        stat = path.stat()
    except OSError as error:
        return str(path), type(error).__name__
    return str(path), f"{stat.st_dev} {stat.st_ino} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"


class Changes(NamedTuple):
    """By which rules two books differ, by name."""

    added: list[str]
    removed: list[str]
    changed: list[str]
    reordered: bool
    """The rules that both have stand in another order, and so do the actions of an event."""


def changes(old: RuleBook, new: RuleBook) -> Changes:
    before = {rule.name: rule.digest for rule in old.rules}
    after = {rule.name: rule.digest for rule in new.rules}
    both = [name for name in before if name in after]
    return Changes(
        added=[name for name in after if name not in before],
        removed=[name for name in before if name not in after],
        changed=[name for name in both if before[name] != after[name]],
        reordered=both != [name for name in after if name in before],
    )


class Reloading:
    """See the module's text.

    `files` tells the rules files of this moment, and `read` makes a book of them or raises UserError; both run in a
    thread. `swap` puts a book in force. `fixed` are files that only a start reads: that they changed is told.
    """

    def __init__(
        self,
        book: RuleBook,
        seen: Signature,
        *,
        files: Callable[[], Sequence[Path]],
        read: Callable[[], RuleBook],
        swap: Callable[[RuleBook], None],
        fixed: Sequence[Path] = (),
        clock: Clock,
        meter: Meter,
    ) -> None:
        """`seen` is the signature of the files from before `book` was read from them."""
        self._book = book
        self._files = files
        self._read = read
        self._swap = swap
        self._fixed = list(fixed)
        self._fixed_seen = signature(fixed)
        self._clock = clock
        self._meter = meter
        self._in_force = seen
        self._tried = seen
        self._last = seen
        self._asked = asyncio.Event()
        self._loaded_wall = clock.wall()
        self._problem = ""
        self._refused_wall: float | None = None

    @property
    def state(self) -> RulesState:
        return RulesState(
            version=self._book.version,
            rules=len(self._book.rules),
            handlers=len(self._book.handlers),
            loaded_at_wall_seconds=self._loaded_wall,
            problem=self._problem,
            refused_at_wall_seconds=self._refused_wall,
        )

    def ask(self) -> None:
        """Reads the rules again now, changed or not."""
        self._asked.set()

    async def run(self) -> None:
        """Watches until it is cancelled."""
        while True:
            # Not wait_for: where it was asked in the very moment of a cancellation, Python 3.11's forgets the latter.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._asked.wait()
            try:
                await self.look()
            except Exception as error:
                # A bug must neither end the watch nor touch the rules in force.
                log.exception("reading the rules again broke in the bridge itself; the old rules stay in force")
                self._refuse(repr(error))

    async def look(self) -> None:
        """One look; reads the files where they have changed and keep still, or where it was asked for."""
        asked = self._asked.is_set()
        self._asked.clear()
        now = await asyncio.to_thread(self._look)
        still, self._last = now == self._last, now
        if not asked and (now == self._tried or not still):
            return
        self._tried = now
        if not asked and now == self._in_force:
            self._problem, self._refused_wall = "", None
            log.info("the rules files are again what is in force", version=self._book.version)
            return
        self._tell_fixed()
        try:
            book = await asyncio.to_thread(self._read)
        except UserError as error:
            self._refused(error)
            return
        if await asyncio.to_thread(self._look) != now:
            self._tried, self._last = (), ()  # changed while they were read: perhaps half of each
            if asked:
                self._asked.set()
                await asyncio.sleep(LOOK_SECONDS)
            return
        self._take(book, now)

    def _look(self) -> Signature:
        return signature(self._files())

    def _take(self, book: RuleBook, seen: Signature) -> None:
        self._swap(book)
        old, self._book = self._book, book
        self._in_force = seen
        self._loaded_wall = self._clock.wall()
        self._problem, self._refused_wall = "", None
        self._meter.reloaded("loaded")
        found = changes(old, book)
        told = {name: names[:TOLD_MAX] for name, names in found._asdict().items() if name != "reordered" and names}
        if not told and not found.reordered:
            log.info("the rules were read again: nothing in them has changed", version=book.version)
            return
        log.info(
            "the rules were reloaded: events from here on are planned by them; what waits goes on as it was planned",
            version=book.version,
            former_version=old.version,
            rules=len(book.rules),
            **told,
            **({"reordered": True} if found.reordered else {}),
        )

    def _refused(self, error: UserError) -> None:
        problems = [str(error)]
        if isinstance(error, ProblemsFound):
            problems = [str(problem) for problem in error.problems if problem.severity == "error"]
        self._refuse(problems[0] if len(problems) == 1 else f"{problems[0]} and {len(problems) - 1} more")
        log.error(
            "the rules were not reloaded: the rules of before stay in force until the files are mended",
            version=self._book.version,
            problems=problems[:TOLD_MAX],
        )

    def _refuse(self, problem: str) -> None:
        self._problem, self._refused_wall = problem, self._clock.wall()
        self._meter.reloaded("refused")

    def _tell_fixed(self) -> None:
        now = signature(self._fixed)
        changed = [path.name for path, new, old in zip(self._fixed, now, self._fixed_seen, strict=True) if new != old]
        if changed:
            log.warning(
                "files have changed that only a start reads (settings, schemas, handlers): they are not reloaded with "
                "the rules; restart the bridge to take them",
                files=changed[:TOLD_MAX],
            )
