"""The pages made from the code are the current ones, and every code that can be told is explained, once."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from bridge import preflight
from bridge.config import codes as config_codes
from bridge.rules import codes as rule_codes
from bridge.rules.functions import FUNCTIONS, METHODS
from docs.generate import DOCS, PAGES, TABLES

BRIDGE = Path(preflight.__file__).parent
HOMES = {Path(str(module.__file__)) for module in (config_codes, rule_codes)}


@pytest.mark.parametrize("name", PAGES)
def test_the_committed_page_is_current(name: str) -> None:
    """Renew it with: python docs/generate.py"""
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name]()


def test_no_code_stands_in_two_tables_and_each_is_of_its_tables_range() -> None:
    listed = [code for _, _, table in TABLES for code in table]
    assert [code for code, count in Counter(listed).items() if count > 1] == []
    for number, (_, _, table) in enumerate(TABLES):
        assert all(re.fullmatch(rf"MB{number}\d\d", code) for code in table)


def test_every_code_in_the_tables_is_on_the_page_once() -> None:
    page = (DOCS / "problems.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(MB\d{3})` \|", page, re.MULTILINE)
    assert Counter(rows) == Counter(code for _, _, table in TABLES for code in table)


def test_every_code_that_is_told_is_in_a_table_and_every_code_in_a_table_is_told() -> None:
    """Settings' codes have names, of which their own test knows that each is told; rules and preflight write them."""
    written: Counter[str] = Counter()
    for path in BRIDGE.rglob("*.py"):
        if path not in HOMES:
            written.update(re.findall(r"\"(MB\d{3})\"", path.read_text(encoding="utf-8")))
    written.subtract(list(preflight.CODES))  # there the table stands beside what tells them
    tables = {code for _, _, table in TABLES for code in table}
    assert set(written) <= tables
    assert {code for code in (*rule_codes.CODES, *preflight.CODES) if written[code] < 1} == set()


def test_every_function_and_method_is_on_the_page() -> None:
    page = (DOCS / "expressions.md").read_text(encoding="utf-8")
    for entry in (*FUNCTIONS.values(), *METHODS.values()):
        assert f"| {entry.doc} |" in page
        for example, _ in entry.examples:
            assert f"`{example}` → `" in page
