"""The status as JSON and as one plain HTML page, from the same facts: a snapshot with contacts masked.

The page has no script: it reloads itself every five seconds, and everything in it can be had from /api/status. Its one
button, of a stopped topic, sends the request that people without a browser send (bridge/web/server.py).
"""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from html import escape
from typing import Any
from urllib.parse import quote

import orjson

from bridge.observe.masking import mask
from bridge.observe.snapshot import Snapshot

Facts = dict[str, Any]

FAVICON = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="3" fill="#2f5d50"/>'
    b'<path d="M2 11q6-9 12 0M5 11V8M11 11V8" stroke="#fff" stroke-width="1.5" fill="none"/></svg>'
)


def facts(snapshot: Snapshot, *, show_contacts: bool = False) -> Facts:
    """The snapshot in plain JSON types; points in time are added as ISO 8601 text beside the Unix seconds."""
    plain = mask(_plain(snapshot), show_contacts=show_contacts)
    unready = snapshot.unready()
    summary: Facts = {
        "ready": unready is None,
        "unready_reason": mask(unready, show_contacts=show_contacts),
        "lag": snapshot.lag,
        "uptime_seconds": round(snapshot.taken_at_wall_seconds - snapshot.started_at_wall_seconds, 3),
        "started_at": _time(snapshot.started_at_wall_seconds),
        "taken_at": _time(snapshot.taken_at_wall_seconds),
    }
    return {**summary, **plain}


def _plain(value: Any) -> Any:
    # Not dataclasses.asdict: it copies mappings through their constructor, and would make a Counter count its pairs.
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def as_json(facts: Facts) -> bytes:
    return orjson.dumps(facts, default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS)


def as_html(facts: Facts) -> str:
    """One page for a person: what is wrong first, then what it waits for, then the figures."""
    verdict = "Ready" if facts["ready"] else f"Not ready: {facts['unready_reason']}"
    lag = "not known yet" if facts["lag"] is None else facts["lag"]
    head = [
        ("Group", facts["group_state"]),
        ("Lag", lag),
        ("Calls in flight", facts["in_flight"]),
        ("Running for", _duration(facts["uptime_seconds"])),
        ("Version", facts["version"]),
        ("Rules", _rules(facts["rules"])),
        ("As of", facts["taken_at"]),
    ]
    now = facts["taken_at_wall_seconds"]
    parts = [
        f'<p class="{"good" if facts["ready"] else "bad"}" role="status">{_text(verdict)}</p>',
        "<dl>" + "".join(f"<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>" for name, value in head) + "</dl>",
        _table(
            "Waiting for",
            ("reason", "work", "since", "detail"),
            [(w["reason"], w["count"], _ago(w["since_wall_seconds"], now), w["detail"]) for w in facts["waiting_for"]],
            "Nothing waits.",
        ),
        _stopped(facts["stopped_topics"]),
        _refused(facts["rules"]),
        _table("Events finished", ("outcome", "events"), sorted(facts["totals"].items()), "None yet."),
        _table("Dead letters", ("kind", "letters"), sorted(facts["dead_letters"].items()), "None."),
        _table(
            "Quota",
            ("key", "window", "used", "limit", "held back for"),
            [
                (q["key"], q["window"], q["used"], q["limit"], _ahead(q["gated_until_wall_seconds"], now))
                for q in facts["quota"]
            ],
            "No call has been made yet.",
        ),
        _table(
            "Pending",
            ("lane", "contacts", "events"),
            [(p["lane"], p["contacts"], p["events"]) for p in facts["pending"]],
            "Nothing is pending.",
        ),
        _table(
            "Breakers",
            ("endpoint", "state", "since", "detail"),
            [
                (b["endpoint"], "open" if b["open"] else "closed", _ago(b["since_wall_seconds"], now), b["detail"])
                for b in facts["breakers"]
            ],
            "No endpoint has failed.",
        ),
        _table(
            "Partitions",
            ("topic", "partition", "frontier", "lag", "window", "paused", "oldest waits", "retention in", "epoch"),
            [
                (
                    p["topic"],
                    p["partition"],
                    p["frontier"],
                    "?" if p["lag"] is None else p["lag"],
                    p["window"],
                    "paused" if p["paused"] else "",
                    "" if p["oldest_wait_seconds"] is None else _duration(p["oldest_wait_seconds"]),
                    "" if p["retention_seconds"] is None else _duration(p["retention_seconds"]),
                    p["epoch"],
                )
                for p in facts["partitions"]
            ],
            "This instance owns no partition.",
        ),
    ]
    return _PAGE.replace("{body}", "\n".join(parts))


def _rules(rules: Facts | None) -> str:
    if rules is None:
        return "none yet"
    handlers = f" and {rules['handlers']} handlers" if rules["handlers"] else ""
    return f"{rules['version']}: {rules['rules']} rules{handlers}, since {_time(rules['loaded_at_wall_seconds'])}"


def _refused(rules: Facts | None) -> str:
    if rules is None or not rules["problem"]:
        return ""
    return (
        '<section><h2>Rules not reloaded</h2><p class="bad">The rules files hold a mistake: the rules of before stay '
        f"in force: {_text(rules['problem'])}</p></section>"
    )


def _stopped(topics: list[str]) -> str:
    if not topics:
        return ""
    rows = "".join(
        f"<tr><td>{_text(topic)}</td><td>too many of its last events were dead-lettered</td>"
        f'<td><form method="post" action="/api/topics/{quote(topic, safe="")}/resume">'
        f'<button aria-label="Resume topic {_text(topic)}">Resume</button></form></td></tr>'
        for topic in topics
    )
    return f"<section><h2>Stopped topics</h2><table><tbody>{rows}</tbody></table></section>"


def _table(title: str, columns: tuple[str, ...], rows: list[tuple[Any, ...]], empty: str) -> str:
    if not rows:
        return f"<section><h2>{_text(title)}</h2><p>{_text(empty)}</p></section>"
    head = "".join(f'<th scope="col">{_text(column)}</th>' for column in columns)
    body = "".join("<tr>" + "".join(_cell(value) for value in row) + "</tr>" for row in rows)
    return (
        f"<section><h2>{_text(title)}</h2><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></section>"
    )


def _cell(value: Any) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"<td{' class=number' if number else ''}>{_text(value)}</td>"


def _text(value: Any) -> str:
    return escape(f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value))


def _time(wall_seconds: float) -> str:
    return datetime.fromtimestamp(wall_seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _duration(seconds: float) -> str:
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def _ago(since: float | None, now: float) -> str:
    return "" if since is None else f"{_duration(now - since)} ago"


def _ahead(until: float | None, now: float) -> str:
    return "" if until is None or until <= now else _duration(until - now)


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="5">
<title>Meisa bridge</title>
<style>
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 1.5rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; } h2 { font-size: 1rem; margin: 1.5rem 0 .3rem; }
.good, .bad { padding: .5rem .8rem; border-left: .3rem solid #2c8a5b; background: #2c8a5b22; }
.bad { border-color: #c0392b; background: #c0392b22; }
dl { display: flex; flex-wrap: wrap; gap: .5rem 2rem; margin: 0; }
dt { font-size: .8rem; opacity: .7; } dd { margin: 0; }
section { overflow-x: auto; } table { border-collapse: collapse; }
th, td { text-align: left; padding: .15rem 1rem .15rem 0; border-bottom: 1px solid #8884; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
</style>
</head>
<body>
<h1>Meisa bridge</h1>
{body}
<p>Also: <a href="/api/status">/api/status</a>, <a href="/metrics">/metrics</a>, <a href="/readyz">/readyz</a></p>
</body>
</html>
"""
