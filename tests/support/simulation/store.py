"""An imagined Redis: registers that all members share, each over a connection of its own (as bridge/state/redis.py)."""

import asyncio
from collections.abc import AsyncGenerator, Collection

from bridge.core.registers import merged
from bridge.errors import StoreFailed
from tests.support.simulation.world import World

FRESH_SECONDS = 1.0
"""For which what was loaded is believed."""
AWAY_SECONDS = 2.0
"""For which it is away, now and then."""


class SharedStore:
    """ports.Store of one member; `shared` is what all of them see."""

    lasting = True
    local = False

    def __init__(self, world: World, shared: dict[str, bytes], member: str) -> None:
        self._world = world
        self._shared = shared
        self._dice = world.dice(f"store of {member}")
        self._loaded: dict[str, bytes | None] = {}
        self._changes: dict[str, bytes | None] = {}
        self._writing: dict[str, bytes | None] = {}
        self._fresh_until = 0.0
        self._away_until = 0.0

    def refresh(self) -> bool:
        now = self._world.clock.now()
        if now < self._fresh_until:
            return False
        self._fresh_until = now + FRESH_SECONDS
        self._loaded.clear()
        return True

    def at_hand(self, name: str) -> bool:
        return name in self._changes or name in self._writing or name in self._loaded

    async def load(self, names: Collection[str]) -> None:
        wanted = [name for name in names if not self.at_hand(name)]
        if wanted:
            await self._way("read")
            self._loaded.update((name, self._shared.get(name)) for name in wanted)
            await self._way()

    def get(self, name: str) -> bytes | None:
        for kept in (self._changes, self._writing, self._loaded):
            if name in kept:
                return kept[name]
        raise KeyError(name)

    async def scan(self, prefix: str) -> AsyncGenerator[tuple[str, bytes], None]:
        await self._way("read")
        for name, value in list(self._shared.items()):
            if name.startswith(prefix) and name not in self._changes and name not in self._writing:
                yield name, value
        for name, mine in {**self._writing, **self._changes}.items():
            if mine is not None and name.startswith(prefix):
                yield name, mine

    def put(self, name: str, value: bytes) -> None:
        self._changes[name] = value

    def delete(self, name: str) -> None:
        self._changes[name] = None

    @property
    def dirty(self) -> bool:
        return bool(self._changes or self._writing)

    async def flush(self) -> None:
        if self._writing:
            raise StoreFailed("the state is being written already")
        if not self._changes:
            return
        self._writing, self._changes = self._changes, {}
        try:
            await self._way("written")
            for name, value in self._writing.items():
                if value is None:
                    self._shared.pop(name, None)
                    kept = None
                else:
                    old = self._shared.get(name)
                    kept = self._shared[name] = value if old is None else merged(name, old, value)
                self._loaded[name] = kept
            await self._way("written")
        except BaseException:
            self._changes = {**self._writing, **self._changes}
            self._writing = {}
            raise
        self._writing = {}

    async def close(self) -> None:
        pass

    async def _way(self, done: str = "") -> None:
        """A way there or back takes a moment, and may end nowhere."""
        await asyncio.sleep(0.002 * self._dice.random())
        world = self._world
        if done and world.faults_on and world.scenario.known is not None:
            if self._dice.random() < world.scenario.known.store_faults:
                self._away_until = world.now + AWAY_SECONDS * self._dice.random()
            if world.now < self._away_until:
                raise StoreFailed(f"the state cannot be {done}: it is away")
