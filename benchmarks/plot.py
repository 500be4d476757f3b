"""A day as an SVG: bars for the quota, lines for what waits. By hand, so that a plot needs no library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

from benchmarks.day import HOUR, P99_SECONDS_WANTED, Day, delays, percentile

WIDTH, HEIGHT, LEFT, GAP, TOP = 520, 110, 60, 34, 40
INK, BAR, LINE, RULE = "#333", "#5b8def", "#d1495b", "#ccc"


def days(all_days: Sequence[Day]) -> str:
    """One column of three panels for each day."""
    column = LEFT + WIDTH + 20
    parts = [part for number, day in enumerate(all_days) for part in _column(day, number * column)]
    width, height = column * len(all_days), TOP + 3 * (HEIGHT + GAP)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="11" fill="{INK}"><rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _column(day: Day, x: int) -> list[str]:
    hours = [hour.number for hour in day.hours]
    used = [hour.calls / day.limit * 100 for hour in day.hours]
    slow = [percentile(delays(hour.emails), 0.99) for hour in day.hours]
    oldest = [hour.oldest_seconds / HOUR for hour in day.hours]
    return [
        f'<text x="{x + LEFT}" y="18" font-size="14">{escape(day.name)}</text>',
        *_panel("calls, % of the quota", hours, used, x + LEFT, TOP, bars=True, mark=100.0),
        *_panel("email p99, s", hours, slow, x + LEFT, TOP + HEIGHT + GAP, mark=P99_SECONDS_WANTED),
        *_panel("oldest waiting, h", hours, oldest, x + LEFT, TOP + 2 * (HEIGHT + GAP)),
    ]


def _panel(
    title: str, hours: Sequence[int], values: Sequence[float], x: int, y: int, *, bars: bool = False, mark: float = 0.0
) -> list[str]:
    """`mark` draws a rule at that value: a limit, or an aim."""
    known = [value for value in values if not math.isnan(value)]
    top = max([*known, mark, 1e-9]) * 1.1
    step = WIDTH / max(1, len(hours))

    def at(value: float) -> float:
        return round(y + HEIGHT - value / top * HEIGHT, 1)

    made = [
        f'<text x="{x}" y="{y - 5}">{escape(title)}</text>',
        f'<path d="M{x} {y}V{y + HEIGHT}H{x + WIDTH}" fill="none" stroke="{INK}"/>',
        f'<text x="{x - 6}" y="{y + 8}" text-anchor="end">{top:.3g}</text>',
        f'<text x="{x - 6}" y="{y + HEIGHT}" text-anchor="end">0</text>',
    ]
    if mark:
        made.append(f'<path d="M{x} {at(mark)}H{x + WIDTH}" stroke="{RULE}" stroke-dasharray="4"/>')
    points = []
    for place, (hour, value) in enumerate(zip(hours, values, strict=True)):
        middle = round(x + (place + 0.5) * step, 1)
        if len(hours) <= 24 or hour % 6 == 0:
            made.append(f'<text x="{middle}" y="{y + HEIGHT + 12}" text-anchor="middle" font-size="9">{hour}</text>')
        if math.isnan(value):
            continue
        if bars:
            height = round(y + HEIGHT - at(value), 1)
            made.append(
                f'<rect x="{round(middle - step * 0.4, 1)}" y="{at(value)}" width="{round(step * 0.8, 1)}" '
                f'height="{height}" fill="{BAR}"/>'
            )
        points.append(f"{middle},{at(value)}")
    if not bars and points:
        made.append(f'<polyline points="{" ".join(points)}" fill="none" stroke="{LINE}" stroke-width="2"/>')
    return made
