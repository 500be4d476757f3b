"""The metrics are exactly the interface's, count what happened, and read as Prometheus reads them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from bridge.core.breaker import Reason
from bridge.meisa.endpoints import ENDPOINTS
from bridge.model import Ending
from bridge.observe import catalogue
from bridge.observe.catalogue import WAITING_FOR_REASONS
from bridge.observe.metrics import CATALOGUE, CONTENT_TYPE, COUNTERS, CountingMeter, Metrics, gauges
from bridge.observe.snapshot import (
    BreakerState,
    LaneState,
    PartitionState,
    QuotaState,
    RulesState,
    Snapshot,
    WaitState,
)
from bridge.ports import Meter
from bridge.runtime import engine

INTERFACE = {
    "meisa_bridge_events_consumed_total": ("topic",),
    "meisa_bridge_events_finished_total": ("topic", "outcome"),
    "meisa_bridge_calls_total": ("endpoint", "status"),
    "meisa_bridge_calls_saved_total": ("cause",),
    "meisa_bridge_call_duration_seconds": ("endpoint",),
    "meisa_bridge_event_delay_seconds": ("lane",),
    "meisa_bridge_quota_used": ("key", "window"),
    "meisa_bridge_quota_limit": ("key", "window"),
    "meisa_bridge_pending_contacts": ("lane",),
    "meisa_bridge_pending_events": ("lane",),
    "meisa_bridge_in_flight_calls": (),
    "meisa_bridge_breaker_open": ("endpoint",),
    "meisa_bridge_waiting_for": ("reason",),
    "meisa_bridge_partition_lag": ("topic", "partition"),
    "meisa_bridge_partition_window": ("topic", "partition"),
    "meisa_bridge_partition_frontier": ("topic", "partition"),
    "meisa_bridge_partition_retention_seconds": ("topic", "partition"),
    "meisa_bridge_dead_letters_total": ("kind", "rule"),
    "meisa_bridge_commits_total": ("result",),
    "meisa_bridge_rebalances_total": ("kind",),
    "meisa_bridge_lost_records_total": ("topic",),
    "meisa_bridge_rules_reloads_total": ("result",),
    "meisa_bridge_rules_refused": (),
}
"""What others rely on, the public interface's table first: change it only by adding."""

SNAPSHOT = Snapshot(
    version="0.1.0",
    started_at_wall_seconds=1000.0,
    taken_at_wall_seconds=1060.0,
    in_group=True,
    group_state="member",
    partitions=(
        PartitionState(
            "users", 0, epoch=2, frontier=41, lag=9, window=5, retention_seconds=3600.0, oldest_wait_seconds=75.0
        ),
        PartitionState("users", 1, epoch=2, frontier=7, paused=True),
    ),
    quota=(QuotaState("default", "minute", used=12, limit=60),),
    pending=(LaneState("sync", contacts=3, events=8),),
    in_flight=4,
    waiting_for=(WaitState("quota", 8, "default"), WaitState("quota", 2, "trigger"), WaitState("kafka", 0)),
    topics=("users", "invoices"),
    stopped_topics=("invoices",),
    dedupe_ids=70,
    lazy_contacts=5,
    suppressed_addresses=11,
    breakers=(BreakerState("track", open=True), BreakerState("upsert", open=False)),
    rules=RulesState("4758e090ca3e", rules=3, handlers=0, loaded_at_wall_seconds=1000.0, problem="MB103"),
)


def busy(meter: Meter) -> None:
    meter.consumed("users", 3)
    meter.consumed("users", 2)
    meter.finished("users", "delivered")
    meter.finished("users", "delivered")
    meter.finished("invoices", "dead_lettered")
    meter.called("upsert", "200", 0.05)
    meter.called("upsert", "timeout", 10.0)
    meter.saved("bulk", 19)
    meter.saved("bulk", 2)
    meter.delayed("sync", 0.3)
    meter.dead_letter("rejected", "signup")
    meter.committed("ok")
    meter.rebalanced("assigned")
    meter.lost("users", 4)
    meter.lost("users", 3)
    meter.reloaded("loaded")
    meter.letter_tried("error")
    meter.replayed("replayed")


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """What a scrape reads: sample name and sorted labels → value."""
    families = text_string_to_metric_families(metrics.render().decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_the_catalogue_holds_the_interface() -> None:
    """Every metric that others rely on, with exactly its labels; each name once."""
    names = [definition.name for definition in CATALOGUE]
    assert len(names) == len(set(names))
    assert {each.name: each.label_names for each in CATALOGUE if each.name in INTERFACE} == INTERFACE


def test_metrics_are_made_from_the_whole_catalogue() -> None:
    made = [*COUNTERS, *gauges(SNAPSHOT), catalogue.CALL_SECONDS, catalogue.DELAY_SECONDS]
    assert sorted(definition.name for definition in made) == sorted(definition.name for definition in CATALOGUE)


def test_every_label_says_what_bounds_it() -> None:
    for definition in CATALOGUE:
        assert definition.unit and definition.moves, definition.name
        for label in definition.labels:
            assert label.values or label.bound != "as listed", (definition.name, label.name)
    assert len(ENDPOINTS) == 11, "the bound that the labels tell"


def test_every_reason_to_wait_in_the_code_is_explained() -> None:
    """Read from the code itself: whoever adds a reason adds its meaning."""
    told = set(Reason)
    for path in Path(engine.__file__).parent.glob("*.py"):
        text = path.read_text(encoding="utf-8")
        told |= set(re.findall(r'Waiting\(\s*"(\w+)"', text)) | set(re.findall(r'\(\("(retry)".*\("(linger)"', text))
    told = {reason for each in told for reason in ([each] if isinstance(each, str) else each)}
    assert told == set(WAITING_FOR_REASONS)


def test_what_can_be_known_beforehand_is_told_as_zero_from_the_start() -> None:
    """increase() does not see the step from no series to the first failure."""
    seen = samples(Metrics(topics=["users"]))
    assert seen["meisa_bridge_events_finished_total", (("outcome", "dead_lettered"), ("topic", "users"))] == 0
    assert seen["meisa_bridge_commits_total", (("result", "error"),)] == 0
    assert seen["meisa_bridge_lost_records_total", (("topic", "users"),)] == 0
    assert seen["meisa_bridge_event_delay_seconds_count", (("lane", "bulk"),)] == 0
    counters = {name for name, _ in seen if name.startswith("meisa_bridge_") and name.endswith("_total")}
    later = {"meisa_bridge_calls_total", "meisa_bridge_dead_letters_total"}
    assert counters == {definition.name for definition in COUNTERS} - later


def test_every_metric_is_described_and_named_by_its_type() -> None:
    for definition in CATALOGUE:
        assert definition.help.endswith("."), definition.name
        assert (definition.type == "counter") == definition.name.endswith("_total"), definition.name
        assert (definition.type == "histogram") == bool(definition.buckets), definition.name


def test_a_scrape_shows_every_metric_of_the_catalogue_and_nothing_else_of_ours() -> None:
    metrics = Metrics(lambda: SNAPSHOT)
    busy(metrics)
    families = {family.name: family for family in text_string_to_metric_families(metrics.render().decode())}
    exposed = {name for name in families if name.startswith("meisa_bridge_")}
    assert exposed == {definition.name.removesuffix("_total") for definition in CATALOGUE}
    for definition in CATALOGUE:
        family = families[definition.name.removesuffix("_total")]
        assert family.type == definition.type
        assert family.samples, definition.name
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(definition.label_names), definition.name


def test_what_happened_is_what_a_scrape_reads() -> None:
    metrics = Metrics(lambda: SNAPSHOT)
    busy(metrics)
    seen = samples(metrics)
    assert seen["meisa_bridge_events_consumed_total", (("topic", "users"),)] == 5
    assert seen["meisa_bridge_events_finished_total", (("outcome", "delivered"), ("topic", "users"))] == 2
    assert seen["meisa_bridge_calls_total", (("endpoint", "upsert"), ("status", "timeout"))] == 1
    assert seen["meisa_bridge_calls_saved_total", (("cause", "bulk"),)] == 21
    assert seen["meisa_bridge_call_duration_seconds_count", (("endpoint", "upsert"),)] == 2
    assert seen["meisa_bridge_call_duration_seconds_bucket", (("endpoint", "upsert"), ("le", "0.05"))] == 1
    assert seen["meisa_bridge_event_delay_seconds_sum", (("lane", "sync"),)] == 0.3
    assert seen["meisa_bridge_dead_letters_total", (("kind", "rejected"), ("rule", "signup"))] == 1
    assert seen["meisa_bridge_lost_records_total", (("topic", "users"),)] == 7
    assert seen["meisa_bridge_partition_lag", (("partition", "0"), ("topic", "users"))] == 9
    assert seen["meisa_bridge_quota_used", (("key", "default"), ("window", "minute"))] == 12
    assert seen["meisa_bridge_breaker_open", (("endpoint", "track"),)] == 1
    assert seen["meisa_bridge_breaker_open", (("endpoint", "upsert"),)] == 0
    assert seen["meisa_bridge_in_flight_calls", ()] == 4
    assert seen["meisa_bridge_waiting_for", (("reason", "quota"),)] == 10, "of both keys"
    assert seen["meisa_bridge_waiting_for", (("reason", "kafka"),)] == 0, "there, though nothing is counted"
    assert seen["meisa_bridge_ready", ()] == 1
    assert seen["meisa_bridge_key_refused", (("key", "default"),)] == 0
    assert seen["meisa_bridge_topic_stopped", (("topic", "invoices"),)] == 1
    assert seen["meisa_bridge_topic_stopped", (("topic", "users"),)] == 0
    assert seen["meisa_bridge_partition_paused", (("partition", "1"), ("topic", "users"))] == 1
    assert seen["meisa_bridge_partition_oldest_wait_seconds", (("partition", "0"), ("topic", "users"))] == 75
    assert seen["meisa_bridge_rules_info", (("version", "4758e090ca3e"),)] == 1
    assert seen["meisa_bridge_dead_letter_writes_total", (("result", "error"),)] == 1
    assert seen["meisa_bridge_replays_total", (("state", "replayed"),)] == 1


def test_a_refused_key_is_neither_accepted_nor_ready() -> None:
    seen = samples(Metrics(lambda: replace(SNAPSHOT, refused_keys=("trigger",))))
    assert seen["meisa_bridge_key_refused", (("key", "trigger"),)] == 1
    assert seen["meisa_bridge_key_refused", (("key", "default"),)] == 0
    assert seen["meisa_bridge_ready", ()] == 0


def test_what_is_not_known_is_left_out_rather_than_zero() -> None:
    seen = samples(Metrics(lambda: SNAPSHOT))
    assert ("meisa_bridge_partition_lag", (("partition", "1"), ("topic", "users"))) not in seen
    assert ("meisa_bridge_partition_retention_seconds", (("partition", "1"), ("topic", "users"))) not in seen
    assert seen["meisa_bridge_partition_frontier", (("partition", "1"), ("topic", "users"))] == 7


def test_a_scrape_before_there_is_a_snapshot_still_gives_the_counters() -> None:
    metrics = Metrics()
    busy(metrics)
    seen = samples(metrics)
    assert seen["meisa_bridge_commits_total", (("result", "ok"),)] == 1
    assert not any(name == "meisa_bridge_in_flight_calls" for name, _ in seen)


def test_gauges_are_read_at_the_time_of_the_scrape() -> None:
    now = SNAPSHOT
    metrics = Metrics(lambda: now)
    assert samples(metrics)["meisa_bridge_in_flight_calls", ()] == 4
    now = replace(SNAPSHOT, in_flight=0)
    assert samples(metrics)["meisa_bridge_in_flight_calls", ()] == 0


def test_labels_with_quotes_and_newlines_survive() -> None:
    metrics = Metrics()
    metrics.dead_letter("rule", 'a "rule"\nwith \\ marks')
    assert (
        samples(metrics)["meisa_bridge_dead_letters_total", (("kind", "rule"), ("rule", 'a "rule"\nwith \\ marks'))]
        == 1
    )


def test_two_meters_in_one_process_do_not_share_anything() -> None:
    first, second = Metrics(), Metrics()
    busy(first)
    assert not any(value for (name, _), value in samples(second).items() if name.startswith("meisa_bridge_"))


def test_totals_for_the_snapshot_add_up_over_topics() -> None:
    meter = CountingMeter()
    busy(meter)
    meter.finished("invoices", "delivered")
    assert meter.totals() == {"delivered": 3, "dead_lettered": 1}
    assert meter.dead_letters_by_kind() == {"rejected": 1}
    assert meter.durations == {"upsert": (2, 10.05)}


def test_the_outcomes_are_the_models() -> None:
    assert catalogue.OUTCOME.values == tuple(Ending)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"partitions": ()}, None),
        ({"in_group": False, "group_state": "joining"}, "joining"),
        ({"refused_keys": ("default",)}, "default"),
    ],
)
def test_ready_means_in_the_group_and_the_key_accepted(change: dict[str, object], reason: str | None) -> None:
    """A surplus instance without any partition is ready too."""
    unready = replace(SNAPSHOT, **change).unready()  # type: ignore[arg-type]
    assert unready is None if reason is None else reason in str(unready)


def test_the_lag_as_a_whole_is_unknown_while_any_part_is() -> None:
    assert SNAPSHOT.lag is None
    assert replace(SNAPSHOT, partitions=SNAPSHOT.partitions[:1]).lag == 9


def test_the_content_type_is_the_one_of_the_library() -> None:
    assert CONTENT_TYPE.startswith("text/plain; version=1.0.0")
