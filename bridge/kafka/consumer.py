"""KafkaSource: one member of a consumer group, polled by a thread of its own.

    polling thread                                         event loop
    ──────────────                                         ──────────
    poll → batch of records  ── one hop per batch ───────▶ listener.records
    on_assign: read what is committed ───────────────────▶ listener.assigned
    on_revoke: waits for ────────────────────────────────▶ await listener.revoked
    on_lost ─────────────────────────────────────────────▶ listener.lost
    ◀── pause, resume, commit (taken between two polls) ── runtime
    commit acknowledged or refused ──────────────────────▶ listener.committed

Rules that never break:

- Everything the listener is told reaches it on the loop in the order in which it happened.
- All calls to the consumer are made by the polling thread: confluent-kafka 2.16 holds a lock on the consumer for as
  long as a poll lasts, so a call from elsewhere would wait, and within a rebalance callback for ever.
- The polling thread waits for the loop in one place only, `_drain`, for a bounded time, and there it goes on carrying
  out what the listener asks for.
- It polls at least every second whatever the loop does, so the group never takes us for dead. A loop that does not
  take its batches stops the *fetching*: all partitions are paused until it has caught up.
- A record is delivered under the assignment epoch under which it was read, or not at all.
- A position that is not known is asked for again, never guessed.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from confluent_kafka import Consumer, KafkaError, Message
from confluent_kafka import TopicPartition as KafkaPartition

from bridge.errors import StartFailed
from bridge.kafka import faults
from bridge.kafka.admin import SESSION_SECONDS, is_member, probe, session_seconds
from bridge.kafka.assignment import Assignment
from bridge.kafka.commits import Commits
from bridge.kafka.headers import read_headers
from bridge.kafka.properties import CLASSIC, CONSUMER, LibrdkafkaLog, checked, for_source, validate
from bridge.kafka.pulse import Pulse
from bridge.kafka.rights import refused
from bridge.kafka.starting import Stale, parse_start
from bridge.model import Assigned, Position, Record, TopicPartition
from bridge.ports import SourceListener

log = structlog.get_logger(__name__)

BUSY_POLL_SECONDS = 0.005
"""One poll while there is work: the longest that a commit waits to be sent, beside the 8 ms of its round trip."""
IDLE_POLL_SECONDS = 0.05
IDLE_AFTER_SECONDS = 1.0
"""A poll can be woken by Kafka only, not by us; without records nobody commits, and 20 polls a second cost nothing."""
BATCHES_OUT_MAX = 4
"""Batches on their way to the loop: one in work, the others hide the hop. With 500 records each, 2,000 records."""
HOLD_AFTER_SECONDS = 0.5
"""A loop that takes no batch for so long is behind: only then is it worth dropping the prefetch to go on polling."""
MEMBER_SECONDS = 3.0
"""librdkafka tells a member without partitions nothing: after this long, and again, the coordinator is asked."""
PROBE_SECONDS = 5.0
PROBE_AGAIN_SECONDS = 1.0


BEAT_SECONDS = 0.5
"""At least so often the polling thread shows that this process is not standing still."""


class KafkaSource:
    """Implements ports.Source. Raises UsageError for a property or a start that cannot be used.

    `topics` maps a name to its `start` (earliest, latest, or an ISO 8601 time), which counts only where the group has
    no offset. `revoke_seconds` bounds the listener's draining and must stay below max.poll.interval.ms, which is the
    group's patience; `close_seconds` bounds everything that `close` does. `stale` tells whether a committed offset and
    its text belong to a former topic; it is called on the polling thread. `lost` counts offsets by topic that were
    removed before they were read; on the loop.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        group_id: str,
        topics: Mapping[str, str],
        properties: Mapping[str, Any] | None = None,
        *,
        batch_records: int = 500,
        revoke_seconds: float = 30.0,
        close_seconds: float = 45.0,
        stale: Stale = lambda offset, metadata, topic_hash: False,
        lost: Callable[[str, int], None] = lambda topic, count: None,
    ) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._group_id = group_id
        self._properties = checked(properties or {})
        validate(bootstrap_servers, self._properties)
        starts = {topic: parse_start(topic, start) for topic, start in topics.items()}
        self._topics = list(topics)
        self._batch_records = batch_records
        self._patience = float(self._properties.get("max.poll.interval.ms", 300_000)) / 1000
        self._revoke_seconds = min(revoke_seconds, self._patience * 0.8)
        self._close_seconds = close_seconds
        self.protocol = ""
        """`consumer` or `classic`, once the group has been joined."""
        self.session_seconds = SESSION_SECONDS
        """So long the group waits for a member that is not heard of, before it gives its partitions to others."""

        self._loop: asyncio.AbstractEventLoop | None = None
        self._listener: SourceListener | None = None
        self._thread: threading.Thread | None = None
        self._ended = asyncio.Event()

        # Shared between the two threads; guarded by _changed.
        self._changed = threading.Condition()
        self._closing = False
        self._orders: deque[tuple[Callable[..., None], tuple[TopicPartition, ...]]] = deque()
        self._batches_out = 0
        self._broken = False
        """A batch could not be taken in: none behind it may be."""

        # The polling thread's own.
        self._full_since: float | None = None
        self._in_hand: list[Message] = []
        self._busy_until = 0.0
        self._joined = False
        self._ask_member_at = 0.0
        self._verdict: faults.Verdict | None = None
        self._notices = faults.Notices(self._tell_failed)
        self._assignment = Assignment(
            starts,
            self._notices,
            tell_assigned=self._tell_assigned,
            tell_lost=self._tell_lost,
            tell_removed=self._tell_removed,
            count_lost=lambda topic, count: self._tell(lost, topic, count),
            stale=stale,
        )
        self._pulse = Pulse()
        self._commits = Commits(self._assignment.owns, self._tell_committed)

    # --- ports.Source: called on the loop -----------------------------------------------------------------------------

    def start(self, listener: SourceListener) -> None:
        self._loop = asyncio.get_running_loop()
        self._listener = listener
        self._thread = threading.Thread(target=self._run, name="kafka-poll", daemon=True)
        self._thread.start()

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        self._order(self._assignment.pause, partitions)

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        self._order(self._assignment.resume, partitions)

    def _order(self, order: Callable[..., None], partitions: Sequence[TopicPartition]) -> None:
        with self._changed:
            self._orders.append((order, tuple(partitions)))
            self._changed.notify_all()

    def commit(self, positions: Sequence[Position]) -> None:
        self._assignment.ages.passed(positions)
        self._commits.submit(tuple(positions))
        with self._changed:
            self._changed.notify_all()

    def log_ends(self) -> Mapping[TopicPartition, int]:
        return self._assignment.ends.latest

    def retention_seconds(self, partition: TopicPartition, frontier: int) -> float | None:
        """Until retention may delete what stands at `frontier`; None where nothing does, or where that is not known."""
        return self._assignment.ages.seconds_left(partition, frontier, time.time())

    def partition_counts(self) -> Mapping[str, int]:
        return self._assignment.topics.partitions

    def standstill(self) -> float:
        return self._pulse.longest_gap()

    def stuck(self) -> str | None:
        """Why only a new process helps: the polling thread is hung, and the group has given its partitions away."""
        silent = self._pulse.silent_seconds()
        if self._thread is None or self._ended.is_set() or silent < self._patience + self._close_seconds:
            return None
        return f"the thread that polls Kafka has been hung for {silent:.0f} s"

    async def close(self) -> None:
        """Returns when the group has been left, or after `close_seconds` with a line in the log.

        With group.instance.id the group is not left: the member's place waits for its return (delivery.md, 21).
        """
        if self._thread is None:
            return
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        try:
            await asyncio.wait_for(self._ended.wait(), self._close_seconds)
        except TimeoutError:
            log.error(
                "the Kafka consumer did not stop in time; it is left behind, and the group gives its partitions to "
                "others after the session timeout",
                seconds=self._close_seconds,
            )

    # --- on the loop, called from the threads -------------------------------------------------------------------------

    def _tell(self, what: Callable[..., None], *arguments: Any) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(what, *arguments)
        except RuntimeError:  # the loop is closed: nobody is left to tell
            with self._changed:
                self._closing = True

    def _tell_assigned(self, partitions: list[Assigned]) -> None:
        assert self._listener is not None
        self._tell(self._listener.assigned, partitions)

    def _tell_lost(self, partitions: list[TopicPartition]) -> None:
        assert self._listener is not None
        self._tell(self._listener.lost, partitions)

    def _tell_removed(self, partition: TopicPartition, start: int) -> None:
        assert self._listener is not None
        self._tell(self._listener.removed, partition, start)

    def _tell_committed(self, positions: Sequence[Position], error: str | None) -> None:
        assert self._listener is not None
        self._tell(self._listener.committed, positions, error)

    def _tell_failed(self, message: str, fatal: bool) -> None:
        assert self._listener is not None
        listener = self._listener
        self._tell(lambda: listener.failed(message, fatal=fatal))

    def _deliver(self, batch: list[Record]) -> None:
        assert self._listener is not None
        try:
            if not self._broken:  # else it was under way already
                self._listener.records(batch)
        except Exception as error:
            self._broken = True
            # The batch may be half taken in. A later record must not carry the frontier past it: stop here.
            log.exception("taking records in failed; nothing more is read, and what was not committed comes again")
            with self._changed:
                self._closing = True
            self._listener.failed(f"taking records in failed: {error}", fatal=True)
        finally:
            with self._changed:
                self._batches_out -= 1
                self._changed.notify_all()

    # --- the polling thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            protocol = self._find_protocol()
            while not self._closing:
                verdict = self._member(protocol)
                if verdict is None:
                    break
                protocol = verdict.protocol or protocol
                self._wait(verdict.wait_seconds)
        except Exception as error:
            log.exception("the Kafka consumer broke; what was not committed comes again after a restart")
            self._tell_failed(f"the Kafka consumer broke: {error}", True)
        finally:
            self._commits.close("the consumer is closed")
            self._assignment.topics.close()
            self._tell(self._ended.set)

    def _wait(self, seconds: float) -> None:
        self._pulse.beat()
        with self._changed:
            self._changed.wait_for(lambda: self._closing, seconds)

    def _find_protocol(self) -> str:
        """Asks the brokers what they offer, and which topics they have; with none in reach it goes on asking."""
        while not self._closing:
            self._pulse.beat()
            try:
                cluster = probe(self._bootstrap_servers, self._properties, PROBE_SECONDS)
            except StartFailed as error:
                self._notices.say("unreachable", f"{error}. Nothing is read; trying again")
                self._wait(PROBE_AGAIN_SECONDS)
                continue
            missing = cluster.missing(*self._topics)
            hidden = refused(self._bootstrap_servers, self._properties, missing) if cluster.describes else set()
            for topic in missing:  # with KIP-848 nobody else tells
                self._notices.say(*(faults.not_permitted if topic in hidden else faults.no_such_topic)(topic))
            self._assignment.topics.note_partitions(cluster.topics)
            if cluster.describes:
                self._assignment.topics.connect(self._bootstrap_servers, self._properties)
            offered = CONSUMER if cluster.consumer_protocol else CLASSIC
            return str(self._properties.get("group.protocol", offered)).lower()
        return CLASSIC

    def _member(self, protocol: str) -> faults.Verdict | None:
        """One life in the group. None when closed in order, else why and how to begin the next one."""
        self.protocol = protocol
        self.session_seconds = session_seconds(self._bootstrap_servers, self._properties, self._group_id, protocol)
        config = for_source(self._bootstrap_servers, self._group_id, self._properties, protocol)
        config["error_cb"] = self._on_error
        config["on_commit"] = self._commits.answered
        consumer = Consumer(config, logger=LibrdkafkaLog())
        self._verdict = None
        self._joined = False
        self._ask_member_at = time.monotonic() + MEMBER_SECONDS
        log.info("joining the consumer group", group=self._group_id, protocol=protocol, topics=self._topics)
        try:
            consumer.subscribe(
                self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
            )
            while not self._closing and self._verdict is None:
                self._turn(consumer)
            if self._verdict is None:
                # Before close(), which ends the heartbeats: a drain that outlasts the session would be refused its last
                # commit, and others would have the partitions while calls are under way.
                self._hand_over(consumer, list(self._assignment.epochs))
        finally:
            consumer.close()
            self._on_lost(consumer, [KafkaPartition(*tp) for tp in self._assignment.epochs])  # none, unless it broke
            self._assignment.held = False
            self._full_since = None
        return None if self._closing else self._verdict

    def _turn(self, consumer: Consumer) -> None:
        """One poll: carries out orders, then brings at most one batch to the loop."""
        self._pulse.beat()
        self._carry_out_orders(consumer)
        self._commits.send_next(consumer)
        self._assignment.find_positions(consumer)
        self._assignment.look_around(consumer)
        if not self._joined and time.monotonic() >= self._ask_member_at:
            self._ask_whether_joined(consumer)
        if self._loop_is_behind(consumer):
            return
        now = time.monotonic()
        if not self._commits.idle:
            self._busy_until = now + IDLE_AFTER_SECONDS
        first = consumer.poll(BUSY_POLL_SECONDS if now < self._busy_until else IDLE_POLL_SECONDS)
        if first is None:
            return
        self._busy_until = time.monotonic() + IDLE_AFTER_SECONDS
        # poll() answers as soon as there is one record; what has come with it is taken without waiting. (consume(n, t)
        # alone would wait out its timeout for a full batch.) `first` is kept where a rebalance in between finds it.
        self._in_hand.append(first)
        more = consumer.consume(self._batch_records - 1, 0)
        self._in_hand.extend(more)
        self._send_in_hand()

    def _ask_whether_joined(self, consumer: Consumer) -> None:
        """In a group with more members than partitions somebody has none, and is in order all the same."""
        if is_member(self._bootstrap_servers, self._properties, self._group_id, consumer.memberid() or ""):
            self._joined = True
            self._tell_assigned([])
        self._ask_member_at = time.monotonic() + MEMBER_SECONDS

    def _loop_is_behind(self, consumer: Consumer) -> bool:
        """Holds back while the loop has not taken its batches; True if this turn must not fetch."""
        assignment = self._assignment
        with self._changed:
            full = self._batches_out >= BATCHES_OUT_MAX or (assignment.held and self._batches_out > 0)
            if full and not assignment.held:
                # Most often this is over in a moment, and the prefetch need not be thrown away.
                self._changed.wait(IDLE_POLL_SECONDS)
        now = time.monotonic()
        if not full:
            self._full_since = None
            if assignment.held:
                assignment.release(consumer)
            return False
        if assignment.held:
            if (message := consumer.poll(IDLE_POLL_SECONDS)) is not None:
                self._in_hand.append(message)  # an error: records do not come from paused partitions
                self._send_in_hand()
        elif self._full_since is None:
            self._full_since = now
        elif now - self._full_since > HOLD_AFTER_SECONDS:
            log.warning("the event loop is behind; fetching stops until it has caught up", batches=self._batches_out)
            assignment.hold(consumer)
        return True

    def _carry_out_orders(self, consumer: Consumer) -> None:
        while True:
            with self._changed:
                if not self._orders:
                    return
                order, partitions = self._orders.popleft()
            order(consumer, partitions)

    def _send_in_hand(self) -> None:
        messages, self._in_hand = self._in_hand, []
        batch: list[Record] = []
        epochs = self._assignment.epochs
        positions = self._assignment.ends.positions
        for message in messages:
            tp = TopicPartition(message.topic(), message.partition())  # type: ignore[arg-type]
            error = message.error()
            if error is not None:
                if error.code() == KafkaError._PARTITION_EOF:
                    self._assignment.ends.read_to_the_end(tp, message.offset() or 0)
                    continue
                self._send(batch)
                batch = []
                self._on_message_error(tp, message, error)
                continue
            epoch = epochs.get(tp)
            if epoch is None:
                continue  # it went to another owner meanwhile, who reads it again
            offset: int = message.offset()  # type: ignore[assignment]
            positions[tp] = offset + 1
            batch.append(
                Record(
                    tp.topic,
                    tp.partition,
                    offset,
                    message.timestamp()[1],
                    message.key(),
                    message.value(),
                    read_headers(message),
                    epoch,
                )
            )
        self._send(batch)

    def _send(self, batch: list[Record]) -> None:
        if not batch:
            return
        self._notices.clear()
        self._assignment.ages.read(batch)
        with self._changed:
            self._batches_out += 1
        self._tell(self._deliver, batch)

    # --- rebalance: called by librdkafka within poll, consume and close -----------------------------------------------

    def _on_assign(self, consumer: Consumer, given: Sequence[KafkaPartition]) -> None:
        self._send_in_hand()
        self._joined = True
        self._notices.clear("group")
        self._assignment.add(consumer, [TopicPartition(tp.topic, tp.partition) for tp in given])

    def _on_revoke(self, consumer: Consumer, taken: Sequence[KafkaPartition]) -> None:
        partitions = [TopicPartition(tp.topic, tp.partition) for tp in taken]
        self._hand_over(consumer, partitions)
        consumer.incremental_unassign([KafkaPartition(*tp) for tp in partitions])

    def _hand_over(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        """Lets the listener drain and commit; from here on nothing of these partitions is ours."""
        self._send_in_hand()
        told = self._assignment.told(partitions)
        deadline = time.monotonic() + self._revoke_seconds
        if told and not self._drain(consumer, told, deadline):
            self._tell_lost(told)
        # What was asked for before now is still ours to commit.
        self._commits.settle(consumer, deadline)
        self._assignment.forget(partitions)

    def _drain(self, consumer: Consumer, partitions: list[TopicPartition], deadline: float) -> bool:
        """Lets the listener finish on the loop and commits what it asks for; False if it was not done in time."""
        assert self._listener is not None and self._loop is not None
        draining = self._listener.revoked(partitions)
        try:
            done = asyncio.run_coroutine_threadsafe(draining, self._loop)
        except RuntimeError:  # the loop is closed: nobody is left to drain
            draining.close()
            return False
        done.add_done_callback(self._wake)
        while not done.done() and time.monotonic() < deadline:
            self._pulse.beat()
            self._carry_out_orders(consumer)
            self._commits.settle(consumer, deadline)
            with self._changed:
                self._changed.wait_for(
                    lambda: done.done() or self._orders or not self._commits.idle,
                    min(BEAT_SECONDS, max(0.0, deadline - time.monotonic())),
                )
        if not done.done():
            done.cancel()
            log.error(
                "the partitions had to be given up before all calls had their answer; their next owner repeats those",
                partitions=faults.names(partitions),
                seconds=self._revoke_seconds,
            )
            return False
        if done.cancelled() or (error := done.exception()) is not None:
            log.error(
                "draining failed; the partitions are given up, and their next owner repeats what is uncommitted",
                error="cancelled" if done.cancelled() else repr(error),
            )
            return False
        return True

    def _wake(self, _: object) -> None:
        with self._changed:
            self._changed.notify_all()

    def _on_lost(self, _: Consumer, taken: Sequence[KafkaPartition]) -> None:
        self._send_in_hand()
        partitions = [TopicPartition(tp.topic, tp.partition) for tp in taken]
        told = self._assignment.told(partitions)
        self._assignment.forget(partitions)
        if told:
            log.warning(
                "partitions were lost to the group; nothing of them is committed, and their next owner repeats what is "
                "uncommitted",
                partitions=faults.names(told),
            )
            self._tell_lost(told)
        # The partitions are unassigned by confluent-kafka, which does so when a callback has not.

    # --- errors -------------------------------------------------------------------------------------------------------

    def _on_message_error(self, tp: TopicPartition, message: Message, error: KafkaError) -> None:
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError._LOG_TRUNCATION):
            self._assignment.cut_off(tp, message.offset() or 0)
        else:
            self._on_error(error, message.topic())

    def _on_error(self, error: KafkaError, topic: str | None = None) -> None:
        """Both ways in which librdkafka complains lead here, always within a poll."""
        verdict = faults.judge(error, self._bootstrap_servers, topic, self._properties)
        if verdict is None:
            return
        if verdict.ends_membership and self._verdict is None:
            if verdict.protocol and ("group.protocol" in self._properties or self.protocol == verdict.protocol):
                verdict = faults.final(error)
            self._verdict = verdict
        if verdict.fatal:
            with self._changed:
                self._closing = True
            self._tell_failed(verdict.message, True)
        elif verdict.message:
            self._notices.say(verdict.key, verdict.message)
