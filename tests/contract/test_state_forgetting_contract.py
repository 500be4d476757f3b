"""Erasing a person from a state store, in a file and in Redis: all of them, and of nobody else anything."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.cli.forgetting import forgotten
from bridge.core.identity import Identities
from bridge.core.known import PREFIX, Known, names_in
from bridge.core.lazy_entries import Entry, Value, encoded
from bridge.core.registers import merged
from bridge.model import Contact, TopicPartition
from bridge.ports import Store
from bridge.state import open_store
from tests.support.redis import RedisServer, redis_server

P0 = TopicPartition("events", 0)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


@pytest.fixture(params=["memory", "sqlite", "redis"])
def url(request: pytest.FixtureRequest) -> str:
    if request.param == "redis":
        return str(request.getfixturevalue("server").url)
    return {"memory": "memory", "sqlite": "sqlite:///state.db"}[request.param]


def opened(url: str, folder: Path) -> Store:
    return open_store(url, base_dir=folder, namespace=folder.name, merge=merged)


async def filled(store: Store) -> None:
    """Two people, each re-keyed once, with an alias and a lazy value; and a partition's positions."""
    for number, person in enumerate(("ada", "eve")):
        table = Identities(store=store)
        for offset, email in enumerate((f"{person}.old@x.io", f"{person.title()}@X.io")):
            contact = Contact(email, f"id-{person}", (("stripe", f"cus-{person}"),))
            await store.load([*contact.names(), f"e:{person}.old@x.io", f"p:{P0}"])
            table.learn(contact, P0, number * 10 + offset)
        entry = Entry(P0, f"{person}@x.io", None, 60.0)
        entry.values["first_name"] = Value(3, person, True)
        store.put(entry.name, encoded(entry, 1))
        if store.local:
            known = Known(86_400.0, store=store)
            known.assigned(P0, b"assign-1")
            body = {"email": f"{person}@x.io", "external_id": f"id-{person}", "id": f"at-meisa-{person}"}
            departure = known.departs(names_in(body), 0.0)
            known.ended(departure)
            assert known.learn(departure, body, body, 1.0, P0)
    store.put(f"o:{P0}", b"position")
    store.put("d:events:00ff", b"an event's digest")
    await store.flush()


async def everything(store: Store) -> dict[str, bytes]:
    return {name: value async for name, value in store.scan("")}


@pytest.mark.parametrize("email", ["ada@x.io", " ADA@x.IO ", "ada.old@x.io"])
async def test_a_person_is_erased_by_any_of_their_emails_and_nobody_else_is(
    url: str, tmp_path: Path, email: str
) -> None:
    """With former emails, ids, aliases, kept values and digests; a second time finds none."""
    folder = tmp_path / f"{abs(hash(email))}"
    folder.mkdir()
    store = opened(url, folder)
    await filled(store)
    before = await everything(store)
    registers, emails = await forgotten(store, [email])
    await store.flush()
    after = await everything(store)
    assert registers == before.keys() - after.keys()
    assert {"x:id-ada", "e:ada@x.io", "e:ada.old@x.io", "a:stripe:cus-ada"} <= registers
    assert sum(name.startswith("l:") for name in registers) == 1
    assert sum(name.startswith(PREFIX) for name in registers) == (3 if store.local else 0)
    assert emails == {"ada@x.io", "ada.old@x.io"}
    assert b"ada" not in repr(after).lower().encode()
    assert {name: before[name] for name in after} == after and f"o:{P0}" in after and "d:events:00ff" in after
    assert (await forgotten(store, [email]))[0] == set()
    await store.close()


async def test_nothing_lasts_before_it_is_flushed(tmp_path: Path) -> None:
    """By which a dry run tells what there is."""
    store = opened("sqlite:///state.db", tmp_path)
    await filled(store)
    before = await everything(store)
    assert (await forgotten(store, ["ada@x.io"]))[0]
    await store.close()
    again = opened("sqlite:///state.db", tmp_path)
    assert await everything(again) == before
    await again.close()
