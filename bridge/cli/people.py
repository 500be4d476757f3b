"""A CSV file of people, for the identity table: read whole and checked before anything is written."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from bridge.core.identity import Identities
from bridge.errors import UsageError, UserError
from bridge.model import Contact, email_key
from bridge.ports import Store

NAMED: Final = ("email", "external_id")
FILE_BYTES_MAX: Final = 512 * 1024 * 1024
"""Some five million people. All are held in memory, at about a kilobyte each: what is written is one transaction."""

BAD_ROWS_SHOWN: Final = 20
CHUNK: Final = 1_000
"""Rows whose names are loaded at once from a store behind a network."""


def read(file: Path) -> list[Contact]:
    """The people in the file. Raises UsageError where it cannot be read, UserError with every bad row's line."""
    reader = csv.reader(io.StringIO(_text(file), newline=""), strict=True)
    wrong: list[str] = []
    people: list[Contact] = []
    try:
        columns = _columns(next(reader, []), file)
        seen: dict[str, int] = {}
        line = reader.line_num + 1
        for cells in reader:
            if any(cell.strip() for cell in cells):  # a blank line says nothing
                problem = _row(cells, columns, line, seen, people)
                if problem:
                    wrong.append(f"{file}:{line}: {problem}")
            line = reader.line_num + 1
    except csv.Error as error:
        wrong.append(f"{file}:{reader.line_num}: not CSV: {error}")
    if wrong:
        more = [f"and {len(wrong) - BAD_ROWS_SHOWN} more"] if len(wrong) > BAD_ROWS_SHOWN else []
        shown = "\n".join([*wrong[:BAD_ROWS_SHOWN], *more])
        raise UserError(f"nothing was imported: {len(wrong)} bad row{'s' if len(wrong) > 1 else ''}\n{shown}")
    return people


async def imported(store: Store, people: Sequence[Contact]) -> int:
    """Writes them all, or none; returns how many told something that was not known. Raises StoreFailed."""
    table = Identities(store=store)
    added = 0
    for begin in range(0, len(people), CHUNK):
        chunk = people[begin : begin + CHUNK]
        await store.load([name for each in chunk for name in each.names()])
        added += sum(table.seed(each) for each in chunk)
    await store.flush()
    return added


def _text(file: Path) -> str:
    try:
        if str(file) == "-":
            content = sys.stdin.buffer.read(FILE_BYTES_MAX + 1)
        else:
            with file.open("rb") as opened:
                content = opened.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise UsageError(f"{file}: cannot be read ({error.strerror})") from None
    if len(content) > FILE_BYTES_MAX:
        raise UsageError(f"{file}: larger than {FILE_BYTES_MAX:,} bytes: import it in parts")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{file}:{line}: not UTF-8 text; save it as UTF-8") from None


def _columns(header: Sequence[str], file: Path) -> list[str]:
    columns = [cell.strip() for cell in header]
    how = "the first line names the columns: email, external_id, and one per alias"
    if "email" not in columns:
        raise UserError(f"{file}:1: no column `email`; {how}")
    if len(columns) < 2:
        raise UserError(f"{file}:1: nothing beside `email`, so nothing could be found by it; {how}")
    for name in columns:
        if not name:
            raise UserError(f"{file}:1: a column has no name; {how}")
        if columns.count(name) > 1:
            raise UserError(f"{file}:1: two columns are named `{name}`; {how}")
    return columns


def _row(cells: Sequence[str], columns: Sequence[str], line: int, seen: dict[str, int], people: list[Contact]) -> str:
    """Adds the row's person; or says what is wrong with it. Never quotes an address: the terminal may be shared."""
    if len(cells) != len(columns):
        return f"{len(cells)} cells, but the first line names {len(columns)} columns"
    said = {name: cell.strip() for name, cell in zip(columns, cells, strict=True) if cell.strip()}
    email = said.pop("email", None)
    if email is None:
        return "no email"
    if not re.fullmatch(r"[^\s@]+@[^\s@]+", email):
        return "the email is not an address"
    external_id = said.pop("external_id", None)
    if external_id is None and not said:
        return "neither external_id nor alias: nothing could be found by it"
    contact = Contact(email, external_id, tuple(sorted(said.items())))
    for what, name in _claims(contact):
        if name in seen:
            return f"the {what} stands in line {seen[name]} already"
    seen.update((name, line) for _, name in _claims(contact))
    people.append(contact)
    return ""


def _claims(contact: Contact) -> Iterator[tuple[str, str]]:
    """What belongs to one person alone."""
    assert contact.email is not None
    yield "email", f"e:{email_key(contact.email)}"
    if contact.external_id is not None:
        yield "external_id", f"x:{contact.external_id}"
    for alias, value in contact.aliases:
        yield alias, f"a:{alias}:{value}"
