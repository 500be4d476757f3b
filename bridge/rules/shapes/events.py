"""What the events of a topic look like to rules, by its schemas and its format.

A topic with several types of events is taken apart by their types: by the values that the schema lists for the type
(`oneOf` with a `const` each), by the map under `schema`, by the names of Avro records, by Debezium's operations. Each
becomes a View; a rule is checked against the views whose type its `match` lets through.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bridge.rules import scan
from bridge.rules.scan import ExpressionError
from bridge.rules.shapes import refining
from bridge.rules.shapes import shape as shapes
from bridge.rules.shapes.narrow import Env, path_of
from bridge.rules.shapes.notes import Note
from bridge.rules.shapes.shape import (
    ANY,
    NEVER,
    NULL,
    NULL_SHAPE,
    NUMBER_SHAPE,
    TEXT,
    TEXT_SHAPE,
    Object,
    Openness,
    Shape,
    text_in,
    union,
)
from bridge.rules.shapes.walk import Walker
from bridge.rules.source import Source

TYPES_MAX = 500
"""Types of events of one topic that are told apart; beyond, they are looked at as one."""

_WILD = re.compile(r"[*?\[]")
_VERBS = {"c": "created", "u": "updated", "d": "deleted", "r": "read", "t": "truncated"}


@dataclass(frozen=True, slots=True)
class View:
    """What events of one type (or of types that nobody tells apart) look like on one topic."""

    topic: str
    data: Shape
    type: str = ""
    """Empty where any type may be meant."""
    ending: str = ""
    """Of an unknown type: how it ends; `.created` for a table that nobody names."""
    besides: frozenset[str] = frozenset()
    """Of an unknown type: which types it is not, because they have views of their own."""

    def may_match(self, pattern: str) -> bool:
        """Whether the type, as far as it is known, can be one that the pattern of a `match` lets through."""
        if self.type:
            return fnmatch.fnmatchcase(self.type, pattern) if _WILD.search(pattern) else self.type == pattern
        if not self.ending:
            return pattern not in self.besides
        tail = _WILD.split(pattern)[-1].rpartition("]")[2] if _WILD.search(pattern) else pattern
        if not _WILD.search(pattern):
            return pattern.endswith(self.ending)
        return tail.endswith(self.ending) or self.ending.endswith(tail)

    def env(self) -> Env:
        """The names of rules."""
        return {
            **_record_env(self.topic),
            "data": self.data,
            "event.id": TEXT_SHAPE,
            "event.type": text_in(self.type) if self.type else TEXT_SHAPE,
            "event.time": TEXT_SHAPE,
            "event.source": TEXT_SHAPE,  # or null, which the producer knows
            "event.subject": TEXT_SHAPE,
        }


def _record_env(topic: str) -> dict[str, Shape]:
    return {
        "key": TEXT_SHAPE,
        "headers": Shape([Object({}, Openness.OPEN, TEXT_SHAPE)]),
        "topic": text_in(topic),
        "partition": NUMBER_SHAPE,
        "offset": NUMBER_SHAPE,
        "timestamp": NUMBER_SHAPE,
    }


def of_unknown(topic: str) -> list[View]:
    """Without a schema."""
    return [View(topic, ANY)]


def of_data(topic: str, whole: Shape | None, by_type: Mapping[str, Shape]) -> list[View]:
    """Where a schema describes the event's data alone (cloudevents)."""
    if whole is not None:
        return [View(topic, whole)]
    return [*(View(topic, shape, name) for name, shape in by_type.items()), *others(topic, by_type)]


def others(topic: str, listed: Iterable[str]) -> list[View]:
    """Events of types that have no schema."""
    return [View(topic, ANY, besides=frozenset(listed))]


# Values with an envelope ---------------------------------------------------------------------------------------------

EnvelopeNote = tuple[str, Note]
"""The part of the envelope, and what is to be said of it."""


@dataclass(slots=True)
class Enveloped:
    """The events in values with an envelope; `envelope` has the texts of the parts that are configured."""

    topic: str
    envelope: Mapping[str, str]
    notes: list[EnvelopeNote] = field(default_factory=list)
    """Filled while views are made."""
    with_data: int = 0
    without_data: int = 0
    """How many of the views made have data by the schema."""

    @property
    def no_data(self) -> bool:
        """The default envelope, and no value has `data`: the schema describes something else than it should."""
        return bool(self.without_data) and not self.with_data and "data" not in self.envelope

    def whole(self, value: Shape, *, is_data: bool = False) -> list[View]:
        """By one schema for all values, told apart by the values that it lists for the type; with `is_data` the value
        itself is the data."""
        types = self._part("type", value)
        known = types.values  # of ANY and NEVER nothing
        names = sorted(str(each) for kind, each in known if kind == TEXT) if known else []
        source = _single(self._text("type"))
        path = path_of(source.root, source, self._env(value)) if source else None
        if not names or len(names) > TYPES_MAX or path is None or path.root != "value":
            return [View(self.topic, value if is_data else self._data(value))]
        told_apart = [(name, refining.refined(value, path.steps, refining.equal_to([name]))) for name in names]
        return [View(self.topic, each if is_data else self._data(each), name) for name, each in told_apart]

    def by_type(self, values: Mapping[str, Shape]) -> list[View]:
        """By a schema for each type; nothing is known of others."""
        views = [View(self.topic, self._data(value), name) for name, value in values.items()]
        return [*views, *others(self.topic, values)]

    def record(self, name: str, value: Shape) -> list[View]:
        """By an Avro record, which is the data itself, with its name as type, where it has no such fields."""
        fields = shapes.names(value)
        is_data = "data" not in fields and "data" not in self.envelope
        if "type" not in fields and "type" not in self.envelope:
            return [View(self.topic, value if is_data else self._data(value), name)]
        return self.whole(value, is_data=is_data)

    def _text(self, part: str) -> str:
        return self.envelope.get(part, f"${{value.{part}}}")

    def _env(self, value: Shape) -> Env:
        return {**_record_env(self.topic), "value": value}

    def _part(self, part: str, value: Shape) -> Shape:
        """What the envelope's template gives; what it names in vain is noted."""
        source = _single(self._text(part))
        if source is None:
            return TEXT_SHAPE
        walker = Walker(source)
        shape, _ = walker.leaf(source.root, self._env(value))
        errors = [note for note in walker.notes if note.severity == "error"]
        if part in self.envelope:
            self.notes += [(part, note) for note in errors]
        return NEVER if errors else shape

    def _data(self, value: Shape) -> Shape:
        """Null and missing data count as an empty object; that event lacks everything, and is not looked at.

        What `id` and `time` name in vain would go unseen for long: the record's offset and timestamp stand in."""
        for part in ("id", "time"):
            if part in self.envelope:
                self._part(part, value)
        shape = self._part("data", value).without(NULL)
        self.without_data += shape.never
        self.with_data += not shape.never
        return ANY if shape.never else shape


def _single(text: str) -> Source | None:
    """The expression of a text that is one `${…}`; None for other texts, and for those that cannot be read."""
    try:
        parts = scan.parts(text)
        return Source(parts[0].text) if len(parts) == 1 and parts[0].is_expression else None
    except ExpressionError:
        return None


# Debezium ------------------------------------------------------------------------------------------------------------


def of_changes(topic: str, payload: Shape) -> list[View]:
    """Of Debezium's change events: `<table>.created` and so on; a created row has no before, a deleted one no after."""
    table = shapes.read(shapes.read(payload, "source").shape, "table").shape.values
    tables = [str(each) for kind, each in table if kind == TEXT] if table else []
    views = []
    for op, verb in _VERBS.items():
        data = _change(payload, op)
        if data.never:
            continue  # the schema knows no such operation, or is not one of change events
        if tables:
            views += [View(topic, data, f"{name}.{verb}") for name in tables]
        else:
            views.append(View(topic, data, ending=f".{verb}"))
    return [*views, View(topic, ANY, "message")] if views else of_unknown(topic)


def of_typed_changes(topic: str, payloads: Mapping[str, Shape]) -> list[View]:
    """The same with a schema for each type."""
    ops = {verb: op for op, verb in _VERBS.items()}
    views = []
    for name, payload in payloads.items():
        op = ops.get(name.rpartition(".")[2])
        data = _change(payload, op) if op else payload
        views.append(View(topic, ANY if data.never else data, name))
    return [*views, *others(topic, payloads)]


def _change(payload: Shape, op: str) -> Shape:
    """The payload of one operation."""
    data = refining.refined(payload, ("op",), refining.equal_to([op]))
    if op in "crt" and not shapes.read(data, "before").shape.never:
        data = refining.refined(data, ("before",), lambda shape: NULL_SHAPE)
    if not shapes.read(data, "after").shape.never:
        data = refining.refined(data, ("after",), (lambda shape: NULL_SHAPE) if op in "dt" else _not_null)
    return data


def _not_null(shape: Shape) -> Shape:
    return shape.without(NULL)


# Matching ------------------------------------------------------------------------------------------------------------


def matched(views: Iterable[View], patterns: Sequence[str]) -> list[View]:
    """Those that a rule may apply to."""
    return [view for view in views if any(view.may_match(pattern) for pattern in patterns)]


def together(views: Sequence[View], most: int) -> list[View]:
    """At most so many: the last one stands for all that are too many."""
    if len(views) <= most:
        return list(views)
    rest = views[most - 1 :]
    return [*views[: most - 1], View(rest[0].topic, union(view.data for view in rest))]
