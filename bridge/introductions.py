"""The first call of each API key: what its answer says of the key, the environment, and whether it is Meisa at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.model import Outcome, Verdict
from bridge.scopes import setting_of

if TYPE_CHECKING:
    from bridge.config import Settings


def introduction(settings: Settings, key: str, outcome: Outcome | None) -> str | None:
    """Why the service must not start with this key, judged by Meisa's answer to its ping; None where it may."""
    where = setting_of(key)
    if outcome is None:
        return None
    if outcome.verdict is Verdict.KEY_REFUSED:
        return (
            f"Meisa at {settings.meisa.base_url} refuses the key of {where} (401): "
            "check that it is complete, not revoked, and of this account"
        )
    environment = _environment(outcome)
    wanted = settings.meisa.environment
    if environment is not None and environment != wanted:
        return (
            f"the key of {where} is of the {environment} environment, but meisa.environment is {wanted}: "
            f"use a {wanted} key, or set meisa.environment: {environment}"
        )
    return None


def not_meisa(settings: Settings, outcome: Outcome | None) -> str | None:
    """Why what answered the ping cannot be Meisa's API; None where it may be, or where nothing answered.

    A wrong address must not start: each call would be refused and dead-lettered, or a web page's 200 taken for done.
    """
    if outcome is None or outcome.status is None:
        return None
    page = 200 <= outcome.status < 300 and not isinstance(outcome.data, dict)
    if outcome.verdict is not Verdict.REFUSED and not page:
        return None
    said = f"{outcome.status}: {outcome.message}" if outcome.message else str(outcome.status)
    return (
        f"what answers at {settings.meisa.base_url} is not Meisa's API ({said}): "
        "check meisa.base_url, with its path; Meisa's own is https://api.meisa.io/api/v1"
    )


def _environment(outcome: Outcome) -> str | None:
    if outcome.verdict is Verdict.DELIVERED and isinstance(outcome.data, dict):
        found = outcome.data.get("environment")
        return str(found) if found else None
    return None
