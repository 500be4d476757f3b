"""A record whose header names are no text: anybody who may write to a topic can write one, and it must stop nobody."""

from __future__ import annotations

from pathlib import Path

from bridge.kafka.replays import KafkaLogs
from bridge.model import UNREADABLE_HEADERS
from bridge.sandbox.server import SandboxServer
from tests.support.inprocess import Place, sandbox_options
from tests.support.kafka import Cluster, unique
from tests.support.member import member
from tests.support.raw import RawProducer

COUNT = 60


def signup(number: int) -> bytes:
    return b'{"type": "user.signed_up", "data": {"email": "u%d@example.com"}}' % number


def produce(cluster: Cluster, topic: str) -> None:
    """Records of which every other one has such a header; many, since Python calls differently what is called often."""
    raw = RawProducer(cluster.bootstrap_servers)
    for number in range(COUNT):
        raw.produce(topic, signup(number), [(b"a", b"1"), *([(b"caf\xe9", b"2"), (b"b", b"3")] if number % 2 else [])])
    raw.close()


async def test_the_bytes_come_and_the_headers_are_said_to_be_unreadable(any_kafka: Cluster) -> None:
    """From the group's member, and from a reading beside the group; what stands behind it comes too."""
    topic = any_kafka.create_topic(unique("headers"))
    produce(any_kafka, topic)
    expected = [(signup(n), UNREADABLE_HEADERS if n % 2 else (("a", b"1"),)) for n in range(COUNT)]
    async with member(any_kafka, unique("g"), topic) as (_, listener):
        await listener.until_records(COUNT)
    assert [(record.value, record.headers) for record in listener.got] == expected
    logs = KafkaLogs(any_kafka.bootstrap_servers, "beside")
    found = [(record.value, record.headers) async for batch in logs.read(topic, 0, 0, COUNT) for record in batch]
    await logs.close()
    assert found == expected


async def test_such_records_are_dead_letters_and_the_others_are_delivered(
    embedded_kafka: Cluster, tmp_path: Path
) -> None:
    """Their values are in the letters as they came; that the headers are not is said."""
    async with SandboxServer(sandbox_options()) as sandbox:
        place = Place(embedded_kafka, tmp_path, sandbox.base_url, partitions=1)
        place.sections["dead_letters"]["stop_at"] = {"share": 1.0, "of": 500}
        produce(embedded_kafka, place.topic)
        async with place.running():
            await place.finished(COUNT)
            totals = (await place.status())["totals"]
    assert totals == {"delivered": COUNT // 2, "dead_lettered": COUNT // 2}
    letters = place.letters()
    assert [message.value() for message, _ in letters] == [signup(number) for number in range(1, COUNT, 2)]
    assert {headers["kind"] for _, headers in letters} == {"decode"}
    assert all("header's name is not UTF-8" in headers["message"] for _, headers in letters)
