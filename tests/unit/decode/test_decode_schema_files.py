"""Schema files are read and found good offline; each mistake is told with its place and without a traceback."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from bridge.config import Topic
from bridge.decode import TopicSchemas
from bridge.errors import Problem
from bridge.places import Place
from bridge.schema_files import load_schemas

RECORD = '{"type": "record", "name": "PlanChanged", "fields": [{"name": "plan", "type": "string"}]}'


def setting(*route: str | int) -> Place:
    return Place("bridge.yaml", len(route), 1)


def topic(schema: str | Mapping[str, str], format: str = "avro") -> Topic:
    return Topic.model_validate({"format": format, "schema": schema})


def loaded(folder: Path, schema: str | Mapping[str, str], format: str = "avro") -> tuple[TopicSchemas, list[Problem]]:
    found, problems = load_schemas({"events": topic(schema, format)}, folder, setting)
    return found["events"], problems


def mistake(folder: Path, text: str, name: str = "a.avsc") -> Problem:
    (folder / name).write_text(text)
    _, (problem,) = loaded(folder, name, "avro" if name.endswith("avsc") else "json")
    return problem


def test_one_schema_and_a_map_by_event_type(tmp_path: Path) -> None:
    """A path gives one schema for all records; a map one per type; none gives neither."""
    (tmp_path / "a.avsc").write_text(RECORD)
    (tmp_path / "b.json").write_text('{"type": "object"}')
    one, problems = loaded(tmp_path, "a.avsc")
    assert not problems and one.whole is not None and not one.by_type
    assert (one.whole.kind, one.whole.path) == ("avro", tmp_path / "a.avsc")
    assert one.whole.document["name"] == "PlanChanged"
    many, problems = loaded(tmp_path, {"plan.changed": "b.json"}, "json")
    assert not problems and many.whole is None
    assert many.by_type["plan.changed"].document == {"type": "object"} and many.by_type["plan.changed"].kind == "json"
    none, problems = load_schemas({"events": Topic.model_validate({})}, tmp_path, setting)
    assert not problems and not none["events"]


def test_a_map_with_a_type_named_schema_is_still_a_map(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text("true")
    many, problems = loaded(tmp_path, {"schema": "b.json"}, "json")
    assert not problems and many.whole is None and list(many.by_type) == ["schema"]


def test_types_of_other_files_are_found_beside(tmp_path: Path) -> None:
    """As Avro's own tools do: <full name>.avsc, which may itself need others."""
    (tmp_path / "acme.Plan.avsc").write_text('{"type": "enum", "name": "acme.Plan", "symbols": ["free", "pro"]}')
    (tmp_path / "acme.Account.avsc").write_text(
        '{"type": "record", "name": "acme.Account", "fields": [{"name": "plan", "type": "acme.Plan"}]}'
    )
    (tmp_path / "a.avsc").write_text(RECORD.replace('"string"', '"acme.Account"'))
    one, problems = loaded(tmp_path, "a.avsc")
    assert not problems and one.whole is not None
    assert list(one.whole.others) == ["acme.Plan", "acme.Account"]


def test_a_missing_file_is_told_at_its_setting(tmp_path: Path) -> None:
    _, (problem,) = loaded(tmp_path, "missing.avsc")
    assert (problem.code, problem.file, problem.line) == ("MB041", "bridge.yaml", 3)
    assert "missing.avsc does not exist" in problem.message and "folder of bridge.yaml" in problem.hint
    _, (problem,) = loaded(tmp_path, {"a": "missing.json"}, "json")
    assert (problem.code, problem.line) == ("MB041", 4)


@pytest.mark.parametrize(("make", "says"), [
    (lambda path: path.mkdir(), "is a directory"),
    (lambda path: path.write_bytes(b"\xff"), "not UTF-8"),
    (lambda path: path.write_bytes(b" " * 4_200_000), "larger than"),
])  # fmt: skip
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, make: object, says: str) -> None:
    assert callable(make)
    make(tmp_path / "a.avsc")
    _, (problem,) = loaded(tmp_path, "a.avsc")
    assert problem.code == "MB041" and says in problem.message


def test_broken_json_is_told_at_its_place_in_the_schema_file(tmp_path: Path) -> None:
    for name in ("a.avsc", "a.json"):
        problem = mistake(tmp_path, '{"type": "object",\n  "properties": {,}}', name)
        assert (problem.code, problem.line, problem.column) == ("MB042", 2, 18)
        assert problem.file.endswith(name) and "not JSON" in problem.message


@pytest.mark.parametrize(("text", "says"), [
    ('{"type": "strange"}', "names the type strange, which is not defined"),
    (RECORD.replace('"string"', '"strin"'), "did you mean string?"),
    (RECORD.replace('"string"', '"acme.Plan"'), "nor is there a file acme.Plan.avsc"),
    ('{"type": "record", "name": "A"}', "fields"),
    ('{"type": "record", "fields": []}', "name"),
    ('{"type": "record", "name": "A", "fields": [{"name": "b"}]}', "type"),
    ('{"type": "record", "name": "A", "fields": [{"name": "b", "type": "C"}]}', "names the type C"),
    ('{"type": "enum", "name": "A", "symbols": ["a", "a"]}', "not an Avro schema"),
    ('[{"type": "record", "name": "A", "fields": [{"name": "b", "type": {"type": "map", "values":'
     ' {"type": "record", "name": "B", "feilds": []}}}]}]', "the record B has no list of fields"),
    ('{"type": "array", "items": "null"}', "take no bytes"),
    ("5", "not an Avro schema"),
    ("null", "not an Avro schema"),
    ("[" * 200 + "]" * 200, "nested deeper"),
    ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
])  # fmt: skip
def test_what_is_no_avro_schema_is_told(tmp_path: Path, text: str, says: str) -> None:
    problem = mistake(tmp_path, text)
    assert problem.code == "MB042" and says in problem.message
    assert len(problem.message) < 300 and "\n" not in problem.message


def test_files_that_need_one_another_are_told(tmp_path: Path) -> None:
    (tmp_path / "B.avsc").write_text('{"type": "record", "name": "B", "fields": [{"name": "c", "type": "C"}]}')
    (tmp_path / "C.avsc").write_text('{"type": "record", "name": "C", "fields": [{"name": "b", "type": "B"}]}')
    problem = mistake(tmp_path, '{"type": "record", "name": "A", "fields": [{"name": "b", "type": "B"}]}')
    assert "circle" in problem.message


def test_a_type_never_leads_out_of_the_folder(tmp_path: Path) -> None:
    """A schema's names are no paths."""
    (tmp_path / "B.avsc").write_text(RECORD)
    below = tmp_path / "below"
    below.mkdir()
    problem = mistake(below, '{"type": "record", "name": "A", "fields": [{"name": "b", "type": "../B"}]}')
    assert problem.code == "MB042"


def test_a_json_schema_is_an_object(tmp_path: Path) -> None:
    assert "an object" in mistake(tmp_path, "[]", "a.json").message
