"""Bounded logs: what happened, newest kept, counters never dropped."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")


class Log(Generic[T]):
    """The newest `limit` entries of a sequence that is numbered from 1."""

    __slots__ = ("_entries", "total")

    def __init__(self, limit: int) -> None:
        self._entries: deque[T] = deque(maxlen=limit)
        self.total = 0
        """How many entries there ever were; also the number of the newest."""

    def append(self, entry: T) -> int:
        """Adds an entry and returns its number."""
        self.total += 1
        self._entries.append(entry)
        return self.total

    @property
    def dropped(self) -> int:
        """How many of the oldest entries are no longer held."""
        return self.total - len(self._entries)

    def since(self, number: int, limit: int) -> list[T]:
        """At most `limit` entries after the given number, oldest first."""
        start = max(0, number - self.dropped)
        return list(islice(self._entries, start, start + limit))

    def newest(self, limit: int) -> list[T]:
        """At most `limit` entries, newest first."""
        return list(islice(reversed(self._entries), limit))

    def __iter__(self) -> Iterator[T]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def clear(self) -> None:
        self._entries.clear()
        self.total = 0
