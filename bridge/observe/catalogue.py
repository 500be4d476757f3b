"""Every metric of the bridge, once: what it is called, what it counts, and how many series it can make.

bridge/observe/metrics.py makes metrics from this catalogue and from nothing else; docs/metrics.md is written from it,
and alert rules and dashboard are held to it by tests. Names and labels are an interface: change them only by adding.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bridge.model import Ending, Lane, LetterKind

Type = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Label:
    """A label, and what bounds the number of its values."""

    name: str
    bound: str
    values: tuple[str, ...] = ()
    """All values that there can be, where they are known beforehand."""


@dataclass(frozen=True, slots=True)
class Definition:
    """One metric as the interface names it."""

    name: str
    type: Type
    unit: str
    """What a value counts."""
    labels: tuple[Label, ...]
    help: str
    moves: str
    """When it changes."""
    buckets: tuple[float, ...] = ()
    """Upper bounds in the metric's unit; of histograms only."""

    @property
    def label_names(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.labels)

    @property
    def sample_names(self) -> tuple[str, ...]:
        """What Prometheus stores it as."""
        if self.type == "histogram":
            return (f"{self.name}_bucket", f"{self.name}_sum", f"{self.name}_count")
        return (self.name,)


WAITING_FOR_REASONS: Mapping[str, str] = {
    "outage": "an endpoint fails for several contacts; one of its calls is tried now and then",
    "scope_missing": "the API key lacks a scope; one call is tried now and then, and after `delivery.scope_wait` the "
    "rest is dead-lettered",
    "guardrail": "Meisa throttles an endpoint although the quota has room",
    "key_refused": "Meisa refuses the API key; nothing is lost, nothing is dead-lettered",
    "throttled": "a 429 holds the key until its Retry-After is over",
    "quota": "the windows of the quota are used up, or what is not urgent keeps to the pace",
    "quota_share": "no share of the quota is owned here: no partition is",
    "shared_quota": "the Redis that counts the quota cannot be asked",
    "retry": "failed calls that are made again later",
    "linger": "upserts that wait for more, by a rule's `linger`",
    "unknown_contact": "no email is known yet for an id",
    "state": "the state store does not answer",
    "schema": "a schema is fetched from the registry",
    "dead_letters": "dead letters that the broker has not acknowledged yet",
    "dead_letter_cap": "a topic pauses because too many of its events were dead-lettered",
    "commits": "Kafka acknowledges no commit",
    "marks": "triggers wait until a commit tells that they start",
    "progress": "half-done events wait for room in the commit's metadata",
    "recovery": "events from before a restart are read again before their contacts' upserts go on",
    "broken": "records whose path broke in the bridge itself: a bug, and logged",
    "kafka": "the consumer complains",
}
"""Reasons why work waits, and what each means."""

# Meisa answers within tens of milliseconds when well; `timeout` (10 s by default) ends a call.
_CALL_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
# A free quota delivers at once; an exhausted hour's window makes events wait for an hour, a backlog for a day.
_DELAY_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0)

TOPIC = Label("topic", "the topics of `bridge.yaml`")
PARTITION = Label("partition", "the partitions that this instance owns; one that went is told no more")
OUTCOME = Label("outcome", "as listed", tuple(Ending))
ENDPOINT = Label("endpoint", "Meisa's endpoints: eleven")
HELD_ENDPOINT = Label(
    "endpoint", "those held at present: at most eleven for each API key, `trigger (trigger)` for a key's own"
)
STATUS = Label("status", "HTTP statuses that were seen, `unanswered`, `never_sent`")
CAUSE = Label("cause", "as listed", ("merged", "unchanged", "lazy", "bulk", "suppressed"))
LANE = Label("lane", "as listed", tuple(Lane))
KEY = Label("key", "`default`, and the action kinds that have a key of their own: at most seven")
WINDOW = Label("window", "as listed", ("minute", "hour"))
REASON = Label("reason", "as listed", tuple(WAITING_FOR_REASONS))
LETTER_KIND = Label("kind", "as listed", tuple(LetterKind))
RULE = Label("rule", "the names of rules and handlers since the start; empty for what could not be decoded")
COMMIT_RESULT = Label("result", "as listed", ("ok", "error"))
WRITE_RESULT = Label("result", "as listed", ("ok", "error"))
REBALANCE_KIND = Label("kind", "as listed", ("assigned", "revoked", "lost"))
RELOAD_RESULT = Label("result", "as listed", ("loaded", "refused"))
FETCH_RESULT = Label("result", "as listed", ("fetched", "unknown", "unusable", "failed"))
SPAN_RESULT = Label("result", "as listed", ("exported", "failed", "dropped"))
REPLAY_STATE = Label("state", "as listed", ("replayed", "refused_again", "failed"))
VERSION = Label("version", "one at a time")
RULES_VERSION = Label("version", "one at a time: that of the rules in force")

CONSUMED = Definition(
    "meisa_bridge_events_consumed_total",
    "counter",
    "records",
    (TOPIC,),
    "Records taken in from Kafka.",
    "as records come; those read again after a restart count again",
)
FINISHED = Definition(
    "meisa_bridge_events_finished_total",
    "counter",
    "events",
    (TOPIC, OUTCOME),
    "Events finished, by the most serious of what ended their actions.",
    "when the last action of an event has ended",
)
CALLS = Definition(
    "meisa_bridge_calls_total",
    "counter",
    "calls",
    (ENDPOINT, STATUS),
    "Calls to Meisa by HTTP status, or by what failed.",
    "when a call has ended",
)
SAVED = Definition(
    "meisa_bridge_calls_saved_total",
    "counter",
    "calls",
    (CAUSE,),
    "Calls that were not needed, by what saved them: merged (upserts and tags of one contact), unchanged (Meisa has "
    "the values already), lazy (values that rode on another call), bulk (enrollments in one call) or suppressed (the "
    "address is on the suppression list).",
    "when the actions end that needed no call of their own",
)
CALL_SECONDS = Definition(
    "meisa_bridge_call_duration_seconds",
    "histogram",
    "seconds",
    (ENDPOINT,),
    "Seconds from sending a call to its answer.",
    "when a call has ended",
    _CALL_SECONDS,
)
DELAY_SECONDS = Definition(
    "meisa_bridge_event_delay_seconds",
    "histogram",
    "seconds",
    (LANE,),
    "Seconds from a record's timestamp to its delivery.",
    "when an action is delivered: what still waits is not in it",
    _DELAY_SECONDS,
)
QUOTA_USED = Definition(
    "meisa_bridge_quota_used",
    "gauge",
    "calls",
    (KEY, WINDOW),
    "Calls that count against the key's window at present. With `shared: partitions` those of this instance: sum over "
    "instances; with Redis those of all of them: take the maximum.",
    "with each call, and as windows move on",
)
QUOTA_LIMIT = Definition(
    "meisa_bridge_quota_limit",
    "gauge",
    "calls",
    (KEY, WINDOW),
    "Calls that the key's window allows. With `shared: partitions` this instance's share.",
    "with each assignment of partitions",
)
KEY_REFUSED = Definition(
    "meisa_bridge_key_refused",
    "gauge",
    "0 or 1",
    (KEY,),
    "1 while Meisa refuses the API key; its work waits, and goes on by itself.",
    "with a 401, and when the key works again",
)
PENDING_CONTACTS = Definition(
    "meisa_bridge_pending_contacts",
    "gauge",
    "contacts",
    (LANE,),
    "Contacts with unsent work.",
    "as actions are planned and delivered",
)
PENDING_EVENTS = Definition(
    "meisa_bridge_pending_events",
    "gauge",
    "events",
    (LANE,),
    "Events with unsent work, by the lane of the most urgent of it.",
    "as actions are planned and delivered",
)
IN_FLIGHT = Definition(
    "meisa_bridge_in_flight_calls",
    "gauge",
    "calls",
    (),
    "Calls that were sent and not answered yet.",
    "with each call; at most `meisa.max_in_flight`",
)
BREAKER_OPEN = Definition(
    "meisa_bridge_breaker_open",
    "gauge",
    "1",
    (HELD_ENDPOINT,),
    "1 while an endpoint is held back: it keeps failing, lacks a scope, or throttles contacts; absent else.",
    "when an endpoint is held, and when one of its probes succeeds",
)
WAITING_FOR = Definition(
    "meisa_bridge_waiting_for",
    "gauge",
    "actions, records or questions",
    (REASON,),
    "How much waits, by the reason; absent while nothing does. 0 where it waits and a number means nothing "
    "(commits, kafka).",
    "as work begins and ends to wait",
)
READY = Definition(
    "meisa_bridge_ready",
    "gauge",
    "0 or 1",
    (),
    "1 while /readyz says so: in the consumer group, even without partitions, and no API key refused.",
    "as the group is joined and left, and keys are refused and accepted",
)
PARTITION_LAG = Definition(
    "meisa_bridge_partition_lag",
    "gauge",
    "offsets",
    (TOPIC, PARTITION),
    "Offsets from the frontier to the log's end; absent until the end is known.",
    "as records are produced, and as the frontier moves",
)
PARTITION_WINDOW = Definition(
    "meisa_bridge_partition_window",
    "gauge",
    "offsets",
    (TOPIC, PARTITION),
    "Offsets from the frontier to the highest taken in.",
    "as records are taken in, and as the frontier moves; at most about 20,000",
)
PARTITION_FRONTIER = Definition(
    "meisa_bridge_partition_frontier",
    "gauge",
    "offset",
    (TOPIC, PARTITION),
    "The lowest offset not yet finished: what is committed, or about to be. -1 until it is known.",
    "when the event at the frontier has finished",
)
PARTITION_STANDS = Definition(
    "meisa_bridge_partition_oldest_wait_seconds",
    "gauge",
    "seconds",
    (TOPIC, PARTITION),
    "For how long the frontier has stood with events open at or beyond it, looked at every ten seconds; absent where "
    "none is open.",
    "always, while events are open; begins anew when the frontier moves, and with a restart",
)
PARTITION_PAUSED = Definition(
    "meisa_bridge_partition_paused",
    "gauge",
    "0 or 1",
    (TOPIC, PARTITION),
    "1 while no new records of the partition are taken in: it has enough of them, its topic is stopped, or a schema is "
    "fetched.",
    "as intake pauses and resumes",
)
PARTITION_RETENTION = Definition(
    "meisa_bridge_partition_retention_seconds",
    "gauge",
    "seconds",
    (TOPIC, PARTITION),
    "Seconds until the topic's retention.ms lets the broker delete what the frontier stands at; absent where nothing "
    "is open or nothing is ever deleted by age.",
    "always, while the frontier stands; rises as it moves",
)
TOPIC_STOPPED = Definition(
    "meisa_bridge_topic_stopped",
    "gauge",
    "0 or 1",
    (TOPIC,),
    "1 while the topic pauses because too many of its last events were dead-lettered (`dead_letters.stop_at`).",
    "when the cap is reached; when rules are reloaded, the topic is resumed, or the bridge restarts",
)
DEAD_LETTERS = Definition(
    "meisa_bridge_dead_letters_total",
    "counter",
    "letters",
    (LETTER_KIND, RULE),
    "Dead letters written.",
    "when the broker has acknowledged a letter",
)
LETTER_WRITES = Definition(
    "meisa_bridge_dead_letter_writes_total",
    "counter",
    "attempts",
    (WRITE_RESULT,),
    "Attempts to write a dead letter. After an error its offset waits, and it is written again.",
    "when the broker has answered, or has not in time",
)
REPLAYS = Definition(
    "meisa_bridge_replays_total",
    "counter",
    "replays",
    (REPLAY_STATE,),
    "Replays of dead letters that ended: replayed, refused_again (a fresh letter stands for it) or failed (nothing was "
    "sent).",
    "when the end of a replay is acknowledged by the broker",
)
COMMITS = Definition(
    "meisa_bridge_commits_total",
    "counter",
    "commits",
    (COMMIT_RESULT,),
    "Offset commits, by the broker's answer.",
    "when the broker has answered",
)
REBALANCES = Definition(
    "meisa_bridge_rebalances_total",
    "counter",
    "times",
    (REBALANCE_KIND,),
    "Partitions assigned, revoked or lost, by occasion.",
    "as the group is joined and left by members",
)
LOST = Definition(
    "meisa_bridge_lost_records_total",
    "counter",
    "offsets",
    (TOPIC,),
    "Offsets that retention or truncation removed from the topic before they were read; gaps among them count too.",
    "when the log is found to begin beyond the frontier",
)
RELOADS = Definition(
    "meisa_bridge_rules_reloads_total",
    "counter",
    "times",
    (RELOAD_RESULT,),
    "Times that the rules were read again: loaded, or refused for a mistake in them.",
    "on SIGHUP, and when files change",
)
RULES_REFUSED = Definition(
    "meisa_bridge_rules_refused",
    "gauge",
    "0 or 1",
    (),
    "1 while the rules files hold a mistake, and the rules of before are in force.",
    "with each reload",
)
RULES_INFO = Definition(
    "meisa_bridge_rules_info",
    "gauge",
    "1",
    (RULES_VERSION,),
    "1, with the version of the rules in force: the same in every instance with the same rules.",
    "with each reload",
)
SCHEMA_FETCHES = Definition(
    "meisa_bridge_schema_fetches_total",
    "counter",
    "questions",
    (FETCH_RESULT,),
    "Questions to a schema registry: fetched, unknown (no such schema), unusable (its records are dead letters) or "
    "failed (it is asked again).",
    "when a record names a schema that is not at hand",
)
TRACE_SPANS = Definition(
    "meisa_bridge_trace_spans_total",
    "counter",
    "spans",
    (SPAN_RESULT,),
    "Spans of sampled traces: exported, failed (the collector did not take them) or dropped (the queue was full, or "
    "too many records were under way). 0 where `tracing` is off.",
    "as spans end, and as the collector answers",
)
DEDUPE_IDS = Definition(
    "meisa_bridge_dedupe_ids",
    "gauge",
    "ids",
    (),
    "Ids of finished events that are remembered to find repeats; 0 where no topic has `dedupe`.",
    "as events finish, and as their time is over; at most 200,000 for each topic",
)
LAZY_CONTACTS = Definition(
    "meisa_bridge_lazy_contacts",
    "gauge",
    "contacts",
    (),
    "Contacts with values of lazy fields that wait for a call; once for each partition that has some.",
    "as such values come, ride on a call, or are sent after `lazy_every`",
)
SUPPRESSION_LIST = Definition(
    "meisa_bridge_suppression_list_addresses",
    "gauge",
    "addresses",
    (),
    "Addresses on Meisa's suppression list; absent while no list is fresh enough to spare a call.",
    "when the list is fetched",
)
STARTED = Definition(
    "meisa_bridge_start_time_seconds",
    "gauge",
    "Unix seconds",
    (),
    "When this instance started.",
    "never",
)
INFO = Definition("meisa_bridge_info", "gauge", "1", (VERSION,), "1, with the version of the bridge.", "never")

CATALOGUE: tuple[Definition, ...] = (
    CONSUMED,
    FINISHED,
    DELAY_SECONDS,
    PENDING_CONTACTS,
    PENDING_EVENTS,
    WAITING_FOR,
    CALLS,
    SAVED,
    CALL_SECONDS,
    IN_FLIGHT,
    BREAKER_OPEN,
    QUOTA_USED,
    QUOTA_LIMIT,
    KEY_REFUSED,
    PARTITION_LAG,
    PARTITION_WINDOW,
    PARTITION_FRONTIER,
    PARTITION_STANDS,
    PARTITION_PAUSED,
    PARTITION_RETENTION,
    COMMITS,
    REBALANCES,
    LOST,
    DEAD_LETTERS,
    LETTER_WRITES,
    REPLAYS,
    TOPIC_STOPPED,
    RELOADS,
    RULES_REFUSED,
    RULES_INFO,
    SCHEMA_FETCHES,
    TRACE_SPANS,
    DEDUPE_IDS,
    LAZY_CONTACTS,
    SUPPRESSION_LIST,
    READY,
    STARTED,
    INFO,
)
