"""Whether the rules fit the schemas: every field that an expression names, on every topic that its rule applies to."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import structlog

from bridge.decode.schema import Schema, TopicSchemas
from bridge.errors import Problem
from bridge.places import Place
from bridge.rules.shapes.avro import branches, from_avro
from bridge.rules.shapes.events import (
    Enveloped,
    View,
    matched,
    of_changes,
    of_data,
    of_typed_changes,
    of_unknown,
    others,
)
from bridge.rules.shapes.fields import check_rule, unmatched
from bridge.rules.shapes.json_schema import from_json_schema
from bridge.rules.shapes.notes import MISSING
from bridge.rules.shapes.shape import Shape
from bridge.schema_files import load_schemas

if TYPE_CHECKING:
    from bridge.config import Settings, Topic
    from bridge.rules import Rule, RuleBook

log = structlog.get_logger(__name__)

START_SECONDS_MAX = 2.0
"""Of a start, or a reload, for looking at the rules: hundreds of them. `check` looks at all."""

TOLD_MAX = 10
"""Problems in the log of a start; `check` tells all."""


def field_problems(
    topics: Mapping[str, Topic],
    schemas: Mapping[str, TopicSchemas],
    book: RuleBook,
    place: Callable[..., Place],
    go_on: Callable[[], bool] = lambda: True,
) -> list[Problem]:
    """What is wrong with the enabled rules, and with envelopes, by the schemas of the topics. `place` tells where a
    setting is written; where `go_on` says no, the rules that are left are not looked at."""
    problems: list[Problem] = []
    views: dict[str, list[View]] = {}
    for name, topic in topics.items():
        views[name] = _views(name, topic, schemas.get(name, TopicSchemas()), place, problems)
    for rule in book.rules:
        if rule.enabled and go_on():
            seen = {name: views[name] for name in rule.topics or topics if name in views}
            every = [view for each in seen.values() for view in each]
            problems += unmatched(rule, every, (view.type for view in every if view.type))
            problems += _misfits(rule, seen)
    return list(dict.fromkeys(problems))


def _misfits(rule: Rule, seen: Mapping[str, list[View]]) -> list[Problem]:
    """What is wrong with a rule on the topics that it may apply to.

    A rule that names no topic goes by the types of events, and a schema need not tell them: `type` is just a text in
    most of Avro. Whether such a topic brings events of this rule nobody knows. It counts only where no other topic is
    known to; and of several such the one that the rule fits best was meant.
    """
    every = [view for each in seen.values() for view in each]
    if rule.topics or len(seen) < 2 or "*" in rule.match:
        return check_rule(rule, every)
    known = matched([view for view in every if view.type or view.ending], rule.match)
    if known:
        return check_rule(rule, known)
    candidates = [found for each in seen.values() if (found := matched(each, rule.match))]
    return min((check_rule(rule, each) for each in candidates), key=len, default=[])


def tell(settings: Settings, book: RuleBook) -> None:
    """For a service that starts: logs what `check` calls problems. A schema that has changed stops no service."""
    if not any(topic.schemas for topic in settings.topics.values()):
        return
    try:
        schemas, _ = load_schemas(settings.topics, settings.base_dir, settings.place)
        until = time.monotonic() + START_SECONDS_MAX
        problems = field_problems(
            settings.topics, schemas, book, settings.place, go_on=lambda: time.monotonic() < until
        )
    except Exception:  # whatever it is, events are delivered without it
        log.exception("comparing the rules with the schemas broke in the bridge itself; nothing depends on it")
        return
    for problem in problems[:TOLD_MAX]:
        log.warning(
            "the rules and a schema do not go together: events may match no rule, or fail in one and be dead-lettered; "
            "meisa-bridge check tells more",
            problem=str(problem),
        )
    if len(problems) > TOLD_MAX:
        log.warning(
            "more of the rules and the schemas do not go together: meisa-bridge check tells all",
            problems=len(problems) - TOLD_MAX,
        )


def _views(
    name: str, topic: Topic, schemas: TopicSchemas, place: Callable[..., Place], problems: list[Problem]
) -> list[View]:
    """What the topic's events look like."""
    if not schemas:
        return of_unknown(name)
    if topic.format == "cloudevents":
        return of_data(name, _maybe(schemas.whole), {each: _shape(schema) for each, schema in schemas.by_type.items()})
    if topic.format == "debezium":
        if schemas.whole is not None:
            return of_changes(name, _shape(schemas.whole))
        return of_typed_changes(name, {each: _shape(schema) for each, schema in schemas.by_type.items()})
    parts = topic.envelope.model_fields_set if topic.envelope is not None else ()
    enveloped = Enveloped(name, {part: getattr(topic.envelope, part) for part in sorted(parts)})
    if topic.is_avro:
        views = _records(enveloped, schemas)
    elif schemas.whole is not None:
        views = enveloped.whole(_shape(schemas.whole))
    else:
        views = enveloped.by_type({each: _shape(schema) for each, schema in schemas.by_type.items()})
    for part, note in enveloped.notes:
        at = place("topics", name, "envelope", part)
        problems.append(at.problem(note.code, f"envelope.{part}: {note.message}", note.hint, note.severity))
    if enveloped.no_data:
        message = "the schema has no field data: it is to describe a record's whole value, with id, type, time and data"
        hint = "put the fields of data under data in the schema, or say where they stand: envelope: {data: ${value}}"
        problems.append(place("topics", name, "schema").problem(MISSING, message, hint))
    return views


def _records(enveloped: Enveloped, schemas: TopicSchemas) -> list[View]:
    """Of Avro."""
    if schemas.whole is None:
        views = [
            view
            for each, schema in schemas.by_type.items()
            for name, document in branches(schema.document)
            for view in enveloped.record(name, from_avro(document, schema.others))
            for view in [view if view.type == name else View(view.topic, view.data, each)]
        ]
        return [*views, *others(enveloped.topic, [view.type for view in views])]
    whole = schemas.whole
    named = {**whole.others, **{name: each for name, each in branches(whole.document) if name}}
    return [
        view if view.type or "type" in enveloped.envelope else replace(view, type=_default_type(document))
        for name, document in branches(whole.document)
        for view in enveloped.record(name, from_avro(document, named))
    ]


def _default_type(document: Any) -> str:
    """The type of a record's events, where the schema has a default for it: that is what generated classes fill in.
    Empty where it has none."""
    fields = document.get("fields", ()) if isinstance(document, dict) else ()
    default = next((each.get("default") for each in fields if each.get("name") == "type"), None)
    return default if isinstance(default, str) else ""


def _maybe(schema: Schema | None) -> Shape | None:
    return None if schema is None else _shape(schema)


def _shape(schema: Schema) -> Shape:
    if schema.kind == "avro":
        return from_avro(schema.document, schema.others)
    return from_json_schema(schema.document, schema.path.as_uri(), schema.others)
