"""What a preview found, as plain values: the shape that `--json` prints, and docs/preview.md describes. Only add."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from bridge.model import LetterKind
from bridge.observe.masking import mask, mask_email
from bridge.preview.rehearsal import Rehearsed
from bridge.preview.story import Story
from bridge.preview.tally import EXTRA, MINUTE, SAVED, Minute, Tally

if TYPE_CHECKING:
    from bridge.config import Settings
    from bridge.rules import RuleBook

VERSION: Final = 1
POINTS_MAX: Final = 96
"""Of the course over time: what a plot of a page's width shows, four days of hours."""
STEPS: Final = (60, 300, 900, 3_600, 6 * 3_600, 86_400, 7 * 86_400, 28 * 86_400, 364 * 86_400)
TYPES_SHOWN: Final = 200
LETTERS_SHOWN: Final = 200

JsonObject = dict[str, Any]


def report(
    settings: Settings,
    book: RuleBook,
    found: Rehearsed,
    *,
    kind: str,
    name: str,
    show_contacts: bool = False,
) -> JsonObject:
    """The report. `kind` and `name` say where the events came from; addresses are masked unless `show_contacts`, but
    for those of the contact whose story was asked for."""
    tally, timeline = found.tally, found.timeline
    wall = timeline.wall_at_start
    quota = settings.meisa.quota

    def clean(value: Any) -> Any:
        return mask(value, show_contacts=show_contacts)

    planned, calls, saved = sum(tally.planned.values()), sum(tally.calls.values()), sum(tally.saved.values())
    times = [each.at for each in timeline.arrivals]
    return {
        "version": VERSION,
        "source": {
            "kind": kind,
            "name": name,
            "topics": sorted({partition.topic for partition in timeline.starts}),
            "partitions": len(timeline.starts),
            "with_time": timeline.timed,
        },
        "reading": "at_once" if timeline.at_once else "as_they_happened",
        "account": "new" if found.new_account else "known",
        "start": iso(wall),
        "first_event": None if timeline.first is None else iso(timeline.first),
        "last_event": None if timeline.last is None else iso(timeline.last),
        "quota": {"per_minute": quota.per_minute, "per_hour": quota.per_hour, "reserve": quota.reserve},
        "events": {
            "read": len(timeline.arrivals),
            "outcomes": _ordered(tally.endings),
            "unfinished": found.unfinished,
            "types": _types(tally),
        },
        "actions": {
            "planned": planned,
            "by_kind": _ordered(tally.planned),
            "outcomes": [
                {"kind": action, "outcome": ending, "count": count}
                for (action, ending), count in sorted(tally.action_endings.items())
            ],
        },
        "calls": {
            "total": calls,
            "by_endpoint": _ordered(tally.calls),
            "answers": [
                {"endpoint": endpoint, "status": status, "count": count}
                for (endpoint, status), count in sorted(tally.answers.items())
            ],
            "beside": {cause: tally.extra[cause] for cause in EXTRA if tally.extra[cause]},
        },
        "saved": {
            "total": saved,
            "share": round(saved / planned, 4) if planned else 0.0,
            "by_cause": {cause: tally.saved[cause] for cause in SAVED if tally.saved[cause]},
        },
        "time": {
            "seconds": round(found.seconds, 3),
            "after_last_event_seconds": round(max(0.0, found.seconds - (max(times, default=wall) - wall)), 3),
            "last_call_seconds": round(tally.last_call, 3),
            "at_quota_seconds": at_quota_seconds(calls, quota.per_minute, quota.per_hour),
        },
        "email": _email(tally),
        "rules": _rules(book, tally),
        "dead_letters": _letters(tally, clean),
        "samples": [
            {
                "endpoint": sample.endpoint,
                "status": sample.status,
                "at_seconds": round(sample.at_seconds, 3),
                "contact": clean(sample.contact),
                "body": clean(sample.body),
                "count": sample.count,
                "events": [clean(event._asdict()) for event in sample.events],
            }
            for endpoint in sorted(tally.samples)
            for sample in tally.samples[endpoint]
        ],
        "course": _course(tally.minutes, found.seconds),
        "contact": None if tally.story is None else _story(tally.story),
        "notes": [mask_email(note) for note in _notes(book, found)],
    }


def at_quota_seconds(calls: int, per_minute: int, per_hour: int) -> int:
    """The least time that so many calls take at the quota, if they never waited for anything else."""
    a_second = min(per_minute / 60, per_hour / 3600)
    return math.ceil(calls / a_second)


def iso(wall: float) -> str:
    text = datetime.fromtimestamp(wall, UTC).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00").removesuffix(".000") + "Z"


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the ascending values that so large a share of them do not exceed."""
    return values[max(0, math.ceil(share * len(values)) - 1)]


def _ordered(counts: Counter[str]) -> dict[str, int]:
    return {str(name): count for name, count in sorted(counts.items(), key=lambda each: (-each[1], each[0]))}


def _types(tally: Tally) -> list[JsonObject]:
    found = sorted(tally.types.items(), key=lambda each: (-each[1].events, each[0]))
    return [
        {"topic": topic, "type": name, "events": each.events, "wanted": each.wanted, "actions": each.actions}
        for (topic, name), each in found[:TYPES_SHOWN]
    ]


def _email(tally: Tally) -> JsonObject:
    delays = sorted(tally.delays)
    if not delays:
        return {"count": 0, "p50_seconds": None, "p99_seconds": None, "longest_seconds": None}
    return {
        "count": len(delays),
        "p50_seconds": round(percentile(delays, 0.5), 3),
        "p99_seconds": round(percentile(delays, 0.99), 3),
        "longest_seconds": round(delays[-1], 3),
    }


def _rules(book: RuleBook, tally: Tally) -> list[JsonObject]:
    known = [(rule.name, rule.file, rule.line, rule.enabled) for rule in book.rules]
    known += [(handler.name, "", 0, True) for handler in book.handlers]
    found = []
    for name, file, line, enabled in known:
        of_rule = tally.of_rule(name)
        found.append({"name": name, "file": file, "line": line, "enabled": enabled, **asdict(of_rule)})
    return found


def _letters(tally: Tally, clean: Callable[[Any], Any]) -> JsonObject:
    found = sorted(tally.letters.items(), key=lambda each: (-each[1], each[0]))
    return {
        "total": sum(tally.letters.values()),
        "by": [
            {
                "kind": kind,
                "rule": rule,
                "count": count,
                "samples": [clean(asdict(sample)) for sample in tally.letter_samples[kind, rule]],
            }
            for (kind, rule), count in found[:LETTERS_SHOWN]
        ],
        "stops": dict(sorted(tally.stops.items())),
    }


def _course(minutes: dict[int, Minute], end_seconds: float) -> JsonObject:
    """How it goes until the last event's end: in steps, so that at most POINTS_MAX cover it."""
    last = int(end_seconds // MINUTE)
    minutes = {number: minute for number, minute in minutes.items() if number <= last}
    step = next((step for step in STEPS if (last + 1) * MINUTE / step <= POINTS_MAX), STEPS[-1])
    points: dict[int, Minute] = {}
    for number, minute in minutes.items():
        point = points.setdefault(int(number * MINUTE // step), Minute())
        point.arrived += minute.arrived
        point.finished += minute.finished
        point.calls += minute.calls
    return {"step_seconds": step, "points": list(_points(points, step))}


def _points(points: dict[int, Minute], step: int) -> Iterator[JsonObject]:
    waiting = 0
    for number in range(max(points, default=-1) + 1):
        point = points.get(number, Minute())
        waiting += point.arrived - point.finished
        yield {"at_seconds": number * step, **asdict(point), "waiting": waiting}


def _story(story: Story) -> JsonObject:
    return {
        "email": story.contact,
        "names": sorted(story.names),
        "events": [asdict(event) for event in story.events.values()],
        "calls": [asdict(call) for call in story.calls],
        "left_out": story.left_out,
    }


def _notes(book: RuleBook, found: Rehearsed) -> Iterable[str]:
    tally = found.tally
    for topic, count in sorted(tally.stops.items()):
        times = "once" if count == 1 else f"{count} times"
        yield (
            f"{topic} would pause {times}, because too many of its last events were dead-lettered "
            "(dead_letters.stop_at); here it went on at once"
        )
    if found.unfinished:
        yield f"{found.unfinished:,} events would wait for ever"
    if tally.broken:
        yield f"the bridge itself broke on {len(tally.broken)} events, first {tally.broken[0]}: report this bug"
    if tally.letters and any(kind == LetterKind.UNKNOWN_CONTACT for kind, _ in tally.letters):
        yield "a preview begins with an empty identity table: the service may know contacts that are unknown here"
    timed = found.timeline.timed
    if timed < len(found.timeline.arrivals):
        timeless = len(found.timeline.arrivals) - timed
        told = "1 event tells" if timeless == 1 else f"{timeless:,} events tell"
        yield f"{told} no time of its own, and came with the one before"
