"""docs/tutorial.md, followed word for word on this machine; only ports are others."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bridge.sandbox.children import free_port
from tests.support.docs_runner import Command, File, fits, follow, steps
from tests.support.needs import require_or_skip

PAGE = (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    """From the starter to an email, a dead letter and its replay; each command prints what the page shows."""
    if shutil.which("curl") is None:
        require_or_skip("the tutorial needs curl; on Debian: apt install curl")
    sandbox, admin = free_port(), free_port()
    replaced = {
        "127.0.0.1:8900": f"127.0.0.1:{sandbox}",
        "127.0.0.1:8080": f"127.0.0.1:{admin}",
        "meisa-bridge sandbox ": f"meisa-bridge sandbox --port {sandbox} ",
        "meisa-bridge status": f"meisa-bridge status --url http://127.0.0.1:{admin}",
    }
    environ = {
        "MEISA_BRIDGE__MEISA__BASE_URL": f"http://127.0.0.1:{sandbox}/api/v1",
        "MEISA_BRIDGE__ADMIN__LISTEN": f"127.0.0.1:{admin}",
    }
    follow(PAGE, tmp_path, replaced, environ)


def test_the_page_has_the_files_and_commands_that_it_needs() -> None:
    """The runner overlooks nothing of it."""
    found = steps(PAGE)
    assert [step.path for step in found if isinstance(step, File)] == [
        "config/rules/trials.yaml",
        "trial.jsonl",
        "mail.jsonl",
    ]
    assert len([step for step in found if isinstance(step, Command)]) == PAGE.count("\n$ ") >= 15


def test_what_is_printed_must_fit() -> None:
    """`…` is anything within a line, alone any lines; all else is compared."""
    assert fits("a … c\n…\nd\n", "a b c\nx\ny\nd\n") and fits(
        "at 2026-01-01T00:00:00Z\n", "at 2026-11-22T10:00:00.123Z\n"
    )
    assert not fits("a … c\n", "a b d\n") and not fits("a\n", "a\nb\n") and not fits("a\n…\nb\n", "a\nb\nc\n")
