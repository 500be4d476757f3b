"""Which API key makes which calls, and which scopes it needs for them: no fewer, and best no more.

A key that may do more than its work needs is a worse loss when it leaks. Where a configuration asks for care (live
keys, or keys of their own for kinds of actions) the scopes that a key does not need are told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bridge.meisa.endpoints import ENDPOINTS
from bridge.model import Kind, Outcome

if TYPE_CHECKING:
    from bridge.config import Settings
    from bridge.rules import RuleBook

DEFAULT_KEY = "default"
SPARED_KINDS = {Kind.TRIGGER, Kind.ENROLL}
"""What the suppression list is about: without rules that do this it is not read."""


def key_of(settings: Settings, kind: str) -> str:
    """The name of the key that calls of this kind are made with."""
    return kind if kind in settings.meisa.keys else DEFAULT_KEY


def setting_of(key: str) -> str:
    """Where the key stands in the configuration."""
    return "meisa.api_key" if key == DEFAULT_KEY else f"meisa.keys.{key}"


def reads_suppressions(book: RuleBook) -> bool:
    """Whether the suppression list could spare calls. What handlers yield nobody knows before."""
    return bool(book.handlers) or bool(SPARED_KINDS & book.kinds())


def scopes_of(outcome: Outcome | None) -> list[str] | None:
    """The scopes that a ping's answer names; None where it names none."""
    data = outcome.data if outcome is not None else None
    scopes = data.get("scopes") if isinstance(data, dict) else None
    return [str(scope) for scope in scopes] if isinstance(scopes, list) else None


def missing_scopes(settings: Settings, book: RuleBook, key: str, outcome: Outcome) -> list[str]:
    """Action kinds of the rules that use this key and whose scope it lacks."""
    scopes = scopes_of(outcome)
    if scopes is None:
        return []
    return [
        kind for kind in sorted(book.kinds()) if key_of(settings, kind) == key and ENDPOINTS[kind].scope not in scopes
    ]


def unneeded_scopes(settings: Settings, book: RuleBook, pings: Mapping[str, Outcome | None]) -> dict[str, list[str]]:
    """Of each key the scopes that nothing is done with; `pings` are the answers to all keys, in the order of use.

    Nothing is said of a single test key, nor where handlers may yield anything.
    """
    if book.handlers or (settings.meisa.environment == "test" and not settings.meisa.keys):
        return {}
    kinds = set(book.kinds())
    reader_found = not reads_suppressions(book)
    found = {}
    for key, outcome in pings.items():
        scopes = scopes_of(outcome)
        if scopes is None:
            continue
        used = {ENDPOINTS[kind].scope for kind in kinds if key_of(settings, kind) == key}
        if Kind.TRACK in kinds and key_of(settings, Kind.UPSERT) == key:
            used.add(ENDPOINTS[Kind.UPSERT].scope)  # a contact that Meisa does not know yet is made first
        if Kind.ENROLL in kinds and key_of(settings, Kind.ENROLL) == key:
            used.add(ENDPOINTS["sequences"].scope)  # shows whether a sequence is active
        if not reader_found and ENDPOINTS["unsubscribed"].scope in scopes:
            reader_found = True  # the first key that has it reads the list
            used.add(ENDPOINTS["unsubscribed"].scope)
        left = sorted(set(scopes) - used)
        if left:
            found[key] = left
    return found
