"""What the catalogue's checker calls compatible is: the libraries themselves read the old data by the new schema."""

from __future__ import annotations

import io
from typing import Any

import fastavro
import fastavro.utils
import jsonschema
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.generate import files
from schemas.generate.catalogue import Catalogue, example, parse
from schemas.generate.compatibility import incompatible
from tests.support.amount import examples

EXAMPLES = {
    "text": "pro",
    "id": "u",
    "country": "DE",
    "time": "2026-01-01T00:00:00Z",
    "boolean": True,
    "integer": 3,
    "number": 1.5,
    "cycle": "annual",
}


NAMES = ["a", "b", "c", "d", "g"]


def entry(type: str) -> dict[str, Any]:
    made: dict[str, Any] = {"type": type, "about": ""}
    return made if type == "utm" else {**made, "example": EXAMPLES[type]}


def written(fields: dict[str, tuple[str, bool]], symbols: int, inner: int) -> Catalogue:
    """`fields`: name → type and whether it is optional; how many symbols the enum has, and fields the inner object."""
    event = {"theme": "t", "about": "", "at": "2026-01-01T00:00:00Z", "with": []}
    return parse(
        {
            "version": "1.0.0",
            "namespace": "a.b",
            "topic": "t",
            "envelope": {name: {"about": name} for name in ("id", "type", "time", "data")},
            "types": {
                "cycle": {"about": "", "enum": ["annual", "monthly", "lifetime"][:symbols]},
                "utm": {"about": "", "fields": {f"{name}?": entry("text") for name in NAMES[:inner]}},
            },
            "groups": {},
            "themes": {"t": ""},
            "events": {
                "plan.changed": {
                    **event,
                    "fields": {f"{name}{'?' * optional}": entry(type) for name, (type, optional) in fields.items()},
                }
            },
        }
    )


@st.composite
def changes(draw: st.DrawFn) -> tuple[Catalogue, Catalogue]:
    """A small catalogue before and after an edit or two: half of the edits are harmless."""
    field = st.tuples(st.sampled_from([*EXAMPLES, "utm"]), st.booleans())
    fields = {"e": ("cycle", True), "f": ("utm", False)}
    fields |= draw(st.dictionaries(st.sampled_from(NAMES), field, max_size=3))
    symbols, inner = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    old = written(fields, symbols, inner)
    fields = dict(fields)
    for edit in draw(
        st.lists(st.sampled_from(["add", "more", "deeper", "remove", "change", "any"]), min_size=1, max_size=2)
    ):
        if edit == "add":
            new = next(name for name in NAMES if name not in fields)
            fields[new] = (draw(st.sampled_from([*EXAMPLES, "utm"])), True)
        elif edit == "more":
            symbols = 3
        elif edit == "deeper":
            inner = draw(st.integers(1, 4))
        elif edit == "remove":
            fields.pop(draw(st.sampled_from(sorted(fields))))
        elif edit == "change":
            fields[draw(st.sampled_from(sorted(fields)))] = draw(field)
        else:
            symbols = draw(st.integers(1, 3))
    return old, written(fields, symbols, inner)


@given(change=changes())
@settings(max_examples=examples(400))
def test_what_is_called_compatible_reads_old_data(change: tuple[Catalogue, Catalogue]) -> None:
    """In both languages, and the value says what it said; a catalogue is always compatible with itself."""
    old, new = change
    then, now = files.snapshot(old), files.snapshot(new)
    assert incompatible(then, then) == []
    if incompatible(then, now):
        return
    before, after = then["plan.changed"], now["plan.changed"]
    for only_required in (False, True):
        value = example(old, old.events[0], only_required=only_required)
        jsonschema.Draft7Validator(after["json_schema"]).validate(value)
    writer, reader = fastavro.parse_schema(before["avro"]), fastavro.parse_schema(after["avro"])
    for value in fastavro.utils.generate_many(writer, 3):
        stream = io.BytesIO()
        fastavro.schemaless_writer(stream, writer, value)
        was = fastavro.schemaless_reader(io.BytesIO(stream.getvalue()), writer, None)
        assert said_by(fastavro.schemaless_reader(io.BytesIO(stream.getvalue()), writer, reader), was)


def said_by(new: Any, old: Any) -> bool:
    if isinstance(old, dict):
        return all(name in new and said_by(new[name], value) for name, value in old.items())
    return bool(new == old)
