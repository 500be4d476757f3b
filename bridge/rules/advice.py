"""What rules say that can be carried out and is hardly meant, or costs what its author may not know: warnings.

    book.rules → conditions (while loading), reach, here, row_changes → problems

Nothing is told that might be in order: a warning that people learn to ignore hides the next one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from bridge.errors import Problem
from bridge.model import Kind, Lane
from bridge.rules.composing import ActionTemplate
from bridge.rules.planner import Rule, RuleBook
from bridge.rules.reach import repeated, unreachable, written_from_several
from bridge.rules.row_changes import of_row_changes

LIFECYCLE = (
    "plan", "subscription_plan", "subscription_status", "subscription_state", "status", "account_status",
    "billing_status", "payment_status", "trial_status", "stage", "lifecycle_stage", "lifecycle_status",
)  # fmt: skip
"""Custom fields whose every change automations usually wait for."""
RULES_TOLD = 3
"""Of those that a problem is about: enough to find them."""


def advise(book: RuleBook, formats: Mapping[str, str], keyed_by_contact: Collection[str] = ()) -> list[Problem]:
    """All of it; `formats` are the topics that are read, with the format of each.

    Of topics that are keyed by contact it is told elsewhere what several write: there it costs calls (MB151).
    """
    problems = [problem for rule in book.rules if rule.enabled for problem in rule.advice]
    problems += unreachable(book.rules, book.handlers, formats)
    rules = [rule for rule in book.rules if rule.enabled]
    problems += repeated(rules)
    problems += written_from_several(rules, set(formats) - set(keyed_by_contact))
    problems += _ages(rules)
    problems += _lanes(rules, formats)
    problems += _merged_away(rules)
    problems += of_row_changes(rules, formats)
    return problems


def _ages(rules: Iterable[Rule]) -> Iterator[Problem]:
    """Triggers whose age nobody thought about, or is not looked at."""
    for rule in rules:
        for action in rule.actions:
            if action.kind is not Kind.TRIGGER:
                continue
            if action.given.get("max_age") == "none":
                yield action.place("max_age").problem(
                    "MB177",
                    f"rule {rule.name}: max_age: none sends the email however old its event is: after an outage, a "
                    "rewind, or when a new group reads the whole topic",
                    "write the time after which the email makes no sense any more, e.g. max_age: 1d",
                    "warning",
                )
            elif "max_age" not in action.given and action.handling.lane is Lane.TRANSACTIONAL:
                yield action.place().problem(
                    "MB178",
                    f"rule {rule.name}: the trigger has no max_age of its own, so it is sent up to a day late",
                    "write how late the email still makes sense, e.g. max_age: 15m for a password reset",
                    "notice",
                )


def _lanes(rules: Sequence[Rule], topics: Iterable[str]) -> Iterator[Problem]:
    """Bulk work on a topic that urgent events come by as well: a partition is one line of records."""
    topics = list(topics)
    for rule in rules:
        bulk = [action for action in rule.actions if action.handling.lane is Lane.BULK]
        if not bulk:
            continue
        read = set(rule.topics or topics)
        urgent = [
            other.name
            for other in rules
            if other is not rule
            and read & set(other.topics or topics)
            and any(action.handling.lane is Lane.TRANSACTIONAL for action in other.actions)
        ]
        if urgent:
            place = rule.place("lane") if "lane" in rule.places else bulk[0].place("lane")
            yield place.problem(
                "MB179",
                f"rule {rule.name} is bulk and shares its topic with transactional rules ({_some(urgent)}): while a "
                "backlog of bulk events fills a partition's window, the records behind it are not read",
                "give bulk events a topic of their own, and name it in the rule: topic: …",
                "warning",
            )


def _merged_away(rules: Sequence[Rule]) -> Iterator[Problem]:
    """Usual lifecycle fields of which a value can be merged away before it was sent."""
    preserved = {path for rule in rules for path in rule.options.preserve}
    lazy = {path for rule in rules for path in rule.options.lazy}
    for name in LIFECYCLE:
        path = f"custom_fields.{name}"
        writers = [(rule, action) for rule in rules for action in rule.actions if _merges(action, name)]
        if (
            path in preserved
            or path in lazy
            or not _changes([action.given["custom_fields"][name] for _, action in writers])
        ):
            continue
        rule, action = writers[0]
        others = [other.name for other, _ in writers if other is not rule]
        also = f" (as does {_some(list(dict.fromkeys(others)))})" if others else ""
        yield action.place(path).problem(
            "MB180",
            f"rule {rule.name} sets {path}{also}, and no rule preserves it: while a call waits, for quota or a retry, "
            "later values replace the earlier, which automations on that change never see",
            f"write preserve: [{path}] in the rule; or coalesce: false, or --ignore MB180, if only the last value "
            "counts",
            "warning",
        )


def _merges(action: ActionTemplate, name: str) -> bool:
    """Whether the action sets the custom field, and may be merged with others of its contact."""
    fields = action.given.get("custom_fields")
    handling = action.handling
    merges = action.kind is Kind.UPSERT and handling.coalesce and handling.max_age_seconds is None
    return merges and isinstance(fields, Mapping) and name in fields


def _changes(values: Sequence[Any]) -> bool:
    """Whether there is more than one value: a field that is only ever set to the same has no change to lose."""
    return any("${" in str(value) for value in values) or any(value != values[0] for value in values[1:])


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - RULES_TOLD} more" if len(names) > RULES_TOLD else ""
    return ", ".join(names[:RULES_TOLD]) + more
