"""docs/check.md, on fields against schemas: it shows what check really tells."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from bridge.cli import main

PAGE = Path(__file__).parents[3] / "docs/check.md"


def test_the_sample_of_fields_against_schemas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The schema and the rules on the page give the lines on the page."""
    section = PAGE.read_text().split("## Fields against schemas", 1)[1]
    schema, rules, lines = re.findall(r"```(?:json|yml|text)\n(.*?)```", section, re.DOTALL)[:3]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MEISA_API_KEY", "meisa_test_x")
    Path("rules").mkdir()
    Path("plan.schema.json").write_text(schema)
    Path("rules/plan.yaml").write_text(rules)
    Path("bridge.yaml").write_text(
        "kafka: {bootstrap_servers: localhost:9092}\n"
        "topics: {user-events: {schema: plan.schema.json}}\n"
        "meisa: {environment: test, api_key: {env: MEISA_API_KEY}}\n"
        "rules: [rules/*.yaml]\n"
    )
    result = CliRunner().invoke(main, ["check", "--offline", "-c", "bridge.yaml"])
    assert result.exit_code == 1
    assert [line for line in result.output.splitlines() if " MB16" in line] == lines.splitlines()
