"""The Redis store: where it cannot be reached, other versions, and who writes at the same moment."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from bridge.errors import StartFailed, StoreFailed
from bridge.state import open_store
from bridge.state.redis import RedisStore
from tests.support.redis import RedisServer, redis_server


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


def opened(url: str) -> RedisStore:
    return RedisStore(url, namespace="g", merge=lambda name, stored, mine: stored + b"+" + mine)


def test_without_the_package_one_line_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "bridge.state.redis", raising=False)
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(StartFailed, match=r"pip install 'meisa-bridge\[redis\]'$"):
        open_store("redis://localhost", base_dir=tmp_path, namespace="g")


def test_an_address_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match=r"state\.url is no URL of a Redis"):
        open_store("redis://localhost/x?socket_timeout=soon", base_dir=tmp_path, namespace="g")


async def test_a_redis_that_is_away_is_told_without_the_password() -> None:
    store = opened("redis://user:5up3r53cr3t@127.0.0.1:1/0")
    with pytest.raises(StoreFailed, match=r"the state in Redis at 127\.0\.0\.1:1 cannot be read: ") as raised:
        await store.load(["x:1"])
    assert "5up3r53cr3t" not in str(raised.value)
    await store.close()


async def test_what_could_not_be_written_is_written_later(server: RedisServer) -> None:
    """While Redis is away nothing is lost, and what was put is read back; a later put of the name counts."""
    store = opened(server.url)
    await store.load(["x:1"])
    server.stop()
    store.put("x:1", b"one")
    store.put("x:2", b"two")
    with pytest.raises(StoreFailed, match="cannot be written"):
        await store.flush()
    store.put("x:2", b"three")
    assert store.dirty and (store.get("x:1"), store.get("x:2")) == (b"one", b"three")
    server.start()
    await store.flush()
    assert not store.dirty
    assert {name: value async for name, value in store.scan("")} == {"x:1": b"one", "x:2": b"three"}
    await store.close()


async def test_another_versions_layout_is_refused(server: RedisServer) -> None:
    with Redis.from_url(server.url) as raw:
        raw.set("meisa-bridge:g:version", "7")
    store = opened(server.url)
    with pytest.raises(StoreFailed, match=r"another version of meisa-bridge \(format 7, this one knows 1\)"):
        await store.load(["x:1"])
    store.put("x:1", b"one")
    with pytest.raises(StoreFailed, match="another version"):
        await store.flush()
    await store.close()


async def test_groups_keep_apart(server: RedisServer) -> None:
    one, other = (RedisStore(server.url, namespace=name, merge=lambda name, stored, mine: mine) for name in "ab")
    one.put("x:1", b"one")
    await one.flush()
    assert [entry async for entry in other.scan("")] == []
    await one.close()
    await other.close()


async def test_a_writing_between_reading_and_writing_is_merged_too(server: RedisServer) -> None:
    """Somebody else's comes at the very moment; the transaction does not go through, and is done again."""
    raw = Redis.from_url(server.url)
    meetings = []

    def merge(name: str, stored: bytes, mine: bytes) -> bytes:
        if len(meetings) < 3:
            raw.set("meisa-bridge:g:register:x:1", b"theirs%d" % len(meetings))
        meetings.append(stored)
        return stored + b"+" + mine

    raw.set("meisa-bridge:g:register:x:1", b"first")
    store = RedisStore(server.url, namespace="g", merge=merge)
    store.put("x:1", b"mine")
    await store.flush()
    assert meetings == [b"first", b"theirs0", b"theirs1", b"theirs2"]
    assert raw.get("meisa-bridge:g:register:x:1") == b"theirs2+mine"
    raw.close()
    await store.close()
