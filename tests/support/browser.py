"""A real browser for the pages: Debian's chromium, driven by playwright."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tests.support.needs import require_or_skip

if TYPE_CHECKING:
    from playwright.async_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str:
    """The browser's path; skips the test where there is none."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        require_or_skip("tests in a browser need chromium: apt-get install chromium")
    if importlib.util.find_spec("playwright") is None:
        require_or_skip("tests in a browser need playwright: make test installs it")
    return found


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    path = chromium()
    from playwright.async_api import async_playwright

    # Chromium's own sandbox cannot be made by root, who runs CI; what it is shown is ours.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(executable_path=path, args=[*arguments, "--disable-dev-shm-usage"])
        try:
            yield opened
        finally:
            await opened.close()
