"""What every state store must hold to: in memory, in a file, in Redis."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from bridge.ports import Store
from bridge.state import open_store
from tests.support.redis import RedisServer, redis_server

Open = Callable[[], Store]
NAMES = ["x:7", "e:a@x", "a:stripe:cus_1", "p:users/0", "ünï *?[]\\ code"]


def both(name: str, stored: bytes, mine: bytes) -> bytes:
    """A merge that shows what it was given."""
    return stored + b"+" + mine


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


@pytest.fixture(params=["memory", "sqlite", "redis"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens the same store anew each time, as another process would."""
    if request.param == "redis":
        url = request.getfixturevalue("server").url
    else:
        url = {"memory": "memory", "sqlite": "sqlite:///state.db"}[request.param]
    return lambda: open_store(url, base_dir=tmp_path, namespace=tmp_path.name, merge=both)


@pytest.fixture
async def store(opened: Open) -> AsyncIterator[Store]:
    made = opened()
    yield made
    await made.close()


async def value(store: Store, name: str) -> bytes | None:
    await store.load([name])
    return store.get(name)


async def everything(store: Store, prefix: str = "") -> dict[str, bytes]:
    return {name: value async for name, value in store.scan(prefix)}


async def test_what_was_put_is_read_back_at_once_and_after_a_flush(store: Store) -> None:
    for name in NAMES:
        assert await value(store, name) is None
        store.put(name, name.encode())
        assert store.at_hand(name) and store.get(name) == name.encode()
    await store.flush()
    assert not store.dirty
    for name in NAMES:
        assert await value(store, name) == name.encode()


async def test_the_last_put_counts_and_what_was_deleted_is_gone(store: Store) -> None:
    store.put("x:1", b"one")
    store.put("x:1", b"two")
    store.put("x:2", b"three")
    await store.flush()
    store.delete("x:2")
    store.delete("x:3")
    assert store.get("x:2") is None
    await store.flush()
    assert [await value(store, name) for name in ("x:1", "x:2", "x:3")] == [b"two", None, None]


async def test_any_bytes_are_kept(store: Store) -> None:
    values = {f"x:{number}": content for number, content in enumerate([b"", b"\0", bytes(range(256)), b"v" * 100_000])}
    for name, content in values.items():
        store.put(name, content)
    await store.flush()
    assert {name: await value(store, name) for name in values} == values


async def test_loaded_names_are_at_hand_whether_they_exist_or_not(store: Store) -> None:
    store.put("x:1", b"one")
    await store.flush()
    await store.load(["x:1", "x:2"])
    assert store.at_hand("x:1") and store.at_hand("x:2")
    assert (store.get("x:1"), store.get("x:2")) == (b"one", None)


async def test_a_name_that_was_never_loaded_is_no_absent_one(store: Store) -> None:
    """Who forgets to load must not take a stranger for nobody."""
    if store.local:
        assert store.at_hand("x:1") and store.get("x:1") is None
        return
    assert not store.at_hand("x:1")
    with pytest.raises(KeyError):
        store.get("x:1")


async def test_a_scan_gives_all_of_a_prefix_with_what_is_not_flushed(store: Store) -> None:
    """Many more than one page; deleted ones not; each once."""
    for number in range(2_500):
        store.put(f"x:{number}", b"%d" % number)
    store.put("e:a@x", b"other")
    await store.flush()
    store.put("x:new", b"new")
    store.put("x:1", b"changed")
    store.delete("x:2")
    found = [entry async for entry in store.scan("x:")]
    assert len(found) == 2_500
    assert dict(found) == {
        **{f"x:{number}": b"%d" % number for number in range(2_500) if number != 2},
        "x:1": b"changed",
        "x:new": b"new",
    }
    assert await everything(store, "e:") == {"e:a@x": b"other"}
    assert await everything(store, "a:") == {}


async def test_a_flush_of_nothing_is_nothing(store: Store) -> None:
    await store.flush()
    assert not store.dirty


# Stores that last

lasting = pytest.mark.parametrize("opened", ["sqlite", "redis"], indirect=True)


@pytest.fixture
async def second(opened: Open, store: Store) -> AsyncIterator[Store]:
    """Another process that uses the same store."""
    made = opened()
    yield made
    await made.close()


@lasting
async def test_what_was_flushed_is_there_for_others_and_nothing_else_is(store: Store, second: Store) -> None:
    """Without `close`: a killed process closes nothing."""
    store.put("x:1", b"one")
    await store.flush()
    store.put("x:2", b"two")
    assert store.dirty
    assert await everything(second) == {"x:1": b"one"}
    assert await value(second, "x:2") is None


@lasting
async def test_two_writings_of_one_name_are_merged(store: Store, second: Store) -> None:
    """Neither saw the other's; a deletion is no writing to merge with."""
    store.put("x:1", b"mine")
    second.put("x:1", b"theirs")
    second.put("x:2", b"theirs")
    await second.flush()
    store.delete("x:2")
    await store.flush()
    assert await everything(second) == {"x:1": b"theirs+mine"}
    assert await value(store, "x:1") == b"theirs+mine"


@lasting
async def test_what_is_written_again_from_old_values_is_merged_again(store: Store, second: Store) -> None:
    """A reader that has not been told to read again may stand on what was there before the others' writing."""
    store.put("x:1", b"a")
    second.put("x:1", b"b")
    await second.flush()
    await store.flush()
    store.put("x:1", b"c")
    await store.flush()
    assert await everything(second) == {"x:1": b"b+a+c"}


@lasting
async def test_what_was_put_before_others_wrote_is_merged_even_after_reading_again(store: Store, second: Store) -> None:
    store.refresh()
    store.put("x:1", b"mine")
    second.put("x:1", b"theirs")
    await second.flush()
    while not store.refresh():  # a second at most
        pass
    await store.flush()
    assert await everything(second) == {"x:1": b"theirs+mine"}


@lasting
async def test_who_keeps_values_is_told_that_others_have_written(store: Store, second: Store) -> None:
    """Not necessarily at once, but without end: every later question of a reader who asks again says so in time."""
    await store.load(["x:1"])
    store.refresh()
    second.put("x:1", b"theirs")
    await second.flush()
    while not store.refresh():  # a second at most
        pass
    assert await value(store, "x:1") == b"theirs"
