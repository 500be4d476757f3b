"""What tests need and a machine may lack: skipped with a line that says how to get it, but never in CI."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def is_set(name: str) -> bool:
    """Whether a switch of the environment is on."""
    return os.environ.get(name, "").lower() in ("1", "true", "yes")


def require_or_skip(reason: str) -> NoReturn:
    """Skips the test with `reason` (what is missing, and how to get it); with CI=true the test fails instead."""
    if is_set("CI"):
        pytest.fail(f"needed in CI: {reason}", pytrace=False)
    pytest.skip(reason)
