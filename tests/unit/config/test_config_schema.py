"""The JSON Schema that editors use agrees with the loader, and the committed one is the current one."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML

from bridge.config import json_schema, load

ROOT = Path(__file__).parents[3]
SAMPLE = ROOT / "config" / "bridge.yaml"


def accepts(text: str) -> bool:
    document = YAML(typ="safe", pure=True).load(text)
    return jsonschema.Draft202012Validator(json_schema()).is_valid(document)


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())


def test_the_committed_schema_is_current() -> None:
    """Renew it with: meisa-bridge schema config > schemas/bridge.schema.json"""
    assert json.loads((ROOT / "schemas" / "bridge.schema.json").read_text()) == json_schema()


def test_the_sample_names_the_schema_and_passes_it_and_loads() -> None:
    """The sample is right for the editor, for the loader, and names the schema where it is."""
    text = SAMPLE.read_text()
    first = text.splitlines()[0]
    assert first.startswith("# yaml-language-server: $schema=")
    assert (SAMPLE.parent / first.partition("=")[2]).resolve() == ROOT / "schemas" / "bridge.schema.json"
    assert accepts(text)
    assert load(SAMPLE, {"MEISA_API_KEY": "meisa_test_sandbox"}).meisa.environment == "test"


def test_what_the_sample_has_commented_out_is_right_too(tmp_path: Path) -> None:
    """Uncommenting any line of the sample gives a configuration that loads: examples do not rot."""
    lines = []
    for line in SAMPLE.read_text().splitlines():
        stripped = line.lstrip()
        is_prose = (
            not line.startswith(("  # ", "    # ", "# ")) or ":" not in stripped.split("#")[1].partition(" ")[2][:24]
        )
        keep = line if is_prose or lines == [] or line.startswith("#  ") else line.replace("# ", "", 1)
        lines.append(keep)
    header = next(index for index, line in enumerate(lines) if line.startswith("kafka:"))
    text = "\n".join(lines[header:])
    assert text.count("# ") < SAMPLE.read_text().count("# ")
    for name in ("kafka-password", "meisa"):
        (tmp_path / name).write_text("x")
    text = text.replace("/run/secrets", str(tmp_path))
    file = tmp_path / "bridge.yaml"
    file.write_text(text)
    environ = {
        "MEISA_API_KEY": "meisa_test_a",
        "MEISA_TRIGGER_KEY": "meisa_test_b",
        "POD_NAME": "pod-1",
        "REGISTRY_AUTH": "a:b",
    }
    settings = load(file, environ)
    assert settings.kafka.properties["group.instance.id"] == "pod-1"
    envelope = settings.topics["user-events"].envelope
    assert envelope is not None and envelope.data == "${value.data}"
    assert settings.meisa.keys and settings.handlers == ["acme.lifecycle"]


@pytest.mark.parametrize(
    "text",
    [
        "kafka: {bootstrap_servers: 9092}",
        "meisa: {api_key: literal}",
        "meisa: {api_key: {env: A}, timeout: 10}",
        "meisa: {api_key: {env: A}, timeuot: 10s}",
        "meisa: {api_key: {env: A, file: B}}",
        "topics: {a: {format: xml}}",
        "topics: {'a b': {}}",
        "unknown: 1",
        "rules: a.yaml",
        "meisa: {api_key: {env: A}, quota: {per_minute: 0}}",
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(text: str) -> None:
    base = {"kafka": {"bootstrap_servers": "a:1"}, "topics": {"a": {}}, "meisa": {"api_key": {"env": "A"}}}
    wrong = YAML(typ="safe", pure=True).load(text)
    validator = jsonschema.Draft202012Validator(json_schema())
    assert validator.is_valid(base)
    assert not validator.is_valid({**base, **wrong})


def test_the_schema_takes_references_anchors_and_properties() -> None:
    assert accepts(
        "x-anything: [1]\n"
        "kafka: {bootstrap_servers: {env: B}, properties: {a.b: 1, c.d: true, e.f: {file: g}}}\n"
        "topics: {a: , b: {dedupe: {env: D}}}\n"
        "meisa: {api_key: {file: k}, max_in_flight: {env: M}, keys: {trigger: {env: T}}}\n"
        "rules: [{env: R}]\nadmin: {token: {env: T}}\n"
    )


def test_defaults_in_the_schema_are_written_as_people_write_them() -> None:
    meisa = json_schema()["$defs"]["Meisa"]["properties"]
    assert (meisa["idempotency_window"]["default"], meisa["timeout"]["default"]) == ("55m", "10s")
