"""What the pages say is so: commands exist, links lead somewhere, examples work as they stand there."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from bridge.cli import COMMANDS, main
from bridge.errors import ProblemsFound
from bridge.model import Event, Record
from bridge.rules import load, load_text
from tests.support.chaos.kinds import KINDS
from tests.support.docs_runner import File, steps

ROOT = Path(__file__).parents[3]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "schemas").glob("*.md")])
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(text: str, language: str = "") -> list[str]:
    """Fenced blocks of one language; without a name those without one."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_named_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    linked = [target for target in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in target]
    named = re.findall(r"`((?:bridge|tests|config|docs|schemas|deploy|benchmarks)/[\w./-]+\.\w+)`", text)
    written = {step.path for step in steps(text) if isinstance(step, File)}  # by the reader
    assert [target for target in linked if not (page.parent / target).exists()] == []
    assert [name for name in named if name not in written and not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"(?:^|`)make ([a-z]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert [name for name in named if name not in targets] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_their_flags_exist(page: Path) -> None:
    """Every `meisa-bridge …` that a reader could copy."""
    text = page.read_text(encoding="utf-8")
    lines = [line for block in blocks(text) for line in block.splitlines()] + re.findall(
        r"`(meisa-bridge [^`]+)`", text
    )
    for line in lines:
        command = line.partition("#")[0].partition(">")[0].rstrip(" &")
        words = shlex.split(command) if command.startswith("meisa-bridge ") else []
        if len(words) < 2 or not words[1].isalpha():
            continue
        assert words[1] in COMMANDS, line
        found = main.get_command(click.Context(main), words[1])
        assert found is not None
        while isinstance(found, click.Group) and words[2:] and words[2] in found.commands:
            found, words = found.commands[words[2]], words[1:]
        with click.Context(found) as context:
            flags = {flag for param in found.get_params(context) for flag in param.opts}
        assert [word for word in words[2:] if word.startswith("-") and word.partition("=")[0] not in flags] == [], line


def event(type: str, **data: object) -> Event:
    record = Record("user-events", 0, 0, 0, None, b"{}")
    return Event(id="1", type=type, time="1970-01-01T00:00:00Z", time_wall_seconds=0.0, data=data, record=record)


def test_the_rules_of_the_readme_work() -> None:
    """A sign-up becomes the upsert and the email that the text promises; staff are left alone."""
    (text,) = blocks(README, "yaml")
    book = load_text(text)
    customer = {"email": "a@example.com", "user_id": "7", "plan": "free"}
    upsert, trigger = book.plan(event("user.signed_up", **customer)).actions
    assert upsert.body == {
        "email": "a@example.com",
        "external_id": "7",
        "custom_fields": {"plan": "free"},
        "tag_names": ["trial"],
    }
    assert trigger.body == {"trigger_key": "welcome", "to_email": "a@example.com", "variables": {"first_name": "there"}}
    assert trigger.handling.max_age_seconds == 86_400
    assert book.plan(event("user.signed_up", **{**customer, "plan": "internal"})).actions == ()


def test_the_handler_of_the_readme_works(tmp_path: Path) -> None:
    (text,) = blocks(README, "python")
    (tmp_path / "readme_handler.py").write_text(text)
    try:
        book = load([], tmp_path, ["readme_handler"])
    finally:
        sys.path[:] = [path for path in sys.path if path != str(tmp_path)]
    (action,) = book.plan(event("invoice.paid", email="a@example.com", mrr=29)).actions
    assert (action.kind, action.body) == ("upsert", {"email": "a@example.com", "custom_fields": {"mrr": 29}})


def test_the_mistake_of_the_readme_is_told_in_these_words(tmp_path: Path) -> None:
    (line,) = [line for block in blocks(README) for line in block.splitlines() if " error MB" in line]
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "signup.yaml").write_text(
        "rules:\n  - match: user.signed_up\n    wehn: data.plan\n    name: a\n    do: [{upsert: {email: a}}]\n"
    )
    with pytest.raises(ProblemsFound) as caught:
        load(["rules/*.yaml"], tmp_path)
    assert str(caught.value).removeprefix(f"{tmp_path}/") == line


def test_ci_runs_what_the_readme_shows_first() -> None:
    (block,) = [block for block in blocks(README) if "make demo" in block]
    shown = {line.partition("#")[0].strip() for line in block.splitlines()}
    run = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert shown == {"make demo", "make test"} and shown <= {line.strip() for line in run}


def test_the_figures_of_the_readme_are_those_of_the_pages() -> None:
    """Each stands in docs/benchmarks.md too, with its command; all kinds of chaos are in its table."""
    section = README.split("## How few calls, and how fast")[1].split("\n## ")[0]
    page = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    figures = re.findall(r"(?<![\w.,])\d[\d,.]*\d(?: s\b| ms\b)?", section)
    assert len(figures) >= 9 and [figure for figure in figures if figure not in page] == []
    rows = re.findall(r"^\| (.+?) \| .+ s \|$", (ROOT / "docs" / "chaos.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert rows == [kind.title for kind in KINDS.values()] and len(rows) == 10 and "ten kinds of faults" in README


CHECK = (ROOT / "docs" / "check.md").read_text(encoding="utf-8")
MISTAKES = re.findall(
    r"^\| (`+)(\w+: .+?)\1(?:, with[^|]+)? \| (`+)((?:error|warning) MB\d{3}: .+?)\3 \|$", CHECK, re.MULTILINE
)
CONFIG = f"""\
kafka:
  bootstrap_servers: localhost:9092
topics:
  user-events: {{schema: {json.dumps(str(ROOT / "schemas" / "events.schema.json"))}}}
meisa: {{api_key: {{env: MEISA_API_KEY}}}}
rules: [rules/*.yaml]
"""
RULES = """\
rules:
  - name: signup
    match: user.signed_up
    when: data.plan != "internal"
    do:
      - upsert:
          email: ${data.email}
          first_name: ${optional(data.first_name)}
      - trigger:
          trigger_key: welcome
          to_email: ${data.email}
          variables: {}
        max_age: 1d
"""


@pytest.mark.parametrize(("line", "says"), [(line, says) for _, line, _, says in MISTAKES], ids=lambda text: text[:20])
def test_what_check_says_to_the_five_mistakes_of_its_page(line: str, says: str, tmp_path: Path) -> None:
    """Each stands in the place of the line with its key, in files that are right else; nothing but that is told."""
    key = line.partition(":")[0]
    files = {}
    for name, text in (("bridge.yaml", CONFIG), ("rules/signup.yaml", RULES)):
        files[name] = re.sub(rf"^( +){key}: .*$", lambda found: found[1] + line, text, flags=re.MULTILINE)
    assert [files["bridge.yaml"] != CONFIG, files["rules/signup.yaml"] != RULES].count(True) == 1
    (tmp_path / "rules").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    arguments = ["check", "--offline", "-c", str(tmp_path / "bridge.yaml")]
    result = CliRunner().invoke(main, arguments, env={"MEISA_API_KEY": "meisa_live_a"})
    told, summary = result.stdout.splitlines()
    assert re.sub(r"^\S+:\d+:\d+: ", "", told) == says
    assert summary.endswith(": 1 error") and len(MISTAKES) == 5
