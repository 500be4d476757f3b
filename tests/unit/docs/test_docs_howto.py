"""How-to pages: what they have a reader do in a pull request or at night is there."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner
from ruamel.yaml import YAML

from bridge.cli import main
from bridge.observe.catalogue import WAITING_FOR_REASONS

DOCS = Path(__file__).parents[3] / "docs"


def test_the_workflow_of_ci_passes_on_the_starter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commands with its environment, in what `init` writes; a mistake fails it, at its line."""
    page = (DOCS / "ci.md").read_text(encoding="utf-8")
    workflow = YAML(typ="safe", pure=True).load(page.split("```yaml\n")[1].split("```")[0])
    job = workflow["jobs"]["rules"]
    commands = [shlex.split(step["run"]) for step in job["steps"] if step.get("run", "").startswith("meisa-bridge")]
    assert [words[1] for words in commands] == ["check", "test"]
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(main, ["init"]).exit_code == 0
    environ = {"MEISA_BRIDGE__MEISA__ENVIRONMENT": "live", **job["env"]}
    environ["MEISA_BRIDGE__MEISA__BASE_URL"] = "https://api.meisa.io/api/v1"
    for words in commands:
        done = CliRunner().invoke(main, words[1:], env=environ)
        assert done.exit_code == 0, done.output
    (uploaded,) = [step["with"]["path"] for step in job["steps"] if "upload" in step.get("uses", "")]
    assert (tmp_path / uploaded).exists()
    rules = tmp_path / "config" / "rules" / "billing.yaml"
    rules.write_text(rules.read_text().replace("match: plan.changed", "match: [plan.changed", 1))
    failed = CliRunner().invoke(main, commands[0][1:], env=environ)
    assert failed.exit_code == 1 and "::error file=config/rules/billing.yaml,line=" in failed.output


def test_troubleshooting_has_every_reason_why_work_waits() -> None:
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    section = page.split("## Nothing leaves")[1].split("\n## ")[0]
    assert [reason for reason in WAITING_FOR_REASONS if f"`{reason}`" not in section] == []
