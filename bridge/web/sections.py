"""The page's sections, each as HTML under its id: what is wrong first, then what it waits for, then the figures.

Made from facts with contacts masked, and from the history, which holds numbers only. The live stream sends those that
changed (bridge/web/live.py), so nothing here may differ without a reason: no order of a set, no fraction of a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from bridge.observe.catalogue import WAITING_FOR_REASONS
from bridge.observe.history import Moment, per_minute
from bridge.web import plots
from bridge.web.html import Markup, ago, code, duration, table, text, time_of, until

Facts = dict[str, Any]

ROWS_MAX = 200
"""Of partitions and rules that the page shows: with more nobody reads it, and it is sent every two seconds."""
RETENTION_SOON_SECONDS = 3_600.0

TITLES = {
    "verdict": "",
    "summary": "",
    "stopped": "",
    "waiting": "Waiting for",
    "flow": "Flow",
    "quota": "Quota",
    "delay": "Delay per lane",
    "letters": "Dead letters",
    "slowest": "Slowest contacts",
    "partitions": "Partitions",
    "rules": "Rules",
    "pending": "Pending",
    "breakers": "Endpoints held back",
}
"""Every section in the order of the page, with its heading; the first three have none."""

LANES = ("transactional", "sync", "bulk")


def sections(facts: Facts, moments: Sequence[Moment]) -> dict[str, str]:
    """Every section's inside, by the keys of TITLES. `moments` ends with the moment of the facts."""
    return {
        "verdict": _verdict(facts),
        "summary": _summary(facts),
        "stopped": _stopped(facts["stopped_topics"]),
        "waiting": _waiting(facts),
        "flow": _flow(facts, moments),
        "quota": _quota(facts, moments),
        "delay": _delay(facts, moments),
        "letters": _letters(facts["dead_letters"]),
        "slowest": _slowest(facts["slowest_contacts"]),
        "partitions": _partitions(facts["partitions"]),
        "rules": _rules(facts),
        "pending": _pending(facts["pending"]),
        "breakers": _breakers(facts),
    }


def _verdict(facts: Facts) -> str:
    """Read aloud whenever it changes, so it holds no times that run."""
    found = _attention(facts)
    if not facts["ready"]:
        state, words = "bad", f"Not ready: {facts['unready_reason']}"
    elif found:
        state, words = "soon", "Ready, but look at this"
    else:
        state, words = "good", "Ready"
    more = "".join(f"<li>{text(line)}</li>" for line in found)
    return f'<div class="verdict {state}"><p>{text(words)}</p>' + (f"<ul>{more}</ul></div>" if more else "</div>")


def _attention(facts: Facts) -> list[str]:
    """What needs somebody, or soon may."""
    found = [
        f"Topic {topic} is stopped: too many of its last events were dead-lettered" for topic in facts["stopped_topics"]
    ]
    rules = facts["rules"]
    if rules is not None and rules["problem"]:
        found.append(f"The rules files hold a mistake: the rules of before stay in force: {rules['problem']}")
    found += [f"Endpoint {each['endpoint']} is held back: {each['detail']}" for each in facts["breakers"]]
    for each in facts["partitions"]:
        place = f"{each['topic']}/{each['partition']}"
        if each["stalled_seconds"] is not None:
            reasons = ", ".join(each["stalled_because"])
            found.append(f"{place} stands still at offset {each['frontier']}, waiting for: {reasons}")
        retention = each["retention_seconds"]
        if retention is not None and retention < RETENTION_SOON_SECONDS:
            found.append(f"{place}: retention soon lets the broker delete what waits at offset {each['frontier']}")
    if len(found) > 10:
        found = [*found[:9], f"and {len(found) - 9} more: see below, and /api/status"]
    return found


def _summary(facts: Facts) -> str:
    rules = facts["rules"]
    rows = [
        ("Group", facts["group_state"]),
        ("Lag", "not known yet" if facts["lag"] is None else facts["lag"]),
        ("Calls in flight", facts["in_flight"]),
        ("Running for", duration(facts["uptime_seconds"])),
        ("Rules", "none yet" if rules is None else rules["version"]),
        ("Version", facts["version"]),
        ("As of", facts["taken_at"]),
    ]
    return "<dl>" + "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in rows) + "</dl>"


def _stopped(topics: list[str]) -> str:
    rows = [
        (
            topic,
            Markup(
                f'<form method="post" action="/api/topics/{quote(topic, safe="")}/resume">'
                f'<button id="resume-{quote(topic, safe="")}" aria-label="Resume topic {text(topic)}">Resume</button>'
                "</form>"
            ),
        )
        for topic in topics
    ]
    return table("stopped", "Stopped topics", ("topic", "action"), rows, "") if rows else ""


def _waiting(facts: Facts) -> str:
    now = facts["taken_at_wall_seconds"]
    rows = [
        (
            each["reason"],
            each["count"],
            WAITING_FOR_REASONS.get(each["reason"], ""),
            until(each["until_wall_seconds"], now) or "not known",
            each["detail"],
        )
        for each in facts["waiting_for"]
    ]
    return table("waiting", "Why work waits", ("reason", "work", "because", "until", "detail"), rows, "Nothing waits.")


def _flow(facts: Facts, moments: Sequence[Moment]) -> str:
    lately = per_minute(moments)

    def row(name: str, total: int, before: int, now: int) -> tuple[Any, ...]:
        return (name, total, "" if lately is None else _rate((now - before) / lately[2]))

    before, now, _ = lately or (moments[-1], moments[-1], 0.0)
    taken, called, top = plots.rates(moments)
    calls = facts["traffic"]["calls"]
    rows = [
        row("events in", facts["traffic"]["consumed"], before.consumed, now.consumed),
        row("calls out", sum(calls.values()), before.calls, now.calls),
        *(
            row(f"events {outcome.replace('_', '-')}", count, before.finished.get(outcome, 0), count)
            for outcome, count in sorted({**_SHOWN_AT_ZERO, **facts["totals"]}.items())
        ),
        *(
            row(f"calls saved: {cause}", count, before.saved.get(cause, 0), count)
            for cause, count in sorted(facts["calls_saved"].items())
        ),
    ]
    answers = [(status, count) for status, count in sorted(calls.items())]
    return (
        plots.plot(
            "Events in and calls out, per minute",
            [plots.Line("events in", "first", taken), plots.Line("calls out", "second", called)],
            ("0", text(round(top / 2, 1) if top < 2 else round(top / 2)), text(round(top))),
        )
        + table("flow", "Events and calls", ("what", "since the start", "per minute"), rows, "None yet.")
        + table("answers", "Calls by Meisa's answer", ("status", "calls"), answers, "No call has been made yet.")
    )


_SHOWN_AT_ZERO = {"delivered": 0, "merged": 0, "unchanged": 0, "lazy": 0, "dead_lettered": 0}


def _rate(value: float) -> Markup:
    shown = f"{value:,.0f}" if value >= 10 or value == 0 else f"{value:.1f}"
    return Markup(f'<span class="number">{shown}</span>')


def _quota(facts: Facts, moments: Sequence[Moment]) -> str:
    now = facts["taken_at_wall_seconds"]
    rows = [
        (
            each["key"],
            each["window"],
            each["used"],
            each["limit"],
            Markup(
                f'<meter min="0" max="{max(1, each["limit"])}" value="{each["used"]}" '
                f'aria-label="used of {text(each["key"])}, {text(each["window"])}"></meter>'
            ),
            until(each["gated_until_wall_seconds"], now),
        )
        for each in facts["quota"]
    ]
    drawn = []
    for key in dict.fromkeys(each["key"] for each in facts["quota"]):
        windows = [each["window"] for each in facts["quota"] if each["key"] == key]
        lines = [
            plots.Line(window, style, plots.uses(moments, key, window))
            for window, style in zip(windows, ("first", "second", "third"), strict=False)
        ]
        drawn.append(plots.plot(f"Share of the windows used, key {key}", lines, ("0 %", "50 %", "100 %")))
    return "".join(drawn) + table(
        "quota",
        "Quota of each key",
        ("key", "window", "used", "limit", "share", "held back until"),
        rows,
        "No share of the quota is owned here.",
    )


def _delay(facts: Facts, moments: Sequence[Moment]) -> str:
    points = plots.delays(moments, LANES)
    lines = [
        plots.Line(lane, style, points[lane]) for lane, style in zip(LANES, ("first", "second", "third"), strict=True)
    ]
    by_lane = {each["lane"]: each for each in facts["traffic"]["delays"]}
    rows = []
    for lane in LANES:
        each = by_lane.get(lane)
        if each is None or not each["count"]:
            rows.append((lane, 0, "", "", ""))
            continue
        rows.append(
            (
                lane,
                each["count"],
                _seconds(each["total_seconds"] / each["count"]),
                _within(each, 0.5),
                _within(each, 0.95),
            )
        )
    return plots.plot(
        "From the record's timestamp to its delivery, on average", lines, [name for _, name in plots.DELAY_TICKS]
    ) + table(
        "delay",
        "Delay since the start",
        ("lane", "actions", "average", "half of them", "95 of 100"),
        rows,
        "",
        "What still waits is not in it.",
    )


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s" if seconds < 10 else duration(seconds)


def _within(delay: Facts, share: float) -> str:
    for bound, count in delay["within"]:
        if count >= share * delay["count"]:
            return f"within {_seconds(bound)}"
    return "over a day"


def _letters(letters: dict[str, int]) -> str:
    rows = [
        (
            kind,
            count,
            Markup(
                f'<a id="letters-{quote(kind, safe="")}" href="/dead-letters?kind={quote(kind, safe="")}" '
                f'aria-label="Look at dead letters of kind {text(kind)}">look, replay</a>'
            ),
            code(f"meisa-bridge dlq list --kind {kind}"),
        )
        for kind, count in sorted(letters.items())
    ]
    return '<p><a id="letters-all" href="/dead-letters">All that need somebody</a></p>' + table(
        "letters",
        "Dead letters since the start, by kind",
        ("kind", "letters", "here", "on the command line"),
        rows,
        "None since the start.",
        "What was replayed or discarded still counts here; the lists tell what is open.",
    )


def _slowest(contacts: list[Facts]) -> str:
    rows = [
        (
            each["contact"],
            duration(each["waited_seconds"]),
            each["action"],
            each["state"],
            f"{each['topic']}/{each['partition']}/{each['offset']}",
        )
        for each in contacts
    ]
    return table(
        "slowest",
        "Contacts whose work has been here longest",
        ("contact", "for", "action", "it is", "record"),
        rows,
        "Nobody waits.",
    )


def _partitions(partitions: list[Facts]) -> str:
    shown = partitions
    note = ""
    if len(partitions) > ROWS_MAX:
        shown = sorted(partitions, key=lambda each: -(each["lag"] or 0))[:ROWS_MAX]
        note = f"The {ROWS_MAX} with the most lag of {len(partitions)}; all are in /api/status."
    rows = [
        (
            f"{each['topic']}/{each['partition']}",
            "?" if each["lag"] is None else each["lag"],
            each["window"],
            each["frontier"],
            "paused" if each["paused"] else "",
            "" if each["oldest_wait_seconds"] is None else duration(each["oldest_wait_seconds"]),
            "" if each["retention_seconds"] is None else duration(each["retention_seconds"]),
            each["epoch"],
        )
        for each in shown
    ]
    return table(
        "partitions",
        "Partitions of this instance",
        ("partition", "lag", "window", "frontier", "intake", "oldest waits", "retention in", "epoch"),
        rows,
        "This instance owns no partition.",
        note,
    )


def _rules(facts: Facts) -> str:
    rules, now = facts["rules"], facts["taken_at_wall_seconds"]
    if rules is None:
        head = ""
    else:
        handlers = f" and {rules['handlers']} handlers" if rules["handlers"] else ""
        head = (
            f"<p>Version {text(rules['version'])}: {rules['rules']} rules{handlers}, in force since "
            f"{time_of(rules['loaded_at_wall_seconds'])}</p>"
        )
        if rules["problem"]:
            head += f'<p class="problem">Not reloaded: {text(rules["problem"])}</p>'
    uses = facts["rule_uses"]
    shown = sorted(uses, key=lambda each: (-each["letters"], -each["events"], each["name"]))[:ROWS_MAX]
    rows = [
        (
            each["name"],
            each["events"],
            each["letters"],
            each["last_error"],
            ago(each["last_error_wall_seconds"], now),
        )
        for each in shown
    ]
    note = f"{ROWS_MAX} of {len(uses)}; all are in /api/status." if len(uses) > ROWS_MAX else ""
    return head + table(
        "rules",
        "Rules and handlers since the start",
        ("rule", "events", "dead letters", "last error", "when"),
        rows,
        "No rules.",
        note,
    )


def _pending(lanes: list[Facts]) -> str:
    rows = [(each["lane"], each["contacts"], each["events"]) for each in lanes]
    return table("pending", "Unsent work by lane", ("lane", "contacts", "events"), rows, "Nothing is pending.")


def _breakers(facts: Facts) -> str:
    now = facts["taken_at_wall_seconds"]
    rows = [
        (
            each["endpoint"],
            "open" if each["open"] else "closed",
            ago(each["since_wall_seconds"], now),
            each["detail"],
        )
        for each in facts["breakers"]
    ]
    return table(
        "breakers", "Endpoints that are held back", ("endpoint", "breaker", "since", "detail"), rows, "None is."
    )
