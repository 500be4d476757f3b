"""Where reading starts: the group's committed offset, and only without one what `start` says.

A partition whose position cannot be found out now (no coordinator, a timeout) is *unresolved*, never guessed: its
reader asks again. Guessing would skip records, or repeat a whole topic.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from bridge.errors import UsageError
from bridge.kafka.properties import reason
from bridge.model import TopicPartition

EARLIEST = OFFSET_BEGINNING
LATEST = OFFSET_END


class Beginning(NamedTuple):
    """Where one partition is read from."""

    partition: TopicPartition
    offset: int
    metadata: str = ""
    lost_from: int | None = None
    """The committed offset, where retention has already removed it: `lost_from` to `offset - 1` are gone."""
    fresh: bool = False
    """The offset is not what is committed: it is what `start` says, or the log's start."""
    of_another: int | None = None
    """The committed offset, where it belongs to a former topic of this name: it means nothing here."""
    former_metadata: str = ""
    """The text beside that one."""


Stale = Callable[[int, str, int], bool]
"""Whether a committed offset, by the text beside it, belongs to another topic than the one with this hash."""


class Resolved(NamedTuple):
    beginnings: tuple[Beginning, ...] = ()
    unresolved: tuple[TopicPartition, ...] = ()
    why: str = ""
    """Why some are unresolved."""


def parse_start(topic: str, start: str) -> int:
    """`earliest`, `latest`, or an ISO 8601 time (UTC unless it says otherwise) as milliseconds since 1970."""
    if start == "earliest":
        return EARLIEST
    if start == "latest":
        return LATEST
    try:
        moment = datetime.fromisoformat(start)
    except ValueError:
        raise UsageError(
            f"topics.{topic}.start is {start!r}; write earliest, latest, or an ISO 8601 time like 2026-01-31T08:00:00Z"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0, int(moment.timestamp() * 1000))


def offsets_at(
    consumer: Consumer, wanted: Mapping[TopicPartition, int], timeout_seconds: float
) -> dict[TopicPartition, int]:
    """Offsets for EARLIEST, LATEST or a time in milliseconds; in one request per broker.

    Partitions that a broker could not answer for are absent. A time after the last record gives the log's end, as
    Kafka's own tools have it (the embedded broker knows no times: there every time gives the end).
    """
    if not wanted:
        return {}
    # Kafka's ListOffsets takes -2 and -1 in place of a time, and librdkafka passes them on: one request where
    # get_watermark_offsets would make two for every partition, one after the other.
    asked = [KafkaPartition(tp.topic, tp.partition, when) for tp, when in wanted.items()]
    found: dict[TopicPartition, int] = {}
    at_end: dict[TopicPartition, int] = {}
    try:
        answers = consumer.offsets_for_times(asked, timeout=timeout_seconds)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.FENCED_LEADER_EPOCH:
            raise
        # After a broker's restart the first question names the former leader's epoch; the refusal corrects it.
        answers = consumer.offsets_for_times(asked, timeout=timeout_seconds)
    for answer in answers:
        partition = TopicPartition(answer.topic, answer.partition)
        if answer.error is not None:
            continue
        if answer.offset >= 0:
            found[partition] = answer.offset
        elif wanted[partition] >= 0:
            at_end[partition] = LATEST
    return found | offsets_at(consumer, at_end, timeout_seconds)


def resolve(
    consumer: Consumer,
    partitions: Sequence[TopicPartition],
    starts: Mapping[str, int],
    timeout_seconds: float,
    *,
    hashes: Callable[[], Mapping[str, int]] = dict,
    stale: Stale = lambda offset, metadata, topic_hash: False,
) -> Resolved:
    """Reads what is committed and, where nothing is, finds the offset of `starts`. Blocks for up to three timeouts.

    `hashes` is asked for the topics' hashes once what is committed is known; `starts` may change by that. What is
    committed for a former topic of the same name is not followed: that topic's successor is read from its beginning.
    """
    try:
        committed = {
            TopicPartition(answer.topic, answer.partition): answer
            for answer in consumer.committed(
                [KafkaPartition(tp.topic, tp.partition) for tp in partitions], timeout=timeout_seconds
            )
        }
    except KafkaException as error:
        return Resolved(unresolved=tuple(partitions), why=reason(error.args[0]))
    why = ""
    unresolved: list[TopicPartition] = []
    known: dict[TopicPartition, tuple[int, str]] = {}
    former: dict[TopicPartition, tuple[int, str]] = {}
    wanted: dict[TopicPartition, int] = {}
    present = hashes()
    for partition in partitions:
        answer = committed.get(partition)
        if answer is None or answer.error is not None:
            why = reason(answer.error) if answer is not None and answer.error is not None else "no answer"
            unresolved.append(partition)
        elif answer.offset >= 0 and _stale(stale, answer, present.get(partition.topic)):
            former[partition] = (answer.offset, answer.metadata or "")
            wanted[partition] = EARLIEST
        elif answer.offset >= 0:
            known[partition] = (answer.offset, answer.metadata or "")
        else:
            wanted[partition] = starts.get(partition.topic, EARLIEST)
    try:
        lows = offsets_at(consumer, dict.fromkeys(known, EARLIEST), timeout_seconds)
        found = offsets_at(consumer, wanted, timeout_seconds)
    except KafkaException as error:
        lows, found, why = {}, {}, reason(error.args[0])
    beginnings: list[Beginning] = []
    for partition, (offset, metadata) in known.items():
        # Without an answer the committed offset stands: if it is gone, the first fetch will say so.
        low = lows.get(partition, offset)
        lost_from = offset if offset < low else None
        beginnings.append(Beginning(partition, max(offset, low), metadata, lost_from, fresh=lost_from is not None))
    for partition in wanted:
        if partition in found:
            another, text = former.get(partition, (None, ""))
            beginnings.append(
                Beginning(partition, found[partition], fresh=True, of_another=another, former_metadata=text)
            )
        else:
            why = why or KafkaError(KafkaError._TIMED_OUT).str()
            unresolved.append(partition)
    return Resolved(tuple(beginnings), tuple(unresolved), why)


def _stale(stale: Stale, answer: KafkaPartition, topic_hash: int | None) -> bool:
    return topic_hash is not None and stale(answer.offset, answer.metadata or "", topic_hash)
