"""A rules file as nodes that know their place: YAML 1.2, where `no` is a text and a date stays one.

ruamel composes the nodes with their marks; what the scalars mean is decided here by YAML 1.2's core schema. Every
character of a scalar can be found again in the file, so that a mistake inside an expression is shown where it stands,
whatever the quoting.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

from bridge.errors import Problem

BYTES_MAX = 1_000_000
"""One file; a thousand rules have about 500 kB."""

NODES_MAX = 100_000
"""Values of one file with its aliases written out: aliases of aliases grow exponentially."""

DEPTH_MAX = 50
"""Levels of nesting; JSON of such depth means a mistake."""

_SPECIAL = {"": None, "~": None, "null": None, "Null": None, "NULL": None,
            "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}  # fmt: skip
_INT = re.compile(r"[-+]?[0-9]{1,30}|0o[0-7]{1,30}|0x[0-9a-fA-F]{1,30}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)


@dataclass(slots=True)
class Node:
    """One value of the file. `value` is a dict of nodes, a list of nodes, or a scalar."""

    value: Any
    line: int
    column: int
    """Both count from 1."""
    quoted: bool = False
    """A scalar in quotes or as a block."""
    keys: dict[str, Node] = field(default_factory=dict)
    """Of a mapping: the nodes of its keys."""
    document: Document | None = None
    raw_start: int = 0
    raw_end: int = 0

    def plain(self) -> Any:
        """The value without places."""
        if isinstance(self.value, dict):
            return {name: node.plain() for name, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def at(self, offset: int) -> tuple[int, int]:
        """Line and column of a character of this scalar's text; its start where that cannot be told."""
        if self.document is None or not isinstance(self.value, str):
            return self.line, self.column
        raw = self.document.text[self.raw_start : self.raw_end]
        anchor = re.match(r"&\S+\s+", raw)
        before = anchor.end() if anchor else 0
        return self.document.place(self.raw_start + before + _raw_offset(raw[before:], self.value, offset, self.quoted))

    def comment_follows(self) -> bool:
        """Whether a ` #` ended this scalar, perhaps to its author's surprise."""
        if self.document is None or self.quoted:
            return False
        rest = self.document.text[self.raw_end :].split("\n", 1)[0]
        return rest.lstrip(" ").startswith("#") and rest.startswith((" ", "#"))


def _raw_offset(raw: str, text: str, offset: int, quoted: bool) -> int:
    """Where in the raw scalar (quotes, escapes, folded lines) the character at `offset` of its text stands."""
    style = raw[:1] if quoted else ""
    at = 1 if style in ("'", '"') else 0
    if style in ("|", ">"):
        at = raw.find("\n") + 1
    for index in range(min(offset, len(text)) + 1):
        char = text[index] if index < len(text) else ""
        if char and not char.isspace():
            while at < len(raw) and raw[at].isspace():
                at += 1  # an indentation, or a fold that left less than stood there
        if index == offset or at >= len(raw):
            break
        if style == "'" and raw.startswith("''", at):
            at += 2
        elif style == '"' and (escape := _ESCAPE.match(raw, at)):
            at = escape.end()
        elif char.isspace() and raw[at] in " \n" and raw[at] != char:
            while at < len(raw) and raw[at].isspace():
                at += 1
        else:
            at += 1
    return min(at, len(raw))


class Document:
    """One file's text, its root node, and what is wrong with it as YAML."""

    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file
        self.problems: list[Problem] = []
        self._count = 0
        self._lines = [0, *(match.end() for match in re.finditer("\n", text))]
        self.root: Node | None = self._parse()

    def place(self, index: int) -> tuple[int, int]:
        line = bisect_right(self._lines, index)
        return line, index - self._lines[line - 1] + 1

    def problem(self, code: str, message: str, place: tuple[int, int] = (0, 0), hint: str = "") -> None:
        self.problems.append(Problem(code, message, self.file, *place, hint))

    def _parse(self) -> Node | None:
        yaml = YAML(typ="safe", pure=True)
        try:
            root = yaml.compose(self.text)
            node = None if root is None else self._node(root, 0)
        except MarkedYAMLError as error:
            self._syntax(error)
        except YAMLError as error:
            self.problem("MB100", f"not YAML: {' '.join(str(error).split())[:200]}")
        except (RecursionError, _TooLarge):
            message = f"nested more than {DEPTH_MAX} levels deep, or more than {NODES_MAX} values with its aliases"
            self.problem("MB108", message)
        else:
            return node
        return None

    def _syntax(self, error: MarkedYAMLError) -> None:
        """Tells the traps that people fall into from other mistakes."""
        mark = error.problem_mark or error.context_mark
        index = 0 if mark is None else mark.index
        place = (0, 0) if mark is None else (mark.line + 1, mark.column + 1)
        line = self.text.split("\n")[place[0] - 1] if place[0] else ""
        what = " ".join(str(error.problem or error.context or "cannot be read").split())
        value = line.partition(": ")[2].strip() or line.lstrip("- ").strip()
        if self.text[index : index + 1] == "*" or "alias" in what or "alias" in str(error.context):
            glob = re.search(r"\*[^\s,\]}]*", line)
            hint = f'put it in quotes: "{glob[0]}"' if glob else "put it in quotes"
            self.problem("MB110", "a leading * begins an alias in YAML", place, hint)
        elif "${" in line and self.text[index : index + 1] == "{" and self.text[index - 1 : index] == "$":
            place = (place[0], place[1] - 1)
            shown = re.search(r"\$\{[^}]*\}", line)
            hint = f'put it in quotes: "{shown[0] if shown else "${…}"}"'
            self.problem("MB111", "${…} inside { } or [ ] needs quotes", place, hint)
        elif value[:1] in ("'", '"') and "scalar" in what:
            quote = "'" if value[0] == '"' else '"'
            hint = f"put the whole in quotes: {quote}{value}{quote}" if quote not in value else "write it after >-"
            self.problem("MB113", "in YAML a text that begins with a quote ends with it", place, hint)
        else:
            hint = ""
            if "mapping values" in what:
                hint = "put a text that holds a colon and a space in quotes, and look at the indentation"
            elif "\\t" in what:
                hint = "indent with spaces, not tabs"
            elif "document" in what:
                hint = "one file holds one document: remove the ---"
            self.problem("MB100", f"not YAML: {what}", place, hint)

    def _node(self, node: Any, depth: int) -> Node:
        self._count += 1
        if depth > DEPTH_MAX or self._count > NODES_MAX:
            raise _TooLarge
        mark = node.start_mark
        made = Node(None, mark.line + 1, mark.column + 1, False, {}, self, mark.index, node.end_mark.index)
        tag = str(node.tag or "")
        if tag.startswith("!") or not tag.startswith("tag:yaml.org,2002:"):
            hint = f"write not {tag[1:]}" if tag.startswith("!") and len(tag) > 1 else "put it in quotes"
            self.problem("MB112", f"{tag} is a tag in YAML, no text", (made.line, made.column), hint)
        if isinstance(node, ScalarNode):
            made.quoted = node.style is not None
            if tag.startswith("!"):
                made.value = f"{tag[1:]} {node.value}".strip()  # as meant, so that no second problem follows
            else:
                made.value = node.value if made.quoted else _scalar(node.value)
        elif isinstance(node, SequenceNode):
            made.value = [self._node(item, depth + 1) for item in node.value]
        elif isinstance(node, MappingNode):
            self._mapping(made, node, depth)
        return made

    def _mapping(self, made: Node, node: Any, depth: int) -> None:
        made.value = {}
        merged: list[Node] = []
        for key, value in node.value:
            place = (key.start_mark.line + 1, key.start_mark.column + 1)
            if not isinstance(key, ScalarNode):
                self.problem("MB104", "a key must be a text", place, "put a text that holds ${…} in quotes")
                continue
            name = key.value
            if name == "<<" and key.style is None:
                found = self._node(value, depth + 1)
                merged += found.value if isinstance(found.value, list) else [found]
            elif name in made.value:
                first = made.keys[name].line
                self.problem("MB102", f"the key {name} stands here twice", place, f"the first is in line {first}")
            else:
                made.keys[name] = Node(name, *place)
                inner = made.value[name] = self._node(value, depth + 1)
                if inner.value is None and inner.raw_start == inner.raw_end:  # ruamel places nothing at the next token
                    inner.line, inner.column = place[0], key.end_mark.column + 3
        for source in merged:
            if not isinstance(source.value, dict):
                self.problem("MB104", "<< merges mappings only", (source.line, source.column))
                continue
            for name, value in source.value.items():
                if name not in made.value:
                    made.keys[name], made.value[name] = source.keys[name], value


class _TooLarge(Exception):
    """The file with its aliases written out is larger than any real one."""


def _scalar(text: str) -> Any:
    """What an unquoted scalar means by YAML 1.2's core schema."""
    if text in _SPECIAL:
        return _SPECIAL[text]
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if len(text) < 400 and _FLOAT.fullmatch(text):
        number = float(text)
        return number if math.isfinite(number) else text
    return text
