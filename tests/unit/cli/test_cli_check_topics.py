"""`check` with several topics: a rule that names none is compared with the schemas of those that bring its events."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bridge import config, schema_fit
from bridge.places import Place
from bridge.rules import load, load_text
from bridge.schema_files import load_schemas
from schemas.generate import files

ROOT = Path(__file__).parents[3]
RULES = """\
rules:
  - name: signup
    match: user.signed_up
    do: [{upsert: {email: "${data.email}", first_name: "${data.first_name}"}}]
  - name: plan
    match: plan.changed
    do: [{upsert: {email: "${data.email}", custom_fields: {plan: "${data.plan}"}}}]
"""


def avro(name: str, *fields: str, **type: str) -> dict[str, Any]:
    """A record with an envelope whose type is just a text, with fields of text under data."""
    data = {"type": "record", "name": f"{name}Data", "fields": [{"name": each, "type": "string"} for each in fields]}
    parts = [{"name": "type", "type": "string", **type}, {"name": "data", "type": data}]
    return {"type": "record", "name": name, "fields": parts}


def found(tmp_path: Path, rules: str = RULES, **topics: Any) -> list[str]:
    """What is told with these topics; an Avro schema for each, None for one of JSON without a schema."""
    made = {}
    for name, schema in topics.items():
        if schema is None:
            made[name] = config.Topic()
            continue
        (tmp_path / f"{name}.avsc").write_text(json.dumps(schema))
        made[name] = config.Topic.model_validate({"format": "avro", "schema": f"{name}.avsc"})
    schemas, problems = load_schemas(made, tmp_path, lambda *route: Place(""))
    assert problems == []
    told = schema_fit.field_problems(made, schemas, load_text(rules), lambda *route: Place(""))
    return [f"{problem.code} {problem.message}" for problem in told]


BILLING = avro("PlanChanged", "email", "plan")
USERS = avro("SignedUp", "email", "first_name")


def test_a_topic_whose_schema_does_not_tell_types_raises_no_alarm_about_rules_for_others(tmp_path: Path) -> None:
    """Sign-ups may come on the topic without a schema; that they have no place on the other is no mistake."""
    assert found(tmp_path, users=None, billing=BILLING) == []
    assert found(tmp_path, users=USERS, billing=BILLING) == []


def test_a_mistake_is_told_by_the_schema_that_the_rule_fits_best(tmp_path: Path) -> None:
    """One problem, of the topic that was meant, and none of the other's."""
    rules = RULES.replace("data.first_name", "data.frist_name")
    assert found(tmp_path, rules, users=USERS, billing=BILLING) == [
        "MB161 upsert.first_name: there is no field data.frist_name"
    ]


def test_a_rule_that_names_its_topic_or_matches_everything_is_compared_with_all_of_them(tmp_path: Path) -> None:
    restricted = RULES.replace("match: user.signed_up", "match: user.signed_up\n    topic: [users, billing]")
    everything = RULES.replace("match: user.signed_up", 'match: "*"')
    for rules in (restricted, everything):
        (told,) = found(tmp_path, rules, users=USERS, billing=BILLING)
        assert told.startswith("MB161 upsert.first_name: there is no field data.first_name, in billing")
    assert len(found(tmp_path, billing=BILLING)) == 1, "one topic alone must bring them all"


@pytest.mark.parametrize("users", [None, USERS])
def test_a_default_of_type_tells_which_events_a_schema_is_of(tmp_path: Path, users: Any) -> None:
    """As in the catalogue: it is what generated classes fill in."""
    told = avro("PlanChanged", "email", "plan", default="plan.changed")
    assert found(tmp_path, users=users, billing=told) == []
    rules = RULES.replace("data.plan}", "data.plna}")
    assert found(tmp_path, rules, users=users, billing=told) == [
        "MB161 upsert.custom_fields.plan: there is no field data.plna"
    ]
    assert found(tmp_path, billing=told) == ["MB165 match: by the schemas no event has the type user.signed_up"]


def test_the_sample_rules_fit_a_topic_for_each_event_of_the_catalogue_as_avro(tmp_path: Path) -> None:
    """Thirty topics, each with its schema: no rule names a topic, and nothing is told."""
    types = [event.type for event in files.current().events]
    topics = {type: config.Topic.model_validate({"format": "avro", "schema": f"{type}.avsc"}) for type in types}
    schemas, _ = load_schemas(topics, ROOT / "schemas", lambda *route: Place(""))
    book = load(["rules/*.yaml"], ROOT / "config")
    assert schema_fit.field_problems(topics, schemas, book, lambda *route: Place("")) == []
