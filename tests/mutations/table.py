"""The table of mutations: what is broken, where, and which tests must notice."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
TABLE = Path(__file__).with_name("mutations.toml")


class Mutation(NamedTuple):
    """One way to break the code of one hard case."""

    case: int
    breaks: str
    """What the broken bridge does."""
    file: str
    """Relative to the repository, as are the tests."""
    old: str
    """Occurs exactly once in the file."""
    new: str
    tests: tuple[str, ...]
    """Node ids; each of them must fail. One without parameters stands for all of its parameters: one must fail."""

    def apply(self, root: Path) -> None:
        """Breaks the copy under `root`. Raises ValueError where the text is not there exactly once."""
        path = root / self.file
        text = path.read_text(encoding="utf-8")
        count = text.count(self.old)
        if count != 1:
            raise ValueError(f"case {self.case}, {self.breaks!r}: its text occurs {count} times in {self.file}")
        path.write_text(text.replace(self.old, self.new), encoding="utf-8")


def load() -> list[Mutation]:
    """All mutations, by case."""
    rows = tomllib.loads(TABLE.read_text(encoding="utf-8"))["mutation"]
    return [Mutation(**{**row, "tests": tuple(row["tests"])}) for row in rows]
