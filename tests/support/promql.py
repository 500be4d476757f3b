"""A reader of PromQL, strict enough to find what Prometheus or a person would stumble over in an alert or a panel.

It parses the part of the language that our files use, types every expression (scalar, vector, range), and holds what it
finds against the catalogue of metrics: names, labels, label values, and which functions fit counters and gauges.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from bridge.observe.catalogue import CATALOGUE, Definition

TARGET_LABELS = frozenset({"job", "instance"})
"""What Prometheus adds to every series that it scrapes."""
PROCESS = (
    Definition("process_resident_memory_bytes", "gauge", "bytes", (), "Memory.", "always"),
    Definition("process_open_fds", "gauge", "file handles", (), "Open files.", "always"),
    Definition("process_cpu_seconds_total", "counter", "seconds", (), "CPU.", "always"),
)
"""What the client library tells of the process."""
SAMPLES: dict[str, Definition] = {name: each for each in (*CATALOGUE, *PROCESS) for name in each.sample_names}

FUNCTIONS: dict[str, tuple[tuple[str, ...], str]] = {
    "rate": (("range",), "counter"),
    "increase": (("range",), "counter"),
    "deriv": (("range",), "gauge"),
    "predict_linear": (("range", "scalar"), "gauge"),
    "changes": (("range",), "gauge"),
    "min_over_time": (("range",), "gauge"),
    "max_over_time": (("range",), "gauge"),
    "avg_over_time": (("range",), "gauge"),
    "histogram_quantile": (("scalar", "vector"), "bucket"),
    "absent": (("vector",), ""),
    "clamp_min": (("vector", "scalar"), ""),
}
"""The kinds of their arguments, and what they are for."""
AGGREGATIONS = frozenset({"sum", "min", "max", "avg", "count", "topk"})
LEVELS = (("or",), ("and", "unless"), ("==", "!=", "<=", "<", ">=", ">"), ("+", "-"), ("*", "/", "%"))
"""Operators, the loosest first."""
SETS = frozenset({"or", "and", "unless"})

_TOKEN = re.compile(
    r"""\s*(?:(?P<duration>\d+(?:ms|[smhdwy])(?:\d+(?:ms|[smhdwy]))*)|(?P<number>\d+(?:\.\d+)?)|(?P<string>"[^"]*")
    |(?P<name>[a-zA-Z_:][\w:]*)|(?P<operator>=~|!~|==|!=|<=|>=|[-+*/%<>=(){}\[\],]))""",
    re.VERBOSE,
)


class BadQuery(Exception):
    """What is wrong with an expression, in one line."""


@dataclass
class Found:
    """What an expression evaluates to: its kind, the labels that it may have, and the samples that it is made from."""

    kind: str
    labels: frozenset[str] = frozenset()
    names: set[str] = field(default_factory=set)


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    at = 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise BadQuery(f"cannot be read from here: {text[at : at + 20]!r}")
        yield str(match.lastgroup), match[str(match.lastgroup)]
        at = match.end()


def check(query: str) -> Found:
    """Raises BadQuery; else what the query gives."""
    reader = _Reader(query)
    found = reader.level(0)
    if reader.peek() != ("end", ""):
        raise BadQuery(f"{reader.peek()[1]!r} is left over")
    if found.kind == "range":
        raise BadQuery("a range has to go through a function")
    return found


class _Reader:
    def __init__(self, query: str) -> None:
        self._tokens = [*_tokens(query), ("end", "")]
        self._at = 0

    def peek(self) -> tuple[str, str]:
        return self._tokens[self._at]

    def take(self, *words: str) -> str:
        """The next token's text, which must be one of the words where some are given."""
        word = self._tokens[self._at][1]
        if words and word not in words:
            raise BadQuery(f"{word!r} where {' or '.join(words)} should stand")
        self._at += 1
        return word

    def level(self, depth: int) -> Found:
        if depth == len(LEVELS):
            return self.operand()
        left = self.level(depth + 1)
        while self.peek()[1] in LEVELS[depth]:
            operator = self.take()
            matched = self.matching()
            left = _joined(operator, matched, left, self.level(depth + 1))
        return left

    def matching(self) -> frozenset[str] | None:
        """The labels of `on (…)`."""
        if self.peek()[1] != "on":
            return None
        self.take()
        return self.names()

    def names(self) -> frozenset[str]:
        self.take("(")
        found = []
        while self.peek()[1] != ")":
            if self.peek()[0] != "name":
                raise BadQuery(f"{self.peek()[1]!r} is no label")
            found.append(self.take())
            if self.peek()[1] != ")":
                self.take(",")
        self.take(")")
        return frozenset(found)

    def operand(self) -> Found:
        kind, word = self.peek()
        if word == "(":
            self.take()
            found = self.level(0)
            self.take(")")
        elif word == "-":
            self.take()
            found = self.operand()
        elif kind == "number":
            self.take()
            return Found("scalar")
        elif word in AGGREGATIONS:
            return self.aggregation()
        elif word in FUNCTIONS:
            return self.function()
        elif kind == "name":
            found = self.selector()
        else:
            raise BadQuery(f"{word or 'the end'!r} where a value should stand")
        return found

    def aggregation(self) -> Found:
        word = self.take()
        by = self.by()
        self.take("(")
        if word == "topk":
            _expect(self.level(0), "scalar", word)
            self.take(",")
        found = self.level(0)
        self.take(")")
        _expect(found, "vector", word)
        by = by if by is not None else self.by()
        labels = by or frozenset()
        if labels - found.labels:
            raise BadQuery(f"{word} by {', '.join(sorted(labels - found.labels))}: no such label is there")
        return Found("vector", found.labels if word == "topk" and by is None else labels, found.names)

    def by(self) -> frozenset[str] | None:
        if self.peek()[1] != "by":
            return None
        self.take()
        return self.names()

    def function(self) -> Found:
        word = self.take()
        kinds, purpose = FUNCTIONS[word]
        self.take("(")
        arguments = [self.level(0)]
        while self.peek()[1] == ",":
            self.take()
            arguments.append(self.level(0))
        self.take(")")
        if len(arguments) != len(kinds):
            raise BadQuery(f"{word} takes {len(kinds)} arguments")
        for argument, kind in zip(arguments, kinds, strict=True):
            _expect(argument, kind, word)
        value = next(each for each, kind in zip(arguments, kinds, strict=True) if kind != "scalar")
        for name in value.names:
            _fits(word, purpose, name, value)
        return Found("vector", value.labels - ({"le"} if purpose == "bucket" else set()), value.names)

    def selector(self) -> Found:
        name = self.take()
        definition = SAMPLES.get(name)
        if definition is None:
            raise BadQuery(f"{name} is no metric of the catalogue")
        labels = frozenset(definition.label_names) | TARGET_LABELS
        if name.endswith("_bucket"):
            labels |= {"le"}
        if self.peek()[1] == "{":
            self.matchers(definition, labels)
        kind = "vector"
        if self.peek()[1] == "[":
            self.take()
            if self.peek()[0] != "duration":
                raise BadQuery(f"{self.peek()[1]!r} is no duration")
            self.take()
            self.take("]")
            kind = "range"
        if self.peek()[1] == "offset":
            self.take()
            if self.peek()[0] != "duration":
                raise BadQuery(f"{self.peek()[1]!r} is no duration")
            self.take()
        return Found(kind, labels, {name})

    def matchers(self, definition: Definition, labels: frozenset[str]) -> None:
        self.take("{")
        known = {label.name: label.values for label in definition.labels}
        while self.peek()[1] != "}":
            label = self.take()
            if label not in labels:
                raise BadQuery(f"{definition.name} has no label {label}")
            operator = self.take("=", "!=", "=~", "!~")
            kind, text = self.peek()
            if kind != "string":
                raise BadQuery(f"{text!r} is no text")
            self.take()
            values = text.strip('"').split("|") if operator in ("=~", "!~") else [text.strip('"')]
            for value in values:
                if known.get(label) and value not in known[label] and not value.startswith("$"):
                    raise BadQuery(f"{definition.name} never has {label}={value!r}")
            if self.peek()[1] != "}":
                self.take(",")
        self.take("}")


def _expect(found: Found, kind: str, who: str) -> None:
    if found.kind != kind:
        raise BadQuery(f"{who} takes a {kind}, not a {found.kind}")


def _fits(function: str, purpose: str, name: str, value: Found) -> None:
    type = SAMPLES[name].type
    if purpose == "counter" and type == "gauge":
        raise BadQuery(f"{function} of {name}, which is a gauge")
    if purpose == "gauge" and type != "gauge":
        raise BadQuery(f"{function} of {name}, which is a {type}")
    if purpose == "bucket" and (not name.endswith("_bucket") or "le" not in value.labels):
        raise BadQuery(f"{function} needs the buckets of a histogram, by le")


def _joined(operator: str, on: frozenset[str] | None, left: Found, right: Found) -> Found:
    names = left.names | right.names
    kinds = {left.kind, right.kind}
    if "range" in kinds:
        raise BadQuery(f"{operator} takes no range")
    if operator in SETS and kinds != {"vector"}:
        raise BadQuery(f"{operator} takes vectors")
    if kinds == {"scalar"}:
        return Found("scalar")
    if kinds == {"vector"} and operator != "or":
        for side in (left, right):
            if on is not None and on - side.labels:
                raise BadQuery(f"{operator} on {', '.join(sorted(on - side.labels))}: one side has no such label")
        if on is None and left.labels != right.labels:
            raise BadQuery(f"{operator} joins {sorted(left.labels)} with {sorted(right.labels)}: nothing would match")
    if kinds == {"vector", "scalar"}:
        return left if left.kind == "vector" else right
    return Found("vector", left.labels | right.labels if operator == "or" else left.labels, names)
