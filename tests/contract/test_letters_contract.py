"""What every letter keeps to, on the embedded broker and on a real Kafka."""

from __future__ import annotations

import asyncio
import json

import pytest

from bridge.errors import LetterNotWritten
from bridge.kafka.letters import KafkaLetters
from bridge.model import Letter, LetterKind, Record
from tests.support.kafka import Cluster, EmbeddedKafka, unique

PRODUCE = 0
POLICY_VIOLATION = 44

RECORD = Record("users", 3, 42, 1_700_000_000_000, b"\xffkey", b"\x00value", (("a", b"1"), ("b", None), ("a", b"2")))


async def test_a_written_letter_holds_the_record_and_the_reasons(any_kafka: Cluster) -> None:
    """Key, value and headers as they came, in order, then the reasons; readable as soon as `write` has returned."""
    topic = any_kafka.create_topic(unique("letters"))
    letters = KafkaLetters(any_kafka.bootstrap_servers, topic)
    letter = Letter(
        RECORD, LetterKind.REJECTED, "no such key", rule="r", action="trigger", status=400, undelivered=(1, 2)
    )
    await letters.write(letter)
    (message,) = await asyncio.to_thread(any_kafka.read, topic, 1)
    await letters.close()
    assert (message.key(), message.value()) == (b"\xffkey", b"\x00value")
    headers = message.headers()
    assert headers[:3] == [("a", b"1"), ("b", None), ("a", b"2")]
    named = dict(headers[3:])
    assert named["meisa-bridge.kind"] == b"rejected"
    assert named["meisa-bridge.source.offset"] == b"42"
    assert json.loads(named["meisa-bridge.undelivered"]) == [1, 2]


async def test_many_letters_at_once_are_all_acknowledged_and_kept_in_order(any_kafka: Cluster) -> None:
    """Writers wait beside each other, not one after the other, and none is lost."""
    topic = any_kafka.create_topic(unique("letters"))
    letters = KafkaLetters(any_kafka.bootstrap_servers, topic)
    await asyncio.gather(
        *(letters.write(Letter(RECORD._replace(offset=n), LetterKind.DECODE, "bad")) for n in range(300))
    )
    await letters.close()
    found = await asyncio.to_thread(any_kafka.read, topic, 300)
    offsets = [int(dict(message.headers())["meisa-bridge.source.offset"]) for message in found]
    assert offsets == list(range(300))


async def test_a_tombstone_becomes_a_letter_with_null_key_and_value(any_kafka: Cluster) -> None:
    """Null stays null: empty would be something else."""
    topic = any_kafka.create_topic(unique("letters"))
    letters = KafkaLetters(any_kafka.bootstrap_servers, topic)
    await letters.write(Letter(RECORD._replace(key=None, value=None), LetterKind.DECODE, "null"))
    await letters.close()
    (message,) = await asyncio.to_thread(any_kafka.read, topic, 1)
    assert (message.key(), message.value()) == (None, None)


@pytest.mark.kafka
async def test_a_letter_too_large_for_its_topic_is_written_without_its_value(real_kafka: Cluster) -> None:
    """The broker refuses the record; the letter keeps key and headers and says how large the value was."""
    topic = real_kafka.create_topic(unique("letters"), max_message_bytes="20000")
    letters = KafkaLetters(real_kafka.bootstrap_servers, topic, {"compression.type": "none"})
    await letters.write(Letter(RECORD._replace(value=b"v" * 50_000), LetterKind.DECODE, "bad"))
    await letters.write(Letter(RECORD._replace(key=b"k" * 50_000), LetterKind.DECODE, "bad"))
    await letters.close()
    value_gone, all_gone = await asyncio.to_thread(real_kafka.read, topic, 2)
    assert (value_gone.key(), value_gone.value()) == (b"\xffkey", None)
    named = dict(value_gone.headers())
    assert named["meisa-bridge.value_omitted"] == b"50000 bytes" and named["a"] == b"2"
    assert (all_gone.key(), all_gone.value()) == (None, None)
    named = dict(all_gone.headers())
    assert named["meisa-bridge.key_omitted"] == b"true" and named["meisa-bridge.headers_omitted"] == b"3"
    assert named["meisa-bridge.kind"] == b"decode" and named["meisa-bridge.source.offset"] == b"42"


async def test_a_refused_letter_is_not_written_and_the_next_one_is(embedded_kafka: EmbeddedKafka) -> None:
    """The refusal is raised as LetterNotWritten with its reason; the producer goes on working."""
    topic = embedded_kafka.create_topic(unique("letters"))
    letters = KafkaLetters(embedded_kafka.bootstrap_servers, topic)
    await letters.write(Letter(RECORD, LetterKind.DECODE, "first"))
    embedded_kafka.broker.push_errors(PRODUCE, [POLICY_VIOLATION])
    with pytest.raises(LetterNotWritten, match=r"users/3/42.*POLICY_VIOLATION"):
        await letters.write(Letter(RECORD, LetterKind.DECODE, "second"))
    await letters.write(Letter(RECORD, LetterKind.DECODE, "third"))
    await letters.close()
    found = await asyncio.to_thread(embedded_kafka.read, topic, 2)
    assert [dict(message.headers())["meisa-bridge.message"] for message in found] == [b"first", b"third"]


async def test_without_a_broker_a_letter_is_not_written_in_bounded_time() -> None:
    """It waits for delivery.timeout.ms, then raises: the offset waits, nothing is dropped silently."""
    letters = KafkaLetters("127.0.0.1:1", "letters", {"delivery.timeout.ms": "300"})
    with pytest.raises(LetterNotWritten, match="letters"):
        await letters.write(Letter(RECORD, LetterKind.DECODE, "bad"))
    await letters.close()


async def test_a_closed_writer_writes_nothing_more(embedded_kafka: EmbeddedKafka) -> None:
    """After `close` a letter is refused, not lost in a queue."""
    letters = KafkaLetters(embedded_kafka.bootstrap_servers, unique("letters"))
    await letters.close()
    with pytest.raises(LetterNotWritten, match="closed"):
        await letters.write(Letter(RECORD, LetterKind.DECODE, "bad"))
