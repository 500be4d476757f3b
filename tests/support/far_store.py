"""A store behind a network, in this process."""

import asyncio
from collections.abc import AsyncGenerator, Collection

from bridge.errors import StoreFailed
from bridge.state.memory import MemoryStore


class FarStore(MemoryStore):
    """A name must be loaded, which takes a moment, before it may be asked for; and it may be away or full."""

    lasting = True
    local = False

    def __init__(self) -> None:
        super().__init__()
        self.loaded: set[str] = set()
        self.loads: list[frozenset[str]] = []
        self.unflushed = self.away = self.full = self.scanned_away = False

    @property
    def dirty(self) -> bool:  # type: ignore[override]
        return self.unflushed

    def refresh(self) -> bool:
        self.loaded.clear()
        return True

    def at_hand(self, name: str) -> bool:
        return name in self.loaded

    async def load(self, names: Collection[str]) -> None:
        await asyncio.sleep(0.01)
        if self.away:
            raise StoreFailed("away")
        self.loads.append(frozenset(names))
        self.loaded.update(names)

    def get(self, name: str) -> bytes | None:
        if name not in self.loaded:
            raise KeyError(name)
        return super().get(name)

    def put(self, name: str, value: bytes) -> None:
        super().put(name, value)
        self.loaded.add(name)
        self.unflushed = True

    async def flush(self) -> None:
        await asyncio.sleep(0.01)
        if self.away or self.full:
            raise StoreFailed("full")
        self.unflushed = False

    async def scan(self, prefix: str) -> AsyncGenerator[tuple[str, bytes], None]:
        await asyncio.sleep(0.01)
        if self.scanned_away:
            raise StoreFailed("away")
        async for each in super().scan(prefix):
            yield each
