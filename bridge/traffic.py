"""What the topics' own records say of the rules, before anything runs: a sample is read beside the group and planned.

Nothing is sent, no group is joined, nothing is committed. Messages name fields, rules and counts, never values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bridge.decoders import fetching_decoders
from bridge.errors import BridgeError, DecodeError, LogFailed, MissingField, Problem, RecordError
from bridge.forecast import DAY_SECONDS, Limits, Outlook, Sample, Traffic, about, outlook, period
from bridge.kafka.sample import Sampler, Slice, fitted, spread
from bridge.kafka.starting import EARLIEST, LATEST, parse_start
from bridge.model import Action, Event, Record, TopicPartition
from bridge.places import Place, nearest
from bridge.scopes import DEFAULT_KEY, key_of, setting_of

if TYPE_CHECKING:
    from bridge.config import Settings
    from bridge.decoders import Decode
    from bridge.rules import Rule, RuleBook

RECORDS = 2_000
"""Of one topic; planned in a tenth of a second. What one event in a hundred is, is seen some twenty times."""
SPOTS = 8
"""Places over the day that they come from: mornings differ from nights."""
ENOUGH = 5
"""Events of a kind: fewer say nothing for certain."""
TYPES_MAX = 1_000
"""Event types that are remembered of a topic."""

Key = tuple[str, str]
"""A rule's name, and a path or message."""


@dataclass(slots=True)
class Seen:
    """What planning a topic's sample brought to light."""

    planned: Sample = field(default_factory=Sample)
    undecoded: Counter[str] = field(default_factory=Counter)
    """Messages of records that are no events."""
    not_read: str = ""
    """Why the records could not be decoded at all here."""
    types: Counter[str] = field(default_factory=Counter)
    unwanted: set[str] = field(default_factory=set)
    """Event types that no rule matches."""
    given: Counter[str] = field(default_factory=Counter)
    """Events that each rule matched, by its name."""
    failed: Counter[Key] = field(default_factory=Counter)
    unmet: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Events for which a condition was false because of a missing field: the rule, where, the path."""


def traffic_problems(settings: Settings, book: RuleBook, retention: Mapping[str, float], wall: float) -> list[Problem]:
    """`retention` is that of topics of which it is known, in seconds; `wall` is now. Blocking."""
    decode = fetching_decoders(settings)
    problems: list[Problem] = []
    topics: list[Traffic] = []
    kafka = settings.kafka
    try:
        with Sampler(kafka.bootstrap_servers, kafka.properties, kafka.group_id) as sampler:
            for name in settings.topics:
                place = settings.place("topics", name)
                try:
                    found = _looked_at(sampler, settings, name, wall)
                except LogFailed as error:
                    message = f"the traffic of {name} could not be looked at: {error}"
                    problems.append(place.problem("MB228", message, severity="notice"))
                    continue
                seen = seen_in(found.runs, decode[name], book)
                problems += _about_records(name, seen, place)
                problems += _about_rules(name, seen, book, rows=settings.topics[name].format == "debezium")
                if not seen.not_read:
                    topics.append(Traffic(name, seen.planned, found.a_day, found.backlog, retention.get(name)))
    except LogFailed as error:  # no consumer could be made
        place = settings.place("kafka", "bootstrap_servers")
        return [place.problem("MB228", f"the topics' traffic could not be looked at: {error}", severity="notice")]
    quota = settings.meisa.quota
    keys = outlook(topics, lambda kind: key_of(settings, kind), Limits(quota.per_minute, quota.per_hour))
    for each in keys:
        problems += _about_quota(each, topics, _quota_place(settings, each.key))
    problems += _about_backlogs(settings, topics, keys)
    return problems


# Reading


@dataclass(frozen=True, slots=True)
class _Found:
    runs: list[list[Record]]
    """Records that followed one another in a partition."""
    a_day: float
    backlog: int


def _looked_at(sampler: Sampler, settings: Settings, topic: str, wall: float) -> _Found:
    whole = sampler.whole(topic)
    day = sampler.since(topic, wall - DAY_SECONDS)
    backlog = _backlog(sampler, whole, settings.topics[topic].start)
    if not sampler.knows_no_times:
        of_a_day = any(each.length for each in day)
        rounds = spread(day if of_a_day else fitted(whole, RECORDS), RECORDS, SPOTS)
        runs = [run for slices in rounds for run in _runs(sampler.read(slices))]
        return _Found(runs, float(sum(each.length for each in day)), backlog)
    records = sampler.read(fitted(whole, RECORDS))
    return _Found(_runs(records), a_day_by_times(records, sum(each.length for each in whole), wall), backlog)


def a_day_by_times(records: Sequence[Record], total: int, wall: float) -> float:
    """Records of the last day, by the timestamps of the last ones: where a broker knows no times (the embedded one)."""
    stamps = [record.timestamp_ms / 1000 for record in records if record.timestamp_ms >= 0]
    recent = sum(stamp >= wall - DAY_SECONDS for stamp in stamps)
    if not stamps or len(records) >= total or min(stamps) < wall - DAY_SECONDS:
        return float(recent)
    return recent * DAY_SECONDS / max(wall - min(stamps), 1.0)


def _backlog(sampler: Sampler, whole: Sequence[Slice], start: str) -> int:
    """Records that the group has to read: beyond what it committed, or from where it would start; 0 where the cluster
    does not tell, as one may not ask everywhere."""
    try:
        committed = sampler.committed(each.partition for each in whole)
    except LogFailed:
        return 0
    beginning: dict[TopicPartition, int] = {}
    without = [each for each in whole if each.partition not in committed]
    if without:
        topic = without[0].partition.topic
        when = parse_start(topic, start)
        if when == LATEST:
            beginning = {each.partition: each.end for each in without}
        elif when != EARLIEST:
            beginning = {each.partition: each.start for each in sampler.since(topic, when / 1000)}
    from_there = {**beginning, **committed}
    return sum(each.end - min(max(from_there.get(each.partition, each.start), each.start), each.end) for each in whole)


def _runs(records: Iterable[Record]) -> list[list[Record]]:
    """By partition: they come as the broker gives them."""
    found: dict[int, list[Record]] = {}
    for record in records:
        found.setdefault(record.partition, []).append(record)
    return list(found.values())


# Planning


def seen_in(runs: Iterable[Sequence[Record]], decode: Decode, book: RuleBook) -> Seen:
    """What decoder and rules make of them."""
    seen = Seen()
    for run in runs:
        planned: list[tuple[float, Sequence[Action]]] = []
        for record in run:
            try:
                event = decode(record)
            except DecodeError as error:
                seen.undecoded[error.message] += 1
                event = None
            except BridgeError as error:
                seen.not_read = str(error)
                return seen
            planned.append((record.timestamp_ms / 1000, _planned(seen, event, book) if event is not None else ()))
        seen.planned.add(planned)
    return seen


def _planned(seen: Seen, event: Event, book: RuleBook) -> Sequence[Action]:
    topic = event.record.topic
    if event.type in seen.types or len(seen.types) < TYPES_MAX:
        seen.types[event.type] += 1
        if not book.wants(topic, event.type):
            seen.unwanted.add(event.type)
    for rule in book.matching(topic, event.type):
        seen.given[rule.name] += 1
        conditions = [("when", rule.when)] + [(f"{each.kind}.when", each.when) for each in rule.actions]
        for where, condition in conditions:
            if condition is not None:
                try:
                    condition.evaluate(event)
                except MissingField as error:
                    seen.unmet[rule.name, where, error.path] += 1
                    break
                except RecordError:
                    break  # told as a failure of the rule
    plan = book.plan(event)
    for failure in plan.failures:
        seen.failed[failure.rule, failure.message] += 1
    return plan.actions


# Telling


def _about_records(topic: str, seen: Seen, place: Place) -> Iterator[Problem]:
    if seen.not_read:
        message = f"the records of {topic} could not be looked at: {seen.not_read}"
        yield place.problem("MB228", message, severity="notice")
    for message, _ in seen.undecoded.most_common(1):
        others = len(seen.undecoded) - 1
        more = f", and {others} other mistakes" if others else ""
        share = _share(seen.undecoded.total(), seen.planned.records)
        yield place.problem(
            "MB226",
            f"{share} sampled records of {topic} are no events: {message}{more}",
            "each becomes a dead letter; check format and envelope of the topic",
            "warning",
        )


def _about_rules(topic: str, seen: Seen, book: RuleBook, *, rows: bool) -> Iterator[Problem]:
    by_name = {rule.name: rule for rule in book.rules}
    for (name, message), count in seen.failed.most_common():
        rule = by_name.get(name)
        place = rule.place() if rule is not None else Place("")
        what = f"rule {name}" if rule is not None else f"handlers: {name}"
        yield place.problem(
            "MB224",
            f"{what} fails for {_share(count, seen.given[name])} sampled events of {topic}: {message}",
            "each becomes a dead letter; guard the field: optional(…), default(…, …), or a when that asks has(…)",
            "warning",
        )
    for (name, where, path), count in seen.unmet.most_common():
        if count < ENOUGH or count < seen.given[name]:
            continue
        hint = "check the field's name against an event of the topic"
        if rows and path.startswith("data.before"):
            hint = "updates have their former values only where the table says so; PostgreSQL: REPLICA IDENTITY FULL"
        place = by_name[name].place("when") if where == "when" else by_name[name].place()
        message = f"rule {name}: {where} is false for all {count} sampled events of {topic}: {path} is missing"
        yield place.problem("MB225", message, hint, "warning" if rows else "notice")
    for rule in book.rules:
        yield from _mistyped(topic, seen, rule)


def _mistyped(topic: str, seen: Seen, rule: Rule) -> Iterator[Problem]:
    """A type that no event has, where one has almost that name and nobody wants it."""
    if not rule.enabled or (rule.topics and topic not in rule.topics):
        return
    for number, pattern in enumerate(rule.match):
        close = nearest(pattern, seen.unwanted) if pattern not in seen.types else ""
        if close and seen.types[close] >= ENOUGH and _alike(pattern, close):
            message = f"rule {rule.name} matches {pattern}, which no sampled event of {topic} is"
            hint = f"did you mean {close}? No rule matches that"
            yield rule.place(f"match[{number}]", "match").problem("MB227", message, hint, "warning")


def _alike(one: str, other: str) -> bool:
    """The same letters but for their case and what stands between words, or one letter off."""
    plain = ["".join(char for char in text.lower() if char.isalnum()) for text in (one, other)]
    if plain[0] == plain[1]:
        return True
    shorter, longer = sorted(plain, key=len)
    if len(longer) - len(shorter) > 1:
        return False
    start = next((at for at, char in enumerate(shorter) if char != longer[at]), len(shorter))
    rest = shorter[start:] if len(shorter) < len(longer) else shorter[start + 1 :]
    return longer[start + 1 :] == rest


def _about_quota(key: Outlook, topics: Sequence[Traffic], place: Place) -> Iterator[Problem]:
    if not key.calls:
        return
    events = ", ".join(f"{each.topic}: {about(each.a_day)} events" for each in topics if each.a_day)
    kinds = ", ".join(f"{kind} {about(count)}" for kind, count in key.by_kind.most_common() if count)
    whose = "" if key.key == DEFAULT_KEY else f" with the key of {setting_of(key.key)}"
    above = key.calls > key.limits.a_day
    unmerged = f", {about(key.unmerged)} before merging" if key.unmerged > key.calls else ""
    yield place.problem(
        "MB222",
        f"these rules plan about {about(key.calls)} calls a day{whose} at the last day's traffic ({events}): {kinds}"
        f"{unmerged}; the quota allows {about(key.limits.a_day)} ({key.limits})",
        "have it raised, make log-ins and the like lazy, filter with when, or merge more: linger" if above else "",
        "warning" if above else "notice",
    )


def _about_backlogs(settings: Settings, topics: Sequence[Traffic], keys: Sequence[Outlook]) -> Iterator[Problem]:
    slowest = max(keys, key=lambda key: key.drain_seconds, default=None)
    if slowest is None or not slowest.drain_seconds:
        return
    for each in topics:
        keeps = each.retention_seconds
        if keeps is None or not each.backlog or slowest.drain_seconds <= keeps:
            continue
        if slowest.drain_seconds == float("inf"):
            takes = f"does not drain: the day's own calls take all of the quota ({slowest.limits})"
        else:
            takes = f"takes {period(slowest.drain_seconds)} at the quota ({slowest.limits}), beside what comes in"
        yield settings.place("topics", each.topic).problem(
            "MB223",
            f"the backlog of {each.topic} ({about(each.backlog)} events) {takes}; the topic keeps records for "
            f"{period(keeps)}, so the oldest are lost before they are read",
            "raise the topic's retention.ms or the quota; or begin later: topics.<name>.start, for a new group",
            "warning",
        )


def _quota_place(settings: Settings, key: str) -> Place:
    return settings.place("meisa", "quota") if key == DEFAULT_KEY else settings.place("meisa", "keys", key)


def _share(count: int, of: int) -> str:
    """`of` is 0 where it is not known how many there were."""
    if not of:
        return str(count)
    return f"all {count}" if count >= of else f"{count} of {of}"
