"""The status as JSON and as one page, from the same facts: a snapshot with contacts masked.

The page shows all without JavaScript, and then reloads itself every five seconds; with it, its sections change in place
as the live stream sends them. Its one button, of a stopped topic, sends the request that people without a browser send
(bridge/web/server.py). Everything in it but the plots can be had from /api/status.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import orjson

from bridge.observe.history import History, moment_of
from bridge.observe.masking import mask, mask_contact
from bridge.observe.snapshot import SlowContact, Snapshot
from bridge.web.html import time_of
from bridge.web.sections import TITLES, Facts, sections

FAVICON = (
    b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="3" fill="#2f5d50"/>'
    b'<path d="M2 11q6-9 12 0M5 11V8M11 11V8" stroke="#fff" stroke-width="1.5" fill="none"/></svg>'
)


def facts(snapshot: Snapshot, slowest: Sequence[SlowContact] = (), *, show_contacts: bool = False) -> Facts:
    """The snapshot in plain JSON types, with the slowest contacts; points in time are added as ISO 8601 text beside the
    Unix seconds."""
    if not show_contacts:
        slowest = [dataclasses.replace(each, contact=mask_contact(each.contact)) for each in slowest]
    plain = mask({**_plain(snapshot), "slowest_contacts": _plain(tuple(slowest))}, show_contacts=show_contacts)
    unready = snapshot.unready()
    summary: Facts = {
        "ready": unready is None,
        "unready_reason": mask(unready, show_contacts=show_contacts),
        "lag": snapshot.lag,
        "uptime_seconds": round(snapshot.taken_at_wall_seconds - snapshot.started_at_wall_seconds, 3),
        "started_at": time_of(snapshot.started_at_wall_seconds),
        "taken_at": time_of(snapshot.taken_at_wall_seconds),
    }
    return {**summary, **plain}


def _plain(value: Any) -> Any:
    # Not dataclasses.asdict: it copies mappings through their constructor, and would make a Counter count its pairs.
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def as_json(facts: Facts) -> bytes:
    return orjson.dumps(facts, default=str, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS)


def parts(
    snapshot: Snapshot, history: History, slowest: Sequence[SlowContact] = (), *, show_contacts: bool = False
) -> dict[str, str]:
    """The page's sections as HTML, by their ids: what the page is made of, and what the live stream sends."""
    return sections(facts(snapshot, slowest, show_contacts=show_contacts), history.until(moment_of(snapshot)))


def as_html(parts: Mapping[str, str]) -> str:
    """The whole page."""
    body = []
    for name, title in TITLES.items():
        if name == "verdict":
            body.append(f'<div id="{name}" role="status">{parts[name]}</div>')
        elif not title:
            body.append(f'<div id="{name}">{parts[name]}</div>')
        else:
            body.append(
                f'<section aria-labelledby="{name}-title"><h2 id="{name}-title">{title}</h2>'
                f'<div id="{name}">{parts[name]}</div></section>'
            )
    return static("dashboard.html").replace("{body}", "\n".join(body))


@cache
def static(name: str) -> str:
    """A file of this room."""
    return files("bridge.web").joinpath(name).read_text(encoding="utf-8")
