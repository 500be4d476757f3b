"""docs/hard-cases.md names what there is: every case once, tests that exist, and code that is where it says.

So does the table of mutations: what it breaks is still there, and what it claims to be noticed by stands on the page.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.mutations.table import Mutation, load
from tests.support.amount import THOROUGH

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "hard-cases.md"
CASES = range(1, 41)
"""32 of delivery, then those of operating it."""

_HEADING = re.compile(r"^## (\d+)\. (.+)$", re.MULTILINE)
_NODE = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
_TEST = re.compile(r"^\s*(?:async )?(?:def )?((?<=def )test_\w+(?=\()|Test\w+(?= = ))", re.MULTILINE)
"""Functions, and Hypothesis' state machines: `TestX = X.TestCase`."""
_FILE = re.compile(r"`((?:bridge|tests|docs|config|deploy)/[\w./-]+\.\w+)`")
MUTATIONS = load()


@cache
def sections() -> dict[int, str]:
    """The text of each case, by its number; the last one where a number stands twice."""
    text = PAGE.read_text(encoding="utf-8")
    heads = list(_HEADING.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    return {int(head[1]): text[head.end() : end] for head, end in zip(heads, ends, strict=True)}


@cache
def names_in(file: str) -> frozenset[str]:
    """Names of the file's tests, by its text alone: nothing is imported."""
    return frozenset(_TEST.findall((ROOT / file).read_text(encoding="utf-8")))


def exists(node_id: str) -> bool:
    file, _, name = node_id.partition("::")
    return (ROOT / file).is_file() and name.partition("[")[0].rpartition("::")[2] in names_in(file)


def test_every_case_has_its_section_once_and_in_order() -> None:
    numbers = [int(number) for number, _ in _HEADING.findall(PAGE.read_text(encoding="utf-8"))]
    assert numbers == list(CASES)


@pytest.mark.parametrize("case", CASES)
def test_what_a_section_names_exists(case: int) -> None:
    """Files, and tests by their node ids: as pytest takes them."""
    text = sections()[case]
    assert [name for name in _FILE.findall(text) if not (ROOT / name).is_file()] == []
    assert ["::".join(node) for node in _NODE.findall(text) if not exists("::".join(node))] == []


@pytest.mark.parametrize("case", CASES)
def test_every_case_names_its_code_and_its_tests_and_can_be_broken(case: int) -> None:
    """Nothing is proved by a test that has never been seen to fail: each case has a mutation."""
    text = sections()[case]
    assert _NODE.search(text) and re.search(r"`bridge/", text)
    assert any(mutation.case == case for mutation in MUTATIONS)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: f"{mutation.case}-{mutation.breaks[:40]}")
def test_a_mutation_breaks_what_is_there_and_names_tests_of_its_case(mutation: Mutation) -> None:
    """Its text is in its file exactly once; what takes its place is other code; the page names its tests."""
    text = (ROOT / mutation.file).read_text(encoding="utf-8")
    assert text.count(mutation.old) == 1, f"{mutation.file} has changed: renew tests/mutations/mutations.toml"
    assert mutation.old.split() != mutation.new.split()
    if THOROUGH and mutation.file.endswith(".py"):  # all of them take seconds, and a run of the mutations tells too
        ast.parse(text.replace(mutation.old, mutation.new))
    assert [test for test in mutation.tests if not exists(test)] == []
    named = {"::".join(node) for node in _NODE.findall(sections()[mutation.case])}
    assert {test.partition("[")[0] for test in mutation.tests} <= named
