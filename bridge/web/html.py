"""Pieces of the page: everything that comes from outside goes through `text`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from typing import Any

from bridge.observe.printable import printable


@dataclass(frozen=True, slots=True)
class Markup:
    """Text that is HTML already; made in this room only."""

    html: str


def text(value: Any) -> str:
    """A value as text that HTML takes as such, inside of elements and of quoted attributes; what would reorder or hide
    text, or is no text at all, as escapes."""
    shown = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return escape(printable(shown, keep="\n\t"))


def cell(value: Any) -> str:
    return value.html if isinstance(value, Markup) else text(value)


def code(value: str) -> Markup:
    return Markup(f"<code>{text(value)}</code>")


def table(
    name: str, caption: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], empty: str, note: str = ""
) -> str:
    """A table under its caption; `name` is the id of what can be scrolled. Numbers stand to the right."""
    if not rows:
        return f'<p class="quiet">{text(empty)}</p>'
    head = "".join(f'<th scope="col">{text(column)}</th>' for column in columns)
    body = "".join("<tr>" + _row(row) + "</tr>" for row in rows)
    # Who has no mouse scrolls what has the focus.
    return (
        f'<div class="scroll" id="{name}-table" tabindex="0" role="region" aria-label="{text(caption)}">'
        f"<table><caption>{text(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        + (f'<p class="quiet">{text(note)}</p>' if note else "")
    )


def _row(row: Sequence[Any]) -> str:
    cells = [f'<th scope="row">{cell(row[0])}</th>']
    for value in row[1:]:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        cells.append(f'<td class="number">{cell(value)}</td>' if number else f"<td>{cell(value)}</td>")
    return "".join(cells)


def time_of(wall_seconds: float) -> str:
    return datetime.fromtimestamp(wall_seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def duration(seconds: float) -> str:
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def ago(since: float | None, now: float) -> str:
    return "" if since is None else f"{duration(now - since)} ago"


def until(moment: float | None, now: float) -> str:
    """`10:15:00Z (in 40 s)`; nothing for what is not known or over."""
    if moment is None or moment <= now:
        return ""
    return f"{time_of(moment)[11:]} (in {duration(moment - now)})"
