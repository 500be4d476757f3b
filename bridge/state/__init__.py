"""Where registers are kept: in memory, in a file, or in Redis. `open_store` finds the adapter by its URL."""

from __future__ import annotations

from pathlib import Path

from bridge.errors import StartFailed
from bridge.ports import Ledger, Merge, Store

SQLITE = "sqlite:///"


def mine(name: str, stored: bytes, value: bytes) -> bytes:
    """The merge of those who need none: the last to write wins."""
    return value


def open_store(
    url: str, *, base_dir: Path, namespace: str, merge: Merge = mine, patience_seconds: float = 0.05
) -> Store:
    """The store that a URL names. Raises StartFailed where it cannot be used.

    A relative file is looked up from `base_dir`. Stores that are shared (Redis) keep what belongs to one `namespace`
    apart. `patience_seconds` is how long a file may be locked by another process before reading or writing fails: the
    service blocks for so long, a command may wait longer.
    """
    if url == "memory":
        from bridge.state.memory import MemoryStore

        return MemoryStore()
    if url.startswith(SQLITE):
        from bridge.state.sqlite import SqliteStore

        return SqliteStore(base_dir / url.removeprefix(SQLITE), merge=merge, patience_seconds=patience_seconds)
    try:
        from bridge.state.redis import RedisStore
    except ModuleNotFoundError as error:
        raise _not_installed("state.url", error) from None
    return RedisStore(url, namespace=namespace, merge=merge)


def open_ledger(url: str, *, group: str) -> Ledger:
    """Where all instances of a group count the calls of their quota. Raises StartFailed where it cannot be used."""
    try:
        from bridge.state.ledger import RedisLedger
    except ModuleNotFoundError as error:
        raise _not_installed("meisa.quota.shared", error) from None
    return RedisLedger(url, group=group)


def _not_installed(setting: str, error: ModuleNotFoundError) -> Exception:
    if error.name is None or error.name.partition(".")[0] != "redis":
        return error
    return StartFailed(
        f"{setting} names a Redis, and the package for it is not installed: pip install 'meisa-bridge[redis]'"
    )
