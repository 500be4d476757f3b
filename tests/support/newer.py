"""A copy of the package as a later version might be: it tells more, everywhere where formats may grow."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.mutations.table import ROOT

VERSION = "9.9.9"

EDITS: Sequence[tuple[str, str, str]] = (
    ("bridge/__init__.py", '__version__ = "', f'__version__ = "{VERSION}+'),
    # A section that today's code does not know, in each commit.
    (
        "bridge/core/progress.py",
        '    if not body:\n        return ""\n',
        '    _section(body, 99, b"what a later version tells")\n',
    ),
    # A dead letter's header, and a register of a kind that today's code does not know.
    (
        "bridge/kafka/letters.py",
        '        "kind": letter.kind.value,\n',
        '        "kind": letter.kind.value,\n        "later": "1",\n',
    ),
    (
        "bridge/state/sqlite.py",
        '    db.execute("SELECT name FROM register LIMIT 1").fetchall()',
        '    db.execute("INSERT OR REPLACE INTO register VALUES (\'z:later\', \'{""v"": 9}\')")\n'
        '    db.execute("SELECT name FROM register LIMIT 1").fetchall()',
    ),
)


def newer(folder: Path) -> tuple[Sequence[str], Mapping[str, str]]:
    """Makes the copy; the command that runs it, and the environment that it needs."""
    root = folder / "newer"
    shutil.copytree(ROOT / "bridge", root / "bridge", ignore=shutil.ignore_patterns("__pycache__"))
    for file, old, new in EDITS:
        path = root / file
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{file} has changed: {old!r} is there {text.count(old)} times"
        path.write_text(text.replace(old, new), encoding="utf-8")
    # -P: else the working directory, which has today's package, comes before the copy.
    return (sys.executable, "-P", "-m", "bridge"), {"PYTHONPATH": str(root)}
