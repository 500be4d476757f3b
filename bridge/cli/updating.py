"""Writes renewed expectations into rules files: each file as a whole, or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from bridge.cli.verdicts import Update
from bridge.errors import UsageError
from bridge.rules.testing import Result
from bridge.rules.updating import updated


def update_files(failed: Sequence[Result]) -> list[Update]:
    """What became of each failed test. Raises UsageError where a file cannot be read or written."""
    updates = []
    for file in dict.fromkeys(result.case.place.file for result in failed):
        results = [result for result in failed if result.case.place.file == file]
        try:
            reasons = _update_file(Path(file).resolve(), results)  # behind a link, so that the link stays one
        except OSError as error:
            raise UsageError(f"{file}: cannot be updated ({error.strerror})") from None
        updates += [Update(result, reason) for result, reason in zip(results, reasons, strict=True)]
    return updates


def _update_file(file: Path, results: Sequence[Result]) -> list[str]:
    raw = file.read_bytes()
    encoding = "utf-8-sig" if raw.startswith(b"\xef\xbb\xbf") else "utf-8"
    text = raw.decode(encoding)
    windows = "\r\n" in text
    made, reasons = updated(text.replace("\r\n", "\n"), results)
    if windows:
        made = made.replace("\n", "\r\n")
    if made != text:
        new = file.with_name(f".{file.name}.new")
        try:
            new.write_bytes(made.encode(encoding))
            shutil.copymode(file, new)
            new.replace(file)
        finally:
            new.unlink(missing_ok=True)
    return reasons
