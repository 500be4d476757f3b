"""Rules and handlers from what the settings name: at a start, and again while the service runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bridge import rules, schema_fit
from bridge.config.formats import schema_paths
from bridge.config.loader import placed
from bridge.errors import ProblemsFound
from bridge.runtime.reloading import Signature, signature

if TYPE_CHECKING:
    from bridge.config import Settings
    from bridge.rules import RuleBook
    from bridge.rules.handlers import Handler


def load_rules(settings: Settings, imported: Sequence[Handler] | None = None) -> RuleBook:
    """The rules and handlers; with those that are `imported` already, for a reload. Raises ProblemsFound and
    UsageError."""
    book = rules.load(settings.rules, settings.base_dir, settings.handlers, imported=imported)
    if settings.state.url == "memory":
        problems = book.needs_identities()
        if problems:
            raise ProblemsFound(problems)
    return book


def reread_rules(settings: Settings, handlers: Sequence[Handler]) -> RuleBook:
    """The rules as they are in their files now, with the handlers of before. Raises UserError."""
    try:
        book = load_rules(settings, handlers)
    except ProblemsFound as error:
        raise ProblemsFound(placed(error.problems, settings.place)) from None
    schema_fit.tell(settings, book)
    return book


def rules_seen(settings: Settings) -> Signature:
    """What tells whether the rules files have changed since."""
    return signature(rules.rules_files(settings.rules, settings.base_dir))


def schema_files(settings: Settings) -> list[Path]:
    written = [path for name, topic in settings.topics.items() for _, path in schema_paths(name, topic)]
    return [settings.base_dir / path for path in written]
