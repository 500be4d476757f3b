"""What YAML makes of a rule that is written carelessly: told as what people meant to write."""

from __future__ import annotations

import re
from typing import Final

from bridge.errors import Problem
from bridge.places import Place
from bridge.rules.scan import ExpressionError, tokens
from bridge.yamldoc import Complaint, Dialect, Node, Source, json_scalar

LINE_MAX: Final = 500
"""Characters of a line that is shown as it should be: nobody reads a longer one in a hint."""


class _RulesDialect(Dialect):
    """Tells the traps that people fall into from other mistakes; each hint shows the line as it should be."""

    def syntax_problem(self, complaint: Complaint, source: Source) -> Problem:
        what, index, place, text = complaint.what, complaint.at, complaint.place, source.text
        line = source.line(index) if place.line else ""
        head, value = _split(line)
        if text[index : index + 1] == "*" or "alias" in what + complaint.while_doing:
            hint = _instead(_GLOB.sub(r'\1"\2"', line)) if _GLOB.search(line) else "put it in quotes"
            return place.problem("MB110", "a leading * begins an alias in YAML", hint)
        if "${" in line and text[index : index + 1] == "{" and text[index - 1 : index] == "$":
            place = place._replace(column=place.column - 1)
            return place.problem("MB111", "${…} inside { } or [ ] needs quotes", _instead(_quoted_inside(line)))
        if value[:1] in ("'", '"') and "scalar" in what:
            quote = "'" if value[0] == '"' else '"'
            whole = f"{head}{quote}{value}{quote}"
            hint = _instead(whole) if quote not in value else f"write {head.strip()} >- and the text in the next line"
            return place.problem("MB113", "in YAML a text that begins with a quote ends with it", hint)
        before = line[: place.column - 1].rstrip()
        if "but got '<scalar>'" in what and before[-1:] in ("'", '"'):
            begin = max(0, before.rfind(before[-1], 0, -1))
            end = _end_of_item(line, place.column - 1)
            whole = line[:begin] + in_quotes(line[begin:end]) + line[end:]
            return place.problem("MB113", "in YAML a text that begins with a quote ends with it", _instead(whole))
        if "expected ',' or" in what and (cut := _CUT_INSIDE.search(text, 0, index)):
            at = source.place(cut.start(1))
            hint = "put the text that holds the # in quotes"
            return at.problem("MB181", "a # after a space begins a comment in YAML, and cuts a ${…} off", hint)
        return super().syntax_problem(complaint, source)

    def tag_problem(self, tag: str, place: Place, line: str) -> Problem:
        hint = "put it in quotes"
        if tag.startswith("!") and len(tag) > 1:
            head, value = _split(line)
            hint = _instead(f"{head}{value.replace(tag, f'not {tag[1:]}', 1)}")
        return place.problem(self.tag, f"{tag} is a tag in YAML, no text", hint)


_CUT_INSIDE: Final = re.compile(r"\s(#\S*\$\{)")
_GLOB: Final = re.compile(r"(^|[\s\[,:])(\*[^\s,\]}]*)")
_COMMENT: Final = re.compile(r"\s#(\s.*)?$")
"""One that is meant as a comment."""
_KEY: Final = re.compile(r"(\s*(?:- )*[\w.-]+:\s+|\s*(?:- )+)(.*)")


def _split(line: str) -> tuple[str, str]:
    """A line up to its value, and the value without a comment."""
    match = _KEY.fullmatch(line)
    head, value = (match[1].lstrip(), match[2]) if match else ("", line)
    return head, _COMMENT.sub("", value).strip()


def _instead(line: str) -> str:
    if len(line) > LINE_MAX:
        return "put it in quotes"
    return f"write {line.strip().removeprefix('- ')}"


def _quoted_inside(line: str) -> str:
    """Each item of `{ }` or `[ ]` in the line that holds a bare `${…}`, put into quotes."""
    if len(line) > LINE_MAX:
        return line
    made: list[str] = []
    quote, begin, at = "", 0, 0
    while at < len(line):
        char = line[at]
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in "{[," or line.startswith(": ", at):
            begin = len(made) + 1
        elif line.startswith("${", at):
            end = _end_of_item(line, _end_of_expression(line, at))
            while begin < len(made) and made[begin] == " ":
                begin += 1
            made[begin:] = [in_quotes("".join(made[begin:]) + line[at:end], prefer='"')]
            at = end
            continue
        made.append(char)
        at += 1
    return "".join(made)


def _end_of_item(line: str, at: int) -> int:
    """Where the item of `{ }` or `[ ]` ends in which `at` stands."""
    while at < len(line) and line[at] not in ",]}":
        at = _end_of_expression(line, at) if line.startswith("${", at) else at + 1
    return len(line[:at].rstrip())


def _end_of_expression(line: str, at: int) -> int:
    try:
        return tokens(line, at + 2, until_close=True)[1] + 1
    except ExpressionError:
        end = line.find("}", at)
        return len(line) if end < 0 else end + 1


def comment_in(node: Node) -> str:
    """What a ` #` cut off the end of a plain text, with the #; empty where nothing was."""
    if node.source is None or not node.comment_follows():
        return ""
    return node.source.text[node.end :].split("\n", 1)[0].strip()


def whole_line(node: Node) -> str:
    """A plain text with what the comment took from it."""
    assert node.source is not None
    return node.source.text[node.start :].split("\n", 1)[0].rstrip()


def in_quotes(text: str, prefer: str = "'") -> str:
    """As one text in YAML, in the quotes that need the least change."""
    for quote in (prefer, "'", '"'):
        if quote not in text and (quote == "'" or "\\" not in text):
            return f"{quote}{text}{quote}"
    return "'" + text.replace("'", "''") + "'"


def cut_by_comment(node: Node, where: str) -> Problem | None:
    """`Order #${data.id}`: without quotes that is `Order`, and nobody is told. A comment that begins with a space is
    meant as one."""
    if not _CUT_TEMPLATE.match(comment_in(node)):
        return None
    return node.place.problem(
        "MB182",
        f"{where}: a # after a space begins a comment in YAML, so the text ends before it",
        f"write {in_quotes(whole_line(node))}",
        "warning",
    )


_CUT_TEMPLATE: Final = re.compile(r"#\S*\$\{")


YAML: Final = _RulesDialect(
    syntax="MB100",
    duplicate_key="MB102",
    tag="MB112",
    structure="MB104",
    too_large="MB108",
    values_max=100_000,  # a thousand rules have about 30,000
    scalar=json_scalar,
)
