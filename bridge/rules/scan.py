"""Where expressions begin and end: tokens of an expression, and `${…}` in a text.

Python's own tokenizer is not used: its answers for broken input differ between versions, and it knows no keyword
after a dot. What is scanned here is a little narrower than Python (no f-strings, triple quotes, comments), so that
Python's parser can only agree on where a string ends.
"""

from __future__ import annotations

import keyword
import re
from typing import NamedTuple

from bridge.errors import UserError

LENGTH_MAX = 4_000
"""Characters in one expression. The longest useful ones have about 300; the bound keeps compiling below 100 ms."""

NESTING_MAX = 40
"""Open brackets at once. CPython's parser refuses about 200; ours is the smaller so that the refusal has a place."""

_TOKEN = re.compile(
    r"""
    (?P<space>\s+)
  | (?P<string>[A-Za-z]{0,2}(?:'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*"))
  | (?P<number>(?:\d[\w]*\.?[\d_]*|\.\d[\d_]*)(?:(?<=[eE])[+-]\d+)?)
  | (?P<name>[^\W\d]\w*)
  | (?P<open>[(\[{])
  | (?P<close>[)\]}])
  | (?P<op>==|!=|<=|>=|//|\*\*|<<|>>|:=|->|[-+*/%<>=.,:&|^~@;])
    """,
    re.VERBOSE | re.DOTALL,
)
_CLOSES = {"(": ")", "[": "]", "{": "}"}
_KEYWORDS = frozenset(keyword.kwlist)


class ExpressionError(UserError):
    """An expression or template is wrong as it is written. `offset` counts characters of the text from 0."""

    def __init__(self, code: str, message: str, offset: int = 0, hint: str = "") -> None:
        self.code = code
        self.message = message
        self.offset = offset
        self.hint = hint
        super().__init__(f"column {offset + 1}: {message}" + (f" ({hint})" if hint else ""))

    def moved(self, by: int) -> ExpressionError:
        """The same mistake, seen from a text in which the expression begins at `by`."""
        return ExpressionError(self.code, self.message, self.offset + by, self.hint)


class Token(NamedTuple):
    kind: str
    text: str
    start: int


def _unreadable(text: str, at: int) -> ExpressionError:
    rest = text[at:]
    hints = {
        "&&": "write and",
        "||": "write or",
        "!": "write not",
        "?": "write optional(x) for a field that may be missing, or a if condition else b",
        "$": "inside an expression fields are named without ${ }",
        "#": "there are no comments in expressions; put a text that holds # in quotes",
        "\\": "an expression may go over several lines without a backslash",
        "`": "texts stand in ' or \" quotes",
    }
    for start, hint in hints.items():
        if rest.startswith(start):
            return ExpressionError("MB130", f"unexpected {start}", at, hint)
    if rest[0] in "'\"":
        return ExpressionError("MB130", "a text without its closing quote", at, "close it before the end of the line")
    return ExpressionError("MB130", f"unexpected character {rest[0]!r}", at)


def tokens(text: str, start: int = 0, *, until_close: bool = False) -> tuple[list[Token], int]:
    """The tokens from `start` on, and where they end.

    With `until_close` they end before the `}` that has no opening bracket in the expression. Raises ExpressionError.
    """
    found: list[Token] = []
    nested: list[Token] = []
    at = start
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None or text.startswith(("&&", "||"), at):
            raise _unreadable(text, at)
        kind, part = str(match.lastgroup), match[0]
        token = Token(kind, part, at)
        if kind == "string":
            _check_string(text, token)
        elif kind == "open":
            nested.append(token)
            if len(nested) > NESTING_MAX:
                raise ExpressionError("MB134", f"more than {NESTING_MAX} brackets inside one another", at)
        elif kind == "close":
            if not nested:
                if until_close and part == "}":
                    return found, at
                raise ExpressionError("MB130", f"{part} without its opening bracket", at)
            opened = nested.pop()
            if _CLOSES[opened.text] != part:
                message = f"{opened.text} is closed by {part}"
                raise ExpressionError("MB130", message, at, f"write {_CLOSES[opened.text]}")
        if kind != "space":
            found.append(token)
        at = match.end()
        if at - start > LENGTH_MAX:
            raise ExpressionError("MB134", f"the expression is longer than {LENGTH_MAX} characters", start)
    if until_close:
        hint = "every ${ needs its }; $${ stands for a literal ${"
        raise ExpressionError("MB136", "${ without its closing }", max(start - 2, 0), hint)
    if nested:
        opened = nested[-1]
        raise ExpressionError("MB130", f"{opened.text} is never closed", opened.start)
    return found, at


def _check_string(text: str, token: Token) -> None:
    quote_at = next(index for index, char in enumerate(token.text) if char in "'\"")
    prefix, quote = token.text[:quote_at].lower(), token.text[quote_at]
    if "f" in prefix:
        hint = "join with +, or write the text around several ${ }"
        raise ExpressionError("MB133", "f-strings are not part of expressions", token.start, hint)
    if prefix not in ("", "r"):
        raise ExpressionError("MB133", f"a text cannot begin with {prefix}{quote}", token.start, "drop the prefix")
    if text.startswith(quote * 3, token.start + quote_at):
        raise ExpressionError("MB133", "triple quotes are not part of expressions", token.start, "use one quote")


def parseable(text: str) -> tuple[str, dict[int, str]]:
    """The text with the same columns, as Python's parser takes it, and the field names by where they end.

    Keywords after a dot become underscores of the same length, line breaks become spaces. Raises ExpressionError.
    """
    found, _ = tokens(text)
    if not found:
        raise ExpressionError("MB130", "an empty expression", 0)
    chars = [" "] * len(text)
    fields: dict[int, str] = {}
    before = ""
    for token in found:
        end = token.start + len(token.text)
        is_field = token.kind == "name" and before == "."
        if is_field:
            fields[end] = token.text
        chars[token.start : end] = "_" * len(token.text) if is_field and token.text in _KEYWORDS else token.text
        before = token.text
    return "".join(chars), fields


class Part(NamedTuple):
    """A piece of a template: literal text, or the source of an expression and where it begins in the template."""

    text: str
    start: int
    is_expression: bool


def parts(text: str) -> list[Part]:
    """Splits a template at its `${…}`; `$${` becomes a literal `${`. Raises ExpressionError."""
    found: list[Part] = []
    literal: list[str] = []
    at = 0
    while True:
        dollar = text.find("${", at)
        if dollar < 0:
            literal.append(text[at:])
            break
        if dollar > at and text[dollar - 1] == "$":
            literal.append(text[at : dollar - 1] + "${")
            at = dollar + 2
            continue
        literal.append(text[at:dollar])
        if "".join(literal):
            found.append(Part("".join(literal), at, False))
        literal = []
        inside, end = tokens(text, dollar + 2, until_close=True)
        if not inside:
            raise ExpressionError("MB136", "${} with nothing inside", dollar, "name a field, e.g. ${data.email}")
        found.append(Part(text[dollar + 2 : end], dollar + 2, True))
        at = end + 1
    if "".join(literal) or not found:
        found.append(Part("".join(literal), at, False))
    return found
