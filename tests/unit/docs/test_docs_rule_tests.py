"""docs/rule-tests.md: its examples are run, and what it says that the command prints is what it prints."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from bridge.actions import Upsert
from bridge.cli import main
from bridge.cli.test import Known
from bridge.decode import JsonDecoder
from bridge.rules.cases import ERROR_KEYS, EVENT_KEYS, TOP_TEST_KEYS
from bridge.rules.handlers import Handler
from bridge.rules.loader import load_text
from bridge.rules.schema import json_schema
from bridge.rules.testing import TIME, TOPIC, Bench, Ending, World

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "rule-tests.md").read_text("utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
IN_README = [
    each for each in re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL) if "tests:" in each
]


def invoice(event: Any) -> Any:
    yield Upsert(email=event.data["email"], custom_fields={"mrr": event.data["mrr"]})


@pytest.mark.parametrize("example", [*EXAMPLES, *IN_README])
def test_every_example_passes(example: str) -> None:
    """With the handler of the page, whose code stands there as it stands here; editors find nothing wrong either."""
    import jsonschema
    from ruamel.yaml import YAML

    book = load_text(example, handlers=[Handler("invoice", invoice, ("invoice.*",))])
    bench = Bench(book, World(JsonDecoder().decode, Known, {}))
    results = [bench.run(case) for case in book.tests]
    assert results
    assert [(result.notes, result.difference) for result in results if result.ending is not Ending.PASSED] == []
    jsonschema.Draft202012Validator(json_schema()).validate(YAML(typ="safe", pure=True).load(example))


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 4 and len(IN_README) == 1


def test_the_handler_of_the_page_is_the_one_that_is_tested() -> None:
    assert '    yield Upsert(email=event.data["email"], custom_fields={"mrr": event.data["mrr"]})\n' in PAGE


def test_what_the_command_prints_is_what_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first example as it is, and with the change that the page names."""
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "config" / "rules" / "signup.yaml"
    file.parent.mkdir(parents=True)
    passed, failed = re.findall(r"```console\n\$ meisa-bridge test\n(.*?)```", PAGE, re.DOTALL)
    assert "`${data.plan.upper()}`" in PAGE
    for text, printed in ((EXAMPLES[0], passed), (EXAMPLES[0].replace("${data.plan}", "${data.plan.upper()}"), failed)):
        file.write_text(text)
        assert CliRunner().invoke(main, ["test", "config/rules"]).stdout == printed


def test_the_page_names_every_key_and_the_defaults() -> None:
    for key in (*TOP_TEST_KEYS, *EVENT_KEYS, *ERROR_KEYS):
        assert f"`{key}" in PAGE or f"{key}:" in PAGE, key
    assert TIME in PAGE and f"`{TOPIC}`" in PAGE
    options = CliRunner().invoke(main, ["test", "--help"]).stdout
    for option in re.findall(r"--[a-z]+", options):
        assert option in PAGE or option in ("--config", "--help"), option
