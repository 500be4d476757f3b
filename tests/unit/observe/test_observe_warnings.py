"""Every warning and error in the code is for an operator: it says what happened, and what follows or comes next.

Read from the code itself. Words cannot be judged here, but a line that tells an event alone has one part only.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import bridge
from bridge.runtime.gates import CONSEQUENCES

ROOT = Path(bridge.__file__).parent
LEVELS = {"warning", "error", "exception", "critical"}
TWO_PARTS = re.compile(r"\S(?:[;:.] |, (?:and|so|which|but) )\S+ \S+")
CANDIDATE = re.compile(r"\blog\.|notices\.say")
ELSEWHERE = {
    "kafka/faults.py: message": "what `say` is given, which is read here too, and verdicts on librdkafka's errors",
    "runtime/gates.py: CONSEQUENCES[gate.breaker.reason]": "held to the same below",
    "kafka/properties.py: 'librdkafka: %s'": "librdkafka's own words",
}
"""Told by something else than a text that stands there; each with the reason why that is right."""


class Line(NamedTuple):
    place: str
    text: str | None
    """None where it is not written there."""
    code: str


def lines(source: str, place: str) -> Iterator[Line]:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            owner = ast.unparse(node.func.value)
            if owner in ("log", "_log") and node.func.attr in LEVELS:
                yield Line(place, text_of(node.args[0]), ast.unparse(node.args[0]))
            elif owner.endswith("notices") and node.func.attr == "say":
                text = text_of(node.args[-1])
                if text is not None:
                    yield Line(place, text, ast.unparse(node.args[-1]))


def text_of(node: ast.expr) -> str | None:
    """With `x` for what is filled in."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values)
    return None


@cache
def found() -> list[Line]:
    sources = {path: path.read_text(encoding="utf-8") for path in sorted(ROOT.rglob("*.py"))}
    return [
        line
        for path, source in sources.items()
        if CANDIDATE.search(source)
        for line in lines(source, path.relative_to(ROOT).as_posix())
    ]


def test_every_warning_says_what_follows() -> None:
    """Or what comes next: "…; it is tried again", "…: its records are read again after a restart"."""
    short = []
    for line in found():
        if f"{line.place}: {line.code}" not in ELSEWHERE and not (line.text and TWO_PARTS.search(line.text)):
            short.append(f"{line.place}: {line.code}")
    assert short == []
    assert len(found()) > 60, "else they are not found"


def test_what_is_told_elsewhere_is_still_there() -> None:
    assert ELSEWHERE.keys() <= {f"{line.place}: {line.code}" for line in found()}


def test_an_endpoint_that_is_held_back_says_what_follows() -> None:
    assert [text for text in CONSEQUENCES.values() if not TWO_PARTS.search(text)] == []


def test_a_line_that_tells_an_event_alone_is_found() -> None:
    """Else the test above would prove nothing."""
    (alone,) = lines("log.warning('a commit was refused', error=error)", "x.py")
    (told,) = lines("log.error(f'commit of {name} refused; it is tried again')", "x.py")
    assert alone.text and not TWO_PARTS.search(alone.text)
    assert told.text and TWO_PARTS.search(told.text)
    assert [line.text for line in lines("self._notices.say('key', 'gone')", "x.py")] == ["gone"]
