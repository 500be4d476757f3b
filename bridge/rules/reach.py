"""Rules that never apply, and rules that say the same: as far as that is certain without an event.

All rules that match an event apply, so one rule never hides another. What can be known is: a topic that is not read, a
condition that contradicts what the rule matches, a rule that is turned off, and two actions that any event of one rule
carries out both, though once was meant.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from bridge.errors import Problem
from bridge.model import Kind
from bridge.places import Place, did_you_mean
from bridge.rules.composing import ActionTemplate
from bridge.rules.conditions import NEVER, required
from bridge.rules.handlers import Handler
from bridge.rules.planner import Rule

_ONCE = {Kind.TRIGGER: ("trigger_key", "send the email"), Kind.TRACK: ("event_name", "track the event")}
"""What is done twice if it is said twice; an upsert, a tag or an enrollment says the same again."""
PATHS_TOLD = 5
_NAMING = ("to_email", "email", "external_id", "contact")


def unreachable(rules: Iterable[Rule], handlers: Iterable[Handler], topics: Collection[str]) -> Iterator[Problem]:
    """Rules and handlers that no event reaches; `topics` are those that are read."""
    for rule in rules:
        if not rule.enabled:
            message = f"rule {rule.name} is disabled: no event reaches it"
            yield rule.place("enabled").problem("MB174", message, severity="notice")
            continue
        for number, topic in enumerate(rule.topics):
            if topic not in topics:
                message = f"rule {rule.name}: {_not_read(topic)}"
                place = rule.place(f"topic[{number}]", "topic")
                yield place.problem("MB170", message, _topic_hint(topic, topics), "warning")
        if rule.when is not None:
            yield from _contradicts(rule, rule.when.text, "when", rule.place("when"), topics)
        for action in rule.actions:
            if action.when is not None:
                yield from _contradicts(rule, action.when.text, f"{action.kind}.when", action.place("when"), topics)
    for handler in handlers:
        for topic in handler.topics:
            if topic not in topics:
                message = f"handlers: {handler.name} in {handler.module}: {_not_read(topic)}"
                yield Place("").problem("MB170", message, _topic_hint(topic, topics), "warning")


def _not_read(topic: str) -> str:
    return f"topic {topic} is not read" + (", for topics are named, without patterns" if _is_glob(topic) else "")


def _topic_hint(topic: str, topics: Collection[str]) -> str:
    if _is_glob(topic):
        fitting = [name for name in topics if fnmatch.fnmatchcase(name, topic)]
        if fitting:
            return f"write topic: [{', '.join(fitting)}]"
    return did_you_mean(topic, topics, f"topics are {', '.join(topics)}")


def _is_glob(pattern: str) -> bool:
    return any(char in pattern for char in "*?[")


def _contradicts(rule: Rule, text: str, where: str, place: Place, topics: Collection[str]) -> Iterator[Problem]:
    """A condition that asks for another type or topic than the rule can be given."""
    wanted = required(text)
    event_type = wanted.get("event.type")
    if isinstance(event_type, str) and not any(fnmatch.fnmatchcase(event_type, pattern) for pattern in rule.match):
        message = f"{where}: event.type is never {event_type!r}, for the rule matches {_listed(rule.match)}"
        yield place.problem(NEVER, message, f"write match: {event_type}", "warning")
    topic = wanted.get("topic")
    read = [name for name in rule.topics or topics if name in topics]
    if isinstance(topic, str) and topic not in read:
        message = f"{where}: topic is never {topic!r}, for the rule is given events of {_listed(read) or 'no topic'}"
        yield place.problem(NEVER, message, did_you_mean(topic, topics), "warning")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def repeated(rules: Iterable[Rule]) -> Iterator[Problem]:
    """Emails and tracked events that two actions make of the same events, to the same contact, under the same
    conditions."""
    seen: dict[tuple[Any, ...], list[tuple[Rule, ActionTemplate]]] = {}
    for rule in rules:
        if not rule.enabled:
            continue
        for action in rule.actions:
            identity = _identity(rule, action)
            if identity is None:
                continue
            earlier = seen.setdefault(identity, [])
            same = next((other for other in earlier if _meet(other[0], rule)), None)
            if same is not None:
                first, what = same[0], _ONCE[action.kind]
                whose = "this rule" if first is rule else f"rule {first.name}"
                message = f"rule {rule.name}: {what[1]} {identity[1]} a second time: {whose} does it for the same event"
                hint = f"the first is at {_at(same[1])}; remove one, or tell them apart by when"
                yield action.place().problem("MB175", message, hint, "warning")
            earlier.append((rule, action))


def _identity(rule: Rule, action: ActionTemplate) -> tuple[Any, ...] | None:
    """What the action does to whom and when, by the words of the file; None where events decide what it does."""
    name = _ONCE.get(action.kind, ("", ""))[0]
    value = action.given.get(name)
    if not isinstance(value, str) or "${" in value:
        return None
    contact = tuple(str(action.given.get(each)) for each in _NAMING)
    conditions = frozenset(" ".join(when.text.split()) for when in (rule.when, action.when) if when is not None)
    return action.kind, value, contact, conditions


def _meet(one: Rule, other: Rule) -> bool:
    """Whether an event can be given to both, for certain."""
    if one.topics and other.topics and not set(one.topics) & set(other.topics):
        return False
    return any(_covers(a, b) or _covers(b, a) for a in one.match for b in other.match)


def _covers(pattern: str, other: str) -> bool:
    return pattern == other or (not _is_glob(other) and fnmatch.fnmatchcase(other, pattern))


def written_from_several(rules: Iterable[Rule], topics: Collection[str]) -> Iterator[Problem]:
    """Fields that rules of different topics set, among these topics: nothing orders one topic's events and another's.

    Only rules that name their topic are looked at: what the others are given nobody knows before. Tags are only added.
    """
    writers: dict[str, list[tuple[Rule, ActionTemplate]]] = {}
    for rule in rules:
        for action in rule.actions if rule.enabled and rule.topics else ():
            for path in action.writes.sets:
                if not path.startswith("tag_names.") and not path.endswith("*"):
                    writers.setdefault(path, []).append((rule, action))
    told: dict[tuple[str, str], list[str]] = {}
    for path in sorted(writers):
        for number, (rule, _) in enumerate(writers[path]):
            earlier = next((each for each, _ in writers[path][:number] if _apart(each, rule, topics)), None)
            if earlier is not None:
                told.setdefault((earlier.name, rule.name), []).append(path)
                break
    by_name = {rule.name: rule for pairs in writers.values() for rule, _ in pairs}
    for (first, second), paths in told.items():
        rule, other = by_name[second], by_name[first]
        more = f" and {len(paths) - PATHS_TOLD} more" if len(paths) > PATHS_TOLD else ""
        message = (
            f"rule {second} sets {_listed(paths[:PATHS_TOLD])}{more} from {_listed(rule.topics)}, as rule {first} does "
            f"from {_listed(other.topics)}: whichever event arrives last wins, and topics are not read in one order"
        )
        yield rule.place("topic").problem("MB186", message, "set a field from one topic only", "warning")


def _apart(one: Rule, other: Rule, topics: Collection[str]) -> bool:
    mine, theirs = set(one.topics) & set(topics), set(other.topics) & set(topics)
    return bool(mine and theirs and not mine & theirs)


def _at(action: ActionTemplate) -> str:
    place = action.place()
    return f"{place.file}:{place.line}"
