"""Every metric of the bridge, in one typed catalogue, and the two meters that count them.

Counters and histograms are counted as things happen; gauges are read from a Snapshot when Prometheus asks, so they
cannot drift from what the status page shows. Everything here is called on the event loop's thread only: counters are
plain integers in a dict (a prometheus_client child with its lock costs three times as much, and `finished` runs once
per event).
"""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bridge.observe.snapshot import Snapshot

CONTENT_TYPE = "text/plain; version=1.0.0; charset=utf-8; escaping=underscores"
disable_created_metrics()  # type: ignore[no-untyped-call]  # a `_created` beside every histogram would be metrics that nobody documented

Type = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Definition:
    """One metric as the interface names it."""

    name: str
    type: Type
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()
    """Upper bounds in seconds; of histograms only."""


# Meisa answers within tens of milliseconds when well; `timeout` (10 s by default) ends a call.
_CALL_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
# A free quota delivers at once; an exhausted hour's window makes events wait for an hour, a backlog for a day.
_DELAY_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0)

CONSUMED = Definition("meisa_bridge_events_consumed_total", "counter", ("topic",), "Records taken in from Kafka.")
FINISHED = Definition(
    "meisa_bridge_events_finished_total",
    "counter",
    ("topic", "outcome"),
    "Events finished, by what ended them: delivered, merged, unchanged, lazy, filtered, expired, suppressed, duplicate "
    "or dead_lettered.",
)
CALLS = Definition(
    "meisa_bridge_calls_total", "counter", ("endpoint", "status"), "Calls to Meisa by HTTP status, or by what failed."
)
SAVED = Definition(
    "meisa_bridge_calls_saved_total",
    "counter",
    ("cause",),
    "Calls that were not needed, by what saved them: merged (upserts and tags of one contact), lazy (values that rode "
    "on another call), bulk (enrollments in one call) or suppressed (the address is on the suppression list).",
)
CALL_SECONDS = Definition(
    "meisa_bridge_call_duration_seconds",
    "histogram",
    ("endpoint",),
    "Seconds from sending a call to its answer.",
    _CALL_SECONDS,
)
DELAY_SECONDS = Definition(
    "meisa_bridge_event_delay_seconds",
    "histogram",
    ("lane",),
    "Seconds from a record's timestamp to its delivery.",
    _DELAY_SECONDS,
)
QUOTA_USED = Definition(
    "meisa_bridge_quota_used", "gauge", ("key", "window"), "Calls that count against the key's window at present."
)
QUOTA_LIMIT = Definition("meisa_bridge_quota_limit", "gauge", ("key", "window"), "Calls that the key's window allows.")
PENDING_CONTACTS = Definition("meisa_bridge_pending_contacts", "gauge", ("lane",), "Contacts with unsent work.")
PENDING_EVENTS = Definition("meisa_bridge_pending_events", "gauge", ("lane",), "Events with unsent work.")
IN_FLIGHT = Definition("meisa_bridge_in_flight_calls", "gauge", (), "Calls that were sent and not answered yet.")
BREAKER_OPEN = Definition(
    "meisa_bridge_breaker_open", "gauge", ("endpoint",), "1 while an endpoint is held back because it keeps failing."
)
WAITING_FOR = Definition("meisa_bridge_waiting_for", "gauge", ("reason",), "Work that waits, by the reason.")
PARTITION_LAG = Definition(
    "meisa_bridge_partition_lag", "gauge", ("topic", "partition"), "Offsets from the frontier to the log's end."
)
PARTITION_WINDOW = Definition(
    "meisa_bridge_partition_window",
    "gauge",
    ("topic", "partition"),
    "Offsets from the frontier to the highest taken in.",
)
PARTITION_FRONTIER = Definition(
    "meisa_bridge_partition_frontier", "gauge", ("topic", "partition"), "The lowest offset not yet finished."
)
PARTITION_RETENTION = Definition(
    "meisa_bridge_partition_retention_seconds",
    "gauge",
    ("topic", "partition"),
    "Seconds until the topic's retention.ms lets the broker delete what the frontier stands at; absent where nothing "
    "is open or nothing is ever deleted by age.",
)
DEAD_LETTERS = Definition("meisa_bridge_dead_letters_total", "counter", ("kind", "rule"), "Dead letters written.")
COMMITS = Definition("meisa_bridge_commits_total", "counter", ("result",), "Offset commits, by the broker's answer.")
REBALANCES = Definition(
    "meisa_bridge_rebalances_total", "counter", ("kind",), "Partitions assigned, revoked or lost, by occasion."
)
LOST = Definition(
    "meisa_bridge_lost_records_total",
    "counter",
    ("topic",),
    "Offsets that retention or truncation removed from the topic before they were read; gaps among them count too.",
)

RELOADS = Definition(
    "meisa_bridge_rules_reloads_total",
    "counter",
    ("result",),
    "Times that the rules were read again: loaded, or refused for a mistake in them.",
)
RULES_REFUSED = Definition(
    "meisa_bridge_rules_refused",
    "gauge",
    (),
    "1 while the rules files hold a mistake, and the rules of before are in force.",
)

CATALOGUE: tuple[Definition, ...] = (
    CONSUMED,
    FINISHED,
    CALLS,
    SAVED,
    CALL_SECONDS,
    DELAY_SECONDS,
    QUOTA_USED,
    QUOTA_LIMIT,
    PENDING_CONTACTS,
    PENDING_EVENTS,
    IN_FLIGHT,
    BREAKER_OPEN,
    WAITING_FOR,
    PARTITION_LAG,
    PARTITION_WINDOW,
    PARTITION_FRONTIER,
    PARTITION_RETENTION,
    DEAD_LETTERS,
    COMMITS,
    REBALANCES,
    LOST,
    RELOADS,
    RULES_REFUSED,
)


class CountingMeter:
    """Counts in memory and exposes nothing: what tests look at, and what Metrics builds on.

    Each attribute maps the labels, in the catalogue's order, to a count; `delays` and `durations` keep only how many
    and how long in total, so that a meter stays small for ever.
    """

    def __init__(self) -> None:
        self.consumed_events: Count[str] = Count()
        self.finished_events: Count[tuple[str, str]] = Count()
        self.calls: Count[tuple[str, str]] = Count()
        self.calls_saved: Count[str] = Count()
        self.durations: dict[str, tuple[int, float]] = {}
        self.delays: dict[str, tuple[int, float]] = {}
        self.dead_letters: Count[tuple[str, str]] = Count()
        self.commits: Count[str] = Count()
        self.rebalances: Count[str] = Count()
        self.lost_records: Count[str] = Count()
        self.reloads: Count[str] = Count()

    def consumed(self, topic: str, count: int) -> None:
        self.consumed_events[topic] += count

    def finished(self, topic: str, outcome: str) -> None:
        self.finished_events[topic, outcome] += 1

    def called(self, endpoint: str, status: str, seconds: float) -> None:
        self.calls[endpoint, status] += 1
        times, total = self.durations.get(endpoint, (0, 0.0))
        self.durations[endpoint] = (times + 1, total + seconds)

    def delayed(self, lane: str, seconds: float) -> None:
        times, total = self.delays.get(lane, (0, 0.0))
        self.delays[lane] = (times + 1, total + seconds)

    def saved(self, cause: str, count: int) -> None:
        self.calls_saved[cause] += count

    def dead_letter(self, kind: str, rule: str) -> None:
        self.dead_letters[kind, rule] += 1

    def committed(self, result: str) -> None:
        self.commits[result] += 1

    def rebalanced(self, kind: str) -> None:
        self.rebalances[kind] += 1

    def lost(self, topic: str, count: int) -> None:
        self.lost_records[topic] += count

    def reloaded(self, result: str) -> None:
        self.reloads[result] += 1

    def totals(self) -> dict[str, int]:
        """Events finished by outcome, over all topics: what a snapshot carries."""
        return _sum_by(self.finished_events, 1)

    def dead_letters_by_kind(self) -> dict[str, int]:
        return _sum_by(self.dead_letters, 0)


def _sum_by(counts: Mapping[tuple[str, str], int], place: int) -> dict[str, int]:
    sums: Count[str] = Count()
    for labels, count in counts.items():
        sums[labels[place]] += count
    return dict(sums)


class Metrics(CountingMeter):
    """The meter of a running bridge, in Prometheus' own format.

    `snapshot` may be set later, as soon as there is something to take one of; until then the gauges are left out.
    """

    def __init__(self, snapshot: Callable[[], Snapshot] | None = None) -> None:
        super().__init__()
        self.snapshot = snapshot
        self.registry = CollectorRegistry()
        self._call_seconds = _histogram(CALL_SECONDS, self.registry)
        self._delay_seconds = _histogram(DELAY_SECONDS, self.registry)
        self._observe_call: dict[str, Callable[[float], None]] = {}
        self._observe_delay: dict[str, Callable[[float], None]] = {}
        self.registry.register(_Collector(self))
        ProcessCollector(registry=self.registry)

    def called(self, endpoint: str, status: str, seconds: float) -> None:
        self.calls[endpoint, status] += 1
        observe = self._observe_call.get(endpoint)
        if observe is None:
            observe = self._observe_call[endpoint] = self._call_seconds.labels(endpoint).observe
        observe(seconds)

    def delayed(self, lane: str, seconds: float) -> None:
        observe = self._observe_delay.get(lane)
        if observe is None:
            observe = self._observe_delay[lane] = self._delay_seconds.labels(lane).observe
        observe(seconds)

    def render(self) -> bytes:
        """The exposition of this moment; its content type is CONTENT_TYPE."""
        return generate_latest(self.registry)


def _histogram(definition: Definition, registry: CollectorRegistry) -> Histogram:
    return Histogram(definition.name, definition.help, definition.labels, buckets=definition.buckets, registry=registry)


class _Collector(Collector):
    """Makes counters from the meter's dicts and gauges from a snapshot, at the time of the scrape."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def describe(self) -> Iterable[Metric]:
        for definition in CATALOGUE:
            if definition.type == "counter":
                yield _counter(definition, ())
            elif definition.type == "gauge":
                yield _gauge(definition, {})

    def collect(self) -> Iterable[Metric]:
        metrics = self._metrics
        yield _counter(CONSUMED, _single(metrics.consumed_events))
        yield _counter(FINISHED, metrics.finished_events.items())
        yield _counter(CALLS, metrics.calls.items())
        yield _counter(SAVED, _single(metrics.calls_saved))
        yield _counter(DEAD_LETTERS, metrics.dead_letters.items())
        yield _counter(COMMITS, _single(metrics.commits))
        yield _counter(REBALANCES, _single(metrics.rebalances))
        yield _counter(LOST, _single(metrics.lost_records))
        yield _counter(RELOADS, _single(metrics.reloads))
        if metrics.snapshot is not None:
            for definition, samples in gauges(metrics.snapshot()).items():
                yield _gauge(definition, samples)


Samples = Mapping[tuple[str, ...], float]


def gauges(snapshot: Snapshot) -> dict[Definition, Samples]:
    """Every gauge's samples by their labels. What is not known has no sample: a zero would be a claim."""
    places = {(state.topic, str(state.partition)): state for state in snapshot.partitions}
    return {
        QUOTA_USED: {(window.key, window.window): window.used for window in snapshot.quota},
        QUOTA_LIMIT: {(window.key, window.window): window.limit for window in snapshot.quota},
        PENDING_CONTACTS: {(lane.lane,): lane.contacts for lane in snapshot.pending},
        PENDING_EVENTS: {(lane.lane,): lane.events for lane in snapshot.pending},
        IN_FLIGHT: {(): snapshot.in_flight},
        BREAKER_OPEN: {(breaker.endpoint,): int(breaker.open) for breaker in snapshot.breakers},
        WAITING_FOR: {(wait.reason,): wait.count for wait in snapshot.waiting_for},
        PARTITION_LAG: {place: state.lag for place, state in places.items() if state.lag is not None},
        PARTITION_WINDOW: {place: state.window for place, state in places.items()},
        PARTITION_FRONTIER: {place: state.frontier for place, state in places.items()},
        PARTITION_RETENTION: {
            place: state.retention_seconds for place, state in places.items() if state.retention_seconds is not None
        },
        RULES_REFUSED: {} if snapshot.rules is None else {(): int(bool(snapshot.rules.problem))},
    }


def _single(counts: Mapping[str, int]) -> Iterable[tuple[tuple[str], int]]:
    return (((label,), count) for label, count in counts.items())


def _counter(definition: Definition, samples: Iterable[tuple[tuple[str, ...], int]]) -> CounterMetricFamily:
    family = CounterMetricFamily(definition.name, definition.help, labels=definition.labels)
    for labels, count in samples:
        family.add_metric(labels, count)
    return family


def _gauge(definition: Definition, samples: Samples) -> GaugeMetricFamily:
    family = GaugeMetricFamily(definition.name, definition.help, labels=definition.labels)
    for labels, value in samples.items():
        family.add_metric(labels, value)
    return family
