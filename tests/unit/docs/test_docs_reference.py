"""The generated reference: nothing that a user can write is left out, and what it says of names is so."""

from __future__ import annotations

import re
from pathlib import Path

from click.testing import CliRunner

from bridge.cli import main
from bridge.config import json_schema, load
from bridge.rules.schema import json_schema as rules_schema
from docs.reference import commands, settings, variable

DOCS = Path(__file__).parents[3] / "docs"


def test_every_setting_of_the_schema_is_listed() -> None:
    """A setting without a description has no page: the generator refuses it."""
    schema = json_schema()
    parts = [schema, *(part for name, part in schema["$defs"].items() if name != "Reference")]
    named = {name for part in parts for name in part["properties"]}
    listed = {key for path, _ in settings() for key in path}
    assert named <= listed


def test_a_variable_of_the_page_sets_what_stands_beside_it(tmp_path: Path) -> None:
    """With the topic's name in the place that the page leaves for it."""
    (tmp_path / "bridge.yaml").write_text(
        "kafka: {bootstrap_servers: 'a:9092'}\ntopics: {user-events: {}}\nrules: [rules.yaml]\n"
        "meisa: {api_key: {env: KEY}, environment: test}\n"
    )
    names = {".".join(path): variable(path) for path, _ in settings()}
    timeout = names["meisa.timeout"]
    start = names["topics.<topic>.start"].replace("<TOPIC>", "USER_EVENTS")
    attempts = names["meisa.retry.attempts"]
    environ = {"KEY": "meisa_test_a", timeout: "7s", start: "latest", attempts: "3"}
    read = load(tmp_path / "bridge.yaml", environ)
    assert (read.meisa.timeout, read.topics["user-events"].start, read.meisa.retry.attempts) == (7.0, "latest", 3)


def test_every_command_and_option_is_listed() -> None:
    """As the help of the command itself has them."""
    page = (DOCS / "commands.md").read_text(encoding="utf-8")
    for name, _, _ in commands():
        section = page.split(f"## {name}\n")[1].split("\n## ")[0]
        told = CliRunner().invoke(main, [*name.split()[1:], "--help"]).stdout
        options = set(re.findall(r"^ +(?:-\w, )?(--[\w-]+)", told, re.MULTILINE)) - {"--help"}
        assert options == {option for option in options if option in section}, name


def test_every_key_of_rules_is_listed() -> None:
    page = (DOCS / "rules.md").read_text(encoding="utf-8")
    definitions = rules_schema()["$defs"]
    keys = {key for part in definitions.values() for key in part.get("properties", {})}
    assert {key for key in keys if f"`{key}`" not in page and f"### {key}\n" not in page} == set()
