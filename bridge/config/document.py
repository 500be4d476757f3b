"""YAML 1.2 to a tree in which every value knows its place.

Only what a configuration needs: maps with text keys, lists, scalars of the core schema (`no` and `2026-01-01` are
text), anchors, aliases and merge keys. Duplicate keys, tags and endless aliases are problems, with their place.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

from bridge.config import codes
from bridge.errors import Problem

NODES_MAX: Final = 50_000
"""Aliases may repeat a small text many times over; a real configuration has hundreds of values."""
DEPTH_MAX: Final = 50
"""Far deeper than any setting, far shallower than Python's recursion limit."""

_NULL: Final = re.compile(r"~|null|Null|NULL|")
_TRUE: Final = re.compile(r"true|True|TRUE")
_FALSE: Final = re.compile(r"false|False|FALSE")
_INT: Final = re.compile(r"[-+]?[0-9]+")
_BASED: Final = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INFINITE: Final = re.compile(r"[-+]?\.(inf|Inf|INF)")
_NAN: Final = re.compile(r"\.(nan|NaN|NAN)")
_TAG: Final = "tag:yaml.org,2002:"
_PLAIN_TAGS: Final = frozenset(_TAG + name for name in ("null", "bool", "int", "float", "str", "timestamp", "merge"))


class Place(NamedTuple):
    """Where something is written; line and column count from 1, 0 means the whole."""

    file: str
    line: int = 0
    column: int = 0

    def problem(self, code: str, message: str, hint: str = "", severity: str = "error") -> Problem:
        return Problem(code, message, self.file, self.line, self.column, hint, severity)


Scalar = None | bool | int | float | str


@dataclass(slots=True)
class Node:
    """One value of the tree; a map's values are nodes again."""

    value: Scalar | dict[str, Node] | list[Node]
    place: Place
    key_place: Place
    """Where its key is written; for an item of a list and for the root, its own place."""
    override: str = ""
    """The environment variable that gave it; empty where the file did."""

    def plain(self) -> Any:
        """The value without places."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value


def scalar(text: str) -> Scalar:
    """What a plain (unquoted) scalar means by the core schema of YAML 1.2."""
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text):
        return True
    if _FALSE.fullmatch(text):
        return False
    if len(text) > 400:  # no number of a configuration; and int() of huge text raises
        return text
    if _INT.fullmatch(text):
        return int(text)
    if _BASED.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INFINITE.fullmatch(text):
        return -math.inf if text.startswith("-") else math.inf
    if _NAN.fullmatch(text):
        return math.nan
    return text


def parse(text: str, file: str, *, override: str = "") -> tuple[Node | None, list[Problem]]:
    """The tree of a YAML text and its problems; no tree where the text is not YAML, or empty."""
    yaml = YAML(typ="safe", pure=True)
    try:
        root = yaml.compose(text)
    except MarkedYAMLError as error:
        return None, [_syntax_problem(error, file)]
    except YAMLError as error:  # a character that YAML forbids: its text quotes nothing but the character
        return None, [Place(file).problem(codes.SYNTAX, f"not YAML: {' '.join(str(error).split())[:200]}")]
    except RecursionError:
        return None, [Place(file).problem(codes.UNSUPPORTED_YAML, "nested far too deeply")]
    if root is None:
        return None, []
    builder = _Builder(file, override)
    node = builder.build(root, None, ())
    return node, builder.problems


def _syntax_problem(error: MarkedYAMLError, file: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    place = Place(file, mark.line + 1, mark.column + 1) if mark else Place(file)
    what = " ".join(str(error.problem or error.context or "cannot be parsed").split())
    what = re.sub(r" ['\"].{3,}['\"]", "", what)  # a quoted name may be half of a password that begins with * or &
    hint = ""
    if "cannot start any token" in what and "\\t" in what:
        hint = "indent with spaces, not tabs"
    elif "mapping values are not allowed" in what:
        hint = "put text that holds a colon and a space in quotes, and check the indentation"
    elif "another document" in what:
        hint = "one file holds one configuration: remove the ---"
    elif "undefined alias" in what:
        hint = "a leading * names an anchor; put the text in quotes if it is meant literally"
    return place.problem(codes.SYNTAX, f"not YAML: {what}", hint)


class _Builder:
    """Walks ruamel's nodes once; stops adding after NODES_MAX."""

    def __init__(self, file: str, override: str) -> None:
        self.file = file
        self.override = override
        self.problems: list[Problem] = []
        self.count = 0

    def place(self, node: Any) -> Place:
        if self.override:
            return Place(self.file)  # line and column within a variable's value help nobody
        return Place(self.file, node.start_mark.line + 1, node.start_mark.column + 1)

    def build(self, node: Any, key: Any, above: tuple[int, ...]) -> Node:
        place = self.place(node)
        made = Node(None, place, self.place(key) if key is not None else place, self.override)
        self.count += 1
        if id(node) in above:
            self.problems.append(place.problem(codes.UNSUPPORTED_YAML, "an alias that contains itself"))
        elif self.count == NODES_MAX:
            self.problems.append(place.problem(codes.UNSUPPORTED_YAML, f"more than {NODES_MAX:,} values"))
        elif len(above) > DEPTH_MAX:
            self.problems.append(place.problem(codes.UNSUPPORTED_YAML, f"nested more than {DEPTH_MAX} deep"))
        elif self.count < NODES_MAX:
            self._fill(made, node, (*above, id(node)))
        return made

    def _fill(self, made: Node, node: Any, above: tuple[int, ...]) -> None:
        if isinstance(node, ScalarNode):
            if node.tag not in _PLAIN_TAGS:
                self._tagged(node, made.place)
            plain = node.style is None and node.tag != f"{_TAG}str"
            made.value = scalar(node.value) if plain else str(node.value)
        elif isinstance(node, SequenceNode):
            if node.tag != f"{_TAG}seq":
                self._tagged(node, made.place)
            made.value = [self.build(item, None, above) for item in node.value]
        elif isinstance(node, MappingNode):
            if node.tag != f"{_TAG}map":
                self._tagged(node, made.place)
            made.value = self._mapping(node, above)

    def _tagged(self, node: Any, place: Place) -> None:
        self.problems.append(
            place.problem(
                codes.UNSUPPORTED_YAML,
                "tags are not supported",
                "a leading ! makes a tag; put the text in quotes if it is meant literally",
            )
        )

    def _mapping(self, node: MappingNode, above: tuple[int, ...]) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                self.problems.append(
                    self.place(key).problem(
                        codes.UNSUPPORTED_YAML, "a key must be text", "put text that holds ${…} or {…} in quotes"
                    )
                )
            elif key.tag == f"{_TAG}merge":
                self._merge(value, above, merged)
            elif key.value in entries:
                first = entries[key.value].key_place
                where = f"it stands in line {first.line} already" if first.line else "remove one of them"
                self.problems.append(
                    self.place(key).problem(codes.DUPLICATE_KEY, f"the key `{key.value}` is written twice", where)
                )
            else:
                entries[key.value] = self.build(value, key, above)
        return {**merged, **entries}

    def _merge(self, value: Any, above: tuple[int, ...], merged: dict[str, Node]) -> None:
        """`<<: *anchor` or `<<: [*one, *two]`: an earlier one wins, and the map's own keys before both."""
        for source in value.value if isinstance(value, SequenceNode) else [value]:
            node = self.build(source, None, above)
            if isinstance(node.value, dict):
                for name, entry in node.value.items():
                    merged.setdefault(name, entry)
            else:
                self.problems.append(node.place.problem(codes.UNSUPPORTED_YAML, "<< takes a map or a list of maps"))
