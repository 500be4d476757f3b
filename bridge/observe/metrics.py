"""The two meters that count what bridge/observe/catalogue.py lists, and the exposition that is made from it.

Counters and histograms are counted as things happen; gauges are read from a Snapshot when Prometheus asks, so they
cannot drift from what the status page shows. Everything here is called on the event loop's thread only: counters are
plain integers in a dict (a prometheus_client child with its lock costs three times as much, and `finished` runs once
per event).

A counter whose labels are all known beforehand is told as 0 from the start: Prometheus' increase() does not see the
step from no series to a first one, and so would not see the first failure.
"""

from __future__ import annotations

from collections import Counter as Count
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product

from prometheus_client import (
    CollectorRegistry,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bridge.observe import catalogue
from bridge.observe.catalogue import CATALOGUE as CATALOGUE  # for whoever looks for it here
from bridge.observe.catalogue import Definition
from bridge.observe.snapshot import LaneDelay, Snapshot, Traffic

CONTENT_TYPE = "text/plain; version=1.0.0; charset=utf-8; escaping=underscores"
disable_created_metrics()  # type: ignore[no-untyped-call]  # a `_created` beside every histogram would be metrics that nobody documented


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
        self.letter_writes: Count[str] = Count()
        self.replays: Count[str] = Count()
        self.schema_fetches: Count[str] = Count()
        self.trace_spans: Callable[[], Mapping[str, int]] = dict
        """Spans by what became of them; whoever exports them counts."""

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

    def letter_tried(self, result: str) -> None:
        self.letter_writes[result] += 1

    def replayed(self, state: str) -> None:
        self.replays[state] += 1

    def schema_fetched(self, result: str) -> None:
        self.schema_fetches[result] += 1

    def totals(self) -> dict[str, int]:
        """Events finished by outcome, over all topics: what a snapshot carries."""
        return _sum_by(self.finished_events, 1)

    def dead_letters_by_kind(self) -> dict[str, int]:
        return _sum_by(self.dead_letters, 0)

    def traffic(self) -> Traffic:
        """What came in and went out: what a snapshot carries."""
        return Traffic(self.consumed_events.total(), _sum_by(self.calls, 1), self.lane_delays())

    def lane_delays(self) -> tuple[LaneDelay, ...]:
        return tuple(LaneDelay(lane, count, total) for lane, (count, total) in self.delays.items())


def _sum_by(counts: Mapping[tuple[str, str], int], place: int) -> dict[str, int]:
    sums: Count[str] = Count()
    for labels, count in counts.items():
        sums[labels[place]] += count
    return dict(sums)


class Metrics(CountingMeter):
    """The meter of a running bridge, in Prometheus' own format.

    `snapshot` may be set later, as soon as there is something to take one of; until then the gauges are left out.
    `topics` are those that are read: their counters begin at 0.
    """

    def __init__(self, snapshot: Callable[[], Snapshot] | None = None, *, topics: Sequence[str] = ()) -> None:
        super().__init__()
        self.snapshot = snapshot
        self.topics = tuple(topics)
        self.registry = CollectorRegistry()
        self._call_seconds = _histogram(catalogue.CALL_SECONDS, self.registry)
        self._delay_seconds = _histogram(catalogue.DELAY_SECONDS, self.registry)
        self._observe_call: dict[str, Callable[[float], None]] = {}
        self._observe_delay: dict[str, Callable[[float], None]] = {
            lane: self._delay_seconds.labels(lane).observe for lane in catalogue.LANE.values
        }
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

    def lane_delays(self) -> tuple[LaneDelay, ...]:
        """From the histogram: some 50 samples, read a few times a minute."""
        found: dict[str, tuple[dict[str, float], list[tuple[float, int]]]] = {}
        for sample in (sample for family in self._delay_seconds.collect() for sample in family.samples):
            sums, within = found.setdefault(sample.labels["lane"], ({}, []))
            if (bound := sample.labels.get("le")) is None:
                sums[sample.name.removeprefix(f"{catalogue.DELAY_SECONDS.name}_")] = sample.value
            elif bound != "+Inf":  # that is the count
                within.append((float(bound), round(sample.value)))
        return tuple(
            LaneDelay(lane, round(sums["count"]), sums["sum"], tuple(within)) for lane, (sums, within) in found.items()
        )

    def render(self) -> bytes:
        """The exposition of this moment; its content type is CONTENT_TYPE."""
        return generate_latest(self.registry)


def _histogram(definition: Definition, registry: CollectorRegistry) -> Histogram:
    names = definition.label_names
    return Histogram(definition.name, definition.help, names, buckets=definition.buckets, registry=registry)


class _Collector(Collector):
    """Makes counters from the meter's dicts and gauges from a snapshot, at the time of the scrape."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._zeros = {definition: _zeros(definition, metrics.topics) for definition in COUNTERS}

    def describe(self) -> Iterable[Metric]:
        for definition in COUNTERS:
            yield _counter(definition, {})
        for definition in CATALOGUE:
            if definition.type == "gauge":
                yield _gauge(definition, {})

    def collect(self) -> Iterable[Metric]:
        for definition, count in COUNTERS.items():
            yield _counter(definition, {**self._zeros[definition], **count(self._metrics)})
        if self._metrics.snapshot is not None:
            for definition, samples in gauges(self._metrics.snapshot()).items():
                yield _gauge(definition, samples)


Samples = Mapping[tuple[str, ...], float]

COUNTERS: Mapping[Definition, Callable[[CountingMeter], Samples]] = {
    catalogue.CONSUMED: lambda meter: _single(meter.consumed_events),
    catalogue.FINISHED: lambda meter: _pairs(meter.finished_events),
    catalogue.CALLS: lambda meter: _pairs(meter.calls),
    catalogue.SAVED: lambda meter: _single(meter.calls_saved),
    catalogue.COMMITS: lambda meter: _single(meter.commits),
    catalogue.REBALANCES: lambda meter: _single(meter.rebalances),
    catalogue.LOST: lambda meter: _single(meter.lost_records),
    catalogue.DEAD_LETTERS: lambda meter: _pairs(meter.dead_letters),
    catalogue.LETTER_WRITES: lambda meter: _single(meter.letter_writes),
    catalogue.REPLAYS: lambda meter: _single(meter.replays),
    catalogue.RELOADS: lambda meter: _single(meter.reloads),
    catalogue.SCHEMA_FETCHES: lambda meter: _single(meter.schema_fetches),
    catalogue.TRACE_SPANS: lambda meter: _single(meter.trace_spans()),
}
"""Every counter's samples by their labels."""


def gauges(snapshot: Snapshot) -> dict[Definition, Samples]:
    """Every gauge's samples by their labels. What is not known has no sample: a zero would be a claim."""
    places = {(state.topic, str(state.partition)): state for state in snapshot.partitions}
    waiting: Count[tuple[str, ...]] = Count()
    for wait in snapshot.waiting_for:
        waiting[(wait.reason,)] += wait.count  # one reason may hold for several keys and endpoints
    keys = dict.fromkeys([*(window.key for window in snapshot.quota), *snapshot.refused_keys])
    return {
        catalogue.QUOTA_USED: {(window.key, window.window): window.used for window in snapshot.quota},
        catalogue.QUOTA_LIMIT: {(window.key, window.window): window.limit for window in snapshot.quota},
        catalogue.KEY_REFUSED: {(key,): int(key in snapshot.refused_keys) for key in keys},
        catalogue.PENDING_CONTACTS: {(lane.lane,): lane.contacts for lane in snapshot.pending},
        catalogue.PENDING_EVENTS: {(lane.lane,): lane.events for lane in snapshot.pending},
        catalogue.IN_FLIGHT: {(): snapshot.in_flight},
        catalogue.BREAKER_OPEN: {(breaker.endpoint,): int(breaker.open) for breaker in snapshot.breakers},
        catalogue.WAITING_FOR: waiting,
        catalogue.READY: {(): int(snapshot.unready() is None)},
        catalogue.PARTITION_LAG: {place: state.lag for place, state in places.items() if state.lag is not None},
        catalogue.PARTITION_WINDOW: {place: state.window for place, state in places.items()},
        catalogue.PARTITION_FRONTIER: {place: state.frontier for place, state in places.items()},
        catalogue.PARTITION_STANDS: {
            place: state.oldest_wait_seconds for place, state in places.items() if state.oldest_wait_seconds is not None
        },
        catalogue.PARTITION_PAUSED: {place: int(state.paused) for place, state in places.items()},
        catalogue.PARTITION_RETENTION: {
            place: state.retention_seconds for place, state in places.items() if state.retention_seconds is not None
        },
        catalogue.TOPIC_STOPPED: {(topic,): int(topic in snapshot.stopped_topics) for topic in snapshot.topics},
        catalogue.RULES_REFUSED: {} if snapshot.rules is None else {(): int(bool(snapshot.rules.problem))},
        catalogue.RULES_INFO: {} if snapshot.rules is None else {(snapshot.rules.version,): 1},
        catalogue.DEDUPE_IDS: {(): snapshot.dedupe_ids},
        catalogue.LAZY_CONTACTS: {(): snapshot.lazy_contacts},
        catalogue.SUPPRESSION_LIST: {}
        if snapshot.suppressed_addresses is None
        else {(): snapshot.suppressed_addresses},
        catalogue.STARTED: {(): snapshot.started_at_wall_seconds},
        catalogue.INFO: {(snapshot.version,): 1},
    }


def _zeros(definition: Definition, topics: Sequence[str]) -> Samples:
    """0 for every combination of labels, where all are known beforehand."""
    values = [topics if label is catalogue.TOPIC else label.values for label in definition.labels]
    return dict.fromkeys(product(*values), 0)


def _single(counts: Mapping[str, int]) -> Samples:
    return {(label,): count for label, count in counts.items()}


def _pairs(counts: Mapping[tuple[str, str], int]) -> Samples:
    return {labels: count for labels, count in counts.items()}


def _counter(definition: Definition, samples: Samples) -> CounterMetricFamily:
    family = CounterMetricFamily(definition.name, definition.help, labels=definition.label_names)
    for labels, count in samples.items():
        family.add_metric(labels, count)
    return family


def _gauge(definition: Definition, samples: Samples) -> GaugeMetricFamily:
    family = GaugeMetricFamily(definition.name, definition.help, labels=definition.label_names)
    for labels, value in samples.items():
        family.add_metric(labels, value)
    return family
