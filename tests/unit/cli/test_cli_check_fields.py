"""`check` compares the rules with the schemas of the topics: from the files to the lines that people read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from structlog.testing import capture_logs

from bridge import config, schema_fit
from bridge.cli import main
from bridge.decode.schema import Schema, TopicSchemas
from bridge.places import Place
from bridge.rules import RuleBook, load_text
from bridge.rules.shapes.json_schema import from_json_schema
from bridge.rules.shapes.shape import names, read
from tests.support.amount import THOROUGH

REPOSITORY = Path(__file__).parents[3]
RULE = """rules:
  - name: plan
    match: "*"
    when: {when}
    do:
      - upsert: {{email: "${{data.email}}", custom_fields: {{plan: "${{{plan}}}"}}}}
"""
AVRO = {
    "type": "record",
    "name": "PlanChanged",
    "namespace": "acme",
    "fields": [
        {"name": "email", "type": "string"},
        {"name": "plan", "type": {"type": "enum", "name": "Plan", "symbols": ["free", "pro"]}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    ],
}
DATA = {
    "type": "object",
    "properties": {"email": {"type": "string"}, "plan": {"enum": ["free", "pro"]}},
    "required": ["email", "plan"],
}
VALUE = {
    "type": "object",
    "properties": {"type": {"const": "plan.changed"}, "data": DATA},
    "required": ["type", "data"],
}
ROW = {
    "type": "object",
    "properties": {"op": {"enum": ["c", "u", "d", "r"]}, "after": DATA},
    "required": ["op", "after"],
}

Checked = Callable[..., list[str]]


@pytest.fixture
def checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checked:
    """Runs check in a folder with these settings of one topic and these files; gives the lines that it writes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEISA_API_KEY", "meisa_test_x")

    def run(
        topic: str, *, when: str = "true", plan: str = "data.plan", files: dict[str, Any], match: str = "*"
    ) -> list[str]:
        for name, content in files.items():
            Path(name).write_text(json.dumps(content))
        Path("bridge.yaml").write_text(
            "kafka: {bootstrap_servers: localhost:9092}\n"
            "meisa: {environment: test, api_key: {env: MEISA_API_KEY}}\n"
            f"rules: [rules.yaml]\ntopics:\n  events: {topic}\n"
        )
        Path("rules.yaml").write_text(RULE.format(when=when, plan=plan).replace('"*"', f'"{match}"'))
        result = CliRunner().invoke(main, ["check", "--offline", "-c", "bridge.yaml"])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return [line for line in result.output.splitlines() if " MB16" in line]

    return run


@pytest.mark.parametrize(
    ("topic", "files"),
    [
        ("{schema: s.json}", {"s.json": VALUE}),
        ("{schema: {plan.changed: s.json}}", {"s.json": VALUE}),
        ("{schema: s.json}", {"s.json": {"$ref": "o.json#/$defs/v"}, "o.json": {"$defs": {"v": VALUE}}}),
        ("{format: avro, schema: s.avsc}", {"s.avsc": AVRO}),
        ("{format: cloudevents, schema: s.json}", {"s.json": DATA}),
        ("{format: cloudevents, schema: {plan.changed: s.json}}", {"s.json": DATA}),
        (
            "{schema: s.json, envelope: {type: '${value.kind}', data: '${value.payload}'}}",
            {"s.json": {"properties": {"kind": {"const": "x"}, "payload": DATA}, "required": ["kind", "payload"]}},
        ),
    ],
)
def test_every_format_with_a_schema(checked: Checked, topic: str, files: dict[str, Any]) -> None:
    """The same mistakes are found whatever the schema is written in, at their place; and none where there is none."""
    match = "PlanChanged" if "avro" in topic else "x" if "kind" in topic else "plan.changed"
    assert checked(topic, files=files, match=match) == []
    assert checked(topic, files=files, match=match, plan="data.plna") == [
        "rules.yaml:6:67: error MB161: upsert.custom_fields.plan: there is no field data.plna (did you mean data.plan?)"
    ]
    (found,) = checked(topic, files=files, match=match, when='data.plan == "premium"')
    assert found.startswith('rules.yaml:4:24: warning MB164: when: data.plan is never "premium"')


def test_change_events(checked: Checked) -> None:
    """A schema of Debezium's payload tells what before and after are, by operation."""
    topic, files = "{format: debezium, encoding: json, schema: s.json}", {"s.json": ROW}
    found = checked(topic, files=files, match="users.created", plan="data.after.plna")
    assert [line.partition(" (")[0] for line in found] == [
        "rules.yaml:6:28: error MB161: upsert.email: there is no field data.email",
        "rules.yaml:6:67: error MB161: upsert.custom_fields.plan: there is no field data.after.plna",
    ]


def test_a_type_that_no_schema_has(checked: Checked) -> None:
    """A match of another type than the schema has is a warning with the nearest one."""
    assert checked("{schema: s.json}", files={"s.json": VALUE}, match="plan.chnaged") == [
        "rules.yaml:3:12: warning MB165: match: by the schemas no event has the type plan.chnaged "
        "(did you mean plan.changed?)"
    ]


def test_a_schema_that_describes_data_alone(checked: Checked) -> None:
    """For json a schema describes the whole record: one of the data alone is told as such, and only that."""
    found = checked("{schema: s.json}", files={"s.json": DATA})
    assert len(found) == 1
    assert found[0].startswith(
        "bridge.yaml:5:20: error MB161: the schema has no field data: it is to describe a record's"
    )
    envelope = "{schema: s.json, envelope: {type: 'plan', data: '${value}'}}"
    assert checked(envelope, files={"s.json": DATA}, plan="data.plna")[0].startswith("rules.yaml:6:67: error MB161")


def test_an_envelope_that_names_nothing(checked: Checked) -> None:
    """A field that the envelope names in vain is told at the envelope."""
    (found,) = checked("{schema: s.json, envelope: {data: '${value.dta}'}}", files={"s.json": VALUE})
    assert found.startswith("bridge.yaml:5:45: error MB161: envelope.data: there is no field value.dta (did you mean")


def test_rules_of_the_catalogue_fit_its_schemas() -> None:
    """The sample rules name no field in vain, and not one of those that they name could be misspelt unnoticed."""
    document = json.loads((REPOSITORY / "schemas/events.schema.json").read_text())
    schemas = {"user-events": TopicSchemas(Schema("json", document, REPOSITORY / "schemas/events.schema.json"))}
    topics = {"user-events": config.Topic.model_validate({"schema": "schemas/events.schema.json"})}

    def found(book: RuleBook) -> list[str]:
        return [problem.code for problem in schema_fit.field_problems(topics, schemas, book, lambda *route: Place(""))]

    fields = 0
    for path in sorted((REPOSITORY / "config/rules").glob("*.yaml")):
        text = path.read_text()
        book = load_text(text)
        assert found(book) == [], path
        paths = {reference.path for rule in book.rules for reference in rule.references}
        for name in sorted({path.split(".")[1] for path in paths if path.startswith("data.")})[: 6 if THOROUGH else 1]:
            misspelt = re.sub(rf"\bdata\.{name}\b", f"data.{name}zq", text)
            assert "MB161" in found(load_text(misspelt)), (path, name)
            fields += 1
    assert fields > (10 if THOROUGH else 2)


def test_a_start_only_warns(checked: Checked) -> None:
    """What check calls an error is a warning of a service that starts: a schema that has changed stops none."""
    checked("{schema: s.json}", files={"s.json": VALUE}, plan="data.plna")
    settings = config.load(Path("bridge.yaml"), {"MEISA_API_KEY": "meisa_test_x"})
    with capture_logs() as logs:
        schema_fit.tell(settings, load_text(Path("rules.yaml").read_text(), "rules.yaml"))
    assert [(line["log_level"], "data.plna" in line["problem"]) for line in logs] == [("warning", True)]


def test_a_start_survives_the_checker(checked: Checked, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake in the checker itself is logged, and nothing else happens."""
    checked("{schema: s.json}", files={"s.json": VALUE})

    def broken(*_: Any) -> None:
        raise RecursionError

    monkeypatch.setattr(schema_fit, "check_rule", broken)
    settings = config.load(Path("bridge.yaml"), {"MEISA_API_KEY": "meisa_test_x"})
    with capture_logs() as logs:
        schema_fit.tell(settings, load_text(Path("rules.yaml").read_text()))
    assert [line["log_level"] for line in logs] == ["error"]


def test_a_long_union_is_no_trouble() -> None:
    """Five hundred types in one schema are told apart in a moment, and a rule of all of them is looked at."""
    kinds = [
        {"properties": {"type": {"const": f"t{n}"}, "data": DATA}, "required": ["type", "data"]} for n in range(400)
    ]
    shape = from_json_schema({"oneOf": kinds})
    assert len(shape.alternatives) == 400
    assert names(read(shape, "data").shape) == ["email", "plan"]
