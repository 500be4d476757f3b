"""The status of a running bridge as lines for a terminal, made from what `/api/status` and `/metrics` say.

Made to be read in the order of its lines: is it well, what needs somebody, what does work wait for, then the figures.
Everything here is pure. A field that an older bridge does not tell counts as absent, one that is unknown is left out.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

Facts = Mapping[str, Any]

WIDTH: Final = 80
PARTITIONS_SHOWN: Final = 20
"""A screen's worth; those that need somebody come first, then the longest."""
WINDOW_SECONDS: Final = {"minute": 60.0, "hour": 3600.0}

MEANINGS: Final = {
    "quota": "the quota is used up for now",
    "quota_share": "no partition is ours, and so no share of the quota",
    "shared_quota": "the shared count of the quota cannot be asked",
    "throttled": "Meisa answered 429",
    "key_refused": "Meisa refuses the API key: goes on when the key works again",
    "scope_missing": "the API key lacks a scope",
    "outage": "the endpoint fails: goes on when a probe succeeds",
    "guardrail": "Meisa limits this sending",
    "retry": "failed calls, to be tried again",
    "linger": "waits for more of the same contact (linger)",
    "unknown_contact": "no email is known for them yet",
    "dead_letters": "letters that the broker has not acknowledged",
    "dead_letter_cap": "too many dead letters: the topic is stopped",
    "schema": "a schema is being fetched from the registry",
    "state": "the state store does not answer",
    "commits": "commits are not acknowledged",
    "recovery": "what was delivered before is read again first",
    "marks": "too many triggers in doubt",
    "progress": "too many half-done events",
    "kafka": "trouble with the connection to Kafka",
    "broken": "a fault of the bridge holds records: please report it",
}
"""What a reason means to a person; one that is not here is shown as it is."""


class Drain(NamedTuple):
    """How long the backlog takes at the quota, at best."""

    seconds: float
    events: int
    calls_per_event: float
    measured: bool
    """By the calls and events since the start; else one call per event is assumed."""
    key: str
    per_hour: float
    """What that key's quota allows: the window that allows least."""


def drain_of(facts: Facts, calls: Mapping[str, float]) -> Drain | None:
    """The time to drain; None where the lag or the quota is not known. `calls` since the start by endpoint.

    Events still to be finished, times the calls that an event took on average since the start, by what the key's
    narrowest window allows; the key that takes longest counts. Events that come meanwhile are not counted, nor is the
    reserve, so it is the least that it takes.
    """
    lag = facts.get("lag")
    rates: dict[str, float] = {}
    for each in facts.get("quota") or ():
        seconds = WINDOW_SECONDS.get(each["window"])
        if seconds and each["limit"] > 0:
            rates[each["key"]] = min(rates.get(each["key"], float("inf")), each["limit"] / seconds)
    if lag is None or not rates:
        return None
    finished = sum((facts.get("totals") or {}).values())
    measured = finished > 0 and sum(calls.values()) > 0
    by_key: dict[str, float] = {}
    for endpoint, count in calls.items():
        kind = endpoint.removeprefix("bulk_")
        key = kind if kind in rates else "default"
        by_key[key] = by_key.get(key, 0.0) + count
    needs = {key: count / finished for key, count in by_key.items() if key in rates} if measured else {}
    if not needs:
        measured, needs = False, {"default" if "default" in rates else next(iter(rates)): 1.0}
    key = max(needs, key=lambda each: needs[each] / rates[each])
    return Drain(lag * needs[key] / rates[key], lag, needs[key], measured, key, rates[key] * 3600)


class Line(NamedTuple):
    text: str
    tone: str = ""
    """good, bad, head, or nothing."""


def lines(facts: Facts, drain: Drain | None, width: int = WIDTH) -> list[Line]:
    """All lines, none wider than `width`."""
    now = facts["taken_at_wall_seconds"]
    ready = facts["ready"]
    made = [Line("READY", "good")] if ready else _wrapped(f"NOT READY: {facts['unready_reason']}", width, "bad")
    made += _wrapped(
        f"{facts.get('group_state', '?')}, up {duration(facts['uptime_seconds'])}, "
        f"version {facts.get('version', '?')}, as of {facts['taken_at']}",
        width,
    )
    for text in alarms(facts, drain):
        made += _wrapped(f"! {text}", width, "bad", indent="  ")
    made += _backlog(facts, drain, width)
    made += _waiting(facts, now, width)
    made += _quota(facts, now, width)
    pending = [each for each in facts.get("pending") or () if each["events"] or each["contacts"]]
    made += _listed(
        "Pending", [f"{p['lane']} {p['events']:,} events of {p['contacts']:,} contacts" for p in pending], width
    )
    dead = facts.get("dead_letters") or {}
    kinds = [f"{kind} {count:,}" for kind, count in sorted(dead.items())] or ["none"]
    made += _listed("Dead letters since the start", kinds, width)
    if dead:
        made.append(Line("  see: meisa-bridge dlq list"))
    finished = sorted((facts.get("totals") or {}).items(), key=lambda each: -each[1])
    made += _listed("Finished since the start", [f"{outcome} {count:,}" for outcome, count in finished], width)
    made += _rules(facts.get("rules"), now, width)
    made += _partitions(facts, width)
    return [Line(_fit(_plain(line.text), width), line.tone) for line in made]


def alarms(facts: Facts, drain: Drain | None) -> list[str]:
    """What needs somebody, or soon may."""
    found = [f"topic {topic} is stopped: too many of its events were dead-lettered; resume it on the dashboard, "
             "or mend the rules" for topic in facts.get("stopped_topics") or ()]  # fmt: skip
    rules = facts.get("rules")
    if rules and rules["problem"]:
        found.append(f"rules were not reloaded, those of before stay in force: {rules['problem']}")
    for each in facts.get("breakers") or ():
        if each["open"]:
            found.append(f"{each['endpoint']} is held: {each['detail']}")
    for each in facts.get("partitions") or ():
        name = f"{each['topic']}/{each['partition']}"
        if each.get("stalled_seconds") is not None:
            why = ", ".join(each.get("stalled_because") or ())
            found.append(
                f"{name} stands still at offset {each['frontier']} for {duration(each['stalled_seconds'])}, "
                f"waiting for: {why}"
            )
        left = each.get("retention_seconds")
        if left is not None and each["lag"] and left < max(3600.0, drain.seconds if drain is not None else 0.0):
            found.append(
                f"{name}: retention deletes offset {each['frontier']} in {duration(left)}: raise the topic's retention"
            )
    return found


def _backlog(facts: Facts, drain: Drain | None, width: int) -> list[Line]:
    partitions = facts.get("partitions") or ()
    owned = f"{len(partitions)} partition{'' if len(partitions) == 1 else 's'}"
    lag = "not known yet" if facts.get("lag") is None else f"{facts['lag']:,} events"
    made = [Line(""), Line(f"Lag {lag} in {owned}; {facts.get('in_flight', 0)} calls in flight", "head")]
    if drain is None:
        made.append(Line("  to drain: not known while the lag or the quota is not"))
    elif not drain.events:
        made.append(Line("  to drain: nothing"))
    else:
        how = "measured since the start" if drain.measured else "assumed: nothing is measured yet"
        made.append(Line(f"  to drain: {duration(drain.seconds)} at best"))
        made += _wrapped(
            f"{drain.events:,} events x {drain.calls_per_event:.2g} calls each ({how}), at {drain.per_hour:,.0f} calls "
            f"an hour (key {drain.key}); new events not counted",
            width,
            indent="  ",
        )
    return made


def _waiting(facts: Facts, now: float, width: int) -> list[Line]:
    waiting = facts.get("waiting_for") or ()
    if not waiting:
        return [Line(""), Line("Waiting for nothing", "head")]
    made = [Line(""), Line("Waiting for", "head")]
    for each in waiting:
        count = f"{each['count']:>7,}" if each["count"] else " " * 7
        until = each.get("until_wall_seconds")
        when = f", until {clock(until)} (in {duration(until - now)})" if until is not None and until > now else ""
        made.append(Line(f"{count}  {each['reason']}: {MEANINGS.get(each['reason'], 'see the log')}{when}"))
        if each["detail"]:
            made += _wrapped(each["detail"], width, indent=" " * 9)
    return made


def _quota(facts: Facts, now: float, width: int) -> list[Line]:
    quota = facts.get("quota") or ()
    if not quota:
        return []
    made = [Line(""), Line("Quota", "head")]
    for each in quota:
        share = min(1.0, each["used"] / each["limit"]) if each["limit"] else 0.0
        bar = ("#" * round(share * 20)).ljust(20, ".")
        held = each.get("gated_until_wall_seconds")
        brake = f"  429: held for {duration(held - now)}" if held is not None and held > now else ""
        of = f"{each['used']:,} of {each['limit']:,}"
        made.append(Line(f"  {_fit(each['key'], 12):<12} {each['window']:<7} [{bar}] {of}{brake}"))
    return made


def _rules(rules: Facts | None, now: float, width: int) -> list[Line]:
    if not rules:
        return []
    handlers = f", {rules['handlers']} handlers" if rules["handlers"] else ""
    loaded = rules["loaded_at_wall_seconds"]
    text = (
        f"Rules {rules['version']}: {rules['rules']} rules{handlers}, loaded {moment(loaded)} "
        f"({duration(now - loaded)} ago)"
    )
    refused = rules.get("refused_at_wall_seconds")
    if rules["problem"] and refused is not None:
        text += f"; a reload was refused {moment(refused)}"
    return [Line(""), *_wrapped(text, width, "head", indent="  ")]


def _partitions(facts: Facts, width: int) -> list[Line]:
    partitions = sorted(
        facts.get("partitions") or (),
        key=lambda p: (
            p.get("stalled_seconds") is None, -(p["lag"] or 0), p["topic"], p["partition"]
        ),
    )  # fmt: skip
    if not partitions:
        return []
    shown = partitions[:PARTITIONS_SHOWN]
    figures = 60
    """Columns that the figures take."""
    name_width = min(max(12, *(len(f"{p['topic']}/{p['partition']}") for p in shown)), max(12, width - figures))
    head = f"{'Partition':<{name_width}} {'lag':>9} {'window':>7} {'frontier':>12} {'oldest':>8} {'retention':>9}"
    made = [Line(""), Line(head, "head")]
    for each in shown:
        name = _middle(f"{each['topic']}/{each['partition']}", name_width)
        lag = "?" if each["lag"] is None else f"{each['lag']:,}"
        frontier = "?" if each["frontier"] < 0 else f"{each['frontier']}"
        state = " stalled" if each.get("stalled_seconds") is not None else " paused" if each["paused"] else ""
        made.append(
            Line(
                f"{name:<{name_width}} {lag:>9} {each['window']:>7,} {frontier:>12} "
                f"{_short(each['oldest_wait_seconds']):>8} {_short(each['retention_seconds']):>9}{state}"
            )
        )
    if len(partitions) > len(shown):
        made.append(Line(f"and {len(partitions) - len(shown)} more (--json tells all)"))
    return made


def _listed(title: str, items: Sequence[str], width: int) -> list[Line]:
    if not items:
        return []
    return [Line(""), Line(title, "head"), *_wrapped(", ".join(items), width, indent="  ")]


def _wrapped(text: str, width: int, tone: str = "", *, indent: str = "") -> list[Line]:
    """The text over as many lines as it takes; `indent` stands before all but an alarm's or a heading's first."""
    first = "" if tone else indent
    return [
        Line(each, tone)
        for each in textwrap.wrap(
            _plain(text), width, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False
        )
    ]


def _plain(text: str) -> str:
    """Without what could steer a terminal: some of the text is what servers and events said."""
    return text if text.isprintable() else "".join(each if each.isprintable() else "?" for each in text)


def _fit(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def _middle(text: str, width: int) -> str:
    """Shortened in its middle: names of topics differ at their ends."""
    if len(text) <= width:
        return text
    keep = width - 3
    return text[: keep - keep // 2] + "..." + text[len(text) - keep // 2 :]


def _short(seconds: float | None) -> str:
    return "" if seconds is None else duration(seconds).replace(" ", "")


def duration(seconds: float) -> str:
    """The two largest units: `3h 12m`."""
    whole = max(0, round(seconds))
    units = (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))
    told = [f"{whole // size % limit}{unit}" for (unit, size), limit in zip(units, (10**9, 24, 60, 60), strict=True)]
    first = next((at for at, (_, size) in enumerate(units) if whole >= size), 3)
    return " ".join(each for each in told[first : first + 2] if first == 3 or not each.startswith("0"))


def clock(wall: float) -> str:
    """`08:55:00Z`."""
    return datetime.fromtimestamp(wall, UTC).strftime("%H:%M:%SZ")


def moment(wall: float) -> str:
    """`2026-11-22 08:55:00Z`."""
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def calls_in(exposition: str) -> dict[str, float]:
    """Calls since the start that events took, by endpoint, from a Prometheus exposition; empty where it tells none.

    What only reads is done now and then, or at the start.
    """
    from bridge.meisa.endpoints import ENDPOINTS

    found: dict[str, float] = {}
    for endpoint, value in _counted(exposition):
        if endpoint not in ENDPOINTS or not ENDPOINTS[endpoint].reads:
            found[endpoint] = found.get(endpoint, 0.0) + value
    return found


def _counted(exposition: str) -> Iterable[tuple[str, float]]:
    for match in re.finditer(
        r'^meisa_bridge_calls_total\{[^}]*?endpoint="(\w+)"[^}]*\} ([0-9.eE+]+)', exposition, re.MULTILINE
    ):
        yield match[1], float(match[2])
