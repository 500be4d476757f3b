"""`meisa-bridge init`: what it writes is right as it is, and what it says next works."""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
import tomllib
from pathlib import Path

import jsonschema
import pytest
from click.testing import CliRunner, Result

from bridge.cli import main
from bridge.cli.init import FILES, NEXT
from bridge.rules import load

ROOT = Path(__file__).parents[3]


def call(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments), env={"MEISA_API_KEY": "meisa_test_sandbox"})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_it_writes_passes_check_and_all_of_it_is_tested(folder: Path) -> None:
    """Strictly, without even a notice; the tests leave nothing out."""
    assert call("init").exit_code == 0
    checked = call("check", "--offline", "--strict")
    assert (checked.exit_code, checked.stdout) == (0, "config/bridge.yaml: no problems\n")
    tested = call("test", "--json")
    assert tested.exit_code == 0
    made = json.loads(tested.stdout)
    assert made["passed"] >= 9
    assert made["coverage"]["not_tested"] == [] and made["problems"] == []
    for share in ("rules", "branches", "actions"):
        assert made["coverage"][share]["covered"] == made["coverage"][share]["total"] > 0


def test_editors_find_the_schemas_and_they_fit(folder: Path) -> None:
    """Each file names its schema in the first line, by a path that is there; the files are valid."""
    from ruamel.yaml import YAML

    call("init")
    config = folder / "config"
    for file in (config / "bridge.yaml", *sorted((config / "rules").iterdir())):
        named = re.match(r"# yaml-language-server: \$schema=(\S+)\n", file.read_text())
        assert named, file
        schema = json.loads((file.parent / named[1]).read_text())
        jsonschema.Draft202012Validator(schema).validate(YAML(typ="safe", pure=True).load(file.read_text()))


def test_the_rules_need_no_more_scopes_than_a_sandbox_key_has_and_every_common_kind_shows(folder: Path) -> None:
    call("init")
    book = load(["rules/*.yaml"], folder / "config")
    assert {kind.value for kind in book.kinds()} == {"upsert", "trigger", "track"}
    assert book.needs_identities() == []


def test_the_next_steps_are_commands_that_exist_and_the_offline_ones_work(folder: Path) -> None:
    """In the folder that was named, with the words that were printed; tests/integration runs the others."""
    result = call("init", "my bridge")
    steps = [line.split("   # ")[0].strip() for line in result.stdout.partition("Next:\n")[2].splitlines()]
    assert steps == ["cd 'my bridge'", *(command for command, _ in NEXT)]
    for step in steps:
        words = shlex.split(step.removesuffix("&"))
        if words[0] == "meisa-bridge":
            assert call(*words[1:], "--help").exit_code == 0, step
    (change, target) = shlex.split(steps[0])
    assert change == "cd" and (folder / target).is_dir()
    with pytest.MonkeyPatch.context() as inside:
        inside.chdir(folder / target)
        preview = "meisa-bridge preview --file config/events.jsonl"
        for command in ("meisa-bridge test", preview, "meisa-bridge check --offline"):
            assert command in steps
            assert call(*shlex.split(command)[1:]).exit_code == 0, command


def test_the_readme_it_writes_names_commands_that_work(folder: Path) -> None:
    call("init")
    text = (folder / "config" / "README.md").read_text()
    lines = re.findall(r"(?:^|`)(meisa-bridge [a-z][^`\n#]*)", text, re.MULTILINE)
    assert len(lines) >= 8
    for line in lines:
        words = shlex.split(line)[1:]
        offline = words[0] in ("test", "eval", "preview", "schema") or "--offline" in words
        result = call(*words) if offline else call(*words, "--help")
        assert result.exit_code == 0, line


def test_the_sample_events_meet_every_rule_and_none_fails(folder: Path) -> None:
    call("init")
    made = json.loads(call("preview", "--file", "config/events.jsonl", "--json").stdout)
    assert [rule["failed"] for rule in made["rules"]] == [0, 0, 0]
    assert all(rule["applied"] for rule in made["rules"])


def test_nothing_is_overwritten(folder: Path) -> None:
    """Whichever file is there: then none is written."""
    mine = folder / "config" / "rules" / "billing.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine")
    result = call("init")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "meisa-bridge: config/rules/billing.yaml exists already: nothing was written; name another folder\n"
    )
    assert [file for file in (folder / "config").rglob("*") if file.is_file()] == [mine]
    assert mine.read_text() == "mine"
    assert call("init", "other").exit_code == 0
    again = call("init", "other")
    assert again.exit_code == 1 and "other/config/bridge.yaml" in again.stderr and " exist already" in again.stderr


def test_a_folder_that_cannot_be_made_is_exit_status_2(folder: Path) -> None:
    (folder / "config").write_text("a file")
    result = call("init")
    assert result.exit_code == 2
    assert result.stderr.startswith("meisa-bridge: config/bridge.yaml: cannot be written (")


def test_the_starter_is_in_the_wheel() -> None:
    """Every file of bridge/starter fits a pattern of the package's data, and is written by init."""
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["bridge"]
    starter = ROOT / "bridge" / "starter"
    files = sorted(file.relative_to(starter).as_posix() for file in starter.rglob("*") if file.is_file())
    assert files == sorted(FILES)
    for name in files:
        assert any(fnmatch.fnmatch(f"starter/{name}", pattern.replace("**/", "*")) for pattern in patterns), name
