"""A store against a dict: what is put, deleted, flushed, and lost with a process that ends without warning."""

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.state import open_store
from tests.support.amount import examples

NAMES = ["x:1", "x:2", "e:a", "a:b:c"]
NAME = st.sampled_from(NAMES)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), NAME, st.binary(max_size=5)),
        st.tuples(st.just("delete"), NAME),
        st.tuples(st.just("flush")),
        st.tuples(st.just("again")),
    ),
    max_size=30,
)


@pytest.mark.parametrize("url", ["memory", "sqlite:///state.db"])
@settings(max_examples=examples(40), suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(steps=STEPS)
def test_a_store_is_a_dict_of_which_a_crash_leaves_what_was_flushed(url: str, steps: list[tuple[object, ...]]) -> None:
    """`again` ends the process without closing, and opens the store anew (what is in memory alone stays)."""

    async def main(folder: Path) -> None:
        store = open_store(url, base_dir=folder, namespace="g")
        now: dict[str, bytes] = {}
        kept: dict[str, bytes] = {}
        opened = [store]
        for step in steps:
            match step:
                case ("put", str(name), bytes(value)):
                    store.put(name, value)
                    now[name] = value
                case ("delete", str(name)):
                    store.delete(name)
                    now.pop(name, None)
                case ("flush",):
                    await store.flush()
                    kept = dict(now)
                    assert not store.dirty
                case ("again",) if store.lasting:
                    store = open_store(url, base_dir=folder, namespace="g")
                    opened.append(store)
                    now = dict(kept)
            assert {name: store.get(name) for name in NAMES} == {name: now.get(name) for name in NAMES}
            assert {name: value async for name, value in store.scan("x:")} == {
                name: value for name, value in now.items() if name.startswith("x:")
            }
        for each in opened:
            await each.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder)))
