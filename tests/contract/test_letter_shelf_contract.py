"""What who looks at dead letters sees of their topic: in memory, on the embedded broker and on a real Kafka."""

from __future__ import annotations

from bridge.kafka.letters import KafkaLetters
from bridge.kafka.replays import KafkaLogs
from bridge.model import Letter, LetterKind, Record
from bridge.ports import LetterLogs, Letters
from bridge.replay.ledger import State
from bridge.replay.shelf import Shelf, Tail
from bridge.replay.wishes import Wishes
from tests.support.kafka import Cluster, unique
from tests.support.replays import LETTERS, MemoryLetters, MemoryLogs


def letter(offset: int) -> Letter:
    record = Record("users", 0, offset, 1_780_000_000_000, b"k", b"v", (("h", b"1"),))
    ids = (f"id{offset}",)
    return Letter(record, LetterKind.REJECTED, "no", undelivered_ids=ids, failed_at_wall_seconds=1.78e9 + offset)


async def story(logs: LetterLogs, letters: Letters, topic: str) -> None:
    """Letters are seen in their order, the newest of them within a tail; what is asked for is seen by the next look."""
    for number in range(12):
        await letters.write(letter(number))
    replays = f"{topic}.replays"
    shelf = Shelf(logs, topic=topic, replays_topic=replays, topics=["users"], tail=Tail(5, 1_000_000, 100))
    await shelf.read()
    assert [each.letter.source.offset for each in shelf.all()] == [7, 8, 9, 10, 11]
    assert shelf.dropped == 7 and {each.state for each in shelf.all()} == {State.OPEN}
    wishes = Wishes.replays(shelf.topics, shelf.all()[:2], named=True, overwrite=False, send_again=False)
    assert await shelf.make_topic()
    await shelf.ask(wishes.requests)
    assert not await shelf.make_topic()
    assert await logs.partitions(replays) >= 1, "the embedded broker makes several; only the first is used"
    await letters.write(letter(12))
    await shelf.read()
    assert [(each.letter.source.offset, each.state.value) for each in shelf.all()] == [
        (8, "requested"),
        *((offset, "open") for offset in range(9, 13)),
    ]
    record = await shelf.record(shelf.all()[-1])
    assert record is not None and (record.key, record.value, record.headers[0]) == (b"k", b"v", ("h", b"1"))


async def test_in_memory() -> None:
    logs = MemoryLogs(latency=0.0)
    await story(logs, MemoryLetters(logs), LETTERS)


async def test_on_a_broker(any_kafka: Cluster) -> None:
    topic = any_kafka.create_topic(unique("letters"), 1)
    letters, logs = KafkaLetters(any_kafka.bootstrap_servers, topic), KafkaLogs(any_kafka.bootstrap_servers, "beside")
    try:
        await story(logs, letters, topic)
    finally:
        await letters.close()
        await logs.close()


async def test_a_topic_that_is_not_there_has_no_partitions_and_is_not_made_by_asking(any_kafka: Cluster) -> None:
    logs = KafkaLogs(any_kafka.bootstrap_servers, "beside")
    try:
        name = unique("nowhere")
        assert [await logs.partitions(name) for _ in range(2)] == [0, 0]
    finally:
        await logs.close()
