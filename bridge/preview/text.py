"""The report on a terminal: 80 columns, most important first."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

WIDTH: Final = 80
BAR: Final = 24
ROWS: Final = 24
"""Of the course over time."""
TYPES: Final = 15
LETTERS: Final = 12
SAMPLE_LINES: Final = 12
"""Of a call's body."""

CAUSES: Final = {
    "merged": "merged into another upsert of the contact",
    "tags": "tags that rode on an upsert",
    "bulk": "enrollments that shared a bulk call",
    "unchanged": "Meisa had all of it already",
    "lazy": "only lazy fields changed",
    "suppressed": "on the suppression list",
    "expired": "too old when read",
}
BESIDE: Final = {
    "contacts": "to create or find the contact first",
    "repeats": "further attempts",
    "lazy_values": "lazy values that nothing took along",
    "service": "the service's own (ping, suppression list)",
}

Style = Callable[[str], str]


def plain(text: str) -> str:
    return text


def text(report: Mapping[str, Any], *, bold: Style = plain, dim: Style = plain) -> Iterator[str]:
    """The report's lines. `bold` and `dim` dress headings and what is less important."""
    yield from _head(report, bold)
    if not report["events"]["read"]:
        return
    yield from _events(report, bold, dim)
    yield from _calls(report, bold, dim)
    yield from _time(report, bold, dim)
    yield from _course(report, bold, dim)
    yield from _rules(report, bold, dim)
    yield from _letters(report, bold, dim)
    if report["contact"] is None:
        yield from _samples(report, bold, dim)
    else:
        yield from story(report, bold=bold, dim=dim)
    for note in report["notes"]:
        yield ""
        yield from wrapped(f"Note: {note}.", WIDTH, subsequent_indent="      ")


def _head(report: Mapping[str, Any], bold: Style) -> Iterator[str]:
    source = report["source"]
    topics = ", ".join(source["topics"])
    yield bold("Preview: nothing was sent, and nothing committed")
    read = report["events"]["read"]
    if not read:
        yield f"{source['name']} has no events: nothing would be sent"
        return
    where = f"{count(read, 'event')} of {source['name']}" + (f" as {topics}" if source["kind"] == "file" else "")
    where += span(report)
    how = reading(report)
    yield from wrapped(f"{where}, {how}", WIDTH)


def _events(report: Mapping[str, Any], bold: Style, dim: Style) -> Iterator[str]:
    events = report["events"]
    yield ""
    yield bold(f"Events {events['read']:>20,}")
    for name, number in events["outcomes"].items():
        yield f"  {name.replace('_', '-'):<14}{number:>11,} {share(number, events['read']):>7}"
    if events["unfinished"]:
        yield f"  {'unfinished':<14}{events['unfinished']:>11,}"
    types = events["types"]
    if types:
        yield ""
        yield dim(f"  {'event type':<36}{'events':>12}{'with actions':>14}{'actions':>12}")
        for each in types[:TYPES]:
            yield f"  {cut(each['type'], 35):<36}{each['events']:>12,}{each['wanted']:>14,}{each['actions']:>12,}"
        if len(types) > TYPES:
            yield dim(f"  and {len(types) - TYPES} more types")


def _calls(report: Mapping[str, Any], bold: Style, dim: Style) -> Iterator[str]:
    calls, saved, planned = report["calls"], report["saved"], report["actions"]["planned"]
    yield ""
    yield bold(f"Calls {calls['total']:>21,}") + f"   for {count(planned, 'action')}; {saved['share']:.0%} saved"
    for name, number in calls["by_endpoint"].items():
        yield f"  {name:<14}{number:>11,}"
    refused = [each for each in calls["answers"] if each["status"] >= 400]
    if refused:
        told = ", ".join(f"{each['endpoint']} {each['status']}: {each['count']:,}" for each in refused)
        yield from (dim(line) for line in wrapped(f"answers of 400 and above: {told}", WIDTH - 2, **_INDENT))
    if saved["by_cause"]:
        yield ""
        yield bold(f"Saved {saved['total']:>21,}")
        for cause, number in saved["by_cause"].items():
            yield f"  {cause:<14}{number:>11,}   {dim(CAUSES[cause])}"
    if calls["beside"]:
        yield ""
        yield bold(f"Beside actions {sum(calls['beside'].values()):>12,}")
        for cause, number in calls["beside"].items():
            yield f"  {cause.replace('_', ' '):<14}{number:>11,}   {dim(BESIDE[cause])}"


_INDENT: Final[dict[str, Any]] = {"initial_indent": "  ", "subsequent_indent": "    "}


def wrapped(text: str, width: int = WIDTH, **options: Any) -> list[str]:
    return textwrap.wrap(text, width, break_on_hyphens=False, **options)


def _time(report: Mapping[str, Any], bold: Style, dim: Style) -> Iterator[str]:
    time, quota, email = report["time"], report["quota"], report["email"]
    yield ""
    yield bold(f"Time {duration(time['seconds']):>22}") + (
        f"   at {quota['per_minute']:,} calls a minute, {quota['per_hour']:,} an hour"
    )
    if report["reading"] != "at_once":
        yield f"  the last event finished {duration(time['after_last_event_seconds'])} after it had come"
    yield dim(f"  so many calls take that quota {duration(time['at_quota_seconds'])}")
    if email["count"]:
        p50, p99, longest = (duration(email[f"{name}_seconds"]) for name in ("p50", "p99", "longest"))
        yield f"  {count(email['count'], 'email')}: half within {p50}, 99 % within {p99}, the last after {longest}"


def _course(report: Mapping[str, Any], bold: Style, dim: Style) -> Iterator[str]:
    points, step = _fewer(report["course"]["points"], report["course"]["step_seconds"])
    if len(points) < 2:
        return
    most = max(point["calls"] for point in points) or 1
    yield ""
    yield bold("Over time") + dim(f"   steps of {duration(step)}")
    yield dim(f"  {'from':>9}{'events':>10}{'calls':>9}  {'':<{BAR}}{'waiting':>12}")
    for point in points:
        bar = "█" * round(point["calls"] / most * BAR)
        yield (
            f"  {duration(point['at_seconds']):>9}{point['arrived']:>10,}{point['calls']:>9,}  {bar:<{BAR}}"
            f"{point['waiting']:>12,}"
        )


def _fewer(points: Sequence[Mapping[str, Any]], step: int) -> tuple[list[dict[str, Any]], int]:
    """The course in at most ROWS steps."""
    several = -(-len(points) // ROWS)
    found = []
    for start in range(0, len(points), several or 1):
        group = points[start : start + several]
        summed = {name: sum(point[name] for point in group) for name in ("arrived", "calls")}
        found.append({**summed, "at_seconds": group[0]["at_seconds"], "waiting": group[-1]["waiting"]})
    return found, step * several


def _rules(report: Mapping[str, Any], bold: Style, dim: Style) -> Iterator[str]:
    rules = report["rules"]
    never = [each for each in rules if not each["matched"] and each["enabled"]]
    unmet = [each for each in rules if each["matched"] and not each["applied"] and not each["failed"]]
    yield ""
    yield bold("Rules")
    yield dim(f"  {'name':<36}{'matched':>10}{'applied':>10}{'failed':>10}{'actions':>11}")
    for each in sorted(rules, key=lambda each: (-each["matched"], each["name"])):
        if each["matched"]:
            yield (
                f"  {cut(each['name'], 35):<36}{each['matched']:>10,}{each['applied']:>10,}{each['failed']:>10,}"
                f"{each['actions']:>11,}"
            )
    for told, which in (("matched no event", never), ("matched, but a `when` was always false", unmet)):
        if which:
            names = ", ".join(each["name"] for each in which)
            yield from wrapped(f"{told}: {names}", WIDTH - 2, **_INDENT)


def _letters(report: Mapping[str, Any], bold: Style, dim: Style) -> Iterator[str]:
    letters = report["dead_letters"]
    if not letters["total"]:
        return
    yield ""
    yield bold(f"Dead letters {letters['total']:>14,}")
    for each in letters["by"][:LETTERS]:
        rule = f", rule {each['rule']}" if each["rule"] else ""
        yield f"  {each['count']:>7,}  {each['kind']}{rule}"
        for sample in each["samples"][:1]:
            told = f"{place(sample)}: {sample['message']}"
            yield from (dim(line) for line in wrapped(told, WIDTH, **_UNDER))
    if len(letters["by"]) > LETTERS:
        yield dim(f"  and {len(letters['by']) - LETTERS} more kinds; --json tells all")


_UNDER: Final[dict[str, Any]] = {"initial_indent": " " * 11, "subsequent_indent": " " * 13, "max_lines": 3}


def _samples(report: Mapping[str, Any], bold: Style, dim: Style) -> Iterator[str]:
    shown: set[str] = set()
    for sample in report["samples"]:
        if sample["endpoint"] in shown:
            continue
        if not shown:
            yield ""
            yield bold("Sample calls") + dim("   of each endpoint the one that stands for most actions")
        shown.add(sample["endpoint"])
        yield f"  {sample['endpoint']}, answered {sample['status']}, for {count(sample['count'], 'action')}"
        yield from body(sample["body"], "    ")
        for event in sample["events"][:3]:
            origin = f"{event['type']}, {place(event)}"
            yield dim(f"    from {cut(origin, WIDTH - 9)}")
        if len(sample["events"]) > 3:
            yield dim(f"    and {sample['count'] - 3:,} more")


def story(report: Mapping[str, Any], *, bold: Style = plain, dim: Style = plain) -> Iterator[str]:
    """What happened with one contact."""
    contact = report["contact"]
    yield ""
    others = [name for name in contact["names"] if name != f"e:{contact['email'].strip().casefold()}"]
    yield bold(f"The story of {cut(contact['email'], WIDTH - 13)}")
    if others:
        yield from wrapped(f"also known as {', '.join(other.partition(':')[2] for other in others)}", **_INDENT)
    if not contact["events"]:
        yield "  no event makes an action for this contact"
        return
    for event in contact["events"]:
        yield ""
        head = f"  {moment(report, event['read_at_seconds']):>8}  {event['type']}"
        yield f"{bold(head)} {dim(f'({place(event)})')} {event['ending'].replace('_', '-')}"
        for action in event["actions"]:
            calls = ", ".join(f"call {number}" for number in action["calls"])
            what = f"{action['kind']} {action['what']}".rstrip()
            told = ", ".join(part for part in (action["ending"], calls, action["detail"]) if part)
            yield from wrapped(
                f"{what} (rule {action['rule']}): {told}", WIDTH, initial_indent=" " * 12, subsequent_indent=" " * 14
            )
        for failure in event["failures"]:
            yield from wrapped(failure, WIDTH, initial_indent=" " * 12, subsequent_indent=" " * 14)
    yield ""
    since = "since the start" if report["reading"] == "at_once" else "UTC"
    yield bold("  Calls") + dim(f"   when Meisa answered, {since}")
    for call in contact["calls"]:
        merged = f", for {len(call['places'])} events" if len(call["places"]) > 1 else ""
        at = moment(report, call["at_seconds"])
        yield f"  {at:>8}  call {call['number']}: {call['endpoint']} {call['status']}{merged}"
        yield from body(call["body"], " " * 12)
    if contact["left_out"]:
        yield f"  and {contact['left_out']:,} more events, left out"


def body(value: Any, indent: str) -> Iterator[str]:
    """JSON in a few lines."""
    if not value:
        return
    flat = json.dumps(value, ensure_ascii=False)
    lines = wrapped(flat, WIDTH - len(indent))
    for line in lines[:SAMPLE_LINES]:
        yield indent + line
    if len(lines) > SAMPLE_LINES:
        yield f"{indent}… {len(flat):,} characters"


def moment(report: Mapping[str, Any], seconds: float) -> str:
    """When something was, since the start; where events arrive at their times, by the clock (UTC)."""
    if report["reading"] == "at_once":
        return duration(seconds)
    start = datetime.fromisoformat(report["start"])
    return (start + timedelta(seconds=seconds)).strftime("%Y-%m-%d %H:%M:%S")


def place(event: Mapping[str, Any]) -> str:
    """Where an event stands: its line in a file, else its place on a topic."""
    return f"line {event['line']}" if event["line"] else str(event["place"])


def count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def share(number: int, of: int) -> str:
    return f"{number / of:.1%}" if of else ""


def cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def reading(report: Mapping[str, Any]) -> str:
    if report["reading"] == "at_once":
        return f"all of them waiting at the start ({short(report['start'])} UTC)"
    return "arriving as they happened"


def span(report: Mapping[str, Any]) -> str:
    """From when to when the events happened."""
    if report["first_event"] is None:
        return ""
    first, last = short(report["first_event"]), short(report["last_event"])
    return f", of {first} UTC" if first == last else f", of {first} to {last} UTC"


def short(iso: str) -> str:
    return f"{iso[:10]} {iso[11:16]}"


def duration(seconds: float) -> str:
    """At most eight characters: 250 ms, 12 s, 3m 20s, 5h 02m, 12d 04h."""
    if seconds < 1 and seconds:
        return f"{seconds * 1000:.0f} ms"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3_600:
        return f"{whole // 60}m {whole % 60:02}s"
    if whole < 86_400:
        return f"{whole // 3_600}h {whole % 3_600 // 60:02}m"
    return f"{whole // 86_400}d {whole % 86_400 // 3_600:02}h"


def lines(parts: Iterable[str]) -> str:
    return "".join(f"{part.rstrip()}\n" for part in parts)
