"""Whatever stands in a file: a tree or problems; and JSON is YAML."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from bridge.config.codes import YAML as CONFIGURATION
from bridge.rules.yaml_traps import YAML as RULES
from bridge.yamldoc import Node, parse
from tests.support.amount import examples

PIECES = st.sampled_from(
    ["{", "}", "[", "]", ": ", "\n", "- ", "? ", "&a ", "*a", "!t ", "!!str ", "!<", "<<: ", "'", '"', "|", ">", "+2\n",
     "%", "%YAML 1.9\n", "%TAG ! a\n", "--- ", "...\n", "\t", " #", "${x}", "null", "\\U", "FFFFFFFF", "\\x", "\\ud83d",
     "\\ude00", "@", "  ", ", ", "é", "\x85", "\u2028", "\ufeff", "\r", "\x00", "-1", "a", "b: 1\n"]
)  # fmt: skip
TEXTS = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
UNLIKE_JSON = {ord(char): f"\\u{ord(char):04x}" for char in "\x7f\x85\u2028\u2029"}
"""Characters that JSON takes unescaped, and YAML not, or as line breaks."""
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | FINITE | TEXTS,
    lambda below: st.lists(below, max_size=4) | st.dictionaries(TEXTS, below, max_size=4),
    max_leaves=6,
)  # fmt: skip


def scalars(node: Node) -> list[Node]:
    if isinstance(node.value, dict):
        return [found for below in node.value.values() for found in scalars(below)]
    if isinstance(node.value, list):
        return [found for below in node.value for found in scalars(below)]
    return [node]


@settings(max_examples=examples(300), deadline=None)
@given(st.lists(PIECES, max_size=25).map("".join))
@example("%YAML 1.9\na")
@example("- \r--- a")
@example('"\\UFFFFFFFF"')
def test_any_text_gives_a_tree_or_problems_and_every_character_has_a_place(text: str) -> None:
    for dialect in (CONFIGURATION, RULES):
        root, problems = parse(text, "f", dialect)
        lines = text.replace("\r\n", "\n").count("\n") + sum(map(text.count, "\r\x85\u2028")) + 1
        for problem in problems:
            assert "\n" not in str(problem)
            assert problem.line <= lines
        for node in scalars(root) if root is not None else ():
            if isinstance(node.value, str):
                node.value.encode()  # no half characters
                places = [node.at(offset) for offset in range(len(node.value) + 1)]
                assert places == sorted(places)
                assert places[-1].line <= lines


@settings(max_examples=examples(100), deadline=None)
@given(JSON, st.booleans())
def test_json_means_what_it_means(value: Any, ascii_only: bool) -> None:
    text = json.dumps({"value": value}, ensure_ascii=ascii_only).translate(UNLIKE_JSON)
    root, problems = parse(text, "f", RULES)
    refused = [problem for problem in problems if "does not allow" in problem.message]
    if refused:  # control characters of Latin-1, or what is no character
        assert not ascii_only
        return
    assert not problems
    assert root is not None
    assert root.plain() == {"value": value}
