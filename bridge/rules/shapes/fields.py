"""A rule against the views of the events that it applies to: every expression, and what the actions' fields take."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from bridge.actions import ActionModel
from bridge.errors import Problem
from bridge.places import did_you_mean
from bridge.rules import scan
from bridge.rules.composing import ActionTemplate
from bridge.rules.planner import Rule
from bridge.rules.shapes import shape as shapes
from bridge.rules.shapes.events import View, matched, together
from bridge.rules.shapes.narrow import Env, dead, narrowed
from bridge.rules.shapes.notes import MAYBE, NEVER_EQUAL, WRONG, Note
from bridge.rules.shapes.shape import (
    BOOL,
    LIST,
    NULL,
    NULL_SHAPE,
    NUMBER,
    OBJECT,
    TEXT,
    TEXT_SHAPE,
    Field,
    Object,
    Shape,
    list_of,
    literal,
    union,
    words,
)
from bridge.rules.shapes.walk import Walker
from bridge.rules.source import Source
from bridge.yamldoc import Node

NO_SUCH_TYPE = "MB165"

VIEWS_MAX = 64
"""Views that one rule is checked against; a `match: "*"` on topics with more types sees the rest as one."""

TOLD_MAX = 2
"""Types that a message names."""


class Want(NamedTuple):
    """What a field takes."""

    kinds: frozenset[str]
    told: str
    values: frozenset[str] | None = None
    null: bool = True
    """Null leaves it out."""
    required: bool = False
    """It cannot be left out."""
    inner: Want | None = None
    """What the items of a list, or the fields of an object, take."""


_NAME = Want(frozenset({TEXT, NUMBER}), "a text")
_EMAIL = Want(frozenset({TEXT}), "an email address")
_ITEM = Want(frozenset({TEXT, NUMBER}), "a text", null=False)


def wanted(model: type[ActionModel], name: str) -> Want | None:
    """What a field of an action takes, by its model; None where anything goes."""
    info = model.model_fields[name]
    found = _EMAIL if name == model.EMAIL_FIELD else _by_annotation(info.annotation)
    return found and found._replace(null=not info.is_required(), required=info.is_required())


def _by_annotation(annotation: Any) -> Want | None:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        annotation = next(part for part in typing.get_args(annotation) if part is not types.NoneType)
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    origin = typing.get_origin(annotation)
    if annotation is str:
        return _NAME
    if annotation is bool:
        return Want(frozenset({BOOL, NUMBER, TEXT}), "true or false")
    if origin is list:
        return Want(frozenset({LIST}), "a list of texts", inner=_ITEM)
    if origin is dict:
        inner = None if typing.get_args(annotation)[1] is Any else _ITEM
        return Want(frozenset({OBJECT}), "an object", inner=inner)
    if origin is Literal:
        values = frozenset(map(str, typing.get_args(annotation)))
        return Want(frozenset({TEXT}), f"one of {', '.join(sorted(values))}", values)
    return None


def check_rule(rule: Rule, views: Sequence[View]) -> list[Problem]:
    """What is wrong with the rule's expressions, as far as the views of all topics tell that it can apply to."""
    return _RuleCheck(rule, together(matched(views, rule.match), VIEWS_MAX)).problems()


def unmatched(rule: Rule, views: Sequence[View], known: Iterable[str]) -> list[Problem]:
    """The patterns of the rule's `match` that no event can match; `known` are the types that there are."""
    problems = []
    for pattern, node in zip(rule.match, rule.written.match, strict=False):
        if views and not any(view.may_match(pattern) for view in views):
            listed = sorted(set(known))
            hint = did_you_mean(pattern, listed, f"known are {', '.join(listed[:8])}{' …' if len(listed) > 8 else ''}")
            message = f"match: by the schemas no event has the type {pattern}"
            problems.append(node.place.problem(NO_SUCH_TYPE, message, hint, "warning"))
    return problems


def note_problem(node: Node, start: int, where: str, note: Note, of: str = "") -> Problem:
    """A note as a problem at its own column; the expression begins at `start` of the node's text."""
    return node.at(start + note.start).problem(note.code, f"{where}: {note.message}{of}", note.hint, note.severity)


class _Key(NamedTuple):
    """One finding, the same for all views in which it is made."""

    node: int
    start: int
    code: str
    where: str


@dataclass(slots=True)
class _Found:
    node: Node
    start: int
    where: str
    note: Note
    views: list[View] = field(default_factory=list)


class _RuleCheck:
    def __init__(self, rule: Rule, views: Sequence[View]) -> None:
        self._rule = rule
        self._views = views
        self._found: dict[_Key, _Found] = {}
        self._seen: dict[tuple[int, str], int] = {}
        """In how many views each node was looked at."""
        self._sources: dict[tuple[int, int], Source] = {}
        self._parts: dict[int, list[scan.Part]] = {}
        self._view = View("", shapes.ANY)

    def problems(self) -> list[Problem]:
        rule = self._rule
        survivors: list[tuple[View, Env]] = []
        for view in self._views:
            self._view = view
            env = self._condition(rule.written.when, "when", view.env())
            if not dead(env):
                survivors.append((view, env))
        if not survivors and self._found:
            # The condition is wrong already, and told so; what is wrong below is told as well.
            survivors = [(view, view.env()) for view in self._views]
        for view, env in survivors:
            self._view = view
            for action in rule.actions:
                if action.written is not None:
                    self._action(action, env)
        return [self._told(found) for found in self._found.values() if self._holds(found)]

    def _holds(self, found: _Found) -> bool:
        return not found.note.everywhere or len(found.views) == self._seen[id(found.node), found.where]

    def _told(self, found: _Found) -> Problem:
        of = ""
        if len(found.views) < self._seen[id(found.node), found.where]:
            names = [view.type or f"*{view.ending}" if view.type or view.ending else view.topic for view in found.views]
            listed = list(dict.fromkeys(names))
            more = f" and {len(listed) - TOLD_MAX} more" if len(listed) > TOLD_MAX else ""
            of = f", in {', '.join(listed[:TOLD_MAX])}{more}"
        return note_problem(found.node, found.start, found.where, found.note, of)

    def _add(self, node: Node, start: int, where: str, notes: Iterable[Note]) -> None:
        for note in notes:
            key = _Key(id(node), start + note.start, note.code, where)
            found = self._found.setdefault(key, _Found(node, start, where, note))
            found.note = found.note._replace(hint=_of_both(found.note, note))
            if self._view not in found.views:
                found.views.append(self._view)

    def _look(self, node: Node, where: str) -> None:
        key = (id(node), where)
        self._seen[key] = self._seen.get(key, 0) + 1

    def _source(self, node: Node, part: scan.Part) -> Source:
        key = (id(node), part.start)
        if key not in self._sources:
            self._sources[key] = Source(part.text)
        return self._sources[key]

    # Conditions and values -------------------------------------------------------------------------------------------

    def _condition(self, node: Node | None, where: str, env: Env) -> Env:
        """What holds where the condition is true."""
        if node is None or not isinstance(node.value, str):
            return env
        self._look(node, where)
        source = self._source(node, scan.Part(node.value, 0, True))
        walker = Walker(source, condition=True)
        walker.value(source.root, env)
        self._add(node, 0, where, walker.notes)
        return narrowed(source, source.root, env, True)

    def _action(self, action: ActionTemplate, env: Env) -> None:
        written, kind = action.written, action.kind.value
        assert written is not None
        env = self._condition(written.when, f"{kind}.when", env)
        if dead(env):
            return
        maybe_null: dict[str, tuple[Node, Shape]] = {}
        for name, node in written.fields.items():
            if name not in action.model.model_fields:
                continue
            omit = written.omit and name not in _IDENTIFYING
            want = wanted(action.model, name)
            if want is not None and name in _ONE_TAG:
                want = want._replace(null=False, required=True)
            shape = self._value(node, f"{kind}.{name}", env, want, omit)
            if name in _NAMING or name == action.model.EMAIL_FIELD:
                maybe_null[name] = (node, shape)
        if len(maybe_null) == 1:
            self._names_nobody(kind, *maybe_null.popitem())

    def _names_nobody(self, kind: str, name: str, given: tuple[Node, Shape]) -> None:
        node, shape = given
        names = [shape, *(field.shape for each in shape.alternatives if isinstance(each, Object)
                          for field in each.fields.values())][isinstance(node.value, dict):]  # fmt: skip
        if not shape.unknown and names and all(NULL in each.kinds and not each.unknown for each in names):
            what = node.value if isinstance(node.value, str) else "this"
            message = f"{what} may be missing or null, and nothing else names the contact: the rule then fails"
            if isinstance(node.value, dict):
                if any(key.where.startswith(f"{kind}.{name}.") for key in self._found):
                    return  # told already, of the value itself
                self._look(node, f"{kind}.{name}")
            self._add(node, 0, f"{kind}.{name}", [Note(MAYBE, "warning", 0, 0, message)])

    def _value(self, node: Node, where: str, env: Env, want: Want | None, omit: bool) -> Shape:
        """The shape of a value of the file, null where it may be left out, with everything noted that does not fit."""
        value = node.value
        if isinstance(value, str):
            return self._text(node, value, where, env, want, omit)
        inner = want.inner if want else None
        if isinstance(value, dict):
            fields = {name: self._value(each, f"{where}.{name}", env, inner, omit) for name, each in value.items()}
            return Shape([Object({name: Field(shape) for name, shape in fields.items()})])
        if isinstance(value, list):
            items = [self._value(each, f"{where}[{number}]", env, inner, omit) for number, each in enumerate(value)]
            return list_of(union(items))
        return literal(value)

    def _text(self, node: Node, text: str, where: str, env: Env, want: Want | None, omit: bool) -> Shape:
        if id(node) not in self._parts:
            self._parts[id(node)] = scan.parts(text)
        parts = self._parts[id(node)]
        if not any(part.is_expression for part in parts):
            return TEXT_SHAPE
        self._look(node, where)
        if len(parts) > 1:
            for part in parts:
                if part.is_expression:
                    self._interpolated(node, part, where, env, omit)
            return TEXT_SHAPE
        source = self._source(node, parts[0])
        walker = Walker(source)
        shape, absent = walker.leaf(source.root, env, omit=omit)
        self._add(node, parts[0].start, where, walker.notes)
        if want is not None and not shape.unknown and (absent or not shape.never):
            start, end = source.start(source.root), source.end(source.root)
            self._add(node, parts[0].start, where, _unfit(shape, absent, want, start, end, source.of(source.root)))
        return union([shape, NULL_SHAPE]) if absent else shape

    def _interpolated(self, node: Node, part: scan.Part, where: str, env: Env, omit: bool) -> None:
        """An expression whose value is put into a text."""
        source = self._source(node, part)
        walker = Walker(source)
        shape, text = walker.put_into_text(source.root, env, omit=omit), source.of(source.root)
        self._add(node, part.start, where, walker.notes)
        composed = shape.only([LIST, OBJECT])
        if not shape.unknown and not composed.never:
            message = f"{text} {'is' if composed.kinds == shape.kinds else 'may be'} {words(composed)}"
            hint = "it is put into the text as JSON: name a field of it, or join its items with ', '.join(…)"
            start, end = source.start(source.root), source.end(source.root)
            self._add(node, part.start, where, [Note(WRONG, "warning", start, end, message, hint)])


def _of_both(first: Note, second: Note) -> str:
    """The hint of the same finding in two views: the nearest name of either; lists of values are each only its own."""
    if first.hint == second.hint or first.hint.startswith("did you mean"):
        return first.hint
    return second.hint if second.hint.startswith("did you mean") else first.hint * (first.code != NEVER_EQUAL)


_ONE_TAG = frozenset({"tag_name", "tag_id"})
"""An action on a tag has one of them."""

_NAMING = frozenset({"external_id", "contact", "aliases"})
_IDENTIFYING = frozenset({"email", "to_email", "external_id", "contact"})


def _unfit(shape: Shape, absent: bool, want: Want, start: int, end: int, text: str) -> list[Note]:
    """What a field does not take of its value, which may also be left out (`absent`)."""
    notes = []

    def note(certain: bool, what: str) -> None:
        message = f"{text} {'is' if certain else 'may be'} {what}; the field takes {want.told}"
        notes.append(Note(WRONG, "error" if certain else "warning", start, end, message))

    null = NULL in shape.kinds
    good, bad = shape.only(want.kinds), shape.without(*want.kinds, NULL)
    left_out = (absent and not want.required) or (null and want.null)
    if not bad.never:
        note(good.never and not left_out, words(bad))
    elif (null and not want.null) or (absent and want.required):
        certain = good.never and not left_out
        message = (
            f"{text} {'is' if certain else 'may be'} {'null' if null else 'left out'}; the field takes {want.told}"
        )
        plain = text.removeprefix("optional(").removesuffix(")") if text.startswith("optional(") else text
        severity = "error" if certain else "warning"
        notes.append(Note(WRONG if certain else MAYBE, severity, start, end, message, f"write default({plain}, …)"))
    if want.values is not None and not good.never and (given := good.values) is not None:
        strange = sorted(str(value) for _, value in given if value not in want.values)
        if strange:
            note(len(strange) == len(given) and bad.never and not left_out, ", ".join(strange[:3]))
    if want.inner is not None:
        inner = union([shapes.items(good), shapes.members(good)])
        if not inner.unknown and not inner.never and not inner.kinds & want.inner.kinds:
            message = f"{text} holds {words(inner)}; the field takes {want.told}"
            notes.append(Note(WRONG, "warning", start, end, message))
    return notes
