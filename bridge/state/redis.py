"""Registers in a Redis that several instances share.

The theory
    A round trip for each name would make every event wait, so names are brought to hand by the hundred (`load`, one
    MGET) before the events that need them go on; whoever uses this store asks what is missing first. What was loaded is
    believed for FRESH_SECONDS: between partitions the last to arrive wins, and who comes a second later may have been
    read a second later. What is put waits in memory until `flush`.

    A flush reads what is stored, merges it with what is to be written, and writes all of it in one transaction that
    Redis carries out only if nothing of it was changed in between (WATCH); else it is done again.

Redis must keep what it is given: `maxmemory-policy noeviction`, and a persistence (AOF) worth its name. Where it cannot
be reached, work that needs names waits, and so do commits; nothing is guessed.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable
from functools import partial
from typing import Any, Final

from redis import asyncio as client
from redis import exceptions
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from bridge.errors import StartFailed, StoreFailed
from bridge.ports import Merge

VERSION: Final = b"1"
"""Of the layout, kept in a key beside the registers."""

FRESH_SECONDS: Final = 1.0
TIMEOUT_SECONDS: Final = 5.0
"""For a connection, and for an answer."""

NAMES_PER_CALL: Final = 1_000
"""In one MGET: some 100 KB and a millisecond of Redis's time, in which nobody else is served."""

ROUNDS_MAX: Final = 8
"""Attempts of a flush whose names others change at the same moment; each time one of them succeeded."""


class RedisStore:
    """See `ports.Store`. Connects with the first use. Raises StartFailed for a URL that is none."""

    lasting = True
    local = False

    def __init__(self, url: str, *, namespace: str, merge: Merge) -> None:
        self._version_key = f"meisa-bridge:{namespace}:version"
        self._prefix = f"meisa-bridge:{namespace}:register:"
        self._merge = merge
        self._loaded: dict[str, bytes | None] = {}
        self._changes: dict[str, bytes | None] = {}
        self._writing: dict[str, bytes | None] = {}
        """What a flush under way writes: newer than what was loaded, older than `_changes`."""
        self._fresh_until = 0.0
        self._known_version = False
        try:
            self._redis: Any = client.Redis.from_url(
                url,
                socket_timeout=TIMEOUT_SECONDS,
                socket_connect_timeout=TIMEOUT_SECONDS,
                max_connections=4,
                retry=Retry(NoBackoff(), 1),  # a connection may have died since; more is for the caller to say
            )
        except ValueError as error:
            raise StartFailed(f"state.url is no URL of a Redis: {str(error).partition(chr(10))[0]}") from None
        options = self._redis.connection_pool.connection_kwargs
        self._where = options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
        """For messages; a URL may hold a password."""

    # Reading

    def refresh(self) -> bool:
        now = time.monotonic()
        if now < self._fresh_until:
            return False
        self._fresh_until = now + FRESH_SECONDS
        self._loaded.clear()
        return True

    def at_hand(self, name: str) -> bool:
        return name in self._changes or name in self._writing or name in self._loaded

    async def load(self, names: Collection[str]) -> None:
        wanted = [name for name in names if not self.at_hand(name)]
        for begin in range(0, len(wanted), NAMES_PER_CALL):
            part = wanted[begin : begin + NAMES_PER_CALL]
            values = await self._ask(partial(self._redis.mget, [self._prefix + name for name in part]), "read")
            self._loaded.update(zip(part, values, strict=True))

    def get(self, name: str) -> bytes | None:
        for kept in (self._changes, self._writing, self._loaded):
            if name in kept:
                return kept[name]
        raise KeyError(name)

    async def scan(self, prefix: str) -> AsyncGenerator[tuple[str, bytes], None]:
        seen = set()
        cursor = 0
        pattern = _literally(self._prefix + prefix) + "*"
        while True:
            cursor, keys = await self._ask(
                partial(self._redis.scan, cursor, match=pattern, count=NAMES_PER_CALL), "read"
            )
            names = [bytes(key).decode()[len(self._prefix) :] for key in keys]
            fresh = [name for name in dict.fromkeys(names) if name not in seen]  # Redis may name one twice
            seen.update(fresh)
            if fresh:
                values = await self._ask(partial(self._redis.mget, [self._prefix + name for name in fresh]), "read")
                for name, value in zip(fresh, values, strict=True):
                    if value is not None and name not in self._changes and name not in self._writing:
                        yield name, value
            if cursor == 0:
                break
        for name, mine in {**self._writing, **self._changes}.items():
            if mine is not None and name.startswith(prefix):
                yield name, mine

    # Writing

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
            kept = await self._ask(partial(self._write, self._writing), "written")
        except BaseException:
            self._changes = {**self._writing, **self._changes}
            self._writing = {}
            raise
        self._loaded.update(kept)
        self._writing = {}

    async def _write(self, changes: dict[str, bytes | None]) -> dict[str, bytes | None]:
        names = list(changes)
        keys = [self._prefix + name for name in names]
        for _ in range(ROUNDS_MAX):
            async with self._redis.pipeline(transaction=True) as pipe:
                for part in _parts(keys):
                    await pipe.watch(*part)
                stored: list[bytes | None] = []
                for part in _parts(keys):
                    stored += await pipe.mget(part)
                kept: dict[str, bytes | None] = {}
                pipe.multi()
                for name, key, old in zip(names, keys, stored, strict=True):
                    value = changes[name]
                    if value is None:
                        pipe.delete(key)
                    else:
                        value = value if old is None else self._merge(name, old, value)
                        pipe.set(key, value)
                    kept[name] = value
                try:
                    await pipe.execute()
                except exceptions.WatchError:
                    continue
                return kept
        raise StoreFailed("others write the same names all the time")

    async def close(self) -> None:
        await self._redis.aclose()

    async def _ask(self, question: Callable[[], Awaitable[Any]], done: str) -> Any:
        """Asks, and awaits an answer of Redis. Raises StoreFailed, also where another version wrote what is there."""
        try:
            if not self._known_version:
                await self._check_version()
            return await question()
        except (exceptions.RedisError, OSError) as error:
            said = (str(error) or type(error).__name__).partition("\n")[0]
            raise StoreFailed(f"the state in Redis at {self._where} cannot be {done}: {said}") from None

    async def _check_version(self) -> None:
        version = await self._redis.get(self._version_key)
        if version is None:
            await self._redis.set(self._version_key, VERSION, nx=True)
        elif version != VERSION:
            raise StoreFailed(
                f"the state in Redis at {self._where} was written by another version of meisa-bridge "
                f"(format {version[:20].decode(errors='replace')}, this one knows {VERSION.decode()})"
            )
        self._known_version = True


def _parts(keys: list[str]) -> Iterable[list[str]]:
    return (keys[begin : begin + NAMES_PER_CALL] for begin in range(0, len(keys), NAMES_PER_CALL))


def _literally(text: str) -> str:
    """As a pattern that matches only itself."""
    return "".join(f"\\{character}" if character in "*?[]\\" else character for character in text)
