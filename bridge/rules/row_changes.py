"""Rules on topics of changed rows (Debezium): which kinds of change they match, and what those have.

    <table>.created   before is null                       after is the row
    <table>.read      before is null (a snapshot)          after is the row
    <table>.updated   before is the row, if the table says so   after is the row
    <table>.deleted   before is the row, or its key        after is null
    <table>.truncated, message                             neither

Told only of rules that are given nothing else, and where no condition asks for the kind of change itself. Whether an
update has its `before` the table decides (in PostgreSQL: REPLICA IDENTITY FULL), which no file shows.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping

from bridge.errors import Problem
from bridge.places import Place
from bridge.rules.planner import FieldReference, Rule

DEBEZIUM = "debezium"
MESSAGE = "message"
"""The type of what PostgreSQL's pg_logical_emit_message writes: no table's."""
CHANGES = ("created", "updated", "deleted", "read", "truncated")
_LACKING = {
    "before": frozenset({"created", "read", "truncated", MESSAGE}),
    "after": frozenset({"deleted", "truncated", MESSAGE}),
}
_PAYLOAD = frozenset({"op", "before", "after", "source", "ts_ms", "ts_us", "ts_ns", "transaction", "message",
                      "updateDescription"})  # fmt: skip
_MEANT = {"insert": "created", "inserted": "created", "create": "created", "update": "updated", "delete": "deleted",
          "removed": "deleted", "snapshot": "read", "truncate": "truncated"}  # fmt: skip
_IDENTIFYING = frozenset({"email", "to_email", "external_id"})
"""Without these an action is about nobody."""
_FIRST = re.compile(r'data(?:\.([^\W\d]\w*)|\["([^"]*)"\])')


def of_row_changes(rules: Iterable[Rule], formats: Mapping[str, str]) -> Iterator[Problem]:
    """`formats` are the topics that are read, with the format of each."""
    for rule in rules:
        topics = [name for name in rule.topics or formats if name in formats]
        if not topics or any(formats[name] != DEBEZIUM for name in topics):
            continue
        changes: set[str] = set()
        for number, pattern in enumerate(rule.match):
            found = changes_of(pattern)
            changes |= found
            if not found:
                table, _, last = pattern.rpartition(".")
                meant = _MEANT.get(last, "")
                hint = f"write {table}.{meant}" if meant and table else f"kinds of change are {', '.join(CHANGES)}"
                message = f"rule {rule.name}: no changed row has the type {pattern}"
                yield rule.place(f"match[{number}]", "match").problem("MB185", message, hint, "warning")
        yield from _outside(rule, changes)
        for side in _LACKING:
            yield from _lacking(rule, changes, side)


def changes_of(pattern: str) -> set[str]:
    """The kinds of change whose types a pattern may match."""
    if not any(char in pattern for char in "*?["):
        if pattern == MESSAGE:
            return {MESSAGE}
        return {pattern.rpartition(".")[2]} & set(CHANGES) if "." in pattern else set()
    _, dot, last = pattern.rpartition(".")
    return {change for change in CHANGES if not dot or fnmatch.fnmatchcase(change, last)}


def _outside(rule: Rule, changes: set[str]) -> Iterator[Problem]:
    """`data.email` where the row is under `data.after`."""
    for reference in rule.references:
        match = _FIRST.match(reference.path)
        name = (match[1] or match[2]) if match else ""
        if match is None or not name or name in _PAYLOAD:
            continue
        side = "before" if changes == {"deleted"} else "after"
        rest = reference.path.removeprefix("data")
        message = f"rule {rule.name}: {reference.where}: a changed row is under data.before and data.after"
        yield _place(rule, reference).problem("MB184", message, f"write data.{side}{rest}", "warning")


def _lacking(rule: Rule, changes: set[str], side: str) -> Iterator[Problem]:
    """`data.before.plan` of a created row: where it makes the rule fail, or never apply."""
    lacking = changes & _LACKING[side]
    if not lacking:
        return
    prefix = f"data.{side}"
    used = [each for each in rule.references if each.path.startswith((f"{prefix}.", f"{prefix}[")) and not each.guarded]
    asking = {each.where for each in rule.references if _tells_the_change(each.path)}
    for reference in used:
        is_condition = reference.where == "when" or reference.where.endswith(".when")
        kinds = " or ".join(sorted(lacking))
        if is_condition:
            if lacking != changes:
                continue  # false for those, which may be what is meant
            what = f"is never true: rows that are {kinds} have no {side}"
        elif asking & {"when", f"{reference.where.partition('.')[0]}.when"}:
            continue
        else:
            what = f"fails for rows that are {kinds}: {side} is null there"
        rest = reference.path.removeprefix(prefix)
        other = "after" if side == "before" else "before"
        hint = f"write {prefix.replace(side, other)}{rest}"
        if lacking != changes:
            kept = sorted(changes - lacking)
            hint = f"match those that have it: {', '.join(kept)}"
            if reference.where.rpartition(".")[2] not in _IDENTIFYING:
                hint += f"; or write optional({reference.path})"
        message = f"rule {rule.name}: {reference.where}: {reference.path} {what}"
        yield _place(rule, reference).problem("MB183", message, hint, "warning")
        return


def _tells_the_change(path: str) -> bool:
    return path.startswith(("data.before", "data.after", "data.op")) or path == "event.type"


def _place(rule: Rule, reference: FieldReference) -> Place:
    return Place(rule.file, reference.line, reference.column)
