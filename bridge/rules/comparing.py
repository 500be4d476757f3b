"""What a test expects against what the rules made: whether it fits, and the difference as YAML.

Fields that a test does not name are free, in objects inside fields too; lists are compared whole. null stands for "not
there". Numbers compare by value, as in JSON; an unquoted number is right where the action has the same as text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any, NamedTuple

import orjson

from bridge.actions import MODELS, duration_seconds
from bridge.model import Action, Kind
from bridge.rules.cases import Expected
from bridge.yamldoc import json_scalar

LINE_MAX = 100
"""Characters of a list or object that is written in one line."""

_NAMED_BY = {Kind.TRIGGER: "trigger_key", Kind.TRACK: "event_name", Kind.ENROLL: "sequence_slug"}
_PLAIN = re.compile(r"(?!(?:y|n|yes|no|on|off)$)[a-z_/](?:[a-z0-9_./@+ -]*[a-z0-9_./@+-])?|\d+[a-z]+", re.IGNORECASE)
"""Text that needs no quotes in YAML, whatever stands around it, not even for readers of YAML 1.1."""
_NOT_YAML = re.compile("[^ -~\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
"""Characters that YAML has only escaped."""
_UNITS = ((86_400.0, "d"), (3_600.0, "h"), (60.0, "m"), (1.0, "s"), (0.001, "ms"))


class Line(NamedTuple):
    """One line of a difference."""

    sign: str
    """`-` is expected only, `+` is there only, a space is around the difference."""
    text: str

    def __str__(self) -> str:
        return f"{self.sign} {self.text}".rstrip()


class Written(NamedTuple):
    """An action as a rules file would have it."""

    kind: Kind
    fields: Mapping[str, Any]
    beside: Mapping[str, Any]
    """`contact`, `aliases`, and every option as it stands, whether the rule names it or not."""

    def item(self, *, beside: bool = True) -> dict[str, Any]:
        """What a test would list to expect it."""
        people = {name: value for name, value in self.beside.items() if name in ("contact", "aliases") and beside}
        return {self.kind.value: dict(self.fields), **people}


def written(action: Action) -> Written:
    """The action with everything that its request leaves out, such as the email of a tag's contact."""
    model = MODELS[action.kind]
    contact, handling = action.contact, action.handling
    fields = dict(action.body)
    for name, value in (("email", contact.email), ("external_id", contact.external_id)):
        if name in model.LOCAL and value is not None:
            fields[name] = value
    beside: dict[str, Any] = {}
    if contact.aliases:
        beside["aliases" if "aliases" in model.OPTIONS else "contact"] = dict(contact.aliases)
    options = {
        "max_age": "none" if handling.max_age_seconds is None else duration(handling.max_age_seconds),
        "lane": handling.lane.value,
        "on_missing": handling.on_missing,
        "on_suppressed": handling.on_suppressed,
        "order": "contact" if handling.ordered else "independent",
    }
    beside.update({name: value for name, value in options.items() if name in model.OPTIONS})
    return Written(action.kind, fields, beside)


def duration(seconds: float) -> str:
    """The shortest way to write a duration in one unit."""
    for size, unit in _UNITS:
        if seconds >= size and (seconds / size).is_integer():
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:g}s"


class Pair(NamedTuple):
    """An expected action and the one that was made in its place, by their positions; None where there is no partner."""

    expected: int | None
    made: int | None


def paired(expected: Sequence[Expected], made: Sequence[Written]) -> list[Pair]:
    """Which expected action stands for which one that was made, in order: those of the same kind and name first."""
    if [each.kind for each in expected] == [each.kind for each in made]:
        return [Pair(position, position) for position in range(len(made))]
    wanted, keys = ([_key(each.kind, each.fields) for each in them] for them in (expected, made))
    matcher = SequenceMatcher(None, list(wanted), list(keys), autojunk=False)
    pairs: list[Pair] = []
    for _, since, until, made_since, made_until in matcher.get_opcodes():
        others = list(range(made_since, made_until))
        for position in range(since, until):
            kind = expected[position].kind
            partner = next((other for other in others if made[other].kind is kind), None)
            while partner is not None and others[0] != partner:
                pairs.append(Pair(None, others.pop(0)))
            pairs.append(Pair(position, None if partner is None else others.pop(0)))
        pairs += [Pair(None, other) for other in others]
    return pairs


def _key(kind: Kind, fields: Mapping[str, Any]) -> str:
    return f"{kind} {fields.get(_NAMED_BY.get(kind, ''))}"


def difference(expected: Sequence[Expected], made: Sequence[Written]) -> list[Line]:
    """The lines that tell what differs; none where all is as expected."""
    lines: list[Line] = []
    for pair in paired(expected, made):
        wanted = None if pair.expected is None else expected[pair.expected]
        found = None if pair.made is None else made[pair.made]
        if wanted is None and found is not None:
            lines += _item("+", found.item())
        elif wanted is not None and found is None:
            lines += _item("-", {wanted.kind.value: dict(wanted.fields), **wanted.beside})
        elif wanted is not None and found is not None:
            lines += _between(wanted, found)
    return lines


def _between(wanted: Expected, found: Written) -> list[Line]:
    fields = _differences(same_texts(wanted), found.fields, wanted.exact, 2)
    beside = _differences(*beside_of(wanted, found), False, 1)
    if not fields and not beside:
        return []
    return [Line(" ", f"- {wanted.kind.value}:" + ("" if fields else " …")), *fields, *beside]


def beside_of(wanted: Expected, found: Written) -> tuple[dict[str, Any], dict[str, Any]]:
    """What stands beside the fields, made comparable: durations by their length, an upsert's names as one."""
    left, right = dict(wanted.beside), dict(found.beside)
    if "aliases" in MODELS[wanted.kind].OPTIONS and "contact" in left:
        left["aliases"] = {**left.pop("contact"), **left.get("aliases", {})}
    if left.get("max_age") not in (None, "none"):
        left["max_age"] = duration(duration_seconds(left["max_age"]))
    if wanted.exact:
        for name in ("contact", "aliases"):
            if name in right and set(right[name]) - set(left.get(name, {})):
                left[name] = {**dict.fromkeys(right[name]), **left.get(name, {})}
    for name in ("contact", "aliases"):
        if name in left:
            left[name] = {alias: _as_text(value) for alias, value in left[name].items()}
    return left, right


def same_texts(wanted: Expected) -> dict[str, Any]:
    """The expected fields, with numbers as text where the action's field is text."""
    model = MODELS[wanted.kind]
    fields = dict(wanted.fields)
    for name, value in fields.items():
        if "str" in repr(model.model_fields[name].annotation):
            fields[name] = [_as_text(item) for item in value] if isinstance(value, list) else _as_text(value)
    return fields


def _as_text(value: Any) -> Any:
    return str(value) if type(value) in (int, float) else value


def _differences(expected: Mapping[str, Any], found: Mapping[str, Any], exact: bool, depth: int) -> list[Line]:
    lines: list[Line] = []
    for name, value in expected.items():
        there = found.get(name)
        if fits(value, there, exact):
            continue
        if isinstance(value, Mapping) and isinstance(there, Mapping):
            lines.append(Line(" ", f"{'  ' * depth}{flow(name)}:"))
            lines += _differences(value, there, exact, depth + 1)
            continue
        if value is not None or name in found:
            lines += _entry("-", name, value, depth)
        if name in found:
            lines += _entry("+", name, there, depth)
    if exact:
        for name, value in found.items():
            if name not in expected and value is not None:
                lines += _entry("+", name, value, depth)
    return lines


def fits(expected: Any, found: Any, exact: bool) -> bool:
    """Whether a value is as expected."""
    if isinstance(expected, Mapping) and (found is None or isinstance(found, Mapping)):
        found = found or {}
        if exact and any(found[name] is not None for name in found.keys() - expected.keys()):
            return False
        return all(fits(value, found.get(name), exact) for name, value in expected.items())
    if isinstance(expected, list) and isinstance(found, list):
        return len(expected) == len(found) and all(
            fits(left, right, exact) for left, right in zip(expected, found, strict=True)
        )
    if isinstance(expected, bool) or isinstance(found, bool):
        return expected is found
    return bool(expected == found)


# YAML ----------------------------------------------------------------------------------------------------------------


def flow(value: Any) -> str:
    """A value as YAML in one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{flow(name)}: {flow(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(flow(item) for item in value) + "]"
    if isinstance(value, str):
        if _PLAIN.fullmatch(value) and json_scalar(value) == value:
            return value
        return _NOT_YAML.sub(lambda match: f"\\u{ord(match[0]):04x}", orjson.dumps(value).decode())
    return orjson.dumps(value, default=str).decode()


def _item(sign: str, item: Mapping[str, Any]) -> list[Line]:
    """An item of a list of actions."""
    lines = [line for name, value in item.items() for line in _entry(sign, name, value, 1)]
    first = lines[0]
    return [Line(sign, f"- {first.text.lstrip()}"), *lines[1:]]


def _entry(sign: str, name: str, value: Any, depth: int) -> list[Line]:
    """A key and its value; in lines of their own where they are long."""
    lead = f"{'  ' * depth}{flow(name)}:"
    if isinstance(value, Mapping) and value and len(lead) + len(flow(value)) > LINE_MAX:
        return [Line(sign, lead), *(line for key, item in value.items() for line in _entry(sign, key, item, depth + 1))]
    return [Line(sign, f"{lead} {flow(value)}")]
