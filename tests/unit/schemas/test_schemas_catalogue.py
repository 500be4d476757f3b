"""schemas/: one catalogue, and everything that is made from it says the same."""

from __future__ import annotations

import copy
import io
import json
import re
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import fastavro
import jsonschema
import pytest
from ruamel.yaml import YAML

from bridge.decode import Decoder, decoder_for, values_in_avro
from bridge.decode.schema import TopicSchemas
from bridge.decode.times import from_text
from bridge.errors import DecodeError
from bridge.model import Event, Record
from bridge.schema_files import load_schema
from schemas.generate import avro, files, json_schema, readme
from schemas.generate.__main__ import main
from schemas.generate.catalogue import CatalogueError, example, parse
from tests.support.catalogue import catalogue

ROOT = Path(__file__).parents[3]
SCHEMAS = ROOT / "schemas"
CATALOGUE = catalogue()
TYPES = [event.type for event in CATALOGUE.events]
WANTED = {
    *("user.signed_up", "user.updated", "user.logged_in", "user.deleted", "plan.changed", "subscription.past_due"),
    *("subscription.canceled", "trial.ending", "invoice.paid", "invoice.failed", "onboarding.completed"),
    *("milestone.reached", "password_reset.requested", "team.member_invited"),
}


def read(name: str) -> Any:
    return json.loads((SCHEMAS / name).read_text(encoding="utf-8"))


def test_all_that_is_made_from_the_catalogue_is_current() -> None:
    """Renew it with: python -m schemas.generate"""
    assert files.stale(CATALOGUE) == []
    assert set(TYPES) >= WANTED


def test_a_file_that_was_changed_or_that_nothing_makes_any_more_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written to an empty folder all is current; then one file is edited, one removed, one left over from an event."""
    (tmp_path / "README.md").write_text((SCHEMAS / "README.md").read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(files, "FOLDER", tmp_path)
    files.write(CATALOGUE)
    assert files.stale(CATALOGUE) == []
    (tmp_path / "plan.changed.avsc").write_text("{}")
    (tmp_path / "examples" / "user.updated.json").unlink()
    (tmp_path / "cart.filled.schema.json").write_text("{}")
    (tmp_path / "bridge.schema.json").write_text("{}")
    assert files.stale(CATALOGUE) == ["cart.filled.schema.json", "examples/user.updated.json", "plan.changed.avsc"]
    files.write(CATALOGUE)
    assert files.stale(CATALOGUE) == [] and (tmp_path / "bridge.schema.json").exists()


# Examples ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("type", TYPES)
def test_an_example_is_valid_by_its_json_schema_and_by_that_of_the_topic(type: str) -> None:
    """So is the smallest event; one without a required field, of another type or with a wrong value is not."""
    own = jsonschema.Draft7Validator(read(f"{type}.schema.json"))
    topic = jsonschema.Draft7Validator(read("events.schema.json"))
    jsonschema.Draft7Validator.check_schema(own.schema)
    full = read(f"examples/{type}.json")
    event = CATALOGUE.events[TYPES.index(type)]
    small = example(CATALOGUE, event, only_required=True)
    nulls = copy.deepcopy(full)
    nulls["data"].update({each.name: None for each in event.data if each.optional})
    for good in (full, small, nulls, {**full, "unknown": 1}):
        assert [error.message for error in own.iter_errors(good)] == []
        assert topic.is_valid(good)
    assert full["type"] == type and from_text(full["time"])[0] == full["time"]
    bad: list[dict[str, Any]] = [{**full, "type": "no.such"}, {**full, "data": {**full["data"], "email": 7}}]
    bad += [{name: value for name, value in full.items() if name != missing} for missing in full]
    bad += [
        {**full, "data": {name: value for name, value in small["data"].items() if name != missing}}
        for missing in small["data"]
    ]
    for each in bad:
        assert not own.is_valid(each) and not topic.is_valid(each)


@pytest.mark.parametrize("type", TYPES)
def test_an_example_survives_avro(type: str) -> None:
    """Example → Avro → plain values is the example; the smallest event comes back with null for what it left out."""
    schema = fastavro.parse_schema(read(f"{type}.avsc"))
    event = CATALOGUE.events[TYPES.index(type)]
    full = read(f"examples/{type}.json")
    assert through_avro(schema, full) == full
    small = example(CATALOGUE, event, only_required=True)
    absent: dict[str, Any] = {each.name: None for each in event.data if each.optional}
    assert through_avro(schema, small) == {**small, "data": {**absent, **small["data"]}}


def through_avro(schema: Any, value: dict[str, Any]) -> Any:
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, schema, with_moments(value), strict_allow_default=True)
    stream.seek(0)
    return plain(fastavro.schemaless_reader(stream, schema, None))


def with_moments(value: dict[str, Any]) -> dict[str, Any]:
    """An event whose times are what Avro's library wants to write."""
    times = {name for name, kind in kinds_of_avro(read(f"{value['type']}.avsc")).items() if kind.startswith("time")}
    data = {
        name: datetime.fromisoformat(item) if f"data.{name}" in times and item else item
        for name, item in value["data"].items()
    }
    return {**value, "time": datetime.fromisoformat(value["time"]), "data": data}


def plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"
    return {name: plain(item) for name, item in value.items()} if isinstance(value, dict) else value


def test_the_examples_in_one_file_are_those_of_the_events_in_the_order_in_which_they_happened() -> None:
    """examples/all.jsonl is what to produce to a topic, or to give to preview."""
    lines = [json.loads(line) for line in (SCHEMAS / "examples" / "all.jsonl").read_text().splitlines()]
    assert sorted(each["type"] for each in lines) == sorted(TYPES)
    assert all(each == read(f"examples/{each['type']}.json") for each in lines)
    assert [each["time"] for each in lines] == sorted(each["time"] for each in lines)
    assert len({each["id"] for each in lines}) == len(lines)


# Agreement -----------------------------------------------------------------------------------------------------------


def kinds_of_avro(schema: Any, path: str = "", named: dict[str, Any] | None = None) -> dict[str, str]:
    """Each path of an Avro schema with what stands there, in words that both languages share."""
    named = {} if named is None else named
    optional = isinstance(schema, list)
    if optional:
        null, schema = schema
        assert null == "null"
    schema = named.get(schema, schema) if isinstance(schema, str) else schema
    ending = " optional" if optional else ""
    if isinstance(schema, dict) and schema["type"] == "record":
        named[schema["name"]] = schema
        found = {path: "object" + ending}
        for field in schema["fields"]:
            assert optional_default(field)
            found |= kinds_of_avro(field["type"], f"{path}.{field['name']}".lstrip("."), named)
            if field["name"] == "type" and not path:
                found["type"] = f"always {field['default']}"
        return found
    if isinstance(schema, dict) and schema["type"] == "enum":
        named[schema["name"]] = schema
        return {path: f"one of {schema['symbols']}{ending}"}
    if isinstance(schema, dict):
        assert schema == {"type": "long", "logicalType": "timestamp-millis"}
        return {path: f"time{ending}"}
    return {path: {"string": "text", "long": "integer", "double": "number", "boolean": "boolean"}[schema] + ending}


def optional_default(field: dict[str, Any]) -> bool:
    """A union with null has null as its default, first; nothing else has a default but `type`."""
    if isinstance(field["type"], list):
        return field["type"][0] == "null" and "default" in field and field["default"] is None
    return "default" not in field or field["name"] == "type"


def kinds_of_json(schema: Any, path: str = "", required: bool = True) -> dict[str, str]:
    types = [schema["type"]] if isinstance(schema.get("type"), str) else list(schema.get("type", ()))
    assert ("null" in types) is not required, path
    ending = "" if required else " optional"
    if "const" in schema:
        return {path: f"always {schema['const']}"}
    if "enum" in schema:
        return {path: f"one of {[each for each in schema['enum'] if each is not None]}{ending}"}
    kind = next(each for each in types if each != "null")
    if kind == "object":
        found = {path: f"object{ending}"}
        for name, below in schema["properties"].items():
            found |= kinds_of_json(below, f"{path}.{name}".lstrip("."), name in schema.get("required", ()))
        return found
    if kind == "string":
        kind = "time" if schema.get("format") == "date-time" else "text"
    return {path: kind + ending}


@pytest.mark.parametrize("type", TYPES)
def test_avro_and_json_schema_agree(type: str) -> None:
    """The same fields in the same order, of the same types, of which the same may be left out."""
    of_avro, of_json = kinds_of_avro(read(f"{type}.avsc")), kinds_of_json(read(f"{type}.schema.json"))
    assert list(of_avro.items()) == list(of_json.items())
    assert len(of_avro) > 5


def test_the_schema_of_the_topic_holds_each_events_own() -> None:
    """So that it can be used by itself, and says the same as the single files."""
    topic = read("events.schema.json")
    assert topic["properties"]["type"]["enum"] == TYPES
    assert [each["$ref"] for each in topic["oneOf"]] == [f"#/definitions/{name}" for name in topic["definitions"]]
    for event in CATALOGUE.events:
        own = read(f"{event.type}.schema.json")
        assert topic["definitions"][event.record] == {key: own[key] for key in own if key != "$schema"}


def test_the_avro_schema_of_the_topic_is_the_union_of_all() -> None:
    """The bridge reads each event by it, written as its own branch, as by the event's own schema."""
    union = load_schema(SCHEMAS / "events.avsc")
    writer = fastavro.parse_schema(union.document)
    decoder = decoder_for("avro", values=values_in_avro(TopicSchemas(union), registry=False))
    for event, branch in zip(CATALOGUE.events, union.document, strict=True):
        assert (branch["name"], branch["fields"][1]["default"]) == (event.record, event.type)
        full = read(f"examples/{event.type}.json")
        stream = io.BytesIO()
        fastavro.schemaless_writer(stream, writer, (f"{CATALOGUE.namespace}.{event.record}", with_moments(full)))
        found = decoder.decode(Record("user-events", 0, 1, 0, b"u1", stream.getvalue()))
        assert found is not None
        assert {"id": found.id, "type": found.type, "time": found.time, "data": found.data} == full


def test_names_of_avro_records_are_unique_so_that_all_can_share_a_registry() -> None:
    """A type that several schemas define is the same in all of them."""
    definitions: dict[str, Any] = {}
    for event in CATALOGUE.events:
        stack: list[Any] = [read(f"{event.type}.avsc")]
        while stack:
            item = stack.pop()
            if isinstance(item, dict) and item.get("type") in ("record", "enum"):
                assert definitions.setdefault(item["name"], item) == item
            stack += item.values() if isinstance(item, dict) else item if isinstance(item, list) else []
    assert len(definitions) >= 2 * len(TYPES)


# AsyncAPI ------------------------------------------------------------------------------------------------------------


@cache
def parsed_asyncapi() -> Any:
    return YAML(typ="safe", pure=True).load((SCHEMAS / "asyncapi.yaml").read_text(encoding="utf-8"))


def asyncapi() -> Any:
    return copy.deepcopy(parsed_asyncapi())


def test_the_asyncapi_document_is_valid() -> None:
    """Against AsyncAPI's own JSON Schema, which tests/data/asyncapi holds; it notices what is wrong."""
    validator = jsonschema.Draft7Validator(
        json.loads((ROOT / "tests" / "data" / "asyncapi" / "asyncapi-3.0.0.json").read_text())
    )
    assert [error.message for error in validator.iter_errors(asyncapi())] == []
    for path, wrong in (
        (("operations", "publishLifecycleEvent", "action"), "shout"),
        (("channels", "userEvents", "adress"), "user-events"),
        (("components", "messages", "planChanged", "bindings", "kafka", "kee"), {}),
        (("asyncapi",), "2.6.0"),
    ):
        broken = below = asyncapi()
        for step in path[:-1]:
            below = below[step]
        below[path[-1]] = wrong
        assert not validator.is_valid(broken), path


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    """Within the document, or to a file beside it; and every event is a message of the channel and of the operation."""
    document = asyncapi()
    references: list[str] = []
    stack: list[Any] = [document]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            references += [item["$ref"]] if "$ref" in item else []
        stack += item.values() if isinstance(item, dict) else item if isinstance(item, list) else []
    payloads = []
    for reference in references:
        file, _, pointer = reference.partition("#")
        if file:
            payloads.append((SCHEMAS / file).resolve())
            assert json.loads(payloads[-1].read_text())["$schema"] == json_schema.DRAFT
            continue
        found = document
        for step in pointer.strip("/").split("/"):
            found = found[step]
    assert sorted(payloads) == sorted(SCHEMAS / f"{type}.schema.json" for type in TYPES)
    (channel,) = document["channels"].values()
    (operation,) = document["operations"].values()
    names = {message["name"] for message in document["components"]["messages"].values()}
    assert names == set(TYPES) and len(channel["messages"]) == len(operation["messages"]) == len(TYPES)


# The catalogue's own mistakes ----------------------------------------------------------------------------------------

SMALL: dict[str, Any] = {
    "version": "1.0.0",
    "namespace": "a.b",
    "topic": "t",
    "envelope": {name: {"about": name} for name in ("id", "type", "time", "data")},
    "types": {"cycle": {"about": "a", "enum": ["monthly", "annual"]}},
    "groups": {"person": {"user_id": {"type": "id", "about": "a", "example": "u"}}},
    "themes": {"money": "All of it."},
    "events": {
        "plan.changed": {
            "theme": "money",
            "about": "a",
            "at": "2026-01-01T00:00:00Z",
            "with": ["person"],
            "fields": {
                "now": {"type": "cycle", "about": "a", "example": "annual"},
                "before?": {"type": "cycle", "about": "a", "example": "monthly"},
            },
        }
    },
}


def test_a_type_that_stands_twice_in_a_schema_is_defined_once() -> None:
    """Avro refuses a second definition of a name."""
    catalogue = parse(SMALL)
    made = avro.schema(catalogue, catalogue.events[0])
    now, before = made["fields"][3]["type"]["fields"][1:]
    assert (now["type"]["name"], before["type"]) == ("Cycle", ["null", "Cycle"])
    fastavro.parse_schema(made)


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("version",), "1", "version: "),
        (("evnts",), {}, "no key evnts"),
        (("events",), None, "events: a mapping is due"),
        (("types", "text"), {"about": "a", "enum": ["b"]}, "types.text: there is such a type"),
        (("types", "cycle", "enum"), ["past due"], "types.cycle: 'past due' is no symbol"),
        (("types", "cycle", "enum"), ["a", "a"], "types.cycle: a stands twice"),
        (("types", "cycle", "fields"), {}, "types.cycle: give either enum or fields"),
        (("events", "Changed"), {}, "events.Changed: write the type"),
        (("events", "plan.changed", "theme"), "fun", "events.plan.changed.theme: there is no theme fun"),
        (("events", "plan.changed", "with"), ["team"], "events.plan.changed.with: there is no group team"),
        (("events", "plan.changed", "examples"), {"name": 1}, "events.plan.changed.examples: there is no field name"),
        (("events", "plan.changed", "fields", "now", "type"), "txt", "fields.now: there is no type txt"),
        (("events", "plan.changed", "fields", "now", "abuot"), "", "fields.now: there is no key abuot"),
        (("events", "plan.changed", "fields", "Now"), {"type": "text"}, "fields.Now: write the name"),
        (("events", "plan.changed", "fields", "user_id"), {"type": "id", "about": "a", "example": "u"}, "twice"),
        (("events", "plan.changed", "fields", "fee"), {"type": "money", "about": "a", "example": 1}, "_minor"),
        (("events", "plan.changed", "fields", "a_minor"), {"type": "money", "about": "a", "example": 1}, "currency"),
        (("events", "plan.changed", "fields", "name"), {"type": "text", "about": "a"}, "an example is due"),
        (("themes", "fun"), "a", "themes.fun: no event has it"),
    ],
)
def test_a_mistake_in_the_catalogue_is_told_with_its_place(path: tuple[str, ...], value: Any, says: str) -> None:
    document = copy.deepcopy(SMALL)
    below = document
    for step in path[:-1]:
        below = below[step]
    below[path[-1]] = value
    with pytest.raises(CatalogueError, match=says.replace(".", r"\.").replace("'", ".")):
        parse(document)


# In the bridge -------------------------------------------------------------------------------------------------------


def decode(decoder: Decoder, value: Any, **headers: str) -> Event | None:
    listed = tuple((name, text.encode()) for name, text in headers.items())
    return decoder.decode(Record("user-events", 0, 1, 1_767_323_045_000, b"u1", json.dumps(value).encode(), listed))


def test_the_bridge_compares_a_topics_events_with_the_schemas() -> None:
    """With the one of the topic, or with one for each type: examples pass, and a misfit is told with the same words."""
    by_type = {type: load_schema(SCHEMAS / f"{type}.schema.json") for type in TYPES}
    topic = decoder_for("json", schemas=TopicSchemas(load_schema(SCHEMAS / "events.schema.json")))
    single = decoder_for("json", schemas=TopicSchemas(None, by_type))
    for event in CATALOGUE.events:
        full = example(CATALOGUE, event)
        for decoder in (topic, single):
            found = decode(decoder, full)
            assert found is not None and found.type == event.type
            for wrong, path in (
                ({**full, "data": {**full["data"], "user_id": ""}}, "value.data.user_id"),
                ({**full, "data": {**full["data"], "email": None}}, "value.data.email"),
                ({**full, "data": {"user_id": "u1"}}, "value.data"),
            ):
                with pytest.raises(DecodeError) as caught:
                    decode(decoder, wrong)
                assert caught.value.path == path
    with pytest.raises(DecodeError, match=r"value\.type does not fit the schema \(enum\)"):
        decode(topic, {**full, "type": "no.such"})
    assert decode(single, {"type": "no.such"}) is not None, "a type without a schema is not compared"


def test_the_data_of_a_cloudevent_is_compared_with_a_part_of_a_schema(tmp_path: Path) -> None:
    """As the README says: a file of one line that refers to it."""
    (line,) = re.findall(r"`(\{\"\$ref\": .+?\})`", (SCHEMAS / "README.md").read_text(encoding="utf-8"))
    (tmp_path / "plan.changed.schema.json").write_text((SCHEMAS / "plan.changed.schema.json").read_text())
    (tmp_path / "plan.changed.data.json").write_text(line)
    schemas = TopicSchemas(load_schema(tmp_path / "plan.changed.data.json"))
    decoder = decoder_for("cloudevents", schemas=schemas)
    headers = {"ce_id": "1", "ce_source": "/billing", "ce_type": "plan.changed", "ce_specversion": "1.0"}
    data = read("examples/plan.changed.json")["data"]
    found = decode(decoder, data, **headers, **{"content-type": "application/json"})
    assert found is not None and (found.type, found.data) == ("plan.changed", data)
    with pytest.raises(DecodeError, match=r"data\.plan"):
        decode(decoder, {**data, "plan": None}, **headers, **{"content-type": "application/json"})


# The command ---------------------------------------------------------------------------------------------------------


def test_the_command_checks_writes_and_says_in_one_line_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--check` writes nothing and ends with 1 where a file is not current; a broken catalogue is no traceback."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["generate", *arguments])
        status = main()
        told = capsys.readouterr()
        return status, told.out, told.err

    assert run("--check") == (0, "", "")
    (tmp_path / "README.md").write_text(f"{readme.BEGIN}{readme.END}")
    (tmp_path / "catalogue.yaml").write_text((SCHEMAS / "catalogue.yaml").read_text(encoding="utf-8"))
    monkeypatch.setattr(files, "FOLDER", tmp_path)
    monkeypatch.setattr(files, "CATALOGUE", tmp_path / "catalogue.yaml")
    monkeypatch.setattr(files, "RELEASED", tmp_path / "released")
    status, _, told = run("--check")
    assert status == 1 and "asyncapi.yaml is not current: python -m schemas.generate\n" in told
    assert not (tmp_path / "asyncapi.yaml").exists()
    assert run("--release") == (0, f"released {CATALOGUE.version}.json\n", "")
    assert run("--check") == (0, "", "")
    assert run("--release")[0] == 1
    (tmp_path / "catalogue.yaml").write_text("version: 1\n")
    assert run() == (1, "", "the catalogue: there is no namespace\n")
    (tmp_path / "catalogue.yaml").write_text("version: [1\n")
    status, _, told = run()
    assert status == 1 and told.startswith("catalogue.yaml: ") and told.count("\n") == 1
