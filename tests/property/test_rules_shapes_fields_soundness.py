"""Rules, schemas and events: what the checker says of an action's fields, against what planning does with them."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.model import Event, Record
from bridge.rules import load_text
from bridge.rules.shapes.events import View
from bridge.rules.shapes.fields import check_rule
from bridge.rules.shapes.json_schema import from_json_schema
from tests.support.amount import examples

VALUES: dict[str, list[Any]] = {
    "string": ["a", "pro"],
    "integer": [0, 7],
    "boolean": [True, False],
    "null": [None],
    "array": [["a"], ["b", "c"]],
    "object": [{"x": "a"}],
}
SCHEMAS: dict[str, dict[str, Any]] = {
    **{kind: {"type": kind} for kind in ("string", "integer", "boolean", "null")},
    "array": {"type": "array", "items": {"type": "string"}},
    "object": {"type": "object", "properties": {"x": {"type": "string"}}, "additionalProperties": False},
}
FIELDS = [
    "upsert: {email: 'a@b.c', first_name: '${data.a}'}",
    "upsert: {email: 'a@b.c', external_id: '${data.a}'}",
    "upsert: {external_id: '${data.a}'}",
    "upsert: {external_id: '${optional(data.a)}'}",
    "upsert: {external_id: '${default(data.a, optional(null))}', first_name: x}",
    "upsert: {email: 'a@b.c', tag_names: '${data.a}'}",
    "upsert: {email: 'a@b.c', tag_names: ['x', '${data.a}']}",
    "upsert: {email: 'a@b.c', custom_fields: '${data.a}'}",
    "upsert: {email: 'a@b.c', custom_fields: {plan: '${data.a}'}}",
    "upsert: {email: 'a@b.c', display_name: 'x ${data.a}'}",
    "upsert: {first_name: x}\n        aliases: {stripe: '${optional(data.a)}'}",
    "upsert: {first_name: x}\n        aliases: {stripe: '${data.a}', paddle: '${optional(data.a)}'}",
    "track: {email: 'a@b.c', event_name: '${data.a}'}",
    "track: {event_name: x, external_id: '${data.a}'}",
    "track: {email: 'a@b.c', event_name: x, properties: '${data.a}'}",
    "trigger: {trigger_key: '${data.a}', to_email: 'a@b.c'}",
    "enroll: {sequence_slug: '${optional(data.a)}', email: 'a@b.c'}",
    "add_tag: {tag_name: '${data.a}', email: 'a@b.c'}",
    "enroll: {sequence_slug: x, email: 'a@b.c', metadata: '${optional(data.a)}'}",
]
BESIDE = ["", "\n        contact: {stripe: '${data.a}'}", "\n        missing: omit", "\n        when: has(data.a)"]
KINDS = st.sets(st.sampled_from(sorted(SCHEMAS)), min_size=1, max_size=3)


@settings(max_examples=examples(400))
@given(KINDS, st.booleans(), st.sampled_from(FIELDS), st.sampled_from(BESIDE))
def test_fields_are_judged_as_planning_judges_them(kinds: set[str], required: bool, action: str, beside: str) -> None:
    """An error: planning fails for every event. A failure for some event: the checker has said something."""
    schema = {"anyOf": [SCHEMAS[kind] for kind in sorted(kinds)]}
    data = {"type": "object", "properties": {"a": schema}, "required": ["a"] if required else []}
    book = load_text(f"rules:\n  - name: r\n    match: x\n    do:\n      - {action}{beside}\n")
    problems = check_rule(book.rules[0], [View("t", from_json_schema(data), "x")])
    values: list[dict[str, Any]] = [{"a": value} for kind in kinds for value in VALUES[kind]]
    failed = [bool(book.plan(event_of(value)).failures) for value in (values if required else [*values, {}])]
    planned = [bool(book.plan(event_of(value)).actions) for value in values]
    if any(problem.severity == "error" for problem in problems):
        assert not any(planned), problems
    if any(failed):
        assert problems, (kinds, required, action, beside)


def event_of(data: Any) -> Event:
    record = Record("t", 0, 0, 0, b"k", b"{}")
    return Event(id="1", type="x", time="2026-01-01T00:00:00Z", time_wall_seconds=0.0, data=data, record=record)
