"""Registers of this process alone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncGenerator, Collection

ENTRIES_MAX = 200_000
"""The least recently used go first. At some 300 bytes each that is 60 MB."""


class MemoryStore:
    """See `ports.Store`. Nothing lasts, so nothing is ever dirty."""

    lasting = False
    local = True
    dirty = False

    def __init__(self, *, entries_max: int = ENTRIES_MAX) -> None:
        self._entries_max = entries_max
        self._values: OrderedDict[str, bytes] = OrderedDict()

    def refresh(self) -> bool:
        return False

    def at_hand(self, name: str) -> bool:
        return True

    async def load(self, names: Collection[str]) -> None:
        pass

    def get(self, name: str) -> bytes | None:
        value = self._values.get(name)
        if value is not None:
            self._values.move_to_end(name)
        return value

    def put(self, name: str, value: bytes) -> None:
        self._values[name] = value
        self._values.move_to_end(name)
        if len(self._values) > self._entries_max:
            self._values.popitem(last=False)

    def delete(self, name: str) -> None:
        self._values.pop(name, None)

    async def flush(self) -> None:
        pass

    async def scan(self, prefix: str) -> AsyncGenerator[tuple[str, bytes], None]:
        for name, value in list(self._values.items()):
            if name.startswith(prefix):
                yield name, value

    async def close(self) -> None:
        pass
