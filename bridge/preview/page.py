"""The report as one page that needs nothing else: no script, no other host, light or dark as the reader's system is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any, Final

from bridge.preview.text import BESIDE, CAUSES, count, duration, moment, place, reading, share, span

POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
"""Even if something from an event got into the markup it could load and run nothing."""
PLOT_WIDTH, PLOT_HEIGHT = 960, 220
LEFT, RIGHT, TOP, BOTTOM = 46, 46, 12, 26
"""Margins of the plot: calls are told on the left, waiting events on the right."""
RULES_FIRST: Final = 60


def page(report: Mapping[str, Any]) -> str:
    """The whole page. Everything that comes from events and rules is escaped."""
    style = files("bridge.preview").joinpath("page.css").read_text(encoding="utf-8")
    title = f"Preview of {report['source']['name']}"
    parts: list[str] = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>",
        f"<style>\n{style}</style></head><body><main>",
        *_head(report),
        *_tiles(report),
        *_notes(report),
        *_plot(report["course"]),
        *_tables(report),
        *_rules(report["rules"]),
        *_letters(report["dead_letters"]),
        *(_story(report, report["contact"]) if report["contact"] is not None else ()),
        *_samples(report["samples"]),
        "</main></body></html>",
    ]
    return "\n".join(parts) + "\n"


def _head(report: Mapping[str, Any]) -> Iterator[str]:
    source = report["source"]
    where = f"{span(report)}, {reading(report)}"
    yield "<h1>Preview</h1>"
    read = count(report["events"]["read"], "event")
    yield f"<p>{read} of <code>{escape(source['name'])}</code>{where}. Nothing was sent, nothing committed.</p>"


def _tiles(report: Mapping[str, Any]) -> Iterator[str]:
    time, quota, email = report["time"], report["quota"], report["email"]
    letters = report["dead_letters"]["total"]
    p99 = duration(email["p99_seconds"]) if email["count"] else "–"
    tiles = [
        (f"{report['events']['read']:,}", "events", ""),
        (f"{report['calls']['total']:,}", f"calls for {count(report['actions']['planned'], 'action')}", ""),
        (f"{report['saved']['share']:.0%}", "of the actions needed no call", ""),
        (duration(time["seconds"]), f"at {quota['per_minute']:,} a minute, {quota['per_hour']:,} an hour", ""),
        (p99, f"99 % of {count(email['count'], 'email')} within", ""),
        (f"{letters:,}", "dead letter" if letters == 1 else "dead letters", " bad" if letters else ""),
    ]
    yield '<div class="tiles">'
    for number, told, kind in tiles:
        yield f'<div class="tile{kind}"><b>{escape(number)}</b><span class="soft">{escape(told)}</span></div>'
    yield "</div>"


def _notes(report: Mapping[str, Any]) -> Iterator[str]:
    if report["notes"]:
        yield '<ul class="notes">'
        yield from (f"<li>{escape(note)}.</li>" for note in report["notes"])
        yield "</ul>"


def _plot(course: Mapping[str, Any]) -> Iterator[str]:
    points, step = course["points"], course["step_seconds"]
    if len(points) < 2:
        return
    most, queue = (_round_up(max(point[name] for point in points)) for name in ("calls", "waiting"))
    wide, high = PLOT_WIDTH - LEFT - RIGHT, PLOT_HEIGHT - TOP - BOTTOM
    each = wide / len(points)

    def level(value: float, of: int) -> float:
        return TOP + high * (1 - value / of)

    yield f'<h2>Over time <span class="soft">in steps of {duration(step)}</span></h2>'
    yield '<div class="card">'
    yield f'<svg viewBox="0 0 {PLOT_WIDTH} {PLOT_HEIGHT}" role="img" aria-label="Calls and waiting events over time">'
    for part in (0, 0.5, 1):
        y = level(part, 1)
        yield f'<line class="grid" x1="{LEFT}" x2="{PLOT_WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_brief(most * part)}</text>'
        yield f'<text x="{PLOT_WIDTH - RIGHT + 6}" y="{y + 4:.1f}">{_brief(queue * part)}</text>'
    line = []
    for place_of, point in enumerate(points):
        x, y = LEFT + place_of * each, level(point["calls"], most)
        told = (
            f"from {duration(point['at_seconds'])}: {count(point['calls'], 'call')}, "
            f"{count(point['arrived'], 'event')} came, {point['waiting']:,} waiting at its end"
        )
        yield (
            f'<rect class="calls" x="{x + each * 0.1:.1f}" y="{y:.1f}" width="{each * 0.8:.1f}" '
            f'height="{TOP + high - y:.1f}"><title>{told}</title></rect>'
        )
        line.append(f"{x + each:.1f},{level(max(0, point['waiting']), queue):.1f}")
    yield f'<polyline class="waiting" points="{" ".join(line)}"/>'
    for place_of in range(0, len(points), max(1, len(points) // 8)):
        at = duration(points[place_of]["at_seconds"])
        yield f'<text x="{LEFT + place_of * each:.1f}" y="{PLOT_HEIGHT - 8}">{at}</text>'
    yield "</svg>"
    yield (
        '<p class="key soft"><span class="k-calls"></span>calls (left) '
        '<span class="k-waiting"></span>events waiting (right)</p></div>'
    )


def _round_up(value: int) -> int:
    """The next number of an axis: 1, 2 or 5 with zeros behind."""
    unit = 1
    while True:
        for factor in (1, 2, 5):
            if value <= factor * unit:
                return factor * unit
        unit *= 10


def _brief(value: float) -> str:
    if value >= 1_000_000:
        return f"{value / 1_000_000:g}M"
    return f"{value / 1_000:g}k" if value >= 10_000 else f"{value:g}"


def _tables(report: Mapping[str, Any]) -> Iterator[str]:
    events, calls, saved = report["events"], report["calls"], report["saved"]
    yield '<div class="columns">'
    yield from _bars("Events", events["outcomes"], lambda name: name.replace("_", "-"))
    yield from _bars("Calls", calls["by_endpoint"], str)
    yield from _bars("Saved", saved["by_cause"], lambda name: CAUSES.get(name, name))
    yield from _bars("Calls beside the actions'", calls["beside"], lambda name: BESIDE.get(name, name))
    yield "</div>"
    if events["types"]:
        names = ("type", "topic", "events", "wanted", "actions")
        rows = [[each[name] for name in names] for each in events["types"]]
        yield "<h2>Event types</h2>"
        yield from _table(["type", "topic", "events", "with actions", "actions"], rows)


def _bars(title: str, counts: Mapping[str, int], named: Callable[[str], str]) -> Iterator[str]:
    if not counts:
        return
    most = max(counts.values()) or 1
    total = sum(counts.values())
    yield f"<section><h2>{escape(title)}</h2><div class='card'><table>"
    for name, number in counts.items():
        yield (
            f'<tr><td>{escape(named(name))}</td><td class="bars"><div class="bar" '
            f'style="width:{number / most:.1%}"></div></td><td class="n">{number:,}</td>'
            f'<td class="n soft">{share(number, total)}</td></tr>'
        )
    yield "</table></div></section>"


def _table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    rows = list(rows)
    numeric = [all(isinstance(row[place_of], int) for row in rows) for place_of in range(len(heads))]

    def cell(tag: str, value: Any, number: bool) -> str:
        told = f"{value:,}" if isinstance(value, int) else str(value)
        return f'<{tag} class="n">{escape(told)}</{tag}>' if number else f"<{tag}>{escape(told)}</{tag}>"

    yield '<div class="card wide"><table>'
    yield "<tr>" + "".join(cell("th", head, number) for head, number in zip(heads, numeric, strict=True)) + "</tr>"
    for row in rows:
        yield "<tr>" + "".join(cell("td", value, number) for value, number in zip(row, numeric, strict=True)) + "</tr>"
    yield "</table></div>"


def _rules(rules: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    hit = sorted((rule for rule in rules if rule["matched"]), key=lambda rule: (-rule["matched"], rule["name"]))
    never = [rule["name"] for rule in rules if rule["enabled"] and not rule["matched"]]
    yield "<h2>Rules</h2>"
    rows = [[rule["name"], rule["matched"], rule["applied"], rule["failed"], rule["actions"]] for rule in hit]
    if rows:
        yield from _table(["rule", "events matched", "applied", "failed", "actions"], rows[:RULES_FIRST])
    if len(rows) > RULES_FIRST:
        yield f"<details><summary>{len(rows) - RULES_FIRST} more rules</summary>"
        yield from _table(["rule", "events matched", "applied", "failed", "actions"], rows[RULES_FIRST:])
        yield "</details>"
    if never:
        yield f'<p class="soft">No event matched: {escape(", ".join(never))}.</p>'


def _letters(letters: Mapping[str, Any]) -> Iterator[str]:
    if not letters["total"]:
        return
    yield "<h2>Dead letters</h2>"
    for each in letters["by"]:
        rule = f", rule {each['rule']}" if each["rule"] else ""
        yield f"<details><summary>{each['count']:,} {escape(each['kind'] + rule)}</summary><ul>"
        for sample in each["samples"]:
            kind = f" ({sample['type']})" if sample["type"] else ""
            yield f"<li><code>{escape(place(sample))}</code>{escape(kind)}: {escape(sample['message'])}</li>"
        yield "</ul></details>"


def _samples(samples: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if not samples:
        return
    yield '<h2>Sample calls <span class="soft">those of each endpoint that stand for most actions</span></h2>'
    shown: set[str] = set()
    for sample in samples:
        is_open = "" if sample["endpoint"] in shown else " open"
        shown.add(sample["endpoint"])
        told = f"{sample['endpoint']}, answered {sample['status']}, for {count(sample['count'], 'action')}"
        yield f"<details{is_open}><summary>{escape(told)}</summary>"
        yield _json(sample["body"])
        events = [f"{event['type']} ({place(event)})" for event in sample["events"]]
        more = sample["count"] - len(events)
        others = f" and {more:,} more" if more > 0 else ""
        yield f'<p class="soft">from {escape(", ".join(events))}{others}</p></details>'


def _story(report: Mapping[str, Any], contact: Mapping[str, Any]) -> Iterator[str]:
    yield f"<h2>The story of {escape(contact['email'])}</h2>"
    if not contact["events"]:
        yield "<p>No event makes an action for this contact.</p>"
        return
    calls = {call["number"]: call for call in contact["calls"]}
    told: set[int] = set()
    yield '<ol class="story">'
    for event in contact["events"]:
        kind = "bad" if event["ending"] == "dead_lettered" else "good" if event["ending"] == "delivered" else ""
        yield (
            f'<li class="{kind}"><b>{escape(event["type"])}</b> <span class="soft">{escape(place(event))}, read at '
            f"{moment(report, event['read_at_seconds'])}</span> "
            f'<span class="pill">{escape(event["ending"].replace("_", "-"))}</span><ul>'
        )
        for action in event["actions"]:
            what = f"{action['kind']} {action['what']}".strip()
            detail = f": {action['detail']}" if action["detail"] else ""
            carried = "".join(f", call {number}" for number in action["calls"])
            yield (
                f'<li>{escape(what)} <span class="soft">(rule {escape(action["rule"])})</span> '
                f"{escape(action['ending'])}{carried}{escape(detail)}</li>"
            )
        yield from (f"<li>{escape(failure)}</li>" for failure in event["failures"])
        yield "</ul>"
        for number in sorted({number for action in event["actions"] for number in action["calls"]} - told):
            told.add(number)
            yield from _story_call(report, calls.get(number))
        yield "</li>"
    yield "</ol>"
    rest = [call for number, call in calls.items() if number not in told]
    if rest:
        yield '<p class="soft">Values of lazy fields that went by themselves:</p>'
        for call in rest:
            yield from _story_call(report, call)


def _story_call(report: Mapping[str, Any], call: Mapping[str, Any] | None) -> Iterator[str]:
    if call is None:
        return
    merged = f", for {len(call['places'])} events" if len(call["places"]) > 1 else ""
    yield (
        f"<details><summary>call {call['number']}: {escape(call['endpoint'])} at {moment(report, call['at_seconds'])}, "
        f"answered {call['status']}{merged}</summary>"
    )
    yield _json(call["body"])
    yield "</details>"


def _json(value: Any) -> str:
    return f"<pre>{escape(json.dumps(value, indent=2, ensure_ascii=False))}</pre>"
