"""Options, keys as text, and the catalogue file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bridge.errors import UsageError
from bridge.sandbox.api import Sandbox
from bridge.sandbox.options import SCOPES, SandboxOptions, with_catalogue
from bridge.sandbox.world import TriggerConfig


def test_a_key_is_written_with_scopes_and_quota() -> None:
    options = SandboxOptions()
    key = options.parse_key("meisa_live_a=contacts:read,events:track@5/100")
    assert (key.environment, key.scopes) == ("live", {"contacts:read", "events:track"})
    assert (key.quota.per_minute, key.quota.per_hour) == (5, 100)
    plain = options.parse_key("meisa_test_b")
    assert (plain.environment, plain.scopes) == ("test", set(SCOPES))
    assert (plain.quota.per_minute, plain.quota.per_hour) == (60, 1000)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"keys": ("sk_live_1",)}, "meisa_test_"),
        ({"keys": ("meisa_test_a=contacts:all",)}, "contacts:all"),
        ({"keys": ("meisa_test_a@60",)}, "@60"),
        ({"per_minute": -1}, "quota"),
        ({"algorithm": "leaky"}, "leaky"),
        ({"retry_after": "minutes"}, "--retry-after"),
        ({"error_rate": 2.0}, "error_rate"),
        ({"hang_seconds": float("nan")}, "hang_seconds"),
        ({"already_enrolled_status": 418}, "--already-enrolled-status"),
        ({"error_shape": "xml"}, "--error-shape"),
        ({"port": 70_000}, "--port"),
        ({"log_limit": 0}, "--log-limit"),
        ({"guardrail_per_hour": -1}, "--guardrail-per-hour"),
    ],
)
def test_options_that_cannot_be_are_named(options: dict[str, Any], word: str) -> None:
    """A UsageError of one line, with the flag or value at fault."""
    with pytest.raises(UsageError) as error:
        Sandbox(SandboxOptions(**options))
    assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_a_wrong_key_is_not_repeated_in_the_message() -> None:
    """It may be a real one, pasted by mistake."""
    with pytest.raises(UsageError) as error:
        Sandbox(SandboxOptions(keys=("secret-of-mine",)))
    assert "secret-of-mine" not in str(error.value)


def test_the_catalogue_says_what_exists(tmp_path: Path) -> None:
    file = tmp_path / "catalogue.json"
    file.write_text('{"triggers": {"welcome": {"delay_seconds": 5}}, "sequences": {"old": "inactive"}}')
    options = with_catalogue(SandboxOptions(catalogue=str(file)))
    assert options.triggers == {"welcome": TriggerConfig(delay_seconds=5)}
    assert options.sequences == {"old": "inactive"}


def test_strict_without_a_catalogue_knows_nothing() -> None:
    options = with_catalogue(SandboxOptions(strict=True))
    assert (options.triggers, options.sequences) == ({}, {})
    assert with_catalogue(SandboxOptions()).triggers is None


@pytest.mark.parametrize(
    "content",
    ["[]", "{", '{"trigers": {}}', '{"triggers": []}', '{"triggers": {"a": 1}}', '{"sequences": {"a": "on"}}'],
)
def test_a_broken_catalogue_is_named(tmp_path: Path, content: str) -> None:
    file = tmp_path / "catalogue.json"
    file.write_text(content)
    with pytest.raises(UsageError, match=r"catalogue\.json"):
        with_catalogue(SandboxOptions(catalogue=str(file)))
