"""Two processes with tables of their own over one store: whatever they flush, and when, nothing moves backwards."""

import asyncio
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.core.identity import Identities
from bridge.core.registers import Generation, Present, decoded, merged
from bridge.model import Action, Contact, Kind, TopicPartition
from bridge.state.sqlite import SqliteStore
from tests.support.amount import examples

PARTITIONS = [TopicPartition("users", 0), TopicPartition("users", 1)]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("learn"), st.integers(0, 1), st.sampled_from("78"), st.sampled_from(["a@x", "b@x"])),
        st.tuples(st.just("flush"), st.integers(0, 1)),
        st.tuples(st.just("again"), st.integers(0, 1)),
        st.tuples(st.just("late")),
    ),
    max_size=15,
)


async def marks(store: SqliteStore, logs: list[list[Contact]]) -> dict[tuple[str, TopicPartition], int]:
    """The highest offset of each register and partition; what is stored is what the last writer's record said."""
    found = {}
    async for name, value in store.scan(""):
        entry = decoded(name, value)
        assert entry is not None and not isinstance(entry, Generation)
        found.update({(name, place): offset for place, offset in entry.marks})
        place, offset = entry.marks[-1]
        said = logs[PARTITIONS.index(place)][offset]
        assert (entry.email if isinstance(entry, Present) else entry.external_id) in (said.email, said.external_id)
    return found


@settings(max_examples=examples(100), suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(STEPS)
def test_no_register_in_the_store_moves_backwards(steps: list[tuple[object, ...]]) -> None:
    """Each process owns one partition. `again`: another one takes over, and reads all of it again; what the former one
    had not flushed it may flush `late`, after it was stopped and continued.

    What is stored of a partition only ever grows; and in the end each id has an email that its last upsert in one of
    the partitions gave it, the same one for both.
    """

    async def main(folder: Path) -> None:
        stores = [SqliteStore(folder / "state.db", merge=merged) for _ in PARTITIONS]
        tables = [Identities(store=store) for store in stores]
        reader = SqliteStore(folder / "state.db", merge=merged)
        logs: list[list[Contact]] = [[], []]
        stopped: list[SqliteStore] = []
        before: dict[tuple[str, TopicPartition], int] = {}

        async def look() -> None:
            nonlocal before
            now = await marks(reader, logs)
            assert all(now.get(place, -1) >= offset for place, offset in before.items())
            before = now

        for step in steps:
            match step:
                case ("learn", int(who), str(id), str(email)):
                    logs[who].append(Contact(email, id))
                    tables[who].learn(logs[who][-1], PARTITIONS[who], len(logs[who]) - 1)
                case ("flush", int(who)):
                    await stores[who].flush()
                    await look()
                case ("again", int(who)):
                    stopped.append(stores[who])
                    stores[who] = SqliteStore(folder / "state.db", merge=merged)
                    tables[who] = Identities(store=stores[who])
                    for offset, contact in enumerate(logs[who]):
                        tables[who].learn(contact, PARTITIONS[who], offset)
                case ("late",):
                    for store in stopped:
                        await store.flush()
                        await look()
        for store in stores:
            await store.flush()
            await look()
        for id in "78":
            action = Action(Kind.ENROLL, "rule", 0, {}, Contact(None, id))
            emails = {Identities(store=store).resolve(action).contact.email for store in (*stores, reader)}
            last = {next((each.email for each in reversed(log) if each.external_id == id), None) for log in logs}
            assert len(emails) == 1 and emails <= last
            assert emails != {None} or last == {None}
        for store in (*stores, *stopped, reader):
            await store.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder)))
