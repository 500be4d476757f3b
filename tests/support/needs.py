"""What tests need and a machine may lack: skipped with a line that says how to get it, but never in CI."""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def require_or_skip(reason: str) -> NoReturn:
    """Skips the test with `reason` (what is missing, and how to get it); with CI=true the test fails instead."""
    if os.environ.get("CI", "").lower() in ("1", "true", "yes"):
        pytest.fail(f"needed in CI: {reason}", pytrace=False)
    pytest.skip(reason)
