"""Previews of a few events: a configuration, rules, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bridge.config import Settings, load
from bridge.decoders import decoders
from bridge.loading import load_rules
from bridge.preview.events import read_lines, timeline, with_event_times
from bridge.preview.rehearsal import Called, Rehearsed, nobody, rehearse
from bridge.preview.report import report

NOON = 1_780_000_000.0
CONFIG = """\
kafka: {bootstrap_servers: "localhost:1"}
topics: {users: {keyed_by: contact}}
meisa: {api_key: {env: KEY}, environment: test}
rules: [rules.yaml]
"""


def iso(seconds: float) -> str:
    """So long after noon."""
    from bridge.preview.report import iso as text

    return text(NOON + seconds)


def event(kind: str, after: float | None = 0.0, **data: Any) -> dict[str, Any]:
    return {"type": kind, **({} if after is None else {"time": iso(after)}), "data": data}


def settings(folder: Path, rules: str, config: str = CONFIG) -> Settings:
    (folder / "rules.yaml").write_text(rules, encoding="utf-8")
    (folder / "bridge.yaml").write_text(config, encoding="utf-8")
    return load(folder / "bridge.yaml", {"KEY": "meisa_test_x"})


def as_lines(events: Iterable[Any]) -> list[bytes]:
    return [each if isinstance(each, bytes) else json.dumps(each).encode() for each in events]


def rehearsed(
    made: Settings,
    events: Iterable[Any],
    *,
    at_once: bool | None = None,
    now: float | None = None,
    contact: str = "",
    new_account: bool = False,
    called: Called = nobody,
) -> Rehearsed:
    """What a preview of these events finds; `now` in seconds after noon, with at_once."""
    topic = next(iter(made.topics))
    arrivals = with_event_times(read_lines(as_lines(events), list(made.topics), topic=topic), decoders(made))
    fixed = now is not None
    line = timeline(arrivals, now_wall=NOON + (now if now is not None else 86_400.0), at_once=at_once, fixed=fixed)
    return rehearse(
        made, load_rules(made), line, decoders(made), contact=contact, new_account=new_account, called=called
    )


def reported(made: Settings, found: Rehearsed, **options: Any) -> Mapping[str, Any]:
    """The report on it."""
    return report(made, load_rules(made), found, kind="file", name="events.jsonl", **options)
