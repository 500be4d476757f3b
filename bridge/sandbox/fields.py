"""What requests may contain: every check of a body's fields, and the one error that refuses a call.

`(assumed)` marks what Meisa's documentation leaves open; shared assumptions stand here and in world.py, nowhere else.

- Unknown fields are refused with 400 (assumed): the documentation says only that upsert has no `status` and no `tags`.
- An optional field that is null counts as not sent (assumed).
- Text must be text: the number 7 is not the external_id "7" (assumed).
- An address is accepted when it looks like one; it is kept as sent, trimmed, and compared case-folded (assumed).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

JsonObject = dict[str, Any]

EMAIL_CHARS_MAX = 254
"""RFC 5321's longest usable address."""
TEXT_CHARS_MAX = 255
DEPTH_MAX = 100
SOURCES = frozenset({"api", "import", "manual", "signup", "initial_sync"})

_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKETS = re.compile(rb"[\[\]{}]")
# One @, something on both sides, no spaces or controls, a dot inside the domain. Not RFC 5322: no API checks that.
_EMAIL = re.compile(
    r"[^\s@<>\"(),:;\[\]\\\x00-\x1f]+@[^\s@.<>\"(),:;\[\]\\\x00-\x1f]+(?:\.[^\s@.<>\"(),:;\[\]\\\x00-\x1f]+)+"
)


def parse_object(content: bytes) -> JsonObject:
    """A body as an object. Raises ValueError, also for what is nested so deeply that it could not be answered again."""
    # orjson reads 1,024 levels and writes 254. Counting brackets first spares nearly every body the walk.
    if content.count(b"{") + content.count(b"[") > DEPTH_MAX and _depth(content) > DEPTH_MAX:
        raise ValueError(f"nested more than {DEPTH_MAX} levels deep")
    found = orjson.loads(content)
    if not isinstance(found, dict):
        raise ValueError("not an object")
    return found


def _depth(content: bytes) -> int:
    """The deepest nesting, strings left out."""
    depth = deepest = 0
    for bracket in _BRACKETS.findall(_STRING.sub(b"", content)):
        depth += 1 if bracket in b"{[" else -1
        deepest = max(deepest, depth)
    return deepest


class Refused(Exception):
    """The call is answered with `status` and a message for people; nothing of it is carried out."""

    def __init__(self, status: int, code: str, message: str, field: str = "") -> None:
        self.status = status
        self.code = code
        self.message = message
        self.field = field
        super().__init__(message)


def invalid(field: str, message: str) -> Refused:
    """A field that is missing or wrong: 400."""
    return Refused(400, "invalid_field", message, field)


def only(body: Mapping[str, Any], allowed: frozenset[str], where: str = "") -> None:
    """Raises Refused for the first field that is not `allowed`."""
    if not (body.keys() <= allowed):
        name = min(body.keys() - allowed)
        raise invalid(f"{where}{name}", f"Unknown field {where}{name}; known are {', '.join(sorted(allowed))}.")


def text(body: Mapping[str, Any], name: str, *, required: bool = False, where: str = "") -> str | None:
    """A non-empty text of at most TEXT_CHARS_MAX characters, or None when it is not there."""
    value = body.get(name)
    if value is None:
        if required:
            raise invalid(where + name, f"{where}{name} is required.")
        return None
    if not isinstance(value, str):
        raise invalid(where + name, f"{where}{name} must be a string.")
    if not value.strip():
        raise invalid(where + name, f"{where}{name} must not be empty.")
    if len(value) > TEXT_CHARS_MAX:
        raise invalid(where + name, f"{where}{name} is longer than {TEXT_CHARS_MAX} characters.")
    return value


def needed(body: Mapping[str, Any], name: str) -> str:
    """A text that must be there."""
    value = text(body, name, required=True)
    assert value is not None
    return value


def person_name(body: Mapping[str, Any], name: str, where: str = "") -> str | None:
    """A name may be empty, which clears it."""
    value = body.get(name)
    return value if value == "" else text(body, name, where=where)


def is_email(value: object) -> bool:
    return isinstance(value, str) and len(value) <= EMAIL_CHARS_MAX and _EMAIL.fullmatch(value.strip()) is not None


def email(body: Mapping[str, Any], name: str = "email", *, required: bool = True) -> str | None:
    """An address, trimmed; None when it is not there and need not be."""
    value = body.get(name)
    if value is None and not required:
        return None
    if value is None:
        raise invalid(name, f"{name} is required.")
    if not is_email(value):
        raise invalid(name, f"{name} is not a valid email address.")
    return str(value).strip()


def needed_email(body: Mapping[str, Any], name: str = "email") -> str:
    value = email(body, name)
    assert value is not None
    return value


def json_object(body: Mapping[str, Any], name: str, where: str = "") -> JsonObject:
    """An object; empty when it is not there."""
    value = body.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise invalid(where + name, f"{where}{name} must be an object.")
    return value


def texts(body: Mapping[str, Any], name: str, where: str = "") -> list[str]:
    """A list of non-empty texts; empty when it is not there."""
    value = body.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise invalid(where + name, f"{where}{name} must be a list of strings.")
    for item in value:
        if not isinstance(item, str) or not item.strip() or len(item) > TEXT_CHARS_MAX:
            raise invalid(
                where + name, f"{where}{name} must hold non-empty strings of at most {TEXT_CHARS_MAX} characters."
            )
    return value


def flag(body: Mapping[str, Any], name: str) -> bool:
    """True or false; false when it is not there."""
    value = body.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise invalid(name, f"{name} must be true or false.")
    return value


def source(body: Mapping[str, Any], name: str = "source", where: str = "") -> str | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or value not in SOURCES:
        raise invalid(where + name, f"{where}{name} must be one of {', '.join(sorted(SOURCES))}.")
    return value


def same_json(left: Any, right: Any) -> bool:
    """Whether two JSON values are equal. Python's own == calls true and 1 equal; JSON does not."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same_json(value, right[name]) for name, value in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(same_json(a, b) for a, b in zip(left, right, strict=True))
    return bool(left == right)
