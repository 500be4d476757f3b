"""What pydantic complains about, in the words of somebody who edits YAML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from bridge.config import codes
from bridge.errors import Problem
from bridge.places import Place

Route = tuple[str | int, ...]
"""The keys and list positions that lead to a value."""

HINTS: Final[dict[str, str]] = {
    "kafka": "add kafka: {bootstrap_servers: localhost:9092}",
    "bootstrap_servers": "e.g. bootstrap_servers: localhost:9092",
    "topics": "add topics: {user-events: {}}",
    "meisa": "add meisa: {api_key: {env: MEISA_API_KEY}}",
    "api_key": "add api_key: {env: MEISA_API_KEY}",
    "keys": "e.g. keys: {trigger: {env: MEISA_TRIGGER_KEY}}",
    "quota": "e.g. quota: {per_minute: 60, per_hour: 1000}",
    "retry": "e.g. retry: {attempts: 10, max_age: 15m}",
    "rules": "e.g. rules: [rules/*.yaml]",
    "handlers": "e.g. handlers: [acme.lifecycle]",
    "stop_at": "e.g. stop_at: {share: 0.2, of: 500}",
    "dead_letters": "e.g. dead_letters: {topic: meisa-bridge.dead-letters}",
    "state": "e.g. state: {url: memory}",
    "admin": "e.g. admin: {listen: 127.0.0.1:8080}",
    "allowed_hosts": "e.g. allowed_hosts: [bridge.example.com]",
    "url": "e.g. url: http://localhost:8081",
}

_TYPES: Final[dict[str, str]] = {
    "int": "should be a whole number",
    "float": "should be a number",
    "bool": "should be true or false",
    "string": "should be text",
    "list": "should be a list",
    "dict": "should be a map",
    "model": "should be a map",
    "is": "should be {env: NAME} or {file: PATH}",
}


def dotted(route: Route) -> str:
    """`meisa.quota.per_minute`, `rules[0]`."""
    text = ""
    for part in route:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part != "[key]":
            text += f".{part}" if text else part
    return text


def as_problem(route: Route, detail: Mapping[str, Any], place: Place, shown: str | None) -> Problem:
    """One of pydantic's complaints as a problem. `shown` is the value where a message may quote it."""
    kind: str = detail["type"]
    context: Mapping[str, Any] = detail.get("ctx", {})
    name = f"`{dotted(route)}`"
    last = next((part for part in reversed(route) if isinstance(part, str) and part != "[key]"), "")
    quoted = f": `{shown[:60]}`" if shown is not None else ""
    if kind in codes.CODES:
        return place.problem(kind, f"{name}{quoted} {detail['msg']}", context.get("hint", ""))
    if kind == "missing":
        return place.problem(codes.MISSING_KEY, f"{name} is missing", HINTS.get(last, ""))
    if kind in ("literal_error", "enum"):
        return place.problem(codes.NOT_A_CHOICE, f"{name}{quoted} is not one of {context.get('expected', '')}")
    if kind in ("string_too_short", "too_short"):
        code = codes.NO_TOPIC if route == ("topics",) else codes.OUT_OF_RANGE
        return place.problem(code, f"{name} must not be empty", HINTS.get(last, ""))
    bounds = {
        "greater_than": ("gt", "must be more than"),
        "greater_than_equal": ("ge", "must be at least"),
        "less_than": ("lt", "must be less than"),
        "less_than_equal": ("le", "must be at most"),
    }
    if kind in bounds:
        key, words = bounds[kind]
        return place.problem(codes.OUT_OF_RANGE, f"{name} {words} {_bound(route, context[key])}")
    words = _TYPES.get(kind.partition("_")[0], "has the wrong type")
    hint = "put it in quotes" if words == "should be text" else HINTS.get(last, "")
    return place.problem(codes.WRONG_TYPE, f"{name}{quoted} {words}", hint)


_DURATIONS: Final = frozenset(
    {
        "dedupe",
        "idempotency_window",
        "timeout",
        "max_age",
        "unchanged_for",
        "bulk_after",
        "unknown_contact_after",
        "scope_wait",
        "shutdown_timeout",
    }
)


def _bound(route: Route, bound: float) -> str:
    return duration_text(bound) if route[-1] in _DURATIONS else f"{bound:,.10g}"


def duration_text(seconds: float) -> str:
    """Seconds as people write them in the file: 900 is 15m."""
    for unit, size in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size:g}{unit}"
    return f"{seconds:g}s"
