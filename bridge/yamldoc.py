"""YAML 1.2 to a tree in which every value knows its place; what configuration and rules are read with.

Only what they need: maps with text keys, lists, scalars of the core schema (`no` and `2026-01-01` are text), anchors,
aliases and merge keys. Duplicate keys, tags, deep nesting and endless aliases are problems, with their place.

The tree is built from the parser's events, one by one, and not by composing nodes recursively: so every bound is held
before memory or the stack is used, and an answer does not depend on how deep the caller's stack is.

Every character of a scalar can be found again in the file, so that a mistake inside an expression is shown where it
stands, whatever the quoting.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.composer import ComposerError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    CollectionEndEvent,
    CollectionStartEvent,
    DocumentStartEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
)
from ruamel.yaml.reader import ReaderError

from bridge.errors import Problem
from bridge.places import Place

DEPTH_MAX: Final = 50
"""Levels of nesting: far deeper than anything real, far shallower than Python's recursion limit."""

_SPECIAL: Final = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_INT: Final = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE: Final = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_BREAK: Final = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
"""What the parser counts as the end of a line."""
_PROPERTIES: Final = re.compile(r"([&!]\S*\s+)*")
_ESCAPE: Final = re.compile(
    r"\\(u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a pair that stands for one character
    r"|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)",
    re.DOTALL,
)
_NO_CHARACTER: Final = re.compile(r"\\U(?!000|0010)[0-9a-fA-F]{8}")
_JOINED_LINES: Final = re.compile(r"(\\\n[ \t]*)*")
_QUOTED_NAME: Final = re.compile(r" (['\"])(?!<)[^'\" ]{3,}\1")
_TAG: Final = "tag:yaml.org,2002:"
_HARMLESS_TAGS: Final = frozenset(_TAG + name for name in ("null", "bool", "int", "float", "str", "map", "seq"))

Scalar = None | bool | int | float | str


def scalar(text: str) -> Scalar:
    """What a plain (unquoted) scalar means by the core schema of YAML 1.2."""
    if text in _SPECIAL:
        return _SPECIAL[text]
    if len(text) > 400:  # no number that anybody wrote; and int() of huge text raises
        return text
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _NOT_FINITE.fullmatch(text):
        return float(text.replace(".", "", 1))
    return text


def json_scalar(text: str) -> Scalar:
    """The same, but a number that JSON cannot carry stays text: an id such as 1e999, or one of thirty digits."""
    value = scalar(text)
    if type(value) is int:
        return value if -(2**63) <= value < 2**64 else text
    return text if type(value) is float and not math.isfinite(value) else value


class Complaint(NamedTuple):
    """What the parser says about a character of the source."""

    what: str
    while_doing: str
    at: int
    place: Place


@dataclass(frozen=True, slots=True)
class Dialect:
    """A room's codes for what can be wrong with YAML itself, and its bound; it may know better words for some."""

    syntax: str
    duplicate_key: str
    tag: str
    structure: str
    too_large: str
    values_max: int
    """Values of one file with its aliases written out: aliases of aliases grow exponentially."""
    content: str = "document"
    """What one file holds one of."""
    scalar: Callable[[str], Scalar] = scalar
    """What an unquoted scalar means."""

    def syntax_problem(self, complaint: Complaint, source: Source) -> Problem:
        what, hint = complaint.what, ""
        if "cannot start any token" in what and "\\t" in what:
            hint = "indent with spaces, not tabs"
        elif "mapping values are not allowed" in what:
            hint = "put a text that holds a colon and a space in quotes, and check the indentation"
        elif "another document" in what:
            hint = f"one file holds one {self.content}: remove the ---"
        elif "undefined alias" in what:
            hint = "a leading * names an anchor; put the text in quotes if it is meant literally"
        elif source.text[complaint.at - 1 : complaint.at + 1] == "${":
            hint = "a text with ${…} inside { } or [ ] needs quotes"
        return complaint.place.problem(self.syntax, f"not YAML: {what}", hint)

    def tag_problem(self, tag: str, place: Place, line: str) -> Problem:
        """`tag`, in this line, may be half of a password that begins with an exclamation mark."""
        hint = "a leading ! makes a tag; put the text in quotes if it is meant literally"
        return place.problem(self.tag, "tags are not supported", hint)


class Source:
    """A file's text."""

    def __init__(self, text: str, file: str) -> None:
        self.text = text
        self.file = file
        self._starts = [0, *(match.end() for match in _BREAK.finditer(text))]

    def place(self, index: int) -> Place:
        line = bisect_right(self._starts, index)
        return Place(self.file, line, index - self._starts[line - 1] + 1)

    def line(self, index: int) -> str:
        """The line in which a character stands, up to its break."""
        start = self._starts[bisect_right(self._starts, index) - 1]
        return _BREAK.split(self.text[start:], 1)[0]


@dataclass(slots=True)
class Node:
    """One value of the tree; a map's values are nodes again."""

    value: Scalar | dict[str, Node] | list[Node]
    place: Place
    key_place: Place
    """Where its key is written; for an item of a list and for the root, its own place."""
    override: str = ""
    """The environment variable that gave it; empty where the file did."""
    quoted: bool = False
    """A scalar in quotes or as a block."""
    source: Source | None = None
    start: int = 0
    end: int = 0
    """The characters of a scalar in its source, from `start` up to `end`."""

    def plain(self) -> Any:
        """The value without places."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def at(self, offset: int) -> Place:
        """The place of a character of this scalar's text; its start where that cannot be told."""
        if self.source is None or not isinstance(self.value, str):
            return self.place
        raw = self.source.text[self.start : self.end]
        properties = _PROPERTIES.match(raw)
        before = properties.end() if properties else 0
        return self.source.place(self.start + before + _raw_offset(raw[before:], self.value, offset, self.quoted))

    def comment_follows(self) -> bool:
        """Whether a ` #` ended this scalar, perhaps to its author's surprise."""
        if self.source is None or self.quoted:
            return False
        rest = self.source.text[self.end :].split("\n", 1)[0]
        return rest.lstrip(" ").startswith("#") and rest.startswith((" ", "#"))


def _raw_offset(raw: str, text: str, offset: int, quoted: bool) -> int:
    """Where in the raw scalar (quotes, escapes, folded lines) the character at `offset` of its text stands."""
    style = raw[:1] if quoted else ""
    at = 1 if style in ("'", '"') else 0
    if style in ("|", ">"):
        at = raw.find("\n") + 1
    for index in range(min(offset, len(text)) + 1):
        char = text[index] if index < len(text) else ""
        if style == '"' and (joined := _JOINED_LINES.match(raw, at)):
            at = joined.end()
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


def parse(text: str, file: str, dialect: Dialect, *, override: str = "") -> tuple[Node | None, list[Problem]]:
    """The tree of a YAML text and its problems; no tree where the text is not YAML, too large, or empty."""
    source = Source(text, file)
    builder = _Builder(source, dialect, override)
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            builder.take(event)
    except _TooLarge as error:
        return None, [error.problem]
    except MarkedYAMLError as error:
        return None, [dialect.syntax_problem(_complaint(error, file), source)]
    except ReaderError as error:
        place = source.place(error.position)
        return None, [place.problem(dialect.syntax, "not YAML: a character that YAML does not allow")]
    except YAMLError as error:
        return None, [Place(file).problem(dialect.syntax, f"not YAML: {' '.join(str(error).split())[:200]}")]
    except AssertionError:  # how the parser refuses a version
        return None, [Place(file).problem(dialect.syntax, "not YAML: a version other than 1.2", "remove %YAML")]
    except (ValueError, OverflowError):  # of chr() and int() inside the parser, which lets them through
        wrong = _NO_CHARACTER.search(text, builder.end)
        place = source.place(wrong.start()) if wrong else Place(file)
        return None, [place.problem(dialect.syntax, "not YAML: a number or an escape \\U that is out of range")]
    return builder.root, builder.problems


def _complaint(error: MarkedYAMLError, file: str) -> Complaint:
    mark = error.problem_mark or error.context_mark
    place = Place(file, mark.line + 1, mark.column + 1) if mark else Place(file)
    what = " ".join(str(error.problem or error.context or "cannot be read").split())
    what = _QUOTED_NAME.sub("", what)  # it may be half of a password that begins with * or &
    return Complaint(what, str(error.context or ""), mark.index if mark else 0, place)


class _TooLarge(Exception):
    """The file is larger or deeper than any real one; `problem` says where that shows."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(problem.message)


class _Key(NamedTuple):
    text: str
    place: Place
    end: Place
    """The place after it."""
    use: Literal["entry", "merge", "drop"]


@dataclass(slots=True)
class _Open:
    """A map or list that has not ended yet."""

    node: Node
    key: _Key | None = None
    """In a map: the key whose value comes next."""
    merged: list[Node] = field(default_factory=list)


@dataclass(slots=True)
class _Anchored:
    node: Node
    text: str | None
    """A scalar's own text, for an alias that is a key."""


class _Builder:
    """Takes the parser's events, in order, and keeps the collections that are open on a stack of its own."""

    def __init__(self, source: Source, dialect: Dialect, override: str) -> None:
        self.root: Node | None = None
        self.problems: list[Problem] = []
        self.end = 0
        """The source was taken up to here."""
        self._source = source
        self._dialect = dialect
        self._override = override
        self._open: list[_Open] = []
        self._anchored: dict[str, _Anchored] = {}
        self._count = 0
        self._documents = 0

    def take(self, event: Any) -> None:
        if isinstance(event, DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise ComposerError(None, None, "found another document", event.start_mark)
        elif isinstance(event, CollectionEndEvent):
            self._merge(self._open.pop())
        elif isinstance(event, NodeEvent):
            self._node(event)
        self.end = event.end_mark.index

    def _node(self, event: Any) -> None:
        above = self._open[-1] if self._open else None
        is_key = above is not None and isinstance(above.node.value, dict) and above.key is None
        node, text = self._alias(event) if isinstance(event, AliasEvent) else self._made(event)
        if is_key and above is not None:
            above.key = self._key(above, node, text, event)
        else:
            self._put(above, node)
        if event.anchor is not None and not isinstance(event, AliasEvent):
            self._anchored[event.anchor] = _Anchored(node, text)
        if isinstance(event, CollectionStartEvent):
            self._open.append(_Open(node))

    def _made(self, event: Any) -> tuple[Node, str | None]:
        """A node without what is in it, and a scalar's text."""
        place = self._place(event.start_mark)
        self._spend(place, len(self._open))
        node = Node(None, place, place, self._override, source=None if self._override else self._source)
        node.start, node.end = event.start_mark.index, event.end_mark.index
        tag = str(event.tag or "")
        if tag and tag not in _HARMLESS_TAGS:
            self.problems.append(self._dialect.tag_problem(tag, place, self._source.line(event.start_mark.index)))
        if not isinstance(event, ScalarEvent):
            node.value = {} if isinstance(event, MappingStartEvent) else []
            return node, None
        text = self._whole(event.value, place)
        node.quoted = event.style is not None
        if tag and tag not in _HARMLESS_TAGS:
            node.value = f"{tag.removeprefix('!')} {text}".strip()  # as meant, so that no second problem follows
        else:
            node.value = text if node.quoted or tag == f"{_TAG}str" else self._dialect.scalar(text)
        return node, text

    def _whole(self, text: str, place: Place) -> str:
        """The text with escaped surrogate pairs joined, as JSON writes them; half a pair is no character."""
        if text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text):
            return text
        try:
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            message = "not YAML: half a surrogate pair is no character"
            self.problems.append(place.problem(self._dialect.syntax, message, "write both halves, or the character"))
            return text.encode("utf-8", "replace").decode()

    def _alias(self, event: Any) -> tuple[Node, str | None]:
        place = self._place(event.start_mark)
        found = self._anchored.get(event.anchor)
        if found is None:
            raise ComposerError(None, None, "found undefined alias", event.start_mark)
        if any(above.node is found.node for above in self._open):
            raise _TooLarge(place.problem(self._dialect.too_large, "an alias that contains itself"))
        return self._copied(found.node, place, len(self._open)), found.text

    def _copied(self, node: Node, alias: Place, depth: int) -> Node:
        """What the alias stands for, as if it were written out: an override must not change the anchor's own."""
        self._spend(alias, depth)
        made = Node(None, node.place, node.key_place, node.override, node.quoted, node.source, node.start, node.end)
        if isinstance(node.value, dict):
            made.value = {key: self._copied(below, alias, depth + 1) for key, below in node.value.items()}
        elif isinstance(node.value, list):
            made.value = [self._copied(below, alias, depth + 1) for below in node.value]
        else:
            made.value = node.value
        return made

    def _spend(self, place: Place, depth: int) -> None:
        self._count += 1
        if self._count > self._dialect.values_max:
            message = f"more than {self._dialect.values_max:,} values, counting what aliases repeat"
            raise _TooLarge(place.problem(self._dialect.too_large, message))
        if depth > DEPTH_MAX:
            raise _TooLarge(place.problem(self._dialect.too_large, f"nested more than {DEPTH_MAX} levels deep"))

    def _key(self, above: _Open, node: Node, text: str | None, event: Any) -> _Key:
        """What becomes of the value that follows; a key that cannot be taken drops it."""
        place, end = self._place(event.start_mark), self._place(event.end_mark)
        known = above.node.value
        assert isinstance(known, dict)
        if text is None:
            hint = "put a text that holds ${…} or {…} in quotes"
            self.problems.append(place.problem(self._dialect.structure, "a key must be text", hint))
            return _Key("", place, end, "drop")
        if text == "<<" and not node.quoted:
            return _Key(text, place, end, "merge")
        if text in known:
            first = known[text].key_place
            hint = f"it stands in line {first.line} already" if first.line else "remove one of them"
            message = f"the key `{text}` is written twice"
            self.problems.append(place.problem(self._dialect.duplicate_key, message, hint))
            return _Key(text, place, end, "drop")
        return _Key(text, place, end, "entry")

    def _put(self, above: _Open | None, node: Node) -> None:
        """Puts a value where it belongs."""
        if above is None:
            self.root = node
        elif isinstance(above.node.value, list):
            node.key_place = node.place
            above.node.value.append(node)
        elif isinstance(above.node.value, dict) and above.key is not None:
            key, above.key = above.key, None
            node.key_place = key.place
            if node.value is None and node.start == node.end and key.end.line:
                # Nothing is written: the parser places it somewhere behind.
                node.place = Place(key.end.file, key.end.line, key.end.column + 2)
            if key.use == "merge":
                above.merged.append(node)
            elif key.use == "entry":
                above.node.value[key.text] = node

    def _merge(self, ended: _Open) -> None:
        """`<<: *anchor` or `<<: [*one, *two]`: an earlier one wins, and the map's own keys before both."""
        sources: list[Node] = []
        for node in ended.merged:
            sources += node.value if isinstance(node.value, list) else [node]
        for source in sources:
            if isinstance(source.value, dict) and isinstance(ended.node.value, dict):
                for name, entry in source.value.items():
                    ended.node.value.setdefault(name, entry)
            else:
                self.problems.append(source.place.problem(self._dialect.structure, "<< takes a map or a list of maps"))

    def _place(self, mark: Any) -> Place:
        if self._override:
            return Place(self._source.file)  # line and column within a variable's value help nobody
        return Place(self._source.file, mark.line + 1, mark.column + 1)
