"""What must not be read by everybody who reads logs and pages: people's addresses, and keys.

API keys are masked always; email addresses unless `admin.show_contacts` says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

# Characters that cannot stand in an address as programs write it. `%40` is an @ in a URL's query; other %xx belong to
# the local part. An apostrophe may stand inside (o'brien@…), but in front it is a quotation mark.
_OUTSIDE = r"\s@<>\"(),:;=\[\]{}&?/\\|%"
_EMAIL = re.compile(rf"(?<![^{_OUTSIDE}'])([^{_OUTSIDE}'])(?:[^{_OUTSIDE}]|%(?!40))*+(@|%40)(?=[\w\[])")
_KEY = re.compile(r"(meisa_(?:live|test)_)[\w.~+/=-]+")

_DEPTH_MAX = 6
"""Levels of nesting that are walked; what lies deeper is shown as text, masked too."""


def mask_email(text: str) -> str:
    """`anna@example.com` becomes `a***@example.com`, wherever it stands in the text."""
    if "@" not in text and "%40" not in text:
        return text
    return _EMAIL.sub(r"\1***\2", text)


def mask_contact(name: str) -> str:
    """A contact's name, of whatever kind: an address as above, of any other id the first character."""
    masked = mask_email(name)
    return masked if masked != name or not name else f"{name[0]}***"


def mask_names(text: str, names: Iterable[str]) -> str:
    """The text with each of these names of contacts as `mask_contact` shows it, where it stands by itself."""
    for name in sorted(set(names), key=len, reverse=True):
        if name and name in text:
            text = re.sub(rf"(?<!\w){re.escape(name)}(?![\w*])", lambda found: mask_contact(found[0]), text)
    return text


def mask_keys(text: str) -> str:
    """`meisa_live_abc` becomes `meisa_live_***`, wherever it stands in the text."""
    return _KEY.sub(r"\1***", text) if "meisa_" in text else text


def mask(value: Any, *, show_contacts: bool = False, _depth: int = 0) -> Any:
    """The value with every text in it masked, keys of mappings too; made of plain JSON types only."""
    if isinstance(value, str):
        text = mask_keys(value)
        return text if show_contacts else mask_email(text)
    if value is None or isinstance(value, bool | int | float):
        return value
    if _depth < _DEPTH_MAX:
        if isinstance(value, Mapping):
            return {
                mask(str(key), show_contacts=show_contacts): mask(item, show_contacts=show_contacts, _depth=_depth + 1)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple | set | frozenset):
            return [mask(item, show_contacts=show_contacts, _depth=_depth + 1) for item in value]
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return mask(text, show_contacts=show_contacts)
