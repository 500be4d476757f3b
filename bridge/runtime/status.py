"""What the running service looks like, as a snapshot for status, metrics and pages."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from bridge import __version__
from bridge.model import TopicPartition
from bridge.observe.snapshot import (
    BreakerState,
    LaneState,
    PartitionState,
    QuotaState,
    RulesState,
    RuleUse,
    Snapshot,
    Traffic,
    WaitState,
)
from bridge.ports import Clock
from bridge.runtime.delivery import Delivery
from bridge.runtime.engine import Engine

WINDOW_NAMES = {60.0: "minute", 3600.0: "hour"}


def _moment(monotonic_seconds: float | None, ahead: float) -> float | None:
    """Wall seconds; None where nobody knows when: an endpoint's next probe has no time while one is under way."""
    return None if monotonic_seconds is None or math.isinf(monotonic_seconds) else monotonic_seconds + ahead


class Status:
    """Makes snapshots. `state` is for people: starting, joining, member, draining.

    `retention` tells in how many seconds retention reaches a partition's frontier, where that is known.
    """

    def __init__(
        self,
        engine: Engine,
        delivery: Delivery,
        clock: Clock,
        totals: Callable[[], Mapping[str, int]],
        dead_letters: Callable[[], Mapping[str, int]],
        retention: Callable[[TopicPartition, int], float | None] = lambda partition, frontier: None,
        saved: Callable[[], Mapping[str, int]] = dict,
        rules: Callable[[], RulesState | None] = lambda: None,
        dedupe_ids: Callable[[], int] = lambda: 0,
        traffic: Callable[[], Traffic] = Traffic,
        rule_uses: Callable[[], tuple[RuleUse, ...]] = tuple,
    ) -> None:
        self._engine = engine
        self._delivery = delivery
        self._clock = clock
        self._totals = totals
        self._dead_letters = dead_letters
        self._retention = retention
        self._saved = saved
        self._rules = rules
        self._dedupe_ids = dedupe_ids
        self._traffic = traffic
        self._rule_uses = rule_uses
        self._started_wall = clock.wall()
        self.state = "starting"
        self.introduced = True
        """False while the service starts and has not asked for its keys yet."""

    def snapshot(self) -> Snapshot:
        engine, delivery = self._engine, self._delivery
        now, wall = self._clock.now(), self._clock.wall()
        ends = engine.log_ends()
        partitions = []
        for partition in engine.partitions.values():
            frontier = partition.offsets.frontier
            end = ends.get(partition.name)
            partitions.append(
                PartitionState(
                    topic=partition.name.topic,
                    partition=partition.name.partition,
                    epoch=partition.epoch,
                    frontier=-1 if frontier is None else frontier,
                    lag=None if end is None or frontier is None else max(0, end - frontier),
                    window=partition.offsets.window,
                    paused=partition.paused,
                    retention_seconds=None if frontier is None else self._retention(partition.name, frontier),
                    oldest_wait_seconds=partition.stall.seconds(now) if partition.offsets.open_count else None,
                    stalled_seconds=partition.stall.seconds(now) if partition.stall.stalled else None,
                    stalled_because=tuple(engine.stall_reasons(partition)) if partition.stall.stalled else (),
                )
            )
        quota = [
            QuotaState(
                key=key.name,
                window=WINDOW_NAMES.get(window.seconds, f"{window.seconds:g}s"),
                used=window.used,
                limit=window.limit,
                gated_until_wall_seconds=_moment(key.braked_until, wall - now),
            )
            for key in delivery.key_states()
            for window in key.windows
        ]
        member = engine.joined and self.introduced and self.state in ("starting", "joining")
        return Snapshot(
            version=__version__,
            started_at_wall_seconds=self._started_wall,
            taken_at_wall_seconds=wall,
            in_group=engine.joined and self.introduced and self.state != "draining",
            group_state="member" if member else self.state,
            refused_keys=tuple(key.name for key in delivery.key_states() if key.refused),
            partitions=tuple(sorted(partitions, key=lambda each: (each.topic, each.partition))),
            quota=tuple(quota),
            pending=tuple(LaneState(lane, contacts, events) for lane, contacts, events in delivery.pending_by_lane()),
            in_flight=delivery.in_flight,
            waiting_for=tuple(
                WaitState(
                    waiting.reason,
                    waiting.count,
                    waiting.detail,
                    until_wall_seconds=_moment(waiting.until_now_seconds, wall - now),
                )
                for waiting in engine.waiting()
            ),
            breakers=tuple(
                BreakerState(
                    f"{state.endpoint}" if state.key == "default" else f"{state.endpoint} ({state.key})",
                    open=True,
                    detail=f"{state.reason}: {state.message}",
                )
                for state in delivery.held_endpoints()
            ),
            topics=tuple(engine.burial.topics),
            stopped_topics=tuple(engine.burial.stopped_topics()),
            totals=dict(self._totals()),
            calls_saved=dict(self._saved()),
            suppressed_addresses=len(delivery.suppressions) if delivery.suppressions.fresh(now) else None,
            lazy_contacts=delivery.lazy.contacts,
            dedupe_ids=self._dedupe_ids(),
            dead_letters=dict(self._dead_letters()),
            rules=self._rules(),
            traffic=self._traffic(),
            rule_uses=self._rule_uses(),
        )
