"""All pages: anchors lead to headings, examples are what they claim to be, none is left out of the index."""

from __future__ import annotations

import ast
import json
import re
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from ruamel.yaml import YAML

from bridge.cli import main
from bridge.config import examine, json_schema
from bridge.rules.loader import load_text
from tests.support.docs_commands import unknown_flags
from tests.support.docs_runner import Command, steps

ROOT = Path(__file__).parents[3]
PAGES = sorted(
    path for pattern in ("*.md", "docs/*.md", "schemas/*.md", "tests/*/*/*.md") for path in ROOT.glob(pattern)
)
SECTIONS = set(json_schema()["properties"])
IDS = [str(page.relative_to(ROOT)) for page in PAGES]


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def anchors(page: Path) -> set[str]:
    """Of its headings, as GitHub makes them; a heading that stands there twice has -1 behind it."""
    prose = re.sub(r"^ *```.*?^ *```$", "", text_of(page), flags=re.MULTILINE | re.DOTALL)
    found: dict[str, int] = {}
    for heading in re.findall(r"^#{1,6} +(.+?)\s*$", prose, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found[name] = found.get(name, -1) + 1
    return {name if not number else f"{name}-{number}" for name, last in found.items() for number in range(last + 1)}


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_to_pages_and_their_headings(page: Path) -> None:
    """Relative ones; in other files than Markdown an anchor is a line."""
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), target


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent == ROOT / "docs"], ids=lambda page: page.name)
def test_the_index_has_every_page(page: Path) -> None:
    """A new page gets its line in docs/README.md."""
    assert page.name == "README.md" or f"]({page.name})" in text_of(ROOT / "docs" / "README.md")


def test_the_readme_leads_to_the_index_and_has_five_minutes_of_prose() -> None:
    """Some 250 words a minute; code and tables are looked at, not read."""
    text = text_of(ROOT / "README.md")
    assert "](docs/README.md)" in text
    prose = re.sub(r"^```.*?^```$|^\|.*$", "", text, flags=re.MULTILINE | re.DOTALL)
    assert len(prose.split()) < 1_300


def blocks(language: str) -> list[tuple[str, str]]:
    """Of all pages: the page with the block's number there, and its text."""
    return [
        (f"{page.relative_to(ROOT)}-{number}", text)
        for page in PAGES
        if language != "yaml" or page.name != "check.md"
        for number, text in enumerate(
            re.findall(rf"^```{language}\n(.*?)^```$", text_of(page), re.MULTILINE | re.DOTALL), 1
        )
    ]


def parametrized(language: str) -> Any:
    found = blocks(language)
    return pytest.mark.parametrize("text", [text for _, text in found], ids=[name for name, _ in found])


@parametrized("json")
def test_json_is_json(text: str) -> None:
    json.loads(text)


@parametrized("python")
def test_python_is_python(text: str) -> None:
    ast.parse(text)


@parametrized("toml")
def test_toml_is_toml(text: str) -> None:
    tomllib.loads(text)


BASE = {
    "kafka": {"bootstrap_servers": "localhost:9092"},
    "topics": {"user-events": {}},
    "meisa": {"api_key": {"env": "MEISA_API_KEY"}, "environment": "test"},
    "rules": ["rules.yaml"],
}


def joined(below: Any, above: Any) -> Any:
    """What a page shows of bridge.yaml, over a whole one."""
    if not isinstance(below, dict) or not isinstance(above, dict) or above.keys() <= {"env", "file"}:
        return above
    return {**below, **{key: joined(below.get(key), value) for key, value in above.items()}}


def references(shown: Any) -> Iterator[tuple[str, str]]:
    if isinstance(shown, dict) and len(shown) == 1 and shown.keys() <= {"env", "file"}:
        ((kind, name),) = shown.items()
        yield kind, name
    for below in shown.values() if isinstance(shown, dict) else shown if isinstance(shown, list) else ():
        yield from references(below)


@parametrized("yaml")
def test_yaml_is_what_it_shows(text: str, tmp_path: Path) -> None:
    """Rules are rules, and settings pass the checks of a start. What docs/check.md shows is wrong, and tested there."""
    shown = YAML(typ="safe", pure=True).load(text)
    if isinstance(shown, dict) and shown.keys() <= SECTIONS and not _are_rules(shown.get("rules")):
        secret = "meisa_live_x" if shown.get("meisa", {}).get("environment") == "live" else "meisa_test_x"
        environ = {name: secret for kind, name in references(shown) if kind == "env"} | {"MEISA_API_KEY": secret}
        whole = joined(BASE, shown)
        for kind, name in references(shown):
            if kind == "file":
                (tmp_path / name.strip("/").replace("/", "-")).write_text(secret)
        config = json.dumps(whole)
        for kind, name in references(shown):
            if kind == "file":
                config = config.replace(json.dumps(name), json.dumps(str(tmp_path / name.strip("/").replace("/", "-"))))
        (tmp_path / "bridge.yaml").write_text(config)
        found = examine(tmp_path / "bridge.yaml", environ).problems
        # Certificates are not here: tests/integration/test_kafka_secured.py connects with these examples.
        found = [problem for problem in found if problem.code not in ("MB055", "MB056")]
        assert [problem for problem in found if problem.severity == "error"] == []
    elif isinstance(shown, dict) and shown.keys() <= {"rules", "tests"} and "handler:" not in text:
        load_text(text)
    elif _are_rules(shown):
        load_text("rules:\n" + textwrap.indent(text, "  "))


def _are_rules(shown: Any) -> bool:
    return isinstance(shown, list) and all(isinstance(each, dict) and "match" in each for each in shown)


def test_every_command_of_a_console_block_exists_with_its_flags() -> None:
    """Those that a reader could copy; blocks without a language have a test of their own."""
    lines = [
        step.line
        for page in PAGES
        for step in steps(text_of(page))
        if isinstance(step, Command) and "meisa-bridge" in step.line
    ]
    assert len(lines) >= 15
    assert {line: wrong for line in lines if (wrong := unknown_flags(line))} == {}


def test_every_machine_stands_in_the_design() -> None:
    machines = {path.stem for path in (ROOT / "bridge" / "core").glob("*.py")} - {"__init__"}
    named = set(re.findall(r"\(\.\./bridge/core/(\w+)\.py\)", text_of(ROOT / "docs" / "design.md")))
    assert named == machines


def test_commands_named_in_text_exist() -> None:
    """`meisa-bridge dlq` is one, `meisa-bridge replay` would be none."""
    context = click.Context(main)
    named = {name for page in PAGES for name in re.findall(r"`meisa-bridge ([a-z]+)", text_of(page))}
    assert {name for name in named if main.get_command(context, name) is None} == set()
