"""What a person reads of an answer: Meisa's reason out of whatever shape it came in, bounded, and without keys."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

MESSAGE_CHARACTERS_MAX = 500
"""Goes into a log line and a Kafka header."""
TEXT_CHARACTERS_MAX = 2_000
"""Of an answer that is not JSON, kept for the dead letter."""
_PARTS_MAX = 10
_DEPTH_MAX = 4

_KEY = re.compile(rb"(meisa_(?:live|test)_)[A-Za-z0-9_.=+/%-]+")
_TITLE = re.compile(r"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_BLANKS = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")
# Asked in this order: the human sentence before the code.
_NAMES = ("message", "msg", "detail", "error", "errors", "reason", "title", "non_field_errors")


def without_keys(body: bytes, keys: tuple[bytes, ...] = ()) -> bytes:
    """The body with all that looks like a Meisa key masked, and `keys` themselves, whatever they look like."""
    for key in keys:
        if key in body:
            body = body.replace(key, _masked(key))
    return _KEY.sub(rb"\1***", body) if b"meisa_" in body else body


def _masked(key: bytes) -> bytes:
    match = _KEY.match(key)
    return match[1] + b"***" if match else b"***"


def human_message(status: int, data: Any) -> str:
    """Meisa's reason as one line. `data` is the parsed answer, or its text, or None."""
    line = one_line(_text_message(data) if isinstance(data, str) else _message(data, 0))
    return line or one_line(f"HTTP {status} {_phrase(status)}")


def one_line(text: str, characters_max: int = MESSAGE_CHARACTERS_MAX) -> str:
    line = _BLANKS.sub(" ", text).strip()
    return line if len(line) <= characters_max else line[: characters_max - 1] + "…"


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


def _text_message(text: str) -> str:
    text = text[:TEXT_CHARACTERS_MAX]
    if text.lstrip()[:1] == "<":
        title = _TITLE.search(text)
        return f"a page instead of JSON: {title[1]}" if title and title[1].strip() else "a page instead of JSON"
    return text


def _message(data: Any, depth: int) -> str:
    if data is None or depth > _DEPTH_MAX:
        return ""
    if isinstance(data, str):
        return data
    if isinstance(data, list):
        parts = (_message(part, depth + 1) for part in data[:_PARTS_MAX])
        return "; ".join(part for part in parts if part)
    if isinstance(data, dict):
        for name in _NAMES:
            if name in data and (found := _message(data[name], depth + 1)):
                return found
        # Field errors: {"email": ["Enter a valid address."], "source": ["…"]}
        named = ((name, _message(value, depth + 1)) for name, value in list(data.items())[:_PARTS_MAX])
        return "; ".join(f"{name}: {found}" for name, found in named if found)
    return str(data)
