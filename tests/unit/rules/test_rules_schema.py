"""The JSON Schema that editors use for rules files agrees with the loader, and the committed one is the current one."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from bridge.actions import MODELS
from bridge.errors import ProblemsFound
from bridge.rules import advise, cases, load_text
from bridge.rules import schema as made
from bridge.rules.loader import RULE_KEYS
from bridge.rules.schema import json_schema
from tests.support.amount import examples

ROOT = Path(__file__).parents[3]
FILES = sorted(
    path
    for folder in ("config", "tests", "benchmarks", "bridge")
    for path in (ROOT / folder).rglob("*.yaml")
    if path.read_text().partition("\nrules:\n")[1] or path.read_text().startswith("rules:\n")
)
VALIDATOR = jsonschema.Draft202012Validator(json_schema())


def loaded(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def codes(document: Any) -> set[str]:
    """What the loader finds wrong with a document; JSON is YAML too."""
    try:
        book = load_text(json.dumps(document, ensure_ascii=False))
    except ProblemsFound as error:
        return {problem.code for problem in error.problems}
    for format in ("json", "debezium"):
        advise(book, {"t": format, "u": format})  # whatever is loaded can be looked at
    return set()


def test_the_schema_is_a_schema_and_the_committed_one_is_current() -> None:
    """Renew it with: meisa-bridge schema rules > schemas/rules.schema.json"""
    jsonschema.Draft202012Validator.check_schema(json_schema())
    assert json.loads((ROOT / "schemas" / "rules.schema.json").read_text()) == json_schema()


def test_every_key_field_and_option_is_there_and_explained() -> None:
    """A key that the loader knows and the schema does not would be an error in every editor."""
    fields = {name for model in MODELS.values() for name in model.model_fields if name not in model.OPTIONS}
    options = {name for model in MODELS.values() for name in model.OPTIONS} | {"when", "missing"}
    assert set(made.FIELDS) == fields and set(made.OPTIONS) == options
    assert set(made.RULE) == set(RULE_KEYS)
    assert set(made.TEST) == set(cases.TOP_TEST_KEYS) and set(made.EVENT) == set(cases.EVENT_KEYS)
    described = json_schema()["$defs"]
    for name in ("rule", "test", "top_test", "event", *MODELS):
        assert all("description" in each for each in described[name]["properties"].values()), name
    for kind, model in MODELS.items():
        inside = described[kind]["properties"][kind.value]["properties"]
        assert set(inside) | (set(described[kind]["properties"]) - {kind.value, "when", "missing"}) == set(
            model.model_fields
        )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_rules_file_of_this_project_passes(path: Path) -> None:
    assert len(FILES) >= 8
    assert [error.message for error in VALIDATOR.iter_errors(loaded(path.read_text()))] == []


@pytest.mark.parametrize("path", [path for path in FILES if "config" in path.parts], ids=lambda path: path.name)
def test_the_samples_name_the_schema_where_it_is(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    assert first.startswith("# yaml-language-server: $schema=")
    assert (path.parent / first.partition("=")[2]).resolve() == ROOT / "schemas" / "rules.schema.json"


RIGHT = """\
x-anything: [1]
rules:
  - name: a
    match: [user.x, "user.*"]
    topic: t
    when: data.x and data.y > 1
    enabled: true
    lane: bulk
    coalesce: false
    preserve: [custom_fields.plan, first_name]
    linger: 30s
    lazy: custom_fields.last_active
    lazy_every: 6h
    do:
      - upsert:
          email: ${data.email}
          external_id: 7
          first_name: Dr. ${data.name}
          last_name:
          source: ${data.source}
          custom_fields: {a: 1, b: [x], c: null}
          tag_names: [a, "${data.tag}"]
        aliases: {stripe: "${optional(data.stripe)}"}
        missing: omit
        when: false
      - upsert: {external_id: a, custom_fields: "${data.fields}", tag_names: "${data.tags}"}
        contact: "${data.ids}"
      - track: {event_name: "${data.name}", email: a, properties: {}}
        on_missing: wait
        max_age: none
      - trigger: {trigger_key: a, to_email: b, variables: {x: "${data.y}"}, recipient: {a: 1}, idempotency_key: k}
        order: independent
        on_suppressed: dead_letter
        lane: transactional
        max_age: 15m
      - enroll: {sequence_slug: a, email: b, metadata: {}, trigger_source: c, override_unsubscribe: "${data.o}"}
      - add_tag: {tag_name: a, email: b}
      - remove_tag: {tag_id: 7}
        contact: {stripe: a}
    tests:
      - name: one
        event: {id: 1, type: user.x, source: s, subject: t, time: "2026-01-01T00:00:00Z", data: {x: 1}, key: k,
                headers: {a: b}, topic: t, partition: 0, offset: 1, timestamp: 1}
        given: {identities: [{email: a, external_id: b}]}
        now: "2026-01-01T00:00:00Z"
        expect: [{upsert: {email: a}, exact: true}, {track: }, {trigger: {}, max_age: 15m}]
        exact: false
      - events: [{type: user.x}]
        expect_error: {kind: rule, path: data.x, rule: a, message: is missing}
tests:
  - event: {value: {type: user.x}}
    rule: a
    expect: []
"""


def test_whatever_the_loader_takes_the_schema_takes() -> None:
    document = loaded(RIGHT)
    assert codes(document) == set()
    assert [error.message for error in VALIDATOR.iter_errors(document)] == []


DOCUMENT = loaded(RIGHT)


def loaded_right() -> Any:
    return copy.deepcopy(DOCUMENT)


Step = str | int


def routes(document: Any, above: tuple[Step, ...] = ()) -> list[tuple[Step, ...]]:
    """Every place in a document."""
    found = [above] if above else []
    below = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for step, inner in below:
        found += routes(inner, (*above, step))
    return found


def at(document: Any, route: tuple[Step, ...]) -> Any:
    for step in route:
        document = document[step]
    return document


PLACES = [route for route in routes(loaded(RIGHT)) if route[0] != "x-anything"]
KEYS = [route for route in PLACES if isinstance(route[-1], str)]
FREE = {"data", "value", "headers", "custom_fields", "properties", "variables", "recipient", "metadata", "identities",
        "aliases", "contact"}  # fmt: skip
"""Below these any keys will do, or only the loader knows which."""


def named(route: tuple[Step, ...]) -> bool:
    """Whether keys here have names that are known."""
    return not FREE & set(map(str, route[:-1]))


def test_an_unknown_key_is_refused_wherever_it_stands() -> None:
    """One at a time by the schema; the loader finds all of them at once."""
    everywhere = loaded(RIGHT)
    parents = sorted({route[:-1] for route in KEYS if named(route)}, key=str)
    for parent in parents:
        document = loaded_right()
        at(document, parent)["unknown"] = 1
        assert not VALIDATOR.is_valid(document), parent
        at(everywhere, parent)["unknown"] = 1
    with pytest.raises(ProblemsFound) as found:
        load_text(json.dumps(everywhere, ensure_ascii=False))
    assert len([problem for problem in found.value.problems if "unknown" in problem.message]) == len(parents)


STRUCTURE = {"MB103", "MB105", "MB107", "MB120", "MB121", "MB122", "MB126", "MB127"}
"""What is wrong with keys and options. Of values in fields (MB104, MB123) and of tests the schema knows most."""


@settings(max_examples=examples(120))
@given(
    st.sampled_from(PLACES),
    st.sampled_from(["drop", "value"]),
    st.sampled_from(
        [None, True, 7, 1.5, "text", "", "${data.x}", "a ${data.x}", "10m", "none", "bulk", [], ["a"], {}, {"a": "b"}]
    ),
)
def test_one_change_is_judged_alike(route: tuple[Step, ...], change: str, value: Any) -> None:
    """Never a mistake in the editor that the loader does not find; and none of structure that only the loader finds."""
    document = loaded_right()
    above = at(document, route[:-1])
    if change == "drop":
        del above[route[-1]]
    else:
        above[route[-1]] = value
    found, valid = codes(document), VALIDATOR.is_valid(document)
    if not found:
        assert valid, [error.message for error in VALIDATOR.iter_errors(document)]
    if found & STRUCTURE:
        assert not valid, found
